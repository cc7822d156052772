"""Tables on disk and on the hub, read row by row with the place of every row.

JSON Lines (plain or gzip), CSV and Parquet files; Hugging Face data sets are in :mod:`icl_select.data.hub`.
Text is UTF-8, with or without a byte order mark; a line ends at a line feed (or CR LF) and nowhere else, so
U+2028 and its like may stand inside strings.
"""

from __future__ import annotations

import codecs
import csv
import gzip
import io
import json
import sys
import threading
import zlib
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from icl_select.data._file import File, existing
from icl_select.data._parquet import parquet_rows
from icl_select.data._values import plain
from icl_select.errors import DataError, ParameterError

__all__ = [
    "SUFFIXES",
    "Table",
    "plain",
    "read_csv",
    "read_jsonl",
    "read_parquet",
    "read_records",
    "read_table",
]

SUFFIXES = (".jsonl", ".jsonl.gz", ".ndjson", ".csv", ".csv.gz", ".parquet", ".pq")

_CSV_LOCK = threading.Lock()


@dataclass(frozen=True)
class Table:
    """Rows with their place in the source.

    Attributes
    ----------
    source : str
        What is read, for messages.
    unit : str
        What a row's number counts: ``"line"`` of a text file (from 1), ``"row"`` (from 1), or ``"item"`` of
        a list (from 0).
    rows : iterable of (int, mapping)
        Number and fields of each row; may be consumed once.
    class_names : mapping of str to sequence of str
        Words of integer class columns, where the source declares them.
    """

    source: str
    unit: str
    rows: Iterable[tuple[int, Mapping[str, Any]]]
    class_names: Mapping[str, Sequence[str]] = field(default_factory=dict)

    def at(self, number: int) -> str:
        """The place of a row, as the beginning of a message."""
        return f"{self.source}, {self.unit} {number}"


def read_table(path: str | Path, *, columns: Collection[str] | None = None) -> Table:
    """Open a file by its suffix: ``.jsonl``, ``.ndjson``, ``.csv`` (each also ``.gz``) or ``.parquet``.

    `columns` names all the columns that will be used; formats that can, read no other.
    """
    path = existing(path)
    name = path.name.lower().removesuffix(".gz")
    if name.endswith((".jsonl", ".ndjson")):
        return read_jsonl(path)
    if name.endswith(".csv"):
        return read_csv(path)
    if name.endswith((".parquet", ".pq")):
        return read_parquet(path, columns=columns)
    raise DataError(
        f"{path}: the suffix {path.suffix!r} names no format that can be read. Known: {', '.join(SUFFIXES)}, and "
        "folders written by save_to_disk. Rename the file, or call the reader of its format."
    )


def _lines(file: File, max_bytes: int | None) -> Iterator[tuple[int, str]]:
    """Decoded lines with their numbers, from 1; only a line feed ends a line."""
    number = 0
    # Room for the longest line and its CR LF: no more of a line is ever in memory.
    room = -1 if max_bytes is None else max_bytes + 2
    with file.open() as stream:
        try:
            for number, raw in enumerate(iter(partial(stream.readline, room), b""), 1):
                if max_bytes is not None and len(raw.removesuffix(b"\n").removesuffix(b"\r")) > max_bytes:
                    raise DataError(
                        f"{file}, line {number}: longer than {max_bytes:,} bytes, the most that a line may have "
                        "(max_line_bytes). Shorten its texts, or leave fields out."
                    )
                if number == 1:
                    raw = raw.removeprefix(codecs.BOM_UTF8)
                try:
                    yield number, raw.decode("utf-8")
                except UnicodeDecodeError as exc:
                    raise DataError(_not_utf8(file, number, exc)) from exc
        except (EOFError, gzip.BadGzipFile, zlib.error) as exc:
            raise DataError(
                f"{file}: the gzip data breaks off after line {number} ({exc}). Copy or compress the file again."
            ) from exc


def _not_utf8(file: File, line: int, exc: UnicodeDecodeError) -> str:
    return (
        f"{file}, line {line}: byte 0x{exc.object[exc.start]:02x} is not UTF-8 ({exc.reason}). Convert the file, for "
        "example: iconv -f latin1 -t utf-8."
    )


def _constant(name: str) -> None:
    if name == "NaN":  # how pandas writes a missing value
        return
    raise ValueError(f"{name} is not a JSON number")


_DECODER = json.JSONDecoder(parse_constant=_constant)


def read_jsonl(
    path: str | Path, *, source: str | None = None, max_line_bytes: int | None = None, plain_only: bool = False
) -> Table:
    """Rows of a JSON Lines file, plain or gzip: one object per line, blank lines left out, NaN read as null.

    One line is in memory at a time.

    Parameters
    ----------
    path : str or Path
    source : str, optional
        What messages call the file; default: its path.
    max_line_bytes : int, optional
        A longer line raises DataError, and is not read to its end.
    plain_only : bool, default=False
        Refuse gzip.
    """
    file = File.at(path, source, plain_only=plain_only)
    return Table(str(file), "line", _jsonl_rows(file, max_line_bytes))


