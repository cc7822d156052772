"""Units of work in this process or in several; results do not depend on which."""

from __future__ import annotations

import contextlib
import os
import signal
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor, ThreadPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from multiprocessing import get_context, parent_process
from threading import Thread

from icl_select.errors import IclSelectError
from icl_select.score import Scorer

from . import work

__all__ = ["Crew"]

_THREADS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMBA_NUM_THREADS")

_BROKEN = (
    "a worker process ended on its own (killed, or out of memory). Finished cells are kept: run again, with "
    "--workers 1 if memory is short."
)

OnCells = Callable[[int], object]


class Crew:
    """Computes units as they are handed in; leaving the block drops what was not waited for.

    Parameters
    ----------
    workers : int
        Processes; 1 computes in this one, at once. A scorer that reads prompts stays in this process, with its
        engine, and a unit is prepared while the engine answers for the one before.
    on_cells : callable
        Told how many cells have just been finished.
    scorer : Scorer
    """

    def __init__(self, workers: int, on_cells: OnCells, scorer: Scorer) -> None:
        self._workers = workers
        self._scorer = scorer
        self._ahead = ThreadPoolExecutor(1) if scorer.needs_prompt else None
        self._prepared: Future[work.Prepared] | None = None
        self._on_cells = on_cells
        self._pending: list[Future[int]] = []
        self._executor: ProcessPoolExecutor | None = None

    def __enter__(self) -> Crew:
        return self

    def __exit__(self, *_: object) -> None:
        for executor in (self._executor, self._ahead):
            if executor is not None:
                executor.shutdown(wait=True, cancel_futures=True)

    def add(self, unit: work.Unit) -> None:
        """Compute a unit now, or hand it to a process."""
        if self._ahead is not None:
            ready, self._prepared = self._prepared, self._ahead.submit(work.prepare, unit, self._scorer)
            self._finish(ready)
            return
        if self._workers <= 1:
            work.compute(unit, self._scorer, lambda name: self._on_cells(1))
            return
        if self._executor is None:
            context = get_context("spawn")
            self._executor = ProcessPoolExecutor(self._workers, mp_context=context, initializer=_settle)
        try:
            with _one_thread():
                future = self._executor.submit(work.compute, unit, self._scorer)
        except BrokenProcessPool as exc:
            raise IclSelectError(_BROKEN) from exc
        future.add_done_callback(self._finished)
        self._pending.append(future)
        for done in [future for future in self._pending if future.done()]:
            self._pending.remove(done)
            self._result(done)

    def _finish(self, ready: Future[work.Prepared] | None) -> None:
        if ready is not None:
            work.finish(ready.result(), lambda name: self._on_cells(1))

    def _finished(self, future: Future[int]) -> None:
        if not future.cancelled() and future.exception() is None:
            self._on_cells(future.result())

    def wait(self) -> None:
        """Wait for every unit; raises what went wrong in one."""
        ready, self._prepared = self._prepared, None
        self._finish(ready)
        for future in as_completed(self._pending):
            self._result(future)

    def _result(self, future: Future[int]) -> None:
        try:
            future.result()
        except BrokenProcessPool as exc:
            raise IclSelectError(_BROKEN) from exc


@contextlib.contextmanager
def _one_thread() -> Iterator[None]:
    """Let processes that start inside the block use one numerical thread each: several on few cores collapse."""
    before = {name: os.environ.get(name) for name in _THREADS}
    os.environ.update({name: value or "1" for name, value in before.items()})
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]


def _settle() -> None:
    """Leave Ctrl-C to the process that started this one, and end when that one is gone, however it went."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    parent = parent_process()
    assert parent is not None

    def watch() -> None:
        parent.join()
        os._exit(1)

    Thread(target=watch, daemon=True).start()
