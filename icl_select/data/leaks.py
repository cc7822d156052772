"""Leaks: queries that stand in the pool they are answered from."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from icl_select.data._similarity import TOLERANCE, check_threshold, nearest, normalise, unit_matrix
from icl_select.errors import EmbeddingError, ParameterError
from icl_select.types import Example

__all__ = ["Leak", "LeakReport", "leaks"]


@dataclass(frozen=True)
class Leak:
    """A query that stands in the pool.

    ``kind`` is ``"exact"`` (equal text), ``"normalised"`` (equal up to Unicode form, case, white space and
    punctuation) or ``"near"`` (cosine at or above the threshold), the strictest that holds. ``similarity`` is the
    cosine to that pool row, None where no embeddings were given.
    """

    query_id: str
    pool_id: str
    kind: str
    similarity: float | None = None


@dataclass(frozen=True)
class LeakReport:
    """Which queries stand in the pool.

    Attributes
    ----------
    n_queries, n_pool : int
        Sizes.
    threshold : float
        Cosine similarity from which a query is near a pool row.
    leaks : tuple of Leak
        One for each leaking query, in query order.
    compared : bool
        Whether queries and pool were compared by embedding.
    """

    n_queries: int
    n_pool: int
    threshold: float
    leaks: tuple[Leak, ...]
    compared: bool = False

    @property
    def query_ids(self) -> tuple[str, ...]:
        """Ids of the leaking queries, for scores with and without them."""
        return tuple(leak.query_id for leak in self.leaks)

    @property
    def counts(self) -> dict[str, int]:
        """Leaking queries by kind."""
        found = Counter(leak.kind for leak in self.leaks)
        return {kind: found[kind] for kind in ("exact", "normalised", "near")}

    def to_dict(self) -> dict[str, Any]:
        """The report as JSON values."""
        return {
            "n_queries": self.n_queries,
            "n_pool": self.n_pool,
            "threshold": self.threshold,
            "compared_by_embedding": self.compared,
            "counts": self.counts,
            "leaks": [asdict(leak) for leak in self.leaks],
        }

    def summary(self) -> str:
        """One paragraph for people."""
        counts = self.counts
        near = f"{counts['near']:,} near (cosine >= {self.threshold:g})" if self.compared else "nearness not checked"
        found = f"{counts['exact']:,} exact, {counts['normalised']:,} up to form, {near}"
        if not self.leaks:
            return f"Leaks: none of the {self.n_queries:,} queries stands in the pool of {self.n_pool:,} ({found})."
        first = self.leaks[0]
        verb = "stands" if len(self.leaks) == 1 else "stand"
        return (
            f"Leaks: {len(self.leaks):,} of the {self.n_queries:,} queries {verb} in the pool of {self.n_pool:,} "
            f"({found}), for example query {first.query_id!r} as {first.pool_id!r}. Report scores with and "
            "without them."
        )


def leaks(
    pool: Sequence[Example],
    queries: Sequence[Example],
    x_pool: Any = None,
    x_queries: Any = None,
    *,
    threshold: float = 0.95,
) -> LeakReport:
    """Find queries that stand in the pool: exactly, up to form, or near by embedding.

    Parameters
    ----------
    pool, queries : Pool or sequence of Example
    x_pool, x_queries : arrays of shape (n, d) and (q, d), default=None
        Embeddings of both in one space, at any scale. Without them nearness is not checked, and the report says so.
    threshold : float, default=0.95
        Cosine similarity from which a query is near a pool row, up to 1e-6 for rounding.

    Returns
    -------
    LeakReport
        One leak for each leaking query: the first pool row of the strictest kind that holds; among near
        rows the most similar.

    Raises
    ------
    EmbeddingError
        If the embeddings do not fit their texts or each other, or hold a zero row, NaN or infinity.
    ParameterError
        If `threshold` is not in (0, 1], or embeddings are given for one side only.

    Notes
    -----
    Time O(n q d), memory O((n + q) d) and some tens of megabytes.

    Examples
    --------
    >>> from icl_select.data import Pool
    >>> pool = Pool.from_texts(["Where is my order?", "Cancel it."], ids=["a", "b"])
    >>> report = leaks(pool, Pool.from_texts(["cancel it", "Hello"], ids=["q", "r"]))
    >>> report.leaks
    (Leak(query_id='q', pool_id='b', kind='normalised', similarity=None),)
    """
    threshold = check_threshold(threshold)
    if (x_pool is None) != (x_queries is None):
        raise ParameterError("embeddings were given for one side only. Pass both x_pool and x_queries, or neither.")
    similar = None if x_pool is None else _Similar(x_pool, len(pool), x_queries, len(queries), threshold)
    exact: dict[str, int] = {}
    form: dict[str, int] = {}
    for row, example in enumerate(pool):
        exact.setdefault(example.text, row)
        form.setdefault(normalise(example.text), row)
    found = []
    for position, query in enumerate(queries):
        kind, match = _match(query.text, exact, form)
        if match is None and similar is not None:
            kind, match = "near", similar.near(position)
        if match is not None:
            value = None if similar is None else similar.value(position, match)
            found.append(Leak(query.id, pool[match].id, kind, value))
    return LeakReport(len(queries), len(pool), threshold, tuple(found), similar is not None)


def _match(text: str, exact: Mapping[str, int], form: Mapping[str, int]) -> tuple[str, int | None]:
    row = exact.get(text)
    return ("exact", row) if row is not None else ("normalised", form.get(normalise(text)))


class _Similar:
    """Similarities of queries and pool rows."""

    def __init__(self, x_pool: Any, n: int, x_queries: Any, q: int, threshold: float) -> None:
        self.x = unit_matrix(x_pool, n, "x_pool")
        self.queries = unit_matrix(x_queries, q, "x_queries")
        if self.x.shape[1] != self.queries.shape[1]:
            raise EmbeddingError(
                f"x_pool has dimension {self.x.shape[1]} and x_queries {self.queries.shape[1]}. Embed both with the "
                "same encoder."
            )
        self.floor = threshold - TOLERANCE
        self.row, self.best = nearest(self.queries, self.x)

    def near(self, position: int) -> int | None:
        return int(self.row[position]) if self.best[position] >= self.floor else None

    def value(self, position: int, row: int) -> float:
        return min(1.0, float(self.queries[position] @ self.x[row]))
