"""The ways in which a pool is made: from files, from the hub, from records, from strings."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Self, Unpack

from icl_select.data._file import existing
from icl_select.data.hub import is_hub_id, read_hub
from icl_select.data.readers import Table, read_csv, read_jsonl, read_parquet, read_records, read_table
from icl_select.data.rows import LabelWords, RowOptions, RowSpec, build
from icl_select.errors import DataError, ParameterError
from icl_select.types import Example

__all__ = ["PoolReaders"]

_LOG = logging.getLogger(__name__)


class PoolReaders:
    """Class methods of :class:`icl_select.data.Pool`, whose notes explain the keywords they share."""

    __slots__ = ()

    @classmethod
    def _of(cls, examples: list[Example], source: str, skipped: int = 0) -> Self:
        raise NotImplementedError

    @classmethod
    def _build(cls, table: Table, spec: RowSpec) -> Self:
        examples, skipped = build(table, spec)
        if skipped:
            _LOG.warning("%s: left out %d rows whose text is empty", table.source, skipped)
        return cls._of(examples, table.source, skipped)

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
        """Read whatever `path` is: a file by its suffix, a saved folder, or a hub id.

        Parameters
        ----------
        path : str or Path
            A file (``.jsonl``, ``.ndjson``, ``.csv``, each also ``.gz``, or ``.parquet``), a folder, or a hub id
            ``owner/name``. What exists on disk is never looked up on the hub.
        config, split, revision : str, optional
            As in :meth:`from_hub`; for Hugging Face data sets only.
        **options
            The keywords in the notes of :class:`Pool`.

        Returns
        -------
        Pool

        Raises
        ------
        DataError, LabelError, TemplateError
            If the source cannot be read, or a row is no example; the message names the place.
        ParameterError
            If `config`, `split` or `revision` is passed for a file.
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
        """Read a JSON Lines file: one object per line, UTF-8.

        Parameters
        ----------
        path : str or Path
            Plain or gzip; blank lines are left out, NaN is null.
        **options
            The keywords in the notes of :class:`Pool`.

        Returns
        -------
        Pool

        Raises
        ------
        DataError, LabelError, TemplateError
            If the file cannot be read, or a line is no example; the message names the line.
        """
        return cls._build(read_jsonl(path), RowSpec(**options))

    @classmethod
    def from_csv(cls, path: str | Path, **options: Unpack[RowOptions]) -> Self:
        """Read a CSV file with a header, UTF-8.

        Parameters
        ----------
        path : str or Path
            Plain or gzip; separated by comma, semicolon or tab.
        **options
            The keywords in the notes of :class:`Pool`.

        Returns
        -------
        Pool

        Raises
        ------
        DataError, LabelError, TemplateError
            If the file cannot be read, or a line is no example; the message names the line.
        """
        return cls._build(read_csv(path), RowSpec(**options))

    @classmethod
    def from_parquet(cls, path: str | Path, **options: Unpack[RowOptions]) -> Self:
        """Read a Parquet file.

        Parameters
        ----------
        path : str or Path
            Dates become ISO strings, NaN becomes null.
        **options
            The keywords in the notes of :class:`Pool`.

        Returns
        -------
        Pool

        Raises
        ------
        DataError, LabelError, TemplateError
            If the file cannot be read, or a row is no example; the message names the row.
        """
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

        Parameters
        ----------
        name_or_dir : str or Path
            Hub id ``owner/name``, or a folder.
        config : str, optional
            Configuration of the data set.
        split : str, optional
            Default: ``"train"``, or the only split of a saved folder.
        revision : str, optional
            Commit, tag or branch of a hub data set.
        **options
            The keywords in the notes of :class:`Pool`. Integer class columns become the words that the data set
            declares, unless `label_words` says otherwise; class -1 means unlabelled.

        Returns
        -------
        Pool

        Raises
        ------
        DataError, LabelError, TemplateError
            If the data set cannot be read, or a row is no example; the message names the row.
        MissingDependencyError
            If the extra ``hub`` is not installed.

        Notes
        -----
        A repository that is a loading script is read from the hub's Parquet copy, and a warning is logged.
        """
        spec = RowSpec(**options)
        table = read_hub(name_or_dir, config=config, split=split, revision=revision, columns=spec.columns)
        return cls._build(table, spec)

    @classmethod
    def from_records(
        cls, rows: Iterable[Mapping[str, Any]], *, source: str = "records", **options: Unpack[RowOptions]
    ) -> Self:
        """Build a pool from mappings of field names to values, such as the rows of a list or data frame.

        Parameters
        ----------
        rows : iterable of mapping
            Read once. Values become JSON values, as in :meth:`from_parquet`.
        source : str, default="records"
            What messages call the rows.
        **options
            The keywords in the notes of :class:`Pool`.

        Returns
        -------
        Pool

        Raises
        ------
        DataError, LabelError, TemplateError
            If a row is no example; the message names its number, from 0.

        Examples
        --------
        >>> from icl_select import Pool
        >>> Pool.from_records([{"q": "Where is it?", "topic": "post"}], text="{topic}: {q}").texts
        ['post: Where is it?']
        """
        return cls._build(read_records(rows, source), RowSpec(**options))

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
        """Build a pool from strings; each example has the one field ``text``.

        Parameters
        ----------
        texts : iterable of str
        ids, labels : sequence, optional
            One for each text; a label of None means unlabelled.
        label_words, skip_empty
            As in the notes of :class:`Pool`.

        Returns
        -------
        Pool

        Raises
        ------
        DataError, LabelError
            If a text, id or label is none, or there are not as many of each.
        """
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
