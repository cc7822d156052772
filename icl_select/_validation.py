"""Checks at the public edge. Private loops assume that they have passed."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np

from icl_select.errors import BudgetError, EmbeddingError, GivenError, ParameterError
from icl_select.types import FloatArray, IntArray

__all__ = [
    "check_budget",
    "check_directions",
    "check_embeddings",
    "check_given",
    "check_int",
    "check_rng",
    "is_number",
    "unit_rows",
]

# Rows handled at a time: bounds the float64 temporary to tens of megabytes for any n.
_BLOCK = 16_384


def check_embeddings(x: Any, *, name: str = "x") -> FloatArray:
    """Return `x` as a C-contiguous (n, d) float32 or float64 array without copying where it already is one.

    Float16 and integer input becomes float32. Raises EmbeddingError if the array is not 2-D, is empty, or
    holds NaN or infinity. O(nd) time.
    """
    try:
        array = np.asarray(x)
    except (TypeError, ValueError, RuntimeError) as exc:  # RuntimeError: a tensor that needs a gradient
        raise EmbeddingError(f"{name} cannot be read as an array ({exc}). Pass an (n, d) float array.") from exc
    if array.ndim != 2:
        raise EmbeddingError(
            f"{name} has shape {array.shape}, but embeddings are 2-D: one row per pool example. Pass an (n, d) array."
        )
    if array.shape[0] == 0:
        raise EmbeddingError(f"{name} is empty: a pool of 0 rows has nothing to select. Pass at least one row.")
    if array.shape[1] == 0:
        raise EmbeddingError(f"{name} has shape {array.shape}: rows of dimension 0 carry nothing. Embed again.")
    if array.dtype.kind not in "fiu":
        raise EmbeddingError(f"{name} has dtype {array.dtype}, but embeddings are real numbers. Pass float32.")
    if array.dtype not in (np.float32, np.float64):
        array = array.astype(np.float32)
    array = np.ascontiguousarray(array)
    for start in range(0, len(array), _BLOCK):
        finite = np.isfinite(array[start : start + _BLOCK]).all(axis=1)
        if not finite.all():
            row = start + int(np.argmin(finite))
            raise EmbeddingError(
                f"row {row} of {name} holds NaN or infinity. Embed that text again, or leave it out of the pool."
            )
    return array


def unit_rows(x: FloatArray, *, name: str = "x") -> FloatArray:
    """Return a copy of `x` with rows of unit Euclidean norm, in the dtype of `x`.

    Norms are taken in float64 after scaling by the largest entry, so that very small and very large rows
    keep their direction. Raises EmbeddingError for zero rows.
    """
    out = np.empty_like(x)
    for start in range(0, len(x), _BLOCK):
        block = x[start : start + _BLOCK].astype(np.float64)
        peak = np.abs(block).max(axis=1, keepdims=True)
        _check_peaks(peak[:, 0], start, name)
        block /= peak
        out[start : start + _BLOCK] = block / np.sqrt(np.einsum("ij,ij->i", block, block))[:, None]
    return out


def check_directions(x: FloatArray, *, name: str = "x") -> None:
    """Raise EmbeddingError for zero rows, as :func:`unit_rows` does, without a copy of `x`."""
    for start in range(0, len(x), _BLOCK):
        _check_peaks(np.abs(x[start : start + _BLOCK]).max(axis=1), start, name)


def _check_peaks(peaks: FloatArray, start: int, name: str) -> None:
    if not (peaks > 0).all():
        row = start + int(np.argmin(peaks))
        raise EmbeddingError(
            f"row {row} of {name} is a zero vector, which has no direction. Leave that text out of the pool, "
            "or check the encoder (after centring, a text equal to the pool mean gives a zero row)."
        )


def is_number(value: Any) -> bool:
    """Say whether `value` is a real number of Python or numpy; booleans are not."""
    return isinstance(value, (int, float, np.integer, np.floating)) and not isinstance(value, bool)


def check_int(value: Any, *, name: str, low: int) -> int:
    """Return `value` as an int of at least `low`; booleans and fractions are refused."""
    if isinstance(value, (bool, np.bool_)) or not isinstance(value, (int, np.integer)):
        raise ParameterError(f"{name}={value!r} is not a whole number. Pass an integer of at least {low}.")
    if value < low:
        raise ParameterError(f"{name}={value} is below {low}. Pass an integer of at least {low}.")
    return int(value)


def check_given(given: Any, n: int) -> IntArray:
    """Return `given` as a (g,) int64 array of distinct pool indices.

    Raises GivenError for fractions, repeats, and indices outside ``0 <= i < n`` (negative ones too: they
    are nearly always a mistake in bookkeeping).
    """
    items: list[Any] = list(given) if isinstance(given, Iterable) else [given]
    if not items:
        return np.empty(0, dtype=np.int64)
    array = np.asarray(items)
    if array.ndim != 1 or array.dtype.kind not in "iu":
        raise GivenError(
            f"given has dtype {array.dtype} and shape {array.shape}, but it lists the pool indices already "
            "labelled. Pass a 1-D sequence of integers."
        )
    outside = (array < 0) | (array >= n)
    if outside.any():
        raise GivenError(
            f"given holds {int(array[np.argmax(outside)])}, which is no index into a pool of {n} rows. "
            f"Pass indices from 0 to {n - 1}."
        )
    array = array.astype(np.int64)
    values, counts = np.unique(array, return_counts=True)
    if (counts > 1).any():
        raise GivenError(f"given lists index {int(values[np.argmax(counts > 1)])} more than once. Pass each once.")
    return array


def check_budget(budget: Any, n: int, n_given: int) -> int:
    """Return `budget` as an int with ``1 <= budget <= n - n_given``, or raise BudgetError."""
    if isinstance(budget, (bool, np.bool_)) or not isinstance(budget, (int, np.integer)):
        raise BudgetError(f"budget={budget!r} is not a whole number of labels. Pass an integer of at least 1.")
    free = n - n_given
    if budget < 1:
        way = f"Pass an integer from 1 to {free}." if free else f"All {n} rows are labelled: pass a larger pool."
        raise BudgetError(f"budget={budget} picks nothing. {way}")
    if budget > free:
        raise BudgetError(
            f"budget={budget} exceeds the {free} rows that can still be picked (pool of {n}, {n_given} already "
            f"labelled). " + (f"Pass budget <= {free}, or a larger pool." if free else "Pass a larger pool.")
        )
    return int(budget)


def check_rng(seed: Any) -> np.random.Generator:
    """Return the Generator for `seed`: a Generator itself, or a non-negative integer."""
    if isinstance(seed, np.random.Generator):
        return seed
    return np.random.default_rng(check_int(seed, name="seed", low=0))
