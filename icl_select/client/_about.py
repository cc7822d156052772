"""What the service says of itself."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from icl_select.client._requests import get
from icl_select.client.flow import Answer, Flow, fetch, read_object, success

__all__ = ["health", "info", "ready"]


def health() -> Flow[Mapping[str, Any]]:
    """Whether the service lives; needs no key.

    Returns
    -------
    mapping
    """
    return fetch(get("/health"), read_object)


def ready() -> Flow[bool]:
    """Whether the service can answer now. Asked once, not again.

    Returns
    -------
    bool

    Raises
    ------
    UnreachableError
        If nobody answers at all.
    """
    request = replace(get("/ready"), repeatable=False)
    reply = yield request
    if isinstance(reply, Answer) and reply.status == 503:
        return False
    success(request, reply)
    return True


def info() -> Flow[Mapping[str, Any]]:
    """What the service is: version, encoders, limits.

    Returns
    -------
    mapping
    """
    return fetch(get("/info"), read_object)
