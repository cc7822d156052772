"""What makes two texts the same: normalised form, and cosine similarity in bounded blocks."""

from __future__ import annotations

import functools
import sys
import unicodedata
from collections.abc import Hashable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from icl_select._validation import check_embeddings, unit_rows
from icl_select.errors import EmbeddingError, ParameterError
from icl_select.types import FloatArray, IntArray

__all__ = ["NearPairs", "check_threshold", "codes", "near_pairs", "nearest", "normalise", "unit_matrix"]

# float32 products of unit rows err by less than this, so equal rows reach the threshold 1.
TOLERANCE = 1e-6

_TILE = 2048

# Signs that carry meaning at the edge of a word: 5%, C#, @name, -5.
_KEPT = "%#&@*/\\-_"


@functools.cache
def _punctuation() -> str:
    marks = (chr(code) for code in range(sys.maxunicode + 1))
    return "".join(mark for mark in marks if unicodedata.category(mark)[0] == "P" and mark not in _KEPT)


def normalise(text: str) -> str:
    """Return `text` without differences of form: Unicode NFKC, case, white space, punctuation around words.

    A text of punctuation alone keeps it, so that ``"!!!"`` and ``"???"`` stay different.

    Examples
    --------
    >>> normalise("  Where is\\tmy ORDER ?!") == normalise("where is my order")
    True
    >>> normalise("!!!"), normalise("5% off, C#")
    ('!!!', '5% off c#')
    """
    folded = text.lower() if text.isascii() else _fold(text)
    words = folded.split()
    marks = _punctuation() if not folded.isascii() else _ASCII
    bare = [stripped for word in words if (stripped := word.strip(marks)).strip(_KEPT)]
    return " ".join(bare or words)


_ASCII = "!\"'(),.:;?[]{}"


def _fold(text: str) -> str:
    return unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", text).casefold())


def codes(keys: Sequence[Hashable]) -> IntArray:
    """Number equal keys alike: the index of the first one."""
    first: dict[Hashable, int] = {}
    return np.array([first.setdefault(key, index) for index, key in enumerate(keys)], dtype=np.int64)


def check_threshold(threshold: Any) -> float:
    """Return a cosine threshold as a float in (0, 1]."""
    if isinstance(threshold, bool) or not isinstance(threshold, (int, float, np.number)) or not 0 < threshold <= 1:
        raise ParameterError(f"threshold={threshold!r} is no cosine similarity to call near. Pass 0 < threshold <= 1.")
    return float(threshold)


def unit_matrix(x: Any, n: int, name: str) -> npt.NDArray[np.float32]:
    """Return `x` as float32 unit rows, one for each of `n` texts."""
    rows = check_embeddings(x, name=name)
    if len(rows) != n:
        raise EmbeddingError(f"{name} has {len(rows)} rows for {n} texts. Pass one row for each text.")
    return unit_rows(rows, name=name).astype(np.float32, copy=False)


@dataclass(frozen=True)
class NearPairs:
    """Pairs at or above the threshold whose key codes differ.

    ``count`` of them; ``component`` numbers the rows that such pairs, and equal codes, connect; ``pairs`` holds
    the most similar ones as ``(i, j, similarity)``, ``i < j``, most similar first.
    """

    count: int
    component: IntArray
    pairs: list[tuple[int, int, float]]


def near_pairs(x: npt.NDArray[np.float32], code: IntArray, threshold: float, keep: int) -> NearPairs:
    """Find pairs of near rows of the unit matrix `x`; time O(n^2 d), memory O(n) and one tile of similarities."""
    component = code.copy()
    count, best = 0, _Best(keep, threshold - TOLERANCE)
    for rows, cols, similar in _tiles(x):
        if similar.max() < best.floor:
            continue
        near = similar >= best.floor
        if rows.start == cols.start:
            near = np.triu(near, 1)
        near &= code[rows, None] != code[None, cols]
        found = int(near.sum())
        if not found:
            continue
        count += found
        best.add(similar, near, rows.start, cols.start)
        near &= component[rows, None] != component[None, cols]
        i, j = np.nonzero(near)
        component = _connect(component, i + rows.start, j + cols.start)
    return NearPairs(count, component, best.sorted())


class _Best:
    """The most similar pairs seen so far."""

    def __init__(self, keep: int, floor: float) -> None:
        self.keep = keep
        self.floor = floor
        self._pairs: list[tuple[float, int, int]] = []

    def add(self, similar: FloatArray, near: npt.NDArray[np.bool_], row: int, col: int) -> None:
        full = len(self._pairs) >= self.keep
        i, j = np.nonzero(near & (similar > -self._pairs[-1][0]) if full else near)
        values = similar[i, j]
        top = np.arange(len(values))  # in row-major order, so that ties go to the lower rows
        if len(values) > self.keep:
            cut = np.partition(values, -self.keep)[-self.keep]
            top = np.concatenate([np.flatnonzero(values > cut), np.flatnonzero(values == cut)[: self.keep]])
        new = [(-float(values[p]), int(i[p]) + row, int(j[p]) + col) for p in top]
        self._pairs = sorted(self._pairs + new)[: self.keep]

    def sorted(self) -> list[tuple[int, int, float]]:
        return [(i, j, min(1.0, -negative)) for negative, i, j in self._pairs]


def _tiles(x: npt.NDArray[np.float32]) -> Iterator[tuple[slice, slice, FloatArray]]:
    """Square blocks of the upper triangle of ``x @ x.T``."""
    for row in range(0, len(x), _TILE):
        for col in range(row, len(x), _TILE):
            rows, cols = slice(row, min(row + _TILE, len(x))), slice(col, min(col + _TILE, len(x)))
            yield rows, cols, x[rows] @ x[cols].T


def _connect(component: IntArray, i: IntArray, j: IntArray) -> IntArray:
    """Merge the components of the rows `i` and `j`, pair by pair; a component keeps its lowest number."""
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    if not len(i):
        return component
    left, right = component[i], component[j]
    used = np.unique(np.concatenate([left, right]))
    at = (np.searchsorted(used, left), np.searchsorted(used, right))
    graph = coo_array((np.ones(len(i), dtype=np.int8), at), shape=(len(used), len(used)))
    parts, member = connected_components(graph, directed=False)
    lowest = np.full(parts, np.iinfo(np.int64).max)
    np.minimum.at(lowest, member, used)
    renumbered = np.arange(len(component))
    renumbered[used] = lowest[member]
    merged: IntArray = renumbered[component]
    return merged


def nearest(queries: npt.NDArray[np.float32], x: npt.NDArray[np.float32]) -> tuple[IntArray, npt.NDArray[np.float32]]:
    """The most similar row of `x` for each query, ties to the lower row, and the similarity; in bounded blocks."""
    row = np.zeros(len(queries), dtype=np.int64)
    best = np.full(len(queries), -np.inf, dtype=np.float32)
    for start in range(0, len(queries), _TILE):
        block = slice(start, start + _TILE)
        for col in range(0, len(x), _TILE):
            similar = queries[block] @ x[col : col + _TILE].T
            local = similar.argmax(axis=1)
            value = np.take_along_axis(similar, local[:, None], axis=1)[:, 0]
            better = value > best[block]
            row[block] = np.where(better, local + col, row[block])
            best[block] = np.where(better, value, best[block])
    return row, np.minimum(best, 1)
