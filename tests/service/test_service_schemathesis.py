"""Requests of every sort that the OpenAPI document allows, and many that it does not: no 5xx, nothing undescribed."""

from __future__ import annotations

import http.server
import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from running import Running, rows

CHECKS = (
    "not_a_server_error",
    "status_code_conformance",
    "content_type_conformance",
    "response_headers_conformance",
    "response_schema_conformance",
    "negative_data_rejection",
    "unsupported_method",
    "missing_required_header",
)


HOOKS = """
import io, json
import pyarrow as pa
import pyarrow.parquet as pq
import schemathesis

@schemathesis.serializer("application/vnd.apache.parquet", "application/x-ndjson")
def lines(ctx, value):
    return json.dumps(value).encode()
"""


class Upstream(http.server.BaseHTTPRequestHandler):
    """A server that answers every chat in the same way."""

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers.get("content-length", 0)))
        self._answer({"id": "x", "object": "chat.completion", "choices": []})

    def do_GET(self) -> None:
        self._answer({"object": "list", "data": [{"id": "m", "object": "model", "created": 0, "owned_by": "me"}]})

    def _answer(self, body: object) -> None:
        content = json.dumps(body).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *_: object) -> None:
        pass


@contextmanager
def upstream() -> Iterator[str]:
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Upstream) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}/v1"
        server.shutdown()


@pytest.mark.slow
def test_the_service_does_what_its_document_says(tmp_path: Path) -> None:
    data = tmp_path / "data"
    key = subprocess.run(
        [sys.executable, "-m", "icl_select", "keys", "create", "me", "--scope", "admin", "--data-dir", str(data)],
        capture_output=True, text=True, check=True,
    ).stdout.strip()  # fmt: skip
    (tmp_path / "hooks.py").write_text(HOOKS, encoding="utf-8")
    limits = {"ICS_SERVICE_LIMITS__BUDGET": "50"}
    with upstream() as url, Running(data, "--encoders", "hash", "--upstream", url, environ=limits) as service:
        service.headers = {"Authorization": f"Bearer {key}"}
        # The names that the document gives as examples, so that requests reach more than "not found".
        service.pool("tickets", rows(60, labelled=20))
        service.upload("tickets", [{"id": "t1", "text": "My invoice is wrong"}])
        command = [
            *(sys.executable, "-m", "schemathesis.cli", "run", f"{service.url}/openapi.json"),
            *("--header", f"Authorization: Bearer {key}"),
            *("--checks", ",".join(CHECKS)),
            *("--phases", "examples,coverage,fuzzing"),
            *("--max-examples", "20"),
            *("--no-color", "--suppress-health-check", "all", "--request-timeout", "60"),
            *("--report", "junit", "--report-dir", str(tmp_path / "report")),
            "--generation-deterministic",
            # A stream of events ends when its job does, and without the pool of the examples nothing is left to ask.
            *("--exclude-operation-id-regex", "delete_pool|job_events"),
        ]
        environ = {**os.environ, "SCHEMATHESIS_HOOKS": "hooks", "PYTHONPATH": str(tmp_path)}
        done = subprocess.run(command, capture_output=True, text=True, timeout=1800, cwd=tmp_path, env=environ)
        assert done.returncode == 0, f"{done.stdout[-30_000:]}\n{done.stderr[-2_000:]}"
        assert service.call("GET", "/health") == {"status": "ok"}
        broken = [line for line in service.log if '"level": "error"' in line]
        assert not broken, broken[:3]
