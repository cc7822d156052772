"""What goes wrong below the store: a full disk, a lock that is never given back, a server that goes away."""

from __future__ import annotations

import datetime
import os
import sqlite3
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import sqlalchemy as sa
from sqlalchemy.engine import Connection
from store_cases import at_once, count, database, make_pool, row, say, until, upload, waits_for_lock

from icl_select.errors import ConfigError, StoreError
from icl_select.service.errors import InvalidError, UnavailableError, problem_of
from icl_select.service.store import items as store_items
from icl_select.service.store import labels, leases, pools
from icl_select.service.store.database import Database, dumps, later, now, stamp
from icl_select.service.store.migrate import migrate
from icl_select.service.store.tables import items, label_events, label_history, metadata, votes
from icl_select.service.store.tables import labels as labels_table

__all__ = ["database"]


class Disk:
    """A disk that can be filled: SQLite gets no more pages, the server of PostgreSQL says that it has no space."""

    def __init__(self, database: Database) -> None:
        self.database = database
        self.pages = 2**31
        if database.is_sqlite:
            sa.event.listen(database.engine, "checkout", self._limit)
        else:
            self._run(
                "CREATE FUNCTION is_full() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE EXCEPTION "
                "'could not extend file \"base/1/2\": No space left on device' USING ERRCODE = 'disk_full'; END $$"
            )

    def _limit(self, connection: sqlite3.Connection, *_: object) -> None:
        connection.execute(f"PRAGMA max_page_count = {self.pages}")

    def _run(self, statement: str) -> None:
        with self.database.write() as connection:
            connection.exec_driver_sql(statement)

    def fill(self, table: sa.Table) -> None:
        """Let nothing more be written; in PostgreSQL, to this table."""
        if self.database.is_sqlite:
            with self.database.read() as connection:
                self.pages = connection.exec_driver_sql("PRAGMA page_count").scalar_one()
        else:
            self._run(f"CREATE TRIGGER full_{table.name} BEFORE INSERT ON {table.name} EXECUTE FUNCTION is_full()")

    def free(self, table: sa.Table) -> None:
        """Make space again."""
        self.pages = 2**31
        if not self.database.is_sqlite:
            self._run(f"DROP TRIGGER full_{table.name} ON {table.name}")


def contents(database: Database) -> dict[str, list[tuple[object, ...]]]:
    """All rows of all tables."""
    with database.read() as connection:
        return {
            table.name: [tuple(found) for found in connection.execute(table.select().order_by(*table.primary_key))]
            for table in metadata.sorted_tables
        }


@pytest.mark.parametrize("table", [label_events, labels_table, label_history, votes], ids=lambda table: table.name)
def test_a_full_disk_keeps_nothing_of_a_request_and_everything_before(database: Database, table: sa.Table) -> None:
    make_pool(database, 3000)
    say(database, 0, "before")
    disk = Disk(database)
    before = contents(database)
    words = [labels.Word(pos, "ann", "label", "x" * 100, False, None) for pos in range(3000)]

    def write() -> labels.Written:
        with database.write() as connection:
            return labels.write(connection, pools.lock(connection, "p"), words)

    disk.fill(table)
    for _ in range(2):
        with pytest.raises(sa.exc.DBAPIError) as failure:
            write()
        problem = problem_of(failure.value)
        assert (problem.status, problem.kind) == (507, "disk-full")
        assert contents(database) == before
    disk.free(table)
    done = write()
    assert (done.written, done.pool.labels_version, done.pool.n_labelled) == (3000, 2, 3000)


def test_an_upload_that_meets_a_full_disk_can_be_sent_again(database: Database) -> None:
    make_pool(database, 5)
    disk = Disk(database)
    new = [row(f"n{number}", "x", "text " * 200) for number in range(2000)]
    disk.fill(items)
    with pytest.raises(sa.exc.DBAPIError) as failure:
        upload(database, "p", [new[:1000], new[1000:]])
    assert problem_of(failure.value).status == 507
    with database.read() as connection:
        pool = pools.find(connection, "p")
    assert (pool.n_items, pool.labels_version) == (5, 0)
    disk.free(items)
    done = upload(database, "p", [new[:1000], new[1000:]])
    assert (done.pool.n_items, done.added, done.labelled) == (2005, 2000, 2000)
    assert count(database, items) == 2005


def hold(database: Database, during: Callable[[], None]) -> None:
    """Do something while another connection holds what a writer needs."""
    other = Database(database.url.render_as_string(hide_password=False))
    with other.write() as connection:
        pools.lock(connection, "p")
        at_once([during])  # which fails where it would wait for ever
    other.close()


