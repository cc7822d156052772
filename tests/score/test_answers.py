"""The cache gives back what the model said, to the bit, or asks again; a killed run repeats no finished chunk."""

from __future__ import annotations

import json
import logging
import os
import signal
import sqlite3
import subprocess
import sys
import tempfile
import textwrap
import threading
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from icl_select.errors import ParameterError, StoreError
from icl_select.score import CachedModel, Generation, HashModel, LanguageModel, Loglik, ModelScorer, TableModel
from icl_select.score.answer_file import pack_row, pack_text, read_row, read_text
from icl_select.score.protocol import LoglikRow
from icl_select.types import Decoding, Prompt, ScoreItem

WORDS = ("\nyes", "\nno", "\nperhaps not")
GREEDY = Decoding(max_tokens=6)


def prompt(text: str) -> Prompt:
    return Prompt(f"id of {text}", text, ({"role": "user", "content": text},), (), (), len(text))


PROMPTS = [prompt(f"demonstrations {i % 3}, query {i}") for i in range(30)]


class Recording(HashModel):
    """A HashModel that remembers what each call asked for, and can stop at a call."""

    def __init__(self, stop_at: int | None = None, **parameters: Any) -> None:
        super().__init__(**parameters)
        self.stop_at = stop_at
        self.asked: list[list[str]] = []
        self.words: list[list[tuple[str, ...]]] = []

    def _note(self, prompts: Sequence[Prompt]) -> None:
        if len(self.asked) == self.stop_at:
            raise KeyboardInterrupt
        self.asked.append([one.text for one in prompts])

    def loglik(self, prompts: Sequence[Prompt], choices: Sequence[Sequence[str]]) -> Loglik:
        self._note(prompts)
        self.words.append([tuple(words) for words in choices])
        return super().loglik(prompts, choices)

    def generate(self, prompts: Sequence[Prompt], decoding: Decoding) -> list[Generation]:
        self._note(prompts)
        return super().generate(prompts, decoding)


class Streaming(Recording):
    """A server: answers come one by one, the last request first."""

    streams = True

    def loglik_each(
        self, prompts: Sequence[Prompt], choices: Sequence[Sequence[str]]
    ) -> Iterator[tuple[int, LoglikRow]]:
        for i in reversed(range(len(prompts))):
            found = self.loglik([prompts[i]], [choices[i]])
            yield i, LoglikRow(found.values[0], found.tokens[0], found.prompt_tokens[0], found.truncated[0])

    def generate_each(self, prompts: Sequence[Prompt], decoding: Decoding) -> Iterator[tuple[int, Generation]]:
        for i in reversed(range(len(prompts))):
            yield i, self.generate([prompts[i]], decoding)[0]


def numbers(found: Loglik) -> list[Any]:
    """Everything that a Loglik holds, NaN made comparable."""
    parts = (found.values, found.tokens, found.prompt_tokens, found.truncated)
    return [np.nan_to_num(part, nan=1.0).tolist() for part in parts]


def ask(model: LanguageModel, prompts: Sequence[Prompt] = PROMPTS, words: tuple[str, ...] = WORDS) -> list[Any]:
    return numbers(model.loglik(prompts, [words] * len(prompts)))


def rows_of(model: CachedModel) -> int:
    with sqlite3.connect(model.file.path) as connection:
        return int(connection.execute("SELECT count(*) FROM answers").fetchone()[0])


def test_it_is_the_model_with_a_memory(tmp_path: Path) -> None:
    engine = HashModel(max_length=500, chat=True)
    model = CachedModel(engine, tmp_path)
    assert isinstance(model, LanguageModel)
    for name in ("name", "versions", "fingerprint", "tokenizer_name", "max_length", "chat", "usage"):
        assert getattr(model, name) == getattr(engine, name)
    assert model.scores_choices
    assert list(tmp_path.iterdir()) == [], "nothing is made before something is asked"


def test_the_second_time_nothing_is_asked_and_the_bits_are_the_same(tmp_path: Path) -> None:
    expected, texts = ask(HashModel()), HashModel().generate(PROMPTS, GREEDY)
    for engine in (Recording(), Recording(stop_at=0)):
        model = CachedModel(engine, tmp_path)
        assert ask(model) == expected
        assert model.generate(PROMPTS, GREEDY) == texts
    assert model.counts.asked == model.counts.cached == 60
    assert (model.counts.computed, model.counts.calls, model.usage.requests) == (0, 0, 0)


