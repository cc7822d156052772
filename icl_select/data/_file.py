"""A file that is read, what messages call it, and whether it may be compressed."""

from __future__ import annotations

import codecs
import gzip
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Self, cast

from icl_select.errors import DataError, suggest

__all__ = ["File", "existing"]

_UTF16 = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)
_GZIP = b"\x1f\x8b"


@dataclass(frozen=True)
class File:
    """A file on disk, which turns into its name in messages.

    Attributes
    ----------
    path : Path
    name : str
        What messages call it: an upload lies under a path that says nothing to whoever sent it.
    plain_only : bool
        Whether gzip is refused, which may unpack to a thousand times its size.
    """

    path: Path
    name: str
    plain_only: bool = False

    @classmethod
    def at(cls, path: str | Path, source: str | None = None, *, plain_only: bool = False) -> Self:
        """The file of a path, which must be there; `source` is its name, by default the path."""
        path = existing(path)
        return cls(path, str(path) if source is None else source, plain_only)

    def __str__(self) -> str:
        return self.name

    def open(self) -> BinaryIO:
        """Open the file for reading bytes; gzip is recognised by content. Raises DataError if it cannot be opened."""
        if self.path.is_dir():
            raise DataError(f"{self} is a folder, but a file is expected. Name the file inside it.")
        try:
            stream = self.path.open("rb")
        except OSError as exc:
            raise DataError(f"{self} cannot be opened: {exc.strerror}. Check its permissions.") from exc
        magic = stream.read(2)
        stream.seek(0)
        if magic in _UTF16:
            stream.close()
            raise DataError(f"{self} is UTF-16 text, but UTF-8 is expected. Convert it: iconv -f utf-16 -t utf-8.")
        if magic != _GZIP:
            return stream
        if self.plain_only:
            stream.close()
            raise DataError(f"{self} is gzip data, but only plain text is taken here. Unpack it first: gunzip.")
        return cast("BinaryIO", gzip.open(stream))


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
