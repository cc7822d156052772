"""Keys: shown once, kept as a hash, valid until they are revoked."""

from __future__ import annotations

import re

import pytest
import sqlalchemy as sa
from store_cases import database

from icl_select.service.errors import InvalidError, NotFoundError
from icl_select.service.store import keys
from icl_select.service.store.database import Database
from icl_select.service.store.tables import api_keys

__all__ = ["database"]


def create(
    database: Database, name: str = "ann", scope: str = "label", per_minute: int | None = None
) -> tuple[str, str]:
    with database.write() as connection:
        record, text = keys.create(connection, name, scope, per_minute)
    return record.id, text


def test_a_key_is_recognised_and_its_secret_is_nowhere(database: Database) -> None:
    key_id, text = create(database, "ännchen", "admin", 60)
    parts = keys.parse(text)
    assert parts is not None
    assert re.fullmatch(r"ics_[0-9a-f]{12}_[A-Za-z0-9_-]{43}", text)
    with database.read() as connection:
        found = keys.valid(connection)[parts[0]]
        assert (found.id, found.name, found.scope, found.per_minute) == (key_id, "ännchen", "admin", 60)
        assert found.hash == keys.digest(parts[1])
        everything = repr(connection.execute(sa.select(api_keys)).all())
    assert parts[1] not in everything
    assert keys.digest(parts[1]) in everything


@pytest.mark.parametrize("change", [lambda key: key[:-1], lambda key: key + "a", str.upper, lambda key: key + "\n"])
def test_what_is_no_key_is_none(database: Database, change: object) -> None:
    _, text = create(database)
    assert keys.parse(change(text)) is None  # type: ignore[operator]
    assert keys.parse("") is None


def test_keys_differ(database: Database) -> None:
    made = [create(database) for _ in range(20)]
    assert len({key_id for key_id, _ in made}) == len({text[-43:] for _, text in made}) == 20


def test_a_revoked_key_is_not_valid_and_the_service_stays_closed(database: Database) -> None:
    with database.read() as connection:
        assert (keys.any_key(connection), keys.valid(connection), keys.listing(connection)) == (False, {}, [])
    first, _ = create(database, "first")
    second, _ = create(database, "second")
    with database.write() as connection:
        gone = keys.revoke(connection, first)
    assert gone.revoked_at is not None
    with database.write() as connection:
        assert keys.revoke(connection, first) == gone  # when it was revoked stays as it is
        assert set(keys.valid(connection)) == {second}
        keys.revoke(connection, second)
        assert keys.valid(connection) == {}
        assert keys.any_key(connection) is True
        assert [record.name for record in keys.listing(connection)] == ["first", "second"]


def test_an_unknown_key_cannot_be_revoked(database: Database) -> None:
    with (
        pytest.raises(NotFoundError, match=r"there is no key 'x'\. List them: icl-select keys list"),
        database.write() as connection,
    ):
        keys.revoke(connection, "x")


def test_a_name_that_is_no_text_is_refused(database: Database) -> None:
    with pytest.raises(InvalidError, match="holds a NUL"):
        create(database, "a\0")
    with database.read() as connection:
        assert keys.any_key(connection) is False
