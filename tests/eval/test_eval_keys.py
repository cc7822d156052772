"""What a cell that a language model answers is kept under: all that changes it, and nothing of the machine."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from icl_select.embedding import load_encoder
from icl_select.eval.config import Campaign
from icl_select.eval.plan import plan_task
from icl_select.eval.tasks import TaskData, load_task
from icl_select.score import load_scorer
from icl_select.score.tiny import make_tiny_model
from icl_select.types import Decoding

Make = Callable[..., Campaign]
Keys = Callable[..., Mapping[str, set[str]]]

FULL = "vote_k(k=10, stage='full')"


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_tiny_model(tmp_path_factory.mktemp("models") / "tiny")


@pytest.fixture
def keys(campaign: Make, tiny: Path) -> Keys:
    """``keys(key=value, …)``: keys of the cells and selections of a campaign; `task` changes its task."""

    def make(
        *,
        options: str = "",
        model: Path = tiny,
        task: Mapping[str, Any] | None = None,
        metric_options: Mapping[str, Any] | None = None,
        **changes: Any,
    ) -> Mapping[str, set[str]]:
        scorer = f"transformers(model={str(model)!r}{options})"
        made = campaign(**({"methods": ["random", FULL], "draws": 1, "scorer": scorer} | changes))
        data = load_task(made.tasks[0])
        data = TaskData(replace(data.task, **(task or {})), data.pool, data.test, data.source, metric_options or {})
        plan = plan_task(made, data, load_encoder(made.encoder), load_scorer(made.scorer))
        return {
            "cells": {key for job in plan.jobs for key in job.cell_keys},
            "graph": {key for job in plan.jobs if job.method == "random" for key in job.selection_keys},
            "asking": {key for job in plan.jobs if job.method == FULL for key in job.selection_keys},
        }

    return make


@pytest.mark.parametrize(
    "change",
    [
        {"protocol": "published"},
        {"prompt": {"tokenizer": "chars"}},
        {"prompt": {"max_tokens": 100}},
        {"retrieval": {"k": 3}},
        {"retrieval": {"order": "shared_first"}},
        {"options": ", rule='sum'"},
        {"options": ", dtype='bfloat16'"},
        {"options": ", max_length=64"},
        {"task": {"prefix": " "}},
        {"task": {"separator": "\n"}},
        {"task": {"shorten": "text"}},
        {"task": {"choices": ("login", "delivery", "billing")}},
        {"task": {"decoding": Decoding(9)}},
        {"task": {"published_decoding": Decoding(9, temperature=0.7)}},
        {"task": {"learnt": "other values"}},
    ],
)
def test_what_changes_an_answer_changes_the_key(keys: Keys, change: dict[str, Any]) -> None:
    """Of a method that asks the model the selection is another too; that of one that does not stays."""
    before, after = keys(), keys(**change)
    assert not before["cells"] & after["cells"]
    assert not before["asking"] & after["asking"]
    assert before["graph"] == after["graph"]


@pytest.mark.parametrize(
    "change",
    [
        {"options": ", batch_size=2"},
        {"options": ", device='cpu'"},
        {"options": ", threads=1"},
        {"output": Path("elsewhere")},
        {"alpha": 0.1},
        {"published": "votek_table2"},
    ],
)
def test_what_changes_no_answer_changes_no_key(keys: Keys, change: dict[str, Any]) -> None:
    assert keys(**change) == keys()


def test_the_place_of_model_and_tokenizer_does_not_matter_but_their_content_does(
    keys: Keys, tiny: Path, tmp_path: Path
) -> None:
    moved, changed = tmp_path / "elsewhere" / "tiny", tmp_path / "changed" / "tiny"
    for folder in (moved, changed):
        shutil.copytree(tiny, folder)
    content = json.loads((changed / "tokenizer.json").read_text(encoding="utf-8"))
    content["model"]["merges"] = content["model"]["merges"][:-5]
    (changed / "tokenizer.json").write_text(json.dumps(content), encoding="utf-8")
    assert keys(model=moved) == keys()
    assert keys(prompt={"tokenizer": str(moved)}) == keys(prompt={"tokenizer": str(tiny)}) == keys()
    assert not keys(prompt={"tokenizer": str(changed)})["cells"] & keys()["cells"]
    assert not keys(model=changed)["cells"] & keys()["cells"]


def test_what_a_metric_runs_on_is_part_of_the_key(keys: Keys, tmp_path: Path) -> None:
    """By its content: another name or folder changes nothing."""
    one, same, other = tmp_path / "one.sqlite", tmp_path / "same.sqlite", tmp_path / "other.sqlite"
    for path, content in ((one, b"a"), (same, b"a"), (other, b"b")):
        path.write_bytes(content)
    before = keys(metric_options={"database": one})
    assert keys(metric_options={"database": same}) == before
    assert not keys(metric_options={"database": other})["cells"] & before["cells"]


def test_how_a_server_is_asked_is_no_part_of_the_key(keys: Keys, tiny: Path) -> None:
    def served(url: str, **options: Any) -> Mapping[str, set[str]]:
        more = "".join(f", {name}={value!r}" for name, value in options.items())
        return keys(scorer=f"openai(model='m', url={url!r}, tokenizer={str(tiny)!r}{more})")

    here = served("http://localhost:8000/v1", served="float32, revision 1")
    there = {"served": "float32, revision 1", "concurrency": 2, "timeout": 5, "max_retries": 1, "max_spend": 3.0}
    assert served("http://10.0.0.1:9000/v1", **there, price_in=1.0, price_out=1.0) == here
    assert not served("http://localhost:8000/v1", served="float16")["cells"] & here["cells"]
    assert not served("http://localhost:8000/v1")["cells"] & here["cells"]
    assert not served("http://localhost:8000/v1", served="float32, revision 1", mode="echo")["cells"] & here["cells"]
