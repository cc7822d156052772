"""Prompts: answered for queries, and written again from what they were made of."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import Annotated, Any

from fastapi import APIRouter, Path, Request, Response
from fastapi.routing import APIRoute
from pydantic import ValidationError
from starlette.concurrency import run_in_threadpool
from starlette.requests import ClientDisconnect

from ..engine import Answer, rebuild
from ..errors import ServiceError
from ..schemas import PromptIn, PromptOut, PromptsOut
from ..state import AppState
from ..store import replay
from ._common import App, Attempted, Reader, need, problems, while_connected

__all__ = ["router"]


class _Quick(APIRoute):
    """Takes a plain request to the handler at once; one that is unusual in any way takes FastAPI's way, which is long.

    What is common is a JSON body that is right, with no `Idempotency-Key`: every prompt of a busy service.
    """

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        """The handler of a route; the quick way is for POST, of which there is one."""
        careful, make = super().get_route_handler(), self.endpoint
        if self.methods != {"POST"}:
            return careful

        async def quick(request: Request) -> Response:
            headers = request.headers
            if headers.get("content-type") != "application/json" or "idempotency-key" in headers:
                return await careful(request)
            try:
                body = PromptIn.model_validate_json(await request.body())
            except ValidationError:
                return await careful(request)
            reader = await _may_read(request)
            answer: Response = await make(request, body, request.app.state.icl, None, reader)
            return answer

        return quick


_may_read = need("read")

router = APIRouter(prefix="/v1/prompts", tags=["prompts"], route_class=_Quick)


@router.post("", response_model=PromptOut | PromptsOut, responses=problems(404, 409))
async def make_prompts(request: Request, body: PromptIn, app: App, attempt: Attempted, _: Reader) -> Response:
    """The prompt of one query, or of each of several.

    Demonstrations are the labelled items most similar to the query, whole ones, as many as fit. One query gives one
    prompt, a list of them an object with `prompts`.
    """
    if attempt is not None and (again := await run_in_threadpool(_recall, app, attempt)) is not None:
        return again
    queries = [query for query in [body.query, *(body.queries or ())] if query is not None]
    try:
        answers = await while_connected(request, app.engine.ask(body.pool, queries, body))
    except ClientDisconnect:
        app.metrics.prompts.labels("abandoned").inc(len(queries))
        raise
    except ServiceError:
        app.metrics.prompts.labels("refused").inc(len(queries))
        raise
    except Exception:
        app.metrics.prompts.labels("failed").inc(len(queries))
        raise
    app.metrics.prompts.labels("answered").inc(len(queries))
    if attempt is not None:
        await run_in_threadpool(_keep, app, attempt, answers, body.queries is None)
    return Response(_body(answers, body.queries is None), media_type="application/json")


def _body(answers: list[Answer], single: bool) -> bytes:
    if single:
        return answers[0].body
    return b'{"prompts":[' + b",".join(answer.body for answer in answers) + b"]}"


def _recall(app: AppState, attempt: replay.Attempt) -> Response | None:
    with app.database.write() as connection:
        kept = replay.recall(connection, attempt)
    if kept is None:
        return None
    with app.database.read() as connection:
        answers = [rebuild(connection, prompt_id) for prompt_id in kept.body["prompts"]]
    headers = {**kept.headers, "Idempotency-Replayed": "true"}
    return Response(_body(answers, kept.body["single"]), kept.status, headers, media_type="application/json")


def _keep(app: AppState, attempt: replay.Attempt, answers: list[Answer], single: bool) -> None:
    """Keep which prompts were answered; they can be written again, and a thousand of them are large."""
    body = {"prompts": [answer.id for answer in answers], "single": single}
    with app.database.write() as connection:
        replay.keep(connection, attempt, replay.Kept(200, {}, body))


@router.get("/{prompt_id}", response_model=PromptOut, responses=problems(404, 409))
def read_prompt(prompt_id: Annotated[str, Path(max_length=100)], app: App, _: Reader) -> Response:
    """A prompt that was answered, byte for byte, with the labels as they were then."""
    with app.database.read() as connection:
        return Response(rebuild(connection, prompt_id).body, media_type="application/json")
