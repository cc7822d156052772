"""The OpenAI-compatible pass-through, against a real server behind it and with the official client before it."""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import httpx2
import openai
import pytest
from running_service import Service, fill, serve, until
from upstream_server import PATIENCE, Exchange, UpstreamServer, delta, serve_upstream

from icl_select.errors import ConfigError
from icl_select.service.errors import NotFoundError, UpstreamError
from icl_select.service.passthrough.body import name_of, write_body
from icl_select.service.passthrough.errors import RefusedError
from icl_select.service.passthrough.headers import authorization_for, headers_about, headers_back, headers_on
from icl_select.service.passthrough.models import with_pools
from icl_select.service.passthrough.upstream import Call, Upstream
from icl_select.service.settings import Limits, Settings
from icl_select.service.store import keys
from icl_select.service.store.database import Database
from icl_select.service.store.migrate import migrate

CHAT = "/v1/chat/completions"
TEXTS = {
    "t/0": "money back please",
    "t,1": "I was charged twice",
    "t 2": "cannot log in",
    "tä3": "password lost",
    "t;4": "the card was charged",
}
LABELS = {"t/0": "refund", "t,1": "billing", "t 2": "account", "tä3": "account", "t;4": "billing"}
QUERY = "my card was charged twice"
OURS = "ics_" + "0" * 12 + "_" + "A" * 43


@pytest.fixture(scope="module")
def server() -> Iterator[UpstreamServer]:
    with serve_upstream() as running:
        yield running


@pytest.fixture(scope="module")
def running(server: UpstreamServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    settings = Settings(
        data_dir=tmp_path_factory.mktemp("service") / "data",
        encoders=("hash",),
        upstream=server.url,
        limits=Limits(body_bytes=200_000, item_chars=20_000, k=8),
    )
    items = [{"id": name, "text": text} for name, text in TEXTS.items()]
    instructed = {"k": 2, "template": {"instruction": "Name the intent.", "user": "Q: {{ text }}"}}
    with serve(settings) as service:
        fill(service, {"name": "tickets", "prompt": {"k": 2}}, items, LABELS)
        fill(service, {"name": "told", "prompt": instructed}, items, LABELS)
        service.http.post("/v1/pools", json={"name": "bare"}).raise_for_status()
        yield service


@pytest.fixture
def service(running: Service, server: UpstreamServer) -> Service:
    server.reset()
    return running


@pytest.fixture
def client(service: Service) -> Iterator[openai.OpenAI]:
    with official(service) as made:
        yield made


def official(service: Service, key: str = "sk-of-the-client") -> openai.OpenAI:
    http = openai.DefaultHttpxClient(trust_env=False)
    return openai.OpenAI(base_url=f"{service.url}/v1", api_key=key, max_retries=0, http_client=http)


def plain(data_dir: Path, **settings: Any) -> Settings:
    """A service without pools, which starts at once."""
    return Settings(data_dir=data_dir, encoders=("hash",), workers=0, **settings)


def key_for(settings: Settings) -> str:
    """A key of a service that does not run yet."""
    database = Database(settings.database_url)
    migrate(database)
    with database.write() as connection:
        key = keys.create(connection, "reader", "read")[1]
    database.close()
    return key


def user(content: Any) -> dict[str, Any]:
    return {"role": "user", "content": content}


def asked(service: Service, pool: str = "tickets", query: str = QUERY, **options: Any) -> dict[str, Any]:
    """What POST /v1/prompts says of a query."""
    body = {"pool": pool, "query": query, **options}
    found: dict[str, Any] = service.http.post("/v1/prompts", json=body).raise_for_status().json()
    return found


def pairs(prompt: dict[str, Any]) -> list[dict[str, str]]:
    return [message for message in prompt["messages"][:-1] if message["role"] != "system"]


def error_of(answer: httpx2.Response) -> dict[str, Any]:
    """The error in OpenAI's shape, whole."""
    assert answer.headers["content-type"] == "application/json"
    assert answer.headers["x-request-id"]
    assert set(answer.json()) == {"error"}
    error: dict[str, Any] = answer.json()["error"]
    assert set(error) == {"message", "type", "param", "code"}
    return error


# Where demonstrations go


def test_demonstrations_stand_between_system_messages_and_conversation(
    client: openai.OpenAI, service: Service, server: UpstreamServer
) -> None:
    talk = [
        {"role": "system", "content": "Be short."},
        {"role": "developer", "content": "Answer in one word."},
        user("hello"),
        {"role": "assistant", "content": "hi"},
        user(QUERY),
    ]
    answer = client.chat.completions.with_raw_response.create(model="tickets::org/large", messages=talk)  # type: ignore[arg-type]
    sent = server.seen[-1].json
    prompt = asked(service)
    assert len(pairs(prompt)) == 4
    assert sent["messages"] == [*talk[:2], *pairs(prompt), *talk[2:]]
    assert sent["model"] == "org/large"
    assert answer.parse().choices[0].message.content == QUERY
    assert answer.headers["x-ics-prompt-id"] == prompt["id"]


def test_headers_say_which_examples_were_shown(service: Service) -> None:
    answer = service.http.post(CHAT, json={"model": "tickets::m", "messages": [user(QUERY)]}, headers={"x-ics-k": "5"})
    prompt = asked(service, k=5)
    shown = answer.headers["x-ics-example-ids"]
    assert shown.isascii()
    assert [unquote(name) for name in shown.split(",")] == [example["id"] for example in prompt["examples"]]
    assert sorted(unquote(name) for name in shown.split(",")) == sorted(TEXTS)
    assert answer.headers["x-ics-example-count"] == "5"
    assert service.http.get(f"/v1/prompts/{answer.headers['x-ics-prompt-id']}").json() == prompt


def test_a_header_names_pool_and_k(service: Service, server: UpstreamServer) -> None:
    body = {"model": "org/large", "messages": [user(QUERY)]}
    service.http.post(CHAT, json=body, headers={"X-ICS-Pool": "tickets", "X-ICS-K": "1"}).raise_for_status()
    assert server.seen[-1].json == {**body, "messages": [*pairs(asked(service, k=1)), user(QUERY)]}
    # A name in the model field that agrees is taken off all the same.
    body["model"] = "tickets::org/large"
    service.http.post(CHAT, json=body, headers={"X-ICS-Pool": "tickets"}).raise_for_status()
    assert server.seen[-1].json["model"] == "org/large"


def test_the_pools_instruction_is_sent_only_where_the_client_has_none(service: Service, server: UpstreamServer) -> None:
    prompt = asked(service, "told")
    assert prompt["messages"][0] == {"role": "system", "content": "Name the intent."}
    for talk, expected in [
        ([user(QUERY)], [prompt["messages"][0], *pairs(prompt), user(QUERY)]),
        (
            [{"role": "developer", "content": "Mine."}, user(QUERY)],
            [{"role": "developer", "content": "Mine."}, *pairs(prompt), user(QUERY)],
        ),
        (
            [user(QUERY), {"role": "system", "content": "Late."}],
            [*pairs(prompt), user(QUERY), {"role": "system", "content": "Late."}],
        ),
    ]:
        service.http.post(CHAT, json={"model": "told::m", "messages": talk}).raise_for_status()
        assert server.seen[-1].json["messages"] == expected


def test_parts_and_tool_messages_pass_untouched(service: Service, server: UpstreamServer) -> None:
    image = {"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA", "detail": "low"}}
    first, second = QUERY.split(" was ")
    call = {"id": "c1", "type": "function", "function": {"name": "look", "arguments": "{}"}}
    talk = [
        user([{"type": "text", "text": first}, image, {"type": "text", "text": f"was {second}", "cache_control": 1}]),
        {"role": "assistant", "content": None, "tool_calls": [call]},
        {"role": "tool", "tool_call_id": "c1", "content": "found nothing"},
        {"role": "assistant", "content": "", "name": "helper"},
    ]
    answer = service.http.post(CHAT, json={"model": "tickets::m", "messages": talk, "tools": []})
    prompt = asked(service, query=f"{first}\nwas {second}")
    assert answer.headers["x-ics-prompt-id"] == prompt["id"]
    assert server.seen[-1].json["messages"] == [*pairs(prompt), *talk]


