"""Requests of the kinds that the calls are made of."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from icl_select.client.flow import Request, to_json

__all__ = ["PATIENCE", "ask", "delete", "get", "given", "key", "patch", "post", "upload"]

# How long an upload or download may stand still.
PATIENCE = 600.0


def key() -> dict[str, str]:
    """A header that names this request, so that the service does it once however often it comes."""
    return {"Idempotency-Key": str(uuid.uuid4())}


def given(**values: Any) -> dict[str, Any]:
    """The values that are not None."""
    return {name: value for name, value in values.items() if value is not None}


def get(path: str, **params: str | int | bool | None) -> Request:
    """A request that reads."""
    return Request("GET", path, params=given(**params))


def delete(path: str, **params: str | int | bool | None) -> Request:
    """A request that removes; the second one of two finds nothing to do."""
    return Request("DELETE", path, params=given(**params))


def patch(path: str, value: Mapping[str, Any]) -> Request:
    """A request that sets values, and sets them to the same when it comes twice."""
    return Request("PATCH", path, headers={"Content-Type": "application/json"}, content=to_json(value))


def post(path: str, value: Any = None, content: bytes | None = None) -> Request:
    """A request that makes something, once."""
    if value is not None:
        content = to_json(value)
    headers = key() if content is None else {**key(), "Content-Type": "application/json"}
    return Request("POST", path, headers=headers, content=content)


def ask(path: str, value: Any) -> Request:
    """A POST that reads: asked twice it says the same, so it needs no key, which the service would have to keep."""
    return Request("POST", path, headers={"Content-Type": "application/json"}, content=to_json(value))


def upload(path: str, kind: str, body: Callable[[], Iterator[bytes]], **params: str | int | bool | None) -> Request:
    """A request whose content is streamed, and which makes something, once."""
    headers = {**key(), "Content-Type": kind}
    return Request("POST", path, params=given(**params), headers=headers, body=body, patience=PATIENCE)
