"""Calls about jobs: how they stand, and waiting for them."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import replace

from icl_select.client._events import Watch
from icl_select.client._requests import get, post
from icl_select.client.errors import JobFailedError, ServerError, UnreachableError, WaitTimeoutError
from icl_select.client.flow import Flow, Pause, Request, content_of, fetch, read, read_object, segment
from icl_select.client.records import Job

__all__ = ["Progress", "cancel", "job", "jobs", "wait"]

# A stream on which nothing comes for so long is asked about, and opened again.
_QUIET = 60.0
# How long the service may be away.
_OUTAGE = 60.0
_FIRST_PAUSE, _LONGEST_PAUSE = 0.2, 5.0

Progress = Callable[[Job], object]


def job(job_id: str) -> Flow[Job]:
    """A job as it stands.

    Parameters
    ----------
    job_id : str

    Returns
    -------
    Job
    """
    return fetch(get(f"/v1/jobs/{segment(job_id)}"), read(Job))


def jobs(*, pool: str | None = None, state: str | None = None) -> Flow[tuple[Job, ...]]:
    """The newest jobs, newest first.

    Parameters
    ----------
    pool : str, optional
    state : {"queued", "running", "done", "failed", "cancelled"}, optional

    Returns
    -------
    tuple of Job
    """
    return fetch(
        get("/v1/jobs", pool=pool, state=state),
        lambda answer: content_of(tuple[Job, ...], read_object(answer).get("jobs")),
    )


def cancel(job: str | Job) -> Flow[Job]:
    """Ask a job to stop; it may take a moment.

    Parameters
    ----------
    job : str or Job

    Returns
    -------
    Job
    """
    return fetch(post(f"/v1/jobs/{segment(_id(job))}/cancel"), read(Job))


def wait(job: str | Job, *, timeout: float | None = None, progress: Progress | None = None) -> Flow[Job]:
    """Return a job when it is done.

    Parameters
    ----------
    job : str or Job
    timeout : float, optional
        Seconds to wait at most; None waits as long as the job takes.
    progress : callable, optional
        Called with the job whenever it has changed.

    Returns
    -------
    Job

    Raises
    ------
    JobFailedError
        If it failed or was cancelled.
    WaitTimeoutError
        If it is not finished in time; it goes on.

    Notes
    -----
    The service is asked for events; where they do not come through, for the state of the job, every 5 seconds at the
    longest. A service that is away is waited for, 60 seconds: jobs survive a restart.
    """
    ends = math.inf if timeout is None else time.monotonic() + timeout
    watch = Watch(progress, ends)
    if isinstance(job, Job):
        watch.see(job)
    listens, pause, outage = True, _FIRST_PAUSE, None
    while watch.finished is None:
        if listens:
            yield _events(_id(job), watch, ends)
            listens = watch.heard > 0
        if watch.finished is None:
            outage = yield from _ask(_id(job), watch, ends, outage)
        left = ends - time.monotonic()
        if watch.finished is None and left <= 0:
            raise WaitTimeoutError(
                f"the job {_id(job)} is not finished after {timeout:g} s. It goes on: wait for it again, with a longer "
                "timeout, or cancel it.",
                watch.job,
            )
        if watch.finished is None:
            yield Pause(min(pause, left))
            pause = min(2 * pause, _LONGEST_PAUSE)
    if watch.finished.state != "done":
        raise JobFailedError(watch.finished)
    return watch.finished


def _id(job: str | Job) -> str:
    return job.id if isinstance(job, Job) else job


def _events(job_id: str, watch: Watch, ends: float) -> Request:
    left = max(ends - time.monotonic(), 0.001)
    request = get(f"/v1/jobs/{segment(job_id)}/events")
    return replace(
        request,
        headers={"Accept": "text/event-stream"},
        sink=watch,
        patience=min(left, _QUIET),
        repeatable=False,
    )


def _ask(job_id: str, watch: Watch, ends: float, outage: float | None) -> Flow[float | None]:
    """Ask for the state of a job; returns since when the service is away, None where it answers.

    Jobs survive the service, so a service that is being restarted is waited for.
    """
    request = replace(get(f"/v1/jobs/{segment(job_id)}"), within=max(ends - time.monotonic(), 1.0))
    try:
        watch.see((yield from fetch(request, read(Job))))
    except (UnreachableError, ServerError) as exc:
        since = outage if outage is not None else time.monotonic()
        if getattr(exc, "status", 503) != 503 or time.monotonic() - since >= _OUTAGE:
            raise
        return since
    return None
