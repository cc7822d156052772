"""One HTTP client: bounded waiting, retries, rate limits, spending, and errors that say what to do."""

from __future__ import annotations

import json
import logging
import os
import random
import threading
from collections.abc import Mapping
from dataclasses import dataclass, field
from email.utils import parsedate_to_datetime
from functools import cached_property
from typing import Any
from urllib.parse import urlsplit

from icl_select._optional import require
from icl_select.errors import ModelError, ParameterError
from icl_select.score.http.limits import Clock, Limits, Stopped
from icl_select.score.http.spend import Need, Spend

__all__ = ["KEY_VARIABLE", "URL_VARIABLE", "Answer", "Client", "Refused", "server_address"]

KEY_VARIABLE = "OPENAI_API_KEY"
URL_VARIABLE = "OPENAI_BASE_URL"

_logger = logging.getLogger(__name__)

# Back-off in seconds: doubling from the first to the longest, then scattered over its upper half.
_FIRST_WAIT, _LONGEST_WAIT = 0.5, 30.0
# A server that asks for a longer pause is not going to serve this run.
_LONGEST_RETRY_AFTER = 600.0
_LOCAL = ("localhost", "127.0.0.1", "::1")


class Refused(ModelError):  # noqa: N818
    """The server refuses this request and would refuse it again.

    ``status`` is the HTTP status, ``message`` what the server says of it.
    """

    def __init__(self, text: str, *, status: int, message: str) -> None:
        super().__init__(text)
        self.status = status
        self.message = message


class _TransientError(Exception):
    """Worth another attempt, after `retry_after` seconds if the server named a time."""

    def __init__(self, reason: str, retry_after: float | None = None) -> None:
        super().__init__(reason)
        self.retry_after = retry_after


@dataclass(frozen=True, slots=True)
class Answer:
    """A JSON object from the server, how many attempts it took, and the tokens that it reports to have used."""

    body: Mapping[str, Any]
    attempts: int
    used: Need
    cached_tokens: int = 0


def server_address(url: str | None) -> str:
    """The address of a server's API, from `url` or the environment.

    Raises
    ------
    ParameterError
        If there is none, it is no HTTP address, or it holds a password.
    """
    found = url or os.environ.get(URL_VARIABLE)
    if not found:
        raise ParameterError(
            f"no server to ask. Pass url='http://host:port/v1', or set {URL_VARIABLE}. Nothing is sent anywhere by "
            "default."
        )
    parts = urlsplit(found)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ParameterError("the url is no HTTP address. Pass one such as 'http://localhost:8000/v1'.")
    if parts.username or parts.password or parts.query or parts.fragment:
        raise ParameterError(
            f"the url of {parts.hostname} holds a user, a password or a query, which would end up in results. Pass the "
            f"bare address, and the key in {KEY_VARIABLE}."
        )
    return found.rstrip("/")


