"""Kernels as functions of the cosine, and the bandwidth rules."""

from __future__ import annotations

import numpy as np
import pytest
from reference.pools import clustered

from icl_select.errors import EmbeddingError, ParameterError
from icl_select.kernels import KERNELS, Kernel, median_distance, smallest_distance
from icl_select.methods._screen import FULL, Screen


def test_values_by_hand() -> None:
    """At cos = 0.5 the distance is 1, so d / h = 1 / 2 for h = 2."""
    half = np.array([0.5])
    assert Kernel("gaussian", 2.0)(half)[0] == pytest.approx(np.exp(-0.25), rel=1e-15)
    assert Kernel("laplace", 2.0)(half)[0] == pytest.approx(np.exp(-0.5), rel=1e-15)
    assert Kernel("cauchy", 2.0)(half)[0] == pytest.approx(0.8, rel=1e-15)
    assert Kernel("rational", 2.0)(half)[0] == pytest.approx(2 / 3, rel=1e-15)
    assert Kernel("student_t", 2.0)(half)[0] == pytest.approx(1.5**-0.75, rel=1e-15)
    assert Kernel("cosine")(half)[0] == pytest.approx(0.75, rel=1e-15)
    assert Kernel("top-hat", 1.0)(np.array([0.5, 0.500001])).tolist() == [0.0, 1.0], "strictly inside"


@pytest.mark.parametrize("name", KERNELS)
def test_every_kernel_is_one_at_zero_and_never_rises_with_distance(name: str) -> None:
    kernel = Kernel(name)
    cosines = np.linspace(-1, 1, 1001)
    values = kernel(cosines)
    assert (np.diff(values) >= 0).all()
    assert values[-1] == 1.0
    assert kernel(np.array([1.0 + 1e-12, 1.0 - 1e-15])).tolist() == [1.0, 1.0]
    assert ((values >= 0) & (values <= 1)).all()
    assert kernel(cosines.reshape(7, 143)).shape == (7, 143)


@pytest.mark.parametrize("name", KERNELS)
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_screen_holds_tight_bounds(name: str, dtype: type) -> None:
    x = clustered(1100, 48, seed=6).astype(dtype)
    unit = x.astype(np.float64)
    inverse = 1 / np.linalg.norm(unit, axis=1)
    unit *= inverse[:, None]
    screen = Screen(x, inverse, Kernel(name))
    bounds = screen.matrix()
    values = Kernel(name)(unit @ unit.T)
    assert 0 <= screen.base <= values.min()
    exact = (values - screen.base) / (1 - screen.base) * FULL
    assert (bounds >= exact - 1e-6).all()
    inside = (
        np.abs(np.sqrt(np.clip(2 - 2 * unit @ unit.T, 0, None)) - 1.0) > 1e-3 if name == "top_hat" else exact < FULL
    )
    assert np.median((bounds - exact)[inside]) < 8
    assert (screen.rows(np.array([3, 700])) >= exact[[3, 700]] - 1e-6).all()
    floors = screen.rows(np.arange(1100), lower=True)
    assert (floors <= exact + 1e-6).all()
    assert np.median((exact - floors)[inside]) < 8
    low = np.random.default_rng(0).integers(0, FULL, size=1100).astype(np.int32)
    units = np.random.default_rng(1).integers(0, 9, size=1100).astype(np.int32)
    sums = screen.column_sums(low, units)
    whole = (np.maximum(bounds.astype(np.int64) - low, 0) * units).sum(axis=1)
    np.testing.assert_allclose(sums, whole, rtol=1e-3)


def test_unknown_names_and_values() -> None:
    with pytest.raises(ParameterError, match="Did you mean 'laplace'"):
        Kernel("laplase")
    with pytest.raises(ParameterError, match="Pass a finite number above 0"):
        Kernel("gaussian", -1.0)
    with pytest.raises(ParameterError, match="Pass at least 1e-100"):
        Kernel("gaussian", 1e-200)  # its square is 0
    for name in ("gaussian", "top_hat", "laplace", "cauchy", "student_t", "rational"):
        for bandwidth in (1e-100, 1e300):
            assert np.isfinite(Kernel(name, bandwidth)(np.array([-1.0, 0.5, 1 - 1e-12, 1.0]))).all()
    assert repr(Kernel("top-hat", 0.5)) == "Kernel('top_hat', bandwidth=0.5)"


def test_median_distance() -> None:
    """Two orthogonal groups of equal size: half of the pairs are sqrt(2) apart; three groups: two thirds."""
    groups = np.repeat(np.eye(3), 40, axis=0)
    assert median_distance(groups, rng=np.random.default_rng(0)) == pytest.approx(np.sqrt(2))
    assert median_distance(np.ones((5, 1)), rng=np.random.default_rng(0)) == 0.0
    x = clustered(200, 16)
    every = np.sqrt(2 - 2 * (x.astype(float) @ x.T.astype(float))[np.triu_indices(200, 1)])
    assert median_distance(x, rng=np.random.default_rng(0)) == pytest.approx(np.median(every), rel=0.01)
    with pytest.raises(EmbeddingError, match="at least two rows"):
        median_distance(x[:1], rng=np.random.default_rng(0))


def test_smallest_distance_skips_equal_rows() -> None:
    x = np.array([[1.0, 0.0], [1.0, 0.0], [0.0, 1.0], [0.6, 0.8]])
    assert smallest_distance(x, np.array([0, 1, 2, 3])) == pytest.approx(np.sqrt(0.4))
    assert smallest_distance(x, np.array([0, 2])) == pytest.approx(np.sqrt(2))
    with pytest.raises(ParameterError, match="two labelled rows that differ"):
        smallest_distance(x, np.array([0, 1]))
