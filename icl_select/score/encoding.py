"""From a prompt and its choices to token ids: encoded together, cut on the left, one context for all choices."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from icl_select.errors import ModelError, PromptError
from icl_select.score.protocol import Loglik
from icl_select.types import FloatArray

__all__ = ["Encode", "EncodedItem", "common_length", "cut_left", "encode_item", "to_loglik"]

Encode = Callable[[str], list[int]]
"""Text to token ids, with the special tokens that the model's tokenizer adds by itself in front."""


@dataclass(frozen=True, slots=True)
class EncodedItem:
    """Token ids of one prompt and its choices.

    ``context + choices[j]`` is what the model reads for choice j; the log-probabilities of the tokens in
    ``choices[j]`` are summed. All choices share one context, so their sums can be compared.
    """

    context: tuple[int, ...]
    choices: tuple[tuple[int, ...], ...]
    truncated: bool = False


def encode_item(encode: Encode, prompt: str, choices: Sequence[str], *, max_length: int | None) -> EncodedItem:
    """Encode a prompt with each of its choices.

    The tokens of ``prompt + choice`` need not begin with those of the prompt: byte pairs join across the border.
    The context is what the encodings of the prompt and of the prompt with each choice have in common; where a
    token spans the border of one choice, the whole of it counts to the choice, and for every choice of the item.

    Parameters
    ----------
    encode : callable
        Text to ids, special tokens included.
    prompt : str
    choices : sequence of str, not empty
        What stands after the prompt, leading blanks included.
    max_length : int or None
        Tokens that the model reads; of a longer item the context is cut on the left, special tokens that the tokenizer
        puts in front kept.

    Raises
    ------
    PromptError
        If there is no choice, a choice has no token of its own, the context is empty, or a choice is as long as
        `max_length`.
    """
    if not choices:
        raise PromptError(f"no choices to score after the prompt {prompt[:40]!r}. Give at least one.")
    alone = encode(prompt)
    joint = [encode(prompt + choice) for choice in choices]
    for choice, ids in zip(choices, joint, strict=True):
        if not choice:
            raise PromptError("an empty choice cannot be scored. Give every choice at least one character.")
        if ids == alone:
            raise PromptError(
                f"the choice {choice!r} has no token: the tokenizer encodes the prompt {prompt[-40:]!r} with it and "
                "without it alike. Write it with characters that the tokenizer keeps."
            )
    border = min(common_length(alone, ids) for ids in joint)
    # Joint ids that are the beginning of the prompt's must still have a token to score.
    border = min(border, *(len(ids) - 1 for ids in joint))
    if border < 1:
        raise PromptError(
            f"the prompt {prompt[:40]!r} leaves the model nothing to read before the choice. Write a longer prompt, or "
            "use a model whose tokenizer begins texts with a special token."
        )
    context, tails = alone[:border], tuple(tuple(ids[border:]) for ids in joint)
    longest = max(len(tail) for tail in tails)
    if max_length is None or border + longest <= max_length:
        return EncodedItem(tuple(context), tails)
    if longest >= max_length:
        raise PromptError(
            f"a choice takes {longest} tokens, and the model reads {max_length}. Shorten the choice, or use a model "
            "with a longer context."
        )
    return EncodedItem(tuple(cut_left(encode, context, max_length - longest)), tails, truncated=True)


def cut_left(encode: Encode, ids: Sequence[int], length: int) -> list[int]:
    """The last `length` ids, special tokens in front kept."""
    if length < 1:
        raise ModelError("the model has no room for a prompt. Lower max_tokens, or use a model with a longer context.")
    if len(ids) <= length:
        return list(ids)
    # Most tokenizers put one special token in front or none, some two; what they append is no part of the beginning.
    special = list(ids[: min(common_length(encode(""), ids), length)])
    return special + list(ids[len(ids) - length + len(special) :])


def common_length(a: Sequence[int], b: Sequence[int]) -> int:
    """Tokens that two sequences begin with in common."""
    pairs = enumerate(zip(a, b, strict=False))
    return next((place for place, (left, right) in pairs if left != right), min(len(a), len(b)))


def to_loglik(items: Sequence[EncodedItem], values: FloatArray) -> Loglik:
    """The answer to encoded items, given the log-probability of each choice: (n, c), NaN where there is none."""
    tokens = np.zeros(values.shape, dtype=np.int64)
    for row, item in enumerate(items):
        tokens[row, : len(item.choices)] = [len(choice) for choice in item.choices]
    return Loglik(
        values,
        tokens,
        np.array([len(item.context) for item in items], dtype=np.int64),
        np.array([item.truncated for item in items], dtype=np.bool_),
    )
