"""Examples as lines of a pool file, and the checks that every example passes."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from icl_select.data.rows import check_text
from icl_select.errors import DataError, LabelError, suggest
from icl_select.types import Example

__all__ = ["check_example", "check_label", "dump", "json_text", "to_record"]


def json_text(value: Any, *, indent: int | None = None, sort: bool = False) -> str:
    """JSON with readable Unicode, in which nothing inside a string looks like a line end."""
    text = json.dumps(value, ensure_ascii=False, allow_nan=False, indent=indent, sort_keys=sort)
    # Legal inside JSON strings, but many readers take them for line ends.
    for mark, escape in (("\u2028", "\\u2028"), ("\u2029", "\\u2029"), ("\x85", "\\u0085")):
        text = text.replace(mark, escape)
    return text


def to_record(example: Example) -> dict[str, Any]:
    """The line of a pool file; :mod:`icl_select.data.rows` reads it back."""
    record = {"id": example.id, "text": example.text, "fields": dict(example.fields), "label": example.label}
    return {**record, "metadata": dict(example.metadata)} if example.metadata else record


def dump(example: Example, value: Any, *, sort: bool = False) -> bytes:
    """`value`, made from `example`, as JSON in UTF-8; DataError if it holds what JSON cannot."""
    try:
        return json_text(value, sort=sort).encode("utf-8")
    except (TypeError, ValueError) as exc:
        raise DataError(
            f"the example {example.id!r} holds a value that JSON cannot ({exc}). Convert it to a string or number."
        ) from exc


def check_example(where: str, example: Any) -> None:
    """Raise the error that says why `example` cannot stand in a pool, if so."""
    if not isinstance(example, Example):
        raise DataError(
            f"{where} is a {type(example).__name__}, not an Example. Use Pool.from_texts for strings and "
            "Pool.from_records for mappings."
        )
    if not isinstance(example.id, str) or not example.id:
        raise DataError(f"{where} has the id {example.id!r}. Ids are strings that are not empty.")
    if not isinstance(example.text, str) or not example.text or example.text.isspace():
        raise DataError(f"{where} (id {example.id!r}) has no text, and an empty text cannot be embedded. Leave it out.")
    check_label(f"{where} (id {example.id!r})", example.label, None)
    check_text(f"{where} (id {example.id!r})", id=example.id, text=example.text, fields=example.fields)
    check_text(f"{where} (id {example.id!r})", label=example.label, metadata=example.metadata)


def check_label(where: str, label: Any, words: Sequence[str] | None) -> None:
    """Raise LabelError unless `label` is None, or a word that is not blank and among `words`."""
    if label is None:
        return
    if not isinstance(label, str) or not label or label.isspace():
        raise LabelError(f"{where}: the label {label!r} is no word. Labels are strings; None means unlabelled.")
    check_text(where, label=label)
    if words is not None and label not in words:
        raise LabelError(
            f"{where}: the label {label!r} is not one of the {len(words)} label words.{suggest(label, words)}"
        )
