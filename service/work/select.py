"""Selecting what to label: a method of the library on the vectors of a pool, where what is labelled counts as given."""

from __future__ import annotations

from icl_select import select as select_rows

from ..store import labels, selections
from .context import Context
from .embed import ensure_embedded

__all__ = ["run"]


def run(context: Context) -> None:
    """Fill the selection that was asked for.

    Its parameters are ``selection`` (the id), ``method``, ``budget``, ``seed`` and ``ignore_labels``.
    """
    asked = context.params
    embedding, pool = ensure_embedded(context)
    with context.reading() as (connection, present):
        # Items that came after the embedding are not in question, labelled or not.
        labelled = [pos for pos in labels.labelled_positions(connection, present) if pos < embedding.n_items]
    given = [] if asked["ignore_labels"] else labelled
    method, budget = str(asked["method"]), int(asked["budget"])
    message = f"selecting {budget} of {embedding.n_items - len(given)} items"
    context.progress(0, budget, "picks", message)
    vectors = context.vectors.matrix(embedding, embedding.shift)

    def progress(stage: str, done: int, total: int) -> None:
        context.progress(done, total, "steps", f"{message}: {stage}")

    picked = select_rows(method, vectors, budget, given=given, seed=int(asked["seed"]), progress=progress)
    result = {
        "made_from": {
            "pool": pool.version,
            "pool_fingerprint": pool.fingerprint,
            "labels": present.labels_version,
            "n_items": embedding.n_items,
            "given": len(given),
            "embedding": embedding.id,
            "encoder": embedding.encoder,
            "encoder_fingerprint": embedding.encoder_fingerprint,
            "centred": embedding.shift is not None,
        },
        "method": picked.method,
        "nested": picked.nested,
        "info": dict(picked.info),
    }
    context.progress(budget, budget, "picks", "writing the picks")
    found = {"selection": asked["selection"], "picks": len(picked)}
    with context.finish(f"{len(picked)} items are selected", found) as (connection, _):
        selections.fill(connection, str(asked["selection"]), picked.indices.tolist(), picked.gains.tolist(), result)