def test_everything_else_of_the_body_passes(service: Service, server: UpstreamServer) -> None:
    rest = {
        "temperature": 0.1,
        "seed": 2**70,
        "logit_bias": {"50256": -100},
        "response_format": {"type": "json_schema", "json_schema": {"schema": {"enum": ["ä", "\ud800", "😀"]}}},
        "guided_choice": ["a", None, True],
        "unheard_of": {"deep": [{}]},
    }
    body = json.dumps({"model": "tickets::m", "messages": [user(QUERY)], **rest}).encode()
    service.http.post(CHAT, content=body).raise_for_status()
    sent = server.seen[-1].json
    assert {name: value for name, value in sent.items() if name not in ("model", "messages")} == rest


@pytest.mark.parametrize("model", ["m", "ft:gpt-4o:org::id", "a b::m", "::m", 7, None])
def test_without_a_pool_the_request_is_passed_on_byte_for_byte(
    service: Service, server: UpstreamServer, model: Any
) -> None:
    for path, rest in [
        (CHAT, '"messages": [{"role":"user",  "content": ""}]'),
        ("/v1/completions", '"prompt": [[1, 2]]'),
    ]:
        body = f'{{ "x": 1.50, "x": 2,\n "model": {json.dumps(model)}, {rest} }}'.encode()
        server.behave = lambda exchange: exchange.whole(200, b"{}")
        answer = service.http.post(f"{path}?api-version=2&a=%C3%A4", content=body)
        assert answer.content == b"{}"
        assert server.seen[-1].body == body
        assert server.seen[-1].path == f"{path}?api-version=2&a=%C3%A4"
        assert "x-ics-prompt-id" not in answer.headers


