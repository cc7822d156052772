"""Selections: asked for, read, handed out item by item, and exported as tasks."""

from __future__ import annotations

from typing import Annotated, Literal

from fastapi import APIRouter, Path, Query, Response
from sqlalchemy.engine import Connection

from icl_select._validation import check_budget
from icl_select.data import Task, task_files
from icl_select.errors import BudgetError, FeedbackError
from icl_select.registry import asks_feedback, resolve

from ..errors import ConflictError, InvalidError, NotFoundError, TooLargeError
from ..schemas import (
    Annotator,
    LeaseOut,
    NextIn,
    NextOut,
    PickOut,
    SelectionIn,
    SelectionOut,
    SelectionsPage,
)
from ..store import items, jobs, leases, pools, replay, selections
from ..store.pools import PoolRecord
from ..store.selections import SelectionRecord
from ._common import Admin, App, Attempted, Labeller, Limit, PoolPath, Reader, answer, answer_again, problems

__all__ = ["router"]

router = APIRouter(prefix="/v1/pools/{pool}", tags=["selections"])

SelectionPath = Annotated[str, Path(max_length=64, pattern=r"^[A-Za-z0-9_-]+$")]
Prefix = Annotated[int | None, Query(ge=1, description="Only the first picks, as the answer to this smaller budget.")]

_MEDIA = {
    ".csv": "text/csv; charset=utf-8",
    ".json": "application/json",
    ".jsonl": "application/x-ndjson",
    ".xml": "application/xml",
}


@router.post("/selections", status_code=202, response_model=SelectionOut, responses=problems(404, 409, 501, 507))
def create_selection(pool: PoolPath, body: SelectionIn, app: App, attempt: Attempted, _: Admin) -> Response:
    """Ask which items to label. A job selects them; `Location` is where it says how far it is.

    Items that have a label count as covered and are not picked, unless `ignore_labels` is set.
    """
    method = _checked(body.method)
    if body.budget > app.settings.limits.budget:
        raise TooLargeError(f"budget={body.budget} exceeds {app.settings.limits.budget}, the limit of this service.")
    with app.database.write() as connection:
        if kept := replay.recall(connection, attempt):
            return answer_again(kept)
        found = pools.lock(connection, pool)
        if not found.n_items:
            raise ConflictError(f"the pool {pool!r} is empty. Add items first: PUT /v1/pools/{pool}/items.")
        check_budget(body.budget, found.n_items, 0 if body.ignore_labels else found.n_labelled)
        selection_id, job_id = jobs.new_id("sel"), jobs.new_id("job")
        asked = {**body.model_dump(), "method": method, "selection": selection_id}
        made = selections.create(connection, found, selection_id, job_id, method, body.budget, body.seed)
        jobs.enqueue(connection, found, "select", asked, job_id)
        where = {"Location": f"/v1/jobs/{job_id}"}
        return answer(connection, attempt, _out(connection, found, made), 202, where)


def _checked(method: str) -> str:
    """The method by its canonical name, if it can be run here."""
    spec, _ = resolve(method)
    if asks_feedback(spec):
        raise FeedbackError(
            f"the method {str(spec)!r} asks a language model how sure it is, and the service runs none. Use another "
            "method, or select in Python: icl_select.select(..., feedback=...)."
        )
    return str(spec)


@router.get("/selections", response_model=SelectionsPage, responses=problems(404))
def list_selections(pool: PoolPath, app: App, _: Reader, limit: Limit = 100) -> SelectionsPage:
    """The newest selections first, without their picks."""
    with app.database.read() as connection:
        found = pools.find(connection, pool)
        shown = [_out(connection, found, made) for made in selections.listing(connection, found, limit)]
    return SelectionsPage(selections=shown)


@router.get("/selections/{selection_id}", response_model=SelectionOut, responses=problems(404))
def read_selection(
    pool: PoolPath,
    selection_id: SelectionPath,
    app: App,
    _: Reader,
    budget: Prefix = None,
    after: Annotated[int, Query(ge=-1, lt=2**53, description="`next` of the page before.")] = -1,
    limit: Limit = 1000,
) -> SelectionOut:
    """A selection with its picks, in the order in which to label them, and the labels that they have by now."""
    with app.database.read() as connection:
        found = pools.find(connection, pool)
        made = selections.find(connection, found, selection_id)
        upto = _prefix(made, budget)
        ranked = selections.picks(connection, made.id, after, upto, limit + 1)
        shown = _picks(connection, found, ranked[:limit])
        out = _out(connection, found, made)
    return out.model_copy(update={"picks": shown, "next": ranked[limit - 1][0] if len(ranked) > limit else None})


def _prefix(made: SelectionRecord, budget: int | None) -> int:
    """How many picks answer a budget; BudgetError if the selection has no answer to it."""
    if budget is None or made.result is None:
        return made.budget
    if budget > made.budget:
        raise BudgetError(
            f"budget={budget} was asked of a selection of {made.budget} items. Ask for up to {made.budget}, or select "
            f"again with budget={budget}."
        )
    if budget < made.budget and not made.result["nested"]:
        raise BudgetError(
            f"the picks of {made.method} are not nested: its answer to budget {budget} is not the beginning of its "
            f"answer to {made.budget}. Select again with budget={budget}."
        )
    return budget


