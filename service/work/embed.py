"""Embedding a pool, block by block: what is on disk is not encoded again, however the job that wrote it ended."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from icl_select._fingerprint import fingerprint
from icl_select.embedding import Encoder, embed
from icl_select.errors import DataError

from ..store import embeddings, items
from ..store.database import now
from ..store.embeddings import Block, EmbeddingRecord
from ..store.pools import PoolRecord
from ..vectors import BLOCK_ROWS, Rows
from .context import Context

__all__ = ["ensure_embedded", "run"]

_MESSAGE = "embedding"


def run(context: Context) -> None:
    """Embed the items that are not embedded yet."""
    record, pool = ensure_embedded(context)
    result = {
        "embedding": record.id,
        "encoder": record.encoder,
        "n_items": record.n_items,
        "truncated": record.truncated,
        "version": pool.version,
    }
    with context.finish(f"{record.n_items} items are embedded", result):
        pass


def ensure_embedded(context: Context) -> tuple[EmbeddingRecord, PoolRecord]:
    """Embed until every item is covered, also those that come meanwhile; return the embedding and the pool it covers.

    Raises
    ------
    DataError
        If the pool is empty.
    Cancelled
        If the job is to stop.
    ModelError, MissingDependencyError, EmbeddingError, StoreError
        If the items cannot be encoded, or the vectors not written.
    """
    context.progress(0, None, "items", "loads the encoder")
    with context.reading() as (_, pool):
        pass
    encoder = context.encoder(str(pool.config["encoder"]))
    while True:
        if not pool.n_items:
            raise DataError(
                f"the pool {pool.name!r} is empty, so there is nothing to embed. Add items first: "
                f"PUT /v1/pools/{pool.name}/items."
            )
        record = _embedded(context, pool, encoder)
        with context.locked() as (connection, present):
            embeddings.adopt(connection, present, record)
            embeddings.prune(connection, present)
            named = embeddings.files(connection, pool.uid)
        context.vectors.sweep(pool.uid, named)
        if present.n_items == pool.n_items:
            return record, pool
        pool = present


def _embedded(context: Context, pool: PoolRecord, encoder: Encoder) -> EmbeddingRecord:
    """The embedding of the pool as it is there; only what no file holds is encoded."""
    with context.database.read() as connection:
        before = embeddings.current(connection, pool)
    # Those of another encoder are not found where this one's are looked for.
    known = {} if before is None else {block.start: block for block in before.blocks}
    blocks, truncated, total = [], 0, np.zeros(1)
    for start in range(0, pool.n_items, BLOCK_ROWS):
        context.progress(start, pool.n_items, "items", _MESSAGE)
        work = _Work(context, pool, encoder, start, min(start + BLOCK_ROWS, pool.n_items))
        block, rows = work.done(known.get(start))
        blocks.append(block)
        truncated += int(rows.truncated.sum())
        # Block by block in float64: the mean depends on the vectors alone, not on how they came about.
        total = total + rows.vectors.sum(axis=0, dtype=np.float64)
    shift = total / pool.n_items if pool.config["centre"] else None
    hashes = [block.sha256 for block in blocks]
    name = fingerprint(pool.uid, pool.fingerprint, encoder.fingerprint, hashes, shift is not None)
    return EmbeddingRecord(
        id=f"emb_{name}",
        pool_uid=pool.uid,
        encoder=encoder.name,
        encoder_fingerprint=encoder.fingerprint,
        n_items=pool.n_items,
        dim=len(total),
        truncated=truncated,
        pool_fingerprint=pool.fingerprint,
        shift=shift,
        blocks=tuple(blocks),
        created_at=now(),
    )


@dataclass(frozen=True)
class _Work:
    """One block that has to be there."""

    context: Context
    pool: PoolRecord
    encoder: Encoder
    start: int
    stop: int

    def done(self, known: Block | None) -> tuple[Block, Rows]:
        """The block, out of a file if one holds it; `known` begins at the same row and may be shorter."""
        uid, model, files = self.pool.uid, self.encoder.fingerprint, self.context.vectors
        rows = None if known is None else files.read_block(uid, model, known)
        if known is not None and rows is not None and known.stop == self.stop:
            return known, rows
        with self.context.database.read() as connection:
            texts = list(items.texts(connection, self.pool, self.start, self.stop))
        # A job before this one may have ended between writing the file and saying so.
        left = files.find_block(uid, model, self.start, texts)
        left_rows = None if left is None else files.read_block(uid, model, left)
        if left is not None and left_rows is not None:
            return left, left_rows
        parts = list(self._parts(texts, rows))
        made = Rows(
            np.concatenate([part.vectors for part in parts]), np.concatenate([part.truncated for part in parts])
        )
        block = files.write_block(uid, model, self.start, texts, made)
        self.context.progress(self.stop, self.pool.n_items, "items", _MESSAGE, safe=True)
        return block, made

    def _parts(self, texts: Sequence[str], shorter: Rows | None) -> Iterator[Rows]:
        """Encode in parts of a fixed size, each sorted by length and batched for itself.

        So a block that grows takes over the whole parts of the shorter one, to the bit: a row is what it would be had
        all items come at once. And cancelling waits for one part.
        """
        size = min(4 * int(getattr(self.encoder, "batch_size", 32)), BLOCK_ROWS)
        there = 0 if shorter is None else len(shorter.vectors) // size * size
        if shorter is not None and there:
            yield Rows(shorter.vectors[:there], shorter.truncated[:there])
        for low in range(there, len(texts), size):
            self.context.progress(self.start + low, self.pool.n_items, "items", _MESSAGE)
            some = embed(texts[low : low + size], self.encoder, centre=False, cache=False, progress=False)
            yield Rows(some.vectors, some.truncated)