# What is refused


@pytest.mark.parametrize(
    ("body", "headers", "status", "param", "words"),
    [
        ({}, {}, 400, "messages", "no list"),
        ({"messages": []}, {}, 400, "messages", "no list"),
        ({"messages": "hello"}, {}, 400, "messages", "no list"),
        ({"messages": ["hello"]}, {}, 400, "messages[0]", "no object with a role"),
        ({"messages": [user("a"), {"content": "x"}]}, {}, 400, "messages[1]", "no object with a role"),
        ({"messages": [{"role": "system", "content": "x"}]}, {}, 400, "messages", "no message has the role 'user'"),
        ({"messages": [user("a"), user(" \n")]}, {}, 400, "messages[1].content", "holds no text"),
        ({"messages": [user(None)]}, {}, 400, "messages[0].content", "holds no text"),
        ({"messages": [user([])]}, {}, 400, "messages[0].content", "holds no text"),
        ({"messages": [user([{"type": "image_url"}])]}, {}, 400, "messages[0].content", "holds no text"),
        ({"messages": [user([{"type": "text", "text": 1}])]}, {}, 400, "messages[0].content", "has no text"),
        ({"messages": [user("\ud800")]}, {}, 400, None, "query"),
        ({"messages": [user("x" * 20_001)]}, {}, 400, None, "20,001 characters"),
        ({"messages": [user("a")]}, {"x-ics-k": "0"}, 400, None, "X-ICS-K"),
        ({"messages": [user("a")]}, {"x-ics-k": "many"}, 400, None, "X-ICS-K"),
        ({"messages": [user("a")]}, {"x-ics-k": "9"}, 400, None, "k=9 exceeds the 8"),
        ({"messages": [user("a")]}, {"x-ics-pool": "told"}, 400, "model", "'tickets'"),
        ({"messages": [user("a")]}, {"x-ics-pool": "../told"}, 400, None, "X-ICS-Pool"),
        ({"messages": [user("a")], "model": "m"}, {"x-ics-k": "2"}, 400, None, "names no pool"),
        ({"messages": [user("a")], "model": "tickets::"}, {}, 400, "model", "no model"),
        ({"messages": [user("a")], "model": "ticket::m"}, {}, 404, None, "'tickets'"),
        ({"messages": [user("a")], "model": "bare::m"}, {}, 409, None, "bare"),
        ({"messages": [user("a")], "top_p": float("nan")}, {}, 400, None, "number"),
    ],
)
def test_a_chat_that_cannot_be_is_refused_in_openais_shape(
    service: Service,
    server: UpstreamServer,
    body: dict[str, Any],
    headers: dict[str, str],
    status: int,
    param: str | None,
    words: str,
) -> None:
    sent = json.dumps({"model": "tickets::m", **body}).encode()
    answer = service.http.post(CHAT, content=sent, headers=headers)
    error = error_of(answer)
    assert (answer.status_code, error["param"]) == (status, param), error
    assert words in error["message"]
    assert error["type"] == "invalid_request_error"
    assert server.seen == []


@pytest.mark.parametrize(
    "body", [b"", b"{", b"[]", b'"x"', b"\xff\xfe{\x00}\x00", b"[" * 100_000, b'{"a":' + b"9" * 5_000 + b"}"]
)
def test_a_body_that_is_no_json_object_is_refused(service: Service, server: UpstreamServer, body: bytes) -> None:
    answer = service.http.post(CHAT, content=body)
    assert answer.status_code == 400
    error_of(answer)
    assert server.seen == []


def test_the_official_client_knows_our_errors(client: openai.OpenAI) -> None:
    with pytest.raises(openai.BadRequestError, match="no message has the role 'user'"):
        client.chat.completions.create(model="tickets::m", messages=[{"role": "system", "content": "x"}])
    with pytest.raises(openai.NotFoundError, match="there is no pool 'nothing'"):
        client.chat.completions.create(model="nothing::m", messages=[{"role": "user", "content": "x"}])


def test_a_body_above_the_limit_is_refused(service: Service, server: UpstreamServer) -> None:
    answer = service.http.post(CHAT, json={"model": "m", "messages": [user("x" * 200_000)]})
    assert answer.status_code == 413
    assert "200,000 bytes" in error_of(answer)["message"]
    assert server.seen == []


# Completions and models


def test_a_completion_is_of_the_pools_prompt(client: openai.OpenAI, service: Service, server: UpstreamServer) -> None:
    answer = client.completions.with_raw_response.create(model="told::m", prompt=QUERY, max_tokens=3, echo=True)
    prompt = asked(service, "told")
    assert server.seen[-1].json == {"model": "m", "prompt": prompt["prompt"], "max_tokens": 3, "echo": True}
    assert prompt["prompt"].startswith("Name the intent.")
    assert prompt["prompt"].endswith(QUERY)
    assert answer.headers["x-ics-prompt-id"] == prompt["id"]


