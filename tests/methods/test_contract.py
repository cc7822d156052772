"""The contract, held over the whole registry: one file that every method must pass.

Exactly `budget` unique rows, none given; the same seed gives the same answer whatever the global generators
do; the input stays as it is; what cannot be served is refused; and the laws that a method declares hold.
"""

from __future__ import annotations

import random
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, settings
from hypothesis import given as draw
from hypothesis import strategies as st
from reference.pools import clustered

from icl_select.errors import BudgetError, EmbeddingError, FeedbackError, GivenError
from icl_select.methods import select
from icl_select.registry import method_names, own_parameters, parse, resolve
from icl_select.types import Selection

# Laws, by exception: methods whose prefixes are not answers, and whose gains may rise.
NOT_NESTED = {"random(variant='official')", "vote_k(stage='full')", "vote_k(stage='full', variant='official')"}
GAINS_MAY_RISE = {
    "ideal(variant='official')",  # a noisy estimate
    "sub_sa(variant='official')",  # float32 rounding
    "vote_k(stage='full')",  # a bucket each
    "vote_k(stage='full', variant='official')",
}
# Methods that see geometry only: permuting the rows permutes the picks (where no two gains are equal).
EQUIVARIANT = ["max_herding", "sub_sa"]


def every_spec() -> list[str]:
    """Each registered method, each of its variants, and the stage of vote_k that asks the model."""
    specs = []
    for name in method_names():
        specs.append(name)
        if "variant" in own_parameters(resolve(name)[1]):
            specs.append(f"{name}(variant='official')")
    return [*specs, "vote_k(stage='full')", "vote_k(stage='full', variant='official')"]


def run(spec: str, x: Any, budget: int, **options: Any) -> Selection:
    if parse(spec).params.get("stage") == "full":
        n = len(x)
        options["feedback"] = lambda labelled: np.random.default_rng(n).random(n)
    return select(spec, x, budget, **options)


def same(a: Selection, b: Selection) -> bool:
    return a.indices.tolist() == b.indices.tolist() and a.gains.tolist() == b.gains.tolist() and a.info == b.info


@st.composite
def pools(drawing: st.DrawFn) -> np.ndarray:
    """Pools of 1 to 24 rows, in 1 to 9 dimensions, with copies, opposite and nearly equal rows."""
    n, d = drawing(st.integers(1, 24)), drawing(st.integers(1, 9))
    rng = np.random.default_rng(drawing(st.integers(0, 999)))
    x = rng.normal(size=(n, d)) * 10.0 ** rng.integers(-6, 7, size=(n, 1))
    kind = drawing(st.sampled_from(["free", "copies", "equal", "opposite", "near"]))
    if kind == "copies":
        x = x[rng.integers(n, size=n)]
    elif kind == "equal":
        x = np.tile(x[:1], (n, 1))
    elif kind == "opposite":
        x = x[:1] * rng.choice([-1.0, 1.0], size=(n, 1))
    elif kind == "near":
        x = x[:1] * (1 + 1e-7 * rng.normal(size=(n, d)))
    return x.astype(drawing(st.sampled_from([np.float32, np.float64])))


@pytest.mark.parametrize("spec", every_spec())
@draw(x=pools(), data=st.data(), seed=st.integers(0, 99))
@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_exactly_the_budget_of_unique_rows(spec: str, x: np.ndarray, data: st.DataObject, seed: int) -> None:
    given = data.draw(st.lists(st.integers(0, len(x) - 1), unique=True, max_size=len(x) - 1))
    budget = data.draw(st.integers(1, len(x) - len(given)))
    before = x.copy()
    x.setflags(write=False)
    picked = run(spec, x, budget, given=given, seed=seed)
    assert len(set(picked.indices.tolist())) == len(picked) == budget
    assert set(picked.indices.tolist()) <= set(range(len(x))) - set(given)
    assert np.isfinite(picked.gains).all()
    np.testing.assert_array_equal(x, before)
    assert (picked.method, picked.seed) == (str(parse(spec)), seed)
    assert same(run(spec, x, budget, given=given, seed=seed), picked)
    if spec not in GAINS_MAY_RISE:
        # Rows are of unit norm up to the rounding of their own dtype, and so are the gains.
        rounding = 4 * len(x) * np.finfo(x.dtype).eps
        assert (np.diff(picked.gains) <= rounding).all()


@pytest.mark.parametrize("spec", every_spec())
def test_any_prefix_is_the_answer_to_the_smaller_budget(spec: str) -> None:
    x = clustered(150, 12)
    whole = run(spec, x, 40, given=[3, 9])
    assert whole.nested == (spec not in NOT_NESTED)
    if not whole.nested:
        with pytest.raises(BudgetError, match=r"not nested.*Select again"):
            whole.prefix(7)
        return
    for budget in (1, 2, 17, 39):
        part = run(spec, x, budget, given=[3, 9])
        assert part.indices.tolist() == whole.prefix(budget).indices.tolist()
        assert part.gains.tolist() == whole.prefix(budget).gains.tolist()


