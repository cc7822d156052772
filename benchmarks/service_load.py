"""How fast the service is, in ratios within one run.

    python benchmarks/service_load.py [--parts encode,prompts,busy,start]

encode   64 clients with one query each against encoding the same texts in one offline loop (target: 0.80 at least),
         and the 99th percentile of random arrivals against a request that comes alone to an idle service: at half the
         rate that the first target demands, and at half the rate that the 64 clients got (target of both: below 3; two
         cores that waste nothing and serve in order would give about 2.8 for the second)
prompts  prompts a second of 64 clients with encoding taken out, 1,000 labels, against an empty validated POST route of
         the same server (target: 0.40 at least)
busy     median of prompt requests while a pool is embedded and selected from, against that of an idle service (target:
         below 2)
start    seconds from the start of the process to /ready, with many items and 1,000 labels (target: below 15 s), and
         memory

The load comes from this process, the service is another; both share the machine's cores. Vectors of queries are kept by
the service, so "encoding taken out" means: asked once before with another k, then measured with k = 8.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import signal
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

for _name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMBA_NUM_THREADS"):
    os.environ[_name] = "1"
os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

from _load import Load, closed_loop, open_loop  # noqa: E402

WORDS = [
    f"{start}{middle}{end}" for start in "bdfgklmnprst" for middle in "aeiou" for end in ("l", "nd", "r", "st", "x")
]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--parts", default="encode,prompts,busy,start")
    parser.add_argument(
        "--encoder", default="onnx", help="encoder of all parts but 'prompts' (default: onnx, that of the service)"
    )
    parser.add_argument("--requests", type=int, default=1_000, help="requests of one measurement")
    parser.add_argument("--items", type=int, default=100_000, help="items of the large pool")
    parser.add_argument("--runs", type=int, default=3)
    arguments = parser.parse_args()
    parts = {"encode": encode, "prompts": prompts, "busy": busy, "start": start}
    for name in arguments.parts.split(","):
        parts[name](arguments)


def texts(count: int, seed: int, words: int = 24) -> list[str]:
    """Distinct texts of about so many words."""
    draw = random.Random(seed)
    return [" ".join(draw.choices(WORDS, k=draw.randint(words // 2, 3 * words // 2))) for _ in range(count)]


@contextmanager
def service(folder: Path, encoder: str) -> Iterator[Service]:
    """The service with one more route, in a process of its own."""
    code = "import sys; from _service_app import main; main(sys.argv[1], sys.argv[2])"
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parent)}
    log = (folder / "log").open("a")
    begun = time.perf_counter()
    process = subprocess.Popen(
        [sys.executable, "-c", code, str(folder), encoder],
        stdout=subprocess.PIPE,
        stderr=log,
        env=environment,
        text=True,
    )
    try:
        assert process.stdout is not None
        port = int(process.stdout.readline())
        yield Service(process, port, begun)
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(60)
        log.close()


class Service:
    """A running service."""

    def __init__(self, process: subprocess.Popen[str], port: int, begun: float) -> None:
        self.process, self.port = process, port
        self.call_until_ok("GET", "/ready")
        self.ready_after = time.perf_counter() - begun

    def call(self, method: str, path: str, body: Any = None, kind: str = "application/json") -> Any:
        data = None if body is None else body if isinstance(body, bytes) else json.dumps(body).encode()
        request = urllib.request.Request(
            f"http://127.0.0.1:{self.port}{path}", data, {"Content-Type": kind}, method=method
        )
        with urllib.request.urlopen(request, timeout=600) as answer:
            return json.loads(answer.read() or b"null")

    def call_until_ok(self, method: str, path: str, body: Any = None) -> Any:
        while True:
            try:
                return self.call(method, path, body)
            except urllib.error.HTTPError as exc:
                if exc.code not in (409, 503):
                    raise
            time.sleep(0.05)

    def pool(self, name: str, encoder: str, n: int, labelled: int, seed: int = 0) -> str:
        """A pool whose first items are labelled; returns the id of the job that embeds it."""
        self.call("POST", "/v1/pools", {"name": name, "encoder": encoder})
        rows = (
            {"id": str(i), "text": text, **({"label": "ab"[i % 2]} if i < labelled else {})}
            for i, text in enumerate(texts(n, seed))
        )
        content = b"".join(json.dumps(row).encode() + b"\n" for row in rows)
        return str(self.call("PUT", f"/v1/pools/{name}/items", content, "application/x-ndjson")["job"])

    def wait(self, job: str) -> None:
        while (state := self.call("GET", f"/v1/jobs/{job}"))["state"] not in ("done", "failed", "cancelled"):
            time.sleep(0.1)
        if state["state"] != "done":
            sys.exit(f"job {job}: {state}")

    def resident(self) -> dict[str, float]:
        """MiB that the server, and its largest worker, hold."""
        found = {}
        for name, pid in (("server", self.process.pid), *(("worker", pid) for pid in _children(self.process.pid))):
            pages = int(Path(f"/proc/{pid}/statm").read_text(encoding="utf-8").split()[1])
            found[name] = max(found.get(name, 0.0), pages * os.sysconf("SC_PAGE_SIZE") / 2**20)
        return found


def _children(pid: int) -> list[int]:
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text(encoding="utf-8").split()]


def asked(queries: list[str], pool: str, **options: Any) -> list[dict[str, Any]]:
    return [{"pool": pool, "query": query, **options} for query in queries]


def show(what: str, figures: list[float], target: str) -> None:
    low, high = min(figures), max(figures)
    print(
        f"{what}: {statistics.median(figures):.2f} (of {len(figures)} runs, {low:.2f} to {high:.2f}; target {target})"
    )
    sys.stdout.flush()


def good(load: Load) -> Load:
    if load.bad:
        sys.exit(f"{load.bad} of {len(load.latencies)} requests failed")
    return load


def encode(arguments: argparse.Namespace) -> None:
    """Dynamic batching against an offline loop; tail latency at half the rate."""
    from icl_select.embedding import load_encoder

    encoder = load_encoder(arguments.encoder)
    encoder.encode(texts(64, 99))
    throughput: list[float] = []
    tails: dict[str, list[float]] = {"half of 80% of the offline rate": [], "half of what 64 clients got": []}
    with tempfile.TemporaryDirectory() as folder, service(Path(folder), arguments.encoder) as running:
        running.wait(running.pool("t", arguments.encoder, 1_000, 1_000))
        good(closed_loop(running.port, "/v1/prompts", asked(texts(64, 98), "t"), 8))
        for run in range(arguments.runs):
            queries = texts(arguments.requests, 100 + run)
            begun = time.perf_counter()
            encoder.encode(queries)
            offline = len(queries) / (time.perf_counter() - begun)
            load = good(closed_loop(running.port, "/v1/prompts", asked(queries, "t"), 64))
            throughput.append(load.rate / offline)
            # With pauses, as in the loads it is compared with: back to back, a lone client has warmer caches than they.
            alone = good(closed_loop(running.port, "/v1/prompts", asked(texts(100, 200 + run), "t"), 1, pause=0.05))
            single = alone.quantile(0.5)
            print(
                f"  run {run}: offline {offline:.0f}/s, 64 clients {load.rate:.0f}/s, "
                f"single request {1e3 * single:.1f} ms"
            )
            for place, (name, rate) in enumerate(zip(tails, (0.4 * offline, load.rate / 2), strict=True)):
                sent = asked(texts(2 * arguments.requests, 300 + 2 * run + place), "t")
                tail = good(open_loop(running.port, "/v1/prompts", sent, rate, seed=2 * run + place))
                tails[name].append(tail.quantile(0.99) / single)
                print(
                    f"    {name}, {rate:.0f}/s: median {1e3 * tail.quantile(0.5):.1f} ms, "
                    f"p99 {1e3 * tail.quantile(0.99):.1f} ms"
                )
    show("encode: throughput of 64 clients / offline loop", throughput, ">= 0.80")
    for name, found in tails.items():
        show(f"encode: p99 at {name} / single request", found, "< 3")


def prompts(arguments: argparse.Namespace) -> None:
    """Everything but encoding, against a route that does nothing."""
    ratios, cached = [], []
    count = 4 * arguments.requests
    with tempfile.TemporaryDirectory() as folder, service(Path(folder), "hash") as running:
        running.wait(running.pool("t", "hash", 1_000, 1_000))
        for run in range(arguments.runs):
            queries = texts(count, 400 + run)
            good(closed_loop(running.port, "/v1/prompts", asked(queries, "t", k=7), 64))
            empty = good(closed_loop(running.port, "/v1/empty", asked(queries, "t", k=8), 64))
            made = good(closed_loop(running.port, "/v1/prompts", asked(queries, "t", k=8), 64))
            again = good(closed_loop(running.port, "/v1/prompts", asked(queries, "t", k=8), 64))
            ratios.append(made.rate / empty.rate)
            cached.append(again.rate / empty.rate)
            print(f"  run {run}: empty {empty.rate:.0f}/s, prompts {made.rate:.0f}/s, repeated {again.rate:.0f}/s")
    show("prompts: with encoding taken out / empty validated POST", ratios, ">= 0.40")
    show("prompts: repeated queries / empty validated POST", cached, "none set")


def busy(arguments: argparse.Namespace) -> None:
    """Prompt requests beside long work."""
    ratios: dict[str, list[float]] = {"embedding": [], "selecting": []}
    with tempfile.TemporaryDirectory() as folder, service(Path(folder), arguments.encoder) as running:
        running.wait(running.pool("small", arguments.encoder, 1_000, 1_000))
        for run in range(arguments.runs):
            good(closed_loop(running.port, "/v1/prompts", asked(texts(50, 500 + run), "small"), 1))
            idle = statistics.median(_medians(running, 510 + run))
            job = running.pool(f"large{run}", arguments.encoder, arguments.items, 0, seed=run)
            _until_running(running, job)
            ratios["embedding"].append(statistics.median(_medians(running, 520 + run)) / idle)
            running.call("POST", f"/v1/jobs/{job}/cancel")
            hashed = running.pool(f"hashed{run}", "hash", arguments.items, 0, seed=run)
            running.wait(hashed)
            chosen = running.call("POST", f"/v1/pools/hashed{run}/selections", {"budget": 100})["job"]
            _until_running(running, chosen)
            ratios["selecting"].append(statistics.median(_medians(running, 530 + run)) / idle)
            still = running.call("GET", f"/v1/jobs/{chosen}")["state"]
            print(f"  run {run}: idle {1e3 * idle:.1f} ms; the selection was {still} when its measurement ended")
            if still == "running":
                running.call("POST", f"/v1/jobs/{chosen}/cancel")
    for name, found in ratios.items():
        show(f"busy: median while {name} {arguments.items:,} items / idle", found, "< 2")


def _medians(running: Service, seed: int) -> list[float]:
    return good(closed_loop(running.port, "/v1/prompts", asked(texts(150, seed), "small"), 1)).latencies


def _until_running(running: Service, job: str) -> None:
    while (found := running.call("GET", f"/v1/jobs/{job}"))["state"] == "queued" or not found["done"]:
        if found["state"] not in ("queued", "running"):
            sys.exit(f"job {job} ended before it could be measured: {found}")
        if found["kind"] == "select" and found["state"] == "running":
            return
        time.sleep(0.1)


def start(arguments: argparse.Namespace) -> None:
    """From nothing to ready, on a data directory that is full."""
    times = []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        with service(folder, "hash") as running:
            running.wait(running.pool("t", "hash", arguments.items, 1_000))
            running.wait(running.pool("small", arguments.encoder, 500, 500))  # so that its encoder is loaded too
        for _ in range(arguments.runs):
            with service(folder, arguments.encoder) as running:
                times.append(running.ready_after)
                first = good(closed_loop(running.port, "/v1/prompts", asked(texts(1, 600), "t"), 1)).latencies[0]
                memory = ", ".join(f"{what} {size:.0f} MiB" for what, size in running.resident().items())
                print(f"  ready after {running.ready_after:.1f} s; first prompt {1e3 * first:.0f} ms later; {memory}")
    show(f"start: seconds to /ready with {arguments.items:,} items and 1,000 labels", times, "< 15")


if __name__ == "__main__":
    main()
