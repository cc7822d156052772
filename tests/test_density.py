"""The distribution of pairwise similarity: by hand, against every pair, sampled against exact, and the reading."""

from __future__ import annotations

import json

import numpy as np
import pytest
from reference.pools import clustered

from icl_select.density import LEVELS, Density, density
from icl_select.errors import DataError, EmbeddingError, ParameterError


def sphere(n: int, d: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(n, d)).astype(np.float32)


def every_pair(x: np.ndarray) -> np.ndarray:
    unit = x.astype(np.float64) / np.linalg.norm(x.astype(np.float64), axis=1, keepdims=True)
    return (unit @ unit.T)[np.triu_indices(len(x), 1)]


def test_hand_example() -> None:
    """Rows at 0, 60 and 90 degrees: cosines 0.5, 0 and sqrt(3) / 2; nearest neighbours 0.5, 0.866, 0.866."""
    angle = np.radians([0, 60, 90])
    found = density(3.0 * np.column_stack([np.cos(angle), np.sin(angle)]), thresholds=(0.4, 0.6))
    half, root = 0.5, np.sqrt(3) / 2
    assert (found.n, found.n_pairs, found.exact, found.band, found.mean_band) == (3, 3, True, 0.0, 0.0)
    assert found.mean == pytest.approx((half + root) / 3, abs=1e-6)
    assert found.sd == pytest.approx(np.std([half, 0, root]), abs=1e-6)
    assert found.minimum == pytest.approx(0, abs=1e-6)
    assert found.maximum == pytest.approx(root, abs=1e-6)
    assert found.quantiles[0.5] == pytest.approx(half, abs=2e-4)
    assert found.shares == {0.4: 2 / 3, 0.6: 1 / 3}
    assert found.nearest_mean == pytest.approx((half + 2 * root) / 3, abs=1e-6)
    assert found.nearest_shares == {0.4: 1.0, 0.6: 2 / 3}
    assert (found.share, found.neighbourhood_rank) == (0.01, 1)
    assert found.neighbourhood_mean == found.nearest_mean
    assert found.closeness == pytest.approx((found.neighbourhood_mean - found.mean) / (1 - found.mean))


def test_hand_example_of_the_neighbourhood() -> None:
    """The same rows at rank 2 of 2: each row's other neighbour, at 0, 0.5 and 0. Further off than a stranger: 0."""
    angle = np.radians([0, 60, 90])
    found = density(np.column_stack([np.cos(angle), np.sin(angle)]), share=1.0)
    assert (found.share, found.neighbourhood_rank) == (1.0, 2)
    assert found.neighbourhood_mean == pytest.approx(0.5 / 3, abs=1e-6)
    assert found.nearest_mean == pytest.approx((0.5 + np.sqrt(3)) / 3, abs=1e-6)
    assert found.closeness == 0.0


@pytest.mark.parametrize(
    ("n", "share", "rank"),
    [(2, 0.01, 1), (101, 0.01, 1), (102, 0.01, 2), (701, 0.01, 7), (101, 0.07, 7), (101, 1.0, 100), (50, 1e-9, 1)],
)
def test_neighbourhood_rank(n: int, share: float, rank: int) -> None:
    assert density(sphere(n, 5), share=share).neighbourhood_rank == rank


