"""What embeddings of test items are moved by, under both protocols."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from icl_select.embedding import load_encoder
from icl_select.eval import runner, work
from icl_select.eval.config import Campaign
from icl_select.eval.tasks import TaskData, load_task

Make = Callable[..., Campaign]


@pytest.mark.parametrize("centre", [True, False])
@pytest.mark.parametrize("own", [True, False])
@pytest.mark.parametrize("protocol", ["sound", "published"])
def test_what_queries_are_moved_by(
    campaign: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, protocol: str, own: bool, centre: bool
) -> None:
    """Pool and test items by the mean of the draw's pool rows; as published, test items by their own mean or not."""
    units: list[work.Unit] = []
    compute = work.compute

    def load(*args: Any) -> TaskData:
        data = load_task(*args)
        return replace(data, task=replace(data.task, published_query_centre=own))

    def recording(unit: work.Unit, *args: Any) -> int:
        units.append(unit)
        return compute(unit, *args)

    monkeypatch.setattr(runner, "load_task", load)
    monkeypatch.setattr(work, "compute", recording)
    made = campaign(protocol=protocol, centre=centre, methods=["random"], draws=2, pool_fraction=0.5)
    runner.run(made, cache=tmp_path / "cache", progress=False)
    encoder = load_encoder(made.encoder)
    assert len(units) == 2
    for unit in units:
        x = encoder.encode([row.text for row in unit.pool]).vectors.astype(np.float64)
        queries = encoder.encode([item.text for item in unit.test]).vectors.astype(np.float64)
        shift = x.mean(axis=0) if centre else np.zeros(x.shape[1])
        by = shift if protocol == "sound" or not centre else queries.mean(axis=0) if own else np.zeros(x.shape[1])
        np.testing.assert_allclose(unit.x, x - shift, atol=1e-6)
        np.testing.assert_allclose(unit.queries, queries - by, atol=1e-6)
        assert np.abs(queries.mean(axis=0) - x.mean(axis=0)).max() > 1e-3  # so that one is not taken for the other
