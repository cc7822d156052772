"""Shared fixtures: where the reference material is, and synthetic pools."""

from __future__ import annotations

import os
from pathlib import Path

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
