"""The benchmark samples beside the checkout, read as pools."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest

from icl_select.data import Pool, duplicates, leaks

# Set, embedded text, label words or None, rows of the pool and of the test file, as the samples' own page states.
SETS = [
    ("mrpc", "{sentence1} {sentence2}", ["no", "yes"], 3668, 408),
    ("sst5", "text", ["terrible", "bad", "okay", "good", "great"], 6000, 1000),
    ("mnli", "{premise} {hypothesis}", ["entailment", "neutral", "contradiction"], 3000, 1000),
    ("dbpedia_14", "{title} {content}", [f"class {i}" for i in range(14)], 5000, 1000),
    ("rte", "{sentence1} {sentence2}", ["entailment", "not_entailment"], 2490, 277),
    ("hellaswag", "ctx", None, 4303, 1000),
    ("multiwoz24", "ID", None, 3656, 731),
    ("geoquery", "question", None, 549, 328),
    ("xsum", "document", None, 2954, 1000),
]
LABEL = {"geoquery": "query", "xsum": "summary"}


def read(shared: Path, name: str, part: str, text: str, words: list[str] | None) -> Pool:
    path = shared / "data" / name / f"{part}.jsonl.gz"
    if not path.is_file():
        pytest.skip(f"the sample {name} is not here")
    return Pool.read(path, text=text, label=LABEL.get(name), label_words=words)


@pytest.mark.parametrize(("name", "text", "words", "n_pool", "n_test"), SETS, ids=[row[0] for row in SETS])
def test_every_sample_reads(
    shared: Path, tmp_path: Path, name: str, text: str, words: list[str] | None, n_pool: int, n_test: int
) -> None:
    pool = read(shared, name, "pool", text, words)
    test = read(shared, name, "test", text, words)
    assert (len(pool), len(test)) == (n_pool, n_test)
    assert len(set(pool.ids)) == n_pool
    if words is not None:
        assert set(pool.labels) == set(test.labels) == set(words)
    assert Pool.from_jsonl(test.to_jsonl(tmp_path / "test.jsonl")) == test


def test_labels_of_a_sample_are_those_counted_by_its_page(shared: Path) -> None:
    words = ["0", "1", "2", "3", "4"]
    pool = read(shared, "sst5", "pool", "text", words)
    assert Counter(pool.labels) == dict(zip(words, [779, 1545, 1143, 1639, 894], strict=True))


def test_no_test_row_of_a_sample_stands_in_its_pool_and_repeats_are_found(shared: Path) -> None:
    pool = read(shared, "sst5", "pool", "text", None)
    test = read(shared, "sst5", "test", "text", None)
    assert leaks(pool, test).counts["exact"] == 0
    assert len(duplicates(pool).redundant("exact")) == 6
