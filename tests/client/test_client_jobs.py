"""Waiting for jobs: by events, by asking, for a bounded time."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Iterator
from typing import Any

import client_helpers as h
import httpx2
import pytest

from icl_select.client import (
    JobFailedError,
    NotFoundError,
    ServerError,
    UnreachableError,
    WaitTimeoutError,
    _jobs,
    records,
)
from icl_select.client._events import Watch

Job = records.Job


@pytest.fixture(autouse=True)
def short_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    """How long a job takes is not what these tests are about."""
    monkeypatch.setattr(_jobs, "_FIRST_PAUSE", 0.0)


def events(*jobs: dict[str, Any], end: bytes = b"\n") -> bytes:
    lines = [b"event: job" + end + b"data: " + json.dumps(job).encode() + end + end for job in jobs]
    return b": hello" + end + end + b"".join(lines)


def stream(content: bytes) -> httpx2.Response:
    return httpx2.Response(200, content=content, headers={"content-type": "text/event-stream"})


def test_events_tell_when_a_job_is_done(both: h.Both) -> None:
    seen: list[int] = []
    script = h.Script(
        stream(events(h.job("queued"), h.job("running", done=4), h.job("running", done=4), h.job("done", done=10)))
    )
    done = both.call(script, "wait", "j1", progress=lambda job: seen.append(job.done))
    assert (done.state, done.done) == ("done", 10)
    assert seen == [0, 4, 10]
    assert script.lines == ["GET /v1/jobs/j1/events"]
    assert script.requests[0].headers["accept"] == "text/event-stream"


class Endless(httpx2.SyncByteStream, httpx2.AsyncByteStream):
    """Events that go on after the job is done, as a stream that nobody closes."""

    def __init__(self) -> None:
        self.parts = iter([events(h.job("running")), events(h.job("done")), b": still here\n"])
        self.taken = 0

    def __iter__(self) -> Iterator[bytes]:
        for part in self.parts:
            self.taken += 1
            yield part
        raise AssertionError("the client reads on after the last event")

    async def __aiter__(self) -> AsyncIterator[bytes]:
        for part in self.parts:
            self.taken += 1
            yield part
        raise AssertionError("the client reads on after the last event")


def test_listening_ends_with_the_last_event(both: h.Both) -> None:
    body = Endless()
    script = h.Script()

    class Transport(httpx2.BaseTransport, httpx2.AsyncBaseTransport):
        def handle_request(self, request: httpx2.Request) -> httpx2.Response:
            return httpx2.Response(200, stream=body)

        async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
            return httpx2.Response(200, stream=body)

    assert both.call(script, "wait", "j1", setup={"transport": Transport()}).state == "done"
    assert body.taken == 2


@pytest.mark.parametrize(
    "deaf",
    [
        h.problem(404, "not-found"),
        h.problem(501, "no-events"),
        httpx2.RemoteProtocolError("peer closed connection"),
        httpx2.ReadTimeout(""),
        stream(b""),
        stream(b": nothing yet\n\n"),
    ],
    ids=lambda value: type(value).__name__,
)
def test_where_no_events_come_through_the_job_is_asked_for(both: h.Both, deaf: Any) -> None:
    script = h.Script(deaf, h.job("queued"), h.job("running"), h.job("done"))
    assert both.call(script, "wait", "j1").state == "done"
    assert script.lines == ["GET /v1/jobs/j1/events"] + ["GET /v1/jobs/j1"] * 3


def test_stream_that_breaks_off_is_opened_again(both: h.Both) -> None:
    """A service that restarts: half an event is void, and the job is asked for before listening again."""
    half = events(h.job("running", done=1)) + b'event: job\ndata: {"id":'
    script = h.Script(stream(half), h.job("queued", attempts=2), stream(events(h.job("done", attempts=2))))
    assert both.call(script, "wait", "j1").attempts == 2
    assert script.lines == ["GET /v1/jobs/j1/events", "GET /v1/jobs/j1", "GET /v1/jobs/j1/events"]


@pytest.mark.parametrize("state", ["failed", "cancelled"])
def test_job_that_failed_is_an_error(both: h.Both, state: str) -> None:
    error = {"detail": "the disk is full", "status": 507} if state == "failed" else None
    script = h.Script(stream(events(h.job(state, error=error, message="was cancelled"))))
    with pytest.raises(JobFailedError, match="the disk is full" if error else "was cancelled") as caught:
        both.call(script, "wait", "j1")
    assert caught.value.job.state == state
    assert isinstance(caught.value, RuntimeError)
    with pytest.raises(JobFailedError):
        both.call(h.Script(h.job("queued", id="j1"), stream(events(h.job(state)))), "embed", "tickets")


def test_waiting_ends_in_time(both: h.Both) -> None:
    def running(request: httpx2.Request) -> httpx2.Response:
        return httpx2.Response(200, json=h.job("running", done=4))

    asked = 0

    def service(request: httpx2.Request) -> httpx2.Response:
        nonlocal asked
        asked += 1
        assert asked < 10_000
        return h.problem(404) if request.url.path.endswith("/events") else running(request)

    with pytest.raises(WaitTimeoutError, match=r"not finished after 0\.05 s") as caught:
        both.call(service, "wait", "j1", timeout=0.05)
    assert caught.value.job is not None
    assert caught.value.job.done == 4
    assert isinstance(caught.value, TimeoutError)


def test_listening_ends_when_time_is_up() -> None:
    watch = Watch(None, ends=0.0)
    watch.start()
    assert watch.feed(b": only to keep the connection open\n")
    assert Watch(None, ends=float("inf")).feed(b": the same\n") is False


def test_waiting_for_a_job_that_is_not_there(both: h.Both) -> None:
    with pytest.raises(NotFoundError):
        both.call(h.Script(h.problem(404, "not-found"), h.problem(404, "not-found")), "wait", "j1")


def test_service_that_is_restarted_is_waited_for(both: h.Both) -> None:
    refused, starting = httpx2.ConnectError("refused"), h.problem(503, "unavailable")
    script = h.Script(stream(events(h.job("running"))), refused, refused, starting, starting, h.job("done"))
    assert both.call(script, "wait", "j1", setup={"retries": 0}).state == "done"


@pytest.mark.parametrize("away", [httpx2.ConnectError("refused"), h.problem(503, "unavailable")])
def test_service_that_stays_away_is_not_waited_for(both: h.Both, monkeypatch: pytest.MonkeyPatch, away: Any) -> None:
    monkeypatch.setattr(_jobs, "_OUTAGE", 0.0)
    with pytest.raises((UnreachableError, ServerError)):
        both.call(h.Script(away, away), "wait", "j1", setup={"retries": 0})


def test_service_that_fails_is_not_waited_for(both: h.Both) -> None:
    with pytest.raises(ServerError):
        both.call(h.Script(h.problem(404), h.problem(500, "internal")), "wait", "j1")


def test_finished_job_is_not_asked_for(both: h.Both) -> None:
    done = both.call(h.Script(h.job("done")), "job", "j1")
    assert isinstance(done, Job)
    assert both.call(h.Script(), "wait", done) is done


def test_events_come_in_any_pieces() -> None:
    whole = events(h.job("queued"), h.job("running", done=3, message="zwölf Sätze"), end=b"\r\n")
    for size in (1, 2, 7, len(whole)):
        seen: list[tuple[str, int]] = []
        watch = Watch(lambda job, seen=seen: seen.append((job.state, job.done)), ends=float("inf"))  # type: ignore[misc]
        watch.start()
        for start in range(0, len(whole), size):
            assert not watch.feed(whole[start : start + size])
        assert seen == [("queued", 0), ("running", 3)]
        assert watch.job is not None
        assert watch.job.message == "zwölf Sätze"


def test_data_of_several_lines_is_one_event() -> None:
    lines = json.dumps(h.job("done"), indent=1).encode().split(b"\n")
    watch = Watch(None, ends=float("inf"))
    watch.start()
    assert watch.feed(b"".join(b"data:" + line + b"\n" for line in lines) + b"id: 7\nretry: 10\n\n")
    assert watch.finished is not None


def test_long_work_is_waited_for(both: h.Both) -> None:
    done = stream(events(h.job("done")))
    script = h.Script(h.job("queued"), done)
    assert both.call(script, "embed", "tickets").state == "done"
    assert script.lines == ["POST /v1/pools/tickets/embeddings", "GET /v1/jobs/j1/events"]

    script = h.Script(h.selection(0, state="queued"), done, h.selection(3))
    assert both.call(script, "select", "tickets", 3).ids == ("i0", "i1", "i2")
    assert script.lines[2] == "GET /v1/pools/tickets/selections/s1?limit=1000"

    script = h.Script(h.job("queued"), done, {"n": 3})
    assert both.call(script, "density", "tickets", centre=True, seed=1) == {"n": 3}
    assert script.body(0) == {"centre": True, "seed": 1}
    assert script.lines == [
        "POST /v1/pools/tickets/density",
        "GET /v1/jobs/j1/events",
        "GET /v1/pools/tickets/density?format=json",
    ]

    script = h.Script(h.job("queued"), done, {"accuracy": 1.0})
    assert both.call(script, "evaluate", "tickets", ks=(1, 3)) == {"accuracy": 1.0}
    assert script.body(0) == {"ks": [1, 3]}
    assert script.lines[2] == "GET /v1/pools/tickets/evaluation"
