"""From per-item results to results.json: scores, comparisons with the baseline, curves."""

from __future__ import annotations

import platform
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from icl_select import __version__
from icl_select._fingerprint import fingerprint, seed_from
from icl_select.metrics import METRICS
from icl_select.stats import Comparison, Design, budget_curve, compare, compare_family

from .config import Campaign
from .plan import PROTOCOL, TaskPlan
from .published import attach, figures_key
from .store import Cell, CellName, RunFolder

__all__ = ["SCHEMA", "Scores", "build_results", "results_key"]

SCHEMA = "icl-select/results/1"

Vector = npt.NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Scores:
    """Per-item scores of one method at one budget: per draw a (repeats, n_items) matrix."""

    task: str
    method: str
    budget: int
    item_ids: tuple[tuple[str, ...], ...]
    values: tuple[Vector, ...]
    picks: tuple[tuple[str, ...], ...]
    cells: tuple[tuple[Cell, ...], ...]

    @property
    def means(self) -> tuple[Vector, ...]:
        """Per draw the mean over repeats of every item."""
        return tuple(matrix.mean(axis=0) for matrix in self.values)

    @property
    def runs(self) -> list[float]:
        """The score of every run: draws x repeats."""
        return [float(row.mean()) for matrix in self.values for row in matrix]


ANALYSIS = 2
"""Raised whenever the same cells would give other results: other tests, intervals or projections."""


def results_key(campaign: Campaign, plans: Sequence[TaskPlan]) -> str:
    """Hash of everything that results.json depends on."""
    cells = [[name.path, key] for plan in plans for name, key in plan.cells()]
    made_by = [SCHEMA, PROTOCOL, ANALYSIS, __version__]
    return fingerprint(made_by, campaign.shown(), figures_key(campaign), cells, [p.texts_key for p in plans])


def build_results(
    campaign: Campaign,
    store: RunFolder,
    plans: Sequence[TaskPlan],
    known: Mapping[str, Mapping[str, Any]],
    design: Mapping[str, Any],
    versions: Mapping[str, str],
) -> dict[str, Any]:
    """Everything that results.json holds; a function of the cells, so the same after any interruption.

    Parameters
    ----------
    known : mapping of task to mapping
        What :func:`icl_select.eval.diagnose.diagnose` found.
    design : mapping
        What :func:`icl_select.eval.design.describe_design` said.
    versions : mapping
        Versions of what computed the cells.
    """
    active = [plan for plan in plans if plan.skipped is None]
    families: list[list[tuple[dict[str, Any], Comparison]]] = []
    cells, curves = [], []
    for plan in active:
        table = _read_scores(campaign, store, plan)
        leaked = {leak["query_id"] for leak in known[plan.name]["leaks"]["leaks"]}
        curve = {method: _curve(campaign, plan, table, method) for method in campaign.methods}
        curves += [_curve_entry(plan, method, curve[method]) for method in campaign.methods]
        for method in campaign.methods:
            for i, budget in enumerate(campaign.budgets):
                ci = curve[method].points[i].ci.to_dict()
                cells.append(_cell_entry(plan, table[method, budget], ci, leaked))
        families.append(_comparisons(campaign, plan, table))
    if campaign.family == "campaign":
        families = [[pair for family in families for pair in family]]
    results: dict[str, Any] = {
        "schema": SCHEMA,
        "name": campaign.name,
        "key": results_key(campaign, plans),
        "versions": {"icl-select": __version__, "protocol": PROTOCOL, "python": platform.python_version(), **versions},
        "config": campaign.shown(),
        "design": dict(design),
        "results": {plan.name: _harness_entry(campaign, plan, cells) for plan in plans},
        "tasks": {plan.name: _task_entry(plan, known.get(plan.name)) for plan in plans},
        "cells": cells,
        "comparisons": [entry for family in families for entry in _adjusted(campaign, family)],
        "curves": curves,
        **{
            part: {plan.name: known[plan.name][part] for plan in active}
            for part in ("density", "duplicates", "leaks", "truncation")
        },
    }
    return attach(results, campaign)


