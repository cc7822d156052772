"""Where caches are kept."""

from __future__ import annotations

import os
from pathlib import Path

from icl_select.errors import StoreError

__all__ = ["CACHE_VARIABLE", "default_cache_folder"]

CACHE_VARIABLE = "ICS_CACHE_DIR"


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
