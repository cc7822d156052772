"""IDEAL: exact influence on tiny graphs, the bound, published graphs and picks, true influence against them."""

from __future__ import annotations

import itertools
import json
import os
import random as python_random
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given as draw
from hypothesis import settings
from hypothesis import strategies as st
from reference import ideal as slow
from reference.pools import clustered

from icl_select.errors import ParameterError
from icl_select.methods import _cascade as cascade
from icl_select.methods import _reverse_reachable as rr
from icl_select.methods import select
from icl_select.methods._published import published_unit_rows
from icl_select.methods.ideal import _graph, ideal

NONE = np.empty(0, dtype=np.int64)


def on_circle(*degrees: float) -> np.ndarray:
    angle = np.radians(degrees)
    return np.column_stack([np.cos(angle), np.sin(angle)])


# --- the graph and reverse-reachable sets ---------------------------------------------------------------


def test_graph_of_three_points_on_paper() -> None:
    """0, 60, 120 degrees: from 0 the cosines are 1/2 and -1/2 (clipped), from 60 they are 1/2 and 1/2."""
    targets, probabilities = _graph(on_circle(0, 60, 120), 2)
    assert targets.tolist() == [[1, 2], [0, 2], [1, 0]]
    np.testing.assert_allclose(probabilities, [[1, 0], [0.5, 0.5], [1, 0]], atol=1e-12)


def test_a_row_without_positive_neighbour_reaches_only_itself() -> None:
    targets, probabilities = _graph(on_circle(0, 180), 1)
    assert targets.tolist() == [[1], [0]]
    assert probabilities.tolist() == [[0], [0]]
    assert ideal(on_circle(0, 180), 2, rng=np.random.default_rng(0)).info["influence"] == 2


def test_in_edges_turn_the_graph_round() -> None:
    start, sources, probabilities = rr.in_edges(np.array([[1, 2], [0, 2], [1, 0]]), np.arange(6.0).reshape(3, 2))
    assert start.tolist() == [0, 2, 4, 6]
    assert sources.tolist() == [1, 2, 0, 2, 0, 1]
    assert probabilities.tolist() == [2, 5, 0, 4, 1, 3]


def test_sets_estimate_the_exact_influence() -> None:
    """On 5 rows with 2 edges each, all 1,024 worlds are summed; 200,000 sets come within 5 standard errors."""
    targets, probabilities = _graph(on_circle(0, 20, 35, 80, 130), 2)
    sets = rr.sample(rr.in_edges(targets, probabilities), 200_000, 7)
    for seeds in itertools.chain.from_iterable(itertools.combinations(range(5), size) for size in (1, 2, 3)):
        rows = np.zeros(5, dtype=bool)
        rows[list(seeds)] = True
        share = rr.hits(sets, rows).mean()
        exact = slow.exact_influence(targets, probabilities, list(seeds))
        assert abs(5 * share - exact) <= 5 * 5 * np.sqrt(max(share * (1 - share), 1e-9) / len(sets))


def test_a_set_holds_its_root_and_no_row_twice() -> None:
    sets = rr.sample(rr.in_edges(*_graph(clustered(60, 8), 5)), 3_000, 1)
    for a, b in itertools.pairwise(sets.start):
        assert b - a == len(set(sets.members[a:b].tolist())) >= 1
    roots = np.bincount(sets.members[sets.start[:-1]], minlength=60)
    assert np.abs(roots - 50).max() < 5 * np.sqrt(50)


def test_a_set_depends_on_its_number_only() -> None:
    edges = rr.in_edges(*_graph(clustered(60, 8), 5))
    few, many = rr.sample(edges, 500, 9), rr.sample(edges, 2_000, 9)
    np.testing.assert_array_equal(few.start, many.start[:501])
    np.testing.assert_array_equal(few.members, many.members[: few.start[-1]])
    assert not np.array_equal(rr.sample(edges, 500, 10).members[:400], few.members[:400])


@draw(st.integers(0, 999), st.integers(1, 12), st.data())
@settings(max_examples=80, deadline=None)
def test_cover_equals_the_slow_reference(seed: int, n: int, data: st.DataObject) -> None:
    rng = np.random.default_rng(seed)
    sets = [set(rng.choice(n, size=rng.integers(1, n + 1), replace=False).tolist()) for _ in range(40)]
    given = data.draw(st.lists(st.integers(0, n - 1), unique=True, max_size=n - 1))
    budget = data.draw(st.integers(1, n - len(given)))
    flat = np.array([row for s in sets for row in s], dtype=np.int32)
    packed = rr.RRSets(np.cumsum([0, *map(len, sets)]), flat)
    rows, counts, ceiling = rr.cover(packed, n, np.array(given, dtype=np.int64), budget)
    assert (rows.tolist(), counts.tolist()) == slow.greedy_cover(sets, n, given, budget)
    open_sets = [s for s in sets if not s & set(given)]
    best = max(sum(bool(s & set(c)) for s in open_sets) for c in itertools.combinations(range(n), budget))
    assert counts.sum() <= best <= ceiling


