"""Shared fixtures: where the reference material is, and synthetic pools."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest

# Read once, when huggingface_hub is first imported, which may be while tests are collected.
os.environ["HF_HUB_OFFLINE"] = "1"

SHARED = Path(__file__).resolve().parents[1].parent / "shared"


@pytest.fixture(scope="session")
def shared() -> Path:
    """Folder with benchmark samples and golden outputs; tests that need it skip where it is absent."""
    if not SHARED.is_dir():
        pytest.skip("reference material (../shared beside the checkout) is not here")
    return SHARED


def clustered(n: int, d: int, clusters: int = 25, seed: int = 0) -> np.ndarray:
    """Unit-norm float32 rows from a Gaussian mixture."""
    rng = np.random.default_rng(seed)
    centres = rng.normal(size=(clusters, d))
    x = centres[rng.integers(clusters, size=n)] + 0.7 * rng.normal(size=(n, d))
    return (x / np.linalg.norm(x, axis=1, keepdims=True)).astype(np.float32)
