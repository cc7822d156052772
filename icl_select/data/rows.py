"""From rows to examples: ids, embedded text, labels, fields, each checked with its place in the source."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, TypedDict

from icl_select._fingerprint import fingerprint
from icl_select._template import field_names, fill
from icl_select.data._checks import LabelWords, check_text, label_string, to_id
from icl_select.data.readers import Table
from icl_select.errors import DataError, LabelError, TemplateError, suggest
from icl_select.types import Example

__all__ = [
    "LabelWords",
    "Row",
    "RowOptions",
    "RowSpec",
    "Rows",
    "build",
    "check_text",
    "label_string",
    "read_rows",
    "to_id",
]

# The record that Pool.to_jsonl writes; a row of these keys alone, with an object of fields, is read as one.
_RECORD = frozenset({"id", "text", "fields", "label", "metadata"})


class RowOptions(TypedDict, total=False):
    """What every reader of a pool takes; see :class:`icl_select.data.Pool`."""

    text: str | None
    id: str | None
    label: str | None
    label_words: LabelWords | None
    fields: Sequence[str] | None
    skip_empty: bool


@dataclass(frozen=True)
class RowSpec:
    """How rows become examples."""

    text: str | None = None
    id: str | None = None
    label: str | None = None
    label_words: LabelWords | None = None
    fields: Sequence[str] | None = None
    skip_empty: bool = False

    def __post_init__(self) -> None:
        if self.text is not None and "{" in self.text and not field_names(self.text):
            raise TemplateError(
                f"the template {self.text!r} names no field, so the text of every row would be the same. Write field "
                "names in single braces, as in '{subject}: {body}'."
            )

    @property
    def columns(self) -> Collection[str] | None:
        """Every column that can be used, or None for all."""
        if self.fields is None:
            return None
        text = self.text or "text"
        names = field_names(text) if "{" in text else [text]
        return {*self.fields, *names, self.id or "id", self.label or "label", "metadata"}


class Row(NamedTuple):
    """One row taken apart and checked; its id is settled by who knows the other rows.

    Attributes
    ----------
    number : int
        Its place, counted as ``table.unit`` says.
    given : str or None
        The id that the row states.
    text : str
        What is embedded; never blank.
    fields : dict of str to object
    label : str or None
    metadata : mapping of str to object
    table : Table
        Where the row comes from.
    """

    number: int
    given: str | None
    text: str
    fields: dict[str, Any]
    label: str | None
    metadata: Mapping[str, Any]
    table: Table

    @property
    def where(self) -> str:
        """The place of the row, as the beginning of a message."""
        return self.table.at(self.number)

    @property
    def content_id(self) -> str:
        """Hash of the content, the id of a row that states none; rows of equal content share it."""
        return fingerprint(self.fields or {"text": self.text})


class _Parts(NamedTuple):
    """A row as it stands, before any conversion."""

    text: str
    fields: dict[str, Any]
    id: Any
    label: Any
    has_label: bool
    metadata: Mapping[str, Any]


class Rows(Iterator[Row]):
    """The rows of a table, one in memory at a time; see :func:`read_rows`.

    Attributes
    ----------
    skipped : int
        Rows left out so far because their text is empty.
    """

    def __init__(self, table: Table, spec: RowSpec) -> None:
        _check_spec(spec)
        self.skipped = 0
        self._rows = self._read(table, spec)

    def __next__(self) -> Row:
        return next(self._rows)

    def _read(self, table: Table, spec: RowSpec) -> Iterator[Row]:
        words = spec.label_words if spec.label_words is not None else table.class_names.get(spec.label or "label")
        empty, label_seen, first = True, False, list[str]()
        for number, fields in table.rows:
            first = first or list(fields)
            where = table.at(number)
            parts = _split(fields, spec, where)
            label_seen = label_seen or parts.has_label
            if not parts.text or parts.text.isspace():
                self._skip(where, spec)
                continue
            named = {f"field {name}": value for name, value in parts.fields.items()}
            names = {"names of fields": list(parts.fields)}
            check_text(where, text=parts.text, **named, **names, metadata=parts.metadata)
            given = to_id(parts.id, where, required=spec.id is not None)
            label = label_string(parts.label, where, words)
            empty = False
            yield Row(number, given, parts.text, parts.fields, label, parts.metadata, table)
        if empty:
            tail = f": all {self.skipped} texts are empty" if self.skipped else ""
            raise DataError(f"{table.source} holds no rows{tail}. A pool needs at least one text.")
        if spec.label is not None and not label_seen:
            raise DataError(
                f"{table.source}: no row has the field {spec.label!r} that label= names.{suggest(spec.label, first)}"
            )

    def _skip(self, where: str, spec: RowSpec) -> None:
        if not spec.skip_empty:
            raise DataError(
                f"{where}: the text is empty, and an empty text cannot be embedded. Fill it in, or pass "
                "skip_empty=True (--skip-empty) to leave such rows out."
            )
        self.skipped += 1


def read_rows(table: Table, spec: RowSpec) -> Rows:
    """Take the rows of a table apart, one after the other, each checked with its place.

    Parameters
    ----------
    table : Table
        Its rows are consumed while the result is.
    spec : RowSpec

    Returns
    -------
    Rows
        An iterator; what it left out is counted in ``skipped``. Memory does not grow with the rows.

    Raises
    ------
    DataError, LabelError
        At once, if `spec` cannot be. While iterating, at a row that is no example. At the end, if no row had a text,
        or none had the field that ``label=`` names.
    TemplateError
        While iterating, if a row lacks a field of the template.

    Examples
    --------
    >>> from icl_select.data.readers import read_records
    >>> rows = read_rows(read_records([{"id": 7, "text": "a"}, {"text": " "}], "items"), RowSpec(skip_empty=True))
    >>> [(row.where, row.given, row.text) for row in rows], rows.skipped
    ([('items, item 0', '7', 'a')], 1)
    """
    return Rows(table, spec)


def build(table: Table, spec: RowSpec) -> tuple[list[Example], int]:
    """Return the examples of `table` and the number of rows left out because their text is empty."""
    stream = read_rows(table, spec)
    rows = list(stream)
    ids = _unique_ids(rows)
    examples = [Example(i, row.text, row.fields, row.label, row.metadata) for i, row in zip(ids, rows, strict=True)]
    return examples, stream.skipped


def _check_spec(spec: RowSpec) -> None:
    if isinstance(spec.fields, str):
        raise DataError(f"fields={spec.fields!r} is one string. Pass a list of field names, such as [{spec.fields!r}].")
    if isinstance(spec.label_words, str):
        raise LabelError(f"label_words={spec.label_words!r} is one string. Pass a list of words, one for each class.")


def _split(row: Mapping[str, Any], spec: RowSpec, where: str) -> _Parts:
    nested = row.get("fields")
    if isinstance(nested, dict) and row.keys() <= _RECORD:
        return _split_record(row, nested, spec, where)
    fields = dict(row)
    text = _text(fields, spec, where)
    if spec.id is not None and spec.id not in fields:
        raise DataError(f"{where}: no field {spec.id!r}, which id= names.{suggest(spec.id, fields)}")
    label_name = spec.label or "label"
    has_label = label_name in fields
    raw_id, raw_label = fields.pop(spec.id or "id", None), fields.pop(label_name, None)
    metadata = fields.pop("metadata") if isinstance(fields.get("metadata"), dict) else {}
    return _Parts(text, _kept(fields, spec, where), raw_id, raw_label, has_label, metadata)


def _split_record(row: Mapping[str, Any], nested: dict[str, Any], spec: RowSpec, where: str) -> _Parts:
    """The parts of a record; what text=, id= and label= name is looked up in its fields first."""
    both = {**row, **nested}
    text = _text(both if spec.text else {**nested, **row}, spec, where)
    raw_id = both.get(spec.id) if spec.id else row.get("id")
    raw_label = both.get(spec.label) if spec.label else row.get("label")
    metadata = row.get("metadata") or {}
    if not isinstance(metadata, dict):
        raise DataError(f"{where}: the metadata of a record is an object, not a {type(metadata).__name__}.")
    return _Parts(text, _kept(dict(nested), spec, where), raw_id, raw_label, (spec.label or "label") in both, metadata)


def _kept(fields: dict[str, Any], spec: RowSpec, where: str) -> dict[str, Any]:
    if spec.fields is None:
        return fields
    missing = [name for name in spec.fields if name not in fields]
    if missing:
        raise DataError(f"{where}: no field {missing[0]!r}, which fields= names.{suggest(missing[0], fields)}")
    return {name: fields[name] for name in spec.fields}


def _text(fields: Mapping[str, Any], spec: RowSpec, where: str) -> str:
    """The text that is embedded; an empty string if the field is null."""
    if spec.text is not None and "{" in spec.text:
        try:
            return fill(spec.text, fields)
        except TemplateError as exc:
            raise TemplateError(f"{where}: {exc}") from exc
    name = spec.text or "text"
    if name not in fields:
        way = (
            "" if spec.text else " Say which text is embedded: text='FIELD', or a template such as '{subject}: {body}'."
        )
        raise DataError(f"{where}: no field {name!r}.{suggest(name, fields)}{way}")
    value = fields[name]
    if isinstance(value, str):
        return value
    if value is None:
        return ""
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        return str(value)
    raise DataError(f"{where}: the field {name!r} holds a {type(value).__name__}, but the embedded text is a string.")


def _unique_ids(rows: Sequence[Row]) -> list[str]:
    """Given ids, checked to be unique; elsewhere a content hash, repeats numbered -2, -3 ... in order."""
    places: dict[str, int] = {}
    for row in rows:
        if row.given is None:
            continue
        if row.given in places:
            raise DataError(
                f"{row.where}: the id {row.given!r} was already given at {row.table.unit} {places[row.given]}. Ids "
                "must be unique; rename the field, or name another one with id=."
            )
        places[row.given] = row.number
    taken, repeats = set(places), dict[str, int]()
    ids: list[str] = []
    for row in rows:
        if row.given is not None:
            ids.append(row.given)
            continue
        base = row.content_id
        repeat = repeats.get(base, 0) + 1
        while (example_id := base if repeat == 1 else f"{base}-{repeat}") in taken:
            repeat += 1
        repeats[base] = repeat
        taken.add(example_id)
        ids.append(example_id)
    return ids
