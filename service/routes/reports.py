"""What is made of a whole pool by a job: its embedding, the report on its density, the evaluation of its labels."""

from __future__ import annotations

import base64
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Query, Response
from pydantic import BaseModel, ConfigDict, Field

from ..errors import ConflictError, NotFoundError
from ..schemas import DensityIn, EvaluationIn, JobOut
from ..state import AppState
from ..store import jobs, pools, replay, reports
from ..store.jobs import JobRecord
from ..store.pools import PoolRecord
from ..store.reports import ReportRecord
from ._common import Admin, App, Attempted, PoolPath, Reader, answer, answer_again, json_response, problems
from .jobs import job_out

__all__ = ["router"]

router = APIRouter(prefix="/v1/pools/{pool}", tags=["reports"])

# The page holds its figures and styles, and needs nothing else from anywhere.
_ALONE = "default-src 'none'; style-src 'unsafe-inline'; img-src data:"


class ReportOut(BaseModel):
    """A report: where it comes from, and what its kind reports beside that."""

    model_config = ConfigDict(extra="allow")

    schema_: Annotated[str, Field(alias="schema", description="Kind and version of the report.")]
    pool: str
    job: str
    created_at: str
    made_from: Annotated[dict[str, Any], Field(description="Versions of pool, labels and embedding.")]
    stale: Annotated[bool, Field(description="Whether pool or labels have changed since.")]


@router.post("/embeddings", status_code=202, response_model=JobOut, responses=problems(404, 409, 507))
def create_embeddings(pool: PoolPath, app: App, attempt: Attempted, _: Admin) -> Response:
    """Embed what is not embedded yet, and make missing or damaged vectors again.

    Uploads start this by themselves. A job that waits already is the answer to all who ask.
    """
    return _start(app, attempt, pool, "embed", {}, shared=True)


@router.post("/density", status_code=202, response_model=JobOut, responses=problems(404, 409, 507))
def create_density(pool: PoolPath, body: DensityIn, app: App, attempt: Attempted, _: Admin) -> Response:
    """Measure how similar the items of the pool are to each other."""
    return _start(app, attempt, pool, "density", body.model_dump())


@router.post("/evaluations", status_code=202, response_model=JobOut, responses=problems(404, 409, 507))
def create_evaluation(pool: PoolPath, body: EvaluationIn, app: App, attempt: Attempted, _: Admin) -> Response:
    """Let the labelled items answer each other, and say whether they do it better than one constant answer."""
    return _start(app, attempt, pool, "evaluate", body.model_dump())


def _start(
    app: AppState, attempt: replay.Attempt | None, pool: str, kind: str, params: dict[str, Any], *, shared: bool = False
) -> Response:
    with app.database.write() as connection:
        if kept := replay.recall(connection, attempt):
            return answer_again(kept)
        found = pools.lock(connection, pool)
        if not found.n_items:
            raise ConflictError(f"the pool {pool!r} is empty. Add items first: PUT /v1/pools/{pool}/items.")
        if kind == "evaluate" and found.n_labelled < 2:
            raise ConflictError(
                f"labelled items of the pool {pool!r}: {found.n_labelled}. It takes two to answer each other. Label "
                f"more: PUT /v1/pools/{pool}/labels."
            )
        job: JobRecord | None = jobs.pending(connection, found, kind) if shared else None
        job = job or jobs.enqueue(connection, found, kind, params)
        return answer(connection, attempt, job_out(job), 202, {"Location": f"/v1/jobs/{job.id}"})


@router.get(
    "/density",
    response_model=ReportOut,
    responses={200: {"content": {"image/png": {}, "text/html": {}}}, **problems(404)},
)
def read_density(
    pool: PoolPath, app: App, _: Reader, format: Annotated[Literal["json", "png", "html"], Query()] = "json"
) -> Response:
    """The newest density report, as JSON, figure or page.

    The JSON is what `icl-select density --json` writes, with where it comes from. `stale`, a header of figure and page,
    says whether items came since.
    """
    found, report = _newest(app, pool, "density", f"POST /v1/pools/{pool}/density")
    stale = report.made_from["pool"] != found.version
    headers = {"Icl-Select-Stale": "true" if stale else "false"}
    if format == "png":
        return Response(base64.b64decode(report.content["png"]), media_type="image/png", headers=headers)
    if format == "html":
        headers["Content-Security-Policy"] = _ALONE
        return Response(report.content["html"], media_type="text/html; charset=utf-8", headers=headers)
    return json_response(_document(found, report, report.content["record"], stale))


@router.get("/evaluation", response_model=ReportOut, responses=problems(404))
def read_evaluation(pool: PoolPath, app: App, _: Reader) -> Response:
    """The newest evaluation of the labels: accuracies, verdicts, recall of each label, labels worth a second look."""
    found, report = _newest(app, pool, "evaluation", f"POST /v1/pools/{pool}/evaluations")
    made_from = report.made_from
    stale = made_from["pool"] != found.version or made_from["labels"] != found.labels_version
    return json_response(_document(found, report, report.content, stale))


def _newest(app: AppState, pool: str, kind: str, way: str) -> tuple[PoolRecord, ReportRecord]:
    with app.database.read() as connection:
        found = pools.find(connection, pool)
        report = reports.find(connection, found, kind)
    if report is None:
        raise NotFoundError(f"no {kind} report of the pool {pool!r} was made yet. {way} makes one.")
    return found, report


def _document(pool: PoolRecord, report: ReportRecord, content: Any, stale: bool) -> dict[str, Any]:
    return {
        **content,
        "pool": pool.name,
        "job": report.job_id,
        "created_at": report.created_at,
        "made_from": report.made_from,
        "stale": stale,
    }
