"""What handlers ask for: the shared state, who calls, and whether the request was answered before."""

from __future__ import annotations

import asyncio
import hashlib
import json
from collections.abc import Awaitable, Callable, Mapping
from typing import Annotated, Any, TypeVar

from fastapi import Depends, Header, Path, Query, Request, Response
from pydantic import BaseModel
from sqlalchemy.engine import Connection
from starlette.requests import ClientDisconnect

from icl_select.errors import LabelError, suggest

from ..access import Principal
from ..errors import ForbiddenError, InvalidError
from ..schemas import ProblemOut
from ..state import AppState
from ..store import replay

__all__ = [
    "Admin",
    "App",
    "Attempted",
    "Labeller",
    "Limit",
    "PoolPath",
    "Reader",
    "answer",
    "answer_again",
    "check_words",
    "json_response",
    "need",
    "problems",
    "said_by",
    "while_connected",
]


async def _state(request: Request) -> AppState:
    state: AppState = request.app.state.icl
    return state


T = TypeVar("T")

_PATIENCE = 0.1

App = Annotated[AppState, Depends(_state)]


def need(scope: str) -> Callable[[Request], Awaitable[Principal]]:
    """What lets a request pass whose key has a scope, and says whose key it is."""

    async def check(request: Request) -> Principal:
        principal: Principal = request.scope["state"]["principal"]
        if not principal.may(scope):
            raise ForbiddenError(
                f"the key {principal.name!r} has the scope {principal.scope!r}, and this needs {scope!r}. Use another "
                f"key, or have one made: icl-select keys create NAME --scope {scope}."
            )
        return principal

    return check


Reader = Annotated[Principal, Depends(need("read"))]
Labeller = Annotated[Principal, Depends(need("label"))]
Admin = Annotated[Principal, Depends(need("admin"))]

PoolPath = Annotated[str, Path(max_length=64, pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$", examples=["tickets"])]
Limit = Annotated[int, Query(ge=1, le=1000, description="Rows of the page, at most.")]


async def _attempt(
    request: Request,
    idempotency_key: Annotated[
        str | None,
        Header(
            min_length=1,
            max_length=255,
            pattern=r"^[\x21-\x7e]+$",
            description="Any text that is new for a new request: sending the request again with it does nothing twice.",
        ),
    ] = None,
) -> replay.Attempt | None:
    if idempotency_key is None:
        return None
    principal: Principal = request.scope["state"]["principal"]
    digest = hashlib.sha256(said_by(request))
    digest.update(await request.body())
    return replay.Attempt(principal.id, idempotency_key, digest.hexdigest())


def said_by(request: Request) -> bytes:
    """What a request asks for, beside its body: method, path and query."""
    path: str = request.scope["path"]
    query: bytes = request.scope["query_string"]
    return b"%s %s?%s\n" % (request.method.encode(), path.encode("utf-8", "surrogatepass"), query)


Attempted = Annotated[replay.Attempt | None, Depends(_attempt)]


async def while_connected(request: Request, work: asyncio.Future[T]) -> T:
    """Wait for some work, which is given up when the client goes away: nobody else is to wait for it then.

    The body must have been read.

    Raises
    ------
    ClientDisconnect
        If the client went away.
    """
    watches: list[asyncio.Task[None]] = []

    def look() -> None:
        watches.append(asyncio.ensure_future(_left(request)))
        watches[0].add_done_callback(lambda _: work.cancel())

    # Most answers come before it pays to look.
    timer = asyncio.get_running_loop().call_later(_PATIENCE, look)
    try:
        return await work
    except asyncio.CancelledError:
        if any(watch.done() and not watch.cancelled() for watch in watches):
            raise ClientDisconnect from None
        raise
    finally:
        timer.cancel()
        for watch in watches:
            watch.cancel()


async def _left(request: Request) -> None:
    """Return when the client has gone away."""
    while (await request.receive())["type"] != "http.disconnect":
        pass


def json_response(body: Any, status: int = 200, headers: Mapping[str, str] | None = None) -> Response:
    """A JSON answer; non-ASCII text stays readable."""
    content = json.dumps(body, ensure_ascii=False, allow_nan=False, separators=(",", ":")).encode("utf-8")
    return Response(content, status, dict(headers or {}), media_type="application/json")


def answer(
    connection: Connection,
    attempt: replay.Attempt | None,
    body: BaseModel,
    status: int = 200,
    headers: Mapping[str, str] | None = None,
) -> Response:
    """Answer, and keep the answer for when the request comes again; within the transaction that did the work."""
    kept = replay.Kept(status, dict(headers or {}), body.model_dump(mode="json"))
    replay.keep(connection, attempt, kept)
    return json_response(kept.body, status, headers)


def answer_again(kept: replay.Kept) -> Response:
    """The answer that was given when the request came first."""
    return json_response(kept.body, kept.status, {**kept.headers, "Idempotency-Replayed": "true"})


_MEANINGS = {
    400: "The body cannot be read.",
    401: "No valid key.",
    403: "The key does not have the scope.",
    404: "Nothing has that name.",
    409: "The present state does not allow it.",
    413: "Above a limit, which is named.",
    415: "A body of a kind that is not read.",
    422: "The request cannot mean anything; `errors` points into it.",
    429: "Too many requests; `Retry-After` says when to come again.",
    501: "A package is not installed.",
    502: "The upstream server failed.",
    503: "Not now; try again.",
    507: "The disk is full; nothing of the request was kept.",
}


def problems(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """How a route can fail, for the OpenAPI document."""
    shown = sorted({400, 401, 403, 413, 422, 429, 503, *statuses})
    schema = {"$ref": f"#/components/schemas/{ProblemOut.__name__}"}
    return {
        status: {"description": _MEANINGS[status], "content": {"application/problem+json": {"schema": schema}}}
        for status in shown
    }


def check_words(label: str | None, words: list[str] | None, where: str) -> None:
    """Raise LabelError unless the label is one of the pool's label words, where it has any."""
    if label is None:
        return
    if label.isspace():
        raise LabelError(f"{where}: the label is blank. Use status 'skip' or 'unsure' where there is none.")
    if words is not None and label not in words:
        raise LabelError(
            f"{where}: the label {label!r} is not one of the {len(words)} label words.{suggest(label, words)}"
        )


def check_page(limit: int, most: int) -> None:
    """Raise InvalidError if a page would hold more rows than the service gives at once."""
    if limit > most:
        raise InvalidError(f"limit={limit} exceeds the {most} rows of one page. Ask for less, and follow `next`.")
