"""The service on a free port of this machine, in a thread of the test: it starts at once, and its state is in reach."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import httpx2
import uvicorn

from icl_select.service.app import create_app
from icl_select.service.settings import Settings
from icl_select.service.state import AppState

PATIENCE = 60.0


@dataclass
class Service:
    """A service that answers."""

    url: str
    state: AppState
    http: httpx2.Client


@contextlib.contextmanager
def serve(settings: Settings, graceful: int = 5) -> Iterator[Service]:
    """Run the service until the block ends; open requests have so many seconds then."""
    app = create_app(settings)
    config = uvicorn.Config(app, port=0, log_config=None, access_log=False, timeout_graceful_shutdown=graceful)
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    try:
        until(lambda: server.started or not thread.is_alive())
        assert server.started, "the service did not start"
        url = f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}"
        with httpx2.Client(base_url=url, timeout=PATIENCE, trust_env=False) as http:
            yield Service(url, app.state.icl, http)
    finally:
        server.should_exit = True
        thread.join(PATIENCE)
        assert not thread.is_alive(), "the service did not stop"


def until(condition: Any, patience: float = PATIENCE) -> None:
    """Return when something is so; fail when it is not in time."""
    end = time.monotonic() + patience
    while not condition():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.01)


def fill(service: Service, pool: dict[str, Any], items: list[dict[str, Any]], labels: dict[str, str]) -> None:
    """Make a pool, embed it and label some of it."""
    name = pool["name"]
    service.http.post("/v1/pools", json=pool).raise_for_status()
    service.http.put(f"/v1/pools/{name}/items", json={"items": items}).raise_for_status()
    job = service.http.post(f"/v1/pools/{name}/embeddings", json={}).raise_for_status().json()["id"]
    until(lambda: service.http.get(f"/v1/jobs/{job}").json()["state"] not in ("queued", "running"))
    assert service.http.get(f"/v1/jobs/{job}").json()["state"] == "done"
    words = [{"id": item, "label": label} for item, label in labels.items()]
    service.http.put(f"/v1/pools/{name}/labels", json={"labels": words}).raise_for_status()
