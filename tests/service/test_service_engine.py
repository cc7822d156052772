"""The prompt engine: fair batches, back-pressure, faults that stay where they belong, and nothing that hangs."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from engine_cases import PATIENCE, FakeEncoder, Held, Stage, asked, on_one_database, outcomes, queries_of, until
from store_cases import count
from work_cases import Here

from icl_select.errors import DataError, EmbeddingError, ModelError, PromptError, TemplateError, UnknownNameError
from icl_select.prompt import WordTokenizer
from icl_select.service.encoders import Encoders
from icl_select.service.engine import Answer, batcher, options
from icl_select.service.errors import (
    BusyError,
    ConflictError,
    InvalidError,
    NotFoundError,
    TooLargeError,
    UnavailableError,
)
from icl_select.service.schemas import PromptOptions, TemplateIn
from icl_select.service.store.database import Database
from icl_select.service.store.tables import prompt_settings, prompts

pytestmark = on_one_database


@pytest.fixture
def held() -> Iterator[Held]:
    found = Held()
    yield found
    found.let_go()


def test_a_single_query_waits_one_batch_and_not_for_a_thousand(stage: Stage) -> None:
    fake = stage.fake()
    stage.pool()
    many = [f"many {number}" for number in range(1_000)]
    single = [f"single {number}" for number in range(10)]
    found = outcomes(stage, asked(stage, *many, k=1), *(asked(stage, query, k=1) for query in single))
    assert set(single) <= set(fake.batches[0])
    assert queries_of(found[0]) == many
    assert [queries_of(answers) for answers in found[1:]] == [[query] for query in single]
    assert all(len(batch) == 32 for batch in fake.batches[:-1])
    assert sorted(text for batch in fake.batches for text in batch) == sorted([*many, *single])


def test_requests_of_many_queries_take_turns(stage: Stage) -> None:
    fake = stage.fake()
    stage.pool()
    stage.renew(max_batch=6)
    requests = [[f"{letter}{number}" for number in range(20)] for letter in "abc"]
    outcomes(stage, *(asked(stage, *queries, k=1) for queries in requests))
    for batch in fake.batches[:10]:
        assert sorted(text[0] for text in batch) == ["a", "a", "b", "b", "c", "c"]


def test_who_comes_while_many_are_answered_is_in_the_next_batch(stage: Stage, held: Held) -> None:
    fake = stage.fake()
    stage.pool()
    fake.before = held

    async def scene() -> list[str]:
        many = stage.put(*(f"many {number}" for number in range(200)), k=1)
        stage.start()
        await asyncio.to_thread(held.reached.wait, PATIENCE)
        late = stage.put("late", k=1)
        held.let_go()
        found = queries_of(await late)
        await many
        return found

    assert asyncio.run(scene()) == ["late"]
    assert "late" in fake.batches[1]


def test_when_too_many_wait_others_are_told_when_to_come_again(stage: Stage) -> None:
    stage.pool()
    stage.renew(queue=8)

    async def scene() -> None:
        sent = [stage.put(f"q{number}") for number in range(8)]
        with pytest.raises(BusyError, match="8 queries wait already, and 8 may") as caught:
            stage.put("one too many")
        assert int(caught.value.headers["Retry-After"]) >= 1
        assert stage.counted("ics_prompt_queue_length") == 8
        stage.start()
        await asyncio.gather(*sent)
        assert stage.counted("ics_prompt_queue_length") == 0
        await stage.put("now")

    asyncio.run(scene())


def test_the_time_to_come_again_grows_with_what_waits(stage: Stage) -> None:
    stage.pool()
    stage.renew(queue=600)

    async def scene() -> None:
        for number in range(600):
            stage.put(f"q{number}")
        with pytest.raises(BusyError) as caught:
            stage.put("one too many")
        assert 5 <= int(caught.value.headers["Retry-After"]) <= 60

    asyncio.run(scene())


def test_a_large_request_is_let_in_when_nobody_waits_and_keeps_no_single_query_out(stage: Stage) -> None:
    stage.pool()
    stage.renew(queue=8)
    large = [f"many {number}" for number in range(100)]

    async def scene() -> None:
        first = stage.put(*large)
        with pytest.raises(BusyError):
            stage.put(*large)
        single = [stage.put(f"q{number}") for number in range(7)]  # each waits for one query of the large one
        with pytest.raises(BusyError):
            stage.put("one too many")
        stage.start()
        await asyncio.gather(first, *single)

    asyncio.run(scene())


def test_a_request_of_too_many_queries_is_refused(stage: Stage) -> None:
    async def scene() -> None:
        with pytest.raises(InvalidError, match="1001 queries exceed the 1000"):
            stage.put(*["x"] * 1001)

    asyncio.run(scene())


def test_queries_whose_client_went_away_are_dropped(stage: Stage) -> None:
    fake = stage.fake()
    stage.pool()

    async def scene() -> None:
        gone, stays = stage.put("gone"), stage.put("stays")
        gone.cancel()
        stage.start()
        await stays

    asyncio.run(scene())
    assert fake.batches == [["stays"]]
    assert count(stage.here.database, prompts) == 1


def test_a_client_that_goes_away_in_the_middle_leaves_the_rest_undone(stage: Stage, held: Held) -> None:
    fake = stage.fake()
    stage.pool()
    fake.before = held

    async def scene() -> None:
        many = stage.put(*(f"many {number}" for number in range(500)))
        stage.start()
        await asyncio.to_thread(held.reached.wait, PATIENCE)
        many.cancel()
        await asyncio.sleep(0)
        held.let_go()
        await stage.put("after")
        assert stage.counted("ics_prompt_queue_length") == 0

    asyncio.run(scene())
    assert [len(batch) for batch in fake.batches] == [32, 1]


def test_who_went_away_when_the_answer_comes_harms_nobody(stage: Stage, held: Held) -> None:
    fake = stage.fake()
    stage.pool()
    fake.before = held

    async def scene() -> None:
        gone, stays, failed, last = stage.put("gone"), stage.put("stays"), stage.put("gone", " "), stage.put("last")
        stage.start()
        await asyncio.to_thread(held.reached.wait, PATIENCE)
        gone.cancel()
        failed.cancel()
        await asyncio.sleep(0)
        held.let_go()
        await asyncio.wait_for(asyncio.gather(stays, last), PATIENCE)

    asyncio.run(scene())


def test_who_went_away_keeps_nobody_out(stage: Stage) -> None:
    stage.pool()
    stage.renew(queue=4)

    async def scene() -> None:
        for number in range(4):
            stage.put(f"gone {number}").cancel()
        stays = stage.put("a")
        stage.start()
        await stays

    asyncio.run(scene())


def test_an_encoder_that_fails_fails_its_own_requests(stage: Stage) -> None:
    broken = stage.fake("broken")
    stage.pool("bad", encoder="broken")
    stage.pool("good")

    def fail(texts: list[str]) -> None:
        raise RuntimeError("out of memory")

    broken.before = fail
    bad, good, worse = outcomes(
        stage, asked(stage, "x", pool="bad"), asked(stage, "x", pool="good"), asked(stage, "y", "z", pool="bad")
    )
    assert (type(bad), type(worse)) == (RuntimeError, RuntimeError)
    assert queries_of(good) == ["x"]
    broken.before = lambda texts: None
    assert queries_of(stage.ask("x", pool="bad")) == ["x"]


def test_a_text_that_an_encoder_fails_at_harms_no_other(stage: Stage) -> None:
    fake = stage.fake()
    stage.pool()

    def fail(texts: list[str]) -> None:
        if "poison" in texts:
            raise EmbeddingError("this text makes NaN")

    fake.before = fail
    first, bad, several, last = outcomes(
        stage, asked(stage, "a"), asked(stage, "poison"), asked(stage, "b", "poison"), asked(stage, "c")
    )
    assert str(bad) == "this text makes NaN"
    assert str(several) == "queries[1]: this text makes NaN"
    assert queries_of(first) + queries_of(last) == ["a", "c"]


def test_an_encoder_of_too_few_vectors_is_found_out(stage: Stage) -> None:
    class Short(FakeEncoder):
        def encode(self, texts: Any, *, progress: bool = False) -> Any:
            found = super().encode(texts)
            return type(found)(found.vectors[1:], found.truncated[1:])

    stage.pool("bad", encoder="short")
    stage.fakes["short"] = short = Short()
    stage.pool("good")
    # The pool was embedded by an encoder of this name that was right.
    short.fingerprint = stage.here.embedding("bad").encoder_fingerprint
    bad, good = outcomes(stage, asked(stage, "x", pool="bad"), asked(stage, "x", pool="good"))
    assert isinstance(bad, EmbeddingError)
    assert queries_of(good) == ["x"]


def test_nobody_waits_for_an_encoder_that_others_need(stage: Stage, held: Held) -> None:
    stage.cold = True
    slow = stage.fake("slow")
    stage.pool("slow", encoder="slow")
    stage.pool("fast")
    slow.before_load = held

    async def scene() -> None:
        waiting = [stage.put(f"q{number}", f"r{number}", pool="slow") for number in range(20)]
        assert queries_of(await stage.put("x", pool="fast")) == ["x"]
        await asyncio.to_thread(held.reached.wait, PATIENCE)
        assert queries_of(await stage.put("y", pool="fast")) == ["y"]
        assert not any(future.done() for future in waiting)
        held.let_go()
        assert [queries_of(await future) for future in waiting] == [
            [f"q{number}", f"r{number}"] for number in range(20)
        ]

    stage.ask("warm", pool="fast")
    asyncio.run(scene())
    assert slow.loads == 1


def test_nobody_waits_for_a_load_where_there_is_nothing_to_load(stage: Stage, held: Held) -> None:
    """Hashing needs no model: its first query must not stand behind somebody else's."""
    stage.cold = True
    from icl_select.embedding import load_encoder

    slow = stage.fake("slow")
    stage.pool("slow", encoder="slow")
    stage.fakes["hash(dim=64)"] = load_encoder("hash(dim=64)")
    stage.pool("hashed", encoder="hash(dim=64)")
    slow.before_load = held

    async def scene() -> None:
        waiting = stage.put("x", pool="slow")
        stage.start()
        await asyncio.to_thread(held.reached.wait, PATIENCE)
        assert queries_of(await asyncio.wait_for(stage.put("x", pool="hashed"), PATIENCE)) == ["x"]
        held.let_go()
        await waiting

    asyncio.run(scene())


