"""The pool: texts to choose from, with stable ids, named fields and the labels known so far."""

from __future__ import annotations

import gzip
import hashlib
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Self, overload

import numpy as np

from icl_select._files import atomic_write
from icl_select.data._pool_readers import PoolReaders
from icl_select.data._records import check_example, check_label, dump, to_record
from icl_select.errors import DataError, LabelError, ParameterError, UnknownNameError, suggest
from icl_select.types import Example, IntArray

__all__ = ["Pool"]


class Pool(PoolReaders, Sequence[Example]):
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

    @classmethod
    def _of(cls, examples: list[Example], source: str, skipped: int = 0) -> Self:
        """A pool of examples that were checked before."""
        pool = cls.__new__(cls)
        pool._setup(examples, source, skipped)
        return pool

    def _setup(self, examples: list[Example], source: str, skipped: int) -> None:
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
        """Return the index of an id.

        Parameters
        ----------
        value : str or Example
            The id, or an example that has it.
        start, stop : int, optional
            The index must lie in ``start <= index < stop``, as for any sequence.

        Returns
        -------
        int

        Raises
        ------
        UnknownNameError
            If the pool has no such id there.
        """
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
        """Return the example of an id.

        Parameters
        ----------
        name : str

        Returns
        -------
        Example

        Raises
        ------
        UnknownNameError
            If the pool has no such id.
        """
        return self._examples[self.index(name)]

    def label(
        self,
        labels: Mapping[str, str | None],
        *,
        overwrite: bool = False,
        label_words: Sequence[str] | None = None,
    ) -> Self:
        """Set labels by id. Everything is checked before anything is set.

        Parameters
        ----------
        labels : mapping of str to str or None
            Label of each id.
        overwrite : bool, default=False
            Let labels that stand be replaced, or taken away by None.
        label_words : sequence of str, optional
            The only labels to accept; default any.

        Returns
        -------
        Pool
            This pool.

        Raises
        ------
        UnknownNameError
            If the pool has no such id.
        LabelError
            If a label is blank, not among `label_words`, or differs from the one that stands (unless
            `overwrite`).
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
        """Return a pool of the same examples, to be labelled independently.

        Returns
        -------
        Pool
        """
        return Pool._of(list(self._examples), self.source, self.skipped)

    def subset(self, indices: Iterable[int] | IntArray) -> Pool:
        """Return a pool of some of the examples, in the order asked for.

        Parameters
        ----------
        indices : iterable of int
            Different indices from 0 to n - 1; negative ones are refused.

        Returns
        -------
        Pool
            To be labelled independently.

        Raises
        ------
        ParameterError
            If an index is outside the pool.
        DataError
            If there is no index, or one comes twice.
        """
        positions = [int(position) for position in indices]
        outside = next((position for position in positions if not 0 <= position < len(self)), None)
        if outside is not None:
            raise ParameterError(f"index {outside} is outside the pool of {len(self)}. Pass 0 to {len(self) - 1}.")
        return Pool._of([self._examples[position] for position in positions], self.source)

    def to_jsonl(self, path: str | Path) -> Path:
        """Write one record per line (gzip if the name ends in ``.gz``); :meth:`from_jsonl` reads back an equal pool.

        Parameters
        ----------
        path : str or Path
            The old file or the whole new one is there, also after a crash.

        Returns
        -------
        Path
            The file that was written.

        Raises
        ------
        DataError
            If a field holds what JSON cannot.
        StoreError
            If the file cannot be written.
        """
        path = Path(path)
        content = b"".join(dump(example, to_record(example)) + b"\n" for example in self._examples)
        atomic_write(path, gzip.compress(content, mtime=0) if path.suffix == ".gz" else content)
        return path
