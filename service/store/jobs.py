"""Long work, as rows that outlive the process that does it.

A job is queued, then running with an owner who beats, then done, failed or cancelled. An owner that has not beaten for
a while is dead: its job goes back into the queue, and after :data:`ATTEMPTS` deaths it fails and says so. So no job
hangs.
"""

from __future__ import annotations

import secrets
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from ..errors import NotFoundError
from ._sql import insert
from .database import dumps, later, loads, now
from .pools import PoolRecord
from .tables import jobs

__all__ = [
    "ATTEMPTS",
    "FINAL",
    "LEASE_SECONDS",
    "JobRecord",
    "beat",
    "cancel",
    "claim",
    "counts",
    "end",
    "enqueue",
    "find",
    "give_back",
    "listing",
    "new_id",
    "pending",
    "requeue_dead",
    "requeue_of",
]

ATTEMPTS = 3
"""How often a job is begun before it fails."""

LEASE_SECONDS = 20.0
"""An owner that has not beaten for so long is dead."""

FINAL = ("done", "failed", "cancelled")

# Any number, the same in every process: who holds it claims.
_LOCK = 4_201_735


@dataclass(frozen=True)
class JobRecord:
    """A job as it stands."""

    seq: int
    id: str
    pool_uid: int
    pool_name: str
    kind: str
    params: Mapping[str, Any]
    state: str
    cancel: bool
    attempts: int
    owner: str | None
    beat_at: str | None
    done: int
    total: int | None
    unit: str
    message: str
    created_at: str
    started_at: str | None
    finished_at: str | None
    result: Mapping[str, Any] | None
    error: Mapping[str, Any] | None


def _record(row: Any) -> JobRecord:
    values = dict(row._mapping)
    for name in ("params", "result", "error"):
        values[name] = None if values[name] is None else loads(values[name])
    return JobRecord(**{**values, "cancel": bool(values["cancel"])})


def new_id(kind: str) -> str:
    """A name that nobody else has, such as ``job_3f…``."""
    return f"{kind}_{secrets.token_hex(12)}"


def enqueue(
    connection: Connection, pool: PoolRecord, kind: str, params: Mapping[str, Any], job_id: str | None = None
) -> JobRecord:
    """Add a job behind the others."""
    row = {
        "id": job_id or new_id("job"),
        "pool_uid": pool.uid,
        "pool_name": pool.name,
        "kind": kind,
        "params": dumps(dict(params)),
        "state": "queued",
        "cancel": False,
        "attempts": 0,
        "done": 0,
        "unit": "",
        "message": "waits for its turn",
        "created_at": now(),
    }
    insert(connection, jobs, [row])
    return find(connection, row["id"])  # type: ignore[arg-type]


def find(connection: Connection, job_id: str) -> JobRecord:
    """The job of an id, or NotFoundError."""
    row = connection.execute(sa.select(jobs).where(jobs.c.id == job_id)).one_or_none()
    if row is None:
        raise NotFoundError(f"there is no job {job_id!r}.")
    return _record(row)


def listing(connection: Connection, pool_name: str | None, state: str | None, limit: int) -> list[JobRecord]:
    """Jobs, newest first."""
    query = sa.select(jobs).order_by(jobs.c.seq.desc()).limit(limit)
    if pool_name is not None:
        query = query.where(jobs.c.pool_name == pool_name)
    if state is not None:
        query = query.where(jobs.c.state == state)
    return [_record(row) for row in connection.execute(query)]


def counts(connection: Connection) -> dict[str, int]:
    """How many jobs wait, and how many run."""
    query = sa.select(jobs.c.state, sa.func.count()).where(jobs.c.state.in_(("queued", "running")))
    found = {state: int(count) for state, count in connection.execute(query.group_by(jobs.c.state))}
    return {state: found.get(state, 0) for state in ("queued", "running")}


def pending(connection: Connection, pool: PoolRecord, kind: str) -> JobRecord | None:
    """A job of this kind that waits for its turn: what it will do covers whoever asks for it now."""
    of_kind = (jobs.c.pool_uid == pool.uid, jobs.c.kind == kind, jobs.c.state == "queued", jobs.c.cancel.is_(False))
    row = connection.execute(sa.select(jobs).where(*of_kind).order_by(jobs.c.seq).limit(1)).one_or_none()
    return None if row is None else _record(row)