@pytest.mark.parametrize("n", [2, 50, 1024, 1025, 2100])
def test_exact_equals_every_pair(n: int) -> None:
    x = clustered(n, 24, seed=1) * 5
    values = every_pair(x)
    found = density(x)
    assert found.exact
    assert found.n_pairs == len(values)
    assert found.mean == pytest.approx(values.mean(), abs=1e-6)
    assert found.sd == pytest.approx(values.std(), abs=1e-6)
    if n > 2:
        for level in LEVELS:
            wanted = np.quantile(values, level, method="inverted_cdf")
            below, above = np.searchsorted(
                np.sort(values), [found.quantiles[level] - 2e-4, found.quantiles[level] + 2e-4]
            )
            assert below / len(values) <= level <= above / len(values) + 1e-12, (level, wanted)
    for limit, share in found.shares.items():
        assert share == pytest.approx((values > limit).mean(), abs=2e-6 * n)
    widths = np.diff(found.edges)
    assert float(np.dot(widths, found.density)) == pytest.approx(1.0)
    heights, _ = np.histogram(np.clip(values, -1, 1), bins=np.array(found.edges), density=True)
    assert np.abs(np.cumsum(heights * widths) - np.cumsum(np.array(found.density) * widths)).max() < 1e-3 or n == 2
    square = every_pair_matrix(x)
    assert found.nearest_mean == pytest.approx(square.max(axis=1).mean(), abs=1e-6)
    bound = np.sort(square, axis=1)[:, -found.neighbourhood_rank]
    assert found.neighbourhood_mean == pytest.approx(bound.mean(), abs=1e-6)
    assert found.neighbourhood_rank == max(1, -(-(n - 1) // 100))


def every_pair_matrix(x: np.ndarray) -> np.ndarray:
    unit = x.astype(np.float64) / np.linalg.norm(x.astype(np.float64), axis=1, keepdims=True)
    square = unit @ unit.T
    np.fill_diagonal(square, -np.inf)
    return square


def test_sample_keeps_within_its_band() -> None:
    """The band holds for all similarities at once in 95% of samples: of 40 seeds at most 7 may miss (p = 0.001)."""
    x = clustered(700, 16, seed=3)
    values = np.sort(every_pair(x))
    missed = mean_missed = 0
    for seed in range(40):
        found = density(x, max_pairs=3000, seed=seed)
        assert not found.exact
        assert found.n_pairs == 3000
        assert found.band == pytest.approx(np.sqrt(np.log(40) / 6000))
        edges = np.array(found.edges)
        drawn = np.concatenate([[0], np.cumsum(np.array(found.density) * np.diff(edges))])
        true = np.searchsorted(values, edges) / len(values)
        missed += np.abs(drawn - true).max() > found.band
        mean_missed += abs(found.mean - values.mean()) > found.mean_band
    assert missed <= 7
    assert mean_missed <= 7


def test_sampling_is_seeded_and_searches_some_rows() -> None:
    x = sphere(3000, 8)
    first = density(x, max_pairs=2000, seed=4)
    assert first == density(x, max_pairs=2000, seed=4)
    assert first != density(x, max_pairs=2000, seed=5)
    assert first.n_nearest == 500
    assert first.nearest_band == pytest.approx(np.sqrt(np.log(40) / 1000))
    square = every_pair_matrix(x)
    assert first.nearest_mean == pytest.approx(square.max(axis=1).mean(), abs=0.005)
    assert first.neighbourhood_rank == 30
    assert first.neighbourhood_mean == pytest.approx(np.sort(square, axis=1)[:, -30].mean(), abs=0.005)


def test_pairs_are_never_a_row_with_itself() -> None:
    assert density(np.eye(5), max_pairs=9, seed=1).maximum == 0.0


def test_uniform_directions_read_as_little_to_work_with() -> None:
    found = density(sphere(1500, 384))
    assert found.closeness == pytest.approx(0.12, abs=0.005)
    assert "hardly closer than strangers: coverage has little to work with" in found.reading


def test_tight_clusters_read_as_clustered() -> None:
    rng = np.random.default_rng(0)
    centres = rng.normal(size=(40, 64))
    found = density(np.repeat(centres, 20, axis=0) + 0.1 * rng.normal(size=(800, 64)))
    assert found.nearest_mean > 0.98
    assert found.neighbourhood_mean > 0.98
    assert found.reading.startswith("Clustered")
    assert 0.015 < found.shares[0.9] < 0.03


def test_noisy_clusters_are_as_close_as_two_rows_of_one() -> None:
    """Centres of variance 4 and noise of variance 1: two rows of a cluster have cosine 0.8, and closeness is that."""
    rng = np.random.default_rng(1)
    centres = 2 * rng.normal(size=(20, 384))
    found = density(centres[rng.integers(20, size=1500)] + rng.normal(size=(1500, 384)))
    assert found.closeness == pytest.approx(0.8, abs=0.02)


def test_pairs_of_twins_do_not_make_a_neighbourhood() -> None:
    """A label has to stand for 1% of the pool; one twin each does not bring that closer."""
    x = sphere(600, 384)
    found = density(np.concatenate([x, x + 0.05 * sphere(600, 384, seed=1)]))
    assert found.nearest_mean > 0.99
    assert found.closeness == pytest.approx(density(x).closeness, abs=0.01)
    assert "hardly closer" in found.reading


def test_reading_does_not_depend_on_how_many_rows_there_are() -> None:
    """The nearest row comes closer as rows are added, the nearest 1% do not."""
    rng = np.random.default_rng(2)
    x = sphere(4000, 20, seed=2) @ rng.normal(size=(20, 96)) + 0.5 * rng.normal(size=(4000, 96))
    part, whole = density(x[:500]), density(x)
    assert whole.nearest_mean > part.nearest_mean + 0.05
    assert whole.closeness == pytest.approx(part.closeness, abs=0.015)
    assert whole.reading == part.reading


def test_a_larger_share_lies_further_off() -> None:
    x = clustered(900, 24)
    found = [density(x, share=share).neighbourhood_mean for share in (0.001, 0.01, 0.1, 0.5, 1.0)]
    assert found == sorted(found, reverse=True)
    assert found[0] == density(x).nearest_mean


def test_a_shift_that_all_rows_share_does_not_change_the_reading() -> None:
    """Uncentred embeddings of language models have all cosines near 1; closeness is relative to that."""
    x = sphere(800, 64)
    x /= np.linalg.norm(x, axis=1, keepdims=True)
    narrow = density(x + 5.0)
    assert narrow.mean > 0.99
    assert narrow.closeness == pytest.approx(density(x).closeness, abs=0.05)


def test_all_equal() -> None:
    found = density(np.tile([[0.3, -0.2, 0.5]], (30, 1)).astype(np.float32))
    assert found.reading.startswith("All rows are equal")
    assert found.mean == pytest.approx(1.0)
    assert found.sd == pytest.approx(0.0, abs=1e-6)
    assert found.closeness == 0.0
    assert found.shares[0.95] == 1.0


def test_duplicates_are_neighbours() -> None:
    x = sphere(200, 64)
    found = density(np.concatenate([x, x]))
    assert found.nearest_mean == pytest.approx(1.0)
    assert found.neighbourhood_mean < 0.5, "one copy is a quarter of the nearest 1%"
    assert density(np.concatenate([x[:50]] * 6)).closeness == pytest.approx(1.0, abs=1e-6), "five copies are all of it"


def test_two_rows() -> None:
    found = density([[1.0, 0.0], [0.0, 2.0]])
    assert (found.n_pairs, found.mean, found.sd, found.nearest_mean, found.closeness) == (1, 0.0, 0.0, 0.0, 0.0)
    assert all(value == 0.0 for value in found.quantiles.values())


def test_bad_input() -> None:
    with pytest.raises(EmbeddingError, match="1 row has no pair"):
        density([[1.0, 2.0]])
    with pytest.raises(EmbeddingError, match="zero vector"):
        density([[1.0, 2.0], [0.0, 0.0]])
    with pytest.raises(ParameterError, match="max_pairs=0"):
        density(sphere(5, 3), max_pairs=0)
    with pytest.raises(ParameterError, match="no cosine"):
        density(sphere(5, 3), thresholds=(1.5,))
    for share in (0.0, -0.1, 1.01, float("nan")):
        with pytest.raises(ParameterError, match=f"share={share} is no share"):
            density(sphere(5, 3), share=share)


@pytest.mark.parametrize("max_pairs", [100, 10_000])
def test_record_round_trip(max_pairs: int) -> None:
    found = density(clustered(60, 8), max_pairs=max_pairs)
    record = json.loads(json.dumps(found.to_dict(), allow_nan=False))
    assert Density.from_dict(record) == found
    del record["mean"]
    with pytest.raises(DataError, match="'mean'"):
        Density.from_dict(record)


def test_input_is_not_modified() -> None:
    x = sphere(40, 6) * 3
    before = x.copy()
    density(x)
    assert np.array_equal(x, before)
