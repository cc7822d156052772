"""Handing out what is to be labelled next: in the order of a selection, and never one item to two people at once."""

from __future__ import annotations

from dataclasses import dataclass

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from ._sql import upsert
from .database import later, now
from .pools import PoolRecord
from .tables import labels, leases, selection_picks, votes

__all__ = ["Leased", "release", "remaining", "take"]

_picks = selection_picks.alias("p")


@dataclass(frozen=True)
class Leased:
    """Ranks and positions that were handed out, and until when."""

    picks: tuple[tuple[int, int], ...]
    expires_at: str


def take(
    connection: Connection, pool: PoolRecord, selection_id: str, annotator: str, count: int, seconds: float
) -> Leased:
    """Lease the next picks that this annotator has said nothing of, within a transaction that locks the pool.

    A pool that wants r labels of each item leases it to at most as many people as labels are still wanted; items that
    an adjudicator has decided are not handed out. What the annotator holds already comes again, with a new lease.

    The time grows with the picks that stand before those that are found: a fifth of a second for 100,000.
    """
    connection.execute(leases.delete().where(leases.c.pool_uid == pool.uid, leases.c.expires_at <= now()))
    held = (
        sa.select(sa.func.count())
        .where(leases.c.pool_uid == pool.uid, leases.c.pos == _picks.c.pos, leases.c.annotator != annotator)
        .scalar_subquery()
    )
    given = sa.func.coalesce(
        sa.select(labels.c.n_votes)
        .where(labels.c.pool_uid == pool.uid, labels.c.pos == _picks.c.pos)
        .scalar_subquery(),
        0,
    )
    query = (
        sa.select(_picks.c.rank, _picks.c.pos)
        .where(*_open(pool, selection_id, annotator), given + held < int(pool.config["annotators"]))
        .order_by(_picks.c.rank)
        .limit(count)
    )
    found = [(row.rank, row.pos) for row in connection.execute(query)]
    expires = later(seconds)
    rows = [{"pool_uid": pool.uid, "pos": pos, "annotator": annotator, "expires_at": expires} for _, pos in found]
    upsert(connection, leases, rows)
    return Leased(tuple(found), expires)


def remaining(connection: Connection, pool: PoolRecord, selection_id: str, annotator: str) -> int:
    """How many picks lack a label that this annotator could give, whoever holds them now.

    All picks are looked at, which takes a moment for many: ask in a transaction that only reads.
    """
    query = sa.select(sa.func.count()).select_from(_picks).where(*_open(pool, selection_id, annotator))
    return int(connection.execute(query).scalar_one())


def _open(pool: PoolRecord, selection_id: str, annotator: str) -> tuple[sa.ColumnElement[bool], ...]:
    """Picks with fewer labels than wanted, none of them final, of which this annotator has said nothing."""
    mine = sa.and_(votes.c.annotator == annotator, votes.c.status != "retract")
    final = sa.and_(votes.c.adjudicated.is_(True), votes.c.status == "label")
    spoken = sa.exists().where(votes.c.pool_uid == pool.uid, votes.c.pos == _picks.c.pos, sa.or_(mine, final))
    enough = sa.exists().where(
        labels.c.pool_uid == pool.uid,
        labels.c.pos == _picks.c.pos,
        labels.c.n_votes >= int(pool.config["annotators"]),
    )
    return (_picks.c.selection_id == selection_id, ~enough, ~spoken)


def release(connection: Connection, pool: PoolRecord, annotator: str) -> int:
    """Give back what an annotator holds; return how many items that was."""
    gone = leases.delete().where(leases.c.pool_uid == pool.uid, leases.c.annotator == annotator)
    return connection.execute(gone).rowcount