def _picks(connection: Connection, pool: PoolRecord, ranked: list[tuple[int, int, float]]) -> list[PickOut]:
    shown = items.at(connection, pool, [pos for _, pos, _ in ranked])
    return [
        PickOut(rank=rank, id=shown[pos].id, text=shown[pos].text, gain=gain, label=shown[pos].label)
        for rank, pos, gain in ranked
    ]


def _out(connection: Connection, pool: PoolRecord, made: SelectionRecord) -> SelectionOut:
    result = made.result or {}
    return SelectionOut(
        id=made.id,
        pool=pool.name,
        job=made.job_id,
        state=jobs.find(connection, made.job_id).state,
        method=made.method,
        budget=made.budget,
        seed=made.seed,
        created_at=made.created_at,
        nested=result.get("nested"),
        made_from=result.get("made_from"),
        info=result.get("info"),
        n_labelled=selections.labelled(connection, pool, made.id) if made.result is not None else 0,
        picks=[],
        next=None,
    )


@router.post("/selections/{selection_id}/next", response_model=NextOut, responses=problems(404, 409, 507))
def next_items(
    pool: PoolPath, selection_id: SelectionPath, body: NextIn, app: App, attempt: Attempted, who: Labeller
) -> Response:
    """Take the next items to label, in the order of the selection. Nobody else gets them until the lease ends.

    Asking again gives the same items with a new lease, until the annotator has said something of them. A pool that
    wants several labels of each item hands it to as many annotators.
    """
    most = app.settings.limits.lease_seconds
    if body.lease_seconds > most:
        raise InvalidError(f"lease_seconds={body.lease_seconds} exceeds the {most} s of a lease. Ask for less.")
    annotator = body.annotator or who.name
    with app.database.read() as connection:
        found = pools.find(connection, pool)
        _finished(connection, selections.find(connection, found, selection_id))
        remaining = leases.remaining(connection, found, selection_id, annotator)
    with app.database.write() as connection:
        if kept := replay.recall(connection, attempt):
            return answer_again(kept)
        found = pools.lock_uid(connection, found.uid)
        taken = leases.take(connection, found, selection_id, annotator, body.count, body.lease_seconds)
        shown = items.at(connection, found, [pos for _, pos in taken.picks])
        out = NextOut(
            annotator=annotator,
            items=[
                LeaseOut(
                    rank=rank,
                    id=shown[pos].id,
                    text=shown[pos].text,
                    fields=dict(shown[pos].fields),
                    expires_at=taken.expires_at,
                )
                for rank, pos in taken.picks
            ],
            remaining=remaining,
            label_words=found.config["label_words"],
        )
        return answer(connection, attempt, out)


def _finished(connection: Connection, made: SelectionRecord) -> None:
    if made.result is None:
        job = jobs.find(connection, made.job_id)
        raise ConflictError(
            f"the selection {made.id!r} has no picks: its job {job.id} is {job.state} ({job.message}). "
            + ("Wait for it." if job.state not in jobs.FINAL else "Ask for another selection.")
        )


@router.delete("/leases", status_code=204, response_class=Response, responses=problems(404))
def release_leases(
    pool: PoolPath,
    app: App,
    who: Labeller,
    annotator: Annotated[Annotator | None, Query(description="Default: the name of the key.")] = None,
) -> Response:
    """Give back the items that an annotator holds, so that others get them at once."""
    with app.database.write() as connection:
        leases.release(connection, pools.lock(connection, pool), annotator or who.name)
    return Response(status_code=204)


@router.get(
    "/selections/{selection_id}/export",
    response_class=Response,
    responses={200: {"content": {media.partition(";")[0]: {} for media in _MEDIA.values()}}, **problems(404, 409)},
)
def export_selection(
    pool: PoolPath,
    selection_id: SelectionPath,
    app: App,
    _: Reader,
    format: Annotated[Literal["csv", "jsonl", "label-studio", "argilla", "prodigy"], Query()] = "csv",
    part: Annotated[Literal["tasks", "config"], Query(description="config: Label Studio's, as XML.")] = "tasks",
    budget: Prefix = None,
) -> Response:
    """The picks as a file of tasks for a labelling tool, first to label first."""
    with app.database.read() as connection:
        found = pools.find(connection, pool)
        made = selections.find(connection, found, selection_id)
        _finished(connection, made)
        tasks = _tasks(connection, found, made, _prefix(made, budget))
    files = task_files(tasks, format, found.config["label_words"])
    suffix = next(iter(files)) if part == "tasks" else ".xml"
    if suffix not in files:
        raise NotFoundError(f"tasks as {format} come without a configuration. Only label-studio has one.")
    headers = {"Content-Disposition": f'attachment; filename="{made.id}{suffix}"'}
    return Response(files[suffix], media_type=_MEDIA[suffix], headers=headers)


def _tasks(connection: Connection, pool: PoolRecord, made: SelectionRecord, upto: int) -> list[Task]:
    ranked = selections.picks(connection, made.id, -1, upto, upto)
    shown = items.at(connection, pool, [pos for _, pos, _ in ranked])
    return [
        Task(
            id=shown[pos].id,
            text=shown[pos].text,
            rank=rank + 1,
            label=shown[pos].label,
            gain=gain,
            method=made.method,
            fields=shown[pos].fields,
        )
        for rank, pos, gain in ranked
    ]
