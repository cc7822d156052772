"""CSV and JSON Lines: one row per example (or per example and annotator), with a column ``label``."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Iterator, Sequence

from icl_select.data._checks import LabelWords
from icl_select.data._file import File
from icl_select.data._records import json_text
from icl_select.data.exchange.record import LabelFile, LabelRecord, Reading, Task
from icl_select.data.readers import Table, read_csv, read_jsonl
from icl_select.errors import DataError, suggest

__all__ = ["dump_csv", "dump_jsonl", "labels_to_csv", "labels_to_jsonl", "load_csv", "load_jsonl"]

_TASK_COLUMNS = ("id", "rank", "method", "gain", "text", "label")
_LABEL_COLUMNS = ("id", "label", "annotator", "created_at")


def dump_csv(tasks: Sequence[Task], label_words: Sequence[str] | None) -> str:
    """Tasks as CSV: id, rank, method, gain, text, and the label to fill in."""
    rows = [(t.id, t.rank, t.method, t.gain, t.text, t.label) for t in tasks]
    return _csv(_TASK_COLUMNS, *rows)


def dump_jsonl(tasks: Sequence[Task], label_words: Sequence[str] | None) -> str:
    """Tasks as JSON Lines: id, rank, method, gain, text, fields, and the label to fill in."""
    lines = []
    for task in tasks:
        row = {"id": task.id, **task.metadata, "text": task.text}
        if task.own_fields:
            row["fields"] = task.own_fields
        lines.append(json_text({**row, "label": task.label}) + "\n")
    return "".join(lines)


def labels_to_csv(records: Iterable[LabelRecord]) -> Iterator[str]:
    """Labels as CSV: the header, then one row each."""
    yield _csv(_LABEL_COLUMNS)
    for record in records:
        yield _csv(_values(record))


def labels_to_jsonl(records: Iterable[LabelRecord]) -> Iterator[str]:
    """Labels as JSON Lines, one object each."""
    for record in records:
        yield json_text(dict(zip(_LABEL_COLUMNS, _values(record), strict=True))) + "\n"


def _values(record: LabelRecord) -> tuple[str | None, ...]:
    return record.id, record.label, record.annotator, record.created_at


def _csv(*rows: Sequence[object]) -> str:
    stream = io.StringIO(newline="")
    csv.writer(stream).writerows(rows)  # RFC 4180: CR LF between rows, cells with quotes or line ends quoted
    return stream.getvalue()


def load_csv(file: File, label_words: LabelWords | None) -> LabelFile:
    """Labels of a CSV file with the columns ``label`` and ``pool_id`` or ``id``."""
    table = read_csv(file.path, source=file.name, plain_only=file.plain_only)
    return _load(table, Reading(file, "csv", label_words))


def load_jsonl(file: File, label_words: LabelWords | None) -> LabelFile:
    """Labels of a JSON Lines file with the fields ``label`` and ``pool_id`` or ``id``."""
    table = read_jsonl(file.path, source=file.name, plain_only=file.plain_only)
    return _load(table, Reading(file, "jsonl", label_words))


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
