"""Power: closed forms, brute force, and simulation through the real tests."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats as scipy_stats

from icl_select.errors import StatisticsError
from icl_select.stats import PILOT, Design, VarianceComponents, mean_variance, sign_flip
from icl_select.stats.power import _flip_limits

DRAWS_ONLY = VarianceComponents(draw=1.0, item=0.0, residual=0.0)


def test_six_draws_need_six_agreements() -> None:
    """At 5% six draws reject iff all agree and the t-test does: never more often than Phi(d)^6 says."""
    design = Design(6, 100, DRAWS_ONLY)
    for difference in (1.5, 2.0, 3.0):
        assert design.power(difference) <= scipy_stats.norm.cdf(difference) ** 6 + 0.02


def test_many_draws_agree_with_the_noncentral_t() -> None:
    design = Design(40, 100, DRAWS_ONLY)
    difference = 0.5
    critical = scipy_stats.t.ppf(0.975, 39)
    expected = scipy_stats.nct.sf(critical, 39, difference * np.sqrt(40))
    assert design.power(difference) == pytest.approx(expected, abs=0.025)


@pytest.mark.parametrize("count", [1, 2, 13])
def test_flip_limit_is_where_the_test_turns(count: int) -> None:
    """Just below the limit the sign-flip p-value is above 2 count / 2^R, just above it is not."""
    z = np.random.default_rng(0).normal(size=(20, 8))
    limits = _flip_limits(z, count)
    for sample, limit in zip(z, limits, strict=True):
        assert sign_flip(sample + limit + 1e-6, alternative="greater").p_value <= count / 256
        assert sign_flip(sample + limit - 1e-6, alternative="greater").p_value > count / 256


@pytest.mark.parametrize(
    ("n_draws", "family", "parts", "share"),
    [
        (6, 1, VarianceComponents(0.0016, 0.0, 0.25), 0.0),
        (10, 1, VarianceComponents(0.0004, 0.02, 0.2), 0.5),
        (10, 12, VarianceComponents(0.0016, 0.0, 0.25), 0.0),
        (13, 96, VarianceComponents(0.0016, 0.0, 0.25), 0.0),
        (20, 12, VarianceComponents(0.0009, 0.0, 0.25), 0.0),
    ],
)
def test_detectable_difference_is_detected_four_times_in_five(
    n_draws: int, family: int, parts: VarianceComponents, share: float
) -> None:
    """400 simulated campaigns with exactly that difference, tested as a verdict is."""
    items, file = 100, 200
    design = Design(n_draws, items, parts, n_comparisons=family, item_share=share)
    difference = design.detectable_difference()
    assert difference is not None
    rng = np.random.default_rng([n_draws, family])
    found = 0
    for _ in range(400):
        item = np.sqrt(parts.item) * rng.normal(size=file)
        ids = [rng.permutation(file)[:items] for _ in range(n_draws)] if share else None
        values = [
            difference
            + np.sqrt(parts.draw) * rng.normal()
            + (item[ids[r]] if ids else 0.0)
            + np.sqrt(parts.residual) * rng.normal(size=items)
            for r in range(n_draws)
        ]
        result = mean_variance(values, item_ids=ids)
        p = max(sign_flip([v.mean() for v in values]).p_value, result.p_value())
        found += p <= 0.05 / family
    assert found / 400 == pytest.approx(0.8, abs=0.07)


def test_designs_that_cannot_detect_anything() -> None:
    for design in (Design(5, 256), Design(1, 256), Design(10, 256, n_comparisons=96)):
        assert design.detectable_difference() is None
        assert design.power(0.9) == 0.0
        assert design.needed_items(0.9) is None


def test_more_of_anything_helps_and_more_comparisons_hurt() -> None:
    base = Design(10, 256)
    found = base.detectable_difference()
    assert found is not None
    for better in (Design(20, 256), Design(10, 2560)):
        other = better.detectable_difference()
        assert other is not None
        assert other < found
    other = Design(10, 256, n_comparisons=12).detectable_difference()
    assert other is not None
    assert other > found
    powers = [base.power(d) for d in np.linspace(0, 0.2, 9)]
    assert powers == sorted(powers)
    assert base.power(-0.05) == base.power(0.05)
    assert base.power(0.0) <= 0.06


def test_needed_draws_and_items_are_the_smallest() -> None:
    design = Design(10, 256, VarianceComponents(draw=0.0009, item=0.0, residual=0.25))
    draws = design.needed_draws(0.03)
    assert draws is not None
    assert (
        Design(draws, 256, design.components).power(0.03) >= 0.8 > Design(draws - 1, 256, design.components).power(0.03)
    )
    items = design.needed_items(0.04)
    assert items is not None
    assert (
        Design(10, items, design.components).power(0.04) >= 0.8 > Design(10, items - 1, design.components).power(0.04)
    )


def test_no_finite_number_where_none_helps() -> None:
    assert Design(10, 256).needed_draws(0.0) is None
    assert Design(10, 256).needed_draws(1e-6) is None
    # luck that all draws share does not average out, whatever one adds
    stuck = Design(10, 256, VarianceComponents(draw=0.001, item=0.0, residual=0.25, luck=0.001))
    assert stuck.needed_draws(0.05) is None
    assert stuck.needed_items(0.05) is None
    # two draws that differ much: items do not help
    assert Design(10, 256, VarianceComponents(draw=0.01, item=0.0, residual=0.25)).needed_items(0.05) is None


def test_pilot_is_a_plain_default() -> None:
    assert Design(10, 256).components is PILOT
    assert Design(10, 256).to_dict()["components"]["residual"] == PILOT.residual


@pytest.mark.parametrize(
    "bad", [{"n_draws": 0}, {"n_items": 0}, {"alpha": 1.5}, {"n_comparisons": 0}, {"item_share": 2.0}, {"n_draws": 2.5}]
)
def test_bad_designs(bad: dict[str, float]) -> None:
    with pytest.raises(StatisticsError, match=next(iter(bad))):
        Design(**({"n_draws": 10, "n_items": 256} | bad))  # type: ignore[arg-type]
