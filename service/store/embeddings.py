"""Embeddings of pools: which files hold the vectors of which rows, and what made them.

The vectors themselves are files (:mod:`icl_select.service.vectors`); what stands here says what they must hold, so a
file that is missing or differs is found out and never used.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import sqlalchemy as sa
from sqlalchemy.engine import Connection

from ..errors import NotFoundError
from ._sql import insert_new
from .database import dumps, loads
from .pools import PoolRecord, update
from .tables import embeddings

__all__ = ["Block", "EmbeddingRecord", "adopt", "current", "files", "find", "keep", "prune"]

# Who still reads by an embedding that was replaced a moment ago finds its files; those before are removed.
_KEPT = 4


@dataclass(frozen=True, slots=True)
class Block:
    """The file that holds the vectors of the rows from `start` up to `stop`, and the SHA-256 of its content."""

    start: int
    stop: int
    file: str
    sha256: str


@dataclass(frozen=True, eq=False)
class EmbeddingRecord:
    """The vectors of the first `n_items` items of a pool.

    Attributes
    ----------
    id : str
        A hash of all that the vectors are, so embedding the same again gives the same name.
    truncated : int
        Items longer than the encoder reads.
    pool_fingerprint : str
        The pool as it was when it had `n_items` items.
    shift : ndarray of shape (dim,), float64, or None
        Mean of the vectors, to be subtracted from them and from queries; None if the pool is not centred. The files
        hold the vectors as the encoder gave them.
    blocks : tuple of Block
        In row order and without gaps, from 0 to `n_items`.
    """

    id: str
    pool_uid: int
    encoder: str
    encoder_fingerprint: str
    n_items: int
    dim: int
    truncated: int
    pool_fingerprint: str
    shift: npt.NDArray[np.float64] | None
    blocks: tuple[Block, ...]
    created_at: str


def _record(row: Any) -> EmbeddingRecord:
    values = dict(row._mapping)
    shift = np.frombuffer(values["shift"], dtype="<f8").astype(np.float64)
    blocks = tuple(Block(*parts) for parts in loads(values["blocks"]))
    return EmbeddingRecord(**{**values, "shift": shift if shift.size else None, "blocks": blocks})


def keep(connection: Connection, record: EmbeddingRecord) -> None:
    """Keep a record; one of the same id is the same."""
    row = {
        **{column.name: getattr(record, column.name) for column in embeddings.columns},
        "shift": b"" if record.shift is None else record.shift.astype("<f8").tobytes(),
        "blocks": dumps([[block.start, block.stop, block.file, block.sha256] for block in record.blocks]),
    }
    insert_new(connection, embeddings, [row])


def find(connection: Connection, embedding_id: str) -> EmbeddingRecord:
    """The embedding of an id, or NotFoundError."""
    row = connection.execute(sa.select(embeddings).where(embeddings.c.id == embedding_id)).one_or_none()
    if row is None:
        raise NotFoundError(f"there is no embedding {embedding_id!r}: it was replaced, or its pool was deleted.")
    return _record(row)


def current(connection: Connection, pool: PoolRecord) -> EmbeddingRecord | None:
    """The embedding that the pool uses; None until its first items are embedded."""
    return None if pool.embedding_id is None else find(connection, pool.embedding_id)


def adopt(connection: Connection, pool: PoolRecord, record: EmbeddingRecord) -> PoolRecord:
    """Keep a record and let the locked pool use it, unless it uses one of more items already."""
    keep(connection, record)
    present = current(connection, pool)
    if present is not None and present.n_items > record.n_items:
        return pool
    return update(connection, pool, embedding_id=record.id)


def prune(connection: Connection, pool: PoolRecord) -> None:
    """Forget embeddings of a locked pool that were replaced long ago."""
    of_pool = embeddings.c.pool_uid == pool.uid
    query = sa.select(embeddings.c.id).where(of_pool, embeddings.c.id != (pool.embedding_id or ""))
    newest = query.order_by(embeddings.c.created_at.desc(), embeddings.c.id).offset(_KEPT - 1)
    gone = connection.execute(newest).scalars().all()
    if gone:
        connection.execute(embeddings.delete().where(of_pool, embeddings.c.id.in_(gone)))


def files(connection: Connection, uid: int) -> set[tuple[str, str]]:
    """Fingerprint of the encoder and name of every file that an embedding of a pool rests on."""
    query = sa.select(embeddings.c.encoder_fingerprint, embeddings.c.blocks).where(embeddings.c.pool_uid == uid)
    return {(row.encoder_fingerprint, parts[2]) for row in connection.execute(query) for parts in loads(row.blocks)}
