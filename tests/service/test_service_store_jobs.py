"""Jobs: each is done by one owner at a time, ends once, and never hangs."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import pytest
from sqlalchemy.engine import Connection
from store_cases import at_once, count, database, make_pool, until, waits_for_lock

from icl_select.service.errors import NotFoundError
from icl_select.service.store import jobs, pools
from icl_select.service.store.database import Database, later
from icl_select.service.store.jobs import ATTEMPTS, FINAL, JobRecord
from icl_select.service.store.tables import jobs as jobs_table

__all__ = ["database"]


def enqueue(database: Database, pool: str = "p", kind: str = "embed", params: Mapping[str, Any] | None = None) -> str:
    with database.write() as connection:
        return jobs.enqueue(connection, pools.find(connection, pool), kind, params or {}).id


def do(database: Database, what: Callable[..., Any], *given: Any, **named: Any) -> Any:
    """One call, one transaction."""
    with database.write() as connection:
        return what(connection, *given, **named)


def find(database: Database, job_id: str) -> JobRecord:
    with database.read() as connection:
        return jobs.find(connection, job_id)


def claim(database: Database, owner: str = "owner") -> str | None:
    found = do(database, jobs.claim, owner)
    return None if found is None else str(found.id)


def stop_beating(database: Database) -> None:
    with database.write() as connection:
        connection.execute(jobs_table.update().values(beat_at=later(-jobs.LEASE_SECONDS - 1)))


def test_a_job_waits_runs_and_is_done(database: Database) -> None:
    pool = make_pool(database)
    params = {"ä\0": [1, None]}
    with database.write() as connection:
        made = jobs.enqueue(connection, pool, "select", params, job_id="job_mine")
    assert (made.id, made.pool_uid, made.pool_name, made.kind, made.params) == (
        "job_mine",
        pool.uid,
        "p",
        "select",
        params,
    )
    assert (made.state, made.cancel, made.attempts, made.owner, made.done, made.total) == (
        "queued",
        False,
        0,
        None,
        0,
        None,
    )
    taken = do(database, jobs.claim, "owner")
    assert (taken.id, taken.state, taken.owner, taken.attempts) == ("job_mine", "running", "owner", 1)
    assert do(database, jobs.beat, made.id, "owner", done=3, total=7, unit="items", message="going on") is True
    seen = find(database, made.id)
    assert (seen.done, seen.total, seen.unit, seen.message) == (3, 7, "items", "going on")
    assert seen.beat_at >= taken.beat_at
    assert do(database, jobs.end, made.id, "owner", "done", message="made", result={"x": 1}) is True
    over = find(database, made.id)
    assert (over.state, over.result, over.error, over.message) == ("done", {"x": 1}, None, "made")
    assert over.created_at <= over.started_at <= over.finished_at
    assert claim(database) is None
    assert do(database, jobs.requeue_dead) == do(database, jobs.requeue_of, "owner") == []


def test_jobs_are_claimed_oldest_first_and_one_of_a_pool_at_a_time(database: Database) -> None:
    make_pool(database)
    make_pool(database, name="other")
    first, second, third = enqueue(database), enqueue(database), enqueue(database, "other")
    assert claim(database) == first
    assert claim(database) == third
    assert claim(database) is None
    do(database, jobs.end, first, "owner", "failed", message="no", error={"title": "no"})
    assert claim(database) == second
    assert find(database, first).error == {"title": "no"}
    assert [job.id for job in do(database, jobs.listing, None, None, 9)] == [third, second, first]
    assert [job.id for job in do(database, jobs.listing, None, None, 1)] == [third]
    assert [job.id for job in do(database, jobs.listing, "p", None, 9)] == [second, first]
    assert [job.id for job in do(database, jobs.listing, "p", "failed", 9)] == [first]
    assert do(database, jobs.listing, "other", "queued", 9) == []


def test_each_job_is_claimed_once(database: Database) -> None:
    for number in range(6):
        make_pool(database, name=f"pool {number}")
    waiting = [enqueue(database, f"pool {number % 6}") for number in range(18)]
    others = [Database(database.url.render_as_string(hide_password=False)) for _ in range(4)]

    def work(number: int) -> list[str]:
        mine = []
        while True:
            job = do(others[number], jobs.claim, f"owner {number}")
            if job is None:
                if not do(others[number], jobs.listing, None, "queued", 1):
                    return mine
                continue  # another works on the pool of what waits
            running = do(others[number], jobs.listing, job.pool_name, "running", 9)
            assert [found.id for found in running] == [job.id]
            mine.append(job.id)
            assert do(others[number], jobs.end, job.id, f"owner {number}", "done", message="")

    found = at_once([lambda number=number: work(number) for number in range(4)])
    assert sorted(job for mine in found for job in mine) == sorted(waiting)
    for other in others:
        other.close()


def test_of_those_who_claim_one_job_one_gets_it(database: Database) -> None:
    make_pool(database)
    waiting = enqueue(database)
    found = at_once([lambda number=number: claim(database, f"owner {number}") for number in range(5)])
    assert sorted(job for job in found if job is not None) == [waiting]
    assert find(database, waiting).attempts == 1


def test_the_job_of_a_dead_owner_goes_on_in_another_and_fails_in_the_end(database: Database) -> None:
    make_pool(database)
    job = enqueue(database)
    for attempt in range(1, ATTEMPTS + 1):
        assert claim(database, f"owner {attempt}") == job
        assert do(database, jobs.requeue_dead) == []  # it beat a moment ago
        stop_beating(database)
        assert do(database, jobs.requeue_dead) == [job]
        seen = find(database, job)
        assert seen.attempts == attempt
        if attempt < ATTEMPTS:
            assert (seen.state, seen.owner, seen.message) == (
                "queued",
                None,
                "its process ended; it goes on in another",
            )
        assert do(database, jobs.requeue_dead) == []
    assert (seen.state, seen.error["title"]) == ("failed", "The worker died")
    assert "ended 3 times before it was done" in seen.error["detail"]
    assert seen.finished_at is not None
    assert claim(database) is None


def test_an_owner_that_was_taken_for_dead_changes_nothing_when_it_comes_back(database: Database) -> None:
    make_pool(database)
    job = enqueue(database)
    claim(database, "slow")
    stop_beating(database)
    do(database, jobs.requeue_dead)
    for state in ("queued", "running"):
        before = find(database, job)
        assert before.state == state
        assert do(database, jobs.beat, job, "slow", done=99) is False
        assert do(database, jobs.end, job, "slow", "done", message="mine", result={}) is False
        do(database, jobs.give_back, job, "slow", "shutdown")
        assert find(database, job) == before
        claim(database, "next")
    assert do(database, jobs.end, job, "next", "done", message="") is True
    over = find(database, job)
    for owner in ("slow", "next"):
        assert do(database, jobs.end, job, owner, "failed", message="too late") is False
        assert do(database, jobs.beat, job, owner) is False
        do(database, jobs.give_back, job, owner, "too late")
    do(database, jobs.cancel, job)
    assert find(database, job) == over


def test_jobs_of_an_owner_that_is_known_to_be_dead(database: Database) -> None:
    owners = ["server-1:worker-1", "server-1:worker-2", "server-2:worker-1", "Server-1:worker-1"]
    found = []
    for number, owner in enumerate(owners):
        make_pool(database, name=f"pool {number}")
        found.append(enqueue(database, f"pool {number}"))
        assert claim(database, owner) == found[-1]
    assert sorted(do(database, jobs.requeue_of, "server-1:")) == sorted(found[:2])
    assert [find(database, job).state for job in found] == ["queued", "queued", "running", "running"]
    assert do(database, jobs.requeue_of, "server-%") == []


def test_cancelling_in_each_state(database: Database) -> None:
    make_pool(database)
    with pytest.raises(NotFoundError, match="there is no job 'job_x'"):
        do(database, jobs.cancel, "job_x")
    waiting = enqueue(database)
    over = do(database, jobs.cancel, waiting)
    assert (over.state, over.cancel, over.message) == ("cancelled", True, "cancelled before it began")
    assert over.finished_at is not None
    assert do(database, jobs.cancel, waiting) == over
    assert claim(database) is None

    running = enqueue(database)
    claim(database)
    asked = do(database, jobs.cancel, running)
    assert (asked.state, asked.cancel, asked.finished_at) == ("running", True, None)
    assert do(database, jobs.beat, running, "owner", done=1) is False
    assert do(database, jobs.end, running, "owner", "cancelled", message="stopped") is True
    assert find(database, running).state == "cancelled"

    for dies in (True, False):
        left = enqueue(database)
        claim(database)
        do(database, jobs.cancel, left)
        if dies:
            stop_beating(database)
            do(database, jobs.requeue_dead)
        else:
            do(database, jobs.give_back, left, "owner", "shutdown")
        assert find(database, left).state == "cancelled"
        assert find(database, left).finished_at is not None
    assert {job.state for job in do(database, jobs.listing, None, None, 9)} <= set(FINAL)


def test_a_job_that_is_given_back_has_lost_no_attempt(database: Database) -> None:
    make_pool(database)
    job = enqueue(database)
    for _ in range(ATTEMPTS + 2):
        claim(database)
        do(database, jobs.give_back, job, "owner", "the service stopped")
        seen = find(database, job)
        assert (seen.state, seen.owner, seen.attempts, seen.message) == ("queued", None, 0, "the service stopped")


def test_a_job_that_waits_covers_who_asks_for_the_same(database: Database) -> None:
    pool = make_pool(database)
    other = make_pool(database, name="other")
    assert do(database, jobs.pending, pool, "embed") is None
    first, second = enqueue(database), enqueue(database)
    enqueue(database, kind="density")
    assert do(database, jobs.pending, pool, "embed").id == first
    assert do(database, jobs.pending, other, "embed") is None
    claim(database)  # what runs may have passed what is new
    assert do(database, jobs.pending, pool, "embed").id == second
    do(database, jobs.cancel, second)
    assert do(database, jobs.pending, pool, "embed") is None


def meanwhile(database: Database, first: Callable[[Connection], Any], second: Callable[[Connection], Any]) -> Any:
    """Do the second thing while the first is done and not committed; return what it returns."""
    with database.write() as connection:
        first(connection)

        def commit() -> None:
            until(lambda: waits_for_lock(database) or second_is_over)
            connection.commit()

        second_is_over = False

        def other() -> Any:
            nonlocal second_is_over
            try:
                return do(database, second)
            finally:
                second_is_over = True

        return at_once([other, commit])[0]


def test_a_job_that_is_cancelled_while_it_is_claimed_is_not_begun(database: Database) -> None:
    make_pool(database)
    job = enqueue(database)
    taken = meanwhile(database, lambda found: jobs.cancel(found, job), lambda found: jobs.claim(found, "owner"))
    assert taken is None
    assert find(database, job).state == "cancelled"


def test_a_job_is_not_claimed_while_another_of_its_pool_is(database: Database) -> None:
    make_pool(database)
    first, _ = enqueue(database), enqueue(database)
    assert meanwhile(database, lambda found: jobs.claim(found, "one"), lambda found: jobs.claim(found, "two")) is None
    assert [job.id for job in do(database, jobs.listing, None, "running", 9)] == [first]


def test_a_job_that_is_claimed_while_it_is_cancelled_is_told(database: Database) -> None:
    make_pool(database)
    job = enqueue(database)
    meanwhile(database, lambda found: jobs.claim(found, "owner"), lambda found: jobs.cancel(found, job))
    assert (find(database, job).state, find(database, job).cancel) == ("running", True)


@pytest.mark.parametrize("how", ["given back", "dead"])
def test_a_job_that_goes_back_while_it_is_cancelled_stays_cancelled(database: Database, how: str) -> None:
    make_pool(database)
    job = enqueue(database)
    claim(database)

    def back(connection: Connection) -> None:
        if how == "dead":
            assert jobs.requeue_of(connection, "owner") == [job]
        else:
            jobs.give_back(connection, job, "owner", "shutdown")

    meanwhile(database, back, lambda found: jobs.cancel(found, job))
    assert (find(database, job).state, find(database, job).cancel) == ("cancelled", True)


@pytest.mark.parametrize("how", ["given back", "dead"])
def test_a_job_that_is_cancelled_while_it_goes_back_stays_cancelled(database: Database, how: str) -> None:
    make_pool(database)
    job = enqueue(database)
    claim(database)

    def back(connection: Connection) -> None:
        if how == "dead":
            jobs.requeue_of(connection, "owner")
        else:
            jobs.give_back(connection, job, "owner", "shutdown")

    meanwhile(database, lambda found: jobs.cancel(found, job), back)
    do(database, jobs.requeue_of, "owner")  # who finds the job locked comes again later
    assert (find(database, job).state, find(database, job).cancel) == ("cancelled", True)


def test_two_who_look_for_the_dead_deal_with_each_job_once(database: Database) -> None:
    for number in range(4):
        make_pool(database, name=f"pool {number}")
        enqueue(database, f"pool {number}")
        claim(database)
    stop_beating(database)
    found = at_once([lambda: do(database, jobs.requeue_dead) for _ in range(4)])
    assert len([job for some in found for job in some]) == 4
    assert count(database, jobs_table, jobs_table.c.state == "queued") == 4


def test_names_of_jobs_differ() -> None:
    assert len({jobs.new_id("job") for _ in range(100)}) == 100
    assert jobs.new_id("selection").startswith("selection_")
