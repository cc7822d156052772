"""The verdict as plain text for a terminal."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence
from typing import Any

from icl_select.errors import ParameterError
from icl_select.report._published import published_lines
from icl_select.report._verdict import method_sentences, scorer_name, verdict_sentences
from icl_select.report._view import View, percent, plural, printable

__all__ = ["render_table"]

_MARKS = {"better": "+", "worse": "-", "no evidence": "="}
_LEGEND = "+ better   - worse   = no evidence of a difference"
_NARROW = 40

Place = tuple[str, str, int]  # task, metric, budget


def render_table(results: Mapping[str, Any], *, width: int = 100) -> str:
    """Return the verdict and one table per budget as plain text.

    Parameters
    ----------
    results : mapping
        What the campaign writes as ``results.json``.
    width : int, default=100
        Columns; wider tables go on below, a few methods at a time.

    Returns
    -------
    str
        Lines of at most `width` characters.

    Examples
    --------
    >>> print(render_table({"config": {"name": "nothing yet"}}))
    The results hold no comparison with random, so there is no verdict. Run at least one other method
    beside random.
    """
    if width < _NARROW:
        raise ParameterError(f"a table of {width} columns was asked for. Pass width >= {_NARROW}.")
    view = View(results)
    lines: list[str] = []
    if view.cells:
        metric = ", ".join(view.metrics) or "score"
        by = f"; scored by {scorer_name(view)}" if scorer_name(view) else ""
        about = f"{metric} in percent, mean over {plural(_draws(view), 'draw')}; marks against {view.baseline}{by}"
        lines += [*textwrap.wrap(about, width), *textwrap.wrap(_LEGEND, width), ""]
        for corner, places in _tables(view):
            lines += [*_score_table(view, corner, places, width), ""]
    lines += textwrap.wrap(" ".join(verdict_sentences(view)), width)
    for sentence in method_sentences(view):
        lines += textwrap.wrap(sentence, width, initial_indent="* ", subsequent_indent="  ")
    said = published_lines(view)
    lines += (
        ["", *(part for line in said for part in textwrap.wrap(line, width, subsequent_indent="  "))] if said else []
    )
    return "\n".join(printable(line).rstrip().replace("−", "-") for line in lines)


def _draws(view: View) -> int:
    return max((int(cell["n_draws"]) for cell in view.cells if cell.get("n_draws")), default=0)


def _tables(view: View) -> list[tuple[str, dict[str, Place]]]:
    """The corner and the rows of each table: one per budget, or one of all budgets for a single task."""
    if len(view.task_metrics) == 1:
        task, metric = view.task_metrics[0]
        return [(task, {plural(budget, "label"): (task, metric, budget) for budget in view.budgets})]
    several = len(view.metrics) > 1
    return [
        (
            plural(budget, "label"),
            {f"{task} ({metric})" if several else task: (task, metric, budget) for task, metric in view.task_metrics},
        )
        for budget in view.budgets
    ]


def _score_table(view: View, corner: str, places: Mapping[str, Place], width: int) -> list[str]:
    most = min(24, (width - 2) // 2)
    rows = [
        [_clip(name, most), *(_value(view, task, metric, method, budget) for method in view.methods)]
        for name, (task, metric, budget) in places.items()
    ]
    header = [_clip(corner, most), *(_clip(view.short[method], most) for method in view.methods)]
    first = max(len(row[0]) for row in [header, *rows])
    sizes = [max(len(row[i]) for row in [header, *rows]) for i in range(1, len(header))]
    out: list[str] = []
    for columns in _pages(sizes, width - first):
        if out:
            out.append("")
        for row in [header, *rows]:
            out.append(row[0].ljust(first) + "".join(f"  {row[i]:>{sizes[i - 1]}}" for i in columns))
            if row is header:
                out.append("  ".join(["-" * first, *("-" * sizes[i - 1] for i in columns)]))
    return out


def _pages(sizes: Sequence[int], width: int) -> list[list[int]]:
    """Columns (from 1) in runs that fit the width, each run at least one column long."""
    pages: list[list[int]] = [[]]
    used = 0
    for i, size in enumerate(sizes, start=1):
        if pages[-1] and used + size + 2 > width:
            pages.append([])
            used = 0
        pages[-1].append(i)
        used += size + 2
    return pages


def _value(view: View, task: str, metric: str, method: str, budget: int) -> str:
    cell = view.cell(task, metric, method, budget)
    if cell is None:
        return "–"
    text = f"{percent(cell.get('mean'))} ±{percent(cell.get('sd'))}"
    if method == view.baseline:
        return f"{text}  "
    found = view.comparison(task, metric, method, budget)
    return f"{text} {_MARKS.get(str(found.get('verdict')), ' ') if found else ' '}"


def _clip(text: str, size: int) -> str:
    text = printable(text)
    return text if len(text) <= size else f"{text[: size - 1]}…"
