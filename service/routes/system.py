"""How the service is: alive, ready, what it is, and what it has counted."""

from __future__ import annotations

import platform
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from fastapi import APIRouter, Response
from prometheus_client import CONTENT_TYPE_LATEST
from pydantic import BaseModel

from icl_select import __version__
from icl_select.registry import method_names

from ..errors import UnavailableError
from ..settings import Limits
from ._common import App, Reader, problems

__all__ = ["router"]

router = APIRouter(tags=["system"])


class Health(BaseModel):
    """Alive."""

    status: str


class Info(BaseModel):
    """What this service is and offers."""

    name: str
    version: str
    database: str
    encoders: list[str]
    tokenizers: list[str]
    methods: list[str]
    upstream: bool
    limits: Limits
    packages: dict[str, str]


@router.get("/health", response_model=Health)
async def health() -> Health:
    """The process answers. Open to everybody."""
    return Health(status="ok")


@router.get("/ready", response_model=Health, responses=problems())
def ready(app: App, _: Reader) -> Health:
    """Database, workers and encoders are there, so every route can be answered."""
    if not app.ready.is_set():
        raise UnavailableError("the service is starting: encoders are being loaded.", retry_after=1)
    if app.settings.workers and not app.supervisor.alive():
        raise UnavailableError("no worker process is running, so jobs would wait.", retry_after=5)
    with app.database.read() as connection:
        connection.exec_driver_sql("SELECT 1")
    return Health(status="ready")


@router.get("/info", response_model=Info, responses=problems())
def info(app: App, _: Reader) -> Info:
    """Versions, limits, and the names that requests may use."""
    settings = app.settings
    return Info(
        name="icl-select",
        version=__version__,
        database="sqlite" if app.database.is_sqlite else "postgresql",
        encoders=list(settings.encoders),
        tokenizers=["utf8", "chars", "words", *settings.tokenizers],
        methods=method_names(),
        upstream=settings.upstream is not None,
        limits=settings.limits,
        packages=_packages(),
    )


def _packages() -> dict[str, str]:
    found: dict[str, Any] = {"python": platform.python_version()}
    for name in ("numpy", "fastapi", "sqlalchemy", "sentence-transformers", "torch", "onnxruntime"):
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


@router.get("/metrics", response_class=Response, responses=problems())
def metrics(app: App, _: Reader) -> Response:
    """Counters and times in the text format of Prometheus."""
    for state, count in app.supervisor.counts().items():
        app.metrics.jobs.labels(state).set(count)
    return Response(app.metrics.text(), headers={"Content-Type": CONTENT_TYPE_LATEST})
