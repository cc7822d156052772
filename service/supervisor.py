"""The worker processes of a server: started, watched over, and stopped; and the jobs of those that died, put back."""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass

import structlog

from .errors import NotFoundError
from .settings import Settings
from .store import jobs, pools
from .store.database import Database, later
from .vectors import VectorFiles

__all__ = ["ONE_THREAD", "Supervisor"]

_LOG = structlog.get_logger("icl_select.service.supervisor")

ONE_THREAD = {
    "ICS_THREADS": "1",
    "OMP_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
    "MKL_NUM_THREADS": "1",
    "NUMBA_NUM_THREADS": "1",
    "TOKENIZERS_PARALLELISM": "false",
}
"""Environment of a worker: it shares the cores with the server, and each library would take all of them."""

_LOOK_SECONDS = 0.2
# How often the store is asked for jobs that should have stopped, and for owners that are dead.
_CHECK_SECONDS = 1.0
_TIDY_SECONDS = 600.0
# A worker ends itself if a cancelled job goes on for three seconds; one that does not even do that is killed.
_STUCK_SECONDS = 6.0
# One that dies young waits before it is started again: longer each time, up to the last.
_BACKOFF_SECONDS = (0.5, 30.0)
_YOUNG_SECONDS = 10.0
_FEW_DEATHS = 3
_MANY = 10_000


@dataclass
class _Slot:
    """The place of one worker, and who has it now."""

    number: int
    process: subprocess.Popen[bytes] | None = None
    owner: str = ""
    started_at: float = 0.0
    start_at: float = 0.0
    deaths: int = 0


