"""The asynchronous client."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from types import TracebackType
from typing import Any, ParamSpec, Self, TypeVar, cast

import httpx2

from icl_select.client import _about, _jobs, _labels, _pools, _prompts, _work
from icl_select.client._connection import Connection, Method, connect_within, described
from icl_select.client.flow import Answer, Broken, Flow, Pause, Reply, Request, Step, Turn, steady

__all__ = ["AsyncClient"]

P = ParamSpec("P")
T = TypeVar("T")


def _call(make: Callable[P, Flow[T]]) -> Method[P, Coroutine[Any, Any, T]]:
    async def method(self: AsyncClient, *args: P.args, **kwargs: P.kwargs) -> T:
        return await self.run(make(*args, **kwargs))

    return cast("Method[P, Coroutine[Any, Any, T]]", described(method, make, ("Flow", "")))


def _list(make: Callable[P, Turn[T]]) -> Method[P, AsyncIterator[T]]:
    async def method(self: AsyncClient, *args: P.args, **kwargs: P.kwargs) -> AsyncIterator[T]:
        turn, cursor = make(*args, **kwargs), None
        while True:
            rows, cursor = await self.run(turn(cursor))
            for row in rows:
                yield row
            if cursor is None:
                return

    return cast("Method[P, AsyncIterator[T]]", described(method, make, ("Turn", "AsyncIterator")))


async def _blocks(body: Iterator[bytes]) -> AsyncIterator[bytes]:
    """The blocks of a file, each read in a thread, so that the event loop never waits for a disk."""
    while block := await asyncio.to_thread(next, body, b""):
        yield block


class AsyncClient(Connection):
    """The same client for ``asyncio``; see :class:`icl_select.client.Client` for the parameters.

    Every method is awaited, but for ``pools``, ``items`` and ``labels``, which are read with ``async for``.

    Parameters
    ----------
    url, key, timeout, retries, backoff
        As for ``Client``.
    transport : httpx2.AsyncBaseTransport, optional
        What sends the requests, for tests and special networks.
    """

    def __init__(
        self,
        url: str | None = None,
        key: str | None = None,
        *,
        timeout: float = 60.0,
        retries: int = 3,
        backoff: float = 0.5,
        transport: httpx2.AsyncBaseTransport | None = None,
    ) -> None:
        super().__init__(url, key, timeout, retries, backoff)
        self._http = httpx2.AsyncClient(transport=transport, **self._options())

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        """Close the connections."""
        await self._http.aclose()

    async def run(self, flow: Flow[T]) -> T:
        """Carry out a flow; the methods below are flows by name.

        Parameters
        ----------
        flow : Flow
            See :mod:`icl_select.client.flow`.
        """
        steps = steady(flow, self._policy)
        reply: Reply = None
        try:
            while True:
                try:
                    step = steps.send(reply)
                except StopIteration as stop:
                    result: T = stop.value
                    return result
                reply = await self._do(step)
        finally:
            steps.close()

    async def _do(self, step: Step) -> Reply:
        if isinstance(step, Pause):
            await asyncio.sleep(step.seconds)
            return None
        try:
            async with self._http.stream(
                step.method,
                self.url + step.path,
                params=dict(step.params) or None,
                headers=dict(step.headers),
                content=step.content if step.body is None else _blocks(step.body()),
                timeout=httpx2.Timeout(step.patience, connect=connect_within(step.patience)),
            ) as response:
                return await self._take(step, response)
        except httpx2.RequestError as exc:
            return Broken(str(exc) or type(exc).__name__)

    async def _take(self, request: Request, response: httpx2.Response) -> Answer:
        headers = dict(response.headers)
        if request.sink is None or not response.is_success:
            content = await response.aread()
            return Answer(response.status_code, headers, content if response.is_success else self._scrub(content))
        request.sink.start()
        async for chunk in response.aiter_bytes():
            if request.sink.feed(chunk):
                break
        return Answer(response.status_code, headers)

    health = _call(_about.health)
    ready = _call(_about.ready)
    info = _call(_about.info)

    create_pool = _call(_pools.create_pool)
    pools = _list(_pools.pools)
    pool = _call(_pools.pool)
    update_pool = _call(_pools.update_pool)
    delete_pool = _call(_pools.delete_pool)
    add_items = _call(_pools.add_items)
    export_pool = _call(_pools.export_pool)
    items = _list(_pools.items)
    item = _call(_pools.item)

    next_items = _call(_labels.next_items)
    release = _call(_labels.release)
    label = _call(_labels.label)
    add_labels = _call(_labels.add_labels)
    labels = _list(_labels.labels)
    history = _call(_labels.history)
    agreement = _call(_labels.agreement)
    import_labels = _call(_labels.import_labels)
    export_labels = _call(_labels.export_labels)
    export_tasks = _call(_labels.export_tasks)

    job = _call(_jobs.job)
    jobs = _call(_jobs.jobs)
    wait = _call(_jobs.wait)
    cancel = _call(_jobs.cancel)
    embed = _call(_work.embed)
    select = _call(_work.select)
    selection = _call(_work.selection)
    selections = _call(_work.selections)
    density = _call(_work.density)
    density_report = _call(_work.density_report)
    density_image = _call(_work.density_image)
    evaluate = _call(_work.evaluate)
    evaluation = _call(_work.evaluation)

    prompt = _call(_prompts.prompt)
    prompts = _call(_prompts.prompts)
    rebuild = _call(_prompts.rebuild)
