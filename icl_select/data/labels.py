"""Labels in and out: tasks for labelling tools, and their answers merged back by id.

Formats: ``csv``, ``jsonl``, ``label-studio`` (JSON and its XML configuration), ``argilla`` (records JSON) and
``prodigy`` (JSON Lines).
"""

from __future__ import annotations

import codecs
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Literal, NamedTuple

from icl_select._files import atomic_write
from icl_select.data.exchange import argilla, label_studio, prodigy, tables
from icl_select.data.exchange.record import LabelFile, LabelRecord, Task, json_array
from icl_select.data.merge import MergeReport, OnConflict, merge
from icl_select.data.pool import Pool
from icl_select.data.readers import existing, open_bytes
from icl_select.data.rows import LabelWords
from icl_select.errors import DataError, LabelError, ParameterError, suggest
from icl_select.types import IntArray, Selection

__all__ = ["FORMATS", "export_tasks", "import_labels", "read_labels", "write_labels"]

Format = Literal["csv", "jsonl", "label-studio", "argilla", "prodigy"]


class _Codec(NamedTuple):
    dump: Callable[[Sequence[Task], Sequence[str] | None], str]
    load: Callable[[Path, LabelWords | None], LabelFile]


_CODECS = {
    "csv": _Codec(tables.dump_csv, tables.load_csv),
    "jsonl": _Codec(tables.dump_jsonl, tables.load_jsonl),
    "label-studio": _Codec(label_studio.dump, label_studio.load),
    "argilla": _Codec(argilla.dump, argilla.load),
    "prodigy": _Codec(prodigy.dump, prodigy.load),
}

FORMATS = tuple(_CODECS)


def export_tasks(
    pool: Pool,
    indices: Sequence[int] | IntArray | None,
    path: str | Path,
    format: str | None = None,
    *,
    label_words: Sequence[str] | None = None,
    selection: Selection | None = None,
) -> list[Path]:
    """Write examples as tasks for people or a labelling tool, in the order they should be labelled.

    Parameters
    ----------
    pool : Pool
    indices : sequence of int, or None
        Pool indices in labelling order; None takes those of `selection`.
    path : path
        File to write; the old file or the whole new one is there, also after a crash.
    format : {"csv", "jsonl", "label-studio", "argilla", "prodigy"}, default=None
        Default: by the suffix, ``.csv`` or ``.jsonl``.
    label_words : sequence of str, default=None
        The labels to choose from; without them tools ask for free text.
    selection : Selection, default=None
        Where method and gain of each task come from.

    Returns
    -------
    list of Path
        What was written: for Label Studio also its configuration, beside the tasks as ``.xml``.

    Raises
    ------
    LabelError
        If `label_words` is no list of different words, or an example bears another label.
    ParameterError
        If neither `indices` nor `selection` is given, an index is outside the pool, or the format is unknown.
    StoreError
        If the file cannot be written.
    """
    path = Path(path)
    name = _format_name(format or path.suffix.lstrip("."))
    words = _check_words(label_words)
    tasks = _tasks(pool, indices, selection, words)
    contents = {path: _CODECS[name].dump(tasks, words)}
    if name == "label-studio":
        if path.suffix == ".xml":
            raise ParameterError(f"{path} would hold both tasks and configuration. Name the tasks with .json.")
        contents = {path.with_suffix(".xml"): label_studio.config(words), **contents}
    for target, content in contents.items():
        atomic_write(target, content.encode("utf-8"))
    return sorted(contents, key=lambda target: target != path)


def _tasks(
    pool: Pool, indices: Sequence[int] | IntArray | None, selection: Selection | None, words: Sequence[str] | None
) -> list[Task]:
    if indices is None:
        if selection is None:
            raise ParameterError("neither indices nor a selection says which examples to export. Pass one of them.")
        indices = selection.indices
    gains = {} if selection is None else dict(zip(selection.indices.tolist(), selection.gains.tolist(), strict=True))
    method = "" if selection is None else selection.method
    chosen = pool.subset(indices)
    tasks = []
    for rank, (example, index) in enumerate(zip(chosen, indices, strict=True), 1):
        if words is not None and example.label is not None and example.label not in words:
            raise LabelError(
                f"the example {example.id!r} is labelled {example.label!r}, which is not one of the {len(words)} label "
                f"words.{suggest(example.label, words)}"
            )
        gain = gains.get(int(index))
        tasks.append(Task(example.id, example.text, rank, example.label, gain, method, example.fields))
    return tasks


def _check_words(words: Sequence[str] | None) -> list[str] | None:
    if words is None:
        return None
    if isinstance(words, str) or not all(isinstance(word, str) and word.strip() for word in words):
        raise LabelError(f"label_words={words!r} is no list of words. Pass strings that are not blank.")
    if not words or len(set(words)) < len(words):
        raise LabelError(f"label_words={list(words)!r} is empty or names a word twice. Pass each label once.")
    return list(words)


def read_labels(
    path: str | Path,
    format: str | None = None,
    *,
    label_words: LabelWords | None = None,
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
    path = existing(path)
    name = _detect(path) if format is None else _format_name(format)
    return _CODECS[name].load(path, label_words)


def write_labels(records: Sequence[LabelRecord], path: str | Path) -> Path:
    """Write labels, one row each.

    Parameters
    ----------
    records : sequence of LabelRecord
    path : str or Path
        CSV or JSON Lines by its suffix, ``.csv`` or ``.jsonl``.

    Returns
    -------
    Path
        The file that was written.

    Raises
    ------
    ParameterError
        If the suffix is another.
    StoreError
        If the file cannot be written.
    """
    path = Path(path)
    dumps = {".csv": tables.labels_to_csv, ".jsonl": tables.labels_to_jsonl}
    if path.suffix not in dumps:
        raise ParameterError(f"{path}: labels are written as .csv or .jsonl. Name the file so.")
    atomic_write(path, dumps[path.suffix](records).encode("utf-8"))
    return path


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


def _format_name(name: str) -> str:
    known = name.lower().replace("_", "-")
    if known not in _CODECS:
        raise ParameterError(f"the label format {name!r} is unknown.{suggest(known, FORMATS)} Pass format=.")
    return known


def _detect(path: Path) -> str:
    """The format of a file of labels, by its first object."""
    with open_bytes(path) as stream:
        start = stream.read(65_536).removeprefix(codecs.BOM_UTF8).lstrip()
        if not start:
            raise DataError(f"{path} is empty. Export the labels again.")
        if start[:1] == b"{":
            stream.seek(0)
            line = stream.readline().removeprefix(codecs.BOM_UTF8) if b"\n" not in start else start.split(b"\n")[0]
            return "prodigy" if _keys(line) & {"answer", "_task_hash", "_input_hash", "options"} else "jsonl"
    if start[:1] != b"[":
        return "csv"
    keys = set(next(iter(json_array(path)), {}))
    if keys & {"data", "pool_id"}:
        return "label-studio"
    if "fields" in keys or any(key.endswith(".responses") for key in keys):
        return "argilla"
    raise DataError(
        f"{path}: the array's first object has the fields {', '.join(sorted(keys)) or '(none)'}, which is no known "
        f"format. Name it: format= one of {', '.join(FORMATS)}."
    )


def _keys(line: bytes) -> set[str]:
    try:
        row = json.loads(line)
    except ValueError:
        return set()  # the reader of JSON Lines says what is wrong, and where
    return set(row) if isinstance(row, dict) else set()
