"""What can go wrong between the client and the service.

::

    IclSelectError
    ├── ServiceProblem                       the service answered with an error (RFC 9457 problem details)
    │   ├── DeniedError      (PermissionError)  401, 403  no valid key, or one without the scope
    │   ├── NotFoundError    (LookupError)      404       no such pool, item, selection, job or prompt
    │   ├── ConflictError                       409       exists already, in use, or stale
    │   ├── InvalidError     (ValueError)       other 4xx a request that cannot be taken; 422 and 413 above all
    │   ├── BusyError                           429       too much at once; `retry_after` says when to come back
    │   └── ServerError      (RuntimeError)     5xx       the service failed or is not ready
    ├── UnreachableError     (ConnectionError)  no answer at all, after all tries
    ├── AnswerError          (ValueError)       an answer that is none of this service
    ├── JobFailedError       (RuntimeError)     a job that failed or was cancelled; `job` has the record
    └── WaitTimeoutError     (TimeoutError)     a job that was not finished in time; it goes on
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from icl_select.errors import IclSelectError

if TYPE_CHECKING:
    from icl_select.client.records import Job

__all__ = [
    "AnswerError",
    "BusyError",
    "ConflictError",
    "DeniedError",
    "InvalidError",
    "JobFailedError",
    "NotFoundError",
    "ServerError",
    "ServiceProblem",
    "UnreachableError",
    "WaitTimeoutError",
    "problem",
    "retry_after",
]

_TYPE = "urn:icl-select:error:"
_INSTANCE = "urn:icl-select:request:"
# Errors of single fields that a message repeats; `errors` has all of them.
_SHOWN = 3
_LONGEST_DETAIL = 500


class ServiceProblem(IclSelectError):  # noqa: N818
    """The service answered with an error.

    Attributes
    ----------
    status : int
        HTTP status.
    kind : str
        Short name of the problem, such as ``"not-found"`` or ``"budget"``.
    detail : str
        What the service says of it.
    errors : tuple of mapping
        Where in the request it lies, if it lies there: ``pointer`` and ``detail``.
    request_id : str or None
        Name of the request in the log of the service.
    retry_after : float or None
        Seconds to wait before another try, if the service named a time.
    """

    def __init__(
        self,
        detail: str,
        *,
        status: int,
        kind: str = "",
        errors: tuple[Mapping[str, Any], ...] = (),
        request_id: str | None = None,
        retry_after: float | None = None,
    ) -> None:
        super().__init__(_message(detail, status, kind, errors, request_id))
        self.status = status
        self.kind = kind
        self.detail = detail
        self.errors = errors
        self.request_id = request_id
        self.retry_after = retry_after


class DeniedError(ServiceProblem, PermissionError):
    """No valid key was sent, or one that does not allow this."""


class NotFoundError(ServiceProblem, LookupError):
    """The service has nothing of that name."""


class ConflictError(ServiceProblem):
    """The present state does not allow it: it exists already, is in use, or the index is stale."""


class InvalidError(ServiceProblem, ValueError):
    """The request cannot be taken; sending it again would not help."""


class BusyError(ServiceProblem):
    """Too many requests, also after all tries."""


class ServerError(ServiceProblem, RuntimeError):
    """The service failed, or is not ready."""


class UnreachableError(IclSelectError, ConnectionError):
    """No answer came, after all tries."""


class AnswerError(IclSelectError, ValueError):
    """An answer that this client cannot read; mostly the address is not that of the service."""


class JobFailedError(IclSelectError, RuntimeError):
    """A job failed or was cancelled.

    Attributes
    ----------
    job : Job
        Its last state; ``job.error`` has the reason.
    """

    def __init__(self, job: Job) -> None:
        said = (job.error or {}).get("detail") or job.message or "it gives no reason"
        super().__init__(f"the job {job.id} ({job.kind} of pool {job.pool!r}) ended as {job.state}: {said}")
        self.job = job


class WaitTimeoutError(IclSelectError, TimeoutError):
    """A job was not finished in time. It goes on: wait for it again, or cancel it.

    Attributes
    ----------
    job : Job or None
        What was last heard of it.
    """

    def __init__(self, message: str, job: Job | None) -> None:
        super().__init__(message)
        self.job = job


def _message(detail: str, status: int, kind: str, errors: tuple[Mapping[str, Any], ...], request_id: str | None) -> str:
    where = "; ".join(f"{error.get('pointer') or 'request'}: {error.get('detail', '')}" for error in errors[:_SHOWN])
    more = f"; and {len(errors) - _SHOWN} more" if len(errors) > _SHOWN else ""
    marks = [f"HTTP {status}", kind, f"request {request_id}" if request_id else ""]
    return f"{detail}{f' ({where}{more})' if where else ''} [{', '.join(mark for mark in marks if mark)}]"


def problem(status: int, headers: Mapping[str, str], content: bytes, asked: str) -> ServiceProblem:
    """The exception for an answer that is no success; `asked` says which request, where the answer does not."""
    document = _document(content)
    kind = str(document.get("type") or "")
    detail = document.get("detail") or document.get("title")
    errors = document.get("errors")
    instance = str(document.get("instance") or "")
    request_id = instance.removeprefix(_INSTANCE) if instance.startswith(_INSTANCE) else headers.get("x-request-id")
    return _kind(status)(
        str(detail) if detail else _unexplained(status, headers, content, asked),
        status=status,
        kind=kind.removeprefix(_TYPE) if kind.startswith(_TYPE) else "",
        errors=tuple(error for error in errors if isinstance(error, dict)) if isinstance(errors, list) else (),
        request_id=request_id,
        retry_after=retry_after(headers),
    )


def _document(content: bytes) -> Mapping[str, Any]:
    try:
        found = json.loads(content)
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}


def _unexplained(status: int, headers: Mapping[str, str], content: bytes, asked: str) -> str:
    if 300 <= status < 400:
        return f"{asked} was answered with a redirect, which is not followed. Pass the address that it leads to"
    text = " ".join(content.decode("utf-8", "replace").split())[:_LONGEST_DETAIL]
    return f"{asked} failed, and the answer is no problem document: {text or 'it is empty'}"


def _kind(status: int) -> type[ServiceProblem]:
    kinds: dict[int, type[ServiceProblem]] = {
        401: DeniedError,
        403: DeniedError,
        404: NotFoundError,
        409: ConflictError,
        429: BusyError,
    }
    if status in kinds:
        return kinds[status]
    if 400 <= status < 500:
        return InvalidError
    return ServerError if status >= 500 else ServiceProblem


def retry_after(headers: Mapping[str, str]) -> float | None:
    """Seconds that an answer asks to wait; the service writes a number, and a date of a proxy is not read.

    Examples
    --------
    >>> retry_after({"retry-after": "7"}), retry_after({})
    (7.0, None)
    """
    try:
        seconds = float(headers.get("retry-after", ""))
    except ValueError:
        return None
    return max(0.0, seconds) if seconds < float("inf") else None
