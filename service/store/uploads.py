"""Adding items: rows go in unseen, part by part, and are seen all at once or never.

Rows stand at positions behind those that the pool shows, until :meth:`Upload.finish` moves the border. Short
transactions let labels be written meanwhile. One upload writes to a pool at a time; what a dead one left behind is
removed by the next.
"""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from icl_select._fingerprint import fingerprint

from ..errors import ConflictError, InvalidError
from . import labels as labels_store
from ._sql import chunks, insert
from .database import Database, later, now
from .items import content_of
from .pools import PoolRecord, lock, lock_uid, update
from .tables import items, labels, pools

__all__ = ["NewItem", "Upload", "Uploaded"]

# An upload that has not written for so long is taken for dead.
_SECONDS = 120.0
_REMOVED = 20_000
_ANALYSED = 4_000
# Labels of older items are written in so large parts: the memory they take does not grow with the upload.
_RELABELLED = 5_000


@dataclass(frozen=True)
class NewItem:
    """A row on its way into the pool. Without a given id, ``base`` (a hash of the content) names it."""

    place: str
    id: str | None
    base: str
    text: str
    fields: Mapping[str, Any]
    metadata: Mapping[str, Any]
    label: str | None


@dataclass(frozen=True)
class Uploaded:
    """What an upload did."""

    pool: PoolRecord
    added: int
    unchanged: int
    labelled: int


