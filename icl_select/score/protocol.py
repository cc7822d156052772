"""The two seams: what the evaluation asks of a scorer, and what a scorer asks of a language model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol, runtime_checkable

import numpy as np

from icl_select.types import BoolArray, FloatArray, IntArray, Prediction, Prompt, ScoreItem

__all__ = ["Generation", "LanguageModel", "Loglik", "Scorer"]


@runtime_checkable
class Scorer(Protocol):
    """Answers items. Whatever has these four members is one.

    Attributes
    ----------
    name : str
        What results are listed under.
    needs_prompt : bool
        Whether ``item.prompt`` must be filled. A scorer without a model reads the demonstrations.
    versions : mapping of str to str
        Everything that may change an answer: packages, engine, model revision, parameters. Part of the key under
        which answers are kept.
    """

    @property
    def name(self) -> str: ...
    @property
    def needs_prompt(self) -> bool: ...
    @property
    def versions(self) -> Mapping[str, str]: ...

    def score(self, items: Sequence[ScoreItem]) -> list[Prediction]:
        """Return one prediction for each item, in their order; the answer to an item depends on no other."""
        ...


def _nothing() -> Any:
    return np.zeros(0, dtype=bool)


@dataclass(frozen=True, eq=False)
class Loglik:
    """Log-probabilities of the choices after their prompts.

    Attributes
    ----------
    values : ndarray of shape (n, c), float64
        Natural logarithm, summed over the tokens of a choice. NaN where an item has fewer than `c` choices.
    tokens : ndarray of shape (n, c), int64
        Tokens of each choice; 0 where there is none.
    truncated : ndarray of shape (n,), bool
        Prompts that the engine cut. Empty: none.
    """

    values: FloatArray
    tokens: IntArray
    truncated: BoolArray = field(default_factory=_nothing)


@dataclass(frozen=True, slots=True)
class Generation:
    """What a model wrote after a prompt, without the stop string; `truncated` if it hit the token limit."""

    text: str
    tokens: int
    truncated: bool = False


@runtime_checkable
class LanguageModel(Protocol):
    """An engine that reads prompts. :class:`ModelScorer` makes a :class:`Scorer` of it.

    Context and choice are tokenised together, and a choice is what stands after the prompt, leading blanks
    included: ``"\\nTrue"`` for the published format.
    """

    @property
    def name(self) -> str: ...
    @property
    def versions(self) -> Mapping[str, str]: ...

    def loglik(self, prompts: Sequence[Prompt], choices: Sequence[Sequence[str]]) -> Loglik:
        """Return how likely each choice follows its prompt; ``choices[i]`` belong to ``prompts[i]``."""
        ...

    def generate(self, prompts: Sequence[Prompt], *, max_tokens: int, stop: Sequence[str]) -> list[Generation]:
        """Continue each prompt by its most likely tokens."""
        ...
