"""Whole campaigns through vLLM, in process and as a server, beside Transformers: the same predictions, item by item."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from eval_helpers import contents, rows, write_rows
from score.vllm_server import SERVED, serve_vllm

from icl_select.eval.config import Campaign, load_campaign, validate
from icl_select.eval.store import RunFolder
from icl_select.score.tiny import make_tiny_model

pytest.importorskip("vllm", reason="needs icl-select[vllm]")
pytestmark = [pytest.mark.vllm, pytest.mark.slow]

# Each campaign has a process of its own: an engine is never shared, and a killed one takes nothing else with it.
_RUN = """
import os, signal, sys
from pathlib import Path
from icl_select.eval import runner, store, versus

folder, cache, stop = Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3])
if stop >= 0:
    from icl_select.score.answer_file import AnswerFile
    whole, done = AnswerFile.put, 0
    def put(self, batch):
        global done
        done += 1
        if done > stop:
            os.kill(os.getpid(), signal.SIGKILL)
        return whole(self, batch)
    AnswerFile.put = put
runner.run(versus.stored_campaign(folder), cache=cache, progress=False)
"""
_QUIET = {
    "VLLM_CPU_KVCACHE_SPACE": "1",
    "VLLM_NO_USAGE_STATS": "1",
    "TORCHDYNAMO_DISABLE": "1",
    "OMP_NUM_THREADS": "1",
    "HF_HUB_OFFLINE": "1",
}


def run(campaign: Campaign, cache: Path, *, kill_after: int = -1) -> Path:
    """Run a campaign in a process; with `kill_after`, it dies at that commit of answers."""
    store = RunFolder(campaign.folder)
    store.write_json(store.path / "campaign.json", campaign.model_dump(mode="json"))
    done = subprocess.run(
        [sys.executable, "-c", _RUN, str(campaign.folder), str(cache), str(kill_after)],
        capture_output=True,
        check=False,
        env={**os.environ, **_QUIET},
    )
    assert done.returncode == (0 if kill_after < 0 else -signal.SIGKILL), done.stderr.decode()[-4000:]
    return campaign.folder


def predictions(folder: Path) -> dict[str, list[Any]]:
    """What was answered, by cell: nothing that rounding may move."""
    columns = (
        "item_id",
        "prediction",
        "response",
        "prompt_tokens",
        "answer_tokens",
        "truncated",
        "finished",
        "demo_ids",
    )
    return {
        str(path.relative_to(folder)): [pq.read_table(path).column(name).to_pylist() for name in columns]
        for path in sorted((folder / "cells").rglob("*.parquet"))
    }


def scores(folder: Path) -> np.ndarray[Any, np.dtype[np.float64]]:
    """Every score of every choice."""
    found = [pq.read_table(path).column("choice_scores").to_pylist() for path in sorted(folder.rglob("*.parquet"))]
    return np.array([score for cell in found for item in cell if item is not None for score in item])


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_tiny_model(tmp_path_factory.mktemp("models") / "tiny", max_length=1024)


@pytest.fixture(scope="module")
def content(tmp_path_factory: pytest.TempPathFactory) -> Mapping[str, Any]:
    folder = tmp_path_factory.mktemp("texts")
    own = {
        "pool": write_rows(folder / "pool.jsonl", rows(40, 1)),
        "test": write_rows(folder / "test.jsonl", rows(12, 2)),
    }
    return {
        "name": "engines",
        "tasks": [{"name": "desk", **own}, {"name": "free", "generation": True, "answer_tokens": 8, **own}],
        "methods": ["random", "vote_k(k=10, stage='full')"],
        "budgets": [5],
        "draws": 2,
        "random_repeats": 1,
        "pool_size": 16,
        "test_size": 8,
        "retrieval": {"k": 3},
        "encoder": "hash(dim=64)",
        "n_resamples": 100,
    }


@pytest.fixture(scope="module")
def by_vllm(content: Mapping[str, Any], tiny: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("vllm")
    made = validate({**content, "scorer": f"vllm(model={str(tiny)!r})", "output": folder / "run"}, "test")
    return run(made, folder / "cache")


def test_killed_and_resumed_to_the_byte(content: Mapping[str, Any], tiny: Path, by_vllm: Path, tmp_path: Path) -> None:
    """SIGKILL before the third commit of answers: the resumed run ends with the bytes of the undisturbed one."""
    made = validate({**content, "scorer": f"vllm(model={str(tiny)!r})", "output": tmp_path / "run"}, "test")
    run(made, tmp_path / "cache", kill_after=2)
    assert not (made.folder / "results.json").exists()
    assert contents(run(made, tmp_path / "cache")) == contents(by_vllm)
    usage = json.loads((made.folder / "run.json").read_text(encoding="utf-8"))["usage"]
    whole = json.loads((by_vllm / "run.json").read_text(encoding="utf-8"))["usage"]
    assert 0 < usage["requests"] < whole["requests"]


def test_transformers_gives_the_same_predictions(
    content: Mapping[str, Any], tiny: Path, by_vllm: Path, tmp_path: Path
) -> None:
    made = validate({**content, "scorer": f"transformers(model={str(tiny)!r})", "output": tmp_path / "run"}, "test")
    folder = run(made, tmp_path / "cache")
    assert len(predictions(folder)) == 8
    assert predictions(folder) == predictions(by_vllm)
    np.testing.assert_allclose(scores(folder), scores(by_vllm), atol=1e-4)


def test_a_server_gives_the_same_predictions(
    content: Mapping[str, Any], tiny: Path, by_vllm: Path, tmp_path: Path
) -> None:
    with serve_vllm(tiny, tmp_path / "server.log", max_length=1024) as server:
        scorer = (
            f"openai(model={SERVED!r}, url={server.url!r}, tokenizer={str(tiny)!r}, served='tiny', max_length=1024)"
        )
        made = validate({**content, "scorer": scorer, "output": tmp_path / "run"}, "test")
        folder = run(made, tmp_path / "cache")
    assert predictions(folder) == predictions(by_vllm)
    np.testing.assert_allclose(scores(folder), scores(by_vllm), atol=1e-4)


def test_the_nine_benchmarks_run(shared: Path, tmp_path: Path) -> None:
    """The shipped campaign, made smaller, through both in-process engines."""
    folders = []
    for engine in ("vllm", "transformers"):
        small = {
            "data_dir": shared / "data",
            "output": tmp_path / engine,
            "scorer": f"{engine}(model='tiny')",
            "methods": ["random", "vote_k(stage='full')"],
            "budgets": [4],
            "draws": 1,
            "pool_size": 12,
            "test_size": 4,
            "encoder": "hash(dim=64)",
        }
        path = Path(__file__).resolve().parents[2] / "configs" / "tiny_llm.yaml"
        folders.append(run(load_campaign(path, overrides=small), tmp_path / "cache"))
    found = predictions(folders[0])
    assert len({name.split("/")[1] for name in found}) == 9
    assert found == predictions(folders[1])
