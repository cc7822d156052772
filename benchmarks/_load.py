"""A load generator for one machine: raw HTTP/1.1 over kept connections, so that it costs little beside the server."""

from __future__ import annotations

import asyncio
import json
import random
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Load:
    """What a run of requests took; latencies in seconds, in the order of the requests."""

    seconds: float
    latencies: list[float]
    bad: int

    @property
    def rate(self) -> float:
        """Answers a second."""
        return len(self.latencies) / self.seconds

    def quantile(self, level: float) -> float:
        """Latency at a level."""
        ordered = sorted(self.latencies)
        return ordered[min(len(ordered) - 1, int(level * len(ordered)))]


class Connection:
    """One connection, one request at a time."""

    def __init__(self, host: str, port: int) -> None:
        self._host, self._port = host, port
        self._streams: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None

    async def send(self, path: str, body: bytes) -> int:
        """POST a JSON body; return the status, once the whole answer is read."""
        if self._streams is None or self._streams[0].at_eof():  # a server closes what is idle for long
            self.close()
            self._streams = await asyncio.open_connection(self._host, self._port)
        reader, writer = self._streams
        head = (
            f"POST {path} HTTP/1.1\r\nHost: {self._host}:{self._port}\r\nContent-Type: application/json\r\n"
            f"Content-Length: {len(body)}\r\n\r\n"
        )
        writer.write(head.encode() + body)
        answer = await reader.readuntil(b"\r\n\r\n")
        length = 0
        for line in answer.split(b"\r\n"):
            if line.lower().startswith(b"content-length:"):
                length = int(line.split(b":")[1])
        await reader.readexactly(length)
        return int(answer.split(b" ", 2)[1])

    def close(self) -> None:
        """Close it."""
        if self._streams is not None:
            self._streams[1].close()


def closed_loop(port: int, path: str, bodies: Sequence[Any], concurrency: int, pause: float = 0.0) -> Load:
    """So many clients, each sending its next request when its last is answered, or some random seconds after that."""
    return asyncio.run(_closed(port, path, [json.dumps(body).encode() for body in bodies], concurrency, pause))


async def _closed(port: int, path: str, bodies: list[bytes], concurrency: int, pause: float) -> Load:
    pauses = random.Random(0)
    latencies = [0.0] * len(bodies)
    left = iter(range(len(bodies)))
    bad = 0

    async def client() -> None:
        nonlocal bad
        connection = Connection("127.0.0.1", port)
        for place in left:
            if pause:
                await asyncio.sleep(pauses.expovariate(1 / pause))
            begun = time.perf_counter()
            bad += await connection.send(path, bodies[place]) != 200
            latencies[place] = time.perf_counter() - begun
        connection.close()

    begun = time.perf_counter()
    await asyncio.gather(*(client() for _ in range(concurrency)))
    return Load(time.perf_counter() - begun, latencies, bad)


def open_loop(port: int, path: str, bodies: Sequence[Any], rate: float, seed: int = 0) -> Load:
    """Requests that arrive at random moments, so many a second on average, whether or not others are answered."""
    return asyncio.run(_open(port, path, [json.dumps(body).encode() for body in bodies], rate, seed))


async def _open(port: int, path: str, bodies: list[bytes], rate: float, seed: int) -> Load:
    gaps = random.Random(seed)
    latencies = [0.0] * len(bodies)
    idle: list[Connection] = []
    bad = 0

    async def request(place: int, due: float) -> None:
        nonlocal bad
        connection = idle.pop() if idle else Connection("127.0.0.1", port)
        bad += await connection.send(path, bodies[place]) != 200
        latencies[place] = time.perf_counter() - due
        idle.append(connection)

    begun = due = time.perf_counter()
    running = []
    for place in range(len(bodies)):
        due += gaps.expovariate(rate)
        await asyncio.sleep(max(0.0, due - time.perf_counter()))
        # From the moment at which it was due: a late generator must not hide that the server is slow.
        running.append(asyncio.create_task(request(place, due)))
    await asyncio.gather(*running)
    for connection in idle:
        connection.close()
    return Load(time.perf_counter() - begun, latencies, bad)
