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

from icl_select.kernels import Kernel
from icl_select.methods._exact import (
    buffers,
    cover,
    exact_gain,
    from_grid,
    inverse_norms,
    make_points,
    next_candidate,
    start_state,
)
from icl_select.methods._screen import Screen, add_columns, subtract
from icl_select.methods._streamed import greedy_streamed
from icl_select.types import FloatArray, IntArray, Progress

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
    progress: Progress | None = None,
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
    progress : callable, optional
        Told how far the work is.

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
    matrix = screen.matrix(progress) if len(x) <= stored_rows else None
    for row in given:
        bounds = screen.rows(np.array([row]))[0] if matrix is None else matrix[row]
        cover(points, state, row, bounds, *buffers(len(x)))
    if matrix is not None:
        screened = np.zeros(len(x), dtype=state.lazy.dtype)
        add_columns(matrix, state.low, state.units, screened)
        evaluations = _greedy_stored(points, state, matrix, screened, indices, gains, *buffers(len(x)))
    else:
        evaluations = greedy_streamed(points, state, screen, indices, gains, progress)
    unit = scale * (1.0 - points.base) / points.grid
    floor = scale * points.base * float(points.weight.sum())  # what any first row covers
    added = gains * unit
    if not len(given):
        added[0] += floor
    return Cover(indices, added, floor + unit * float(np.dot(points.weight, state.cover)), evaluations)


@numba.njit(cache=True, nogil=True)
def _greedy_stored(
    points: Any, state: Any, matrix: Any, screened: Any, indices: Any, gains: Any, changed: Any, before: Any
) -> int:
    evaluations = 0
    for step in range(indices.size):
        best, winner = np.int64(-1), -1
        while True:
            candidate = next_candidate(state, screened, step, best, winner)
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
        subtract(matrix, rows, before[:count], state.low[rows], state.units[rows], screened)
    return evaluations
