"""What a campaign that asks a language model refuses, and when."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from icl_select.errors import ConfigError, PromptError
from icl_select.eval.config import load_campaign
from icl_select.eval.runner import plan_campaign, run

pytest.importorskip("transformers", reason="needs icl-select[models]")


def campaign(folder: Path, text: str = "fine", **keys: Any) -> Any:
    rows = [{"id": str(i), "text": f"{text} {i}", "label": ("good", "bad")[i % 2]} for i in range(16)]
    for name in ("pool", "test"):
        lines = (json.dumps({**row, "id": f"{name}{row['id']}"}) for row in rows)
        (folder / f"{name}.jsonl").write_text("\n".join(lines), encoding="utf-8")
    own = {"name": "own", "pool": "pool.jsonl", "test": "test.jsonl", **keys.pop("task", {})}
    settings = {"tasks": [own], "methods": ["random"], "budgets": [4], "draws": 1, "encoder": "hash", **keys}
    path = folder / "own.yaml"
    path.write_text(json.dumps({"scorer": "transformers(model='tiny')", **settings}), encoding="utf-8")
    return load_campaign(path, overrides={"output": folder / "run"}, environment={})


def test_a_chat_that_cannot_be_is_refused_before_any_work(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"Write chat=True into the scorer"):
        plan_campaign(campaign(tmp_path, prompt={"chat": True}))
    chat = "transformers(model='tiny', chat=True)"
    with pytest.raises(ConfigError, match=r"protocol: published has no chat form.*Use protocol: sound"):
        plan_campaign(campaign(tmp_path, protocol="published", scorer=chat))
    plan_campaign(campaign(tmp_path, protocol="published", scorer="knn", prompt={"chat": True}))
    plan_campaign(campaign(tmp_path, scorer=chat))


def test_own_texts_that_are_too_long_name_the_key_that_cuts_them(tmp_path: Path) -> None:
    keys = {"text": "word " * 300, "prompt": {"max_tokens": 200}}
    with pytest.raises(PromptError, match=r"task own names no field that may be cut. Name one under its key `shorten`"):
        run(campaign(tmp_path, **keys), cache=False, progress=False)
    done = run(campaign(tmp_path, **keys, task={"shorten": "text"}), cache=False, progress=False)
    assert done.n_computed > 0
