"""The vote graph of vote-k: who votes for whom, and scores that follow the picks."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numba
import numpy as np

from icl_select.types import BoolArray, FloatArray, IntArray

__all__ = ["Votes", "cast_votes", "count_pick"]


@dataclass(frozen=True, eq=False)
class Votes:
    """State of the vote; the arrays change with every pick.

    ``score(u)`` is the sum of ``weight[v]`` over the in-voters v of u, where ``weight[v]`` is
    ``powers[voted[v]]``, or 0 once v itself is picked. Terms are added in ascending v in float64: ties are
    frequent, and published ties hang on that order.
    """

    neighbours: IntArray  # (n, k) rows that v votes for
    start: IntArray  # (n + 1,) in-voters of u are voters[start[u]:start[u + 1]]
    voters: IntArray  # (n * k,) ascending within each u
    order: IntArray  # (n,) rows from first to last among equal scores
    powers: FloatArray  # (picks + 1,) rho ** -t
    voted: IntArray  # (n,) number of picked rows that v voted for
    weight: FloatArray  # (n,)
    scores: FloatArray  # (n,)
    picked: BoolArray  # (n,)

    def best(self) -> tuple[int, float]:
        """Return the free row of highest score, ties to the earlier in ``order``, and that score."""
        ranked = np.where(self.picked, -1.0, self.scores)[self.order]
        row = int(self.order[np.argmax(ranked)])
        return row, float(self.scores[row])

    def pick(self, row: int, *, discount: bool = True) -> None:
        """Take `row` out of the vote; with `discount`, its in-voters lose weight."""
        count_pick(
            row,
            discount,
            self.neighbours,
            self.start,
            self.voters,
            self.powers,
            self.voted,
            self.weight,
            self.scores,
            self.picked,
        )


def cast_votes(neighbours: IntArray, rho: float, picks: int) -> Votes:
    """Let every row vote for its neighbours (most similar first in `neighbours`) before any pick."""
    n = len(neighbours)
    start, voters, first = _in_voters(neighbours)
    received = np.diff(start)
    return Votes(
        neighbours=neighbours,
        start=start,
        voters=voters,
        order=np.lexsort((first, -received)),
        powers=np.array([float(rho) ** -t for t in range(picks + 1)]),
        voted=np.zeros(n, dtype=np.int64),
        weight=np.ones(n),
        scores=received.astype(np.float64),
        picked=np.zeros(n, dtype=np.bool_),
    )


@numba.njit(cache=True, nogil=True)
def _in_voters(neighbours: Any) -> Any:
    """Transpose the graph; ``first[u]`` is the time of u's first vote, voters in turn, least similar first."""
    n, k = neighbours.shape
    start = np.zeros(n + 1, dtype=np.int64)
    for v in range(n):
        for rank in range(k):
            start[neighbours[v, rank] + 1] += 1
    for u in range(n):
        start[u + 1] += start[u]
    fill = start[:-1].copy()
    voters = np.empty(n * k, dtype=np.int64)
    first = np.arange(n * k, n * k + n)
    for v in range(n):
        for rank in range(k - 1, -1, -1):
            u = neighbours[v, rank]
            if fill[u] == start[u]:
                first[u] = v * k + (k - 1 - rank)
            voters[fill[u]] = v
            fill[u] += 1
    return start, voters, first


@numba.njit(cache=True, nogil=True)
def count_pick(
    row: int,
    discount: bool,
    neighbours: Any,
    start: Any,
    voters: Any,
    powers: Any,
    voted: Any,
    weight: Any,
    scores: Any,
    picked: Any,
) -> None:
    """Apply one pick to the arrays of :class:`Votes`, re-adding only the scores that it touches."""
    n, k = neighbours.shape
    picked[row] = True
    weight[row] = 0.0
    touched = np.zeros(n, dtype=np.bool_)
    for rank in range(k):
        touched[neighbours[row, rank]] = True
    if discount:
        for pos in range(start[row], start[row + 1]):
            v = voters[pos]
            voted[v] += 1
            if not picked[v]:
                weight[v] = powers[voted[v]]
                for rank in range(k):
                    touched[neighbours[v, rank]] = True
    for u in range(n):
        if touched[u] and not picked[u]:
            total = 0.0
            for pos in range(start[u], start[u + 1]):
                total += weight[voters[pos]]
            scores[u] = total
