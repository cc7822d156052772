"""An exported encoder on disk: graph, tokenizer and settings, each held against its hash before it is used.

Readers take no lock: they read whole files and hold what they read against ``meta.json``, which is written last. What
does not fit is read again under the lock of the folder, which every writer holds, and exported again if it still
does not fit. So any number of processes may use the folder, and one of them exports.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import logging
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from icl_select._cache import CACHE_VARIABLE
from icl_select._files import atomic_write, lock_folder
from icl_select._fingerprint import fingerprint as hash_of
from icl_select.errors import LockedError, StoreError

__all__ = ["Exported", "Settings", "find_or_export"]

log = logging.getLogger(__name__)

GRAPH, TOKENIZER, META = "model.onnx", "tokenizer.json", "meta.json"
_FORMAT = "icl-select/onnx/1"

# An export takes seconds, minutes for a large model on a busy machine.
_WAIT_SECONDS = 600.0
_POLL_SECONDS = 0.1


@dataclass(frozen=True)
class Settings:
    """What has to be known beside graph and tokenizer to give the vectors of the model.

    `max_tokens` counts special tokens and the prompt; None if there is no limit. `prompt` stands before every text.
    """

    dim: int
    max_tokens: int | None
    prompt: str
    pad_id: int
    pad_type_id: int
    pad_left: bool
    cut_left: bool


@dataclass(frozen=True)
class Exported:
    """An encoder that needs no torch. `made_with` names the versions that exported it, for people."""

    graph: bytes
    tokenizer: bytes
    settings: Settings
    made_with: dict[str, str]


class _DamagedError(Exception):
    """A file is not what was written; the message says which."""


def find_or_export(folder: Path, fingerprint: str, export: Callable[[], Exported]) -> Exported:
    """Return the encoder in `folder`, or export it there, once for all processes.

    What is damaged is exported again, with a warning in the log. StoreError if the folder cannot be used, LockedError
    if another process holds it for ten minutes.
    """
    with contextlib.suppress(_DamagedError):  # or half written by now: looked at again under the lock
        found = _read(folder, fingerprint)
        if found is not None:
            return found
    with _turn(folder):
        try:
            found = _read(folder, fingerprint)
        except _DamagedError as exc:
            log.warning("the exported encoder in %s is damaged: %s; it is exported again", folder, exc)
            found = None
        if found is None:
            log.info("exporting an encoder to %s, once", folder)
            found = export()
            _write(folder, fingerprint, found)
        return found


@contextlib.contextmanager
def _turn(folder: Path) -> Iterator[None]:
    """Hold the folder, after the process that holds it now."""
    deadline = time.monotonic() + _WAIT_SECONDS
    waiting = False
    with contextlib.ExitStack() as held:
        while True:
            try:
                held.enter_context(lock_folder(folder, "the export of an encoder"))
                break
            except LockedError:
                if time.monotonic() > deadline:
                    raise
            except StoreError as exc:
                raise StoreError(
                    f"the exported encoder has no place: {exc} {CACHE_VARIABLE} names the folder of all caches."
                ) from exc
            if not waiting:
                log.info("waiting for another process that exports to %s", folder)
                waiting = True
            time.sleep(_POLL_SECONDS)
        yield


def _read(folder: Path, fingerprint: str) -> Exported | None:
    """What is stored; None if no export was finished here."""
    content = _content(folder / META)
    if content is None:
        return None
    meta = _checked_meta(content, fingerprint)
    files = {}
    for name in (GRAPH, TOKENIZER):
        stored = _content(folder / name)
        if stored is None:
            raise _DamagedError(f"{name} is missing")
        if _sha256(stored) != meta["files"][name]:
            raise _DamagedError(f"{name} is not what was written")
        files[name] = stored
    return Exported(files[GRAPH], files[TOKENIZER], Settings(**meta["settings"]), meta["made_with"])


def _checked_meta(content: bytes, fingerprint: str) -> dict[str, Any]:
    """The settings file, once its checksum says that it is one of ours; then its keys are known."""
    try:
        meta = json.loads(content)
        sound = meta.pop("checksum") == hash_of(meta, length=64)
    except (ValueError, KeyError, AttributeError, TypeError):
        sound = False
    if not sound:
        raise _DamagedError(f"{META} is not what was written")
    if meta["format"] != _FORMAT or meta["encoder"] != fingerprint:
        raise _DamagedError(f"{META} is that of another encoder ({meta['encoder']}, {meta['format']})")
    return dict(meta)


def _write(folder: Path, fingerprint: str, exported: Exported) -> None:
    """Store all files, the one that vouches for the others last."""
    files = {GRAPH: exported.graph, TOKENIZER: exported.tokenizer}
    for name, content in files.items():
        atomic_write(folder / name, content)
    meta: dict[str, Any] = {
        "format": _FORMAT,
        "encoder": fingerprint,
        "files": {name: _sha256(content) for name, content in files.items()},
        "settings": asdict(exported.settings),
        "made_with": exported.made_with,
    }
    meta["checksum"] = hash_of(meta, length=64)
    atomic_write(folder / META, (json.dumps(meta, indent=2) + "\n").encode())


def _content(path: Path) -> bytes | None:
    try:
        return path.read_bytes()
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as exc:
        raise StoreError(
            f"cannot read {path} ({exc.strerror}). Check its permissions, or delete the folder: it is exported again."
        ) from exc


def _sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()
