"""The pool: texts to choose from, with stable ids, named fields and the labels known so far."""

from __future__ import annotations

import gzip
import hashlib
import logging
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Self, Unpack, overload

import numpy as np

from icl_select._files import atomic_write
from icl_select.data._records import check_example, check_label, dump, to_record
from icl_select.data.hub import is_hub_id, read_hub
from icl_select.data.readers import Table, existing, plain, read_csv, read_jsonl, read_parquet, read_table
from icl_select.data.rows import LabelWords, RowOptions, RowSpec, build
from icl_select.errors import DataError, LabelError, ParameterError, UnknownNameError, suggest
from icl_select.types import Example, IntArray

__all__ = ["Pool"]

_LOG = logging.getLogger(__name__)


class Pool(Sequence[Example]):
    """A sequence of :class:`~icl_select.types.Example` with unique ids; only its labels change.

    Parameters
    ----------
    examples : iterable of Example
        At least one; ids unique, texts not blank.
    source : str, default=""
        Where they come from, for reports.

    Notes
    -----
    The readers (:meth:`from_jsonl`, :meth:`from_csv`, :meth:`from_parquet`, :meth:`from_hub`,
    :meth:`from_records`, :meth:`read`) share these keywords:

    text : str
        Field that is embedded, or a template such as ``"{subject}\\n{body}"``. Default: the field ``text``.
    id : str
        Field that holds the id, a string or whole number. Default: the field ``id`` where a row has one,
        else a hash of the row's fields (label and id left out). Rows of equal content get ``-2``, ``-3`` ...
        in order, so ids are the same in every run.
    label : str
        Field that holds the label. Default: ``label`` where present. Null and blank mean unlabelled; numbers keep
        their digits.
    label_words : sequence of str, or mapping of str to str
        Words of the classes: class id ``i`` becomes ``label_words[i]``; a mapping turns its keys into its values.
    fields : sequence of str
        The fields to keep, in this order; default all. Parquet and hub readers then read no other column.
    skip_empty : bool
        Leave rows with an empty text out, counted in :attr:`skipped` and logged, instead of raising.

    Examples
    --------
    >>> pool = Pool.from_texts(["Where is my order?", "Cancel it."], ids=["a", "b"])
    >>> pool.label({"a": "tracking"}).labels
    ['tracking', None]
    >>> pool.labelled.tolist(), pool.index("b"), pool[0].text
    ([0], 1, 'Where is my order?')
    """

    __slots__ = ("_examples", "_fingerprint", "_positions", "skipped", "source")

    def __init__(self, examples: Iterable[Example], *, source: str = "") -> None:
        checked = list(examples)
        for position, example in enumerate(checked):
            check_example(f"example {position}", example)
        self._setup(checked, source, 0)

    def _setup(self, examples: list[Example], source: str, skipped: int) -> Self:
        self._examples = examples
        self._positions = {example.id: position for position, example in enumerate(examples)}
        self._fingerprint: str | None = None
        self.source = source
        self.skipped = skipped
        if not examples:
            raise DataError("the pool is empty. Pass at least one example.")
        if len(self._positions) < len(examples):
            position = next(i for i, example in enumerate(examples) if self._positions[example.id] != i)
            name = examples[position].id
            raise DataError(
                f"examples {position} and {self._positions[name]} have the same id {name!r}. Ids must be unique."
            )
        return self

    @classmethod
    def _build(cls, table: Table, spec: RowSpec) -> Self:
        examples, skipped = build(table, spec)
        if skipped:
            _LOG.warning("%s: left out %d rows whose text is empty", table.source, skipped)
        return cls.__new__(cls)._setup(examples, table.source, skipped)

    @classmethod
    def read(
        cls,
        path: str | Path,
        *,
        config: str | None = None,
        split: str | None = None,
        revision: str | None = None,
        **options: Unpack[RowOptions],
    ) -> Self:
        """Read whatever `path` is: a file by its suffix, a saved folder, or a hub id ``owner/name``.

        Suffixes: ``.jsonl``, ``.ndjson``, ``.csv`` (each also ``.gz``), ``.parquet``. `config`, `split` and
        `revision` are for Hugging Face data sets. What exists on disk is never looked up on the hub.
        """
        if is_hub_id(path) or Path(path).is_dir():
            return cls.from_hub(path, config=config, split=split, revision=revision, **options)
        path = existing(path)
        hub = {"config": config, "split": split, "revision": revision}
        given = next((name for name, value in hub.items() if value is not None), None)
        if given is not None:
            raise ParameterError(f"{given}= is for Hugging Face data sets, and {path} is a file. Leave {given} out.")
        spec = RowSpec(**options)
        return cls._build(read_table(path, columns=spec.columns), spec)

    @classmethod
    def from_jsonl(cls, path: str | Path, **options: Unpack[RowOptions]) -> Self:
        """Read a JSON Lines file, plain or gzip: one object per line, UTF-8. Errors name the line."""
        return cls._build(read_jsonl(path), RowSpec(**options))

    @classmethod
    def from_csv(cls, path: str | Path, **options: Unpack[RowOptions]) -> Self:
        """Read a CSV file with a header, UTF-8, separated by comma, semicolon or tab. Errors name the line."""
        return cls._build(read_csv(path), RowSpec(**options))

    @classmethod
    def from_parquet(cls, path: str | Path, **options: Unpack[RowOptions]) -> Self:
        """Read a Parquet file. Dates become ISO strings, NaN becomes null."""
        spec = RowSpec(**options)
        return cls._build(read_parquet(path, columns=spec.columns), spec)

    @classmethod
    def from_hub(
        cls,
        name_or_dir: str | Path,
        *,
        config: str | None = None,
        split: str | None = None,
        revision: str | None = None,
        **options: Unpack[RowOptions],
    ) -> Self:
        """Read a hub data set, a folder of data files, or a folder that ``save_to_disk`` wrote.

        `split` defaults to ``"train"``, or to the only split of a saved folder. Integer class columns become
        the words that the data set declares, unless `label_words` says otherwise; class -1 means unlabelled. A
        repository that is a loading script is read from the hub's Parquet copy, and a warning is logged.
        """
        spec = RowSpec(**options)
        table = read_hub(name_or_dir, config=config, split=split, revision=revision, columns=spec.columns)
        return cls._build(table, spec)

    @classmethod
    def from_records(
        cls, rows: Iterable[Mapping[str, Any]], *, source: str = "records", **options: Unpack[RowOptions]
    ) -> Self:
        """Build a pool from mappings of field names to values, such as the rows of a list or data frame."""
        return cls._build(Table(source, "item", _plain_rows(rows, source)), RowSpec(**options))

    @classmethod
    def from_texts(
        cls,
        texts: Iterable[str],
        ids: Sequence[str | int] | None = None,
        labels: Sequence[str | int | None] | None = None,
        *,
        label_words: LabelWords | None = None,
        skip_empty: bool = False,
    ) -> Self:
        """Build a pool from strings; each example has the one field ``text``."""
        if isinstance(texts, str):
            raise DataError("texts is one string, but a pool is a list of them. Pass [text, ...].")
        texts = list(texts)
        rows: list[dict[str, Any]] = [{"text": text} for text in texts]
        columns: list[tuple[str, Sequence[Any] | None]] = [("id", ids), ("label", labels)]
        for name, values in columns:
            if values is None:
                continue
            if len(values) != len(texts):
                raise DataError(f"{len(values)} {name}s for {len(texts)} texts. Pass one {name} for each text.")
            for row, value in zip(rows, values, strict=True):
                row[name] = value
        return cls.from_records(rows, source="texts", label_words=label_words, skip_empty=skip_empty)

    def __len__(self) -> int:
        return len(self._examples)

    def __iter__(self) -> Iterator[Example]:
        return iter(self._examples)

    @overload
    def __getitem__(self, index: int) -> Example: ...
    @overload
    def __getitem__(self, index: slice) -> Pool: ...
    def __getitem__(self, index: int | slice) -> Example | Pool:
        if isinstance(index, slice):
            return self.subset(range(len(self))[index])
        return self._examples[index]

    def __contains__(self, value: object) -> bool:
        """Whether the pool has this id, or this example."""
        if isinstance(value, Example):
            position = self._positions.get(value.id)
            return position is not None and self._examples[position] == value
        return value in self._positions

    def __eq__(self, other: object) -> bool:
        return self._examples == other._examples if isinstance(other, Pool) else NotImplemented

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        source = f" from {self.source}" if self.source else ""
        return f"<Pool of {len(self)} examples{source}, {len(self.labelled)} labelled>"

    @property
    def ids(self) -> list[str]:
        """The ids, in pool order."""
        return [example.id for example in self._examples]

    @property
    def texts(self) -> list[str]:
        """The embedded texts, in pool order."""
        return [example.text for example in self._examples]

    @property
    def labels(self) -> list[str | None]:
        """The labels, in pool order; None where unlabelled."""
        return [example.label for example in self._examples]

    @property
    def labelled(self) -> IntArray:
        """Indices of the labelled examples, ascending."""
        return np.flatnonzero(np.array([example.label is not None for example in self._examples])).astype(np.int64)

    @property
    def fingerprint(self) -> str:
        """Hash of ids, texts and fields in order; labels do not change it."""
        if self._fingerprint is None:
            digest = hashlib.sha256()
            for example in self._examples:
                digest.update(dump(example, [example.id, example.text, dict(example.fields)], sort=True) + b"\n")
            self._fingerprint = digest.hexdigest()[:16]
        return self._fingerprint

    def index(self, value: Any, start: int = 0, stop: int = sys.maxsize) -> int:
        """Return the index of an id (or example), or raise UnknownNameError."""
        name = value.id if isinstance(value, Example) else value
        position = self._positions.get(name if isinstance(name, str) else str(name))
        if position is None or not start <= position < stop:
            hint = (
                suggest(str(name), self._positions)
                if len(self) <= 50
                else f" Its first id is {self._examples[0].id!r}."
            )
            raise UnknownNameError(f"the pool of {len(self)} examples has no id {name!r}.{hint}")
        return position

    def example(self, name: str) -> Example:
        """Return the example of an id, or raise UnknownNameError."""
        return self._examples[self.index(name)]

    def label(
        self,
        labels: Mapping[str, str | None],
        *,
        overwrite: bool = False,
        label_words: Sequence[str] | None = None,
    ) -> Self:
        """Set labels by id and return the pool. Everything is checked before anything is set.

        Raises
        ------
        UnknownNameError
            If the pool has no such id.
        LabelError
            If a label is blank, not among `label_words`, or differs from the one that stands (unless
            `overwrite`; then None takes a label away).
        """
        update: dict[int, str | None] = {}
        for name, label in labels.items():
            position = self.index(name)
            standing = self._examples[position].label
            if label == standing:
                continue
            check_label(f"id {name!r}", label, label_words)
            if not overwrite and (standing is not None or label is None):
                raise LabelError(
                    f"id {name!r} is labelled {standing!r}, and {label!r} was given. Pass overwrite=True to replace "
                    "labels; nothing was changed."
                )
            update[position] = label
        for position, label in update.items():
            self._examples[position] = replace(self._examples[position], label=label)
        return self

    def copy(self) -> Pool:
        """Return a pool of the same examples, to be labelled independently."""
        return Pool.__new__(Pool)._setup(list(self._examples), self.source, self.skipped)

    def subset(self, indices: Iterable[int] | IntArray) -> Pool:
        """Return a pool of the examples at `indices`, in that order. An index outside 0..n-1 is refused."""
        positions = [int(position) for position in indices]
        outside = next((position for position in positions if not 0 <= position < len(self)), None)
        if outside is not None:
            raise ParameterError(f"index {outside} is outside the pool of {len(self)}. Pass 0 to {len(self) - 1}.")
        return Pool.__new__(Pool)._setup([self._examples[position] for position in positions], self.source, 0)

    def to_jsonl(self, path: str | Path) -> Path:
        """Write one record per line (gzip if the name ends in ``.gz``); :meth:`from_jsonl` reads back an equal pool.

        The old file or the whole new one is there, also after a crash.
        """
        path = Path(path)
        content = b"".join(dump(example, to_record(example)) + b"\n" for example in self._examples)
        atomic_write(path, gzip.compress(content, mtime=0) if path.suffix == ".gz" else content)
        return path


def _plain_rows(rows: Iterable[Mapping[str, Any]], source: str) -> Iterator[tuple[int, Mapping[str, Any]]]:
    for number, row in enumerate(rows):
        where = f"{source}, item {number}"
        if not isinstance(row, Mapping):
            raise DataError(f"{where} is a {type(row).__name__}, but each record maps field names to values.")
        yield number, {str(name): plain(value, where, str(name)) for name, value in row.items()}
