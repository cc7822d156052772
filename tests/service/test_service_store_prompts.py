"""Prompts, selections, reports and answers that are given again: what was written is read back as it was, once."""

from __future__ import annotations

import pytest
import sqlalchemy as sa
from store_cases import at_once, count, database, make_pool, say, until, waits_for_lock

from icl_select.service.errors import ConflictError, InvalidError, NotFoundError
from icl_select.service.store import labels, pools, prompts, replay, reports, selections
from icl_select.service.store.database import Database, dumps, later
from icl_select.service.store.prompts import Found, PromptRecord
from icl_select.service.store.replay import Attempt, Kept
from icl_select.service.store.tables import idempotency, label_events, prompt_settings, selection_picks
from icl_select.service.store.tables import prompts as prompts_table

__all__ = ["database"]

ATTEMPT = Attempt("key", "Idempotency!", "hash of the request")
ANSWER = Kept(201, {"Location": "/v1/x"}, {"name": "ä\0\u2028", "n": [1, 0.1, None]})


def keep(database: Database, *names: str, settings: str = "settings") -> None:
    with database.write(durable=False) as connection:
        prompts.keep_settings(connection, settings, {"template": "{{ text }}\0"})
        made_from = {name: dumps({"query": f"ä\0 {name}"}) for name in names}
        records = [PromptRecord(name, 1, settings, made_from[name], f"hash of {name}") for name in names]
        prompts.keep(connection, records)


def test_a_prompt_is_read_back_with_its_settings(database: Database) -> None:
    keep(database, "a", "b")
    with database.read() as connection:
        found = prompts.find(connection, "b")
        assert found == Found("b", 1, {"template": "{{ text }}\0"}, {"query": "ä\0 b"}, "hash of b")
        with pytest.raises(NotFoundError, match="there is no prompt 'c'"):
            prompts.find(connection, "c")


def test_a_prompt_is_kept_once(database: Database) -> None:
    keep(database, "a", "b", "a")
    keep(database, "b", "c")
    with database.write() as connection:
        prompts.keep(connection, [])
    assert (count(database, prompts_table), count(database, prompt_settings)) == (3, 1)


def test_batches_that_share_prompts_do_not_wait_for_each_other(database: Database) -> None:
    """They are written in one order; otherwise each could wait for what the other has written."""
    written: list[list[str]] = []

    def note(_connection: object, clause: object, many: list[dict[str, str]], *_: object) -> None:
        if isinstance(clause, sa.Insert) and clause.table is prompts_table:
            written.append([row["id"] for row in many])

    sa.event.listen(database.engine, "before_execute", note)
    keep(database, "b", "c", "a")
    assert written == [["a", "b", "c"]]
    names = [f"prompt {number:03}" for number in range(300)]
    at_once([lambda some=some: keep(database, *some) for some in (names, names[::-1], names[150:] + names[:150])])
    assert count(database, prompts_table) == 303


def test_a_selection_is_filled_by_its_job_once_or_again(database: Database) -> None:
    pool = make_pool(database, 5)
    with database.write() as connection:
        made = selections.create(connection, pool, "s", "job", "max_herding", 3, 2**63 - 1)
        assert made == selections.find(connection, pool, "s")
        assert (made.seed, made.result, selections.picks(connection, "s", -1, 9, 9)) == (2**63 - 1, None, [])
    for _ in range(2):
        with database.write() as connection:
            selections.fill(connection, "s", [4, 0, 2], [0.1, 1e-300, -0.0], {"nested": True})
    say(database, 0, "x")
    say(database, 3, "x")
    with database.read() as connection:
        assert selections.find(connection, pool, "s").result == {"nested": True}
        assert selections.picks(connection, "s", -1, 9, 9) == [(0, 4, 0.1), (1, 0, 1e-300), (2, 2, -0.0)]
        assert [rank for rank, _, _ in selections.picks(connection, "s", 0, 9, 1)] == [1]
        assert [rank for rank, _, _ in selections.picks(connection, "s", -1, 2, 9)] == [0, 1]
        assert selections.labelled(connection, pool, "s") == 1
        with pytest.raises(NotFoundError, match="the pool 'p' has no selection 't'"):
            selections.find(connection, pool, "t")
    assert count(database, selection_picks) == 3


def test_selections_of_a_pool_are_its_own_newest_first(database: Database) -> None:
    pool, other = make_pool(database), make_pool(database, name="other")
    for name, of in (("c", pool), ("a", pool), ("b", other)):
        with database.write() as connection:
            selections.create(connection, of, name, "job", "random", 1, 0)
    with database.read() as connection:
        assert [found.id for found in selections.listing(connection, pool, 9)] == ["a", "c"]
        assert [found.id for found in selections.listing(connection, pool, 1)] == ["a"]
        with pytest.raises(NotFoundError):
            selections.find(connection, pool, "b")


def test_a_report_replaces_the_one_before(database: Database) -> None:
    pool, other = make_pool(database), make_pool(database, name="other")
    for number in range(2):
        with database.write() as connection:
            reports.keep(connection, pool, "density", f"job {number}", {"pool": number}, {"png": "ä\0"})
    with database.read() as connection:
        found = reports.find(connection, pool, "density")
        assert found is not None
        assert (found.job_id, found.made_from, found.content) == ("job 1", {"pool": 1}, {"png": "ä\0"})
        assert reports.find(connection, pool, "evaluation") is None
        assert reports.find(connection, other, "density") is None


