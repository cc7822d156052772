"""Exact nearest neighbours by cosine, in blocks, without ever holding an n x n matrix."""

from __future__ import annotations

from typing import Any

import numba
import numpy as np

from icl_select._progress import telling
from icl_select._threads import each
from icl_select._validation import check_int
from icl_select.errors import ParameterError
from icl_select.types import FloatArray, IntArray, Progress

__all__ = ["knn_graph"]

# Similarities of one block: 32 MB in float32.
_BLOCK_VALUES = 2**23


def knn_graph(
    x: FloatArray, k: int, *, block: int | None = None, progress: Progress | None = None
) -> tuple[IntArray, FloatArray]:
    """Find the `k` rows most similar to each row.

    A matrix product in the precision of `x` finds the candidates, with a margin that covers its rounding;
    candidates are then compared by inner products summed in float64 in one fixed order. The answer
    therefore depends on neither the block size nor the number of threads.

    Parameters
    ----------
    x : ndarray of shape (n, d), float32 or float64
        Unit-norm rows; not modified.
    k : int
        Neighbours for each row, ``0 <= k <= n - 1``.
    block : int, optional
        Rows handled at a time; by default as many as keep a block of similarities near 32 MB.
    progress : callable, optional
        Told how many blocks are done.

    Returns
    -------
    indices : ndarray of shape (n, k), int64
        ``indices[i]`` holds rows of `x`, most similar first, never `i` itself (it is excluded by index, so
        exact duplicates of `i` stay). Equal similarities are ordered by the lower index.
    similarities : ndarray of shape (n, k), float64
        The inner products, never increasing along a row.

    Raises
    ------
    ParameterError
        If there are no `k` other rows.

    Notes
    -----
    Time O(n^2 d) in the matrix product plus O(n k d); memory O(n k) and two blocks a thread. Many exact duplicates
    (more than `k` copies of one row) cost O(d) for each pair of copies.

    Examples
    --------
    >>> angle = np.radians([0, 10, 90, 100, 200])
    >>> x = np.column_stack([np.cos(angle), np.sin(angle)])
    >>> indices, similarities = knn_graph(x, 2)
    >>> indices.tolist()
    [[1, 2], [0, 2], [3, 1], [2, 1], [3, 2]]
    >>> similarities[0].round(2).tolist()
    [0.98, 0.0]
    """
    n, d = x.shape
    k = check_int(k, name="k", low=0)
    if k > n - 1:
        raise ParameterError(f"k={k} neighbours asked of {n} rows, which have {n - 1} others each. Pass k <= {n - 1}.")
    step = check_int(block, name="block", low=1) if block is not None else max(32, min(1024, _BLOCK_VALUES // n))
    indices = np.empty((n, k), dtype=np.int64)
    similarities = np.empty((n, k), dtype=np.float64)
    if k == 0:
        return indices, similarities
    # |computed - exact| <= margin / 2 for inner products of unit rows, whatever the order of summation.
    margin = np.float64(2.01 * d * np.finfo(x.dtype).eps / 2)

    def search(start: int) -> None:
        products = x[start : start + step] @ x.T
        own = np.arange(start, start + len(products))
        products[np.arange(len(products)), own] = -np.inf
        floors = np.partition(products, n - k, axis=1)[:, n - k] - margin
        _refine(x, products, floors, start, indices, similarities)

    starts = range(0, n, step)
    each(search, starts, telling(progress, "neighbours", len(starts)))
    return indices, similarities


@numba.njit(cache=True, nogil=True, fastmath={"reassoc", "contract"})
def _dot(a: Any, b: Any) -> Any:
    total = 0.0
    for j in range(len(a)):
        total += np.float64(a[j]) * np.float64(b[j])
    return total


@numba.njit(cache=True, nogil=True)
def _refine(x: Any, products: Any, floors: Any, start: int, indices: Any, similarities: Any) -> None:
    """Fill the rows of a block: exact similarities of the candidates, stably sorted from the top."""
    n, k = len(x), indices.shape[1]
    candidates = np.empty(n, dtype=np.int64)
    for pos in range(len(products)):
        found = 0
        for j in range(n):
            if products[pos, j] >= floors[pos] and j != start + pos:
                candidates[found] = j
                found += 1
        exact = np.empty(found, dtype=np.float64)
        for c in range(found):
            exact[c] = -_dot(x[start + pos], x[candidates[c]])
        order = np.argsort(exact, kind="mergesort")
        for rank in range(k):
            indices[start + pos, rank] = candidates[order[rank]]
            similarities[start + pos, rank] = -exact[order[rank]]
