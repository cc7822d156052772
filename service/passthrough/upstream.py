"""The one server that requests are passed on to: its address, its key, and the connections to it."""

from __future__ import annotations

import contextlib
import http.cookiejar
from collections.abc import AsyncIterator
from dataclasses import dataclass
from urllib.parse import urlsplit

import httpx2

from icl_select.errors import ConfigError

from ..errors import BusyError, UpstreamError
from ..settings import Settings, is_loopback
from .errors import NoUpstreamError, RefusedError, UpstreamTimeoutError
from .headers import Headers

__all__ = ["Call", "Upstream"]

_CONNECTIONS = 512
# Seconds that a request waits for one of them, and for a connection to be made.
_PATIENCE = 10.0
# Shorter than the five seconds after which common servers close an idle connection: a request that meets the closing
# fails, and cannot be sent again on its own.
_IDLE = 2.0


@dataclass(frozen=True)
class Call:
    """One request to the upstream server; `path` is below its base URL, ``"/models"``."""

    method: str
    path: str
    headers: Headers
    query: bytes = b""
    body: bytes | None = None


class Upstream:
    """Connections to the upstream server, made at the first request. For one event loop.

    Parameters
    ----------
    settings : Settings

    Raises
    ------
    ConfigError
        If the address is no HTTP address, or key or address hold what must not be there.
    """

    def __init__(self, settings: Settings) -> None:
        self._url = None if settings.upstream is None else _checked_url(settings.upstream)
        self._timeout = settings.upstream_timeout
        self.key = None if settings.upstream_key is None else _checked_key(settings.upstream_key)
        self._client: httpx2.AsyncClient | None = None

    def check(self) -> None:
        """Raise NoUpstreamError unless there is a server to pass requests on to."""
        if self._url is None:
            raise NoUpstreamError(
                "no upstream server is set up, so there is no model to ask. Start the service with --upstream URL or "
                "ICS_SERVICE_UPSTREAM, such as http://127.0.0.1:8000/v1; prompts alone come from POST /v1/prompts."
            )

    async def close(self) -> None:
        """Close all connections."""
        if self._client is not None:
            await self._client.aclose()
            self._client = None

    @contextlib.asynccontextmanager
    async def open(self, call: Call) -> AsyncIterator[httpx2.Response]:
        """Send a request and yield its answer as soon as the headers are there; leaving ends the request.

        Raises
        ------
        UpstreamError
            If the server cannot be reached, breaks off, or sends elsewhere.
        UpstreamTimeoutError
            If it is silent for longer than the settings allow.
        BusyError
            If all connections are in use.
        RefusedError
            If a header cannot be sent.
        """
        self.check()
        client = self._connected()
        url = httpx2.URL(f"{self._url}{call.path}", query=call.query or None)
        try:
            request = client.build_request(call.method, url, headers=call.headers, content=call.body)
            answer = await client.send(request, stream=True)
        except httpx2.PoolTimeout as exc:
            raise BusyError(
                f"{_CONNECTIONS} requests are with the upstream server already. Try again in a moment.", retry_after=1
            ) from exc
        except httpx2.TimeoutException as exc:
            raise UpstreamTimeoutError(
                f"the upstream server did not answer ({type(exc).__name__}); it is waited for {self._timeout:g} s "
                "(ICS_SERVICE_UPSTREAM_TIMEOUT)."
            ) from exc
        except httpx2.LocalProtocolError as exc:
            # Its text would show the header, which may be a key.
            raise RefusedError(
                "a header of the request holds characters that cannot be passed on. Send visible ASCII in it."
            ) from exc
        except httpx2.HTTPError as exc:
            raise UpstreamError(
                f"the upstream server cannot be reached, or broke off before it answered ({type(exc).__name__}). Check "
                "that it runs, and that --upstream is its base URL."
            ) from exc
        try:
            _check_status(answer.status_code)
            yield answer
        finally:
            await answer.aclose()

    async def read(self, call: Call, most: int) -> tuple[int, Headers, bytes]:
        """Status, headers and whole body of a short answer.

        Raises
        ------
        UpstreamError
            Also if the body has more than `most` bytes, or ends too early.
        UpstreamTimeoutError, BusyError
            As :meth:`open`.
        """
        body = b""
        async with self.open(call) as answer:
            try:
                async for chunk in answer.aiter_raw():
                    body += chunk
                    if len(body) > most:
                        raise UpstreamError(f"the upstream server's answer is larger than {most:,} bytes.")
            except httpx2.HTTPError as exc:
                raise UpstreamError(f"the upstream server broke off its answer ({type(exc).__name__}).") from exc
            return answer.status_code, answer.headers.raw, body

    def _connected(self) -> httpx2.AsyncClient:
        if self._client is None:
            self._client = httpx2.AsyncClient(
                timeout=httpx2.Timeout(self._timeout, connect=min(self._timeout, _PATIENCE), pool=_PATIENCE),
                limits=httpx2.Limits(
                    max_connections=_CONNECTIONS, max_keepalive_connections=64, keepalive_expiry=_IDLE
                ),
                # Redirects would carry prompts and key elsewhere. A proxy never leads to this machine.
                follow_redirects=False,
                trust_env=not is_loopback(urlsplit(self._url or "").hostname or ""),
            )
            # What the server sets for one client must not be sent with the requests of another.
            self._client.cookies.jar.set_policy(http.cookiejar.DefaultCookiePolicy(allowed_domains=[]))
        return self._client


def _check_status(status: int) -> None:
    if status < 200 or 300 <= status < 400:
        raise UpstreamError(
            f"the upstream server sends elsewhere (status {status}), and redirects are not followed. Set --upstream to "
            "the address that answers itself."
        )


def _checked_url(url: str) -> str:
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ConfigError("upstream is no HTTP address. Pass a base URL such as http://127.0.0.1:8000/v1.")
    if parts.username or parts.password or parts.query or parts.fragment:
        raise ConfigError(
            f"the upstream address at {parts.hostname} holds a user, a password or a query. Pass the bare base URL, "
            "and the key in ICS_SERVICE_UPSTREAM_KEY."
        )
    return url.rstrip("/")


def _checked_key(key: str) -> str:
    # Keys read from a file often end in a line break.
    key = key.strip()
    if not key or not all("!" <= character <= "~" for character in key):
        raise ConfigError(
            "upstream_key is empty, or holds blanks or characters that no HTTP header can carry. Set it to the bare "
            "key, or leave it out."
        )
    return key
