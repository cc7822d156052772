"""The three engines say the same of the same model: vLLM in process, Transformers, and a vLLM server over HTTP."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from literal_models import Literal, prompt_of
from score.vllm_server import SERVED, serve_vllm

from icl_select.score import LanguageModel, Loglik, ModelScorer
from icl_select.score.tiny import make_tiny_model
from icl_select.types import Decoding, ScoreItem

pytest.importorskip("vllm", reason="needs icl-select[vllm]")
pytestmark = [pytest.mark.vllm, pytest.mark.slow]

LENGTH = 256
# What engines that add in another order may differ by in float32; sums of hundreds of nats carry seven digits.
CLOSE = {"atol": 1e-4, "rtol": 1e-6}
DEMONSTRATIONS = "question: is the claim True or False?\nanswer: True\n\n\n" * 4

Engines = dict[str, LanguageModel]

# A server that echoes has to write one token as well, which takes the room of one before it.
ECHO = "server, echo"


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_tiny_model(tmp_path_factory.mktemp("agreement") / "tiny", max_length=LENGTH)


@pytest.fixture(scope="session")
def engines(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Engines]:
    """All three on the same files; the server has a process of its own and is ended with it."""
    from icl_select.score.http_model import HttpModel
    from icl_select.score.transformers_model import TransformersModel
    from icl_select.score.vllm_model import VllmModel

    with serve_vllm(folder, tmp_path_factory.mktemp("logs") / "vllm.log", max_length=LENGTH) as server:
        inside = VllmModel(str(folder), dtype="float32", kv_cache_gib=0.25)
        yield {
            "transformers": TransformersModel(str(folder), device="cpu", threads=1),
            "vllm": inside,
            "server": HttpModel(SERVED, url=server.url, tokenizer=str(folder), mode="token_ids"),
            ECHO: HttpModel(SERVED, url=server.url, tokenizer=str(folder), mode="echo"),
        }
        inside.close()


@pytest.fixture(scope="session")
def literal(folder: Path) -> Literal:
    return Literal(folder, max_length=LENGTH)


def read(literal: Literal, name: str, texts: list[str], choices: list[str]) -> Any:
    """(texts, choices): log-probabilities, prompts being cut as an engine must cut them."""
    literal.max_length = LENGTH - (name == ECHO)
    try:
        return np.array([literal.loglik(text, choices) for text in texts])
    finally:
        literal.max_length = LENGTH


# Every plane of Unicode but the surrogates; words the tokenizer knows as one token, so that prompt and choice join.
TEXT = st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=30)
WORD = st.sampled_from(["answer", ":", " True", " not", " equivalent", "\n", " ", "very", "e\u0301", "漢", "😀", "ive"])
MIXED = st.lists(st.one_of(WORD, TEXT), max_size=12).map("".join)
START = st.sampled_from(["", DEMONSTRATIONS, DEMONSTRATIONS[:70], DEMONSTRATIONS * 4])
PROMPTS = st.lists(st.tuples(START, MIXED).map(lambda parts: "the" + "".join(parts)), min_size=1, max_size=5)
CHOICES = st.lists(MIXED.filter(bool), min_size=1, max_size=5, unique=True)

quiet = settings(
    max_examples=25,
    deadline=None,
    derandomize=True,
    database=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.filter_too_much],
)


def ask(engine: LanguageModel, texts: list[str], choices: list[str]) -> Loglik:
    return engine.loglik([prompt_of(text) for text in texts], [choices] * len(texts))


@quiet
@example(texts=["the claim answ"], choices=["er", "ering", "\n"])  # the choice joins the prompt's last token
@example(texts=["the" + " claim" * LENGTH, "the claim" * 85], choices=[" True", " not equivalent" * 20])  # too long
@example(texts=[DEMONSTRATIONS, DEMONSTRATIONS + "0", DEMONSTRATIONS + "00"], choices=["00", "0"])
@given(PROMPTS, CHOICES)
def test_choices_have_the_same_log_probabilities(
    engines: Engines, literal: Literal, texts: list[str], choices: list[str]
) -> None:
    found = {name: ask(engine, texts, choices) for name, engine in engines.items()}
    first = found["transformers"]
    for name, one in found.items():
        wanted = read(literal, name, texts, choices)
        np.testing.assert_allclose(one.values, wanted, **CLOSE, err_msg=name)
        assert np.argmax(one.values, axis=1).tolist() == np.argmax(wanted, axis=1).tolist(), name
        assert one.tokens.tolist() == first.tokens.tolist(), name
        if name != ECHO:
            assert one.prompt_tokens.tolist() == first.prompt_tokens.tolist(), name
            assert one.truncated.tolist() == first.truncated.tolist(), name


@quiet
@example(texts=["the" + " claim" * LENGTH, "the claim\nanswer:", DEMONSTRATIONS + "answer:"], stop=("\n", "iv"))
@given(PROMPTS, st.sampled_from([(), ("\n",), ("e", "\n"), ("ab", "th", ";")]))
def test_texts_are_the_same(engines: Engines, literal: Literal, texts: list[str], stop: tuple[str, ...]) -> None:
    decoding = Decoding(max_tokens=24, stop=stop)
    for name in ("transformers", "vllm", "server"):
        made = engines[name].generate([prompt_of(text) for text in texts], decoding)
        for text, one in zip(texts, made, strict=True):
            written, ids, logprobs, finished = literal.write(text, decoding)
            # A server holds back the bytes of a character that the token limit leaves unfinished.
            end = "\N{REPLACEMENT CHARACTER}" if name == "server" and not finished else ""
            assert one.text.rstrip(end) == written.rstrip(end), (name, text)
            assert (one.tokens, one.finished) == (len(ids), finished), (name, text)
            np.testing.assert_allclose(one.logprobs, logprobs, **CLOSE, err_msg=name)


@pytest.mark.parametrize("room", [0, 1, 2])
def test_at_the_limit_of_what_the_model_reads(engines: Engines, literal: Literal, room: int) -> None:
    """Prompts that leave exactly the room for the choices, one token more, one less."""
    choices = ["\nTrue", "\nnot equivalent"]
    longest = max(len(literal.encode("claim" + choice)) - len(literal.encode("claim")) for choice in choices)
    count = LENGTH - longest - len(literal.encode("the")) + 1 - room
    texts = ["the" + " claim" * count, "the" + " claim" * (count - 1)]
    for name, engine in engines.items():
        one = ask(engine, texts, choices)
        wanted = read(literal, name, texts, choices)
        np.testing.assert_allclose(one.values, wanted, **CLOSE, err_msg=name)
        if name != ECHO:
            assert one.truncated.tolist() == [room == 0, False], name


def test_predictions_are_the_same(engines: Engines) -> None:
    items = [
        ScoreItem(
            str(k), (), ("True", "False", "not equivalent"), prompt_of(DEMONSTRATIONS + " claim" * k + "\nanswer:")
        )
        for k in range(20)
    ] + [ScoreItem(f"w{k}", (), None, prompt_of("the claim" * k + "\nTL;DR:")) for k in range(1, 6)]
    outputs = {
        name: [answer.output for answer in ModelScorer(engine).score(items)]
        for name, engine in engines.items()
        if name != ECHO
    }
    assert outputs["vllm"] == outputs["transformers"]
    assert outputs["server"] == outputs["transformers"]
    assert len(set(outputs["transformers"])) > 3
