"""What a call is, apart from how it is sent.

A call is a generator, a :data:`Flow`: it yields what is to be done next, a :class:`Request` or a :class:`Pause`, is
sent what came of it, and returns its result. It does no input or output, so the same flow serves the synchronous and
the asynchronous client, and its waiting and trying again can be tested without a clock or a server.
"""

from __future__ import annotations

import functools
import json
import random
import time
from collections.abc import Callable, Generator, Hashable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Protocol, TypeAlias, TypeVar, cast
from urllib.parse import quote

from pydantic import TypeAdapter, ValidationError

from icl_select.client.errors import AnswerError, UnreachableError, problem, retry_after
from icl_select.errors import ParameterError

__all__ = [
    "Answer",
    "Broken",
    "Flow",
    "Pause",
    "Policy",
    "Reply",
    "Request",
    "Sink",
    "Step",
    "Turn",
    "content_of",
    "fetch",
    "read",
    "read_object",
    "segment",
    "steady",
    "success",
    "to_json",
]

T = TypeVar("T")

# Statuses that another try may change.
_BUSY = (429, 503)
_LONGEST_PAUSE = 30.0


class Sink(Protocol):
    """Takes the body of a success as it comes."""

    def start(self) -> None:
        """A body begins; what came of an earlier try is void."""

    def feed(self, chunk: bytes) -> bool:
        """Take a part; True ends the reading."""


@dataclass(frozen=True, slots=True)
class Request:
    """One request. ``body`` opens the content anew for each try; ``content`` is small and in memory.

    ``patience`` is how long each step of sending and reading may take, where the time of the whole cannot be known;
    ``within`` limits the time of the whole below that of the client.
    """

    method: str
    path: str
    params: Mapping[str, str | int | bool] = field(default_factory=dict)
    headers: Mapping[str, str] = field(default_factory=dict)
    content: bytes | None = None
    body: Callable[[], Iterator[bytes]] | None = None
    sink: Sink | None = None
    patience: float | None = None
    within: float | None = None
    repeatable: bool = True


@dataclass(frozen=True, slots=True)
class Pause:
    """Do nothing for so long."""

    seconds: float


@dataclass(frozen=True, slots=True)
class Answer:
    """What the service answered, error or not. ``content`` is empty where a sink took it."""

    status: int
    headers: Mapping[str, str]
    content: bytes = b""

    @property
    def ok(self) -> bool:
        """Whether it is a success."""
        return 200 <= self.status < 300


@dataclass(frozen=True, slots=True)
class Broken:
    """No whole answer came."""

    reason: str


Step: TypeAlias = Request | Pause
Reply: TypeAlias = Answer | Broken | None
Flow: TypeAlias = Generator[Step, Reply, T]
Turn: TypeAlias = Callable[[Any], Flow[tuple[tuple[T, ...], Any]]]
"""Gives the rows after a cursor (None at first) and the next cursor, None after the last rows."""


@dataclass(frozen=True, slots=True)
class Policy:
    """How often a request is tried.

    ``retries`` further tries at most, all within ``timeout`` seconds; pauses double from ``backoff`` seconds.
    """

    retries: int = 3
    timeout: float = 60.0
    backoff: float = 0.5
    clock: Callable[[], float] = time.monotonic


def steady(flow: Flow[T], policy: Policy) -> Flow[T]:
    """The same flow, each of its requests tried again as the policy says.

    Tried again are requests that change nothing when they come twice: those that read (a prompt is made of what was
    asked, so asking for it reads), set or delete, and those with an ``Idempotency-Key``. They are tried after a broken
    connection, after 429 and 503, and after 409 with a ``Retry-After``.
    """
    reply: Reply = None
    try:
        while True:
            try:
                step = flow.send(reply)
            except StopIteration as stop:
                result: T = stop.value
                return result
            if isinstance(step, Pause):
                reply = yield step
            else:
                reply = yield from _tries(step, policy)
    finally:
        flow.close()


