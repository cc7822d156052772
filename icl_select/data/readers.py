"""Tables on disk and on the hub, read row by row with the place of every row.

JSON Lines (plain or gzip), CSV and Parquet files; Hugging Face data sets are in :mod:`icl_select.data.hub`.
Text is UTF-8, with or without a byte order mark; a line ends at a line feed (or CR LF) and nowhere else, so
U+2028 and its like may stand inside strings.
"""

from __future__ import annotations

import codecs
import csv
import datetime
import decimal
import gzip
import io
import json
import math
import sys
import threading
import zlib
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO, cast

from icl_select.errors import DataError, suggest

__all__ = [
    "SUFFIXES",
    "Table",
    "open_bytes",
    "plain",
    "read_csv",
    "read_jsonl",
    "read_parquet",
    "read_records",
    "read_table",
]

SUFFIXES = (".jsonl", ".jsonl.gz", ".ndjson", ".csv", ".csv.gz", ".parquet", ".pq")

_UTF16 = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)
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


def existing(path: str | Path) -> Path:
    """Return `path` if it is there, else raise DataError that names a file of a similar name."""
    path = Path(path)
    if path.exists():
        return path
    if not path.parent.is_dir():
        raise DataError(f"{path} does not exist: there is no folder {path.parent}. Check the path.")
    names = [entry.name for entry in path.parent.iterdir()]
    hint = suggest(path.name, names) if len(names) <= 200 else ""
    hint = hint if hint.startswith(" Did") else ""
    raise DataError(f"{path} does not exist.{hint or ' Check the path.'}")


def open_bytes(path: str | Path) -> BinaryIO:
    """Open a file for reading bytes; gzip is recognised by content. Raises DataError if it cannot be opened."""
    path = existing(path)
    if path.is_dir():
        raise DataError(f"{path} is a folder, but a file is expected. Name the file inside it.")
    try:
        stream = path.open("rb")
    except OSError as exc:
        raise DataError(f"{path} cannot be opened: {exc.strerror}. Check its permissions.") from exc
    magic = stream.read(2)
    stream.seek(0)
    if magic in _UTF16:
        stream.close()
        raise DataError(f"{path} is UTF-16 text, but UTF-8 is expected. Convert it: iconv -f utf-16 -t utf-8.")
    return cast("BinaryIO", gzip.open(stream)) if magic == b"\x1f\x8b" else stream


def _lines(path: Path) -> Iterator[tuple[int, str]]:
    """Decoded lines with their numbers, from 1; only a line feed ends a line."""
    number = 0
    with open_bytes(path) as stream:
        try:
            for number, raw in enumerate(stream, 1):
                if number == 1:
                    raw = raw.removeprefix(codecs.BOM_UTF8)
                try:
                    yield number, raw.decode("utf-8")
                except UnicodeDecodeError as exc:
                    raise DataError(_not_utf8(path, number, exc)) from exc
        except (EOFError, gzip.BadGzipFile, zlib.error) as exc:
            raise DataError(
                f"{path}: the gzip data breaks off after line {number} ({exc}). Copy or compress the file again."
            ) from exc


def _not_utf8(path: Path, line: int, exc: UnicodeDecodeError) -> str:
    return (
        f"{path}, line {line}: byte 0x{exc.object[exc.start]:02x} is not UTF-8 ({exc.reason}). Convert the file, for "
        "example: iconv -f latin1 -t utf-8."
    )


def _constant(name: str) -> None:
    if name == "NaN":  # how pandas writes a missing value
        return
    raise ValueError(f"{name} is not a JSON number")


_DECODER = json.JSONDecoder(parse_constant=_constant)


def read_jsonl(path: str | Path) -> Table:
    """Rows of a JSON Lines file, plain or gzip: one object per line, blank lines left out, NaN read as null."""
    path = existing(path)
    return Table(str(path), "line", _jsonl_rows(path))


def _jsonl_rows(path: Path) -> Iterator[tuple[int, Mapping[str, Any]]]:
    for number, line in _lines(path):
        if not line or line.isspace():
            continue
        try:
            row = _DECODER.decode(line.strip(" \t\r\n"))
        except (ValueError, RecursionError) as exc:
            raise DataError(
                f"{path}, line {number}: not JSON ({exc}). Expected one whole JSON object per line, such as "
                '{"text": "..."}.'
            ) from exc
        if not isinstance(row, dict):
            kind = "a JSON array" if isinstance(row, list) else f"the JSON value {line.strip()[:40]}"
            raise DataError(
                f"{path}, line {number}: holds {kind}, but each line must be one JSON object with named fields, "
                'such as {"text": "..."}.'
            )
        yield number, row


