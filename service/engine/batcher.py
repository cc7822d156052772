"""Queries of many requests, taken together and fairly.

Each batch takes one query of each waiting request in turn, so a request of a thousand queries delays a single query by
one batch and not by a thousand.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import threading
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from icl_select.errors import DataError, EmbeddingError, ParameterError, PromptError, TemplateError

from ..errors import BusyError, TooLargeError, UnavailableError
from ..schemas import PromptOptions
from .answers import Answer

__all__ = ["Batcher", "Query", "Request", "blame", "blaming", "deliver", "fail", "give_up"]

# Bytes of all prompts of one request: they are in memory until the last one is made.
_MOST_BYTES = 256 * 1024 * 1024


@dataclass(eq=False)
class Request:
    """The queries of one request, and where their answers go. Its future belongs to the event loop.

    ``taken`` counts the queries that left the line, ``missing`` those without an answer, ``size`` the bytes of all
    answers; ``over`` says that the future was told how it ended, ``parked`` that it waits for something to be loaded;
    ``begun`` counts how often it was begun.
    """

    pool: str
    queries: Sequence[Any]
    options: PromptOptions
    loop: asyncio.AbstractEventLoop
    future: asyncio.Future[list[Answer]]
    taken: int = 0
    answers: list[Answer | None] = field(default_factory=list)
    missing: int = 0
    size: int = 0
    over: bool = False
    parked: bool = False
    begun: int = 0

    def __post_init__(self) -> None:
        self.restart()

    def restart(self) -> None:
        """Let it be answered from its first query on, whatever was answered before or is on its way."""
        self.begun += 1
        self.taken, self.missing, self.size = 0, len(self.queries), 0
        self.answers = [None] * len(self.queries)

    @property
    def left(self) -> int:
        """Queries that still wait in line."""
        return len(self.queries) - self.taken

    @property
    def gone(self) -> bool:
        """Whether nobody waits for it any more: it failed, or its client went away."""
        return self.over or self.future.cancelled()


@dataclass(eq=False)
class Query:
    """One query of a request on its way to an answer."""

    request: Request
    place: int
    begun: int
    answer: Answer | None = None

    @property
    def gone(self) -> bool:
        """Whether nobody waits for its answer any more."""
        return self.begun != self.request.begun or self.request.gone


class Batcher:
    """Where requests wait. Threads put them in; one thread takes batches out.

    Parameters
    ----------
    max_waiting : int
        Queries that may come before the last one of a request. Requests that wait for something to be loaded are
        counted apart.
    """

    def __init__(self, max_waiting: int) -> None:
        self._max_waiting = max_waiting
        self._requests: deque[Request] = deque()
        self._parked: set[Request] = set()
        self._waiting = 0
        self._changed = threading.Condition()
        self._closed = False
        self._woken = False
        # Queries answered a second, to say when to come again.
        self._rate = 50.0

    @property
    def waiting(self) -> int:
        """Queries that have not been taken yet."""
        return self._waiting

    def put(self, request: Request) -> None:
        """Let a request wait.

        Raises
        ------
        BusyError
            If too many queries would be answered before its last one. Since each request has its turn, a large one
            that waits is no reason to refuse a single query.
        UnavailableError
            If the batcher is closed.
        """
        with self._changed:
            if self._closed:
                raise UnavailableError("the service is being stopped. Try again in a moment.", retry_after=2)
            if self._waiting + request.left > self._max_waiting:
                before = sum(min(other.left, request.left) for other in self._requests if not other.gone)
                # One that is larger than the whole line may come when nobody waits: it is within the limit of requests.
                if before and before + request.left > self._max_waiting:
                    raise self._busy(before)
            self._append(request)

    def take(self, most: int, expecting: bool = False) -> list[Query] | None:
        """The next batch of at most so many queries, as soon as there is one; None when the batcher is closed.

        It may be empty after :meth:`wake`. Who is `expecting` that does not get None before.
        """
        with self._changed:
            while True:
                batch = self._fair(most)
                if batch or self._woken:
                    self._woken = False
                    return batch
                if self._closed and not expecting:
                    return None
                self._changed.wait()

    def wake(self) -> None:
        """Let :meth:`take` return, now or when it is called next."""
        with self._changed:
            self._woken = True
            self._changed.notify()

    def _fair(self, most: int) -> list[Query]:
        batch: list[Query] = []
        while self._requests and len(batch) < most:
            request = self._requests.popleft()
            if request.gone:
                self._waiting -= request.left
                continue
            batch.append(Query(request, request.taken, request.begun))
            request.taken += 1
            self._waiting -= 1
            if request.left:
                self._requests.append(request)
        return batch

    def park(self, request: Request) -> None:
        """Take a request out of the line, until :meth:`unpark`.

        Raises
        ------
        BusyError
            If too many are parked.
        UnavailableError
            If the batcher is closed.
        """
        with self._changed:
            if request in self._requests:
                self._requests.remove(request)
                self._waiting -= request.left
            if self._closed:
                raise UnavailableError("the service is being stopped. Try again in a moment.", retry_after=2)
            parked = sum(len(other.queries) for other in self._parked)
            if parked and parked + len(request.queries) > self._max_waiting:
                raise self._busy(parked)
            self._parked.add(request)

    def unpark(self, request: Request) -> None:
        """Let a parked request wait again, from its first query on. It waited before, so it is never refused."""
        with self._changed:
            if request not in self._parked:  # closed meanwhile
                return
            self._parked.remove(request)
            request.restart()
            request.parked = False
            self._append(request)

    def drop(self, request: Request) -> None:
        """Forget a parked request."""
        with self._changed:
            self._parked.discard(request)

    def _append(self, request: Request) -> None:
        self._requests.append(request)
        self._waiting += request.left
        self._changed.notify()

    def _busy(self, before: int) -> BusyError:
        return BusyError(
            f"{before} queries wait already, and {self._max_waiting} may. Come again a little later.",
            retry_after=int(before / max(self._rate, 1.0)) + 1,
        )

    def answered(self, count: int, seconds: float) -> None:
        """Note how fast queries were answered."""
        self._rate += 0.1 * (count / max(seconds, 1e-6) - self._rate)

    def close(self) -> list[Request]:
        """Take no more; return what waits."""
        with self._changed:
            self._closed = True
            left = [*self._requests, *self._parked]
            self._requests.clear()
            self._parked.clear()
            self._waiting = 0
            self._changed.notify_all()
        return left


# What a query can be blamed for; the message then says which one of its request it was.
_QUERY_ERRORS = (DataError, EmbeddingError, ParameterError, PromptError, TemplateError)


@contextlib.contextmanager
def blaming(query: Query) -> Iterator[None]:
    """Let an error in the block be the answer to the query's request, and to no other."""
    try:
        yield
    except Exception as exc:
        blame(query, exc)


