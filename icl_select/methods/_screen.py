"""Upper bounds of kernel values as 16-bit integers: what the greedy loops read instead of exact values.

A bound is ``ceil(65535 k)`` of a cosine that is a little too large: by the error that single-precision dot
products of unit rows can have in any order of summation, and by the width of a table cell. So a stored value
is never below ``65535 k``, whatever BLAS and however many threads computed it.
"""

from __future__ import annotations

from typing import Any

import numba
import numpy as np
import numpy.typing as npt

from icl_select.kernels import Kernel
from icl_select.types import FloatArray

__all__ = ["FULL", "Screen", "add_rises"]

FULL = 65_535
_CELLS = 1 << 16
_TILE = 512
_UNIT_ROUNDOFF = 2.0**-24

U16Array = npt.NDArray[np.uint16]


class Screen:
    """Bounds of the kernel between rows of `x`.

    Parameters
    ----------
    x : ndarray of shape (n, d)
        Rows of any norm but 0.
    inverse : ndarray of shape (n,), float64
        One over the norm of each row.
    kernel : Kernel
    """

    def __init__(self, x: FloatArray, inverse: npt.NDArray[np.float64], kernel: Kernel) -> None:
        unit = x.dtype == np.float32 and bool(np.all(np.abs(inverse - 1.0) < 4 * _UNIT_ROUNDOFF))
        self.x = x if unit else (x * inverse[:, None]).astype(np.float32)
        # gamma_d of the dot product, rounding of the two rows, rounding of 1 + cos in the table look-up
        error = (x.shape[1] + 16) * _UNIT_ROUNDOFF * 1.01
        edges = -1.0 + (np.arange(_CELLS + 1) + 1) * (2.0 / _CELLS) + error
        bounds = np.ceil(kernel(np.minimum(edges, 1.0)) * FULL + 1e-6)
        self.table: U16Array = np.minimum(bounds, FULL).astype(np.uint16)

    def rows(self, which: npt.NDArray[np.int64]) -> U16Array:
        """Bounds of the rows `which` against all rows, of shape (len(which), n)."""
        n = len(self.x)
        out = np.empty((len(which), n), dtype=np.uint16)
        part = self.x[which]
        width = max(_TILE, _TILE * _TILE // max(1, len(which)))
        for start in range(0, n, width):
            stop = min(n, start + width)
            _look_up(part @ self.x[start:stop].T, self.table, out[:, start:stop])
        return out

    def matrix(self) -> U16Array:
        """All bounds, of shape (n, n); half of the product is computed and mirrored tile by tile."""
        n = len(self.x)
        out = np.empty((n, n), dtype=np.uint16)
        for i in range(0, n, _TILE):
            rows = slice(i, min(n, i + _TILE))
            for j in range(i, n, _TILE):
                columns = slice(j, min(n, j + _TILE))
                _look_up(self.x[rows] @ self.x[columns].T, self.table, out[rows, columns])
                if j > i:
                    _mirror(out[rows, columns], out[columns, rows])
        return out

    def column_sums(self, low: npt.NDArray[np.int32], units: npt.NDArray[np.int32]) -> npt.NDArray[np.int64]:
        """Sum over i of ``units_i max(bound_ci - low_i, 0)`` for every row c, without an (n, n) array."""
        n = len(self.x)
        out = np.zeros(n, dtype=np.int64)
        for i in range(0, n, _TILE):
            rows = slice(i, min(n, i + _TILE))
            for j in range(i, n, _TILE):
                columns = slice(j, min(n, j + _TILE))
                tile = np.empty((rows.stop - i, columns.stop - j), dtype=np.uint16)
                _look_up(self.x[rows] @ self.x[columns].T, self.table, tile)
                add_rises(tile, low[columns], units[columns], out[rows])
                if j > i:
                    add_rises(tile.T, low[rows], units[rows], out[columns])
        return out


@numba.njit(cache=True, nogil=True)  # type: ignore[untyped-decorator]
def _look_up(cosines: npt.NDArray[np.float32], table: U16Array, out: U16Array) -> None:
    scale = np.float32((table.size - 1) / 2)
    last = np.float32(table.size - 1)
    for i in range(cosines.shape[0]):
        for j in range(cosines.shape[1]):
            place = (cosines[i, j] + np.float32(1.0)) * scale
            place = min(max(place, np.float32(0.0)), last)
            out[i, j] = table[np.uint32(np.int32(place))]


@numba.njit(cache=True, nogil=True)  # type: ignore[untyped-decorator]
def _mirror(tile: U16Array, out: U16Array) -> None:
    height, width = tile.shape
    for start in range(0, height, 32):
        stop = min(height, start + 32)
        for j in range(width):
            for i in range(start, stop):
                out[j, i] = tile[i, j]


@numba.njit(cache=True, nogil=True)  # type: ignore[untyped-decorator]
def add_rises(tile: Any, low: Any, units: Any, out: Any) -> None:
    for i in range(tile.shape[0]):
        total = np.int64(0)
        for j in range(tile.shape[1]):
            total += np.int64(units[j]) * max(np.int64(tile[i, j]) - np.int64(low[j]), np.int64(0))
        out[i] += total