def _jsonl_rows(file: File, max_line_bytes: int | None) -> Iterator[tuple[int, Mapping[str, Any]]]:
    for number, line in _lines(file, max_line_bytes):
        if not line or line.isspace():
            continue
        try:
            row = _DECODER.decode(line.strip(" \t\r\n"))
        except (ValueError, RecursionError) as exc:
            raise DataError(
                f"{file}, line {number}: not JSON ({exc}). Expected one whole JSON object per line, such as "
                '{"text": "..."}.'
            ) from exc
        if not isinstance(row, dict):
            kind = "a JSON array" if isinstance(row, list) else f"the JSON value {line.strip()[:40]}"
            raise DataError(
                f"{file}, line {number}: holds {kind}, but each line must be one JSON object with named fields, "
                'such as {"text": "..."}.'
            )
        yield number, row


def read_csv(path: str | Path, *, source: str | None = None, plain_only: bool = False) -> Table:
    """Rows of a CSV file with a header, plain or gzip; every value is a string, an empty cell stays empty.

    The delimiter is the comma, semicolon or tab that occurs most often in the header. Quoting as in RFC 4180:
    a quoted cell may hold delimiters, line ends and doubled quotes. The whole file is in memory. `source` and
    `plain_only` as in :func:`read_jsonl`.
    """
    file = File.at(path, source, plain_only=plain_only)
    return Table(str(file), "line", _csv_rows(file))


def _csv_rows(file: File) -> Iterator[tuple[int, Mapping[str, Any]]]:
    with file.open() as stream:
        try:
            content = stream.read()
        except (EOFError, gzip.BadGzipFile, zlib.error) as exc:
            raise DataError(f"{file}: the gzip data is broken ({exc}). Copy or compress the file again.") from exc
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as exc:
        raise DataError(_not_utf8(file, content.count(b"\n", 0, exc.start) + 1, exc)) from exc
    del content
    header_line = text[: text.find("\n")] if "\n" in text else text
    delimiter = max(",;\t", key=header_line.count)
    with _CSV_LOCK:  # the limit on cell size is global to the process
        limit = csv.field_size_limit(sys.maxsize)
        try:
            records = list(_csv_records(file, text, delimiter))
        finally:
            csv.field_size_limit(limit)
    if not records:
        return
    header = records[0][1]
    repeated = {name for name in header if header.count(name) > 1}
    if repeated:
        raise DataError(f"{file}, line 1: the header names {sorted(repeated)[0]!r} twice. Give each column one name.")
    for number, cells in records[1:]:
        if len(cells) != len(header):
            raise DataError(
                f"{file}, line {number}: {len(cells)} cells, but the header names {len(header)} columns. Quote cells "
                f"that hold {delimiter!r} or line ends."
            )
        yield number, dict(zip(header, cells, strict=True))


def _csv_records(file: File, text: str, delimiter: str) -> Iterator[tuple[int, list[str]]]:
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
    start = 1
    try:
        for cells in reader:
            if cells:
                yield start, cells
            start = reader.line_num + 1
    except csv.Error as exc:
        raise DataError(
            f"{file}, line {start}: not CSV ({exc}). Quote cells that hold quotes, and double the quotes inside."
        ) from exc


def read_parquet(
    path: str | Path,
    *,
    columns: Collection[str] | None = None,
    source: str | None = None,
    batch_rows: int = 1_024,
    max_uncompressed_bytes: int | None = None,
) -> Table:
    """Rows of a Parquet file, decoded a batch at a time.

    Parameters
    ----------
    path : str or Path
    columns : collection of str, optional
        Of these, those that the file has; default: all.
    source : str, optional
        What messages call the file; default: its path.
    batch_rows : int, default=1024
        Rows decoded together, at most.
    max_uncompressed_bytes : int, optional
        A row group that claims to expand to more raises DataError before any of it is decoded. Batches are then made
        small enough to stay below, although a dictionary may repeat its longest value in every row; a row whose lists
        do not stay below raises DataError.

    Raises
    ------
    ParameterError
        If `batch_rows` is below 1.

    Notes
    -----
    Memory does not grow with the rows. With a bound it stays within a few times the bound, as rows exist both in Arrow
    and in Python. The bound rests on the metadata of the file: pages that contradict it are met only while they are
    decoded, so where files come from strangers, limit the memory of the process too.
    """
    if batch_rows < 1:
        raise ParameterError(f"batch_rows={batch_rows} decodes nothing. Pass 1 or more.")
    file = File.at(path, source)
    return Table(str(file), "row", parquet_rows(file, columns, batch_rows, max_uncompressed_bytes))


def read_records(rows: Iterable[Mapping[str, Any]], source: str) -> Table:
    """Rows of a list or other iterable, counted from 0."""
    return Table(source, "item", _record_rows(rows, source))


def _record_rows(rows: Iterable[Mapping[str, Any]], source: str) -> Iterator[tuple[int, Mapping[str, Any]]]:
    for number, row in enumerate(rows):
        where = f"{source}, item {number}"
        if not isinstance(row, Mapping):
            raise DataError(f"{where} is a {type(row).__name__}, but each record maps field names to values.")
        yield number, {str(name): plain(value, where, str(name)) for name, value in row.items()}
