"""The HTTP engine against a real server on this machine: every way to score, and every way to fail."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterator
from email.utils import formatdate
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from score.fake_server import EVERYTHING, MODEL, FakeServer, Fault, VirtualClock

from icl_select.errors import ModelError, ParameterError, PromptError, SpendError, UnknownNameError
from icl_select.score.answers import CachedModel
from icl_select.score.encoding import EncodedItem, encode_item
from icl_select.score.http.limits import Limits
from icl_select.score.http.pool import as_completed
from icl_select.score.http_model import HttpModel
from icl_select.score.language_model import ModelScorer
from icl_select.score.load import load_scorer
from icl_select.score.protocol import LanguageModel
from icl_select.score.tiny import _tokenizer
from icl_select.types import Decoding, FloatArray, Prompt, ScoreItem

KEY = "sk-very-secret-0123456789"
WORDS = ["\nTrue", "\nFalse", "\nInconclusive"]
TEXTS = [
    "The topic is company. answer:",
    "How do you feel about the sentence? caf\u00e9 \U0001f600",
    "\u4f60\u597d\uff0cis the claim",
    "question: 12 > 7?\n\n\nanswer:",
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model folder without weights: what the client needs of a served model."""
    place = tmp_path_factory.mktemp("served") / "model"
    _tokenizer(512).save_pretrained(place)
    (place / "config.json").write_text('{"max_position_embeddings": 2048}')
    return place


@pytest.fixture(scope="module")
def tokenizer(folder: Path) -> Any:
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(folder)


@pytest.fixture
def serve(tokenizer: Any) -> Iterator[Callable[..., FakeServer]]:
    running: list[FakeServer] = []

    def start(*without: str, plus: tuple[str, ...] = (), **options: Any) -> FakeServer:
        server = FakeServer(tokenizer, (EVERYTHING - set(without)) | set(plus), **options)
        running.append(server.__enter__())
        return server

    yield start
    for server in running:
        server.die()


@pytest.fixture(autouse=True)
def _environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    monkeypatch.delenv("OPENAI_BASE_URL", raising=False)


def prompt(text: str, name: str = "q") -> Prompt:
    return Prompt(name, text, ({"role": "user", "content": text},), (), (), 0)


def model(server: FakeServer, **options: Any) -> HttpModel:
    return HttpModel(MODEL, url=server.url, **{"clock": VirtualClock(), **options})


def expected(server: FakeServer, text: str, words: list[str], max_length: int | None = None) -> tuple[FloatArray, Any]:
    """Token by token from the server's own probabilities."""
    item = encode_item(lambda some: list(server.tokenizer(some)["input_ids"]), text, words, max_length=max_length)
    return np.array([total(server, item, choice) for choice in item.choices]), item


def total(server: FakeServer, item: EncodedItem, choice: tuple[int, ...]) -> float:
    read, out = list(item.context), 0.0
    for token in choice:
        out += float(server.logprobs(read)[token])
        read.append(token)
    return out


# Scoring.

WAYS = [
    ("token_ids", True, ()),
    ("echo", True, ()),
    ("echo", False, ()),
    ("echo", False, ("zero",)),
    ("echo", False, ("id_strings",)),
    ("echo", True, ("ids", "id_strings")),
    ("auto", True, ()),
    ("auto", True, ("reads",)),
    ("auto", True, ("id_strings", "zero")),
    ("auto", False, ("listing",)),
]


@pytest.mark.parametrize(("mode", "tokenizer_here", "without"), WAYS)
def test_every_way_gives_the_probabilities_of_the_model(
    serve: Any, folder: Path, mode: str, tokenizer_here: bool, without: tuple[str, ...]
) -> None:
    server = serve(*without)
    engine = model(server, mode=mode, tokenizer=str(folder) if tokenizer_here else None)
    found = engine.loglik([prompt(text) for text in TEXTS], [WORDS] * len(TEXTS))
    for row, text in enumerate(TEXTS):
        values, item = expected(server, text, WORDS)
        np.testing.assert_allclose(found.values[row], values, atol=1e-9)
        assert found.tokens[row].tolist() == [len(choice) for choice in item.choices]
        assert found.prompt_tokens[row] == len(item.context)
    assert not found.truncated.any()


@pytest.mark.parametrize(
    ("without", "mode", "prompts"),
    [
        ((), "token_ids", "ids"),
        (("reads",), "echo", "ids"),
        (("id_strings",), "echo", "ids"),
        (("ids",), "echo", "text"),
    ],
)
def test_auto_takes_the_first_way_that_the_server_offers(
    serve: Any, folder: Path, without: tuple[str, ...], mode: str, prompts: str
) -> None:
    engine = model(serve(*without), tokenizer=str(folder))
    engine.loglik([prompt("a b")], [WORDS])
    assert (engine.info["mode"], engine.info["prompts"]) == (mode, prompts)


def test_a_server_is_asked_once_what_it_offers(serve: Any, folder: Path) -> None:
    server = serve()
    engine = model(server, tokenizer=str(folder))
    for _ in range(3):
        engine.loglik([prompt("a b")], [WORDS])
    assert len(server.seen) == 2 + 3
    assert server.looks == ["/v1/models", "/version"]
    assert engine.info == {
        "served": "org/fake",
        "version": "9.9",
        "max_length": 2048,
        "mode": "token_ids",
        "prompts": "ids",
        "system_fingerprint": ["fp_1"],
    }


