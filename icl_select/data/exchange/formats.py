"""The formats by name: how each is written and read."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

from icl_select.data._checks import LabelWords
from icl_select.data._file import File
from icl_select.data.exchange import argilla, label_studio, prodigy, tables
from icl_select.data.exchange.record import LabelFile, Task
from icl_select.errors import ParameterError, suggest

__all__ = ["CODECS", "FORMATS", "format_name"]


class Codec(NamedTuple):
    """How tasks are written, under which suffix, and how labels are read."""

    suffix: str
    dump: Callable[[Sequence[Task], Sequence[str] | None], str]
    load: Callable[[File, LabelWords | None], LabelFile]


CODECS = {
    "csv": Codec(".csv", tables.dump_csv, tables.load_csv),
    "jsonl": Codec(".jsonl", tables.dump_jsonl, tables.load_jsonl),
    "label-studio": Codec(".json", label_studio.dump, label_studio.load),
    "argilla": Codec(".json", argilla.dump, argilla.load),
    "prodigy": Codec(".jsonl", prodigy.dump, prodigy.load),
}

FORMATS = tuple(CODECS)


def format_name(name: str) -> str:
    """Return the name of a format as it is written here, or raise ParameterError."""
    known = name.lower().replace("_", "-")
    if known not in CODECS:
        raise ParameterError(f"the label format {name!r} is unknown.{suggest(known, FORMATS)} Pass format=.")
    return known
