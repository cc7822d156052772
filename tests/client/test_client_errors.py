"""What is raised, what it says, and that the key is in none of it."""

from __future__ import annotations

import traceback
from typing import Any

import client_helpers as h
import httpx2
import pytest

from icl_select.client import (
    AnswerError,
    AsyncClient,
    BusyError,
    Client,
    ConflictError,
    DeniedError,
    InvalidError,
    NotFoundError,
    ServerError,
    ServiceProblem,
    UnreachableError,
)
from icl_select.errors import IclSelectError, ParameterError

KINDS: list[tuple[int, type[ServiceProblem], type[Exception]]] = [
    (400, InvalidError, ValueError),
    (401, DeniedError, PermissionError),
    (403, DeniedError, PermissionError),
    (404, NotFoundError, LookupError),
    (409, ConflictError, IclSelectError),
    (413, InvalidError, ValueError),
    (422, InvalidError, ValueError),
    (429, BusyError, IclSelectError),
    (500, ServerError, RuntimeError),
    (503, ServerError, RuntimeError),
    (507, ServerError, RuntimeError),
]


@pytest.mark.parametrize(("status", "kind", "builtin"), KINDS)
def test_each_status_is_an_exception(
    both: h.Both, status: int, kind: type[ServiceProblem], builtin: type[Exception]
) -> None:
    errors = [{"pointer": f"/items/{n}", "detail": "is empty"} for n in range(5)]
    script = h.Script(h.problem(status, "data", errors=errors, headers={"Retry-After": "3"}))
    with pytest.raises(kind) as caught:
        both.call(script, "pool", "tickets", setup={"retries": 0})
    exc = caught.value
    assert isinstance(exc, builtin)
    assert isinstance(exc, IclSelectError)
    assert (exc.status, exc.kind, exc.detail, exc.request_id) == (status, "data", "it cannot be", "r-17")
    assert exc.errors == tuple(errors)
    assert exc.retry_after == 3
    assert str(exc) == (
        "it cannot be (/items/0: is empty; /items/1: is empty; /items/2: is empty; and 2 more) "
        f"[HTTP {status}, data, request r-17]"
    )


def test_answer_without_a_problem_document_is_shown(both: h.Both) -> None:
    answer = httpx2.Response(502, content=b"<html>\n<b>Bad  Gateway</b>" + b"x" * 9000, headers={"x-request-id": "r-1"})
    with pytest.raises(ServerError, match=r"GET /v1/pools/tickets failed, .*<html> <b>Bad Gateway</b>") as caught:
        both.call(h.Script(answer), "pool", "tickets")
    assert len(str(caught.value)) < 700
    assert (caught.value.kind, caught.value.request_id) == ("", "r-1")
    with pytest.raises(ServerError, match="it is empty"):
        both.call(h.Script(httpx2.Response(500)), "pool", "tickets")


def test_redirects_are_not_followed(both: h.Both) -> None:
    script = h.Script(httpx2.Response(307, headers={"location": "http://elsewhere.test/"}))
    with pytest.raises(ServiceProblem, match="redirect, which is not followed"):
        both.call(script, "pool", "tickets")
    assert len(script.requests) == 1


@pytest.mark.parametrize("content", [b"<html>hello</html>", b"{}", b"[]", b'{"name": 3}'])
def test_answer_of_something_else_is_an_error(both: h.Both, content: bytes) -> None:
    with pytest.raises(AnswerError, match="the answer is no Pool"):
        both.call(h.Script(httpx2.Response(200, content=content)), "pool", "tickets")


def test_page_of_something_else_is_an_error(both: h.Both) -> None:
    for answer in ({"pools": None}, {}, [], {"pools": [{"name": "a"}]}):
        with pytest.raises(AnswerError, match="the answer is no"):
            both.call(h.Script(answer), "pools")


