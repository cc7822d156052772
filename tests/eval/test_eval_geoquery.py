"""GeoQuery: what a model writes, run on the real database and compared with what the gold queries return."""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from icl_select.eval.tasks import TaskData, get_task, load_task
from icl_select.metrics import METRICS
from icl_select.metrics.sql import sql_flags
from icl_select.types import Example


@pytest.fixture(scope="module")
def data(shared: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[TaskData]:
    """The benchmark on a copy of its files, which must be the same after every test of this file."""
    folder = tmp_path_factory.mktemp("data")
    shutil.copytree(shared / "data" / "geoquery", folder / "geoquery")
    files = sorted((folder / "geoquery").iterdir())
    before = [hashlib.sha256(path.read_bytes()).hexdigest() for path in files]
    yield load_task("geoquery", folder)
    assert sorted((folder / "geoquery").iterdir()) == files  # no journal, no attached file
    assert [hashlib.sha256(path.read_bytes()).hexdigest() for path in files] == before


def scores(data: TaskData, predictions: list[str], references: list[str]) -> list[float]:
    metric = METRICS[data.task.metric].per_item
    return [float(value) for value in metric(predictions, references, **data.metric_options)]


def runs(data: TaskData) -> list[Example]:
    """Every question whose gold query runs."""
    examples = [*data.pool, *data.test]
    flags = sql_flags([str(example.label) for example in examples], **data.metric_options)
    return [example for example, flag in zip(examples, flags, strict=True) if not flag]


def test_every_gold_query_that_runs_is_right_and_the_others_score_0(data: TaskData) -> None:
    good = runs(data)
    assert len(good) == 872  # of 877, as the README of the data says
    gold = [str(example.label) for example in good]
    assert scores(data, gold, gold) == [1.0] * 872
    broken = [str(example.label) for example in (*data.pool, *data.test) if example not in good]
    assert scores(data, broken, broken) == [0.0] * 5


@pytest.mark.parametrize("protocol", ["sound", "published"])
def test_the_gold_answer_written_after_select_is_right(data: TaskData, protocol: str) -> None:
    good = runs(data)
    gold = [str(example.label) for example in good]
    assert all(query.startswith("SELECT ") for query in gold)
    written = [query.removeprefix("SELECT") for query in gold]
    said = [data.task.parse(text, example, protocol) for text, example in zip(written, good, strict=True)]
    assert scores(data, said, gold) == [1.0] * len(good)
    # The stop strings are cut by the engine or here; what a model writes after its answer does not count.
    running_on = [f"{text}\n\n-- what is the capital of texas\nSELECT 1" for text in written]
    said = [data.task.parse(text, example, protocol) for text, example in zip(running_on, good, strict=True)]
    assert scores(data, said, gold) == [1.0] * len(good)


def test_a_whole_query_of_a_chat_model_is_right(data: TaskData) -> None:
    good = runs(data)[:200]
    said = [data.task.parse(str(example.label), example, "sound") for example in good]
    assert scores(data, said, [str(example.label) for example in good]) == [1.0] * 200


@pytest.mark.parametrize(
    ("written", "expected"),
    [
        (" capital FROM state WHERE state_name = 'texas'", 1.0),
        (" s.capital\nFROM state AS s\nWHERE s.state_name = 'texas';", 1.0),
        (' STATE.CAPITAL FROM STATE WHERE STATE.STATE_NAME = "texas" ; -- done', 1.0),
        (" capital FROM state WHERE state_name = 'texas' ORDER BY population", 1.0),
        (" 'austin'", 1.0),  # execution accuracy cannot tell
        ("SELECT capital FROM state WHERE state_name = 'texas'", 1.0),
        (" capital FROM state WHERE state_name = 'ohio'", 0.0),
        (" capital, population FROM state WHERE state_name = 'texas'", 0.0),
        (" capital FROM state", 0.0),
        (" capital FROM states WHERE state_name = 'texas'", 0.0),
        (" capital FROM state WHERE state_name = 'texas", 0.0),
        (" capital FROM state WHERE state_name = ", 0.0),
        ("", 0.0),
        (" the capital of texas is austin", 0.0),
    ],
)
def test_answers_as_models_write_them(data: TaskData, written: str, expected: float) -> None:
    gold = 'SELECT STATEalias0.CAPITAL FROM STATE AS STATEalias0 WHERE STATEalias0.STATE_NAME = "texas" ;'
    assert scores(data, [data.task.parse(written, data.test[0], "sound")], [gold]) == [expected]


HUGE_JOIN = " count(*) FROM " + ", ".join(f"border_info AS b{i}" for i in range(12))
ENDLESS = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT count(*) FROM n"
HOSTILE = [
    "PRAGMA writable_schema = 1",
    "PRAGMA journal_mode = WAL",
    "PRAGMA table_info(state)",
    "ATTACH DATABASE 'stolen.sqlite' AS other",
    "VACUUM INTO 'copy.sqlite'",
    "DROP TABLE state",
    "DELETE FROM state",
    "UPDATE state SET capital = 'x'",
    "INSERT INTO state SELECT * FROM state",
    "CREATE TABLE mine(x)",
    "CREATE TEMP TABLE mine(x)",
    "BEGIN EXCLUSIVE",
    "SELECT load_extension('evil')",
    "SELECT writefile('written.txt', 'x')",
    "SELECT readfile('/etc/hostname')",
    "SELECT 1; DROP TABLE state",
    "SELECT 1; SELECT 2",
    "SELECT 'never closed",
    'SELECT "never closed',
    "SELECT /* never closed",
    "SELECT " + "(" * 5_000,
    "SELECT " + "1 + " * 50_000 + "1",
    "SELECT " + ", ".join("1" * 5_000),
    "SELECT zeroblob(2000000000)",
    "SELECT replace(hex(zeroblob(40000)), '0', 'aaaaaaaaaaaaaaaaaaaa')",
    "SELECT \x00 FROM state",
    "SELECT '\ud800'",
    "SELECT * FROM state, city, river, lake, mountain",
    "SELECT" + HUGE_JOIN,
    ENDLESS,
]


@pytest.mark.parametrize("query", HOSTILE, ids=range(len(HOSTILE)))
def test_hostile_output_scores_0(data: TaskData, query: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """As the metric is given it, and as a model writes it after SELECT; nothing appears in the working directory."""
    monkeypatch.chdir(tmp_path)
    gold = "SELECT capital FROM state WHERE state_name = 'texas'"
    said = [query, *(data.task.parse(f" {query}", data.test[0], protocol) for protocol in ("sound", "published"))]
    assert scores(data, said, [gold] * len(said)) == [0.0] * len(said)
    assert list(tmp_path.iterdir()) == []
    assert scores(data, [gold], [gold]) == [1.0]


def test_a_hostile_second_statement_is_cut_off(data: TaskData) -> None:
    """What follows the first ``;`` is no part of the answer, so the answer before it counts."""
    gold = "SELECT capital FROM state WHERE state_name = 'texas'"
    written = " capital FROM state WHERE state_name = 'texas'; DROP TABLE state"
    for protocol in ("sound", "published"):
        assert scores(data, [data.task.parse(written, data.test[0], protocol)], [gold]) == [1.0]


def test_the_copied_query_of_another_question_is_judged_by_what_it_returns(data: TaskData) -> None:
    """The knn baseline: the same query for another state is wrong, the same question asked in other words right."""
    by_query: dict[str, list[Example]] = {}
    for example in runs(data):
        by_query.setdefault(str(example.label), []).append(example)
    same = next(examples for examples in by_query.values() if len(examples) > 1)
    assert scores(data, [str(same[0].label)], [data.task.reference(same[1])]) == [1.0]
    texas, ohio = (f"SELECT capital FROM state WHERE state_name = '{name}'" for name in ("texas", "ohio"))
    assert scores(data, [texas], [ohio]) == [0.0]


def test_the_prompt_ends_with_select_and_names_the_tables(data: TaskData) -> None:
    example = data.test[0]
    text = data.task.template.text([], example)
    assert text.endswith(f"\n-- {example.fields['question']}\nSELECT")
    assert text.count("CREATE TABLE") == 7


@pytest.mark.parametrize("protocol", ["sound", "published"])
@pytest.mark.parametrize(
    "written",
    [
        " name FROM state; -- all of them",
        " name FROM state -- all; of them",
        " name FROM state # all\n\n-- next",
        " name FROM state\n\n# next; and -- more",
        " name FROM state",
    ],
)
def test_a_query_ends_at_the_first_mark_of_any_kind(written: str, protocol: str) -> None:
    assert get_task("geoquery").parse(written, Example("q", ""), protocol) == "SELECT name FROM state"
