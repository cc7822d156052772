"""When a request is tried again, how long before that, and when it is given up."""

from __future__ import annotations

from collections.abc import Generator
from dataclasses import replace
from typing import Any

import client_helpers as h
import httpx2
import pytest

from icl_select.client import BusyError, ConflictError, NotFoundError, ServerError, UnreachableError
from icl_select.client._requests import delete, get, post
from icl_select.client.flow import Answer, Broken, Pause, Policy, Request, fetch, steady

REFUSED = httpx2.ConnectError("Connection refused")
LOST = httpx2.ReadTimeout("")


class Clock:
    """A clock that is moved by the pauses of a flow, and by what each request takes."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def drive(
    flow: Generator[Any, Any, Any], clock: Clock, replies: list[Answer | Broken], takes: float = 0.0
) -> tuple[Any, list[Any]]:
    """Carry out a flow with these replies; returns its result, and requests and pauses as they came."""
    steps: list[Any] = []
    left = iter(replies)
    reply: Any = None
    while True:
        try:
            step = flow.send(reply)
        except StopIteration as stop:
            return stop.value, steps
        steps.append(step)
        if isinstance(step, Pause):
            clock.now += step.seconds
            reply = None
        else:
            clock.now += takes
            reply = next(left)


def status(answer: Answer) -> int:
    return answer.status


def pauses(steps: list[Any]) -> list[float]:
    return [step.seconds for step in steps if isinstance(step, Pause)]


@pytest.mark.parametrize("broken", [REFUSED, LOST, h.problem(503, "unavailable"), h.problem(429, "busy")])
def test_what_changes_nothing_twice_is_tried_again(both: h.Both, broken: Any) -> None:
    script = h.Script(broken, broken, h.pool())
    assert both.call(script, "pool", "tickets").name == "tickets"
    assert len(script.requests) == 3


def test_tries_of_a_request_that_makes_something_bear_one_name(both: h.Both) -> None:
    script = h.Script(LOST, httpx2.Response(201, json=h.pool()))
    both.call(script, "create_pool", "tickets")
    first, second = (request.headers["idempotency-key"] for request in script.requests)
    assert first == second
    assert script.requests[0].content == script.requests[1].content

    other = h.Script(httpx2.Response(201, json=h.pool()))
    both.call(other, "create_pool", "tickets")
    assert other.requests[0].headers["idempotency-key"] != first


def test_conflict_is_tried_again_only_where_the_service_says_so(both: h.Both) -> None:
    script = h.Script(h.problem(409, "conflict", headers={"Retry-After": "0"}), h.taken(1))
    assert both.call(script, "add_labels", "tickets", {"i0": "a"}).written == 1
    script = h.Script(h.problem(409, "conflict"))
    with pytest.raises(ConflictError):
        both.call(script, "create_pool", "tickets")
    assert len(script.requests) == 1


@pytest.mark.parametrize("code", [400, 401, 403, 404, 413, 422, 500, 501, 502, 507])
def test_other_errors_are_final(both: h.Both, code: int) -> None:
    script = h.Script(h.problem(code))
    with pytest.raises(Exception, match="it cannot be"):
        both.call(script, "pool", "tickets")
    assert len(script.requests) == 1


def test_tries_are_bounded(both: h.Both) -> None:
    script = h.Script(*[REFUSED] * 3)
    with pytest.raises(UnreachableError, match=r"GET /v1/pools/tickets got no answer: Connection refused"):
        both.call(script, "pool", "tickets", setup={"retries": 2})
    assert len(script.requests) == 3
    script = h.Script(*[h.problem(429, "busy", headers={"Retry-After": "0"})] * 4)
    with pytest.raises(BusyError):
        both.call(script, "pool", "tickets")
    assert len(script.requests) == 4
    script = h.Script(REFUSED)
    with pytest.raises(UnreachableError):
        both.call(script, "pool", "tickets", setup={"retries": 0})


def test_pauses_double_and_are_scattered() -> None:
    clock = Clock()
    policy = Policy(retries=4, timeout=1000, backoff=0.5, clock=clock)
    answer, steps = drive(steady(fetch(get("/x"), status), policy), clock, [Broken("no")] * 4 + [Answer(200, {})])
    assert answer == 200
    for pause, most in zip(pauses(steps), [0.5, 1.0, 2.0, 4.0], strict=True):
        assert most / 2 <= pause <= most
    long = Policy(retries=12, timeout=1e9, backoff=0.5, clock=clock)
    _, steps = drive(steady(fetch(get("/x"), status), long), clock, [Broken("no")] * 12 + [Answer(200, {})])
    assert max(pauses(steps)) <= 30


def test_retry_after_is_kept() -> None:
    clock = Clock()
    policy = Policy(timeout=60, clock=clock)
    replies = [
        Answer(429, {"retry-after": "7"}),
        Answer(503, {"retry-after": "Wed, 21 Oct 2026 07:28:00 GMT"}),
        Answer(200, {}),
    ]
    _, steps = drive(steady(fetch(get("/x"), status), policy), clock, replies)
    first, second = pauses(steps)
    assert 7 <= first <= 7.1
    assert second <= 1


def test_total_time_is_bounded() -> None:
    clock = Clock()
    policy = Policy(retries=10, timeout=60, backoff=0.5, clock=clock)
    # The service asks for more time than there is: its answer is given at once.
    with pytest.raises(BusyError) as busy:
        drive(steady(fetch(get("/x"), status), policy), clock, [Answer(429, {"retry-after": "61"})])
    assert (busy.value.retry_after, clock.now) == (61, 100)
    # Tries that take long leave less for the next.
    with pytest.raises(UnreachableError):
        drive(steady(fetch(get("/x"), status), policy), clock, [Broken("slow")] * 10, takes=25)
    assert clock.now <= 100 + 60 + 25
    allowed: list[float] = []
    flow = steady(fetch(get("/x"), status), replace(policy, backoff=0.0))
    request = next(flow)
    while isinstance(request, Request):
        allowed.append(request.patience or 0)
        clock.now += 25
        try:
            request = flow.send(Broken("slow"))
        except UnreachableError:
            break
        if isinstance(request, Pause):
            request = flow.send(None)
    assert allowed == [60, 35, 10]


def test_uploads_have_no_total_time() -> None:
    clock = Clock()
    upload = replace(post("/x", content=b"x"), patience=600.0)
    flow = steady(fetch(upload, status), Policy(timeout=60, backoff=0.5, clock=clock))
    answer, steps = drive(flow, clock, [Broken("no"), Answer(200, {})], takes=500)
    assert answer == 200
    assert [step.patience for step in steps if isinstance(step, Request)] == [600, 600]


def test_delete_whose_answer_was_lost_has_done_its_work(both: h.Both) -> None:
    script = h.Script(LOST, h.problem(404, "not-found"))
    assert both.call(script, "delete_pool", "tickets") is None
    script = h.Script(h.problem(404, "not-found"))
    with pytest.raises(NotFoundError):
        both.call(script, "delete_pool", "tickets")
    # Refused because there was too much to do: then nothing was deleted, and a 404 is news.
    script = h.Script(h.problem(503, "unavailable"), h.problem(404, "not-found"))
    with pytest.raises(NotFoundError):
        both.call(script, "delete_pool", "tickets")


def test_what_is_not_repeatable_is_sent_once() -> None:
    clock = Clock()
    once = replace(delete("/x"), repeatable=False)
    with pytest.raises(ServerError):
        drive(steady(fetch(once, status), Policy(clock=clock)), clock, [Answer(503, {})])


def test_flow_is_closed_when_its_client_fails(both: h.Both) -> None:
    """An error that is none of the network, such as an unreadable file, ends the call and cleans up."""
    ended: list[bool] = []

    def flow() -> Generator[Any, Any, None]:
        try:
            yield get("/x")
        finally:
            ended.append(True)

    def fail(request: httpx2.Request) -> httpx2.Response:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        both.call(fail, "run", flow())
    assert ended == [True]
