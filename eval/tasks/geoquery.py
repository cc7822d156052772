"""GeoQuery: SQL for a question about the geography of the United States, judged by what it returns."""

from __future__ import annotations

import contextlib
import functools
import re
import sqlite3
from pathlib import Path
from typing import Any

from icl_select.errors import DataError
from icl_select.types import Decoding, Example

from ._task import HubSource, Row, Task, TextLabel

DATABASE = "geography.sqlite"
ROWS_SHOWN = 3

# Where a query ends: a comment, a blank line, the end of the statement.
STOPS = ("--", "\n\n", ";", "#")


@functools.lru_cache(maxsize=4)
def _tables(database: Path) -> tuple[tuple[str, str, tuple[str, ...], tuple[tuple[Any, ...], ...]], ...]:
    """(name, DDL, columns, rows) of every table, in the order of creation."""
    try:
        with contextlib.closing(sqlite3.connect(f"{database.resolve().as_uri()}?mode=ro", uri=True)) as connection:
            found = []
            listed = connection.execute("SELECT name, sql FROM sqlite_master WHERE type = 'table' ORDER BY rowid")
            for name, ddl in listed.fetchall():
                cursor = connection.execute('SELECT * FROM "' + name.replace('"', '""') + '"')
                columns = tuple(column[0] for column in cursor.description)
                found.append((name, ddl, columns, tuple(cursor.fetchall())))
    except sqlite3.Error as exc:
        raise DataError(f"{database} cannot be read as an SQLite database ({exc}). Fetch it again.") from exc
    return tuple(found)


def serialised_schema(database: Path) -> str:
    """Tables with their columns in one line: ``state : state_name , population | city : ...``."""
    return " | ".join(f"{name} : {' , '.join(columns)}" for name, _, columns, _ in _tables(database))


def schema_prompt(database: Path, question: str) -> str:
    """DDL of every table, each followed by at most three rows that the question names.

    A row is named if one of its texts stands in the question as whole words.
    """
    words = f" {' '.join(re.findall(r'[a-z0-9.]+', question.lower()))} "
    parts = []
    for name, ddl, columns, rows in _tables(database):
        parts.append(f"{ddl.strip().rstrip(';')};")
        named = [row for row in rows if any(isinstance(v, str) and v and f" {v.lower()} " in words for v in row)]
        if named:
            lines = ["\t".join(columns)]
            lines += ["\t".join("" if value is None else str(value) for value in row) for row in named[:ROWS_SHOWN]]
            parts.append("/*\nRows of " + name + " named in the question:\n" + "\n".join(lines) + "\n*/")
    return "\n".join(parts)


def fields(row: Row, folder: Path | None) -> dict[str, Any]:
    """Question and query, with the schema in one line and as a prompt."""
    database = _database(folder)
    question = str(row["question"])
    return {
        "question": question,
        "query": row["query"],
        "serialised_schema": serialised_schema(database),
        "schema": schema_prompt(database, question),
    }


def options(folder: Path | None) -> dict[str, Any]:
    """The database that execution accuracy runs both queries on."""
    return {"database": _database(folder)}


def parse(text: str, example: Example, protocol: str) -> str:
    """``SELECT`` and what was written after it, up to the first stop.

    A model asked as a chat may repeat the ``SELECT`` that the prompt ends with; under "sound" it counts once.

    Examples
    --------
    >>> parse(" name FROM state ;\\n\\n-- what", Example("q", ""), "sound")
    'SELECT name FROM state'
    """
    repeated = protocol == "sound" and re.match(r"\s*SELECT\b", text, re.IGNORECASE) is not None
    query = text.strip() if repeated else f"SELECT{text}"
    return query[: min((place for stop in STOPS if (place := query.find(stop)) >= 0), default=len(query))].rstrip()


def _database(folder: Path | None) -> Path:
    if folder is None:
        raise DataError(
            f"geoquery needs the database {DATABASE} to run queries on, and the hub has none. "
            f"Pass --data-dir with a folder geoquery that holds {DATABASE}."
        )
    return folder / DATABASE


TASK = Task(
    name="geoquery",
    folder="geoquery",
    hub=HubSource("vaishali/geoQuery-tableQA", pool_split="train", test_split="test"),
    columns=("question", "query"),
    embedded="{question}\n{serialised_schema}",
    demonstration="-- {{ question }}\n{{ label }}",
    query="-- {{ question }}\nSELECT",
    separator="\n\n",
    instruction=(
        "{{ schema }}\n\n-- Using valid SQLite, answer the following questions for the tables provided above.\n"
    ),
    metric="sql_execution",
    label=TextLabel("query"),
    max_tokens=3800,
    prepare=fields,
    resources=(DATABASE,),
    metric_options=options,
    decoding=Decoding(max_tokens=320, stop=STOPS),
    published_decoding=Decoding(max_tokens=50, stop=STOPS, temperature=0.7),
    shorten="schema",
    parse=parse,
    published_query_centre=False,
    notes=(
        "The knn baseline copies the query of the nearest labelled question. Under the protocol 'published', answers "
        "are drawn at temperature 0.7 and end after 50 tokens, which is shorter than many of the gold queries; under "
        "'sound' they are the most likely tokens, 320 at most."
    ),
)
