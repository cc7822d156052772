"""embed: rows in order, one space for pool and queries, clear errors."""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from icl_select.embedding import Embeddings, Encoded, HashEncoder, embed, pool_mean
from icl_select.errors import DataError, EmbeddingError, UnknownNameError

TEXTS = ["the app crashes", "refund my order", "the app crashed again", "refund my order", "where is my parcel"]


class Table:
    """An encoder whose vectors are written down: raw, not of unit norm."""

    name, fingerprint, dim, max_tokens = "table", "table", 2, 3
    rows: ClassVar[dict[str, tuple[float, float]]] = {
        "a": (3.0, 0.0),
        "b": (1.0, 2.0),
        "c": (2.0, 4.0),
        "q": (2.0, 3.0),
    }

    def __init__(self) -> None:
        self.asked: list[str] = []

    def encode(self, texts: Sequence[str], *, progress: bool = False) -> Encoded:
        self.asked += texts
        vectors = np.array([self.rows[text] for text in texts], dtype=np.float32)
        return Encoded(vectors, np.array([text == "c" for text in texts]))


def of(texts: Any, encoder: Any = "hash(dim=32)", **options: Any) -> Embeddings:
    return embed(texts, encoder, **{"cache": False, "centre": False, "progress": False, **options})


def test_centring_by_hand() -> None:
    """Mean of (3, 0), (1, 2), (2, 4) is (2, 2); it is taken from the pool and from the query (2, 3)."""
    x = of(["a", "b", "c"], Table(), centre=True)
    assert x.vectors.tolist() == [[1.0, -2.0], [-1.0, 0.0], [0.0, 2.0]]
    assert x.shift is not None
    assert x.shift.tolist() == [2.0, 2.0]
    assert x.queries(["q"]).tolist() == [[0.0, 1.0]]
    assert x.truncated.tolist() == [False, False, True]


def test_the_mean_is_over_rows_not_over_distinct_texts() -> None:
    x = of(["a", "a", "a", "b"], Table(), centre=True)
    assert x.shift is not None
    assert x.shift.tolist() == [2.5, 0.5]


def test_uncentred_vectors_are_as_the_encoder_gives_them() -> None:
    x = of(["c", "a"], Table())
    assert x.vectors.tolist() == [[2.0, 4.0], [3.0, 0.0]]
    assert x.shift is None
    assert x.queries(["q"]).tolist() == [[2.0, 3.0]]


def test_equal_texts_are_encoded_once() -> None:
    encoder = Table()
    x = of(["a", "b", "a", "a"], encoder)
    assert sorted(encoder.asked) == ["a", "b"]
    assert x.vectors.tolist() == [[3.0, 0.0], [1.0, 2.0], [3.0, 0.0], [3.0, 0.0]]


@given(st.lists(st.sampled_from([f"text {'x' * i}" for i in range(12)]), min_size=1, max_size=30), st.integers(0, 30))
def test_rows_are_those_of_the_texts_whatever_is_cached(
    tmp_path_factory: pytest.TempPathFactory, texts: list[str], stored: int
) -> None:
    folder = tmp_path_factory.mktemp("cache")
    if texts[:stored]:
        of(texts[:stored], cache=folder)
    x = of(texts, cache=folder)
    assert x.vectors.tolist() == [HashEncoder(32).encode([text]).vectors[0].tolist() for text in texts]


def test_works_as_an_array_and_cannot_be_changed() -> None:
    x = of(TEXTS)
    assert len(x) == 5
    assert x.shape == (5, 32)
    assert np.asarray(x).tolist() == x[:].tolist() == x.vectors.tolist()
    assert np.asarray(x, dtype=np.float64).dtype == np.float64
    with pytest.raises(ValueError, match="read-only"):
        x.vectors[0, 0] = 1
    with pytest.raises(dataclasses.FrozenInstanceError):
        x.vectors = x.vectors  # type: ignore[misc]
    own = np.ones((2, 3), dtype=np.float32)
    Embeddings(own, HashEncoder(), np.zeros(2, dtype=bool))
    own[0, 0] = 5  # the caller's array stays writable


def test_subset_centres_by_its_own_mean() -> None:
    x = of(TEXTS)
    part = x.subset([4, 0, 2], centre=True)
    raw = x.vectors[[4, 0, 2]]
    np.testing.assert_allclose(part.vectors, raw - raw.mean(0), atol=1e-7)
    np.testing.assert_allclose(part.queries(TEXTS)[4], part.vectors[0], atol=1e-7)
    again = of(TEXTS, centre=True).subset([4, 0, 2], centre=True)
    np.testing.assert_allclose(again.vectors, part.vectors, atol=1e-7)
    np.testing.assert_allclose(again.queries(["my order"]), part.queries(["my order"]), atol=1e-7)
    plain = x.subset(np.array([1, 3]))
    assert plain.shift is None
    assert plain.vectors.tolist() == x.vectors[[1, 3]].tolist()