def _tries(request: Request, policy: Policy) -> Flow[Answer | Broken]:
    ends = policy.clock() + min(policy.timeout, request.within or policy.timeout)
    lost, tried = False, 0
    while True:
        seconds = request.patience if request.patience is not None else max(ends - policy.clock(), 0.001)
        reply = yield replace(request, patience=seconds)
        assert reply is not None
        if lost and request.method == "DELETE" and isinstance(reply, Answer) and reply.status == 404:
            # The try before did it, and only its answer was lost.
            return Answer(204, reply.headers)
        pause = _pause(reply, tried, policy)
        if pause is None or not request.repeatable or tried >= policy.retries:
            return reply
        if request.patience is None and policy.clock() + pause >= ends:
            return reply
        lost = lost or isinstance(reply, Broken)
        tried += 1
        yield Pause(pause)


def _pause(reply: Answer | Broken, tried: int, policy: Policy) -> float | None:
    """Seconds until another try may help; None if none will."""
    # Scattered, so that clients that failed together do not return together.
    pause = min(policy.backoff * 2.0**tried, _LONGEST_PAUSE) * random.uniform(0.5, 1.0)
    if isinstance(reply, Broken):
        return pause
    asked = retry_after(reply.headers)
    # A conflict passes where the service says so: the same request is being answered just now.
    if reply.status not in _BUSY and (reply.status != 409 or asked is None):
        return None
    return pause if asked is None else asked + pause / 10


def fetch(request: Request, parse: Callable[[Answer], T]) -> Flow[T]:
    """Send a request and return what its answer means.

    Raises
    ------
    ServiceProblem
        If the service answers with an error.
    UnreachableError
        If it does not answer.
    AnswerError
        If the answer cannot be read.
    """
    reply = yield request
    return parse(success(request, reply))


def success(request: Request, reply: Reply) -> Answer:
    """The answer to a request, or the error that it stands for; see :func:`fetch`."""
    asked = f"{request.method} {request.path}"
    if isinstance(reply, Answer) and reply.ok:
        return reply
    if isinstance(reply, Answer):
        raise problem(reply.status, reply.headers, reply.content, asked)
    reason = reply.reason if isinstance(reply, Broken) else "nothing was sent"
    raise UnreachableError(f"{asked} got no answer: {reason}. Check the address, and that the service runs.")


@functools.cache
def _adapter(kind: Any) -> TypeAdapter[Any]:
    return TypeAdapter(kind)


def read(kind: type[T]) -> Callable[[Answer], T]:
    """A parser of answers that are a record of this kind, in JSON."""

    def parse(answer: Answer) -> T:
        return _checked(kind, lambda adapter: adapter.validate_json(answer.content))

    return parse


def read_object(answer: Answer) -> Mapping[str, Any]:
    """The answer as a JSON object."""
    return read(dict[str, Any])(answer)


def content_of(kind: type[T], value: Any) -> T:
    """A part of a JSON answer as a record of this kind.

    Raises
    ------
    AnswerError
        If it is none.
    """
    return _checked(kind, lambda adapter: adapter.validate_python(value))


def _checked(kind: type[T], validate: Callable[[TypeAdapter[Any]], T]) -> T:
    try:
        return validate(_adapter(cast("Hashable", kind)))
    except ValidationError as exc:
        first = exc.errors(include_input=False, include_url=False)[0]
        where = ".".join(str(part) for part in first["loc"]) or "the whole"
        raise AnswerError(
            f"the answer is no {getattr(kind, '__name__', kind)}: {where}: {first['msg']}. Check that the address is "
            "that of the service, and that client and service are of about the same version."
        ) from None  # which would show what was answered, whatever that is


def segment(name: str) -> str:
    """A name as one part of a path, whatever it holds.

    Examples
    --------
    >>> segment("a/b c"), segment("..")
    ('a%2Fb%20c', '%2E%2E')
    """
    if not isinstance(name, str) or not name:
        raise ParameterError(f"{name!r} is no name or id. Pass a string that is not empty.")
    # A part of dots alone would be taken for a step up the path.
    return quote(name, safe="") if name.strip(".") else name.replace(".", "%2E")


def to_json(value: Any) -> bytes:
    """JSON in ASCII, which carries every Python string.

    Raises
    ------
    ParameterError
        If there is something in it that JSON cannot hold.
    """
    try:
        return json.dumps(value, allow_nan=False).encode()
    except (TypeError, ValueError, RecursionError) as exc:
        raise ParameterError(
            f"JSON cannot hold this: {exc}. Pass strings, numbers, booleans, lists and dicts."
        ) from exc
