"""Tasks and labels out: as files, or as bytes for who sends them elsewhere."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from icl_select._files import atomic_write
from icl_select.data.exchange import label_studio, tables
from icl_select.data.exchange.formats import CODECS, format_name
from icl_select.data.exchange.record import LabelRecord, Task
from icl_select.data.pool import Pool
from icl_select.errors import LabelError, ParameterError, suggest
from icl_select.types import IntArray, Selection

__all__ = ["export_tasks", "label_bytes", "label_lines", "task_files", "write_labels"]

_LABEL_LINES = {"csv": tables.labels_to_csv, "jsonl": tables.labels_to_jsonl}


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
    name = format_name(format or path.suffix.lstrip("."))
    files = task_files(_tasks(pool, indices, selection), name, label_words)
    (tasks, content), *others = files.items()
    if any(suffix == path.suffix for suffix, _ in others):
        raise ParameterError(f"{path} would hold both tasks and configuration. Name the tasks with {tasks}.")
    # The tasks last: once they are there, all is.
    for suffix, other in others:
        atomic_write(path.with_suffix(suffix), other)
    atomic_write(path, content)
    return [path, *(path.with_suffix(suffix) for suffix, _ in others)]


def task_files(tasks: Sequence[Task], format: str, label_words: Sequence[str] | None = None) -> dict[str, bytes]:
    """Return the files that hand tasks to people or a labelling tool, without writing them.

    Parameters
    ----------
    tasks : sequence of Task
        In labelling order.
    format : {"csv", "jsonl", "label-studio", "argilla", "prodigy"}
    label_words : sequence of str, default=None
        The labels to choose from; without them tools ask for free text.

    Returns
    -------
    dict of str to bytes
        Content by suffix, the tasks first: ``.csv``, ``.jsonl`` or ``.json``, and for Label Studio its configuration
        as ``.xml``.

    Raises
    ------
    LabelError
        If `label_words` is no list of different words, or a task bears another label.
    ParameterError
        If the format is unknown.

    Examples
    --------
    >>> files = task_files([Task("a", "Where is it?", 1)], "label-studio", ["post", "shop"])
    >>> list(files)
    ['.json', '.xml']
    """
    name = format_name(format)
    words = _check_words(label_words)
    for task in tasks:
        if words is not None and task.label is not None and task.label not in words:
            raise LabelError(
                f"the example {task.id!r} is labelled {task.label!r}, which is not one of the {len(words)} label "
                f"words.{suggest(task.label, words)}"
            )
    codec = CODECS[name]
    contents = {codec.suffix: codec.dump(tasks, words)}
    if name == "label-studio":
        contents[".xml"] = label_studio.config(words)
    return {suffix: content.encode("utf-8") for suffix, content in contents.items()}


def _tasks(pool: Pool, indices: Sequence[int] | IntArray | None, selection: Selection | None) -> list[Task]:
    if indices is None:
        if selection is None:
            raise ParameterError("neither indices nor a selection says which examples to export. Pass one of them.")
        indices = selection.indices
    gains = {} if selection is None else dict(zip(selection.indices.tolist(), selection.gains.tolist(), strict=True))
    method = "" if selection is None else selection.method
    chosen = pool.subset(indices)
    tasks = []
    for rank, (example, index) in enumerate(zip(chosen, indices, strict=True), 1):
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
    if path.suffix not in (".csv", ".jsonl"):
        raise ParameterError(f"{path}: labels are written as .csv or .jsonl. Name the file so.")
    atomic_write(path, label_bytes(records, path.suffix.removeprefix(".")))
    return path


def label_bytes(records: Iterable[LabelRecord], format: str) -> bytes:
    """Return labels as the content of a file, one row each.

    Parameters
    ----------
    records : iterable of LabelRecord
    format : {"csv", "jsonl"}

    Returns
    -------
    bytes
        UTF-8; :func:`read_labels` reads it back.

    Raises
    ------
    ParameterError
        If the format is another.
    """
    return b"".join(label_lines(records, format))


def label_lines(records: Iterable[LabelRecord], format: str) -> Iterator[bytes]:
    """Return what :func:`label_bytes` joins, line by line, for as many labels as there are.

    Parameters
    ----------
    records : iterable of LabelRecord
        Consumed while the result is.
    format : {"csv", "jsonl"}

    Returns
    -------
    iterator of bytes
        One for each label; in CSV the header comes first.

    Raises
    ------
    ParameterError
        If the format is another; at once.
    """
    if format not in _LABEL_LINES:
        raise ParameterError(f"labels are written as csv or jsonl, not {format!r}.{suggest(format, _LABEL_LINES)}")
    return (line.encode("utf-8") for line in _LABEL_LINES[format](records))
