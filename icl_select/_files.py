"""Writing files so that a reader never sees half of one, and so that a crash loses nothing finished."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

from icl_select.errors import LockedError, StoreError

__all__ = ["atomic_write", "lock_folder", "make_folder"]


def make_folder(path: Path) -> Path:
    """Create a folder and its parents, or raise StoreError that says why it cannot be."""
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as exc:
        raise StoreError(f"cannot create the folder {path}: {_reason(exc)}") from exc
    return path


def atomic_write(path: Path, content: bytes) -> None:
    """Write `content` under `path`: the old file or the whole new one, also after a crash or on a full disk.

    A link is followed, and what is no regular file (``/dev/stdout``, a pipe) is written to as it is.
    """
    path = path.resolve() if path.is_symlink() else path
    make_folder(path.parent)
    temporary = None
    try:
        if path.exists() and not path.is_file():
            path.write_bytes(content)
            return
        descriptor, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name[:60]}.", suffix=".tmp")
        with os.fdopen(descriptor, "wb") as stream:
            stream.write(content)
            stream.flush()
            os.fsync(stream.fileno())
        Path(temporary).chmod(0o666 & ~_umask())
        Path(temporary).replace(path)
    except OSError as exc:
        if temporary is not None:
            Path(temporary).unlink(missing_ok=True)
        raise StoreError(f"cannot write {path}: {_reason(exc)}") from exc


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


def _reason(exc: OSError) -> str:
    ways = {
        errno.ENOSPC: "the disk is full. Free some space and run again; what was finished is kept.",
        errno.EDQUOT: "the quota is used up. Free some space and run again; what was finished is kept.",
        errno.EROFS: "the file system is read-only. Choose another folder.",
        errno.EACCES: "permission denied. Choose a folder that you may write to.",
        errno.EPERM: "permission denied. Choose a folder that you may write to.",
        errno.ENOTDIR: "a part of the path is a file, not a folder. Choose another folder.",
        errno.EISDIR: "a folder of that name is in the way. Choose another name.",
        errno.EEXIST: "a file of that name is in the way. Choose another folder.",
    }
    return ways.get(exc.errno or 0, f"{exc.strerror or exc}.")


@contextlib.contextmanager
def lock_folder(folder: Path, purpose: str) -> Iterator[None]:
    """Hold `folder` for this process until the block ends; a second process gets LockedError at once.

    The lock belongs to the open file, so the system releases it when the process dies, however it dies.
    """
    make_folder(folder)
    path = folder / ".lock"
    try:
        stream = path.open("a+")
    except OSError as exc:
        raise StoreError(f"cannot open {path}: {_reason(exc)}") from exc
    with stream:
        try:
            fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as exc:
            stream.seek(0)
            owner = stream.read().strip() or "another process"
            raise LockedError(f"{folder} is in use by {owner}. Wait until it ends, or choose another folder.") from exc
        stream.seek(0)
        stream.truncate()
        stream.write(f"{purpose} (process {os.getpid()})")
        stream.flush()
        yield
