"""Comparisons, families and verdicts."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from icl_select.errors import StatisticsError
from icl_select.stats import compare, compare_family, hierarchical_bootstrap, holm, mcnemar, mean_variance, sign_flip
from icl_select.stats.family import MARKS

Scores = tuple[list[np.ndarray], list[np.ndarray]]


def campaign(
    gain: float, *, draws: int = 10, repeats: int = 3, items: int = 120, seed: int = 0, luck: float = 0.02
) -> Scores:
    rng = np.random.default_rng(seed)
    method, random = [], []
    for _ in range(draws):
        hard = rng.random(items)
        method.append((0.5 * hard + 0.5 * rng.random(items) < 0.5 + gain + luck * rng.normal()).astype(float))
        shift = luck * rng.normal(size=(repeats, 1))
        random.append((0.5 * hard + 0.5 * rng.random((repeats, items)) < 0.5 + shift).astype(float))
    return method, random


def test_hand_example() -> None:
    """Two items, two draws. Draw one: method 1, 1; random 1, 0 and 0, 0, so mean 0.5, 0: difference 0.75.
    Draw two: method 0, 1; random 0, 1 and 1, 1: differences -0.5, 0, mean -0.25. Effect 0.25, p = 1: the four
    sums are 0.5, 1, -1, -0.5, all at least 0.5 in size."""
    result = compare([[1, 1], [0, 1]], [[[1, 0], [0, 0]], [[0, 1], [1, 1]]], seed=0)
    assert result.effect == pytest.approx(0.25)
    assert (result.method_mean, result.random_mean) == (0.75, 0.5)
    assert result.p_sign_flip == 1.0
    assert (result.n_draws, result.n_items, result.n_repeats) == (2, 2, 2)
    assert result.verdict == "no evidence"
    assert "cannot reach significance" in result.notes[0]


def test_parts_are_the_public_functions() -> None:
    method, random = campaign(0.05)
    ids = [np.random.default_rng(r).permutation(200)[:120] for r in range(10)]
    x = [m - r.mean(axis=0) for m, r in zip(method, random, strict=True)]
    result = compare(method, random, item_ids=ids, seed=4, n_resamples=500)
    assert result.p_sign_flip == sign_flip([v.mean() for v in x]).p_value
    assert result.p_two_way == mean_variance(x, item_ids=ids).p_value()
    assert result.ci == hierarchical_bootstrap(x, item_ids=ids, seed=4, n_resamples=500)
    assert result.p_value == max(result.p_sign_flip, result.p_two_way)


def test_better_worse_and_neither() -> None:
    marks = {}
    for gain in (0.12, -0.12, 0.0):
        result = compare(*campaign(gain), seed=0)
        marks[result.verdict] = result.mark
    assert marks == MARKS
    assert len(set(MARKS.values())) == 3


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 10_000), st.sampled_from([0.0, 0.04, 0.1]), st.booleans())
def test_laws(seed: int, gain: float, recurring: bool) -> None:
    method, random = campaign(gain, draws=7, items=40, seed=seed)
    ids = [range(40)] * 7 if recurring else None
    result = compare(method, random, item_ids=ids, seed=1, n_resamples=100)
    order = np.random.default_rng(seed).permutation(7)
    shuffled = compare([method[k] for k in order], [random[k] for k in order], item_ids=ids, seed=1, n_resamples=100)
    for name in ("p_value", "p_sign_flip", "p_two_way", "effect"):
        assert getattr(shuffled, name) == pytest.approx(getattr(result, name), abs=1e-9)
    mirrored = compare([-m for m in method], [-r for r in random], item_ids=ids, seed=1, n_resamples=100)
    assert mirrored.p_value == pytest.approx(result.p_value)
    assert mirrored.effect == pytest.approx(-result.effect)
    percent = compare([100 * m for m in method], [100 * r for r in random], item_ids=ids, seed=1, n_resamples=100)
    assert percent.p_value == pytest.approx(result.p_value)
    assert percent.ci.low == pytest.approx(100 * result.ci.low)
    assert result.ci.low <= result.effect <= result.ci.high
    if result.verdict != "no evidence":  # a verdict never stands beside an interval that holds 0
        assert 0.0 not in result.ci
        assert result.p_adjusted <= 0.05
        assert (result.needed_draws, result.needed_items) == (None, None)


def test_family_is_holm_over_all() -> None:
    cells = [compare(*campaign(g, seed=k), seed=0) for k, g in enumerate((0.2, 0.08, 0.0, -0.2))]
    family = compare_family(cells)
    assert [c.p_adjusted for c in family] == pytest.approx(holm([c.p_value for c in cells]).tolist())
    assert [c.n_comparisons for c in family] == [4] * 4
    assert [family[0].verdict, family[2].verdict, family[3].verdict] == ["better", "no evidence", "worse"]
    for single, member in zip(cells, family, strict=True):
        assert member.p_value == single.p_value
        assert member.detectable_difference > single.detectable_difference
    assert compare_family(family) == family  # adjusting again changes nothing: raw values are kept


def test_a_family_too_large_for_its_draws_says_so() -> None:
    cell = compare(*campaign(0.3), seed=0)
    assert cell.verdict == "better"
    member = compare_family([cell] * 96)[0]
    assert member.verdict == "no evidence"
    assert member.detectable_difference is None
    assert "at least 12 draws" in member.notes[0]
    assert any("leaves out 0" in note for note in member.notes)  # interval and test are never at odds silently


def test_shared_picks_take_luck_for_what_it_is() -> None:
    """The method is a lucky selection, the same in every draw, as good as one random selection in six is."""
    rng = np.random.default_rng(5)
    items, draws = 150, 10
    method = [(rng.random(items) < 0.55).astype(float) for _ in range(draws)]
    random = [(rng.random((4, items)) < 0.5 + 0.05 * rng.normal(size=(4, 1))).astype(float) for _ in range(draws)]
    same, fresh = [range(18)] * draws, [range(18 * r, 18 * r + 18) for r in range(draws)]
    naive = compare(method, random, seed=0)
    assert naive.verdict == "better"
    assert naive.overlap is None
    assert compare(method, random, picks=fresh, seed=0).p_value == naive.p_value
    guarded = compare(method, random, picks=same, seed=0)
    assert guarded.overlap == pytest.approx(1.0)
    assert guarded.verdict == "no evidence"
    assert guarded.p_sign_flip == naive.p_sign_flip
    assert guarded.ci.low < 0 < guarded.ci.high
    assert any("shared picks could explain it" in note for note in guarded.notes)
    assert any("share 100% of the method's picks" in note for note in guarded.notes)
    assert guarded.needed_draws is None  # more of the same draws would not help


def test_shared_picks_with_one_random_selection_per_draw() -> None:
    """Without repeats the spread of the draws themselves stands for luck; the test gets stricter, not looser."""
    method, random = campaign(0.04, repeats=1, seed=3)
    naive = compare(method, random, seed=0)
    guarded = compare(method, random, picks=[range(18)] * 10, seed=0)
    assert guarded.p_value > naive.p_value
    assert guarded.ci.high - guarded.ci.low > naive.ci.high - naive.ci.low


def test_a_single_draw_speaks_of_its_selection_only() -> None:
    method, random = campaign(0.2, draws=1, repeats=1)
    result = compare(method, random, seed=0)
    assert result.test == "McNemar"
    assert result.p_value == mcnemar(method[0], random[0][0]).p_value
    assert result.p_value < 0.05
    assert (result.scope, result.verdict) == ("selection", "no evidence")
    assert "at least 6 draws" in result.notes[0]
    several = compare(*campaign(0.2, draws=1, repeats=3), seed=0)
    assert several.test == "sign flip over items"


def test_undecided_cells_say_what_would_decide_them() -> None:
    method, random = campaign(0.02, draws=8, seed=1, luck=0.06)
    result = compare(method, random, seed=0)
    assert result.verdict == "no evidence"
    assert result.effect > 0.005
    assert result.needed_draws is None or result.needed_draws > 8
    assert result.needed_items is None or result.needed_items > 120
    assert result.needed_draws is not None or result.needed_items is not None
    none = compare([np.zeros(10)] * 6, [np.zeros((2, 10))] * 6, seed=0)
    assert (none.p_value, none.needed_draws, none.needed_items) == (1.0, None, None)


def test_evidence_is_json() -> None:
    result = compare(*campaign(0.05), picks=[range(r, r + 18) for r in range(10)], seed=3)
    text = json.loads(json.dumps(result.to_dict(), allow_nan=False))
    assert text["ci"]["seed"] == text["seed"] == 3
    for name in ("effect", "p_value", "p_adjusted", "n_resamples", "n_draws", "n_items", "verdict", "components"):
        assert name in text


def test_draws_of_unequal_size_count_equally() -> None:
    result = compare([[1.0] * 10, [0.0]], [[[0.0] * 10], [[0.0]]], seed=0)
    assert result.effect == 0.5


@pytest.mark.parametrize(
    ("method", "random", "more", "message"),
    [
        ([], [], {}, "no draws"),
        ([[1.0]], [[[1.0]], [[1.0]]], {}, "draws are paired"),
        ([[1.0, 0.0]], [[[1.0]]], {}, "scored 2 items"),
        ([[1.0, 0.0]], [np.zeros((0, 2))], {}, "the same items"),
        ([[1.0, float("nan")]], [[[1.0, 1.0]]], {}, "never as NaN"),
        ([[1.0, 0.0]], [[[1.0, float("nan")]]], {}, "draw 0 of random"),
        ([[1.0]] * 2, [[[1.0]]] * 2, {"picks": [[1]]}, "picks lists 1 draws"),
        ([[1.0]] * 2, [[[1.0]]] * 2, {"alpha": 0.0}, "alpha"),
        ([[1.0]] * 2, [[[1.0]]] * 2, {"level": 95}, "level"),
        ([[1.0]] * 2, [[[1.0]]] * 2, {"n_resamples": 0}, "n_resamples"),
    ],
)
def test_bad_input(method: list[Any], random: list[Any], more: dict[str, Any], message: str) -> None:
    with pytest.raises(StatisticsError, match=message):
        compare(method, random, **({"seed": 0} | more))


def test_empty_family() -> None:
    with pytest.raises(StatisticsError, match="no comparison"):
        compare_family([])
