"""Figures: score against number of labels, and the distribution of pairwise similarity.

Figures are made without pyplot, so nothing global is touched and they can be drawn in any thread. Curves
differ in line style and marker as well as in colour.
"""

from __future__ import annotations

import io
import re
import warnings
from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from icl_select.errors import DataError, ParameterError
from icl_select.report._density import as_dict, curve_of
from icl_select.report._view import printable

__all__ = ["budget_figure", "density_figure", "figure_bytes", "svg_text"]

# Okabe and Ito's colours, which people with colour-blindness can tell apart; black is for the baseline.
_COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00", "#7F3C8D", "#8C6D31")
_MARKERS = ("o", "s", "^", "D", "v", "P", "X", "*")
_DASHES: tuple[Any, ...] = ("-", (0, (5, 1.5)), (0, (1.5, 1.2)), (0, (6, 1.5, 1.5, 1.5)))
_GREY = "#6b7280"
_STYLE: dict[Any, Any] = {
    "font.family": "sans-serif",
    "font.size": 9.5,
    "text.parse_math": False,
    "svg.fonttype": "none",
    "svg.hashsalt": "icl-select",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": _GREY,
    "axes.linewidth": 0.8,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": "#e5e7eb",
    "grid.linewidth": 0.7,
    "xtick.color": "#374151",
    "ytick.color": "#374151",
    "axes.labelcolor": "#374151",
}


def budget_figure(title: str, series: Mapping[str, Sequence[Mapping[str, Any]]], *, baseline: str = "random") -> Figure:
    """Draw score against number of labels, one curve with intervals for each method.

    Parameters
    ----------
    title : str
        Shown above the plot, usually the task.
    series : mapping of method to sequence of points
        A point is ``{"budget": int, "mean": float, "ci": {"low", "high"} or None}``; scores are shares.
    baseline : str, default="random"
        The method drawn in black behind the others.

    Returns
    -------
    matplotlib.figure.Figure
    """
    if not series:
        raise DataError("a figure of scores was asked of no method. Pass at least one series of points.")
    with matplotlib.rc_context(_STYLE):
        figure = Figure(figsize=(4.7, 3.5), layout="constrained")
        axes = figure.subplots()
        budgets = sorted({point["budget"] for points in series.values() for point in points})
        ordered = sorted(series, key=lambda name: name != baseline)
        for i, name in enumerate(ordered):
            shift = 1.0 if len(ordered) == 1 else 1.035 ** (i - (len(ordered) - 1) / 2)
            _curve(axes, name, series[name], shift, _look(i if ordered[0] != baseline else i - 1))
        axes.set_xscale("log")
        axes.set_xticks(budgets, [str(budget) for budget in budgets])
        axes.set_xticks([], minor=True)
        axes.yaxis.set_major_locator(MaxNLocator(nbins=6, steps=[1, 2, 5, 10]))
        axes.set_xlabel("labels")
        axes.set_ylabel("score, %")
        axes.set_title(_plain_text(title), loc="left", fontweight="bold", fontsize=10.5)
        figure.legend(loc="outside lower left", ncols=2, frameon=False, fontsize=8.5, handlelength=3.2)
    return figure


