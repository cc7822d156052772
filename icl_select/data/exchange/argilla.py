"""Argilla: records as its ``to_json`` writes and ``from_json`` reads them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from icl_select.data._checks import LabelWords
from icl_select.data._file import File
from icl_select.data._records import json_text
from icl_select.data.exchange.record import (
    QUESTION,
    LabelFile,
    Reading,
    Task,
    json_array,
    list_at,
    object_at,
    objects_at,
    only_question,
)
from icl_select.errors import DataError

__all__ = ["dump", "load"]


def dump(tasks: Sequence[Task], label_words: Sequence[str] | None) -> str:
    """Records to log into a data set with the field ``text`` and the question ``label``.

    A label that stands becomes a suggestion.
    """
    records = []
    for task in tasks:
        suggestion = {"value": task.label, "score": None, "agent": "label before export"}
        records.append(
            {
                "id": task.id,
                "fields": {"text": task.text},
                "metadata": {"pool_id": task.id, **task.metadata},
                "suggestions": {} if task.label is None else {QUESTION: suggestion},
                "responses": {},
                "vectors": {},
            }
        )
    return json_text(records, indent=1) + "\n"


def load(file: File, label_words: LabelWords | None) -> LabelFile:
    """Labels of exported records, nested or flattened; drafts and discarded responses are left out."""
    reading = Reading(file, "argilla", label_words)
    for position, record in enumerate(json_array(file)):
        where = f"{file}, record {position}"
        metadata = object_at(record, "metadata", where)
        name = reading.example(metadata.get("pool_id", record.get("pool_id", record.get("id"))), where)
        for value, annotator, status in _responses(record, where):
            if status in (None, "submitted"):
                reading.label(name, value, where, annotator)
    return reading.done()


def _responses(record: Mapping[str, Any], where: str) -> Iterator[tuple[Any, Any, Any]]:
    """Value, annotator and status of each response to the label question."""
    nested = record.get("responses")
    if nested is None:
        yield from _flat_responses(record, where)
        return
    if not isinstance(nested, dict):
        raise DataError(f"{where}: responses is a {type(nested).__name__}, but Argilla writes an object of questions.")
    question = only_question([name for name, answers in nested.items() if answers], where)
    for answer in objects_at(nested, question, where) if question else ():
        yield answer.get("value"), answer.get("user_id"), answer.get("status")


def _flat_responses(record: Mapping[str, Any], where: str) -> Iterator[tuple[Any, Any, Any]]:
    suffix = ".responses"
    question = only_question([key.removesuffix(suffix) for key in record if key.endswith(suffix)], where)
    values = list_at(record, f"{question}{suffix}", where)
    users = list_at(record, f"{question}{suffix}.users", where) or [None] * len(values)
    statuses = list_at(record, f"{question}{suffix}.status", where) or [None] * len(values)
    if not len(values) == len(users) == len(statuses):
        raise DataError(
            f"{where}: {len(values)} responses, but {len(users)} users and {len(statuses)} statuses. Export the "
            "records again."
        )
    yield from zip(values, users, statuses, strict=True)
