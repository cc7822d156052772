"""What SQLite and PostgreSQL both do, and SQLAlchemy writes differently for each."""

from __future__ import annotations

import functools
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, TypeVar

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.engine import Connection

__all__ = ["chunks", "insert", "insert_new", "upsert"]

_T = TypeVar("_T")

# Parameters of one statement: SQLite takes 32,766.
_CHUNK = 5_000


def chunks(values: Sequence[_T], size: int = _CHUNK) -> Iterator[Sequence[_T]]:
    """Cut a sequence into parts that fit one statement."""
    for start in range(0, len(values), size):
        yield values[start : start + size]


def insert(connection: Connection, table: sa.Table, rows: Sequence[Mapping[str, Any]]) -> None:
    """Add rows; none may be there already."""
    if rows:
        connection.execute(table.insert(), [dict(row) for row in rows])


def insert_new(connection: Connection, table: sa.Table, rows: Sequence[Mapping[str, Any]]) -> None:
    """Add the rows whose keys are not there yet."""
    if rows:
        connection.execute(_insert_new(connection.dialect.name, table), [dict(row) for row in rows])


@functools.cache
def _insert_new(dialect: str, table: sa.Table) -> sa.Insert:
    statement: sa.Insert = _kind(dialect).insert(table).on_conflict_do_nothing()
    return statement


def upsert(connection: Connection, table: sa.Table, rows: Sequence[Mapping[str, Any]]) -> None:
    """Add rows, or replace those of the same primary key."""
    if not rows:
        return
    statement = _kind(connection.dialect.name).insert(table)
    keys = [column.name for column in table.primary_key.columns]
    others = {name: statement.excluded[name] for name in rows[0] if name not in keys}
    connection.execute(statement.on_conflict_do_update(index_elements=keys, set_=others), [dict(row) for row in rows])


def _kind(dialect: str) -> Any:
    return sqlite if dialect == "sqlite" else postgresql
