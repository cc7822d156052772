"""A database for each test of the service, on SQLite and on PostgreSQL.

The PostgreSQL server is the one that ``ICS_TEST_POSTGRES`` names; ``scripts/postgres.sh run`` starts one for the time
of a command. Text sorts there as a language has it, as on most servers: what is right by code point alone fails.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from uuid import uuid4

import psycopg
import pytest
from psycopg import sql
from sqlalchemy import make_url

__all__ = ["SERVER", "database_url", "new_database", "postgres_url", "server_connection"]

SERVER = "ICS_TEST_POSTGRES"
"""Environment variable with the SQLAlchemy URL of a server on which databases may be created."""

_CREATE = sql.SQL("CREATE DATABASE {} TEMPLATE template0 LOCALE_PROVIDER icu ICU_LOCALE 'en-US' ENCODING 'UTF8'")
# Also where a test leaves connections behind: a server that it killed closes none.
_DROP = sql.SQL("DROP DATABASE {} WITH (FORCE)")


@pytest.fixture(params=["sqlite", "postgresql"])
def database_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """URL of an empty database of this test alone; each test that asks for it runs on both kinds."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path / 'service.sqlite'}"
    url: str = request.getfixturevalue("postgres_url")
    return url


@pytest.fixture
def postgres_url() -> Iterator[str]:
    """URL of an empty PostgreSQL database of this test alone; without a server the test is skipped."""
    server = os.environ.get(SERVER)
    if not server:
        pytest.skip(f"needs PostgreSQL: scripts/postgres.sh run COMMAND, or a server's URL in {SERVER}")
    with new_database(server) as url:
        yield url


@contextmanager
def new_database(server: str) -> Iterator[str]:
    """Create a database beside the one that ``server`` names, and drop it at the end; yields its URL."""
    name = f"ics_test_{uuid4().hex}"
    with server_connection(server) as connection:
        connection.execute(_CREATE.format(sql.Identifier(name)))
    try:
        yield make_url(server).set(database=name).render_as_string(hide_password=False)
    finally:
        with server_connection(server) as connection:
            connection.execute(_DROP.format(sql.Identifier(name)))


def server_connection(url: str) -> psycopg.Connection[tuple[object, ...]]:
    """A connection of psycopg's own, in autocommit: databases are not created in transactions."""
    plain = make_url(url).set(drivername="postgresql").render_as_string(hide_password=False)
    return psycopg.connect(plain, autocommit=True)
