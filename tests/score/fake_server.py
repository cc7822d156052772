"""A small HTTP server on this machine that speaks OpenAI's API like vLLM and others do, deterministically.

Its model has no weights: the probabilities of the next token are made of a hash of all tokens before it. What it
offers, and how it fails, is set by the test.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import threading
from array import array
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import numpy as np

from icl_select.score.http.limits import Clock, Stopped
from icl_select.types import FloatArray

MODEL = "fake"

EVERYTHING = frozenset({"reads", "ids", "echo", "zero", "id_strings", "logprobs", "structured_outputs", "listing"})
"""What a server may offer.

``reads`` is logprob_token_ids, ``ids`` prompts of token ids, ``echo`` the prompt's log-probabilities, ``zero`` echo
with max_tokens=0, ``id_strings`` tokens shown as ids, ``logprobs`` those of generated tokens, ``listing`` /v1/models;
the names of constraints stand for themselves, and ``max_completion_tokens`` for servers that refuse max_tokens.
"""


class VirtualClock(Clock):
    """Time that passes only by waiting."""

    def __init__(self) -> None:
        self.time = 1000.0
        self.sleeps: list[float] = []
        self._lock = threading.Lock()

    def now(self) -> float:
        return self.time

    def wall(self) -> float:
        return self.time

    def sleep(self, seconds: float, stop: threading.Event) -> None:
        if stop.is_set():
            raise Stopped
        with self._lock:
            self.sleeps.append(seconds)
            # A wait too short to change the sum must still end.
            self.time = max(self.time + seconds, float(np.nextafter(self.time, np.inf)))


@dataclass
class Fault:
    """One request that goes wrong: a status with headers and body, or the connection dropped or left hanging."""

    status: int = 500
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes = b'{"error": {"message": "it broke", "type": "server_error", "code": null}}'
    drop: bool = False
    hang: bool = False


@dataclass
class Seen:
    """A request that came."""

    path: str
    body: dict[str, Any]
    headers: dict[str, str]


class Refusal(Exception):  # noqa: N818
    """The request is answered with an error."""

    def __init__(self, message: str, status: int = 400) -> None:
        super().__init__(message)
        self.status = status


class FakeServer:
    """Runs while its ``with`` block does.

    Parameters
    ----------
    tokenizer : transformers tokenizer
    offers : set of str
        See :data:`EVERYTHING`.
    key : str, optional
        The only key that is taken.
    max_length : int, default=2048

    Attributes
    ----------
    seen : list of Seen
        POST requests, in the order in which they came.
    faults : deque of Fault or None
        What the next POST requests meet; None for nothing.
    dies_after : int or None
        Answers that are given before the server is gone.
    most_at_once : int
        Requests that were in flight together at most.
    gate : callable, optional
        Called with the body of every POST before it is answered.
    """

    def __init__(
        self,
        tokenizer: Any,
        offers: frozenset[str] | set[str] = EVERYTHING,
        *,
        key: str | None = None,
        max_length: int = 2048,
    ) -> None:
        self.tokenizer = tokenizer
        self.offers = frozenset(offers)
        self.key = key
        self.max_length = max_length
        self.seen: list[Seen] = []
        self.looks: list[str] = []
        self.faults: deque[Fault | None] = deque()
        self.dies_after: int | None = None
        self.gate: Callable[[dict[str, Any]], None] | None = None
        self.said: str | None = None
        self.most_at_once = 0
        self._at_once = 0
        self.answered = 0
        self.lock = threading.Lock()
        self.closing = threading.Event()
        self._http = ThreadingHTTPServer(("127.0.0.1", 0), _Handler)
        self._http.daemon_threads = True
        self._http.fake = self  # type: ignore[attr-defined]
        self.port = self._http.server_address[1]
        self._thread = threading.Thread(target=self._http.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/v1"

    def __enter__(self) -> FakeServer:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.die()

    def die(self) -> None:
        """Take no connection any more."""
        if not self.closing.is_set():
            self.closing.set()
            self._http.shutdown()
            self._http.server_close()

    @contextlib.contextmanager
    def counted(self) -> Iterator[None]:
        with self.lock:
            self._at_once += 1
            self.most_at_once = max(self.most_at_once, self._at_once)
        try:
            yield
        finally:
            with self.lock:
                self._at_once -= 1

    # The model.

    def logprobs(self, ids: Sequence[int]) -> FloatArray:
        """Log-probabilities of every next token."""
        digest = hashlib.sha256(array("q", ids).tobytes()).digest()
        logits = np.random.default_rng(int.from_bytes(digest[:8], "big")).normal(0, 2, len(self.tokenizer))
        out: FloatArray = logits - np.log(np.exp(logits).sum())
        return out

    def encode(self, prompt: str | list[int]) -> list[int]:
        if isinstance(prompt, str):
            return list(self.tokenizer(prompt)["input_ids"])
        if "ids" not in self.offers:
            raise Refusal("prompt must be a string")
        return prompt

    def shown(self, token: int, as_ids: bool) -> str:
        return f"token_id:{token}" if as_ids else str(self.tokenizer.decode([token]))

    def generate(self, ids: Sequence[int], body: Mapping[str, Any]) -> tuple[list[int], str, str]:
        """Ids, text and finish reason."""
        limit = body.get("max_tokens", body.get("max_completion_tokens", 16))
        rng = np.random.default_rng(body.get("seed"))
        made: list[int] = []
        while len(made) < limit:
            values = self.logprobs([*ids, *made])
            hot = body.get("temperature", 1.0)
            made.append(int(np.argmax(values + (hot * rng.gumbel(size=len(values)) if hot else 0.0))))
            text = str(self.tokenizer.decode(made))
            for stop in body.get("stop") or ():
                if stop in text:
                    return made, text[: text.index(stop)], "stop"
        return made, str(self.tokenizer.decode(made)), "length"

    # The endpoints.

    def completions(self, body: Mapping[str, Any]) -> dict[str, Any]:
        prompts = body["prompt"]
        many = isinstance(prompts, list) and (not prompts or not isinstance(prompts[0], int))
        choices, read, written = [], 0, 0
        for index, prompt in enumerate(prompts if many else [prompts]):
            ids = self.encode(prompt)
            limit = body.get("max_tokens", 16)
            if len(ids) + max(limit, 1) > self.max_length:
                raise Refusal(f"This model's maximum context length is {self.max_length} tokens, not {len(ids)}")
            made = self._echo(ids, body) if body.get("echo") else self._continue(ids, body)
            choices.append({"index": index, **made})
            read, written = read + len(ids), written + limit
        # Answers need not come in the order of the prompts.
        return {"choices": choices[::-1], "usage": {"prompt_tokens": read, "completion_tokens": written}}

    def _echo(self, ids: list[int], body: Mapping[str, Any]) -> dict[str, Any]:
        limit = body.get("max_tokens", 16)
        if "echo" not in self.offers:
            raise Refusal("echo is not supported with logprobs")
        if limit == 0 and "zero" not in self.offers:
            raise Refusal("max_tokens must be at least 1")
        as_ids = bool(body.get("return_tokens_as_token_ids")) and "id_strings" in self.offers
        whole = [*ids, *self.generate(ids, {**body, "stop": None})[0]]
        numbers = [None] + [float(self.logprobs(whole[:pos])[whole[pos]]) for pos in range(1, len(whole))]
        tokens = [self.shown(token, as_ids) for token in whole]
        offsets = np.cumsum([0, *map(len, tokens)])[:-1].tolist()
        shown = {"tokens": tokens, "token_logprobs": numbers, "text_offset": offsets}
        return {"text": str(self.tokenizer.decode(whole)), "logprobs": shown, "finish_reason": "length"}

    def _continue(self, ids: list[int], body: Mapping[str, Any]) -> dict[str, Any]:
        made, text, reason = self.generate(ids, body)
        out: dict[str, Any] = {"text": text, "finish_reason": reason, "logprobs": None}
        if body.get("logprobs") is not None:
            if "logprobs" not in self.offers:
                raise Refusal("logprobs are not supported")
            as_ids = bool(body.get("return_tokens_as_token_ids")) and "id_strings" in self.offers
            numbers, top = [], []
            for pos, token in enumerate(made):
                values = self.logprobs([*ids, *made[:pos]])
                numbers.append(float(values[token]))
                wanted = (body.get("logprob_token_ids") or []) if "reads" in self.offers else []
                top.append({self.shown(one, as_ids): float(values[one]) for one in (token, *wanted)})
            tokens = [self.shown(token, as_ids) for token in made]
            out["logprobs"] = {"tokens": tokens, "token_logprobs": numbers, "top_logprobs": top}
        if body.get("return_token_ids") and "reads" in self.offers:
            out["prompt_token_ids"] = ids
        return out

    def chat(self, body: Mapping[str, Any]) -> dict[str, Any]:
        if "max_tokens" in body and "max_completion_tokens" in self.offers:
            raise Refusal("Unsupported parameter: 'max_tokens'. Use 'max_completion_tokens' instead.")
        if body.get("logprobs") and "logprobs" not in self.offers:
            raise Refusal("logprobs are not supported")
        ids = self.encode("".join(f"{one['role']}: {one['content']}\n" for one in body["messages"]) + "assistant:")
        made, text, reason = self.generate(ids, body)
        text, reason = self._constrained(ids, body) or (text, reason)
        out: dict[str, Any] = {"index": 0, "message": {"role": "assistant", "content": text}, "finish_reason": reason}
        if body.get("logprobs"):
            values = [float(self.logprobs([*ids, *made[:pos]])[token]) for pos, token in enumerate(made)]
            out["logprobs"] = {"content": [{"token": "x", "logprob": value} for value in values]}
        return {"choices": [out], "usage": {"prompt_tokens": len(ids), "completion_tokens": len(made)}}

    def _constrained(self, ids: Sequence[int], body: Mapping[str, Any]) -> tuple[str, str] | None:
        asked = {
            "structured_outputs": (body.get("structured_outputs") or {}).get("choice"),
            "guided_choice": body.get("guided_choice"),
        }
        form = body.get("response_format")
        if form:
            asked["json_schema"] = form["json_schema"]["schema"]["properties"]["answer"]["enum"]
        for name, choices in asked.items():
            if choices and name in self.offers:
                # The likeliest first token decides.
                firsts = [self.tokenizer(choice)["input_ids"][0] for choice in choices]
                best = choices[int(np.argmax(self.logprobs(ids)[firsts]))]
                said = best if self.said is None or "zq7x" in choices else self.said
                return (json.dumps({"answer": said}) if name == "json_schema" else said), "stop"
        return None


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    # One packet for head and body: else every answer waits for the client's delayed acknowledgement.
    wbufsize = -1

    @property
    def fake(self) -> FakeServer:
        return self.server.fake  # type: ignore[attr-defined,no-any-return]

    def log_message(self, format: str, *args: Any) -> None:
        """Nothing on stderr."""

    def do_GET(self) -> None:
        self.fake.looks.append(self.path)
        if not self._may():
            return
        if self.path == "/v1/models" and "listing" in self.fake.offers:
            entry = {"id": MODEL, "root": "org/fake", "max_model_len": self.fake.max_length}
            self._answer(200, {"object": "list", "data": [entry]})
        elif self.path == "/version" and "reads" in self.fake.offers:
            self._answer(200, {"version": "9.9"})
        else:
            self._error("Not Found", 404)

    def do_POST(self) -> None:
        fake = self.fake
        body = json.loads(self.rfile.read(int(self.headers["content-length"])))
        with fake.lock:
            dead = fake.closing.is_set() or (fake.dies_after is not None and fake.answered >= fake.dies_after)
            if not dead:
                fake.seen.append(Seen(self.path, body, {key.lower(): value for key, value in self.headers.items()}))
                fault = fake.faults.popleft() if fake.faults else None
                fake.answered += fault is None
        if dead:
            threading.Thread(target=fake.die, daemon=True).start()
            self.close_connection = True
            return
        with fake.counted():
            if fake.gate is not None:
                fake.gate(body)
            if fault is not None:
                self._fail(fault)
            elif self._may():
                self._work(body)

    def _work(self, body: dict[str, Any]) -> None:
        make = {"/v1/completions": self.fake.completions, "/v1/chat/completions": self.fake.chat}.get(self.path)
        try:
            if make is None:
                raise Refusal("Not Found", 404)
            if body.get("model") != MODEL:
                raise Refusal(f"The model `{body.get('model')}` does not exist.", 404)
            self._answer(200, {"model": MODEL, "system_fingerprint": "fp_1", **make(body)})
        except Refusal as exc:
            self._error(str(exc), exc.status)

    def _may(self) -> bool:
        given = self.headers.get("authorization", "")
        if self.fake.key is None or given == f"Bearer {self.fake.key}":
            return True
        self._error(f"Incorrect API key provided: {given.removeprefix('Bearer ')}", 401)
        return False

    def _fail(self, fault: Fault) -> None:
        if fault.hang:
            self.fake.closing.wait(30)
        if fault.hang or fault.drop:
            self.close_connection = True
            return
        self._send(fault.status, fault.body, fault.headers)

    def _error(self, message: str, status: int) -> None:
        self._answer(status, {"error": {"message": message, "type": "invalid_request_error", "code": None}})

    def _answer(self, status: int, body: Mapping[str, Any]) -> None:
        self._send(status, json.dumps(body).encode(), {})

    def _send(self, status: int, body: bytes, headers: Mapping[str, str]) -> None:
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            self.send_response(status)
            for key, value in {"content-type": "application/json", "content-length": str(len(body)), **headers}.items():
                self.send_header(key, value)
            self.end_headers()
            self.wfile.write(body)
            self.wfile.flush()
