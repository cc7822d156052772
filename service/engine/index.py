"""The labelled items of a pool, as they are searched: derived from labels and vectors, versioned, never stale.

An index belongs to one embedding and one version of the labels. It grows by what changed since the version before, and
is never used for another version than the one that the same transaction has read.
"""

from __future__ import annotations

import dataclasses
import time
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
from sqlalchemy.engine import Connection

from icl_select._fingerprint import fingerprint
from icl_select.retrieve import Retriever

from ..errors import ConflictError, StaleError
from ..store import embeddings as embeddings_store
from ..store import items as items_store
from ..store import labels as labels_store
from ..store.embeddings import EmbeddingRecord
from ..store.pools import PoolRecord
from ..vectors import VectorFiles

__all__ = ["Indexes", "LabelledIndex", "Shown"]

Vectors = npt.NDArray[np.float32]

_MOST_BYTES = 2 * 1024**3
# What an item takes beside its vector and text, about.
_ITEM_BYTES = 1_000


@dataclass(frozen=True, slots=True)
class Shown:
    """What a template sees of an item; it never changes."""

    id: str
    fields: dict[str, Any]


@dataclass(frozen=True)
class LabelledIndex:
    """The labelled items at one version. ``positions``, ``shown`` and ``labels`` go with the rows of ``retriever``."""

    pool: PoolRecord
    embedding: EmbeddingRecord
    positions: tuple[int, ...]
    retriever: Retriever
    shown: tuple[Shown, ...]
    labels: tuple[str, ...]
    version: str
    built_at: float

    def __len__(self) -> int:
        return len(self.positions)

    @property
    def key(self) -> tuple[int, int, int, str]:
        """Pool, its versions, and its embedding: what an answer depends on beside query and options."""
        return self.pool.uid, self.pool.version, self.pool.labels_version, self.embedding.id


@dataclass
class _Growing:
    """What is kept of one pool between versions; ``index`` is None until that of ``labels_version`` is built."""

    embedding: EmbeddingRecord
    labels_version: int = 0
    labels: dict[int, str] = field(default_factory=dict)
    shown: dict[int, Shown] = field(default_factory=dict)
    row_of: dict[int, int] = field(default_factory=dict)
    vectors: Vectors = field(default_factory=lambda: np.empty((0, 0), dtype=np.float32))
    size: int = 0
    index: LabelledIndex | None = None


