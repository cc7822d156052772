"""Bodies too large for memory: kept in a file while they arrive, read row by row, and gone when the request is over."""

from __future__ import annotations

import contextlib
import hashlib
import math
import secrets
from collections.abc import AsyncIterator, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from starlette.concurrency import run_in_threadpool
from starlette.requests import Request

from icl_select._files import make_folder
from icl_select.data.readers import Table, read_jsonl, read_parquet, read_records
from icl_select.data.rows import Row, RowSpec, read_rows
from icl_select.errors import DataError

from .errors import InvalidError, TooLargeError, UnsupportedError
from .settings import Limits, Settings
from .store import jobs, replay
from .store.database import Database
from .store.pools import PoolRecord
from .store.uploads import NewItem, Upload, Uploaded

__all__ = ["JSON", "JSON_LINES", "PARQUET", "Ingested", "Spooled", "clear", "ingest", "kind_of", "spool", "table_of"]

JSON = "application/json"
JSON_LINES = "application/x-ndjson"
PARQUET = "application/vnd.apache.parquet"

_KINDS = {
    JSON: JSON,
    JSON_LINES: JSON_LINES,
    "application/jsonl": JSON_LINES,
    "application/json-lines": JSON_LINES,
    "application/x-jsonlines": JSON_LINES,
    PARQUET: PARQUET,
    "application/x-parquet": PARQUET,
}
_FOLDER = "uploads"
_ROWS = 1_000
# Row groups of honest files are far below this; one that claims more is made to fill the memory.
_ROW_GROUP_BYTES = 2 * 1024**3


@dataclass(frozen=True)
class Spooled:
    """A body that has arrived whole."""

    path: Path
    size: int
    digest: str


def kind_of(request: Request, *, default: str | None = None) -> str:
    """What the body is, by its media type.

    Raises
    ------
    UnsupportedError
        If it is of no kind that is read here.
    """
    stated = request.headers.get("content-type", default or "").partition(";")[0].strip().lower()
    if stated not in _KINDS:
        raise UnsupportedError(
            f"a body of the type {stated or '(none)'!r} is not read here. Send {JSON}, {JSON_LINES} or {PARQUET} as "
            "Content-Type."
        )
    return _KINDS[stated]


@contextlib.asynccontextmanager
async def spool(request: Request, settings: Settings, most: int) -> AsyncIterator[Spooled]:
    """Write the body to a file of our own naming in the data directory, which is removed after the block.

    Raises
    ------
    TooLargeError
        If the body has more than `most` bytes.
    UnsupportedError
        If it is compressed: what it would unpack to has no limit.
    """
    if request.headers.get("content-encoding", "identity") != "identity":
        raise UnsupportedError("a compressed body is not read here. Send it as it is; Parquet is small by itself.")
    folder = make_folder(settings.data_dir / _FOLDER)
    path = folder / f"{secrets.token_hex(12)}.part"
    digest, size = hashlib.sha256(), 0
    try:
        with path.open("wb") as stream:
            async for part in request.stream():
                size += len(part)
                if size > most:
                    raise TooLargeError(
                        f"the body is larger than {most:,} bytes, which is the limit. Send it in parts."
                    )
                digest.update(part)
                await run_in_threadpool(_write, stream, part)
        yield Spooled(path, size, digest.hexdigest())
    finally:
        path.unlink(missing_ok=True)


def _write(stream: BinaryIO, part: bytes) -> None:
    stream.write(part)


def clear(settings: Settings) -> None:
    """Remove what a killed process left of its uploads."""
    folder = settings.data_dir / _FOLDER
    for path in folder.glob("*.part") if folder.is_dir() else ():
        path.unlink(missing_ok=True)


def table_of(body: Spooled, kind: str, limits: Limits) -> Table:
    """The rows of a body that is JSON Lines or Parquet."""
    if kind == PARQUET:
        return read_parquet(body.path, source="the upload", batch_rows=256, max_uncompressed_bytes=_ROW_GROUP_BYTES)
    # A character takes at most six bytes as an escape; the names of fields come on top.
    most = 6 * limits.item_chars + 65_536
    return read_jsonl(body.path, source="the upload", max_line_bytes=most, plain_only=True)


