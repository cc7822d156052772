"""Items: uploads large and small, lists, single items, and the whole pool as a file."""

from __future__ import annotations

import dataclasses
import functools
import hashlib
from collections.abc import Iterator
from typing import Annotated

from fastapi import APIRouter, Header, Path, Query, Request, Response
from fastapi.exceptions import RequestValidationError
from pydantic import ValidationError
from sqlalchemy.engine import Connection
from starlette.concurrency import run_in_threadpool
from starlette.responses import StreamingResponse

from icl_select.data._records import dump, to_record

from ..schemas import ItemOut, ItemsIn, ItemsOut, ItemsPage
from ..state import AppState
from ..store import items, labels, pools, replay
from ..store.items import ItemRecord
from ..uploads import JSON, JSON_LINES, PARQUET, Ingested, ingest, kind_of, lines, records_table, spool, table_of
from ._common import Admin, App, Limit, PoolPath, Reader, answer_again, json_response, problems, said_by

__all__ = ["router"]

router = APIRouter(prefix="/v1/pools/{pool}", tags=["items"])

_BODY = {
    "requestBody": {
        "required": True,
        "content": {
            JSON: {"schema": {"$ref": "#/components/schemas/ItemsIn"}},
            JSON_LINES: {"schema": {"type": "string", "description": "One JSON object a line."}},
            PARQUET: {"schema": {"type": "string", "format": "binary"}},
        },
    }
}
_PAGE = 1_000


async def _take(
    pool: PoolPath,
    request: Request,
    app: App,
    _: Admin,
    skip_empty: Annotated[bool, Query(description="Leave rows with an empty text out.")] = False,
    idempotency_key: Annotated[str | None, Header(min_length=1, max_length=255, pattern=r"^[\x21-\x7e]+$")] = None,
) -> Response:
    """Add items: a JSON object with `items`, JSON Lines, or a Parquet file, streamed.

    All rows are taken or none; they are embedded by a job. An item that is there already with the same content stays as
    it is, so sending a file again adds nothing; an id that belongs to other content is refused. Labels that come with
    the rows count as words of the annotator "upload".
    """
    kind = kind_of(request)
    most = app.settings.limits.body_bytes if kind == JSON else app.settings.limits.upload_bytes
    async with spool(request, app.settings, most) as body:
        attempt = None
        if idempotency_key is not None:
            principal = request.scope["state"]["principal"]
            said = hashlib.sha256(said_by(request) + body.digest.encode()).hexdigest()
            attempt = replay.Attempt(principal.id, idempotency_key, said)
        if kind == JSON:
            table = records_table(_items_in(await run_in_threadpool(body.path.read_bytes)).items)
        else:
            table = table_of(body, kind, app.settings.limits)
        finish = functools.partial(_finish, attempt)
        done = await run_in_threadpool(ingest, app.database, app.settings, pool, table, skip_empty, attempt, finish)
    if done.replayed is not None:
        return answer_again(done.replayed)
    return json_response(_out(done).model_dump(mode="json"))


def _items_in(body: bytes) -> ItemsIn:
    try:
        return ItemsIn.model_validate_json(body)
    except ValidationError as exc:
        errors = [{**error, "loc": ("body", *error["loc"])} for error in exc.errors(include_input=False)]
        raise RequestValidationError(errors) from exc


def _finish(attempt: replay.Attempt | None, connection: Connection, done: Ingested) -> None:
    if attempt is not None:
        replay.keep(connection, attempt, replay.Kept(200, {}, _out(done).model_dump(mode="json")))


def _out(done: Ingested) -> ItemsOut:
    assert done.uploaded is not None
    pool = done.uploaded.pool
    return ItemsOut(
        added=done.uploaded.added,
        unchanged=done.uploaded.unchanged,
        skipped=done.skipped,
        labelled=done.uploaded.labelled,
        n_items=pool.n_items,
        version=pool.version,
        labels_version=pool.labels_version,
        job=done.job,
    )


for _method in ("put", "post"):
    getattr(router, _method)(
        "/items",
        response_model=ItemsOut,
        responses=problems(404, 409, 415, 507),
        openapi_extra=_BODY,
        name=f"{_method}_items",
        operation_id=f"{_method}_items",
    )(_take)


def _item_out(item: ItemRecord) -> ItemOut:
    return ItemOut(
        id=item.id,
        text=item.text,
        fields=dict(item.fields),
        metadata=dict(item.metadata),
        label=item.label,
        label_version=item.label_version,
        n_votes=item.n_votes,
        conflict=item.conflict,
    )


@router.get("/items", response_model=ItemsPage, responses=problems(404))
def list_items(
    pool: PoolPath,
    app: App,
    _: Reader,
    after: Annotated[int, Query(ge=-1, description="`next` of the page before.")] = -1,
    limit: Limit = 100,
    labelled: Annotated[bool | None, Query(description="Only items with a label, or without.")] = None,
) -> ItemsPage:
    """Items in the order in which they were added, with the labels they have now."""
    with app.database.read() as connection:
        found = items.page(connection, pools.find(connection, pool), after, limit + 1, labelled)
    shown = [_item_out(item) for item in found[:limit]]
    return ItemsPage(items=shown, next=found[limit - 1].pos if len(found) > limit else None)


@router.get("/items/{item_id:path}", response_model=ItemOut, responses=problems(404))
def read_item(
    pool: PoolPath, item_id: Annotated[str, Path(min_length=1, max_length=512)], app: App, _: Reader
) -> ItemOut:
    """One item."""
    with app.database.read() as connection:
        return _item_out(items.find(connection, pools.find(connection, pool), item_id))


@router.get(
    "/export",
    response_class=StreamingResponse,
    responses={200: {"content": {JSON_LINES: {"schema": {"type": "string"}}}}, **problems(404)},
)
def export_pool(pool: PoolPath, app: App, _: Reader) -> StreamingResponse:
    """The pool with its labels as JSON Lines, which `icl-select` and `icl_select.Pool.read` read back."""
    with app.database.read() as connection:
        pools.find(connection, pool)
    return StreamingResponse(lines(_rows(app, pool)), media_type=JSON_LINES)


def _rows(app: AppState, name: str) -> Iterator[bytes]:
    """One state of the pool, page after page: no connection is held while a slow client reads."""
    with app.database.read() as connection:
        state = pools.find(connection, name)
    after = -1
    while after + 1 < state.n_items:
        with app.database.read() as connection:
            pool = dataclasses.replace(pools.by_uid(connection, state.uid), n_items=state.n_items)
            found = items.page(connection, pool, after, _PAGE)
            past = labels.labelled_at(connection, pool.uid, [item.pos for item in found], state.labels_version)
        for item in found:
            example = dataclasses.replace(item.example, label=past.get(item.pos))
            yield dump(example, to_record(example)) + b"\n"
        after = found[-1].pos
