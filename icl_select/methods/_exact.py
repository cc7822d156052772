"""Exact kernel values on an integer grid, and what the picks so far cover.

A value is computed in float64 in one fixed order and rounded to a multiple of a power of two that is fine
enough to lose nothing that matters and coarse enough that a sum over the pool is exact in 64-bit integers.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numba
import numpy as np
import numpy.typing as npt

from icl_select.errors import ParameterError
from icl_select.kernels import Kernel, kernel_value
from icl_select.methods._screen import FULL
from icl_select.types import FloatArray, IntArray

__all__ = [
    "Points",
    "State",
    "buffers",
    "cover",
    "cover_some",
    "dot",
    "exact_gain",
    "exact_gain_some",
    "from_grid",
    "inverse_norms",
    "make_points",
    "next_candidate",
    "on_grid",
    "similarity",
    "start_state",
    "to_grid",
]

# Weights are bounded from above in steps of 1/256 of the largest weight.
_WEIGHT_STEPS = 256
_INT32_SUM = (2**31 - 1) // FULL


class Points(NamedTuple):
    """What an exact value is computed from."""

    x: Any
    inverse: Any  # (n,) one over the norm
    weight: Any  # (n,) at most 1
    base: float  # kernel value that is 0 on the grid
    grid: float  # grid steps from there to 1, a power of two
    code: int
    bandwidth: float


class State(NamedTuple):
    """What the picks so far cover, and what is known of every candidate."""

    low: Any  # (n,) int32, floor of 65535 times the coverage of a row
    cover: Any  # (n,) int64, coverage of a row in grid steps
    units: Any  # (n,) int32, bound of the weight of a row
    lazy: Any  # (n,) bound from the last exact gain, in the unit of the screened gains; -1 once picked or given
    seen: Any  # (n,) int64, step of the last exact gain
    per_one: int  # screened gain of one fully covered row of full weight
    bits: int  # grid = 2^bits
    pad: int  # grid steps by which rounded weights may exceed their bound, for the whole sum


def inverse_norms(x: FloatArray) -> FloatArray:
    """One over the norm of each row, in float64."""
    out = np.empty(len(x))
    _inverse_norms(x, out)
    return out


def make_points(
    x: FloatArray, inverse: FloatArray, kernel: Kernel, base: float, weights: FloatArray | None
) -> tuple[Points, float]:
    """Collect what exact values need; returns also the largest weight, by which all are divided."""
    n = len(x)
    if weights is None:
        weight, scale, steps = np.ones(n), 1.0, 1
    else:
        weight = np.array(weights, dtype=np.float64)
        if weight.shape != (n,) or not np.isfinite(weight).all() or (weight < 0).any():
            raise ParameterError(f"weights must be {n} finite numbers from 0 up, one per row of the pool.")
        scale, steps = float(weight.max()) or 1.0, _WEIGHT_STEPS
        weight /= scale
    bits = min(62 - n.bit_length(), 62 - (FULL * steps).bit_length())
    return Points(x, inverse, weight, base, float(1 << bits), kernel.code, kernel.bandwidth), scale


def start_state(n: int, points: Points, given: IntArray, *, weighted: bool) -> State:
    bits = int(points.grid).bit_length() - 1
    used = points.weight > 0
    steps = _WEIGHT_STEPS if weighted else 1
    units = np.ones(n, dtype=np.int32)
    if weighted:
        units = np.where(used, np.minimum(np.floor(points.weight * steps) + 1, steps), 0).astype(np.int32)
    dtype = np.int32 if int(units.sum(dtype=np.int64)) <= _INT32_SUM else np.int64
    lazy = np.full(n, np.iinfo(dtype).max, dtype=dtype)
    lazy[given] = -1
    return State(
        low=np.where(used, 0, FULL).astype(np.int32),
        cover=np.where(used, 0, 1 << bits).astype(np.int64),
        units=units,
        lazy=lazy,
        seen=np.full(n, -1, dtype=np.int64),
        per_one=FULL * steps,
        bits=bits,
        pad=n if weighted else 0,
    )


@numba.njit(cache=True, nogil=True, fastmath={"reassoc", "contract"})
def dot(a: Any, b: Any) -> float:
    """Dot product in float64, in an order that depends on the length alone: the same bits for (a, b) and (b, a)."""
    total = 0.0
    for k in range(a.size):
        total += np.float64(a[k]) * np.float64(b[k])
    return total


@numba.njit(cache=True, nogil=True)
def _inverse_norms(x: Any, out: Any) -> None:
    for i in range(x.shape[0]):
        out[i] = 1.0 / np.sqrt(dot(x[i], x[i]))


@numba.njit(cache=True, nogil=True)
def similarity(points: Any, i: int, j: int) -> float:
    """The kernel of two rows in float64: no other row has a say in it, as it has in the grid."""
    cosine = dot(points.x[i], points.x[j]) * (points.inverse[i] * points.inverse[j])
    return kernel_value(cosine, points.code, points.bandwidth)  # type: ignore[no-any-return]


@numba.njit(cache=True, nogil=True)
def on_grid(points: Any, value: float) -> Any:
    """A kernel value in grid steps."""
    stretched = (value - points.base) / (1.0 - points.base)
    return np.int64(np.rint(max(stretched, 0.0) * points.grid))


@numba.njit(cache=True, nogil=True)
def _value(points: Any, i: int, j: int) -> Any:
    return on_grid(points, similarity(points, i, j))


@numba.njit(cache=True, nogil=True)
def _rise(points: Any, state: Any, candidate: int, i: int) -> Any:
    """What a candidate adds to the coverage of one row."""
    value = _value(points, candidate, i)
    if value <= state.cover[i]:
        return np.int64(0)
    weight = points.weight[i]
    return np.int64(np.rint(weight * value)) - np.int64(np.rint(weight * state.cover[i]))


@numba.njit(cache=True, nogil=True)
def exact_gain(points: Any, state: Any, candidate: int, row: Any) -> Any:
    total = np.int64(0)
    for i in range(row.size):
        if row[i] > state.low[i]:
            total += _rise(points, state, candidate, i)
    return total


@numba.njit(cache=True, nogil=True)
def cover(points: Any, state: Any, pick: int, row: Any, changed: Any, before: Any) -> int:
    """Let `pick` cover the rows; lists those whose screened coverage rose, with what it was."""
    count = 0
    for i in range(row.size):
        if row[i] > state.low[i]:
            value = _value(points, pick, i)
            if value > state.cover[i]:
                state.cover[i] = value
                low = np.int32((value * FULL) >> state.bits)
                if low > state.low[i]:
                    changed[count] = i
                    before[count] = state.low[i]
                    state.low[i] = low
                    count += 1
    return count


@numba.njit(cache=True, nogil=True)
def exact_gain_some(points: Any, state: Any, candidate: int, rows: Any, bounds: Any) -> Any:
    """As :func:`exact_gain`, where all rows that the candidate may cover better are listed."""
    total = np.int64(0)
    for t in range(rows.size):
        i = rows[t]
        if bounds[t] > state.low[i]:
            total += _rise(points, state, candidate, i)
    return total


@numba.njit(cache=True, nogil=True)
def cover_some(points: Any, state: Any, pick: int, rows: Any, bounds: Any) -> None:
    """As :func:`cover`, where all rows that the pick may cover better are listed."""
    for t in range(rows.size):
        i = rows[t]
        if bounds[t] > state.low[i]:
            value = _value(points, pick, i)
            if value > state.cover[i]:
                state.cover[i] = value
                state.low[i] = max(state.low[i], np.int32((value * FULL) >> state.bits))


@numba.njit(cache=True, nogil=True)
def to_grid(screened: int, state: Any) -> Any:
    """The largest exact gain that a screened gain allows."""
    if screened == 0:
        return 0
    whole, rest = divmod(np.int64(screened), np.int64(state.per_one))
    return (whole << state.bits) + (rest << state.bits) // state.per_one + state.pad


@numba.njit(cache=True, nogil=True)
def from_grid(gain: int, state: Any) -> Any:
    """The smallest screened gain that allows an exact gain."""
    mask = (np.int64(1) << state.bits) - 1
    return (gain >> state.bits) * state.per_one + (((gain & mask) * state.per_one + mask) >> state.bits)


@numba.njit(cache=True, nogil=True)
def next_candidate(state: Any, screened: Any, step: int, best: int, winner: int) -> int:
    """The row with the largest bound among those not evaluated in this step, or -1 if none can win."""
    top, found = screened[0] * 0 - 1, -1
    for c in range(screened.size):
        bound = min(screened[c], state.lazy[c])
        if bound > top and state.seen[c] != step:
            top, found = bound, c
    if found < 0:
        return -1
    limit = to_grid(top, state)
    return -1 if limit < best or (limit == best and found > winner) else found


def buffers(n: int) -> tuple[IntArray, npt.NDArray[np.int32]]:
    """Room for what :func:`cover` lists."""
    return np.empty(n, dtype=np.int64), np.empty(n, dtype=np.int32)
