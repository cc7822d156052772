"""Exact cosine neighbours of a query among the labelled examples."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np

from icl_select._fingerprint import fingerprint, fingerprint_array
from icl_select._validation import check_embeddings, check_int, unit_rows
from icl_select.errors import DataError, EmbeddingError, LabelError, ParameterError, UnknownNameError, suggest
from icl_select.retrieve._screen import Screen, exact_similarities, faiss_screen, numpy_screen
from icl_select.types import FloatArray, IntArray, Retrieved

__all__ = ["Retriever"]

_SCREENS = {"faiss": faiss_screen, "numpy": numpy_screen}


class Retriever:
    """Finds the labelled examples to show with a query, by exact cosine similarity.

    Parameters
    ----------
    x : array-like of shape (n, d), float32 or float64
        Embeddings of the labelled examples at any scale; a unit-norm copy is kept. Centre them (or not) as the
        queries: :func:`icl_select.embed` gives both in the same space.
    ids : sequence of str, length n
        Distinct ids. A row whose id equals the id of the query is never retrieved for it.
    labels : sequence of str or None, length n, optional
        Needed for ``balance=True``.
    backend : {"numpy", "faiss"}, default="numpy"
        What screens for candidates. Both give the same rows in the same order: one float64 formula ranks the
        candidates of either. "faiss" needs the extra of that name.

    Attributes
    ----------
    fingerprint : str
        Names vectors and ids; two retrievers with the same fingerprint give the same answers.

    Raises
    ------
    EmbeddingError
        If `x` is empty, not 2-D, or holds NaN, infinity or a zero row.
    DataError
        If `ids` or `labels` do not fit `x`, or an id occurs twice.
    MissingDependencyError
        If the backend is not installed.

    Notes
    -----
    Time O(nd) per query and O(kd) for the ranking; memory one copy of `x` (faiss: two) and blocks of 64 MB.
    With `mmr` or `balance` every row is scored in float64, O(nd) for each retrieved example under `mmr`.

    Examples
    --------
    >>> labelled = Retriever([[1.0, 0.0], [0.0, 2.0], [3.0, 3.0]], ids=["a", "b", "c"])
    >>> found = labelled.retrieve([[2.0, 1.0]], k=2)[0]
    >>> found.ids, found.similarities.round(2).tolist()
    (('c', 'a'), [0.95, 0.89])
    """

    def __init__(
        self, x: Any, ids: Sequence[str], labels: Sequence[str | None] | None = None, *, backend: str = "numpy"
    ) -> None:
        if backend not in _SCREENS:
            raise UnknownNameError(f"unknown retrieval backend {backend!r}.{suggest(backend, _SCREENS)}")
        self._rows = unit_rows(check_embeddings(x))
        self._ids = _check_ids(ids, len(self._rows))
        self._labels = None if labels is None else tuple(labels)
        if self._labels is not None and len(self._labels) != len(self._rows):
            raise DataError(
                f"{len(self._labels)} labels for {len(self._rows)} labelled rows. Pass one label for each row of x."
            )
        self._row_of = {id_: row for row, id_ in enumerate(self._ids)}
        self._screen: Screen = _SCREENS[backend](self._rows)
        self.backend = backend
        self.fingerprint = fingerprint(fingerprint_array(self._rows), list(self._ids))

    def __len__(self) -> int:
        return len(self._ids)

    @property
    def ids(self) -> tuple[str, ...]:
        """Ids of the labelled rows."""
        return self._ids

    def retrieve(
        self,
        queries: Any,
        k: int | Sequence[int] | None = None,
        *,
        query_ids: Sequence[str] | None = None,
        mmr: float | None = None,
        balance: bool = False,
        min_similarity: float | None = None,
    ) -> list[Retrieved]:
        """Return what to show with each query, most similar first.

        Parameters
        ----------
        queries : array-like of shape (q, d)
            Embeddings of the queries, in the space of `x`, at any scale.
        k : int or sequence of int, optional
            How many rows, or how many for each query. None, or more than there are, means all of them.
        query_ids : sequence of str, length q, optional
            Ids of the queries. The labelled row of the same id, and no other, is left out.
        mmr : float, optional
            Maximal marginal relevance with this weight of relevance, ``0 <= mmr <= 1``: each pick maximises
            ``mmr * similarity to the query - (1 - mmr) * largest similarity to the picks before``.
        balance : bool, default=False
            Round-robin over the labels: each pick is the best row among the labels picked least so far. Labels
            that have run out leave the round.
        min_similarity : float, optional
            Rows less similar to the query than this are not shown; fewer than `k` may remain, or none.

        Returns
        -------
        list of Retrieved, length q
            Most similar first, ties to the lower row. With `mmr` or `balance` the rows stand in the order in
            which they were picked, so that any prefix is the answer to a smaller `k`.

        Raises
        ------
        EmbeddingError
            If a query holds NaN or infinity, is a zero vector, or has another dimension than the rows.
        ParameterError
            If an option is out of range.
        LabelError
            If `balance` is asked of rows without labels.
        """
        units = self._check_queries(queries)
        _check_share(mmr, "mmr", 0.0)
        _check_share(min_similarity, "min_similarity", -1.0)
        excluded = self._excluded(query_ids, len(units))
        ks = np.minimum(_check_k(k, len(units), len(self)), len(self) - (excluded >= 0))
        if balance or mmr is not None:
            codes = self._label_codes() if balance else None
            picker = _Picker(self._rows, codes, mmr, min_similarity)
            picked = [picker.pick(*args) for args in zip(units, ks.tolist(), excluded.tolist(), strict=True)]
        else:
            picked = self._nearest(units, ks, excluded, min_similarity)
        return [self._retrieved(rows, values) for rows, values in picked]

    def _nearest(
        self, units: FloatArray, ks: IntArray, excluded: IntArray, floor: float | None
    ) -> list[tuple[IntArray, FloatArray]]:
        """Screen where the answer is a part of the rows, then rank the candidates by the one float64 formula."""
        some = np.flatnonzero((ks > 0) & (ks < len(self) - (excluded >= 0)))
        screened = dict(zip(some.tolist(), self._screen(units[some], ks[some], excluded[some]), strict=True))
        picked = []
        for pos, unit in enumerate(units):
            rows = screened.get(pos)
            if rows is None:
                rows = np.arange(len(self) if ks[pos] else 0)
                rows = rows[rows != excluded[pos]]
            values = exact_similarities(self._rows[rows], unit)
            best = np.lexsort((rows, -values))[: ks[pos]]
            if floor is not None:
                best = best[values[best] >= floor]
            picked.append((rows[best], values[best]))
        return picked

    def _retrieved(self, rows: IntArray, values: FloatArray) -> Retrieved:
        return Retrieved(rows=rows, ids=tuple(self._ids[row] for row in rows), similarities=np.clip(values, -1.0, 1.0))

    def _check_queries(self, queries: Any) -> FloatArray:
        array = np.asarray(queries)
        if array.ndim == 2 and len(array) == 0:
            return np.empty((0, self._rows.shape[1]))
        array = check_embeddings(queries, name="queries")
        if array.shape[1] != self._rows.shape[1]:
            raise EmbeddingError(
                f"queries have dimension {array.shape[1]}, but the labelled rows have {self._rows.shape[1]}. "
                "Embed both with the same encoder."
            )
        return unit_rows(array.astype(np.float64), name="queries")

    def _excluded(self, query_ids: Sequence[str] | None, n_queries: int) -> IntArray:
        if query_ids is None:
            return np.full(n_queries, -1, dtype=np.int64)
        if isinstance(query_ids, str) or len(query_ids) != n_queries:
            raise DataError(f"query_ids holds {len(query_ids)} ids for {n_queries} queries. Pass one id a query.")
        return np.array([self._row_of.get(id_, -1) for id_ in query_ids], dtype=np.int64)

    def _label_codes(self) -> IntArray:
        if self._labels is None or None in self._labels:
            missing = len(self) if self._labels is None else self._labels.count(None)
            raise LabelError(
                f"balance=True needs the label of every labelled row, but {missing} of {len(self)} have none. "
                "Pass labels to the Retriever, or leave balance out."
            )
        codes = {label: code for code, label in enumerate(dict.fromkeys(self._labels))}
        return np.array([codes[label] for label in self._labels], dtype=np.int64)


class _Picker:
    """Greedy picks for one query after another: relevance, minus redundancy (mmr), one label at a time (balance)."""

    def __init__(
        self, rows: FloatArray, codes: IntArray | None, mmr: float | None, min_similarity: float | None
    ) -> None:
        # Converted once where that costs at most 128 MB, else block by block.
        self.rows = rows.astype(np.float64, copy=False) if rows.size <= 16_000_000 else rows
        self.codes = codes
        self.mmr = mmr
        self.floor = -np.inf if min_similarity is None else min_similarity

    def pick(self, unit: FloatArray, k: int, excluded: int) -> tuple[IntArray, FloatArray]:
        similar = exact_similarities(self.rows, unit)
        free = similar >= self.floor
        if excluded >= 0:
            free[excluded] = False
        k = min(k, int(free.sum()))
        score = similar if self.mmr is None else self.mmr * similar
        redundancy = np.full(len(similar), -np.inf)
        shown = np.zeros(0 if self.codes is None else int(self.codes.max()) + 1)
        picks: list[int] = []
        while len(picks) < k:
            allowed = free
            if self.codes is not None:
                allowed = free & (shown[self.codes] == shown[self.codes[free]].min())
            best = int(np.argmax(np.where(allowed, score, -np.inf)))
            picks.append(best)
            free[best] = False
            if self.codes is not None:
                shown[self.codes[best]] += 1
            if self.mmr is not None and len(picks) < k:
                np.maximum(
                    redundancy, exact_similarities(self.rows, self.rows[best].astype(np.float64)), out=redundancy
                )
                score = self.mmr * similar - (1.0 - self.mmr) * redundancy
        rows = np.array(picks, dtype=np.int64)
        return rows, similar[rows]


def _check_ids(ids: Sequence[str], n: int) -> tuple[str, ...]:
    names = tuple(ids)
    if isinstance(ids, str) or len(names) != n:
        raise DataError(f"{len(names)} ids for {n} labelled rows. Pass one id for each row of x.")
    twice = [id_ for id_, count in Counter(names).items() if count > 1]
    if twice:
        raise DataError(f"id {twice[0]!r} names more than one labelled row. Ids must be distinct.")
    return names


def _check_k(k: int | Sequence[int] | None, n_queries: int, n: int) -> IntArray:
    if k is None:
        return np.full(n_queries, n, dtype=np.int64)
    if isinstance(k, (int, np.integer, float)):
        return np.full(n_queries, min(check_int(k, name="k", low=0), n), dtype=np.int64)
    values = [min(check_int(value, name="k", low=0), n) for value in k]
    if len(values) != n_queries:
        raise ParameterError(f"k holds {len(values)} numbers for {n_queries} queries. Pass one number, or one a query.")
    return np.array(values, dtype=np.int64)


def _check_share(value: float | None, name: str, low: float) -> None:
    if value is not None and not low <= value <= 1.0:
        raise ParameterError(f"{name}={value!r} is outside its range. Pass a number from {low:g} to 1.")
