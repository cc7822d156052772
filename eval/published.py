"""Ours beside theirs: published tables against a finished campaign, and what such a table can show at all."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any

from icl_select import registry
from icl_select._fingerprint import fingerprint
from icl_select.errors import ConfigError, IclSelectError
from icl_select.stats import Summary, welch_family

from .figures import Figure, Figures, load_figures
from .marks import mark_entry, marks, spread_entry, supposed_runs

__all__ = ["attach", "compare_with_published", "figures_key"]

_WORDS = {"better": "higher", "worse": "lower", "no evidence": "no evidence"}


def attach(results: Mapping[str, Any], campaign: Any) -> dict[str, Any]:
    """Return `results` with the key ``published``, if the campaign names published figures.

    Parameters
    ----------
    results : mapping
        As :func:`icl_select.eval.compare.build_results` gives them.
    campaign : Campaign
        Its key ``published`` names shipped figures or a file; null leaves the results as they are.

    Raises
    ------
    ConfigError
        If there are no such figures.
    """
    name = campaign.published
    if name is None:
        return dict(results)
    figures = load_figures(name)
    compared = compare_with_published(results, figures, alpha=campaign.alpha, power=campaign.power)
    return {
        **results,
        "published": {
            **figures.about(),
            "n_cells": len(figures.cells),
            "comparisons": compared,
            "marks": marks(figures, supposed_runs(figures), alpha=campaign.alpha, power=campaign.power),
        },
    }


def figures_key(campaign: Any) -> str | None:
    """Hash of the published figures that a campaign names: results that show them depend on it. None without any."""
    return None if campaign.published is None else fingerprint(load_figures(campaign.published).model_dump(mode="json"))


def compare_with_published(
    results: Mapping[str, Any], figures: Figures, *, alpha: float = 0.05, power: float = 0.8
) -> list[dict[str, Any]]:
    """Set every published cell of our tasks and methods beside ours, with the difference tested.

    Parameters
    ----------
    results : mapping
        What a campaign writes as ``results.json``.
    figures : Figures
    alpha : float
        Level; Holm adjusts over all cells that can be tested.
    power : float
        Of the stated detectable differences.

    Returns
    -------
    list of dict
        One record for each published cell: ours, theirs, ``delta`` (ours minus theirs), Welch's test with
        ``verdict`` (``higher``, ``lower``, ``no evidence``), or ``reason`` why there is no test. All as fractions.

    Raises
    ------
    ConfigError
        If our scores are no fractions.

    Notes
    -----
    Ours count one run for each draw: repeats of the baseline on one draw share its pool and test items. A cell
    is matched by task, budget, metric, model (last part of its name), embedding, and the method by its name and those
    parameters that the file gives; every variant of ours that matches gets a record.
    """
    records: list[dict[str, Any]] = []
    pairs, tested = [], []
    for cell in figures.cells:
        found, reason = _find_ours(results, figures, cell)
        partners: list[Mapping[str, Any] | None] = [*found] or [None]
        for ours in partners:
            record, pair = _beside(figures, cell, ours, reason)
            records.append(record)
            if pair is not None:
                tested.append(record)
                pairs.append(pair)
    for record, mark in zip(tested, welch_family(pairs, alpha=alpha, power=power), strict=True):
        record.update(mark_entry(mark), verdict=_WORDS[mark.verdict], n_comparisons=len(pairs))
    return records


def _find_ours(
    results: Mapping[str, Any], figures: Figures, cell: Figure
) -> tuple[list[Mapping[str, Any]], str | None]:
    """Our cells of the same place (one for each variant of the method that was run), or why there are none."""
    _, budget, word, model, embedding = figures.place(cell)
    place, method = figures.tasks[cell.task], figures.methods[word]
    if place.task is None:
        return [], f"{cell.task} is none of our tasks"
    if method is None:
        return [], f"{word} is none of our methods"
    config = results.get("config") or {}
    for kind, theirs, known, own in (
        ("model", model, figures.models[model], _model(str(config.get("scorer") or "knn"))),
        ("embedding", embedding, figures.embeddings[embedding], str(config.get("encoder") or "").split("@")[0]),
    ):
        if _tail(own) not in [_tail(name) for name in known]:
            return [], f"another {kind}: ours {own or 'is not recorded'}, theirs {theirs}"
    found = [
        ours
        for ours in results.get("cells") or []
        if (ours["task"], ours["budget"]) == (place.task, budget) and _same_method(ours["method"], method)
    ]
    if not found:
        return [], "not in this run"
    metrics = sorted({str(ours.get("metric")) for ours in found} - {place.metric})
    if metrics:
        return [], f"another metric: ours {', '.join(metrics)}, theirs {place.metric}"
    return found, None


def _model(scorer: str) -> str:
    """The language model of a scorer, or the scorer itself where it has none."""
    try:
        spec = registry.parse(scorer)
    except IclSelectError:
        return scorer
    return str(spec.params.get("model", spec.name))


def _tail(name: str) -> str:
    """The last part of a model's name: a hub id and a folder of that name are the same model."""
    return name.rstrip("/").rsplit("/", 1)[-1].casefold()


def _same_method(ours: str, theirs: str) -> bool:
    """Whether our method has the name and all parameters that the figures give, defaults counted."""
    wanted, spec = registry.parse(theirs), registry.parse(ours)
    if spec.name != wanted.name:
        return False
    _, function = registry.resolve(wanted)
    defaults = {name: parameter.default for name, parameter in inspect.signature(function).parameters.items()}
    return all(spec.params.get(name, defaults.get(name)) == value for name, value in wanted.params.items())


def _beside(
    figures: Figures, cell: Figure, ours: Mapping[str, Any] | None, reason: str | None
) -> tuple[dict[str, Any], tuple[Summary, Summary] | None]:
    task, budget, method, model, embedding = figures.place(cell)
    theirs = figures.summary(cell)
    own = _our_summary(ours) if ours is not None else reason
    if isinstance(own, Summary):
        if isinstance(theirs, str):
            reason = f"theirs: {theirs}"
        elif own.sd == 0 and theirs.sd == 0:
            reason = "neither ours nor theirs varies"
    else:
        reason = own
    record: dict[str, Any] = {
        "task": figures.tasks[cell.task].task or task,
        "budget": budget,
        "method": ours["method"] if ours is not None else method,
        "published_as": {"task": task, "method": method, "model": model, "embedding": embedding},
        "metric": figures.tasks[cell.task].metric,
        "ours": None if ours is None else {"mean": ours["mean"], "sd": ours.get("sd"), "runs": ours["n_draws"]},
        "theirs": spread_entry("", figures, cell, theirs),
        "delta": None if ours is None else round(ours["mean"] - cell.mean * figures.scale, 9),
        "reason": reason,
    }
    if isinstance(own, Summary) and isinstance(theirs, Summary) and reason is None:
        return record, (own, theirs)
    return record, None


def _our_summary(cell: Mapping[str, Any]) -> Summary | str:
    mean, sd, runs = cell["mean"], cell.get("sd"), int(cell["n_draws"])
    if not 0 <= mean <= 1:
        raise ConfigError(
            f"the score of {cell['task']}, {cell['method']} is {mean:g}, no fraction from 0 to 1, so it cannot be set "
            "beside published figures. Use a metric between 0 and 1."
        )
    if runs < 2 or sd is None:
        return "ours: a single run has no spread"
    return Summary(mean, sd, runs, sd, sd)
