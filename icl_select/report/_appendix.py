"""What stands behind the numbers: design, checks of the data, notes, configuration."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from icl_select.report._blocks import Block, Bullets, Code, Details, Section, Table, Text, right
from icl_select.report._verdict import scorer_name
from icl_select.report._view import View, fraction, interval, number, p_value, percent, plural, signed

__all__ = ["configuration_section", "design_section", "notes_section"]

_DESIGN_WORDS = {
    "draws": "draws",
    "random_repeats": "selections of the baseline per draw",
    "pool_size": "pool rows per draw, at most",
    "pool_fraction": "share of the pool per draw, at most",
    "test_size": "test items per draw, at most",
    "n_comparisons": "comparisons in a family",
    "family": "p-values are adjusted over the comparisons of each",
    "reachable": "a verdict can be reached",
    "alpha": "level",
    "power": "power of the stated differences",
    "smallest_p": "smallest p-value",
    "smallest_p_adjusted": "smallest p-value after Holm",
    "needed_draws": "fewest draws that allow a verdict",
    "detectable_difference": "smallest difference detectable before the run (assumed variances), points",
}
_POINTS = ("detectable_difference",)
_P_VALUES = ("smallest_p", "smallest_p_adjusted")


def design_section(view: View) -> Section:
    """Draws, sizes, and what the design could and can detect."""
    title, anchor = "Design and power", "design"
    if not view.design:
        return Section(title, anchor, (Text("The results do not record their design."),))
    rows = [
        (_DESIGN_WORDS.get(key, key.replace("_", " ")), _plain(key, value))
        for key, value in view.design.items()
        if value is not None and not isinstance(value, (Mapping, list, tuple))
    ]
    blocks: list[Block] = []
    notes = view.design.get("notes") or []
    if notes:
        blocks.append(Bullets(tuple(str(note) for note in ([notes] if isinstance(notes, str) else notes))))
    blocks.append(Table("Design of the campaign.", ("quantity", "value"), tuple(rows), ("left", "right")))
    blocks += _tasks_table(view)
    blocks += _after_the_run(view)
    return Section(title, anchor, tuple(blocks))


def _plain(key: str, value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if key in _POINTS and isinstance(value, (int, float)):
        return percent(value)
    if key in _P_VALUES and isinstance(value, (int, float)):
        return fraction(value)
    if isinstance(value, int):
        return f"{value:,}"
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _tasks_table(view: View) -> list[Block]:
    """Sizes, overlap of draws and detectable difference before the run, for each task."""
    tasks = view.design.get("tasks")
    if not isinstance(tasks, Mapping) or not tasks:
        return []
    rows = []
    for task, item in tasks.items():
        about = view.about.get(task, {})
        rows.append(
            (
                str(task),
                _of(item, "pool_size", "pool_file"),
                _of(item, "test_size", "test_file"),
                f"{percent(item.get('pool_overlap'), 0)}%",
                f"{percent(item.get('test_overlap'), 0)}%",
                number(about.get("n_choices"), 0),
                percent(item.get("detectable_difference")),
            )
        )
    caption = (
        "Tasks. Overlap: mean share of its rows that a draw has in common with another draw. Detectable: smallest "
        "difference before the run, assuming the variances of a pilot study, in points."
    )
    header = ("task", "pool rows", "test items", "pool overlap", "test overlap", "label words", "detectable")
    return [Table(caption, header, tuple(rows), right(6))]


def _of(item: Mapping[str, Any], size: str, whole: str) -> str:
    """``200 of 400``."""
    if item.get(whole) is None:
        return number(item.get(size), 0)
    return f"{number(item.get(size), 0)} of {number(item.get(whole), 0)}"


def _after_the_run(view: View) -> list[Block]:
    """What the run can detect by its own variances, and what would resolve the undecided cells."""
    out: list[Block] = []
    rows = []
    for budget in view.budgets:
        found = [
            c["detectable_difference"]
            for c in view.comparisons
            if c["budget"] == budget and isinstance(c.get("detectable_difference"), (int, float))
        ]
        if found:
            found.sort()
            rows.append((str(budget), percent(found[0]), percent(found[len(found) // 2]), percent(found[-1])))
    if rows:
        out.append(
            Table(
                "Smallest difference detectable after the run (its own variances), in points, over the comparisons.",
                ("labels", "smallest", "median", "largest"),
                tuple(rows),
                ("left", "right", "right", "right"),
            )
        )
    undecided = view.of("no evidence")
    draws = sorted(c["needed_draws"] for c in undecided if isinstance(c.get("needed_draws"), int))
    items = sum(isinstance(c.get("needed_items"), int) for c in undecided)
    if undecided and any("needed_draws" in c for c in undecided):
        within = sum(n <= 50 for n in draws)
        out.append(
            Text(
                f"Of {plural(len(undecided), 'undecided comparison')}, {within} would be resolved by at most 50 draws, "
                f"{len(draws)} by some number of draws and {items} by more test items alone, if the difference is as "
                "large as observed. For the others neither alone would do: the difference is too small, or the draws "
                "share too many rows. The table of all comparisons says how many are needed."
            )
        )
    return out


def notes_section(view: View) -> Section:
    """How the numbers came about and how to quote them."""
    version = view.part("versions").get("icl-select") or view.part("versions").get("icl_select")
    base = view.baseline
    items = [
        f"In each draw every method selects from the same part of the pool and answers the same test items; {base} "
        "gets several selections per draw. A difference is taken item by item, draw by draw.",
        "A verdict needs both: an adjusted p-value at or below the level, and an interval that does not contain 0.",
        "“No evidence” means that this design did not show a difference. It does not show that there is none; the "
        "column “detectable” says how large a difference it would have shown.",
        "Intervals are not adjusted for the number of comparisons; p-values are (Holm).",
        "A result holds for these tasks, this encoder and this scorer. Another encoder or a language model may order "
        "the methods differently.",
    ]
    scorer = scorer_name(view)
    cite = (
        f"To quote a number, give task, method with parameters, number of labels, mean difference with interval, "
        f"adjusted p-value, draws and test items, the scorer ({scorer or 'not recorded'}), and the version"
        f"{f' (icl-select {version})' if version else ' of icl-select'}. Example: "
    )
    first = (view.of("better") or view.comparisons)[:1]
    if first:
        c = first[0]
        items.append(
            f"{cite}“{c['candidate']} against {base} on {c['task']} with {c['budget']} labels: "
            f"{signed(c.get('delta'))} points {interval(c.get('ci'))}, "
            f"adjusted p {p_value(c.get('p_adjusted'))}, {c.get('n_draws', '?')} draws, {c.get('n_items', '?')} items”."
        )
    return Section("How to read and quote the numbers", "notes", (Bullets(tuple(items)),))


def configuration_section(view: View) -> Section:
    """Versions and the configuration that makes this report again."""
    blocks: list[Block] = []
    long = {method: name for method, name in view.short.items() if method != name}
    if long:
        rows = tuple((name, method) for method, name in long.items())
        blocks.append(Table("Methods with their parameters.", ("shown as", "is"), rows, ("left", "left")))
    for key, title in (("versions", "Versions"), ("config", "Configuration")):
        part = view.part(key)
        if part:
            text = json.dumps(part, ensure_ascii=False, indent=2, sort_keys=key == "versions", default=str)
            blocks.append(Details(title, (Code(text),)))
        else:
            blocks.append(Text(f"The results do not record their {key}."))
    return Section("Versions and configuration", "configuration", tuple(blocks))
