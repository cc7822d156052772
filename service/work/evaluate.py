"""Whether the labels of a pool know each other: each labelled item is answered by the other ones."""

from __future__ import annotations

import numpy as np
from sqlalchemy.engine import Connection

from icl_select.leave_one_out import leave_one_out

from ..store import items, reports
from ..store.items import ItemRecord
from ..store.pools import PoolRecord
from .context import Context
from .embed import ensure_embedded

__all__ = ["run"]

_PAGE = 5_000


def run(context: Context) -> None:
    """Make the report of kind ``evaluation``; the parameters are ``ks`` and ``seed``."""
    embedding, pool = ensure_embedded(context)
    with context.reading() as (connection, present):
        labelled = [item for item in _labelled(connection, present) if item.pos < embedding.n_items]
    context.progress(0, None, "items", f"asking {len(labelled)} labelled items for each other's labels")
    x = context.vectors.rows(embedding, [item.pos for item in labelled])
    if embedding.shift is not None:
        x = (x - embedding.shift).astype(np.float32)
    # As in the index of prompts: an item that equals the mean of its pool has no direction.
    seen = np.flatnonzero(x.any(axis=1))
    asked = [labelled[row] for row in seen.tolist()]
    found = leave_one_out(
        x[seen],
        [str(item.label) for item in asked],
        [item.id for item in asked],
        ks=context.params["ks"],
        seed=int(context.params["seed"]),
    )
    content = {"schema": "icl-select/leave-one-out/1", **found.to_dict(), "summary": found.summary()}
    made_from = {
        "pool": pool.version,
        "labels": present.labels_version,
        "embedding": embedding.id,
        "n_labelled": len(labelled),
        "without_direction": len(labelled) - len(asked),
    }
    with context.finish("the report is made", {"summary": found.summary()}) as (connection, present):
        reports.keep(connection, present, "evaluation", context.job.id, made_from, content)


def _labelled(connection: Connection, pool: PoolRecord) -> list[ItemRecord]:
    found: list[ItemRecord] = []
    while page := items.page(connection, pool, found[-1].pos if found else -1, _PAGE, labelled=True):
        found += page
    return found
