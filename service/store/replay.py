"""Requests that carry an Idempotency-Key: done once, answered as often as they are sent.

The answer is kept in the transaction that did the work, so either both are there or neither is.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Connection
from sqlalchemy.exc import IntegrityError

from ..errors import ConflictError, InvalidError
from .database import dumps, later, loads, now
from .tables import idempotency

__all__ = ["KEPT_SECONDS", "Attempt", "Kept", "keep", "recall"]

KEPT_SECONDS = 24 * 3600.0
"""How long an answer is kept."""

_FORGOTTEN = 1_000


@dataclass(frozen=True)
class Attempt:
    """Who sent which key with what; ``request`` is a hash of method, path and body."""

    principal: str
    key: str
    request: str


@dataclass(frozen=True)
class Kept:
    """An answer that was given before."""

    status: int
    headers: Mapping[str, str]
    body: Any


def recall(connection: Connection, attempt: Attempt | None) -> Kept | None:
    """The answer that was given to this request before, or None.

    Raises
    ------
    InvalidError
        If the key came with another request before.
    """
    if attempt is None:
        return None
    _forget(connection)
    mine = (idempotency.c.principal == attempt.principal, idempotency.c.key == attempt.key)
    row = connection.execute(sa.select(idempotency).where(*mine)).one_or_none()
    if row is None:
        return None
    if row.request != attempt.request:
        raise InvalidError(
            f"the Idempotency-Key {attempt.key!r} came with another request before. Use a new key for a new request."
        )
    return Kept(row.status, loads(row.headers), loads(row.body))


def _forget(connection: Connection) -> None:
    """Remove old answers, some at a time, and none that another request is removing: nobody waits for anybody."""
    identity = (idempotency.c.principal, idempotency.c.key)
    old = sa.select(*identity).where(idempotency.c.created_at < later(-KEPT_SECONDS)).limit(_FORGOTTEN)
    gone = sa.tuple_(*identity).in_(old.with_for_update(skip_locked=True))
    connection.execute(idempotency.delete().where(gone))


def keep(connection: Connection, attempt: Attempt | None, kept: Kept) -> None:
    """Keep an answer, in the transaction that did the work."""
    if attempt is None:
        return
    row = {
        "principal": attempt.principal,
        "key": attempt.key,
        "request": attempt.request,
        "status": kept.status,
        "headers": dumps(dict(kept.headers)),
        "body": dumps(kept.body),
        "created_at": now(),
    }
    try:
        connection.execute(idempotency.insert(), row)
    except IntegrityError as exc:  # two at once, in PostgreSQL: the other one was first
        raise ConflictError(
            f"a request with the Idempotency-Key {attempt.key!r} is being answered. Send it again in a moment.",
            headers={"Retry-After": "1"},
        ) from exc
