"""Duplicates and leaks: hand examples, and equality with a literal search over all pairs."""

from __future__ import annotations

import json
from itertools import combinations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from icl_select.data import Pool, _similarity, duplicates, leaks
from icl_select.data._similarity import normalise
from icl_select.errors import EmbeddingError, ParameterError


@pytest.mark.parametrize(
    ("left", "right"),
    [
        ("Hello, World!", "hello world"),
        ("  a\tb\n c ", "a b c"),
        ("STRASSE", "straße"),
        ("ﬁne", "fine"),
        ("Ｗｉｄｅ", "wide"),
        ("e\u0301tude", "étude"),
        ("«Bonjour»…", "bonjour"),
        ("yes - no", "yes no"),
        ("don't", "Don't!"),
    ],
)
def test_differences_of_form_do_not_count(left: str, right: str) -> None:
    assert normalise(left) == normalise(right)


@pytest.mark.parametrize(
    ("left", "right"),
    [
        ("!!!", "???"),
        ("...", "!"),
        ("5", "-5"),
        ("5%", "5"),
        ("C#", "C"),
        ("C++", "C"),
        ("do not", "donot"),
        ("a b", "ab"),
        ("😀", "😡"),
        ("don't", "dont"),
    ],
)
def test_differences_of_meaning_count(left: str, right: str) -> None:
    assert normalise(left) != normalise(right)


@given(st.text(max_size=30))
def test_the_normal_form_is_its_own_and_never_empty(text: str) -> None:
    assert normalise(normalise(text)) == normalise(text)
    assert bool(normalise(text)) == bool(text.split())


def test_kinds_of_duplicates_by_hand() -> None:
    """a = c exactly; b differs from them in form; d is near e by embedding (cosine 0.96); f stands alone."""
    pool = Pool.from_texts(
        ["Hi!", "hi", "Hi!", "my order", "an order", "bye"], ids=list("abcdef"), labels=["x", "y", None, "x", "y", "x"]
    )
    x = np.array([[1, 0, 0], [1, 0.01, 0], [1, 0, 0], [0, 1, 0], [0, 0.96, 0.28], [-1, 0, 0]])
    report = duplicates(pool, x)
    assert report.exact == (("a", "c"),)
    assert report.normalised == (("a", "b", "c"),)
    assert report.near == (("d", "e"),)
    assert report.n_near_pairs == 1
    assert report.closest == (("d", "e", pytest.approx(0.96, abs=1e-6)),)
    assert report.disagreeing == (("a", "b", "c"),)
    assert report.compared == 6
    assert [report.redundant(kind) for kind in ("exact", "normalised", "near")] == [("c",), ("b", "c"), ("e",)]
    scaled = duplicates(pool, 5 * x.astype(np.float32))
    assert (scaled.exact, scaled.normalised, scaled.near) == (report.exact, report.normalised, report.near)
    assert duplicates(pool, x, threshold=0.97).near == ()
    assert report.summary() == (
        "Duplicates in the pool of 6: 1 exact (1 group), 2 up to form (1 group), 1 near (1 group, cosine >= 0.95). "
        "Labels differ within 1 of these groups, for example a, b, c."
    )
    assert json.loads(json.dumps(report.to_dict()))["n_redundant"] == {"exact": 1, "normalised": 2, "near": 1}


def test_without_embeddings_the_report_says_so() -> None:
    report = duplicates(Pool.from_texts(["a", "b"]))
    assert report.compared == 0
    assert report.near == ()
    assert "nearness not checked" in report.summary()


def test_texts_of_punctuation_alone_are_not_all_equal() -> None:
    assert duplicates(Pool.from_texts(["!!!", "???", "...", "!!!"])).normalised == ()


