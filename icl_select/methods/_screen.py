"""Upper bounds of kernel values as 16-bit integers: what the greedy loops read instead of exact values.

The squared distance of two unit rows is taken from their differences to the pool's mean, in single precision: its
error then shrinks with the spread of the pool. A bound belongs to a distance that is a little too small, by that
error in any order of summation and by the width of a table cell, and is rounded up. So it is never below the
exact value, whatever BLAS and however many threads computed it.
"""

from __future__ import annotations

from typing import Any

import numba
import numpy as np
import numpy.typing as npt

from icl_select._progress import telling
from icl_select._threads import each
from icl_select.kernels import Kernel
from icl_select.types import FloatArray, Progress

__all__ = ["CHUNK", "FULL", "TILE", "Screen", "add_columns", "add_rises", "mirror", "subtract"]

FULL = 65_535
CHUNK = 4096
"""Candidates handled at a time: their sums stay in the first-level cache."""

_CELLS = 1 << 16
TILE = 512
_BLOCK = 4096
_UNIT_ROUNDOFF = 2.0**-24

U16Array = npt.NDArray[np.uint16]


class Screen:
    """Bounds of the kernel between rows of `x`, stretched so that :attr:`base` is 0 and 1 is 65535.

    Parameters
    ----------
    x : ndarray of shape (n, d)
        Rows of any norm but 0.
    inverse : ndarray of shape (n,), float64
        One over the norm of each row.
    kernel : Kernel

    Attributes
    ----------
    base : float
        No two rows have a smaller kernel value.
    """

    def __init__(self, x: FloatArray, inverse: FloatArray, kernel: Kernel) -> None:
        self.y, squares = _centred(x, inverse)
        radius = max(float(squares.max()) * (1 + 1e-6), 1e-10)
        widest = 4.0 * radius
        self.base = min(float(kernel(np.array([1.0 - 0.5 * widest]))[0]), 1.0 - 1e-6)
        # Errors in units of radius * roundoff: the dot product in any order (2 d), rounding of the rows (8) and of
        # the sums below (at most 6 at the size of `widest`); 1e-13 for the exact values themselves.
        error = (2.02 * x.shape[1] + 64) * _UNIT_ROUNDOFF * radius + 1e-13
        cells = widest - np.arange(_CELLS + 1) * (widest / _CELLS)
        nearest = kernel(1.0 - 0.5 * np.maximum(cells - widest / _CELLS - error, 0.0))
        farthest = kernel(1.0 - 0.5 * (cells + error))
        stretch = FULL / (1.0 - self.base)
        self.upper: U16Array = np.clip(np.ceil((nearest - self.base) * stretch + 1e-4), 0, FULL).astype(np.uint16)
        self.lower: U16Array = np.clip(np.floor((farthest - self.base) * stretch - 1e-4), 0, FULL).astype(np.uint16)
        self.scale = np.float32(_CELLS / widest)
        self.offset = (0.5 * widest - squares).astype(np.float32)

    def tile(self, rows: Any, columns: Any, table: U16Array, out: U16Array) -> None:
        product = self.y[rows] @ self.y[columns].T
        _look_up(product, self.offset[rows], self.offset[columns], self.scale, table, out)

    def rows(self, which: npt.NDArray[np.int64], *, lower: bool = False) -> U16Array:
        """Bounds from above, or from below, of the rows `which` against all rows, of shape (len(which), n)."""
        n = len(self.y)
        out = np.empty((len(which), n), dtype=np.uint16)
        width = max(TILE, TILE * TILE // max(1, len(which)))
        for start in range(0, n, width):
            columns = slice(start, min(n, start + width))
            self.tile(which, columns, self.lower if lower else self.upper, out[:, columns])
        return out

    def matrix(self, progress: Progress | None = None) -> U16Array:
        """All bounds, of shape (n, n); half of the product is computed and mirrored tile by tile."""
        n = len(self.y)
        out = np.empty((n, n), dtype=np.uint16)

        def fill(i: int) -> None:
            rows = slice(i, min(n, i + TILE))
            for j in range(i, n, TILE):
                columns = slice(j, min(n, j + TILE))
                self.tile(rows, columns, self.upper, out[rows, columns])
                if j > i:
                    mirror(out[rows, columns], out[columns, rows])

        starts = range(0, n, TILE)
        each(fill, starts, telling(progress, "all pairs", len(starts)))
        return out

    def column_sums(self, low: npt.NDArray[np.int32], units: npt.NDArray[np.int32]) -> npt.NDArray[np.int64]:
        """Sum over i of ``units_i max(bound_ci - low_i, 0)`` for every row c, without an (n, n) array."""
        n = len(self.y)
        out = np.zeros(n, dtype=np.int64)
        for i in range(0, n, TILE):
            rows = slice(i, min(n, i + TILE))
            for j in range(i, n, TILE):
                columns = slice(j, min(n, j + TILE))
                tile = np.empty((rows.stop - i, columns.stop - j), dtype=np.uint16)
                self.tile(rows, columns, self.upper, tile)
                add_rises(tile, low[columns], units[columns], out[rows])
                if j > i:
                    add_columns(tile, low[rows], units[rows], out[columns])
        return out


def _centred(x: FloatArray, inverse: FloatArray) -> tuple[npt.NDArray[np.float32], FloatArray]:
    """Unit rows less their mean in float32, and the squared norms of the differences."""
    n, d = x.shape
    total = np.zeros(d)
    for start in range(0, n, _BLOCK):
        total += inverse[start : start + _BLOCK] @ x[start : start + _BLOCK].astype(np.float64)
    out, squares = np.empty((n, d), dtype=np.float32), np.empty(n)
    for start in range(0, n, _BLOCK):
        part = slice(start, start + _BLOCK)
        block = x[part] * inverse[part, None] - total / n
        out[part] = block
        squares[part] = np.einsum("ij,ij->i", block, block)
    return out, squares


@numba.njit(cache=True, nogil=True)
def _look_up(product: Any, left: Any, right: Any, scale: Any, table: Any, out: Any) -> None:
    last = np.float32(table.size - 1)
    two = np.float32(2.0)
    for i in range(product.shape[0]):
        row, target, shift = product[i], out[i], left[i]
        for j in range(row.size):
            place = (shift + right[j] + two * row[j]) * scale
            place = min(max(place, np.float32(0.0)), last)
            target[j] = table[np.uint32(np.int32(place))]


@numba.njit(cache=True, nogil=True)
def mirror(tile: U16Array, out: U16Array) -> None:
    """Write a tile with rows and columns exchanged."""
    height, width = tile.shape
    for start in range(0, height, 32):
        stop = min(height, start + 32)
        for j in range(width):
            for i in range(start, stop):
                out[j, i] = tile[i, j]


@numba.njit(cache=True, nogil=True)
def add_rises(matrix: Any, low: Any, units: Any, out: Any) -> None:
    """Add to ``out_c`` the sum over i of ``units_i max(matrix_ci - low_i, 0)``."""
    for c in range(matrix.shape[0]):
        row = matrix[c]
        total = np.int64(0)
        for i in range(row.size):
            total += units[i] * (max(np.int32(row[i]), low[i]) - low[i])
        out[c] += total


@numba.njit(cache=True, nogil=True)
def add_columns(matrix: Any, low: Any, units: Any, out: Any) -> None:
    """Add to ``out_c`` the sum over i of ``units_i max(matrix_ic - low_i, 0)``."""
    for start in range(0, out.size, CHUNK):
        part = out[start : start + CHUNK]
        for i in range(matrix.shape[0]):
            row = matrix[i, start : start + CHUNK]
            base, unit = low[i], units[i]
            for c in range(part.size):
                part[c] += unit * (max(np.int32(row[c]), base) - base)


@numba.njit(cache=True, nogil=True)
def subtract(matrix: Any, which: Any, old: Any, new: Any, units: Any, screened: Any) -> None:
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
