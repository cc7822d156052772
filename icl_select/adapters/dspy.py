"""Demonstrations for DSPy: a retriever for each query, an optimiser that picks fixed ones. Needs the extra ``dspy``.

:class:`IclRetriever` is called like ``dspy.KNN``: what to show with this query. :class:`IclFewShot` says what to show
with all of them: which examples of the trainset cover it best.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal, Self

from icl_select._optional import require
from icl_select.adapters._trainset import input_keys, text_of, texts_of
from icl_select.adapters.pool_source import PoolSource
from icl_select.adapters.source import ExampleSource, query_parts
from icl_select.data import Pool
from icl_select.embedding import embed
from icl_select.embedding._encoding import CacheChoice
from icl_select.embedding.encoder import Encoder
from icl_select.errors import ParameterError, suggest
from icl_select.methods import select
from icl_select.registry import Spec
from icl_select.types import Demonstration

require("dspy", extra="dspy", purpose="the DSPy adapter")

from dspy import Example, Module  # noqa: E402  # after the message that helps
from dspy.teleprompt import Teleprompter  # noqa: E402

__all__ = ["IclFewShot", "IclRetriever"]

_ORDERS = ("nearest_first", "nearest_last")


class IclRetriever:
    """Finds the examples to show with a query; called like ``dspy.KNN``.

    Parameters
    ----------
    source : ExampleSource
        A :class:`icl_select.adapters.PoolSource` or :class:`icl_select.adapters.ServiceSource`; says how many
        examples. For a trainset of DSPy see :meth:`from_trainset`.
    label_key : str, default="label"
        Field of an example that holds its label.
    input_keys : sequence of str, optional
        Fields of an example that are its inputs; default: all but the label.
    order : {"nearest_first", "nearest_last"}
        Order of the examples; the first is that of ``dspy.KNN``.

    Notes
    -----
    Copies of a program share its retriever: pool and vectors are large and no parameters.
    """

    def __init__(
        self,
        source: ExampleSource,
        *,
        label_key: str = "label",
        input_keys: Sequence[str] | None = None,
        order: Literal["nearest_first", "nearest_last"] = "nearest_first",
    ) -> None:
        if order not in _ORDERS:
            raise ParameterError(f"unknown order {order!r}.{suggest(order, _ORDERS)}")
        self.source = source
        self.label_key = label_key
        self.input_keys = None if input_keys is None else list(input_keys)
        self.order = order

    @classmethod
    def from_trainset(
        cls,
        trainset: Sequence[Example],
        *,
        k: int = 8,
        encoder: str | Encoder = "minilm",
        centre: bool = True,
        cache: CacheChoice = None,
        mmr: float | None = None,
        min_similarity: float | None = None,
        order: Literal["nearest_first", "nearest_last"] = "nearest_first",
    ) -> IclRetriever:
        """Retrieve among the examples of a trainset; they are returned as they are.

        Parameters
        ----------
        trainset : sequence of dspy.Example
            Their inputs, as ``with_inputs`` names them, are embedded.
        k : int, default=8
        encoder, centre, cache
            As for :func:`icl_select.embed`.
        mmr, min_similarity
            As for :class:`icl_select.Retriever`.
        order : {"nearest_first", "nearest_last"}

        Returns
        -------
        IclRetriever

        Raises
        ------
        DataError
            If there is no example, or one does not say which fields are its inputs.

        Examples
        --------
        >>> import dspy
        >>> trainset = [
        ...     dspy.Example(question="Where is my parcel?", answer="post").with_inputs("question"),
        ...     dspy.Example(question="The invoice is wrong.", answer="billing").with_inputs("question"),
        ... ]
        >>> nearest = IclRetriever.from_trainset(trainset, k=1, encoder="hash", centre=False, cache=False)
        >>> nearest(question="Where is the parcel now?")[0].answer
        'post'
        """
        keys = input_keys(trainset)
        x = embed(texts_of(trainset, keys), encoder, centre=centre, cache=cache, progress=False)
        # Rows are found again by their number; only labelled rows are shown, and all of these have an answer.
        numbers = [str(number) for number in range(len(trainset))]
        pool = Pool.from_texts(texts_of(trainset, keys), ids=numbers, labels=numbers)
        source = PoolSource(pool, x, k=k, mmr=mmr, min_similarity=min_similarity)
        return _TrainsetRetriever(tuple(trainset), source, keys, order)

    def __call__(self, **inputs: Any) -> list[Example]:
        """The examples to show with these inputs.

        Parameters
        ----------
        **inputs
            Fields of the query, as a DSPy program is called with them.

        Returns
        -------
        list of dspy.Example
            With their inputs marked.
        """
        return self._examples(self.source.nearest(self._query(inputs)))

    async def acall(self, **inputs: Any) -> list[Example]:
        """The same, without blocking the event loop."""
        return self._examples(await self.source.anearest(self._query(inputs)))

    def __deepcopy__(self, memo: dict[int, Any]) -> Self:
        return self

    def _query(self, inputs: Mapping[str, Any]) -> Mapping[str, Any]:
        return inputs

    def _examples(self, found: Sequence[Demonstration]) -> list[Example]:
        examples = [self._example(shown) for shown in found]
        return examples[::-1] if self.order == "nearest_last" else examples

    def _example(self, shown: Demonstration) -> Example:
        fields = {**shown.fields, self.label_key: shown.label}
        keys = self.input_keys
        return Example(**fields).with_inputs(
            *([key for key in fields if key != self.label_key] if keys is None else keys)
        )


class _TrainsetRetriever(IclRetriever):
    """Gives back the very examples it was made of."""

    def __init__(
        self,
        trainset: tuple[Example, ...],
        source: PoolSource,
        keys: Sequence[str],
        order: Literal["nearest_first", "nearest_last"],
    ) -> None:
        super().__init__(source, input_keys=keys, order=order)
        self._trainset = trainset
        self._keys = keys

    def _query(self, inputs: Mapping[str, Any]) -> Mapping[str, Any]:
        return {"text": text_of(query_parts(inputs, self._keys), self._keys)}

    def _example(self, shown: Demonstration) -> Example:
        return self._trainset[int(shown.id)]


class IclFewShot(Teleprompter):  # type: ignore[misc]  # dspy has no types
    """Gives every predictor of a program the examples of the trainset that a selection method picks.

    The pick depends on the inputs alone: which few examples say most about all. They are the same for every query; for
    examples that follow the query use :class:`IclRetriever`.

    Parameters
    ----------
    budget : int, default=16
        Examples in every prompt.
    method : str or Spec, default="max_herding"
        As for :func:`icl_select.select`.
    encoder, centre, cache
        As for :func:`icl_select.embed`.
    seed : int, default=0

    Examples
    --------
    >>> import dspy
    >>> trainset = [dspy.Example(question=f"What is {n}?", answer=str(n)).with_inputs("question") for n in range(9)]
    >>> program = IclFewShot(budget=3, encoder="hash", cache=False).compile(
    ...     dspy.Predict("question -> answer"), trainset=trainset
    ... )
    >>> len(program.demos)
    3
    """

    def __init__(
        self,
        budget: int = 16,
        method: str | Spec = "max_herding",
        *,
        encoder: str | Encoder = "minilm",
        centre: bool = True,
        cache: CacheChoice = None,
        seed: int = 0,
    ) -> None:
        super().__init__()
        self.budget = budget
        self.method = method
        self.encoder = encoder
        self.centre = centre
        self.cache = cache
        self.seed = seed

    def choose(self, trainset: Sequence[Example]) -> list[Example]:
        """The examples to show, in the order in which they were picked.

        Parameters
        ----------
        trainset : sequence of dspy.Example
            Their inputs, as ``with_inputs`` names them, are embedded.

        Returns
        -------
        list of dspy.Example

        Raises
        ------
        DataError
            If there is no example, or one does not say which fields are its inputs.
        BudgetError
            If the budget exceeds the trainset.
        """
        x = embed(
            texts_of(trainset, input_keys(trainset)),
            self.encoder,
            centre=self.centre,
            cache=self.cache,
            progress=False,
        )
        picked = select(self.method, x, self.budget, seed=self.seed)
        return [trainset[int(row)] for row in picked.indices]

    def compile(
        self,
        student: Module,
        *,
        trainset: Sequence[Example],
        teacher: Module | None = None,
        valset: Sequence[Example] | None = None,
    ) -> Module:
        """A copy of the program whose predictors show the picked examples. DSPy can save and load it.

        Parameters
        ----------
        student : dspy.Module
            Is not changed.
        trainset : sequence of dspy.Example
            Labelled examples.
        teacher : None
            Must be None: demonstrations are the trainset's own, no program writes them.
        valset : sequence of dspy.Example, optional
            Part of the interface; nothing is tried out, so it is not read.

        Returns
        -------
        dspy.Module

        Raises
        ------
        ParameterError
            If a teacher is passed.
        DataError, BudgetError
            As :meth:`choose` does.
        """
        if teacher is not None:
            raise ParameterError(
                "a teacher was passed, but the demonstrations are examples of the trainset and no program writes them. "
                "Leave teacher out, or bootstrap with an optimiser of DSPy on the examples that choose() returns."
            )
        chosen = self.choose(trainset)
        program = student.reset_copy()
        for predictor in program.predictors():
            predictor.demos = list(chosen)
        program._compiled = True
        return program
