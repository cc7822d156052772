"""Rows and files on their way: chunks that fit into a request, files that are read and written in blocks."""

from __future__ import annotations

import gzip
import os
import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import IO, Any

from icl_select.client._requests import PATIENCE
from icl_select.client.flow import Flow, Request, fetch, to_json
from icl_select.errors import DataError, StoreError

__all__ = ["blocks", "json_lists", "save"]

_BLOCK = 1 << 20
# Below the 8 MiB that the service takes by default.
_CHUNK = 4 << 20


def json_lists(name: str, rows: Iterable[Mapping[str, Any]], most: int) -> Iterator[bytes]:
    """Objects of the form ``{name: [rows]}``, each of at most `most` rows and about 4 MiB; rows are read as needed."""
    opening, closing = to_json({name: []})[:-2], b"]}"
    part: list[bytes] = []
    size = 0
    for row in rows:
        encoded = to_json(row)
        if part and (len(part) == most or size + len(encoded) > _CHUNK):
            yield opening + b",".join(part) + closing
            part, size = [], 0
        part.append(encoded)
        size += len(encoded) + 1
    if part:
        yield opening + b",".join(part) + closing


def blocks(path: Path) -> Callable[[], Iterator[bytes]]:
    """What reads a file in blocks of 1 MiB, from the start each time; a name in ``.gz`` is unpacked on the way.

    Raises
    ------
    DataError
        If there is no such file, or it cannot be read to its end.
    """
    if not path.is_file():
        raise DataError(f"there is no file {path}. Pass the path of one.")

    def read() -> Iterator[bytes]:
        try:
            with _open(path) as stream:
                while block := stream.read(_BLOCK):
                    yield block
        except (OSError, EOFError) as exc:
            raise DataError(f"{path} cannot be read ({exc}), so not all of it was sent. Repair the file.") from exc

    return read


def _open(path: Path) -> IO[bytes]:
    # gzip.open of a path is a stream of bytes in this mode, which its type does not say.
    return path.open("rb") if path.suffix != ".gz" else gzip.GzipFile(path)  # type: ignore[return-value]


class _FileSink:
    """Writes a body beside its target, so that the target is whole or untouched."""

    def __init__(self, target: Path) -> None:
        self.target = target
        self._path = target.with_name(f".{target.name[:60]}.{uuid.uuid4().hex[:8]}.tmp")
        self._stream: IO[bytes] | None = None

    def start(self) -> None:
        self.discard()
        try:
            self._stream = self._path.open("xb")
        except OSError as exc:
            raise self._error(exc) from exc

    def feed(self, chunk: bytes) -> bool:
        assert self._stream is not None
        try:
            self._stream.write(chunk)
        except OSError as exc:
            raise self._error(exc) from exc
        return False

    def keep(self) -> None:
        assert self._stream is not None
        try:
            self._stream.flush()
            os.fsync(self._stream.fileno())
            self._stream.close()
            self._path.replace(self.target)
        except OSError as exc:
            raise self._error(exc) from exc

    def discard(self) -> None:
        if self._stream is not None:
            self._stream.close()
            self._path.unlink(missing_ok=True)
            self._stream = None

    def _error(self, exc: OSError) -> StoreError:
        return StoreError(f"cannot write {self.target}: {exc.strerror or exc}. Free some space, or pass another path.")


def save(request: Request, path: Path) -> Flow[Path]:
    """Write the body of the answer to a file: the old file or the whole new one is there, whatever happens."""
    sink = _FileSink(path)
    try:
        yield from fetch(replace(request, sink=sink, patience=PATIENCE), lambda answer: answer)
        sink.keep()
    finally:
        sink.discard()
    return path
