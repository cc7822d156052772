"""Sub-SA from its objective, with the n x n matrix and F computed anew for every candidate."""

from __future__ import annotations

import numpy as np


def shifted(x: np.ndarray) -> np.ndarray:
    rows = x.astype(np.float64)
    rows = rows / np.linalg.norm(rows, axis=1, keepdims=True)
    return 0.5 + 0.5 * rows @ rows.T


def objective(s: np.ndarray, picked: list[int], lam: float = 1.0) -> float:
    return float(lam * s[:, picked].sum() - s[np.ix_(picked, picked)].sum())


def greedy(s: np.ndarray, budget: int, given: list[int], lam: float = 1.0) -> tuple[list[int], list[float]]:
    picked, gains = list(given), []
    for _ in range(budget):
        now = objective(s, picked, lam)
        free = [c for c in range(len(s)) if c not in picked]
        values = [objective(s, [*picked, c], lam) - now for c in free]
        best = max(range(len(free)), key=lambda i: (round(values[i], 9), -free[i]))
        picked.append(free[best])
        gains.append(values[best])
    return picked[len(given) :], gains
