"""One pass over all pairs that makes a long greedy run cheap, without an (n, n) array.

Coverage only grows. So once a few picks are known, a kernel value matters again only where it is above what those
picks cover, which is rare: some hundredths of all pairs. The pass finds the first picks' gains for every candidate, to
check that they are greedy's, and keeps those pairs; everything after it reads what was kept.
"""

from __future__ import annotations

import threading
from typing import Any

import numba
import numpy as np
import numpy.typing as npt

from icl_select._progress import telling
from icl_select._threads import each
from icl_select.methods._screen import TILE, Screen, mirror
from icl_select.types import IntArray, Progress

__all__ = ["Residual", "pass_over_pairs"]

I32 = npt.NDArray[np.int32]


class Residual:
    """Bounds of pairs above a threshold of the covered row, by candidate.

    Candidates stand in blocks of ``TILE`` rows, and so do the rows that they cover. A pair takes four bytes: the upper
    two hold the bound, the lower two name the covered row within its block.
    """

    def __init__(self, n: int) -> None:
        self.n = n
        blocks = -(-n // TILE)
        self._pieces: list[list[Any]] = [[None] * blocks for _ in range(blocks)]
        self._joined: list[Any] = [None] * blocks

    def add(self, candidates: int, covered: int, tile: Any, thresholds: I32, room: Any) -> None:
        """Keep what matters of a tile: its rows are a block of candidates, its columns a block of rows to cover.

        `room`, of length TILE^2 + 1, is written to. Threads may add different tiles at the same time.
        """
        starts = np.empty(len(tile) + 1, dtype=np.int32)
        size = _keep(tile, thresholds, starts, room)
        self._pieces[candidates][covered] = (starts, room[:size].copy())

    def _block(self, block: int) -> Any:
        """The pieces of a block of candidates, row after row, made when it is first asked for."""
        if self._joined[block] is None:
            pieces = self._pieces[block]
            height = len(pieces[0][0]) - 1
            ends = np.zeros((height, len(pieces) + 1), dtype=np.int64)
            ends[:, 1:] = np.transpose([np.diff(starts) for starts, _ in pieces])
            np.cumsum(ends, axis=1, out=ends)
            ends[1:] += np.cumsum(ends[:-1, -1])[:, None]
            pairs = np.empty(int(ends[-1, -1]), dtype=np.uint32)
            for covered, (starts, some) in enumerate(pieces):
                _scatter(starts, some, ends[:, covered].copy(), pairs)
            self._pieces[block] = []
            self._joined[block] = (ends, pairs)
        return self._joined[block]

    def row(self, candidate: int) -> tuple[IntArray, I32]:
        """The rows that a candidate may cover better than the threshold, ascending, and the bounds."""
        ends, pairs = self._block(candidate // TILE)
        own = ends[candidate % TILE]
        rows = np.empty(int(own[-1] - own[0]), dtype=np.int64)
        bounds = np.empty(len(rows), dtype=np.int32)
        _read(own, pairs, rows, bounds)
        return rows, bounds

    def gain(self, candidate: int, low: I32, units: I32) -> int:
        """The screened gain: the sum of ``units_i max(bound_i - low_i, 0)``; `low` is nowhere below the threshold."""
        ends, pairs = self._block(candidate // TILE)
        return int(_gain(ends[candidate % TILE], pairs, low, units))


def pass_over_pairs(
    screen: Screen, lows: I32, units: I32, *, weighted: bool, keep: bool, progress: Progress | None = None
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
    progress : callable, optional
        Told how many blocks of rows are done.

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
    blocks = [slice(start, min(n, start + TILE)) for start in range(0, n, TILE)]
    add = _add_weighted if weighted else _add
    # Contiguous, or the loops over them are compiled for any stride, several times slower.
    ends = [(np.ascontiguousarray(short[:, block]), units[block]) for block in blocks]
    lock = threading.Lock()

    def over(i: int) -> None:
        tile, turned = np.empty((2, TILE, TILE), dtype=np.uint16)
        room = np.empty(TILE * TILE + 1, dtype=np.uint32)
        rows = blocks[i]
        height = rows.stop - rows.start
        own = np.zeros((steps, height), dtype=np.int64)
        for j in range(i, len(blocks)):
            columns = blocks[j]
            width = columns.stop - columns.start
            part = tile[:height, :width]
            screen.tile(rows, columns, screen.upper, part)
            theirs = np.zeros((steps, width), dtype=np.int64)
            add(part, *ends[i], *ends[j], own, theirs, j > i)
            with lock:  # integers: in whatever order threads come, the sums are the same
                sums[:, columns] += theirs
            if residual is not None:
                residual.add(i, j, part, lows[-1, columns], room)
                if j > i:
                    mirror(part, turned[:width, :height])
                    residual.add(j, i, turned[:width, :height], lows[-1, rows], room)
        with lock:
            sums[:, rows] += own

    each(over, range(len(blocks)), telling(progress, "all pairs", len(blocks)))
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
def _keep(tile: Any, thresholds: Any, starts: Any, pairs: Any) -> int:
    """List, for each row of a tile, the columns whose threshold its bound exceeds, and the bounds."""
    size = 0
    for r in range(tile.shape[0]):
        starts[r] = size
        row = tile[r]
        for c in range(row.size):
            # Written in any case, counted only if it is kept: no branch to guess wrong.
            pairs[size] = (np.uint32(row[c]) << np.uint32(16)) | np.uint32(c)
            size += np.int32(row[c]) > thresholds[c]
    starts[tile.shape[0]] = size
    return size


@numba.njit(cache=True, nogil=True)
def _scatter(starts: Any, some: Any, ends: Any, pairs: Any) -> None:
    """Put the rows of a piece where each begins among all pieces."""
    for r in range(ends.size):
        at = ends[r]
        for t in range(starts[r], starts[r + 1]):
            pairs[at] = some[t]
            at += 1


@numba.njit(cache=True, nogil=True)
def _read(ends: Any, pairs: Any, rows: Any, bounds: Any) -> None:
    for block in range(ends.size - 1):
        for t in range(ends[block], ends[block + 1]):
            rows[t - ends[0]] = block * TILE + np.int64(pairs[t] & np.uint32(0xFFFF))
            bounds[t - ends[0]] = pairs[t] >> np.uint32(16)


@numba.njit(cache=True, nogil=True)
def _gain(ends: Any, pairs: Any, low: Any, units: Any) -> Any:
    total = np.int64(0)
    for block in range(ends.size - 1):
        base, unit = low[block * TILE : (block + 1) * TILE], units[block * TILE : (block + 1) * TILE]
        for t in range(ends[block], ends[block + 1]):
            i = pairs[t] & np.uint32(0xFFFF)
            rise = np.int32(max(np.int32(pairs[t] >> np.uint32(16)) - base[i], 0))
            total += np.int64(unit[i]) * np.int64(rise)
    return total
