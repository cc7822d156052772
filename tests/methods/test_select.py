"""The public edge: what reaches a method, what is refused, and what third-party functions may do."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from reference.pools import clustered

import icl_select
from icl_select.errors import (
    BudgetError,
    EmbeddingError,
    FeedbackError,
    IclSelectError,
    ParameterError,
    UnknownNameError,
)
from icl_select.methods import select
from icl_select.registry import Spec
from icl_select.types import Selection

X = 5 * clustered(20, 4)


def first_rows(x: Any, budget: int, *, given: Any, rng: Any) -> Selection:
    """A well-behaved third-party method."""
    free = np.setdiff1d(np.arange(len(x)), given)[:budget]
    return Selection(free, np.zeros(budget), info={"norms": np.linalg.norm(x, axis=1).round(6).tolist()})


def test_a_function_is_a_method() -> None:
    picked = select(first_rows, X, 3, given=[1], seed=4)
    assert picked.indices.tolist() == [0, 2, 3]
    assert (picked.method, picked.seed) == ("first_rows", 4)
    assert picked.info["norms"] == [1.0] * 20


def test_an_object_is_a_method() -> None:
    class Mine:
        def __call__(self, x: Any, budget: int, *, given: Any, rng: Any) -> Selection:
            return first_rows(x, budget, given=given, rng=rng)

    assert select(Mine(), X, 2).method == "Mine"


def test_a_spec_is_a_method() -> None:
    assert select(Spec("random"), X, 2).indices.tolist() == select("random", X, 2).indices.tolist()
    assert select(Spec("vote_k", {"k": 3}), X, 2).method == "vote_k(k=3)"


def test_the_method_gets_checked_arguments() -> None:
    seen: dict[str, Any] = {}

    def spy(x: Any, budget: int, *, given: Any, rng: Any, raw: Any) -> Selection:
        seen.update(x=x, budget=budget, given=given, rng=rng, raw=raw)
        return first_rows(x, budget, given=given, rng=rng)

    select(spy, X, np.int64(2), given={3, 1}, seed=9)
    assert type(seen["budget"]) is int
    assert seen["given"].dtype == np.int64
    assert seen["rng"].random() == np.random.default_rng(9).random()
    np.testing.assert_array_equal(seen["raw"], X)
    np.testing.assert_allclose(seen["x"], X / 5, rtol=1e-6)
    assert not np.shares_memory(seen["x"], X)


def test_feedback_reaches_the_method_that_takes_it() -> None:
    def asks(x: Any, budget: int, *, given: Any, rng: Any, feedback: Any) -> Selection:
        return Selection(np.argsort(feedback(given))[:budget], np.zeros(budget))

    assert select(asks, X, 2, feedback=lambda labelled: -np.arange(20.0)).indices.tolist() == [19, 18]
    with pytest.raises(FeedbackError, match="first_rows does not ask the model"):
        select(first_rows, X, 2, feedback=lambda labelled: np.zeros(20))


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        ([0, 1, 2], "returned list, not a Selection"),
        (Selection(np.array([0, 1]), np.zeros(2)), r"returned 2 rows \(2 distinct\)"),
        (Selection(np.array([0, 1, 1]), np.zeros(3)), r"3 rows \(2 distinct\)"),
        (Selection(np.array([0, 1, 2]), np.zeros(2)), "2 gains"),
        (Selection(np.array([0, 1, 20]), np.zeros(3)), "outside the pool"),
        (Selection(np.array([0, 1, -1]), np.zeros(3)), "outside the pool"),
        (Selection(np.array([0, 1, 5]), np.zeros(3)), "already given"),
        (Selection(np.array([0, 1, 2]), np.array([1, np.nan, 0])), "gains that are not finite"),
    ],
)
def test_a_function_that_breaks_the_contract(answer: Any, message: str) -> None:
    with pytest.raises(IclSelectError, match=message):
        select(lambda x, budget, *, given, rng: answer, X, 3, given=[5])


@pytest.mark.parametrize("indices", [[0.0, 1.7], [[0], [1]], ["0", "1"], [True, False], 3])
def test_indices_that_are_none(indices: Any) -> None:
    """A fraction must not be cut to a row that nobody picked."""
    with pytest.raises(IclSelectError, match=r"indices of a Selection have shape .* integers"):
        Selection(indices, np.zeros(2))


@pytest.mark.parametrize("gains", [["a", "b"], [[0], [1]], [None, 1]])
def test_gains_that_are_none(gains: Any) -> None:
    with pytest.raises(IclSelectError, match=r"gains of a Selection have shape .* numbers"):
        Selection(np.arange(2), gains)


@pytest.mark.parametrize("method", [lambda x, budget: first_rows(x, budget, given=(), rng=None), 5, None, dict])
def test_what_cannot_be_called_as_a_method(method: Any) -> None:
    with pytest.raises(ParameterError, match=r"cannot be called as f\(x, budget, \*, given, rng\).*Pass the name"):
        select(method, X, 2)


@pytest.mark.parametrize(
    ("method", "message"),
    [
        ("votek", "unknown method 'votek'. Did you mean 'vote_k'?"),
        ("max_herdin", "Did you mean 'max_herding'?"),
        ("xyzzy", "Known: ideal, max_herding, random, sub_sa, vote_k"),
        ("vote_k(K=3)", "method 'vote_k' has no parameter 'K'. Did you mean 'k'?"),
        ("max_herding(bandwith=1)", "Did you mean 'bandwidth'?"),
        ("vote_k(feedback=1)", "no parameter 'feedback'"),
        ("ideal(raw=1)", "no parameter 'raw'"),
        ("random(budget=3)", "no parameter 'budget'"),
    ],
)
def test_unknown_names_are_suggested(method: str, message: str) -> None:
    with pytest.raises(UnknownNameError) as caught:
        select(method, X, 2)
    assert message in str(caught.value)


@pytest.mark.parametrize("method", ["", "vote k", "vote_k(3)", "vote_k(k=open('x'))", "vote_k(k=1, k=2)"])
def test_names_that_do_not_parse(method: str) -> None:
    with pytest.raises(ParameterError, match="cannot read"):
        select(method, X, 2)


@pytest.mark.parametrize(
    ("x", "message"),
    [
        (np.empty((0, 4)), "x is empty: a pool of 0 rows"),
        (np.empty((4, 0)), "dimension 0"),
        (np.ones(5), r"shape \(5,\), but embeddings are 2-D"),
        (np.ones((2, 3, 4)), "2-D"),
        (np.array([["a", "b"]]), "dtype <U1"),
        (np.ones((3, 2), dtype=complex), "complex128"),
        (np.ones((3, 2), dtype=bool), "dtype bool"),
        ([[1, 2], [3]], "cannot be read as an array"),
    ],
)
def test_embeddings_that_are_none(x: Any, message: str) -> None:
    with pytest.raises(EmbeddingError, match=message):
        select("random", x, 1)


def test_a_tensor_that_needs_a_gradient() -> None:
    torch = pytest.importorskip("torch")
    tensor = torch.ones(3, 2)
    assert len(select("random", tensor, 2)) == 2
    with pytest.raises(EmbeddingError, match="requires grad"):
        select("random", tensor.requires_grad_(), 2)


@pytest.mark.parametrize("scale", [1e-38, 1e-20, 1e20, 3e37])
def test_very_small_and_very_large_rows_keep_their_direction(scale: float) -> None:
    x = clustered(50, 8)
    small = (x.astype(np.float64) * scale).astype(np.float32)
    for method in ("sub_sa", "sub_sa(variant='official')", "ideal(variant='official')", "max_herding"):
        assert len(select(method, small, 5)) == 5
    if scale > 1e-30:
        assert select("sub_sa", small, 5).indices.tolist() == select("sub_sa", x, 5).indices.tolist()


@pytest.mark.parametrize("seed", [-1, 1.5, "0", True])
def test_seeds_that_are_none(seed: Any) -> None:
    with pytest.raises(ParameterError, match=r"seed="):
        select("random", X, 2, seed=seed)


def test_selection_is_read_only_and_cuts_prefixes() -> None:
    picked = icl_select.select("random", X, 5)
    with pytest.raises(ValueError, match="read-only"):
        picked.indices[0] = 3
    head = picked.prefix(2)
    assert (head.indices.tolist(), head.method) == (picked.indices[:2].tolist(), "random")
    wrong: list[Any] = [0, 6, 1.5, "2"]
    for budget in wrong:
        with pytest.raises(BudgetError, match="Pass a whole number from 1 to 5"):
            picked.prefix(budget)
