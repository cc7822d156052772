"""Nearest neighbours as one reads them: every pair in float64, sorted by (similarity, index)."""

from __future__ import annotations

import math

import numpy as np


def knn(x: np.ndarray, k: int) -> list[list[int]]:
    """Return the k most similar other rows of every row, most similar first, ties to the lower index."""
    rows = x.astype(np.float64)
    answer = []
    for i in range(len(rows)):
        # fsum is exact up to one rounding: equal rows give equal similarities.
        similarity = [math.fsum(rows[i] * rows[j]) for j in range(len(rows))]
        others = [j for j in range(len(rows)) if j != i]
        answer.append(sorted(others, key=lambda j: (-similarity[j], j))[:k])
    return answer


def knn_matrix(x: np.ndarray, k: int) -> np.ndarray:
    """The same from one float64 matrix, for pools without duplicates."""
    rows = x.astype(np.float64)
    similarity = rows @ rows.T
    np.fill_diagonal(similarity, -np.inf)
    return np.argsort(-similarity, axis=1, kind="stable")[:, :k]
