"""Counts of the tokenizers, and a real byte-pair tokenizer built here."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from icl_select.errors import ModelError, UnknownNameError
from icl_select.prompt import HuggingFaceTokenizer, Tokenizer, load_tokenizer


@pytest.mark.parametrize(("name", "count"), [("utf8", 8), ("chars", 7), ("words", 4)])
def test_counts_without_a_model(name: str, count: int) -> None:
    tokenizer = load_tokenizer(name)
    assert isinstance(tokenizer, Tokenizer)
    assert tokenizer.name == tokenizer.fingerprint == name
    assert tokenizer.count("ab é\ncd") == count
    assert tokenizer.count("") == 0
    chat = [{"role": "user", "content": "ab"}]
    assert tokenizer.count_messages(chat) == tokenizer.count("user: ab\nassistant:")


def test_unknown_names() -> None:
    with pytest.raises(UnknownNameError, match="Did you mean 'words'"):
        load_tokenizer("word")


def test_a_model_that_is_not_here_says_what_to_do() -> None:
    with pytest.raises(ModelError, match="chars, utf8, words"):
        load_tokenizer("nobody/no-such-model@0123456")


def test_hugging_face_tokenizer(tmp_path: Path, build: Callable[..., Path]) -> None:
    tokenizer = HuggingFaceTokenizer(build(tmp_path))
    bare = HuggingFaceTokenizer(tmp_path, special_tokens=False)
    assert tokenizer.count("the quick") == bare.count("the quick") + 1
    assert bare.count("") == 0
    # Byte pairs join across the border: parts do not add up.
    assert bare.count("\n\n\n") < bare.count("\n") + bare.count("\n\n")
    chat = [{"role": "user", "content": "the dog"}]
    assert tokenizer.count_messages(chat) == bare.count("<user>the dog</s><assistant>")
    assert tokenizer.count("the " * 5000) > 4000
    with pytest.raises(ModelError, match=r"refuses this chat .*no tools"):
        tokenizer.count_messages([{"role": "tool", "content": "x"}])


def test_a_tokenizer_without_chat_template_says_so(tmp_path: Path, build: Callable[..., Path]) -> None:
    with pytest.raises(ModelError, match="no chat template"):
        HuggingFaceTokenizer(build(tmp_path, chat=False)).count_messages([{"role": "user", "content": "x"}])


def test_fingerprint_is_of_the_content_not_of_the_place(tmp_path: Path, build: Callable[..., Path]) -> None:
    first, same = HuggingFaceTokenizer(build(tmp_path / "a")), HuggingFaceTokenizer(build(tmp_path / "b"))
    assert first.fingerprint == same.fingerprint
    others = [
        HuggingFaceTokenizer(tmp_path / "a", special_tokens=False),
        HuggingFaceTokenizer(build(tmp_path / "c", chat=False)),
        HuggingFaceTokenizer(build(tmp_path / "d", extra="zebra zebra")),
    ]
    assert len({first.fingerprint, *(other.fingerprint for other in others)}) == 4