def test_a_ragged_number_of_choices(tmp_path: Path) -> None:
    choices = [WORDS[: 1 + i % 3] for i in range(30)]
    for _ in range(2):
        found = CachedModel(HashModel(), tmp_path).loglik(PROMPTS, choices)
        assert numbers(found) == numbers(HashModel().loglik(PROMPTS, choices))
        assert np.isnan(found.values[0]).tolist() == [False, True, True]
    assert CachedModel(HashModel(), tmp_path).loglik([], []).values.shape == (0, 0)
    assert CachedModel(HashModel(), tmp_path).generate([], GREEDY) == []


def test_duplicates_are_asked_once(tmp_path: Path) -> None:
    engine = Recording()
    model = CachedModel(engine, tmp_path)
    twice = [*PROMPTS, *(replace(one, query_id="another", tokens=7) for one in PROMPTS)]
    assert ask(model, twice) == numbers(HashModel().loglik(twice, [WORDS] * 60))
    assert sum(map(len, engine.asked)) == 30
    assert (model.counts.asked, model.counts.computed) == (60, 30)


def test_what_makes_an_answer_another(tmp_path: Path) -> None:
    """Text, choices and their order, decoding, and the seed where it is read; not the id of the query."""
    one = PROMPTS[:1]
    asked = CachedModel(HashModel(), tmp_path)
    for words in (WORDS, WORDS[:2], WORDS[::-1], ("\nyesno",), ("\nyes", "no")):
        ask(asked, one, words)
    assert asked.counts.computed == 5
    for how in (GREEDY, Decoding(7), Decoding(6, ("a",)), Decoding(6, ("a", "b")), Decoding(6, temperature=0.5)):
        asked.generate(one, how)
    assert asked.counts.computed == 10
    asked.generate(one, Decoding(6, temperature=0.5, seed=1))
    assert asked.counts.computed == 11
    asked.generate(one, Decoding(6, seed=1))
    assert asked.counts.computed == 11, "without temperature no seed is read"
    assert rows_of(asked) == 11


def test_a_chat_model_is_known_by_its_messages(tmp_path: Path) -> None:
    model = CachedModel(HashModel(chat=True), tmp_path)
    system = {"role": "system", "content": "Answer."}
    same = replace(PROMPTS[0], text="another text")
    other = replace(PROMPTS[0], messages=(system, *PROMPTS[0].messages))
    ask(model, [PROMPTS[0], same])
    assert model.counts.computed == 1
    ask(model, [PROMPTS[0], other])
    assert model.counts.computed == 2


def test_another_model_is_another_file(tmp_path: Path) -> None:
    for engine in (HashModel(0), HashModel(1), HashModel(0, max_length=400)):
        model = CachedModel(engine, tmp_path)
        assert ask(model) == ask(engine)
        assert model.counts.computed == 30
    assert len(list(tmp_path.iterdir())) == 3


def test_sampled_texts_are_kept_by_their_seed(tmp_path: Path) -> None:
    hot = Decoding(max_tokens=10, temperature=1.0, seed=5)
    first = CachedModel(HashModel(), tmp_path).generate(PROMPTS, hot)
    assert CachedModel(Recording(stop_at=0), tmp_path).generate(PROMPTS, hot) == first
    other = CachedModel(HashModel(), tmp_path).generate(PROMPTS, replace(hot, seed=6))
    assert other != first


def test_the_engine_is_asked_in_schedule_order_and_chunks(tmp_path: Path) -> None:
    """Sorted, whatever the order of the request; the same chunks, whether half of them is known or not."""
    texts = sorted(one.text for one in PROMPTS)
    chunks = [texts[i : i + 8] for i in range(0, 30, 8)]
    engine = Recording()
    ask(CachedModel(engine, tmp_path / "a", chunk=8))
    assert engine.asked == chunks
    again = Recording()
    ask(CachedModel(again, tmp_path / "b", chunk=8), PROMPTS[::-1])
    assert again.asked == chunks
    half = Recording()
    ask(CachedModel(Recording(), tmp_path / "c"), PROMPTS[::2])
    model = CachedModel(half, tmp_path / "c", chunk=8)
    ask(model)
    known = {one.text for one in PROMPTS[::2]}
    assert half.asked == [[text for text in chunk if text not in known] for chunk in chunks]
    assert model.counts.calls == 4


