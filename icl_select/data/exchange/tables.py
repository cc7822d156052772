"""CSV and JSON Lines: one row per example (or per example and annotator), with a column ``label``."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from pathlib import Path

from icl_select.data._records import json_text
from icl_select.data.exchange.record import LabelFile, LabelRecord, Reading, Task
from icl_select.data.readers import Table, read_csv, read_jsonl
from icl_select.data.rows import LabelWords
from icl_select.errors import DataError, suggest

__all__ = ["dump_csv", "dump_jsonl", "labels_to_csv", "labels_to_jsonl", "load_csv", "load_jsonl"]

_TASK_COLUMNS = ("id", "rank", "method", "gain", "text", "label")
_LABEL_COLUMNS = ("id", "label", "annotator", "created_at")


def dump_csv(tasks: Sequence[Task], label_words: Sequence[str] | None) -> str:
    """Tasks as CSV: id, rank, method, gain, text, and the label to fill in."""
    rows = [(t.id, t.rank, t.method, t.gain, t.text, t.label) for t in tasks]
    return _csv(_TASK_COLUMNS, rows)


def dump_jsonl(tasks: Sequence[Task], label_words: Sequence[str] | None) -> str:
    """Tasks as JSON Lines: id, rank, method, gain, text, fields, and the label to fill in."""
    lines = []
    for task in tasks:
        row = {"id": task.id, **task.metadata, "text": task.text}
        if task.own_fields:
            row["fields"] = task.own_fields
        lines.append(json_text({**row, "label": task.label}) + "\n")
    return "".join(lines)


def labels_to_csv(records: Sequence[LabelRecord]) -> str:
    """Labels as CSV, one row each."""
    return _csv(_LABEL_COLUMNS, [(r.id, r.label, r.annotator, r.created_at) for r in records])


def labels_to_jsonl(records: Sequence[LabelRecord]) -> str:
    """Labels as JSON Lines, one object each."""
    rows = ({name: getattr(record, name) for name in _LABEL_COLUMNS} for record in records)
    return "".join(json_text(row) + "\n" for row in rows)


def _csv(columns: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    stream = io.StringIO(newline="")
    writer = csv.writer(stream)  # RFC 4180: CR LF between rows, cells with quotes or line ends quoted
    writer.writerow(columns)
    writer.writerows(rows)
    return stream.getvalue()


def load_csv(path: Path, label_words: LabelWords | None) -> LabelFile:
    """Labels of a CSV file with the columns ``label`` and ``pool_id`` or ``id``."""
    return _load(read_csv(path), Reading(path, "csv", label_words))


def load_jsonl(path: Path, label_words: LabelWords | None) -> LabelFile:
    """Labels of a JSON Lines file with the fields ``label`` and ``pool_id`` or ``id``."""
    return _load(read_jsonl(path), Reading(path, "jsonl", label_words))


def _load(table: Table, reading: Reading) -> LabelFile:
    label_seen, names = False, set[str]()
    for number, row in table.rows:
        where = table.at(number)
        key = "pool_id" if "pool_id" in row else "id"
        if key not in row:
            raise DataError(f"{where}: no field 'id', which matches labels with the pool.{suggest('id', row)}")
        label_seen = label_seen or "label" in row
        names.update(row)
        name = reading.example(row[key], where)
        when = row.get("updated_at") or row.get("created_at")
        reading.label(name, row.get("label"), where, row.get("annotator"), when)
    if not label_seen and names:
        raise DataError(f"{table.source}: no row has the field 'label'.{suggest('label', names)}")
    return reading.done()
