"""Pools: what they are called, how they are set up, and their versions."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Connection
from sqlalchemy.exc import IntegrityError

from icl_select._fingerprint import fingerprint
from icl_select.errors import suggest

from ..errors import ConflictError, NotFoundError
from ._sql import chunks
from .database import dumps, loads, now
from .tables import (
    embeddings,
    items,
    jobs,
    label_events,
    label_history,
    labels,
    leases,
    pools,
    prompts,
    reports,
    selection_picks,
    selections,
    votes,
)

__all__ = ["PoolRecord", "by_uid", "configure", "create", "delete", "find", "listing", "lock", "lock_uid", "update"]

# Names compared with one that is not there: comparing takes time, and prompts of all pools wait for it.
_SUGGESTED = 200
# Made once: putting it together costs more than running it.
_BY_NAME = sa.select(pools).where(pools.c.name == sa.bindparam("name"))


@dataclass(frozen=True)
class PoolRecord:
    """A pool as one transaction sees it; ``config`` is what :class:`icl_select.service.schemas.PoolIn` holds."""

    uid: int
    name: str
    created_at: str
    config: Mapping[str, Any]
    n_items: int
    version: int
    labels_version: int
    n_labelled: int
    fingerprint: str
    embedding_id: str | None
    upload: str | None
    upload_until: str | None


def _record(row: Any) -> PoolRecord:
    values = dict(row._mapping)
    return PoolRecord(**{**values, "config": loads(values["config"])})


def create(connection: Connection, name: str, config: Mapping[str, Any]) -> PoolRecord:
    """Make an empty pool; ConflictError if the name is taken."""
    row = {
        "name": name,
        "created_at": now(),
        "config": dumps(dict(config)),
        "n_items": 0,
        "version": 0,
        "labels_version": 0,
        "n_labelled": 0,
        "fingerprint": fingerprint(),
    }
    try:
        connection.execute(pools.insert(), row)
    except IntegrityError as exc:
        raise ConflictError(f"a pool named {name!r} exists already. Choose another name, or delete it first.") from exc
    return find(connection, name)


def find(connection: Connection, name: str) -> PoolRecord:
    """The pool of a name; NotFoundError suggests the nearest one."""
    return _one(connection, name, _BY_NAME)


def by_uid(connection: Connection, uid: int) -> PoolRecord:
    """The pool of a number; a pool that was deleted and made again under its name is another one."""
    row = connection.execute(sa.select(pools).where(pools.c.uid == uid)).one_or_none()
    if row is None:
        raise NotFoundError("the pool was deleted meanwhile.")
    return _record(row)


def lock(connection: Connection, name: str) -> PoolRecord:
    """The pool, which nobody else changes until this transaction has ended."""
    return _one(connection, name, _BY_NAME.with_for_update())


def lock_uid(connection: Connection, uid: int) -> PoolRecord:
    """As :func:`lock`; a pool that was deleted and made again under its name is another one."""
    row = connection.execute(sa.select(pools).where(pools.c.uid == uid).with_for_update()).one_or_none()
    if row is None:
        raise NotFoundError("the pool was deleted meanwhile.")
    return _record(row)


def _one(connection: Connection, name: str, query: sa.Select[Any]) -> PoolRecord:
    row = connection.execute(query, {"name": name}).one_or_none()
    if row is None:
        names = connection.execute(sa.select(pools.c.name).order_by(pools.c.name).limit(_SUGGESTED)).scalars().all()
        hint = suggest(name, names) if names else " There is none yet: POST /v1/pools makes one."
        raise NotFoundError(f"there is no pool {name!r}.{hint}")
    return _record(row)


def listing(connection: Connection, after: str | None, limit: int) -> list[PoolRecord]:
    """Pools by name, from behind `after`."""
    query = sa.select(pools).order_by(pools.c.name).limit(limit)
    if after is not None:
        query = query.where(pools.c.name > after)
    return [_record(row) for row in connection.execute(query)]


def configure(connection: Connection, pool: PoolRecord, changes: Mapping[str, Any]) -> PoolRecord:
    """Change some of the configuration of a locked pool."""
    return update(connection, pool, config=dumps({**pool.config, **changes}))


def update(connection: Connection, pool: PoolRecord, **values: Any) -> PoolRecord:
    """Change columns of a locked pool and return it as it is then."""
    connection.execute(pools.update().where(pools.c.uid == pool.uid).values(**values))
    return _record(connection.execute(sa.select(pools).where(pools.c.uid == pool.uid)).one())


def delete(connection: Connection, name: str) -> PoolRecord:
    """Remove a pool and all that belongs to it; running jobs are asked to stop."""
    pool = lock(connection, name)
    selected = connection.execute(sa.select(selections.c.id).where(selections.c.pool_uid == pool.uid)).scalars().all()
    for some in chunks(selected):
        connection.execute(selection_picks.delete().where(selection_picks.c.selection_id.in_(some)))
    for table in (items, label_events, votes, labels, label_history, leases, embeddings, selections, reports, prompts):
        connection.execute(table.delete().where(table.c.pool_uid == pool.uid))
    _stop_jobs(connection, pool)
    connection.execute(pools.delete().where(pools.c.uid == pool.uid))
    return pool


def _stop_jobs(connection: Connection, pool: PoolRecord) -> None:
    """One statement, so that a job that is claimed this moment is not missed between two."""
    waits = jobs.c.state == "queued"
    connection.execute(
        jobs.update()
        .where(jobs.c.pool_uid == pool.uid, jobs.c.state.in_(("queued", "running")))
        .values(
            cancel=True,
            state=sa.case((waits, "cancelled"), else_=jobs.c.state),
            finished_at=sa.case((waits, now()), else_=jobs.c.finished_at),
            message=sa.case((waits, "the pool was deleted"), else_=jobs.c.message),
        )
    )
