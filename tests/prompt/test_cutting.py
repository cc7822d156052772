"""Cutting texts at token borders: by hand, against ids cut and decoded, and as properties of every tokenizer."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from icl_select.errors import ModelError, ParameterError
from icl_select.prompt import HuggingFaceTokenizer, Tokenizer, load_tokenizer

PLAIN = ["utf8", "chars", "words"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, build: Callable[..., Path]) -> Path:
    return build(tmp_path_factory.mktemp("bpe"))


@pytest.fixture(scope="module")
def bpe(folder: Path) -> HuggingFaceTokenizer:
    return HuggingFaceTokenizer(folder)


@pytest.mark.parametrize(
    ("name", "tokens", "right", "left"),
    [
        # Bytes of "a ñb.\nc": a, blank, two of ñ, b, full stop, line break, c.
        ("utf8", 4, "a ñ", "b.\nc"),
        ("utf8", 3, "a ", ".\nc"),
        ("utf8", 5, "a ñb", "b.\nc"),
        ("chars", 3, "a ñ", ".\nc"),
        ("words", 2, "a ñb", "\nc"),
        ("words", 3, "a ñb.", ".\nc"),
        ("words", 0, "", ""),
        ("utf8", 99, "a ñb.\nc", "a ñb.\nc"),
    ],
)
def test_by_hand(name: str, tokens: int, right: str, left: str) -> None:
    tokenizer = load_tokenizer(name)
    assert tokenizer.cut("a ñb.\nc", tokens) == right
    assert tokenizer.cut("a ñb.\nc", tokens, "left") == left


def test_pieces_are_the_tokens_decoded_one_by_one(bpe: HuggingFaceTokenizer) -> None:
    assert load_tokenizer("words").pieces("Ab, c\n") == ["Ab", ",", "c", "\n"]
    assert load_tokenizer("chars").pieces("é!") == ["é", "!"]
    assert load_tokenizer("utf8").pieces("é!") == ["\ufffd", "\ufffd", "!"]
    assert bpe.pieces("the quick zebra")[:2] == ["the", " quick"]
    assert "".join(bpe.pieces("the quick zebra")) == "the quick zebra"
    assert len(bpe.pieces("the quick zebra")) > 3  # a word that the tokenizer does not know, in parts
    assert set(bpe.pieces("🦓")) == {"\ufffd"}


def test_equals_ids_cut_and_decoded(bpe: HuggingFaceTokenizer, folder: Path) -> None:
    from transformers import AutoTokenizer

    raw: Any = AutoTokenizer.from_pretrained(folder)
    text = "the quick brown fox\n\n\njumps over the lazy zebra\nanswer:\nyes"
    ids = raw(text, add_special_tokens=False)["input_ids"]
    for tokens in range(len(ids) + 2):
        assert bpe.cut(text, tokens) == raw.decode(ids[:tokens])
        assert bpe.cut(text, tokens, "left") == raw.decode(ids[max(0, len(ids) - tokens) :])


def test_a_character_of_several_tokens_goes_as_a_whole(bpe: HuggingFaceTokenizer) -> None:
    size = len(bpe.pieces("🦓"))
    assert size > 1
    for tokens in range(2 * size):
        assert bpe.cut("🦓🦓", tokens) == "🦓" * (tokens // size)
        assert bpe.cut("🦓🦓", tokens, "left") == "🦓" * (tokens // size)


@settings(max_examples=150, deadline=None)
@given(
    text=st.lists(
        st.one_of(
            st.sampled_from(["the quick", " fox", "\n\n\n", "\n", "answer:", "  ", "ñ", "👩‍🚀"]), st.text(max_size=3)
        )
    ).map("".join),
    tokens=st.integers(0, 40),
    name=st.sampled_from([*PLAIN, "bpe"]),
)
def test_what_is_left_is_one_end_of_the_text_and_counts_no_more(
    bpe: HuggingFaceTokenizer, text: str, tokens: int, name: str
) -> None:
    tokenizer: Tokenizer = bpe if name == "bpe" else load_tokenizer(name)
    whole = len(tokenizer.pieces(text))
    begin, end = tokenizer.cut(text, tokens), tokenizer.cut(text, tokens, "left")
    assert text.startswith(begin)
    assert text.endswith(end)
    for kept in (begin, end):
        assert len(tokenizer.pieces(kept)) <= tokens
        assert (kept == text) == (whole <= tokens)
    assert tokenizer.cut(text, whole) == tokenizer.cut(text, whole, "left") == text


@given(text=st.text(max_size=20), name=st.sampled_from(PLAIN))
def test_without_a_model_nothing_more_than_needed_is_cut(text: str, name: str) -> None:
    tokenizer = load_tokenizer(name)
    whole = tokenizer.count(text)
    assert whole == len(tokenizer.pieces(text))
    for tokens in range(whole):
        kept = tokenizer.cut(text, tokens)
        assert tokenizer.count(kept) <= tokens
        assert tokenizer.count(text[: len(kept) + 1]) > tokens or name == "words"


def test_errors(bpe: HuggingFaceTokenizer, folder: Path) -> None:
    with pytest.raises(ParameterError, match="tokens=-1"):
        load_tokenizer("chars").cut("abc", -1)
    with pytest.raises(ParameterError, match="tokens=-1"):
        bpe.cut("abc", -1)

    class Slow:
        is_fast = False

    unplaced = HuggingFaceTokenizer(folder)
    unplaced._tokenizer = Slow()
    with pytest.raises(ModelError, match=r"does not tell where its tokens stand .*Use a model with a tokenizer\.json"):
        unplaced.cut("abc", 1)
