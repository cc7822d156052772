"""Which module does which kind of job."""

from __future__ import annotations

import importlib
from collections.abc import Callable

from .context import Context

__all__ = ["KINDS", "run"]

KINDS = ("embed", "select", "density", "evaluate")
"""Each is the name of a module here with a function ``run(context)``."""


def run(context: Context) -> None:
    """Do the job, to its end in the store.

    The module is imported when the first job of its kind comes: a worker that waits holds no library that it may never
    need.

    Raises
    ------
    Cancelled
        If it was asked to stop, or belongs to another process by now.
    IclSelectError
        If it cannot be done.
    """
    assert context.job.kind in KINDS
    work: Callable[[Context], None] = importlib.import_module(f".{context.job.kind}", __package__).run
    work(context)
