"""Where caches are kept, and the SQLite file that each of them is.

SQLite serialises writers and undoes what an interrupted process left half written; the checksum that each row
carries catches everything else, row by row.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
import sqlite3
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from icl_select._files import make_folder
from icl_select.errors import StoreError

__all__ = ["CACHE_VARIABLE", "CacheFile", "cache_file_name", "cache_name", "checksum", "default_cache_folder"]

CACHE_VARIABLE = "ICS_CACHE_DIR"

_BUSY_SECONDS = 60.0
_LOOK_UP = 500  # parameters of one query; SQLite takes 999 at least


def default_cache_folder() -> Path:
    """``$ICS_CACHE_DIR``, else ``$XDG_CACHE_HOME/icl-select``, else ``~/.cache/icl-select``."""
    own = os.environ.get(CACHE_VARIABLE)
    if own:
        return Path(own).expanduser()
    shared = os.environ.get("XDG_CACHE_HOME")
    try:
        return (Path(shared) if shared else Path.home() / ".cache") / "icl-select"
    except RuntimeError as exc:
        raise StoreError(
            f"this user has no home folder to keep a cache in. Set {CACHE_VARIABLE}, or work without a cache."
        ) from exc


def cache_name(name: str, fingerprint: str) -> str:
    """A name for a folder or file out of the name of a model and its fingerprint, safe on every system."""
    readable = re.sub(r"[^A-Za-z0-9.-]+", "-", name).strip("-.")[:60]
    return f"{readable}-{fingerprint}"


def cache_file_name(name: str, fingerprint: str) -> str:
    """The name of a :class:`CacheFile`."""
    return f"{cache_name(name, fingerprint)}.sqlite"


def checksum(*parts: bytes) -> bytes:
    """Eight bytes that change with any of the parts."""
    return hashlib.blake2b(b"".join(parts), digest_size=8).digest()


@dataclass(frozen=True)
class CacheFile:
    """One table of rows under the hash of what they answer, in a file that belongs to one model.

    Attributes
    ----------
    path : Path
        The file; made by :meth:`prepare`.
    what : str
        What messages call it, such as "embedding cache".
    format : str
        Version of what the rows hold; a file of another format is refused.
    owner : tuple of two str
        Kind and fingerprint of the model; a file of another owner is refused.
    table, columns : str
        Name of the table, and its columns between ``key`` and ``checksum``, as SQL.
    lost : str
        What losing the file costs, such as "its texts will be encoded again".
    way_out : str
        How to work without it; ends every message.

    Notes
    -----
    Every call opens and closes the file: nothing is held between calls, so threads, forks and other processes may
    use the same folder. A read needs no write permission.
    """

    path: Path
    what: str
    format: str
    owner: tuple[str, str]
    table: str
    columns: str
    lost: str
    way_out: str

    def prepare(self) -> None:
        """Make folder and file, so that a place that cannot be written to shows before any work is done."""
        try:
            make_folder(self.path.parent)
        except StoreError as exc:
            raise StoreError(f"the {self.what} has no place: {exc} {self.way_out}") from exc
        with self.connection() as connection:
            connection.execute("BEGIN IMMEDIATE")
            connection.execute("CREATE TABLE IF NOT EXISTS meta (name TEXT PRIMARY KEY, value TEXT NOT NULL)")
            connection.execute(
                f"CREATE TABLE IF NOT EXISTS {self.table} (key BLOB PRIMARY KEY, {self.columns}, "
                "checksum BLOB NOT NULL)"
            )
            connection.executemany("INSERT OR IGNORE INTO meta VALUES (?, ?)", [("format", self.format), self.owner])
            self._check_meta(connection)
            connection.execute("COMMIT")

    def rows(self, keys: Sequence[bytes]) -> Iterator[tuple[Any, ...]]:
        """The stored rows under `keys`, as they stand: a damaged file can hold values of any type."""
        if not self.path.exists():
            return
        with self.connection() as connection:
            tables = connection.execute("SELECT count(*) FROM sqlite_master WHERE name = ?", (self.table,)).fetchone()
            if not tables[0]:  # made, then interrupted before the first commit
                return
            self._check_meta(connection)
            yield from self.select(connection, keys)

    def select(self, connection: sqlite3.Connection, keys: Sequence[bytes]) -> Iterator[tuple[Any, ...]]:
        """The rows under `keys`, within a transaction of the caller's."""
        for start in range(0, len(keys), _LOOK_UP):
            some = keys[start : start + _LOOK_UP]
            marks = ",".join("?" * len(some))
            names = ", ".join(["key", *(column.split()[0] for column in self.columns.split(",")), "checksum"])
            yield from connection.execute(f"SELECT {names} FROM {self.table} WHERE key IN ({marks})", some)

    def replace(self, connection: sqlite3.Connection, rows: Iterable[tuple[Any, ...]]) -> None:
        """Write rows, within a transaction of the caller's."""
        marks = ",".join("?" * (self.columns.count(",") + 3))
        connection.executemany(f"INSERT OR REPLACE INTO {self.table} VALUES ({marks})", rows)

    def _check_meta(self, connection: sqlite3.Connection) -> None:
        meta = dict(connection.execute("SELECT name, value FROM meta"))
        kind, fingerprint = self.owner
        if meta.get("format") != self.format or meta.get(kind) != fingerprint:
            raise StoreError(
                f"{self.path} is not the cache of this {kind} (format {meta.get('format')}, {kind} "
                f"{meta.get(kind)}). Move the file away. {self.way_out}"
            )

    @contextlib.contextmanager
    def connection(self) -> Iterator[sqlite3.Connection]:
        """A connection for one call; what goes wrong in SQLite leaves as a StoreError."""
        connection = None
        try:
            connection = sqlite3.connect(self.path, timeout=_BUSY_SECONDS, isolation_level=None)
            # A damaged text is a row to leave out, not a reason to stop.
            connection.text_factory = lambda content: content.decode("utf-8", "replace")
            # A power cut may cost the last batches, never the file.
            connection.execute("PRAGMA synchronous = NORMAL")
            yield connection
        except (sqlite3.Error, UnicodeDecodeError) as exc:  # the latter: a damaged name in an error message
            raise StoreError(f"the {self.what} {self.path} {self._reason(exc)} {self.way_out}") from exc
        finally:
            if connection is not None:
                connection.close()

    def _reason(self, exc: sqlite3.Error | UnicodeDecodeError) -> str:
        # The primary code is the low byte of the extended one.
        code = getattr(exc, "sqlite_errorcode", 0) & 0xFF
        if isinstance(exc, UnicodeDecodeError) or code in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB):
            return f"is damaged ({exc}). Delete the file: {self.lost}."
        if code == sqlite3.SQLITE_FULL:
            return "cannot be written: the disk is full. Free some space and run again; what was finished is kept."
        if code in (sqlite3.SQLITE_READONLY, sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_PERM):
            return f"cannot be written ({exc})."
        if code in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED):
            return f"was locked by another process for {_BUSY_SECONDS:.0f} s. Run again when that process has finished."
        return f"cannot be used ({exc}). If it is damaged, delete the file: {self.lost}."
