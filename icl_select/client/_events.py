"""Server-sent events of a job, read as they come."""

from __future__ import annotations

import time
from collections.abc import Callable

from icl_select.client.flow import Answer
from icl_select.client.flow import read as reads
from icl_select.client.records import Job

__all__ = ["Watch"]

_read_job = reads(Job)


class Watch:
    """What is heard of one job: from its events, as a sink of their stream, and from asking for it.

    Parameters
    ----------
    progress : callable, optional
        Called with the job whenever it has changed.
    ends : float
        Time of ``time.monotonic`` at which to stop listening.
    """

    def __init__(self, progress: Callable[[Job], object] | None, ends: float) -> None:
        self.job: Job | None = None
        self.heard = 0
        self._progress = progress
        self._ends = ends
        self._rest = b""
        self._data: list[bytes] = []

    @property
    def finished(self) -> Job | None:
        """The job, once it will not change any more."""
        return self.job if self.job is not None and self.job.finished else None

    def see(self, job: Job) -> None:
        """Take note of the state of the job."""
        changed = job != self.job
        self.job = job
        if changed and self._progress is not None:
            self._progress(job)

    def start(self) -> None:
        """A stream begins: half an event of one before belongs to nothing."""
        self.heard, self._rest, self._data = 0, b"", []

    def feed(self, chunk: bytes) -> bool:
        """Take a part of the stream; True when the job is finished, or time is up."""
        *lines, self._rest = (self._rest + chunk).split(b"\n")
        for line in lines:
            self._line(line.removesuffix(b"\r"))
        return self.finished is not None or time.monotonic() >= self._ends

    def _line(self, line: bytes) -> None:
        if line:
            # Other fields (event, id, retry) and comments, which keep the connection open, say nothing here.
            if line.startswith(b"data:"):
                self._data.append(line.removeprefix(b"data:").removeprefix(b" "))
        elif self._data:
            data, self._data = b"\n".join(self._data), []
            self.heard += 1
            self.see(_read_job(Answer(200, {}, data)))
