"""Near-exact greedy: hand examples, exact greedy as the reference, properties, and what its interval promises."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import FrozenInstanceError, replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given as draw
from hypothesis import settings
from hypothesis import strategies as st
from reference import max_herding as slow
from reference.pools import clustered

from icl_select.errors import BudgetError
from icl_select.kernels import Kernel
from icl_select.methods import _near_exact as module
from icl_select.methods._greedy import facility_location
from icl_select.methods._near_exact import (
    LARGEST_BUDGET,
    NearCover,
    Plan,
    grid_values,
    make_plan,
    merge,
    near_exact,
    nearest,
    part_candidates,
    run_here,
)

NONE = np.empty(0, dtype=np.int64)
GAUSSIAN = Kernel("gaussian")
# Small enough that a few hundred rows fill several parts and every group is sampled.
SMALL = Plan(part_rows=100, parts=100, candidates=160, covered=500, steps=2, members=40, judged=300, heldout=10_000)


def on_circle(*degrees: float) -> np.ndarray:
    angle = np.radians(degrees)
    return np.column_stack([np.cos(angle), np.sin(angle)])


def skewed(n: int, d: int, seed: int = 0) -> np.ndarray:
    """Clusters whose sizes fall as 1 / rank, of different spread and norm."""
    rng = np.random.default_rng(seed)
    share = 1 / np.arange(1, 61)
    which = rng.choice(60, size=n, p=share / share.sum())
    rows = rng.normal(size=(60, d))[which] + rng.uniform(0.2, 0.9, size=60)[which, None] * rng.normal(size=(n, d))
    return (rows * rng.uniform(0.5, 2.0, size=(n, 1))).astype(np.float32)


def pick(x: np.ndarray, budget: int, seed: int = 0, given: np.ndarray = NONE, plan: Plan = SMALL) -> NearCover:
    return near_exact(x, budget, kernel=GAUSSIAN, given=given, rng=np.random.default_rng(seed), plan=plan)


def merged(candidates: np.ndarray, rows: np.ndarray, start: np.ndarray, budget: int) -> list[int]:
    """What the merge picks from candidates that need not be rows of the pool."""
    both, u = np.concatenate([candidates, rows]), len(candidates)
    values = grid_values(both, np.arange(u), np.arange(u, len(both)), GAUSSIAN)
    return merge(values, start, budget).tolist()


def test_hand_example_of_the_merge() -> None:
    """Candidates at 0, 60 and 180 degrees, rows at 0, 60, 60 and 170; with h = 1, k = exp(-2 (1 - cos)).

    Sums: 1 + 2 e^-1 for the first, 2 + e^-1 for the second, the largest by far, and 1 for the last (rows that
    lie farther add less than 0.06). Then row 0 is covered by e^-1, row 170 by almost nothing: 180, then 0.
    """
    rows = on_circle(0, 60, 60, 170)
    assert merged(on_circle(0, 60, 180), rows, np.zeros(4), 3) == [1, 2, 0]
    covered = np.array([0.0, 1.0, 1.0, 0.0])  # given rows cover the two at 60: only 0 and 170 are left to gain
    assert merged(on_circle(60, 0, 180), rows, covered, 3) == [1, 2, 0]


def test_hand_example_of_the_medoid_step() -> None:
    """Two arcs of five rows: the middle row of each has the largest sum, wherever the pick was."""
    x = on_circle(0, 10, 20, 30, 40, 180, 190, 200, 210, 220)
    shown = nearest(x, np.arange(10), NONE)
    moved = module._medoids(run_here(x), np.array([0, 9]), GAUSSIAN, NONE, shown, 100, np.random.default_rng(0))
    assert moved.tolist() == [2, 7]


def test_ties_of_a_merge_go_to_the_lowest_position() -> None:
    equal = np.tile(on_circle(20), (6, 1))
    assert merged(equal, on_circle(0, 50), np.zeros(2), 6) == list(range(6))


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_nearest_equals_brute_force(dtype: type) -> None:
    x = skewed(400, 24).astype(dtype)
    x[200:230] = x[:30]
    targets = np.concatenate([np.arange(30), np.arange(200, 230), [310]])
    unit = x / np.linalg.norm(x.astype(float), axis=1, keepdims=True)
    cosine = unit @ unit[targets].T
    near = nearest(x, np.arange(400), targets)
    np.testing.assert_allclose(near.cosine, cosine.max(axis=1), atol=1e-14)
    assert not np.isin(near.which, np.arange(30, 60)).any(), "an equal target that stands first is taken"
    np.testing.assert_allclose(cosine[np.arange(400), near.which], cosine.max(axis=1), atol=1e-14)
    assert nearest(x, np.arange(3), NONE).cosine.max() < -1


def test_nearest_breaks_a_tie_by_the_order_of_the_targets() -> None:
    x = np.array([[1.0, 0.0], [3.0, 4.0], [3.0, -4.0]])
    assert nearest(x, np.array([0]), np.array([1, 2])).which.tolist() == [0]
    assert nearest(x, np.array([0]), np.array([2, 1])).which.tolist() == [0]


def test_candidates_of_a_part() -> None:
    """Of two arcs the larger comes first, unless a given row covers it; copies add nothing and are no candidates."""
    x = on_circle(0, 0, 0, 180, 180)
    assert part_candidates(x, x[:0], 4, GAUSSIAN).tolist() == [0, 3]
    assert part_candidates(x, on_circle(0), 4, GAUSSIAN).tolist() == [3]
    assert part_candidates(x, x[:0], 1, GAUSSIAN).tolist() == [0]


def test_the_given_rows_that_matter_cover_each_part(monkeypatch: pytest.MonkeyPatch) -> None:
    x, given = skewed(600, 16), np.arange(0, 600, 9)
    unit = x / np.linalg.norm(x.astype(float), axis=1, keepdims=True)
    seen = []

    def spy(rows: np.ndarray, covering: np.ndarray, count: int, kernel: Kernel) -> np.ndarray:
        seen.append((rows, covering))
        return part_candidates(rows, covering, count, kernel)

    monkeypatch.setattr(module, "part_candidates", spy)
    pick(x, 10, given=given)
    assert len(seen) == 6
    for rows, covering in seen:
        assert len(covering) < len(given)
        part, few = (r / np.linalg.norm(r.astype(float), axis=1, keepdims=True) for r in (rows, covering))
        np.testing.assert_allclose((part @ few.T).max(axis=1), (part @ unit[given].T).max(axis=1), atol=1e-12)


@pytest.mark.parametrize("given", [NONE, np.array([250, 3])])
def test_one_part_is_exact(given: np.ndarray) -> None:
    x = clustered(300, 16, seed=2)
    exact = facility_location(x, 25, kernel=GAUSSIAN, given=given)
    near = pick(x, 25, given=given, plan=replace(SMALL, part_rows=300))
    assert near.indices.tolist() == exact.indices.tolist()
    np.testing.assert_allclose(near.gains, exact.gains / 300, atol=1e-12)
    assert near.coverage == pytest.approx(exact.total / 300, abs=1e-12)
    assert near.interval == (near.coverage, near.coverage)
    assert near.info["parts"] == 1


@pytest.mark.parametrize("pool", [clustered, skewed])
@pytest.mark.parametrize("budget", [5, 30, 120])
@pytest.mark.parametrize("given", [NONE, np.arange(7, 1200, 40)], ids=["alone", "given"])
def test_comes_near_to_exact_greedy(pool: object, budget: int, given: np.ndarray) -> None:
    x = pool(1200, 32)  # type: ignore[operator]
    plan = replace(SMALL, part_rows=250, candidates=4 * budget + 100, covered=1200, judged=1200, members=200)
    near = pick(x, budget, given=given, plan=plan)
    exact = facility_location(x, budget, kernel=GAUSSIAN, given=given)
    assert near.info["parts"] == 5
    assert near.coverage >= 0.99 * exact.total / 1200
    tenth = max(1, budget // 10)
    start = near.coverage - near.gains.sum()
    assert start + near.gains[:tenth].sum() >= 0.97 * (start + exact.gains[:tenth].sum() / 1200), "prefixes are useful"


@pytest.mark.parametrize("kernel", ["top_hat", "laplace", "cosine"])
def test_other_kernels(kernel: str) -> None:
    x = clustered(500, 16)
    shape = Kernel(kernel)
    near = near_exact(x, 20, kernel=shape, given=NONE, rng=np.random.default_rng(0), plan=SMALL)
    exact = facility_location(x, 20, kernel=shape, given=NONE)
    assert near.coverage >= 0.98 * exact.total / 500
    k = slow.kernel_matrix(x, kernel, 1.0)
    np.testing.assert_allclose(np.cumsum(near.gains), slow.coverage_curve(k, near.indices.tolist()), atol=1e-12)


@settings(deadline=None, max_examples=25)
@draw(st.integers(2, 40), st.integers(1, 5), st.integers(0, 10_000), st.booleans(), st.data())
def test_properties(n: int, d: int, seed: int, duplicates: bool, data: st.DataObject) -> None:
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(n, d)).astype(np.float32)
    if duplicates:
        x = x[rng.integers(max(1, n // 5), size=n)]
    given = data.draw(st.lists(st.integers(0, n - 1), max_size=n - 1, unique=True))
    budget = data.draw(st.integers(1, n - len(given)))
    plan = Plan(part_rows=8, parts=3, candidates=12, covered=20, steps=2, members=5, judged=20, heldout=n)
    before = x.copy()
    near = pick(x, budget, seed, np.array(given, dtype=np.int64), plan)
    assert np.array_equal(x, before)
    assert near.indices.dtype == np.int64
    assert near.indices.min() >= 0
    assert near.indices.max() < n
    assert len(set(near.indices.tolist()) | set(given)) == budget + len(given)
    k = slow.kernel_matrix(x)
    start = k[given].max(axis=0).mean() if given else 0.0
    curve = slow.coverage_curve(k, near.indices.tolist(), tuple(given))
    np.testing.assert_allclose(start + np.cumsum(near.gains), curve, atol=1e-12)
    assert near.coverage == pytest.approx(curve[-1], abs=1e-12)
    assert (near.gains >= 0).all()


def test_no_pick_moves_to_a_given_row() -> None:
    """One dimension: all rows have the same direction, but for rounding."""
    for seed in range(40):
        x = np.random.default_rng(seed).random(size=(12, 1)).astype(np.float32) + 0.1
        plan = Plan(part_rows=8, parts=3, candidates=12, covered=20, steps=2, members=5, judged=20, heldout=12)
        near = pick(x, 3, seed, np.array([0, 1, 2]), plan)
        assert not set(near.indices.tolist()) & {0, 1, 2}


def test_many_duplicates_and_a_budget_that_takes_all() -> None:
    """Ten directions, each fifty times: ten picks cover the pool, and the rest is there without a gain."""
    x = np.repeat(clustered(10, 8, clusters=10), 50, axis=0)
    near = pick(x, 10)
    assert sorted((near.indices // 50).tolist()) == list(range(10))
    assert near.coverage == pytest.approx(1.0, abs=1e-12)
    everything = pick(x, 500)
    assert sorted(everything.indices.tolist()) == list(range(500))
    assert np.count_nonzero(everything.gains > 1e-9) == 10


def test_given_rows_take_their_clusters() -> None:
    x = np.concatenate([on_circle(*np.linspace(0, 10, 200)), on_circle(*np.linspace(180, 190, 50))])
    x = np.column_stack([x, np.zeros((250, 3))])
    assert (pick(x, 1).indices < 200).all()
    assert (pick(x, 1, given=np.array([100])).indices >= 200).all()
    nearly_all_given = np.arange(1, 250)
    assert pick(x, 1, given=nearly_all_given).indices.tolist() == [0]


def test_rows_beyond_the_parts_still_count() -> None:
    """One part of a hundred rows names the candidates; rows of the others are reached by the medoid step."""
    x = clustered(1000, 16)
    near = pick(x, 25, plan=replace(SMALL, parts=1, members=200))
    assert near.info["parts"] == 1
    assert near.info["medoid_steps"] > 0
    exact = facility_location(x, 25, kernel=GAUSSIAN, given=NONE)
    assert near.coverage >= 0.97 * exact.total / 1000


def test_a_medoid_step_that_lowers_coverage_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    x = clustered(600, 16)
    without = pick(x, 12, plan=replace(SMALL, steps=0))
    monkeypatch.setattr(module, "_medoids", lambda *_: np.arange(12))
    refused = pick(x, 12)
    assert refused.info["medoid_steps"] == 0
    assert refused.indices.tolist() == without.indices.tolist()


def test_seed_decides() -> None:
    x = clustered(600, 16)
    first, again, other = pick(x, 30, 1), pick(x, 30, 1), pick(x, 30, 2)
    assert first.indices.tobytes() == again.indices.tobytes()
    assert first.gains.tobytes() == again.gains.tobytes()
    assert (first.coverage, first.interval) == (again.coverage, again.interval)
    assert first.indices.tolist() != other.indices.tolist()


def test_parts_may_run_anywhere_in_any_order() -> None:
    x = clustered(600, 16)
    parts = module._split(np.arange(600), SMALL, np.random.default_rng(0))
    assert sorted(np.concatenate(parts).tolist()) == list(range(600))
    one_by_one = [part_candidates(x[rows], x[:2], 20, GAUSSIAN).tolist() for rows in parts]
    with ThreadPoolExecutor(3) as threads:
        backwards = list(threads.map(lambda rows: part_candidates(x[rows], x[:2], 20, GAUSSIAN).tolist(), parts[::-1]))
    assert backwards[::-1] == one_by_one


def test_block_size_changes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    x = skewed(700, 24)
    whole = pick(x, 30, given=np.array([5]))
    for name in ("_BLOCK_VALUES", "_JOB_ROWS", "_JOB_PAIRS"):
        monkeypatch.setattr(module, name, 1 if name != "_JOB_ROWS" else 100)
    blocks = pick(x, 30, given=np.array([5]))
    assert blocks.indices.tolist() == whole.indices.tolist()
    assert blocks.gains.tobytes() == whole.gains.tobytes()


def test_threads_change_nothing(tmp_path: Path) -> None:
    code = (
        "import numpy as np; from test_near_exact import *;"
        "p = pick(clustered(900, 96), 40, given=np.array([4, 9])); print(p.indices.tolist(), p.gains.tolist())"
    )
    answers = []
    for threads in ("1", "2"):
        here = Path(__file__).parent
        env = {**os.environ, "PYTHONPATH": f"{here}{os.pathsep}{here.parent}"}
        for name in ("OMP", "OPENBLAS", "MKL", "NUMBA"):
            env[f"{name}_NUM_THREADS"] = threads
        done = subprocess.run(
            [sys.executable, "-c", code], env=env, cwd=tmp_path, capture_output=True, text=True, check=True
        )
        answers.append(done.stdout)
    assert answers[0] == answers[1]


@pytest.mark.parametrize("rows_of_a_part", [100, 600])
def test_a_read_only_memory_map_gives_the_same(tmp_path: Path, rows_of_a_part: int) -> None:
    x = skewed(600, 16)
    np.save(tmp_path / "x.npy", x)
    mapped = np.load(tmp_path / "x.npy", mmap_mode="r")
    given = np.array([1, 400])
    plan = replace(SMALL, part_rows=rows_of_a_part)
    near, plain = pick(mapped, 30, given=given, plan=plan), pick(x, 30, given=given, plan=plan)
    assert near.indices.tolist() == plain.indices.tolist()
    assert near.gains.tobytes() == plain.gains.tobytes()
    assert type(near.indices) is np.ndarray


def test_norms_do_not_matter() -> None:
    x = clustered(500, 16).astype(np.float64)
    longer = x * 2.0 ** np.random.default_rng(0).integers(-30, 30, size=(500, 1))
    assert pick(longer, 20).indices.tolist() == pick(x, 20).indices.tolist()


def test_interval_covers_the_true_coverage() -> None:
    """95 of 100 are expected; below 89 has a chance of 1 in 200, and seeds are fixed."""
    x = skewed(500, 12)
    k = slow.kernel_matrix(x)
    plan = replace(SMALL, steps=1, heldout=120)
    hits, errors = 0, []
    for seed in range(100):
        near = pick(x, 6, seed, plan=plan)
        truth = slow.coverage_curve(k, near.indices.tolist())[-1]
        low, high = near.interval
        assert low < near.coverage < high
        assert near.heldout == 120
        assert near.gains.sum() == pytest.approx(near.coverage, abs=1e-12)
        hits += low <= truth <= high
        errors.append(near.coverage - truth)
    assert 89 <= hits <= 99
    assert abs(np.mean(errors)) < 3 * np.std(errors) / 10, "the estimate is unbiased"


def test_record() -> None:
    seen: list[tuple[str, int, int]] = []
    near = near_exact(
        clustered(350, 8),
        5,
        kernel=GAUSSIAN,
        given=NONE,
        rng=np.random.default_rng(0),
        plan=SMALL,
        progress=lambda *step: seen.append(step),
    )
    assert seen[:4] == [("parts", done, 4) for done in range(1, 5)]
    assert seen[4] == ("medoid steps", 1, 2)
    assert json.loads(json.dumps(dict(near.info))) == near.info
    assert near.info["candidates"] >= 160
    with pytest.raises(FrozenInstanceError):
        near.coverage = 1.0  # type: ignore[misc]


def test_a_budget_too_large_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "LARGEST_BUDGET", 20)
    x = clustered(400, 8)
    with pytest.raises(BudgetError, match=r"budget=21 exceeds the 20 rows .* pool of 400 rows"):
        pick(x, 21)
    assert len(pick(x, 20).indices) == 20


@pytest.mark.parametrize("budget", [1, 18, 100, 1000, LARGEST_BUDGET])
def test_plans_stay_within_memory(budget: int) -> None:
    plan = make_plan(budget)
    assert plan.candidates >= 2 * budget
    assert 2 * plan.candidates * plan.covered <= 0.5e9
    assert 2 * budget * plan.judged <= 0.5e9
    assert 2 * plan.part_rows**2 <= 0.2e9
    assert plan.candidates >= plan.parts * budget / 4
    assert plan.covered >= 10_000
    assert plan.judged >= 10_000
