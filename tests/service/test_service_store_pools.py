"""Pools: names, versions, and what is left of one that was deleted."""

from __future__ import annotations

import pytest
import sqlalchemy as sa
from store_cases import (
    CONFIG,
    at_once,
    count,
    database,
    make_pool,
    row,
    say,
    until,
    upload,
    waits_for_lock,
)

from icl_select.service.errors import ConflictError, InvalidError, NotFoundError
from icl_select.service.store import jobs, leases, pools, prompts, reports, selections
from icl_select.service.store.database import Database
from icl_select.service.store.jobs import JobRecord
from icl_select.service.store.pools import PoolRecord
from icl_select.service.store.prompts import PromptRecord
from icl_select.service.store.tables import metadata, selection_picks

__all__ = ["database"]


def find(database: Database, name: str = "p") -> PoolRecord:
    with database.read() as connection:
        return pools.find(connection, name)


def test_a_new_pool_is_empty_and_keeps_its_configuration(database: Database) -> None:
    config = {**CONFIG, "label_words": ["ä\0", "b"], "prompt": {"k": 3}}
    with database.write() as connection:
        made = pools.create(connection, "p", config)
    assert made == find(database)
    assert made.config == config
    assert (made.n_items, made.version, made.labels_version, made.n_labelled) == (0, 0, 0, 0)
    assert (made.embedding_id, made.upload, made.upload_until) == (None, None, None)


def test_a_name_is_given_once(database: Database) -> None:
    first = make_pool(database, 2)
    with pytest.raises(ConflictError, match="a pool named 'p' exists already"), database.write() as connection:
        pools.create(connection, "p", CONFIG)
    assert find(database).uid == first.uid
    make_pool(database, name="P")  # another name


def test_of_those_who_make_one_pool_at_once_one_does(database: Database) -> None:
    def make() -> bool:
        try:
            with database.write() as connection:
                pools.create(connection, "p", CONFIG)
        except ConflictError:
            return False
        return True

    assert sorted(at_once([make] * 4)) == [False, False, False, True]


def test_an_unknown_name_says_what_there_is(database: Database) -> None:
    with pytest.raises(NotFoundError, match="There is none yet"):
        find(database, "tickets")
    make_pool(database, name="tickets")
    for look in (pools.find, pools.lock):
        with pytest.raises(NotFoundError, match=r"there is no pool 'tickest'.*tickets"), database.write() as connection:
            look(connection, "tickest")


def test_a_list_goes_by_the_bytes_of_the_name_in_both_databases(database: Database) -> None:
    names = ["B", "Z", "_", "a", "a-b", "a.b", "a_b", "ab", "b", "é"]
    for name in reversed(names):
        make_pool(database, name=name)
    with database.read() as connection:
        assert [pool.name for pool in pools.listing(connection, None, 100)] == names
        seen: list[str] = []
        while found := pools.listing(connection, seen[-1] if seen else None, 3):
            seen += [pool.name for pool in found]
    assert seen == names


def test_a_change_of_configuration_leaves_the_rest(database: Database) -> None:
    make_pool(database, 1)
    with database.write() as connection:
        changed = pools.configure(connection, pools.lock(connection, "p"), {"annotators": 3})
    assert changed == find(database)
    assert changed.config == {**CONFIG, "annotators": 3}
    assert (changed.version, changed.n_items) == (1, 1)


def test_changes_at_once_are_all_kept(database: Database) -> None:
    make_pool(database)

    def change(number: int) -> None:
        with database.write() as connection:
            pools.configure(connection, pools.lock(connection, "p"), {f"key{number}": number})

    at_once([lambda number=number: change(number) for number in range(6)])
    assert find(database).config == {**CONFIG, **{f"key{number}": number for number in range(6)}}


