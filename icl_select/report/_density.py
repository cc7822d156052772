"""The density section: how similar the texts of a data set are to each other."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from icl_select.errors import DataError
from icl_select.report._blocks import Block, Bullets, Figure, Section, Table, Text, right
from icl_select.report._view import View, number
from icl_select.types import FloatArray

__all__ = ["as_dict", "curve_of", "density_blocks", "density_section"]

Panels = Mapping[str, Mapping[str, Mapping[str, Any]]]


def as_dict(density: Any) -> Mapping[str, Any]:
    """The record of a Density, or the record itself."""
    if isinstance(density, Mapping):
        return density
    record: Mapping[str, Any] = density.to_dict()
    return record


def curve_of(density: Mapping[str, Any]) -> tuple[FloatArray, FloatArray]:
    """Grid and height of the distribution of pairwise similarity."""
    try:
        edges = np.asarray(density["edges"], dtype=float)
        heights = np.asarray(density["density"], dtype=float)
    except KeyError as exc:
        raise DataError(f"a density record lacks {exc}. Pass what icl_select.density.Density.to_dict() gives.") from exc
    middle = (edges[:-1] + edges[1:]) / 2
    seen = np.flatnonzero(heights)
    inside = slice(max(seen[0] - 1, 0), seen[-1] + 2) if seen.size else slice(None)
    return middle[inside], heights[inside]


def density_section(view: View) -> Section:
    """Figure and table of the campaign's densities, one panel for its encoder."""
    title, anchor = "How similar the texts are", "density"
    found = view.part("density")
    if not found:
        return Section(title, anchor, (Text("The results hold no densities, so none are shown."),))
    encoder = str(view.config.get("encoder") or "the encoder of the campaign")
    centred = " (centred)" if view.config.get("centre") else ""
    return Section(title, anchor, tuple(density_blocks({encoder + centred: dict(found)})))


def density_blocks(panels: Panels) -> list[Block]:
    """Figure, table and readings for data sets by model."""

    def draw() -> str:
        from icl_select.report.plots import density_figure, svg_text

        return svg_text(density_figure(panels), name="density")

    rows, said, readings = [], [], []
    for model, panel in panels.items():
        for name, record in panel.items():
            rows.append(_row(model, name, record))
            said.append(f"{name} ({model}): mean {number(record['mean'], 2)}")
            readings.append(f"{name} ({model}): {record['reading']}")
    caption = "Distribution of cosine similarity over pairs of texts; the dotted line is its mean."
    figure = Figure("density", "Distribution of pairwise cosine similarity. " + "; ".join(said) + ".", caption, draw)
    header = ("model", "data set", "texts", "mean", "5%", "median", "95%", "nearest neighbour", "pairs")
    table = Table(
        "Cosine similarity of two texts: mean and quantiles, and mean similarity of a text to its nearest neighbour.",
        header,
        tuple(rows),
        ("left", "left", *right(6)[1:], "right"),
        headers=2,
    )
    return [figure, Bullets(tuple(readings)), table]


def _row(model: str, name: str, record: Mapping[str, Any]) -> tuple[str, ...]:
    quantiles = {float(level): value for level, value in record["quantiles"].items()}
    pairs = "all" if record["exact"] else f"{number(record['n_pairs'], 0)} sampled"
    return (
        model,
        name,
        f"{record['n']:,}",
        *(number(value, 2) for value in (record["mean"], *(quantiles.get(q) for q in (0.05, 0.5, 0.95)))),
        number(record["nearest_mean"], 2),
        pairs,
    )
