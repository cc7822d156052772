"""Sub-SA: a hand example, the objective itself, published picks, no n x n matrix."""

from __future__ import annotations

import json
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given as draw
from hypothesis import settings
from hypothesis import strategies as st
from reference import sub_sa as slow
from reference.pools import clustered

from icl_select.errors import ParameterError
from icl_select.methods import select
from icl_select.methods.sub_sa import sub_sa


def test_three_points_on_paper() -> None:
    """Rows at 0, 60, 180 degrees: s01 = 3/4, s12 = 1/4, s02 = 0.

    Column sums with s_ii = 1 are 7/4, 2, 5/4; the gain of a first pick is its sum less 1: row 1 with 1.
    Then row 0 would gain 7/4 - 2 * 3/4 - 1 = -3/4, row 2 would gain 5/4 - 2 * 1/4 - 1 = -1/4: row 2.
    Last row 0: 7/4 - 2 * (3/4 + 0) - 1 = -3/4.
    """
    angle = np.radians([0, 60, 180])
    picked = sub_sa(np.column_stack([np.cos(angle), np.sin(angle)]), 3)
    assert picked.indices.tolist() == [1, 2, 0]
    np.testing.assert_allclose(picked.gains, [1, -0.25, -0.75], atol=1e-15)


@draw(st.integers(0, 99), st.integers(1, 14), st.data())
@settings(max_examples=80, deadline=None)
def test_equals_the_slow_reference(seed: int, n: int, data: st.DataObject) -> None:
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(n, 4))[rng.integers(n, size=n)]
    x /= np.linalg.norm(x, axis=1, keepdims=True)
    given = data.draw(st.lists(st.integers(0, n - 1), unique=True, max_size=n - 1))
    budget = data.draw(st.integers(1, n - len(given)))
    lam = data.draw(st.sampled_from([0, 0.5, 1.0, 3]))
    picked = sub_sa(x, budget, given=np.array(given, dtype=np.int64), lam=lam)
    s = slow.shifted(x)
    rows, gains = slow.greedy(s, budget, given, lam)
    np.testing.assert_allclose(picked.gains, gains, atol=1e-9)
    # Equal gains in exact arithmetic may be told apart by rounding: then F decides.
    ours, theirs = (slow.objective(s, [*given, *r], lam) for r in (picked.indices.tolist(), rows))
    assert ours == pytest.approx(theirs, abs=1e-9)
    assert (np.diff(picked.gains) <= 1e-12).all()


def test_gains_add_up_to_the_objective() -> None:
    x = clustered(400, 32)
    given = np.array([3, 100, 7])
    picked = sub_sa(x, 40, given=given)
    s = slow.shifted(x)
    grown = slow.objective(s, [*given, *picked.indices]) - slow.objective(s, given.tolist())
    assert picked.gains.sum() == pytest.approx(grown, rel=1e-6)


def test_copies_tie_to_the_lower_index() -> None:
    x = np.repeat(clustered(20, 6), 3, axis=0)
    first = sub_sa(x, 1).indices[0]
    assert first % 3 == 0


GOLDENS = ["emb_n500_d64", "emb_n500_d384", "emb_dup_n500_d64"]


@pytest.mark.parametrize("name", GOLDENS)
@pytest.mark.parametrize("key", ["X", "Xc"])
@pytest.mark.parametrize("budget", [18, 100])
def test_published_picks(shared: Path, name: str, key: str, budget: int) -> None:
    golden = json.loads((shared / f"golden/subsa/{name}_{key}_b{budget}.json").read_text(encoding="utf-8"))
    x = np.load(shared / f"golden/{name}.npz")[key]
    official = select("sub_sa(variant='official')", x, budget)
    assert official.indices.tolist() == golden["selected"]
    paper = select("sub_sa", x, budget)
    assert paper.indices.tolist() == golden["float64_reference"]
    assert paper.gains.sum() == pytest.approx(golden["objective_float64"], rel=1e-6)


def test_float32_and_float64_part_at_published_size() -> None:
    """Where they part, the difference of F is of the order of float32 rounding."""
    x = clustered(1_500, 64)
    x -= x.mean(axis=0)
    s = slow.shifted(x)
    paper, official = (select(f"sub_sa(variant={v!r})", x, 100).indices.tolist() for v in ("paper", "official"))
    assert slow.objective(s, official) == pytest.approx(slow.objective(s, paper), rel=1e-5)


def test_no_matrix_is_held() -> None:
    """At n = 5,000 the matrix would take 100 MB in float32."""
    x = clustered(5_000, 16)
    sub_sa(x[:10], 2)
    for variant, limit in (("paper", 2e6), ("official", 40e6)):
        tracemalloc.start()
        sub_sa(x, 20, variant=variant)
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert peak < limit


@pytest.mark.parametrize(
    "method", ["sub_sa(lam=-1)", "sub_sa(lam='one')", "sub_sa(lam=True)", "sub_sa(lam=1e21)", "sub_sa(variant='')"]
)
def test_parameters_out_of_range(method: str) -> None:
    with pytest.raises(ParameterError, match="Pass"):
        select(method, clustered(30, 4), 5)


@pytest.mark.parametrize("variant", ["paper", "official"])
def test_the_largest_weight_stays_finite(variant: str) -> None:
    picked = select(f"sub_sa(lam=1e20, variant={variant!r})", clustered(300, 4), 9)
    assert np.isfinite(picked.gains).all()
