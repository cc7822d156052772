"""Prodigy: JSON Lines for its ``choice`` interface (``text_input`` where there are no label words)."""

from __future__ import annotations

import datetime
from collections.abc import Mapping, Sequence
from typing import Any

from icl_select.data._checks import LabelWords
from icl_select.data._file import File
from icl_select.data._records import json_text
from icl_select.data.exchange.record import QUESTION, LabelFile, Reading, Task
from icl_select.data.readers import read_jsonl
from icl_select.errors import DataError

__all__ = ["dump", "load"]

_FREE_TEXT = "user_input"


def dump(tasks: Sequence[Task], label_words: Sequence[str] | None) -> str:
    """Tasks to annotate; a label that stands is selected beforehand."""
    lines = []
    for task in tasks:
        row: dict[str, Any] = {"text": task.text, "pool_id": task.id, "meta": task.metadata}
        if label_words is not None:
            row["options"] = [{"id": word, "text": word} for word in label_words]
            if task.label is not None:
                row["accept"] = [task.label]
        elif task.label is not None:
            row[_FREE_TEXT] = task.label
        lines.append(json_text(row) + "\n")
    return "".join(lines)


def load(file: File, label_words: LabelWords | None) -> LabelFile:
    """Labels of an export; only examples with the answer ``accept`` carry one."""
    reading = Reading(file, "prodigy", label_words)
    table = read_jsonl(file.path, source=file.name, plain_only=file.plain_only)
    for number, row in table.rows:
        where = table.at(number)
        meta = row.get("meta") or {}
        pool_id = row.get("pool_id", meta.get("pool_id") if isinstance(meta, dict) else None)
        if pool_id is None:
            raise DataError(
                f"{where}: no pool_id, which matches the example with the pool. Annotate tasks as written by "
                "export_tasks."
            )
        name = reading.example(pool_id, where)
        if row.get("answer") == "accept":
            annotator = row.get("_annotator_id") or row.get("_session_id")
            reading.label(name, _answer(row), where, annotator, _when(row.get("_timestamp"), where))
    return reading.done()


def _answer(row: Mapping[str, Any]) -> Any:
    """The accepted options, the free text, or the label that was accepted as a whole."""
    accepted = row.get("accept")
    if accepted is not None or "options" in row:
        return accepted or None
    return row.get(_FREE_TEXT, row.get(QUESTION))


def _when(timestamp: Any, where: str) -> str | None:
    if not isinstance(timestamp, (int, float)):
        return None
    try:
        return datetime.datetime.fromtimestamp(timestamp, tz=datetime.UTC).isoformat()
    except (OverflowError, ValueError, OSError) as exc:
        raise DataError(f"{where}: the _timestamp {timestamp!r} is no time in seconds since 1970 ({exc}).") from exc
