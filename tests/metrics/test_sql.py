"""Execution accuracy: what is equal, and that no query harms anything."""

from __future__ import annotations

import gzip
import hashlib
import json
import sqlite3
from pathlib import Path

import pytest

from icl_select.errors import MetricError
from icl_select.metrics import evaluate, run_query, score_items, sql_execution
from icl_select.metrics.sql import _orders, sql_flags

HANG = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT count(*) FROM n"


@pytest.fixture
def database(tmp_path: Path) -> Path:
    path = tmp_path / "with space & 100%.sqlite"
    connection = sqlite3.connect(path)
    connection.executescript(
        "CREATE TABLE city(name TEXT, people INT, area REAL);"
        "INSERT INTO city VALUES ('a', 1, 0.1), ('b', 2, 0.2), ('b', 2, 0.2), ('c', 3, NULL);"
        "CREATE TABLE big(x); WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n LIMIT 300) "
        "INSERT INTO big SELECT i FROM n;"
    )
    connection.close()
    return path


def score(prediction: str, reference: str, database: Path, **limits: float) -> float:
    return float(sql_execution([prediction], [reference], database, **limits)[0])  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("prediction", "reference", "expected"),
    [
        ("SELECT name FROM city", "SELECT name FROM city;", 1),
        ("SELECT people AS other FROM city", "SELECT people FROM city", 1),
        ("SELECT name FROM city ORDER BY name DESC", "SELECT name FROM city", 1),
        ("SELECT DISTINCT name FROM city", "SELECT name FROM city", 0),
        ("SELECT name FROM city ORDER BY name", "SELECT name FROM city ORDER BY name DESC", 0),
        ("SELECT name FROM city ORDER BY people DESC", "SELECT name FROM city ORDER BY name DESC", 1),
        ("SELECT name FROM city", "SELECT name FROM (SELECT * FROM city ORDER BY name DESC)", 1),
        ("SELECT name, people FROM city", "SELECT name FROM city", 0),
        ("SELECT people, name FROM city", "SELECT name, people FROM city", 0),
        ("SELECT 0.1 + 0.2", "SELECT sum(area) FROM city WHERE people < 3 AND name || people != 'x' LIMIT 1", 0),
        ("SELECT 0.1 + 0.2", "SELECT 0.3", 1),
        ("SELECT 3.0", "SELECT 3", 1),
        ("SELECT '3'", "SELECT 3", 0),
        ("SELECT 12345678901", "SELECT 12345678901.0", 1),
        ("SELECT NULL", "SELECT area FROM city WHERE name = 'c'", 1),
        ("SELECT 0", "SELECT NULL", 0),
        ("SELECT name FROM city WHERE 0", "SELECT people FROM city WHERE 0", 1),
        ('SELECT people FROM city WHERE name = "a"', "SELECT 1", 1),
    ],
)
def test_what_is_equal(database: Path, prediction: str, reference: str, expected: float) -> None:
    assert score(prediction, reference, database) == expected


HARMFUL = [
    "DROP TABLE city",
    "DELETE FROM city",
    "UPDATE city SET people = 0",
    "INSERT INTO city VALUES ('z', 0, 0)",
    "CREATE TABLE t(x)",
    "CREATE TEMP TABLE t(x)",
    "CREATE TEMP VIEW v AS SELECT 1",
    "ATTACH DATABASE '{folder}/new.sqlite' AS other",
    "ATTACH ':memory:' AS other",
    "VACUUM",
    "VACUUM INTO '{folder}/copy.sqlite'",
    "PRAGMA writable_schema = 1",
    "PRAGMA journal_mode = WAL",
    "PRAGMA table_info(city)",
    "BEGIN",
    "SAVEPOINT s",
    "REINDEX",
    "ANALYZE",
    "SELECT load_extension('{folder}/x')",
    "SELECT writefile('{folder}/x', 'y')",
    "SELECT random()",
    "SELECT 1; DROP TABLE city",
]


@pytest.mark.parametrize("query", HARMFUL)
def test_destructive_queries_score_0_and_change_nothing(database: Path, query: str) -> None:
    before = hashlib.sha256(database.read_bytes()).hexdigest()
    query = query.format(folder=database.parent)
    assert run_query(query, database).error
    assert score(query, "SELECT 1", database) == 0
    assert score(query, query, database) == 0
    assert hashlib.sha256(database.read_bytes()).hexdigest() == before
    assert [path.name for path in database.parent.iterdir()] == [database.name]


GARBAGE = ["", "   ", ";", "--", "/* x", "SELECT", "SELECT * FROM nowhere", "hello", "SELECT 'a\x00b", "\x00", "\ud800",
           "SELECT " + "(" * 500 + "1" + ")" * 500, "SELECT 1 " + "+ 1" * 2000, "x" * 200_000]  # fmt: skip


