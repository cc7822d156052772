"""An OpenAI-compatible server on this machine, for tests: it keeps what it was sent, and answers as it is told."""

from __future__ import annotations

import contextlib
import json
import select
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

HEADERS = {
    "x-request-id": "up-1",
    "x-ratelimit-remaining-requests": "41",
    "openai-processing-ms": "7",
    "set-cookie": "whose=another; Path=/",
    "x-inner-host": "10.0.0.7",
    "keep-alive": "timeout=5",
}
PATIENCE = 30.0


@dataclass
class Seen:
    """A request as it came."""

    method: str
    path: str
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        """The body."""
        return json.loads(self.body)


class Exchange(BaseHTTPRequestHandler):
    """One connection. What the server's ``behave`` does with it is the answer."""

    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    server: UpstreamServer
    seen: Seen

    def setup(self) -> None:
        super().setup()
        with self.server.lock:
            self.server.connections += 1

    def finish(self) -> None:
        with contextlib.suppress(OSError):
            super().finish()
        with self.server.lock:
            self.server.connections -= 1

    def log_message(self, *_: Any) -> None:
        """Say nothing."""

    def do_GET(self) -> None:
        self._take()

    def do_POST(self) -> None:
        self._take()

    def _take(self) -> None:
        body = self.rfile.read(int(self.headers.get("content-length", 0)))
        headers = {name.lower(): value for name, value in self.headers.items()}
        self.seen = Seen(self.command, self.path, headers, body)
        with self.server.lock:
            self.server.seen.append(self.seen)
        try:
            self.server.behave(self)
        except TimeoutError:  # the other side does not read
            self.server.blocked.set()
            self.close_connection = True
        except OSError:  # the other side has gone
            self.server.gone.set()
            self.close_connection = True

    def start(self, status: int, headers: dict[str, str]) -> None:
        """Status and headers."""
        self.send_response_only(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()

    def whole(self, status: int, body: bytes, headers: dict[str, str] | None = None) -> None:
        """A whole answer."""
        own = {"content-type": "application/json", "content-length": str(len(body))}
        self.start(status, {**own, **HEADERS, **(headers or {})})
        self.wfile.write(body)

    def chunk(self, data: bytes) -> None:
        """A piece of a chunked answer; an empty one ends it."""
        self.wfile.write(b"%x\r\n%b\r\n" % (len(data), data))

    def event(self, data: str) -> None:
        """A server-sent event."""
        self.chunk(f"data: {data}\n\n".encode())

    def begin_events(self) -> None:
        """Headers of a stream."""
        self.start(200, {"content-type": "text/event-stream; charset=utf-8", "transfer-encoding": "chunked", **HEADERS})

    def break_off(self) -> None:
        """End the connection in the middle of what it carries."""
        self.close_connection = True

    def wait_until_left(self) -> None:
        """Return when the other side has closed the connection."""
        ready, _, _ = select.select([self.connection], [], [], PATIENCE)
        if ready and not self.connection.recv(1):
            self.server.gone.set()
        self.close_connection = True


class UpstreamServer(ThreadingHTTPServer):
    """Runs while its ``with`` block of :func:`serve_upstream` does.

    ``step`` lets streams send one event for each release when ``stepwise`` is true.
    """

    daemon_threads = True
    request_queue_size = 256

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Exchange)
        self.lock = threading.Lock()
        self.reset()
        self.connections = 0

    def reset(self) -> None:
        """Forget everything and answer as a model would."""
        self.seen: list[Seen] = []
        self.behave: Callable[[Exchange], None] = converse
        self.gone = threading.Event()
        self.blocked = threading.Event()
        self.stepwise = False
        self.step = threading.Semaphore(0)

    @property
    def url(self) -> str:
        """The base URL."""
        return f"http://127.0.0.1:{self.server_address[1]}/v1"


@contextlib.contextmanager
def serve_upstream() -> Iterator[UpstreamServer]:
    """A server, until the block ends."""
    server = UpstreamServer()
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()
        thread.join(PATIENCE)


def converse(exchange: Exchange) -> None:
    """Answer as a model that repeats the last thing it was told."""
    path = exchange.seen.path.partition("?")[0]
    if path == "/v1/models":
        models = [{"id": name, "object": "model", "created": 1, "owned_by": "test"} for name in ("small", "org/large")]
        exchange.whole(200, json.dumps({"object": "list", "data": models}).encode())
    elif path == "/v1/chat/completions":
        body = exchange.seen.json
        said = body["messages"][-1]["content"]
        (stream_chat if body.get("stream") else answer_chat)(exchange, said if isinstance(said, str) else "parts")
    elif path == "/v1/completions":
        prompts = exchange.seen.json["prompt"]
        texts = prompts if isinstance(prompts, list) else [prompts]
        choices = [{"index": i, "text": text[-5:], "finish_reason": "stop"} for i, text in enumerate(texts)]
        exchange.whole(200, json.dumps({"id": "c", "object": "text_completion", "choices": choices}).encode())
    else:
        exchange.whole(404, b'{"error": {"message": "no such route", "type": "invalid_request_error"}}')


def answer_chat(exchange: Exchange, said: str) -> None:
    """The whole answer at once."""
    message = {"role": "assistant", "content": said}
    choice = {"index": 0, "message": message, "finish_reason": "stop"}
    found = {"id": "chat", "object": "chat.completion", "created": 1, "model": exchange.seen.json["model"]}
    exchange.whole(200, json.dumps({**found, "choices": [choice]}).encode())


def stream_chat(exchange: Exchange, said: str) -> None:
    """The answer word by word."""
    exchange.begin_events()
    for word in said.split():
        if exchange.server.stepwise:
            exchange.server.step.acquire(timeout=PATIENCE)
        exchange.event(delta(word))
    exchange.event("[DONE]")
    exchange.chunk(b"")


def delta(word: str) -> str:
    """A piece of a streamed chat."""
    choice = {"index": 0, "delta": {"content": word}, "finish_reason": None}
    return json.dumps(
        {"id": "chat", "object": "chat.completion.chunk", "created": 1, "model": "m", "choices": [choice]}
    )
