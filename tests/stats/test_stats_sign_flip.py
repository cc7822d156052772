"""Sign-flip test: by hand, against plain enumeration, against scipy, and by its symmetries."""

from __future__ import annotations

import itertools
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats as scipy_stats

from icl_select.errors import StatisticsError
from icl_select.stats import design_notes, sign_flip, sign_flip_floor

counts = st.lists(st.integers(-20, 20), min_size=1, max_size=9)


def enumerate_p(numerators: list[int], alternative: str) -> Fraction:
    """Literal transcription in whole numbers: no rounding anywhere."""
    observed = sum(numerators)
    hits = total = 0
    for signs in itertools.product((1, -1), repeat=len(numerators)):
        value = sum(s * d for s, d in zip(signs, numerators, strict=True))
        total += 1
        hits += {
            "two-sided": abs(value) >= abs(observed),
            "greater": value >= observed,
            "less": value <= observed,
        }[alternative]
    return Fraction(hits, total)


def test_hand_example() -> None:
    """Differences 1, 2, -1: |sum| is 2. The eight sums are 4, 2, 0, -2 and 2, 0, -2, -4 (signs of 2 and the
    ones), of which |4|, |2|, |-2|, |2|, |-2|, |-4| are at least 2: p = 6/8."""
    assert sign_flip([1.0, 2.0, -1.0]).p_value == 0.75


@settings(max_examples=150, deadline=None)
@given(counts, st.sampled_from(["two-sided", "greater", "less"]), st.sampled_from([1, 3, 7, 256, 1000]))
def test_equals_enumeration_in_whole_numbers(numerators: list[int], alternative: str, denominator: int) -> None:
    """Thirds and sevenths have no exact float, yet sums that are equal on paper count as equal."""
    result = sign_flip([d / denominator for d in numerators], alternative=alternative)
    assert Fraction(result.p_value) == enumerate_p(numerators, alternative)
    assert result.exact
    assert result.seed is None


@pytest.mark.parametrize("alternative", ["two-sided", "greater", "less"])
@pytest.mark.parametrize("n", [5, 8, 12])
def test_equals_scipy(n: int, alternative: str) -> None:
    d = np.random.default_rng(n).normal(0.3, 1.0, size=n)
    expected = scipy_stats.permutation_test(
        (d, np.zeros(n)), lambda a, b: np.mean(a - b), permutation_type="samples", alternative=alternative
    )
    # scipy doubles the smaller one-sided p; the null distribution is symmetric, so that is the same number
    assert sign_flip(d, alternative=alternative).p_value == pytest.approx(expected.pvalue, abs=1e-15)


@pytest.mark.parametrize("n", [19, 25, 30])
def test_many_draws_stay_exact(n: int) -> None:
    """All agree in sign and size: only the observed pattern and its mirror are as extreme."""
    result = sign_flip([0.01] * n)
    assert result.p_value == 2.0 ** (1 - n)
    assert result.n_resamples == 2**n


def test_random_patterns_agree_with_exact_ones() -> None:
    d = np.random.default_rng(3).normal(0.25, 1.0, size=31)
    sampled = sign_flip(d, seed=5)
    assert not sampled.exact
    assert (sampled.seed, sampled.n_resamples) == (5, 100_000)
    # normal approximation of the permutation distribution, good at 31 draws
    expected = 2 * scipy_stats.norm.sf(abs(d.sum()) / np.sqrt((d**2).sum()))
    assert sampled.p_value == pytest.approx(expected, abs=0.01)
    assert sign_flip(d, seed=5) == sampled


def test_plus_one_rule_never_gives_zero() -> None:
    assert sign_flip([1.0] * 40, n_resamples=999).p_value == 1 / 1000


@settings(max_examples=60, deadline=None)
@given(counts, st.randoms(use_true_random=False), st.floats(0.001, 1000))
def test_symmetries(numerators: list[int], random, scale: float) -> None:  # type: ignore[no-untyped-def]
    p = sign_flip(numerators).p_value
    shuffled = list(numerators)
    random.shuffle(shuffled)
    assert sign_flip(shuffled).p_value == p
    assert sign_flip([-d for d in numerators]).p_value == p
    assert sign_flip([d * scale for d in numerators]).p_value == p
    greater, less = (sign_flip(numerators, alternative=a).p_value for a in ("greater", "less"))
    assert sign_flip([-d for d in numerators], alternative="greater").p_value == less
    assert greater + less >= 1.0
    assert p >= sign_flip_floor(len(numerators))


def test_zeros_carry_no_evidence() -> None:
    assert sign_flip([0.0] * 6).p_value == 1.0
    with_zeros = sign_flip([0.1, 0.1, 0.1, 0.0, 0.0])
    assert with_zeros.p_value == sign_flip([0.1, 0.1, 0.1]).p_value == 0.25
    assert with_zeros.n_nonzero == 3


def test_floor() -> None:
    assert sign_flip_floor(5) == 1 / 16
    assert sign_flip_floor(5, alternative="greater") == 1 / 32
    assert sign_flip([1.0, 2.0, 3.0, 4.0, 5.0]).p_value == 1 / 16


@pytest.mark.parametrize(
    ("draws", "family", "needed", "reachable", "largest"),
    [(5, 1, 6, False, 0), (6, 1, 6, True, 1), (10, 12, 9, True, 25), (10, 96, 12, False, 25), (3, 12, 9, False, 0)],
)
def test_design_is_judged_before_the_run(draws: int, family: int, needed: int, reachable: bool, largest: int) -> None:
    check = design_notes(draws, family, 0.05)
    assert (check.needed_draws, check.reachable, check.largest_family) == (needed, reachable, largest)
    assert sign_flip_floor(needed) * family <= 0.05 < sign_flip_floor(needed - 1) * family
    if not reachable:
        assert len(check.notes) == 1
        assert f"at least {needed} draws" in check.notes[0]


def test_design_notes_name_the_numbers() -> None:
    (note,) = design_notes(10, 96).notes
    assert note == (
        "10 draws cannot reach significance in a family of 96 comparisons: the smallest p of a sign-flip test over "
        "10 draws is 1/512 = 0.001953, and Holm needs alpha/96 = 0.000521. Run at least 12 draws, or compare at most "
        "25 cells per family."
    )
    assert design_notes(20, 12).notes == ()
    (slack,) = design_notes(6, 1).notes
    assert "all 6 draws agree in sign" in slack


def test_absurd_designs_do_not_overflow() -> None:
    assert design_notes(5000, 10).reachable
    assert sign_flip_floor(5000) == 0.0


@pytest.mark.parametrize(
    ("values", "message"),
    [([], "is empty"), ([0.1, float("nan")], "position 1"), ([[0.1]], "flat sequence"), (["a"], "numbers")],
)
def test_bad_differences(values: list[object], message: str) -> None:
    with pytest.raises(StatisticsError, match=message):
        sign_flip(values)  # type: ignore[arg-type]


def test_unknown_alternative() -> None:
    with pytest.raises(StatisticsError, match="'two-sided', 'greater' or 'less'"):
        sign_flip([1.0], alternative="both")  # type: ignore[arg-type]
