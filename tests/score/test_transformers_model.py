"""The Transformers engine against one forward pass for each sequence, family by family."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from literal_models import FAMILIES, POSITIONS, Literal, prompt_of, save_family

from icl_select.score._stems import ask
from icl_select.score.encoding import EncodedItem
from icl_select.score.transformers_model import TransformersModel
from icl_select.types import Decoding

pytest.importorskip("transformers", reason="needs icl-select[models]")

WORDS = [
    "topic",
    "claim",
    "True",
    "False",
    "sentence",
    "question",
    "answer",
    "company",
    "album",
    "é",
    "漢",
    "positive",
    "negative",
    "neutral",
    "great",
]
DEMONSTRATIONS = "question: is the claim True or False?\nanswer: True\n\n\n" * 5


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("models")


@pytest.fixture(scope="module")
def family(home: Path) -> Any:
    """Folder, engine and literal reference of a family, made once."""
    made: dict[str, Any] = {}

    def get(name: str) -> tuple[TransformersModel, Literal]:
        if name not in made:
            folder = save_family(home / name, name)
            limit = None if name == "bloom" else POSITIONS
            made[name] = TransformersModel(str(folder), device="cpu", threads=1), Literal(folder, max_length=limit)
        return made[name]

    return get


def words(rng: random.Random, low: int, high: int) -> str:
    return " ".join(rng.choices(WORDS, k=rng.randint(low, high)))


def scenario(seed: int) -> tuple[list[str], list[list[str]]]:
    """Prompts that share demonstrations, that share them partly, that share nothing, that are equal, that are too
    long; choices of one token, of many, that begin each other, that join the prompt's last token."""
    rng = random.Random(seed)
    texts = [DEMONSTRATIONS + words(rng, 1, 30) + "\nanswer:" for _ in range(4)]
    texts += [DEMONSTRATIONS + "title: the album" * 4 + words(rng, 1, 9) for _ in range(3)]
    texts += [words(rng, 1, 60), words(rng, 1, 60), texts[0], "answer", words(rng, 300, 400)]
    sets = [
        ["\nTrue", "\nFalse"],
        ["\nnot equivalent", "\nequivalent", "\nnot"],
        [" " + words(rng, 1, 20), " " + words(rng, 1, 3)],
        ["s", "swer", "\nTrue, or False", "\nTrue"],
        ["\nTrue"],
    ]
    choices = [sets[k % len(sets)] for k in range(len(texts))]
    rng.shuffle(texts)
    return texts, choices


def expected(literal: Literal, texts: list[str], choices: list[list[str]]) -> list[list[float]]:
    return [literal.loglik(text, own) for text, own in zip(texts, choices, strict=True)]


def assert_close(found: Any, wanted: list[list[float]], tolerance: float = 1e-4) -> None:
    for row, line in enumerate(wanted):
        np.testing.assert_allclose(found.values[row, : len(line)], line, atol=tolerance, rtol=0)
        assert np.isnan(found.values[row, len(line) :]).all()


@pytest.mark.parametrize("name", FAMILIES)
@pytest.mark.parametrize("batch_size", [1, 8])
def test_every_family_scores_as_one_sequence_at_a_time(family: Any, name: str, batch_size: int) -> None:
    engine, literal = family(name)
    texts, choices = scenario(batch_size)
    engine._loaded[1]._budget = batch_size * 1024
    before = engine.usage.cached_tokens
    found = engine.loglik([prompt_of(text) for text in texts], choices)
    assert_close(found, expected(literal, texts, choices))
    assert engine.usage.cached_tokens - before > 300  # the demonstrations were shared, not computed seven times
    items = [ask([_encoded(literal, text, own)]) for text, own in zip(texts, choices, strict=True)]
    assert found.tokens.tolist() == [
        [len(slots) for slots in item.slots[0]] + [0] * (4 - len(item.slots[0])) for item in items
    ]


def _encoded(literal: Literal, text: str, own: list[str]) -> EncodedItem:
    from icl_select.score.encoding import encode_item

    return encode_item(literal.encode, text, own, max_length=literal.max_length)


@pytest.mark.parametrize("name", FAMILIES)
def test_every_family_writes_as_the_literal_greedy_loop(family: Any, name: str) -> None:
    engine, literal = family(name)
    texts, _ = scenario(3)
    decoding = Decoding(max_tokens=12, stop=("e", "\n"))
    made = engine.generate([prompt_of(text) for text in texts], decoding)
    for text, one in zip(texts, made, strict=True):
        written, ids, logprobs, finished = literal.write(text, decoding)
        assert (one.text, one.tokens, one.finished) == (written, len(ids), finished)
        np.testing.assert_allclose(one.logprobs, logprobs, atol=1e-4)


@pytest.mark.parametrize("name", ["llama", "gpt_neo", "mistral"])
def test_without_sharing_the_numbers_are_the_same(home: Path, family: Any, name: str) -> None:
    engine, literal = family(name)
    whole = TransformersModel(str(home / name), device="cpu", threads=1, share=False)
    texts, choices = scenario(5)
    texts = list(dict.fromkeys(texts))
    choices = choices[: len(texts)]
    prompts = [prompt_of(text) for text in texts]
    assert_close(whole.loglik(prompts, choices), expected(literal, texts, choices))
    decoding = Decoding(max_tokens=6, stop=())
    for ours, theirs in zip(whole.generate(prompts, decoding), engine.generate(prompts, decoding), strict=True):
        assert (ours.text, ours.tokens) == (theirs.text, theirs.tokens)
        np.testing.assert_allclose(ours.logprobs, theirs.logprobs, atol=1e-4)
    assert whole.usage.cached_tokens == 0
