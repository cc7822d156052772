"""Work that is cut into independent pieces, on every core.

Compiled loops and matrix products release Python's lock, so threads are enough. A matrix product gets one thread of
its own meanwhile: many small products on many threads each would wait for one another.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from contextlib import contextmanager
from typing import TypeVar

from icl_select.errors import ParameterError

__all__ = ["THREADS_VARIABLE", "each", "threads"]

THREADS_VARIABLE = "ICS_THREADS"

_Item = TypeVar("_Item")
_Result = TypeVar("_Result")

_inside = threading.local()
_lock = threading.Lock()
_limits: list[object] = []
_users = 0


def threads() -> int:
    """How many threads share the work: ``$ICS_THREADS``, else ``$OMP_NUM_THREADS``, else one for each core.

    Raises
    ------
    ParameterError
        If ``$ICS_THREADS`` is no whole number of at least 1.
    """
    own = os.environ.get(THREADS_VARIABLE, "").strip()
    if own:
        if not own.isdecimal() or int(own) < 1:
            raise ParameterError(f"{THREADS_VARIABLE}={own!r} is no number of threads. Set a whole number from 1 up.")
        return int(own)
    # OpenMP allows a list, of which the first number counts here; what else stands there is OpenMP's to refuse.
    first = os.environ.get("OMP_NUM_THREADS", "").split(",")[0].strip()
    return int(first) if first.isdecimal() and int(first) else _cores()


def _cores() -> int:
    if hasattr(os, "sched_getaffinity"):
        return max(1, len(os.sched_getaffinity(0)))
    return os.cpu_count() or 1


def each(work: Callable[[_Item], _Result], items: Iterable[_Item]) -> list[_Result]:
    """Apply `work` to each item, several at a time; results come in the order of the items.

    Work that is itself done by :func:`each` stays in its thread. The first failure ends what has not begun, and is
    raised when what has begun is over; so is an interrupt.
    """
    todo = list(items)
    count = min(threads(), len(todo))
    if count <= 1 or getattr(_inside, "busy", False):
        return [work(item) for item in todo]

    def run(item: _Item) -> _Result:
        _inside.busy = True
        return work(item)

    with _products_on_one_thread(), ThreadPoolExecutor(count, thread_name_prefix="icl-select") as pool:
        futures = [pool.submit(run, item) for item in todo]
        try:
            wait(futures, return_when=FIRST_EXCEPTION)
            return [future.result() for future in futures]
        finally:
            for future in futures:
                future.cancel()


@contextmanager
def _products_on_one_thread() -> Iterator[None]:
    """Limit BLAS. The limit is the process's, so the first to come sets it and the last to go lifts it."""
    from threadpoolctl import threadpool_limits

    global _users
    with _lock:
        _users += 1
        if _users == 1:
            _limits.append(threadpool_limits(1, user_api="blas"))
    try:
        yield
    finally:
        with _lock:
            _users -= 1
            if not _users:
                _limits.pop().restore_original_limits()  # type: ignore[attr-defined]
