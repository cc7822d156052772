"""The service as a process of its own, as users start it, and a client that says what came back."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import httpx2

__all__ = ["Running", "rows", "until"]

DEADLINE = 120.0

_QUIET = {
    "OMP_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
    "HF_HUB_OFFLINE": "1",
    "TOKENIZERS_PARALLELISM": "false",
}


def until(found: Callable[[], Any], what: str, deadline: float = DEADLINE) -> Any:
    """Call until it returns something true, and return that; fail after the deadline."""
    end = time.monotonic() + deadline
    while time.monotonic() < end:
        value = found()
        if value:
            return value
        time.sleep(0.02)
    raise AssertionError(f"{what} did not happen within {deadline:.0f} s")


def rows(count: int, *, labelled: int = 0, start: int = 0, words: int = 8) -> list[dict[str, Any]]:
    """Items with distinct texts; the first ones labelled a or b."""
    found: list[dict[str, Any]] = []
    for number in range(start, start + count):
        text = " ".join(f"word{(number * 7919 + place * 104729) % 997}" for place in range(words))
        found.append({"id": f"item-{number}", "text": f"{number} {text}"})
        if number - start < labelled:
            found[-1]["label"] = "ab"[number % 2]
    return found


class Running:
    """``icl-select serve`` on a free port. Restarting keeps the port, as a deployment would.

    Parameters
    ----------
    folder : Path
        Data directory.
    options : str
        Further arguments of ``icl-select serve``.
    """

    def __init__(self, folder: Path, *options: str, environ: Mapping[str, str] | None = None) -> None:
        self.folder = folder
        self.options = list(options)
        self.environ = {**os.environ, **_QUIET, **(environ or {})}
        self.process: subprocess.Popen[str] | None = None
        self.port = 0
        self.log: list[str] = []
        self.client = httpx2.Client(timeout=60, trust_env=False)
        self.headers: dict[str, str] = {}

    def __enter__(self) -> Running:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()
        self.client.close()

    def start(self, *, ready: bool = True) -> None:
        """Start the process; wait until it listens, and until it is ready."""
        command = [
            sys.executable,
            "-m",
            "icl_select",
            "serve",
            "--data-dir",
            str(self.folder),
            "--port",
            str(self.port),
        ]
        self.process = subprocess.Popen(
            [*command, "--log-format", "json", *self.options], stderr=subprocess.PIPE, env=self.environ, text=True
        )
        begun = len(self.log)
        threading.Thread(target=self._read, args=(self.process,), daemon=True).start()
        url = until(lambda: self._listening(begun), f"listening; the log says {self.log[begun:]}")
        self.port = int(url.rpartition(":")[2])
        if ready:
            until(self._ready, "being ready")

    def _read(self, process: subprocess.Popen[str]) -> None:
        assert process.stderr is not None
        for line in process.stderr:
            self.log.append(line.rstrip("\n"))

    def _listening(self, begun: int) -> str | None:
        for line in self.log[begun:]:
            if '"event": "listening"' in line:
                url: str = json.loads(line)["url"]
                return url
        assert self.process is not None
        if self.process.poll() is not None:
            raise AssertionError(f"the service ended with {self.process.returncode}: {self.log[begun:]}")
        return None

    def _ready(self) -> bool:
        try:
            status = self.client.get(f"{self.url}/ready", headers=self.headers).status_code
        except httpx2.TransportError:
            return False
        # Without a key of its own a test cannot ask; alive has to do.
        return status in (200, 401)

    @property
    def url(self) -> str:
        """Where the service answers."""
        return f"http://127.0.0.1:{self.port}"

    def kill(self) -> None:
        """SIGKILL: no time to finish anything."""
        assert self.process is not None
        self.process.kill()
        self.process.wait(30)

    def stop(self) -> int:
        """SIGTERM, and the exit code."""
        assert self.process is not None
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        try:
            return self.process.wait(60)
        except subprocess.TimeoutExpired:
            self.process.kill()
            raise

    def send(self, method: str, path: str, body: Any = None, **options: Any) -> httpx2.Response:
        """One request; a body that is no bytes goes as JSON."""
        headers = {**self.headers, **options.pop("headers", {})}
        if isinstance(body, bytes):
            options["content"] = body
        elif body is not None:
            options["json"] = body
        return self.client.request(method, f"{self.url}{path}", headers=headers, **options)

    def call(self, method: str, path: str, body: Any = None, *, status: int | None = None, **options: Any) -> Any:
        """The JSON of an answer, whose status is as wanted (default: a success)."""
        answer = self.send(method, path, body, **options)
        good = answer.status_code < 300 if status is None else answer.status_code == status
        assert good, f"{method} {path}: {answer.status_code} {answer.text[:2000]}"
        return answer.json() if answer.content else None

    def upload(self, pool: str, items: list[dict[str, Any]], **options: Any) -> Any:
        """Add items as JSON Lines."""
        content = b"".join(json.dumps(item).encode() + b"\n" for item in items)
        headers = {"Content-Type": "application/x-ndjson"}
        return self.call("PUT", f"/v1/pools/{pool}/items", content, headers=headers, **options)

    def wait(self, job: str) -> Any:
        """The job, once it has ended."""
        return until(lambda: self._ended(job), f"the end of the job {job}")

    def _ended(self, job: str) -> Any:
        found = self.call("GET", f"/v1/jobs/{job}")
        return found if found["state"] in ("done", "failed", "cancelled") else None

    def pool(self, name: str, items: list[dict[str, Any]], **config: Any) -> None:
        """A pool with items, embedded."""
        self.call("POST", "/v1/pools", {"name": name, "encoder": "hash(dim=64)", **config})
        job = self.wait(self.upload(name, items)["job"])
        assert job["state"] == "done", job