def test_certified_share_holds() -> None:
    """On 6 rows the best pair is known exactly; the certificate may claim no more in (nearly) every run."""
    x = on_circle(0, 15, 40, 75, 120, 170)
    targets, probabilities = _graph(x, 2)
    value = {
        pair: slow.exact_influence(targets, probabilities, list(pair)) for pair in itertools.combinations(range(6), 2)
    }
    best = max(value.values())
    failures = 0
    for seed in range(200):
        picked = select("ideal(k=2, n_sets=300, delta=0.1)", x, 2, seed=seed)
        share = value[tuple(sorted(picked.indices.tolist()))] / best
        failures += share < picked.info["certified_share"]
    assert failures <= 20


def test_more_sets_certify_more() -> None:
    x = clustered(300, 16)
    shares = [select(f"ideal(n_sets={n})", x, 10).info["certified_share"] for n in (100, 10_000, 300_000)]
    assert shares == sorted(shares)
    assert shares[0] < 0.5 < 1 - 1 / np.e < shares[2] <= 1


def test_epsilon_doubles_the_sets_until_the_share_is_certain() -> None:
    x = clustered(300, 16)
    picked = select("ideal(n_sets=1000, epsilon=0.05)", x, 10)
    assert picked.info["certified_share"] >= 1 - 1 / np.e - 0.05
    assert picked.info["n_sets"] in 1_000 * 2 ** np.arange(1, 12)
    assert not picked.nested