def records_table(rows: list[dict[str, Any]]) -> Table:
    """The rows of a JSON body."""
    return read_records(rows, "items")


@dataclass(frozen=True)
class Ingested:
    """What taking rows into a pool did. With `replayed`, the request had been answered before."""

    uploaded: Uploaded | None
    skipped: int
    job: str | None
    replayed: replay.Kept | None = None


def ingest(
    database: Database,
    settings: Settings,
    name: str,
    table: Table,
    skip_empty: bool,
    attempt: replay.Attempt | None,
    finish: Any,
) -> Ingested:
    """Take the rows of a table into a pool, all or none, and have them embedded.

    `finish(connection, ingested)` runs in the transaction that lets the rows be seen.

    Raises
    ------
    DataError, LabelError, TemplateError
        If a row is no item; the message names the row.
    ConflictError
        If another upload into the pool runs, or an id is taken.
    """
    upload = Upload(database, name, max_items=settings.limits.pool_items)
    pool = upload.begin()
    try:
        rows = read_rows(table, _spec(pool, skip_empty))
        part: list[NewItem] = []
        for row in rows:
            part.append(_new_item(row, settings.limits))
            if len(part) == _ROWS:
                upload.add(part)
                part = []
        upload.add(part)
        with database.write() as connection:
            if kept := replay.recall(connection, attempt):
                done = Ingested(None, 0, None, kept)
            else:
                uploaded = upload.finish(connection)
                job = None
                if uploaded.added:
                    waiting = jobs.pending(connection, uploaded.pool, "embed")
                    job = (waiting or jobs.enqueue(connection, uploaded.pool, "embed", {})).id
                done = Ingested(uploaded, rows.skipped, job)
                finish(connection, done)
    except BaseException:
        with contextlib.suppress(Exception):  # what is left is removed by the next upload
            upload.abort()
        raise
    if done.replayed is not None:
        upload.abort()
    return done


def _spec(pool: PoolRecord, skip_empty: bool) -> RowSpec:
    config = pool.config
    return RowSpec(
        text=config["text"],
        id=config["id_field"],
        label=config["label_field"],
        label_words=config["label_words"],
        skip_empty=skip_empty,
    )


def _new_item(row: Row, limits: Limits) -> NewItem:
    if row.given is not None and (len(row.given) > 512 or "\0" in row.given):
        raise DataError(f"{row.where}: the id {row.given[:40]!r} is longer than 512 characters, or holds a NUL.")
    if row.label is not None and (len(row.label) > 20_000 or "\0" in row.label):
        raise DataError(f"{row.where}: the label is longer than 20,000 characters, or holds a NUL.")
    size = len(row.text) + sum(_size(value) for value in (*row.fields.values(), *row.metadata.values()))
    if size > 2 * limits.item_chars:
        raise TooLargeError(f"{row.where}: the item has {size:,} characters; {limits.item_chars:,} are the limit.")
    return NewItem(row.where, row.given, row.content_id, row.text, row.fields, row.metadata, row.label)


def _size(value: Any) -> int:
    """Characters of a JSON value; a number that JSON does not know is refused here."""
    if isinstance(value, str):
        return len(value)
    if isinstance(value, float) and not math.isfinite(value):
        raise InvalidError(f"a field holds the number {value}, which JSON does not know. Leave it out.")
    if isinstance(value, Mapping):
        return sum(len(key) + _size(item) for key, item in value.items())
    if isinstance(value, (list, tuple)):
        return sum(map(_size, value))
    return 8


def lines(values: Iterator[bytes], size: int = 65_536) -> Iterator[bytes]:
    """Join short lines into parts worth sending."""
    part: list[bytes] = []
    length = 0
    for value in values:
        part.append(value)
        length += len(value)
        if length >= size:
            yield b"".join(part)
            part, length = [], 0
    if part:
        yield b"".join(part)