def _read_scores(campaign: Campaign, store: RunFolder, plan: TaskPlan) -> dict[tuple[str, int], Scores]:
    keys = dict(plan.cells())
    table = {}
    for method in campaign.methods:
        repeats = campaign.random_repeats if method == campaign.baseline else 1
        for budget in campaign.budgets:
            names = [
                [CellName(plan.name, method, draw.number, repeat, budget) for repeat in range(repeats)]
                for draw in plan.draws
            ]
            cells = tuple(tuple(store.read_cell(name, keys[name]) for name in row) for row in names)
            table[method, budget] = Scores(
                task=plan.name,
                method=method,
                budget=budget,
                item_ids=tuple(tuple(row[0].item_ids) for row in cells),
                values=tuple(np.stack([cell.scores for cell in row]) for row in cells),
                picks=tuple(row[0].picks for row in cells),
                cells=cells,
            )
    return table


def _seed(campaign: Campaign, *parts: Any) -> int:
    return seed_from(campaign.seed, "bootstrap", *parts) >> 96


def _curve(campaign: Campaign, plan: TaskPlan, table: Mapping[tuple[str, int], Scores], method: str) -> Any:
    return budget_curve(
        {budget: table[method, budget].means for budget in campaign.budgets},
        item_ids=table[method, campaign.budgets[0]].item_ids,
        delta=campaign.delta,
        alpha=campaign.alpha,
        level=1 - campaign.alpha,
        seed=_seed(campaign, plan.name, method),
        n_resamples=campaign.n_resamples,
    )


def _curve_entry(plan: TaskPlan, method: str, curve: Any) -> dict[str, Any]:
    return {"task": plan.name, "method": method, "metric": plan.data.task.metric, **curve.to_dict()}


def _cell_entry(plan: TaskPlan, scores: Scores, ci: dict[str, Any], leaked: set[str]) -> dict[str, Any]:
    """One row of the table of scores: mean over draws, and what a reader should know beside it."""
    runs = scores.runs
    kept = [np.array([name not in leaked for name in ids]) for ids in scores.item_ids]
    clean = [float(mean[keep].mean()) for mean, keep in zip(scores.means, kept, strict=True) if keep.any()]
    flat = [cell for row in scores.cells for cell in row]
    return {
        "task": scores.task,
        "method": scores.method,
        "budget": scores.budget,
        "metric": plan.data.task.metric,
        "mean": float(np.mean([mean.mean() for mean in scores.means])),
        "sd": statistics.stdev(runs) if len(runs) > 1 else None,
        "min": min(runs),
        "max": max(runs),
        "ci": ci,
        "n_draws": len(scores.values),
        "n_repeats": len(scores.values[0]),
        "n_items": len(scores.item_ids[0]),
        "n_empty": sum(prediction == "" for cell in flat for prediction in cell.column("prediction")),
        "mean_shots": float(np.mean([cell.table.column("n_shots").to_numpy().mean() for cell in flat])),
        **_reading(plan, flat),
        "n_leaked": int(sum((~keep).sum() for keep in kept)),
        "mean_without_leaks": float(np.mean(clean)) if clean else None,
        **_aggregates(plan, flat),
    }


def _reading(plan: TaskPlan, cells: Sequence[Cell]) -> dict[str, Any]:
    """What the model read and wrote: mean prompt length, and how many prompts were cut, how many answers hit the token
    limit or were none of the choices.
    """
    if not cells or cells[0].table.column("prompt_tokens").null_count:
        return {}
    choices = plan.data.task.choices
    return {
        "mean_prompt_tokens": float(np.mean([cell.table.column("prompt_tokens").to_numpy().mean() for cell in cells])),
        "n_truncated": sum(bool(cut) for cell in cells for cut in cell.column("truncated")),
        "n_unfinished": sum(ended is False for cell in cells for ended in cell.column("finished")),
        "n_outside": sum(said not in choices for cell in cells for said in cell.column("prediction")) if choices else 0,
    }