def test_several_prompts_are_completed(client: openai.OpenAI, service: Service, server: UpstreamServer) -> None:
    queries = [QUERY, "how to log in"]
    answer = client.completions.with_raw_response.create(model="tickets::m", prompt=queries)
    prompts = [asked(service, query=query) for query in queries]
    assert server.seen[-1].json["prompt"] == [prompt["prompt"] for prompt in prompts]
    assert answer.headers["x-ics-prompt-id"] == ",".join(prompt["id"] for prompt in prompts)
    shown = [[unquote(name) for name in part.split(",")] for part in answer.headers["x-ics-example-ids"].split(";")]
    assert shown == [[example["id"] for example in prompt["examples"]] for prompt in prompts]
    client.completions.create(model="tickets::m", prompt=[QUERY])
    assert server.seen[-1].json["prompt"] == [prompts[0]["prompt"]]


@pytest.mark.parametrize(
    ("prompt", "words"),
    [
        ([1, 2], "holds tokens"),
        ([[1, 2]], "holds tokens"),
        ([True], "holds tokens"),
        (["a", [1]], "holds tokens"),
        ([], "no string"),
        (None, "no string"),
        ({"a": 1}, "no string"),
        (["a", None], "no string"),
        (" ", "empty"),
        (["a", ""], "empty"),
    ],
)
def test_prompts_without_text_are_refused(service: Service, server: UpstreamServer, prompt: Any, words: str) -> None:
    answer = service.http.post("/v1/completions", json={"model": "tickets::m", "prompt": prompt})
    assert answer.status_code == 400
    assert words in error_of(answer)["message"]
    assert server.seen == []


def test_models_are_listed_with_the_pools_that_can_be_asked(client: openai.OpenAI) -> None:
    listed = list(client.models.list())
    assert [model.id for model in listed] == [
        "small",
        "org/large",
        "tickets::small",
        "tickets::org/large",
        "told::small",
        "told::org/large",
    ]
    assert {model.owned_by for model in listed} == {"test"}


def test_an_error_of_the_models_list_passes(service: Service, server: UpstreamServer) -> None:
    server.behave = lambda exchange: exchange.whole(401, b'{"error": "no"}')
    answer = service.http.get("/v1/models")
    assert (answer.status_code, answer.content) == (401, b'{"error": "no"}')


@pytest.mark.parametrize(
    "listing", [b"<html>", b"[]", b"{}", b'{"data": {}}', b'{"data": [1]}', b'{"data": [{"id": NaN}]}']
)
def test_a_list_of_models_that_is_none_is_the_upstreams_fault(
    service: Service, server: UpstreamServer, listing: bytes
) -> None:
    server.behave = lambda exchange: exchange.whole(200, listing)
    answer = service.http.get("/v1/models")
    assert answer.status_code == 502
    assert "cannot be read" in error_of(answer)["message"]


def test_a_list_of_models_is_bounded(service: Service, server: UpstreamServer) -> None:
    server.behave = lambda exchange: exchange.whole(200, b" " * 200_001)
    assert "larger than 200,000 bytes" in error_of(service.http.get("/v1/models"))["message"]
    models = json.dumps({"data": [{"id": f"m{i}"} for i in range(4_000)]}).encode()
    names = [model["id"] for model in json.loads(with_pools(models, ["a", "b", "c"]))["data"]]
    assert len(names) == 10_000
    assert names[3_999:4_001] == ["m3999", "a::m0"]
    assert names[-1] == "b::m1999"


# Streaming


def test_a_stream_comes_piece_by_piece(client: openai.OpenAI, server: UpstreamServer) -> None:
    server.stepwise = True
    words = ["one", "two", "three"]
    with client.chat.completions.create(
        model="tickets::m", messages=[{"role": "user", "content": " ".join(words)}], stream=True
    ) as stream:
        assert stream.response.headers["content-type"].startswith("text/event-stream")
        assert stream.response.headers["x-accel-buffering"] == "no"
        assert stream.response.headers["x-ics-prompt-id"].startswith("prompt_")
        for word in words:  # the next is not sent before this one has come
            server.step.release()
            assert next(stream).choices[0].delta.content == word
        with pytest.raises(StopIteration):
            next(stream)
    assert server.seen[-1].json["stream"] is True


def test_the_bytes_of_a_stream_are_not_changed(service: Service, server: UpstreamServer) -> None:
    pieces = [b": ping\r\n\r\n", b"event: x\ndata: {\xc3", b"\xa4}\n\n", b"data: [DONE]\n\n"]

    def behave(exchange: Exchange) -> None:
        exchange.begin_events()
        for piece in pieces:
            exchange.chunk(piece)
        exchange.chunk(b"")

    server.behave = behave
    answer = service.http.post(CHAT, json={"model": "tickets::m", "stream": True, "messages": [user(QUERY)]})
    assert answer.content == b"".join(pieces)