def brute(x: np.ndarray, form: list[int], threshold: float) -> tuple[list[tuple[float, int, int]], list[list[int]]]:
    """All near pairs of different form, and the groups they connect, by the definition."""
    unit = x / np.linalg.norm(x, axis=1, keepdims=True)
    pairs = []
    group = [{i} for i in range(len(x))]
    for i, j in combinations(range(len(x)), 2):
        similar = float(unit[i].astype(np.float64) @ unit[j].astype(np.float64))
        near = form[i] != form[j] and similar >= threshold - 1e-6
        if near:
            pairs.append((-similar, i, j))
        if near or form[i] == form[j]:
            merged = group[i] | group[j]
            for k in merged:
                group[k] = merged
    found = {frozenset(members) for members in group if len({form[k] for k in members}) > 1}
    return sorted(pairs), sorted(sorted(members) for members in found)


@pytest.mark.parametrize("tile", [3, 8, 2048])
@pytest.mark.parametrize("seed", range(6))
def test_near_duplicates_equal_a_literal_search(monkeypatch: pytest.MonkeyPatch, tile: int, seed: int) -> None:
    monkeypatch.setattr(_similarity, "_TILE", tile)
    rng = np.random.default_rng(seed)
    n = 25
    x = rng.normal(size=(8, 3))[rng.integers(8, size=n)] + 0.15 * rng.normal(size=(n, 3))
    texts = [f"text {k}" for k in rng.integers(18, size=n)]
    first = {text: i for i, text in reversed(list(enumerate(texts)))}
    pairs, groups = brute(x, [first[text] for text in texts], 0.95)
    report = duplicates(Pool.from_texts(texts, ids=range(n)), x, keep=5)
    assert report.n_near_pairs == len(pairs)
    assert [list(map(int, group)) for group in report.near] == groups
    assert [(int(a), int(b)) for a, b, _ in report.closest] == [(i, j) for _, i, j in pairs[:5]]
    np.testing.assert_allclose([value for *_, value in report.closest], [-s for s, *_ in pairs[:5]], atol=1e-6)


def test_a_pool_of_equal_rows_is_one_group_and_stays_small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_similarity, "_TILE", 64)
    n = 300
    report = duplicates(Pool.from_texts([f"t{i}" for i in range(n)], ids=range(n)), np.ones((n, 4)), threshold=1.0)
    assert report.n_near_pairs == n * (n - 1) // 2
    assert report.near == (tuple(map(str, range(n))),)
    assert [pair[:2] for pair in report.closest] == [("0", str(j)) for j in range(1, 21)], "ties go to the lower rows"


def test_a_large_pool_is_sampled_and_the_report_says_so() -> None:
    pool = Pool.from_texts([f"t{i}" for i in range(100)], ids=range(100))
    report = duplicates(pool, np.ones((100, 2)), max_rows=40)
    assert report.compared == 40
    assert report.n_near_pairs == 40 * 39 // 2
    assert "in a sample of 40 rows, which shows about 16% of the near pairs" in report.summary()
    assert report == duplicates(pool, np.ones((100, 2)), max_rows=40)


def test_order_of_rows_does_not_change_the_groups() -> None:
    rng = np.random.default_rng(3)
    texts = [f"t{k}" for k in rng.integers(20, size=30)]
    x = rng.normal(size=(30, 2))
    order = rng.permutation(30)
    straight = duplicates(Pool.from_texts(texts, ids=range(30)), x)
    shuffled = duplicates(Pool.from_texts([texts[i] for i in order], ids=order.tolist()), x[order])
    for kind in ("exact", "normalised", "near"):
        assert {frozenset(g) for g in getattr(straight, kind)} == {frozenset(g) for g in getattr(shuffled, kind)}


@pytest.mark.parametrize("threshold", [0, -0.5, 1.1, float("nan"), "0.9", True])
def test_thresholds_outside_the_cosine_are_refused(threshold: object) -> None:
    pool = Pool.from_texts(["a", "b"])
    with pytest.raises(ParameterError, match="0 < threshold <= 1"):
        duplicates(pool, threshold=threshold)  # type: ignore[arg-type]
    with pytest.raises(ParameterError, match="0 < threshold <= 1"):
        leaks(pool, pool, threshold=threshold)  # type: ignore[arg-type]


