"""Pairs that matter, kept while the pool grows: which rows a candidate may cover better than the labelled rows do.

A pair is kept where its bound is above what covers the row already. Coverage only grows, so a pair that does not
matter never will again; and a new row adds pairs and changes none. All that has to be computed is new rows against
all.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numba
import numpy as np
import numpy.typing as npt

from icl_select.types import BoolArray, IntArray

__all__ = ["KeptPairs", "Strip", "keep"]

I32 = npt.NDArray[np.int32]
U16 = npt.NDArray[np.uint16]


class Strip(NamedTuple):
    """Pairs of the candidates from `first` on: those of the t-th are ``starts[t]`` to ``starts[t + 1]``."""

    first: int
    starts: IntArray
    rows: I32
    bounds: U16


def keep(tile: U16, first: int, low: I32, free: BoolArray, *, own: bool) -> Strip:
    """List the pairs of a tile that matter.

    The tile holds bounds of the rows from `first` on (its height) against all rows before them and themselves (its
    width). With `own` its rows are the candidates; else its columns before `first` are, and its rows are covered.
    """
    if own:
        starts, rows, bounds = _keep_rows(tile, low, free[first : first + len(tile)])
        return Strip(first, starts, rows, bounds)
    starts, rows, bounds = _keep_columns(tile, first, low, free)
    return Strip(0, starts, rows, bounds)


@dataclass(frozen=True, eq=False)
class KeptPairs:
    """Pairs by candidate, six bytes each.

    Attributes
    ----------
    starts : ndarray of shape (n + 1,), int64
        Pairs of candidate c are ``starts[c]`` to ``starts[c + 1]``; none where it is labelled.
    rows : ndarray of shape (p,), int32
        The rows that may be covered better.
    bounds : ndarray of shape (p,), uint16
        Kernel values from above.
    """

    starts: IntArray
    rows: I32
    bounds: U16

    @staticmethod
    def none() -> KeptPairs:
        return KeptPairs(np.zeros(1, np.int64), np.empty(0, np.int32), np.empty(0, np.uint16))

    def __len__(self) -> int:
        return len(self.rows)

    def joined(self, strips: Sequence[Strip], n: int) -> KeptPairs:
        """With more pairs, for now `n` candidates."""
        parts = [Strip(0, self.starts, self.rows, self.bounds), *strips]
        counts = np.zeros(n, dtype=np.int64)
        for part in parts:
            counts[part.first : part.first + len(part.starts) - 1] += np.diff(part.starts)
        starts = np.zeros(n + 1, dtype=np.int64)
        np.cumsum(counts, out=starts[1:])
        rows, bounds, at = np.empty(starts[-1], np.int32), np.empty(starts[-1], np.uint16), starts[:-1].copy()
        for part in parts:
            _append(part.starts, part.rows, part.bounds, at[part.first :], rows, bounds)
        return KeptPairs(starts, rows, bounds)

    def above(self, low: I32, free: BoolArray) -> KeptPairs:
        """The pairs that still matter."""
        return KeptPairs(*_above(self.starts, self.rows, self.bounds, low, free))

    def translated(self, table: U16) -> KeptPairs:
        """The same pairs in another unit, which `table` gives for each bound."""
        return KeptPairs(self.starts, self.rows, table[self.bounds])

    def row(self, candidate: int) -> tuple[IntArray, I32]:
        """The rows that a candidate may cover better, and the bounds."""
        own = slice(self.starts[candidate], self.starts[candidate + 1])
        return self.rows[own].astype(np.int64), self.bounds[own].astype(np.int32)

    def gain(self, candidate: int, low: I32, units: I32) -> int:
        """Bound of what a candidate adds; all rows count alike, so `units` are not read."""
        return int(_gain(self.starts, self.rows, self.bounds, low, candidate))

    def gains(self, low: I32) -> IntArray:
        """Bounds of what every candidate adds."""
        out = np.empty(len(self.starts) - 1, dtype=np.int64)
        _gains(self.starts, self.rows, self.bounds, low, out)
        return out


@numba.njit(cache=True, nogil=True)
def _keep_rows(tile: Any, low: Any, free: Any) -> Any:
    height, width = tile.shape
    starts = np.zeros(height + 1, dtype=np.int64)
    for r in range(height):
        row, count = tile[r], 0
        if free[r]:
            for c in range(width):
                count += np.int32(row[c]) > low[c]
        starts[r + 1] = starts[r] + count
    rows, bounds = np.empty(starts[-1], np.int32), np.empty(starts[-1], np.uint16)
    for r in range(height):
        at, row = starts[r], tile[r]
        if free[r]:
            for c in range(width):
                if np.int32(row[c]) > low[c]:
                    rows[at], bounds[at] = c, row[c]
                    at += 1
    return starts, rows, bounds


@numba.njit(cache=True, nogil=True)
def _keep_columns(tile: Any, first: int, low: Any, free: Any) -> Any:
    counts = np.zeros(first, dtype=np.int32)
    for r in range(tile.shape[0]):
        row, least = tile[r], low[first + r]
        for c in range(first):
            counts[c] += np.int32(row[c]) > least
    starts = np.zeros(first + 1, dtype=np.int64)
    for c in range(first):
        starts[c + 1] = starts[c] + (counts[c] if free[c] else 0)
    rows, bounds = np.empty(starts[-1], np.int32), np.empty(starts[-1], np.uint16)
    at = starts[:-1].copy()
    for r in range(tile.shape[0]):
        row, least = tile[r], low[first + r]
        for c in range(first):
            if np.int32(row[c]) > least and free[c]:
                rows[at[c]], bounds[at[c]] = first + r, row[c]
                at[c] += 1
    return starts, rows, bounds


@numba.njit(cache=True, nogil=True)
def _append(starts: Any, rows: Any, bounds: Any, at: Any, out_rows: Any, out_bounds: Any) -> None:
    for t in range(starts.size - 1):
        for place in range(starts[t], starts[t + 1]):
            out_rows[at[t]], out_bounds[at[t]] = rows[place], bounds[place]
            at[t] += 1


@numba.njit(cache=True, nogil=True)
def _above(starts: Any, rows: Any, bounds: Any, low: Any, free: Any) -> Any:
    n = starts.size - 1
    new = np.zeros(n + 1, dtype=np.int64)
    for c in range(n):
        count = 0
        if free[c]:
            for t in range(starts[c], starts[c + 1]):
                count += np.int32(bounds[t]) > low[rows[t]]
        new[c + 1] = new[c] + count
    out_rows, out_bounds = np.empty(new[-1], np.int32), np.empty(new[-1], np.uint16)
    at = 0
    for c in range(n):
        if free[c]:
            for t in range(starts[c], starts[c + 1]):
                if np.int32(bounds[t]) > low[rows[t]]:
                    out_rows[at], out_bounds[at] = rows[t], bounds[t]
                    at += 1
    return new, out_rows, out_bounds


@numba.njit(cache=True, nogil=True)
def _gain(starts: Any, rows: Any, bounds: Any, low: Any, candidate: int) -> Any:
    total = np.int64(0)
    for t in range(starts[candidate], starts[candidate + 1]):
        total += max(np.int32(bounds[t]) - low[rows[t]], 0)
    return total


@numba.njit(cache=True, nogil=True)
def _gains(starts: Any, rows: Any, bounds: Any, low: Any, out: Any) -> None:
    for c in range(out.size):
        out[c] = _gain(starts, rows, bounds, low, c)
