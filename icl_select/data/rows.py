"""From rows to examples: ids, embedded text, labels, fields, each checked with its place in the source."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, TypedDict

from icl_select._fingerprint import fingerprint
from icl_select._template import field_names, fill
from icl_select.data.readers import Table
from icl_select.errors import DataError, LabelError, TemplateError, suggest
from icl_select.types import Example

__all__ = ["LabelWords", "RowOptions", "RowSpec", "build", "check_text", "label_string", "to_id"]

LabelWords = Sequence[str] | Mapping[str, str]

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

    @property
    def columns(self) -> Collection[str] | None:
        """Every column that can be used, or None for all."""
        if self.fields is None:
            return None
        text = self.text or "text"
        names = field_names(text) if "{" in text else [text]
        return {*self.fields, *names, self.id or "id", self.label or "label", "metadata"}


class _Draft(NamedTuple):
    """One row taken apart; its id is settled when all rows are known."""

    number: int
    given: str | None
    text: str
    fields: dict[str, Any]
    label: str | None
    metadata: Mapping[str, Any]


class _Parts(NamedTuple):
    """A row as it stands, before any conversion."""

    text: str
    fields: dict[str, Any]
    id: Any
    label: Any
    has_label: bool
    metadata: Mapping[str, Any]


def build(table: Table, spec: RowSpec) -> tuple[list[Example], int]:
    """Return the examples of `table` and the number of rows left out because their text is empty."""
    _check_spec(spec)
    drafts: list[_Draft] = []
    skipped, label_seen, first = 0, False, None
    words = spec.label_words if spec.label_words is not None else table.class_names.get(spec.label or "label")
    for number, row in table.rows:
        first = first or row
        where = table.at(number)
        parts = _split(row, spec, where)
        label_seen = label_seen or parts.has_label
        if parts.text and not parts.text.isspace():
            check_text(where, text=parts.text, **{f"field {name}": value for name, value in parts.fields.items()})
            given = to_id(parts.id, where, required=spec.id is not None)
            label = label_string(parts.label, where, words)
            drafts.append(_Draft(number, given, parts.text, parts.fields, label, parts.metadata))
        elif spec.skip_empty:
            skipped += 1
        else:
            raise DataError(
                f"{where}: the text is empty, and an empty text cannot be embedded. Fill it in, or pass "
                "skip_empty=True (--skip-empty) to leave such rows out."
            )
    if not drafts:
        tail = f": all {skipped} texts are empty" if skipped else ""
        raise DataError(f"{table.source} holds no rows{tail}. A pool needs at least one text.")
    if spec.label is not None and not label_seen:
        raise DataError(
            f"{table.source}: no row has the field {spec.label!r} that label= names.{suggest(spec.label, first or ())}"
        )
    ids = _unique_ids(table, drafts)
    examples = [Example(i, d.text, d.fields, d.label, d.metadata) for i, d in zip(ids, drafts, strict=True)]
    return examples, skipped


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


def to_id(value: Any, where: str, *, required: bool = False) -> str | None:
    """Return a given id as a string, None where there is none; whole numbers keep their digits."""
    if value is None or value == "":
        if required:
            raise DataError(f"{where}: the id is empty. Fill it in, or leave id= out to take a hash of the content.")
        return None
    if isinstance(value, float) and value.is_integer() and abs(value) < 2**53:
        value = int(value)  # how pandas stores a column of whole numbers with gaps
    if isinstance(value, bool) or not isinstance(value, (str, int)):
        raise DataError(f"{where}: the id {value!r} is a {type(value).__name__}. Ids are strings or whole numbers.")
    text = str(value)
    check_text(where, id=text)
    return text


def check_text(where: str, **values: Any) -> None:
    """Raise DataError if a string, also one inside a list or mapping, is no valid Unicode text."""
    for name, value in values.items():
        broken = _broken(value)
        if broken is not None:
            raise DataError(
                f"{where}: {name!r} holds U+{ord(broken):04X}, half of a surrogate pair, which no file or tokenizer "
                "takes. Repair the text, for example with text.encode('utf-8', 'replace').decode('utf-8')."
            )


def _broken(value: Any) -> str | None:
    """The first lone surrogate in `value`, if any."""
    if isinstance(value, str):
        if value.isascii():
            return None
        try:
            value.encode("utf-8")
        except UnicodeEncodeError as exc:
            return value[exc.start]
        return None
    if isinstance(value, dict):
        return next((found for pair in value.items() for item in pair if (found := _broken(item))), None)
    if isinstance(value, (list, tuple)):
        return next((found for item in value if (found := _broken(item))), None)
    return None


def label_string(value: Any, where: str, words: LabelWords | None = None) -> str | None:
    """Return a label as a string, None where there is none (null, or a blank string).

    Numbers keep their digits (``0`` is ``"0"``, ``1.0`` is ``"1"``), booleans become ``"true"`` and
    ``"false"``. With a sequence of `words`, class ids ``0, 1, ...`` become words and a string that is a word stays;
    with a mapping, its keys become its values. Anything else raises LabelError.
    """
    if isinstance(value, (list, tuple)) and len(value) == 1:
        value = value[0]
    if value is None or (isinstance(value, str) and (not value or value.isspace())):
        return None
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    if not isinstance(value, (str, int, float)):
        raise LabelError(f"{where}: the label is a {type(value).__name__}, but a label is one string or number.")
    if words is None:
        text = ("false", "true")[value] if isinstance(value, bool) else str(value)
        check_text(where, label=text)
        return text
    return _word(value, where, words)


def _word(value: str | float, where: str, words: LabelWords) -> str | None:
    text = ("false", "true")[value] if isinstance(value, bool) else str(value)
    if isinstance(words, Mapping):
        if text in words:
            return words[text]
    elif isinstance(value, int) or (text not in words and text.isdecimal() and len(text) < 10):
        if value == -1:  # how hub data sets mark a hidden label
            return None
        if 0 <= int(value) < len(words):
            return words[int(value)]
    known: Collection[str] = words.values() if isinstance(words, Mapping) else words
    if text in known and not isinstance(value, int):
        return text
    raise LabelError(
        f"{where}: the label {text!r} is not one of the {len(words)} label words.{suggest(text, set(known))}"
    )


def _unique_ids(table: Table, drafts: Sequence[_Draft]) -> list[str]:
    """Given ids, checked to be unique; elsewhere a content hash, repeats numbered -2, -3 ... in order."""
    places: dict[str, int] = {}
    for draft in drafts:
        if draft.given is None:
            continue
        if draft.given in places:
            raise DataError(
                f"{table.at(draft.number)}: the id {draft.given!r} was already given at {table.unit} "
                f"{places[draft.given]}. Ids must be unique; rename the field, or name another one with id=."
            )
        places[draft.given] = draft.number
    taken, repeats = set(places), dict[str, int]()
    ids: list[str] = []
    for draft in drafts:
        if draft.given is not None:
            ids.append(draft.given)
            continue
        base = fingerprint(draft.fields or {"text": draft.text})
        repeat = repeats.get(base, 0) + 1
        while (example_id := base if repeat == 1 else f"{base}-{repeat}") in taken:
            repeat += 1
        repeats[base] = repeat
        taken.add(example_id)
        ids.append(example_id)
    return ids