def test_an_encoder_of_any_name_is_loaded(stage: Stage) -> None:
    stage.cold = True
    for name in ("owner/some-model@main", "/a/folder", "some-mpnet-base-v2", "minilm(batch_size=8)"):
        stage.fake(name)
        stage.pool(name.strip("/").replace("/", "-").partition("(")[0].partition("@")[0], encoder=name)
    for pool in ("owner-some-model", "a-folder", "some-mpnet-base-v2", "minilm"):
        assert queries_of(stage.ask("x", pool=pool)) == ["x"]


def test_who_waits_for_an_encoder_is_counted_apart(stage: Stage, held: Held) -> None:
    stage.cold = True
    slow = stage.fake("slow")
    stage.pool("slow", encoder="slow")
    stage.pool("fast")
    stage.renew(queue=4)
    slow.before_load = held
    stage.ask("warm", pool="fast")

    async def scene() -> None:
        waiting = stage.put(*(f"q{number}" for number in range(4)), pool="slow")
        await asyncio.to_thread(held.reached.wait, PATIENCE)
        for number in range(3):
            await asyncio.gather(*(stage.put(f"x{number}{place}", pool="fast") for place in range(4)))
        # Among those that wait for it there is a limit too, or they would fill the memory.
        with pytest.raises(BusyError):
            await stage.put("r", pool="slow")
        held.let_go()
        assert len(await waiting) == 4

    asyncio.run(scene())


