"""Each test gets an empty database of its own on either kind of server, and leaves none behind."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest
import sqlalchemy as sa
from databases import SERVER, new_database, server_connection


@pytest.fixture
def engine(database_url: str) -> Iterator[sa.Engine]:
    engine = sa.create_engine(database_url)
    yield engine
    engine.dispose()


def test_the_kind_is_the_one_asked_for(engine: sa.Engine, request: pytest.FixtureRequest) -> None:
    assert engine.dialect.name == request.node.callspec.params["database_url"]


@pytest.mark.parametrize("turn", [1, 2])
def test_what_one_test_writes_no_other_sees(engine: sa.Engine, turn: int) -> None:
    with engine.begin() as connection:
        connection.execute(sa.text("CREATE TABLE words (word TEXT PRIMARY KEY)"))
        connection.execute(sa.text("INSERT INTO words VALUES (:word)"), [{"word": f"turn {turn}"}, {"word": "naïve"}])
    with engine.connect() as connection:
        found = set(connection.scalars(sa.text("SELECT word FROM words")))
    assert found == {f"turn {turn}", "naïve"}


def test_text_sorts_as_a_language_has_it(postgres_url: str) -> None:
    """By code point every capital stands before every small letter."""
    with server_connection(postgres_url) as connection:
        rows = connection.execute("SELECT word FROM (VALUES ('b'), ('C'), ('a'), ('B')) AS w (word) ORDER BY word")
        assert [word for (word,) in rows] == ["a", "b", "B", "C"]


def test_a_database_is_dropped_while_connections_are_open(postgres_url: str) -> None:
    server = os.environ[SERVER]
    with new_database(server) as url:
        left = server_connection(url)
        (name,) = left.execute("SELECT current_database()").fetchone() or ("",)
    with left, server_connection(server) as connection:
        assert str(name).startswith("ics_test_")
        rows = connection.execute("SELECT datname FROM pg_database WHERE datname LIKE 'ics\\_test\\_%'").fetchall()
    assert (name,) not in rows