def test_embeddings_are_checked() -> None:
    pool = Pool.from_texts(["a", "b"])
    x = np.eye(2)
    with pytest.raises(EmbeddingError, match="x has 3 rows for 2 texts"):
        duplicates(pool, np.eye(3))
    with pytest.raises(EmbeddingError, match="zero vector"):
        duplicates(pool, np.zeros((2, 2)))
    with pytest.raises(EmbeddingError, match="x_pool has dimension 2 and x_queries 3"):
        leaks(pool, pool, x, np.ones((2, 3)))
    with pytest.raises(ParameterError, match="one side only"):
        leaks(pool, pool, x)
    with pytest.raises(ParameterError, match="kind='close' is no kind"):
        duplicates(pool, x).redundant("close")


def test_leaks_by_hand() -> None:
    """q is in the pool word for word, r up to form, s near b (cosine 0.96) and nearer than d, t not at all."""
    pool = Pool.from_texts(["Where?", "cancel", "where", "cancel it"], ids=list("abcd"))
    queries = Pool.from_texts(["cancel", "WHERE", "stop it", "bye"], ids=list("qrst"))
    x_pool = np.array([[1, 0], [0, 1], [1, 0.1], [-0.28, 0.96]], dtype=np.float32)
    x_queries = 3 * np.array([[0, 1], [1, 0], [0.28, 0.96], [-1, 0]])
    report = leaks(pool, queries, x_pool, x_queries)
    assert [(leak.query_id, leak.pool_id, leak.kind) for leak in report.leaks] == [
        ("q", "b", "exact"),
        ("r", "a", "normalised"),
        ("s", "b", "near"),
    ]
    assert [leak.similarity for leak in report.leaks] == pytest.approx([1, 1, 0.96], abs=1e-6)
    assert report.query_ids == ("q", "r", "s")
    assert report.counts == {"exact": 1, "normalised": 1, "near": 1}
    assert json.loads(json.dumps(report.to_dict()))["leaks"][2]["pool_id"] == "b"
    assert report.summary() == (
        "Leaks: 3 of the 4 queries stand in the pool of 4 (1 exact, 1 up to form, 1 near (cosine >= 0.95)), for "
        "example query 'q' as 'b'. Report scores with and without them."
    )
    plain = leaks(pool, queries)
    assert plain.query_ids == ("q", "r")
    assert plain.leaks[0].similarity is None
    assert "nearness not checked" in plain.summary()
    clean = leaks(pool, Pool.from_texts(["bye"]))
    assert clean.query_ids == ()
    assert clean.summary().startswith("Leaks: none of the 1 queries stands in the pool of 4")


@settings(deadline=None)
@given(st.integers(0, 1000), st.sampled_from([2, 5, 2048]))
def test_near_leaks_equal_a_literal_search(seed: int, tile: int) -> None:
    rng = np.random.default_rng(seed)
    n, q = rng.integers(1, 12, size=2)
    x, y = rng.normal(size=(n, 2)), rng.normal(size=(q, 2))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(_similarity, "_TILE", tile)
        pool = Pool.from_texts([f"p{i}" for i in range(n)], ids=range(n))
        report = leaks(pool, Pool.from_texts([f"q{i}" for i in range(q)], ids=range(q)), x, y, threshold=0.99)
    similar = (y / np.linalg.norm(y, axis=1, keepdims=True)) @ (x / np.linalg.norm(x, axis=1, keepdims=True)).T
    expected = [(str(i), str(row.argmax())) for i, row in enumerate(similar) if row.max() >= 0.99 - 1e-6]
    assert [(leak.query_id, leak.pool_id) for leak in report.leaks] == expected


def test_every_row_of_a_pool_leaks_from_itself() -> None:
    pool = Pool.from_texts(["a", "b", "c"], ids=["1", "2", "3"])
    report = leaks(pool, pool, np.eye(3), np.eye(3))
    assert [(leak.query_id, leak.pool_id, leak.kind) for leak in report.leaks] == [(i, i, "exact") for i in "123"]
