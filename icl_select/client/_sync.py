"""The synchronous client."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from types import TracebackType
from typing import ParamSpec, Self, TypeVar, cast

import httpx2

from icl_select.client import _about, _jobs, _labels, _pools, _prompts, _work
from icl_select.client._connection import Connection, Method, connect_within, described
from icl_select.client.flow import Answer, Broken, Flow, Pause, Reply, Request, Step, Turn, steady

__all__ = ["Client"]

P = ParamSpec("P")
T = TypeVar("T")


def _call(make: Callable[P, Flow[T]]) -> Method[P, T]:
    def method(self: Client, *args: P.args, **kwargs: P.kwargs) -> T:
        return self.run(make(*args, **kwargs))

    return cast("Method[P, T]", described(method, make, ("Flow", "")))


def _list(make: Callable[P, Turn[T]]) -> Method[P, Iterator[T]]:
    def method(self: Client, *args: P.args, **kwargs: P.kwargs) -> Iterator[T]:
        turn, cursor = make(*args, **kwargs), None
        while True:
            rows, cursor = self.run(turn(cursor))
            yield from rows
            if cursor is None:
                return

    return cast("Method[P, Iterator[T]]", described(method, make, ("Turn", "Iterator")))


class Client(Connection):
    """A client of the service of icl-select.

    Parameters
    ----------
    url : str, optional
        Where the service is, such as ``"http://127.0.0.1:8765"``; default: the environment variable ``ICS_URL``.
    key : str, optional
        Key to send; default: ``ICS_API_KEY``, and none if that is not set. It is shown nowhere.
    timeout : float, default=60
        Seconds for one request with all its tries. Uploads, downloads and waiting for jobs may take longer.
    retries : int, default=3
        Further tries after a broken connection, 429 and 503, if the request changes nothing when it comes twice. All
        do: those that make something carry an ``Idempotency-Key``.
    backoff : float, default=0.5
        Seconds before the first further try; doubled before each next one. A ``Retry-After`` of the service is kept.
    transport : httpx2.BaseTransport, optional
        What sends the requests, for tests and special networks.

    Raises
    ------
    ParameterError
        If there is no address, it is no HTTP address, or it holds a password.
    MissingDependencyError
        If the extra ``client`` is not installed.

    Notes
    -----
    Methods raise what :mod:`icl_select.client.errors` lists. Safe to use from several threads; close it, or use it
    in a ``with`` block.
    """

    def __init__(
        self,
        url: str | None = None,
        key: str | None = None,
        *,
        timeout: float = 60.0,
        retries: int = 3,
        backoff: float = 0.5,
        transport: httpx2.BaseTransport | None = None,
    ) -> None:
        super().__init__(url, key, timeout, retries, backoff)
        self._http = httpx2.Client(transport=transport, **self._options())

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the connections."""
        self._http.close()

    def run(self, flow: Flow[T]) -> T:
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
                reply = self._do(step)
        finally:
            steps.close()

    def _do(self, step: Step) -> Reply:
        if isinstance(step, Pause):
            time.sleep(step.seconds)
            return None
        try:
            with self._http.stream(
                step.method,
                self.url + step.path,
                params=dict(step.params) or None,
                headers=dict(step.headers),
                content=step.content if step.body is None else step.body(),
                timeout=httpx2.Timeout(step.patience, connect=connect_within(step.patience)),
            ) as response:
                return self._take(step, response)
        except httpx2.RequestError as exc:
            return Broken(str(exc) or type(exc).__name__)

    def _take(self, request: Request, response: httpx2.Response) -> Answer:
        headers = dict(response.headers)
        if request.sink is None or not response.is_success:
            content = response.read()
            return Answer(response.status_code, headers, content if response.is_success else self._scrub(content))
        request.sink.start()
        for chunk in response.iter_bytes():
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
