"""SQL execution accuracy on SQLite, with queries that nobody has checked."""

from __future__ import annotations

import contextlib
import re
import sqlite3
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from icl_select.errors import MetricError
from icl_select.types import FloatArray

__all__ = ["Result", "run_query", "same_result", "sql_execution", "sql_flags"]

Row = tuple[Any, ...]

# Reading is all a query may do; functions that reach files, load code, or answer differently each time are out.
_READS = frozenset([sqlite3.SQLITE_SELECT, sqlite3.SQLITE_READ, sqlite3.SQLITE_FUNCTION, sqlite3.SQLITE_RECURSIVE])
_FORBIDDEN = frozenset(
    ["load_extension", "readfile", "writefile", "edit", "fts3_tokenizer", "random", "randomblob", "sqlite_log"]
)
# Instructions of the virtual machine between two looks at the limits.
_TICK = 2000


@dataclass(frozen=True)
class Result:
    """What a query returned, or in `error` why it returned nothing."""

    rows: tuple[Row, ...] = ()
    columns: int = 0
    error: str = ""


@dataclass(frozen=True)
class _Limits:
    steps: int
    seconds: float
    rows: int
    cells: int
    cell_bytes: int


def sql_execution(
    predictions: Sequence[str],
    references: Sequence[str],
    database: str | Path,
    *,
    max_steps: int = 50_000_000,
    max_seconds: float = 10.0,
    max_rows: int = 100_000,
    max_cells: int = 1_000_000,
    max_cell_bytes: int = 100_000,
) -> FloatArray:
    """1 where the predicted query returns what the reference query returns, 0 elsewhere.

    Results are equal if they have as many columns and the same rows as often; in the same order only if the
    reference orders its rows. Names of columns do not count; numbers are equal to ten digits.

    A predicted query that fails, writes, runs too long or returns too much scores 0, as does every prediction for
    a reference that fails; :func:`sql_flags` lists those references. All of them keep their place in the mean.

    Parameters
    ----------
    predictions, references : sequence of str
        One SELECT each.
    database : str or Path
        An SQLite file. It is opened read-only and immutable: no lock, no journal, no change.
    max_steps : int, default=50_000_000
        Virtual-machine instructions of one query (about half a second). This limit, and not the clock, decides on
        ordinary runs, so that a score does not depend on the machine.
    max_seconds : float, default=10.0
        A second limit for instructions that are slow by themselves.
    max_rows, max_cells : int
        Rows and cells that are read of one result; a cell counts once more for every 100 bytes of its text.
    max_cell_bytes : int, default=100_000
        Longest text or blob that a query may read or build.

    Returns
    -------
    ndarray of shape (n,), float64

    Raises
    ------
    MetricError
        If the database cannot be opened.

    Notes
    -----
    Queries come from models, so the connection may only read: the authorizer refuses everything but SELECT and
    deterministic functions (no ATTACH, PRAGMA, load_extension, writing, transactions). Equal queries run once.
    """
    limits = _Limits(max_steps, max_seconds, max_rows, max_cells, max_cell_bytes)
    known: dict[str, Result] = {}
    with contextlib.closing(_open(database, limits)) as connection:

        def run(query: str) -> Result:
            if query not in known:
                known[query] = _run(connection, query, limits)
            return known[query]

        pairs = list(zip(predictions, references, strict=True))
        return np.array([float(same_result(run(p), run(r), ordered=_orders(r))) for p, r in pairs])


def sql_flags(
    references: Sequence[str],
    database: str | Path,
    *,
    max_steps: int = 50_000_000,
    max_seconds: float = 10.0,
    max_rows: int = 100_000,
    max_cells: int = 1_000_000,
    max_cell_bytes: int = 100_000,
) -> list[str]:
    """Say of each reference query why it cannot be compared with; empty where it can.

    Parameters are those of :func:`sql_execution`.
    """
    limits = _Limits(max_steps, max_seconds, max_rows, max_cells, max_cell_bytes)
    with contextlib.closing(_open(database, limits)) as connection:
        errors = {query: _run(connection, query, limits).error for query in dict.fromkeys(references)}
    return [f"the reference query does not run: {errors[r]}" if errors[r] else "" for r in references]


def run_query(
    query: str,
    database: str | Path,
    *,
    max_steps: int = 50_000_000,
    max_seconds: float = 10.0,
    max_rows: int = 100_000,
    max_cells: int = 1_000_000,
    max_cell_bytes: int = 100_000,
) -> Result:
    """Run one query within the limits of :func:`sql_execution`; a failure is in the result, not raised.

    Parameters
    ----------
    query : str
        One SELECT.
    database : str or Path
        An SQLite file, opened as in :func:`sql_execution`.
    max_steps, max_seconds, max_rows, max_cells, max_cell_bytes
        Limits, as in :func:`sql_execution`.

    Returns
    -------
    Result

    Raises
    ------
    MetricError
        If the database cannot be opened.
    """
    limits = _Limits(max_steps, max_seconds, max_rows, max_cells, max_cell_bytes)
    with contextlib.closing(_open(database, limits)) as connection:
        return _run(connection, query, limits)


