"""Ids, labels and texts as they stand in any source: converted where that is safe, refused where it is not."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any

from icl_select.errors import DataError, LabelError, suggest

__all__ = ["LabelWords", "check_text", "label_string", "to_id"]

LabelWords = Sequence[str] | Mapping[str, str]


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
        try:
            broken = _broken(value)
        except RecursionError as exc:
            raise DataError(f"{where}: {name!r} is nested too deeply to be checked. Flatten it.") from exc
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
