"""Selections: asked for, then filled by their job."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from ..errors import NotFoundError
from ._sql import chunks, insert
from .database import dumps, loads, now
from .pools import PoolRecord
from .tables import labels, selection_picks, selections

__all__ = ["SelectionRecord", "create", "fill", "find", "labelled", "listing", "picks"]


@dataclass(frozen=True)
class SelectionRecord:
    """A selection; ``result`` is None until its job is done."""

    id: str
    pool_uid: int
    job_id: str
    method: str
    budget: int
    seed: int
    created_at: str
    result: Mapping[str, Any] | None


def _record(row: Any) -> SelectionRecord:
    result = None if row.result is None else loads(row.result)
    return SelectionRecord(
        row.id, row.pool_uid, row.job_id, row.method, row.budget, int(row.seed), row.created_at, result
    )


def create(
    connection: Connection, pool: PoolRecord, selection_id: str, job_id: str, method: str, budget: int, seed: int
) -> SelectionRecord:
    """Note what was asked for."""
    moment = now()
    row = {
        "id": selection_id,
        "pool_uid": pool.uid,
        "job_id": job_id,
        "method": method,
        "budget": budget,
        "seed": str(seed),
        "created_at": moment,
    }
    insert(connection, selections, [row])
    return SelectionRecord(selection_id, pool.uid, job_id, method, budget, seed, moment, None)


def fill(
    connection: Connection,
    selection_id: str,
    positions: Sequence[int],
    gains: Sequence[float],
    result: Mapping[str, Any],
) -> None:
    """Write what came out. A job that is done a second time writes the same again."""
    connection.execute(selection_picks.delete().where(selection_picks.c.selection_id == selection_id))
    rows = [
        {"selection_id": selection_id, "rank": rank, "pos": int(pos), "gain": float(gain)}
        for rank, (pos, gain) in enumerate(zip(positions, gains, strict=True))
    ]
    for some in chunks(rows, 20_000):
        insert(connection, selection_picks, some)
    connection.execute(selections.update().where(selections.c.id == selection_id).values(result=dumps(dict(result))))


def find(connection: Connection, pool: PoolRecord, selection_id: str) -> SelectionRecord:
    """The selection of an id, or NotFoundError."""
    query = sa.select(selections).where(selections.c.pool_uid == pool.uid, selections.c.id == selection_id)
    row = connection.execute(query).one_or_none()
    if row is None:
        raise NotFoundError(f"the pool {pool.name!r} has no selection {selection_id!r}.")
    return _record(row)


def listing(connection: Connection, pool: PoolRecord, limit: int) -> list[SelectionRecord]:
    """Selections of a pool, newest first."""
    query = sa.select(selections).where(selections.c.pool_uid == pool.uid)
    newest = query.order_by(selections.c.created_at.desc(), selections.c.id).limit(limit)
    return [_record(row) for row in connection.execute(newest)]


def picks(connection: Connection, selection_id: str, after: int, upto: int, limit: int) -> list[tuple[int, int, float]]:
    """Rank, position and gain of the picks behind rank `after` and below rank `upto`."""
    query = sa.select(selection_picks.c.rank, selection_picks.c.pos, selection_picks.c.gain).where(
        selection_picks.c.selection_id == selection_id, selection_picks.c.rank > after, selection_picks.c.rank < upto
    )
    ordered = query.order_by(selection_picks.c.rank).limit(limit)
    return [(row.rank, row.pos, row.gain) for row in connection.execute(ordered)]


def labelled(connection: Connection, pool: PoolRecord, selection_id: str) -> int:
    """How many picks of a selection have a label by now."""
    same = sa.and_(labels.c.pool_uid == pool.uid, labels.c.pos == selection_picks.c.pos)
    query = (
        sa.select(sa.func.count())
        .select_from(selection_picks.join(labels, same))
        .where(selection_picks.c.selection_id == selection_id, labels.c.label.is_not(None))
    )
    return int(connection.execute(query).scalar_one())
