"""MaxHerding word for word: every gain from scratch, float64, no shortcut."""

from __future__ import annotations

import numpy as np


def kernel_matrix(x: np.ndarray, kernel: str = "gaussian", h: float = 1.0) -> np.ndarray:
    """Kernel of every pair of rows, from the differences of the unit rows."""
    unit = x.astype(np.float64)
    unit /= np.linalg.norm(unit, axis=1, keepdims=True)
    square = np.array([[np.sum((a - b) ** 2) for b in unit] for a in unit])
    square[square < 1e-13] = 0.0
    formulas = {
        "gaussian": lambda: np.exp(-square / h**2),
        "top_hat": lambda: (np.sqrt(square) < h).astype(float),
        "laplace": lambda: np.exp(-np.sqrt(square) / h),
        "cauchy": lambda: 1 / (1 + square / h**2),
        "student_t": lambda: (1 + square / (0.5 * h**2)) ** -0.75,
        "rational": lambda: 1 / (1 + np.sqrt(square) / h),
        "cosine": lambda: 1 - square / 4,
    }
    return formulas[kernel]()


def max_herding(
    k: np.ndarray, budget: int, given: tuple[int, ...] = (), weights: np.ndarray | None = None
) -> tuple[list[int], list[float]]:
    """Greedy on a kernel matrix; gains within 1e-11 of the best count as tied and the lowest index wins."""
    w = np.ones(len(k)) if weights is None else weights
    covered = np.zeros(len(k))
    for g in given:
        covered = np.maximum(covered, k[g])
    taken, picks, gains = set(given), [], []
    for _ in range(budget):
        gain = [-np.inf if c in taken else float(np.sum(w * np.maximum(k[c] - covered, 0))) for c in range(len(k))]
        best = max(gain)
        pick = next(c for c in range(len(k)) if gain[c] >= best - 1e-11)
        picks.append(pick)
        gains.append(gain[pick] / len(k))
        taken.add(pick)
        covered = np.maximum(covered, k[pick])
    return picks, gains


def coverage_curve(k: np.ndarray, picks: list[int], given: tuple[int, ...] = ()) -> np.ndarray:
    """Mean coverage after each pick."""
    covered = np.zeros(len(k))
    for g in given:
        covered = np.maximum(covered, k[g])
    curve = []
    for pick in picks:
        covered = np.maximum(covered, k[pick])
        curve.append(covered.mean())
    return np.array(curve)