@settings(max_examples=40, deadline=None)
@given(
    text=st.text(st.characters(exclude_categories=["Cs"]), min_size=2, max_size=30),
    words=st.lists(st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=8), min_size=1, max_size=4),
)
def test_ways_agree_on_any_text(agreeing: tuple[FakeServer, list[HttpModel]], text: str, words: list[str]) -> None:
    server, engines = agreeing
    try:
        values, item = expected(server, text, words)
    except PromptError:
        for engine in engines:
            with pytest.raises(PromptError):
                engine.loglik([prompt(text)], [words])
        return
    for engine in engines:
        found = engine.loglik([prompt(text)], [words])
        np.testing.assert_allclose(found.values[0], values, atol=1e-9)
        assert found.tokens[0].tolist() == [len(choice) for choice in item.choices]


@pytest.fixture(scope="module")
def agreeing(tokenizer: Any, folder: Path) -> Iterator[tuple[FakeServer, list[HttpModel]]]:
    with FakeServer(tokenizer) as server:
        yield (
            server,
            [
                model(server, mode="token_ids", tokenizer=str(folder)),
                model(server, mode="echo", tokenizer=str(folder)),
                model(server, mode="echo"),
            ],
        )


def test_tokens_shown_as_parts_of_characters_are_told_apart() -> None:
    """Other tokens may be shown alike, when they hold parts of characters; the border must still be right.

    The emoji's bytes f0 9f 98 80 are cut [f0 9f][98 80] alone and [f0 9f 98][80 c3] before a letter that begins with
    c3, and both are shown as one replacement character and then two.
    """
    made = _bytes_tokenizer([(0x80, 0xC3), (0x98, 0x80), (0xF0, 0x9F), (0xF09F, 0x98)])
    text, words = "a \U0001f600", ["\u00e9", " b"]
    alone, joint = made(text)["input_ids"], made(text + words[0])["input_ids"]
    assert len(alone) == 4
    assert alone[2:] != joint[2:4]
    with FakeServer(made, EVERYTHING - {"id_strings"}) as server:
        assert [server.shown(token, False) for token in alone] == [server.shown(token, False) for token in joint[:4]]
        values, item = expected(server, text, words)
        found = model(server, mode="echo").loglik([prompt(text)], [words])
    assert found.prompt_tokens[0] == len(item.context) == 2
    np.testing.assert_allclose(found.values[0], values, atol=1e-9)