def test_choices_order_equal_prompts(tmp_path: Path) -> None:
    engine = Recording()
    model = CachedModel(engine, tmp_path, chunk=2)
    model.loglik([PROMPTS[1], PROMPTS[0], PROMPTS[1]], [("b",), ("a",), ("a",)])
    other = Recording()
    CachedModel(other, tmp_path / "b", chunk=2).loglik([PROMPTS[1], PROMPTS[1], PROMPTS[0]], [("a",), ("b",), ("a",)])
    assert engine.asked == other.asked == [[PROMPTS[0].text, PROMPTS[1].text], [PROMPTS[1].text]]
    assert engine.words == other.words == [[("a",), ("a",)], [("b",)]]


def test_an_interrupted_run_repeats_no_finished_chunk(tmp_path: Path) -> None:
    """Killed at the third call of four, then resumed: the calls of both together are those of one whole run."""
    whole, first, second = Recording(), Recording(stop_at=2), Recording()
    expected = ask(CachedModel(whole, tmp_path / "whole", chunk=8))
    with pytest.raises(KeyboardInterrupt):
        ask(CachedModel(first, tmp_path / "parts", chunk=8))
    assert ask(CachedModel(second, tmp_path / "parts", chunk=8)) == expected
    assert first.asked + second.asked == whole.asked


@pytest.mark.parametrize("kind", ["loglik", "generate"])
def test_a_stream_is_committed_as_it_arrives(tmp_path: Path, kind: str) -> None:
    def work(model: LanguageModel) -> Any:
        return ask(model) if kind == "loglik" else model.generate(PROMPTS, GREEDY)

    first, second = Streaming(stop_at=12), Streaming()
    model = CachedModel(first, tmp_path)
    with pytest.raises(KeyboardInterrupt):
        work(model)
    assert rows_of(model) == 12
    model = CachedModel(second, tmp_path)
    assert work(model) == work(HashModel())
    assert (len(second.asked), model.counts.cached, model.counts.calls) == (18, 12, 1)


class Choosing(TableModel):
    """Takes the last choice, or another word."""

    scores_choices = False
    answer: str | None = None

    def choose(self, prompts: Sequence[Prompt], choices: Sequence[Sequence[str]]) -> list[Generation]:
        self.calls += 1
        return [Generation(self.answer or words[-1], (), 1, True, 7) for words in choices]


class ChoosingServer(Choosing):
    streams = True

    def choose_each(
        self, prompts: Sequence[Prompt], choices: Sequence[Sequence[str]]
    ) -> Iterator[tuple[int, Generation]]:
        yield from reversed(list(enumerate(self.choose(prompts, choices))))


@pytest.mark.parametrize("kind", [Choosing, ChoosingServer])
def test_a_model_that_only_chooses_is_remembered(tmp_path: Path, kind: type[Choosing]) -> None:
    engine = kind()
    items = [ScoreItem(f"{i}", (), ("a", f"b{i}"), one) for i, one in enumerate(PROMPTS)]
    for _ in range(2):
        scorer = ModelScorer(engine).cached(tmp_path)
        assert [answer.output for answer in scorer.score(items)] == [f"b{i}" for i in range(30)]
    assert engine.calls == 1
    engine.answer = "neither"
    more = [ScoreItem("q", (), ("a", "c"), PROMPTS[0])]
    assert ModelScorer(engine).cached(tmp_path).score(more)[0].output == "neither"
    engine.answer = None
    again = ModelScorer(engine).cached(tmp_path).score(more)[0]
    assert (again.output, again.info["outside"]) == ("neither", True), "a foreign answer is kept and marked"


