"""What a request asks, and the request with demonstrations in it. Everything not named here stays as it came."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from .errors import RefusedError

__all__ = [
    "MARK",
    "POOL",
    "Named",
    "name_of",
    "queries_of",
    "query_of",
    "read_body",
    "with_demonstrations",
    "with_prompts",
    "write_body",
]

MARK = "::"
"""Between pool and model. A pool's name has no colon in it, so ``ft:gpt-4o:org::id`` names no pool."""

POOL = r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}"
"""What a pool's name looks like."""

_SYSTEM = ("system", "developer")


class Named(NamedTuple):
    """The pool that a request names, if any, and its body without that name."""

    pool: str | None
    content: dict[str, Any]


def read_body(body: bytes) -> dict[str, Any]:
    """A body as a JSON object.

    Raises
    ------
    RefusedError
        If it is none.
    """
    try:
        content = json.loads(body.decode("utf-8"))
    except (ValueError, RecursionError) as exc:
        raise RefusedError("the body cannot be read as JSON in UTF-8.", kind="malformed") from exc
    if not isinstance(content, dict):
        raise RefusedError("the body is no JSON object. Send one with 'model' and 'messages' or 'prompt'.")
    return content


def write_body(content: Mapping[str, Any]) -> bytes:
    """A body as it is passed on: in ASCII, so that a lone surrogate survives too.

    Raises
    ------
    RefusedError
        If it holds what JSON cannot say: NaN, or a number beyond the range of floats.
    """
    try:
        return json.dumps(content, allow_nan=False, separators=(",", ":")).encode("ascii")
    except (ValueError, RecursionError) as exc:
        raise RefusedError(
            "the body holds a number that JSON has not (NaN, or beyond 1e308).", kind="malformed"
        ) from exc


def name_of(content: dict[str, Any], header: str | None) -> Named:
    """Take the name of the pool out of the model field, or from the header.

    Parameters
    ----------
    content : dict
        With ``model`` as ``"pool::model"``, or any other text, which names no pool.
    header : str, optional
        A pool; the model field may name the same.

    Returns
    -------
    Named

    Raises
    ------
    RefusedError
        If header and model name two pools, the header is no name, or no model stands behind the pool.
    """
    if header is not None and not re.fullmatch(POOL, header):
        raise RefusedError("the header X-ICS-Pool is no name of a pool: letters, digits, '.', '_' and '-', at most 64.")
    model = content.get("model")
    pool, mark, rest = model.partition(MARK) if isinstance(model, str) else ("", "", "")
    if not mark or not re.fullmatch(POOL, pool):
        return Named(header, content)
    if header not in (None, pool):
        raise RefusedError(
            f"the model names the pool {pool!r}, and the header X-ICS-Pool {header!r}. Name one.", param="model"
        )
    if not rest:
        raise RefusedError(
            f"{model!r} names a pool and no model. Write {pool}{MARK}MODEL; GET /v1/models lists the names.",
            param="model",
        )
    return Named(pool, {**content, "model": rest})


def query_of(content: Mapping[str, Any]) -> str:
    """The text of the last user message: of several parts, those of type text, a line each.

    Raises
    ------
    RefusedError
        If there is no such message, or no text in it.
    """
    messages = content.get("messages")
    if not isinstance(messages, list) or not messages:
        raise RefusedError(
            "messages is no list with a message in it. Send at least one user message.", param="messages"
        )
    for place, message in enumerate(messages):
        if not isinstance(message, dict) or not isinstance(message.get("role"), str):
            raise RefusedError(f"messages[{place}] is no object with a role.", param=f"messages[{place}]")
    places = [place for place, message in enumerate(messages) if message["role"] == "user"]
    if not places:
        raise RefusedError(
            "no message has the role 'user', so there is nothing to find demonstrations for. Add one, or name no pool.",
            param="messages",
        )
    where = f"messages[{places[-1]}].content"
    text = _text(messages[places[-1]].get("content"), where)
    if not text or text.isspace():
        raise RefusedError(
            f"{where} holds no text, so there is nothing to find demonstrations for. Add some, or name no pool.",
            param=where,
        )
    return text


def _text(content: Any, where: str) -> str:
    """Text of a message; images and other parts have none."""
    if isinstance(content, str):
        return content
    texts = []
    for part in content if isinstance(content, list) else ():
        if isinstance(part, dict) and part.get("type") == "text":
            if not isinstance(part.get("text"), str):
                raise RefusedError(f"a part of {where} is of type 'text' and has no text.", param=where)
            texts.append(part["text"])
    return "\n".join(texts)


def with_demonstrations(content: Mapping[str, Any], prompt: Sequence[Mapping[str, str]]) -> dict[str, Any]:
    """Put the demonstrations of a prompt between the client's first system messages and its conversation.

    Parameters
    ----------
    content : mapping
        A request that :func:`query_of` has read.
    prompt : sequence of mapping
        Messages of the pool's prompt: a system message or none, pairs of user and assistant, the query. The query is
        left out, since the client's own message stands for it. The system message is taken only if the client sends
        none: many chat templates take one at most, and the client's says what the client wants.

    Returns
    -------
    dict
    """
    messages = content["messages"]
    first = next((i for i, message in enumerate(messages) if message["role"] not in _SYSTEM), len(messages))
    own = any(message["role"] in _SYSTEM for message in messages)
    shown = [dict(message) for message in prompt[:-1] if message["role"] != "system" or not own]
    return {**content, "messages": [*messages[:first], *shown, *messages[first:]]}


def queries_of(content: Mapping[str, Any]) -> list[str]:
    """The prompts of a completion, one or several.

    Raises
    ------
    RefusedError
        If there is none, or it is of tokens, whose text is not known here.
    """
    prompt = content.get("prompt")
    prompts: list[Any] = prompt if isinstance(prompt, list) else [prompt]
    if any(isinstance(one, int | list) for one in prompts):
        raise RefusedError(
            "prompt holds tokens, and demonstrations are found by text. Send a string or a list of strings, or name "
            "no pool.",
            param="prompt",
        )
    if not prompts or not all(isinstance(one, str) for one in prompts):
        raise RefusedError("prompt is no string or list of strings. Send one, or name no pool.", param="prompt")
    return prompts


def with_prompts(content: Mapping[str, Any], prompts: Sequence[str]) -> dict[str, Any]:
    """Put whole prompts in the place of queries; one stays one, a list a list."""
    return {**content, "prompt": list(prompts) if isinstance(content["prompt"], list) else prompts[0]}
