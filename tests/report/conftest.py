"""Invented results in the shape that a campaign writes, large enough to look like one."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest

TASKS = ("mrpc", "sst5", "mnli", "dbpedia", "rte", "mwoz", "geoquery", "xsum")
METHODS = ("random", "vote_k(variant='paper')", "ideal", "sub_sa", "max_herding(bandwidth=0.8)")
BUDGETS = (5, 18, 100)
LEVELS = {"mrpc": 0.66, "sst5": 0.31, "mnli": 0.38, "dbpedia": 0.62, "rte": 0.52, "mwoz": 0.12, "geoquery": 0.02}


def make_interval(mean: float, half: float) -> dict[str, Any]:
    return {"estimate": mean, "low": mean - half, "high": mean + half, "level": 0.95, "method": "pigeonhole bootstrap"}


def make_density(rng: np.random.Generator, n: int = 1500) -> dict[str, Any]:
    from icl_select.density import density

    x = rng.normal(size=(12, 24))[rng.integers(12, size=n)] + rng.uniform(0.6, 1.6) * rng.normal(size=(n, 24))
    return density(x.astype(np.float32), seed=0).to_dict()


def make_comparison(task: str, method: str, budget: int, rng: np.random.Generator, size: int) -> dict[str, Any]:
    lift = {"max_herding": 0.035, "vote_k": 0.0, "ideal": 0.004, "sub_sa": -0.02}.get(method.split("(")[0], 0.0)
    delta = float(rng.normal(lift * (1.4 if task == "dbpedia" else 0.6), 0.012))
    half = float(rng.uniform(0.012, 0.035))
    p = float(np.clip(np.exp(-3.2 * (abs(delta) / half) ** 2), 1 / 512, 1))
    adjusted = min(1.0, p * (4 if abs(delta) > half else size))
    decided = adjusted <= 0.05 and abs(delta) > half
    verdict = ("better" if delta > 0 else "worse") if decided else "no evidence"
    return {
        "task": task,
        "baseline": "random",
        "candidate": method,
        "budget": budget,
        "metric": "acc",
        "delta": delta,
        "effect": delta,
        "ci": make_interval(delta, half),
        "p_value": p,
        "p_adjusted": adjusted,
        "test": "sign-flip over draws (exact) and two-way t",
        "verdict": verdict,
        "mark": {"better": "+", "worse": "−", "no evidence": "·"}[verdict],
        "scope": "method",
        "n_draws": 10,
        "n_items": 256,
        "n_comparisons": size,
        "alpha": 0.05,
        "n_resamples": 2000,
        "seed": 7,
        "detectable_difference": half * 1.6,
        "needed_draws": None if decided else int(rng.integers(12, 200)),
        "needed_items": None if decided or rng.random() < 0.5 else int(rng.integers(300, 5000)),
        "power": 0.8,
    }


def make_cells(
    task: str,
    methods: Sequence[str],
    budgets: Sequence[int],
    deltas: dict[tuple[str, str, int], float],
    rng: np.random.Generator,
) -> list[Any]:
    cells = []
    base = {budget: LEVELS.get(task, 0.4) + 0.05 * i + float(rng.normal(0, 0.015)) for i, budget in enumerate(budgets)}
    for method in methods:
        for budget in budgets:
            mean = max(base[budget] + deltas.get((task, method, budget), 0.0), 0.0)
            cells.append(
                {
                    "task": task,
                    "method": method,
                    "budget": budget,
                    "metric": "acc",
                    "mean": mean,
                    "sd": float(rng.uniform(0.01, 0.05)),
                    "ci": make_interval(mean, float(rng.uniform(0.01, 0.03))),
                    "n_draws": 10,
                    "n_items": 256,
                    "n_empty": 0,
                    "n_leaked": 12 if task == "mnli" else 0,
                    "mean_without_leaks": mean - (0.01 if task == "mnli" else 0.0),
                    "balanced_accuracy": mean * 0.8,
                    "macro_f1": mean * 0.75,
                }
            )
    return cells


def make_results(
    tasks: Sequence[str] = TASKS,
    methods: Sequence[str] = METHODS,
    budgets: Sequence[int] = BUDGETS,
    seed: int = 3,
) -> dict[str, Any]:
    """Results of a campaign that never ran; the same arguments give the same numbers."""
    rng = np.random.default_rng(seed)
    size = len(budgets) * (len(methods) - 1)
    comparisons = [
        make_comparison(task, method, budget, rng, size)
        for task in tasks
        for method in methods[1:]
        for budget in budgets
    ]
    deltas = {(c["task"], c["candidate"], c["budget"]): c["delta"] for c in comparisons}
    cells = [cell for task in tasks for cell in make_cells(task, methods, budgets, deltas, rng)]
    curves = [
        {
            "task": task,
            "method": method,
            "metric": "acc",
            "points": [
                {key: cell[key] for key in ("budget", "mean", "ci")}
                for cell in cells
                if (cell["task"], cell["method"]) == (task, method)
            ],
            "smallest_sufficient_budget": budgets[-1],
            "delta": 0.02,
        }
        for task in tasks
        for method in methods
    ]
    return {
        "schema": "icl-select/results/1",
        "name": "knn nine",
        "versions": {"icl-select": "0.1.0", "python": "3.11.4", "numpy": "2.4.6"},
        "config": {
            "name": "knn nine",
            "tasks": list(tasks),
            "methods": list(methods),
            "budgets": list(budgets),
            "baseline": "random",
            "encoder": "minilm",
            "centre": True,
            "scorer": "knn",
            "alpha": 0.05,
        },
        "design": {
            "draws": 10,
            "random_repeats": 5,
            "pool_size": 3000,
            "test_size": 256,
            "baseline": "random",
            "family": "task",
            "n_comparisons": size,
            "smallest_p": 1 / 512,
            "smallest_p_adjusted": min(1.0, size / 512),
            "reachable": True,
            "needed_draws": 9,
            "alpha": 0.05,
            "power": 0.8,
            "tasks": {
                task: {
                    "pool_size": 3000,
                    "pool_file": 4076,
                    "test_size": 256,
                    "test_file": 1725,
                    "pool_overlap": 0.74,
                    "test_overlap": 0.15,
                    "detectable_difference": 0.061,
                }
                for task in tasks
            },
            "notes": [
                "hellaswag: its options are free text, one set for each item, so knn has no label words to vote on."
            ],
        },
        "tasks": {
            "hellaswag": {"skipped": "its options are free text, so knn has no label words to vote on."},
            **{task: {"skipped": None, "n_choices": 4, "majority_rate": 0.31, "metric": "acc"} for task in tasks},
        },
        "cells": cells,
        "comparisons": comparisons,
        "curves": curves,
        "density": {task: make_density(rng) for task in tasks},
        "leaks": {
            task: {
                "n_queries": 1725,
                "n_pool": 3000,
                "threshold": 0.95,
                "counts": {"exact": 0, "normalised": 2, "near": 10 if task == "mnli" else 0},
                "leaks": [],
                "summary": "",
            }
            for task in tasks
        },
        "duplicates": {
            task: {
                "n": 3000,
                "threshold": 0.95,
                "n_redundant": {"exact": 3, "normalised": 5, "near": 44},
                "disagreeing": [["a", "b"]],
                "summary": "",
            }
            for task in tasks
        },
        "truncation": {
            task: {
                "max_tokens": 256,
                "pool": {"n": 3000, "truncated": 12, "share": 0.004},
                "test": {"n": 1725, "truncated": 0, "share": 0.0},
            }
            for task in tasks
        },
    }


@pytest.fixture(scope="session")
def make() -> Callable[..., dict[str, Any]]:
    """The function that makes results for any tasks, methods and budgets."""
    return make_results


@pytest.fixture(scope="session")
def results() -> dict[str, Any]:
    return make_results()