def test_an_encoder_that_cannot_be_loaded_fails_who_asks_and_is_tried_again(stage: Stage) -> None:
    stage.cold = True
    slow = stage.fake("slow")
    stage.pool("slow", encoder="slow")

    def fail() -> None:
        raise ModelError("no such model")

    slow.before_load = fail
    first, second = outcomes(stage, asked(stage, "x", pool="slow"), asked(stage, "y", "z", pool="slow"))
    assert str(first) == str(second) == "no such model"
    slow.before_load = lambda: None
    assert queries_of(stage.ask("x", pool="slow")) == ["x"]


class AtOnce(Encoders):
    """As when a load ends before anything else happens."""

    def load_in_background(self, name: str, done: Callable[[Exception | None], None]) -> None:
        self.load(name)
        done(None)


def test_a_load_that_ends_at_once_answers_each_query_once(stage: Stage) -> None:
    """The request is in the line again while its first batch has hardly ended."""
    stage.cold = True
    stage.pool()
    stage.renew(AtOnce(lambda name: stage.fakes[name]), max_batch=8)
    queries = [f"q{number}" for number in range(30)]
    assert queries_of(stage.ask(*queries)) == queries
    assert count(stage.here.database, prompts) == 30


def test_a_pool_that_was_made_again_with_another_encoder_is_asked_from_the_beginning(stage: Stage, held: Held) -> None:
    """Half of a request was answered when its pool became another one, whose encoder must be loaded first."""
    stage.cold = True
    fake, other = stage.fake(), stage.fake("other")
    stage.pool()
    stage.pool("next", encoder="other")
    stage.renew(max_batch=8)
    fake.before = held

    async def scene() -> list[Answer]:
        future = stage.put(*(f"q{number}" for number in range(20)))
        stage.start()
        await asyncio.to_thread(held.reached.wait, PATIENCE)
        rename(stage, "p", "before")
        rename(stage, "next", "p")
        held.let_go()
        return await future

    found = asyncio.run(scene())
    assert queries_of(found) == [f"q{number}" for number in range(20)]
    assert {answer.document["versions"]["encoder"].partition("@")[2] for answer in found} == {other.fingerprint}


