"""API keys: shown once, kept as a hash, compared in constant time."""

from __future__ import annotations

import hashlib
import re
import secrets
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from ..errors import NotFoundError
from .database import now
from .tables import api_keys

__all__ = ["SCOPES", "KeyRecord", "any_key", "create", "digest", "listing", "parse", "revoke", "valid"]

SCOPES = ("read", "label", "admin")
"""Each scope has the rights of those before it."""

_KEY = re.compile(r"ics_([0-9a-f]{12})_([A-Za-z0-9_-]{43})")


@dataclass(frozen=True)
class KeyRecord:
    """A key without its secret."""

    id: str
    name: str
    scope: str
    hash: str
    per_minute: int | None
    created_at: str
    revoked_at: str | None


def _record(row: Any) -> KeyRecord:
    return KeyRecord(**dict(row._mapping))


def parse(key: str) -> tuple[str, str] | None:
    """Id and secret of a key; None if it is no key of ours."""
    match = _KEY.fullmatch(key)
    return None if match is None else (match[1], match[2])


def digest(secret: str) -> str:
    """What is kept of a secret. It holds 256 random bits, so a fast hash is as good as a slow one."""
    return hashlib.sha256(secret.encode()).hexdigest()


def create(connection: Connection, name: str, scope: str, per_minute: int | None = None) -> tuple[KeyRecord, str]:
    """Make a key; return it and its text, which nobody can be shown again."""
    key_id, secret = secrets.token_hex(6), secrets.token_urlsafe(32)
    record = KeyRecord(key_id, name, scope, digest(secret), per_minute, now(), None)
    connection.execute(api_keys.insert(), dict(record.__dict__))
    return record, f"ics_{key_id}_{secret}"


def listing(connection: Connection) -> list[KeyRecord]:
    """All keys, oldest first, revoked ones too."""
    return [
        _record(row) for row in connection.execute(sa.select(api_keys).order_by(api_keys.c.created_at, api_keys.c.id))
    ]


def valid(connection: Connection) -> dict[str, KeyRecord]:
    """The keys that are valid now, by id."""
    rows = connection.execute(sa.select(api_keys).where(api_keys.c.revoked_at.is_(None)))
    return {row.id: _record(row) for row in rows}


def any_key(connection: Connection) -> bool:
    """Whether a key was ever made: from then on the service is closed, also when all are revoked."""
    return bool(connection.execute(sa.select(sa.exists().select_from(api_keys))).scalar())


def revoke(connection: Connection, key_id: str) -> KeyRecord:
    """Make a key invalid for good."""
    row = connection.execute(sa.select(api_keys).where(api_keys.c.id == key_id)).one_or_none()
    if row is None:
        raise NotFoundError(f"there is no key {key_id!r}. List them: icl-select keys list.")
    if row.revoked_at is None:
        connection.execute(api_keys.update().where(api_keys.c.id == key_id).values(revoked_at=now()))
    return _record(connection.execute(sa.select(api_keys).where(api_keys.c.id == key_id)).one())