@dataclass
class Client:
    """Sends requests to one server. Safe to use from several threads.

    Parameters
    ----------
    url : str
        As :func:`server_address` returns it. The key is read from ``OPENAI_API_KEY`` at the first request, and is
        sent in the header only.
    timeout : float
        Seconds to wait for an answer.
    max_retries : int
        Further attempts at one request.
    connections : int
        Kept open at most.
    limits : Limits
    spend : Spend
    clock : Clock
    """

    url: str
    timeout: float
    max_retries: int
    connections: int
    limits: Limits
    spend: Spend
    clock: Clock = field(default_factory=Clock)

    @property
    def host(self) -> str:
        """Host and port, for messages and names."""
        return urlsplit(self.url).netloc

    @property
    def root(self) -> str:
        """The address without the version of the API, where servers keep what is not OpenAI's."""
        return self.url.removesuffix("/v1")

    @cached_property
    def _key(self) -> str | None:
        # Keys read from a file often end in a line break.
        key = os.environ.get(KEY_VARIABLE, "").strip()
        if not all("!" <= character <= "~" for character in key):
            # Said here, because the HTTP library would show the key in its own message.
            raise ParameterError(
                f"{KEY_VARIABLE} holds blanks or characters that no HTTP header can carry. Set it to the bare key."
            )
        return key or None

    @cached_property
    def _http(self) -> Any:
        httpx = require("httpx2", extra="openai", purpose="the HTTP engine")
        headers = {"content-type": "application/json"}
        if self._key:
            headers["authorization"] = f"Bearer {self._key}"
        # Redirects are not followed: they would carry prompts and key elsewhere. A proxy never leads to this machine.
        return httpx.Client(
            headers=headers,
            timeout=httpx.Timeout(self.timeout, connect=min(self.timeout, 10.0)),
            limits=httpx.Limits(max_connections=self.connections, max_keepalive_connections=self.connections),
            follow_redirects=False,
            trust_env=urlsplit(self.url).hostname not in _LOCAL,
        )

    def close(self) -> None:
        """Give back the connections; the next request opens new ones."""
        made = self.__dict__.pop("_http", None)
        if made is not None:
            made.close()

    def look(self, url: str, stop: threading.Event, *, needed: bool = False) -> Mapping[str, Any] | None:
        """Fetch a JSON object that costs nothing; None if the server does not offer it.

        Parameters
        ----------
        url : str
        stop : threading.Event
        needed : bool, default=False
            Whether the server must answer in some way: then it is asked as often as for anything else.

        Raises
        ------
        ModelError
            If it is needed, and the server cannot be reached or refuses the key.
        """
        try:
            return self._send("GET", url, None, Need(0, 0), stop, self.max_retries if needed else 0).body
        except Refused as exc:
            if needed and exc.status in (401, 403):
                raise
        except ModelError:
            if needed:
                raise
        return None

    def post(self, path: str, body: Mapping[str, Any], need: Need, stop: threading.Event) -> Answer:
        """Send a request that may take `need`, again if that may help.

        Raises
        ------
        Refused
            If the server refuses it for good.
        ModelError
            If there is no usable answer after all attempts.
        SpendError
            If it might pass the cap on spending; nothing is sent then.
        """
        return self._send("POST", self.url + path, body, need, stop, self.max_retries)

    def _send(
        self, method: str, url: str, body: Mapping[str, Any] | None, need: Need, stop: threading.Event, retries: int
    ) -> Answer:
        # Not stamina, which wraps the same library: its waiting can neither be ended early nor be tested without time.
        tenacity = require("tenacity", extra="openai", purpose="the HTTP engine")
        # ASCII escapes carry any Python string, lone surrogates included.
        content = None if body is None else json.dumps(body)
        retrying = tenacity.Retrying(
            stop=tenacity.stop_after_attempt(retries + 1),
            retry=tenacity.retry_if_exception_type(_TransientError),
            wait=self._back_off,
            sleep=lambda seconds: self.clock.sleep(seconds, stop),
            reraise=True,
        )
        number = 0
        try:
            for attempt in retrying:
                number = attempt.retry_state.attempt_number
                with attempt:
                    if stop.is_set():
                        raise Stopped
                    return self._attempt(method, url, content, need, stop, number)
        except _TransientError as exc:
            raise ModelError(
                f"no answer from the server at {self.host} after {number} attempt{'s' * (number > 1)}: {exc}. Check "
                "that it runs and is not overloaded, then run again."
            ) from exc
        raise AssertionError("tenacity ends by an answer or an error")

    def _back_off(self, state: Any) -> float:
        """Seconds before the next attempt."""
        error = state.outcome.exception()
        wait = min(_LONGEST_WAIT, _FIRST_WAIT * 2.0 ** (state.attempt_number - 1))
        # Scattered, so that requests that failed together do not return together. Changes no result.
        wait *= random.uniform(0.5, 1.0)
        if error.retry_after is not None:
            wait = max(error.retry_after, 0.0) + wait / 10
            self.limits.pause(error.retry_after)
        _logger.info("request to %s failed (%s); next attempt in %.1f s", self.host, error, wait)
        return float(wait)

    def _attempt(
        self, method: str, url: str, content: str | None, need: Need, stop: threading.Event, number: int
    ) -> Answer:
        httpx = require("httpx2", extra="openai", purpose="the HTTP engine")
        reserved = self.spend.reserve(need)
        # What a failed attempt is charged: nothing until it was sent.
        used: Need | None = Need(0, 0)
        try:
            self.limits.acquire(need.total, stop)
            try:
                response = self._http.request(method, url, content=content)
            except (httpx.ConnectError, httpx.ConnectTimeout, httpx.PoolTimeout) as exc:
                raise _TransientError(f"cannot connect ({self._scrub(str(exc)) or type(exc).__name__})") from exc
            except httpx.TimeoutException as exc:
                used = None
                raise _TransientError(f"nothing came within {self.timeout:g} s") from exc
            except (httpx.TransportError, httpx.DecodingError) as exc:
                used = None
                reason = self._scrub(str(exc)) or type(exc).__name__
                raise _TransientError(f"the connection broke ({reason})") from exc
            self._check(response)
            used = None
            answer = self._read(response, number)
            used = answer.used
            return answer
        finally:
            self.spend.settle(reserved, used)

    def _check(self, response: Any) -> None:
        """Raise unless the server answered well."""
        status = response.status_code
        if 200 <= status < 300:
            return
        message, code = self._message(response)
        if (status in (408, 425, 429) or status >= 500) and code != "insufficient_quota":
            after = self._retry_after(response.headers)
            if after is None or after <= _LONGEST_RETRY_AFTER:
                raise _TransientError(f"HTTP {status}: {message}", after)
            message += f" (and asks for a pause of {after:g} s)"
        ways = {
            401: f"Set {KEY_VARIABLE} to a key that this server takes.",
            403: f"Check what the key in {KEY_VARIABLE} may use.",
            404: "Check the address (it ends in /v1 for most servers) and the name of the model.",
            429: "Wait, or raise the quota, then run again.",
        }
        if status < 400:
            ways[status] = "It has moved: pass the new address as url."
        way = ways.get(status, "Change what is asked for, or use a server that offers it.")
        raise Refused(
            f"the server at {self.host} refuses the request (HTTP {status}): {message.rstrip('.')}. {way}",
            status=status,
            message=message,
        )

    def _read(self, response: Any, number: int) -> Answer:
        try:
            body = json.loads(response.content)
        except ValueError as exc:
            raise _TransientError("the answer is no JSON") from exc
        if not isinstance(body, dict):
            raise _TransientError("the answer is no JSON object")
        usage = _part(body, "usage")
        used = Need(_number(usage, "prompt_tokens"), _number(usage, "completion_tokens"))
        return Answer(body, number, used, _number(_part(usage, "prompt_tokens_details"), "cached_tokens"))

    def _message(self, response: Any) -> tuple[str, str | None]:
        """What the server says of an error, without the key, and its code for it."""
        try:
            body = json.loads(response.content)
        except ValueError:
            body = None
        found = body.get("error", body) if isinstance(body, dict) else body
        code = None
        if isinstance(found, dict):
            code = found.get("code") or found.get("type")
            found = found.get("message") or found.get("detail") or found
        text = str(found) if found else response.text
        return self._scrub(" ".join(text.split())[:500]) or "no reason given", code if isinstance(code, str) else None

    def _retry_after(self, headers: Mapping[str, str]) -> float | None:
        """Seconds that the server asks to wait: a number, or a date."""
        value = headers.get("retry-after")
        if not value:
            return None
        try:
            return max(0.0, float(value))
        except ValueError:
            pass
        try:
            return max(0.0, parsedate_to_datetime(value).timestamp() - self.clock.wall())
        except ValueError:
            return None

    def _scrub(self, text: str) -> str:
        """The text without the key: servers may repeat what they were sent."""
        # Placeholders such as "x", for servers that need no key, are no secret, and would riddle the text.
        return text.replace(self._key, "[key]") if self._key and len(self._key) > 3 else text


def _part(body: Mapping[str, Any], key: str) -> Mapping[str, Any]:
    """An object inside an answer; empty if there is none."""
    found = body.get(key)
    return found if isinstance(found, dict) else {}


def _number(body: Mapping[str, Any], key: str) -> int:
    """A count inside an answer; 0 if there is none."""
    found = body.get(key)
    return found if isinstance(found, int) else 0