def rename(stage: Stage, before: str, after: str) -> None:
    from icl_select.service.store.tables import pools

    with stage.here.database.write() as connection:
        connection.execute(pools.update().where(pools.c.name == before).values(name=after))


def test_nobody_waits_for_a_tokenizer_that_others_need(
    stage: Stage, held: Held, monkeypatch: pytest.MonkeyPatch
) -> None:
    stage.cold = True

    def load(source: str) -> Any:
        if source in ("utf8", "chars", "words"):
            return WordTokenizer()
        held()
        if source == "/secret/broken":
            raise ModelError("/secret/broken holds no tokenizer")
        return WordTokenizer()

    monkeypatch.setattr(options, "load_tokenizer", load)
    stage.pool()
    stage.renew(tokenizers={"large": "/secret/folder", "broken": "/secret/broken"})

    async def scene() -> None:
        waiting = stage.put("some words", tokenizer="large"), stage.put("x", tokenizer="broken")
        stage.start()
        await asyncio.to_thread(held.reached.wait, PATIENCE)
        await stage.put("x")
        held.let_go()
        found, broken = await asyncio.gather(*waiting, return_exceptions=True)
        assert isinstance(found, list)
        assert found[0].document["versions"]["tokenizer"] == "large"
        assert isinstance(broken, ModelError)
        assert "/secret" not in str(broken)

    asyncio.run(scene())
    with pytest.raises(UnknownNameError, match="not offered here"):
        stage.ask("x", tokenizer="/secret/folder")


def test_stopping_refuses_what_waits(stage: Stage) -> None:
    stage.pool()

    async def scene() -> list[Any]:
        waiting = [stage.put("a"), stage.put("b", "c")]
        stage.engine.stop()
        with pytest.raises(UnavailableError, match="being stopped"):
            stage.put("too late")
        return await asyncio.wait_for(asyncio.gather(*waiting, return_exceptions=True), PATIENCE)

    assert [type(found) for found in asyncio.run(scene())] == [UnavailableError, UnavailableError]


