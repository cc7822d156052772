"""Reading a benchmark: from a local folder, or from the hub."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import icl_select.data
from icl_select._fingerprint import fingerprint
from icl_select._template import fill
from icl_select.data import Pool
from icl_select.data.hub import read_hub
from icl_select.data.readers import Table, read_table
from icl_select.errors import ConfigError, DataError, IclSelectError, suggest
from icl_select.types import Example

from ._task import Task
from .custom import CustomTask
from .registry import get_task

__all__ = ["TaskData", "check_source", "load_task"]

_SUFFIXES = (".jsonl.gz", ".jsonl", ".parquet", ".csv")


@dataclass(frozen=True, eq=False)
class TaskData:
    """A benchmark with its rows."""

    task: Task
    pool: Pool
    test: Pool
    source: str
    metric_options: Mapping[str, Any] = field(default_factory=dict)

    @property
    def options_key(self) -> str:
        """Hash of the metric's options, files by their content."""
        parts = {}
        for name, value in self.metric_options.items():
            parts[name] = hashlib.sha256(value.read_bytes()).hexdigest() if isinstance(value, Path) else repr(value)
        return fingerprint(parts)


def check_source(entry: str | CustomTask, data_dir: Path | None) -> None:
    """Raise DataError if the rows of a task are nowhere to be found: asked of every task before any work."""
    if isinstance(entry, CustomTask):
        for path in (entry.pool, entry.test):
            if not path.exists():
                raise DataError(f"task {entry.name}: {path} does not exist. Paths are relative to the campaign file.")
        return
    task = get_task(entry)
    if task.shipped is not None:
        return
    if data_dir is None:
        if task.resources:
            raise DataError(
                f"task {task.name} needs {', '.join(task.resources)}, which no hub has. Pass --data-dir with a folder "
                f"{task.folder} that holds it, or leave the task out."
            )
        return
    if not data_dir.is_dir():
        raise ConfigError(f"data_dir: there is no folder {data_dir}. Check the path, or leave it out to use the hub.")
    folder = data_dir / task.folder
    if not folder.is_dir():
        known = [path.name for path in data_dir.iterdir() if path.is_dir()]
        raise DataError(
            f"task {task.name}: {data_dir} has no folder {task.folder!r}.{suggest(task.folder, known)} "
            "Add it, or leave the task out."
        )
    _part(folder, "pool")
    _part(folder, "test")
    for name in task.resources:
        if not (folder / name).is_file():
            raise DataError(f"task {task.name} needs {folder / name}, which is not there. Add it.")


def load_task(entry: str | CustomTask, data_dir: Path | None = None) -> TaskData:
    """Read the pool and the test items of a task.

    Parameters
    ----------
    entry : str or CustomTask
        Name of a benchmark, or a user's own task.
    data_dir : Path, optional
        Folder with one folder per benchmark, each with ``pool`` and ``test`` files; None reads the hub.

    Raises
    ------
    DataError, LabelError, TemplateError
        If rows are missing, broken or without a label; the message names file and line.
    """
    if isinstance(entry, CustomTask):
        return _load_custom(entry)
    check_source(entry, data_dir)
    task = get_task(entry)
    folder = data_dir / task.folder if data_dir is not None and task.shipped is None else None
    pool = _examples(task, _table(task, folder, "pool"), folder)
    test = _examples(task, _table(task, folder, "test"), folder)
    if task.fit is not None:
        task = task.fit(task, pool)
    source = "shipped" if task.shipped else "local folder" if folder or not task.hub else f"hub: {task.hub.path}"
    return TaskData(task, Pool(pool), Pool(test), source, task.metric_options(folder))


def _part(folder: Path, part: str) -> Path:
    for suffix in _SUFFIXES:
        if (folder / f"{part}{suffix}").is_file():
            return folder / f"{part}{suffix}"
    raise DataError(f"{folder} holds no {part}.jsonl.gz (nor {part} as .jsonl, .parquet or .csv). Add it.")


def _table(task: Task, folder: Path | None, part: str) -> Table:
    if task.shipped is not None:
        return read_table(Path(icl_select.data.__file__).with_name(task.shipped[part == "test"]))
    if folder is not None:
        return read_table(_part(folder, part))
    hub = task.hub
    if hub is None:
        raise DataError(f"task {task.name} has no copy on the hub. Pass --data-dir with a folder {task.folder}.")
    split = hub.pool_split if part == "pool" else hub.test_split
    return read_hub(hub.path, config=hub.config, split=split, revision=hub.revision)


def _examples(task: Task, table: Table, folder: Path | None) -> list[Example]:
    renamed = task.hub.columns if folder is None and task.hub is not None else {}
    examples: list[Example] = []
    seen: Counter[str] = Counter()
    for number, raw in table.rows:
        row = {renamed.get(name, name): value for name, value in raw.items()}
        try:
            examples.append(_example(task, row, folder, seen))
        except IclSelectError as exc:
            raise type(exc)(f"{table.at(number)}: {exc}") from exc
    if not examples:
        raise DataError(f"{table.source} holds no rows. Task {task.name} needs some.")
    return examples


def _example(task: Task, row: Mapping[str, Any], folder: Path | None, seen: Counter[str]) -> Example:
    for name in task.columns:
        if name not in row:
            raise DataError(f"no column {name!r}, which task {task.name} needs.{suggest(name, row)}")
    label = task.label(row)
    if task.prepare is not None:
        fields = task.prepare(row, folder)
    else:
        fields = {name: row[name] for name in task.columns if name != "label"}
    text = fill(task.embedded, fields)
    if not text.strip():
        raise DataError("the text that would be embedded is empty. Mend the row, or take it out.")
    name = _id(task, row)
    seen[name] += 1
    return Example(id=name if seen[name] == 1 else f"{name}-{seen[name]}", text=text, fields=fields, label=label)


def _id(task: Task, row: Mapping[str, Any]) -> str:
    if task.id is None:
        return fingerprint([row[column] for column in task.columns])
    return str(row[task.id]) if isinstance(task.id, str) else task.id(row)


def _load_custom(entry: CustomTask) -> TaskData:
    pool = Pool.read(entry.pool, text=entry.text, id=entry.id, label=entry.label)
    test = Pool.read(entry.test, text=entry.text, id=entry.id, label=entry.label)
    words: tuple[str, ...] | None = None
    if not entry.generation:
        words = tuple(entry.labels) if entry.labels is not None else tuple(sorted({x for x in pool.labels if x}))
    task = entry.task(words)
    for part, path in ((pool, entry.pool), (test, entry.test)):
        for example in part:
            try:
                task.label({entry.label: example.label})
            except IclSelectError as exc:
                raise type(exc)(f"{path}, item {example.id}: {exc}") from exc
    return TaskData(task, _with_text(pool), _with_text(test), "own files")


def _with_text(pool: Pool) -> Pool:
    """Let templates say ``text`` for the text that is embedded."""
    return Pool([Example(e.id, e.text, {"text": e.text, **e.fields}, e.label, e.metadata) for e in pool])
