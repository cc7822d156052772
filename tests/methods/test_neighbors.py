"""Exact nearest neighbours: a hand example, the slow reference, ties, blocks, memory."""

from __future__ import annotations

import tracemalloc

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from reference import neighbours as slow
from reference.pools import clustered

from icl_select.errors import ParameterError
from icl_select.neighbors import knn_graph


def unit(rows: np.ndarray) -> np.ndarray:
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def test_five_points_on_the_circle() -> None:
    """0, 10, 90, 100, 200 degrees: 10 is nearest to 0 by 10 degrees, then 90 by 90 degrees, and so on."""
    angle = np.radians([0, 10, 90, 100, 200])
    indices, similarities = knn_graph(np.column_stack([np.cos(angle), np.sin(angle)]), 2)
    assert indices.tolist() == [[1, 2], [0, 2], [3, 1], [2, 1], [3, 2]]
    np.testing.assert_allclose(similarities[4], np.cos(np.radians([100, 110])), atol=1e-15)
    assert indices.dtype == np.int64
    assert similarities.dtype == np.float64


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize(("d", "k"), [(1, 3), (2, 10), (64, 50), (384, 119)])
def test_equals_the_slow_reference(dtype: type, d: int, k: int) -> None:
    x = unit(np.random.default_rng(d).normal(size=(120, d))).astype(dtype)
    assert knn_graph(x, k)[0].tolist() == slow.knn(x, k)


@given(st.integers(0, 99), st.lists(st.integers(0, 6), min_size=2, max_size=25), st.data())
@settings(max_examples=60, deadline=None)
def test_duplicates_stay_and_tie_to_the_lower_index(seed: int, copies: list[int], data: st.DataObject) -> None:
    base = unit(np.random.default_rng(seed).normal(size=(7, 5)))
    x = base[copies].astype(data.draw(st.sampled_from([np.float32, np.float64])))
    k = data.draw(st.integers(0, len(x) - 1))
    indices, similarities = knn_graph(x, k, block=data.draw(st.integers(1, 30)))
    assert indices.tolist() == slow.knn(x, k)
    assert (np.diff(similarities, axis=1) <= 0).all()


def test_all_points_equal() -> None:
    x = np.tile(unit(np.ones((1, 16))), (40, 1)).astype(np.float32)
    indices, similarities = knn_graph(x, 3)
    assert indices[0].tolist() == [1, 2, 3]
    assert indices[2].tolist() == [0, 1, 3]
    assert indices[39].tolist() == [0, 1, 2]
    assert np.ptp(similarities) == 0


def test_rounding_of_the_product_does_not_decide() -> None:
    """Similarities that differ by less than a float32 can hold are still ordered by their exact values."""
    rng = np.random.default_rng(3)
    x = unit(rng.normal(size=200) + 1e-6 * rng.normal(size=(80, 200))).astype(np.float32)
    assert len(np.unique(x[:1] @ x.T)) < 20
    assert knn_graph(x, 10)[0].tolist() == slow.knn(x, 10)


def test_blocks_do_not_change_a_bit() -> None:
    x = clustered(700, 48)
    whole = knn_graph(x, 20, block=700)
    for block in (1, 7, 256):
        part = knn_graph(x, 20, block=block)
        np.testing.assert_array_equal(part[0], whole[0])
        np.testing.assert_array_equal(part[1], whole[1])


def test_input_is_not_modified_and_may_be_read_only() -> None:
    x = clustered(50, 8)
    before = x.copy()
    x.setflags(write=False)
    knn_graph(x, 5)
    np.testing.assert_array_equal(x, before)


def test_one_row_has_no_neighbours() -> None:
    indices, similarities = knn_graph(np.ones((1, 3)) / np.sqrt(3), 0)
    assert indices.shape == similarities.shape == (1, 0)


def test_too_many_neighbours() -> None:
    with pytest.raises(ParameterError, match=r"k=5 neighbours asked of 5 rows.*k <= 4"):
        knn_graph(clustered(5, 4), 5)
    with pytest.raises(ParameterError, match="k=-1"):
        knn_graph(clustered(5, 4), -1)
    with pytest.raises(ParameterError, match="block=0"):
        knn_graph(clustered(5, 4), 2, block=0)


def test_memory_stays_at_two_blocks_a_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    """At n = 12,000 the whole matrix would take 576 MB in float32."""
    monkeypatch.setenv("ICS_THREADS", "1")
    x = clustered(12_000, 16)
    knn_graph(x[:10], 2)
    tracemalloc.start()
    knn_graph(x, 10)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 90e6