def test_stopping_answers_what_is_in_hand(stage: Stage, held: Held) -> None:
    fake = stage.fake()
    stage.pool()
    stage.renew(max_batch=1)
    fake.before = held

    async def scene() -> list[Any]:
        stage.start()
        in_hand = stage.put("in hand")
        await asyncio.to_thread(held.reached.wait, PATIENCE)
        waiting = stage.put("waits")
        stopping = asyncio.create_task(asyncio.to_thread(stage.engine.stop))
        with pytest.raises(UnavailableError):
            await waiting
        held.let_go()
        await stopping
        return queries_of(await in_hand)

    assert asyncio.run(scene()) == ["in hand"]


def test_stopping_refuses_who_waits_for_an_encoder(stage: Stage, held: Held) -> None:
    stage.cold = True
    slow = stage.fake("slow")
    stage.pool("slow", encoder="slow")
    slow.before_load = held

    async def scene() -> None:
        waiting = stage.put("x", pool="slow")
        stage.start()
        await asyncio.to_thread(held.reached.wait, PATIENCE)
        await asyncio.to_thread(stage.engine.stop)
        with pytest.raises(UnavailableError):
            await asyncio.wait_for(waiting, PATIENCE)

    asyncio.run(scene())


def test_a_loop_that_ended_without_waiting_harms_nobody(stage: Stage) -> None:
    stage.pool()

    async def impatient() -> None:
        stage.put("nobody waits")
        stage.put("nobody waits", " ")

    asyncio.run(impatient())
    assert queries_of(stage.ask("x")) == ["x"]


@pytest.mark.parametrize(
    ("queries", "kind", "words"),
    [
        (("good", " ", "fine"), DataError, "queries[1]: the query is empty"),
        ((" ",), DataError, "the query is empty"),
        (("good", "\ud800"), DataError, "queries[1]: the query"),
        (("good", {"body": "x"}), DataError, "queries[1]: the query, item 0: no field 'text'"),
        ((7 * "w", 50 * "w"), PromptError, "queries[1]: query"),
        (({"text": "x", "n": float("nan")},), DataError, "the query holds NaN"),
        (({"text": "x", "n": float("inf")}, "y"), DataError, "queries[0]: the query holds NaN or an infinite"),
    ],
)
def test_what_is_wrong_with_one_query_ends_its_request_and_no_other(
    stage: Stage, queries: tuple[Any, ...], kind: type[Exception], words: str
) -> None:
    stage.pool()
    before, bad, after = outcomes(
        stage, asked(stage, "a", max_tokens=30), asked(stage, *queries, max_tokens=30), asked(stage, "b", max_tokens=30)
    )
    assert type(bad) is kind
    assert str(bad).startswith(words)
    assert queries_of(before) + queries_of(after) == ["a", "b"]


def test_a_nested_query_is_refused_by_name(stage: Stage) -> None:
    stage.pool()
    deep: Any = []
    for _ in range(5_000):
        deep = [deep]
    with pytest.raises(DataError, match="nested too deeply"):
        stage.ask({"text": "x", "n": deep})
    assert queries_of(stage.ask("x")) == ["x"]


def test_each_pool_says_itself_why_it_cannot_be_asked(stage: Stage) -> None:
    from store_cases import make_pool

    stage.pool()
    stage.pool("bare", labelled=0)
    make_pool(stage.here.database, name="empty", encoder="fake", prompt={}, text=None)
    found = outcomes(
        stage,
        *(asked(stage, "x", pool=pool) for pool in ("p", "bare", "nobody", "empty", "bare")),
        asked(stage, "x", "y", pool="nobody"),
        asked(stage, "x", template=TemplateIn(query="{{ nothing }}")),
        asked(stage, "x", k=100_000),
    )
    kinds = [ConflictError, NotFoundError, ConflictError, ConflictError, NotFoundError, TemplateError, InvalidError]
    assert [type(one) for one in found[1:]] == kinds
    assert queries_of(found[0]) == ["x"]


