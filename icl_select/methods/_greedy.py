"""Exact greedy maximisation of weighted facility location, shared by the methods that cover the pool.

``F(L) = sum_i w_i max_{l in L} k(i, l)``. Two numbers stand for every kernel value:

* an upper bound in 16 bits (:mod:`._screen`), read by the thousands of sums that rank the candidates;
* the value itself, computed in float64 where a pick depends on it and rounded to a grid fine enough
  (2^-46 below 65,000 rows) that sums over the pool are exact in 64-bit integers.

A candidate wins when its exact gain is at least every other candidate's bound. So the picks are those of
greedy on exact values; they depend neither on BLAS nor on the number of threads, gains that are equal in exact
arithmetic compare equal, and a tie goes to the lowest index.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numba
import numpy as np
import numpy.typing as npt

from icl_select.kernels import Kernel
from icl_select.methods._exact import (
    Points,
    State,
    cover,
    exact_gain,
    from_grid,
    inverse_norms,
    make_points,
    start_state,
    to_grid,
)
from icl_select.methods._screen import CHUNK, Screen, add_columns, add_rises
from icl_select.types import FloatArray, IntArray

__all__ = ["STORED_ROWS", "Cover", "facility_location"]

STORED_ROWS = 30_000
"""Largest pool for which all pairs are held, at two bytes a pair."""


@dataclass(frozen=True, eq=False)
class Cover:
    """What greedy picked.

    Attributes
    ----------
    indices : ndarray of shape (budget,), int64
        Rows in pick order.
    gains : ndarray of shape (budget,), float64
        Coverage that each pick added, summed over the weighted rows.
    total : float
        Coverage by the given and the picked rows together.
    evaluations : int
        How many gains were computed exactly.
    """

    indices: IntArray
    gains: FloatArray
    total: float
    evaluations: int


def facility_location(
    x: FloatArray,
    budget: int,
    *,
    kernel: Kernel,
    given: IntArray,
    weights: FloatArray | None = None,
    stored_rows: int = STORED_ROWS,
) -> Cover:
    """Pick `budget` rows greedily so that every row is close to a picked or given one.

    Parameters
    ----------
    x : ndarray of shape (n, d), float32 or float64
        Rows of any norm but 0; only directions count.
    budget : int
        Number of rows to pick, at most ``n - len(given)``; assumed checked.
    kernel : Kernel
        Similarity of two rows, from 0 to 1.
    given : ndarray of shape (g,), int64
        Rows that cover from the start and are never picked.
    weights : ndarray of shape (n,), optional
        What covering each row is worth, from 0 up; 1 for all if left out.
    stored_rows : int
        Up to this many rows the bounds of all pairs are held, at ``2 n^2`` bytes; above, they are computed again
        where needed, at several times the cost.

    Returns
    -------
    Cover
        Gains are exact to ``2^-46`` per row without weights, ``2^-38`` with.
    """
    inverse = inverse_norms(x)
    screen = Screen(x, inverse, kernel)
    points, scale = make_points(x, inverse, kernel, screen.base, weights)
    state = start_state(len(x), points, given, weighted=weights is not None)
    indices = np.empty(budget, dtype=np.int64)
    gains = np.empty(budget, dtype=np.int64)
    matrix = screen.matrix() if len(x) <= stored_rows else None
    for row in given:
        bounds = screen.rows(np.array([row]))[0] if matrix is None else matrix[row]
        cover(points, state, row, bounds, *_buffers(len(x)))
    if matrix is not None:
        screened = np.zeros(len(x), dtype=state.lazy.dtype)
        add_columns(matrix, state.low, state.units, screened)
        evaluations = _greedy_stored(points, state, matrix, screened, indices, gains, *_buffers(len(x)))
    else:
        evaluations = _greedy_streamed(points, state, screen, indices, gains)
    unit = scale * (1.0 - points.base) / points.grid
    floor = scale * points.base * float(points.weight.sum())  # what any first row covers
    added = gains * unit
    if not len(given):
        added[0] += floor
    return Cover(indices, added, floor + unit * float(np.dot(points.weight, state.cover)), evaluations)


def _buffers(n: int) -> tuple[IntArray, npt.NDArray[np.int32]]:
    return np.empty(n, dtype=np.int64), np.empty(n, dtype=np.int32)


@numba.njit(cache=True, nogil=True)
def _subtract(matrix: Any, which: Any, old: Any, new: Any, units: Any, screened: Any) -> None:
    """Take from every candidate what it lost when the coverage of rows rose from `old` to `new`.

    ``matrix[which[t]]`` holds the kernel of the t-th such row and every candidate.
    """
    for start in range(0, screened.size, CHUNK):
        part = screened[start : start + CHUNK]
        for t in range(which.size):
            row = matrix[which[t], start : start + CHUNK]
            low, high, unit = old[t], new[t], units[t]
            for c in range(part.size):
                part[c] -= unit * (min(max(np.int32(row[c]), low), high) - low)


@numba.njit(cache=True, nogil=True)
def _next_candidate(state: Any, screened: Any, step: int, best: int, winner: int) -> int:
    """The row with the largest bound among those not evaluated in this step, or -1 if none can win."""
    top, found = screened[0] * 0 - 1, -1
    for c in range(screened.size):
        bound = min(screened[c], state.lazy[c])
        if bound > top and state.seen[c] != step:
            top, found = bound, c
    if found < 0:
        return -1
    limit = to_grid(top, state)
    return -1 if limit < best or (limit == best and found > winner) else found


@numba.njit(cache=True, nogil=True)
def _greedy_stored(
    points: Any, state: Any, matrix: Any, screened: Any, indices: Any, gains: Any, changed: Any, before: Any
) -> int:
    evaluations = 0
    for step in range(indices.size):
        best, winner = np.int64(-1), -1
        while True:
            candidate = _next_candidate(state, screened, step, best, winner)
            if candidate < 0:
                break
            gain = exact_gain(points, state, candidate, matrix[candidate])
            evaluations += 1
            state.seen[candidate] = step
            state.lazy[candidate] = from_grid(gain, state)
            if gain > best or (gain == best and candidate < winner):
                best, winner = gain, candidate
        indices[step], gains[step] = winner, best
        state.lazy[winner] = -1
        count = cover(points, state, winner, matrix[winner], changed, before)
        rows = changed[:count]
        _subtract(matrix, rows, before[:count], state.low[rows], state.units[rows], screened)
    return evaluations


def _greedy_streamed(points: Points, state: State, screen: Screen, indices: Any, gains: Any) -> int:
    """The same picks without an (n, n) array.

    Screened gains stay bounds from above, but loosen with every pick; those at the top are computed again.
    """
    screened = screen.column_sums(state.low, state.units)
    fresh = np.zeros(len(screened), dtype=np.int64)
    changed, before = _buffers(len(screened))
    evaluations = 0
    for step in range(len(indices)):
        best, winner, batch = -1, -1, 8
        while (candidate := _next_candidate(state, screened, step, best, winner)) >= 0:
            if fresh[candidate] < step:
                batch = min(2 * batch, _batch(len(screened)))
                _refresh(screen, state, screened, fresh, step, batch)
                continue
            gain = exact_gain(points, state, candidate, screen.rows(np.array([candidate]))[0])
            evaluations += 1
            state.seen[candidate] = step
            state.lazy[candidate] = from_grid(gain, state)
            if gain > best or (gain == best and candidate < winner):
                best, winner = gain, candidate
        indices[step], gains[step] = winner, best
        state.lazy[winner] = -1
        count = cover(points, state, winner, screen.rows(np.array([winner]))[0], changed, before)
        if step + 1 < len(indices):
            _lower(screen, state, changed[:count], before[:count], screened)
    return evaluations


def _lower(screen: Screen, state: State, changed: IntArray, before: Any, screened: Any) -> None:
    """Lower the screened gains after a pick: all anew, for half a product, or by the rows that changed."""
    n = len(screened)
    if 2 * len(changed) > n:
        screened[:] = screen.column_sums(state.low, state.units)
        return
    step = _batch(n)
    for start in range(0, len(changed), step):
        rows = changed[start : start + step]
        bounds = screen.rows(rows, lower=True)
        old = before[start : start + step]
        _subtract(bounds, np.arange(len(rows)), old, state.low[rows], state.units[rows], screened)


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


def _batch(n: int) -> int:
    """Rows whose bounds are held at once: at most 64 MB of them."""
    return max(1, min(512, 2**25 // n))
