"""Labelled questions, and a service that answers about them out of this process."""

from __future__ import annotations

import json
from typing import Any
from urllib.parse import unquote

import httpx2

import icl_select as icl
from icl_select.adapters import PoolSource
from icl_select.client import AsyncClient, Client

ROWS = [
    {"input": "My invoice is wrong", "topic": "money", "output": "billing"},
    {"input": "The invoice shows the wrong sum", "topic": "money", "output": "billing"},
    {"input": "I cannot log in", "topic": "access", "output": "account"},
    {"input": "Login fails since Monday", "topic": "access", "output": "account"},
    {"input": "The app crashes on start", "topic": "app", "output": "bug"},
]
WHEN = "2026-01-02T03:04:05Z"
NEW = {"input": "Where is my parcel?", "topic": "post", "output": "shipping"}


def make_pool() -> icl.Pool:
    return icl.Pool.from_records(ROWS, text="input", label="output")


def make_source(k: int = 2, **options: Any) -> PoolSource:
    pool = make_pool()
    x = icl.embed(pool, "hash", centre=False, cache=False, progress=False)
    return PoolSource(pool, x, k=k, text="input", **options)


class FakeService:
    """The part of the service that adapters use, over the same pool."""

    def __init__(self) -> None:
        self.source = make_source(k=8)
        self.lines: list[str] = []
        self.asked: list[dict[str, Any]] = []
        self.embedding = "e1"
        self.waiting: list[dict[str, Any]] = []

    def __call__(self, request: httpx2.Request) -> httpx2.Response:
        path = unquote(request.url.raw_path.decode())
        self.lines.append(f"{request.method} {path}")
        body = json.loads(request.content) if request.content else {}
        if path == "/v1/pools/tickets":
            return httpx2.Response(200, json=self._pool())
        if path == "/v1/prompts":
            self.asked.append(body)
            return httpx2.Response(200, json=self._prompt(body))
        if path == "/v1/pools/tickets/items":
            return httpx2.Response(200, json=self._add(body["items"]))
        if path.startswith("/v1/pools/tickets/items/"):
            return httpx2.Response(200, json=self._item(path.rpartition("/")[2]))
        if path == "/v1/jobs/j1/events":
            return httpx2.Response(200, content=b"data: " + json.dumps(self._job()).encode() + b"\n\n")
        return httpx2.Response(404, json={"detail": f"no {path}"})

    def _pool(self) -> dict[str, Any]:
        return {
            "name": "tickets", "created_at": WHEN, "encoder": "hash", "centre": False, "text": "input",
            "id_field": None, "label_field": "output", "label_words": None, "annotators": 1, "resolve": "majority",
            "prompt": {}, "n_items": len(self.source.pool), "n_labelled": len(self.source.pool), "version": 1,
            "labels_version": 1, "fingerprint": "f", "embedding": None,
        }  # fmt: skip

    def _prompt(self, body: dict[str, Any]) -> dict[str, Any]:
        found = self.source.nearest(body["query"])[: body["k"]]
        examples = [{"id": d.id, "label": d.label, "score": d.similarity, "rank": n} for n, d in enumerate(found)]
        return {
            "id": "p", "pool": "tickets", "query_id": "q", "prompt": "", "messages": [], "examples": examples[::-1],
            "usage": {"prompt_tokens": 1}, "dropped": [],
            "versions": {
                "pool": 1, "labels": 1, "embedding": self.embedding, "index": "", "template": "", "encoder": "",
                "tokenizer": "",
            },
        }  # fmt: skip

    def _add(self, rows: list[dict[str, Any]]) -> dict[str, Any]:
        # They are found once the job has embedded them, and not before.
        self.waiting += rows
        return {
            "added": len(rows), "unchanged": 0, "skipped": 0, "labelled": len(rows), "n_items": len(self.source.pool),
            "version": 2, "labels_version": 2, "job": "j1",
        }  # fmt: skip

    def _item(self, item_id: str) -> dict[str, Any]:
        row = self.source.pool.example(item_id)
        return {
            "id": row.id, "text": row.text, "fields": row.fields, "metadata": {}, "label": row.label,
            "label_version": 1, "n_votes": 1, "conflict": False,
        }  # fmt: skip

    def _job(self) -> dict[str, Any]:
        for row in self.waiting:
            self.source.add({key: value for key, value in row.items() if key != "output"}, row["output"])
        self.waiting.clear()
        return {
            "id": "j1", "kind": "embed", "pool": "tickets", "state": "done", "done": 1, "total": 1, "unit": "items",
            "message": "", "attempts": 1, "cancel": False, "created_at": WHEN, "started_at": WHEN,
            "finished_at": WHEN, "result": None, "error": None,
        }  # fmt: skip

    def client(self) -> Client:
        return Client("http://service.test", transport=httpx2.MockTransport(self), retries=0)

    def aclient(self) -> AsyncClient:
        return AsyncClient("http://service.test", transport=httpx2.MockTransport(self), retries=0)
