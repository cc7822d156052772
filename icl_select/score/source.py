"""Which model is meant: a hub id, a folder, or the tiny model that is made on the spot; and which LoRA adapter."""

from __future__ import annotations

from pathlib import Path

from icl_select._cache import default_cache_folder
from icl_select._models import Source, files_hash, find_source
from icl_select.errors import ModelError, ParameterError
from icl_select.score.tiny import TINY, make_tiny_model

__all__ = ["adapter_hash", "find_model"]


def find_model(model: str, revision: str | None = None) -> Source:
    """Pin a language model; nothing is loaded.

    Parameters
    ----------
    model : str
        Hub id (also ``id@revision``), the path of a model folder, or "tiny": random weights, made in the cache folder.
    revision : str, optional
        Commit, branch or tag of a hub id.

    Raises
    ------
    ModelError, ParameterError
        If there is no such model, or a revision is given twice or with a folder.
    """
    if model == TINY:
        if revision is not None:
            raise ParameterError(f"revision={revision!r} was given with the tiny model, which has none. Leave it out.")
        return find_source(str(make_tiny_model(default_cache_folder() / "models" / TINY)), None)
    name, _, pinned = (
        model.partition("@") if "/" in model and not model.startswith((".", "~", "/")) else (model, "", "")
    )
    if pinned and revision is not None:
        raise ParameterError(f"the model {model!r} names a revision, and revision={revision!r} another. Give one.")
    return find_source(name, pinned or revision)


def adapter_hash(folder: Path) -> str:
    """Hash of a LoRA adapter's configuration and weights.

    Raises
    ------
    ModelError
        If the folder holds none.
    """
    config = folder / "adapter_config.json"
    weights = sorted(path for path in folder.glob("adapter_model.*") if path.suffix in {".safetensors", ".bin"})
    if not config.is_file() or not weights:
        raise ModelError(
            f"the folder {folder} holds no LoRA adapter: adapter_config.json or adapter_model.safetensors is missing. "
            "Pass the folder that peft saved the adapter to."
        )
    return files_hash((path.name, path) for path in (config, *weights))
