"""Labels: words of annotators in, resolved labels out, with all of their history."""

from __future__ import annotations

import datetime
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path as FilePath
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Path, Query, Request, Response
from sqlalchemy.engine import Connection
from starlette.concurrency import run_in_threadpool
from starlette.responses import StreamingResponse

from icl_select.data import LabelRecord as VoteRecord
from icl_select.data import agreement, label_lines, read_labels
from icl_select.errors import LabelError

from ..access import Principal
from ..errors import InvalidError, NotFoundError, TooLargeError
from ..schemas import (
    AgreementOut,
    LabelEventOut,
    LabelIn,
    LabelOut,
    LabelsIn,
    LabelsOut,
    LabelsPage,
)
from ..state import AppState
from ..store import items, labels, pools, replay
from ..store.labels import Word, Written
from ..store.pools import PoolRecord
from ..uploads import JSON_LINES, lines, spool
from ._common import (
    App,
    Attempted,
    Labeller,
    Limit,
    PoolPath,
    Reader,
    answer,
    answer_again,
    check_words,
    json_response,
    problems,
)

__all__ = ["router", "take", "written_out"]

router = APIRouter(prefix="/v1/pools/{pool}", tags=["labels"])

LabelFormat = Literal["csv", "jsonl", "label-studio", "argilla", "prodigy"]

_FILE = {
    "requestBody": {
        "required": True,
        "content": {"application/octet-stream": {"schema": {"type": "string", "format": "binary"}}},
    }
}
_PAGE = 1_000

ItemPath = Annotated[str, Path(min_length=1, max_length=512)]


def take(
    connection: Connection, pool: PoolRecord, said: Sequence[LabelIn], who: Principal, *, where: str = "labels"
) -> Written:
    """Take words into a locked pool, all or none.

    Raises
    ------
    NotFoundError
        If the pool lacks one of the items; the message names the first.
    LabelError
        If a label is not one of the label words.
    """
    found = items.positions(connection, pool, list({word.id for word in said}))
    missing = [(place, word.id) for place, word in enumerate(said) if word.id not in found]
    if missing:
        shown = [{"pointer": f"/{where}/{place}/id", "detail": f"no item {name!r}"} for place, name in missing[:100]]
        raise NotFoundError(
            f"{len(missing)} of the {len(said)} labels are for items that the pool {pool.name!r} does not have, such "
            f"as {missing[0][1]!r}. Nothing was written.",
            errors=shown,
        )
    words = pool.config["label_words"]
    for place, word in enumerate(said):
        check_words(word.label, words, f"{where}[{place}] (id {word.id!r})")
    taken = [
        Word(
            found[word.id],
            word.annotator or who.name,
            word.status,
            word.label,
            word.adjudicated,
            labels.made_at(word.created_at),
        )
        for word in said
    ]
    return labels.write(connection, pool, taken, key_id=who.id)


def written_out(app: AppState, connection: Connection, done: Written, unknown: Iterable[str] = ()) -> LabelsOut:
    """What taking words did, as it is answered."""
    app.metrics.labels.inc(done.written)
    open_ = items.at(connection, done.pool, list(done.conflicts)[:1000])
    return LabelsOut(
        version=done.pool.labels_version,
        written=done.written,
        unchanged=done.unchanged,
        changed=done.changed,
        conflicts=[open_[pos].id for pos in sorted(open_)],
        unknown=list(unknown)[:1000],
        n_labelled=done.pool.n_labelled,
    )


def _write(
    pool: str, said: Sequence[LabelIn], app: AppState, attempt: replay.Attempt | None, who: Principal
) -> Response:
    if len(said) > app.settings.limits.labels:
        raise TooLargeError(
            f"{len(said)} labels exceed the {app.settings.limits.labels} of one request. Send them in parts."
        )
    with app.database.write() as connection:
        if kept := replay.recall(connection, attempt):
            return answer_again(kept)
        done = take(connection, pools.lock(connection, pool), said, who)
        return answer(connection, attempt, written_out(app, connection, done))


@router.put("/labels", response_model=LabelsOut, responses=problems(404, 507))
def put_labels(pool: PoolPath, body: LabelsIn, app: App, attempt: Attempted, who: Labeller) -> Response:
    """Take what annotators say of one item or many, all or nothing. When this is answered, it is on disk.

    The latest word of each annotator counts, so labelling an item again corrects it. Sending the same again changes
    nothing.
    """
    return _write(pool, body.labels, app, attempt, who)


@router.post("/labels", response_model=LabelsOut, responses=problems(404, 409, 507))
def post_labels(pool: PoolPath, body: LabelsIn, app: App, attempt: Attempted, who: Labeller) -> Response:
    """As PUT; for clients that send an Idempotency-Key with POST alone."""
    return _write(pool, body.labels, app, attempt, who)


class OneLabelIn(LabelIn):
    """What one annotator says of the item in the path."""

    id: None = None  # type: ignore[assignment]


@router.put("/labels/{item_id:path}", response_model=LabelsOut, responses=problems(404, 507))
def put_label(pool: PoolPath, item_id: ItemPath, body: OneLabelIn, app: App, who: Labeller) -> Response:
    """As PUT of many, for the item in the path."""
    said = LabelIn.model_validate({**body.model_dump(exclude={"id"}), "id": item_id})
    return _write(pool, [said], app, None, who)


