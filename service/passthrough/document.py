"""How the routes look in the OpenAPI document: a body of which little is read, and errors in OpenAI's shape."""

from __future__ import annotations

from typing import Any

__all__ = ["CHAT", "COMPLETION", "responses"]

_ERROR = {
    "type": "object",
    "required": ["error"],
    "properties": {
        "error": {
            "type": "object",
            "required": ["message", "type"],
            "properties": {
                "message": {"type": "string"},
                "type": {"type": "string"},
                "param": {"type": ["string", "null"]},
                "code": {"type": ["string", "null"]},
            },
        }
    },
}
_MEANINGS = {
    400: "The request cannot mean anything.",
    401: "No valid key.",
    403: "The key does not have the scope.",
    404: "There is no such pool.",
    409: "The pool cannot be asked yet.",
    413: "Above a limit, which is named.",
    422: "Sent for another host, or by a page of another site.",
    429: "Too many requests; `Retry-After` says when to come again.",
    501: "No upstream server is set up.",
    502: "The upstream server cannot be reached or used.",
    503: "Not now; try again.",
    504: "The upstream server is too slow.",
}


def responses(*, stream: bool) -> dict[int | str, dict[str, Any]]:
    """How a route can answer. The upstream server's own errors come with the status and body that it gives them."""
    content: dict[str, Any] = {"application/json": {"schema": {"type": "object"}}}
    if stream:
        content["text/event-stream"] = {"schema": {"type": "string"}}
    errors: dict[int | str, dict[str, Any]] = {
        status: {"description": meaning, "content": {"application/json": {"schema": _ERROR}}}
        for status, meaning in _MEANINGS.items()
    }
    return {200: {"description": "The upstream server's answer.", "content": content}, **errors}


def _request(field: str, description: str, example: dict[str, Any]) -> dict[str, Any]:
    """A body. What must be in it is known here only where a pool is named; all else the upstream server decides."""
    named = {"description": "`pool::model`, or a model of the upstream server."}
    body = {"type": "object", "properties": {"model": named, field: {"description": description}}}
    return {"requestBody": {"required": True, "content": {"application/json": {"schema": body, "example": example}}}}


CHAT = _request(
    "messages",
    "The chat. Where a pool is named, it needs a user message with text in it.",
    {"model": "tickets::qwen3-8b", "messages": [{"role": "user", "content": "I was charged twice"}]},
)
"""Body of a chat."""

COMPLETION = _request(
    "prompt",
    "The query, or a list of queries, where a pool is named; else whatever the upstream server takes.",
    {"model": "tickets::qwen3-8b", "prompt": "I was charged twice", "max_tokens": 8},
)
"""Body of a completion."""
