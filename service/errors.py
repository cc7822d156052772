"""What can go wrong in the service, and how every error of the library looks over HTTP.

Our own routes answer with RFC 9457 problem details; the OpenAI-compatible ones with OpenAI's shape. Both are made from
the same :class:`Problem`, so that a message means the same wherever it is read.

::

    ServiceError                 an error with a status of its own
    ├── UnauthorisedError   401  no key, or one that is not valid
    ├── ForbiddenError      403  a key without the scope that the route needs
    ├── NotFoundError       404  no such pool, item, job, selection, prompt
    ├── ConflictError       409  the state does not allow it now: exists already, in use
    ├── StaleError          409  an index that does not fit the pool any more; refused, never used
    ├── TooLargeError       413  a body, item or batch above its limit
    ├── UnsupportedError    415  a body of a kind that is not read
    ├── InvalidError        422  a request that cannot mean anything
    ├── BusyError           429  too much at once, or above the rate of the key
    ├── UpstreamError       502  the server behind the pass-through failed
    └── UnavailableError    503  not now: starting, stopping, database out of reach
"""

from __future__ import annotations

import errno
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from icl_select.errors import (
    BudgetError,
    DataError,
    EmbeddingError,
    FeedbackError,
    GivenError,
    IclSelectError,
    LabelError,
    LockedError,
    MetricError,
    MissingDependencyError,
    ModelError,
    ParameterError,
    PromptError,
    StatisticsError,
    StoreError,
    TemplateError,
    UnknownNameError,
)

__all__ = [
    "BusyError",
    "ConflictError",
    "ForbiddenError",
    "InvalidError",
    "NotFoundError",
    "Problem",
    "ServiceError",
    "StaleError",
    "TooLargeError",
    "UnauthorisedError",
    "UnavailableError",
    "UnsupportedError",
    "UpstreamError",
    "problem_of",
]