@pytest.mark.parametrize("query", GARBAGE)
def test_garbage_scores_0(database: Path, query: str) -> None:
    assert run_query(query, database).error
    assert score(query, "SELECT name FROM city", database) == 0


def test_a_hanging_query_is_stopped_by_steps(database: Path) -> None:
    assert run_query(HANG, database, max_steps=100_000).error == "more steps than allowed"
    cross = "SELECT count(*) FROM big a, big b, big c, big d WHERE a.x + b.x = c.x * d.x"
    assert run_query(cross, database, max_steps=100_000).error == "more steps than allowed"
    assert sql_execution([HANG, "SELECT 1"], ["SELECT 1"] * 2, database, max_steps=100_000).tolist() == [0, 1]


def test_a_hanging_query_is_stopped_by_the_clock(database: Path) -> None:
    assert run_query(HANG, database, max_steps=10**12, max_seconds=0.05).error == "more time than allowed"


def test_results_too_large_are_refused(database: Path) -> None:
    assert "more rows" in run_query("SELECT x FROM big", database, max_rows=299).error
    assert len(run_query("SELECT x FROM big", database, max_rows=300).rows) == 300
    assert "more rows" in run_query("SELECT x, x FROM big", database, max_cells=599).error
    assert len(run_query("SELECT x, x FROM big", database, max_cells=600).rows) == 300
    heavy = "SELECT printf('%1000d', x) FROM big"
    assert len(run_query(heavy, database, max_cells=3300).rows) == 300
    assert "more rows" in run_query(heavy, database, max_cells=3299).error
    assert "too big" in run_query("SELECT zeroblob(1000000000)", database).error
    assert run_query("SELECT printf('%1000000d', 1)", database).rows == ((None,),)


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        ("SELECT a FROM t ORDER BY a", True),
        ("select a from t order\n by a limit 1 ;", True),
        ("SELECT a FROM t ORDER /* x */ BY a", True),
        ("SELECT a FROM (SELECT a FROM t ORDER BY a)", False),
        ("SELECT 'ORDER BY' FROM t", False),
        ("SELECT a FROM t -- ORDER BY a", False),
        ("SELECT \"order by\" FROM t WHERE b = 'it''s order by'", False),
        ("SELECT a FROM t WHERE a IN (SELECT b FROM u ORDER BY b) ORDER BY a", True),
        ("SELECT reorder, by FROM t", False),
    ],
)
def test_order_by_of_the_outermost_select(query: str, expected: bool) -> None:
    assert _orders(query) is expected


def test_a_reference_that_does_not_run_is_flagged_and_scores_0(database: Path) -> None:
    references = ["SELECT 1", "SELECT missing FROM city"]
    assert sql_flags(references, database)[0] == ""
    assert "no such column" in sql_flags(references, database)[1]
    result = evaluate("sql_execution", ["SELECT 1", references[1]], references, database=database)
    assert result.values.tolist() == [1, 0]
    assert (result.mean, result.n_flagged, result.n_empty) == (0.5, 1, 0)


def test_a_database_that_is_not_there_or_is_none(tmp_path: Path) -> None:
    with pytest.raises(MetricError, match="there is no database"):
        run_query("SELECT 1", tmp_path / "absent.sqlite")
    (tmp_path / "text.sqlite").write_text("no database at all, but long enough to be read as a header" * 20)
    with pytest.raises(MetricError, match="is not an SQLite database"):
        run_query("SELECT 1", tmp_path / "text.sqlite")
    with pytest.raises(MetricError, match="needs the option 'database'"):
        score_items("sql_execution", ["SELECT 1"], ["SELECT 1"])


def test_every_reference_of_geoquery_that_runs_equals_itself(shared: Path) -> None:
    database = shared / "data/geoquery/geography.sqlite"
    before = hashlib.sha256(database.read_bytes()).hexdigest()
    for name in ("pool", "test"):
        with gzip.open(shared / f"data/geoquery/{name}.jsonl.gz", "rt", encoding="utf-8") as lines:
            rows = [json.loads(line) for line in lines]
        gold = [row["query"] for row in rows]
        result = evaluate("sql_execution", gold, gold, database=database)
        runs = [float(row["sql_executes"]) for row in rows]
        assert result.values.tolist() == runs
        assert [not flag for flag in result.flags] == [bool(run) for run in runs]
        assert result.n_flagged == {"pool": 2, "test": 3}[name]
        # Gold queries shifted by one are mostly wrong: equality is not trivial.
        assert sql_execution(gold, gold[1:] + gold[:1], database).mean() < 0.7
    assert hashlib.sha256(database.read_bytes()).hexdigest() == before