class Upload:
    """One upload into one pool: begin, add part after part, then finish or abort.

    Every method is one transaction. After one that failed, nothing is left to do but to abort.
    """

    def __init__(self, database: Database, pool_name: str, *, max_items: int) -> None:
        self._database = database
        self._name = pool_name
        self._max_items = max_items
        self._token = secrets.token_hex(8)
        self._digest = hashlib.sha256()
        self._uid = 0
        self._start = 0
        self._next = 0
        self._unchanged = 0
        self._analysed = _ANALYSED
        # Which of the older items, by position, this upload has met.
        self._met = bytearray()
        # How often contents came so far, of those that come again: the next one needs not count from the beginning.
        self._repeats: dict[tuple[str, str], int] = {}
        # Labels of rows that the pool has already, where they say something new.
        self._relabelled: dict[int, str] = {}

    def begin(self) -> PoolRecord:
        """Take the pool's place for uploads; ConflictError while another upload has it."""
        with self._database.write() as connection:
            pool = lock(connection, self._name)
            if pool.upload is not None and (pool.upload_until or "") > now():
                raise ConflictError(
                    f"another upload into the pool {pool.name!r} is running. Send this one when that has finished.",
                    headers={"Retry-After": "5"},
                )
            pool = update(connection, pool, upload=self._token, upload_until=later(_SECONDS))
        self._uid, self._start, self._next = pool.uid, pool.n_items, pool.n_items
        self._met = bytearray(pool.n_items)
        self._sweep()
        return pool

    def add(self, rows: Sequence[NewItem]) -> None:
        """Write one part.

        Raises
        ------
        ConflictError
            If an id is taken by an item of other content, or the pool grows above its limit.
        InvalidError
            If a row holds what JSON cannot.
        """
        with self._database.write() as connection:
            pool = self._mine(connection)
            known = self._known(connection, rows)
            fresh: list[dict[str, Any]] = []
            said: dict[int, str] = {}
            for row in rows:
                content, hashed = _content(row)
                name = row.id if row.id is not None else self._name_of(connection, row.base, hashed, known)
                if name in known:
                    pos = self._meet(row, name, known[name], hashed)
                    if row.label is not None:
                        said[pos] = row.label
                    continue
                known[name] = (self._next + len(fresh), hashed)
                fresh.append(
                    {
                        "pool_uid": self._uid,
                        "pos": self._next + len(fresh),
                        "item_id": name,
                        "content": content,
                        "hash": hashed,
                        "uploaded_label": row.label,
                    }
                )
                self._digest.update(f"{name}\0{hashed}\n".encode())
            if self._next + len(fresh) > self._max_items:
                raise ConflictError(f"the pool would hold more than {self._max_items:,} items, which is its limit.")
            insert(connection, items, fresh)
            self._relabel(connection, said)
            update(connection, pool, upload_until=later(_SECONDS))
            self._analyse(connection, self._next + len(fresh))
        self._next += len(fresh)

    def _analyse(self, connection: Connection, size: int) -> None:
        """Let PostgreSQL look at a table that grows fast. Until it has, it expects few rows of a pool and many of a few
        ids, and reads the whole pool for each part.
        """
        if not self._database.is_sqlite and size - self._start >= self._analysed:
            connection.execute(sa.text(f"ANALYZE (SKIP_LOCKED) {items.name}"))
            self._analysed = 4 * (size - self._start)

    def finish(self, connection: Connection) -> Uploaded:
        """Let the rows be seen, with their labels, within a transaction of the caller's."""
        pool = self._mine(connection)
        added = self._next - self._start
        if added:
            chain = fingerprint(pool.fingerprint, self._digest.hexdigest())
            pool = update(connection, pool, n_items=self._next, version=pool.version + 1, fingerprint=chain)
        before = pool.n_labelled
        pool = labels_store.take_uploaded(connection, pool, self._start, self._next)
        labelled = pool.n_labelled - before
        for some in chunks(list(self._relabelled.items()), _RELABELLED):
            words = [labels_store.Word(pos, labels_store.UPLOAD, "label", label, False, None) for pos, label in some]
            written = labels_store.write(connection, pool, words)
            pool, labelled = written.pool, labelled + written.changed
        pool = update(connection, pool, upload=None, upload_until=None)
        return Uploaded(pool, added, self._unchanged, labelled)

    def abort(self) -> None:
        """Remove what was written, as far as this upload still has its place."""
        with self._database.read() as connection:
            row = connection.execute(sa.select(pools.c.upload).where(pools.c.uid == self._uid)).one_or_none()
        if row is None or row.upload != self._token:
            return
        self._sweep()
        with self._database.write() as connection:
            pool = self._mine(connection)
            update(connection, pool, upload=None, upload_until=None)

    def _mine(self, connection: Connection) -> PoolRecord:
        pool = lock_uid(connection, self._uid)
        if pool.upload != self._token:
            raise ConflictError(f"this upload paused for more than {_SECONDS:.0f} s and lost its place. Send it again.")
        return pool

    def _known(self, connection: Connection, rows: Sequence[NewItem]) -> dict[str, tuple[int, str]]:
        """Positions and hashes of the items that bear a name of these rows, also unseen ones."""
        names = list({row.id if row.id is not None else row.base for row in rows})
        found: dict[str, tuple[int, str]] = {}
        for some in chunks(names):
            query = sa.select(items.c.item_id, items.c.pos, items.c.hash).where(
                items.c.pool_uid == self._uid, items.c.item_id.in_(some)
            )
            found.update((row.item_id, (row.pos, row.hash)) for row in connection.execute(query))
        return found

    def _name_of(self, connection: Connection, base: str, hashed: str, known: dict[str, tuple[int, str]]) -> str:
        """The content's hash; a repeat within this upload gets -2, -3 …, as in a pool file.

        A row that an earlier upload brought is met, not repeated: sending a file again adds nothing.
        """
        repeat = self._repeats.get((base, hashed), 0) + 1
        while True:
            name = base if repeat == 1 else f"{base}-{repeat}"
            if name not in known:
                query = sa.select(items.c.pos, items.c.hash).where(
                    items.c.pool_uid == self._uid, items.c.item_id == name
                )
                row = connection.execute(query).one_or_none()
                if row is None:
                    break
                known[name] = (row.pos, row.hash)
            pos, kept = known[name]
            if pos < self._start and kept == hashed and not self._met[pos]:
                break
            repeat += 1
        if repeat > 1:
            self._repeats[base, hashed] = repeat
        return name

    def _meet(self, row: NewItem, name: str, known: tuple[int, str], hashed: str) -> int:
        """Position of the older item of a row; it must say the same."""
        pos, kept = known
        if kept != hashed:
            raise ConflictError(
                f"{row.place}: the id {name!r} belongs to an item of other content. Items never change, since labels "
                "and prompts rest on them: give the new text an id of its own."
            )
        if pos >= self._start or self._met[pos]:
            raise ConflictError(f"{row.place}: the id {name!r} comes twice in this upload. Ids must be unique.")
        self._met[pos] = 1
        self._unchanged += 1
        return pos

    def _relabel(self, connection: Connection, said: Mapping[int, str]) -> None:
        """Note the labels of older items that differ from what stands."""
        stands: dict[int, str | None] = {}
        for some in chunks(list(said)):
            query = sa.select(labels.c.pos, labels.c.label).where(
                labels.c.pool_uid == self._uid, labels.c.pos.in_(some)
            )
            stands.update((row.pos, row.label) for row in connection.execute(query))
        self._relabelled.update((pos, label) for pos, label in said.items() if stands.get(pos) != label)

    def _sweep(self) -> None:
        """Remove unseen rows, in parts, so that nobody waits long."""
        while True:
            with self._database.write() as connection:
                pool = self._mine(connection)
                unseen = sa.select(items.c.pos).where(items.c.pool_uid == self._uid, items.c.pos >= pool.n_items)
                some = connection.execute(unseen.order_by(items.c.pos).limit(_REMOVED)).scalars().all()
                if not some:
                    return
                gone = sa.and_(items.c.pool_uid == self._uid, items.c.pos >= pool.n_items, items.c.pos <= some[-1])
                connection.execute(items.delete().where(gone))


def _content(row: NewItem) -> tuple[str, str]:
    try:
        return content_of(row.text, row.fields, row.metadata)
    except (TypeError, ValueError) as exc:
        raise InvalidError(
            f"{row.place}: a field holds what JSON cannot: {exc}. Make it a string or a number."
        ) from exc
