"""Holm, McNemar and Welch: hand examples, scipy, and their laws."""

from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats as scipy_stats

from icl_select.errors import StatisticsError
from icl_select.stats import holm, mcnemar, welch

probabilities = st.lists(st.floats(0, 1), min_size=1, max_size=12)


def test_holm_by_hand() -> None:
    """Sorted 0.005, 0.01, 0.03, 0.04 times 4, 3, 2, 1 = 0.02, 0.03, 0.06, 0.04; running maximum 0.06 last."""
    assert holm([0.03, 0.005, 0.04, 0.01]) == pytest.approx([0.06, 0.02, 0.06, 0.03])


def literal_holm(p: list[float], alpha: float) -> set[int]:
    """Holm's own words: reject while p_(j) <= alpha / (m - j), stop at the first that is not."""
    rejected: set[int] = set()
    for position, k in enumerate(sorted(range(len(p)), key=lambda k: p[k])):
        if p[k] > alpha / (len(p) - position):
            break
        rejected.add(k)
    return rejected


@given(probabilities, st.sampled_from([0.01, 0.05, 0.2]))
def test_holm_rejects_what_the_step_down_rejects(p: list[float], alpha: float) -> None:
    adjusted = holm(p)
    clear = np.abs(adjusted - alpha) > 1e-12
    expected = np.array([k in literal_holm(p, alpha) for k in range(len(p))])
    assert ((adjusted <= alpha) == expected)[clear].all()


@given(probabilities)
def test_holm_laws(p: list[float]) -> None:
    adjusted = holm(p)
    assert (adjusted >= np.array(p)).all()
    assert (adjusted <= 1).all()
    assert (adjusted <= np.minimum(1, np.array(p) * len(p)) + 1e-15).all()  # never worse than Bonferroni
    order = np.argsort(p, kind="stable")
    assert (np.diff(adjusted[order]) >= 0).all()
    assert holm(p[::-1])[::-1] == pytest.approx(adjusted)


def test_holm_of_equal_values_and_of_one() -> None:
    assert holm([0.02, 0.02]) == pytest.approx([0.04, 0.04])
    assert holm([0.02]) == pytest.approx([0.02])


@pytest.mark.parametrize("p", [[], [0.5, 1.2], [-0.1], [float("nan")]])
def test_holm_refuses(p: list[float]) -> None:
    with pytest.raises(StatisticsError):
        holm(p)


def test_mcnemar_by_hand() -> None:
    """Ten items differ, nine in favour: p = 2 (1 + 10) / 2^10."""
    method = [1] * 9 + [0] + [1, 0] * 20
    baseline = [0] * 9 + [1] + [1, 0] * 20
    result = mcnemar(method, baseline)
    assert result.p_value == pytest.approx(22 / 1024)
    assert result.effect == pytest.approx(8 / 50)
    assert result.low > 0
    assert mcnemar(baseline, method).high == pytest.approx(-result.low)
    json.dumps(result.to_dict(), allow_nan=False)


def test_mcnemar_without_a_difference() -> None:
    result = mcnemar([True] * 30, [True] * 30)
    assert (result.effect, result.p_value) == (0.0, 1.0)
    assert result.low < 0 < result.high  # thirty agreements do not prove equality


def test_mcnemar_interval_covers() -> None:
    """300 samples with true difference 0.1: at least 92% of the 95% intervals hold it."""
    rng = np.random.default_rng(0)
    held = 0
    for _ in range(300):
        u = rng.random(256)
        result = mcnemar((u < 0.2) | (u > 0.6), (u < 0.1) | (u > 0.6))
        held += result.low <= 0.1 <= result.high
    assert held >= 276


def test_mcnemar_holds_its_level() -> None:
    """Two selections, equally good on every item: 100 of 2,000 would be 5%, 132 has a chance of 1 in 1,000."""
    rng = np.random.default_rng(2)
    rejected = 0
    for _ in range(2000):
        right = rng.random(150)
        rejected += mcnemar(rng.random(150) < right, rng.random(150) < right).p_value <= 0.05
    assert 50 < rejected < 132


@pytest.mark.parametrize(
    ("first", "second", "message"),
    [([1, 0], [1], "same items"), ([0.5], [1], "right \\(1\\) or wrong"), ([], [], "empty")],
)
def test_mcnemar_refuses(first: list[float], second: list[float], message: str) -> None:
    with pytest.raises(StatisticsError, match=message):
        mcnemar(first, second)


def test_welch_equals_the_test_on_the_runs() -> None:
    rng = np.random.default_rng(1)
    a, b = rng.normal(0.6, 0.03, size=5), rng.normal(0.55, 0.06, size=8)
    result = welch(a.mean(), a.std(ddof=1), 5, b.mean(), b.std(ddof=1), 8, level=0.9)
    expected = scipy_stats.ttest_ind(a, b, equal_var=False)
    assert result.p_value == pytest.approx(expected.pvalue)
    assert result.t == pytest.approx(expected.statistic)
    interval = expected.confidence_interval(0.9)
    assert (result.low, result.high) == pytest.approx((interval.low, interval.high))


@pytest.mark.parametrize(
    ("n1", "sd1", "n2", "share"), [(3, 1.0, 3, 0.035), (10, 3.0, 10, 0.05), (3, 3.0, 10, 0.07)], ids=str
)
def test_welch_rejects_as_often_as_its_notes_say(n1: int, sd1: float, n2: int, share: float) -> None:
    """Equal means; 2,000 pairs, within 3.3 standard errors."""
    rng = np.random.default_rng(4)
    rejected = 0
    for _ in range(2000):
        a, b = sd1 * rng.normal(size=n1), rng.normal(size=n2)
        rejected += welch(a.mean(), a.std(ddof=1), n1, b.mean(), b.std(ddof=1), n2).p_value <= 0.05
    assert abs(rejected / 2000 - share) < 3.3 * np.sqrt(share * (1 - share) / 2000)


@given(st.floats(0.1, 10), st.floats(0, 3), st.floats(0.1, 3), st.integers(2, 20), st.integers(2, 20))
def test_welch_interval_and_test_agree(gap: float, sd1: float, sd2: float, n1: int, n2: int) -> None:
    result = welch(gap, sd1, n1, 0.0, sd2, n2)
    if abs(result.p_value - 0.05) > 1e-9:
        assert (result.low > 0) == (result.p_value < 0.05)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((1.0, 0.1, 1, 2.0, 0.1, 3), "n1=1"),
        ((1.0, -0.1, 3, 2.0, 0.1, 3), "never negative"),
        ((1.0, 0.0, 3, 2.0, 0.0, 3), "more decimals"),
        ((float("inf"), 0.1, 3, 2.0, 0.1, 3), "inf"),
    ],
)
def test_welch_refuses(arguments: tuple[float, float, int, float, float, int], message: str) -> None:
    with pytest.raises(StatisticsError, match=message):
        welch(*arguments)
