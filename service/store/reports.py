"""Reports on a pool: the newest of each kind, with what it was made from."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from ._sql import upsert
from .database import dumps, loads, now
from .pools import PoolRecord
from .tables import reports

__all__ = ["ReportRecord", "find", "keep"]


@dataclass(frozen=True)
class ReportRecord:
    """A report as its job left it."""

    kind: str
    job_id: str
    created_at: str
    made_from: Mapping[str, Any]
    content: Mapping[str, Any]


def keep(
    connection: Connection,
    pool: PoolRecord,
    kind: str,
    job_id: str,
    made_from: Mapping[str, Any],
    content: Mapping[str, Any],
) -> None:
    """Keep a report in place of the one before."""
    row = {
        "pool_uid": pool.uid,
        "kind": kind,
        "created_at": now(),
        "job_id": job_id,
        "made_from": dumps(dict(made_from)),
        "content": dumps(dict(content)),
    }
    upsert(connection, reports, [row])


def find(connection: Connection, pool: PoolRecord, kind: str) -> ReportRecord | None:
    """The report of a kind; None if none was made."""
    query = sa.select(reports).where(reports.c.pool_uid == pool.uid, reports.c.kind == kind)
    row = connection.execute(query).one_or_none()
    if row is None:
        return None
    return ReportRecord(row.kind, row.job_id, row.created_at, loads(row.made_from), loads(row.content))
