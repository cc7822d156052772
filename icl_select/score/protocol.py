"""The two seams: what the evaluation asks of a scorer, and what a scorer asks of a language model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import NamedTuple, Protocol, runtime_checkable

import numpy as np

from icl_select._validation import check_int, is_number
from icl_select.errors import ParameterError, PromptError
from icl_select.types import BoolArray, Decoding, FloatArray, IntArray, Prediction, Prompt, ScoreItem

__all__ = ["Generation", "LanguageModel", "Loglik", "LoglikRow", "Scorer", "Usage", "check_choices", "check_decoding"]


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


class LoglikRow(NamedTuple):
    """One prompt's line of a :class:`Loglik`, without the places that its choices do not fill."""

    values: FloatArray
    tokens: IntArray
    prompt_tokens: int
    truncated: bool


@dataclass(frozen=True, eq=False)
class Loglik:
    """Log-probabilities of the choices after their prompts.

    Attributes
    ----------
    values : ndarray of shape (n, c), float64
        Natural logarithm, summed over the tokens of a choice. NaN where an item has fewer than `c` choices.
    tokens : ndarray of shape (n, c), int64
        Tokens of each choice; 0 where there is none.
    prompt_tokens : ndarray of shape (n,), int64
        Tokens of the context that the model read before the choices.
    truncated : ndarray of shape (n,), bool
        Prompts that were cut on the left to fit what the model reads.
    """

    values: FloatArray
    tokens: IntArray
    prompt_tokens: IntArray
    truncated: BoolArray

    @classmethod
    def from_rows(cls, rows: Sequence[LoglikRow]) -> Loglik:
        """Put lines of one prompt each together."""
        width = max((len(row.values) for row in rows), default=0)
        values, tokens = np.full((len(rows), width), np.nan), np.zeros((len(rows), width), dtype=np.int64)
        for i, row in enumerate(rows):
            values[i, : len(row.values)], tokens[i, : len(row.tokens)] = row.values, row.tokens
        lengths = np.array([row.prompt_tokens for row in rows], dtype=np.int64)
        return cls(values, tokens, lengths, np.array([row.truncated for row in rows], dtype=np.bool_))


@dataclass(frozen=True, slots=True)
class Generation:
    """What a model wrote after a prompt.

    Attributes
    ----------
    text : str
        Without the stop string.
    logprobs : tuple of float
        Log-probability of each generated token, those of the stop string included. Empty where a server gives none.
    tokens : int
        Tokens generated.
    finished : bool
        False if the token limit ended it.
    prompt_tokens : int
    truncated : bool
        Whether the prompt was cut on the left to fit what the model reads.
    """

    text: str
    logprobs: tuple[float, ...]
    tokens: int
    finished: bool
    prompt_tokens: int
    truncated: bool = False


@dataclass
class Usage:
    """What an engine has been asked so far.

    ``cached_tokens`` are prompt tokens that it did not compute again, as the engine itself reports them;
    ``seconds`` the wall time of its calls.
    """

    requests: int = 0
    prompt_tokens: int = 0
    cached_tokens: int = 0
    generated_tokens: int = 0
    seconds: float = 0.0

    def to_dict(self) -> dict[str, int | float]:
        """The counts as JSON values."""
        return asdict(self)


@runtime_checkable
class LanguageModel(Protocol):
    r"""An engine that reads prompts. :class:`ModelScorer` makes a :class:`Scorer` of it.

    Context and choice are tokenised together, and a choice is what stands after the prompt, leading blanks
    included: ``"\nTrue"`` for the published format. Everything but the two calls is known before weights are
    loaded; the first call loads them.

    Attributes
    ----------
    name : str
        Model and revision, without a path.
    versions : mapping of str to str
        Model, revision, engine and its version, dtype and whatever else changes a number.
    fingerprint : str
        Hash of `versions`; part of the key under which answers are kept.
    tokenizer_name : str or None
        What :func:`icl_select.prompt.load_tokenizer` makes the model's tokenizer of; None if it is not known.
    max_length : int or None
        Tokens that the model reads and writes together; None if it is not known.
    chat : bool
        Whether ``Prompt.messages`` are sent instead of ``Prompt.text``.
    usage : Usage
    """

    @property
    def name(self) -> str: ...
    @property
    def versions(self) -> Mapping[str, str]: ...
    @property
    def fingerprint(self) -> str: ...
    @property
    def tokenizer_name(self) -> str | None: ...
    @property
    def max_length(self) -> int | None: ...
    @property
    def chat(self) -> bool: ...
    @property
    def usage(self) -> Usage: ...

    def loglik(self, prompts: Sequence[Prompt], choices: Sequence[Sequence[str]]) -> Loglik:
        """Return how likely each choice follows its prompt; ``choices[i]`` belong to ``prompts[i]``."""
        ...

    def generate(self, prompts: Sequence[Prompt], decoding: Decoding) -> list[Generation]:
        """Continue each prompt."""
        ...


def check_choices(prompts: Sequence[Prompt], choices: Sequence[Sequence[str]]) -> None:
    """Refuse prompts of which one has nothing to choose from.

    Raises
    ------
    ParameterError, PromptError
    """
    if len(prompts) != len(choices):
        raise ParameterError(f"{len(prompts)} prompts, but choices for {len(choices)}. Pass choices for each prompt.")
    for prompt, words in zip(prompts, choices, strict=True):
        if not words:
            raise PromptError(f"no choices for {prompt.query_id!r}. Give at least one, or generate.")


def check_decoding(decoding: Decoding) -> None:
    """Refuse what no engine can generate by.

    Raises
    ------
    ParameterError
    """
    check_int(decoding.max_tokens, name="max_tokens", low=1)
    if not all(decoding.stop):
        raise ParameterError(f"stop={decoding.stop!r} ends every text before it begins. Pass a tuple of strings.")
    if not is_number(decoding.temperature) or not 0 <= decoding.temperature < float("inf"):
        raise ParameterError(
            f"temperature={decoding.temperature!r} is out of range. Pass 0 (greedy) or a number above."
        )
