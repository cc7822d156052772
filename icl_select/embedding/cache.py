"""Vectors on disk, so that no text is encoded twice: one SQLite file for each encoder.

A file is named after the encoder and its fingerprint, and holds, under the hash of each text, the vector, whether the
text was truncated, and a checksum over all three. SQLite serialises writers and undoes what an interrupted process
left half written; the checksum catches everything else, row by row.
"""

from __future__ import annotations

import contextlib
import hashlib
import logging
import re
import sqlite3
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from icl_select._cache import CACHE_VARIABLE, default_cache_folder
from icl_select._files import make_folder
from icl_select.embedding.encoder import Encoded, Encoder
from icl_select.errors import EmbeddingError, StoreError
from icl_select.types import BoolArray, IntArray

__all__ = ["CACHE_VARIABLE", "VectorCache", "default_cache_folder"]

log = logging.getLogger(__name__)

_FORMAT = "icl-select/vectors/1"
_BUSY_SECONDS = 60.0
_LOOK_UP = 500  # parameters of one query; SQLite takes 999 at least
_WAY_OUT = f"Pass cache=False to work without a cache, or set {CACHE_VARIABLE} to another folder."


class VectorCache:
    """The stored vectors of one encoder.

    Parameters
    ----------
    folder : Path
        Cache folder, shared by all encoders; made when the first vector is stored.
    encoder : Encoder
        Its name and fingerprint give the file.

    Notes
    -----
    Every call opens and closes the file: nothing is held between calls, so threads, forks and other processes may
    use the same folder. A read needs no write permission.
    """

    def __init__(self, folder: Path, encoder: Encoder) -> None:
        name = re.sub(r"[^A-Za-z0-9.-]+", "-", encoder.name).strip("-.")[:60]
        self.path = folder / "embeddings" / f"{name}-{encoder.fingerprint}.sqlite"
        self._fingerprint = encoder.fingerprint

    def prepare(self) -> None:
        """Make folder and file, so that a place that cannot be written to shows before any work is done."""
        try:
            make_folder(self.path.parent)
        except StoreError as exc:
            raise StoreError(f"the embedding cache has no place: {exc} {_WAY_OUT}") from exc
        with self._connection() as connection:
            connection.execute("BEGIN IMMEDIATE")
            connection.execute("CREATE TABLE IF NOT EXISTS meta (name TEXT PRIMARY KEY, value TEXT NOT NULL)")
            connection.execute(
                "CREATE TABLE IF NOT EXISTS vectors (key BLOB PRIMARY KEY, truncated INTEGER NOT NULL, "
                "vector BLOB NOT NULL, checksum BLOB NOT NULL)"
            )
            meta = [("format", _FORMAT), ("encoder", self._fingerprint)]
            connection.executemany("INSERT OR IGNORE INTO meta VALUES (?, ?)", meta)
            self._check_meta(connection)
            connection.execute("COMMIT")

    def get(self, texts: Sequence[str]) -> tuple[IntArray, Encoded]:
        """Return the positions in `texts` that are stored, and their vectors in that order.

        Entries whose checksum fails are left out, with a warning in the log; storing them again repairs them.
        """
        position = {_key(text): i for i, text in enumerate(texts)}
        found: list[tuple[int, bytes, bool]] = []
        damaged = 0
        for key, truncated, vector, checksum in self._rows(list(position)):
            if _sound(key, truncated, vector, checksum) and (not found or len(vector) == len(found[0][1])):
                found.append((position[key], vector, bool(truncated)))
            else:
                damaged += 1
        if damaged:
            log.warning("%d damaged vectors in %s; their texts are encoded again", damaged, self.path)
        found.sort()
        joined = np.frombuffer(b"".join(vector for _, vector, _ in found), dtype="<f4").astype(np.float32)
        flags: BoolArray = np.array([truncated for _, _, truncated in found], dtype=bool)
        vectors = joined.reshape(len(found), -1) if found else joined.reshape(0, 0)
        return np.array([i for i, _, _ in found], dtype=np.int64), Encoded(vectors, flags)

    def put(self, texts: Sequence[str], encoded: Encoded) -> None:
        """Store finished vectors, all or none. Call :meth:`prepare` first."""
        dim = str(encoded.vectors.shape[1])
        rows = []
        for text, vector, flag in zip(texts, encoded.vectors.astype("<f4"), encoded.truncated, strict=True):
            key, truncated, blob = _key(text), int(flag), vector.tobytes()
            rows.append((key, truncated, blob, _checksum(key, truncated, blob)))
        with self._connection() as connection:
            connection.execute("BEGIN IMMEDIATE")
            connection.execute("INSERT OR IGNORE INTO meta VALUES ('dim', ?)", (dim,))
            stored = connection.execute("SELECT value FROM meta WHERE name = 'dim'").fetchone()[0]
            if stored != dim:
                raise EmbeddingError(
                    f"the encoder gave vectors of dimension {dim}, but {self.path.name} holds some of dimension "
                    f"{stored} under the same fingerprint. Let its fingerprint cover what changes the dimension."
                )
            connection.executemany("INSERT OR REPLACE INTO vectors VALUES (?, ?, ?, ?)", rows)
            connection.execute("COMMIT")

    def _rows(self, keys: list[bytes]) -> Iterator[tuple[bytes, int, bytes, bytes]]:
        if not self.path.exists():
            return
        with self._connection() as connection:
            tables = connection.execute("SELECT count(*) FROM sqlite_master WHERE name = 'vectors'").fetchone()
            if not tables[0]:  # made, then interrupted before the first commit
                return
            self._check_meta(connection)
            for start in range(0, len(keys), _LOOK_UP):
                some = keys[start : start + _LOOK_UP]
                marks = ",".join("?" * len(some))
                yield from connection.execute(
                    f"SELECT key, truncated, vector, checksum FROM vectors WHERE key IN ({marks})", some
                )

    def _check_meta(self, connection: sqlite3.Connection) -> None:
        meta = dict(connection.execute("SELECT name, value FROM meta"))
        if meta.get("format") != _FORMAT or meta.get("encoder") != self._fingerprint:
            raise StoreError(
                f"{self.path} is not the cache of this encoder (format {meta.get('format')}, encoder "
                f"{meta.get('encoder')}). Move the file away. {_WAY_OUT}"
            )

    @contextlib.contextmanager
    def _connection(self) -> Iterator[sqlite3.Connection]:
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
            raise StoreError(f"the embedding cache {self.path} {_reason(exc)} {_WAY_OUT}") from exc
        finally:
            if connection is not None:
                connection.close()


