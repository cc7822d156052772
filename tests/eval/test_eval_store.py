"""The run folder: whole files or none, the same bytes for the same content, damage noticed."""

from __future__ import annotations

import json
import logging
import os
from pathlib import Path

import numpy as np
import pytest

from icl_select.errors import StoreError
from icl_select.eval.store import CellName, ItemResult, RunFolder
from icl_select.types import Selection

NAME = CellName("desk", "max_herding(bandwidth=0.8)", 3, 0, 18)
VERSIONS = {"scorer": "knn(k=3)"}
ITEMS = [
    ItemResult("a", "login", "login", 1.0, ("p1", "p2"), (0.9, 0.25)),
    ItemResult(
        "b",
        "",
        "billing",
        0.0,
        (),
        (),
        prompt_tokens=12,
        n_dropped=1,
        choice_scores=(-0.5, -1.25),
        answer_tokens=3,
        truncated=True,
    ),
    ItemResult(
        "ü\u2028", "x\n", "y", 0.5, ("p2",), (-0.5,), response="x\n y", answer_tokens=9, truncated=False, finished=False
    ),
]


def test_a_cell_comes_back_as_it_was_written(tmp_path: Path) -> None:
    store = RunFolder(tmp_path)
    store.write_cell(NAME, "key", ["p1", "p9"], ITEMS, VERSIONS)
    cell = store.read_cell(NAME, "key")
    assert cell.item_ids == ["a", "b", "ü\u2028"]
    assert cell.scores.tolist() == [1.0, 0.0, 0.5]
    assert cell.picks == ("p1", "p9")
    assert cell.column("demo_ids") == [["p1", "p2"], [], ["p2"]]
    assert cell.column("demo_scores") == [[0.9, 0.25], [], [-0.5]]
    assert cell.column("n_shots") == [2, 0, 1]
    assert cell.column("prompt_tokens") == [None, 12, None]
    assert cell.column("response") == [None, None, "x\n y"]
    assert cell.column("choice_scores") == [None, [-0.5, -1.25], None]
    assert cell.column("answer_tokens") == [None, 3, 9]
    assert cell.column("truncated") == [None, True, False]
    assert cell.column("finished") == [None, None, False]
    assert json.loads(cell.table.schema.metadata[b"icl_select.versions"]) == VERSIONS


def test_the_file_name_tells_the_cell(tmp_path: Path) -> None:
    store = RunFolder(tmp_path)
    path = store.cell_path(NAME).relative_to(tmp_path)
    assert path.parts[:2] == ("cells", "desk")
    assert path.parts[2].startswith("max_herding-bandwidth=0.8")
    assert path.name == "b0018-d003-r00.parquet"
    other = CellName("desk", "max_herding(bandwidth=0.9)", 3, 0, 18)
    assert store.cell_path(other) != store.cell_path(NAME)


def test_the_same_items_give_the_same_bytes(tmp_path: Path) -> None:
    for part in ("x", "y"):
        RunFolder(tmp_path / part).write_cell(NAME, "key", ["p1"], ITEMS, VERSIONS)
    assert (
        RunFolder(tmp_path / "x").cell_path(NAME).read_bytes() == RunFolder(tmp_path / "y").cell_path(NAME).read_bytes()
    )


def test_a_cell_of_another_key_is_out_of_date(tmp_path: Path) -> None:
    store = RunFolder(tmp_path)
    assert not store.has_cell(NAME, "key")
    store.write_cell(NAME, "key", [], ITEMS, VERSIONS)
    assert store.has_cell(NAME, "key")
    assert not store.has_cell(NAME, "other")
    with pytest.raises(StoreError, match="missing or out of date"):
        store.read_cell(NAME, "other")
    assert store.read_cell(NAME).item_ids[0] == "a"


@pytest.mark.parametrize("at", [0, 0.02, 0.2, 0.5, 0.8, 0.999])
@pytest.mark.parametrize("damage", ["cut", "flip"])
def test_a_damaged_cell_never_passes_for_a_whole_one(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, at: float, damage: str
) -> None:
    """Flipped or missing bytes: the cell counts as absent, or it holds exactly what was written."""
    store = RunFolder(tmp_path)
    store.write_cell(NAME, "key", ["p1", "p9"], ITEMS * 30, VERSIONS)
    path = store.cell_path(NAME)
    content = bytearray(path.read_bytes())
    whole = store.read_cell(NAME, "key").table
    place = int(at * len(content))
    if damage == "cut":
        del content[place:]
    else:
        content[place] ^= 0x5A
    path.write_bytes(bytes(content))
    with caplog.at_level(logging.WARNING):
        found = store.has_cell(NAME, "key")
    if found:
        assert damage == "flip"
        assert store.read_cell(NAME, "key").table.equals(whole)
    else:
        assert damage == "flip" or "will be computed again" in caplog.text


SELECTION = Selection(np.array([2, 0]), np.array([0.5, np.nan]), True, "max_herding", 7, {"bound": 1.0})


def test_a_selection_comes_back(tmp_path: Path) -> None:
    store = RunFolder(tmp_path)
    name = CellName("desk", "max_herding", 0, 0, 2)
    ids = ["a", "b", "c"]
    assert store.read_selection(name, "key", ids) is None
    store.write_selection(name, "key", SELECTION, ids)
    found = store.read_selection(name, "key", ids)
    assert found is not None
    assert found.indices.tolist() == [2, 0]
    assert found.gains[0] == 0.5
    assert np.isnan(found.gains[1])
    assert (found.nested, found.method, found.seed, dict(found.info)) == (True, "max_herding", 7, {"bound": 1.0})
    assert store.read_selection(name, "other", ids) is None


def test_a_selection_of_other_rows_is_not_used(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    store = RunFolder(tmp_path)
    name = CellName("desk", "max_herding", 0, 0, 2)
    store.write_selection(name, "key", SELECTION, ["a", "b", "c"])
    assert store.read_selection(name, "key", ["a", "b", "x"]) is None
    assert store.read_selection(name, "key", ["a"]) is None
    assert "damaged" in caplog.text
    store.selection_path(name).write_text('{"key": "key"}', encoding="utf-8")
    assert store.read_selection(name, "key", ["a", "b", "c"]) is None
    store.selection_path(name).write_text('{"key": ', encoding="utf-8")
    assert store.read_selection(name, "key", ["a", "b", "c"]) is None


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_folder_that_cannot_be_written(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    with pytest.raises(StoreError, match="permission denied"):
        RunFolder(tmp_path).write_cell(NAME, "key", [], ITEMS, VERSIONS)
    tmp_path.chmod(0o700)


def test_a_file_where_a_folder_should_be(tmp_path: Path) -> None:
    (tmp_path / "cells").write_text("in the way", encoding="utf-8")
    with pytest.raises(StoreError, match="Choose another folder"):
        RunFolder(tmp_path).write_cell(NAME, "key", [], ITEMS, VERSIONS)
