"""Vectors on disk, so that no text is encoded twice: one SQLite file for each encoder.

A file is named after the encoder and its fingerprint, and holds, under the hash of each text, the vector, whether the
text was truncated, and a checksum over all three.
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from icl_select._cache import CACHE_VARIABLE, CacheFile, cache_file_name, checksum, default_cache_folder
from icl_select.embedding.encoder import Encoded, Encoder
from icl_select.errors import EmbeddingError
from icl_select.types import BoolArray, IntArray

__all__ = ["CACHE_VARIABLE", "VectorCache", "default_cache_folder"]

log = logging.getLogger(__name__)


class VectorCache:
    """The stored vectors of one encoder.

    Parameters
    ----------
    folder : Path
        Cache folder, shared by all encoders; made when the first vector is stored.
    encoder : Encoder
        Its name and fingerprint give the file.
    """

    def __init__(self, folder: Path, encoder: Encoder) -> None:
        self.file = CacheFile(
            path=folder / "embeddings" / cache_file_name(encoder.name, encoder.fingerprint),
            what="embedding cache",
            format="icl-select/vectors/1",
            owner=("encoder", encoder.fingerprint),
            table="vectors",
            columns="truncated INTEGER NOT NULL, vector BLOB NOT NULL",
            lost="its texts will be encoded again",
            way_out=f"Pass cache=False to work without a cache, or set {CACHE_VARIABLE} to another folder.",
        )

    @property
    def path(self) -> Path:
        """The file of this encoder."""
        return self.file.path

    def prepare(self) -> None:
        """Make folder and file, so that a place that cannot be written to shows before any work is done."""
        self.file.prepare()

    def get(self, texts: Sequence[str]) -> tuple[IntArray, Encoded]:
        """Return the positions in `texts` that are stored, and their vectors in that order.

        Entries whose checksum fails are left out, with a warning in the log; storing them again repairs them.
        """
        position = {_key(text): i for i, text in enumerate(texts)}
        found: list[tuple[int, bytes, bool]] = []
        damaged = 0
        for key, truncated, vector, check in self.file.rows(list(position)):
            if _sound(key, truncated, vector, check) and (not found or len(vector) == len(found[0][1])):
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
        with self.file.connection() as connection:
            connection.execute("BEGIN IMMEDIATE")
            connection.execute("INSERT OR IGNORE INTO meta VALUES ('dim', ?)", (dim,))
            stored = connection.execute("SELECT value FROM meta WHERE name = 'dim'").fetchone()[0]
            if stored != dim:
                raise EmbeddingError(
                    f"the encoder gave vectors of dimension {dim}, but {self.path.name} holds some of dimension "
                    f"{stored} under the same fingerprint. Let its fingerprint cover what changes the dimension."
                )
            self.file.replace(connection, rows)
            connection.execute("COMMIT")


def _key(text: str) -> bytes:
    return hashlib.blake2b(text.encode("utf-8"), digest_size=16).digest()


def _checksum(key: bytes, truncated: int, vector: bytes) -> bytes:
    return checksum(key, bytes([truncated]), vector)


def _sound(key: object, truncated: object, vector: object, check: object) -> bool:
    """Whether a row is what was stored; a damaged file can hold values of any type."""
    if not isinstance(key, bytes) or truncated not in (0, 1) or not isinstance(vector, bytes) or not vector:
        return False
    return len(vector) % 4 == 0 and check == _checksum(key, int(bool(truncated)), vector)