class Supervisor:
    """Keeps ``settings.workers`` worker processes running, and gives up no job.

    Parameters
    ----------
    settings : Settings
    database : Database
    owner : str
        Name of this server; its workers claim jobs under names that begin with it.
    """

    def __init__(self, settings: Settings, database: Database, owner: str) -> None:
        self._settings, self._database, self._owner = settings, database, owner
        self._slots = [_Slot(number) for number in range(settings.workers)]
        self._names = itertools.count(1)
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="supervisor", daemon=True)
        # When a job was first seen to be cancelled and yet running.
        self._cancelled: dict[str, float] = {}

    def start(self) -> None:
        """Put back what dead processes left running, and start the workers."""
        with self._database.write() as connection:
            # Of a SQLite database we are the only server, so whoever ran a job before is dead.
            found = jobs.requeue_of(connection, "") if self._database.is_sqlite else jobs.requeue_dead(connection)
        if found:
            _LOG.info("jobs of processes that ended are dealt with", jobs=found)
        self._thread.start()

    def stop(self) -> None:
        """End the workers; what they were doing goes back into the queue."""
        self._stopping.set()
        if self._thread.is_alive():
            self._thread.join()
        living = [slot.process for slot in self._slots if slot.process is not None]
        for process in living:
            process.terminate()
        until = time.monotonic() + self._settings.shutdown_seconds
        for process in living:
            try:
                process.wait(max(0.0, until - time.monotonic()))
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
            _close(process)
        if living:
            self._guarded(self._give_back)

    def alive(self) -> bool:
        """Whether jobs are done here: not if every worker dies young again and again."""
        return any(slot.deaths < _FEW_DEATHS or self._is_grown(slot) for slot in self._slots)

    def _is_grown(self, slot: _Slot) -> bool:
        return slot.process is not None and time.monotonic() - slot.started_at >= _YOUNG_SECONDS

    @property
    def processes(self) -> tuple[int, ...]:
        """Numbers of the processes that run now."""
        processes = [slot.process for slot in self._slots]
        return tuple(process.pid for process in processes if process is not None and process.poll() is None)

    def counts(self) -> dict[str, int]:
        """Jobs that wait and that run, on all servers of the database."""
        with self._database.read() as connection:
            return jobs.counts(connection)

    def _run(self) -> None:
        checked_at = tidied_at = float("-inf")
        while not self._stopping.is_set():
            for slot in self._slots:
                self._guarded(self._tend, slot)
            if time.monotonic() - checked_at >= _CHECK_SECONDS:
                self._guarded(self._check)
                checked_at = time.monotonic()
            if time.monotonic() - tidied_at >= _TIDY_SECONDS:
                self._guarded(self._remove_orphans)
                tidied_at = time.monotonic()
            self._stopping.wait(_LOOK_SECONDS)

    def _guarded(self, action: Callable[..., None], *arguments: object) -> None:
        """A database that is out of reach for a while must not end the watch, nor keep the server from ending."""
        try:
            action(*arguments)
        except Exception as exc:
            _LOG.warning("the supervisor was kept from its work", exc_info=exc)

    def _tend(self, slot: _Slot) -> None:
        """Start the worker of a slot if there is none; deal with one that has ended."""
        moment = time.monotonic()
        if slot.process is None:
            if moment >= slot.start_at:
                slot.start_at = moment + _BACKOFF_SECONDS[0]
                self._spawn(slot)
            return
        code = slot.process.poll()
        if code is None:
            return
        with self._database.write() as connection:
            found = jobs.requeue_of(connection, slot.owner)
        # Zero: it ended itself to be rid of a job, as it should.
        young = code != 0 and not self._is_grown(slot)
        slot.deaths = slot.deaths + 1 if young else 0
        first, last = _BACKOFF_SECONDS
        slot.start_at = moment + (min(first * 2 ** (slot.deaths - 1), last) if slot.deaths else 0.0)
        _LOG.warning("worker ended", worker=slot.owner, code=code, jobs=found)
        _close(slot.process)
        slot.process = None

    def _spawn(self, slot: _Slot) -> None:
        # The last sign keeps one name from being the beginning of another.
        slot.owner = f"{self._owner}/{slot.number}-{next(self._names)}/"
        # Over a pipe: settings hold passwords, and everybody sees the command line.
        settings = self._settings.model_dump(mode="json")
        given = json.dumps({"owner": slot.owner, "settings": settings}) + "\n"
        command = [sys.executable, "-P", "-m", f"{__package__}.worker"]
        process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, env={**os.environ, **ONE_THREAD}
        )
        slot.process, slot.started_at = process, time.monotonic()
        assert process.stdin is not None
        with contextlib.suppress(OSError):  # if it has ended already, that is seen at the next look
            process.stdin.write(given.encode())
            process.stdin.flush()  # and stays open: it ends with this process, and so does the worker
        _LOG.info("worker started", worker=slot.owner, process=process.pid)

    def _check(self) -> None:
        """Kill workers that do not stop or do not beat, and put back the jobs of dead owners."""
        with self._database.read() as connection:
            running = jobs.listing(connection, None, "running", _MANY)
        moment, dead = time.monotonic(), later(-jobs.LEASE_SECONDS)
        self._cancelled = {job.id: self._cancelled.get(job.id, moment) for job in running if job.cancel}
        silent = [job for job in running if (job.beat_at or "") < dead]
        stuck = [job for job in running if moment - self._cancelled.get(job.id, moment) >= _STUCK_SECONDS]
        for job in (*silent, *stuck):
            for slot in self._slots:
                if slot.owner == job.owner and slot.process is not None:
                    _LOG.warning("worker does not respond, so it is killed", worker=slot.owner, job=job.id)
                    slot.process.kill()
        if silent:
            with self._database.write() as connection:
                found = jobs.requeue_dead(connection)
            _LOG.warning("jobs of owners that are silent are dealt with", jobs=found)

    def _give_back(self) -> None:
        """Put back what a worker that had to be killed was doing: it is not the job's fault."""
        with self._database.write() as connection:
            for job in jobs.listing(connection, None, "running", _MANY):
                if (job.owner or "").startswith(f"{self._owner}/"):
                    jobs.give_back(connection, job.id, str(job.owner), "the service was stopped")

    def _remove_orphans(self) -> None:
        """Remove the files of pools that were deleted while somebody still wrote them."""
        files = VectorFiles(self._settings.data_dir)
        for uid in files.uids():  # listed before the pools are asked for: a pool is there before its files
            with self._database.read() as connection:
                try:
                    pools.by_uid(connection, uid)
                except NotFoundError:
                    files.remove_pool(uid)


def _close(process: subprocess.Popen[bytes]) -> None:
    with contextlib.suppress(OSError):  # what was not read by it is lost with it
        if process.stdin is not None:
            process.stdin.close()
