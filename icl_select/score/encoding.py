"""From a prompt and its choices to token ids: encoded together, cut on the left, one context for all choices."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from icl_select.errors import ModelError, PromptError

__all__ = ["Encode", "EncodedItem", "cut_left", "encode_item"]

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
        Tokens that the model reads; of a longer item the context is cut on the left, its first token kept if it
        is a special token that the tokenizer puts in front.

    Raises
    ------
    PromptError
        If a choice has no token of its own, the context is empty, or a choice is as long as `max_length`.
    """
    alone = encode(prompt)
    joint = [encode(prompt + choice) for choice in choices]
    border = min(_common(alone, ids) for ids in joint)
    # A choice that is the beginning of another, or empty, must still have a token to score.
    border = min(border, *(len(ids) - 1 for ids in joint))
    for choice in choices:
        if not choice:
            raise PromptError("an empty choice cannot be scored. Give every choice at least one character.")
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
    special = encode("")[:1] if list(ids[:1]) == encode("")[:1] else []
    keep = length - len(special)
    return special + list(ids[len(ids) - keep :]) if keep > 0 else special


def _common(a: Sequence[int], b: Sequence[int]) -> int:
    """Length of the common beginning."""
    pairs = enumerate(zip(a, b, strict=False))
    return next((place for place, (left, right) in pairs if left != right), min(len(a), len(b)))
