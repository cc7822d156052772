"""The application: one state, the gate before it, the routes behind."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator

import structlog
from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.responses import Response

from icl_select import __version__
from icl_select.errors import IclSelectError

from .document import document_of
from .errors import Problem, ServiceError, problem_of
from .gate import Gate, problem_bytes
from .routes import items, jobs, labels, openai, pages, pools, prompts, reports, selections, system
from .settings import Settings
from .state import AppState

__all__ = ["create_app"]

_LOG = structlog.get_logger("icl_select.service")

_ABOUT = """
Which examples to label, prompts from the labelled ones.

Make a pool, add items, ask for a selection, label its picks in order, and ask for prompts. Every answer carries the id
of its request (`X-Request-ID`); errors are RFC 9457 problem documents; a POST with an `Idempotency-Key` may be sent
again.
"""


def create_app(settings: Settings) -> FastAPI:
    """The service as an ASGI application. Starting it opens the database; until then nothing is touched."""
    state = AppState.build(settings)
    app = FastAPI(
        title="icl-select",
        version=__version__,
        description=_ABOUT,
        lifespan=_lifespan,
        license_info={"name": "Apache-2.0", "identifier": "Apache-2.0"},
        # Both load scripts from elsewhere; the document itself is at /openapi.json.
        docs_url=None,
        redoc_url=None,
        generate_unique_id_function=lambda route: route.name,
    )
    app.state.icl = state
    # Routes are tried in order, so what is asked most comes first.
    for module in (prompts, openai, pools, items, labels, selections, reports, jobs, system, pages):
        app.include_router(module.router)
    app.add_exception_handler(IclSelectError, _foreseen)
    app.add_exception_handler(RequestValidationError, _invalid)
    app.add_exception_handler(HTTPException, _http)
    app.add_middleware(Gate, state=state)
    app.openapi = document_of(app)  # type: ignore[method-assign]
    return app


@contextlib.asynccontextmanager
async def _lifespan(app: FastAPI) -> AsyncIterator[None]:
    state: AppState = app.state.icl
    await run_in_threadpool(state.open)
    await run_in_threadpool(state.start)
    try:
        yield
    finally:
        state.stopping.set()
        await state.upstream.close()
        await run_in_threadpool(state.stop)


def _respond(request: Request, problem: Problem) -> Response:
    body, media = problem_bytes(problem, request.url.path, request.scope["state"].get("request_id"))
    return Response(body, problem.status, dict(problem.headers), media_type=media)


async def _foreseen(request: Request, exc: Exception) -> Response:
    problem = problem_of(exc)
    if problem.status >= 500 and not isinstance(exc, ServiceError):
        _LOG.error("request failed", request_id=request.scope["state"].get("request_id"), exc_info=exc)
    return _respond(request, problem)


async def _invalid(request: Request, exc: Exception) -> Response:
    """What FastAPI finds wrong with a request, as pointers into it. The values themselves are not sent back."""
    assert isinstance(exc, RequestValidationError)
    errors = []
    for error in exc.errors():
        where, *path = error["loc"]
        pointer = "".join(f"/{part}" for part in path)
        message = str(error["msg"]).removeprefix("Value error, ")
        errors.append({"pointer": pointer if where == "body" else f"{where}:{pointer[1:]}", "detail": message})
    first = errors[0]
    more = f" (and {len(errors) - 1} more, in errors)" if len(errors) > 1 else ""
    detail = f"{first['pointer'] or 'the body'}: {first['detail']}{more}."
    return _respond(request, Problem(422, "invalid", "Invalid request", detail, tuple(errors[:100])))


async def _http(request: Request, exc: Exception) -> Response:
    assert isinstance(exc, HTTPException)
    if isinstance(exc.__cause__, IclSelectError):  # raised while the body was read, and wrapped by the framework
        return _respond(request, problem_of(exc.__cause__))
    kinds = {
        400: ("malformed", "The body cannot be read", "the body cannot be read as JSON in UTF-8."),
        404: ("not-found", "Not found", f"there is no {request.url.path} here. GET /openapi.json lists the routes."),
        405: ("method", "Method not allowed", f"{request.method} is no method of {request.url.path}."),
    }
    kind, title, detail = kinds.get(exc.status_code, ("http", "Request refused", str(exc.detail)))
    return _respond(request, Problem(exc.status_code, kind, title, detail, headers=dict(exc.headers or {})))
