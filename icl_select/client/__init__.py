"""A client of the service: :class:`Client`, and :class:`AsyncClient` with the same methods to be awaited.

The client needs the extra ``client`` and nothing of the service.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from icl_select._optional import require
from icl_select.client._options import PromptOptions
from icl_select.client.errors import (
    AnswerError,
    BusyError,
    ConflictError,
    DeniedError,
    InvalidError,
    JobFailedError,
    NotFoundError,
    ServerError,
    ServiceProblem,
    UnreachableError,
    WaitTimeoutError,
)

__all__ = [
    "AnswerError",
    "AsyncClient",
    "BusyError",
    "Client",
    "ConflictError",
    "DeniedError",
    "InvalidError",
    "JobFailedError",
    "NotFoundError",
    "PromptOptions",
    "ServerError",
    "ServiceProblem",
    "UnreachableError",
    "WaitTimeoutError",
]

# Loaded on first use: they need the HTTP library.
_CLIENTS = {"Client": "icl_select.client._sync", "AsyncClient": "icl_select.client._async"}

if TYPE_CHECKING:
    from icl_select.client._async import AsyncClient
    from icl_select.client._sync import Client


def __getattr__(name: str) -> Any:
    if name not in _CLIENTS:
        raise AttributeError(f"module 'icl_select.client' has no attribute {name!r}")
    require("httpx2", extra="client", purpose="the client of the service")
    value = getattr(importlib.import_module(_CLIENTS[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(set(globals()) | set(__all__))
