"""The HTTP engine against a vLLM server in a process of its own, on the tiny model; the reference is Transformers."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from score.vllm_server import SERVED, VllmServer, serve_vllm

from icl_select.errors import ModelError, PromptError
from icl_select.score.answers import CachedModel
from icl_select.score.encoding import encode_item
from icl_select.score.http_model import HttpModel
from icl_select.score.language_model import ModelScorer
from icl_select.score.tiny import make_tiny_model
from icl_select.types import Decoding, Prompt, ScoreItem

pytest.importorskip("vllm", reason="needs icl-select[vllm]")
pytestmark = [pytest.mark.vllm, pytest.mark.slow]

LENGTH = 256
WORDS = (
    "very",
    "negative",
    "topic",
    "SELECT",
    "answer:",
    "\n",
    "  ",
    "caf\u00e9",
    "a\u0301",
    "\u4f60\u597d",
    "\U0001f600",
)


def prompt(text: str, name: str = "q") -> Prompt:
    return Prompt(name, text, ({"role": "user", "content": text},), (), (), 0)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_tiny_model(tmp_path_factory.mktemp("models") / "tiny", max_length=LENGTH)


@pytest.fixture(scope="module")
def server(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[VllmServer]:
    with serve_vllm(folder, tmp_path_factory.mktemp("logs") / "vllm.log", max_length=LENGTH) as running:
        yield running


class Reference:
    """Transformers in float32, one sequence at a time, nothing cached."""

    def __init__(self, folder: Path) -> None:
        import torch
        from transformers import AutoModelForCausalLM, AutoTokenizer

        self.torch: Any = torch
        self.tokenizer: Any = AutoTokenizer.from_pretrained(folder)
        self.model: Any = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()

    def logprobs(self, ids: Sequence[int]) -> Any:
        with self.torch.inference_mode():
            return self.model(self.torch.tensor([list(ids)])).logits[0].log_softmax(-1)

    def loglik(self, text: str, words: Sequence[str], max_length: int | None) -> list[float]:
        item = encode_item(lambda some: list(self.tokenizer(some)["input_ids"]), text, words, max_length=max_length)
        out = []
        for choice in item.choices:
            rows = self.logprobs([*item.context, *choice])
            out.append(sum(float(rows[len(item.context) - 1 + t, token]) for t, token in enumerate(choice)))
        return out

    def greedy(self, text: str, length: int) -> tuple[str, list[float]]:
        ids = list(self.tokenizer(text)["input_ids"])
        start, numbers = len(ids), []
        for _ in range(length):
            row = self.logprobs(ids)[-1]
            ids.append(int(row.argmax()))
            numbers.append(float(row.max()))
        return str(self.tokenizer.decode(ids[start:])), numbers


@pytest.fixture(scope="module")
def reference(folder: Path) -> Reference:
    return Reference(folder)


def items(seed: int, count: int, longest: int) -> tuple[list[str], list[list[str]]]:
    """Random prompts and choices, with borders inside of words, blanks and emoji."""
    draw = random.Random(seed)

    def text(most: int) -> str:
        return "".join(draw.choice(WORDS) + draw.choice(["", " "]) for _ in range(draw.randint(1, most)))

    texts = ["The " + text(longest) for _ in range(count)]
    return texts, [[draw.choice(["", " ", "\n"]) + text(4) for _ in range(draw.randint(1, 5))] for _ in texts]


@pytest.mark.parametrize(("mode", "here"), [("token_ids", True), ("echo", True), ("echo", False), ("auto", True)])
def test_log_probabilities_are_those_of_transformers(
    server: VllmServer, folder: Path, reference: Reference, mode: str, here: bool
) -> None:
    engine = HttpModel(SERVED, url=server.url, mode=mode, tokenizer=str(folder) if here else None)
    texts, words = items(7, 30, 25)
    found = engine.loglik([prompt(text) for text in texts], words)
    for row, (text, some) in enumerate(zip(texts, words, strict=True)):
        expected = reference.loglik(text, some, None)
        np.testing.assert_allclose(found.values[row, : len(some)], expected, atol=1e-4)
        assert int(np.argmax(found.values[row, : len(some)])) == int(np.argmax(expected))
    assert engine.info["mode"] == ("token_ids" if mode == "auto" else mode)
    assert engine.info["max_length"] == LENGTH
    assert engine.info["version"]


@pytest.mark.parametrize(("mode", "spare"), [("token_ids", 0), ("echo", 1)])
def test_prompts_up_to_the_limit(server: VllmServer, folder: Path, reference: Reference, mode: str, spare: int) -> None:
    engine = HttpModel(SERVED, url=server.url, mode=mode, tokenizer=str(folder))
    assert engine.max_length == LENGTH
    words = ["\nTrue", "\nFalse", " very negative"]
    texts = ["The" + " topic" * number for number in range(LENGTH - 12, LENGTH + 8)]
    found = engine.loglik([prompt(text) for text in texts], [words] * len(texts))
    assert 0 < found.truncated.sum() < len(texts)
    for row, text in enumerate(texts):
        np.testing.assert_allclose(found.values[row], reference.loglik(text, words, LENGTH - spare), atol=1e-4)


def test_prompts_above_the_limit_without_a_tokenizer_are_refused(server: VllmServer) -> None:
    with pytest.raises(ModelError, match=f"maximum context length is {LENGTH} tokens"):
        HttpModel(SERVED, url=server.url, mode="echo").loglik([prompt("The" + " topic" * LENGTH)], [["a"]])


@pytest.mark.parametrize("here", [True, False])
def test_generation_is_greedy(server: VllmServer, folder: Path, reference: Reference, here: bool) -> None:
    engine = HttpModel(SERVED, url=server.url, tokenizer=str(folder) if here else None)
    texts, _ = items(8, 12, 12)
    for text, made in zip(texts, engine.generate([prompt(text) for text in texts], Decoding(12, ())), strict=True):
        written, numbers = reference.greedy(text, 12)
        # Parts of characters at the end may be shown or held back.
        assert made.text.rstrip("\N{REPLACEMENT CHARACTER}") == written.rstrip("\N{REPLACEMENT CHARACTER}")
        np.testing.assert_allclose(made.logprobs, numbers, atol=1e-4)
        assert (made.tokens, made.finished, made.truncated) == (12, False, False)


def test_generation_stops_and_is_cut(server: VllmServer, folder: Path, reference: Reference) -> None:
    engine = HttpModel(SERVED, url=server.url, tokenizer=str(folder))
    written, _ = reference.greedy("The topic is", 12)
    stop = next(mark for mark in written[2:] if mark.isalnum() and mark not in written[:2])
    made = engine.generate([prompt("The topic is"), prompt("The" + " topic" * 300)], Decoding(12, (stop,)))
    assert (made[0].text, made[0].finished) == (written[: written.index(stop)], True)
    assert (made[1].prompt_tokens, made[1].truncated) == (LENGTH - 12, True)


def test_sampling_is_repeatable(server: VllmServer, folder: Path) -> None:
    engine = HttpModel(SERVED, url=server.url, tokenizer=str(folder))
    prompts = [prompt(f"The topic {number}") for number in range(6)]
    first, again, other = (
        [made.text for made in engine.generate(prompts, Decoding(8, (), 0.8, seed))] for seed in (1, 1, 2)
    )
    assert first == again != other
    assert len(set(first)) > 1


def test_chat_answers_are_among_the_choices(server: VllmServer) -> None:
    engine = HttpModel(SERVED, url=server.url, mode="chat")
    words = ["very negative", "negative", "neutral", "Is it \u4f60\u597d?", "\U0001f600"]
    made = engine.choose([prompt(f"How? {number}") for number in range(12)], [words] * 12)
    assert {one.text for one in made} <= set(words)
    assert engine.info["constraint"] == "structured_outputs"
    assert engine.usage.outside == 0
    answer = ModelScorer(engine).score([ScoreItem("1", (), ("yes", "no"), prompt("Is it?"))])[0]
    assert answer.output in ("yes", "no")


def test_chat_rendered_here_is_the_chat_rendered_there(server: VllmServer, folder: Path, reference: Reference) -> None:
    there = HttpModel(SERVED, url=server.url, mode="chat").generate([prompt("a b")], Decoding(8, ()))[0]
    engine = HttpModel(SERVED, url=server.url, mode="token_ids", tokenizer=str(folder), chat=True)
    here = engine.generate([prompt("a b")], Decoding(8, ()))[0]
    assert (here.text, here.prompt_tokens) == (there.text, there.prompt_tokens)
    np.testing.assert_allclose(here.logprobs, there.logprobs, atol=1e-4)
    found = engine.loglik([prompt("a b")], [["yes", "no"]])
    expected = reference.loglik("user: a b\nassistant:", ["yes", "no"], None)
    np.testing.assert_allclose(found.values[0], expected, atol=1e-4)


def test_mistakes_are_said_by_the_server(server: VllmServer) -> None:
    with pytest.raises(ModelError, match=r"HTTP 404\).*does not exist"):
        HttpModel("other", url=server.url).generate([prompt("a")], Decoding(1))
    with pytest.raises(PromptError, match="is empty"):
        HttpModel(SERVED, url=server.url).generate([prompt("")], Decoding(1))


def test_a_server_killed_in_the_middle_loses_only_what_was_in_flight(
    folder: Path, server: VllmServer, tmp_path: Path
) -> None:
    """Runs last: the server is gone afterwards."""
    engine = HttpModel(SERVED, url=server.url, tokenizer=str(folder), concurrency=4, max_retries=1)
    cached = CachedModel(engine, tmp_path)
    prompts = [prompt(f"question {number}", str(number)) for number in range(60)]
    words = [["\nTrue", "\nFalse"]] * 60
    stream = engine.loglik_each

    def killing(*asked: Any) -> Iterator[Any]:
        for count, answer in enumerate(stream(*asked), start=1):
            yield answer
            if count == 20:
                server.kill()

    engine.loglik_each = killing  # type: ignore[method-assign]
    with pytest.raises(ModelError, match="no answer from the server"):
        cached.loglik(prompts, words)
    # What was under way when it died may still have been answered; none of what was answered is lost.
    left = CachedModel(HttpModel(SERVED, url=server.url, tokenizer=str(folder), max_retries=0), tmp_path)
    kept = [_is_kept(left, one, words[pos]) for pos, one in enumerate(prompts)]
    assert 20 <= sum(kept) <= 24


def _is_kept(cached: CachedModel, one: Prompt, words: list[str]) -> bool:
    """Whether an answer is in the cache: nothing else can answer, for the server is gone."""
    try:
        cached.loglik([one], [words])
    except ModelError:
        return False
    return True
