"""The gate that every request passes: its id, who sends it, how much it may send, and how it is logged and counted.

It stands before the routes and before any body is read, so a stranger costs a header and no more.
"""

from __future__ import annotations

import itertools
import json
import re
import secrets
import time
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

import structlog
from starlette.concurrency import run_in_threadpool
from starlette.requests import ClientDisconnect

from .access import Principal
from .errors import InvalidError, Problem, ServiceError, TooLargeError, UnavailableError, problem_of
from .settings import is_loopback
from .state import AppState

__all__ = ["Gate", "is_openai", "problem_bytes"]

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]

_LOG = structlog.get_logger("icl_select.service")
_REQUEST_ID = re.compile(r"[A-Za-z0-9._-]{1,64}")
_UPLOAD = re.compile(r"/v1/pools/[^/]+/(items|labels/import)/?")
_OPENAI = ("/v1/chat/completions", "/v1/completions", "/v1/models")
_SAFE = ("GET", "HEAD", "OPTIONS")
# A method may be any word; each that is counted takes memory for good.
_METHODS = frozenset([*_SAFE, "POST", "PUT", "PATCH", "DELETE"])
_PATH_SHOWN = 512
_PROCESS = secrets.token_hex(5)
_NUMBERS = itertools.count(1)


def _new_id() -> str:
    """An id that no other request has, here or elsewhere; asking the system for random bytes each time costs more."""
    return f"{_PROCESS}{next(_NUMBERS):06x}"


def is_openai(path: str) -> bool:
    """Whether a path speaks OpenAI's dialect, in errors too."""
    return path.startswith(_OPENAI)


def problem_bytes(problem: Problem, path: str, request_id: str | None) -> tuple[bytes, str]:
    """Body and media type of an error."""
    if is_openai(path):
        return json.dumps(problem.openai(), ensure_ascii=False).encode("utf-8", "replace"), "application/json"
    document = json.dumps(problem.document(request_id), ensure_ascii=False)
    return document.encode("utf-8", "replace"), "application/problem+json"


class Gate:
    """ASGI middleware around the whole application."""

    def __init__(self, app: Callable[[Scope, Receive, Send], Awaitable[None]], state: AppState) -> None:
        self._app = app
        self._state = state

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        await _Passage(self._app, self._state, scope, receive, send).run()


