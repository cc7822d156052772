"""What a job is given: its parameters, the store, a way to say how far it is, and one to finish."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator, Mapping
from typing import Any

from sqlalchemy.engine import Connection

from icl_select.embedding import Encoder, load_encoder

from ..errors import NotFoundError
from ..settings import Settings
from ..store import jobs, pools
from ..store.database import Database
from ..store.jobs import JobRecord
from ..store.pools import PoolRecord
from ..vectors import VectorFiles

__all__ = ["Cancelled", "Context", "EncoderSlot"]


class Cancelled(Exception):  # noqa: N818
    """The job is to stop: somebody asked for it, or it belongs to another process by now."""


@contextlib.contextmanager
def _while_it_exists() -> Iterator[None]:
    try:
        yield
    except NotFoundError as exc:  # deleting a pool asks its jobs to stop
        raise Cancelled from exc


class EncoderSlot:
    """The encoder that was used last, loaded: the next job is likely to want it again, and two may not fit."""

    def __init__(self) -> None:
        self._name = ""
        self._encoder: Encoder | None = None

    def get(self, name: str) -> Encoder:
        """The encoder of a name, with its model loaded."""
        if self._encoder is None or self._name != name:
            self._encoder = None
            encoder = load_encoder(name)
            load = getattr(encoder, "load", None)
            if load is not None:
                load()
            self._name, self._encoder = name, encoder
        return self._encoder


class Context:
    """One run of one job.

    The thread that works calls :meth:`progress`, :meth:`locked` and :meth:`finish`; the one that watches over it calls
    :meth:`beat` and :meth:`stop`. Everything a job writes goes through a transaction that first makes sure that the job
    is still this process's, so one that was taken for dead and comes back changes nothing.

    Parameters
    ----------
    job : JobRecord
        A job that `owner` has claimed.
    """

    def __init__(
        self,
        job: JobRecord,
        owner: str,
        settings: Settings,
        database: Database,
        vectors: VectorFiles,
        encoders: EncoderSlot,
    ) -> None:
        self.job, self.owner = job, owner
        self.settings, self.database, self.vectors = settings, database, vectors
        self._encoders = encoders
        self._stopped = threading.Event()
        self._lock = threading.Lock()
        # All that was said of the progress, and whether the store has yet to be told.
        self._said: dict[str, Any] = {}
        self._new = False

    @property
    def params(self) -> Mapping[str, Any]:
        """What was asked for."""
        return self.job.params

    def encoder(self, name: str) -> Encoder:
        """The encoder of a name, loaded."""
        return self._encoders.get(name)

    @contextlib.contextmanager
    def reading(self) -> Iterator[tuple[Connection, PoolRecord]]:
        """One state of the store, and the pool in it; Cancelled if it was deleted."""
        with self.database.read() as connection:
            with _while_it_exists():
                pool = pools.by_uid(connection, self.job.pool_uid)
            yield connection, pool

    def progress(self, done: int, total: int | None, unit: str, message: str, *, safe: bool = False) -> None:
        """Say how far the job is. With `safe`, what was done will not have to be done again.

        A job fails after it was begun several times and got nowhere; what is safe counts as getting somewhere.

        Raises
        ------
        Cancelled
            If the job is to stop.
        """
        with self._lock:
            self._said |= {"done": done, "total": total, "unit": unit, "message": message}
            if safe:
                self._said["attempts"] = 1
            self._new = True
        if self._stopped.is_set():
            raise Cancelled

    @contextlib.contextmanager
    def locked(self) -> Iterator[tuple[Connection, PoolRecord]]:
        """A transaction that writes for this job, with its pool locked.

        Raises
        ------
        Cancelled
            If the job is another's by now, or the pool was deleted.
        """
        with self.database.write() as connection:
            with _while_it_exists():
                pool = pools.lock_uid(connection, self.job.pool_uid)
            if not jobs.beat(connection, self.job.id, self.owner):
                raise Cancelled
            yield connection, pool

    @contextlib.contextmanager
    def finish(self, message: str, result: Mapping[str, Any]) -> Iterator[tuple[Connection, PoolRecord]]:
        """As :meth:`locked`, and the job is done with what the block writes, or neither happens."""
        with self.locked() as (connection, pool):
            yield connection, pool
            jobs.beat(connection, self.job.id, self.owner, **self._said)
            jobs.end(connection, self.job.id, self.owner, "done", message=message, result=result)

    def end(self, state: str, message: str, error: Mapping[str, Any] | None = None) -> None:
        """Give the job its final state, unless it is another's by now."""
        with self.database.write() as connection:
            jobs.beat(connection, self.job.id, self.owner, **self._said)
            jobs.end(connection, self.job.id, self.owner, state, message=message, error=error)

    def beat(self) -> bool:
        """Tell the store that this process lives, and how far it is; False if the job is to stop."""
        with self._lock:
            said, self._new = dict(self._said), False
        try:
            with self.database.write() as connection:
                return jobs.beat(connection, self.job.id, self.owner, **said)
        except BaseException:
            self._new = True
            raise

    def is_wanted(self) -> bool:
        """Whether the job is still this process's and nobody asked it to stop."""
        with self.database.read() as connection:
            job = jobs.find(connection, self.job.id)
        return job.state == "running" and job.owner == self.owner and not job.cancel

    @property
    def has_news(self) -> bool:
        """Whether there is something that the store has not been told."""
        return self._new

    def stop(self) -> None:
        """Let the job end at its next word of progress."""
        self._stopped.set()

    @property
    def stopped(self) -> bool:
        """Whether it was asked to."""
        return self._stopped.is_set()
