"""What every result of this package shares: it can be written as JSON with all of its evidence."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import numpy as np

from icl_select.errors import StatisticsError
from icl_select.types import FloatArray

__all__ = ["Evidence", "check_level", "check_positive", "finite_vector"]


@dataclasses.dataclass(frozen=True)
class Evidence:
    """Base of the frozen results: `to_dict` gives JSON values only (numbers that are not finite become None)."""

    def to_dict(self) -> dict[str, Any]:
        """Return every field as JSON values, nested results as nested dicts."""
        return {field.name: _plain(getattr(self, field.name)) for field in dataclasses.fields(self)}


def _plain(value: Any) -> Any:
    if isinstance(value, Evidence):
        return value.to_dict()
    if isinstance(value, (tuple, list)):
        return [_plain(item) for item in value]
    if isinstance(value, np.ndarray):
        return _plain(value.tolist())
    if isinstance(value, np.generic):
        return _plain(value.item())
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value


def finite_vector(values: Any, *, name: str) -> FloatArray:
    """Return `values` as a non-empty float64 vector, or raise StatisticsError."""
    try:
        array = np.asarray(values, dtype=np.float64)
    except (TypeError, ValueError) as exc:
        raise StatisticsError(f"{name} cannot be read as numbers ({exc}). Pass a sequence of floats.") from exc
    if array.ndim != 1:
        raise StatisticsError(f"{name} has shape {array.shape}, but it must be a flat sequence of numbers.")
    if array.size == 0:
        raise StatisticsError(f"{name} is empty: there is nothing to test. Pass at least one number.")
    if not np.isfinite(array).all():
        at = int(np.argmin(np.isfinite(array)))
        raise StatisticsError(
            f"{name} holds {array[at]} at position {at}. Score a missing prediction as 0 (and count it); never as NaN."
        )
    return array


def check_level(value: float, *, name: str) -> float:
    """Return `value` if it lies strictly between 0 and 1, or raise StatisticsError."""
    if not 0.0 < value < 1.0:
        raise StatisticsError(f"{name}={value!r} is no probability strictly between 0 and 1. Pass for example 0.05.")
    return float(value)


def check_positive(value: int, *, name: str) -> int:
    """Return `value` if it is a whole number of at least 1, or raise StatisticsError."""
    if isinstance(value, (bool, np.bool_)) or not isinstance(value, (int, np.integer)) or value < 1:
        raise StatisticsError(f"{name}={value!r} is not a whole number of at least 1. Pass {name}=1 or more.")
    return int(value)
