"""The sections of a campaign report, in the order a reader needs them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from icl_select.report._appendix import configuration_section, design_section, notes_section
from icl_select.report._blocks import Block, Bullets, Cell, Details, Figure, Report, Section, Table, Text, left, right
from icl_select.report._checks import checks_section
from icl_select.report._density import density_section
from icl_select.report._published import published_sections
from icl_select.report._verdict import MARKS, headline, method_sentences, scorer_name, verdict_cell, verdict_sentences
from icl_select.report._view import View, interval, number, p_value, percent, plural, signed

__all__ = ["campaign_report"]


def campaign_report(view: View) -> Report:
    """Everything a report of this campaign says."""
    subtitle = ", ".join(
        part
        for part in (
            plural(len(view.tasks), "task"),
            f"{plural(len(view.candidates), 'method')} against {view.baseline}",
            f"budgets {', '.join(map(str, view.budgets))}" if view.budgets else "",
            f"scored by {scorer_name(view)}" if scorer_name(view) else "",
        )
        if part
    )
    sections = (
        verdict_section(view),
        budget_section(view),
        curve_section(view),
        *published_sections(view),
        density_section(view),
        design_section(view),
        checks_section(view),
        comparison_section(view),
        notes_section(view),
        configuration_section(view),
    )
    return Report(f"{view.name}: {headline(view)}", subtitle, sections)


def verdict_section(view: View) -> Section:
    """One paragraph, then one row for each method."""
    blocks: list[Block] = [Text(" ".join(verdict_sentences(view)), lead=True)]
    if method_sentences(view):
        blocks.append(Bullets(tuple(method_sentences(view))))
    if scorer_name(view).startswith("knn"):
        blocks.append(
            Text(
                "The scorer is a vote of the nearest labelled examples, a baseline without an LLM: it says how much "
                "the labels of neighbours tell, not how well a language model would answer."
            )
        )
    rows = tuple(_method_row(view, method) for method in view.candidates if view.comparisons)
    if rows:
        blocks.append(
            Table(
                f"Verdicts by method, over all tasks and budgets. Difference: method minus {view.baseline}, in points.",
                ("method", "+ better", "− worse", "· no evidence", "mean difference", "smallest", "largest"),
                rows,
                right(6),
            )
        )
    return Section("Verdict", "verdict", tuple(blocks))


def _method_row(view: View, method: str) -> tuple[str, ...]:
    own = [c for c in view.comparisons if c["candidate"] == method]
    deltas = [c["delta"] for c in own if isinstance(c.get("delta"), (int, float))]
    counts = [str(sum(c.get("verdict") == word for c in own)) for word in MARKS]
    if not deltas:
        return (method, *counts, "–", "–", "–")
    return (method, *counts, signed(sum(deltas) / len(deltas)), signed(min(deltas)), signed(max(deltas)))


def budget_section(view: View) -> Section:
    """Every score with its verdict."""
    if not view.cells:
        return Section(
            "Scores by budget", "scores", (Text("The results hold no scores, so there is no table of them."),)
        )
    metrics = ", ".join(view.metrics) or "score"
    blocks: list[Block] = [
        Text(
            f"Metric: {metrics}, in percent; mean ± standard deviation over runs. Below each method: sign and word of "
            f"the verdict, the difference to {view.baseline} in points with its {_level(view)} interval, and the "
            "adjusted p-value."
        ),
        Bullets(
            (
                f"+ better: better than {view.baseline}, significant after adjustment.",
                f"− worse: worse than {view.baseline}, significant after adjustment.",
                "· no evidence: a difference was not shown. That is not the same as no difference.",
            )
        ),
    ]
    if _has_commonest(view):
        blocks.append(Text("Commonest label: the accuracy of always giving the commonest label of the test items."))
    blocks += _score_tables(view)
    blocks += _skipped(view)
    blocks += _class_aware(view)
    empty = sum(int(c.get("n_empty") or 0) for c in view.cells)
    if empty:
        blocks.append(Text(f"{plural(empty, 'prediction')} came back empty; each counts as wrong."))
    return Section("Scores by budget", "scores", tuple(blocks))


def _skipped(view: View) -> list[Block]:
    if not view.skipped:
        return []
    return [Bullets(tuple(f"Not run: {task}, because {reason}" for task, reason in view.skipped.items()))]


def _class_aware(view: View) -> list[Block]:
    """Balanced accuracy and macro-F1, folded: what accuracy hides where the labels are unequal."""
    known = [c for c in view.cells if "balanced_accuracy" in c and "macro_f1" in c]
    if not known:
        return []
    tables = []
    for budget in view.budgets:
        rows = []
        for task, metric in view.task_metrics:
            cells = [view.cell(task, metric, method, budget) or {} for method in view.methods]
            if any("balanced_accuracy" in cell for cell in cells):
                shown = [f"{percent(c.get('balanced_accuracy'))} / {percent(c.get('macro_f1'))}" for c in cells]
                rows.append((task, *shown))
        header = ("task", *(view.short[method] for method in view.methods))
        caption = f"Balanced accuracy / macro-F1 in percent, {plural(budget, 'label')}."
        tables.append(Table(caption, header, tuple(rows), left(len(header))))
    return [Details("Balanced accuracy and macro-F1 (no verdicts are drawn from them)", tuple(tables))]


def _level(view: View) -> str:
    levels = {c["ci"]["level"] for c in view.comparisons if isinstance(c.get("ci"), Mapping) and "level" in c["ci"]}
    return f"{percent(min(levels), 0)}%" if len(levels) == 1 else "confidence"


def _score_tables(view: View) -> list[Block]:
    """One table for each budget, with a row for each task; a single task gets one table with a row for each budget."""
    if len(view.task_metrics) == 1:
        task = view.task_metrics[0][0]
        rows = {str(budget): (*view.task_metrics[0], budget) for budget in view.budgets}
        return [_score_table(view, task, "labels", rows)]
    several = len(view.metrics) > 1
    return [
        _score_table(
            view,
            plural(budget, "label"),
            "task",
            {f"{task} ({metric})" if several else task: (task, metric, budget) for task, metric in view.task_metrics},
        )
        for budget in view.budgets
    ]


def _score_table(view: View, caption: str, corner: str, places: Mapping[str, tuple[str, str, int]]) -> Table:
    with_commonest = _has_commonest(view)
    rows: list[tuple[str | Cell, ...]] = []
    for name, (task, metric, budget) in places.items():
        row = [score_cell(view, task, metric, method, budget) for method in view.methods]
        if any(cell.text != "–" for cell in row):
            commonest = [percent(view.about.get(task, {}).get("majority_rate"))] if with_commonest else []
            rows.append((name, *commonest, *row))
    header = (
        corner,
        *(["commonest label"] if with_commonest else []),
        *(view.short[method] for method in view.methods),
    )
    return Table(caption, header, tuple(rows), left(len(header)))


def _has_commonest(view: View) -> bool:
    return any(isinstance(about.get("majority_rate"), float) for about in view.about.values())


def score_cell(view: View, task: str, metric: str, method: str, budget: int) -> Cell:
    """Mean ± sd of a method, with its verdict against the baseline."""
    cell = view.cell(task, metric, method, budget)
    found = view.comparison(task, metric, method, budget)
    text = f"{percent(cell.get('mean'))} ± {percent(cell.get('sd'))}" if cell else "–"
    if method == view.baseline:
        return Cell(text, state="baseline")
    if found is None:
        return Cell(text)
    notes = (f"{signed(found.get('delta'))} {interval(found.get('ci'))}", f"p {p_value(found.get('p_adjusted'))}")
    return verdict_cell(str(found.get("verdict")), text, notes)


def curve_section(view: View) -> Section:
    """Score against budget: one figure for each task, and the smallest budget that suffices."""
    title, anchor = "Score against number of labels", "curves"
    if not view.curves:
        return Section(title, anchor, (Text("The results hold no curves, so none are drawn."),))
    if max(len(curve.get("points") or []) for curve in view.curves) < 2:
        reason = "The campaign has a single budget: there is no curve to draw. Ask for more budgets to see one."
        return Section(title, anchor, (Text(reason),))
    by_task: dict[str, list[Mapping[str, Any]]] = {}
    for curve in view.curves:
        by_task.setdefault(curve["task"], []).append(curve)
    blocks: list[Block] = [
        Text("Mean over draws with its interval. The budgets of a method are the prefixes of one selection.")
    ]
    blocks += [_curve_figure(view, task, curves) for task, curves in by_task.items()]
    blocks += _sufficient(view, by_task)
    return Section(title, anchor, tuple(blocks))


def _curve_figure(view: View, task: str, curves: list[Mapping[str, Any]]) -> Figure:
    def draw() -> str:
        from icl_select.report.plots import budget_figure, svg_text

        series = {view.short.get(curve["method"], curve["method"]): curve["points"] for curve in curves}
        baseline = view.short.get(view.baseline, view.baseline)
        return svg_text(budget_figure(task, series, baseline=baseline), name=f"curve-{task}")

    said = []
    for curve in curves:
        points = curve["points"]
        steps = ", ".join(f"{percent(p.get('mean'))} with {p['budget']}" for p in points)
        said.append(f"{view.short.get(curve['method'], curve['method'])}: {steps} labels")
    return Figure(f"curve-{task}", f"{task}, score in percent. " + "; ".join(said) + ".", task, draw, wide=False)


def _sufficient(view: View, by_task: Mapping[str, list[Mapping[str, Any]]]) -> list[Block]:
    deltas = [curve["delta"] for curve in view.curves if isinstance(curve.get("delta"), (int, float))]
    if not deltas or not any("smallest_sufficient_budget" in curve for curve in view.curves):
        return []
    methods = [m for m in view.methods if any(curve["method"] == m for curve in view.curves)]
    rows = []
    for task, curves in by_task.items():
        found = {curve["method"]: curve.get("smallest_sufficient_budget") for curve in curves}
        row = [str(found[m]) if found.get(m) is not None else "–" for m in methods]
        rows.append((task, *row))
    return [
        Table(
            f"Smallest budget shown to be not worse than the largest by more than {percent(deltas[0])} points. "
            "Where none was shown to be, it is the largest.",
            ("task", *(view.short.get(m, m) for m in methods)),
            tuple(rows),
            right(len(methods)),
        )
    ]


def comparison_section(view: View) -> Section:
    """Every comparison once, with all of its evidence."""
    title, anchor = "All comparisons", "comparisons"
    if not view.comparisons:
        return Section(title, anchor, (Text(f"The results hold no comparisons with {view.baseline}."),))
    tests = list(dict.fromkeys(str(c["test"]) for c in view.comparisons if c.get("test")))
    blocks: list[Block] = [
        Text(
            f"Difference: method minus {view.baseline}, in points. Detectable: the smallest true difference that this "
            "design finds with the stated power. Needed: total draws, or test items per draw, that would resolve an "
            "undecided comparison of this size; a dash where it is decided or where they alone would not."
        )
    ]
    if tests:
        blocks.append(Text(f"{'Test' if len(tests) == 1 else 'Tests'}: {'; '.join(tests)}."))
    header = ("task", "labels", "method", "verdict", "difference", "interval", "p", "adjusted p")
    blocks.append(
        Table(
            f"All {len(view.comparisons):,} comparisons with {view.baseline}.",
            (*header, "draws × items", "detectable", "needed draws", "needed items"),
            tuple(_comparison_row(view, c) for c in view.comparisons),
            ("left", "right", "left", *right(8)),
            headers=3,
        )
    )
    return Section(title, anchor, tuple(blocks))


def _comparison_row(view: View, c: Mapping[str, Any]) -> tuple[str | Cell, ...]:
    several = len(view.metrics) > 1
    return (
        f"{c['task']} ({c.get('metric')})" if several else str(c["task"]),
        str(c["budget"]),
        view.short[c["candidate"]],
        verdict_cell(str(c.get("verdict"))),
        signed(c.get("delta")),
        interval(c.get("ci")),
        p_value(c.get("p_value")),
        p_value(c.get("p_adjusted")),
        f"{number(c.get('n_draws'), 0)} × {number(c.get('n_items'), 0)}",
        percent(c.get("detectable_difference")),
        number(c.get("needed_draws"), 0),
        number(c.get("needed_items"), 0),
    )
