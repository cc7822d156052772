"""Errors of the pass-through, with the statuses that clients of this dialect know."""

from __future__ import annotations

from ..errors import ServiceError

__all__ = ["NoUpstreamError", "RefusedError", "UpstreamTimeoutError"]


class RefusedError(ServiceError):
    """The request cannot mean anything. Clients of OpenAI's API expect 400 where our own routes answer 422."""

    status, kind, title = 400, "invalid_request", "Invalid request"

    def __init__(self, detail: str, *, kind: str | None = None, param: str | None = None) -> None:
        super().__init__(detail, extra={"param": param})
        if kind is not None:
            self.kind = kind


class NoUpstreamError(ServiceError):
    """No server is set up that requests could be passed on to."""

    status, kind, title = 501, "no-upstream", "No upstream server"


class UpstreamTimeoutError(ServiceError):
    """The upstream server was silent for too long."""

    status, kind, title = 504, "upstream-timeout", "The upstream server is too slow"
