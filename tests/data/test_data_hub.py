"""Hugging Face data sets: saved folders, data files, what happens offline, scripts."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any

import pytest

from icl_select.data import Pool
from icl_select.data.hub import PARQUET_REVISION, is_hub_id
from icl_select.errors import DataError, MissingDependencyError, ParameterError

datasets = pytest.importorskip("datasets")


def dataset(labels: list[int], split: str | None = None) -> Any:
    features = datasets.Features({"text": datasets.Value("string"), "label": datasets.ClassLabel(names=["neg", "pos"])})
    rows = {"text": [f"text {i}" for i in range(len(labels))], "label": labels}
    return datasets.Dataset.from_dict(rows, features=features, split=split)


def test_a_saved_folder_is_read_with_its_class_names(tmp_path: Path) -> None:
    dataset([0, 1, -1]).save_to_disk(str(tmp_path / "one"))
    pool = Pool.read(tmp_path / "one")
    assert pool.texts == ["text 0", "text 1", "text 2"]
    assert pool.labels == ["neg", "pos", None]
    assert Pool.from_hub(str(tmp_path / "one"), label_words=["bad", "good"]).labels == ["bad", "good", None]


def test_splits_of_a_saved_folder(tmp_path: Path) -> None:
    both = datasets.DatasetDict({"train": dataset([0, 1]), "test": dataset([1])})
    both.save_to_disk(str(tmp_path / "two"))
    assert len(Pool.read(tmp_path / "two")) == 2
    assert len(Pool.read(tmp_path / "two", split="test")) == 1
    with pytest.raises(DataError, match=r"no split 'tets'. Did you mean 'test'\?"):
        Pool.read(tmp_path / "two", split="tets")
    datasets.DatasetDict({"validation": dataset([1])}).save_to_disk(str(tmp_path / "only"))
    assert len(Pool.read(tmp_path / "only")) == 1
    dataset([0], split="train").save_to_disk(str(tmp_path / "plain"))
    assert len(Pool.read(tmp_path / "plain", split="train")) == 1
    with pytest.raises(DataError, match="holds one data set, of split train"):
        Pool.read(tmp_path / "plain", split="test")
    dataset([0]).save_to_disk(str(tmp_path / "bare"))
    with pytest.raises(DataError, match="holds one data set, without splits, so not 'test'"):
        Pool.read(tmp_path / "bare", split="test")
    for ignored in ({"config": "sst2"}, {"revision": "main"}):
        with pytest.raises(ParameterError, match="is a folder that save_to_disk wrote"):
            Pool.read(tmp_path / "bare", **ignored)


def test_a_damaged_saved_folder_says_so(tmp_path: Path) -> None:
    dataset([0, 1]).save_to_disk(str(tmp_path / "one"))
    (tmp_path / "one" / "state.json").write_text("{", encoding="utf-8")
    with pytest.raises(DataError, match="cannot be read as a saved data set"):
        Pool.read(tmp_path / "one")


def test_a_folder_of_data_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "files"
    folder.mkdir()
    for split in ("train", "test"):
        row = json.dumps({"text": f"from {split}", "label": 0})
        (folder / f"{split}.jsonl").write_text(row + "\n", encoding="utf-8")
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", str(tmp_path / "cache"))
    pool = Pool.from_hub(folder, split="test", text="{text}!", fields=["text"])
    assert pool.texts == ["from test!"]
    assert pool.labels == ["0"]


def test_a_hub_id_offline_says_what_to_do() -> None:
    with pytest.raises(DataError, match=r"(?s)no-such-owner/no-such-set.*HF_HUB_OFFLINE.*save_to_disk"):
        Pool.read("no-such-owner/no-such-set")


class FakeHub:
    """Stands in for ``datasets.load_dataset``: answers or raises, by revision."""

    def __init__(self, answers: dict[str | None, Any]) -> None:
        self.answers = answers
        self.calls: list[tuple[Any, ...]] = []

    def __call__(self, name: str, config: str | None, *, split: str, revision: str | None) -> Any:
        self.calls.append((name, config, split, revision))
        answer = self.answers[revision]
        if isinstance(answer, Exception):
            raise answer
        return answer


SCRIPT = RuntimeError("Dataset scripts are no longer supported, but found xsum.py")


def test_a_script_repository_is_read_from_its_parquet_copy_and_that_is_logged(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    hub = FakeHub({None: SCRIPT, PARQUET_REVISION: dataset([1])})
    monkeypatch.setattr(datasets, "load_dataset", hub)
    with caplog.at_level(logging.WARNING):
        pool = Pool.read("owner/scripted", config="c", split="test")
    assert pool.labels == ["pos"]
    assert hub.calls == [("owner/scripted", "c", "test", None), ("owner/scripted", "c", "test", PARQUET_REVISION)]
    assert PARQUET_REVISION in caplog.text
    assert pool.source == f"owner/scripted (c)@{PARQUET_REVISION}, split test"


def test_a_pinned_script_is_not_replaced_silently(monkeypatch: pytest.MonkeyPatch) -> None:
    hub = FakeHub({"abc": SCRIPT})
    monkeypatch.setattr(datasets, "load_dataset", hub)
    with pytest.raises(DataError, match=f"revision='{PARQUET_REVISION}'"):
        Pool.from_hub("owner/scripted", revision="abc")
    assert len(hub.calls) == 1


@pytest.mark.parametrize(
    "error",
    [
        ValueError('Unknown split "dev". Should be one of train, test.'),
        datasets.exceptions.DatasetNotFoundError("Dataset 'owner/set' doesn't exist on the Hub"),
        RuntimeError("something else"),
    ],
)
def test_what_the_hub_says_is_passed_on(monkeypatch: pytest.MonkeyPatch, error: Exception) -> None:
    monkeypatch.setattr(datasets, "load_dataset", FakeHub({None: error}))
    with pytest.raises(DataError, match=r"owner/set cannot be loaded with config=None, split='dev'.*Check"):
        Pool.from_hub("owner/set", split="dev")


def test_without_the_library_the_pip_command_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "datasets", None)
    with pytest.raises(MissingDependencyError, match=r"icl-select\[hub\]"):
        Pool.from_hub("owner/set")


def test_what_counts_as_a_hub_id(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "data").mkdir()
    assert is_hub_id("nyu-mll/glue")
    for name in ("glue", "nyu-mll/glue.jsonl", "data/glue", "/nyu-mll/glue", "../glue", "a/b/c", Path("nyu-mll/glue")):
        assert not is_hub_id(name), name
