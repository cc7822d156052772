"""The gate before all routes, driven as a server drives it: ids, limits, errors, what goes to the log and metrics."""

from __future__ import annotations

import asyncio
import contextlib
import json
import re
from collections.abc import Awaitable, Callable, Iterator, Mapping, MutableMapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from starlette.requests import ClientDisconnect
from structlog.testing import capture_logs

from icl_select import errors as library
from icl_select.service import errors as service
from icl_select.service.errors import ConflictError, InvalidError, Problem, UnavailableError, problem_of
from icl_select.service.gate import Gate, is_openai, problem_bytes
from icl_select.service.settings import Limits, Settings
from icl_select.service.state import AppState
from icl_select.service.store import keys as keys_store
from icl_select.service.store.database import Database
from icl_select.service.store.migrate import migrate

Message = MutableMapping[str, Any]
App = Callable[[Any, Callable[[], Awaitable[Message]], Callable[[Message], Awaitable[None]]], Awaitable[None]]

LIMITS = Limits(body_bytes=100, upload_bytes=1_000)


@dataclass
class Passage:
    """What came of one request."""

    scope: dict[str, Any]
    sent: list[Message] = field(default_factory=list)
    raised: BaseException | None = None
    log: list[Any] = field(default_factory=list)

    @property
    def status(self) -> int:
        (start,) = (message for message in self.sent if message["type"] == "http.response.start")
        return int(start["status"])

    @property
    def headers(self) -> dict[str, str]:
        (start,) = (message for message in self.sent if message["type"] == "http.response.start")
        names = [name for name, _ in start["headers"]]
        assert len(names) == len(set(names)), "a header was sent twice"
        return {name.decode(): value.decode("latin-1") for name, value in start["headers"]}

    @property
    def body(self) -> bytes:
        return b"".join(message.get("body", b"") for message in self.sent)

    @property
    def problem(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(self.body)
        return found

    @property
    def line(self) -> Mapping[str, Any]:
        """The one line that each request has in the log."""
        (line,) = (entry for entry in self.log if entry["event"] == "request")
        return dict(line)


def pass_through(
    state: AppState,
    app: App,
    path: str = "/v1/pools",
    method: str = "GET",
    headers: Mapping[str, str] | Sequence[tuple[str, str]] = (),
    body: Sequence[bytes] = (b"",),
    query: bytes = b"",
    host: str | None = "localhost:8765",
) -> Passage:
    """Send a request through the gate; `body` comes in these parts, and then the client goes away."""
    pairs = list(headers.items() if isinstance(headers, Mapping) else headers)
    raw = [(name.lower().encode(), value.encode("latin-1")) for name, value in pairs]
    raw += [] if host is None else [(b"host", host.encode())]
    scope: dict[str, Any] = {"type": "http", "method": method, "path": path, "headers": raw, "query_string": query}
    found = Passage({**scope, "client": ("127.0.0.1", 1)})
    coming = iter(body)

    async def receive() -> Message:
        part = next(coming, None)
        if part is None:
            return {"type": "http.disconnect"}
        return {"type": "http.request", "body": part, "more_body": True}

    async def send(message: Message) -> None:
        found.sent.append(message)

    with capture_logs() as log:
        try:
            asyncio.run(_run(Gate(app, state), found.scope, receive, send))
        except BaseException as exc:
            found.raised = exc
    found.log = list(log)
    return found


async def _run(gate: Gate, *call: Any) -> None:
    await gate(*call)


async def answers(scope: Any, receive: Any, send: Any) -> None:
    """An application that reads the whole body and says how long it was."""
    size = 0
    while (message := await receive())["type"] == "http.request":
        size += len(message["body"])
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-type", b"text/plain")]})
    await send({"type": "http.response.body", "body": str(size).encode()})


def raises(exc: BaseException, *, begun: bool = False) -> App:
    """An application that fails, before its answer or in the middle of it."""

    async def app(scope: Any, receive: Any, send: Any) -> None:
        if begun:
            await send({"type": "http.response.start", "status": 200, "headers": []})
            await send({"type": "http.response.body", "body": b"half", "more_body": True})
        raise exc

    return app


async def unreachable(scope: Any, receive: Any, send: Any) -> None:
    raise AssertionError("the request came in")


@pytest.fixture
def state(tmp_path: Path) -> Iterator[AppState]:
    """A service without keys."""
    with opened(Settings(data_dir=tmp_path, limits=LIMITS)) as found:
        yield found


@pytest.fixture
def closed(tmp_path: Path) -> Iterator[tuple[AppState, str]]:
    """A service with a key, and the key."""
    with with_key(tmp_path) as found:
        yield found


@contextlib.contextmanager
def with_key(folder: Path, per_minute: int | None = None) -> Iterator[tuple[AppState, str]]:
    settings = Settings(data_dir=folder, limits=LIMITS)
    database = Database(settings.database_url)
    migrate(database)
    with database.write() as connection:
        _, key = keys_store.create(connection, "ann", "read", per_minute)
    database.close()
    with opened(settings) as found:
        yield found, key


@contextlib.contextmanager
def opened(settings: Settings) -> Iterator[AppState]:
    found = AppState.build(settings)
    found.open()
    yield found
    found.stop()


@pytest.mark.parametrize("given", ["a", "my-own.id_1", "A" * 64, "0"])
def test_a_request_keeps_its_own_id(state: AppState, given: str) -> None:
    found = pass_through(state, answers, headers={"X-Request-ID": given})
    assert found.headers["x-request-id"] == given
    assert found.scope["state"]["request_id"] == given
    assert found.line["request_id"] == given


@pytest.mark.parametrize("given", [None, "", "A" * 65, "a b", "a\tb", "é", "a\n", "<x>", "../x", "a" * 5_000])
def test_an_id_that_is_none_is_replaced(state: AppState, given: str | None) -> None:
    headers = {} if given is None else {"X-Request-ID": given}
    ids = {pass_through(state, answers, headers=headers).headers["x-request-id"] for _ in range(3)}
    assert len(ids) == 3
    assert all(re.fullmatch("[0-9a-f]{16}", one) for one in ids)


def test_an_error_bears_the_id_of_its_request(state: AppState) -> None:
    found = pass_through(state, raises(ConflictError("no")), headers={"X-Request-ID": "mine"})
    assert found.problem["instance"] == "urn:icl-select:request:mine"
    assert found.headers["x-request-id"] == found.line["request_id"] == "mine"
    assert found.headers["x-content-type-options"] == "nosniff"


def parts(*sizes: int) -> list[bytes]:
    return [b"x" * size for size in sizes]


@pytest.mark.parametrize(
    ("path", "headers", "body", "status"),
    [
        ("/v1/pools", {"Content-Length": "100"}, parts(100), 200),
        ("/v1/pools", {}, parts(40, 60, 0), 200),
        ("/v1/pools", {}, parts(40, 61), 413),
        ("/v1/pools", {"Content-Length": "10"}, parts(10, 91), 413),  # it lied
        ("/v1/pools", {"Transfer-Encoding": "chunked"}, parts(*[10] * 11), 413),
        ("/health", {}, parts(101), 413),
        ("/v1/pools/p/items", {"Content-Length": "1000"}, parts(500, 500), 200),
        ("/v1/pools/p/items", {}, parts(500, 501), 413),
        ("/v1/pools/p/items/", {}, parts(500), 200),
        ("/v1/pools/p/labels/import", {}, parts(500), 200),
        ("/v1/pools/p/items/i1", {}, parts(101), 413),
        ("/v1/pools/p/x/items", {}, parts(101), 413),
        ("/v1/pools/p/labels", {}, parts(101), 413),
        ("/v1/pools/p/items/../labels", {}, parts(101), 413),
    ],
)
def test_a_body_may_be_so_large(
    state: AppState, path: str, headers: dict[str, str], body: list[bytes], status: int
) -> None:
    found = pass_through(state, answers, path, "POST", headers, body)
    assert found.status == status
    if status == 413:
        assert "bytes, which is the limit here" in found.problem["detail"]
        assert found.headers["connection"] == "close"  # the rest of the body is not read


@pytest.mark.parametrize("stated", ["101", "9" * 19, "9" * 5_000])
def test_a_body_that_says_that_it_is_too_large_is_not_read(state: AppState, stated: str) -> None:
    found = pass_through(state, unreachable, "/v1/pools", "POST", {"Content-Length": stated})
    assert (found.status, found.headers["connection"]) == (413, "close")


def test_a_body_is_not_read_before_it_is_known_who_sends_it(closed: tuple[AppState, str]) -> None:
    state, key = closed
    for headers in ({}, {"Authorization": "Bearer ics_0123456789ab_wrong"}, {"Authorization": f"Token {key}"}):
        found = pass_through(state, unreachable, headers={**headers, "Content-Length": "101"})
        assert found.status == 401
        assert found.line["key"] is None
    found = pass_through(state, answers, headers={"Authorization": f"Bearer {key}"})
    assert found.status == 200
    assert found.line["key"] == found.scope["state"]["principal"].id


def test_a_key_may_send_so_many_requests(tmp_path: Path) -> None:
    with with_key(tmp_path, 3) as (state, key):
        headers = {"Authorization": f"Bearer {key}"}
        statuses = [pass_through(state, answers, headers=headers).status for _ in range(4)]
        assert statuses == [200, 200, 200, 429]
        assert int(pass_through(state, unreachable, headers=headers).headers["retry-after"]) >= 1


def test_an_error_that_nobody_foresaw_says_nothing_of_itself(state: AppState) -> None:
    secret = "the password of /srv/data is hunter2"
    found = pass_through(state, raises(RuntimeError(secret)), headers={"X-Request-ID": "mine"})
    assert found.status == 500
    assert found.problem["type"] == "urn:icl-select:error:internal"
    for word in secret.split():
        if len(word) > 3:
            assert word not in found.body.decode()
    assert "Traceback" not in found.body.decode()
    assert "RuntimeError" not in found.body.decode()
    (failed,) = (entry for entry in found.log if entry["event"] == "request failed")
    assert (failed["log_level"], failed["request_id"], failed["path"]) == ("error", "mine", "/v1/pools")
    assert str(failed["exc_info"]) == secret
    assert (found.line["status"], found.raised) == (500, None)


def test_an_error_that_was_foreseen_is_no_line_of_errors(state: AppState) -> None:
    found = pass_through(state, raises(UnavailableError("not now", retry_after=7)))
    assert (found.status, found.headers["retry-after"], found.problem["detail"]) == (503, "7", "not now")
    assert [entry["event"] for entry in found.log] == ["request"]


@pytest.mark.parametrize("exc", [RuntimeError("x"), ConflictError("x")])
def test_an_error_in_the_middle_of_an_answer_breaks_it_off(state: AppState, exc: Exception) -> None:
    found = pass_through(state, raises(exc, begun=True))
    assert found.raised is exc
    assert [message["type"] for message in found.sent] == ["http.response.start", "http.response.body"]
    assert found.body == b"half"
    assert found.line["status"] == 200


def test_a_client_that_goes_away_is_no_error(state: AppState) -> None:
    found = pass_through(state, raises(ClientDisconnect()))
    assert (found.sent, found.raised) == ([], None)
    assert found.line["status"] == 499
    assert {entry["log_level"] for entry in found.log} == {"info"}


def test_a_request_that_is_cancelled_is_noted(state: AppState) -> None:
    found = pass_through(state, raises(asyncio.CancelledError()))
    assert isinstance(found.raised, asyncio.CancelledError)
    assert found.line["status"] == 499


def test_no_secret_comes_into_the_log(closed: tuple[AppState, str]) -> None:
    state, key = closed
    wrong = "ics_0123456789ab_" + "w" * 43
    seen = ""
    for headers in ({"Authorization": f"Bearer {key}"}, {"Authorization": f"Bearer {wrong}"}, {"Cookie": "c00kie"}):
        for app in (answers, raises(RuntimeError("x")), raises(ConflictError("x"))):
            found = pass_through(
                state, app, "/v1/pools", "POST", headers, [b"b0dy"], b"after=query&key=" + key.encode()
            )
            seen += repr(found.log) + repr(found.body) + repr(found.headers)
    secret = key.rpartition("_")[2]
    for word in (secret, wrong, "w" * 43, "c00kie", "b0dy", "query"):
        assert word not in seen


@pytest.mark.parametrize(
    ("path", "shown"),
    [
        ('/v1/x\n{"event": "forged"}', '/v1/x\\n{"event": "forged"}'),
        ("/v1/\x1b[31mred", "/v1/\\x1b[31mred"),
        ("/v1/☕ und mehr", "/v1/☕ und mehr"),
        ("/v1/" + "x" * 60_000, "/v1/" + "x" * 508),
    ],
)
def test_a_path_is_one_line_of_the_log(state: AppState, path: str, shown: str) -> None:
    assert pass_through(state, answers, path).line["path"] == shown
    assert pass_through(state, raises(RuntimeError()), path).log[0]["path"] == shown


def test_what_strangers_write_does_not_fill_the_metrics(state: AppState) -> None:
    for number in range(100):
        pass_through(state, answers, f"/v1/{number}", f"METHOD{number}", {"X-Request-ID": f"id{number}"})
    text = state.metrics.text().decode()
    counted = {line for line in text.splitlines() if line.startswith("ics_http_request_duration_seconds_count")}
    assert counted == {'ics_http_request_duration_seconds_count{method="(other)",route="(none)",status="200"} 100.0'}


def test_the_dialect_of_openai_has_errors_of_its_own(state: AppState) -> None:
    for path in ("/v1/chat/completions", "/v1/completions", "/v1/models"):
        assert is_openai(path)
        for app, status, kind in (
            (raises(RuntimeError("hunter2")), 500, "server_error"),
            (raises(ConflictError("no")), 409, "invalid_request_error"),
        ):
            found = pass_through(state, app, path, "POST")
            assert (found.status, found.headers["content-type"]) == (status, "application/json")
            assert set(found.problem) == {"error"}
            assert found.problem["error"]["type"] == kind
            assert "hunter2" not in found.body.decode()
        large = pass_through(state, unreachable, path, "POST", {"Content-Length": "101"})
        assert large.problem["error"]["code"] == "too_large"
    assert not is_openai("/v1/pools")


def test_any_text_can_be_told_in_an_error() -> None:
    for path in ("/v1/pools", "/v1/models"):
        body, _ = problem_bytes(Problem(422, "x", "x", "half \ud800 of a pair, ☕ and \0"), path, None)
        assert "☕" in json.dumps(json.loads(body), ensure_ascii=False)


@pytest.mark.parametrize(
    ("method", "site", "status"),
    [
        ("GET", "cross-site", 200),
        ("HEAD", "cross-site", 200),
        ("OPTIONS", "cross-site", 200),
        ("POST", "cross-site", 422),
        ("DELETE", "same-site", 422),
        ("PUT", "cross-site", 422),
        ("QUERY", "cross-site", 422),
        ("POST", "same-origin", 200),
        ("POST", "none", 200),
        ("POST", None, 200),
    ],
)
def test_a_page_of_another_site_changes_nothing(state: AppState, method: str, site: str | None, status: int) -> None:
    headers = {} if site is None else {"Sec-Fetch-Site": site}
    found = pass_through(state, answers, "/v1/pools", method, headers)
    assert found.status == status
    if status == 422:
        assert "another site" in found.problem["detail"]


@pytest.mark.parametrize("kind", ["lifespan", "websocket"])
def test_what_is_no_request_goes_by(state: AppState, kind: str) -> None:
    seen: list[Any] = []

    async def app(*call: Any) -> None:
        seen.extend(call)

    call: tuple[Any, ...] = ({"type": kind, "path": "/"}, object(), object())
    asyncio.run(_run(Gate(app, state), *call))
    assert [id(one) for one in seen] == [id(one) for one in call]
    assert "ics_http_request_duration_seconds_count" not in state.metrics.text().decode()


def test_while_it_stops_the_service_says_so_and_that_it_lives(state: AppState) -> None:
    state.stopping.set()
    found = pass_through(state, unreachable)
    assert (found.status, found.headers["retry-after"]) == (503, "2")
    assert pass_through(state, answers, "/health").status == 200


@pytest.mark.parametrize(
    ("host", "status"),
    [
        ("localhost", 200), ("LocalHost:80", 200), ("127.0.0.1:8765", 200), ("127.9.9.9", 200), ("[::1]:80", 200),
        ("[::1]", 200), (None, 200), ("evil.example", 422), ("localhost.evil.example:80", 422), ("192.168.0.1", 422),
        ("[::2]:80", 422), ("localhost@evil.example", 422), ("evil.example\nx", 422),
    ],
)  # fmt: skip
def test_without_keys_only_names_of_this_machine_are_answered(state: AppState, host: str | None, status: int) -> None:
    assert pass_through(state, answers, host=host).status == status
    # Who only asks whether the process lives is told.
    assert pass_through(state, answers, "/health", host=host).status == 200


def test_with_keys_any_name_is_answered_and_with_names_only_those(closed: tuple[AppState, str]) -> None:
    state, key = closed
    headers = {"Authorization": f"Bearer {key}"}
    assert pass_through(state, answers, headers=headers, host="any.example").status == 200
    state.settings = state.settings.model_copy(update={"allowed_hosts": ("Icl.Example",)})
    assert pass_through(state, answers, headers=headers, host="icl.example:443").status == 200
    refused = pass_through(state, unreachable, headers=headers, host="any.example")
    assert (refused.status, "any.example" in refused.problem["detail"]) == (422, True)


@dataclass
class Route:
    path: str


@pytest.mark.parametrize(
    ("path", "status", "level"),
    [("/health", 200, "debug"), ("/metrics", 200, "debug"), ("/ready", 503, "info"), ("/v1/pools/{pool}", 200, "info")],
)
def test_a_request_is_noted_by_its_route(state: AppState, path: str, status: int, level: str) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        scope["route"] = Route(path)
        await send({"type": "http.response.start", "status": status, "headers": []})

    found = pass_through(state, app, path.replace("{pool}", "t"))
    assert (found.line["log_level"], found.line["status"]) == (level, status)
    sample = {"method": "GET", "route": path, "status": str(status)}
    assert state.metrics.registry.get_sample_value("ics_http_request_duration_seconds_count", sample) == 1


def tree(root: type[BaseException]) -> list[type[BaseException]]:
    """An error and all that stand below it."""
    return [root, *(leaf for child in root.__subclasses__() for leaf in tree(child))]


OF_LIBRARY = {
    "BudgetError": 422, "ConfigError": 500, "DataError": 422, "EmbeddingError": 422, "FeedbackError": 422,
    "GivenError": 422, "IclSelectError": 500, "LabelError": 422, "LockedError": 503, "MetricError": 422,
    "MissingDependencyError": 501, "ModelError": 503, "ParameterError": 422, "PromptError": 422, "SpendError": 503,
    "StatisticsError": 422, "StoreError": 503, "TemplateError": 422, "UnknownNameError": 422,
}  # fmt: skip
OF_SERVICE = {
    "BusyError": 429, "ConflictError": 409, "ForbiddenError": 403, "InvalidError": 422, "NotFoundError": 404,
    "ServiceError": 500, "StaleError": 409, "TooLargeError": 413, "UnauthorisedError": 401, "UnavailableError": 503,
    "UnsupportedError": 415, "UpstreamError": 502,
}  # fmt: skip
# Their texts may hold paths of this machine, or nobody foresaw that they could come here.
SILENT = {"ConfigError", "IclSelectError", "StoreError"}


@pytest.mark.parametrize("kind", [kind for kind in tree(library.IclSelectError) if kind.__module__ == library.__name__])
def test_every_error_of_the_library_has_a_status(kind: type[Exception]) -> None:
    assert kind.__name__ in OF_LIBRARY, "say which status the new error has: service/errors.py, and here"
    problem = problem_of(kind("what was asked"))
    assert problem.status == OF_LIBRARY[kind.__name__]
    assert ("what was asked" in problem.detail) == (kind.__name__ not in SILENT)
    document = problem.document("id")
    assert (document["status"], document["instance"]) == (problem.status, "urn:icl-select:request:id")
    assert document["type"].startswith("urn:icl-select:error:")
    assert problem.openai()["error"]["message"] == problem.detail


@pytest.mark.parametrize("kind", [kind for kind in tree(service.ServiceError) if kind.__module__ == service.__name__])
def test_every_error_of_the_service_has_a_status(kind: type[service.ServiceError]) -> None:
    needs = {"retry_after": 3} if kind is service.BusyError else {}
    problem = problem_of(kind("what was asked", **needs))
    assert problem.status == OF_SERVICE[kind.__name__] == kind.status
    assert (problem.detail, problem.kind, problem.title) == ("what was asked", kind.kind, kind.title)


def test_no_two_meanings_share_a_name() -> None:
    kinds = [problem_of(kind("x")) for kind in tree(library.IclSelectError) if kind.__name__ in OF_LIBRARY]
    names: dict[str, set[tuple[int, str]]] = {}
    for problem in kinds:
        names.setdefault(problem.kind, set()).add((problem.status, problem.title))
    assert all(len(meanings) == 1 for meanings in names.values()), names


def test_a_full_disk_is_told_whatever_it_was_wrapped_in() -> None:
    full = OSError(28, "No space left on device")
    wrapped = library.StoreError("cannot write /srv/secret")
    wrapped.__cause__ = full
    for exc in (full, wrapped):
        problem = problem_of(exc)
        assert (problem.status, problem.kind) == (507, "disk-full")
        assert "/srv/secret" not in problem.detail


def test_an_error_points_into_the_request() -> None:
    exc = InvalidError("no", errors=[{"pointer": "/labels/0", "detail": "x"}], extra={"param": "labels"})
    problem = problem_of(exc)
    assert problem.document()["errors"] == [{"pointer": "/labels/0", "detail": "x"}]
    assert problem.openai()["error"]["param"] == "labels"
