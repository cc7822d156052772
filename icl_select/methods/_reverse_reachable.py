"""Influence under the independent cascade, from reverse-reachable sets.

A reverse-reachable (RR) set holds the rows from which a random root is reached when every edge is live with
its probability. A set of seeds S reaches ``n * P(S meets a random RR set)`` rows in expectation, so picking
seeds is covering RR sets.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numba
import numpy as np

from icl_select.types import BoolArray, FloatArray, IntArray

__all__ = ["RRSets", "certify", "cover", "hits", "in_edges", "sample"]

_STEP = np.uint64(0x9E3779B97F4A7C15)
_MIX_1 = np.uint64(0xBF58476D1CE4E5B9)
_MIX_2 = np.uint64(0x94D049BB133111EB)


@dataclass(frozen=True, eq=False)
class RRSets:
    """RR sets one after the other: set i is ``members[start[i]:start[i + 1]]``, its root first."""

    start: IntArray
    members: Any  # int32

    def __len__(self) -> int:
        return len(self.start) - 1


def in_edges(targets: IntArray, probabilities: FloatArray) -> tuple[IntArray, IntArray, FloatArray]:
    """Turn (n, k) out-edges into in-edges: ``sources[start[u]:start[u + 1]]`` and their probabilities."""
    n, k = targets.shape
    flat = targets.ravel()
    order = np.argsort(flat, kind="stable")
    start = np.zeros(n + 1, dtype=np.int64)
    np.cumsum(np.bincount(flat, minlength=n), out=start[1:])
    sources = np.repeat(np.arange(n), k)[order]
    return start, sources, probabilities.ravel()[order]


def sample(edges: tuple[IntArray, IntArray, FloatArray], n_sets: int, seed: int) -> RRSets:
    """Draw `n_sets` independent RR sets; set i depends on `seed` and i only."""
    start, members = _sample(*edges, n_sets, np.uint64(seed))
    return RRSets(start, members)


@numba.njit(cache=True, nogil=True)
def _mix(state: Any) -> Any:
    """Splitmix64: a good 64-bit hash of a counter."""
    z = (state ^ (state >> np.uint64(30))) * _MIX_1
    z = (z ^ (z >> np.uint64(27))) * _MIX_2
    return z ^ (z >> np.uint64(31))


@numba.njit(cache=True, nogil=True)
def _unit(word: Any) -> float:
    return np.float64(word >> np.uint64(11)) * 2.0**-53


@numba.njit(cache=True, nogil=True)
def _sample(in_start: Any, sources: Any, probabilities: Any, n_sets: int, seed: Any) -> Any:
    n = len(in_start) - 1
    start = np.zeros(n_sets + 1, dtype=np.int64)
    members = np.empty(n + 4 * n_sets, dtype=np.int32)
    seen = np.full(n, -1, dtype=np.int64)
    end = 0
    for i in range(n_sets):
        state = _mix(seed + np.uint64(i + 1) * _STEP)
        state += _STEP
        root = min(n - 1, int(_unit(_mix(state)) * n))
        if end + n > len(members):
            members = _grown(members, end + n)
        head = end
        members[end] = root
        seen[root] = i
        end += 1
        while head < end:
            u = members[head]
            head += 1
            for edge in range(in_start[u], in_start[u + 1]):
                v = sources[edge]
                if seen[v] != i:
                    state += _STEP
                    if _unit(_mix(state)) < probabilities[edge]:
                        members[end] = v
                        seen[v] = i
                        end += 1
        start[i + 1] = end
    return start, members[:end].copy()


@numba.njit(cache=True, nogil=True)
def _grown(members: Any, needed: int) -> Any:
    larger = np.empty(max(needed, len(members) * 3 // 2), dtype=np.int32)
    larger[: len(members)] = members
    return larger


def cover(sets: RRSets, n: int, given: IntArray, budget: int) -> tuple[IntArray, IntArray, int]:
    """Greedily pick rows that meet most sets not met before; ties to the lower index.

    The count of every row is kept exact as sets get covered, which costs one visit of each set in all. Picks
    are those of the lazy greedy (CELF), with no row ever evaluated twice.

    Returns
    -------
    indices, counts : ndarray of shape (budget,)
        Picks, and the sets that each of them was first to meet; never increasing.
    ceiling : int
        Bound from submodularity on the sets, beyond those of `given`, that any `budget` rows meet.
    """
    counts = np.bincount(sets.members, minlength=n)
    node_start = np.zeros(n + 1, dtype=np.int64)
    np.cumsum(counts, out=node_start[1:])
    node_sets = _transpose(sets.start, sets.members, node_start)
    covered = np.zeros(len(sets), dtype=np.bool_)
    for row in given.tolist():
        _take(row, sets.start, sets.members, node_start, node_sets, covered, counts)
    free = np.ones(n, dtype=np.bool_)
    free[given] = False
    indices, firsts = np.empty(budget, dtype=np.int64), np.empty(budget, dtype=np.int64)
    reached, ceiling = 0, _top(counts, budget)
    for step in range(budget):
        row = int(np.argmax(np.where(free, counts, -1)))
        indices[step], firsts[step] = row, counts[row]
        reached += int(counts[row])
        free[row] = False
        _take(row, sets.start, sets.members, node_start, node_sets, covered, counts)
        ceiling = min(ceiling, reached + _top(counts, budget))
    return indices, firsts, ceiling


def _top(counts: IntArray, budget: int) -> int:
    """Sum of the `budget` largest counts (rows taken before count 0)."""
    if budget >= len(counts):
        return int(counts.sum())
    return int(np.partition(counts, len(counts) - budget)[len(counts) - budget :].sum())


@numba.njit(cache=True, nogil=True)
def _transpose(start: Any, members: Any, node_start: Any) -> Any:
    fill = node_start[:-1].copy()
    node_sets = np.empty(len(members), dtype=np.int32)
    for i in range(len(start) - 1):
        for pos in range(start[i], start[i + 1]):
            row = members[pos]
            node_sets[fill[row]] = i
            fill[row] += 1
    return node_sets


@numba.njit(cache=True, nogil=True)
def _take(row: int, start: Any, members: Any, node_start: Any, node_sets: Any, covered: Any, counts: Any) -> None:
    """Cover the open sets of `row`, taking them off the counts of their members."""
    for at in range(node_start[row], node_start[row + 1]):
        i = node_sets[at]
        if not covered[i]:
            covered[i] = True
            for pos in range(start[i], start[i + 1]):
                counts[members[pos]] -= 1


def hits(sets: RRSets, rows: BoolArray) -> BoolArray:
    """Say of every set whether it holds one of the rows marked in `rows`."""
    return np.logical_or.reduceat(rows[sets.members], sets.start[:-1])  # no set is empty


def certify(met: int, ceiling: int, n_sets: int, delta: float) -> float:
    """Share of the best possible influence that is certain with probability ``1 - delta``.

    `met` counts the sets that the picks meet in a collection drawn independently of the picks, `ceiling`
    bounds what any equally many rows meet in the collection that the picks were made on, both of `n_sets`
    sets. Each side uses the martingale bound of online influence maximisation at ``delta / 2``.
    """
    a = math.log(2 / delta)
    lower = (math.sqrt(met + 2 * a / 9) - math.sqrt(a / 2)) ** 2 - a / 18 if met > 0 else 0.0
    upper = min(float(n_sets), (math.sqrt(ceiling + a / 2) + math.sqrt(a / 2)) ** 2)
    return min(1.0, max(0.0, lower) / upper)
