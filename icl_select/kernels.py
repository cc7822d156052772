"""Kernels as functions of the cosine of two rows, and rules that choose their bandwidth.

Every kernel is 1 at distance 0 and never rises with the distance ``d = sqrt(2 - 2 cos)`` of two unit rows.
With bandwidth ``h``:

===============  ==========================================================================
``gaussian``     ``exp(-d^2 / h^2)``; no factor 1/2, so ``exp(-2 (1 - cos) / h^2)``
``top_hat``      1 where ``d < h``, else 0
``laplace``      ``exp(-d / h)``
``cauchy``       ``1 / (1 + d^2 / h^2)``
``student_t``    ``(1 + d^2 / (b h^2))^(-(b + 1) / 2)`` with ``b = 0.5`` degrees of freedom
``rational``     ``1 / (1 + d / h)``
``cosine``       ``(1 + cos) / 2``; has no bandwidth
===============  ==========================================================================
"""

from __future__ import annotations

import math

import numba
import numpy as np

from icl_select._validation import check_int, is_number
from icl_select.errors import EmbeddingError, ParameterError, suggest
from icl_select.types import FloatArray, IntArray

__all__ = ["KERNELS", "Kernel", "kernel_values", "median_distance", "smallest_distance"]

KERNELS = ("gaussian", "top_hat", "laplace", "cauchy", "student_t", "rational", "cosine")
_GAUSSIAN, _TOP_HAT, _LAPLACE, _CAUCHY, _STUDENT_T, _RATIONAL, _COSINE = range(len(KERNELS))

# A float64 dot product of unit rows resolves 1 - cos no finer than this; below it two rows are one.
_RESOLUTION = 4e-14
_DEGREES = 0.5
# Its square is still far from 0 in float64.
_NARROWEST = 1e-100


class Kernel:
    """A kernel with its bandwidth, checked.

    Parameters
    ----------
    name : str
        One of :data:`KERNELS`; a hyphen may stand for the underscore.
    bandwidth : float, default=1.0
        The distance scale ``h > 0``. ``cosine`` has none and accepts 1.0 only.

    Raises
    ------
    ParameterError
        If no kernel has that name, or the bandwidth is not a finite number above 0.

    Examples
    --------
    >>> kernel = Kernel("gaussian", bandwidth=1.0)
    >>> kernel(np.array([1.0, 0.5, 0.0])).round(3).tolist()
    [1.0, 0.368, 0.135]
    """

    __slots__ = ("bandwidth", "code", "name")

    def __init__(self, name: str, bandwidth: float = 1.0) -> None:
        self.name = str(name).replace("-", "_")
        if self.name not in KERNELS:
            raise ParameterError(f"unknown kernel {name!r}.{suggest(self.name, KERNELS)}")
        if not is_number(bandwidth) or not math.isfinite(bandwidth) or bandwidth <= 0:
            raise ParameterError(f"bandwidth={bandwidth!r} is no distance. Pass a finite number above 0, such as 1.0.")
        if bandwidth < _NARROWEST:
            raise ParameterError(
                f"bandwidth={bandwidth!r} is below every distance of two rows. Pass at least {_NARROWEST}, such as 1.0."
            )
        if self.name == "cosine" and bandwidth != 1:
            raise ParameterError(f"bandwidth={bandwidth} has no effect on kernel='cosine'. Leave it out.")
        self.bandwidth = float(bandwidth)
        self.code = KERNELS.index(self.name)

    def __call__(self, cosine: FloatArray) -> FloatArray:
        """Kernel values of an array of cosines, in float64; cosines above 1 count as 1."""
        return kernel_values(np.asarray(cosine, dtype=np.float64), self.code, self.bandwidth)

    def __repr__(self) -> str:
        return f"Kernel({self.name!r}, bandwidth={self.bandwidth!r})"


@numba.njit(cache=True, nogil=True)
def kernel_value(cosine: float, code: int, bandwidth: float) -> float:
    """The kernel with number `code` at one cosine; compiled, for the loops of the methods."""
    gap = 1.0 - cosine
    if gap < _RESOLUTION:
        return 1.0
    if code == _COSINE:
        return max(0.0, 1.0 - 0.5 * gap)
    square = 2.0 * gap
    if code == _GAUSSIAN:
        return math.exp(-square / (bandwidth * bandwidth))
    if code == _CAUCHY:
        return 1.0 / (1.0 + square / (bandwidth * bandwidth))
    if code == _STUDENT_T:
        return float((1.0 + square / (_DEGREES * bandwidth * bandwidth)) ** (-0.5 * (_DEGREES + 1.0)))
    distance = math.sqrt(square)
    if code == _TOP_HAT:
        return 1.0 if distance < bandwidth else 0.0
    if code == _LAPLACE:
        return math.exp(-distance / bandwidth)
    return 1.0 / (1.0 + distance / bandwidth)


@numba.njit(cache=True, nogil=True)
def _fill(cosines: FloatArray, code: int, bandwidth: float, out: FloatArray) -> None:
    for i in range(cosines.size):
        out[i] = kernel_value(cosines[i], code, bandwidth)


def kernel_values(cosines: FloatArray, code: int, bandwidth: float) -> FloatArray:
    """Kernel number `code` at every entry of a float64 array of cosines."""
    out = np.empty(cosines.shape, dtype=np.float64)
    _fill(np.ascontiguousarray(cosines).ravel(), code, bandwidth, out.reshape(-1))
    return out


def median_distance(x: FloatArray, *, rng: np.random.Generator, max_pairs: int = 200_000) -> float:
    """Median distance between two different rows, the usual first guess of a bandwidth.

    Parameters
    ----------
    x : ndarray of shape (n, d)
        Unit rows, ``n >= 2``.
    rng : numpy.random.Generator
        Draws the pairs, with replacement.
    max_pairs : int, default=200_000
        Number of pairs drawn.

    Returns
    -------
    float
        The median of ``sqrt(2 - 2 cos)``; 0.0 if most rows are equal.
    """
    check_int(max_pairs, name="max_pairs", low=1)
    n = len(x)
    if n < 2:
        raise EmbeddingError("a single row has no distance to another. Pass at least two rows.")
    left = rng.integers(n, size=max_pairs)
    right = (left + rng.integers(1, n, size=max_pairs)) % n
    cosines = np.empty(max_pairs)
    for start in range(0, max_pairs, 8192):
        part = slice(start, start + 8192)
        cosines[part] = np.einsum("ij,ij->i", x[left[part]], x[right[part]], dtype=np.float64)
    return float(np.median(_distances(cosines)))


def smallest_distance(x: FloatArray, rows: IntArray) -> float:
    """Smallest distance above 0 between any two of `rows`: the published adaptive radius of labelled points.

    Raises ParameterError if fewer than two of the rows differ.
    """
    part = x[rows].astype(np.float64)
    distances = _distances(part @ part.T)[np.triu_indices(len(part), 1)]
    apart = distances[distances > 0]
    if not apart.size:
        raise ParameterError("an adaptive bandwidth needs two labelled rows that differ. Pass a fixed bandwidth.")
    return float(apart.min())


def _distances(cosines: FloatArray) -> FloatArray:
    gap = 1.0 - cosines
    gap[gap < _RESOLUTION] = 0.0
    gap *= 2.0
    distances: FloatArray = np.sqrt(gap, out=gap)
    return distances
