"""Duplicates in a pool: exact, normalised, and near by embedding."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from icl_select._validation import check_int
from icl_select.data._similarity import check_threshold, codes, near_pairs, normalise, unit_matrix
from icl_select.errors import ParameterError
from icl_select.types import Example, IntArray

__all__ = ["DuplicateReport", "duplicates"]

Groups = tuple[tuple[str, ...], ...]

_KINDS = ("exact", "normalised", "near")


@dataclass(frozen=True)
class DuplicateReport:
    """Which examples of a pool say the same.

    Groups hold ids in pool order and are ordered by their first member. A pair counts under one kind only.

    Attributes
    ----------
    n : int
        Examples in the pool.
    threshold : float
        Cosine similarity from which two texts are near.
    exact : tuple of tuples of str
        Groups of two or more equal texts.
    normalised : tuple of tuples of str
        Groups equal up to Unicode form, case, white space and punctuation, which hold at least two different texts.
    near : tuple of tuples of str
        Groups connected by near pairs (or by normal form), which hold at least two different normal forms.
    n_near_pairs : int
        Pairs at or above the threshold whose normal forms differ, among the compared rows.
    closest : tuple of (str, str, float)
        The most similar of these pairs, most similar first.
    disagreeing : tuple of tuples of str
        Groups of equal normal form whose labels differ.
    compared : int
        Rows compared by embedding: 0 without embeddings, fewer than `n` where the pool was sampled.
    """

    n: int
    threshold: float
    exact: Groups
    normalised: Groups
    near: Groups = ()
    n_near_pairs: int = 0
    closest: tuple[tuple[str, str, float], ...] = ()
    disagreeing: Groups = ()
    compared: int = 0

    def redundant(self, kind: str = "exact") -> tuple[str, ...]:
        """List the ids that repeat an earlier one.

        Parameters
        ----------
        kind : {"exact", "normalised", "near"}, default="exact"

        Returns
        -------
        tuple of str
            All members of the groups of `kind` but the first of each.

        Raises
        ------
        ParameterError
            If `kind` is another.
        """
        if kind not in _KINDS:
            raise ParameterError(f"kind={kind!r} is no kind of duplicate. Pass one of {', '.join(_KINDS)}.")
        groups: Groups = getattr(self, kind)
        return tuple(name for group in groups for name in group[1:])

    def to_dict(self) -> dict[str, Any]:
        """The report as JSON values."""
        return {
            "n": self.n,
            "threshold": self.threshold,
            "compared_by_embedding": self.compared,
            "exact": [list(group) for group in self.exact],
            "normalised": [list(group) for group in self.normalised],
            "near": [list(group) for group in self.near],
            "n_redundant": {kind: len(self.redundant(kind)) for kind in _KINDS},
            "n_near_pairs": self.n_near_pairs,
            "closest": [{"ids": [a, b], "similarity": round(value, 6)} for a, b, value in self.closest],
            "disagreeing": [list(group) for group in self.disagreeing],
        }

    def summary(self) -> str:
        """One paragraph for people."""
        near = "nearness not checked"
        if self.compared:
            near = self._count("near", "near", f", cosine >= {self.threshold:g}")
        if 0 < self.compared < self.n:
            seen = (self.compared / self.n) ** 2
            near += f" in a sample of {self.compared:,} rows, which shows about {seen:.0%} of the near pairs"
        exact, form = self._count("exact", "exact"), self._count("normalised", "up to form")
        text = f"Duplicates in the pool of {self.n:,}: {exact}, {form}, {near}."
        if self.disagreeing:
            ids = ", ".join(self.disagreeing[0])
            text += f" Labels differ within {len(self.disagreeing):,} of these groups, for example {ids}."
        return text

    def _count(self, kind: str, word: str, more: str = "") -> str:
        groups = len(getattr(self, kind))
        return f"{len(self.redundant(kind)):,} {word} ({groups:,} group{'' if groups == 1 else 's'}{more})"


def duplicates(
    pool: Sequence[Example], x: Any = None, *, threshold: float = 0.95, max_rows: int = 100_000, keep: int = 20
) -> DuplicateReport:
    """Find examples of a pool that say the same.

    Parameters
    ----------
    pool : Pool or sequence of Example
        What is searched; only texts, ids and labels count.
    x : array of shape (n, d), default=None
        Embeddings of the pool at any scale. Without them near duplicates are not searched, and the report says so.
    threshold : float, default=0.95
        Cosine similarity from which two texts are near, up to 1e-6 for rounding.
    max_rows : int, default=100_000
        Rows compared by embedding. Of a larger pool a uniform sample of this size (always the same) is
        compared, and the report says so.
    keep : int, default=20
        How many of the most similar pairs the report lists.

    Returns
    -------
    DuplicateReport

    Raises
    ------
    EmbeddingError
        If `x` has not one row per example, or a row is zero, NaN or infinite.
    ParameterError
        If `threshold` is not in (0, 1], `max_rows` is below 2, or `keep` below 1.

    Notes
    -----
    Time O(m^2 d) for m compared rows, memory O(m d) and some tens of megabytes.

    Examples
    --------
    >>> from icl_select.data import Pool
    >>> pool = Pool.from_texts(["Hello!", "hello", "Hello!", "Bye"], ids=["a", "b", "c", "d"])
    >>> report = duplicates(pool)
    >>> report.exact, report.normalised
    ((('a', 'c'),), (('a', 'b', 'c'),))
    """
    threshold = check_threshold(threshold)
    check_int(keep, name="keep", low=1)
    check_int(max_rows, name="max_rows", low=2)
    ids = [example.id for example in pool]
    raw = codes([example.text for example in pool])
    form = codes([normalise(example.text) for example in pool])
    labels = [example.label for example in pool]
    report: dict[str, Any] = {
        "n": len(ids),
        "threshold": threshold,
        "exact": _groups(ids, raw, np.arange(len(ids))),
        "normalised": _groups(ids, form, raw),
        "disagreeing": _disagreeing(ids, form, labels),
    }
    if x is not None:
        report |= _near(ids, unit_matrix(x, len(ids), "x"), form, threshold, max_rows, keep)
    return DuplicateReport(**report)


def _near(ids: Sequence[str], x: Any, form: IntArray, threshold: float, max_rows: int, keep: int) -> Mapping[str, Any]:
    rows = np.arange(len(ids))
    if len(ids) > max_rows:
        rows = np.sort(np.random.default_rng(0).choice(len(ids), max_rows, replace=False))
        x = x[rows]
    own = codes(form[rows].tolist())  # numbered within the compared rows
    found = near_pairs(x, own, threshold, keep)
    names = [ids[row] for row in rows.tolist()]
    return {
        "near": _groups(names, found.component, own),
        "n_near_pairs": found.count,
        "closest": tuple((names[i], names[j], value) for i, j, value in found.pairs),
        "compared": len(rows),
    }


def _members(code: IntArray) -> list[list[int]]:
    """Rows of equal code where there are two or more, by first row."""
    groups: dict[int, list[int]] = {}
    for row, value in enumerate(code.tolist()):
        groups.setdefault(value, []).append(row)
    return [rows for rows in groups.values() if len(rows) > 1]


def _groups(ids: Sequence[str], code: IntArray, finer: IntArray) -> Groups:
    """Groups of equal `code` that hold at least two values of the finer code."""
    return tuple(tuple(ids[row] for row in rows) for rows in _members(code) if len(set(finer[rows].tolist())) > 1)


def _disagreeing(ids: Sequence[str], code: IntArray, labels: Sequence[str | None]) -> Groups:
    return tuple(
        tuple(ids[row] for row in rows)
        for rows in _members(code)
        if len({labels[row] for row in rows if labels[row] is not None}) > 1
    )