def test_who_waits_too_long_for_a_lock_is_told_to_come_again(database: Database) -> None:
    make_pool(database, 3)
    impatient = Database(database.url.render_as_string(hide_password=False), timeout=0.05)

    def fail() -> None:
        with pytest.raises(
            UnavailableError, match=r"another writer held the database for more than 0\.05 s"
        ) as failure:
            say(impatient, 0, "x")
        assert problem_of(failure.value).status == 503
        assert failure.value.headers == {"Retry-After": "1"}
        with impatient.read() as connection:  # who reads does not wait
            assert pools.find(connection, "p").n_labelled == 0

    hold(database, fail)
    assert say(impatient, 0, "x").pool.n_labelled == 1
    impatient.close()


def test_who_waits_for_a_lock_gets_it_in_time(database: Database) -> None:
    make_pool(database, 3)
    other = Database(database.url.render_as_string(hide_password=False))
    with database.write() as connection:
        pool = pools.lock(connection, "p")

        def second() -> int:
            return say(other, 1, "y").pool.labels_version

        def first() -> int:
            until(lambda: waits_for_lock(database))
            version = labels.write(connection, pool, [labels.Word(0, "ann", "label", "x", False, None)])
            connection.commit()
            return version.pool.labels_version

        assert at_once([first, second]) == [1, 2]
    other.close()


def test_when_all_connections_are_in_use_the_next_is_told_to_come_again(database: Database) -> None:
    small = Database(database.url.render_as_string(hide_password=False), pool_size=1, timeout=0.05)
    reason = "all connections to the database are in use"
    with small.read(), small.read(), pytest.raises(UnavailableError, match=reason), small.read():
        pass
    with small.read() as connection:
        assert connection.execute(sa.text("SELECT 1")).scalar() == 1
    small.close()


def kill_backends(database: Database) -> None:
    """As a restart of the server does it to every connection."""
    other = Database(database.url.render_as_string(hide_password=False))
    with other.write() as connection:
        connection.execute(
            sa.text(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
                "WHERE datname = current_database() AND pid <> pg_backend_pid()"
            )
        )
    other.close()


@pytest.mark.parametrize("moment", ["before", "within", "at the end"])
def test_a_server_that_goes_away_is_503_and_the_next_call_works(database: Database, moment: str) -> None:
    if database.is_sqlite:
        pytest.skip("SQLite has no server")
    make_pool(database, 3)
    say(database, 0, "kept")

    def lose() -> None:
        with database.write() as connection:
            pool = pools.lock(connection, "p")
            labels.write(connection, pool, [labels.Word(1, "ann", "label", "lost", False, None)])
            kill_backends(database)
            if moment == "within":
                pools.find(connection, "p")

    if moment == "before":
        kill_backends(database)  # found out before the connection is used
    else:
        with pytest.raises(UnavailableError) as failure:
            lose()
        assert problem_of(failure.value).status == 503
    assert say(database, 1, "again").pool.labels_version == 2
    with database.read() as connection:
        pool = pools.find(connection, "p")
        assert [found.label for found in labels.page(connection, pool, 2, -1, 9)] == ["kept", "again"]


def test_a_server_that_is_not_there_is_503(tmp_path: Path) -> None:
    gone = Database(f"postgresql://nobody@/nothing?host={tmp_path}")
    with pytest.raises(UnavailableError, match="cannot be used now") as failure, gone.read():
        pass
    assert problem_of(failure.value).status == 503
    gone.close()


@pytest.fixture
def open_folder() -> Iterator[Path]:
    """A folder that other users reach too."""
    with tempfile.TemporaryDirectory() as name:
        Path(name).chmod(0o755)
        yield Path(name)


def test_a_file_that_is_read_only_is_503_and_can_be_read(open_folder: Path) -> None:
    url = f"sqlite:///{open_folder}/service.sqlite"
    first = Database(url)
    migrate(first)
    make_pool(first, 2)
    say(first, 0, "x")
    for path in open_folder.iterdir():
        path.chmod(0o444)
    open_folder.chmod(0o555)
    root = os.geteuid() == 0
    if root:
        os.seteuid(65534)  # permissions do not stop root
    try:
        found = Database(url)
        with pytest.raises(UnavailableError, match="the file or its disk is read-only") as failure:
            say(found, 1, "y")
        assert problem_of(failure.value).status == 503
        with found.read() as connection:
            assert pools.find(connection, "p").n_labelled == 1
        found.close()
    finally:
        if root:
            os.seteuid(0)
        open_folder.chmod(0o755)
        for path in open_folder.iterdir():
            path.chmod(0o644)
    assert say(first, 1, "y").pool.n_labelled == 2
    first.close()


def test_a_file_that_is_no_database_is_named(tmp_path: Path) -> None:
    path = tmp_path / "service.sqlite"
    path.write_bytes(b"this is no database at all" * 100)
    with pytest.raises(StoreError, match="is no SQLite database, or a damaged one") as failure:
        migrate(Database(f"sqlite:///{path}"))
    assert problem_of(failure.value).status == 503
    assert path.read_bytes() == b"this is no database at all" * 100


def test_a_folder_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreError, match="cannot create the data directory"):
        Database(f"sqlite:///{tmp_path}/file/data/service.sqlite")