def test_many_streams_at_once_keep_their_answers_apart(service: Service) -> None:
    async def one(client: openai.AsyncOpenAI, number: int) -> str:
        stream = await client.chat.completions.create(
            model="tickets::m", messages=[{"role": "user", "content": f"charged {number} times"}], stream=True
        )
        return " ".join([chunk.choices[0].delta.content or "" async for chunk in stream])

    async def everyone() -> list[str]:
        http = openai.DefaultAsyncHttpxClient(trust_env=False)
        async with openai.AsyncOpenAI(
            base_url=f"{service.url}/v1", api_key="x", max_retries=0, http_client=http
        ) as client:
            return await asyncio.gather(*(one(client, number) for number in range(40)))

    assert asyncio.run(everyone()) == [f"charged {number} times" for number in range(40)]


def test_a_client_that_leaves_a_stream_ends_it_upstream(client: openai.OpenAI, server: UpstreamServer) -> None:
    def behave(exchange: Exchange) -> None:
        exchange.begin_events()
        exchange.event(delta("first"))
        exchange.wait_until_left()

    server.behave = behave
    stream = client.chat.completions.create(
        model="tickets::m", messages=[{"role": "user", "content": QUERY}], stream=True
    )
    assert next(stream).choices[0].delta.content == "first"
    assert not server.gone.is_set()
    stream.close()
    assert server.gone.wait(PATIENCE)


def test_a_client_that_leaves_before_the_answer_ends_the_request_upstream(
    service: Service, server: UpstreamServer
) -> None:
    server.behave = Exchange.wait_until_left
    host, port = service.url.removeprefix("http://").split(":")
    body = json.dumps({"model": "tickets::m", "messages": [user(QUERY)]}).encode()
    with socket.create_connection((host, int(port))) as connection:
        head = f"POST {CHAT} HTTP/1.1\r\nhost: {host}\r\ncontent-length: {len(body)}\r\n\r\n"
        connection.sendall(head.encode() + body)
        until(lambda: len(server.seen) == 1)
        assert not server.gone.is_set()
    assert server.gone.wait(PATIENCE)


@pytest.mark.parametrize("stream", [True, False])
def test_an_upstream_that_breaks_off_is_not_made_whole(service: Service, server: UpstreamServer, stream: bool) -> None:
    def behave(exchange: Exchange) -> None:
        if stream:
            exchange.begin_events()
            exchange.event(delta("half"))
        else:
            exchange.start(200, {"content-type": "application/json", "content-length": "1000"})
            exchange.wfile.write(b'{"half')
        exchange.break_off()

    server.behave = behave
    got: list[bytes] = []

    def read() -> None:
        with service.http.stream("POST", CHAT, json={"model": "tickets::m", "messages": [user(QUERY)]}) as answer:
            assert answer.status_code == 200
            got.extend(answer.iter_raw())

    with pytest.raises(httpx2.RemoteProtocolError):
        read()
    assert b"half" in b"".join(got)
    assert b"[DONE]" not in b"".join(got)
    # The service goes on.
    server.reset()
    service.http.post(CHAT, json={"model": "m", "messages": [user("x")]}).raise_for_status()


def test_an_upstream_that_is_faster_than_the_client_has_to_wait(service: Service, server: UpstreamServer) -> None:
    piece, most, sent = b"x" * 65_536, 4_096, []  # 256 MiB in all

    def behave(exchange: Exchange) -> None:
        exchange.connection.settimeout(1.0)
        exchange.begin_events()
        for _ in range(most):
            exchange.chunk(piece)
            sent.append(len(piece))

    server.behave = behave
    with service.http.stream("POST", CHAT, json={"model": "m", "messages": [user("x")]}) as answer:
        pieces = answer.iter_raw()
        next(pieces)
        assert server.blocked.wait(PATIENCE)  # the upstream server could not send for a second
    assert len(sent) < most / 4


# Errors of the upstream server


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        (400, openai.BadRequestError),
        (404, openai.NotFoundError),
        (429, openai.RateLimitError),
        (500, openai.InternalServerError),
        (503, openai.InternalServerError),
    ],
)
def test_errors_of_the_upstream_server_pass_as_they_are(
    client: openai.OpenAI, server: UpstreamServer, status: int, kind: type[openai.APIStatusError]
) -> None:
    body = b'{"error": {"message": "not today", "type": "weather", "param": null, "code": "rain"}}'
    headers = {"retry-after": "17", "x-should-retry": "false", "retry-after-ms": "17000"}
    server.behave = lambda exchange: exchange.whole(status, body, headers)
    with pytest.raises(kind, match="not today") as caught:
        client.chat.completions.create(
            model="tickets::m", messages=[{"role": "user", "content": QUERY}], stream=status == 429
        )
    answer = caught.value.response
    assert (answer.status_code, answer.content) == (status, body)
    assert {name: answer.headers[name] for name in headers} == headers
    assert answer.headers["x-ics-prompt-id"].startswith("prompt_")


