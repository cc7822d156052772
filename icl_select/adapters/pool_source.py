"""Examples from a pool in this process."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from icl_select.adapters.source import fields_of, query_parts
from icl_select.data import Pool
from icl_select.errors import EmbeddingError, UnknownNameError
from icl_select.pipeline import Prompter
from icl_select.types import Demonstration, Example

if TYPE_CHECKING:
    from icl_select.embedding import Embeddings

__all__ = ["PoolSource"]


@dataclass(frozen=True, eq=False)
class _Space:
    """Vectors of a pool that may grow, and what puts queries among them."""

    vectors: npt.NDArray[Any]
    queries: Callable[[Any], npt.NDArray[Any]]

    def __array__(self, dtype: npt.DTypeLike | None = None, copy: bool | None = None) -> npt.NDArray[Any]:
        return np.array(self.vectors, dtype=dtype, copy=copy)


# One for all sources: adding is rare, and a source with a lock of its own could not be copied or pickled.
_ADDING = threading.Lock()


class PoolSource:
    """The labelled rows of a pool in this process.

    Parameters
    ----------
    pool : Pool
        Labels that are given to it later count at the next query.
    x : Embeddings
        Of this pool, from :func:`icl_select.embed`.
    k : int, default=8
        Examples for each query.
    text : str, default="text"
        Field, or template of fields, that is embedded; the pool's own.
    mmr, balance, min_similarity, backend
        As for :class:`icl_select.Retriever`.

    Attributes
    ----------
    pool : Pool
        With what was added: another one than was passed, once something was.

    Raises
    ------
    EmbeddingError
        If `x` is a bare array, or has not one row per pool row.

    Notes
    -----
    Adding copies the vectors: O(n d). The asynchronous methods work in a thread.

    Examples
    --------
    >>> import icl_select as icl
    >>> pool = icl.Pool.from_texts(["My invoice is wrong", "I cannot log in"], labels=["billing", "login"])
    >>> source = PoolSource(pool, icl.embed(pool, "hash", centre=False, cache=False, progress=False), k=1)
    >>> [found.label for found in source.nearest({"text": "I cannot log in today"})]
    ['login']
    """

    def __init__(
        self,
        pool: Pool,
        x: Embeddings,
        *,
        k: int = 8,
        text: str = "text",
        mmr: float | None = None,
        balance: bool = False,
        min_similarity: float | None = None,
        backend: str = "numpy",
    ) -> None:
        if not hasattr(x, "queries"):
            raise EmbeddingError("x cannot embed queries. Pass the result of icl_select.embed, not its bare vectors.")
        self._text = text
        self._options: dict[str, Any] = {
            "k": k,
            "text": text,
            "mmr": mmr,
            "balance": balance,
            "min_similarity": min_similarity,
            "backend": backend,
        }
        self._space = _Space(np.asarray(x), x.queries)
        self._prompter = self._prompt_from(pool)

    @property
    def pool(self) -> Pool:
        """The pool with what was added."""
        return self._prompter.pool

    def nearest(self, inputs: Mapping[str, Any]) -> list[Demonstration]:
        """The examples to show with these inputs, most similar first.

        Parameters
        ----------
        inputs : mapping
            Has the fields that are embedded; others do not count.

        Returns
        -------
        list of Demonstration

        Raises
        ------
        ParameterError
            If such a field is missing.
        LabelError
            If nothing is labelled.
        """
        prompter = self._prompter
        found = prompter.retrieve([query_parts(inputs, fields_of(self._text))])[0]
        rows = [prompter.pool[int(row)] for row in found.rows]
        return [
            Demonstration(row.id, str(row.label), float(similarity), row.fields)
            for row, similarity in zip(rows, found.similarities, strict=True)
        ]

    async def anearest(self, inputs: Mapping[str, Any]) -> list[Demonstration]:
        """The same as :meth:`nearest`, in a thread: encoding is work for the processor."""
        return await asyncio.to_thread(self.nearest, inputs)

    def add(self, fields: Mapping[str, Any], label: str) -> str:
        """Add a labelled example. One that the pool has is labelled, if it has no other label.

        Parameters
        ----------
        fields : mapping
            May hold an ``id``; else its content names it.
        label : str

        Returns
        -------
        str
            Its id.

        Raises
        ------
        DataError, LabelError
            If it is no example, or contradicts what the pool has.
        """
        example = Pool.from_records([{**fields, "label": label}], source="the example", text=self._text)[0]
        with _ADDING:
            standing = self._standing(example.id)
            if standing is not None and standing.fields == example.fields:
                self.pool.label({example.id: str(example.label)})
            else:
                self._grow(example)
        return example.id

    async def aadd(self, fields: Mapping[str, Any], label: str) -> str:
        """The same as :meth:`add`, in a thread."""
        return await asyncio.to_thread(self.add, fields, label)

    def _standing(self, name: str) -> Example | None:
        try:
            return self.pool.example(name)
        except UnknownNameError:
            return None

    def _grow(self, example: Example) -> None:
        pool = Pool([*self.pool, example], source=self.pool.source)
        vectors = np.concatenate([self._space.vectors, self._space.queries([example.text])])
        self._space = replace(self._space, vectors=vectors)
        self._prompter = self._prompt_from(pool)

    def _prompt_from(self, pool: Pool) -> Prompter:
        # Works as the result of embed does: an array that can embed queries.
        space: Any = self._space
        return Prompter(pool, space, **self._options)
