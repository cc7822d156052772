"""What the tests of the store share: a database of either kind, pools with items, and a way to do things at once."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, TypeVar

import pytest
import sqlalchemy as sa
from databases import database_url

from icl_select.service.store import labels, pools
from icl_select.service.store.database import Database
from icl_select.service.store.labels import Word, Written
from icl_select.service.store.migrate import migrate
from icl_select.service.store.pools import PoolRecord
from icl_select.service.store.tables import metadata
from icl_select.service.store.uploads import NewItem, Upload, Uploaded

__all__ = [
    "CONFIG",
    "TIMES",
    "add",
    "at_once",
    "count",
    "database",
    "database_url",
    "make_pool",
    "row",
    "rows",
    "say",
    "until",
    "upload",
    "waits_for_lock",
]

T = TypeVar("T")

TIMES = [f"2024-01-{day:02}T00:00:00.000000Z" for day in range(1, 32)]
"""Moments of the past, ascending."""

CONFIG: Mapping[str, Any] = {"annotators": 1, "resolve": "majority", "label_words": None}

_DEADLINE = 60.0


@pytest.fixture
def database(database_url: str) -> Iterator[Database]:
    """A database with the tables of today."""
    found = Database(database_url)
    migrate(found)
    yield found
    found.close()


def row(name: str, label: str | None = None, text: str | None = None) -> NewItem:
    """A row with an id of its own."""
    shown = text if text is not None else f"text of {name}"
    return NewItem(f"row {name}", name, name, shown, {"text": shown}, {}, label)


def rows(count: int, start: int = 0) -> list[NewItem]:
    """Rows ``i0``, ``i1`` … without labels."""
    return [row(f"i{number}") for number in range(start, start + count)]


def upload(database: Database, name: str, parts: Sequence[Sequence[NewItem]], max_items: int = 10**6) -> Uploaded:
    """Add parts of rows to a pool, from begin to finish."""
    running = Upload(database, name, max_items=max_items)
    running.begin()
    try:
        for part in parts:
            running.add(part)
        with database.write() as connection:
            return running.finish(connection)
    except BaseException:
        running.abort()
        raise


def add(database: Database, name: str, new: Sequence[NewItem]) -> Uploaded:
    """Add rows in one part."""
    return upload(database, name, [new])


def make_pool(database: Database, n_items: int = 0, name: str = "p", **config: Any) -> PoolRecord:
    """A pool of items ``i0``, ``i1`` …"""
    with database.write() as connection:
        pool = pools.create(connection, name, {**CONFIG, **config})
    return add(database, name, rows(n_items)).pool if n_items else pool


def say(
    database: Database,
    pos: int,
    label: str | None = None,
    annotator: str = "ann",
    *,
    status: str | None = None,
    adjudicated: bool = False,
    created_at: str | None = None,
    pool: str = "p",
) -> Written:
    """Let an annotator say one word; without a status it is a label."""
    word = Word(pos, annotator, status or "label", label, adjudicated, created_at)
    with database.write() as connection:
        return labels.write(connection, pools.lock(connection, pool), [word])


def count(database: Database, table: sa.Table, *where: sa.ColumnElement[bool]) -> int:
    """Rows of a table."""
    assert table.metadata is metadata
    with database.read() as connection:
        return int(connection.execute(sa.select(sa.func.count()).select_from(table).where(*where)).scalar_one())


def at_once(jobs: Sequence[Callable[[], T]]) -> list[T]:
    """Run functions in threads that start together; return what each returned, or raise what one raised."""
    results: list[Any] = [None] * len(jobs)
    errors: list[BaseException] = []
    start = threading.Barrier(len(jobs))

    def run(place: int) -> None:
        try:
            start.wait(_DEADLINE)
            results[place] = jobs[place]()
        except BaseException as exc:
            errors.append(exc)

    threads = [threading.Thread(target=run, args=(place,), daemon=True) for place in range(len(jobs))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(_DEADLINE)
        assert not thread.is_alive(), "a thread hangs"
    if errors:
        raise errors[0]
    return results


def until(condition: Callable[[], bool]) -> None:
    """Wait for a condition."""
    end = time.monotonic() + _DEADLINE
    while not condition():
        assert time.monotonic() < end, "what was waited for did not happen"
        time.sleep(0.005)


def waits_for_lock(database: Database) -> bool:
    """Whether a connection waits for a lock; SQLite does not say, and there a writer waits for any other."""
    if database.is_sqlite:
        return True
    query = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'"
    with database.read() as connection:
        return bool(connection.execute(sa.text(query)).scalar_one())