def test_epsilon_out_of_reach(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("icl_select.methods.ideal._MOST_MEMBERS", 10_000)
    with pytest.raises(ParameterError, match=r"epsilon=0.01 is not reached with 2000 sets.*larger epsilon"):
        select("ideal(n_sets=1000, epsilon=0.01)", clustered(300, 16), 10)


def test_gains_and_influence_agree() -> None:
    """Gains come from the sets that the picks were made on, and so are a little high; influence is unbiased."""
    x = clustered(300, 16)
    picked = select("ideal", x, 20, given=[5, 6])
    targets, probabilities = _graph(x, 10)
    counts = slow.common_worlds(targets, probabilities, [[5, 6, *picked.indices], [5, 6]], 2_000)
    error = counts.std(axis=0) / np.sqrt(len(counts))
    assert picked.info["influence"] == pytest.approx(
        counts[:, 0].mean(), abs=4 * np.hypot(error[0], picked.info["influence_se"])
    )
    assert picked.gains.sum() == pytest.approx((counts[:, 0] - counts[:, 1]).mean(), rel=0.05)
    assert (np.diff(picked.gains) <= 0).all()


def test_default_number_of_sets_follows_the_pool_not_the_budget() -> None:
    assert select("ideal", clustered(10, 4), 2).info["n_sets"] == 20_000
    assert select("ideal", clustered(100, 4), 2).info["n_sets"] == 40_000
    assert select("ideal", clustered(100, 4), 60).info["n_sets"] == 40_000


def test_threads_do_not_change_the_answer() -> None:
    script = (
        "from icl_select.methods import select; import numpy as np\n"
        "x = np.random.default_rng(0).normal(size=(400, 32)).astype('f')\n"
        "s = select('ideal(n_sets=5000)', x, 30); print(s.indices.tolist(), s.gains.tolist())"
    )
    outputs = set()
    for threads in ("1", "2"):
        names = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMBA_NUM_THREADS")
        env = os.environ | dict.fromkeys(names, threads)
        run = subprocess.run([sys.executable, "-c", script], env=env, capture_output=True, text=True, check=True)
        outputs.add(run.stdout)
    assert len(outputs) == 1


# --- the replay of published code -----------------------------------------------------------------------


@pytest.mark.parametrize("seed", [0, 1, 2**70])
def test_stream_is_pythons(seed: int) -> None:
    _, state, _ = python_random.Random(seed).getstate()
    words, position = np.array(state[:-1], dtype=np.uint32), np.array([state[-1]])
    ours = [cascade._uniform(words, position) for _ in range(2_000)]
    stream = python_random.Random(seed)
    assert ours == [stream.random() for _ in range(2_000)]


@pytest.mark.parametrize("seed", [0, 1, 2])
@pytest.mark.parametrize("given", [[], [7, 3]])
def test_replay_equals_the_slow_reference(seed: int, given: list[int]) -> None:
    x = clustered(30, 4, clusters=3, seed=seed)
    x[11] = x[29]  # a copy: one list is an entry short
    targets, probabilities = cascade.published_graph(x, 4)
    ours, _ = cascade.replay(targets, probabilities, np.array(given, dtype=int), 5, 6, python_random.Random(seed))
    assert ours.tolist() == slow.published(targets, probabilities, given, 5, 6, seed)


def test_replay_starts_with_row_zero() -> None:
    picked = select("ideal(variant='official')", clustered(40, 8), 3)
    assert picked.indices[0] == 0
    assert picked.gains[0] == 0
    assert picked.info["claimed_influence"] == pytest.approx(picked.gains.sum())


@pytest.mark.parametrize("d", [64, 384])
def test_published_graph(shared: Path, d: int) -> None:
    golden = np.load(shared / f"golden/ideal/graph_emb_n500_d{d}_k10.npz")
    x = np.load(shared / f"golden/emb_n500_d{d}.npz")["Xc"]
    targets, probabilities = cascade.published_graph(published_unit_rows(x, x), 10)
    order = cascade.node_order(targets)
    np.testing.assert_array_equal(order, golden["node_order"])
    np.testing.assert_array_equal(targets[order].ravel(), golden["dst"])
    np.testing.assert_allclose(probabilities[order].ravel(), golden["p"], atol=1e-6)
    ours_targets, ours_probabilities = _graph(published_unit_rows(x, x), 10)
    np.testing.assert_array_equal(ours_targets, targets[:, ::-1])
    np.testing.assert_allclose(ours_probabilities, probabilities[:, ::-1], atol=1e-6)


# Runs that were stored; those of budget 100 at d = 384 took the authors' code longest, so there is one.
RUNS = {
    18: [f"emb_n500_d{d}_Xc_b18_seed{seed}" for d in (64, 384) for seed in (0, 1, 2)],
    100: [*(f"emb_n500_d64_Xc_b100_seed{seed}" for seed in (0, 1, 2)), "emb_n500_d384_Xc_b100_seed0"],
}


def replays(shared: Path, name: str) -> None:
    golden = json.loads((shared / f"golden/ideal/{name}.json").read_text(encoding="utf-8"))
    x = np.load(shared / "golden" / golden["input"])[golden["input_key"]]
    picked = select("ideal(variant='official')", x, golden["budget"], seed=golden["seed"])
    assert picked.indices.tolist() == golden["selected"]


@pytest.mark.parametrize("name", RUNS[18])
def test_published_picks(shared: Path, name: str) -> None:
    replays(shared, name)


@pytest.mark.slow
@pytest.mark.parametrize("name", RUNS[100][3:])
def test_published_picks_at_a_budget_of_100(shared: Path, name: str) -> None:
    replays(shared, name)


@pytest.mark.parametrize("d", [64, 384])
def test_default_reaches_more_than_published_picks(shared: Path, d: int) -> None:
    """True independent-cascade influence on 500 common worlds: every difference is positive beyond 2 errors."""
    x = np.load(shared / f"golden/emb_n500_d{d}.npz")["Xc"]
    targets, probabilities = _graph(published_unit_rows(x, x), 10)
    for budget in (18, 100):
        names = [name for name in RUNS[budget] if f"_d{d}_" in name]
        files = [shared / f"golden/ideal/{name}.json" for name in names]
        published = [json.loads(file.read_text(encoding="utf-8"))["selected"] for file in files]
        ours = select("ideal", x, budget).indices.tolist()
        counts = slow.common_worlds(targets, probabilities, [ours, *published], 500)
        difference = counts[:, :1] - counts[:, 1:]
        assert (difference.mean(axis=0) > 2 * difference.std(axis=0) / np.sqrt(500)).all()


@pytest.mark.parametrize(
    "method",
    [
        "ideal(k=0)", "ideal(n_sets=0)", "ideal(n_sets=1.5)", "ideal(epsilon=0)", "ideal(epsilon=1)", "ideal(delta=0)",
        "ideal(delta='small')", "ideal(variant='faithful')", "ideal(variant='official', rounds=0)", "ideal(rounds=0)",
        "ideal(variant='official', n_sets=9)", "ideal(variant='official', epsilon=0.1)",
    ],
)  # fmt: skip
def test_parameters_out_of_range(method: str) -> None:
    with pytest.raises(ParameterError, match=r"(Pass|Leave them out)"):
        select(method, clustered(30, 4), 5)