def same_result(predicted: Result, reference: Result, *, ordered: bool) -> bool:
    """Whether two results are equal; failures equal nothing.

    Parameters
    ----------
    predicted, reference : Result
        What two queries returned.
    ordered : bool
        Compare the rows as lists; else as bags, in which each row counts as often as it comes.

    Returns
    -------
    bool
    """
    if predicted.error or reference.error or predicted.columns != reference.columns:
        return False
    ours, theirs = [list(map(_key, result.rows)) for result in (predicted, reference)]
    return ours == theirs if ordered else Counter(ours) == Counter(theirs)


def _key(row: Row) -> Row:
    """A row as compared: fractions to ten digits, so that sums taken in another order stay equal."""
    return tuple(float(f"{cell:.10g}") if isinstance(cell, float) and not cell.is_integer() else cell for cell in row)


def _open(database: str | Path, limits: _Limits) -> sqlite3.Connection:
    path = Path(database)
    if not path.is_file():
        raise MetricError(f"there is no database {path}. Pass the path of an SQLite file as database=...")
    connection = sqlite3.connect(
        f"{path.resolve().as_uri()}?mode=ro&immutable=1", uri=True, isolation_level=None, cached_statements=0
    )
    try:
        connection.execute("SELECT count(*) FROM sqlite_master").fetchone()
    except sqlite3.DatabaseError as exc:
        connection.close()
        raise MetricError(f"{path} is not an SQLite database ({exc}). Fetch it again.") from exc
    connection.setlimit(sqlite3.SQLITE_LIMIT_LENGTH, limits.cell_bytes)
    connection.setlimit(sqlite3.SQLITE_LIMIT_SQL_LENGTH, 100_000)
    connection.setlimit(sqlite3.SQLITE_LIMIT_EXPR_DEPTH, 200)
    connection.setlimit(sqlite3.SQLITE_LIMIT_LIKE_PATTERN_LENGTH, 200)
    connection.setlimit(sqlite3.SQLITE_LIMIT_ATTACHED, 0)
    connection.setlimit(sqlite3.SQLITE_LIMIT_WORKER_THREADS, 0)
    connection.text_factory = lambda raw: raw.decode("utf-8", "surrogateescape")
    connection.set_authorizer(_authorise)
    return connection


def _authorise(action: int, first: str | None, second: str | None, base: str | None, trigger: str | None) -> int:
    if action not in _READS:
        return sqlite3.SQLITE_DENY
    if action == sqlite3.SQLITE_FUNCTION and (second or "").lower() in _FORBIDDEN:
        return sqlite3.SQLITE_DENY
    return sqlite3.SQLITE_OK


def _run(connection: sqlite3.Connection, query: str, limits: _Limits) -> Result:
    if not query.strip():
        return Result(error="empty query")
    watch = _Watch(limits)
    connection.set_progress_handler(watch, _TICK)
    try:
        return _read(connection.execute(query), limits)
    except (sqlite3.Error, sqlite3.Warning, UnicodeEncodeError, ValueError, OverflowError) as exc:
        return Result(error=watch.reason or str(exc) or type(exc).__name__)
    finally:
        connection.set_progress_handler(None, 0)


def _read(cursor: sqlite3.Cursor, limits: _Limits) -> Result:
    with contextlib.closing(cursor):
        if cursor.description is None:
            return Result(error="the query returns no table")
        columns = len(cursor.description)
        rows: list[Row] = []
        cells = 0
        for row in cursor:
            cells += sum(1 + len(cell) // 100 if isinstance(cell, (str, bytes)) else 1 for cell in row)
            if len(rows) == limits.rows or cells > limits.cells:
                return Result(error=f"more rows or cells than allowed, at row {len(rows) + 1} of {columns} columns")
            rows.append(row)
    return Result(tuple(rows), columns)


class _Watch:
    """Progress handler: a truthy answer ends the query."""

    def __init__(self, limits: _Limits) -> None:
        self.steps_left = limits.steps
        self.end = time.monotonic() + limits.seconds
        self.reason = ""

    def __call__(self) -> int:
        self.steps_left -= _TICK
        if self.steps_left < 0:
            self.reason = "more steps than allowed"
        elif time.monotonic() > self.end:
            self.reason = "more time than allowed"
        return bool(self.reason)


_LEXEME = re.compile(r"'(?:[^']|'')*'|\"(?:[^\"]|\"\")*\"|`[^`]*`|\[[^\]]*\]|--[^\n]*|/\*.*?(?:\*/|$)|\w+|.", re.DOTALL)


def _orders(query: str) -> bool:
    """Whether the outermost SELECT has an ORDER BY; those in brackets, strings and comments do not count."""
    depth, before = 0, ""
    for lexeme in _LEXEME.findall(query):
        word = lexeme.lower()
        if word.isspace() or word.startswith(("--", "/*")):
            continue
        depth += (word == "(") - (word == ")")
        if depth == 0 and before == "order" and word == "by":
            return True
        before = word
    return False