def answer(database: Database, attempt: Attempt | None = ATTEMPT, label: str = "x") -> Kept:
    """As a route does it: answer again, or do the work and keep the answer."""
    with database.write() as connection:
        if (before := replay.recall(connection, attempt)) is not None:
            return before
        word = labels.Word(0, "ann", "label", label, False, None)
        labels.write(connection, pools.lock(connection, "p"), [word])
        replay.keep(connection, attempt, ANSWER)
        return ANSWER


def test_a_request_is_answered_again_as_it_was(database: Database) -> None:
    make_pool(database, 1)
    assert answer(database, label="x") == ANSWER
    assert answer(database, label="y") == ANSWER
    assert count(database, label_events) == 1
    for other in (Attempt("other key", ATTEMPT.key, "other"), Attempt(ATTEMPT.principal, "another!", "other"), None):
        assert answer(database, other, f"{other}") == ANSWER
    assert (count(database, label_events), count(database, idempotency)) == (4, 3)


def test_a_key_that_comes_with_another_request_is_refused(database: Database) -> None:
    make_pool(database, 1)
    answer(database)
    with pytest.raises(InvalidError, match="the Idempotency-Key 'Idempotency!' came with another request before"):
        answer(database, Attempt(ATTEMPT.principal, ATTEMPT.key, "other"))
    assert count(database, label_events) == 1


def test_work_that_fails_keeps_no_answer_and_an_answer_that_fails_keeps_no_work(database: Database) -> None:
    make_pool(database, 1)

    def fail(after: str) -> None:
        with database.write() as connection:
            assert replay.recall(connection, ATTEMPT) is None
            pool = pools.lock(connection, "p")
            pools.configure(connection, pool, {"annotators": 7})
            replay.keep(connection, ATTEMPT, ANSWER if after == "all" else Kept(200, {}, float("nan")))
            raise ZeroDivisionError

    for after, error in (("all", ZeroDivisionError), ("work", ValueError)):
        with pytest.raises(error):
            fail(after)
        assert count(database, idempotency) == 0
        with database.read() as connection:
            assert pools.find(connection, "p").config["annotators"] == 1


def test_of_two_that_come_at_once_one_does_the_work(database: Database) -> None:
    make_pool(database, 1)

    def work() -> str:
        try:
            with database.write() as connection:
                if replay.recall(connection, ATTEMPT) is not None:
                    return "answered again"
                pools.create(connection, f"made {pools.lock(connection, 'p').uid}", {})
                replay.keep(connection, ATTEMPT, ANSWER)
                return "done"
        except ConflictError:
            return "told to wait"

    found = sorted(at_once([work] * 4))
    assert found.count("done") == 1
    with database.read() as connection:
        assert len(pools.listing(connection, None, 9)) == 2
    assert work() == "answered again"


def test_who_comes_while_the_answer_is_being_kept_is_told_to_come_again_or_waits(database: Database) -> None:
    """In SQLite the second waits; in PostgreSQL it does its work, which is taken back when the first is found done."""
    pool = make_pool(database, 1)

    def second() -> str:
        with database.write() as connection:
            if replay.recall(connection, ATTEMPT) is not None:
                return "answered again"
            pools.create(connection, "twice", {})
            replay.keep(connection, ATTEMPT, ANSWER)
            return "done twice"

    with database.write() as connection:
        assert replay.recall(connection, ATTEMPT) is None
        replay.keep(connection, ATTEMPT, ANSWER)

        def commit() -> None:
            until(lambda: waits_for_lock(database))
            connection.commit()

        if database.is_sqlite:
            assert at_once([second, commit])[0] == "answered again"
        else:
            with pytest.raises(ConflictError, match="is being answered") as failure:
                at_once([second, commit])
            assert failure.value.headers == {"Retry-After": "1"}
    with database.read() as connection:
        assert pools.listing(connection, None, 9) == [pools.by_uid(connection, pool.uid)]


def test_an_answer_is_kept_for_a_day(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    make_pool(database, 1)
    monkeypatch.setattr(replay, "_FORGOTTEN", 2)
    for number in range(5):
        answer(database, Attempt("key", f"{number}", "request"), f"{number}")
    with database.write() as connection:
        age = idempotency.update().where(idempotency.c.key != "4")
        connection.execute(age.values(created_at=later(-replay.KEPT_SECONDS - 1)))
    for left in (3, 1, 1):  # some at a time
        with database.write() as connection:
            assert replay.recall(connection, Attempt("key", "4", "request")) == ANSWER
        assert count(database, idempotency) == left
    answer(database, Attempt("key", "0", "another request"), "again")  # a key may be used again after that


def test_old_answers_are_removed_without_waiting_for_who_removes_them_too(database: Database) -> None:
    if database.is_sqlite:
        pytest.skip("SQLite has one writer at a time")
    make_pool(database, 1)
    answer(database, Attempt("key", "old", "request"))
    with database.write() as connection:
        connection.execute(idempotency.update().values(created_at=later(-replay.KEPT_SECONDS - 1)))
    impatient = Database(database.url.render_as_string(hide_password=False), timeout=0.5)
    with database.write() as connection:
        assert replay.recall(connection, ATTEMPT) is None
        with impatient.write() as other:
            assert replay.recall(other, ATTEMPT) is None
    impatient.close()
    assert count(database, idempotency) == 0
