"""A scripted service for the clients, and both clients behind one face."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Iterator
from typing import Any

import httpx2

from icl_select.client import AsyncClient, Client

URL = "http://service.test"
KEY = "ics_0123456789abcdef"
WHEN = "2026-01-02T03:04:05.678901Z"

Handler = Callable[[httpx2.Request], httpx2.Response]


def pool(**changes: Any) -> dict[str, Any]:
    found: dict[str, Any] = {
        "name": "tickets",
        "created_at": WHEN,
        "encoder": "hash",
        "centre": True,
        "text": None,
        "id_field": None,
        "label_field": None,
        "label_words": None,
        "annotators": 1,
        "resolve": "majority",
        "prompt": {},
        "n_items": 3,
        "n_labelled": 0,
        "version": 1,
        "labels_version": 0,
        "fingerprint": "f",
        "embedding": None,
    }
    return found | changes


def job(state: str, **changes: Any) -> dict[str, Any]:
    found: dict[str, Any] = {
        "id": "j1",
        "kind": "embed",
        "pool": "tickets",
        "state": state,
        "done": 0,
        "total": 10,
        "unit": "items",
        "message": "",
        "attempts": 1,
        "cancel": False,
        "created_at": WHEN,
        "started_at": None,
        "finished_at": None,
        "result": None,
        "error": None,
    }
    return found | changes


def selection(picks: int, **changes: Any) -> dict[str, Any]:
    found: dict[str, Any] = {
        "id": "s1",
        "pool": "tickets",
        "job": "j1",
        "state": "done",
        "method": "max_herding()",
        "budget": picks,
        "seed": 0,
        "created_at": WHEN,
        "nested": True,
        "made_from": {"pool": 1},
        "info": {},
        "n_labelled": 0,
        "picks": [{"rank": r, "id": f"i{r}", "text": "t", "gain": 1.0, "label": None} for r in range(picks)],
        "next": None,
    }
    return found | changes


def prompt(query_id: str = "q", **changes: Any) -> dict[str, Any]:
    found: dict[str, Any] = {
        "id": f"prompt_{query_id}",
        "pool": "tickets",
        "query_id": query_id,
        "prompt": "text",
        "messages": [{"role": "user", "content": "text"}],
        "examples": [{"id": "i0", "label": "billing", "score": 0.5, "rank": 0}],
        "usage": {"prompt_tokens": 4},
        "dropped": [{"id": "i1", "reason": "too long"}],
        "versions": {
            "pool": 1,
            "labels": 2,
            "embedding": "e1",
            "index": "x",
            "template": "t",
            "encoder": "hash",
            "tokenizer": "utf8",
        },
    }
    return found | changes


def added(n: int, **changes: Any) -> dict[str, Any]:
    found: dict[str, Any] = {
        "added": n,
        "unchanged": 0,
        "skipped": 0,
        "labelled": 0,
        "n_items": n,
        "version": 1,
        "labels_version": 0,
        "job": None,
    }
    return found | changes


def taken(n: int, **changes: Any) -> dict[str, Any]:
    found: dict[str, Any] = {
        "version": n,
        "written": n,
        "unchanged": 0,
        "changed": n,
        "conflicts": [],
        "unknown": [],
        "n_labelled": n,
    }
    return found | changes


def problem(status: int, kind: str = "invalid", **changes: Any) -> httpx2.Response:
    document = {
        "type": f"urn:icl-select:error:{kind}",
        "title": "T",
        "status": status,
        "detail": "it cannot be",
        "instance": "urn:icl-select:request:r-17",
    }
    headers = {"content-type": "application/problem+json", **changes.pop("headers", {})}
    return httpx2.Response(status, content=json.dumps(document | changes), headers=headers)


class Script:
    """A service that answers each request with the next line of a script, and remembers what it was asked."""

    def __init__(self, *answers: Any) -> None:
        self.answers: Iterator[Any] = iter(answers)
        self.requests: list[httpx2.Request] = []

    def __call__(self, request: httpx2.Request) -> httpx2.Response:
        self.requests.append(request)
        answer = next(self.answers, None)
        assert answer is not None, f"nothing in the script answers {request.method} {request.url}"
        if isinstance(answer, Exception):
            raise answer
        if callable(answer):
            answer = answer(request)
        if not isinstance(answer, httpx2.Response):
            return httpx2.Response(200, json=answer)
        # A fresh one: each can be read once.
        return httpx2.Response(answer.status_code, headers=answer.headers, content=answer.content)

    @property
    def lines(self) -> list[str]:
        """Method and target of every request."""
        return [f"{request.method} {request.url.raw_path.decode()}" for request in self.requests]

    def body(self, number: int) -> Any:
        return json.loads(self.requests[number].content)


class Both:
    """One face for the synchronous and the asynchronous client; every call gets a client of its own."""

    def __init__(self, kind: str) -> None:
        self.kind = kind

    def call(self, handler: Handler, name: str, *args: Any, setup: dict[str, Any] | None = None, **kwargs: Any) -> Any:
        options: dict[str, Any] = {"backoff": 0.0, "transport": httpx2.MockTransport(handler), **(setup or {})}
        if self.kind == "sync":
            with Client(URL, KEY, **options) as client:
                found = getattr(client, name)(*args, **kwargs)
                return list(found) if isinstance(found, Iterator) else found
        return asyncio.run(self._await(name, args, kwargs, options))

    async def _await(self, name: str, args: tuple[Any, ...], kwargs: dict[str, Any], options: dict[str, Any]) -> Any:
        async with AsyncClient(URL, KEY, **options) as client:
            found = getattr(client, name)(*args, **kwargs)
            if hasattr(found, "__aiter__"):
                return [row async for row in found]
            return await found