class Indexes:
    """The newest index of every pool that was asked for lately. One thread uses it.

    Parameters
    ----------
    files : VectorFiles
    most : int
        Bytes of all indexes together, about. Above, those that were not used for longest are let go, and built again
        when they are wanted.
    """

    def __init__(self, files: VectorFiles, most: int = _MOST_BYTES) -> None:
        self._files = files
        self._most = most
        # In the order of their last use.
        self._pools: dict[int, _Growing] = {}

    def forget(self, uid: int) -> None:
        """Drop what is kept of a pool."""
        self._pools.pop(uid, None)

    @property
    def n_items(self) -> int:
        """Labelled items in all indexes."""
        return sum(len(kept.index) for kept in list(self._pools.values()) if kept.index is not None)

    @property
    def age(self) -> float:
        """Seconds since an index was built; 0 before the first."""
        built = [kept.index.built_at for kept in list(self._pools.values()) if kept.index is not None]
        return time.monotonic() - max(built) if built else 0.0

    def get(self, connection: Connection, pool: PoolRecord, encoder_fingerprint: str) -> LabelledIndex:
        """The index of the pool as this transaction sees it.

        Raises
        ------
        ConflictError
            If no item is labelled, or nothing is embedded yet.
        StaleError
            If labelled items are not embedded, or the encoder is another one than the pool was embedded with.
        """
        kept = self._kept(connection, pool)
        if kept.embedding.encoder_fingerprint != encoder_fingerprint:
            raise StaleError(
                f"the pool {pool.name!r} was embedded by another version of {kept.embedding.encoder} than the one that "
                f"is installed, and queries must come from the same. POST /v1/pools/{pool.name}/embeddings embeds it "
                "again."
            )
        if kept.labels_version != pool.labels_version:
            self._grow(connection, pool, kept)
        if kept.index is None:
            kept.index = _build(pool, kept)
        elif kept.index.pool != pool:
            # Items may have been added, or the pool set up otherwise: nothing that the rows depend on.
            kept.index = dataclasses.replace(kept.index, pool=pool)
        return kept.index

    def _kept(self, connection: Connection, pool: PoolRecord) -> _Growing:
        kept = self._pools.pop(pool.uid, None)
        # An embedding is named by all that it is, so one of the same name need not be read again. Versions go back
        # where a database is brought back from a copy.
        if kept is None or kept.embedding.id != pool.embedding_id or kept.labels_version > pool.labels_version:
            embedding = embeddings_store.current(connection, pool)
            if embedding is None:
                raise ConflictError(_unready(pool), headers={"Retry-After": "1"})
            kept = _Growing(embedding)
        self._pools[pool.uid] = kept
        return kept

    def _grow(self, connection: Connection, pool: PoolRecord, kept: _Growing) -> None:
        """Bring what is kept to the pool's version of the labels, or leave it as it is and raise."""
        changes = dict(labels_store.since(connection, pool.uid, kept.labels_version, pool.labels_version))
        fresh = sorted(pos for pos, label in changes.items() if label is not None and pos not in kept.row_of)
        if fresh:
            self._add(connection, pool, kept, fresh)
        kept.index = None
        for pos, label in changes.items():
            if label is None:
                kept.labels.pop(pos, None)
            else:
                kept.labels[pos] = label
        kept.labels_version = pool.labels_version
        self._make_room()

    def _add(self, connection: Connection, pool: PoolRecord, kept: _Growing, fresh: list[int]) -> None:
        """Read the vectors and texts of items that never had a label before."""
        embedding = kept.embedding
        if fresh[-1] >= embedding.n_items:
            missing = sum(pos >= embedding.n_items for pos in fresh)
            raise StaleError(
                f"{missing} labelled items of the pool {pool.name!r} are not embedded yet. GET "
                f"/v1/jobs?pool={pool.name} shows the job; POST /v1/pools/{pool.name}/embeddings starts one.",
                headers={"Retry-After": "1"},
            )
        try:
            rows = self._files.rows(embedding, np.array(fresh, dtype=np.int64))
        except StaleError as exc:  # files know no names
            raise StaleError(str(exc).replace("{pool}", pool.name)) from exc
        if embedding.shift is not None:
            rows = (rows - embedding.shift).astype(np.float32)
        for pos, item in items_store.at(connection, pool, fresh).items():
            kept.shown[pos] = Shown(item.id, {**item.fields, "text": item.text})
            kept.size += _ITEM_BYTES + sum(len(value) for value in item.fields.values() if isinstance(value, str))
        _append(kept, fresh, rows)
        kept.size += 2 * rows.nbytes  # the retriever has a copy

    def _make_room(self) -> None:
        """Let go of other pools than the one that was used last."""
        while len(self._pools) > 1 and sum(kept.size for kept in self._pools.values()) > self._most:
            del self._pools[next(iter(self._pools))]


def _append(kept: _Growing, fresh: list[int], rows: Vectors) -> None:
    used, needed = len(kept.row_of), len(kept.row_of) + len(fresh)
    if needed > len(kept.vectors):
        grown = np.empty((max(needed, 2 * len(kept.vectors)), rows.shape[1]), dtype=np.float32)
        if used:
            grown[:used] = kept.vectors[:used]
        kept.vectors = grown
    kept.vectors[used:needed] = rows
    kept.row_of.update({pos: used + i for i, pos in enumerate(fresh)})


def _build(pool: PoolRecord, kept: _Growing) -> LabelledIndex:
    if not kept.labels:
        raise ConflictError(
            f"none of the {pool.n_items} items of the pool {pool.name!r} is labelled, so there is nothing to show. "
            f"Label some first: PUT /v1/pools/{pool.name}/labels."
        )
    positions = sorted(kept.labels)
    vectors = kept.vectors[[kept.row_of[pos] for pos in positions]]
    # An item that equals the mean of its pool has no direction: nothing is similar to it.
    seen = np.abs(vectors).max(axis=1) > 0
    if not seen.any():
        raise ConflictError(
            f"every labelled item of the pool {pool.name!r} has the mean of the pool for its vector, so no query is "
            "more similar to one than to another. Add items that differ, or make the pool with centre=false."
        )
    positions = [pos for pos, kept_ in zip(positions, seen.tolist(), strict=True) if kept_]
    shown = tuple(kept.shown[pos] for pos in positions)
    labels = tuple(kept.labels[pos] for pos in positions)
    retriever = Retriever(vectors[seen], [item.id for item in shown], labels)
    return LabelledIndex(
        pool=pool,
        embedding=kept.embedding,
        positions=tuple(positions),
        retriever=retriever,
        shown=shown,
        labels=labels,
        version=fingerprint(retriever.fingerprint, list(labels)),
        built_at=time.monotonic(),
    )


def _unready(pool: PoolRecord) -> str:
    if not pool.n_items:
        return f"the pool {pool.name!r} is empty. Add items first: PUT /v1/pools/{pool.name}/items."
    return (
        f"the {pool.n_items} items of the pool {pool.name!r} are not embedded yet. GET /v1/jobs?pool={pool.name} shows "
        "how far the job is."
    )
