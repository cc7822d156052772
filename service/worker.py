"""A process that does jobs, one after another: ``python -m icl_select.service.worker``, as the server starts it.

It reads one line of JSON from standard input (its name, and the settings), and lives as long as that stays open: when
the server is gone, however it ended, so is the worker. A job runs in a thread, which may be deep in compiled code for
minutes; the main thread watches over it, so that the process can be stopped at any moment.
"""

from __future__ import annotations

import dataclasses
import json
import logging
import os
import signal
import sys
import threading
import time
from collections.abc import Callable
from types import FrameType
from typing import TypeVar

import structlog

from .errors import Problem, UnavailableError, problem_of
from .logs import set_up
from .settings import Settings
from .store import jobs
from .store.database import Database
from .store.jobs import JobRecord
from .vectors import VectorFiles
from .work import Cancelled, Context, EncoderSlot, run

__all__ = ["Worker", "main"]

_LOG = structlog.get_logger("icl_select.service.worker")
_T = TypeVar("_T")

# How often the store is told that the job lives, or what is new of it, and asked whether it is to stop.
_BEAT_SECONDS = 3.0
_NEWS_SECONDS = 1.0
_LOOK_SECONDS = 0.5
# How often the queue is looked at: the first right after a job, the last when nothing has come for a while.
_IDLE_SECONDS = (0.2, 1.0)
# A job that was told to stop has so long to notice; then the process ends, and the job with it.
_GRACE_SECONDS = 3.0
_NICE = 10


class Worker:
    """Claims and does jobs until it is told to stop.

    Parameters
    ----------
    settings : Settings
    owner : str
        Name under which jobs are claimed; no other process has it.
    work : callable, default=run
        Does one job.
    """

    def __init__(self, settings: Settings, owner: str, work: Callable[[Context], None] = run) -> None:
        self._settings, self._owner, self._work = settings, owner, work
        self._database = Database(settings.database_url, pool_size=2)
        self._vectors = VectorFiles(settings.data_dir)
        self._encoders = EncoderSlot()
        # A plain value: setting an event from a signal's handler can lock out the thread that waits for it.
        self._stopping = False

    def stop(self) -> None:
        """Give back what is being done, and end."""
        self._stopping = True

    def run(self) -> None:
        """Do jobs until :meth:`stop`. A thread that did not end in time may be left behind; end the process then."""
        wait = _IDLE_SECONDS[0]
        while not self._stopping:
            job = self._persist(self._claim)
            if job is not None:
                self._do(job)
                wait = _IDLE_SECONDS[0]
            else:
                self._pause(wait)
                wait = min(1.5 * wait, _IDLE_SECONDS[1])

    def _claim(self) -> JobRecord | None:
        with self._database.read() as connection:
            if not jobs.listing(connection, None, "queued", 1):  # the lock of writers is for those who write
                return None
        with self._database.write() as connection:
            return jobs.claim(connection, self._owner)

    def _do(self, job: JobRecord) -> None:
        """Do a job in a thread and watch over it to its end, or to ours."""
        context = Context(job, self._owner, self._settings, self._database, self._vectors, self._encoders)
        thread = threading.Thread(target=self._attempt, args=(context,), name=job.id, daemon=True)
        thread.start()
        beaten_at, ends_at = time.monotonic(), float("inf")
        while not self._stopping:
            thread.join(_LOOK_SECONDS)
            if not thread.is_alive():
                return
            silent = time.monotonic() - beaten_at
            try:
                if silent >= _BEAT_SECONDS or (context.has_news and silent >= _NEWS_SECONDS):
                    wanted, beaten_at = context.beat(), time.monotonic()
                else:
                    wanted = context.is_wanted()
            except Exception as exc:  # the store may be back before others take the job for dead
                _LOG.warning("the store cannot be told of a job", job=job.id, exc_info=exc)
                continue
            if not wanted and not context.stopped:
                context.stop()
                ends_at = time.monotonic() + _GRACE_SECONDS
            if time.monotonic() >= ends_at:
                _LOG.info("a job does not hear that it is to stop, so its process ends", job=job.id)
                self._stopping = True
        try:
            self._give_back(job, "its process was stopped")
        except Exception as exc:  # whoever started us finds the job without an owner
            _LOG.warning("a job could not be given back", job=job.id, exc_info=exc)

    def _attempt(self, context: Context) -> None:
        """Do a job, and say how it ended."""
        job = context.job
        begun = time.monotonic()
        _LOG.info("job begins", job=job.id, kind=job.kind, pool=job.pool_name, attempt=job.attempts)
        try:
            self._work(context)
            outcome = "done"
        except Cancelled:
            outcome = "cancelled"
            self._persist(lambda: context.end("cancelled", "cancelled"))
        except UnavailableError as exc:
            outcome, reason = "given back", str(exc)
            self._persist(lambda: self._give_back(job, reason))
        except Exception as exc:
            outcome, problem = "failed", _problem(exc, job)
            if problem.status >= 500:
                _LOG.error("job failed", job=job.id, exc_info=exc)
            self._persist(lambda: context.end("failed", problem.detail, problem.document()))
        seconds = round(time.monotonic() - begun, 3)
        _LOG.info("job ends", job=job.id, kind=job.kind, pool=job.pool_name, outcome=outcome, seconds=seconds)

    def _persist(self, action: Callable[[], _T]) -> _T | None:
        """Do something with the store, as soon as it lets us: a job's end must be told. None if we are stopped."""
        wait = _IDLE_SECONDS[0]
        while not self._stopping:
            try:
                return action()
            except Exception as exc:
                _LOG.warning("the store cannot be used now; trying again", exc_info=exc)
                self._pause(wait)
                wait = min(2 * wait, 5.0)
        return None

    def _give_back(self, job: JobRecord, why: str) -> None:
        with self._database.write() as connection:
            jobs.give_back(connection, job.id, self._owner, why)

    def _pause(self, seconds: float) -> None:
        until = time.monotonic() + seconds
        while not self._stopping and (left := until - time.monotonic()) > 0:
            time.sleep(min(left, 0.1))


def _problem(exc: Exception, job: JobRecord) -> Problem:
    if isinstance(exc, MemoryError):
        detail = f"there is not enough memory for this job ({exc}). Use a smaller pool, or a machine with more."
        return Problem(507, "memory", "Out of memory", detail)
    problem = problem_of(exc)
    if problem.kind != "internal":
        return problem
    detail = f"the job failed for a reason that nobody foresaw. The log has it under {job.id}."
    return dataclasses.replace(problem, detail=detail)


def main() -> None:
    """Run as a process of its own."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # a terminal sends it to all; the server tells us when to end
    given = json.loads(sys.stdin.readline())
    settings = Settings.model_validate(given["settings"])
    set_up(settings.log_format)
    # How many texts are cut is part of an embedding; a line for every few of them says nothing.
    logging.getLogger("icl_select.embedding").setLevel(logging.ERROR)
    os.nice(_NICE)
    worker = Worker(settings, given["owner"])

    def stop(_signal: int, _frame: FrameType | None) -> None:
        worker.stop()

    signal.signal(signal.SIGTERM, stop)
    threading.Thread(target=_end_with_parent, name="parent", daemon=True).start()
    worker.run()
    logging.shutdown()
    os._exit(0)  # a thread in compiled code would keep the interpreter from ending


def _end_with_parent() -> None:
    while os.read(sys.stdin.fileno(), 4096):
        continue
    os._exit(1)


if __name__ == "__main__":
    main()
