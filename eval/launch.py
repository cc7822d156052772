"""A campaign at the terminal: remarks and progress to stderr, the verdict to stdout."""

from __future__ import annotations

import os

from icl_select import registry
from icl_select.cli._output import emit_json, emit_rows, remark, write_text
from icl_select.report import render_table
from icl_select.score import load_scorer

from .config import Campaign
from .design import describe_design
from .estimate import estimate, read_speed
from .runner import missing_cells, plan_campaign, run
from .samples import write_samples
from .store import RunFolder

__all__ = ["launch", "list_cells"]

_CELL = ("task", "method", "budget", "draw", "repeat")


def launch(
    campaign: Campaign,
    *,
    workers: int | None = None,
    cache: bool = True,
    log_samples: bool = False,
    as_json: bool = False,
) -> int:
    """Run a campaign and write its results as a table or as JSON; returns the exit code."""
    _tell_price(campaign)
    done = run(campaign, workers=_cores() if workers is None else workers, cache=None if cache else False, say=remark)
    if log_samples:
        plans, _ = plan_campaign(campaign)
        for path in write_samples(RunFolder(done.folder), plans):
            remark(f"samples: {path}")
    if as_json:
        emit_json(done.results)
    else:
        write_text(render_table(done.results) + "\n")
    remark(f"report: {done.folder / 'report.html'}")
    return 0


def _tell_price(campaign: Campaign) -> None:
    """Where requests are paid for, say before the first one what is to be expected."""
    if not {"price_in", "price_out"} & set(registry.parse(campaign.scorer).params):
        return
    plans, _ = plan_campaign(campaign)
    missing = missing_cells(RunFolder(campaign.folder), plans)
    costs = estimate(campaign, plans, load_scorer(campaign.scorer), missing=missing)
    if costs.cost is not None:
        remark(f"estimated cost: {costs.cost:,.2f} at most (--dry-run shows how; max_spend caps it).")


def list_cells(campaign: Campaign, *, tokens_per_second: str | None = None, as_json: bool = False) -> int:
    """Write every cell and whether it is missing, with an estimate of what they cost; returns the exit code."""
    speed = None if tokens_per_second is None else read_speed(tokens_per_second)
    plans, _ = plan_campaign(campaign)
    missing = missing_cells(RunFolder(campaign.folder), plans)
    todo = {job.name(budget) for jobs in missing.values() for job, budgets in jobs for budget in budgets}
    cells = [
        {**{field: getattr(name, field) for field in _CELL}, "missing": name in todo}
        for plan in plans
        for name, _ in plan.cells()
    ]
    design = describe_design(campaign, plans)
    for note in design["notes"]:
        remark(note)
    costs = estimate(campaign, plans, load_scorer(campaign.scorer), missing=missing, tokens_per_second=speed)
    for line in costs.lines():
        remark(line)
    if as_json:
        sizes = {"n_cells": len(cells), "n_missing": len(todo)}
        emit_json({"cells": cells, **sizes, "design": design, "estimate": costs.to_dict()})
        return 0
    emit_rows([*_CELL, "missing"], [list(cell.values()) for cell in cells])
    remark(f"{len(todo)} of {len(cells)} cells to compute")
    return 0


def _cores() -> int:
    """Cores that this process may use, at most 4: more gain little and cost memory."""
    affinity = getattr(os, "sched_getaffinity", None)
    return max(1, min(4, len(affinity(0)) if affinity else os.cpu_count() or 1))
