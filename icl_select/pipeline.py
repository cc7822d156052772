"""Stages composed: prompts for queries from the labelled rows of a pool."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from icl_select._fingerprint import fingerprint
from icl_select._validation import check_embeddings
from icl_select.data import Pool
from icl_select.errors import EmbeddingError, LabelError
from icl_select.prompt import PromptTemplate, Tokenizer, pack
from icl_select.retrieve import Retriever
from icl_select.types import Demonstration, Example, FloatArray, Prompt, Retrieved

if TYPE_CHECKING:
    from icl_select.embedding import Embeddings

__all__ = ["Prompter"]

Query = str | Mapping[str, Any] | Example


class Prompter:
    """Build a prompt for every query from the labelled rows of a pool.

    Parameters
    ----------
    pool : Pool
        Its labelled rows are the demonstrations. Labels that are added later are seen by the next call.
    x : Embeddings or array-like of shape (n, d)
        One row per pool row. With the result of :func:`icl_select.embed`, queries are embedded the same way;
        with a bare array, every call must pass the query vectors.
    template : PromptTemplate, optional
        How demonstrations and the query are written; the default puts the label under the text.
    k : int, default=8
        Demonstrations retrieved per query; fewer where fewer are labelled or fit.
    max_tokens : int, optional
        Exact budget of the whole prompt in tokens of `tokenizer`. None sets no limit.
    tokenizer : Tokenizer or str, default="utf8"
        What counts the tokens; see :func:`icl_select.prompt.load_tokenizer`.
    order : {"nearest_last", "nearest_first", "shuffled"}
        Order of the demonstrations in the prompt; "nearest_last" is the published one.
    rule : {"exact", "published"}
        How demonstrations are packed; see :func:`icl_select.prompt.pack`.
    max_demonstration_tokens : int, optional
        Longer demonstrations are left out; the published rule uses 250 for classification.
    chat : bool, default=False
        Count the tokens of the chat messages instead of the text.
    mmr, balance, min_similarity, backend
        Passed to :class:`icl_select.Retriever`.
    text : str, default="text"
        Field, or template of fields, that is embedded of a query given as a mapping; the pool's own.
    seed : int, default=0
        Seeds the order "shuffled", per query.

    Raises
    ------
    EmbeddingError
        If `x` does not have one row per pool row.
    LabelError
        If no pool row is labelled when a prompt is asked for.

    Notes
    -----
    A query whose id is the id of a labelled row never gets that row as a demonstration.
    """

    def __init__(
        self,
        pool: Pool,
        x: Embeddings | FloatArray,
        *,
        template: PromptTemplate | None = None,
        k: int = 8,
        max_tokens: int | None = None,
        tokenizer: Tokenizer | str = "utf8",
        order: str = "nearest_last",
        rule: str = "exact",
        max_demonstration_tokens: int | None = None,
        chat: bool = False,
        mmr: float | None = None,
        balance: bool = False,
        min_similarity: float | None = None,
        backend: str = "numpy",
        text: str = "text",
        seed: int = 0,
    ) -> None:
        from icl_select.prompt import load_tokenizer

        self.pool = pool
        self.template = template or PromptTemplate()
        self.k = k
        self._text = text
        self._x = check_embeddings(x)
        if len(self._x) != len(pool):
            raise EmbeddingError(
                f"x has {len(self._x)} rows, but the pool has {len(pool)}. Embed this pool, in this order."
            )
        self._embed = getattr(x, "queries", None)
        self._backend = backend
        self._search: dict[str, Any] = {"mmr": mmr, "balance": balance, "min_similarity": min_similarity}
        self._pack: dict[str, Any] = {
            "max_tokens": max_tokens,
            "tokenizer": load_tokenizer(tokenizer) if isinstance(tokenizer, str) else tokenizer,
            "order": order,
            "rule": rule,
            "max_demonstration_tokens": max_demonstration_tokens,
            "chat": chat,
            "seed": seed,
        }
        self._index: tuple[str, Retriever] | None = None

    def __call__(self, query: Query, *, vector: FloatArray | None = None) -> Prompt:
        """Return the prompt for one query.

        Parameters
        ----------
        query : str, mapping or Example
        vector : ndarray of shape (d,), optional
            Its embedding in the space of `x`; needed where `x` is a bare array.

        Returns
        -------
        Prompt

        Raises
        ------
        EmbeddingError
            If `x` is a bare array and `vectors` is missing, or the vectors do not fit.
        LabelError
            If no pool row is labelled.
        PromptError
            If the query alone exceeds `max_tokens`.
        """
        return self.batch([query], None if vector is None else np.asarray(vector)[None, :])[0]

    def batch(self, queries: Sequence[Query], vectors: FloatArray | None = None) -> list[Prompt]:
        """Return one prompt for each query; embedding them together is faster than one by one.

        Parameters
        ----------
        queries : sequence of str, mapping or Example
            Texts, fields, or whole examples.
        vectors : ndarray of shape (q, d), optional
            Their embeddings in the space of `x`; needed where `x` is a bare array.

        Returns
        -------
        list of Prompt

        Raises
        ------
        EmbeddingError
            If `x` is a bare array and `vectors` is missing, or the vectors do not fit.
        LabelError
            If no pool row is labelled.
        PromptError
            If a query alone exceeds `max_tokens`.
        """
        examples = [self._example(query) for query in queries]
        found = self.retrieve(examples, vectors)
        return [
            pack(self.template, self._demonstrations(hits), example, **self._pack)
            for example, hits in zip(examples, found, strict=True)
        ]

    def retrieve(self, queries: Sequence[Query], vectors: FloatArray | None = None) -> list[Retrieved]:
        """Return the labelled rows nearest to each query.

        Parameters
        ----------
        queries : sequence of str, mapping or Example
            Texts, fields, or whole examples.
        vectors : ndarray of shape (q, d), optional
            Their embeddings in the space of `x`; needed where `x` is a bare array.

        Returns
        -------
        list of Retrieved
            Most similar first; ``rows`` are pool indices.

        Raises
        ------
        EmbeddingError
            If `x` is a bare array and `vectors` is missing, or the vectors do not fit.
        LabelError
            If no pool row is labelled.
        """
        examples = [self._example(query) for query in queries]
        if not examples:
            return []
        labelled, retriever = self._retriever()
        if vectors is None:
            vectors = self._vectors(examples)
        found = retriever.retrieve(vectors, self.k, query_ids=[example.id for example in examples], **self._search)
        return [Retrieved(rows=labelled[hits.rows], ids=hits.ids, similarities=hits.similarities) for hits in found]

    def _vectors(self, examples: Sequence[Example]) -> FloatArray:
        if self._embed is None:
            raise EmbeddingError(
                "this prompter was given a bare array and cannot embed queries. Pass vectors=, or build it with the "
                "result of icl_select.embed."
            )
        vectors: FloatArray = self._embed([example.text for example in examples])
        return vectors

    def _retriever(self) -> tuple[Any, Retriever]:
        """The index over the rows labelled now; rebuilt when the labels have changed, never used stale."""
        labelled = self.pool.labelled
        if not len(labelled):
            raise LabelError(
                f"none of the {len(self.pool)} pool rows is labelled, so there is nothing to show. "
                "Label some first: pool.label({id: label})."
            )
        state = fingerprint(labelled.tolist(), [self.pool[i].label for i in labelled])
        if self._index is None or self._index[0] != state:
            rows = [self.pool[i] for i in labelled]
            retriever = Retriever(
                self._x[labelled],
                [row.id for row in rows],
                [str(row.label) for row in rows],
                backend=self._backend,
            )
            self._index = (state, retriever)
        return labelled, self._index[1]

    def _demonstrations(self, hits: Retrieved) -> list[Demonstration]:
        rows = [self.pool[i] for i in hits.rows]
        return [
            Demonstration(row.id, str(row.label), float(similarity), {**row.fields, "text": row.text})
            for row, similarity in zip(rows, hits.similarities, strict=True)
        ]

    def _example(self, query: Query) -> Example:
        if isinstance(query, Example):
            return query
        if isinstance(query, str):
            return Example(id=f"query-{fingerprint(query)}", text=query, fields={"text": query})
        return Pool.from_records([query], source="query", text=self._text)[0]
