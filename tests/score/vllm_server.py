"""A real vLLM server in processes of its own, for tests."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

SERVED = "tiny"

# The dynamic compiler takes 20 s at the first log-probabilities; one thread, because other tests share the cores.
_ENVIRONMENT = {
    "HF_HUB_OFFLINE": "1",
    "OMP_NUM_THREADS": "1",
    "TORCHDYNAMO_DISABLE": "1",
    "VLLM_CPU_KVCACHE_SPACE": "1",
    "VLLM_NO_USAGE_STATS": "1",
}
# Half a minute on an idle machine; minutes where two cores are shared.
_PATIENCE = 900


@dataclass
class VllmServer:
    """A server that answers; ``kill`` ends it like a power cut."""

    url: str
    process: subprocess.Popen[bytes]

    def kill(self) -> None:
        """End the server and the processes that it started, without a word."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait(60)


@contextlib.contextmanager
def serve_vllm(folder: Path, log: Path, *options: str, max_length: int = 2048) -> Iterator[VllmServer]:
    """Serve the model in `folder` as "tiny" in float32, until the block ends.

    `log` receives what the server writes. The module form is used: ``vllm serve`` fails in the CPU build.
    """
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [sys.executable, "-m", "vllm.entrypoints.openai.api_server", "--model", str(folder)]
    command += ["--served-model-name", SERVED, "--host", "127.0.0.1", "--port", str(port), "--dtype", "float32"]
    command += ["--max-model-len", str(max_length), "--enforce-eager", "--max-num-seqs", "16", *options]
    environment = {key: value for key, value in os.environ.items() if key != "VLLM_ENABLE_V1_MULTIPROCESSING"}
    with log.open("wb") as stream:
        process = subprocess.Popen(
            command,
            stdout=stream,
            stderr=subprocess.STDOUT,
            env={**environment, **_ENVIRONMENT},
            # A group of its own, so that its engine process can be ended with it.
            start_new_session=True,
        )
    server = VllmServer(f"http://127.0.0.1:{port}/v1", process)
    try:
        _wait(server, f"http://127.0.0.1:{port}/health", log)
        yield server
    finally:
        server.kill()


def _wait(server: VllmServer, health: str, log: Path) -> None:
    """Return when the server is ready; fail with the end of its log if it ends or never is."""
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    end = time.monotonic() + _PATIENCE
    while server.process.poll() is None and time.monotonic() < end:
        try:
            with opener.open(health, timeout=5) as answer:
                if answer.status == 200:
                    return
        except (urllib.error.URLError, OSError):
            time.sleep(0.3)
    raise RuntimeError("the vLLM server did not start:\n" + log.read_text(errors="replace")[-4000:])