class _Passage:
    """One request on its way through."""

    def __init__(self, app: Any, state: AppState, scope: Scope, receive: Receive, send: Send) -> None:
        self._app, self._state, self._scope = app, state, scope
        self._receive, self._send = receive, send
        self._headers: dict[bytes, bytes] = dict(scope["headers"])
        given = self._headers.get(b"x-request-id", b"").decode("latin-1")
        self._id = given if _REQUEST_ID.fullmatch(given) else _new_id()
        self._status = 0
        self._size = 0
        self._limit = 0
        self._begun = time.perf_counter()
        self._principal: Principal | None = None

    async def run(self) -> None:
        scope = self._scope
        scope.setdefault("state", {})["request_id"] = self._id
        try:
            await self._admit()
            await self._app(scope, self._read, self._write)
        except Exception as exc:
            await self._fail(exc)
        finally:
            self._note()

    async def _admit(self) -> None:
        """Raise unless the request may come in."""
        path = self._scope["path"]
        settings, access = self._state.settings, self._state.access
        if path == "/health":
            self._limit = settings.limits.body_bytes
            return
        self._check_host()
        if self._state.stopping.is_set():
            raise UnavailableError("the service is being stopped. Try again in a moment.", retry_after=2)
        if not access.is_fresh:
            await run_in_threadpool(access.refresh)
        authorization = self._headers.get(b"authorization")
        self._principal = access.principal(None if authorization is None else authorization.decode("latin-1"))
        self._check_origin()
        client = self._scope.get("client") or ("", 0)
        self._state.rates.check(self._principal, client[0])
        self._scope["state"]["principal"] = self._principal
        self._check_length(path)

    def _check_host(self) -> None:
        """Without keys, only names of this machine are answered: a page elsewhere could point its own name here."""
        settings = self._state.settings
        host = self._headers.get(b"host", b"").decode("latin-1")
        name = (host.rsplit(":", 1)[0] if re.search(r":\d+$", host) else host).lower()
        if settings.allowed_hosts:
            if name not in map(str.lower, settings.allowed_hosts):
                raise InvalidError(f"the host {name!r} is not one of those that this service answers for.")
        elif not self._state.access.closed and settings.loopback and host and not is_loopback(name):
            raise InvalidError(
                f"the host {name!r} is not this machine. Without keys the service answers for loopback names alone; "
                "make a key (icl-select keys create), or name the host with --allowed-hosts."
            )

    def _check_origin(self) -> None:
        """A browser sends what it knows of a log-in with requests of any page; only our own page may change things."""
        if self._scope["method"] in _SAFE:
            return
        site = self._headers.get(b"sec-fetch-site", b"none").decode("latin-1")
        if site not in ("none", "same-origin"):
            raise InvalidError("a page of another site sent this request. Only the service's own page may.")

    def _check_length(self, path: str) -> None:
        limits = self._state.settings.limits
        self._limit = limits.upload_bytes if _UPLOAD.fullmatch(path) else limits.body_bytes
        stated = self._headers.get(b"content-length", b"0")
        # Python refuses to read numbers of thousands of digits.
        if stated.isdigit() and (len(stated) > 18 or int(stated) > self._limit):
            raise self._too_large()

    def _too_large(self) -> TooLargeError:
        # The rest of the body is not read, so the connection cannot be used again.
        return TooLargeError(
            f"the body is larger than {self._limit:,} bytes, which is the limit here. Send it in parts.",
            headers={"Connection": "close"},
        )

    async def _read(self) -> MutableMapping[str, Any]:
        message = await self._receive()
        if message["type"] == "http.request":
            self._size += len(message.get("body", b""))
            if self._size > self._limit:
                raise self._too_large()
        return message

    async def _write(self, message: MutableMapping[str, Any]) -> None:
        if message["type"] == "http.response.start":
            self._status = message["status"]
            message["headers"] = [
                *message.get("headers", ()),
                (b"x-request-id", self._id.encode()),
                (b"x-content-type-options", b"nosniff"),
            ]
        await self._send(message)

    async def _fail(self, exc: Exception) -> None:
        if isinstance(exc, ClientDisconnect):
            return
        problem = problem_of(exc)
        if problem.status >= 500 and not isinstance(exc, ServiceError):
            _LOG.error("request failed", request_id=self._id, path=_shown(self._scope["path"]), exc_info=exc)
        if self._status:  # the answer has begun; all that is left is to break it off
            raise exc
        body, media = problem_bytes(problem, self._scope["path"], self._id)
        headers = [(b"content-type", media.encode()), (b"content-length", str(len(body)).encode())]
        headers += [(name.lower().encode(), value.encode("latin-1")) for name, value in problem.headers.items()]
        await self._write({"type": "http.response.start", "status": problem.status, "headers": headers})
        await self._send({"type": "http.response.body", "body": body})

    def _note(self) -> None:
        seconds = time.perf_counter() - self._begun
        route = getattr(self._scope.get("route"), "path", None) or "(none)"
        status = self._status or 499  # the client went away
        method = self._scope["method"]
        counted = method if method in _METHODS else "(other)"
        self._state.metrics.requests.labels(counted, route, str(status)).observe(seconds)
        quiet = route in ("/health", "/ready", "/metrics") and status < 400
        log = _LOG.debug if quiet else _LOG.info
        log(
            "request",
            request_id=self._id,
            method=_shown(method),
            path=_shown(self._scope["path"]),
            status=status,
            ms=round(seconds * 1e3, 2),
            key=None if self._principal is None else self._principal.id,
        )


def _shown(text: str) -> str:
    """What a stranger wrote, fit for one line of a log."""
    text = text[:_PATH_SHOWN]
    return text if text.isprintable() else ascii(text)[1:-1]
