"""``icl-select eval published``: what published tables can and cannot say."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any

from cyclopts import Parameter

from icl_select.cli._output import emit_json, emit_rows, remark

__all__ = ["published"]

Json = Annotated[bool, Parameter(name="--json", negative="")]


def published(
    figures: str | None = None,
    /,
    *,
    runs: Annotated[str | None, Parameter(name=["--runs", "-n"])] = None,
    alpha: float = 0.05,
    power: float = 0.8,
    as_json: Json = False,
) -> int:
    """Mark every cell of a published table: better or worse than its random selection, or no evidence.

    Parameters
    ----------
    figures
        File of published figures (YAML), or the name of shipped ones; without, those are listed.
    runs
        Numbers of runs to suppose, separated by commas; default 3, 5, 10 and those of the table.
    alpha
        Level of the tests.
    power
        Power of the stated detectable differences.
    as_json
        Write JSON.
    """
    from .figures import load_figures
    from .marks import marks, supposed_runs

    if figures is None:
        return _list(as_json=as_json)
    loaded = load_figures(figures)
    supposed = supposed_runs(loaded) if runs is None else _numbers(runs)
    found = marks(loaded, supposed, alpha=alpha, power=power)
    if as_json:
        emit_json({**loaded.about(), "marks": found})
        return 0
    for item in loaded.missing:
        remark(f"missing: {item.what}. {item.reason}")
    header = ["task", "labels", "method", "model", "mean", "sd", "random", "random_sd", "difference", "n", "p_adjusted"]
    emit_rows([*header, "needs", "mark", "verdict"], [row for cell in found["cells"] for row in _rows(cell)])
    for n, counts in found["summary"].items():
        remark(f"{n} runs: {counts['better']} better, {counts['worse']} worse, {counts['no evidence']} no evidence")
    return 0


def _list(*, as_json: bool) -> int:
    from .figures import figure_names, load_figures

    rows: list[dict[str, Any]] = []
    for name in figure_names():
        loaded = load_figures(name)
        tested = sum(not isinstance(loaded.summary(cell), str) for cell in loaded.cells)
        rows.append(
            {
                "figures": name,
                "title": loaded.title,
                "arxiv": loaded.source.arxiv,
                "cells": len(loaded.cells),
                "with_spread": tested,
                "missing": "; ".join(item.what for item in loaded.missing),
            }
        )
    if as_json:
        emit_json(rows)
    else:
        emit_rows(list(rows[0]), [list(row.values()) for row in rows])
    return 0


def _numbers(text: str) -> tuple[int, ...]:
    from icl_select.errors import ParameterError

    try:
        numbers = tuple(sorted({int(part) for part in text.split(",")}))
    except ValueError as exc:
        raise ParameterError(f"--runs {text!r} is no list of whole numbers. Write for example --runs 3,5,10.") from exc
    if numbers[0] < 2:
        raise ParameterError(f"--runs {text!r}: one run has no spread. Ask for 2 or more.")
    return numbers


def _rows(cell: Mapping[str, Any]) -> list[list[Any]]:
    """One row for each number of runs, or one that says why there is none. Figures in percent."""

    def percent(value: float | None) -> str:
        return "" if value is None else f"{100 * value:.1f}"

    head = [
        cell["task"],
        cell["budget"],
        cell["method"],
        cell["model"],
        *(percent(cell[key]) for key in ("mean", "sd", "baseline_mean", "baseline_sd")),
        "" if cell["delta"] is None else f"{100 * cell['delta']:+.1f}",
    ]
    if cell["reason"] is not None:
        return [[*head, "", "", "", "", f"not tested: {cell['reason']}"]]
    return [
        [*head, n, at["p_adjusted"], percent(at["smallest_shown"]), at["mark"], at["verdict"]]
        for n, at in cell["at"].items()
    ]
