"""What was found wrong with the texts: leaks, duplicates, truncation."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from icl_select.report._blocks import Block, Section, Table, Text, right
from icl_select.report._view import View, number, percent, plural

__all__ = ["checks_section"]


def checks_section(view: View) -> Section:
    """Leaks from the pool into the test set, duplicates in the pool, truncated texts."""
    blocks = [*_leaks(view), *_duplicates(view), *_truncation(view)]
    return Section("Checks of the data", "checks", tuple(blocks))


def _absent(view: View, part: str, what: str) -> list[Block]:
    return [] if view.part(part) else [Text(f"The results hold no check for {what}, so none is shown.")]


def _leaks(view: View) -> list[Block]:
    rows = []
    for task, item in view.part("leaks").items():
        counts = _mapping(item.get("counts"))
        rows.append((str(task), number(item.get("n_queries"), 0), *(number(counts.get(kind), 0) for kind in _KINDS)))
    if not rows:
        return _absent(view, "leaks", "leaks")
    caption = f"Test texts that stand in the pool. Near: {_near(view, 'leaks')}."
    header = ("task", "test texts", "exactly", "up to form", "nearly")
    return [Table(caption, header, tuple(rows), right(4)), *_without_leaks(view)]


def _without_leaks(view: View) -> list[Block]:
    """Scores with and without the leaked test items, for the tasks that have some."""
    rows = []
    for task, metric in view.task_metrics:
        for budget in view.budgets:
            cells = [view.cell(task, metric, method, budget) or {} for method in view.methods]
            if any(cell.get("n_leaked") for cell in cells):
                shown = [f"{percent(c.get('mean'))} → {percent(c.get('mean_without_leaks'))}" for c in cells]
                rows.append((task, str(budget), *shown))
    if not rows:
        return []
    header = ("task", "labels", *(view.short[method] for method in view.methods))
    caption = "Score of all test items → of those without a leak, in percent. Verdicts use all test items."
    return [Table(caption, header, tuple(rows), right(len(header) - 1), headers=2)]


def _duplicates(view: View) -> list[Block]:
    rows = []
    for task, item in view.part("duplicates").items():
        redundant = _mapping(item.get("n_redundant"))
        disagreeing = item.get("disagreeing")
        conflicts = len(disagreeing) if isinstance(disagreeing, (list, tuple)) else None
        counts = [number(redundant.get(kind), 0) for kind in _KINDS]
        rows.append((str(task), number(item.get("n"), 0), *counts, number(conflicts, 0)))
    if not rows:
        return _absent(view, "duplicates", "duplicates")
    caption = (
        f"Pool texts that repeat another one. Near: {_near(view, 'duplicates')}. Conflicts: groups of equal texts that "
        "bear different labels."
    )
    return [Table(caption, ("task", "texts", "exactly", "up to form", "nearly", "conflicts"), tuple(rows), right(5))]


def _truncation(view: View) -> list[Block]:
    rows = []
    for task, item in view.part("truncation").items():
        limit = item.get("max_tokens")
        sides = [_mapping(item.get(side)) for side in ("pool", "test")]
        shown = [f"{number(side.get('truncated'), 0)} ({percent(side.get('share'))}%)" for side in sides]
        rows.append((str(task), plural(limit, "token") if isinstance(limit, int) else "none", *shown))
    if not rows:
        return _absent(view, "truncation", "truncated texts")
    caption = "Texts longer than the encoder reads: only their beginning was embedded."
    return [Table(caption, ("task", "limit", "pool texts cut", "test texts cut"), tuple(rows), right(3))]


_KINDS = ("exact", "normalised", "near")


def _mapping(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}


def _near(view: View, part: str) -> str:
    thresholds = {item.get("threshold") for item in view.part(part).values()}
    known = sorted(value for value in thresholds if isinstance(value, (int, float)))
    return f"cosine similarity of at least {known[0]:g}" if known else "by embedding"