def fill(database: Database, name: str) -> JobRecord:
    """Something in every table that belongs to a pool; the job that is returned waits."""
    pool = make_pool(database, 4, name, annotators=2)
    upload(database, name, [[row("labelled", "x")]])
    say(database, 0, "x", pool=name)
    with database.write() as connection:
        pool = pools.lock(connection, name)
        selections.create(connection, pool, f"s-{name}", "job", "random", 4, 0)
        selections.fill(connection, f"s-{name}", [3, 2, 1, 0], [0.0] * 4, {})
        leases.take(connection, pool, f"s-{name}", "ann", 1, 600)
        prompts.keep_settings(connection, "settings", {})
        prompts.keep(connection, [PromptRecord(f"prompt-{name}", pool.uid, "settings", "{}", "hash")])
        reports.keep(connection, pool, "density", "job", {}, {})
        pools.update(connection, pool, upload="token", upload_until="9")
        return jobs.enqueue(connection, pool, "embed", {})


def of_pool(database: Database, uid: int) -> dict[str, int]:
    found = {
        table.name: count(database, table, table.c.pool_uid == uid)
        for table in metadata.sorted_tables
        if "pool_uid" in table.c
    }
    return {name: rows for name, rows in found.items() if rows}


def test_a_deleted_pool_leaves_nothing_but_its_jobs(database: Database) -> None:
    waiting = fill(database, "p")
    other = fill(database, "other")
    uid, before = waiting.pool_uid, of_pool(database, other.pool_uid)
    assert before == of_pool(database, uid)
    tables = "items jobs label_events label_history labels leases prompts reports selections votes"
    assert sorted(before) == tables.split()
    with database.write() as connection:
        running = jobs.claim(connection, "owner")
        assert running is not None
        assert running.id == waiting.id
        second = jobs.enqueue(connection, pools.find(connection, "p"), "select", {})
        done = jobs.enqueue(connection, pools.find(connection, "p"), "select", {})
        jobs.cancel(connection, done.id)
    with database.write() as connection:
        assert pools.delete(connection, "p").uid == uid
    assert of_pool(database, uid) == {"jobs": 3}
    assert of_pool(database, other.pool_uid) == before
    assert count(database, selection_picks) == count(
        database, selection_picks, selection_picks.c.selection_id == "s-other"
    )
    with database.read() as connection:
        assert (jobs.find(connection, running.id).state, jobs.find(connection, running.id).cancel) == ("running", True)
        stopped = jobs.find(connection, second.id)
        assert (stopped.state, stopped.message) == ("cancelled", "the pool was deleted")
        assert stopped.finished_at is not None
        assert jobs.find(connection, done.id).message == "cancelled before it began"
        assert jobs.find(connection, other.id).state == "queued"
        with pytest.raises(NotFoundError):
            pools.by_uid(connection, uid)


def test_a_pool_made_again_under_its_name_is_another_one(database: Database) -> None:
    first = make_pool(database, 3)
    with database.write() as connection:
        pools.delete(connection, "p")
    second = make_pool(database, 1)
    assert second.uid > first.uid
    with database.write() as connection:
        for look in (pools.by_uid, pools.lock_uid):
            with pytest.raises(NotFoundError, match="the pool was deleted meanwhile"):
                look(connection, first.uid)
            assert look(connection, second.uid).name == "p"


def test_a_job_that_is_claimed_while_its_pool_is_deleted_is_told_to_stop(database: Database) -> None:
    waiting = fill(database, "p")

    def delete() -> None:
        with database.write() as connection:
            pools.delete(connection, "p")

    with database.write() as connection:
        assert jobs.claim(connection, "owner") is not None

        def claim() -> None:
            until(lambda: waits_for_lock(database))
            connection.commit()

        at_once([delete, claim])
    with database.read() as connection:
        found = jobs.find(connection, waiting.id)
        assert (found.state, found.cancel) == ("running", True)


@pytest.mark.parametrize("name", ["a\0b", "\ud800"])
def test_a_name_that_is_no_text_is_refused(database: Database, name: str) -> None:
    with pytest.raises(InvalidError):
        find(database, name)
    with pytest.raises(InvalidError):
        make_pool(database, name=name)
    assert count(database, metadata.tables["pools"], sa.true()) == 0