@pytest.mark.parametrize("rule", ["mean", "sum", "contextual", "pmi"])
def test_a_cached_scorer_scores_alike(tmp_path: Path, rule: str) -> None:
    """All rules share the answers; a rule that reads more asks only for what is new."""
    blank = (prompt("N/A"),)
    items = [ScoreItem(f"{i}", (), ("a", "b"), one, content_free=blank, premise="so:") for i, one in enumerate(PROMPTS)]
    items += [ScoreItem("w", (), None, PROMPTS[3], decoding=GREEDY)]
    plain = ModelScorer(HashModel(), rule=rule, max_tokens=9, stop=("x",))
    ModelScorer(HashModel()).cached(tmp_path).score(items)
    engine = Recording()
    cached = ModelScorer(engine, rule=rule, max_tokens=9, stop=("x",)).cached(tmp_path)
    assert cached.versions == plain.versions
    assert cached.score(items) == plain.score(items)
    assert sum(map(len, engine.asked)) == {"contextual": 1, "pmi": 1}.get(rule, 0)


@settings(deadline=None)
@given(st.lists(st.floats(), max_size=5), st.text(), st.integers(0, 2**40), st.booleans(), st.booleans())
def test_answers_survive_packing(floats: list[float], text: str, count: int, one: bool, other: bool) -> None:
    made = Generation(text, tuple(floats), count, one, count + 1, other)
    assert repr(read_text(pack_text(made))) == repr(made)
    row = LoglikRow(np.array(floats, dtype=np.float64), np.array([count] * len(floats)), count, one)
    back = read_row(pack_row(row))
    assert back.values.tobytes() == row.values.tobytes()
    assert (back.tokens.tolist(), back.prompt_tokens, back.truncated) == ([count] * len(floats), count, one)


def test_lone_surrogates_are_kept(tmp_path: Path) -> None:
    strange = [prompt("half a pair: \ud83d")]
    for _ in range(2):
        assert ask(CachedModel(HashModel(), tmp_path), strange, ("\udc00",)) == ask(HashModel(), strange, ("\udc00",))
    made = Generation("\ud83d", (), 1, True, 1)
    assert read_text(pack_text(made)) == made


def test_by_default_it_is_in_the_cache_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ICS_CACHE_DIR", str(tmp_path))
    ModelScorer(HashModel()).cached().score([ScoreItem("q", (), ("a", "b"), PROMPTS[0])])
    assert [path.parent for path in tmp_path.rglob("*.sqlite")] == [tmp_path / "answers"]


