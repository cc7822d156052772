"""Items of a pool: they are added, found and read; they never change and are never removed alone."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from icl_select._fingerprint import fingerprint
from icl_select.types import Example

from ..errors import NotFoundError
from ._sql import chunks
from .database import dumps, loads
from .pools import PoolRecord
from .tables import items, labels

__all__ = ["ItemRecord", "at", "content_of", "find", "page", "positions", "texts"]

_READ = 4_096


@dataclass(frozen=True)
class ItemRecord:
    """An item and the label it has now; ``pos`` is its place in the pool."""

    pos: int
    id: str
    text: str
    fields: Mapping[str, Any]
    metadata: Mapping[str, Any]
    label: str | None = None
    label_version: int | None = None
    n_votes: int = 0
    conflict: bool = False

    @property
    def example(self) -> Example:
        """The item as the library sees it."""
        return Example(self.id, self.text, self.fields, self.label, self.metadata)


def content_of(text: str, fields: Mapping[str, Any], metadata: Mapping[str, Any]) -> tuple[str, str]:
    """What is stored of an item, and the hash that says whether another one says the same."""
    parts: dict[str, Any] = {"text": text}
    # Most items are one field named text: it need not be kept twice.
    if dict(fields) != {"text": text}:
        parts["fields"] = dict(fields)
    if metadata:
        parts["metadata"] = dict(metadata)
    return dumps(parts), fingerprint(parts)


def _item(row: Any) -> ItemRecord:
    parts = loads(row.content)
    text = parts["text"]
    label = {
        "label": row.label,
        "label_version": row.label_version,
        "n_votes": row.n_votes or 0,
        "conflict": bool(row.conflict),
    }
    return ItemRecord(
        row.pos, row.item_id, text, parts.get("fields", {"text": text}), parts.get("metadata", {}), **label
    )


def _query(pool: PoolRecord) -> sa.Select[Any]:
    joined = items.outerjoin(labels, sa.and_(labels.c.pool_uid == items.c.pool_uid, labels.c.pos == items.c.pos))
    return (
        sa.select(
            items.c.pos,
            items.c.item_id,
            items.c.content,
            labels.c.label,
            labels.c.version.label("label_version"),
            labels.c.n_votes,
            labels.c.conflict,
        )
        .select_from(joined)
        .where(items.c.pool_uid == pool.uid, items.c.pos < pool.n_items)
    )


def page(
    connection: Connection, pool: PoolRecord, after: int, limit: int, labelled: bool | None = None
) -> list[ItemRecord]:
    """Items behind position `after`, in order; with or without a label where `labelled` says so."""
    query = _query(pool).where(items.c.pos > after).order_by(items.c.pos).limit(limit)
    if labelled is not None:
        query = query.where(labels.c.label.is_not(None) if labelled else labels.c.label.is_(None))
    return [_item(row) for row in connection.execute(query)]


def find(connection: Connection, pool: PoolRecord, item_id: str) -> ItemRecord:
    """The item of an id, or NotFoundError."""
    row = connection.execute(_query(pool).where(items.c.item_id == item_id)).one_or_none()
    if row is None:
        raise NotFoundError(f"the pool {pool.name!r} of {pool.n_items} items has no item {item_id!r}.")
    return _item(row)


def at(connection: Connection, pool: PoolRecord, wanted: Sequence[int]) -> dict[int, ItemRecord]:
    """Items by their positions."""
    found: dict[int, ItemRecord] = {}
    for some in chunks(list(wanted)):
        found.update((row.pos, _item(row)) for row in connection.execute(_query(pool).where(items.c.pos.in_(some))))
    return found


def positions(connection: Connection, pool: PoolRecord, ids: Sequence[str]) -> dict[str, int]:
    """Positions of those of the ids that the pool has."""
    found: dict[str, int] = {}
    for some in chunks(list(ids)):
        query = sa.select(items.c.item_id, items.c.pos).where(
            items.c.pool_uid == pool.uid, items.c.pos < pool.n_items, items.c.item_id.in_(some)
        )
        found.update((row.item_id, row.pos) for row in connection.execute(query))
    return found


def texts(connection: Connection, pool: PoolRecord, start: int, stop: int) -> Iterator[str]:
    """Texts at the positions from `start` up to `stop`, in order."""
    for low in range(start, stop, _READ):
        query = (
            sa.select(items.c.content)
            .where(items.c.pool_uid == pool.uid, items.c.pos >= low, items.c.pos < min(low + _READ, stop))
            .order_by(items.c.pos)
        )
        for content in connection.execute(query).scalars():
            yield loads(content)["text"]