def _bytes_tokenizer(merges: list[tuple[int, int]]) -> Any:
    """Byte pairs, bytes written as numbers; blanks do not part words."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    shown = [number for number in range(256) if chr(number).isprintable() and number not in (0x20, 0xA0, 0xAD)]
    # The usual names of bytes: printable ones are themselves, the others stand from U+0100 on.
    others = (number for number in range(256) if number not in shown)
    names = {**{number: chr(number) for number in shown}, **{n: chr(256 + i) for i, n in enumerate(others)}}

    def name(part: int) -> str:
        return "".join(names[byte] for byte in part.to_bytes((part.bit_length() + 7) // 8 or 1, "big"))

    pairs = [(name(left), name(right)) for left, right in merges]
    vocabulary = [*names.values(), *(left + right for left, right in pairs)]
    raw = Tokenizer(models.BPE({token: place for place, token in enumerate(vocabulary)}, pairs))
    raw.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    raw.decoder = decoders.ByteLevel()
    return PreTrainedTokenizerFast(tokenizer_object=raw)


def test_many_choices_take_as_many_requests_as_a_server_allows_ids(serve: Any, folder: Path, tokenizer: Any) -> None:
    words = sorted({tokenizer.decode([token]) for token in range(300, 500)} - {""})
    words = [word for word in words if len(tokenizer("is the" + word)["input_ids"]) == 2 + len(tokenizer("is the")) - 1]
    words = words[:150]
    server = serve()
    engine = model(server, mode="token_ids", tokenizer=str(folder))
    found = engine.loglik([prompt("answer: is the")], [words])
    values, _ = expected(server, "answer: is the", words)
    np.testing.assert_allclose(found.values[0], values, atol=1e-9)
    asked = [len(one.body["logprob_token_ids"]) for one in server.seen[2:]]
    assert len(asked) >= 2
    assert max(asked) <= 128


@pytest.mark.parametrize(("mode", "spare"), [("token_ids", 0), ("echo", 1)])
def test_long_prompts_are_cut_on_the_left(serve: Any, folder: Path, mode: str, spare: int) -> None:
    server = serve(max_length=64)
    engine = model(server, mode=mode, tokenizer=str(folder), max_length=64)
    text = "The topic is company artist athlete building. " * 9
    found = engine.loglik([prompt(text), prompt("a b")], [WORDS, WORDS])
    values, item = expected(server, text, WORDS, 64 - spare)
    assert item.truncated
    assert found.truncated.tolist() == [True, False]
    np.testing.assert_allclose(found.values[0], values, atol=1e-9)
    assert found.prompt_tokens[0] == len(item.context)


def test_rendered_chat_is_scored_like_its_text(serve: Any, folder: Path) -> None:
    server = serve()
    engine = model(server, mode="token_ids", tokenizer=str(folder), chat=True)
    found = engine.loglik([prompt("a b")], [WORDS])
    values, _ = expected(server, "user: a b\nassistant:", WORDS)
    np.testing.assert_allclose(found.values[0], values, atol=1e-9)


def test_rows_without_choices_of_their_own_are_nan(serve: Any) -> None:
    found = model(serve(), mode="echo").loglik([prompt("a b"), prompt("c d")], [WORDS, WORDS[:1]])
    assert np.isnan(found.values).tolist() == [[False] * 3, [False, True, True]]
    assert found.tokens[1, 1:].tolist() == [0, 0]


@pytest.mark.parametrize(
    ("without", "options", "message"),
    [
        (("echo",), {"mode": "echo"}, r"no log-probabilities.*echo: echo is not supported.*mode='chat'"),
        (("echo",), {}, r"no log-probabilities of choices \(echo"),
        (("reads",), {"mode": "token_ids", "tokenizer": "HERE"}, r"token_ids: logprob_token_ids is not answered"),
        (("ids",), {"mode": "token_ids", "tokenizer": "HERE"}, r"token_ids: prompt must be a string"),
        (("ids",), {"mode": "echo", "tokenizer": "HERE", "chat": True}, r"must be sent as token ids"),
    ],
)
def test_what_a_server_does_not_offer_is_said_with_the_way_out(
    serve: Any, folder: Path, without: tuple[str, ...], options: dict[str, Any], message: str
) -> None:
    options = {key: str(folder) if value == "HERE" else value for key, value in options.items()}
    with pytest.raises(ModelError, match=message):
        model(serve(*without), **options).loglik([prompt("a b")], [WORDS])


@pytest.mark.parametrize(("mode", "without"), [("token_ids", ()), ("echo", ()), ("echo", ("id_strings",))])
def test_another_tokenizer_is_noticed(serve: Any, tmp_path: Path, mode: str, without: tuple[str, ...]) -> None:
    _tokenizer(300).save_pretrained(tmp_path)
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(ModelError, match=r"other tokens than the tokenizer given.*Pass tokenizer="):
        model(serve(*without), mode=mode, tokenizer=str(tmp_path)).loglik([prompt("a b")], [WORDS])


def test_a_longer_context_than_the_server_has_is_refused(serve: Any, folder: Path) -> None:
    with pytest.raises(ModelError, match=r"max_length=2048 exceeds the 512 tokens.*Pass max_length=512"):
        model(serve(max_length=512), tokenizer=str(folder)).loglik([prompt("a b")], [WORDS])


def test_bad_items_are_refused(serve: Any) -> None:
    engine = model(serve(), mode="echo")
    with pytest.raises(PromptError, match="no choices for 'q'"):
        engine.loglik([prompt("a b")], [[]])
    with pytest.raises(PromptError, match="an empty choice"):
        engine.loglik([prompt("a b")], [["a", ""]])
    with pytest.raises(PromptError, match="is empty"):
        engine.loglik([prompt("")], [["a"]])
    with pytest.raises(ParameterError, match="2 prompts, but choices for 1"):
        engine.loglik([prompt("a b")] * 2, [WORDS])
    assert engine.loglik([], []).values.shape == (0, 0)


# Generation.


@pytest.mark.parametrize(
    ("options", "without"), [({}, ()), ({"tokenizer": "HERE"}, ()), ({"tokenizer": "HERE"}, ("ids",))]
)
def test_generation_is_greedy_and_ends_at_the_stop(
    serve: Any, folder: Path, options: dict[str, Any], without: tuple[str, ...]
) -> None:
    server = serve(*without)
    engine = model(server, **{key: str(folder) for key in options})
    ids = list(server.tokenizer("The topic is")["input_ids"])
    made, text, _ = server.generate(ids, {"max_tokens": 12, "temperature": 0.0})
    found = engine.generate([prompt("The topic is")], Decoding(12, ()))[0]
    assert (found.text, found.tokens, found.finished, found.prompt_tokens) == (text, 12, False, len(ids))
    reference = [float(server.logprobs([*ids, *made[:pos]])[token]) for pos, token in enumerate(made)]
    np.testing.assert_allclose(found.logprobs, reference)
    stop = next(mark for mark in text[3:] if mark.isprintable() and mark not in text[:3])
    cut = engine.generate([prompt("The topic is")], Decoding(12, (stop,)))[0]
    assert (cut.text, cut.finished) == (text[: text.index(stop)], True)


def test_what_a_server_writes_after_the_stop_is_cut(serve: Any) -> None:
    """Some servers leave the stop string in."""
    server = serve()
    server.faults.append(Fault(200, body=b'{"choices": [{"text": "one\\ntwo", "finish_reason": "length"}]}'))
    made = model(server).generate([prompt("a b")], Decoding(8))[0]
    assert (made.text, made.finished) == ("one", True)


def test_long_prompts_leave_room_for_the_answer(serve: Any, folder: Path) -> None:
    server = serve(max_length=64)
    engine = model(server, tokenizer=str(folder), max_length=64)
    found = engine.generate([prompt("is the claim " * 60)], Decoding(8, ()))[0]
    assert (found.prompt_tokens, found.truncated) == (56, True)
    assert len(server.seen[-1].body["prompt"]) == 56


def test_prompts_that_must_be_cut_need_a_server_that_takes_ids(serve: Any, folder: Path) -> None:
    engine = model(serve("ids"), tokenizer=str(folder), max_length=32)
    with pytest.raises(ModelError, match=r"must be cut to \d+ tokens.*takes none\. Write a shorter prompt"):
        engine.generate([prompt("is the claim " * 30)], Decoding(8))


def test_seeds_are_made_of_the_prompt_and_the_seed(serve: Any) -> None:
    server = serve()
    engine = model(server)
    hot = [Decoding(4, (), 0.7, seed) for seed in (1, 1, 2)]
    texts = [[made.text for made in engine.generate([prompt("a b"), prompt("c d")], how)] for how in hot]
    assert texts[0] == texts[1] != texts[2]
    seeds = [one.body["seed"] for one in server.seen]
    assert len(set(seeds)) == 4
    engine.generate([prompt("a b")], Decoding(4, ()))
    assert "seed" not in server.seen[-1].body


@pytest.mark.parametrize("options", [{}, {"mode": "chat"}])
def test_servers_without_logprobs_are_asked_without(serve: Any, options: dict[str, Any]) -> None:
    server = serve("logprobs")
    engine = model(server, **options)
    for _ in range(2):
        made = engine.generate([prompt("a b")], Decoding(4, ()))[0]
    assert made.logprobs == ()
    assert made.tokens == 4
    # Refused once, then remembered.
    assert ["logprobs" in one.body for one in server.seen] == [True, False, False]


def test_chat_generates_from_messages(serve: Any) -> None:
    server = serve()
    engine = model(server, mode="chat")
    ids = server.tokenizer("user: a b\nassistant:")["input_ids"]
    found = engine.generate([prompt("a b")], Decoding(6, ()))[0]
    assert found.text == server.generate(ids, {"max_tokens": 6, "temperature": 0.0})[1]
    assert len(found.logprobs) == found.tokens == 6
    assert found.prompt_tokens == len(ids)
    with pytest.raises(PromptError, match="no messages"):
        engine.generate([Prompt("q", "a", (), (), (), 0)], Decoding(6))


# Choosing.


@pytest.mark.parametrize("constraint", ["structured_outputs", "guided_choice", "json_schema"])
def test_the_kind_of_constraint_is_found_out(serve: Any, constraint: str) -> None:
    server = serve("structured_outputs", plus=(constraint,))
    engine = model(server, mode="chat")
    words = ["entailment", "neutral", "contradiction"]
    found = engine.choose([prompt(text) for text in TEXTS], [words] * 4)
    firsts = [server.tokenizer(word)["input_ids"][0] for word in words]
    for text, made in zip(TEXTS, found, strict=True):
        ids = server.tokenizer(f"user: {text}\nassistant:")["input_ids"]
        assert made.text == words[int(np.argmax(server.logprobs(ids)[firsts]))]
    assert engine.info["constraint"] == constraint
    assert engine.usage.outside == 0


def test_a_server_that_lets_anything_through_is_refused(serve: Any) -> None:
    with pytest.raises(ModelError, match=r"does not hold answers to given choices \(structured_outputs: the answer"):
        model(serve("structured_outputs"), mode="chat").choose([prompt("a b")], [["x", "y"]])


@pytest.mark.parametrize("constraint", ["structured_outputs", "json_schema"])
def test_answers_outside_the_choices_are_counted_never_mapped(
    serve: Any, constraint: str, caplog: pytest.LogCaptureFixture
) -> None:
    server = serve("structured_outputs", plus=(constraint,))
    server.said = "Positive "
    engine = model(server, mode="chat")
    made = engine.choose([prompt("a b")] * 3, [["positive", "negative"]] * 3)
    assert [one.text for one in made] == ["Positive "] * 3
    assert engine.usage.outside == 3
    assert "none of the choices" in caplog.text


def test_servers_with_another_name_for_the_limit(serve: Any) -> None:
    server = serve("logprobs", plus=("max_completion_tokens",))
    engine = model(server, mode="chat")
    assert engine.generate([prompt("a b")], Decoding(4, ()))[0].tokens == 4
    assert set(server.seen[-1].body) == {"model", "messages", "temperature", "max_completion_tokens"}


def test_chat_mode_gives_no_log_probabilities(serve: Any) -> None:
    server = serve()
    engine = model(server, mode="chat")
    assert not engine.scores_choices
    with pytest.raises(ModelError, match=r"gives no log-probabilities. Call choose\(\), or use mode="):
        engine.loglik([prompt("a b")], [WORDS])
    assert not server.seen
    items = [ScoreItem("1", (), ("yes", "no"), prompt("a b"))]
    answer = ModelScorer(engine).score(items)[0]
    assert answer.output in ("yes", "no")
    assert not answer.scores


# Failures.

AGAIN = [
    Fault(500),
    Fault(503, body=b"<html>busy</html>"),
    Fault(429),
    Fault(429, {"Retry-After": "7"}),
    Fault(408),
    Fault(drop=True),
    Fault(200, body=b"{not json"),
    Fault(200, body=b"[1]"),
]


@pytest.mark.parametrize("fault", AGAIN, ids=lambda fault: f"{fault.status}-{fault.drop}-{fault.body[:6].decode()}")
def test_what_may_pass_is_tried_again(serve: Any, fault: Fault) -> None:
    server = serve()
    engine = model(server, mode="echo")
    engine.loglik([prompt("a b")], [WORDS])
    server.faults.extend([fault, fault])
    values, _ = expected(server, "c d", WORDS)
    np.testing.assert_allclose(engine.loglik([prompt("c d")], [WORDS]).values[0], values, atol=1e-9)
    assert engine.usage.retries == 2


def test_a_request_without_an_answer_is_tried_again(serve: Any) -> None:
    server = serve()
    engine = model(server, mode="echo", timeout=0.3)
    engine.loglik([prompt("a b")], [WORDS])
    server.faults.append(Fault(hang=True))
    engine.loglik([prompt("c d")], [WORDS])
    assert engine.usage.retries == 1


def test_waits_double_and_are_scattered(serve: Any) -> None:
    clock = VirtualClock()
    server = serve()
    server.faults.extend([Fault(500)] * 6)
    model(server, clock=clock, max_retries=6).generate([prompt("a b")], Decoding(1))
    assert len(clock.sleeps) == 6
    for wait, most in zip(clock.sleeps, [0.5, 1, 2, 4, 8, 16], strict=True):
        assert most / 2 <= wait <= most
    assert len({round(wait / 2**number, 6) for number, wait in enumerate(clock.sleeps)}) > 1


@pytest.mark.parametrize("date", [False, True])
def test_retry_after_is_honoured_by_all_requests(serve: Any, date: bool) -> None:
    clock = VirtualClock()
    server = serve()
    server.faults.append(Fault(429, {"Retry-After": formatdate(1042, usegmt=True) if date else "42"}))
    engine = model(server, clock=clock, concurrency=1)
    engine.generate([prompt("a b"), prompt("c d")], Decoding(1))
    assert clock.now() >= 1042
    assert clock.sleeps[0] >= 42
    assert clock.sleeps[0] <= 42.1


def test_a_pause_holds_back_whoever_is_not_waiting_yet(serve: Any) -> None:
    """The request that was told to wait wakes too early here, so it meets the gate as any other would."""

    class Impatient(VirtualClock):
        def sleep(self, seconds: float, stop: threading.Event) -> None:
            if self.sleeps:
                super().sleep(seconds, stop)
            else:
                self.sleeps.append(seconds)

    clock, times = Impatient(), []
    server = serve()
    server.faults.append(Fault(429, {"Retry-After": "42"}))
    server.gate = lambda body: times.append(clock.now())
    model(server, clock=clock).generate([prompt("a b")], Decoding(1))
    assert times == [1000, pytest.approx(1042)]


def test_a_pause_longer_than_a_run_is_not_waited_for(serve: Any) -> None:
    clock = VirtualClock()
    server = serve()
    server.faults.append(Fault(429, {"Retry-After": "86400"}))
    with pytest.raises(ModelError, match=r"HTTP 429.*asks for a pause of 86400 s.*Wait, or raise the quota"):
        model(server, clock=clock).generate([prompt("a b")], Decoding(1))
    assert not clock.sleeps


def test_an_empty_account_is_not_asked_again(serve: Any) -> None:
    server = serve()
    body = b'{"error": {"message": "You exceeded your current quota", "code": "insufficient_quota"}}'
    server.faults.append(Fault(429, body=body))
    with pytest.raises(ModelError, match="You exceeded your current quota"):
        model(server).generate([prompt("a b")], Decoding(1))
    assert len(server.seen) == 1


@pytest.mark.parametrize(
    ("fault", "message"),
    [
        (Fault(500), r"no answer .* after 3 attempts: HTTP 500: it broke. Check that it runs"),
        (Fault(502, body=b""), r"after 3 attempts: HTTP 502: no reason given"),
        (Fault(drop=True), r"after 3 attempts: the connection broke"),
        (Fault(200, body=b"<html>"), r"after 3 attempts: the answer is no JSON"),
    ],
)
def test_retries_end(serve: Any, fault: Fault, message: str) -> None:
    server = serve()
    server.faults.extend([fault] * 3)
    with pytest.raises(ModelError, match=message):
        model(server, max_retries=2).generate([prompt("a b")], Decoding(1))
    assert len(server.seen) == 3


@pytest.mark.parametrize("status", [400, 403, 404, 413, 301])
def test_a_refusal_is_raised_at_once_with_what_the_server_says(serve: Any, status: int) -> None:
    server = serve()
    server.faults.extend([Fault(status, {"Location": "http://127.0.0.1:1/"}, b'{"detail": "not like this"}')] * 3)
    with pytest.raises(ModelError, match=rf"HTTP {status}\): not like this\. [A-Z]"):
        model(server).generate([prompt("a b")], Decoding(1))
    # A 400 may be about log-probabilities, without which the request is tried once.
    assert len(server.seen) == (2 if status == 400 else 1)


def test_too_long_a_prompt_says_what_the_server_reads(serve: Any) -> None:
    with pytest.raises(ModelError, match="maximum context length is 64 tokens"):
        model(serve(max_length=64), mode="echo").loglik([prompt("is the claim " * 60)], [WORDS])


def test_an_unknown_model_is_said_by_the_server(serve: Any, caplog: pytest.LogCaptureFixture) -> None:
    engine = HttpModel("fkae", url=serve().url, clock=VirtualClock())
    with pytest.raises(ModelError, match=r"The model `fkae` does not exist.*name of the model"):
        engine.generate([prompt("a b")], Decoding(1))
    assert "Did you mean 'fake'" in caplog.text


BODIES = [
    b"{}",
    b'{"choices": []}',
    b'{"choices": [3]}',
    b'{"choices": [{}, {}]}',
    b'{"choices": [{"text": "a", "logprobs": [1]}], "usage": [2]}',
    b'{"choices": [{"text": "a", "logprobs": {"token_logprobs": 3}}], "usage": {"prompt_tokens": "x"}}',
    b'{"choices": [{"message": "a", "index": "x"}]}',
]


@pytest.mark.parametrize("body", BODIES)
def test_answers_of_another_shape_are_refused(serve: Any, body: bytes) -> None:
    server = serve()
    server.faults.append(Fault(200, body=body))
    with pytest.raises(ModelError, match="not compatible with OpenAI's"):
        model(server).generate([prompt("a b")], Decoding(1))


@pytest.mark.parametrize("body", [*BODIES, b'{"choices": [{"logprobs": {"tokens": [1], "token_logprobs": ["x"]}}]}'])
@pytest.mark.parametrize("options", [{"mode": "echo"}, {"tokenizer": "HERE"}, {"mode": "chat"}])
def test_a_server_that_answers_nonsense_offers_nothing(
    serve: Any, folder: Path, options: dict[str, str], body: bytes
) -> None:
    server = serve()
    server.faults.extend([Fault(200, body=body)] * 20)
    engine = model(server, **{key: str(folder) if value == "HERE" else value for key, value in options.items()})
    ask = engine.choose if engine.versions["mode"] == "chat" else engine.loglik
    with pytest.raises(ModelError, match=r"gives no log-prob|not compatible|does not hold|other tokens"):
        ask([prompt("a b")], [WORDS])


def test_connections_can_be_given_back(serve: Any) -> None:
    engine = model(serve())
    for _ in range(2):
        assert engine.generate([prompt("a b")], Decoding(1))[0].tokens == 1
        engine.close()
    engine.close()


def test_a_server_that_is_not_there(serve: Any) -> None:
    server = serve()
    server.die()
    clock = VirtualClock()
    with pytest.raises(ModelError, match=r"no answer .* after 7 attempts: cannot connect.*Check that it runs"):
        model(server, clock=clock).generate([prompt("a b")], Decoding(1))
    assert len(clock.sleeps) == 6


@pytest.mark.parametrize("concurrency", [1, 4])
def test_a_server_that_dies_loses_only_what_was_in_flight(
    serve: Any, folder: Path, tmp_path: Path, concurrency: int
) -> None:
    prompts = [prompt(f"question {number}", str(number)) for number in range(30)]
    server = serve()
    server.dies_after = 2 + 11
    options = {"tokenizer": str(folder), "concurrency": concurrency, "served": "test", "max_retries": 2}
    first = CachedModel(model(server, **options), tmp_path)
    with pytest.raises(ModelError, match="no answer from the server"):
        first.loglik(prompts, [WORDS] * 30)
    again = serve()
    second = CachedModel(model(again, **options), tmp_path)
    found = second.loglik(prompts, [WORDS] * 30)
    assert len(again.seen) == 2 + 30 - 11
    whole = model(serve(), **options).loglik(prompts, [WORDS] * 30)
    assert found.values.tolist() == whole.values.tolist()


def test_answers_before_an_error_are_yielded(serve: Any) -> None:
    server = serve()
    engine = model(server, concurrency=2)
    server.faults.extend([None, None, None, Fault(404, body=b"gone")])
    got: list[Any] = []
    with pytest.raises(ModelError, match="gone"):
        got.extend(engine.generate_each([prompt(str(n)) for n in range(20)], Decoding(1)))
    assert 3 <= len(got) <= 4
    assert len(server.seen) <= 5


# The key.


def test_the_key_goes_to_the_server_and_nowhere_else(
    serve: Any, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    caplog.set_level(logging.DEBUG)
    server = serve(key=KEY)
    engine = model(server, mode="echo")
    engine.loglik([prompt("a b")], [WORDS])
    assert server.seen[0].headers["authorization"] == f"Bearer {KEY}"
    server.faults.extend([Fault(500, body=f"bad {KEY}".encode()), Fault(418, body=f"bad {KEY}".encode())])
    with pytest.raises(ModelError, match=r"bad \[key\]") as caught:
        engine.loglik([prompt("a b")], [WORDS])
    chain = [caught.value, caught.value.__cause__, caught.value.__context__]
    shown = [caplog.text, repr(engine), str(engine.versions), str(engine.info), engine.name, str(engine.usage)]
    shown += [repr(vars(engine)), repr(engine._session.client), *map(repr, chain)]
    assert not any(KEY in text for text in shown)


def test_a_wrong_key_is_refused_without_being_shown(serve: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "sk-wrong")
    with pytest.raises(ModelError, match=r"HTTP 401\): Incorrect API key provided: \[key\]\. Set OPENAI_API_KEY"):
        model(serve(key=KEY)).generate([prompt("a b")], Decoding(1))


def test_a_key_that_no_header_can_carry_is_not_shown(serve: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    for key in ("sk-caf\u00e9", "sk-two words", "sk-tab\tbed"):
        monkeypatch.setenv("OPENAI_API_KEY", key)
        with pytest.raises(ParameterError, match="OPENAI_API_KEY holds blanks") as caught:
            model(serve()).generate([prompt("a b")], Decoding(1))
        assert key not in str(caught.value)


def test_the_line_break_after_a_key_is_left_out(serve: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", KEY + "\n")
    assert model(serve(key=KEY)).generate([prompt("a b")], Decoding(1))[0].tokens == 1


def test_no_key_sends_no_header(serve: Any) -> None:
    server = serve()
    model(server).generate([prompt("a b")], Decoding(1))
    assert "authorization" not in server.seen[0].headers


# Limits.


@settings(max_examples=150, deadline=None)
@given(
    sizes=st.lists(st.integers(0, 50), max_size=40),
    requests=st.none() | st.integers(1, 5),
    tokens=st.none() | st.integers(50, 120),
    gaps=st.lists(st.floats(0, 40), min_size=40, max_size=40),
)
def test_limits_hold_in_every_minute(
    sizes: list[int], requests: int | None, tokens: int | None, gaps: list[float]
) -> None:
    clock, stop = VirtualClock(), threading.Event()
    limits = Limits(requests, tokens, clock)
    sent: list[tuple[float, int]] = []
    for size, gap in zip(sizes, gaps, strict=False):
        clock.time += gap
        before, waits = clock.now(), len(clock.sleeps)
        limits.acquire(size, stop)
        sent.append((clock.now(), size))
        if len(clock.sleeps) > waits:
            # Not a moment longer than needed: just before, it did not fit.
            fits = [one for one in sent[:-1] if one[0] > clock.now() - 60 - 1e-6]
            full = requests is not None and len(fits) >= requests
            assert full or (tokens is not None and sum(part for _, part in fits) + size > tokens)
            assert clock.now() > before
    for end, _ in sent:
        window = [size for start, size in sent if end - 60 + 1e-6 < start <= end]
        assert requests is None or len(window) <= requests
        assert tokens is None or sum(window) <= tokens


@pytest.mark.parametrize("limits", [(1, None), (None, 10)])
def test_a_minute_is_a_whole_minute(limits: tuple[int | None, int | None]) -> None:
    clock, stop = VirtualClock(), threading.Event()
    limit = Limits(*limits, clock)
    limit.acquire(10, stop)
    clock.time += 59.5
    limit.acquire(10, stop)
    assert clock.now() == pytest.approx(1060)
    clock.time += 60
    limit.acquire(10, stop)
    assert clock.now() == pytest.approx(1120)


def test_a_request_larger_than_a_minute_is_refused(serve: Any) -> None:
    engine = model(serve(), tokens_per_minute=20)
    with pytest.raises(ModelError, match=r"exceeds tokens_per_minute=20.*Raise the limit"):
        engine.generate([prompt("is the claim " * 10)], Decoding(8))


def test_a_model_keeps_to_its_rate(serve: Any) -> None:
    clock = VirtualClock()
    times: list[float] = []
    server = serve()
    server.gate = lambda body: times.append(clock.now())
    engine = model(server, clock=clock, requests_per_minute=3, concurrency=1)
    engine.generate([prompt(str(n)) for n in range(7)], Decoding(1))
    # /v1/models and /version are requests too.
    assert [time - 1000 for time in times] == pytest.approx([0, 60, 60, 60, 120, 120, 120])


def test_no_more_requests_in_flight_than_allowed(serve: Any) -> None:
    server = serve()
    meet = threading.Barrier(3)
    server.gate = lambda body: (meet.wait(20), None)[1]
    model(server, concurrency=3).generate([prompt(str(n)) for n in range(12)], Decoding(1))
    assert server.most_at_once == 3


# Spending.


@pytest.mark.parametrize(("mode", "exact"), [("token_ids", True), ("echo", True), ("echo", False)])
def test_the_estimate_is_what_is_spent(serve: Any, folder: Path, mode: str, exact: bool) -> None:
    server = serve()
    tokenizer = str(folder) if exact else None
    engine = model(server, mode=mode, tokenizer=tokenizer, price_in=2.0, price_out=10.0)
    prompts, words = [prompt(text) for text in TEXTS], [WORDS] * len(TEXTS)
    before = engine.estimate(prompts, words)
    assert not server.seen
    engine.loglik(prompts[:1], words[:1])
    spent = engine.usage.spent
    first = engine.estimate(prompts[:1], words[:1])
    probes = engine.usage.prompt_tokens - first.prompt_tokens
    engine.loglik(prompts, words)
    assert before.exact is exact
    assert before.requests == len(prompts)
    assert before.cost == pytest.approx((2 * before.prompt_tokens + 10 * before.generated_tokens) / 1e6)
    if exact:
        assert engine.usage.spent - spent == pytest.approx(before.cost)
        assert probes > 0
    else:
        assert before.cost is not None
        assert before.cost / 6 < engine.usage.spent - spent < before.cost


def test_the_estimate_of_generation_and_choice(serve: Any, folder: Path) -> None:
    prompts = [prompt(text) for text in TEXTS]
    engine = model(serve(), tokenizer=str(folder))
    found = engine.estimate(prompts, decoding=Decoding(9))
    lengths = [len(engine._planner.texts.encode([text])[0]) for text in TEXTS]  # type: ignore[union-attr]
    assert (found.requests, found.prompt_tokens, found.generated_tokens) == (4, sum(lengths), 36)
    assert found.cost is None
    chat = model(serve(), mode="chat", price_in=1, price_out=1)
    choice = chat.estimate(prompts, [WORDS] * 4)
    assert choice.requests == 4
    assert not choice.exact
    made = chat.choose(prompts, [WORDS] * 4)
    assert choice.prompt_tokens > sum(one.prompt_tokens for one in made)
    with pytest.raises(ParameterError, match="either choices or decoding"):
        engine.estimate(prompts)


@pytest.mark.parametrize("concurrency", [1, 5])
def test_nothing_is_sent_that_might_pass_the_cap(serve: Any, folder: Path, concurrency: int) -> None:
    server = serve()
    price = {"price_in": 1e6, "price_out": 1e6}
    prompts = [prompt(f"number {n}") for n in range(10, 40)]
    one = int(model(server, tokenizer=str(folder), **price).estimate(prompts[:1], decoding=Decoding(4, ())).cost or 0)
    # Finding out that ids are taken costs the tokens of a probe and one more.
    probe = model(server, tokenizer=str(folder), **price)
    probe.generate(prompts[:1], Decoding(4, ()))
    start = probe.usage.spent - one
    cap = start + 7.5 * one
    engine = model(server, tokenizer=str(folder), concurrency=concurrency, max_spend=cap, **price)
    server.seen.clear()
    got: list[Any] = []
    with pytest.raises(SpendError, match=r"the next request may cost .* of max_spend=.* is spent.*Raise max_spend"):
        got.extend(engine.generate_each(prompts, Decoding(4, ())))
    assert len(got) == 7
    assert len(server.seen) == 1 + 7
    assert engine.usage.spent == pytest.approx(start + 7 * one)
    assert isinstance(SpendError("x"), ModelError)


def test_a_request_that_may_have_been_computed_counts_as_spent(serve: Any) -> None:
    server = serve()
    engine = model(server, price_in=0, price_out=1e6, max_retries=3)
    server.faults.extend([Fault(drop=True), Fault(500), Fault(429)])
    engine.generate([prompt("a b")], Decoding(4, ()))
    assert engine.usage.spent == pytest.approx(4 + 4)


# What is known before the first call.


def test_making_a_model_asks_nobody(folder: Path) -> None:
    engine = HttpModel("org/m", url="http://does-not-exist.invalid/v1", tokenizer=str(folder))
    assert isinstance(engine, LanguageModel)
    assert engine.versions["server"] == "does-not-exist.invalid"
    assert engine.max_length == 2048
    assert engine.tokenizer_name == str(folder)
    assert engine.info == {}
    assert engine.streams
    assert engine.scores_choices


def test_what_the_fingerprint_covers(folder: Path) -> None:
    def mark(**options: Any) -> str:
        return HttpModel(**{"model": "org/m", "url": "http://a/v1", **options}).fingerprint

    base = mark()
    assert mark() == base
    same = {"concurrency": 2, "timeout": 5, "max_retries": 1, "requests_per_minute": 9, "price_in": 1, "price_out": 1}
    assert mark(**same) == base
    others = [
        mark(url="http://b/v1"),
        mark(model="org/n"),
        mark(mode="echo"),
        mark(mode="chat"),
        mark(max_length=64),
        mark(served="bf16, commit 1234"),
        mark(tokenizer=str(folder)),
    ]
    assert len({base, *others}) == 1 + len(others)
    assert mark(served="x") == mark(served="x", url="http://b/v1")


def test_names_hold_no_path() -> None:
    engine = HttpModel("/models/llama-3", url="http://a/v1", served="float32")
    assert engine.name == "llama-3@float32"
    assert "/models" not in str(engine.versions)
    assert engine.tokenizer_name is None


def test_the_address_may_stand_in_the_environment(serve: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    server = serve()
    monkeypatch.setenv("OPENAI_BASE_URL", server.url + "/")
    made = HttpModel(MODEL, clock=VirtualClock()).generate([prompt("a b")], Decoding(1))
    assert made[0].tokens == 1


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"url": None}, "no server to ask. Pass url="),
        ({"url": "localhost:8000"}, "no HTTP address"),
        ({"url": "http://user:pw@a/v1"}, "holds a user, a password or a query"),
        ({"url": "http://a/v1?key=1"}, "holds a user, a password or a query"),
        ({"model": ""}, "model is empty"),
        ({"mode": "ecko"}, "unknown mode 'ecko'. Did you mean 'echo'"),
        ({"mode": "token_ids"}, "mode='token_ids' needs a tokenizer"),
        ({"mode": "echo", "chat": True}, "needs a tokenizer to render messages"),
        ({"concurrency": 0}, "concurrency=0"),
        ({"timeout": 0}, "timeout=0 is no time"),
        ({"max_retries": -1}, "max_retries=-1"),
        ({"requests_per_minute": 0}, "requests_per_minute=0"),
        ({"max_length": 1}, "max_length=1"),
        ({"price_in": 1}, "price_in and price_out go together"),
        ({"price_in": -1, "price_out": 1}, "price_in=-1 is no amount"),
        ({"max_spend": 5}, "max_spend=5 needs the prices"),
        ({"tokenizer_revision": "main"}, "without a tokenizer"),
    ],
)
def test_bad_parameters_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ParameterError, match=message):
        HttpModel(**{"model": "m", "url": "http://a/v1", **options})


def test_chat_without_a_tokenizer_is_the_chat_mode() -> None:
    engine = HttpModel("m", url="http://a/v1", chat=True)
    assert (engine.versions["mode"], engine.chat, engine.scores_choices) == ("chat", True, False)
    assert HttpModel("m", url="http://a/v1", mode="chat").chat


def test_the_scorer_has_a_name() -> None:
    scorer = load_scorer("openai(model='org/m', url='http://a/v1', mode='echo', rule='sum')")
    assert scorer.name == "org/m"
    assert scorer.versions["mode"] == "echo"
    with pytest.raises(UnknownNameError, match=r"no parameter 'moode'. Did you mean 'mode'|no parameter 'moode'"):
        load_scorer("openai(model='m', moode='echo')")


# Many at once.


def test_answers_come_as_they_are_ready() -> None:
    second = threading.Event()

    def work(job: int, stop: threading.Event) -> int:
        if job == 0:
            assert second.wait(20)
        return job * 10

    got = as_completed(range(2), work, 2)
    assert next(got) == (1, 10)
    second.set()
    assert list(got) == [(0, 0)]


def test_jobs_are_made_as_there_is_room() -> None:
    made = []

    def jobs() -> Iterator[int]:
        for number in range(100):
            made.append(number)
            yield number

    got = as_completed(jobs(), lambda job, stop: job, 3)
    next(got)
    assert len(made) <= 6
    got.close()  # type: ignore[attr-defined]
    assert len(made) <= 6


def test_a_bad_item_in_the_middle_loses_no_answer() -> None:
    def jobs() -> Iterator[int]:
        yield from (1, 2)
        raise PromptError("bad")

    got: list[Any] = []
    with pytest.raises(PromptError, match="bad"):
        got.extend(as_completed(jobs(), lambda job, stop: job, 4))
    assert sorted(got) == [(0, 1), (1, 2)]


def test_a_failure_ends_the_waiting_of_the_others() -> None:
    started = threading.Event()

    def work(job: int, stop: threading.Event) -> bool:
        if job == 0:
            assert started.wait(20)
            raise ModelError("dead")
        started.set()
        return stop.wait(20)

    got: list[Any] = []
    with pytest.raises(ModelError, match="dead"):
        got.extend(as_completed(range(9), work, 2))
    assert got == [(1, True)]


def test_a_reader_that_leaves_ends_the_waiting() -> None:
    waited: list[bool] = []
    started, done = threading.Event(), threading.Event()

    def work(job: int, stop: threading.Event) -> int:
        if job == 1:
            started.set()
            waited.append(stop.wait(20))
            done.set()
        else:
            assert started.wait(20)
        return job

    for pos, _ in as_completed(range(2), work, 2):
        assert pos == 0
        break
    assert done.wait(20)
    assert waited == [True]