class Faulty(Database):
    """A database that fails when it is told to."""

    fails = 0

    @contextlib.contextmanager
    def write(self, *, durable: bool = True) -> Iterator[Any]:
        if self.fails:
            self.fails -= 1
            raise UnavailableError("the disk is gone")
        with super().write(durable=durable) as connection:
            yield connection


@pytest.fixture
def faulty(here: Here, database_url: str) -> Iterator[Faulty]:
    made = Faulty(database_url)
    here.database = made
    yield made
    made.close()


def test_what_could_not_be_kept_is_not_answered(faulty: Faulty, stage: Stage) -> None:
    stage.pool()
    known = stage.one("known")
    faulty.fails = 1
    lost, kept, several = outcomes(stage, asked(stage, "new"), asked(stage, "known"), asked(stage, "known", "new"))
    assert str(lost) == str(several) == "the disk is gone"
    assert kept == [known]  # what was kept before can be answered
    assert count(faulty, prompts) == 1
    # It ends there: nothing of it is taken for kept.
    assert queries_of(stage.ask("new")) == ["new"]
    assert count(faulty, prompts) == 2


def test_settings_that_could_not_be_kept_are_kept_with_the_next_prompt(faulty: Faulty, stage: Stage) -> None:
    stage.pool()
    faulty.fails = 1
    with pytest.raises(UnavailableError):
        stage.ask("x", k=2)
    stage.ask("x", k=2)
    assert count(faulty, prompt_settings) == 1


