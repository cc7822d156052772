"""Exact greedy on a pool that grows, given rows that are labelled, without going over the old pairs again.

Two things are kept: what the labelled rows cover of each row, as a kernel value in float64, and the pairs that may
still matter (:mod:`._kept_pairs`). Neither depends on the rest of the pool. The grid of exact values does, by where it
begins and how fine it is. So coverage is put on the grid for each pick: rounding never swaps two values, hence the
largest value rounded is the largest of the values rounded.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numba
import numpy as np
import numpy.typing as npt

from icl_select.kernels import Kernel
from icl_select.methods._exact import (
    Points,
    State,
    inverse_norms,
    make_points,
    on_grid,
    similarity,
    start_state,
)
from icl_select.methods._kept_pairs import KeptPairs, Strip, keep
from icl_select.methods._recomputed import batch_rows
from icl_select.methods._screen import FULL, TILE, Screen
from icl_select.methods._streamed import greedy_on_pairs
from icl_select.types import BoolArray, FloatArray, IntArray

__all__ = ["PAIRS_A_ROW", "Growing", "Picked"]

PAIRS_A_ROW = 1_024
"""Pairs that are kept for each row of the pool at most, on average; six bytes each."""

# Rows of which the number of pairs that matter is counted before all are.
_SAMPLED = 128
# Bounds and coverage are rounded apart by this much of a unit: more than float64 loses where the unit is smallest.
_MARGIN = 1e-4


class Picked(NamedTuple):
    """Picks, what each adds to the coverage summed over all rows, the coverage with them, and exact evaluations."""

    indices: IntArray
    gains: FloatArray
    total: float
    evaluations: int


class Growing:
    """Rows, what covers them, and the pairs that matter; arguments are not checked.

    Attributes
    ----------
    x : ndarray of shape (n, d)
        All rows, of any norm but 0.
    inverse : ndarray of shape (n,), float64
        One over the norm of each.
    covered : ndarray of shape (n,), float64
        Kernel of each row and the nearest labelled row; 0 while none is labelled.
    labelled : ndarray of shape (n,), bool
    pairs : KeptPairs or None
        None while nothing is labelled, before the first pick, and where they are too many.
    """

    def __init__(self, x: FloatArray, kernel: Kernel, *, pairs_a_row: int = PAIRS_A_ROW) -> None:
        self.kernel = kernel
        self.pairs_a_row = pairs_a_row
        self.x = x
        self.inverse = inverse_norms(x)
        self.covered = np.zeros(len(x))
        self.labelled: BoolArray = np.zeros(len(x), dtype=bool)
        self.pairs: KeptPairs | None = None
        # Of any pool whatever: kept bounds outlive the pool that they were made in.
        self._base = min(float(kernel(np.array([-1.0]))[0]), 1.0 - 1e-6)
        self._screen: Screen | None = None

    def add(self, rows: FloatArray) -> None:
        """Append rows: time O(m (n + m) d) for m rows where pairs are kept, else that of the labelled rows alone."""
        before = len(self.x)
        self.x = np.concatenate([self.x, rows])
        self.inverse = np.concatenate([self.inverse, inverse_norms(rows)])
        self.covered = np.concatenate([self.covered, np.zeros(len(rows))])
        self.labelled = np.concatenate([self.labelled, np.zeros(len(rows), dtype=bool)])
        self._screen = None
        self._cover(np.flatnonzero(self.labelled), before)
        if self.pairs is not None:
            self.pairs = self._with_pairs_from(before, self.pairs)

    def label(self, indices: IntArray) -> None:
        """Let rows cover from now on: time O(g n d) for g rows."""
        self.labelled[indices] = True
        self._cover(indices, 0)
        if self.pairs is not None:
            self.pairs = self.pairs.above(self._low(), ~self.labelled)

    def prepare(self) -> bool:
        """Have the pairs that matter, made in half a product of all pairs if they are not kept; or say that they are
        too many."""
        if self.pairs is None and self.labelled.any() and self._pairs_expected() <= self._most_pairs:
            self.pairs = self._with_pairs_from(0, KeptPairs.none())
        return self.pairs is not None

    def pick(self, budget: int) -> Picked:
        """Picks of exact greedy. Call :meth:`prepare` first. No product of rows is computed."""
        assert self.pairs is not None
        screen, points = self._pool_screen(), self._points()
        state = self._state(points)
        pairs = self.pairs.translated(_table(self._base, screen.base, np.arange(FULL + 1)))
        indices, gains = np.empty((2, budget), dtype=np.int64)
        evaluations = greedy_on_pairs(pairs, points, state, pairs.gains(state.low), indices, gains, 0, None)
        unit = (1.0 - points.base) / points.grid
        floor = points.base * float(points.weight.sum())
        total = floor + unit * float(np.dot(points.weight, state.cover))
        return Picked(indices, gains * unit, total, evaluations)

    @property
    def _most_pairs(self) -> int:
        return self.pairs_a_row * len(self.x)

    def _pool_screen(self) -> Screen:
        if self._screen is None:
            self._screen = Screen(self.x, self.inverse, self.kernel)
        return self._screen

    def _points(self) -> Points:
        return make_points(self.x, self.inverse, self.kernel, self._pool_screen().base, None)[0]

    def _state(self, points: Points) -> State:
        """The state after all labelled rows, on the grid of this pool."""
        state = start_state(len(self.x), points, np.flatnonzero(self.labelled), weighted=False)
        _to_grid(points, self.covered, state.cover)
        state.low[:] = (state.cover * FULL) >> state.bits
        return state

    def _low(self) -> npt.NDArray[np.int32]:
        """What covers each row, from below, in the unit of the kept bounds."""
        low = np.empty(len(self.x), dtype=np.int32)
        _lower(self.covered, self._base, low)
        return low

    def _bounds(self, rows: Any, first: int, last: int, table: Any) -> Any:
        """Bounds of some rows against those from `first` to `last`, in the unit that is kept."""
        out = np.empty((rows.stop - rows.start if isinstance(rows, slice) else len(rows), last - first), np.uint16)
        width = max(TILE, TILE * TILE // max(1, len(out)))
        for start in range(first, last, width):
            columns = slice(start, min(last, start + width))
            self._pool_screen().tile(rows, columns, table, out[:, columns.start - first : columns.stop - first])
        return out

    def _upper(self) -> Any:
        screen = self._pool_screen()
        return _table(screen.base, self._base, screen.upper)

    def _cover(self, picks: IntArray, first: int) -> None:
        """Let rows cover those from `first` on."""
        n = len(self.x)
        if not len(picks):
            return
        points, table, low = self._points(), self._upper(), self._low()
        step = batch_rows(n)
        for start in range(0, len(picks), step):
            part = picks[start : start + step]
            _raise(points, part, self._bounds(part, first, n, table), first, low, self.covered, self._base)

    def _pairs_expected(self) -> float:
        n = len(self.x)
        some = np.sort(np.random.default_rng(0).choice(n, min(n, _SAMPLED), replace=False))
        bounds = self._bounds(some, 0, n, self._upper())
        return float(np.count_nonzero(bounds > self._low()) / len(some) * n)

    def _with_pairs_from(self, first: int, pairs: KeptPairs) -> KeptPairs | None:
        """Add the pairs of the rows from `first` on with all before them and among themselves; None if too many."""
        n, table, low, free = len(self.x), self._upper(), self._low(), ~self.labelled
        strips: list[Strip] = []
        count, step = len(pairs), batch_rows(n)
        for start in range(first, n, step):
            stop = min(n, start + step)
            tile = self._bounds(slice(start, stop), 0, stop, table)
            strips += [keep(tile, start, low, free, own=own) for own in (True, False)]
            count += len(strips[-1].rows) + len(strips[-2].rows)
            if count > self._most_pairs:
                return None
        return pairs.joined(strips, n)


def _table(base: float, target: float, bounds: Any) -> Any:
    """Bounds above a kernel value `base`, from above, as bounds above another."""
    values = base + bounds * ((1.0 - base) / FULL)
    return np.clip(np.ceil((values - target) * (FULL / (1.0 - target)) + _MARGIN), 0, FULL).astype(np.uint16)


@numba.njit(cache=True, nogil=True)
def _lower_one(value: float, base: float) -> Any:
    # Full coverage is told from nearly full: what is fully covered matters to nobody.
    if value >= 1.0:
        return np.int32(FULL)
    return np.int32(min(max(np.floor((value - base) * (FULL / (1.0 - base)) - _MARGIN), 0.0), FULL - 1.0))


@numba.njit(cache=True, nogil=True)
def _lower(covered: Any, base: float, out: Any) -> None:
    for i in range(out.size):
        out[i] = _lower_one(covered[i], base)


@numba.njit(cache=True, nogil=True)
def _raise(points: Any, picks: Any, bounds: Any, first: int, low: Any, covered: Any, base: float) -> None:
    for t in range(picks.size):
        for c in range(bounds.shape[1]):
            i = first + c
            if np.int32(bounds[t, c]) > low[i]:
                value = similarity(points, picks[t], i)
                if value > covered[i]:
                    covered[i] = value
                    low[i] = max(low[i], _lower_one(value, base))


@numba.njit(cache=True, nogil=True)
def _to_grid(points: Any, values: Any, out: Any) -> None:
    for i in range(out.size):
        out[i] = on_grid(points, values[i])