class ServiceError(IclSelectError):
    """An error with an HTTP status; `errors` points into the request, `headers` go with the answer."""

    status = 500
    kind = "internal"
    title = "Internal error"

    def __init__(
        self,
        detail: str,
        *,
        errors: Sequence[Mapping[str, Any]] = (),
        headers: Mapping[str, str] | None = None,
        extra: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__(detail)
        self.errors = tuple(errors)
        self.headers = dict(headers or {})
        self.extra = dict(extra or {})


class UnauthorisedError(ServiceError):
    """No key was sent, or one that is not valid."""

    status, kind, title = 401, "unauthorised", "A valid key is needed"


class ForbiddenError(ServiceError):
    """The key does not have the scope that the route needs."""

    status, kind, title = 403, "forbidden", "The key does not allow this"


class NotFoundError(ServiceError):
    """Nothing has that name."""

    status, kind, title = 404, "not-found", "Not found"


class ConflictError(ServiceError):
    """The state of what was asked about does not allow it now."""

    status, kind, title = 409, "conflict", "Conflict with the present state"


class StaleError(ServiceError):
    """An index or embedding does not fit the pool any more."""

    status, kind, title = 409, "stale", "The index does not fit the pool"


class TooLargeError(ServiceError):
    """Something is above its limit; the message names the limit."""

    status, kind, title = 413, "too-large", "Above a limit"


class UnsupportedError(ServiceError):
    """The body is of a kind that is not read here."""

    status, kind, title = 415, "unsupported", "Unsupported kind of body"


class InvalidError(ServiceError):
    """The request contradicts itself or the pool."""

    status, kind, title = 422, "invalid", "Invalid request"


class BusyError(ServiceError):
    """More requests than can be served, or than the key may make."""

    status, kind, title = 429, "busy", "Too many requests"

    def __init__(self, detail: str, *, retry_after: int) -> None:
        super().__init__(detail, headers={"Retry-After": str(max(1, retry_after))})


class UpstreamError(ServiceError):
    """The server that requests are passed on to failed or cannot be reached."""

    status, kind, title = 502, "upstream", "The upstream server failed"


class UnavailableError(ServiceError):
    """The service cannot answer now; trying again may help."""

    status, kind, title = 503, "unavailable", "Not available now"

    def __init__(self, detail: str, *, retry_after: int = 1) -> None:
        super().__init__(detail, headers={"Retry-After": str(max(1, retry_after))})


@dataclass(frozen=True)
class Problem:
    """One error as it leaves the process."""

    status: int
    kind: str
    title: str
    detail: str
    errors: tuple[Mapping[str, Any], ...] = ()
    headers: Mapping[str, str] = field(default_factory=dict)
    extra: Mapping[str, Any] = field(default_factory=dict)

    def document(self, instance: str | None = None) -> dict[str, Any]:
        """The body of ``application/problem+json``; `instance` is the id of the request, which the log has too."""
        found: dict[str, Any] = {
            "type": f"urn:icl-select:error:{self.kind}",
            "title": self.title,
            "status": self.status,
            "detail": self.detail,
            **self.extra,
        }
        if instance is not None:
            found["instance"] = f"urn:icl-select:request:{instance}"
        if self.errors:
            found["errors"] = [dict(error) for error in self.errors]
        return found

    def openai(self) -> dict[str, Any]:
        """The body as OpenAI-compatible clients expect it."""
        kind = "invalid_request_error" if self.status < 500 else "server_error"
        kinds = {401: "authentication_error", 403: "permission_error", 429: "rate_limit_error"}
        return {
            "error": {
                "message": self.detail,
                "type": kinds.get(self.status, kind),
                "param": self.extra.get("param"),
                "code": self.kind.replace("-", "_"),
            }
        }


# The library's errors: (status, kind, title). The first that matches counts, so leaves stand before their parents.
_LIBRARY: tuple[tuple[type[IclSelectError], int, str, str], ...] = (
    (BudgetError, 422, "budget", "Budget too large"),
    (LabelError, 422, "label", "Labels that cannot be taken"),
    (DataError, 422, "data", "Data that cannot be read"),
    (TemplateError, 422, "template", "Template that cannot be used"),
    (PromptError, 422, "prompt", "Prompt that cannot be built"),
    (ParameterError, 422, "parameter", "Parameter out of range"),
    (UnknownNameError, 422, "unknown-name", "Unknown name"),
    (EmbeddingError, 422, "embedding", "Embeddings that cannot be used"),
    (GivenError, 422, "given", "Labelled rows that are not in the pool"),
    (FeedbackError, 422, "feedback", "The method asks a model"),
    (MetricError, 422, "metric", "A metric that cannot be computed"),
    (StatisticsError, 422, "statistics", "A sample that cannot be tested"),
    (MissingDependencyError, 501, "missing-dependency", "A package is not installed"),
    (LockedError, 503, "locked", "In use by another process"),
    (ModelError, 503, "model", "The model cannot be used"),
)

_FULL = (errno.ENOSPC, errno.EDQUOT)


def problem_of(exc: BaseException) -> Problem:
    """Turn an error into what may be told about it.

    An error that nobody foresaw says nothing of itself: its text may hold a path or a key. The log has it, under the
    id of the request.
    """
    if isinstance(exc, ServiceError):
        return Problem(exc.status, exc.kind, exc.title, str(exc), exc.errors, exc.headers, exc.extra)
    for kind, status, name, title in _LIBRARY:
        if isinstance(exc, kind):
            return Problem(status, name, title, str(exc))
    if disk_is_full(exc):
        return Problem(507, "disk-full", "The disk is full", DISK_FULL)
    if isinstance(exc, StoreError):
        return Problem(503, "store", "The store cannot be used", "The data directory cannot be read or written now.")
    return Problem(
        500,
        "internal",
        "Internal error",
        "The service failed to answer. Nothing was half written; the log has the cause under the id of this request.",
    )


DISK_FULL = (
    "the disk that holds the data directory is full, so nothing of this request was kept. Free some space and send it "
    "again; everything acknowledged before is safe."
)


def disk_is_full(exc: BaseException) -> bool:
    """Whether `exc`, or what caused it, says that no space is left."""
    seen: BaseException | None = exc
    while seen is not None:
        if isinstance(seen, OSError) and seen.errno in _FULL:
            return True
        text = str(seen).lower()
        if "database or disk is full" in text or "no space left" in text or "the disk is full" in text:
            return True
        original = getattr(seen, "orig", None)
        seen = original if isinstance(original, BaseException) and original is not seen else seen.__cause__
    return False