@router.get("/labels", response_model=LabelsPage, responses=problems(404))
def list_labels(
    pool: PoolPath,
    app: App,
    _: Reader,
    version: Annotated[int | None, Query(ge=0, description="As of this version; default: now.")] = None,
    after: Annotated[int, Query(ge=-1, description="`next` of the page before.")] = -1,
    limit: Limit = 1000,
) -> LabelsPage:
    """Labels in item order, now or as of a version. An item whose label was taken back, or is open, has null."""
    with app.database.read() as connection:
        found = pools.find(connection, pool)
        wanted = found.labels_version if version is None else version
        if wanted > found.labels_version:
            raise InvalidError(f"version={wanted} lies ahead: the labels are at version {found.labels_version}.")
        rows = labels.page(connection, found, wanted, after, limit + 1)
    shown = [
        LabelOut(id=row.id, label=row.label, version=row.version, n_votes=row.n_votes, conflict=row.conflict)
        for row in rows[:limit]
    ]
    return LabelsPage(version=wanted, labels=shown, next=rows[limit - 1].pos if len(rows) > limit else None)


@router.get("/history/{item_id:path}", response_model=list[LabelEventOut], responses=problems(404))
def label_history(pool: PoolPath, item_id: ItemPath, app: App, _: Reader) -> list[LabelEventOut]:
    """Every word that was said of an item, in the order in which it was taken."""
    with app.database.read() as connection:
        found = pools.find(connection, pool)
        rows = labels.history(connection, found, items.find(connection, found, item_id).pos)
    names = LabelEventOut.model_fields
    return [LabelEventOut(**{name: getattr(row, name) for name in names}) for row in rows]


@router.get("/agreement", response_model=AgreementOut, responses=problems(404))
def read_agreement(pool: PoolPath, app: App, _: Reader) -> AgreementOut:
    """How far annotators agree, over the items that several labelled, and which items are open."""
    with app.database.read() as connection:
        found = pools.find(connection, pool)
        votes = [VoteRecord(*vote) for vote in _votes(connection, found)]
        report = agreement(votes)
        return AgreementOut.model_validate(
            {**report.to_dict(), "conflicts": labels.conflicts(connection, found, app.settings.limits.page)}
        )


def _votes(connection: Connection, pool: PoolRecord) -> Iterable[tuple[Any, ...]]:
    for item_id, annotator, label, created_at in labels.votes_of_pool(connection, pool):
        yield item_id, label, annotator, created_at


@router.post("/labels/import", response_model=LabelsOut, responses=problems(404, 409, 415, 507), openapi_extra=_FILE)
async def import_labels(
    pool: PoolPath,
    request: Request,
    app: App,
    who: Labeller,
    format: Annotated[LabelFormat | None, Query(description="Default: recognised by content.")] = None,
) -> Response:
    """Take the labels of a file as labelling tools and `icl-select` write them, all or none.

    Labels are matched by id. Ids that the pool does not have are listed and left out; a file none of whose ids is the
    pool's is refused.
    """
    async with spool(request, app.settings, app.settings.limits.label_file_bytes) as body:
        done = await run_in_threadpool(_import, pool, body.path, format, app, who)
    return json_response(done.model_dump(mode="json"))


def _import(pool: str, path: FilePath, format: str | None, app: AppState, who: Principal) -> LabelsOut:
    with app.database.read() as connection:
        words = pools.find(connection, pool).config["label_words"]
    file = read_labels(path, format, label_words=words, source="the upload", plain_only=True)
    with app.database.write() as connection:
        locked = pools.lock(connection, pool)
        known = items.positions(connection, locked, list(file.ids))
        if not known:
            raise LabelError(
                f"none of the {len(file.ids)} ids of the file is in the pool {pool!r}, for example {file.ids[0]!r}. "
                "Send it to the pool that the tasks were exported from."
            )
        said = [
            Word(known[one.id], one.annotator or who.name, "label", one.label, False, labels.made_at(_moment(one)))
            for one in file.records
            if one.id in known
        ]
        done = labels.write(connection, locked, said, key_id=who.id)
        return written_out(app, connection, done, [name for name in file.ids if name not in known])


def _moment(record: VoteRecord) -> datetime.datetime | None:
    """When a tool says that a label was made; tools write ISO 8601, and what is none counts as now."""
    try:
        return None if record.created_at is None else datetime.datetime.fromisoformat(record.created_at)
    except ValueError:
        return None


@router.get(
    "/labels/export",
    response_class=StreamingResponse,
    responses={200: {"content": {"text/csv": {}, JSON_LINES: {}}}, **problems(404)},
)
def export_labels(
    pool: PoolPath,
    app: App,
    _: Reader,
    format: Annotated[Literal["csv", "jsonl"], Query()] = "csv",
    votes: Annotated[bool, Query(description="Every annotator's label instead of what they resolve to.")] = False,
) -> StreamingResponse:
    """The labels as a file that the command line and this service read back."""
    with app.database.read() as connection:
        pools.find(connection, pool)
    records = _vote_records(app, pool) if votes else _label_records(app, pool)
    media = "text/csv; charset=utf-8" if format == "csv" else JSON_LINES
    return StreamingResponse(lines(label_lines(records, format)), media_type=media)


def _label_records(app: AppState, name: str) -> Iterator[VoteRecord]:
    """Labels of one version, page after page: no connection is held while a slow client reads."""
    with app.database.read() as connection:
        state = pools.find(connection, name)
    after: int | None = -1
    while after is not None:
        with app.database.read() as connection:
            pool = pools.by_uid(connection, state.uid)
            found = labels.page(connection, pool, state.labels_version, after, _PAGE)
        for row in found:
            if row.label is not None:
                yield VoteRecord(row.id, row.label)
        after = found[-1].pos if len(found) == _PAGE else None


def _vote_records(app: AppState, name: str) -> Iterator[VoteRecord]:
    """Votes as they are when the answer begins; they are few enough to be held."""
    with app.database.read() as connection:
        yield from [VoteRecord(*vote) for vote in _votes(connection, pools.find(connection, name))]