def test_headers_of_the_upstream_server_that_mean_something_pass(service: Service) -> None:
    answer = service.http.post(CHAT, json={"model": "m", "messages": [user("x")]}, headers={"x-request-id": "mine"})
    assert answer.headers["x-ratelimit-remaining-requests"] == "41"
    assert answer.headers["openai-processing-ms"] == "7"
    assert answer.headers["x-ics-upstream-request-id"] == "up-1"
    assert answer.headers.get_list("x-request-id") == ["mine"]
    assert not {"set-cookie", "x-inner-host", "keep-alive"} & set(answer.headers)


def test_a_redirect_is_not_followed(service: Service, server: UpstreamServer) -> None:
    where = server.url.replace("/v1", "/elsewhere")
    server.behave = lambda exchange: exchange.whole(307, b"", {"location": where})
    for answer in (
        service.http.post(CHAT, json={"model": "m", "messages": [user("x")]}),
        service.http.get("/v1/models"),
    ):
        assert answer.status_code == 502
        assert "redirects are not followed" in error_of(answer)["message"]
        assert "location" not in answer.headers
    assert [seen.path for seen in server.seen] == [CHAT, "/v1/models"]


def test_an_upstream_that_hangs_up_without_an_answer_is_502(service: Service, server: UpstreamServer) -> None:
    server.behave = Exchange.break_off
    answer = service.http.post(CHAT, json={"model": "m", "messages": [user("x")]})
    assert answer.status_code == 502
    assert error_of(answer)["type"] == "server_error"


def test_an_upstream_that_is_not_there_is_502(tmp_path: Path) -> None:
    with socket.socket() as probe:  # bound and not listening: nobody else gets the port meanwhile
        probe.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{probe.getsockname()[1]}/v1"
        with serve(plain(tmp_path, upstream=url)) as service, official(service) as client:
            with pytest.raises(openai.InternalServerError, match="cannot be reached") as caught:
                client.chat.completions.create(model="m", messages=[{"role": "user", "content": "x"}])
            assert (caught.value.status_code, caught.value.code) == (502, "upstream")
            assert service.http.get("/v1/models").status_code == 502


def test_an_upstream_that_is_silent_is_504(server: UpstreamServer, tmp_path: Path) -> None:
    server.reset()
    server.behave = Exchange.wait_until_left
    with serve(plain(tmp_path, upstream=server.url, upstream_timeout=0.2)) as service:
        answer = service.http.post(CHAT, json={"model": "m", "messages": [user("x")]})
        assert answer.status_code == 504
        assert "0.2 s" in error_of(answer)["message"]
        assert server.gone.wait(PATIENCE)


def test_without_an_upstream_it_is_501_and_names_the_flag(tmp_path: Path) -> None:
    with serve(plain(tmp_path)) as service:
        for answer in (
            service.http.post(CHAT, json={"model": "m", "messages": [user("x")]}),
            service.http.post("/v1/completions", json={"model": "m", "prompt": "x"}),
            service.http.get("/v1/models"),
        ):
            assert answer.status_code == 501
            assert "--upstream" in error_of(answer)["message"]


@pytest.mark.parametrize(
    "settings",
    [
        {"upstream": "127.0.0.1:8000/v1"},
        {"upstream": "file:///etc/passwd"},
        {"upstream": "http://"},
        {"upstream": "http://user:hunter2@127.0.0.1/v1"},
        {"upstream": "http://127.0.0.1/v1?key=hunter2"},
        {"upstream_key": "hunter2 x"},
        {"upstream_key": "hunter2\r\nx: y"},
        {"upstream_key": " "},
    ],
)
def test_an_upstream_that_cannot_be_is_refused_at_start(settings: dict[str, str]) -> None:
    with pytest.raises(ConfigError, match="upstream") as caught:
        Upstream(Settings(**settings))
    assert "hunter2" not in str(caught.value)


# Keys and headers


def test_the_clients_authorization_passes_where_there_are_no_keys(
    client: openai.OpenAI, service: Service, server: UpstreamServer
) -> None:
    client.models.list()
    assert server.seen[-1].headers["authorization"] == "Bearer sk-of-the-client"
    with official(service, OURS) as ours:
        ours.models.list()
    assert "authorization" not in server.seen[-1].headers


def test_a_key_of_the_upstream_takes_the_place_of_the_clients(server: UpstreamServer, tmp_path: Path) -> None:
    server.reset()
    with serve(plain(tmp_path, upstream=server.url, upstream_key="sk-up\n")) as service, official(service) as client:
        client.chat.completions.create(model="m", messages=[{"role": "user", "content": "x"}])
        assert server.seen[-1].headers["authorization"] == "Bearer sk-up"