@pytest.mark.parametrize("spec", every_spec())
def test_global_generators_are_neither_read_nor_moved(spec: str) -> None:
    x = clustered(80, 8)
    answers = []
    for poison in (1, 2):
        random.seed(poison)
        np.random.seed(poison)  # noqa: NPY002
        states = random.getstate(), np.random.get_state()[1].tolist()  # noqa: NPY002
        answers.append(run(spec, x, 12, seed=5))
        assert (random.getstate(), np.random.get_state()[1].tolist()) == states  # noqa: NPY002
    assert same(*answers)


@pytest.mark.parametrize("spec", every_spec())
@pytest.mark.parametrize("seed", range(0, 100, 11))
def test_every_seed_serves(spec: str, seed: int) -> None:
    assert len(run(spec, clustered(30, 6, seed=seed), 30, seed=seed)) == 30


@pytest.mark.parametrize("spec", every_spec())
@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64, np.int32])
def test_dtypes_layouts_and_lists(spec: str, dtype: type) -> None:
    x = np.round(8 * clustered(40, 6)).astype(dtype) + np.array(1, dtype=dtype)
    x[:, 0] += 20
    picked = run(spec, x, 6)
    assert same(run(spec, np.asfortranarray(x), 6), picked)
    assert same(run(spec, np.repeat(x, 2, axis=0)[::2], 6), picked)
    assert (
        run(spec, x.tolist(), 6).indices.tolist()
        == run(spec, x.astype(np.asarray(x.tolist()).dtype), 6).indices.tolist()
    )


@pytest.mark.parametrize("spec", every_spec())
def test_scale_of_rows_does_not_matter(spec: str) -> None:
    x = clustered(60, 8)
    scales = 2.0 ** np.random.default_rng(0).integers(-20, 20, size=(60, 1))
    assert same(run(spec, (x * scales).astype(np.float32), 10), run(spec, x, 10))


@pytest.mark.parametrize("spec", EQUIVARIANT)
@pytest.mark.parametrize("seed", range(5))
def test_permuting_rows_permutes_the_picks(spec: str, seed: int) -> None:
    x = clustered(120, 16, seed=seed).astype(np.float64)
    order = np.random.default_rng(seed).permutation(120)
    picked = run(spec, x[order], 15)
    assert order[picked.indices].tolist() == run(spec, x, 15).indices.tolist()


@pytest.mark.parametrize("spec", every_spec())
def test_one_row(spec: str) -> None:
    assert run(spec, np.ones((1, 3)), 1).indices.tolist() == [0]


@pytest.mark.parametrize("spec", every_spec())
def test_all_but_one_given(spec: str) -> None:
    assert run(spec, clustered(40, 5), 1, given=np.delete(np.arange(40), 17)).indices.tolist() == [17]


@pytest.mark.parametrize("spec", every_spec())
@pytest.mark.parametrize(("budget", "given", "message"), [
    (0, [], "budget=0 picks nothing. Pass an integer from 1 to 20"),
    (-3, [], "budget=-3"),
    (0, range(20), "All 20 rows are labelled: pass a larger pool"),
    (2.0, [], "budget=2.0 is not a whole number"),
    (True, [], "budget=True"),
    (21, [], r"budget=21 exceeds the 20 rows .*pool of 20, 0 already labelled.*Pass budget <= 20"),
    (18, [1, 2, 3], r"budget=18 exceeds the 17 rows .*pool of 20, 3 already labelled"),
    (1, range(20), "Pass a larger pool"),
])  # fmt: skip
def test_budgets_that_cannot_be_served(spec: str, budget: Any, given: Any, message: str) -> None:
    with pytest.raises(BudgetError, match=message):
        run(spec, clustered(20, 4), budget, given=given)


@pytest.mark.parametrize("spec", every_spec())
@pytest.mark.parametrize("given", [[20], [-1], [3, 3], [0.5], ["a"], [[1, 2]], [True]])
def test_given_rows_that_are_no_pool_indices(spec: str, given: Any) -> None:
    with pytest.raises(GivenError, match=r"Pass|index"):
        run(spec, clustered(20, 4), 2, given=given)


@pytest.mark.parametrize("spec", every_spec())
@pytest.mark.parametrize(
    ("row", "message"),
    [(np.nan, "row 7 of x holds NaN or infinity"), (np.inf, "row 7"), (0.0, "row 7 of x is a zero vector")],
)
def test_rows_without_direction(spec: str, row: float, message: str) -> None:
    x = clustered(20, 4)
    x[7] = row
    with pytest.raises(EmbeddingError, match=message):
        run(spec, x, 2)


@pytest.mark.parametrize("spec", [s for s in every_spec() if "full" not in s])
def test_feedback_is_refused_by_methods_that_do_not_ask(spec: str) -> None:
    with pytest.raises(FeedbackError, match=r"does not ask the model. *Leave feedback out"):
        select(spec, clustered(20, 4), 2, feedback=lambda labelled: np.zeros(20))