def _look(i: int) -> dict[str, Any]:
    if i < 0:
        return {"color": "black", "marker": "o", "linestyle": (0, (1, 1)), "markerfacecolor": "white"}
    return {
        "color": _COLOURS[i % len(_COLOURS)],
        "marker": _MARKERS[i % len(_MARKERS)],
        "linestyle": _DASHES[(i // len(_COLOURS) + i) % len(_DASHES)],
    }


def _curve(axes: Axes, name: str, points: Sequence[Mapping[str, Any]], shift: float, look: dict[str, Any]) -> None:
    known = sorted((point for point in points if point.get("mean") is not None), key=lambda point: point["budget"])
    x = np.array([point["budget"] * shift for point in known], dtype=float)
    mean = np.array([100 * point["mean"] for point in known], dtype=float)
    bars = np.array([_arms(point) for point in known], dtype=float).reshape(-1, 2).T
    axes.errorbar(
        x, mean, yerr=bars, label=_plain_text(name), linewidth=1.5, markersize=4.5, elinewidth=0.9, capsize=2.2, **look
    )


def _arms(point: Mapping[str, Any]) -> tuple[float, float]:
    """Lengths of the error bar below and above the mean, in percent."""
    ci = point.get("ci")
    if not isinstance(ci, Mapping) or ci.get("low") is None or ci.get("high") is None:
        return 0.0, 0.0
    return max(100 * (point["mean"] - ci["low"]), 0.0), max(100 * (ci["high"] - point["mean"]), 0.0)


def density_figure(panels: Mapping[str, Mapping[str, Any]]) -> Figure:
    """Draw the distribution of pairwise cosine similarity: data sets as curves, one panel per embedding model.

    Parameters
    ----------
    panels : mapping of model to mapping of data set to Density
        A Density, or what its ``to_dict`` gives.

    Returns
    -------
    matplotlib.figure.Figure
        The dotted vertical line is the mean similarity of each data set.
    """
    if not panels or not any(panels.values()):
        raise DataError("a density figure was asked of no data set. Pass {model: {data set: Density}}.")
    with matplotlib.rc_context(_STYLE):
        columns = min(len(panels), 3)
        rows = -(-len(panels) // columns)
        names = list(dict.fromkeys(name for panel in panels.values() for name in panel))
        height = 3.1 * rows + 0.19 * -(-len(names) // (2 * columns))
        figure = Figure(figsize=(max(5.2 * columns, 6.4), height), layout="constrained")
        grid = figure.subplots(rows, columns, squeeze=False, sharex=True)
        for axes, (model, panel) in zip(grid.flat, panels.items(), strict=False):
            for name, density in panel.items():
                _distribution(axes, name, as_dict(density), names.index(name))
            axes.set_title(_plain_text(model), loc="left", fontweight="bold", fontsize=10.5)
            axes.set_xlabel("cosine similarity of two texts")
            axes.set_ylabel("density")
            axes.set_ylim(bottom=0)
        for axes in grid.flat[len(panels) :]:
            axes.set_axis_off()
        handles = {h.get_label(): h for axes in grid.flat for h in axes.get_lines() if h.get_label()[:1] != "_"}
        figure.legend(
            handles=list(handles.values()),
            loc="outside lower left",
            ncols=2 * columns,
            frameon=False,
            fontsize=8.5,
            handlelength=3.2,
        )
    return figure


def _distribution(axes: Axes, name: str, density: Mapping[str, Any], i: int) -> None:
    """One curve; its markers stand at heights of its own, so that curves on top of each other show theirs."""
    x, y = curve_of(density)
    look = _look(i)
    share = np.cumsum(y) / max(y.sum(), 1e-12)
    levels = (np.arange(4) + (i % len(_MARKERS) + 0.5) / len(_MARKERS)) / 4
    marks = sorted(set(np.searchsorted(share, levels).clip(0, len(x) - 1).tolist()))
    axes.plot(x, y, label=_plain_text(name), linewidth=1.4, markersize=4.5, markevery=marks, **look)
    axes.axvline(density["mean"], color=look["color"], linewidth=0.7, linestyle=":", label="_mean")


def _plain_text(text: str) -> str:
    """Keep matplotlib from reading a leading underscore as 'not in the legend', and from control characters."""
    text = printable(text)
    return f"\u200b{text}" if text.startswith("_") else text


def figure_bytes(figure: Figure, suffix: str) -> bytes:
    """Return the figure as PNG or SVG; the same figure gives the same bytes.

    Parameters
    ----------
    figure : matplotlib.figure.Figure
    suffix : {"png", "svg"}

    Returns
    -------
    bytes
    """
    if suffix not in ("png", "svg"):
        raise ParameterError(f"a figure was asked as {suffix!r}, which is not written here. Pass 'png' or 'svg'.")
    stream = io.BytesIO()
    nothing = {"Date": None} if suffix == "svg" else {"Software": None}
    with matplotlib.rc_context(_STYLE), warnings.catch_warnings():
        if suffix == "svg":  # its text is drawn with the fonts of whoever looks at it
            warnings.filterwarnings("ignore", message="Glyph", category=UserWarning)
        figure.savefig(stream, format=suffix, metadata=nothing, dpi=160)
    return stream.getvalue()


def svg_text(figure: Figure, *, name: str) -> str:
    """Return the figure as an ``<svg>`` element to stand inside HTML.

    Its ids are prefixed by `name`, so that several figures can stand in one document; the XML prologue and the
    metadata are left out, and the height follows the width.
    """
    text = figure_bytes(figure, "svg").decode("utf-8")
    text = text[text.index("<svg") :]
    text = re.sub(r"<metadata>.*?</metadata>\s*", "", text, flags=re.DOTALL)
    prefix = re.sub(r"\W+", "-", name)
    text = re.sub(r'\bid="', f'id="{prefix}-', text)
    text = re.sub(r"url\(#", f"url(#{prefix}-", text)
    text = re.sub(r'href="#', f'href="#{prefix}-', text)
    text = re.sub(r'(<svg\b[^>]*?) height="[^"]*"', r"\1", text, count=1)
    width = f'width="{115 * figure.get_figwidth():.0f}"'
    return re.sub(r'(<svg\b[^>]*?) width="[^"]*"', rf"\1 {width}", text, count=1).strip()
