"""The small frozen records that travel between the stages.

Every index that leaves a public function is an index into the pool; positions inside a part of the pool
are called ``pos`` and stay private. Arrays inside records are read-only.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from icl_select.errors import BudgetError, IclSelectError

__all__ = [
    "BoolArray",
    "Decoding",
    "Demonstration",
    "Dropped",
    "Example",
    "Feedback",
    "FloatArray",
    "IntArray",
    "Prediction",
    "Progress",
    "Prompt",
    "Retrieved",
    "ScoreItem",
    "Selection",
]

FloatArray = npt.NDArray[np.floating[Any]]
IntArray = npt.NDArray[np.int64]
BoolArray = npt.NDArray[np.bool_]

Feedback = Callable[[IntArray], FloatArray]
"""``feedback(labelled) -> (n,)``: given the pool indices labelled so far, how unsure the model is of
every pool row when prompted with those labels. Larger means less confident (the published choice is the
smallest mean token negative log-likelihood over the options). Values at labelled rows are ignored."""

Progress = Callable[[str, int, int], None]
"""``progress(stage, done, total)``, called now and then by long work in the thread that asked for it. What it raises
ends the work."""


def _frozen(values: Any, dtype: Any) -> Any:
    array = np.array(values, dtype=dtype)
    array.setflags(write=False)
    return array


@dataclass(frozen=True, slots=True)
class Example:
    """One text of a pool or test set.

    ``text`` is what is embedded; ``fields`` are the named parts that templates see; ``label`` is the
    annotation as a string, None while unlabelled.
    """

    id: str
    text: str
    fields: Mapping[str, Any] = field(default_factory=dict)
    label: str | None = None
    metadata: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, eq=False)
class Selection:
    """Which pool rows to label, in pick order.

    Attributes
    ----------
    indices : ndarray of shape (budget,), int64
        Unique pool indices, none of them given, in pick order.
    gains : ndarray of shape (budget,), float64
        What each pick added to the method's own objective; 0 for methods that optimise nothing (random).
    nested : bool
        Whether any prefix is the method's answer to that smaller budget.
    method : str
        Canonical method name with parameters; empty when a method was called directly.
    seed : int or None
        Seed given to :func:`icl_select.select`.
    info : mapping
        What the method reports about its run (bounds, number of samples, ...); JSON values only.
    """

    indices: IntArray
    gains: FloatArray
    nested: bool = True
    method: str = ""
    seed: int | None = None
    info: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        indices, gains = np.asarray(self.indices), np.asarray(self.gains)
        for name, array, kinds in (("indices", indices, "iu"), ("gains", gains, "iuf")):
            if array.ndim != 1 or (array.size and array.dtype.kind not in kinds):
                raise IclSelectError(
                    f"{name} of a Selection have shape {array.shape} and dtype {array.dtype}. Pass a 1-D array of "
                    + ("pool indices: integers." if name == "indices" else "numbers, one for each index.")
                )
        object.__setattr__(self, "indices", _frozen(indices, np.int64))
        object.__setattr__(self, "gains", _frozen(gains, np.float64))

    def __len__(self) -> int:
        return len(self.indices)

    def prefix(self, budget: int) -> Selection:
        """Return the answer to a smaller budget, or raise if this method's picks are not nested."""
        if not isinstance(budget, (int, np.integer)) or not 1 <= budget <= len(self):
            raise BudgetError(
                f"prefix of {budget!r} asked of a selection of {len(self)} rows. Pass a whole number "
                f"from 1 to {len(self)}."
            )
        if budget < len(self) and not self.nested:
            raise BudgetError(
                f"the picks of {self.method or 'this method'} are not nested: its answer to budget {budget} "
                f"is not a prefix of its answer to {len(self)}. Select again with budget={budget}."
            )
        return replace(self, indices=self.indices[:budget], gains=self.gains[:budget])


@dataclass(frozen=True, eq=False)
class Retrieved:
    """Labelled rows retrieved for one query, most similar first (or in MMR order).

    Attributes
    ----------
    rows : ndarray of shape (k,), int64
        Rows of the labelled matrix that the retriever was built on.
    ids : tuple of str, length k
    similarities : ndarray of shape (k,), float64
        Cosine similarity to the query.
    """

    rows: IntArray
    ids: tuple[str, ...]
    similarities: FloatArray

    def __post_init__(self) -> None:
        object.__setattr__(self, "rows", _frozen(self.rows, np.int64))
        object.__setattr__(self, "similarities", _frozen(self.similarities, np.float64))

    def __len__(self) -> int:
        return len(self.ids)


@dataclass(frozen=True, slots=True)
class Demonstration:
    """A labelled example as it is shown in a prompt: its label and how close it is to the query."""

    id: str
    label: str
    similarity: float
    fields: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Dropped:
    """A demonstration that did not enter the prompt, and why."""

    id: str
    reason: str


@dataclass(frozen=True, slots=True)
class Prompt:
    """A prompt for one query, as text and as chat messages.

    ``examples`` holds the demonstrations in prompt order; ``ranks`` their rank by similarity (0 is the
    nearest retrieved); ``tokens`` the exact number of tokens that the target tokenizer counts for the
    rendering that will be sent.
    """

    query_id: str
    text: str
    messages: tuple[Mapping[str, str], ...]
    examples: tuple[Demonstration, ...]
    ranks: tuple[int, ...]
    tokens: int
    dropped: tuple[Dropped, ...] = ()
    info: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Decoding:
    """How an answer is generated.

    ``max_tokens`` ends it at the latest, the first of ``stop`` before that (and is left out). ``temperature`` 0
    takes the most likely token each time; above it, tokens are drawn, the seed of each prompt being made of
    ``seed`` and the prompt itself.
    """

    max_tokens: int = 64
    stop: tuple[str, ...] = ("\n",)
    temperature: float = 0.0
    seed: int = 0


@dataclass(frozen=True, slots=True)
class ScoreItem:
    r"""What a scorer sees of one query.

    ``prompt`` is None for scorers that declare ``needs_prompt = False``. ``choices`` holds the label
    words of a classification task, None for generation. ``demonstrations`` are in retrieval order.
    ``prefix`` stands between the prompt and a choice and is scored with it (``"\n"`` as published).
    ``decoding`` says how to generate where there are no choices. ``content_free`` holds the same prompt with
    meaningless queries, and ``premise`` what announces an answer of this domain; only the calibrated scoring rules
    read them.
    """

    id: str
    demonstrations: tuple[Demonstration, ...]
    choices: tuple[str, ...] | None = None
    prompt: Prompt | None = None
    prefix: str = "\n"
    decoding: Decoding | None = None
    content_free: tuple[Prompt, ...] = ()
    premise: str | None = None


@dataclass(frozen=True, slots=True)
class Prediction:
    """A scorer's answer to one item: the chosen label or generated text, and the score of every choice."""

    id: str
    output: str
    scores: Mapping[str, float] = field(default_factory=dict)
    info: Mapping[str, Any] = field(default_factory=dict)
