"""Labels in: the answers of people and labelling tools, read and merged into a pool by id.

Formats: ``csv``, ``jsonl``, ``label-studio`` (JSON and its XML configuration), ``argilla`` (records JSON) and
``prodigy`` (JSON Lines).
"""

from __future__ import annotations

import codecs
import json
from collections.abc import Sequence
from pathlib import Path

from icl_select.data._checks import LabelWords
from icl_select.data._file import File
from icl_select.data.exchange.formats import CODECS, FORMATS, format_name
from icl_select.data.exchange.record import LabelFile, json_array
from icl_select.data.merge import MergeReport, OnConflict, merge
from icl_select.data.pool import Pool
from icl_select.errors import DataError, LabelError

__all__ = ["import_labels", "read_labels"]


def read_labels(
    path: str | Path,
    format: str | None = None,
    *,
    label_words: LabelWords | None = None,
    source: str | None = None,
    plain_only: bool = False,
) -> LabelFile:
    """Read the labels that people gave.

    Parameters
    ----------
    path : str or Path
        CSV, JSON Lines, or an export of Label Studio, Argilla or Prodigy.
    format : str, optional
        One of :data:`FORMATS`; default: recognised by content.
    label_words : sequence or mapping, optional
        Labels that are allowed; see :class:`icl_select.data.Pool`.
    source : str, optional
        What messages call the file; default: its path.
    plain_only : bool, default=False
        Refuse gzip. The whole file is in memory, so its size is all that limits it.

    Returns
    -------
    LabelFile
        Unlabelled, skipped and rejected examples are fine: their ids are in ``ids``, without a record.

    Raises
    ------
    DataError
        If the file cannot be read, or is of no known format.
    LabelError
        If a label is outside `label_words`.
    ParameterError
        If `format` is unknown.
    """
    file = File.at(path, source, plain_only=plain_only)
    name = _detect(file) if format is None else format_name(format)
    return CODECS[name].load(file, label_words)


def import_labels(
    pool: Pool,
    path: str | Path,
    format: str | None = None,
    *,
    label_words: LabelWords | None = None,
    on_conflict: OnConflict = "error",
    expected: Sequence[str] = (),
) -> tuple[Pool, MergeReport]:
    """Merge a file of labels into a copy of the pool; `pool` itself does not change.

    Parameters
    ----------
    pool : Pool
    path : path
        CSV, JSON Lines, or an export of Label Studio, Argilla or Prodigy, matched by our ids.
    format : str, default=None
        One of ``FORMATS``; default: recognised by content.
    label_words : sequence or mapping, default=None
        Labels that are allowed; see :class:`icl_select.data.Pool`. Another label raises LabelError.
    on_conflict : {"error", "keep", "replace", "majority"}, default="error"
        What happens where annotators, or an old and a new label, disagree; see :func:`merge`.
    expected : sequence of str, default=()
        Ids that were exported, to report those that are missing.

    Returns
    -------
    pool : Pool
        The pool with the new labels.
    report : MergeReport

    Raises
    ------
    DataError
        If the file cannot be read.
    LabelError
        If a label is outside the label words, labels disagree (``on_conflict="error"``), or no id is the pool's.
    """
    file = read_labels(path, format, label_words=label_words)
    standing = {example.id: example.label for example in pool}
    if not any(name in standing for name in file.ids):
        raise LabelError(
            f"none of the {len(file.ids)} ids in {path} is in the pool, for example {file.ids[0]!r} (the pool's "
            f"first is {pool[0].id!r}). Pass the pool that the tasks were exported from, read with the same id=."
        )
    ids = dict.fromkeys([*file.ids, *expected])
    labels, report = merge(standing, file.records, on_conflict=on_conflict, expected=ids)
    return pool.copy().label(labels, overwrite=True), report


def _detect(file: File) -> str:
    """The format of a file of labels, by its first object."""
    with file.open() as stream:
        start = stream.read(65_536).removeprefix(codecs.BOM_UTF8).lstrip()
        if not start:
            raise DataError(f"{file} is empty. Export the labels again.")
        if start[:1] == b"{":
            stream.seek(0)
            line = stream.readline().removeprefix(codecs.BOM_UTF8) if b"\n" not in start else start.split(b"\n")[0]
            return "prodigy" if _keys(line) & {"answer", "_task_hash", "_input_hash", "options"} else "jsonl"
    if start[:1] != b"[":
        return "csv"
    keys = set(next(iter(json_array(file)), {}))
    if keys & {"data", "pool_id"}:
        return "label-studio"
    if "fields" in keys or any(key.endswith(".responses") for key in keys):
        return "argilla"
    raise DataError(
        f"{file}: the array's first object has the fields {', '.join(sorted(keys)) or '(none)'}, which is no known "
        f"format. Name it: format= one of {', '.join(FORMATS)}."
    )


def _keys(line: bytes) -> set[str]:
    try:
        row = json.loads(line)
    except (ValueError, RecursionError):
        return set()  # the reader of JSON Lines says what is wrong, and where
    return set(row) if isinstance(row, dict) else set()