def read_csv(path: str | Path) -> Table:
    """Rows of a CSV file with a header, plain or gzip; every value is a string, an empty cell stays empty.

    The delimiter is the comma, semicolon or tab that occurs most often in the header. Quoting as in RFC 4180:
    a quoted cell may hold delimiters, line ends and doubled quotes.
    """
    path = existing(path)
    return Table(str(path), "line", _csv_rows(path))


def _csv_rows(path: Path) -> Iterator[tuple[int, Mapping[str, Any]]]:
    with open_bytes(path) as stream:
        try:
            content = stream.read()
        except (EOFError, gzip.BadGzipFile, zlib.error) as exc:
            raise DataError(f"{path}: the gzip data is broken ({exc}). Copy or compress the file again.") from exc
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as exc:
        raise DataError(_not_utf8(path, content.count(b"\n", 0, exc.start) + 1, exc)) from exc
    del content
    header_line = text[: text.find("\n")] if "\n" in text else text
    delimiter = max(",;\t", key=header_line.count)
    with _CSV_LOCK:  # the limit on cell size is global to the process
        limit = csv.field_size_limit(sys.maxsize)
        try:
            records = list(_csv_records(path, text, delimiter))
        finally:
            csv.field_size_limit(limit)
    if not records:
        return
    header = records[0][1]
    repeated = {name for name in header if header.count(name) > 1}
    if repeated:
        raise DataError(f"{path}, line 1: the header names {sorted(repeated)[0]!r} twice. Give each column one name.")
    for number, cells in records[1:]:
        if len(cells) != len(header):
            raise DataError(
                f"{path}, line {number}: {len(cells)} cells, but the header names {len(header)} columns. Quote cells "
                f"that hold {delimiter!r} or line ends."
            )
        yield number, dict(zip(header, cells, strict=True))


def _csv_records(path: Path, text: str, delimiter: str) -> Iterator[tuple[int, list[str]]]:
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
    start = 1
    try:
        for cells in reader:
            if cells:
                yield start, cells
            start = reader.line_num + 1
    except csv.Error as exc:
        raise DataError(
            f"{path}, line {start}: not CSV ({exc}). Quote cells that hold quotes, and double the quotes inside."
        ) from exc


def read_parquet(path: str | Path, *, columns: Collection[str] | None = None) -> Table:
    """Rows of a Parquet file; of `columns`, where given, those that the file has."""
    path = existing(path)
    return Table(str(path), "row", _parquet_rows(path, columns))


def _parquet_rows(path: Path, columns: Collection[str] | None) -> Iterator[tuple[int, Mapping[str, Any]]]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    number = 0
    try:
        file = pq.ParquetFile(path)
        names = file.schema_arrow.names
        kept = names if columns is None else [name for name in names if name in columns]
        for batch in file.iter_batches(columns=kept):
            for row in batch.to_pylist():
                number += 1
                yield number, {name: plain(value, f"{path}, row {number}", name) for name, value in row.items()}
    except (pa.ArrowException, OSError) as exc:
        where = f"after row {number}" if number else "at its start"
        raise DataError(
            f"{path} cannot be read as Parquet, {where} ({exc}). Write the file again, for example with "
            "pyarrow.parquet.write_table."
        ) from exc


def read_records(rows: Iterable[Mapping[str, Any]], source: str) -> Table:
    """Rows of a list or other iterable, counted from 0."""
    return Table(source, "item", _record_rows(rows, source))


def _record_rows(rows: Iterable[Mapping[str, Any]], source: str) -> Iterator[tuple[int, Mapping[str, Any]]]:
    for number, row in enumerate(rows):
        where = f"{source}, item {number}"
        if not isinstance(row, Mapping):
            raise DataError(f"{where} is a {type(row).__name__}, but each record maps field names to values.")
        yield number, {str(name): plain(value, where, str(name)) for name, value in row.items()}


def plain(value: Any, where: str, name: str) -> Any:
    """Return `value` as a JSON value: NaN as null, dates in ISO form, decimals as strings, bytes as UTF-8 text."""
    if value is None or isinstance(value, (str, bool, int)):
        return value
    if isinstance(value, float):
        return None if math.isnan(value) else value
    if isinstance(value, Mapping):
        return {str(key): plain(item, where, name) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(item, where, name) for item in value]
    if isinstance(value, (datetime.date, datetime.time)):
        return value.isoformat()
    if isinstance(value, bytes):
        try:
            return value.decode("utf-8")
        except UnicodeDecodeError as exc:
            raise DataError(
                f"{where}: the field {name!r} holds bytes that are not text. Leave it out: name the fields to keep "
                "with fields=[...]."
            ) from exc
    if isinstance(value, decimal.Decimal):
        return str(value)
    item = getattr(value, "item", None)  # numpy scalars
    if callable(item):
        return plain(item(), where, name)
    raise DataError(
        f"{where}: the field {name!r} holds a {type(value).__name__}, which is no JSON value. Convert it, or leave "
        "it out: name the fields to keep with fields=[...]."
    )
