"""How similar the items of a pool are to each other, as numbers, figure and page."""

from __future__ import annotations

import base64
from typing import Any

import numpy as np

from icl_select.density import density
from icl_select.embedding import pool_mean
from icl_select.report import density_figure, figure_bytes, render_density

from ..store import reports
from .context import Context
from .embed import ensure_embedded

__all__ = ["run"]


def run(context: Context) -> None:
    """Make the report of kind ``density``; the parameters are ``centre`` and ``seed``.

    Figure and page are drawn here and kept: drawing takes a second that the server would not answer in.
    """
    centre, seed = bool(context.params["centre"]), int(context.params["seed"])
    embedding, pool = ensure_embedded(context)
    context.progress(0, None, "items", f"comparing {embedding.n_items} items")
    x = context.vectors.matrix(embedding, embedding.shift if centre else None)
    if centre and embedding.shift is None:
        x = (x - pool_mean(x)).astype(np.float32)
    found = density(x, seed=seed)
    context.progress(0, None, "items", "drawing")
    record: dict[str, Any] = {
        "schema": "icl-select/density/1",
        "centred": centre,
        "seed": seed,
        "panels": {embedding.encoder: {pool.name: found.to_dict()}},
    }
    content = {
        "record": record,
        "png": base64.b64encode(figure_bytes(density_figure(record["panels"]), "png")).decode(),
        "html": render_density(record),
    }
    made_from = {"pool": pool.version, "n_items": embedding.n_items, "embedding": embedding.id}
    result = {"closeness": found.closeness, "reading": found.reading}
    with context.finish("the report is made", result) as (connection, present):
        reports.keep(connection, present, "density", context.job.id, made_from, content)
