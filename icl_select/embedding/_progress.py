"""The progress bar of the encoders: on stderr, with the rate in texts per second."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Protocol

__all__ = ["Bar", "progress_bar"]


class Bar(Protocol):
    """What is told how many texts are done."""

    def update(self, n: int) -> object: ...


class _Silent:
    def update(self, n: int) -> None:
        """Show nothing."""


@contextlib.contextmanager
def progress_bar(total: int, name: str, show: bool) -> Iterator[Bar]:
    """A bar over `total` texts; silent unless `show`."""
    if not show:  # making a bar takes a lock of all threads, and a part of the time of a short text
        yield _Silent()
        return
    from tqdm import tqdm

    with tqdm(total=total, desc=f"embed with {name}", unit="text", dynamic_ncols=True) as bar:
        yield bar