def test_pool_mean_accumulates_in_double_precision() -> None:
    """In float32, 2^24 + 1 = 2^24: a running sum would lose every second row."""
    x = np.ones((3, 1), dtype=np.float32)
    x[0] = 2**24
    assert pool_mean(x).tolist() == [(2**24 + 2) / 3]
    with pytest.raises(EmbeddingError, match="shape"):
        pool_mean(np.ones(3))


def test_fingerprint_follows_content() -> None:
    names = {of(TEXTS).fingerprint, of(TEXTS[:4]).fingerprint, of(TEXTS, centre=True).fingerprint}
    names |= {of(TEXTS, "hash(dim=64)").fingerprint, of(TEXTS[::-1]).fingerprint}
    assert len(names) == 5
    assert of(TEXTS).fingerprint == of(tuple(TEXTS)).fingerprint


class FakePool:
    texts = ("a", "b")
    ids = ("first", "second")


def test_a_pool_gives_its_texts_and_names_its_rows() -> None:
    assert of(FakePool(), Table()).vectors.tolist() == [[3.0, 0.0], [1.0, 2.0]]
    pool = FakePool()
    pool.texts = ("a", "  ")
    with pytest.raises(DataError, match=r"text 1 \(id 'second'\) is empty"):
        of(pool, Table())


def test_no_queries_give_no_rows() -> None:
    assert of(TEXTS).queries([]).shape == (0, 32)


def test_truncation_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING, "icl_select"):
        x = of(["a", "b", "c"], Table())
        assert "1 of 3 texts are longer than table reads" in caplog.text
        x.queries(["c", "c"])
    assert "2 of 2 texts are longer than table reads" in caplog.text


def test_progress_goes_to_stderr_and_only_if_asked(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    of(TEXTS, cache=tmp_path)
    assert capsys.readouterr() == ("", "")
    of([*TEXTS, "one more"], cache=tmp_path, progress=True)
    out, err = capsys.readouterr()
    assert out == ""
    assert "1/1" in err
    assert "text/s" in err
    of([*TEXTS, "one more"], cache=tmp_path, progress=True)
    assert capsys.readouterr() == ("", ""), "nothing to wait for, nothing to show"


@pytest.mark.parametrize(
    ("texts", "message"),
    [
        ([], "the pool is empty"),
        ("one string", r"Pass \[text\]"),
        (["fine", ""], "text 1 is empty"),
        (["fine", 3], "text 1 is int"),
        (12, "texts is int"),
    ],
)
def test_texts_that_cannot_be_embedded(texts: Any, message: str) -> None:
    with pytest.raises(DataError, match=message):
        of(texts)


class Broken(Table):
    def __init__(self, vectors: Any) -> None:
        super().__init__()
        self.vectors = np.asarray(vectors, dtype=np.float32)

    def encode(self, texts: Sequence[str], *, progress: bool = False) -> Encoded:
        return Encoded(self.vectors, np.zeros(len(texts), dtype=bool))


@pytest.mark.parametrize(
    ("vectors", "message"),
    [
        ([[1, 2], [np.nan, 0]], "NaN or infinity for the text 'b'"),
        ([[1, 2], [np.inf, 0]], "NaN or infinity for the text 'b'"),
        ([[1, 2]], r"returned shape \(1, 2\), not \(2, d\)"),
        ([1, 2], r"returned shape \(2,\)"),
        (np.zeros((2, 0)), r"returned shape \(2, 0\)"),
    ],
)
def test_encoder_that_returns_nonsense(vectors: Any, message: str, tmp_path: Path) -> None:
    with pytest.raises(EmbeddingError, match=message):
        of(["a", "b"], Broken(vectors), cache=tmp_path)
    assert of(["a", "b"], Table(), cache=tmp_path).vectors.tolist() == [[3, 0], [1, 2]], "nothing bad was stored"


def test_queries_of_another_dimension() -> None:
    x = dataclasses.replace(of(["a", "b"], Table()), encoder=HashEncoder(8))
    with pytest.raises(EmbeddingError, match="dimension 8 for a pool of dimension 2"):
        x.queries(["q"])


def test_unknown_encoder() -> None:
    with pytest.raises(UnknownNameError, match="Did you mean 'minilm'"):
        of(TEXTS, "minilmm")
