"""How a text that is written token by token ends."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest

from icl_select.score.causal_lm.writing import Writer
from icl_select.types import Decoding

PIECES = ("one", " two", " ; # three", "#", ";", "")
END = 5


def decode(before: Sequence[int], ids: Sequence[int]) -> str:
    return "".join(PIECES[i] for i in ids)


def write(tokens: Sequence[int], stop: Sequence[str], max_tokens: int = 10) -> Writer:
    """Tokens one after the other, each by far the likeliest."""
    writer = Writer((0,), "prompt", Decoding(max_tokens, tuple(stop)), decode, frozenset({END}))
    for token in tokens:
        assert writer.open
        logprobs = np.full(len(PIECES), -20.0, dtype=np.float32)
        logprobs[token] = -0.25
        writer.add(logprobs)
    return writer


@pytest.mark.parametrize("stop", [(";", "#"), ("#", ";"), ("three", "#", ";")])
def test_a_text_ends_before_the_first_stop_whatever_the_order_of_stops(stop: tuple[str, ...]) -> None:
    """Both marks arrive in one token; the first in the text ends it, not the first in the list."""
    writer = write([0, 1, 2], stop)
    assert (writer.written, writer.finished, writer.open) == ("one two ", True, False)
    assert writer.logprobs == [-0.25] * 3  # that of the token with the stop is among them


def test_a_stop_may_span_tokens() -> None:
    assert write([0, 3, 4], ("#;",)).written == "one"
    assert write([0, 3, 4], ("#;",)).finished


def test_the_end_token_is_no_text_and_the_limit_does_not_finish() -> None:
    ended = write([0, END], ())
    assert (ended.written, ended.finished, len(ended.ids)) == ("one", True, 2)
    full = write([0, 1], (), max_tokens=2)
    assert (full.written, full.finished, full.open) == ("one two", False, False)
