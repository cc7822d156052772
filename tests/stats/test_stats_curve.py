"""Accuracy against budget and the smallest sufficient budget."""

from __future__ import annotations

import json

import numpy as np
import pytest

from icl_select.errors import StatisticsError
from icl_select.stats import budget_curve


def curve_scores(
    levels: dict[int, float], *, draws: int = 10, items: int = 300, seed: int = 0, noise: float = 0.2
) -> dict[int, list[np.ndarray]]:
    rng = np.random.default_rng(seed)
    common = [rng.random(items) for _ in range(draws)]
    return {
        b: [((1 - noise) * u + noise * rng.random(items) < p).astype(float) for u in common] for b, p in levels.items()
    }


def test_points_and_descent_by_hand() -> None:
    """Ten draws in which budget 20 equals budget 100 and budget 5 loses every second item."""
    full = [np.ones(4)] * 10
    half = [np.array([1.0, 0.0, 1.0, 0.0])] * 10
    result = budget_curve({100: full, 5: half, 20: full}, delta=0.02, seed=0)
    assert [(p.budget, p.mean) for p in result.points] == [(5, 0.5), (20, 1.0), (100, 1.0)]
    assert result.smallest_sufficient_budget == 20
    assert [(s.budget, s.sufficient) for s in result.steps] == [(20, True), (5, False)]
    assert result.steps[0].p_value == 2.0**-10  # all ten shifted differences are +0.02
    assert result.steps[1].p_value == 1.0
    json.dumps(result.to_dict(), allow_nan=False)


def test_search_stops_at_the_first_failure() -> None:
    """Budget 5 would pass, but 20 fails before it: order is fixed, so 5 is never tested."""
    full, empty = [np.ones(4)] * 10, [np.zeros(4)] * 10
    result = budget_curve({5: full, 20: empty, 100: full}, seed=0)
    assert result.smallest_sufficient_budget == 100
    assert [s.budget for s in result.steps] == [20]


def test_too_few_draws_say_so() -> None:
    full = [np.ones(4)] * 4
    result = budget_curve({5: full, 100: full}, seed=0)
    assert result.smallest_sufficient_budget == 100
    assert "at least 5 draws" in result.notes[0]


def test_a_true_plateau_is_found_and_a_slope_is_not() -> None:
    plateau = budget_curve(curve_scores({5: 0.5, 20: 0.695, 50: 0.7, 100: 0.7}), delta=0.05, seed=0)
    assert plateau.smallest_sufficient_budget == 20
    slope = budget_curve(curve_scores({5: 0.4, 20: 0.5, 50: 0.6, 100: 0.7}), delta=0.05, seed=0)
    assert slope.smallest_sufficient_budget == 100


def test_a_budget_that_loses_delta_is_named_in_at_most_a_twentieth() -> None:
    """Both smaller budgets lose exactly delta = 0.04: naming either is an error. 300 campaigns; 5% is 15, and
    27 has a chance of 1 in 1,000."""
    named = 0
    for seed in range(300):
        scores = curve_scores({5: 0.56, 20: 0.56, 100: 0.6}, draws=8, items=150, seed=seed)
        result = budget_curve(scores, delta=0.04, seed=0, n_resamples=20)
        named += result.smallest_sufficient_budget != 100
    assert named <= 27


def test_items_that_favour_a_budget_in_every_draw_are_no_evidence() -> None:
    """The same 60 items in all ten draws; the smaller budget loses delta = 0.1 over all items there are, less or more
    on these. 400 campaigns: 20 are 5%, 34 has a chance of 1 in 1,000. Without ids the draws would seem to agree."""
    rng = np.random.default_rng(6)
    named = blind = 0
    for _ in range(400):
        favour = -0.1 + 0.5 * rng.normal(size=60)
        large = [rng.normal(size=60) for _ in range(10)]
        scores = {5: [v + favour + 0.2 * rng.normal(size=60) for v in large], 100: large}
        known = budget_curve(scores, item_ids=[range(60)] * 10, delta=0.1, seed=0, n_resamples=1)
        named += known.smallest_sufficient_budget == 5
        blind += budget_curve(scores, delta=0.1, seed=0, n_resamples=1).smallest_sufficient_budget == 5
    assert named < 34 < blind


def test_one_budget_is_its_own_answer() -> None:
    result = budget_curve({18: [np.ones(3)] * 6}, seed=0)
    assert (result.smallest_sufficient_budget, result.steps) == (18, ())


@pytest.mark.parametrize(
    ("scores", "more", "message"),
    [
        ({}, {}, "no budget"),
        ({5: [[1.0]], 10: [[1.0]]}, {"delta": 0.0}, "delta > 0"),
        ({5: [[1.0]], 10: [[1.0, 0.0]]}, {}, "pair them"),
        ({5: [[1.0]], 10: [[1.0], [1.0]]}, {}, "pair them"),
    ],
)
def test_bad_curves(scores: dict[int, list[list[float]]], more: dict[str, float], message: str) -> None:
    with pytest.raises(StatisticsError, match=message):
        budget_curve(scores, **({"seed": 0} | more))  # type: ignore[arg-type]
