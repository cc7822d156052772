"""The canonical records that every exchange format is read into and written from."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from icl_select.data._checks import LabelWords, check_text, label_string, to_id
from icl_select.data._file import File
from icl_select.errors import DataError

__all__ = [
    "QUESTION",
    "LabelFile",
    "LabelRecord",
    "Reading",
    "Task",
    "json_array",
    "list_at",
    "object_at",
    "objects_at",
    "only_question",
]

# Name of the one question that exported tasks ask.
QUESTION = "label"


@dataclass(frozen=True)
class LabelRecord:
    """One label that one annotator gave to one example.

    ``created_at`` is when it was made or last changed, as the tool wrote it (ISO 8601 in every tool known here).
    """

    id: str
    label: str
    annotator: str | None = None
    created_at: str | None = None


@dataclass(frozen=True)
class LabelFile:
    """What a file of labels holds: the labels, and every id it names, labelled or not, in file order."""

    format: str
    records: tuple[LabelRecord, ...]
    ids: tuple[str, ...]


@dataclass(frozen=True)
class Task:
    """One example that is to be labelled; ``rank`` 1 comes first."""

    id: str
    text: str
    rank: int
    label: str | None = None
    gain: float | None = None
    method: str = ""
    fields: Mapping[str, Any] = field(default_factory=dict)

    @property
    def metadata(self) -> dict[str, Any]:
        """What is known of the pick: rank, method, gain."""
        known = {"rank": self.rank, "method": self.method or None, "gain": self.gain}
        return {name: value for name, value in known.items() if value is not None}

    @property
    def own_fields(self) -> dict[str, Any]:
        """The fields, unless they say no more than the text."""
        return {} if dict(self.fields) == {"text": self.text} else dict(self.fields)


class Reading:
    """Collects ids and labels while a file is read; every value is checked and converted once, here."""

    def __init__(self, file: File, format_name: str, label_words: LabelWords | None) -> None:
        self._file = file
        self._format = format_name
        self._words = label_words
        self._records: list[LabelRecord] = []
        self._ids: dict[str, None] = {}

    def example(self, value: Any, where: str) -> str:
        """Note an id of the pool, and return it as a string."""
        name = to_id(value, where)
        if name is None:
            raise DataError(f"{where}: the id, which matches labels with the pool, is empty. Fill it in.")
        self._ids.setdefault(name)
        return name

    def label(self, name: str, value: Any, where: str, annotator: Any = None, created_at: Any = None) -> None:
        """Note a label; null and blank ones mean unlabelled."""
        label = label_string(value, where, self._words)
        if label is not None:
            who, when = _text_or_none(annotator, "annotator", where), _text_or_none(created_at, "time", where)
            self._records.append(LabelRecord(name, label, who, when))

    def done(self) -> LabelFile:
        """What was read; DataError if it is nothing."""
        if not self._ids:
            raise DataError(f"{self._file} holds no examples. Export the labels again from the labelling tool.")
        return LabelFile(self._format, tuple(self._records), tuple(self._ids))


def _text_or_none(value: Any, name: str, where: str) -> str | None:
    if value is None or value == "":
        return None
    if not isinstance(value, (str, int, float)):
        raise DataError(f"{where}: the {name} is a {type(value).__name__}, but it is one string or number.")
    check_text(where, **{name: value})
    return str(value)


def json_array(file: File) -> list[dict[str, Any]]:
    """Read a JSON array of objects, or raise DataError that says where it breaks."""
    with file.open() as stream:
        content = stream.read()
    try:
        items = json.loads(content.decode("utf-8-sig"))
    except UnicodeDecodeError as exc:
        raise DataError(
            f"{file}: byte {exc.start} is not UTF-8 ({exc.reason}). Export the file again as UTF-8."
        ) from exc
    except (ValueError, RecursionError) as exc:
        raise DataError(f"{file} is not JSON ({exc}). Expected one array of objects, as the tool exports it.") from exc
    if not isinstance(items, list):
        raise DataError(f"{file} holds a JSON {type(items).__name__}. Expected one array of objects.")
    for position, item in enumerate(items):
        if not isinstance(item, dict):
            raise DataError(f"{file}, item {position}: a {type(item).__name__}, but each item is an object.")
    return items


def only_question(names: Sequence[str], where: str) -> str | None:
    """The question that carries the label: the one named ``label``, else the only one; None if there is none."""
    distinct = list(dict.fromkeys(names))
    if QUESTION in distinct or not distinct:
        return QUESTION if distinct else None
    if len(distinct) > 1:
        raise DataError(
            f"{where}: answers several questions ({', '.join(distinct)}), none of them named {QUESTION!r}. Name the "
            f"one that holds the label {QUESTION!r}."
        )
    return distinct[0]


def object_at(record: Mapping[str, Any], name: str, where: str) -> dict[str, Any]:
    """The object that a record holds under a name, empty where there is none; DataError if it is something else."""
    value = record.get(name) or {}
    if not isinstance(value, dict):
        raise DataError(f"{where}: {name} is a {type(value).__name__}, but the tool writes an object there.")
    return value


def list_at(record: Mapping[str, Any], name: str, where: str) -> list[Any]:
    """The list that a record holds under a name, empty where there is none; DataError if it is something else."""
    value = record.get(name) or []
    if not isinstance(value, list):
        raise DataError(f"{where}: {name} is a {type(value).__name__}, but the tool writes a list there.")
    return value


def objects_at(record: Mapping[str, Any], name: str, where: str) -> list[dict[str, Any]]:
    """The list of objects that a record holds under a name; DataError if it is something else."""
    items = list_at(record, name, where)
    for item in items:
        if not isinstance(item, dict):
            raise DataError(f"{where}: {name} holds a {type(item).__name__}, but the tool writes objects there.")
    return items
