"""Prompt and choices to token ids: by hand with tokenizers small enough to see through, and laws over any of them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from icl_select.errors import ModelError, PromptError
from icl_select.score.encoding import EncodedItem, cut_left, encode_item
from icl_select.score.tiny import make_tiny_model

START = 1


def letters(text: str) -> list[int]:
    """One token a character."""
    return [ord(character) for character in text]


def pairs(text: str) -> list[int]:
    """Greedy from the left: "ab", "bc" and "\\na" are one token each, anything else one a character."""
    out, at = [], 0
    while at < len(text):
        known = {"ab": 1001, "bc": 1002, "\na": 1003}.get(text[at : at + 2])
        out.append(known or ord(text[at]))
        at += 2 if known else 1
    return out


def opened(encode: Callable[[str], list[int]]) -> Callable[[str], list[int]]:
    """With a token in front of every text."""
    return lambda text: [START, *encode(text)]


def test_by_hand() -> None:
    got = encode_item(letters, "xy", ["\np", "\nqr"], max_length=None)
    assert got == EncodedItem((120, 121), ((10, 112), (10, 113, 114)))


def test_a_token_that_spans_the_border_counts_to_every_choice() -> None:
    """ "xa" + "b" is x, ab: the a belongs to that choice, so it does to the other, or sums could not be compared."""
    got = encode_item(pairs, "xa", ["b", "c"], max_length=None)
    assert got == EncodedItem((120,), ((1001,), (97, 99)))


def test_a_choice_that_begins_another_keeps_its_tokens() -> None:
    got = encode_item(letters, "x", ["p", "pq"], max_length=None)
    assert got == EncodedItem((120,), ((112,), (112, 113)))


def test_a_choice_that_shortens_the_prompt_still_has_a_token() -> None:
    """A tokenizer to which "!" takes back the character before it: the context gives back a token."""

    def shorten(text: str) -> list[int]:
        return letters(text.removesuffix("!"))[: -1 if text.endswith("!") else None]

    assert encode_item(shorten, "xyz", ["!", "b"], max_length=None) == EncodedItem((120,), ((121,), (121, 122, 98)))


def test_the_context_is_cut_on_the_left() -> None:
    cut = encode_item(letters, "uvwxyz", ["p", "qr"], max_length=4)
    assert cut == EncodedItem((121, 122), ((112,), (113, 114)), truncated=True)
    kept = encode_item(opened(letters), "uvwxyz", ["p", "qr"], max_length=4)
    assert kept == EncodedItem((START, 122), ((112,), (113, 114)), truncated=True)
    assert encode_item(letters, "uv", ["p", "qr"], max_length=4) == EncodedItem((117, 118), ((112,), (113, 114)))


def test_what_cannot_be_scored_says_why() -> None:
    with pytest.raises(PromptError, match="empty choice"):
        encode_item(letters, "x", ["p", ""], max_length=None)
    with pytest.raises(PromptError, match="no choices"):
        encode_item(letters, "x", [], max_length=None)
    with pytest.raises(PromptError, match="nothing to read"):
        encode_item(letters, "", ["p"], max_length=None)
    assert encode_item(opened(letters), "", ["p"], max_length=None) == EncodedItem((START,), ((112,),))
    with pytest.raises(PromptError, match="a choice takes 4 tokens, and the model reads 4"):
        encode_item(letters, "xyz", ["pppp"], max_length=4)
    with pytest.raises(PromptError, match="' ' has no token"):
        encode_item(lambda text: letters(text.strip()), "xyz", ["p", " "], max_length=None)


def test_cut_left_by_hand() -> None:
    assert cut_left(letters, [5, 6, 7], 2) == [6, 7]
    assert cut_left(letters, [5, 6, 7], 9) == [5, 6, 7]
    assert cut_left(opened(letters), [START, 6, 7, 8], 2) == [START, 8]
    assert cut_left(opened(letters), [START, 6, 7, 8], 1) == [START]
    assert cut_left(opened(letters), [START, 6], 9) == [START, 6]
    double = opened(opened(letters))
    assert cut_left(double, [START, START, 6, 7, 8], 3) == [START, START, 8]
    assert cut_left(double, [START, START, 6, 7, 8], 1) == [START]
    closed = lambda text: [START, *letters(text), 2]  # noqa: E731
    assert cut_left(closed, [START, 6, 7, 8], 2) == [START, 8]
    # The text does not begin with the special token: nothing to keep.
    assert cut_left(opened(letters), [6, 7, 8], 2) == [7, 8]
    with pytest.raises(ModelError, match="no room"):
        cut_left(letters, [5], 0)


some_text = st.text(st.sampled_from("abc\nx é"), max_size=12)
choices_of = st.lists(st.text(st.sampled_from("abc\nx é"), min_size=1, max_size=5), min_size=1, max_size=4)
encoders = st.sampled_from([letters, pairs, opened(letters), opened(pairs)])


@settings(max_examples=400, deadline=None)
@given(encoders, some_text, choices_of, st.none() | st.integers(6, 20))
def test_laws(encode: Callable[[str], list[int]], prompt: str, choices: list[str], length: int | None) -> None:
    """What is read and scored is the joint encoding, or its end behind the special token; it fits; all is used."""
    try:
        item = encode_item(encode, prompt, choices, max_length=length)
    except PromptError:
        # Nothing but the border can be the reason for texts this short.
        assert not encode(prompt) or any(encode(prompt + choice)[:1] != encode(prompt)[:1] for choice in choices)
        return
    assert item.context
    assert all(item.choices)
    whole = [encode(prompt + choice) for choice in choices]
    longest = max(len(tail) for tail in item.choices)
    for tail, ids in zip(item.choices, whole, strict=True):
        read = [*item.context, *tail]
        special = encode("")
        if item.truncated:
            assert read[: len(special)] == special
            rest = read[len(special) :]
            assert rest == ids[len(ids) - len(rest) :]
        else:
            assert read == ids
    if item.truncated:
        assert length is not None
        assert len(item.context) + longest == length
        assert max(map(len, whole)) > length
    elif length is not None:
        assert len(item.context) + longest <= length


@settings(max_examples=200, deadline=None)
@given(encoders, some_text, choices_of)
def test_the_context_is_as_long_as_can_be(encode: Callable[[str], list[int]], prompt: str, choices: list[str]) -> None:
    """One token more would not be common to all, would not be of the prompt, or would leave a choice without one."""
    whole = [encode(prompt + choice) for choice in choices]
    assume(encode(prompt) and all(ids[0] == encode(prompt)[0] and len(ids) > 1 for ids in whole))
    item = encode_item(encode, prompt, choices, max_length=None)
    size = len(item.context) + 1
    assert (
        encode(prompt)[:size] != whole[0][:size]
        or any(ids[:size] != whole[0][:size] for ids in whole)
        or any(len(ids) < size + 1 for ids in whole)
        or len(encode(prompt)) < size
    )


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], list[int]]:
    transformers = pytest.importorskip("transformers", reason="needs icl-select[models]")
    folder: Path = make_tiny_model(tmp_path_factory.mktemp("tiny") / "tiny")
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    return lambda text: list(tokenizer(text)["input_ids"])


@settings(max_examples=200, deadline=None)
@given(st.text(min_size=1, max_size=20), st.lists(st.text(min_size=1, max_size=8), min_size=1, max_size=4))
def test_laws_of_real_byte_pairs(tiny: Callable[[str], list[int]], prompt: str, choices: list[str]) -> None:
    """Any Unicode through the tiny model's tokenizer: context and tail are always the joint encoding."""
    try:
        item = encode_item(tiny, prompt, choices, max_length=None)
    except PromptError:
        assert any(
            tiny(prompt + choice)[:1] != tiny(prompt)[:1] or len(tiny(prompt + choice)) < 2 for choice in choices
        )
        return
    for tail, choice in zip(item.choices, choices, strict=True):
        assert [*item.context, *tail] == tiny(prompt + choice)


def test_real_byte_pairs_join_over_the_border(tiny: Callable[[str], list[int]]) -> None:
    """ "answer" and ":" are one token where they stand in one text."""
    joint = tiny("answer:")
    assert len(joint) < len(tiny("answe")) + len(tiny("r:"))
    item = encode_item(tiny, "the answe", ["r:", "x"], max_length=None)
    assert len(item.context) < len(tiny("the answe"))
    assert [*item.context, *item.choices[1]] == tiny("the answex")
