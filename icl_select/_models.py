"""What encoders and language models share: finding a model, naming it without a path, batching by length."""

from __future__ import annotations

import contextlib
import functools
import hashlib
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from icl_select._optional import require
from icl_select.errors import ModelError, ParameterError, suggest
from icl_select.types import IntArray

__all__ = [
    "Source",
    "check_dtype",
    "failures",
    "file_hash",
    "files_hash",
    "find_source",
    "length_batches",
    "start_torch",
]

_DTYPES = ("float32", "bfloat16", "float16")

_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[\w.-]+")
_COMMIT = re.compile(r"[0-9a-f]{40}")


@dataclass(frozen=True)
class Source:
    """A model that is pinned: `revision` is a commit of the hub or a hash of the folder's content.

    `name` and `revision` hold no path, so they are the same on every machine; `location` is what is loaded.
    """

    name: str
    revision: str
    location: str
    local: bool

    def __str__(self) -> str:
        return f"{self.name}@{self.revision[:12]}"

    @property
    def hub_revision(self) -> str | None:
        """What loaders are given beside `location`: the commit; None for a folder."""
        return None if self.local else self.revision

    @property
    def pinned(self) -> str:
        """One name to load it by again: the folder, or ``id@revision``."""
        return self.location if self.local else f"{self.name}@{self.revision}"


def find_source(model: str, revision: str | None) -> Source:
    """Pin a model: a folder by its content, a hub id by the commit that `revision` names now.

    A full commit hash is taken as it is; a branch, a tag or nothing is looked up, on the hub or, offline, in the
    local hub cache.
    """
    folder = Path(model).expanduser()
    if folder.is_dir():
        if revision is not None:
            raise ParameterError(
                f"revision={revision!r} was given with the folder {model}, which has only its content. Leave it out."
            )
        if not any((folder / name).is_file() for name in ("config.json", "modules.json")):
            raise ModelError(
                f"the folder {model} holds no model: neither config.json nor modules.json is there. Pass the folder "
                "that a model was saved or downloaded to."
            )
        return Source(folder.resolve().name, _content_hash(folder), str(folder), local=True)
    if model.startswith((".", "~", "/")) or not _HUB_ID.fullmatch(model):
        raise ModelError(
            f"no folder {model} to load a model from, and it is no hub id either. Pass the path of a model folder, "
            "or a hub id such as 'owner/name'."
        )
    commit = revision if revision and _COMMIT.fullmatch(revision) else _look_up(model, revision)
    return Source(model, commit, model, local=False)


def _look_up(model: str, revision: str | None) -> str:
    hub = require("huggingface_hub", extra="models", purpose=f"the model {model}")
    errors = require("huggingface_hub.errors", extra="models", purpose=f"the model {model}")
    with failures(model, revision):
        try:
            found = hub.hf_hub_download(model, "config.json", revision=revision)
        except errors.EntryNotFoundError:
            found = hub.hf_hub_download(model, "modules.json", revision=revision)
    # .../snapshots/<commit>/config.json
    return Path(found).parent.name


@contextlib.contextmanager
def failures(name: str, revision: str | None, *, local: bool = False) -> Iterator[None]:
    """Turn what the loaders raise into a ModelError that says what to do."""
    try:
        yield
    except ModelError:
        raise
    except _load_errors() as exc:
        reason = str(exc).strip().splitlines() or [type(exc).__name__]
        if local:
            way = "Check that the folder holds a complete model (config.json, weights, tokenizer)."
        else:
            pin = f" --revision {revision}" if revision else ""
            way = (
                f"Check the name, or download it where there is a network: hf download {name}{pin}. Then set HF_HOME "
                "to that cache, or pass the path of the folder."
            )
        raise ModelError(f"cannot load the model {name}: {reason[0].rstrip('.')}. {way}") from exc


def _load_errors() -> tuple[type[Exception], ...]:
    """What loading a damaged, foreign or missing model is known to raise."""
    hub = require("huggingface_hub.errors", extra="models", purpose="loading a model")
    weights = require("safetensors", extra="models", purpose="loading a model")
    builtin = (OSError, ValueError, RuntimeError, ImportError, KeyError, TypeError, AttributeError)
    return (*builtin, hub.StrictDataclassError, weights.SafetensorError)


def _content_hash(folder: Path) -> str:
    """Hash names and bytes of every file that can change vectors; hidden files and Markdown cannot."""
    found = sorted((path.relative_to(folder).as_posix(), path) for path in folder.rglob("*") if path.is_file())
    return files_hash(
        (name, path)
        for name, path in found
        if path.suffix != ".md" and not any(part.startswith(".") for part in name.split("/"))
    )


def files_hash(files: Iterable[tuple[str, Path]]) -> str:
    """Hash the names and bytes of files, in the order given."""
    digest = hashlib.sha256()
    for name, path in files:
        digest.update(f"{name}\0{file_hash(path)}\n".encode())
    return digest.hexdigest()


def file_hash(path: Path) -> str:
    """SHA-256 of a file, read once per process unless its size or time changes."""
    stat = path.stat()
    return _file_hash(path, stat.st_size, stat.st_mtime_ns)


@functools.lru_cache(maxsize=256)
def _file_hash(path: Path, size: int, mtime_ns: int) -> str:
    try:
        with path.open("rb") as stream:
            return hashlib.file_digest(stream, "sha256").hexdigest()
    except OSError as exc:
        raise ModelError(f"cannot read {path} ({exc.strerror}). Check the model folder and its permissions.") from exc


def check_dtype(dtype: str) -> str:
    """Return `dtype` if models can run in it."""
    if dtype not in _DTYPES:
        raise ParameterError(f"dtype={dtype!r} is not one a model runs in.{suggest(str(dtype), _DTYPES)}")
    return dtype


def start_torch(device: str | None, threads: int | None, *, extra: str, purpose: str) -> tuple[Any, str]:
    """Return torch and the device to run on.

    An accelerator that was asked for and is missing is an error. Without `threads` torch keeps its own number of
    them (``OMP_NUM_THREADS``).
    """
    torch = require("torch", extra=extra, purpose=purpose)
    chosen = _pick_device(torch, device)
    if threads is not None:
        torch.set_num_threads(threads)
    return torch, chosen


def _pick_device(torch: Any, device: str | None) -> str:
    """Return the device asked for, or the best there is; an accelerator that is missing is an error."""
    if device is None:
        if torch.cuda.is_available():
            return "cuda"
        return "mps" if torch.backends.mps.is_available() else "cpu"
    try:
        kind = torch.device(device).type
    except RuntimeError as exc:
        raise ParameterError(f"device={device!r} is no device that torch knows. Pass 'cpu', 'cuda' or 'mps'.") from exc
    missing = (kind == "cuda" and not torch.cuda.is_available()) or (
        kind == "mps" and not torch.backends.mps.is_available()
    )
    if missing:
        raise ModelError(f"device={device!r} was asked for, but torch finds none here. Pass device='cpu', or leave it.")
    return device


def length_batches(lengths: Sequence[int], batch_size: int) -> list[IntArray]:
    """Split rows into batches of similar length, longest first, so that padding is small and memory peaks early."""
    order = np.argsort(-np.asarray(lengths, dtype=np.int64), kind="stable").astype(np.int64)
    return [order[start : start + batch_size] for start in range(0, len(order), batch_size)]
