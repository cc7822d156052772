"""The schema: made once, by whoever comes first; the same as the tables in code; never taken from a newer version."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable

import alembic.op
import pytest
import sqlalchemy as sa
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from store_cases import add, at_once, count, database, make_pool, row, say

from icl_select.errors import StoreError
from icl_select.service.store import labels, pools
from icl_select.service.store.database import Database
from icl_select.service.store.migrate import check_schema, migrate
from icl_select.service.store.tables import items, label_events, metadata

__all__ = ["database"]

SCRIPT = """
import sys
from icl_select.service.store.database import Database
from icl_select.service.store.migrate import migrate
database = Database(sys.argv[1])
print("here", flush=True)
sys.stdin.readline()
print(migrate(database))
"""


@pytest.fixture
def empty(database_url: str) -> Database:
    return Database(database_url)


def tables(database: Database) -> set[str]:
    with database.read() as connection:
        return set(sa.inspect(connection).get_table_names())


def test_an_empty_database_gets_the_tables_of_the_code(empty: Database) -> None:
    with pytest.raises(StoreError, match="missing, not 0001"):
        check_schema(empty)
    assert migrate(empty) == "0001"
    check_schema(empty)
    with empty.read() as connection:
        context = MigrationContext.configure(connection, opts={"compare_type": True, "compare_server_default": True})
        assert compare_metadata(context, metadata) == []
        inspector = sa.inspect(connection)
        for table in metadata.sorted_tables:
            made = inspector.get_pk_constraint(table.name)["constrained_columns"]
            assert made == [column.name for column in table.primary_key]
    empty.close()


def test_text_sorts_by_its_bytes_in_every_column(database: Database) -> None:
    if database.is_sqlite:
        pytest.skip("SQLite sorts by bytes unless it is told otherwise")
    query = """
        SELECT c.relname, a.attname FROM pg_attribute a
        JOIN pg_class c ON c.oid = a.attrelid AND c.relkind = 'r'
        JOIN pg_namespace n ON n.oid = c.relnamespace AND n.nspname = 'public'
        WHERE a.attnum > 0 AND a.atttypid = 'text'::regtype AND a.attcollation <> 'pg_catalog."C"'::regcollation
    """
    with database.read() as connection:
        assert connection.execute(sa.text(query)).all() == []


def test_migrating_again_changes_nothing(database: Database) -> None:
    make_pool(database, 3)
    say(database, 1, "x")
    assert migrate(database) == "0001"
    with database.read() as connection:
        pool = pools.find(connection, "p")
        assert (pool.n_items, pool.n_labelled) == (3, 1)
        assert [(found.pos, found.label) for found in labels.page(connection, pool, 1, -1, 10)] == [(1, "x")]


def test_a_newer_schema_is_refused_and_left_alone(database: Database) -> None:
    make_pool(database, 2)
    with database.write() as connection:
        connection.execute(sa.text("UPDATE alembic_version SET version_num = '9999'"))
    for look in (migrate, check_schema):
        with pytest.raises(StoreError, match="the schema 9999, which this version of icl-select does not know"):
            look(database)
    assert count(database, items) == 2


def test_a_step_that_fails_leaves_nothing(empty: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    real: Callable[..., object] = alembic.op.create_table

    def fail_late(name: str, *columns: object, **options: object) -> object:
        if name == "votes":
            raise RuntimeError("the power is gone")
        return real(name, *columns, **options)

    monkeypatch.setattr(alembic.op, "create_table", fail_late)
    with pytest.raises(RuntimeError, match="the power is gone"):
        migrate(empty)
    assert tables(empty) == set()
    monkeypatch.undo()
    assert migrate(empty) == "0001"
    assert set(metadata.tables) < tables(empty)
    empty.close()


def test_threads_that_migrate_at_once_make_one_schema(database_url: str) -> None:
    databases = [Database(database_url) for _ in range(4)]
    assert at_once([lambda found=found: migrate(found) for found in databases]) == ["0001"] * 4
    make_pool(databases[0], 1)
    for found in databases:
        found.close()


def test_processes_that_migrate_at_once_make_one_schema(database_url: str) -> None:
    command = [sys.executable, "-c", SCRIPT, database_url]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    processes = [subprocess.Popen(command, **pipes) for _ in range(3)]  # type: ignore[call-overload]
    try:
        for process in processes:
            assert process.stdout.readline() == "here\n"
        for process in processes:
            process.stdin.write("go\n")
            process.stdin.flush()
        for process in processes:
            out, err = process.communicate(timeout=60)
            assert (process.returncode, out) == (0, "0001\n"), err
    finally:
        for process in processes:
            process.kill()
    found = Database(database_url)
    make_pool(found)
    add(found, "p", [row("a", "x")])
    assert count(found, label_events) == 1
    found.close()
