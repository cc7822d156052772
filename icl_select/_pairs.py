"""Cosine similarities of the pairs of a pool: all, drawn, or of near rows, in parts; and their tally."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Any

import numba
import numpy as np

from icl_select.types import FloatArray, IntArray

__all__ = ["BINS", "Tally", "all_pairs", "drawn_pairs", "neighbourhoods"]

BINS = 400
# Quantiles are read from bins fifty times finer: 0.0001 of cosine.
_FINE = 50 * BINS
_BLOCK = 1024
_DRAWN = 1 << 18


class Tally:
    """Counts and moments of similarities that arrive in parts."""

    def __init__(self, thresholds: tuple[float, ...]) -> None:
        self.thresholds = thresholds
        self.above = np.zeros(len(thresholds), dtype=np.int64)
        self.bins = np.zeros(_FINE, dtype=np.int64)
        self.count = 0
        self.total = self.squares = 0.0
        self.low, self.high = math.inf, -math.inf

    def add(self, values: FloatArray) -> None:
        values = np.clip(values, -1.0, 1.0)
        self.count += values.size
        # Moments about 1: similarities that crowd there keep their spread.
        gap = 1.0 - values.astype(np.float64)
        self.total += float(gap.sum())
        self.squares += float(gap @ gap)
        self.low, self.high = min(self.low, float(values.min())), max(self.high, float(values.max()))
        self.above += [np.count_nonzero(values > limit) for limit in self.thresholds]
        place = np.minimum(((2.0 - gap) * (_FINE / 2)).astype(np.int64), _FINE - 1)
        self.bins += np.bincount(place, minlength=_FINE)

    @property
    def mean(self) -> float:
        return min(max(1.0 - self.total / self.count, self.low), self.high)

    @property
    def sd(self) -> float:
        return math.sqrt(max(self.squares / self.count - (self.total / self.count) ** 2, 0.0))

    def shares(self) -> dict[float, float]:
        return {limit: int(c) / self.count for limit, c in zip(self.thresholds, self.above, strict=True)}

    def heights(self) -> list[float]:
        """Heights of :data:`BINS` equal bins over -1 to 1; their area is 1."""
        heights: list[float] = (self.bins.reshape(BINS, -1).sum(axis=1) / (self.count * 2 / BINS)).tolist()
        return heights

    def quantiles(self, levels: Sequence[float]) -> dict[float, float]:
        """Read off the fine bins, linear inside a bin, within the extremes."""
        below = np.concatenate([[0], np.cumsum(self.bins)]) / self.count
        filled = np.flatnonzero(self.bins)
        found = {}
        for level in levels:
            j = int(filled[np.searchsorted(below[filled + 1], level - 1e-12)])
            value = -1.0 + (j + (level - below[j]) / (below[j + 1] - below[j])) * (2 / _FINE)
            found[level] = min(max(float(value), self.low), self.high)
        return found


def all_pairs(x: FloatArray) -> Iterator[FloatArray]:
    """Cosines of all pairs of different rows, each pair once."""
    for i in range(0, len(x), _BLOCK):
        block = x[i : i + _BLOCK]
        own = (block @ block.T)[np.triu_indices(len(block), 1)]
        if own.size:
            yield own
        for j in range(i + _BLOCK, len(x), _BLOCK):
            yield (block @ x[j : j + _BLOCK].T).ravel()


def drawn_pairs(x: FloatArray, count: int, rng: np.random.Generator) -> Iterator[FloatArray]:
    """Cosines of pairs of different rows, uniform and independent."""
    n = len(x)
    for start in range(0, count, _DRAWN):
        size = min(_DRAWN, count - start)
        left = rng.integers(n, size=size)
        right = (left + rng.integers(1, n, size=size)) % n
        yield _cosines(x, left, right)


@numba.njit(cache=True, nogil=True, fastmath={"reassoc", "contract"})
def _cosines(x: Any, left: Any, right: Any) -> Any:
    out = np.empty(left.size, dtype=np.float32)
    for t in range(left.size):
        a, b = x[left[t]], x[right[t]]
        total = np.float32(0.0)
        for k in range(a.size):
            total += a[k] * b[k]
        out[t] = total
    return out


def neighbourhoods(x: FloatArray, chosen: IntArray, rank: int) -> Iterator[tuple[FloatArray, FloatArray]]:
    """Similarity of each chosen row to the nearest other row, and to the one at `rank`."""
    n = len(x)
    step = max(1, min(_BLOCK, 2**24 // n))
    for start in range(0, len(chosen), step):
        part = chosen[start : start + step]
        products = x[part] @ x.T
        products[np.arange(len(part)), part] = -np.inf
        products.partition(n - rank, axis=1)
        yield products[:, n - rank :].max(axis=1), products[:, n - rank]
