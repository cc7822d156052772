"""The retriever against a literal reference, on both backends, with duplicates and near ties."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from icl_select.errors import DataError, EmbeddingError, LabelError, ParameterError, UnknownNameError
from icl_select.retrieve import Retriever, order
from icl_select.types import Retrieved

BACKENDS = ["numpy", "faiss"]


def names(n: int) -> list[str]:
    return [f"r{i}" for i in range(n)]


def cosine(x: np.ndarray, query: np.ndarray) -> np.ndarray:
    """The documented formula, one row at a time: unit rows in the dtype of x, products added in float64."""
    out = []
    for row in x:
        wide = row.astype(np.float64) / np.abs(row).max()
        unit = (wide / np.sqrt((wide * wide).sum())).astype(x.dtype).astype(np.float64)
        q = query.astype(np.float64) / np.abs(query).max()
        out.append(np.einsum("j,j->", unit, q / np.sqrt((q * q).sum())))
    return np.array(out)


def slow_nearest(x: np.ndarray, query: np.ndarray, k: int, excluded: int | None) -> list[int]:
    similar = cosine(x, query)
    rows = [row for row in range(len(x)) if row != excluded]
    return sorted(rows, key=lambda row: (-similar[row], row))[:k]


@st.composite
def worlds(draw: st.DrawFn) -> tuple[np.ndarray, np.ndarray, list[int], list[int]]:
    """Rows with exact duplicates, scaled copies and neighbours one rounding apart; queries partly from the rows."""
    seed = draw(st.integers(0, 10_000))
    n, d, q = draw(st.integers(1, 40)), draw(st.sampled_from([1, 2, 3, 7, 64, 129])), draw(st.integers(1, 4))
    rng = np.random.default_rng(seed)
    base = rng.integers(-2, 3, size=(max(1, n // 2), d)) if draw(st.booleans()) else rng.normal(size=(n, d))
    base = np.where((base == 0).all(axis=1, keepdims=True), 1.0, base)
    x = base[rng.integers(len(base), size=n)].astype(np.float32)
    for row in range(n):
        if rng.random() < 0.3:
            x[row] *= 2.0 ** rng.integers(-3, 4)
        if rng.random() < 0.3:
            x[row] = np.nextafter(x[row], np.float32(np.inf))
    if draw(st.booleans()):
        x = x.astype(np.float64)
    queries = np.where(rng.random((q, 1)) < 0.5, x[rng.integers(n, size=q)], rng.normal(size=(q, d)))
    ks = draw(st.lists(st.integers(0, n + 2), min_size=q, max_size=q))
    selves = draw(st.lists(st.integers(-1, n - 1), min_size=q, max_size=q))
    return x, queries, ks, selves


@settings(max_examples=150, deadline=None)
@given(world=worlds())
@pytest.mark.parametrize("backend", BACKENDS)
def test_equals_the_slow_reference(backend: str, world: tuple[np.ndarray, np.ndarray, list[int], list[int]]) -> None:
    x, queries, ks, selves = world
    before = x.copy()
    found = Retriever(x, names(len(x)), backend=backend).retrieve(queries, ks, query_ids=[f"r{i}" for i in selves])
    for query, k, itself, got in zip(queries, ks, selves, found, strict=True):
        expected = slow_nearest(x, query, k, itself if itself >= 0 else None)
        assert got.rows.tolist() == expected
        assert got.ids == tuple(f"r{i}" for i in expected)
        np.testing.assert_allclose(got.similarities, np.clip(cosine(x, query)[expected], -1, 1), atol=1e-12)
    np.testing.assert_array_equal(x, before)


@pytest.mark.parametrize("backend", BACKENDS)
def test_near_ties_beyond_the_first_screen(backend: str) -> None:
    """300 rows that float32 cannot tell apart: the screen must widen until the float64 order is decided."""
    rng = np.random.default_rng(0)
    centre = rng.normal(size=96)
    x = np.vstack([centre + 1e-7 * rng.normal(size=(300, 96)), rng.normal(size=(200, 96))])
    query = centre + 0.5 * rng.normal(size=96)
    got = Retriever(x, names(500), backend=backend).retrieve(query[None], 5)[0]
    assert got.rows.tolist() == slow_nearest(x, query, 5, None)


def test_blocks_do_not_change_the_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(1)
    x, queries = rng.normal(size=(50, 8)).astype(np.float32), rng.normal(size=(9, 8)).astype(np.float32)
    whole = [found.rows.tolist() for found in Retriever(x, names(50)).retrieve(queries, 4)]
    monkeypatch.setattr("icl_select.retrieve._screen._BLOCK", 120)
    for backend in BACKENDS:
        assert [f.rows.tolist() for f in Retriever(x, names(50), backend=backend).retrieve(queries, 4)] == whole


@pytest.mark.parametrize("backend", BACKENDS)
def test_self_is_excluded_by_id_and_twins_stay(backend: str) -> None:
    """Row 1 is a twin of row 0: asked with the id of row 0, the twin is the answer, at similarity 1."""
    x = np.array([[1.0, 2.0], [1.0, 2.0], [2.0, -1.0]])
    retriever = Retriever(x, ["a", "twin", "c"], backend=backend)
    assert retriever.retrieve(x[:1], 1)[0].ids == ("a",)
    own = retriever.retrieve(x[:1], 3, query_ids=["a"])[0]
    assert own.ids == ("twin", "c")
    assert own.similarities[0] == pytest.approx(1.0)
    assert retriever.retrieve(x[:1], 1, query_ids=["stranger"])[0].ids == ("a",)


def test_k_above_the_rows_gives_all_and_none_means_all() -> None:
    retriever = Retriever(np.eye(3), names(3))
    assert len(retriever.retrieve([[1.0, 0.5, 0.2]], 10)[0]) == 3
    assert retriever.retrieve([[1.0, 0.5, 0.2]])[0].ids == ("r0", "r1", "r2")
    assert retriever.retrieve([[1.0, 0.5, 0.2]], 0)[0].ids == ()
    assert retriever.retrieve(np.empty((0, 3)), 2) == []


def test_k_of_each_query() -> None:
    found = Retriever(np.eye(3), names(3)).retrieve(np.eye(3), [0, 1, 2])
    assert [len(f) for f in found] == [0, 1, 2]


def test_similarity_floor_is_inclusive_and_may_leave_none() -> None:
    retriever = Retriever([[1.0, 0.0], [0.0, 1.0], [-1.0, 0.0]], names(3))
    assert retriever.retrieve([[1.0, 0.0]], 3, min_similarity=0.0)[0].ids == ("r0", "r1")
    assert retriever.retrieve([[-1.0, -1.0]], 1, min_similarity=0.9)[0].ids == ()


def test_similarities_never_leave_the_unit_interval() -> None:
    x = np.random.default_rng(3).normal(size=(200, 33)).astype(np.float32)
    for found in Retriever(x, names(200)).retrieve(np.vstack([x, -x]), 200):
        assert found.similarities.min() >= -1.0
        assert found.similarities.max() <= 1.0


def test_mmr_by_hand() -> None:
    """Query at 0 degrees, rows at 5, 6 and 50 degrees; 5 is picked first.

    The second pick at weight 0.5: 0.5 cos 6 - 0.5 cos 1 = -0.003 beats 0.5 cos 50 - 0.5 cos 45 = -0.03. At weight
    0.3: 0.3 cos 50 - 0.7 cos 45 = -0.30 beats 0.3 cos 6 - 0.7 cos 1 = -0.40.
    """
    angle = np.radians([5, 6, 50])
    retriever = Retriever(np.column_stack([np.cos(angle), np.sin(angle)]), ["5", "6", "50"])
    query = [[1.0, 0.0]]
    assert retriever.retrieve(query, 2, mmr=1.0)[0].ids == ("5", "6")
    assert retriever.retrieve(query, 2, mmr=0.5)[0].ids == ("5", "6")
    assert retriever.retrieve(query, 3, mmr=0.3)[0].ids == ("5", "50", "6")


def slow_greedy(
    x: np.ndarray, query: np.ndarray, k: int, mmr: float | None, labels: list[str] | None, excluded: int | None
) -> list[int]:
    similar = cosine(x, query)
    unit = [cosine(x, row) for row in x]
    picks: list[int] = []
    rows = [row for row in range(len(x)) if row != excluded]
    while len(picks) < k and len(picks) < len(rows):
        allowed = [row for row in rows if row not in picks]
        if labels is not None:
            shown = {label: sum(labels[p] == label for p in picks) for label in labels}
            least = min(shown[labels[row]] for row in allowed)
            allowed = [row for row in allowed if shown[labels[row]] == least]

        def score(row: int) -> float:
            if mmr is None:
                return float(similar[row])
            redundant = max((unit[p][row] for p in picks), default=0.0)
            return float(mmr * similar[row] - (1 - mmr) * redundant)

        best = max(score(row) for row in allowed)
        picks.append(min(row for row in allowed if score(row) >= best - 1e-12))
    return picks


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 10_000), mmr=st.sampled_from([None, 0.0, 0.3, 0.7, 1.0]), balance=st.booleans())
def test_mmr_and_balance_equal_the_slow_reference(seed: int, mmr: float | None, balance: bool) -> None:
    rng = np.random.default_rng(seed)
    n = int(rng.integers(1, 15))
    x = rng.normal(size=(n, 5))
    query = rng.normal(size=5)
    labels = rng.choice(["p", "q", "r"], size=n, p=[0.7, 0.2, 0.1]).tolist()
    k, itself = int(rng.integers(1, n + 2)), int(rng.integers(n))
    got = Retriever(x, names(n), labels).retrieve(query[None], k, query_ids=[f"r{itself}"], mmr=mmr, balance=balance)[0]
    expected = slow_greedy(x, query, k, mmr, labels if balance else None, itself)
    assert got.rows.tolist() == expected
    shorter = Retriever(x, names(n), labels).retrieve(
        query[None], max(k - 1, 0), query_ids=[f"r{itself}"], mmr=mmr, balance=balance
    )[0]
    assert shorter.rows.tolist() == expected[: max(k - 1, 0)]


def test_balance_is_a_round_robin_until_labels_run_out() -> None:
    angle = np.radians([1, 2, 3, 4, 40, 50])
    x = np.column_stack([np.cos(angle), np.sin(angle)])
    retriever = Retriever(x, names(6), ["big", "big", "big", "big", "small", "small"])
    assert retriever.retrieve([[1.0, 0.0]], 6, balance=True)[0].ids == ("r0", "r4", "r1", "r5", "r2", "r3")
    assert retriever.retrieve([[1.0, 0.0]], 3, balance=True, min_similarity=0.9)[0].ids == ("r0", "r1", "r2")


@pytest.mark.parametrize(
    ("queries", "problem"),
    [
        ([[0.0, 0.0]], "zero vector"),
        ([[np.nan, 1.0]], "NaN"),
        ([[np.inf, 1.0]], "infinity"),
        ([[1.0, 2.0, 3.0]], "dimension 3, but the labelled rows have 2"),
        ([1.0, 2.0], "2-D"),
    ],
)
def test_bad_queries(queries: list[object], problem: str) -> None:
    with pytest.raises(EmbeddingError, match=problem):
        Retriever(np.eye(2), names(2)).retrieve(queries, 1)


def test_bad_rows_and_options() -> None:
    with pytest.raises(EmbeddingError, match="zero vector"):
        Retriever([[0.0, 0.0]], ["a"])
    with pytest.raises(EmbeddingError, match="empty"):
        Retriever(np.empty((0, 3)), [])
    with pytest.raises(DataError, match="1 ids for 2"):
        Retriever(np.eye(2), ["a"])
    with pytest.raises(DataError, match="'a' names more than one"):
        Retriever(np.eye(2), ["a", "a"])
    with pytest.raises(DataError, match="1 labels for 2"):
        Retriever(np.eye(2), ["a", "b"], ["x"])
    with pytest.raises(UnknownNameError, match="Did you mean 'faiss'"):
        Retriever(np.eye(2), names(2), backend="fais")
    retriever = Retriever(np.eye(2), names(2), ["x", None])
    with pytest.raises(ParameterError, match="k=-1"):
        retriever.retrieve(np.eye(2), -1)
    with pytest.raises(ParameterError, match=r"k=1\.5 is not a whole number"):
        retriever.retrieve(np.eye(2), 1.5)  # type: ignore[arg-type]
    with pytest.raises(ParameterError, match="3 numbers for 2 queries"):
        retriever.retrieve(np.eye(2), [1, 2, 3])
    with pytest.raises(ParameterError, match=r"mmr=1.5"):
        retriever.retrieve(np.eye(2), 1, mmr=1.5)
    with pytest.raises(ParameterError, match=r"min_similarity=nan"):
        retriever.retrieve(np.eye(2), 1, min_similarity=float("nan"))
    with pytest.raises(DataError, match="1 ids for 2 queries"):
        retriever.retrieve(np.eye(2), 1, query_ids=["a"])
    with pytest.raises(LabelError, match="1 of 2 have none"):
        retriever.retrieve(np.eye(2), 1, balance=True)


def test_fingerprint_names_vectors_and_ids() -> None:
    x = np.random.default_rng(0).normal(size=(4, 3))
    assert Retriever(x, names(4)).fingerprint == Retriever(x, names(4), backend="faiss").fingerprint
    assert Retriever(x, names(4)).fingerprint != Retriever(x, ["a", "b", "c", "d"]).fingerprint
    assert Retriever(x, names(4)).fingerprint != Retriever(-x, names(4)).fingerprint


def found(*ids: str) -> Retrieved:
    return Retrieved(rows=np.arange(len(ids)), ids=ids, similarities=np.linspace(0.9, 0.1, len(ids)))


def test_orders() -> None:
    assert order(found("a", "b", "c")).tolist() == [2, 1, 0]
    assert order(found("a", "b", "c"), "nearest_first").tolist() == [0, 1, 2]
    assert order(found(), "shuffled").tolist() == []
    with pytest.raises(UnknownNameError, match="Did you mean 'nearest_last'"):
        order(found("a"), "nearest-last")


def test_shuffle_depends_on_query_id_and_seed_and_moves_no_other() -> None:
    ids = names(12)
    first = order(found(*ids), "shuffled", query_id="q1", seed=3).tolist()
    assert sorted(first) == list(range(12))
    assert first == order(found(*ids), "shuffled", query_id="q1", seed=3).tolist()
    assert first != order(found(*ids), "shuffled", query_id="q2", seed=3).tolist()
    assert first != order(found(*ids), "shuffled", query_id="q1", seed=4).tolist()
    fewer = order(found(*ids[:8]), "shuffled", query_id="q1", seed=3).tolist()
    assert fewer == [pos for pos in first if pos < 8]


def test_shuffle_is_uniform_over_positions() -> None:
    """Over 2,000 queries each of 4 demonstrations stands last about 500 times (5 standard deviations: 97)."""
    last = [order(found("a", "b", "c", "d"), "shuffled", query_id=f"q{i}").tolist()[-1] for i in range(2000)]
    counts = np.bincount(last, minlength=4)
    assert np.abs(counts - 500).max() < 97


def test_importing_loads_no_heavy_library() -> None:
    code = (
        "import sys; import icl_select.retrieve, icl_select.prompt, icl_select.score, icl_select.metrics; "
        "heavy = {'torch', 'faiss', 'transformers', 'pandas', 'datasets', 'nltk', 'scipy', 'pyarrow'}; "
        "print(sorted(heavy & set(sys.modules)))"
    )
    answer = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, encoding="utf-8")
    assert answer.stdout.strip() == "[]"
