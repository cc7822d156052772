"""Vectors of pools as files: written once, checked before they are used, read through memory maps.

``<data_dir>/pools/<uid>/<encoder fingerprint>/`` holds blocks of 2,048 rows. A block's name says which rows it holds,
of which texts (a hash), and with what content (a hash), so no two contents share a name, a file can be checked by
itself, and processes that write the same block do no harm to each other.

A file is two arrays in numpy's format, one behind the other: the vectors, float32 of shape (rows, dim), as the encoder
gave them, and whether each text was longer than the encoder reads, bool of shape (rows,).
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import re
import shutil
import time
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from icl_select._files import atomic_write
from icl_select._fingerprint import fingerprint
from icl_select.errors import StoreError
from icl_select.types import BoolArray

from .errors import StaleError
from .store.embeddings import Block, EmbeddingRecord

__all__ = ["BLOCK_ROWS", "Rows", "VectorFiles"]

Vectors = npt.NDArray[np.float32]

BLOCK_ROWS = 2_048
"""Rows of a block; the last one of a pool has fewer."""

_NAME = re.compile(r"\d+-\d+-[0-9a-f]{16}-([0-9a-f]{16})\.npy")
_READ = 1024 * 1024
_REMEMBERED = 50_000


@dataclass(frozen=True, eq=False)
class Rows:
    """What a block holds."""

    vectors: Vectors
    truncated: BoolArray


class VectorFiles:
    """The vector files under a data directory. Safe to share between threads and processes."""

    def __init__(self, data_dir: Path) -> None:
        self._root = data_dir / "pools"
        # Files whose content was compared with its hash by this process: path -> inode, size and time of change.
        self._verified: dict[Path, tuple[int, int, int]] = {}

    def rows(self, embedding: EmbeddingRecord, positions: Sequence[int] | npt.NDArray[np.int64]) -> Vectors:
        """Vectors of some items.

        Parameters
        ----------
        embedding : EmbeddingRecord
        positions : sequence of int, length m
            Positions of items in the pool, in any order.

        Returns
        -------
        ndarray of shape (m, dim), float32
            As the encoder gave them: `embedding.shift` is not subtracted.

        Raises
        ------
        StaleError
            If a position is not embedded, or a file that is needed is missing or damaged.
        StoreError
            If a file cannot be read.
        """
        wanted = np.asarray(positions, dtype=np.int64)
        if len(wanted) and not (wanted.min() >= 0 and wanted.max() < embedding.n_items):
            raise StaleError(
                f"vectors of items at positions from {wanted.min()} to {wanted.max()} were asked for, and "
                f"{embedding.n_items} items of the pool are embedded. {_AGAIN}"
            )
        out = np.empty((len(wanted), embedding.dim), dtype=np.float32)
        starts = np.array([block.start for block in embedding.blocks], dtype=np.int64)
        place = np.searchsorted(starts, wanted, side="right") - 1
        for number in np.unique(place).tolist():
            block, here = embedding.blocks[number], place == number
            out[here] = self._mapped(embedding, block)[wanted[here] - block.start]
        return out

    def matrix(self, embedding: EmbeddingRecord, shift: npt.NDArray[np.float64] | None = None) -> Vectors:
        """Vectors of all items, shape (n_items, dim), float32, in one copy, less `shift`; otherwise as :meth:`rows`."""
        out = np.empty((embedding.n_items, embedding.dim), dtype=np.float32)
        for block in embedding.blocks:
            part = self._mapped(embedding, block)
            out[block.start : block.stop] = part if shift is None else part - shift
        return out

    def write_block(self, uid: int, encoder_fingerprint: str, start: int, texts: Sequence[str], rows: Rows) -> Block:
        """Write the block of some texts; when this returns, it is on disk.

        Raises
        ------
        StoreError
            If the file cannot be written; nothing of it is left then.
        """
        stream = io.BytesIO()
        np.save(stream, np.ascontiguousarray(rows.vectors, dtype="<f4"), allow_pickle=False)
        np.save(stream, rows.truncated.astype(bool), allow_pickle=False)
        content = stream.getvalue()
        sha256 = hashlib.sha256(content).hexdigest()
        name = f"{_beginning(start, texts)}{sha256[:16]}.npy"
        atomic_write(self._root / str(uid) / encoder_fingerprint / name, content)
        return Block(start, start + len(texts), name, sha256)

    def find_block(self, uid: int, encoder_fingerprint: str, start: int, texts: Sequence[str]) -> Block | None:
        """The block of these texts that somebody wrote before, if it is there and whole."""
        folder = self._root / str(uid) / encoder_fingerprint
        for path in sorted(folder.glob(f"{_beginning(start, texts)}*.npy")):
            match = _NAME.fullmatch(path.name)
            with contextlib.suppress(OSError):
                sha256 = _hash_of(path)
                if match is not None and sha256.startswith(match[1]):
                    return Block(start, start + len(texts), path.name, sha256)
        return None

    def read_block(self, uid: int, encoder_fingerprint: str, block: Block) -> Rows | None:
        """What a block holds, once its content was compared with its hash, now; None if it is missing or damaged."""
        path = self._root / str(uid) / encoder_fingerprint / block.file
        try:
            if _hash_of(path) != block.sha256:
                return None
            with path.open("rb") as stream:
                vectors = np.load(stream, allow_pickle=False)
                truncated = np.load(stream, allow_pickle=False)
        except (FileNotFoundError, NotADirectoryError):
            return None
        except OSError as exc:
            raise _unreadable(path, exc) from exc
        return Rows(vectors, truncated)

    def remove_pool(self, uid: int) -> None:
        """Remove all files of a pool."""
        shutil.rmtree(self._root / str(uid), ignore_errors=True)

    def sweep(self, uid: int, named: Collection[tuple[str, str]], *, older_than: float = 60.0) -> None:
        """Remove files of a pool that are not among `named` (encoder fingerprint, file).

        A file younger than `older_than` seconds stays: it may be the work of a process whose embedding is not kept yet.
        """
        limit = time.time() - older_than
        for folder in _folders(self._root / str(uid)):
            for path in folder.iterdir():
                with contextlib.suppress(OSError):  # what cannot be removed does no harm
                    if (folder.name, path.name) not in named and path.stat().st_mtime <= limit:
                        path.unlink()
            with contextlib.suppress(OSError):  # it is not empty
                folder.rmdir()

    def uids(self) -> set[int]:
        """The pools that have files."""
        return {int(folder.name) for folder in _folders(self._root) if folder.name.isdecimal()}

    def _mapped(self, embedding: EmbeddingRecord, block: Block) -> Vectors:
        """The vectors of a block that is what the record says. The map ends with the last reference to it."""
        path = self._root / str(embedding.pool_uid) / embedding.encoder_fingerprint / block.file
        try:
            stat = path.stat()
            state = (stat.st_ino, stat.st_size, stat.st_mtime_ns)
            if self._verified.get(path) != state:
                if _hash_of(path) != block.sha256:
                    raise _stale(embedding, block, "is damaged")
                if len(self._verified) >= _REMEMBERED:
                    self._verified.clear()
                self._verified[path] = state
            vectors: Vectors = np.load(path, mmap_mode="r", allow_pickle=False)
        except (FileNotFoundError, NotADirectoryError) as exc:
            raise _stale(embedding, block, "is missing") from exc
        except OSError as exc:
            raise _unreadable(path, exc) from exc
        if vectors.shape != (block.stop - block.start, embedding.dim):
            raise _stale(embedding, block, f"holds an array of shape {vectors.shape}")
        return vectors


_AGAIN = "POST /v1/pools/{pool}/embeddings starts the job that makes them."


def _stale(embedding: EmbeddingRecord, block: Block, what: str) -> StaleError:
    return StaleError(
        f"the file with the vectors of the items at positions from {block.start} to {block.stop - 1} {what} "
        f"(embedding {embedding.id}, {block.file}). {_AGAIN}"
    )


def _unreadable(path: Path, exc: OSError) -> StoreError:
    return StoreError(f"cannot read {path}: {exc.strerror or exc}. See that the service may read its data directory.")


def _beginning(start: int, texts: Sequence[str]) -> str:
    return f"{start:09d}-{start + len(texts):09d}-{fingerprint(list(texts))}-"


def _hash_of(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as stream:
        while part := stream.read(_READ):
            digest.update(part)
    return digest.hexdigest()


def _folders(path: Path) -> Iterator[Path]:
    if path.is_dir():
        yield from (entry for entry in list(path.iterdir()) if entry.is_dir())
