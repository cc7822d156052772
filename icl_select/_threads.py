"""Work that is cut into independent pieces, on every core.

Compiled loops and matrix products release Python's lock, so threads are enough. A matrix product gets one thread of
its own meanwhile: many small products on many threads each would wait for one another.
"""

from __future__ import annotations

import os
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

from icl_select.errors import ParameterError

__all__ = ["THREADS_VARIABLE", "each", "in_order", "threads"]

THREADS_VARIABLE = "ICS_THREADS"

_Item = TypeVar("_Item")
_Result = TypeVar("_Result")

_inside = threading.local()


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


def each(
    work: Callable[[_Item], _Result], items: Iterable[_Item], done: Callable[[int], None] | None = None
) -> list[_Result]:
    """Apply `work` to each item, several at a time; results come in the order of the items.

    `done` is told, in the caller's thread, how many items are finished; what it raises ends the work as a failure does.
    """
    todo = list(items)
    results: list[_Result] = []
    for result in in_order(work, todo) if len(todo) > 1 else map(work, todo):
        results.append(result)
        if done is not None:
            done(len(results))
    return results


def in_order(work: Callable[[_Item], _Result], items: Iterable[_Item]) -> Iterator[_Result]:
    """As `map`, several items at a time; few results wait to be taken.

    Work that is itself done so stays in its thread. A failure, and an interrupt, end what has not begun, and are raised
    when what has begun is over.
    """
    count = threads()
    if count <= 1 or getattr(_inside, "busy", False):
        yield from map(work, items)
        return
    from threadpoolctl import threadpool_limits

    waiting: deque[Future[_Result]] = deque()
    with threadpool_limits(1, user_api="blas"), ThreadPoolExecutor(count, "icl-select", initializer=_begin) as pool:
        try:
            for item in items:
                waiting.append(pool.submit(work, item))
                if len(waiting) > 2 * count:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            for future in waiting:
                future.cancel()


def _begin() -> None:
    from threadpoolctl import threadpool_limits

    _inside.busy = True
    threadpool_limits(1, user_api="blas")  # BLAS on OpenMP counts for each thread apart