def blame(query: Query, exc: Exception) -> None:
    """End the request of a query with an error that says, where it has several, which one is to blame."""
    if query.gone:
        return
    if len(query.request.queries) > 1 and type(exc) in _QUERY_ERRORS:
        exc = type(exc)(f"queries[{query.place}]: {exc}")
    fail(query.request, exc)


def give_up(query: Query, exc: Exception) -> None:
    """End the request of a query with an error that is no fault of the query."""
    if not query.gone:
        fail(query.request, exc)


def fail(request: Request, exc: BaseException) -> None:
    """End a request with an error; its other queries are not answered."""
    if request.over:
        return
    request.over = True
    _tell(request.loop, [functools.partial(_set_exception, request.future, exc)])


def deliver(batch: Sequence[Query]) -> None:
    """Hand answers to their requests; a request is answered when its last query is. Each loop is woken once."""
    ended: dict[asyncio.AbstractEventLoop, list[Callable[[], None]]] = {}
    for query in batch:
        request = query.request
        if query.answer is None or query.begun != request.begun or request.over:
            continue
        request.answers[query.place] = query.answer
        request.missing -= 1
        request.size += len(query.answer.body)
        if request.size > _MOST_BYTES:
            fail(request, _too_large(request))
        elif not request.missing:
            request.over = True
            answers = [answer for answer in request.answers if answer is not None]
            ended.setdefault(request.loop, []).append(functools.partial(_set_result, request.future, answers))
    for loop, calls in ended.items():
        _tell(loop, calls)


def _too_large(request: Request) -> TooLargeError:
    return TooLargeError(
        f"the prompts of these {len(request.queries)} queries have more than {_MOST_BYTES:,} bytes together. Send the "
        "queries in parts, or show less with each."
    )


def _set_result(future: asyncio.Future[list[Answer]], answers: list[Answer]) -> None:
    if not future.done():  # its client may have gone away
        future.set_result(answers)


def _set_exception(future: asyncio.Future[list[Answer]], exc: BaseException) -> None:
    if not future.done():
        future.set_exception(exc)


def _tell(loop: asyncio.AbstractEventLoop, calls: Sequence[Callable[[], None]]) -> None:
    def tell() -> None:
        for call in calls:
            call()

    with contextlib.suppress(RuntimeError):  # the event loop is closed: nobody waits any more
        loop.call_soon_threadsafe(tell)
