"""What a published table can say: every cell against the random selection of the same table."""

from __future__ import annotations

import dataclasses
import statistics
from collections.abc import Mapping, Sequence
from typing import Any

from icl_select.stats import Summary, WelchMark, welch_family

from .figures import Figure, Figures

__all__ = ["RUNS", "mark_entry", "marks", "spread_entry", "supposed_runs"]

RUNS = (3, 5, 10)
"""Numbers of runs that marks are given for."""

_VERDICTS = ("better", "worse", "no evidence")


def supposed_runs(figures: Figures) -> tuple[int, ...]:
    """Return 3, 5, 10 and the number of runs that the table itself rests on."""
    own = [n for n in [figures.runs] if n is not None and n >= 2]
    return tuple(sorted({*RUNS, *own}))


def marks(figures: Figures, runs: Sequence[int] = RUNS, *, alpha: float = 0.05, power: float = 0.8) -> dict[str, Any]:
    """Mark every published cell against the random selection of the same table.

    Parameters
    ----------
    figures : Figures
    runs : sequence of int
        Numbers of runs that are supposed in turn; means and standard deviations stay as printed.
    alpha : float
        Level; Holm adjusts over all cells of the table that can be tested.
    power : float
        Of the stated detectable differences.

    Returns
    -------
    dict
        ``cells``: one record for each cell of another method, with ``at[n]`` the verdict at n runs, or with the
        ``reason`` why there is none. ``summary[n]``: counts, and smallest, median and largest difference that the
        cells could have shown. Scores and differences are fractions.

    Notes
    -----
    Unpaired: a table does not tell which runs share a pool and test items. With the runs at hand, a paired test
    sees more. And a standard deviation over three runs is itself a rough figure.
    """
    baselines = {_spot(figures, cell): cell for cell in figures.cells if cell.method == figures.baseline}
    records, pairs, tested = [], [], []
    for cell in figures.cells:
        if cell.method == figures.baseline:
            continue
        record, pair = _against_baseline(figures, cell, baselines.get(_spot(figures, cell)))
        records.append(record)
        if pair is not None:
            tested.append(record)
            pairs.append(pair)
    for n in runs:
        found = welch_family([_with_runs(pair, n) for pair in pairs], alpha=alpha, power=power)
        for record, mark in zip(tested, found, strict=True):
            record["at"][str(n)] = mark_entry(mark)
    return {
        "baseline": figures.baseline,
        "published_runs": figures.runs,
        "runs": list(runs),
        "alpha": alpha,
        "power": power,
        "n_tested": len(tested),
        "cells": records,
        "summary": {str(n): _summary([record["at"][str(n)] for record in tested]) for n in runs if tested},
    }


def _spot(figures: Figures, cell: Figure) -> tuple[str, int, str, str]:
    task, budget, _, model, embedding = figures.place(cell)
    return task, budget, model, embedding


def _against_baseline(
    figures: Figures, cell: Figure, baseline: Figure | None
) -> tuple[dict[str, Any], tuple[Summary, Summary] | None]:
    task, budget, method, model, embedding = figures.place(cell)
    own = figures.summary(cell)
    other = "the table has no random selection to compare with" if baseline is None else figures.summary(baseline)
    reason = None
    if isinstance(own, str):
        reason = own
    elif isinstance(other, str):
        reason = other if baseline is None else f"of {figures.baseline}: {other}"
    elif own.sd == 0 and other.sd == 0:
        reason = "both standard deviations are printed as 0"
    record = {
        "task": task,
        "budget": budget,
        "method": method,
        "model": model,
        "embedding": embedding,
        "metric": figures.tasks[cell.task].metric,
        **spread_entry("", figures, cell, own),
        **spread_entry("baseline_", figures, baseline, other),
        "delta": None if baseline is None else round((cell.mean - baseline.mean) * figures.scale, 9),
        "reason": reason,
        "at": {},
    }
    if reason is not None or isinstance(own, str) or isinstance(other, str):
        return record, None
    return record, (own, other)


def spread_entry(prefix: str, figures: Figures, cell: Figure | None, summary: Summary | str) -> dict[str, Any]:
    """Mean, standard deviation with its bounds, and runs of a published cell."""
    known = None if isinstance(summary, str) else summary
    return {
        f"{prefix}mean": None if cell is None else cell.mean * figures.scale,
        f"{prefix}sd": None if known is None else known.sd,
        f"{prefix}sd_low": None if known is None else known.sd_low,
        f"{prefix}sd_high": None if known is None else known.sd_high,
        f"{prefix}runs": None if cell is None else figures.runs_of(cell),
    }


def _with_runs(pair: tuple[Summary, Summary], n: int) -> tuple[Summary, Summary]:
    return dataclasses.replace(pair[0], n=n), dataclasses.replace(pair[1], n=n)


def mark_entry(mark: WelchMark) -> dict[str, Any]:
    return {
        "p_value": mark.test.p_value,
        "p_adjusted": mark.p_adjusted,
        "verdict": mark.verdict,
        "mark": mark.mark,
        "ci": {"low": mark.test.low, "high": mark.test.high, "level": mark.test.level},
        "smallest_shown": mark.smallest_shown,
        "detectable_difference": mark.detectable_difference,
        "stable": mark.stable,
    }


def _summary(entries: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    shown = sorted(entry["smallest_shown"] for entry in entries)
    found = sorted(entry["detectable_difference"] for entry in entries)
    return {
        **{verdict: sum(entry["verdict"] == verdict for entry in entries) for verdict in _VERDICTS},
        "unstable": sum(not entry["stable"] for entry in entries),
        "smallest_shown": {"least": shown[0], "median": statistics.median(shown), "most": shown[-1]},
        "detectable_difference": {"least": found[0], "median": statistics.median(found), "most": found[-1]},
    }
