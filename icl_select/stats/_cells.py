"""Per-item values of several draws as flat arrays: the form that all estimators here work on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from icl_select.errors import StatisticsError
from icl_select.stats._evidence import finite_vector
from icl_select.types import FloatArray, IntArray

__all__ = ["Cells", "make_cells"]


@dataclass(frozen=True, slots=True, eq=False)
class Cells:
    """Values x[r, i] of item i in draw r, for the items that draw r holds.

    Attributes
    ----------
    values : tuple of ndarray
        One float64 vector per draw.
    columns : tuple of ndarray or None
        For each draw the column (0 <= column < n_distinct) of each of its values; None if every value is an
        item of its own.
    n_distinct : int
        Distinct items over all draws.
    """

    values: tuple[FloatArray, ...]
    columns: tuple[IntArray, ...] | None
    n_distinct: int

    @property
    def n_draws(self) -> int:
        return len(self.values)

    @property
    def sizes(self) -> IntArray:
        return np.array([len(v) for v in self.values], dtype=np.int64)

    @property
    def means(self) -> FloatArray:
        return np.array([v.mean() for v in self.values])

    def dense(self, values: Sequence[FloatArray]) -> FloatArray:
        """Spread one vector per draw over an (n_draws, n_distinct) matrix, 0 where a draw lacks the item."""
        assert self.columns is not None
        matrix = np.zeros((self.n_draws, self.n_distinct))
        for row, (column, value) in enumerate(zip(self.columns, values, strict=True)):
            matrix[row, column] = value
        return matrix

    @property
    def share(self) -> float:
        """Share of the items of one draw that another draw holds too, mean over pairs (0 if no item recurs)."""
        if self.columns is None or self.n_draws < 2:
            return 0.0
        weights = self.dense([np.full(len(v), 1.0 / len(v)) for v in self.values])
        common = weights @ weights.T  # shared items / (m_r m_s)
        pairs = self.n_draws * (self.n_draws - 1)
        share = float((common.sum() - np.trace(common)) / pairs * self.sizes.mean())
        return min(share, 1.0)  # rounding, and draws of unequal size, may carry it past 1


def make_cells(values: Sequence[Any], item_ids: Sequence[Any] | None, *, name: str) -> Cells:
    """Check the values and ids of every draw and number the distinct items."""
    if len(values) == 0:
        raise StatisticsError(f"{name} holds no draws. Pass one vector of per-item values for each draw.")
    vectors = tuple(finite_vector(v, name=f"draw {r} of {name}") for r, v in enumerate(values))
    if item_ids is None:
        return Cells(vectors, None, sum(len(v) for v in vectors))
    if len(item_ids) != len(vectors):
        raise StatisticsError(f"item_ids lists {len(item_ids)} draws, but {name} has {len(vectors)}.")
    codes: dict[Any, int] = {}
    columns = []
    for r, (ids, vector) in enumerate(zip(item_ids, vectors, strict=True)):
        listed = ids.tolist() if isinstance(ids, np.ndarray) else list(ids)
        if len(listed) != len(vector):
            raise StatisticsError(f"draw {r} of {name} has {len(vector)} values but {len(listed)} item ids.")
        column = np.array([codes.setdefault(item, len(codes)) for item in listed], dtype=np.int64)
        if len(np.unique(column)) < len(column):
            raise StatisticsError(f"draw {r} lists an item id twice. Score each item once per draw.")
        columns.append(column)
    if len(codes) == sum(len(v) for v in vectors):
        return Cells(vectors, None, len(codes))  # no item recurs
    return Cells(vectors, tuple(columns), len(codes))
