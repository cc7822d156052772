"""The upstream server's answer on its way to the client: chunk by chunk, neither kept nor read."""

from __future__ import annotations

import asyncio

import httpx2
import structlog
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from .headers import Headers, headers_back
from .upstream import Call, Upstream

__all__ = ["Relay"]

_LOG = structlog.get_logger("icl_select.service")


class Relay(Response):
    """A response that makes the call when it is sent, and ends it when the client goes away.

    Parameters
    ----------
    upstream : Upstream
    call : Call
    headers : list of tuple
        Ours, sent beside the upstream server's.

    Notes
    -----
    Called, it raises what :meth:`Upstream.open` raises, as long as nothing was sent. Once the answer has begun, an
    upstream server that breaks off leaves it incomplete: the client sees what it would have seen without us, a broken
    connection, and never an end that was not there.
    """

    def __init__(self, upstream: Upstream, call: Call, headers: Headers) -> None:
        super().__init__()
        self._upstream, self._call, self._own = upstream, call, headers

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        passing = asyncio.create_task(self._pass(scope, send))
        leaving = asyncio.create_task(_left(receive))
        try:
            await asyncio.wait((passing, leaving), return_when=asyncio.FIRST_COMPLETED)
            if passing.done():
                passing.result()
        finally:
            passing.cancel()
            leaving.cancel()
            await asyncio.gather(passing, leaving, return_exceptions=True)

    async def _pass(self, scope: Scope, send: Send) -> None:
        async with self._upstream.open(self._call) as answer:
            headers = headers_back(answer.headers.raw, self._own)
            await send({"type": "http.response.start", "status": answer.status_code, "headers": headers})
            try:
                async for chunk in answer.aiter_raw():
                    await send({"type": "http.response.body", "body": chunk, "more_body": True})
            except httpx2.HTTPError as exc:
                request_id = scope["state"]["request_id"]
                _LOG.warning("the upstream server broke off", request_id=request_id, reason=type(exc).__name__)
                return  # without a last message: the server closes the connection
            await send({"type": "http.response.body", "body": b"", "more_body": False})


async def _left(receive: Receive) -> None:
    """Return when the client has gone."""
    while (await receive())["type"] != "http.disconnect":
        pass