def _reason(exc: sqlite3.Error | UnicodeDecodeError) -> str:
    # The primary code is the low byte of the extended one.
    code = getattr(exc, "sqlite_errorcode", 0) & 0xFF
    if isinstance(exc, UnicodeDecodeError) or code in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB):
        return f"is damaged ({exc}). Delete the file: its texts will be encoded again."
    if code == sqlite3.SQLITE_FULL:
        return "cannot be written: the disk is full. Free some space and run again; what was finished is kept."
    if code in (sqlite3.SQLITE_READONLY, sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_PERM):
        return f"cannot be written ({exc})."
    if code in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED):
        return f"was locked by another process for {_BUSY_SECONDS:.0f} s. Run again when that process has finished."
    return f"cannot be used ({exc}). If it is damaged, delete the file: its texts will be encoded again."


def _key(text: str) -> bytes:
    return hashlib.blake2b(text.encode("utf-8"), digest_size=16).digest()


def _checksum(key: bytes, truncated: int, vector: bytes) -> bytes:
    return hashlib.blake2b(key + bytes([truncated]) + vector, digest_size=8).digest()


def _sound(key: object, truncated: object, vector: object, checksum: object) -> bool:
    """Whether a row is what was stored; a damaged file can hold values of any type."""
    if not isinstance(key, bytes) or truncated not in (0, 1) or not isinstance(vector, bytes) or not vector:
        return False
    return len(vector) % 4 == 0 and checksum == _checksum(key, int(bool(truncated)), vector)
