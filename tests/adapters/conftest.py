from __future__ import annotations

import socket
from pathlib import Path
from typing import Any

import pytest
from adapter_helpers import FakeService, make_source

from icl_select.adapters import ExampleSource, ServiceSource


@pytest.fixture(autouse=True)
def _alone(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """No network, no telemetry, and nothing written outside the test's own folder."""

    def refuse(*args: Any, **kwargs: Any) -> Any:
        raise AssertionError(f"an adapter uses the network: {args}")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    monkeypatch.setenv("LANGSMITH_TRACING", "false")
    monkeypatch.setenv("DSPY_CACHEDIR", str(tmp_path / "dspy"))
    monkeypatch.setenv("ICS_CACHE_DIR", str(tmp_path / "icl"))


@pytest.fixture
def service() -> FakeService:
    return FakeService()


@pytest.fixture(params=["pool", "service"])
def source(request: pytest.FixtureRequest, service: FakeService) -> ExampleSource:
    """A source of two examples a query, from this process and from the service."""
    if request.param == "pool":
        return make_source(k=2)
    return ServiceSource("tickets", service.client(), service.aclient(), k=2)