def claim(connection: Connection, owner: str) -> JobRecord | None:
    """Take the oldest queued job of a pool that no running job works on; None if there is none."""
    if connection.dialect.name != "sqlite":
        connection.execute(sa.text("SELECT pg_advisory_xact_lock(:lock)"), {"lock": _LOCK})
    other = jobs.alias("other")
    busy = sa.exists().where(other.c.pool_uid == jobs.c.pool_uid, other.c.state == "running")
    query = sa.select(jobs.c.id).where(jobs.c.state == "queued", ~busy).order_by(jobs.c.seq).limit(1)
    # One that is being cancelled this moment is passed over; the next claim sees what became of it.
    job_id = connection.execute(query.with_for_update(of=jobs, skip_locked=True)).scalar_one_or_none()
    if job_id is None:
        return None
    moment = now()
    taken = {"state": "running", "owner": owner, "beat_at": moment, "started_at": moment, "message": "started"}
    connection.execute(jobs.update().where(jobs.c.id == job_id).values(**taken, attempts=jobs.c.attempts + 1))
    return find(connection, job_id)


def beat(connection: Connection, job_id: str, owner: str, **progress: Any) -> bool:
    """Say that the owner lives and how far it is; False if it should stop, because it was asked to or lost the job."""
    mine = (jobs.c.id == job_id, jobs.c.owner == owner, jobs.c.state == "running")
    changed = connection.execute(jobs.update().where(*mine).values(beat_at=now(), **progress)).rowcount
    if not changed:
        return False
    return not connection.execute(sa.select(jobs.c.cancel).where(*mine)).scalar_one()


def end(
    connection: Connection,
    job_id: str,
    owner: str,
    state: str,
    *,
    message: str,
    result: Mapping[str, Any] | None = None,
    error: Mapping[str, Any] | None = None,
) -> bool:
    """Give a running job of this owner its final state; False if it is another's by now."""
    mine = (jobs.c.id == job_id, jobs.c.owner == owner, jobs.c.state == "running")
    final = {
        "state": state,
        "message": message,
        "finished_at": now(),
        "result": None if result is None else dumps(dict(result)),
        "error": None if error is None else dumps(dict(error)),
    }
    return bool(connection.execute(jobs.update().where(*mine).values(**final)).rowcount)


def cancel(connection: Connection, job_id: str) -> JobRecord:
    """Ask a job to stop: a queued one does at once, a running one as soon as its owner looks."""
    query = sa.select(jobs.c.state).where(jobs.c.id == job_id).with_for_update()
    state = connection.execute(query).scalar_one_or_none()
    asked: dict[str, Any] = {"cancel": True}
    if state == "queued":
        asked |= {"state": "cancelled", "message": "cancelled before it began", "finished_at": now()}
    if state in ("queued", "running"):
        connection.execute(jobs.update().where(jobs.c.id == job_id).values(**asked))
    return find(connection, job_id)


def give_back(connection: Connection, job_id: str, owner: str, why: str) -> None:
    """Put a job back that its owner cannot finish now through no fault of the job, such as a shutdown."""
    mine = (jobs.c.id == job_id, jobs.c.owner == owner, jobs.c.state == "running")
    cancelled = connection.execute(sa.select(jobs.c.cancel).where(*mine).with_for_update()).scalar_one_or_none()
    if cancelled is None:
        return
    over = {"state": "cancelled", "finished_at": now()}
    again = {"state": "queued", "owner": None, "attempts": jobs.c.attempts - 1}
    connection.execute(jobs.update().where(jobs.c.id == job_id).values(message=why, **(over if cancelled else again)))


def requeue_dead(connection: Connection) -> list[str]:
    """Deal with the jobs of owners that have not beaten; return their ids."""
    return _requeue(connection, jobs.c.beat_at < later(-LEASE_SECONDS))


def requeue_of(connection: Connection, owner: str) -> list[str]:
    """Deal with the jobs of an owner that is known to be dead; a prefix of the name stands for all that begin so."""
    return _requeue(connection, sa.func.substr(jobs.c.owner, 1, len(owner)) == owner)


def _requeue(connection: Connection, dead: Any) -> list[str]:
    query = sa.select(jobs.c.id, jobs.c.attempts, jobs.c.cancel).where(jobs.c.state == "running", dead)
    rows = connection.execute(query.with_for_update(skip_locked=True)).all()
    for row in rows:
        values: dict[str, Any]
        if row.cancel:
            values = {"state": "cancelled", "finished_at": now(), "message": "cancelled; its process had ended"}
        elif row.attempts >= ATTEMPTS:
            reason = f"the process that did it ended {row.attempts} times before it was done; memory may be short"
            values = {
                "state": "failed",
                "finished_at": now(),
                "message": reason,
                "error": dumps({"title": "The worker died", "detail": reason, "status": 500}),
            }
        else:
            values = {"state": "queued", "owner": None, "message": "its process ended; it goes on in another"}
        connection.execute(jobs.update().where(jobs.c.id == row.id).values(**values))
    return [row.id for row in rows]