@pytest.mark.parametrize("upstream_key", [None, "sk-up"])
def test_our_keys_are_asked_for_and_never_passed_on(
    server: UpstreamServer, tmp_path: Path, upstream_key: str | None
) -> None:
    server.reset()
    settings = plain(tmp_path, upstream=server.url, upstream_key=upstream_key)
    key = key_for(settings)
    with serve(settings) as service:
        with (
            official(service) as stranger,
            pytest.raises(openai.AuthenticationError, match="needs a key"),
        ):
            stranger.models.list()
        assert server.seen == []
        with official(service, key) as client:
            client.chat.completions.create(model="m", messages=[{"role": "user", "content": "x"}])
            client.models.list()
    for seen in server.seen:
        assert seen.headers.get("authorization") == (None if upstream_key is None else "Bearer sk-up")
        assert key not in str(seen)


def test_only_headers_that_mean_something_go_upstream(service: Service, server: UpstreamServer) -> None:
    passing = {"openai-organization": "org", "idempotency-key": "once", "traceparent": "00-1", "user-agent": "me/1"}
    staying = {
        "cookie": "session=1",
        "x-ics-pool": "tickets",
        "x-forwarded-for": "10.0.0.1",
        "proxy-authorization": "Basic x",
        "te": "trailers",
        "accept-encoding": "br",
    }
    for _ in range(2):  # a cookie that the first answer set must not come with the second request
        headers = {**passing, **staying, "x-request-id": "mine"}
        service.http.cookies.clear()
        service.http.post(CHAT, json={"model": "m", "messages": [user(QUERY)]}, headers=headers).raise_for_status()
        sent = server.seen[-1].headers
        assert {name: sent[name] for name in passing} == passing
        assert sent["accept-encoding"] == "identity"
        assert sent["x-request-id"] == "mine"
        assert sent["host"] == server.url.split("/")[2]
        assert not set(sent) & (set(staying) - {"accept-encoding"})


def test_blanks_around_a_header_are_cut(service: Service, server: UpstreamServer) -> None:
    host, port = service.url.removeprefix("http://").split(":")
    head = f"GET /v1/models HTTP/1.1\r\nhost: {host}\r\nconnection: close\r\nauthorization: Bearer \t \r\n\r\n"
    with socket.create_connection((host, int(port)), PATIENCE) as connection:
        connection.sendall(head.encode())
        assert connection.recv(15).startswith(b"HTTP/1.1 200 ")
    assert server.seen[-1].headers["authorization"] == "Bearer"


def test_a_header_that_cannot_be_passed_on_is_the_clients_fault(server: UpstreamServer, tmp_path: Path) -> None:
    async def ask() -> None:
        upstream = Upstream(plain(tmp_path, upstream=server.url))
        await upstream.read(Call("GET", "/models", [(b"authorization", b"Bearer sk-\x00secret")]), 10_000)

    with pytest.raises(RefusedError, match="a header of the request") as caught:
        asyncio.run(ask())
    assert "secret" not in str(caught.value)


def test_connections_are_kept_until_they_are_closed(tmp_path: Path) -> None:
    async def ask_twice_and_close(server: UpstreamServer) -> None:
        upstream = Upstream(plain(tmp_path, upstream=server.url))
        for _ in range(2):
            assert (await upstream.read(Call("GET", "/models", []), 10_000))[0] == 200
            assert server.connections == 1
        await upstream.close()
        async with asyncio.timeout(PATIENCE):
            while server.connections:
                await asyncio.sleep(0.01)

    with serve_upstream() as server:
        asyncio.run(ask_twice_and_close(server))
        assert len(server.seen) == 2


def test_an_answer_that_is_not_wanted_gives_its_connection_back(tmp_path: Path) -> None:
    async def be_sent_elsewhere(server: UpstreamServer) -> None:
        upstream = Upstream(plain(tmp_path, upstream=server.url))
        for _ in range(3):
            with pytest.raises(UpstreamError, match="redirects"):
                await upstream.read(Call("GET", "/models", []), 10_000)
        async with asyncio.timeout(PATIENCE):
            while server.connections > 1:
                await asyncio.sleep(0.01)
        await upstream.close()

    with serve_upstream() as server:
        server.behave = lambda exchange: exchange.whole(302, b"moved", {"location": "/"})
        asyncio.run(be_sent_elsewhere(server))


def test_a_stream_that_is_open_when_the_service_stops_ends_upstream(server: UpstreamServer, tmp_path: Path) -> None:
    server.reset()

    def behave(exchange: Exchange) -> None:
        exchange.begin_events()
        exchange.event(delta("first"))
        exchange.wait_until_left()

    server.behave = behave
    with httpx2.Client(trust_env=False) as http, contextlib.ExitStack() as open_ones:
        with serve(plain(tmp_path, upstream=server.url), graceful=1) as service:
            body = {"model": "m", "messages": [user("x")]}
            answer = open_ones.enter_context(http.stream("POST", f"{service.url}{CHAT}", json=body))
            pieces = answer.iter_raw()
            assert b"first" in next(pieces)
        assert server.gone.wait(PATIENCE)
        with pytest.raises(httpx2.RemoteProtocolError):
            next(pieces)


