"""Jobs: how far they are, as answers and as a stream of events, and asking them to stop."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import AsyncIterator
from typing import Annotated, Literal

import anyio
from fastapi import APIRouter, Path, Query
from starlette.concurrency import run_in_threadpool
from starlette.responses import StreamingResponse

from ..errors import ServiceError
from ..schemas import JobOut, JobsPage
from ..state import AppState
from ..store import jobs
from ..store.jobs import FINAL, JobRecord
from ._common import Admin, App, Limit, Reader, problems

__all__ = ["job_out", "router"]

router = APIRouter(prefix="/v1/jobs", tags=["jobs"])

JobPath = Annotated[str, Path(max_length=64, pattern=r"^[A-Za-z0-9_-]+$")]

_STREAM = "text/event-stream"
_LOOK_SECONDS = 0.5
# What lies between client and server closes connections on which nothing is said.
_ALIVE_SECONDS = 15.0


def job_out(job: JobRecord) -> JobOut:
    """A job as it is answered."""
    known = {name: value for name, value in dataclasses.asdict(job).items() if name in JobOut.model_fields}
    return JobOut.model_validate({**known, "pool": job.pool_name})


@router.get("", response_model=JobsPage, responses=problems())
def list_jobs(
    app: App,
    _: Reader,
    pool: Annotated[str | None, Query(max_length=64, pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")] = None,
    state: Annotated[Literal["queued", "running", "done", "failed", "cancelled"] | None, Query()] = None,
    limit: Limit = 100,
) -> JobsPage:
    """The newest jobs first; those of a pool, or in a state, where asked for."""
    with app.database.read() as connection:
        return JobsPage(jobs=[job_out(job) for job in jobs.listing(connection, pool, state, limit)])


@router.get("/{job_id}", response_model=JobOut, responses=problems(404))
def read_job(job_id: JobPath, app: App, _: Reader) -> JobOut:
    """A job as it stands. A job that failed says why in `error`, as a problem document."""
    return job_out(_read(app, job_id))


@router.post("/{job_id}/cancel", response_model=JobOut, responses=problems(404, 507))
def cancel_job(job_id: JobPath, app: App, _: Admin) -> JobOut:
    """Ask a job to stop: one that waits never begins, one that runs stops within seconds.

    A job that has ended stays as it is. What was embedded is kept.
    """
    with app.database.write() as connection:
        return job_out(jobs.cancel(connection, job_id))


@router.get(
    "/{job_id}/events",
    response_class=StreamingResponse,
    responses={
        200: {
            "description": "`event: job` with a JobOut as data, at first and with every change; ends with the job.",
            "content": {_STREAM: {"schema": {"type": "string"}}},
        },
        **problems(404),
    },
)
def job_events(job_id: JobPath, app: App, _: Reader) -> StreamingResponse:
    """A job as server-sent events, to its end: one event at once, and one for every change."""
    first = _read(app, job_id)
    headers = {"Cache-Control": "no-store", "X-Accel-Buffering": "no"}
    return StreamingResponse(_events(app, first), media_type=_STREAM, headers=headers)


async def _events(app: AppState, job: JobRecord) -> AsyncIterator[bytes]:
    told, told_at = job, time.monotonic()
    yield _event(job)
    while job.state not in FINAL and not app.stopping.is_set():
        await anyio.sleep(_LOOK_SECONDS)
        try:
            job = await run_in_threadpool(_read, app, job.id)
        except ServiceError:
            return  # the client connects again, and is told there
        # That its process lives is no news.
        if dataclasses.replace(job, beat_at=told.beat_at) != told:
            told, told_at = job, time.monotonic()
            yield _event(job)
        elif time.monotonic() - told_at >= _ALIVE_SECONDS:
            told_at = time.monotonic()
            yield b": alive\n\n"


def _event(job: JobRecord) -> bytes:
    return b"event: job\ndata: " + job_out(job).model_dump_json().encode() + b"\n\n"


def _read(app: AppState, job_id: str) -> JobRecord:
    with app.database.read() as connection:
        return jobs.find(connection, job_id)
