"""Candidates for exact neighbours: a fast float32 screen that provably loses none of them.

Both backends compute the inner product of unit rows in float32, each in its own summation order. Whatever the
order, the error of such a product is below ``(d + 16) * 2**-24``: at most `d` roundings on the way of each product
into the sum, one in each factor, and room for norms that are 1 only up to rounding (the absolute products of two
unit rows sum to at most 1). So every true neighbour lies within twice that bound below the k-th best screened
value, and one float64 formula then decides among the candidates.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from icl_select._optional import require
from icl_select.types import FloatArray, IntArray

__all__ = ["Screen", "exact_similarities", "faiss_screen", "numpy_screen"]

Screen = Callable[[FloatArray, IntArray, IntArray], list[IntArray]]
"""``screen(queries, k, excluded)``: for every unit query, ascending rows that hold its `k` nearest among the rows
other than ``excluded`` (-1 excludes none), with all their ties."""

# Entries of one float32 block of similarities: 64 MB.
_BLOCK = 16_000_000


def _bound(d: int) -> float:
    return float((d + 16) * 2.0**-24)


def exact_similarities(rows: FloatArray, query: FloatArray) -> FloatArray:
    """Inner products in float64, one row at a time: equal rows give equal bits wherever they stand.

    A matrix product does not promise that, and exact duplicates must tie.
    """
    out = np.empty(len(rows))
    step = max(1, 4_000_000 // rows.shape[1])
    for start in range(0, len(rows), step):
        block = rows[start : start + step].astype(np.float64, copy=False)
        out[start : start + step] = np.einsum("ij,j->i", block, query)
    return out


def numpy_screen(rows: FloatArray) -> Screen:
    """Screen by blocks of a plain float32 matrix product; memory is bounded for any number of rows."""
    single = rows.astype(np.float32, copy=False)
    n, d = single.shape
    step = max(1, _BLOCK // n)

    def screen(queries: FloatArray, k: IntArray, excluded: IntArray) -> list[IntArray]:
        found: list[IntArray] = []
        for start in range(0, len(queries), step):
            similar = queries[start : start + step].astype(np.float32) @ single.T
            for pos, line in enumerate(similar, start):
                if excluded[pos] >= 0:
                    line[excluded[pos]] = -np.inf
                kth = np.partition(line, n - k[pos])[n - k[pos]]
                found.append(np.flatnonzero(line >= kth - 2 * _bound(d)))
        return found

    return screen


def faiss_screen(rows: FloatArray) -> Screen:
    """Screen by a flat faiss index; the list of a query grows until it ends below the error bound."""
    faiss = require("faiss", extra="faiss", purpose="the faiss retrieval backend")
    n, d = rows.shape
    index: Any = faiss.IndexFlatIP(d)
    index.add(np.ascontiguousarray(rows, dtype=np.float32))

    def screen(queries: FloatArray, k: IntArray, excluded: IntArray) -> list[IntArray]:
        found: list[IntArray] = [np.empty(0, dtype=np.int64)] * len(queries)
        open_ = np.arange(len(queries))
        width = min(n, int(k.max(initial=0)) + 16)
        while len(open_):
            left = []
            step = max(1, _BLOCK // (4 * width))
            for start in range(0, len(open_), step):
                part = open_[start : start + step]
                values, ids = index.search(np.ascontiguousarray(queries[part], dtype=np.float32), width)
                for pos, line, labels in zip(part, values, ids, strict=True):
                    kept = labels != excluded[pos]
                    floor = line[kept][k[pos] - 1] - 2 * _bound(d)
                    if width < n and line[-1] >= floor:
                        left.append(pos)
                    else:
                        found[pos] = np.sort(labels[kept & (line >= floor)]).astype(np.int64)
            open_ = np.array(left, dtype=np.int64)
            width = min(n, 4 * width)
        return found

    return screen