def test_the_bar_counts_requests_on_stderr(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    ask(CachedModel(HashModel(), tmp_path), PROMPTS[:10])
    assert capsys.readouterr() == ("", "")
    ask(CachedModel(HashModel(), tmp_path, progress=True))
    out, err = capsys.readouterr()
    assert out == ""
    assert "ask hash-0" in err
    assert "30/30" in err


def test_chunks_hold_at_least_one(tmp_path: Path) -> None:
    with pytest.raises(ParameterError, match="chunk=0"):
        CachedModel(HashModel(), tmp_path, chunk=0)


# What goes wrong --------------------------------------------------------------------------------------------


def script(body: str, *arguments: object) -> subprocess.Popen[str]:
    prelude = """
        import json, resource, sys, time
        from pathlib import Path
        from icl_select.errors import StoreError
        from icl_select.score import CachedModel, HashModel
        from icl_select.types import Prompt
        words = ("\\nyes", "\\nno", "\\nperhaps not")
        def prompt(text):
            return Prompt(text, text, (), (), (), 1)
        prompts = [prompt(f"demonstrations {i % 3}, query {i}") for i in range(30)]
    """
    code = textwrap.dedent(prelude) + textwrap.dedent(body)
    command = [sys.executable, "-c", code, *map(str, arguments)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def test_a_killed_process_keeps_its_finished_chunks(tmp_path: Path) -> None:
    """The child finishes two chunks of eight, and is killed while the engine works on the third."""
    body = """
        class Slow(HashModel):
            def loglik(self, prompts, choices):
                if self.calls == 2:
                    print("third", flush=True)
                    time.sleep(60)
                return super().loglik(prompts, choices)
        CachedModel(Slow(), Path(sys.argv[1]), chunk=8).loglik(prompts, [words] * 30)
    """
    child = script(body, tmp_path)
    assert child.stdout is not None
    assert child.stdout.readline() == "third\n"
    child.send_signal(signal.SIGKILL)
    child.communicate()
    engine = Recording()
    assert ask(CachedModel(engine, tmp_path, chunk=8)) == ask(HashModel())
    assert [len(call) for call in engine.asked] == [8, 6]


def test_a_process_killed_while_writing_leaves_a_usable_file(tmp_path: Path) -> None:
    body = """
        model = CachedModel(HashModel(), Path(sys.argv[1]))
        model.loglik(prompts[:10], [words] * 10)
        with model.file._file.connection() as connection:
            connection.execute("PRAGMA cache_size = 1")
            connection.execute("BEGIN IMMEDIATE")
            for i in range(3000):
                connection.execute("INSERT INTO answers VALUES (?, ?, ?)", (i.to_bytes(16), b"x" * 64, b"y"))
            print("open", flush=True)
            time.sleep(60)
    """
    child = script(body, tmp_path)
    assert child.stdout is not None
    assert child.stdout.readline() == "open\n"
    path = CachedModel(HashModel(), tmp_path).file.path
    assert path.with_name(path.name + "-journal").exists()
    child.send_signal(signal.SIGKILL)
    child.communicate()
    engine = Recording()
    assert ask(CachedModel(engine, tmp_path)) == ask(HashModel())
    assert sum(map(len, engine.asked)) == 20


def test_two_processes_write_at_once(tmp_path: Path) -> None:
    body = """
        start = int(sys.argv[2])
        asked = prompts[start:] + prompts[:start]
        found = CachedModel(HashModel(), Path(sys.argv[1]), chunk=1).loglik(asked, [words] * 30)
        print(json.dumps(sorted(map(list, found.values.tolist()))))
    """
    children = [script(body, tmp_path, start) for start in (0, 12)]
    expected = sorted(HashModel().loglik(PROMPTS, [WORDS] * 30).values.tolist())
    for child in children:
        out, err = child.communicate(timeout=120)
        assert child.returncode == 0, err
        assert json.loads(out) == expected
    assert ask(CachedModel(Recording(stop_at=0), tmp_path)) == ask(HashModel())


def test_the_first_answer_stands(tmp_path: Path) -> None:
    """Another process stores its answers while ours computes others, of an engine that rounds differently."""

    class Late(HashModel):
        def loglik(self, prompts: Sequence[Prompt], choices: Sequence[Sequence[str]]) -> Loglik:
            ask(CachedModel(HashModel(), tmp_path), prompts)
            found = super().loglik(prompts, choices)
            return Loglik(found.values + 1e-9, found.tokens, found.prompt_tokens, found.truncated)

    assert ask(CachedModel(Late(), tmp_path)) == ask(HashModel())
    assert ask(CachedModel(Late(), tmp_path)) == ask(HashModel())


def test_threads_share_a_folder(tmp_path: Path) -> None:
    results: list[Any] = []
    threads = [threading.Thread(target=lambda: results.append(ask(CachedModel(HashModel(), tmp_path)))) for _ in "abcd"]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert results == [ask(HashModel())] * 4


@pytest.mark.parametrize(
    "damage",
    [
        "answer = zeroblob(40)",
        "answer = substr(answer, 1, 20)",
        "answer = zeroblob(0)",
        "answer = 'text'",
        "checksum = zeroblob(8)",
        "checksum = 7",
        "answer = (SELECT answer FROM answers ORDER BY rowid DESC LIMIT 1)",
    ],
)
def test_damaged_rows_are_asked_again(tmp_path: Path, damage: str, caplog: pytest.LogCaptureFixture) -> None:
    model = CachedModel(HashModel(), tmp_path)
    ask(model)
    with sqlite3.connect(model.file.path) as connection:
        connection.execute(f"UPDATE answers SET {damage} WHERE rowid IN (2, 3, 5)")
    engine = Recording()
    with caplog.at_level(logging.WARNING, "icl_select"):
        assert ask(CachedModel(engine, tmp_path)) == ask(HashModel())
    assert "3 damaged answers" in caplog.text
    assert [len(call) for call in engine.asked] == [3]
    assert ask(CachedModel(Recording(stop_at=0), tmp_path)) == ask(HashModel())


def test_any_damage_gives_an_error_or_the_right_answers(tmp_path: Path) -> None:
    """Overwrite 40 random bytes, or cut the file, 40 times over; there is no third outcome."""
    model = CachedModel(HashModel(), tmp_path)
    expected = ask(model)
    sound = model.file.path.read_bytes()
    rng = np.random.default_rng(0)
    outcomes = {"error": 0, "right": 0}
    for trial in range(40):
        damaged = np.frombuffer(sound, dtype=np.uint8).copy()
        damaged[rng.integers(0 if trial % 2 else 4096, len(damaged), size=40)] = rng.integers(0, 256, size=40)
        model.file.path.write_bytes(damaged.tobytes()[: None if trial % 4 else int(rng.integers(1, len(sound)))])
        try:
            found = ask(CachedModel(HashModel(), tmp_path))
        except StoreError:
            outcomes["error"] += 1
        else:
            assert found == expected
            outcomes["right"] += 1
    assert min(outcomes.values()) > 0


def test_files_that_are_not_this_cache(tmp_path: Path) -> None:
    model = CachedModel(Recording(stop_at=0), tmp_path)
    model.file.path.write_bytes(b"half a download" * 100)
    with pytest.raises(
        StoreError, match=r"cache of answers .* is damaged.*the model will be asked again.*ICS_CACHE_DIR"
    ):
        ask(model)
    model.file.path.unlink()
    other = CachedModel(HashModel(1), tmp_path)
    ask(other)
    other.file.path.rename(model.file.path)
    with pytest.raises(StoreError, match="not the cache of this model"):
        ask(model)
    with sqlite3.connect(model.file.path) as connection:
        connection.execute("UPDATE meta SET value = 'icl-select/answers/0' WHERE name = 'format'")
        connection.execute("UPDATE meta SET value = ? WHERE name = 'model'", (model.fingerprint,))
    with pytest.raises(StoreError, match="format icl-select/answers/0"):
        ask(model)


def test_no_place_is_known_before_the_engine_is_asked(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way", encoding="utf-8")
    with pytest.raises(StoreError, match=r"has no place.*file.*Choose another folder"):
        ask(CachedModel(Recording(stop_at=0), tmp_path / "file"))


@pytest.fixture
def unprivileged() -> Iterator[Path]:
    """A folder of a user who is not root, and that user for the length of the test."""
    with tempfile.TemporaryDirectory() as folder:
        if os.geteuid() != 0:
            yield Path(folder)
            return
        os.chown(folder, 65534, 65534)
        os.seteuid(65534)
        try:
            yield Path(folder)
        finally:
            os.seteuid(0)


def test_a_read_only_folder_serves_what_it_has(unprivileged: Path) -> None:
    model = CachedModel(HashModel(), unprivileged)
    ask(model, PROMPTS[:10])
    model.file.path.chmod(0o400)
    unprivileged.chmod(0o500)
    try:
        engine = Recording(stop_at=0)
        assert ask(CachedModel(engine, unprivileged), PROMPTS[:10]) == ask(HashModel(), PROMPTS[:10])
        with pytest.raises(StoreError, match=r"cannot be written.*Choose another folder"):
            ask(CachedModel(engine, unprivileged))
    finally:
        unprivileged.chmod(0o700)


def test_a_full_disk_keeps_what_was_finished(tmp_path: Path) -> None:
    """A limit on the size of files stands in for a full disk: some chunks fit, then a write fails."""
    body = """
        resource.setrlimit(resource.RLIMIT_FSIZE, (24_000, 24_000))
        many = [prompt(f"{one.text}, {i}") for i in range(10) for one in prompts]
        try:
            CachedModel(HashModel(), Path(sys.argv[1]), chunk=20).loglik(many, [words] * 300)
        except StoreError as exc:
            print(exc)
    """
    out, err = script(body, tmp_path).communicate(timeout=120)
    assert "cache of answers" in out, err
    many = [prompt(f"{one.text}, {i}") for i in range(10) for one in PROMPTS]
    model = CachedModel(HashModel(), tmp_path)
    assert ask(model, many) == ask(HashModel(), many)
    assert 0 < model.counts.cached < 300
