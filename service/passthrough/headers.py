"""Which headers go on to the upstream server, which come back, and what ours say."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any
from urllib.parse import quote

from ..access import key_of
from ..store.keys import parse

__all__ = ["Headers", "authorization_for", "headers_about", "headers_back", "headers_on"]

Headers = list[tuple[bytes, bytes]]

# What a proxy in front of the service takes in one line without being told to.
_MOST_BYTES = 2_048

# Lists of what passes, not of what does not: a cookie, a proxy's log-in or an address inside must not slip through.
_ON = (b"accept", b"content-type", b"user-agent", b"idempotency-key", b"traceparent", b"tracestate")
_ON_PREFIX = b"openai-"
_BACK = (
    b"content-type",
    b"content-length",
    b"content-encoding",
    b"retry-after",
    b"retry-after-ms",
    b"x-should-retry",
)
_BACK_PREFIXES = (b"x-ratelimit-", b"ratelimit", b"openai-")
_STREAM = [(b"cache-control", b"no-cache"), (b"x-accel-buffering", b"no")]


def authorization_for(sent: str | None, upstream_key: str | None, *, closed: bool) -> str | None:
    """What stands in Authorization upstream.

    Parameters
    ----------
    sent : str, optional
        What the client sent.
    upstream_key : str, optional
        The key that the service was given for the upstream server; it is the only one that is sent then.
    closed : bool
        Whether the service has keys of its own: then the client's is one of them, and goes no further.

    Returns
    -------
    str or None
    """
    if upstream_key is not None:
        return f"Bearer {upstream_key}"
    if closed or sent is None:
        return None
    # One of our keys may come before this process has seen that it was made, or from another service's client.
    key = key_of(sent)
    return None if key is not None and parse(key) is not None else sent


def headers_on(client: Iterable[tuple[bytes, bytes]], authorization: str | None, request_id: str) -> Headers:
    """Headers of a request to the upstream server, from those of the client."""
    found = [(name, value) for name, value in client if name in _ON or name.startswith(_ON_PREFIX)]
    if authorization is not None:
        found.append((b"authorization", authorization.encode("latin-1")))
    # Blanks around a value mean nothing, yet some servers leave them there, and no client sends them.
    found = [(name, value.strip(b" \t")) for name, value in found]
    # Whatever is compressed on the way cannot be passed on line by line.
    return [*found, (b"accept-encoding", b"identity"), (b"x-request-id", request_id.encode())]


def headers_back(upstream: Iterable[tuple[bytes, bytes]], own: Headers) -> Headers:
    """Headers of an answer, from those of the upstream server.

    The answer has our own request id, as all have; the upstream server's is beside it, under another name.
    """
    found: Headers = []
    for name, value in ((name.lower(), value) for name, value in upstream):
        if name in _BACK or name.startswith(_BACK_PREFIXES):
            found.append((name, value))
        elif name == b"x-request-id":
            found.append((b"x-ics-upstream-request-id", value))
    streams = any(name == b"content-type" and value.startswith(b"text/event-stream") for name, value in found)
    return [*found, *(_STREAM if streams else ()), *own]


def headers_about(documents: Sequence[Mapping[str, Any]]) -> Headers:
    """Say which prompts were built, and of which examples.

    Parameters
    ----------
    documents : sequence of mapping
        Answers of the prompt engine.

    Returns
    -------
    list of tuple
        ``X-ICS-Prompt-Id`` with ids between commas; ``X-ICS-Example-Ids`` with percent-encoded ids between commas, in
        the order of the prompt, the prompts of one request between semicolons; ``X-ICS-Example-Count``. A header
        holds the first 2,048 bytes at most, in whole ids, so the count may be larger than the ids that are shown.
    """
    prompts = [str(document["id"]) for document in documents]
    shown = [[quote(example["id"], safe="") for example in document["examples"]] for document in documents]
    return [
        (b"x-ics-prompt-id", _bounded(_joined([[name] for name in prompts], ","))),
        (b"x-ics-example-ids", _bounded(_joined(shown, ";"))),
        (b"x-ics-example-count", str(sum(map(len, shown))).encode()),
    ]


def _joined(groups: Sequence[Sequence[str]], between: str) -> Iterator[str]:
    """Ids, each with the sign before it; an empty group leaves its sign."""
    for number, group in enumerate(groups):
        sign = between if number else ""
        if not group:
            yield sign
        for place, name in enumerate(group):
            yield ("," if place else sign) + name


def _bounded(pieces: Iterable[str]) -> bytes:
    kept = b""
    for piece in pieces:
        if len(kept) + len(piece) > _MOST_BYTES:
            break
        kept += piece.encode("ascii")
    return kept
