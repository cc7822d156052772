"""Labels: words of annotators come in, are kept for ever, and resolve to one label for each item.

An item's label is what the latest words of its annotators resolve to (:mod:`icl_select.service.store.words`). Every
request that changes anything makes a new version of the pool's labels; what each item resolved to is kept for every
version, so a prompt can be rebuilt as it was.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from ..errors import InvalidError
from ._sql import chunks, insert, upsert
from .database import now
from .pools import PoolRecord, update
from .tables import items, label_events, label_history, labels, leases, votes
from .words import Word, adds_nothing, made_at, resolve, said_at, unsettled

__all__ = [
    "LabelRecord",
    "Word",
    "Written",
    "annotators",
    "conflicts",
    "history",
    "labelled_at",
    "labelled_positions",
    "made_at",
    "page",
    "since",
    "take_uploaded",
    "votes_of_pool",
    "write",
]

UPLOAD = "upload"
"""The annotator of labels that came with the rows of an upload."""

_PLACES = 24  # bits for the place of a word in its request

_Said = dict[str, Any]
_Standing = dict[int, dict[str, _Said]]  # position -> annotator -> the word that counts


@dataclass(frozen=True)
class Written:
    """What taking words did; ``pool`` is the pool as it is then."""

    pool: PoolRecord
    written: int
    unchanged: int
    changed: int
    conflicts: tuple[int, ...]


@dataclass(frozen=True)
class LabelRecord:
    """The label of an item at a version."""

    pos: int
    id: str
    label: str | None
    version: int
    n_votes: int
    conflict: bool


def write(connection: Connection, pool: PoolRecord, words: Sequence[Word], key_id: str | None = None) -> Written:
    """Take words of annotators into a locked pool, all in one version.

    A word that was taken before, or repeats what its annotator said last, changes nothing: sending a request twice is
    safe. A word older than what its annotator said last is kept, and decides nothing.
    """
    if len(words) >= 1 << _PLACES:
        raise InvalidError(f"one request takes fewer than {1 << _PLACES:,} labels. Send them in parts.")
    version, received = pool.labels_version + 1, now()
    standing = _votes_at(connection, pool, sorted({word.pos for word in words}))
    news, latest = _news(connection, pool, words, standing, version << _PLACES, received)
    if not news:
        return Written(pool, 0, len(words), 0, ())
    of_request = {"version": version, "received_at": received, "key_id": key_id}
    insert(connection, label_events, [{**said, **of_request} for said in news])
    upsert(connection, votes, latest)
    _release(connection, pool, news)
    resolved = {said["pos"]: resolve(standing[said["pos"]], str(pool.config["resolve"])) for said in latest}
    changed, gained = _settle(connection, pool, resolved, version)
    pool = update(connection, pool, labels_version=version, n_labelled=pool.n_labelled + gained)
    open_ = tuple(pos for pos, (_, _, conflict) in resolved.items() if conflict)
    return Written(pool, len(news), len(words) - len(news), changed, open_)


def _news(
    connection: Connection, pool: PoolRecord, words: Sequence[Word], standing: _Standing, event: int, received: str
) -> tuple[list[_Said], list[_Said]]:
    """The words that were not taken before, and those of them that count; `standing` is brought up to date."""
    how = str(pool.config["resolve"])
    news: list[_Said] = []
    latest: dict[tuple[int, str], _Said] = {}
    taken: set[Word] = set()
    for word in unsettled(words, standing, how):
        heard = standing.setdefault(word.pos, {})
        before = heard[word.annotator]["created_at"] if word.annotator in heard else ""
        said = {**asdict(word), "created_at": said_at(word, heard, received), "event": event + len(news)}
        if adds_nothing(word, said, heard, how):
            continue
        may_be_kept = word.created_at is not None and word.created_at <= before
        if may_be_kept and (word in taken or _is_kept(connection, pool, word)):
            continue
        taken.add(word)
        news.append({**said, "pool_uid": pool.uid})
        if said["created_at"] >= before:
            heard[word.annotator] = latest[word.pos, word.annotator] = news[-1]
    return news, list(latest.values())


def _is_kept(connection: Connection, pool: PoolRecord, word: Word) -> bool:
    """Whether this very word was taken before: a request that is sent again must not be told twice."""
    same = {name: getattr(word, name) for name in ("pos", "annotator", "status", "adjudicated", "created_at")}
    query = label_events.select().where(label_events.c.pool_uid == pool.uid).filter_by(**same)
    return any(row.label == word.label for row in connection.execute(query))


def _votes_at(connection: Connection, pool: PoolRecord, wanted: Sequence[int]) -> _Standing:
    found: _Standing = {}
    for some in chunks(wanted):
        for row in connection.execute(sa.select(votes).where(votes.c.pool_uid == pool.uid, votes.c.pos.in_(some))):
            found.setdefault(row.pos, {})[row.annotator] = dict(row._mapping)
    return found


def _settle(
    connection: Connection, pool: PoolRecord, resolved: Mapping[int, tuple[str | None, int, bool]], version: int
) -> tuple[int, int]:
    """Write what changed; return how many labels changed, and how many more items have one."""
    before: dict[int, Any] = {}
    for some in chunks(list(resolved)):
        query = sa.select(labels).where(labels.c.pool_uid == pool.uid, labels.c.pos.in_(some))
        before.update((row.pos, row) for row in connection.execute(query))
    rows, past, gained = [], [], 0
    for pos, (label, n_votes, conflict) in resolved.items():
        old = before.get(pos)
        stood = None if old is None else old.label
        if label != stood:
            past.append({"pool_uid": pool.uid, "pos": pos, "version": version, "label": label})
            gained += (label is not None) - (stood is not None)
        since_ = version if label != stood or old is None else old.version
        state = {"label": label, "version": since_, "n_votes": n_votes, "conflict": conflict}
        rows.append({"pool_uid": pool.uid, "pos": pos, **state})
    upsert(connection, labels, rows)
    insert(connection, label_history, past)
    return len(past), gained


def _release(connection: Connection, pool: PoolRecord, events: Sequence[Mapping[str, Any]]) -> None:
    """Whoever has spoken of an item holds it no longer."""
    mine = sa.and_(
        leases.c.pool_uid == pool.uid, leases.c.pos == sa.bindparam("at"), leases.c.annotator == sa.bindparam("who")
    )
    if connection.execute(sa.select(sa.exists().where(leases.c.pool_uid == pool.uid))).scalar():
        gone = [{"at": event["pos"], "who": event["annotator"]} for event in events]
        connection.execute(leases.delete().where(mine), gone)


def take_uploaded(connection: Connection, pool: PoolRecord, start: int, stop: int) -> PoolRecord:
    """Make words of the labels that came with new rows; nobody can have spoken of these items before.

    All in SQL: a million labels pass through no memory of ours.
    """
    fresh = sa.and_(
        items.c.pool_uid == pool.uid, items.c.pos >= start, items.c.pos < stop, items.c.uploaded_label.is_not(None)
    )
    count = connection.execute(sa.select(sa.func.count()).select_from(items).where(fresh)).scalar_one()
    if not count:
        return pool
    version, moment = pool.labels_version + 1, now()
    event = sa.literal(version << _PLACES) + items.c.pos - start
    if stop - start >= 1 << _PLACES:
        raise InvalidError(f"one upload takes fewer than {1 << _PLACES:,} labelled rows. Send it in parts.")
    said: dict[str, Any] = {
        "pool_uid": items.c.pool_uid,
        "pos": items.c.pos,
        "annotator": sa.literal(UPLOAD),
        "status": sa.literal("label"),
        "label": items.c.uploaded_label,
        "adjudicated": sa.false(),
        "created_at": sa.literal(moment),
        "event": event,
    }
    key = {"pool_uid": items.c.pool_uid, "pos": items.c.pos, "label": items.c.uploaded_label}
    versioned = {**key, "version": sa.literal(version)}
    for table, columns in (
        (label_events, {**said, "version": sa.literal(version), "received_at": sa.literal(moment)}),
        (votes, said),
        (labels, {**versioned, "n_votes": sa.literal(1), "conflict": sa.false()}),
        (label_history, versioned),
    ):
        rows = sa.select(*(value.label(name) for name, value in columns.items())).where(fresh)
        connection.execute(table.insert().from_select(list(columns), rows, include_defaults=False))
    return update(connection, pool, labels_version=version, n_labelled=pool.n_labelled + count)


def since(connection: Connection, uid: int, after: int, upto: int) -> list[tuple[int, str | None]]:
    """What changed behind version `after`, up to `upto`: position and label, the last change of each position last."""
    query = (
        sa.select(label_history.c.pos, label_history.c.label)
        .where(label_history.c.pool_uid == uid, label_history.c.version > after, label_history.c.version <= upto)
        .order_by(label_history.c.version)
    )
    return [(row.pos, row.label) for row in connection.execute(query)]


def labelled_at(connection: Connection, uid: int, wanted: Sequence[int], version: int) -> dict[int, str | None]:
    """Labels of some positions as of a version."""
    found: dict[int, str | None] = {}
    for some in chunks(list(wanted)):
        query = (
            sa.select(label_history.c.pos, label_history.c.label)
            .where(label_history.c.pool_uid == uid, label_history.c.pos.in_(some), label_history.c.version <= version)
            .order_by(label_history.c.version)
        )
        found.update((row.pos, row.label) for row in connection.execute(query))
    return found


def labelled_positions(connection: Connection, pool: PoolRecord) -> list[int]:
    """Positions that have a label now, ascending."""
    query = sa.select(labels.c.pos).where(labels.c.pool_uid == pool.uid, labels.c.label.is_not(None))
    return list(connection.execute(query.order_by(labels.c.pos)).scalars())


def page(connection: Connection, pool: PoolRecord, version: int, after: int, limit: int) -> list[LabelRecord]:
    """Labels as of a version, in item order, behind position `after`; votes are those of now."""
    last = (
        sa.select(label_history.c.pos, sa.func.max(label_history.c.version).label("version"))
        .where(label_history.c.pool_uid == pool.uid, label_history.c.version <= version, label_history.c.pos > after)
        .group_by(label_history.c.pos)
        .order_by(label_history.c.pos)
        .limit(limit)
        .subquery()
    )
    of_pool = label_history.c.pool_uid == pool.uid
    past = sa.and_(of_pool, label_history.c.pos == last.c.pos, label_history.c.version == last.c.version)
    query = (
        sa.select(
            last.c.pos, items.c.item_id, label_history.c.label, last.c.version, labels.c.n_votes, labels.c.conflict
        )
        .select_from(last.join(label_history, past))
        .join(items, sa.and_(items.c.pool_uid == pool.uid, items.c.pos == last.c.pos))
        .join(labels, sa.and_(labels.c.pool_uid == pool.uid, labels.c.pos == last.c.pos))
        .order_by(last.c.pos)
    )
    return [
        LabelRecord(row.pos, row.item_id, row.label, row.version, row.n_votes, bool(row.conflict))
        for row in connection.execute(query)
    ]


def history(connection: Connection, pool: PoolRecord, pos: int) -> list[Any]:
    """Every word that was said of an item, in the order in which it was taken."""
    query = sa.select(label_events).where(label_events.c.pool_uid == pool.uid, label_events.c.pos == pos)
    return list(connection.execute(query.order_by(label_events.c.event)))


def conflicts(connection: Connection, pool: PoolRecord, limit: int) -> list[str]:
    """Ids of items on which annotators disagree, in item order."""
    query = (
        sa.select(items.c.item_id)
        .select_from(labels.join(items, sa.and_(items.c.pool_uid == labels.c.pool_uid, items.c.pos == labels.c.pos)))
        .where(labels.c.pool_uid == pool.uid, labels.c.conflict.is_(True))
        .order_by(labels.c.pos)
        .limit(limit)
    )
    return list(connection.execute(query).scalars())


def annotators(connection: Connection, pool: PoolRecord) -> int:
    """How many annotators have said something of the pool."""
    query = sa.select(sa.func.count(sa.distinct(votes.c.annotator))).where(votes.c.pool_uid == pool.uid)
    return int(connection.execute(query).scalar_one())


def votes_of_pool(connection: Connection, pool: PoolRecord) -> Iterator[tuple[str, str, str, str]]:
    """Item id, annotator, label and time of every vote that counts, in item order."""
    query = (
        sa.select(items.c.item_id, votes.c.annotator, votes.c.label, votes.c.created_at)
        .select_from(votes.join(items, sa.and_(items.c.pool_uid == votes.c.pool_uid, items.c.pos == votes.c.pos)))
        .where(votes.c.pool_uid == pool.uid, votes.c.status == "label")
        .order_by(votes.c.pos, votes.c.event)
    )
    for row in connection.execute(query):
        yield row.item_id, row.annotator, row.label, row.created_at