def test_a_database_that_is_out_of_reach_ends_one_batch(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    stage.pool()
    stage.cold = True

    class GoneError(Exception):
        pass

    def read() -> Any:
        raise GoneError

    with monkeypatch.context() as patch:
        patch.setattr(stage.here.database, "read", read)
        found = outcomes(stage, asked(stage, "a"), asked(stage, "b", "c"))
    assert [type(one) for one in found] == [GoneError, GoneError]
    assert queries_of(stage.ask("a")) == ["a"]


@pytest.mark.parametrize("options", [{}, {"max_tokens": 10**9}, {"max_tokens": 10**9, "rule": "published"}])
def test_a_prompt_that_would_fill_the_memory_is_refused(stage: Stage, options: dict[str, Any]) -> None:
    stage.pool(texts=40, labelled=40)
    many = TemplateIn(demonstration="{{ text }}{% for a in text %}" + "w" * 12_000 + "{% endfor %}")
    with pytest.raises(PromptError, match="more than 4,000,000 characters"):
        stage.ask("x", template=many, k=40, **options)
    wide = TemplateIn(separator="-" * 30_000)
    assert len(stage.one("x", template=wide, k=40, **options).body) > 1_000_000
    long_query = TemplateIn(query="{% for a in text %}" + "w" * 9_000 + "{% endfor %}")
    with pytest.raises(TemplateError, match="steps"):
        stage.ask("x" * 1_000, template=long_query, **options)


def test_prompts_that_are_too_much_for_one_answer_are_refused(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    stage.pool()
    monkeypatch.setattr(batcher, "_MOST_BYTES", 10_000)
    found = outcomes(stage, asked(stage, *(f"q{number}" for number in range(100))), asked(stage, "x"))
    assert isinstance(found[0], TooLargeError)
    assert queries_of(found[1]) == ["x"]


def test_warming_up_loads_what_pools_and_requests_may_need(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    loaded: list[str] = []
    stage.fake("first").before_load = lambda: loaded.append("first")
    broken, unused = stage.fake("broken"), stage.fake("unused")
    for name in ("first", "broken"):
        stage.pool(name, encoder=name)

    def fail() -> None:
        raise ModelError("no such model")

    broken.before_load = fail

    def load(source: str) -> Any:
        loaded.append(source)
        return WordTokenizer()

    monkeypatch.setattr(options, "load_tokenizer", load)
    stage.renew(tokenizers={"t": "folder"})
    loaded.clear()
    stage.engine.warm_up()  # what fails keeps nothing else from being loaded
    assert loaded == ["first", "folder"]
    assert unused.loads == 0
    assert queries_of(stage.ask("x", pool="first", tokenizer="t")) == ["x"]
    assert loaded == ["first", "folder"]


@pytest.fixture
def shared(stage: Stage) -> FakeEncoder:
    """An encoder that several threads may call at once."""
    fake = stage.fake()
    fake.concurrent = True  # type: ignore[attr-defined]
    stage.pool()
    return fake


def test_an_encoder_for_several_threads_gets_one_text_a_call_in_each_of_them(stage: Stage, shared: FakeEncoder) -> None:
    stage.renew(encode_threads=3)
    together = threading.Barrier(3)
    shared.before = lambda texts: (together.wait(PATIENCE), None)[1]
    queries = [f"q{number}" for number in range(9)]
    found = outcomes(stage, *(asked(stage, query, k=1) for query in queries))
    assert [queries_of(answers) for answers in found] == [[query] for query in queries]
    assert sorted(shared.batches) == [[query] for query in queries]


def test_other_encoders_are_called_by_one_thread_at_a_time(stage: Stage, held: Held) -> None:
    first, second = stage.fake("first"), stage.fake("second")
    stage.pool("p", encoder="first")
    stage.pool("o", encoder="second")
    stage.renew(encode_threads=3)
    first.before = held

    async def scene() -> list[str]:
        stage.start()
        early = stage.put("early", k=1)
        await asyncio.to_thread(held.reached.wait, PATIENCE)
        late = [stage.put(f"late {number}", k=1) for number in range(3)]
        other = queries_of(await stage.put("other", pool="o", k=1))  # goes on meanwhile
        assert first.batches == [["early"]]
        held.let_go()
        return other + [text for found in [await early, *[await one for one in late]] for text in queries_of(found)]

    assert asyncio.run(scene()) == ["other", "early", "late 0", "late 1", "late 2"]
    assert first.batches == [["early"], ["late 0", "late 1", "late 2"]]
    assert second.batches == [["other"]]


def test_a_text_that_is_being_encoded_is_not_encoded_again(stage: Stage, held: Held) -> None:
    fake = stage.fake()
    stage.pool()
    stage.renew(encode_threads=3, cache_prompts=0)
    fake.before = held

    async def scene() -> list[Answer]:
        stage.start()
        first = stage.put("same", k=1)
        await asyncio.to_thread(held.reached.wait, PATIENCE)
        second = stage.put("same", k=2)
        until(lambda: not stage.engine._batcher.waiting, "the second to be taken")
        held.let_go()
        return [*await first, *await second]

    assert len(asyncio.run(scene())) == 2
    assert fake.batches == [["same"]]


def test_what_is_encoded_when_the_service_stops_is_answered(stage: Stage, held: Held) -> None:
    fake = stage.fake()
    stage.pool()
    fake.before = held

    async def scene() -> list[Answer]:
        stage.start()
        sent = stage.put("last", k=1)
        await asyncio.to_thread(held.reached.wait, PATIENCE)
        stopped = threading.Thread(target=stage.engine.stop)
        stopped.start()
        until(lambda: stage.engine._batcher._closed, "the engine to be told to stop")
        held.let_go()
        found = await sent
        stopped.join(PATIENCE)
        return found

    assert queries_of(asyncio.run(scene())) == ["last"]


def test_an_answer_that_comes_after_its_request_began_again_is_not_counted_twice(stage: Stage) -> None:
    loop = asyncio.new_event_loop()
    request = batcher.Request("p", ["a", "b"], PromptOptions(), loop, loop.create_future())
    line = batcher.Batcher(10)
    line.put(request)
    (early,) = line.take(1) or []
    line.park(request)
    line.unpark(request)
    early.answer = Answer("early", b"{}")
    batcher.deliver([early])
    batcher.blame(early, DataError("too late"))
    batcher.give_up(early, DataError("too late"))
    both = line.take(5) or []
    assert early.gone
    assert [query.place for query in both] == [0, 1]
    for query in both:
        query.answer = Answer(f"again {query.place}", b"{}")
        batcher.deliver([query])
    loop.call_soon(loop.stop)
    loop.run_forever()
    assert [answer.id for answer in request.future.result()] == ["again 0", "again 1"]
    loop.close()
