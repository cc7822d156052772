"""Keeping libraries from drawing bars of their own between ours."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from typing import Any

from icl_select._optional import require

__all__ = ["without_bars"]

_ASKED_FOR = "HF_HUB_DISABLE_PROGRESS_BARS"


@contextlib.contextmanager
def without_bars() -> Iterator[None]:
    """Let transformers read and write weights without its bars; those of downloads from the hub stay.

    Whoever sets ``HF_HUB_DISABLE_PROGRESS_BARS``, to 0 or 1, gets what that says.
    """
    bars: Any = require("transformers.utils.logging", extra="models", purpose="a model")
    if _ASKED_FOR in os.environ or not bars.is_progress_bar_enabled():
        yield
        return
    hub: Any = require("huggingface_hub.utils", extra="models", purpose="a model")
    # One switch of transformers stands for both libraries.
    bars.disable_progress_bar()
    hub.enable_progress_bars()
    try:
        yield
    finally:
        bars.enable_progress_bar()
