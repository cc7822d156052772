"""A small labelled pool, and campaigns on it that take a second."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from eval_helpers import rows, write_rows

from icl_select.eval.config import Campaign, validate


@pytest.fixture
def campaign(tmp_path: Path) -> Callable[..., Campaign]:
    """``campaign(key=value, ...)`` with a pool of 60 messages and 20 test messages of its own."""
    pool = write_rows(tmp_path / "pool.jsonl", rows(60, 1))
    test = write_rows(tmp_path / "test.jsonl", rows(20, 2))

    def make(**changes: Any) -> Campaign:
        content: dict[str, Any] = {
            "name": "small",
            "tasks": [{"name": "desk", "pool": pool, "test": test}],
            "methods": ["random", "max_herding"],
            "budgets": [3, 6],
            "draws": 3,
            "random_repeats": 2,
            "test_size": 12,
            "encoder": "hash(dim=64)",
            "n_resamples": 100,
            "output": tmp_path / "run",
        }
        content.update(changes)
        return validate(content, "test")

    return make
