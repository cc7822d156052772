"""One run against another: the same task, method and budget, paired by draw and item."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from icl_select._fingerprint import seed_from
from icl_select.errors import ConfigError, StatisticsError
from icl_select.stats import Comparison, compare, compare_family

from .compare import comparison_entry
from .config import Campaign, validate
from .store import Cell, CellName, RunFolder

__all__ = ["compare_runs", "load_results", "stored_campaign", "worse"]


def stored_campaign(folder: Path) -> Campaign:
    """The configuration that a run folder was made with, with the folder as its output."""
    record = RunFolder(folder).read_json(folder / "campaign.json")
    if record is None:
        raise ConfigError(f"{folder} is no run folder: it holds no readable campaign.json. Name the folder of a run.")
    return validate({**record, "output": folder}, str(folder / "campaign.json"))


def load_results(folder: Path) -> dict[str, Any]:
    """The results of a finished run."""
    record = RunFolder(folder).read_json(folder / "results.json")
    if record is None:
        raise ConfigError(
            f"{folder} holds no readable results.json. Finish the run first: icl-select eval resume {folder}"
        )
    return record


def compare_runs(baseline: Path, candidate: Path) -> list[dict[str, Any]]:
    """Compare every cell that both folders have; one Holm family.

    Parameters
    ----------
    baseline, candidate : Path
        Run folders. Draws must hold the same test items: same seed, test size and data.

    Returns
    -------
    list of dict
        Records as in ``results.json``, with the folder names as baseline and candidate.

    Raises
    ------
    ConfigError
        If the runs have nothing in common.
    StatisticsError
        If their draws hold different items.
    """
    left, right = _finished(baseline), _finished(candidate)
    described = load_results(candidate)["tasks"]
    drafts: list[tuple[dict[str, Any], Comparison]] = []
    skipped = {name for name, task in load_results(baseline)["tasks"].items() if task.get("skipped")}
    for task in [name for name in right.task_list if name in left.task_list and name not in skipped]:
        for method in [name for name in right.methods if name in left.methods]:
            for budget in [b for b in right.budgets if b in left.budgets]:
                result = _compare_cell((baseline, left), (candidate, right), task, method, budget)
                entry = {
                    "task": task,
                    "method": method,
                    "baseline": baseline.name,
                    "candidate": candidate.name,
                    "budget": budget,
                    "metric": str(described[task]["metric"]),
                }
                drafts.append((entry, result))
    if not drafts:
        raise ConfigError(f"{baseline} and {candidate} share no task, method and budget. Name two runs that do.")
    family = compare_family([result for _, result in drafts], alpha=right.alpha)
    return [comparison_entry(entry, result, right.power) for (entry, _), result in zip(drafts, family, strict=True)]


def _finished(folder: Path) -> Campaign:
    """The campaign of a folder whose results are those of its configuration."""
    campaign = stored_campaign(folder)
    if load_results(folder)["config"] != campaign.shown():
        raise ConfigError(
            f"{folder} was asked for another configuration since its results were written. Finish the run first: "
            f"icl-select eval resume {folder}"
        )
    return campaign


def _compare_cell(
    left: tuple[Path, Campaign], right: tuple[Path, Campaign], task: str, method: str, budget: int
) -> Comparison:
    base, ours = _cells(*left, task, method, budget), _cells(*right, task, method, budget)
    draws = min(len(base), len(ours))
    for r in range(draws):
        if base[r][0].item_ids != ours[r][0].item_ids:
            raise StatisticsError(
                f"draw {r} of {task} holds other test items in {left[0]} than in {right[0]}, so scores cannot be "
                "paired. Compare runs of the same seed, test_size and data."
            )
    return compare(
        [np.mean([cell.scores for cell in row], axis=0) for row in ours[:draws]],
        [np.stack([cell.scores for cell in row]) for row in base[:draws]],
        item_ids=[row[0].item_ids for row in ours[:draws]],
        seed=seed_from(right[1].seed, "versus", task, method, budget) >> 96,
        level=1 - right[1].alpha,
        alpha=right[1].alpha,
        n_resamples=right[1].n_resamples,
    )


def _cells(folder: Path, campaign: Campaign, task: str, method: str, budget: int) -> list[list[Cell]]:
    store = RunFolder(folder)
    repeats = campaign.random_repeats if method == campaign.baseline else 1
    return [
        [store.read_cell(CellName(task, method, draw, repeat, budget)) for repeat in range(repeats)]
        for draw in range(campaign.draws)
    ]


def worse(comparisons: Sequence[Mapping[str, Any]]) -> list[str]:
    """What came out worse than its baseline, in words."""
    return [
        f"{c['task']}, {c.get('method') or c['candidate']}, budget {c['budget']}: {c['delta']:+.4f}"
        for c in comparisons
        if c["verdict"] == "worse"
    ]
