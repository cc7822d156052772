"""Greedy above the number of rows whose pairs can be held, where even the pairs that matter are too many.

Bounds are computed again for the rows whose coverage rose and for the candidates near the top.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from icl_select.methods._exact import Points, State, buffers, cover, exact_gain, from_grid, next_candidate
from icl_select.methods._screen import Screen, add_rises, subtract
from icl_select.types import IntArray

__all__ = ["batch_rows", "greedy_recomputed"]


def greedy_recomputed(points: Points, state: State, screen: Screen, indices: Any, gains: Any, *, first: int = 0) -> int:
    """The same picks without an (n, n) array; `first` picks were made before.

    Screened gains stay bounds from above, but loosen with every pick; those at the top are computed again.
    """
    screened = screen.column_sums(state.low, state.units)
    fresh = np.full(len(screened), first, dtype=np.int64)
    changed, before = buffers(len(screened))
    evaluations = 0
    for place in range(len(indices)):
        step = first + place
        best, winner, batch = -1, -1, 8
        while (candidate := next_candidate(state, screened, step, best, winner)) >= 0:
            if fresh[candidate] < step:
                batch = min(2 * batch, batch_rows(len(screened)))
                _refresh(screen, state, screened, fresh, step, batch)
                continue
            gain = exact_gain(points, state, candidate, screen.rows(np.array([candidate]))[0])
            evaluations += 1
            state.seen[candidate] = step
            state.lazy[candidate] = from_grid(gain, state)
            if gain > best or (gain == best and candidate < winner):
                best, winner = gain, candidate
        indices[place], gains[place] = winner, best
        state.lazy[winner] = -1
        count = cover(points, state, winner, screen.rows(np.array([winner]))[0], changed, before)
        if place + 1 < len(indices):
            _lower(screen, state, changed[:count], before[:count], screened)
    return evaluations


def _lower(screen: Screen, state: State, changed: IntArray, before: Any, screened: Any) -> None:
    """Lower the screened gains after a pick: all anew, for half a product, or by the rows that changed."""
    n = len(screened)
    if 2 * len(changed) > n:
        screened[:] = screen.column_sums(state.low, state.units)
        return
    step = batch_rows(n)
    for start in range(0, len(changed), step):
        rows = changed[start : start + step]
        bounds = screen.rows(rows, lower=True)
        old = before[start : start + step]
        subtract(bounds, np.arange(len(rows)), old, state.low[rows], state.units[rows], screened)


def _refresh(screen: Screen, state: State, screened: Any, fresh: IntArray, step: int, batch: int) -> None:
    """Compute the bounds of the `batch` stale candidates at the top again."""
    bound = np.minimum(screened, state.lazy)
    bound[(fresh == step) | (state.seen == step)] = -1
    which = np.argpartition(bound, max(0, bound.size - batch))[-batch:]
    which = np.sort(which[bound[which] >= 0])
    sums = np.zeros(which.size, dtype=np.int64)
    add_rises(screen.rows(which), state.low, state.units, sums)
    screened[which] = sums
    fresh[which] = step


def batch_rows(n: int) -> int:
    """Rows whose bounds are held at once: at most 64 MB of them."""
    return max(1, min(512, 2**25 // n))
