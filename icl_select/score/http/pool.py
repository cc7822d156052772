"""Many requests at once, answers as they come."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from typing import TypeVar

from icl_select.errors import IclSelectError

__all__ = ["as_completed"]

Job = TypeVar("Job")
Result = TypeVar("Result")


def as_completed(
    jobs: Iterable[Job], work: Callable[[Job, threading.Event], Result], workers: int
) -> Iterator[tuple[int, Result]]:
    """Yield ``(position, work(job, stop))`` in the order in which the answers come.

    Jobs are made one by one as there is room, in the caller's thread. After a failure no further job is started; what
    is in flight is waited for and yielded, then the first error is raised. So nothing that was answered is lost.

    Parameters
    ----------
    jobs : iterable
    work : callable
        Runs in a thread. `stop` is set when the run has failed or its reader has left.
    workers : int
        Jobs in flight at most.
    """
    stop = threading.Event()
    source = enumerate(jobs)
    pending: dict[Future[Result], int] = {}
    failure: BaseException | None = None
    executor = ThreadPoolExecutor(workers, thread_name_prefix="icl-select-http")
    try:
        while True:
            while failure is None and len(pending) < workers:
                try:
                    pos, job = next(source)
                except StopIteration:
                    break
                except IclSelectError as exc:
                    failure = exc
                    break
                pending[executor.submit(work, job, stop)] = pos
            if not pending:
                break
            for future in wait(pending, return_when=FIRST_COMPLETED).done:
                pos = pending.pop(future)
                error = future.exception()
                if error is None:
                    yield pos, future.result()
                elif failure is None:
                    failure = error
                    stop.set()
        if failure is not None:
            raise failure
    finally:
        stop.set()
        executor.shutdown(wait=False, cancel_futures=True)
