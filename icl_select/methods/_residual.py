"""One pass over all pairs that makes a long greedy run cheap, without an (n, n) array.

Coverage only grows. So once a few picks are known, a kernel value matters again only where it is above what those
picks cover, which is rare: some hundredths of all pairs. The pass finds the first picks' gains for every candidate, to
check that they are greedy's, and keeps those pairs; everything after it reads what was kept.
"""

from __future__ import annotations

from typing import Any

import numba
import numpy as np
import numpy.typing as npt

from icl_select.methods._screen import TILE, Screen, mirror
from icl_select.types import IntArray

__all__ = ["Residual", "pass_over_pairs"]

I32 = npt.NDArray[np.int32]


class Residual:
    """Bounds of pairs above a threshold of the covered row, by candidate.

    Candidates stand in blocks of ``TILE`` rows, and so do the rows that they cover; two bytes name a row within its
    block and two hold the bound.
    """

    def __init__(self, n: int) -> None:
        self.n = n
        blocks = -(-n // TILE)
        self._pieces: list[list[Any]] = [[None] * blocks for _ in range(blocks)]
        self._joined: list[Any] = [None] * blocks
        self._room = np.empty((2, TILE * TILE + 1), dtype=np.uint16)
        self.entries = 0

    def add(self, candidates: int, covered: int, tile: Any, thresholds: I32) -> None:
        """Keep what matters of a tile: its rows are a block of candidates, its columns a block of rows to cover."""
        starts = np.empty(len(tile) + 1, dtype=np.int32)
        size = _keep(tile, thresholds, starts, *self._room)
        self._pieces[candidates][covered] = (starts, *(part[:size].copy() for part in self._room))
        self.entries += size

    def _block(self, block: int) -> Any:
        """The pieces of a block of candidates as one, made when it is first asked for."""
        if self._joined[block] is None:
            pieces = self._pieces[block]
            sizes = np.cumsum([0, *(len(columns) for _, columns, _ in pieces)], dtype=np.int64)
            starts = np.stack([piece[0].astype(np.int64) + size for piece, size in zip(pieces, sizes, strict=False)])
            columns = np.concatenate([columns for _, columns, _ in pieces])
            bounds = np.concatenate([bounds for _, _, bounds in pieces])
            self._pieces[block] = []
            self._joined[block] = (starts, columns, bounds)
        return self._joined[block]

    def row(self, candidate: int) -> tuple[IntArray, I32]:
        """The rows that a candidate may cover better than the threshold, ascending, and the bounds."""
        starts, columns, bounds = self._block(candidate // TILE)
        place = candidate % TILE
        size = int((starts[:, place + 1] - starts[:, place]).sum())
        rows, values = np.empty(size, dtype=np.int64), np.empty(size, dtype=np.int32)
        _read(starts, columns, bounds, place, rows, values)
        return rows, values

    def gain(self, candidate: int, low: I32, units: I32) -> int:
        """The screened gain: the sum of ``units_i max(bound_i - low_i, 0)``; `low` is nowhere below the threshold."""
        starts, columns, bounds = self._block(candidate // TILE)
        return int(_gain(starts, columns, bounds, candidate % TILE, low, units))


def pass_over_pairs(
    screen: Screen, lows: I32, units: I32, *, weighted: bool, keep: bool
) -> tuple[npt.NDArray[np.int64], Residual | None]:
    """Screened gains of all rows after each of some picks, and the pairs that matter after the last.

    Parameters
    ----------
    screen : Screen
    lows : ndarray of shape (t, n), int32
        What each row is covered after the first, the second ... pick.
    units : ndarray of shape (n,), int32
        Weights.
    weighted : bool
        Whether a weight is above 1.
    keep : bool
        Whether to keep pairs.

    Returns
    -------
    sums : ndarray of shape (t, n), int64
        Sum over i of ``units_i max(bound_ci - low_i, 0)`` for every row c.
    residual : Residual or None
        Pairs whose bound is above the last of `lows`.
    """
    steps, n = lows.shape
    short = lows.astype(np.uint16)  # bounds are that short, and narrow numbers are added faster
    sums = np.zeros((steps, n), dtype=np.int64)
    residual = Residual(n) if keep else None
    tile, turned = np.empty((2, TILE, TILE), dtype=np.uint16)
    blocks = [slice(start, min(n, start + TILE)) for start in range(0, n, TILE)]
    add = _add_weighted if weighted else _add
    # Contiguous, or the loops over them are compiled for any stride, several times slower.
    ends = [(np.ascontiguousarray(short[:, block]), units[block]) for block in blocks]
    for i, rows in enumerate(blocks):
        for j in range(i, len(blocks)):
            columns = blocks[j]
            height, width = rows.stop - rows.start, columns.stop - columns.start
            part = tile[:height, :width]
            screen.tile(rows, columns, screen.upper, part)
            add(part, *ends[i], *ends[j], sums[:, rows], sums[:, columns], j > i)
            if residual is not None:
                residual.add(i, j, part, lows[-1, columns])
                if j > i:
                    mirror(part, turned[:width, :height])
                    residual.add(j, i, turned[:width, :height], lows[-1, rows])
    return sums, residual


@numba.njit(cache=True, nogil=True)
def _add(tile: Any, left: Any, _u: Any, right: Any, _v: Any, by_row: Any, by_column: Any, both: Any) -> None:
    """Add the rises of a tile to the sums of its rows and, if it is off the diagonal, of its columns.

    Sums of one tile fit 32 bits: 512 times 65,535.
    """
    height, width = tile.shape
    column = np.empty(width, dtype=np.int32)
    for t in range(left.shape[0]):
        high = right[t]
        column[:] = 0
        for r in range(height):
            row, low = tile[r], left[t, r]
            total = np.int32(0)
            for c in range(width):
                value = row[c]
                total = np.int32(total + np.int32(np.uint16(max(value, high[c]) - high[c])))
                column[c] += np.int32(np.uint16(max(value, low) - low))
            by_row[t, r] += total
        if both:
            for c in range(width):
                by_column[t, c] += column[c]


@numba.njit(cache=True, nogil=True)
def _add_weighted(tile: Any, left: Any, u: Any, right: Any, v: Any, by_row: Any, by_column: Any, both: Any) -> None:
    """As :func:`_add`, each rise times the weight of the row that is covered."""
    height, width = tile.shape
    for t in range(left.shape[0]):
        high = right[t]
        for r in range(height):
            row, low, unit = tile[r], left[t, r], u[r]
            total = np.int64(0)
            for c in range(width):
                total += np.int64(v[c]) * np.int64(np.uint16(max(row[c], high[c]) - high[c]))
            by_row[t, r] += total
            if both:
                for c in range(width):
                    by_column[t, c] += np.int64(unit) * np.int64(np.uint16(max(row[c], low) - low))


@numba.njit(cache=True, nogil=True)
def _keep(tile: Any, thresholds: Any, starts: Any, columns: Any, bounds: Any) -> int:
    """List, for each row of a tile, the columns whose threshold its bound exceeds."""
    size = 0
    for r in range(tile.shape[0]):
        starts[r] = size
        row = tile[r]
        for c in range(row.size):
            # Written in any case, counted only if it is kept: no branch to guess wrong.
            columns[size] = c
            bounds[size] = row[c]
            size += np.int32(row[c]) > thresholds[c]
    starts[tile.shape[0]] = size
    return size


@numba.njit(cache=True, nogil=True)
def _read(starts: Any, columns: Any, bounds: Any, place: int, rows: Any, values: Any) -> None:
    size = 0
    for block in range(starts.shape[0]):
        for t in range(starts[block, place], starts[block, place + 1]):
            rows[size] = block * TILE + columns[t]
            values[size] = bounds[t]
            size += 1


@numba.njit(cache=True, nogil=True)
def _gain(starts: Any, columns: Any, bounds: Any, place: int, low: Any, units: Any) -> Any:
    total = np.int64(0)
    for block in range(starts.shape[0]):
        first = block * TILE
        for t in range(starts[block, place], starts[block, place + 1]):
            i = first + columns[t]
            total += units[i] * (max(np.int32(bounds[t]), low[i]) - low[i])
    return total
