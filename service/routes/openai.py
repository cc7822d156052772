"""OpenAI-compatible routes: demonstrations are put into the request, and it is passed on."""

from __future__ import annotations

import re
from typing import Annotated

from fastapi import APIRouter, Header, Request, Response
from starlette.concurrency import run_in_threadpool

from icl_select.errors import IclSelectError

from ..engine import Answer
from ..errors import ServiceError, problem_of
from ..passthrough.body import (
    POOL,
    name_of,
    queries_of,
    query_of,
    read_body,
    with_demonstrations,
    with_prompts,
    write_body,
)
from ..passthrough.document import CHAT, COMPLETION, responses
from ..passthrough.errors import RefusedError
from ..passthrough.headers import Headers, authorization_for, headers_about, headers_back, headers_on
from ..passthrough.models import with_pools
from ..passthrough.relay import Relay
from ..passthrough.upstream import Call
from ..schemas import PromptOptions
from ..state import AppState
from ..store import pools as pools_store
from ._common import App, Reader

__all__ = ["router"]

router = APIRouter(prefix="/v1", tags=["openai"])

_COUNT = "[1-9][0-9]{0,8}"

PoolHeader = Annotated[
    str | None,
    Header(
        alias="X-ICS-Pool",
        description="Pool whose labelled items are shown, where the model names none.",
        # Shown only: the errors of these routes have a status of their own.
        json_schema_extra={"pattern": f"^{POOL}$"},
    ),
]
CountHeader = Annotated[
    str | None,
    Header(
        alias="X-ICS-K",
        description="Demonstrations wanted, from 1. Without it the pool's default counts.",
        json_schema_extra={"pattern": f"^{_COUNT}$"},
    ),
]


@router.post("/chat/completions", responses=responses(stream=True), openapi_extra=CHAT)
async def chat(request: Request, app: App, _: Reader, pool: PoolHeader = None, k: CountHeader = None) -> Response:
    """A chat with demonstrations of the pool that the model field (`pool::model`) or the header names.

    They stand behind the client's first system messages and before its conversation, and are those nearest to the last
    user message. The answer is the upstream server's, streamed if it streams. Without a pool the request is passed on
    unchanged.
    """
    app.upstream.check()
    body = await request.body()
    named = name_of(read_body(body), pool)
    options = _options(k, named.pool)
    about: Headers = []
    if named.pool is not None:
        answers = await _ask(app, named.pool, [query_of(named.content)], options)
        body = write_body(with_demonstrations(named.content, answers[0].document["messages"]))
        about = headers_about([answer.document for answer in answers])
    return Relay(app.upstream, _call(request, app, "/chat/completions", body), about)


@router.post("/completions", responses=responses(stream=True), openapi_extra=COMPLETION)
async def complete(request: Request, app: App, _: Reader, pool: PoolHeader = None, k: CountHeader = None) -> Response:
    """A completion of the pool's prompt for the query in `prompt`, a string or a list of strings.

    The prompt is the whole text that the pool's template makes of demonstrations and query. Without a pool the request
    is passed on unchanged.
    """
    app.upstream.check()
    body = await request.body()
    named = name_of(read_body(body), pool)
    options = _options(k, named.pool)
    about: Headers = []
    if named.pool is not None:
        answers = await _ask(app, named.pool, queries_of(named.content), options)
        body = write_body(with_prompts(named.content, [answer.document["prompt"] for answer in answers]))
        about = headers_about([answer.document for answer in answers])
    return Relay(app.upstream, _call(request, app, "/completions", body), about)


@router.get("/models", responses=responses(stream=False))
async def list_models(request: Request, app: App, _: Reader) -> Response:
    """The upstream server's models, and `pool::model` for each pool that can be asked."""
    app.upstream.check()
    status, headers, body = await app.upstream.read(_call(request, app, "/models"), app.settings.limits.body_bytes)
    if status == 200:
        body = with_pools(body, await run_in_threadpool(_pools, app))
        headers = [(name, value) for name, value in headers if name.lower() != b"content-length"]
    response = Response(body, status)
    response.raw_headers = [(b"content-length", str(len(body)).encode()), *headers_back(headers, [])]
    return response


def _options(k: str | None, pool: str | None) -> PromptOptions:
    if k is None:
        return PromptOptions()
    if not re.fullmatch(_COUNT, k):
        raise RefusedError("the header X-ICS-K is no whole number from 1. It says how many demonstrations are wanted.")
    if pool is None:
        raise RefusedError(
            "the header X-ICS-K asks for demonstrations, and the request names no pool to take them from. Name one in "
            "the model field (pool::model) or in X-ICS-Pool."
        )
    return PromptOptions(k=int(k))


async def _ask(app: AppState, pool: str, queries: list[str], options: PromptOptions) -> list[Answer]:
    """The prompts of the queries; what is wrong with the request has the status that this dialect has for it."""
    outcome = "failed"
    try:
        answers = await app.engine.ask(pool, queries, options)
        outcome = "answered"
    except IclSelectError as exc:
        outcome = "refused" if isinstance(exc, ServiceError) else "failed"
        problem = problem_of(exc)
        if problem.status == 422:
            raise RefusedError(problem.detail, kind=problem.kind) from exc
        raise
    finally:
        app.metrics.prompts.labels(outcome).inc(len(queries))
    return answers


def _call(request: Request, app: AppState, path: str, body: bytes | None = None) -> Call:
    authorization = authorization_for(request.headers.get("authorization"), app.upstream.key, closed=app.access.closed)
    headers = headers_on(request.scope["headers"], authorization, request.scope["state"]["request_id"])
    return Call("GET" if body is None else "POST", path, headers, request.scope["query_string"], body)


def _pools(app: AppState) -> list[str]:
    """Pools with vectors; the others could not be asked."""
    with app.database.read() as connection:
        return [pool.name for pool in pools_store.listing(connection, None, 10_000) if pool.embedding_id is not None]