@pytest.mark.parametrize(
    ("url", "reason"),
    [
        ("sqlite://", "in memory loses everything"),
        ("sqlite:///:memory:", "in memory loses everything"),
        ("mysql://somebody@somewhere/x", "mysql is no database that is known here"),
        ("no url", "cannot be read"),
    ],
)
def test_a_url_of_something_else_is_refused(url: str, reason: str) -> None:
    with pytest.raises(ConfigError, match=reason):
        Database(url)


def test_the_password_is_not_shown() -> None:
    found = Database("postgresql://someone:secret@localhost/name")
    assert "secret" not in found.shown
    assert "someone" in found.shown
    found.close()


def test_a_transaction_that_reads_cannot_write(database: Database) -> None:
    make_pool(database, 1)
    with pytest.raises((UnavailableError, sa.exc.DBAPIError)), database.read() as connection:
        leases.release(connection, pools.find(connection, "p"), "ann")
    assert say(database, 0, "x").written == 1


def test_a_transaction_that_reads_sees_one_state(database: Database) -> None:
    make_pool(database, 2)
    say(database, 0, "x")
    with database.read() as connection:
        assert pools.find(connection, "p").labels_version == 1
        say(database, 1, "y")
        assert pools.find(connection, "p").labels_version == 1
        assert labels.labelled_positions(connection, pools.find(connection, "p")) == [0]
    with database.read() as connection:
        assert labels.labelled_positions(connection, pools.find(connection, "p")) == [0, 1]


def test_a_block_that_fails_leaves_nothing(database: Database) -> None:
    make_pool(database, 2)
    before = contents(database)

    def fail() -> None:
        with database.write() as connection:
            labels.write(connection, pools.lock(connection, "p"), [labels.Word(0, "ann", "label", "x", False, None)])
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    assert contents(database) == before


@pytest.mark.parametrize("durable", [True, False])
def test_what_is_acknowledged_waits_for_the_disk(database: Database, durable: bool) -> None:
    def setting(connection: Connection) -> object:
        query = "PRAGMA synchronous" if database.is_sqlite else "SHOW synchronous_commit"
        return connection.exec_driver_sql(query).scalar()

    full, less = (2, 1) if database.is_sqlite else ("on", "off")
    for _ in range(3):  # the connection is used again, and must not remember
        with database.write(durable=False) as connection:
            assert setting(connection) == less
        with database.write(durable=durable) as connection:
            assert setting(connection) == (full if durable else less)
            assert pools.listing(connection, None, 1) == []


@pytest.mark.parametrize("text", ["a\0b", "a\ud800b", "\udfff"])
def test_text_that_a_database_cannot_hold_is_refused_alike_by_both(database: Database, text: str) -> None:
    make_pool(database, 1)
    with pytest.raises(InvalidError, match=r"holds a NUL|half of a surrogate pair") as failure:
        say(database, 0, "x", annotator=text)
    assert problem_of(failure.value).status == 422
    with pytest.raises(InvalidError), database.read() as connection:
        pools.find(connection, text)
    assert say(database, 0, "x", annotator="ä€😀\u2028").written == 1


@pytest.mark.parametrize("number", [2**63, -(2**63) - 1, 10**40])
def test_numbers_that_a_database_cannot_hold_are_refused_alike_by_both(database: Database, number: int) -> None:
    pool = make_pool(database, 1)
    for ask in (
        lambda connection: store_items.page(connection, pool, number, 10),
        lambda connection: labels.page(connection, pool, number, -1, 10),
        lambda connection: labels.since(connection, pool.uid, 0, number),
    ):
        with pytest.raises(InvalidError, match="needs more than 64 bits"), database.read() as connection:
            ask(connection)
    with database.read() as connection:
        assert store_items.page(connection, pool, 2**63 - 1, 10) == []


def test_times_sort_as_text() -> None:
    zone = datetime.timezone(datetime.timedelta(hours=5))
    moments = [
        datetime.datetime(1, 1, 2, tzinfo=datetime.UTC),
        datetime.datetime(999, 12, 31, 23, 59, 59, 999999, tzinfo=datetime.UTC),
        datetime.datetime(2024, 5, 1, 4, 59, 59, tzinfo=zone),
        datetime.datetime(2024, 5, 1),  # without a zone it is UTC
        datetime.datetime(2024, 5, 1, 0, 0, 0, 1, tzinfo=datetime.UTC),
    ]
    texts = [stamp(moment) for moment in moments]
    assert texts == sorted(texts)
    assert texts[-2:] == ["2024-05-01T00:00:00.000000Z", "2024-05-01T00:00:00.000001Z"]
    assert {len(text) for text in texts} == {27}
    assert later(-1) < now() < later(1)


def test_numbers_that_json_does_not_know_are_refused() -> None:
    assert dumps({"ä\0": [1, None]}) == '{"\\u00e4\\u0000":[1,null]}'
    with pytest.raises(ValueError, match="JSON"):
        dumps(float("nan"))
