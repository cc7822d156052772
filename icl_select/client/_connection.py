"""What both clients share: the address, the key, and calls as their methods."""

from __future__ import annotations

import inspect
import os
from collections.abc import Callable
from typing import Any, Concatenate, ParamSpec, Protocol, TypeVar, overload
from urllib.parse import urlsplit

from icl_select import __version__
from icl_select.client.flow import Policy
from icl_select.errors import ParameterError

__all__ = ["Connection", "Method", "described"]

KEY_VARIABLE = "ICS_API_KEY"
URL_VARIABLE = "ICS_URL"

_LOCAL = ("localhost", "127.0.0.1", "::1")
# Opening a connection either works soon or not at all.
_CONNECT = 10.0

P = ParamSpec("P")
T_co = TypeVar("T_co", covariant=True)


class Method(Protocol[P, T_co]):
    """A call as a method of a client."""

    @overload
    def __get__(self, instance: None, owner: type) -> Callable[Concatenate[Any, P], T_co]: ...
    @overload
    def __get__(self, instance: object, owner: type | None = None) -> Callable[P, T_co]: ...


def described(method: Any, make: Callable[..., Any], kinds: tuple[str, str]) -> Any:
    """Give a method the name, the documentation and the signature of its call.

    `kinds` says how the result is called here: what stands before ``[`` in the annotation, and what takes its place.
    """
    signature = inspect.signature(make)
    result = str(signature.return_annotation)
    inner = result.partition("[")[2].removesuffix("]")
    method.__name__, method.__doc__, method.__module__ = make.__name__, make.__doc__, "icl_select.client"
    method.__qualname__ = make.__name__
    method.__signature__ = signature.replace(
        parameters=[inspect.Parameter("self", inspect.Parameter.POSITIONAL_ONLY), *signature.parameters.values()],
        return_annotation=f"{kinds[1]}[{inner}]" if result.startswith(kinds[0]) and kinds[1] else inner,
    )
    return method


class Connection:
    """Where the service is and how it is asked; see :class:`icl_select.client.Client`."""

    def __init__(self, url: str | None, key: str | None, timeout: float, retries: int, backoff: float) -> None:
        self.url = _address(url)
        self._key = _check_key(key if key is not None else os.environ.get(KEY_VARIABLE))
        if timeout <= 0 or retries < 0 or backoff < 0:
            raise ParameterError(
                f"timeout={timeout}, retries={retries}, backoff={backoff}: the timeout is above 0, the others are 0 or "
                "more."
            )
        self._policy = Policy(retries, timeout, backoff)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.url!r})"

    def _options(self) -> dict[str, Any]:
        """How the HTTP library is set up, the same for both clients."""
        headers = {"User-Agent": f"icl-select/{__version__}"}
        if self._key:
            headers["Authorization"] = f"Bearer {self._key}"
        # Redirects are not followed: they would carry data and key elsewhere. A proxy never leads to this machine.
        return {
            "headers": headers,
            "follow_redirects": False,
            "trust_env": urlsplit(self.url).hostname not in _LOCAL,
        }

    def _scrub(self, content: bytes) -> bytes:
        """An error without the key: a server on the way may repeat what it was sent."""
        return content.replace(self._key.encode(), b"[key]") if self._key else content


def connect_within(patience: float | None) -> float:
    """Seconds for opening the connection of a request that may take `patience`."""
    return _CONNECT if patience is None else min(_CONNECT, patience)


def _address(url: str | None) -> str:
    found = url or os.environ.get(URL_VARIABLE)
    if not found:
        raise ParameterError(
            f"no service to ask. Pass url='http://127.0.0.1:8765', or set {URL_VARIABLE}. Nothing is sent anywhere by "
            "default."
        )
    try:
        parts = urlsplit(found)
        port = parts.port
    except ValueError:
        parts, port = urlsplit(""), None
    if parts.scheme not in ("http", "https") or not parts.hostname or port == 0:
        raise ParameterError("the url is no HTTP address. Pass one such as 'http://127.0.0.1:8765'.")
    if parts.username is not None or parts.password is not None or parts.query or parts.fragment:
        raise ParameterError(
            f"the url of {parts.hostname} holds a user, a password, a query or a fragment, which would end up in logs. "
            f"Pass the bare address, and the key as key= or in {KEY_VARIABLE}."
        )
    return found.rstrip("/")


def _check_key(key: str | None) -> str | None:
    # Keys read from a file often end in a line break.
    key = (key or "").strip()
    if not all("!" <= character <= "~" for character in key):
        # Said here, because the HTTP library would show the key in its own message.
        raise ParameterError(
            "the key holds blanks or characters that no HTTP header can carry. Pass the bare key, as "
            "`icl-select keys create` printed it."
        )
    return key or None
