"""Random selection: uniform, nested, and the published stream."""

from __future__ import annotations

import json
import random as python_random
from pathlib import Path

import numpy as np
import pytest

from icl_select.errors import ParameterError
from icl_select.methods import select
from icl_select.methods.random import random

X = np.eye(10)


def test_takes_the_head_of_one_permutation() -> None:
    picked = random(X, 4, given=(2, 5), rng=np.random.default_rng(7))
    expected = np.random.default_rng(7).permutation([0, 1, 3, 4, 6, 7, 8, 9])[:4]
    assert picked.indices.tolist() == expected.tolist()
    assert picked.gains.tolist() == [0, 0, 0, 0]


def test_every_row_is_equally_likely() -> None:
    """5,000 draws of 3 from 10: each row is expected 1,500 times, standard deviation 32."""
    rng = np.random.default_rng(0)
    counts = np.bincount(np.concatenate([random(X, 3, rng=rng).indices for _ in range(5_000)]), minlength=10)
    assert np.abs(counts - 1_500).max() < 4 * np.sqrt(5_000 * 0.3 * 0.7)


def test_official_is_pythons_sample() -> None:
    picked = select("random(variant='official')", X, 5, seed=3)
    assert picked.indices.tolist() == python_random.Random(3).sample(range(10), 5)
    assert not picked.nested


def test_official_samples_the_free_rows() -> None:
    picked = select("random(variant='official')", X, 3, given=[0, 9], seed=3)
    assert picked.indices.tolist() == python_random.Random(3).sample(range(1, 9), 3)


@pytest.mark.parametrize(
    "rng", [np.random.default_rng([1, 2]), np.random.default_rng(1).spawn(1)[0]], ids=["sequence", "spawned"]
)
def test_official_needs_an_integer_seed(rng: np.random.Generator) -> None:
    with pytest.raises(ParameterError, match="integer seed"):
        random(X, 3, rng=rng, variant="official")


def test_unknown_variant() -> None:
    with pytest.raises(ParameterError, match="variant='fast'"):
        select("random(variant='fast')", X, 3)


def test_published_indices(shared: Path) -> None:
    files = sorted((shared / "golden" / "random").glob("*.json"))
    assert files
    for file in files:
        golden = json.loads(file.read_text(encoding="utf-8"))
        x = np.load(shared / "golden" / golden["input"])[golden["input_key"]]
        picked = select("random(variant='official')", x, golden["budget"], seed=golden["seed"])
        assert picked.indices.tolist() == golden["selected"], file.name
