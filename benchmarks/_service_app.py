"""The service with one route more: it checks its body as the prompt route does, and answers nothing."""

from __future__ import annotations

import asyncio
from pathlib import Path

import uvicorn
from fastapi import APIRouter, Response

from icl_select.service.app import create_app
from icl_select.service.logs import set_up
from icl_select.service.routes._common import App, Reader
from icl_select.service.run import listen
from icl_select.service.schemas import PromptIn
from icl_select.service.settings import Settings


async def empty(body: PromptIn, app: App, who: Reader) -> Response:
    """Nothing, after all that stands before a handler."""
    return Response(b"{}", media_type="application/json")


def main(folder: str, encoder: str) -> None:
    """Serve on a free port, which is written to standard output."""
    set_up("json", level=30)
    names = tuple(dict.fromkeys((encoder, "hash", "minilm", "onnx")))
    settings = Settings(data_dir=Path(folder), encoders=names, port=0)
    app = create_app(settings)
    router = APIRouter(prefix="/v1/empty")
    router.add_api_route("", empty, methods=["POST"])
    app.include_router(router)
    app.router.routes.insert(0, app.router.routes.pop())  # found as fast as prompts are
    listener = listen(settings)
    print(listener.getsockname()[1], flush=True)
    config = uvicorn.Config(app, log_config=None, access_log=False)
    asyncio.run(uvicorn.Server(config).serve(sockets=[listener]))
