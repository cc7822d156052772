"""Variance components, the interval, and shared luck: slow references, known truths, coverage."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats as scipy_stats

from icl_select.errors import StatisticsError
from icl_select.stats import (
    hierarchical_bootstrap,
    mean_variance,
    overlap_note,
    selection_overlap,
    variance_components,
)
from icl_select.stats._cells import make_cells
from icl_select.stats.bootstrap import bootstrap_means
from icl_select.stats.overlap import luck_variance


def crossed(
    rng: np.random.Generator, draws: int, items: int, file: int, sd: tuple[float, float, float], mean: float = 0.0
) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """Normal data of the model mean + draw + item + residual, on random subsets of one test file."""
    effect = sd[1] * rng.normal(size=file)
    ids = [rng.permutation(file)[:items] for _ in range(draws)]
    values = [mean + sd[0] * rng.normal() + effect[i] + sd[2] * rng.normal(size=items) for i in ids]
    return values, ids


def test_without_ids_it_is_the_t_test_on_draw_means() -> None:
    values = np.random.default_rng(0).normal(0.1, 1, size=(7, 40))
    result = mean_variance(values)
    expected = scipy_stats.ttest_1samp(values.mean(axis=1), 0.0)
    assert result.p_value() == pytest.approx(expected.pvalue)
    assert result.df == pytest.approx(6)
    greater, less = result.p_value("greater"), result.p_value("less")
    assert greater + less == pytest.approx(1)
    assert min(greater, less) * 2 == pytest.approx(result.p_value())


def slow_item_covariance(values: list[np.ndarray], ids: list[np.ndarray]) -> float:
    """Loop over pairs of draws and their common items, as the formula reads."""
    total, pairs = 0.0, 0
    for r, (x, i) in enumerate(zip(values, ids, strict=True)):
        for s, (y, j) in enumerate(zip(values, ids, strict=True)):
            if r == s:
                continue
            pairs += 1
            common = set(i.tolist()) & set(j.tolist())
            product = sum((x[i.tolist().index(k)] - x.mean()) * (y[j.tolist().index(k)] - y.mean()) for k in common) / (
                len(x) * len(y)
            )
            keep = 1 - 1 / len(x) - 1 / len(y) + len(common) / (len(x) * len(y))
            total += product / keep
    return max(0.0, total / pairs)


def test_item_covariance_equals_the_loop() -> None:
    rng = np.random.default_rng(2)
    values, ids = crossed(rng, 4, 12, 20, (0.1, 1.0, 0.3))
    values[1], ids[1] = values[1][:7], ids[1][:7]  # draws of unequal size
    assert mean_variance(values, item_ids=ids).items == pytest.approx(slow_item_covariance(values, ids))


@pytest.mark.parametrize("sd", [(0.05, 0.1, 0.4), (0.0, 0.3, 0.3), (0.1, 0.0, 0.5)])
def test_components_are_unbiased_and_total_is_the_true_variance(sd: tuple[float, float, float]) -> None:
    rng = np.random.default_rng(3)
    parts, estimates, totals = [], [], []
    for _ in range(400):
        values, ids = crossed(rng, 8, 60, 100, sd)
        found = variance_components(values, item_ids=ids)
        result = mean_variance(values, item_ids=ids)
        parts.append((found.draw, found.item, found.residual))
        estimates.append(result.effect)
        totals.append(result.total)
    draw, item, residual = np.mean(parts, axis=0)
    # truncation at 0 lifts a component that is truly 0 a little
    assert draw == pytest.approx(sd[0] ** 2, rel=0.15, abs=0.0008)
    assert item == pytest.approx(sd[1] ** 2, rel=0.15, abs=0.004)
    assert residual == pytest.approx(sd[2] ** 2, rel=0.05)
    assert np.mean(totals) == pytest.approx(np.var(estimates), rel=0.25)


def test_constant_differences_have_no_variance() -> None:
    interval = hierarchical_bootstrap([[0.1, 0.1]] * 4, seed=0)
    assert (interval.low, interval.high) == (0.1, 0.1)
    result = mean_variance([[0.1, 0.1]] * 4)
    assert (result.total, result.p_value(), result.p_value("less")) == (0.0, 0.0, 1.0)
    assert mean_variance([[0.0, 0.0]] * 4).p_value() == 1.0


def test_one_draw_uses_its_items() -> None:
    x = np.random.default_rng(4).normal(size=200)
    result = mean_variance([x])
    assert result.p_value() == pytest.approx(scipy_stats.ttest_1samp(x, 0).pvalue)
    interval = hierarchical_bootstrap([x], seed=0, n_resamples=4000)
    expected = scipy_stats.ttest_1samp(x, 0).confidence_interval(0.95)
    assert (interval.low, interval.high) == pytest.approx((expected.low, expected.high), abs=0.02)


@settings(max_examples=40, deadline=None)
@given(
    st.lists(st.lists(st.floats(-1, 1), min_size=1, max_size=6), min_size=1, max_size=6),
    st.integers(0, 1000),
    st.booleans(),
)
def test_interval_holds_its_estimate(values: list[list[float]], seed: int, recurring: bool) -> None:
    ids = [range(len(v)) for v in values] if recurring else None
    interval = hierarchical_bootstrap(values, item_ids=ids, seed=seed, n_resamples=50)
    assert interval.low <= interval.estimate <= interval.high
    assert interval.estimate == pytest.approx(np.mean([np.mean(v) for v in values]), abs=1e-12)
    assert hierarchical_bootstrap(values, item_ids=ids, seed=seed, n_resamples=50) == interval


@pytest.mark.parametrize("recurring", [False, True])
def test_interval_moves_and_scales_with_the_data(recurring: bool) -> None:
    rng = np.random.default_rng(5)
    values, ids = crossed(rng, 6, 30, 50, (0.2, 0.2, 0.5))
    given_ids = ids if recurring else None
    base = hierarchical_bootstrap(values, item_ids=given_ids, seed=1)
    moved = hierarchical_bootstrap([3 * v + 2 for v in values], item_ids=given_ids, seed=1)
    assert (moved.low, moved.high) == pytest.approx((3 * base.low + 2, 3 * base.high + 2))
    wider = hierarchical_bootstrap(values, item_ids=given_ids, seed=1, level=0.99)
    assert wider.low < base.low < base.high < wider.high


def test_ids_may_be_strings_or_numbers() -> None:
    values, ids = crossed(np.random.default_rng(6), 5, 20, 30, (0.1, 0.5, 0.5))
    numbers = hierarchical_bootstrap(values, item_ids=ids, seed=1)
    named = hierarchical_bootstrap(values, item_ids=[[f"item-{k}" for k in i] for i in ids], seed=1)
    assert numbers == named
    assert numbers.n_items <= 30


def test_plain_bootstrap_has_its_known_variance() -> None:
    """Owen: the two-way bootstrap variance is that of draws, items and three times that of the cells; checked
    against a literal resampling with Python loops."""
    rng = np.random.default_rng(7)
    values, ids = crossed(rng, 4, 8, 10, (0.5, 0.5, 1.0))
    slow = []
    for _ in range(4000):
        weight = np.bincount(rng.integers(10, size=10), minlength=10)
        means = [
            np.average(v, weights=weight[i]) if weight[i].sum() else v.mean() for v, i in zip(values, ids, strict=True)
        ]
        slow.append(np.mean([means[k] for k in rng.integers(4, size=4)]))
    fast = bootstrap_means(make_cells(values, ids, name="values"), seed=1, n_resamples=4000)
    assert fast.std() == pytest.approx(np.std(slow), rel=0.06)
    assert fast.mean() == pytest.approx(np.mean(slow), abs=0.05)
    assert scipy_stats.ks_2samp(fast, slow).pvalue > 0.001


@pytest.mark.parametrize("n_draws", [5, 10])
@pytest.mark.parametrize("sd", [(0.05, 0.0, 0.5), (0.01, 0.3, 0.4)])
def test_coverage(n_draws: int, sd: tuple[float, float, float]) -> None:
    """400 data sets: 95% intervals hold the truth in at least 92% (the binomial error is 1.1 points)."""
    rng = np.random.default_rng([8, n_draws])
    held = 0
    for seed in range(400):
        values, ids = crossed(rng, n_draws, 100, 150, sd, mean=0.07)
        held += 0.07 in hierarchical_bootstrap(values, item_ids=ids, seed=seed, n_resamples=300)
    assert 0.92 <= held / 400 <= 0.985


def test_selection_overlap_by_hand() -> None:
    """{1,2,3} and {2,3,4} share two of three, both share none with {7,8,9}."""
    assert selection_overlap([[1, 2, 3], [2, 3, 4], [7, 8, 9]]) == pytest.approx(2 / 9)
    assert selection_overlap([np.array([1, 2])] * 4) == pytest.approx(1)
    assert selection_overlap([["a"]]) == 0.0
    with pytest.raises(StatisticsError, match="at least one id"):
        selection_overlap([[1], []])


def test_luck_variance_by_hand() -> None:
    """Means 0.4, 0.6 (squares 0.02) and 0.5, 0.5, 0.8 (squares 0.06): 0.08 over 1 + 2. In the second draw nothing
    else varies; in the first the items move with the selection, so nothing is taken away either."""
    random = [np.array([[0.3, 0.5], [0.5, 0.7]]), np.array([[0.5, 0.5], [0.5, 0.5], [0.8, 0.8]])]
    assert luck_variance(random, without_items=False) == (pytest.approx(0.08 / 3), 3)
    assert luck_variance(random, without_items=True) == (pytest.approx(0.08 / 3), 3)
    assert luck_variance([np.array([[0.4, 0.2]])], without_items=True) == (0.0, 0)


def test_luck_without_items_is_the_variance_of_selections() -> None:
    """Selections of variance 0.04 with item noise of variance 1 on 50 items: 0.04, or 0.04 + 1/50 with noise."""
    rng = np.random.default_rng(9)
    random = [0.2 * rng.normal(size=(6, 1)) + rng.normal(size=50) + rng.normal(size=(6, 50)) for _ in range(300)]
    assert luck_variance(random, without_items=True)[0] == pytest.approx(0.04, rel=0.1)
    assert luck_variance(random, without_items=False)[0] == pytest.approx(0.06, rel=0.1)


def test_luck_is_as_uncertain_as_what_it_is_the_difference_of() -> None:
    """Two selections on two items. Means 0.25, 0.75: mean square 0.125. Residuals +-0.25 on each of four values:
    0.25 / (1 * 2) = 0.125 comes off the first draw; nothing off the second, with means 0 and 1: mean square 0.5.
    Over 1 + 1: 0.3125 - 0.0625 = 0.25, so df = 2 (0.25 / 0.3125)^2 = 1.28."""
    random = [np.array([[0.0, 0.5], [1.0, 0.5]]), np.array([[0.0, 0.0], [1.0, 1.0]])]
    assert luck_variance(random, without_items=True) == (pytest.approx(0.25), pytest.approx(1.28))
    assert luck_variance(random[:1], without_items=True) == (0.0, 1)
    least = luck_variance(random, without_items=True, at_least=0.9)
    assert least == (pytest.approx(0.9 * 0.3125), pytest.approx(2 * 0.81))
    assert luck_variance(random, without_items=True, at_least=9.0)[0] == pytest.approx(0.3125)


def test_uncertain_luck_costs_no_more_freedom_than_having_none() -> None:
    values = [[0.0, 0.2], [0.2, 0.4], [0.4, 0.6]]
    plain = mean_variance(values)
    assert mean_variance(values, luck=1e-9, luck_df=1e-12).df == plain.df == 2
    certain = mean_variance(values, luck=plain.draws)
    assert certain.df == pytest.approx(8)  # twice the variance, all of the uncertainty in the draws: 2 * 2^2


@pytest.mark.parametrize(("share", "noise"), [(1.0, 0.5), (1.0, 2.0), (0.5, 2.0)])
def test_shared_luck_is_charged_in_full(share: float, noise: float) -> None:
    """Selections of variance 1 with item noise worth `noise`; a method that shares `share` of its luck between draws.
    2,000 campaigns of 10 draws and 4 random selections: 100 rejections are 5%, 132 have a chance of 1 in 1,000."""
    rng = np.random.default_rng([3, int(10 * share), int(10 * noise)])
    m, draws, repeats, rejected = 4, 10, 4, 0
    for _ in range(2000):
        item_noise = np.sqrt(noise * m) * rng.normal(size=(draws, repeats + 1, m))
        at_random = rng.normal(size=(draws, repeats, 1)) + item_noise[:, 1:]
        luck = np.sqrt(share) * rng.normal() + np.sqrt(1 - share) * rng.normal(size=(draws, 1))
        gaps = luck + item_noise[:, 0] - at_random.mean(axis=1)
        variance, df = luck_variance(list(at_random), without_items=True, at_least=max(0.0, 2 * share - 1))
        rejected += mean_variance(list(gaps), luck=share * variance, luck_df=df).p_value() <= 0.05
    assert rejected < 132


def test_overlap_note_grows_with_the_share() -> None:
    assert overlap_note(300, 3000) is None
    part, much = overlap_note(1200, 3000), overlap_note(2700, 3000)
    assert part is not None
    assert "share 40%" in part
    assert much is not None
    assert "share 90%" in much
    assert "much of its luck" in much
    with pytest.raises(StatisticsError, match="exceeds"):
        overlap_note(10, 5)


@pytest.mark.parametrize(
    ("values", "ids", "message"),
    [
        ([], None, "no draws"),
        ([[1.0], []], None, "draw 1"),
        ([[1.0], [float("nan")]], None, "draw 1"),
        ([[1.0], [2.0]], [[1]], "item_ids lists 1 draws"),
        ([[1.0, 2.0]], [[1]], "2 values but 1 item ids"),
        ([[1.0, 2.0]], [[1, 1]], "twice"),
    ],
)
def test_bad_cells(values: list[list[float]], ids: list[list[int]] | None, message: str) -> None:
    with pytest.raises(StatisticsError, match=message):
        hierarchical_bootstrap(values, item_ids=ids, seed=0)