def _aggregates(plan: TaskPlan, cells: Sequence[Cell]) -> dict[str, Any]:
    """Class-aware metrics of classification tasks, which accuracy alone does not show: mean over runs."""
    if plan.data.task.choices is None:
        return {}
    return {
        name: float(
            np.mean([METRICS[name].aggregate(cell.column("prediction"), cell.column("reference")) for cell in cells])
        )
        for name in ("balanced_accuracy", "macro_f1")
    }


def _comparisons(
    campaign: Campaign, plan: TaskPlan, table: Mapping[tuple[str, int], Scores]
) -> list[tuple[dict[str, Any], Comparison]]:
    found = []
    for method in campaign.methods:
        if method == campaign.baseline:
            continue
        for budget in campaign.budgets:
            ours, base = table[method, budget], table[campaign.baseline, budget]
            result = compare(
                ours.means,
                base.values,
                item_ids=ours.item_ids,
                picks=ours.picks,
                seed=_seed(campaign, plan.name, method, budget),
                level=1 - campaign.alpha,
                alpha=campaign.alpha,
                n_resamples=campaign.n_resamples,
            )
            entry = {
                "task": plan.name,
                "baseline": campaign.baseline,
                "candidate": method,
                "budget": budget,
                "metric": plan.data.task.metric,
            }
            found.append((entry, result))
    return found


def _adjusted(campaign: Campaign, family: list[tuple[dict[str, Any], Comparison]]) -> list[dict[str, Any]]:
    """Holm over one family; flat records in the shape of the results schema."""
    if not family:
        return []
    decided = compare_family([result for _, result in family], alpha=campaign.alpha)
    return [comparison_entry(entry, result, campaign.power) for (entry, _), result in zip(family, decided, strict=True)]


def comparison_entry(entry: Mapping[str, Any], result: Comparison, power: float) -> dict[str, Any]:
    """One comparison with all of its evidence; differences are stated for the power asked for.

    Every metric lies between 0 and 1, so a difference lies between -1 and 1, and so does its interval: two draws can
    give one that is wider, and what is cut off could not have held the difference.
    """
    record = {**entry, "delta": result.effect, **result.to_dict()}
    record["ci"] = {**record["ci"], "low": max(-1.0, record["ci"]["low"]), "high": min(1.0, record["ci"]["high"])}
    if power != 0.8:
        design = Design(
            result.n_draws, result.n_items, result.components, result.alpha, result.n_comparisons, result.item_share
        )
        undecided = result.verdict == "no evidence" and result.scope == "method"
        record["detectable_difference"] = design.detectable_difference(power)
        record["needed_draws"] = design.needed_draws(result.effect, power) if undecided else None
        record["needed_items"] = design.needed_items(result.effect, power) if undecided else None
    record["power"] = power
    return record


def _task_entry(plan: TaskPlan, known: Mapping[str, Any] | None) -> dict[str, Any]:
    if plan.skipped is not None or known is None:
        return {"skipped": plan.skipped}
    return {"skipped": None, **known["about"]}


def _harness_entry(campaign: Campaign, plan: TaskPlan, cells: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """The task as lm-evaluation-harness writes it: the first method that is not the baseline, largest budget."""
    if plan.skipped is not None:
        return {"alias": plan.name, "skipped": plan.skipped}
    method = next((m for m in campaign.methods if m != campaign.baseline), campaign.baseline)
    cell = next(c for c in cells if (c["task"], c["method"], c["budget"]) == (plan.name, method, max(campaign.budgets)))
    metric = plan.data.task.metric
    return {
        "alias": plan.name,
        f"{metric},none": cell["mean"],
        f"{metric}_stderr,none": cell["ci"]["se"],
        "method": method,
        "budget": cell["budget"],
        "n-shot": cell["mean_shots"],
        "n-samples": {"original": len(plan.data.test), "effective": cell["n_items"] * cell["n_draws"]},
        "higher_is_better": {metric: METRICS[metric].higher_is_better},
        "task_hash": fingerprint(plan.data.task.protocol()),
    }
