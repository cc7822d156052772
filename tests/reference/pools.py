"""Synthetic pools."""

from __future__ import annotations

import numpy as np


def clustered(n: int, d: int, clusters: int = 25, seed: int = 0) -> np.ndarray:
    """Unit-norm float32 rows from a Gaussian mixture."""
    rng = np.random.default_rng(seed)
    centres = rng.normal(size=(clusters, d))
    x = centres[rng.integers(clusters, size=n)] + 0.7 * rng.normal(size=(n, d))
    return (x / np.linalg.norm(x, axis=1, keepdims=True)).astype(np.float32)
