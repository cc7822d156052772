"""The density section: how similar the texts of a data set are to each other."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from icl_select.errors import DataError
from icl_select.report._blocks import Block, Bullets, Figure, Section, Table, Text, right
from icl_select.report._view import View, number, percent
from icl_select.types import FloatArray

__all__ = ["as_dict", "curve_of", "density_blocks", "density_section"]

Panels = Mapping[str, Mapping[str, Any]]


# Pairs from which so many bins of the record are drawn as one: few pairs make a ragged curve.
_WIDTHS = ((200_000, 1), (50_000, 2), (5_000, 4), (0, 8))
_QUANTILES = (0.05, 0.5, 0.95)
_SHARES = (0.5, 0.9)
_SHOWN = (
    *("n", "n_pairs", "exact", "band", "mean", "quantiles", "shares"),
    *("nearest_mean", "share", "neighbourhood_mean", "closeness", "reading"),
)


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
    wide = next(width for pairs, width in _WIDTHS if density["n_pairs"] >= pairs)
    if len(heights) % wide == 0:
        heights = heights.reshape(-1, wide).mean(axis=1)
        middle = middle.reshape(-1, wide).mean(axis=1)
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

    rows, said = [], []
    shares: set[float] = set()
    readings: dict[str, list[str]] = {}
    for model, panel in panels.items():
        for name, density in panel.items():
            record = _complete(as_dict(density))
            shares.add(record["share"])
            rows.append(_row(model, name, record))
            where = name if len(panels) == 1 else f"{name} ({model})"
            said.append(f"{where}: mean {number(record['mean'], 2)}, nearest {number(record['nearest_mean'], 2)}")
            readings.setdefault(str(record["reading"]), []).append(where)
    caption = (
        "Distribution of the cosine similarity of two texts: one curve for each data set, one panel for each "
        "embedding model. The dotted lines are the means."
    )
    figure = Figure("density", "Distribution of pairwise cosine similarity. " + "; ".join(said) + ".", caption, draw)
    said_once = Bullets(tuple(f"{', '.join(names)}: {reading}" for reading, names in readings.items()))
    return [said_once, figure, _table(rows, shares)]


def _table(rows: list[tuple[str, ...]], shares: set[float]) -> Table:
    header = ("model", "data set", "texts", "mean", *(f"{q:.0%}" for q in _QUANTILES))
    header = (*header, *(f"above {limit:g}" for limit in _SHARES))
    header = (*header, "nearest", "neighbourhood", "closeness", "pairs", "error")
    around = " or ".join(f"{100 * share:g}%" for share in sorted(shares))
    caption = (
        "Cosine similarity of two texts: mean, quantiles, share of pairs above a threshold, mean similarity of a text "
        f"to its nearest neighbour, and to the last text of its neighbourhood: the nearest {around} of the pool, "
        "about what one label has to stand for. Closeness: 0 if that text is a stranger, 1 if it is a copy. Nearest "
        "far above neighbourhood tells of near-duplicates. Error: within which, with 95% confidence, every share is "
        "known where pairs were drawn; 0 where all pairs were looked at."
    )
    return Table(caption, header, tuple(rows), ("left", *right(len(header) - 2)), headers=2)


def _complete(record: Mapping[str, Any]) -> Mapping[str, Any]:
    for name in _SHOWN:
        if name not in record:
            raise DataError(
                f"a density record lacks {name!r}. Pass what icl_select.density.Density.to_dict() gives; measure again "
                "what an older version wrote."
            )
    return record


def _row(model: str, name: str, record: Mapping[str, Any]) -> tuple[str, ...]:
    quantiles = {float(level): value for level, value in record["quantiles"].items()}
    shares = {float(limit): value for limit, value in record["shares"].items()}
    return (
        model,
        name,
        number(record["n"], 0),
        *(number(value, 2) for value in (record["mean"], *(quantiles.get(q) for q in _QUANTILES))),
        *(f"{percent(shares.get(limit))}%" for limit in _SHARES),
        number(record["nearest_mean"], 2),
        number(record["neighbourhood_mean"], 2),
        number(record["closeness"], 2),
        f"{'all ' if record['exact'] else ''}{number(record['n_pairs'], 0)}",
        number(record["band"], 4) if record["band"] else "0",
    )
