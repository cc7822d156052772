"""Vote-k: a hand example, the slow reference, both stages, published picks."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given as draw
from hypothesis import settings
from hypothesis import strategies as st
from reference import neighbours as slow_neighbours
from reference import vote_k as slow
from reference.pools import clustered

from icl_select.errors import FeedbackError, ParameterError
from icl_select.methods import select
from icl_select.methods.vote_k import vote_k
from icl_select.neighbors import knn_graph


def on_circle(*degrees: float) -> np.ndarray:
    angle = np.radians(degrees)
    return np.column_stack([np.cos(angle), np.sin(angle)])


def mixture(n: int, d: int, key: str) -> np.ndarray:
    """The pools of the published outputs: 25 Gaussian components, unit norm, optionally centred."""
    rng = np.random.default_rng(n + d)
    x = rng.normal(size=(25, d))[rng.integers(25, size=n)] + rng.normal(size=(n, d))
    x = (x / np.linalg.norm(x, axis=1, keepdims=True)).astype(np.float32)
    return x - x.mean(axis=0) if key == "Xc" else x


def test_seven_points_on_paper() -> None:
    """Votes (k=2): 0->1,2; 1->0,2; 2->1,3; 3->2,1; 4->5,6; 5->4,6; 6->5,4.

    Scores: rows 1 and 2 have 3 voters; row 0 names its less similar vote, 2, first, so 2 wins with 3.
    Its voters 0, 1, 3 now count 0.1. Rows 4, 5, 6 have 2 votes each; voter 4 names 6 first: 6 with 2.
    Then row 1 has voters 0 and 3 at 0.1 (2 is picked): 0.2; row 4 has voter 5 at 0.1 (6 is picked): 0.1.
    """
    picked = vote_k(on_circle(0, 10, 20, 30, 120, 130, 145), 3, k=2)
    assert picked.indices.tolist() == [2, 6, 1]
    assert picked.gains.tolist() == [3.0, 2.0, 0.2]
    assert picked.info == {"k": 2}


@draw(st.integers(0, 99), st.integers(2, 24), st.data())
@settings(max_examples=80, deadline=None)
def test_equals_the_slow_reference(seed: int, n: int, data: st.DataObject) -> None:
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(n, 3))[rng.integers(n, size=n)]  # some rows are copies
    x /= np.linalg.norm(x, axis=1, keepdims=True)
    k = data.draw(st.integers(1, 30))
    given = data.draw(st.lists(st.integers(0, n - 1), unique=True, max_size=n - 1))
    budget = data.draw(st.integers(1, n - len(given)))
    rho = data.draw(st.sampled_from([1, 2.0, 10, 1e200]))
    picked = vote_k(x, budget, given=np.array(given, dtype=np.int64), k=k, rho=rho)
    neighbours = knn_graph(x, min(k, n - 1))[0]
    assert picked.indices.tolist() == slow.graph_stage(neighbours, budget, given, rho)
    assert (np.diff(picked.gains) <= 0).all()


def test_rows_without_votes_come_last_by_index() -> None:
    """With k=1: 0->1, 1->2, 2->1, 3->2, 4->5, 5->4. Nobody votes for rows 0 and 3."""
    picked = vote_k(on_circle(-20, 0, 1, 30, 60, 80), 6, k=1)
    assert picked.indices.tolist()[-2:] == [0, 3]
    assert picked.gains.tolist()[-2:] == [0.0, 0.0]


def test_given_rows_neither_vote_nor_let_their_voters_count_in_full() -> None:
    x = on_circle(0, 10, 20, 30, 120, 130, 145)
    whole = vote_k(x, 3, k=2)
    rest = vote_k(x, 2, given=whole.indices[:1], k=2)
    assert rest.indices.tolist() == whole.indices[1:].tolist()
    assert rest.gains.tolist() == whole.gains[1:].tolist()


@pytest.mark.parametrize("name", ["emb_n500_d64", "emb_n500_d384"])
@pytest.mark.parametrize("key", ["X", "Xc"])
@pytest.mark.parametrize("budget", [18, 100])
def test_published_graph_stage(shared: Path, name: str, key: str, budget: int) -> None:
    golden = json.loads((shared / f"golden/fast_votek/{name}_{key}_b{budget}.json").read_text(encoding="utf-8"))
    x = np.load(shared / f"golden/{name}.npz")[key]
    for variant in ("paper", "official"):
        picked = select(f"vote_k(variant={variant!r})", x, budget)
        assert picked.indices.tolist() == golden["selected"]


@pytest.mark.parametrize("budget", [18, 100])
def test_published_full_method(shared: Path, budget: int) -> None:
    golden = json.loads((shared / f"golden/votek_full/emb_n500_d64_Xc_b{budget}.json").read_text(encoding="utf-8"))
    x = np.load(shared / "golden/emb_n500_d64.npz")["Xc"]
    loss = np.random.default_rng(11).gamma(2.0, 0.5, size=len(x))

    def feedback(labelled: np.ndarray) -> np.ndarray:
        assert labelled.tolist() == golden["selected"][:10]
        return loss

    official = select("vote_k(stage='full', variant='official')", x, budget, feedback=feedback)
    assert official.indices.tolist() == golden["selected"]
    paper = select("vote_k(stage='full', first=10)", x, budget, feedback=feedback)
    assert paper.indices.tolist() == golden["reference_with_decay_fixed"]


@pytest.mark.parametrize("n", [1_500, 3_000])
@pytest.mark.parametrize("d", [64, 384])
@pytest.mark.parametrize("key", ["X", "Xc"])
def test_pools_of_published_size_equal_float64(n: int, d: int, key: str) -> None:
    """Neither rounding near the 150th neighbour nor ties may change a pick: compare with float64 on raw rows."""
    x = mixture(n, d, key)
    rows = x.astype(np.float64)
    neighbours = slow_neighbours.knn_matrix(rows / np.linalg.norm(rows, axis=1, keepdims=True), 150)
    assert select("vote_k", x, 100).indices.tolist() == slow.graph_stage_arrays(neighbours, 100)


@draw(st.integers(0, 99), st.integers(2, 40), st.data())
@settings(max_examples=60, deadline=None)
def test_full_method_equals_the_slow_reference(seed: int, n: int, data: st.DataObject) -> None:
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(n, 4))
    x /= np.linalg.norm(x, axis=1, keepdims=True)
    given = data.draw(st.lists(st.integers(0, n - 1), unique=True, max_size=n - 1))
    budget = data.draw(st.integers(1, n - len(given)))
    first = data.draw(st.integers(0, budget))
    uncertainty = rng.integers(5, size=n).astype(float)  # many ties
    neighbours = knn_graph(x, min(3, n - 1))[0]
    start = slow.graph_stage(neighbours, first, given, 10.0)
    for variant in ("paper", "official"):
        picked = vote_k(
            x, budget, given=np.array(given, dtype=np.int64), k=3, stage="full", first=first, variant=variant,
            feedback=lambda labelled: uncertainty,
        )  # fmt: skip
        expected = start
        if budget > first:
            expected = slow.full(neighbours, start, budget, given, uncertainty, 10.0, decay=variant == "paper")
        assert picked.indices.tolist() == expected


@pytest.mark.parametrize(
    ("variant", "budget", "graph"), [("paper", 100, 10), ("official", 100, 10), ("paper", 18, 2), ("official", 18, 10),
                                     ("paper", 1, 1), ("official", 4, 4)],
)  # fmt: skip
def test_share_of_the_graph_stage(variant: str, budget: int, graph: int) -> None:
    calls: list[list[int]] = []

    def feedback(labelled: np.ndarray) -> np.ndarray:
        calls.append(labelled.tolist())
        return np.arange(300.0)

    x = clustered(300, 8)
    picked = select(f"vote_k(stage='full', variant={variant!r})", x, budget, given=[4, 2], feedback=feedback)
    assert picked.info["graph_picks"] == graph
    assert not picked.nested
    assert calls == ([[4, 2, *picked.indices[:graph].tolist()]] if budget > graph else [])


def test_confident_rows_behind_the_last_bucket_are_not_reached() -> None:
    x = clustered(300, 8)
    uncertainty = np.random.default_rng(1).random(300)
    picked = select("vote_k(stage='full', first=0)", x, 30, feedback=lambda labelled: uncertainty)
    assert picked.info["bucket_width"] == 9
    rank = np.argsort(np.argsort(-uncertainty))[picked.indices]
    assert (rank // 9).tolist() == list(range(30))


def test_feedback_at_labelled_rows_is_ignored() -> None:
    x = clustered(60, 8)
    loss = np.random.default_rng(0).random(60)

    def feedback(labelled: np.ndarray) -> np.ndarray:
        answer = loss.copy()
        answer[labelled] = np.nan
        return answer

    with_nan = select("vote_k(stage='full', k=5)", x, 12, given=[1], feedback=feedback)
    without = select("vote_k(stage='full', k=5)", x, 12, given=[1], feedback=lambda labelled: loss)
    assert with_nan.indices.tolist() == without.indices.tolist()


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        (np.zeros(29), r"shape \(29,\).*pool has 30 rows"),
        (np.zeros((30, 1)), r"shape \(30, 1\)"),
        (np.array(["sure"] * 30), "<U4"),
        (np.where(np.arange(30) == 29, np.nan, 0.0), "nan for row 29"),
        (np.full(30, np.inf), "inf for row"),
        (None, r"shape \(\)"),
    ],
)
def test_bad_feedback(answer: object, message: str) -> None:
    with pytest.raises(FeedbackError, match=message):
        select("vote_k(stage='full', k=3)", clustered(30, 4), 20, feedback=lambda labelled: answer)  # type: ignore


def test_feedback_missing_or_refused() -> None:
    x = clustered(30, 4)
    with pytest.raises(FeedbackError, match="no feedback was passed"):
        select("vote_k(stage='full')", x, 5)
    with pytest.raises(FeedbackError, match="stage='graph' does not ask"):
        select("vote_k", x, 5, feedback=lambda labelled: np.zeros(30))


@pytest.mark.parametrize(
    "method",
    [
        "vote_k(k=0)", "vote_k(k=1.5)", "vote_k(k=True)", "vote_k(rho=0.5)", "vote_k(rho='ten')", "vote_k(rho=True)",
        "vote_k(stage='first')", "vote_k(variant='faithful')", "vote_k(first=3)",
    ],
)  # fmt: skip
def test_parameters_out_of_range(method: str) -> None:
    with pytest.raises(ParameterError, match=r"(Pass|Leave it out)"):
        select(method, clustered(30, 4), 5)


@pytest.mark.parametrize(
    "feedback",
    [7, lambda labelled: None, lambda labelled: [[1], [1, 2]], lambda labelled: ["a"] * 30, lambda labelled: [1j] * 30],
)
def test_feedback_that_is_none(feedback: Any) -> None:
    with pytest.raises(FeedbackError, match=r"(Pass a function|Return one number)"):
        select("vote_k(stage='full')", clustered(30, 4), 5, feedback=feedback)


def test_errors_of_feedback_pass_through() -> None:
    def fails(labelled: Any) -> Any:
        raise ConnectionError("the model does not answer")

    with pytest.raises(ConnectionError, match="does not answer"):
        select("vote_k(stage='full')", clustered(30, 4), 5, feedback=fails)


def test_numbers_of_numpy_are_numbers() -> None:
    x = clustered(60, 4)
    whole = vote_k(x, 9, k=5, rho=10).indices.tolist()
    for rho in (np.int64(10), np.float32(10), np.float64(10)):
        assert vote_k(x, 9, k=5, rho=rho).indices.tolist() == whole


def test_more_graph_picks_than_budget() -> None:
    with pytest.raises(ParameterError, match="first=6 graph picks exceed budget=5"):
        select("vote_k(stage='full', first=6)", clustered(30, 4), 5, feedback=lambda labelled: np.zeros(30))