def test_prompts_are_counted(service: Service) -> None:
    def counted() -> dict[str, float]:
        lines = service.http.get("/metrics").text.splitlines()
        found = [line.rsplit(" ", 1) for line in lines if line.startswith("ics_prompts_total{")]
        return {name.split('"')[1]: float(value) for name, value in found}

    before = counted()
    service.http.post(CHAT, json={"model": "tickets::m", "messages": [user("new words")]}).raise_for_status()
    assert service.http.post(CHAT, json={"model": "bare::m", "messages": [user("new words")]}).status_code == 409
    service.http.post(CHAT, json={"model": "m", "messages": [user("new words")]}).raise_for_status()
    after = counted()
    assert {name: after[name] - before.get(name, 0.0) for name in ("answered", "refused")} == {
        "answered": 1.0,
        "refused": 1.0,
    }


# By hand


@pytest.mark.parametrize(
    ("model", "header", "pool", "rest"),
    [
        ("tickets::m", None, "tickets", "m"),
        ("a.b_c-9::ft:gpt-4o:org::id", None, "a.b_c-9", "ft:gpt-4o:org::id"),
        ("ft:gpt-4o:org::id", None, None, "ft:gpt-4o:org::id"),
        ("ft:gpt-4o:org::id", "tickets", "tickets", "ft:gpt-4o:org::id"),
        ("x" * 65 + "::m", None, None, "x" * 65 + "::m"),
        ("tickets:m", None, None, "tickets:m"),
        (":::m", None, None, ":::m"),
        ("tickets:::m", None, "tickets", ":m"),
    ],
)
def test_names_of_pools(model: str, header: str | None, pool: str | None, rest: str) -> None:
    body = {"model": model, "k": 1}
    assert name_of(body, header) == (pool, {"model": rest, "k": 1})
    assert body == {"model": model, "k": 1}


@pytest.mark.parametrize(
    ("sent", "upstream_key", "closed", "expected"),
    [
        ("Bearer sk-1", None, False, "Bearer sk-1"),
        ("Basic c2s6eA==", None, False, "Basic c2s6eA=="),
        (None, None, False, None),
        ("Bearer sk-1", None, True, None),
        ("Bearer sk-1", "up", False, "Bearer up"),
        (f"Bearer {OURS}", "up", True, "Bearer up"),
        (f"Bearer {OURS}", None, False, None),
        (f"bearer  {OURS} ", None, False, None),
    ],
)
def test_whose_key_goes_upstream(
    sent: str | None, upstream_key: str | None, closed: bool, expected: str | None
) -> None:
    assert authorization_for(sent, upstream_key, closed=closed) == expected


def test_ids_in_headers_are_bounded_and_whole() -> None:
    def document(number: int, ids: list[str]) -> dict[str, Any]:
        return {"id": f"prompt_{number}", "examples": [{"id": name} for name in ids]}

    found = dict(headers_about([document(0, ["a,b", "ü;"]), document(1, []), document(2, ["%", "\r\n"])]))
    assert found == {
        b"x-ics-prompt-id": b"prompt_0,prompt_1,prompt_2",
        b"x-ics-example-ids": b"a%2Cb,%C3%BC%3B;;%25,%0D%0A",
        b"x-ics-example-count": b"4",
    }
    found = dict(headers_about([document(number, ["x" * 500] * 4) for number in range(300)]))
    assert found[b"x-ics-example-ids"] == b"x" * 500 + (b"," + b"x" * 500) * 3 + b";"[:0]
    assert found[b"x-ics-example-count"] == b"1200"
    names = found[b"x-ics-prompt-id"].decode().split(",")
    assert names == [f"prompt_{number}" for number in range(len(names))]
    assert 2_000 < len(found[b"x-ics-prompt-id"]) <= 2_048
    assert headers_about([document(0, [])])[1] == (b"x-ics-example-ids", b"")


def test_only_streams_are_marked_as_such() -> None:
    assert headers_back([(b"Content-Type", b"application/json")], []) == [(b"content-type", b"application/json")]
    marked = dict(headers_back([(b"content-type", b"text/event-stream")], [(b"x-ics-prompt-id", b"p")]))
    assert marked[b"cache-control"] == b"no-cache"
    assert marked[b"x-ics-prompt-id"] == b"p"
    assert (b"authorization", b"Bearer x") in headers_on([(b"authorization", b"secret")], "Bearer x", "id")
    assert all(name != b"authorization" for name, _ in headers_on([(b"authorization", b"secret")], None, "id"))


def test_numbers_that_json_has_not_are_refused() -> None:
    with pytest.raises(RefusedError, match="number"):
        write_body({"x": float("inf")})
    with pytest.raises(UpstreamError):
        with_pools(b'{"data": [{"id": "a", "x": Infinity}]}', [])
    assert not issubclass(RefusedError, NotFoundError)