@pytest.mark.parametrize("failure", ["echo", "refused", "answer"])
def test_key_is_in_no_error(both: h.Both, failure: str) -> None:
    def echo(request: httpx2.Request) -> httpx2.Response:
        said = request.headers["authorization"]
        if failure == "refused":
            raise httpx2.ConnectError("no route to host")
        return httpx2.Response(400 if failure == "echo" else 200, content=f"you sent {said}".encode())

    with pytest.raises(IclSelectError) as caught:
        both.call(echo, "pool", "tickets", setup={"retries": 0})
    shown = "".join(traceback.format_exception(caught.value)) + repr(caught.value) + repr(vars(caught.value))
    assert h.KEY not in shown


def test_key_is_in_no_repr() -> None:
    client = Client(h.URL + "/", h.KEY)
    assert repr(client) == "Client('http://service.test')"
    assert h.KEY not in repr(client._http)
    assert repr(AsyncClient(h.URL, h.KEY)) == "AsyncClient('http://service.test')"


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("ftp://host", "no HTTP address"),
        ("host:8765", "no HTTP address"),
        ("http://", "no HTTP address"),
        ("http://host:port", "no HTTP address"),
        ("file:///etc/passwd", "no HTTP address"),
        ("http://[::1", "no HTTP address"),
        ("http://user:hidden@host", "holds a user, a password"),
        ("http://:hidden@host", "holds a user, a password"),
        ("http://@host", "holds a user, a password"),
        ("http://host/?key=hidden", "a query"),
        ("http://host/#hidden", "a fragment"),
    ],
)
def test_bad_addresses_are_refused(url: str, message: str) -> None:
    for kind in (Client, AsyncClient):
        with pytest.raises(ParameterError, match=message) as caught:
            kind(url)
        assert "hidden" not in str(caught.value)


@pytest.mark.parametrize("key", ["two words", "ключ", "line\nbreak"])
def test_bad_keys_are_refused_and_not_shown(key: str) -> None:
    with pytest.raises(ParameterError, match="no HTTP header can carry") as caught:
        Client(h.URL, key)
    assert key not in str(caught.value)


@pytest.mark.parametrize("options", [{"timeout": 0}, {"retries": -1}, {"backoff": -1}])
def test_bad_numbers_are_refused(options: dict[str, Any]) -> None:
    with pytest.raises(ParameterError, match="timeout is above 0"):
        Client(h.URL, **options)


def test_address_and_key_come_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("ICS_URL", raising=False)
    monkeypatch.delenv("ICS_API_KEY", raising=False)
    with pytest.raises(ParameterError, match="ICS_URL"):
        Client()
    monkeypatch.setenv("ICS_URL", "http://service.test/prefix/")
    monkeypatch.setenv("ICS_API_KEY", f"{h.KEY}\n")
    script = h.Script(h.pool(), h.pool(), h.pool())
    with Client(transport=httpx2.MockTransport(script)) as client:
        client.pool("tickets")
    with Client(key="other", transport=httpx2.MockTransport(script)) as client:
        client.pool("tickets")
    with Client(key="", transport=httpx2.MockTransport(script)) as client:
        client.pool("tickets")
    assert [str(request.url) for request in script.requests] == ["http://service.test/prefix/v1/pools/tickets"] * 3
    assert [request.headers.get("authorization") for request in script.requests] == [
        f"Bearer {h.KEY}",
        "Bearer other",
        None,
    ]


def test_nobody_there(both: h.Both) -> None:
    """Without a scripted transport: port 9 of this machine, which nothing listens on."""
    with Client("http://127.0.0.1:9", retries=0) as client, pytest.raises(UnreachableError) as caught:
        client.health()
    assert isinstance(caught.value, ConnectionError)


def test_names_cannot_leave_their_place(both: h.Both) -> None:
    script = h.Script(h.pool(), h.pool(), h.pool(), h.pool())
    for name in ("..", ".", "../x?y#z", "a\\b"):
        both.call(script, "pool", name)
    assert script.lines == [
        "GET /v1/pools/%2E%2E",
        "GET /v1/pools/%2E",
        "GET /v1/pools/..%2Fx%3Fy%23z",
        "GET /v1/pools/a%5Cb",
    ]
