"""The progress bar of the encoders: on stderr, with the rate in texts per second."""

from __future__ import annotations

from typing import Any

__all__ = ["progress_bar"]


def progress_bar(total: int, name: str, show: bool) -> Any:
    """A tqdm bar over `total` texts; silent unless `show`."""
    from tqdm import tqdm

    return tqdm(total=total, desc=f"embed with {name}", unit="text", disable=not show, dynamic_ncols=True)
