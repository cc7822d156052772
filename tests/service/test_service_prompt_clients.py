"""Prompts over HTTP as clients meet them: they go away, send a request again, and send what cannot be."""

from __future__ import annotations

import json
import socket
import threading
from collections.abc import Iterator
from typing import Any

import httpx2
import pytest
import sqlalchemy as sa
from running import rows
from running_service import Service, fill, serve, until

from icl_select.service.settings import Limits, Settings
from icl_select.service.store.tables import idempotency, prompts


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    folder = tmp_path_factory.mktemp("service")
    settings = Settings(data_dir=folder, encoders=("hash",), limits=Limits(label_file_bytes=100))
    with serve(settings) as running:
        fill(running, {"name": "t", "encoder": "hash(dim=64)"}, rows(20), {f"item-{n}": "ab"[n % 2] for n in range(10)})
        yield running


def counted(service: Service, metric: str, **labels: str) -> float:
    return service.state.metrics.registry.get_sample_value(metric, labels) or 0.0


def rows_of(service: Service, column: Any) -> list[Any]:
    with service.state.database.read() as connection:
        return list(connection.execute(sa.select(column)).scalars())


def test_who_goes_away_is_waited_for_no_longer(service: Service) -> None:
    """While nothing can be kept one request is in hand and another waits; the client of that one has enough."""
    before = counted(service, "ics_embed_batch_queries_count")
    answered: list[httpx2.Response] = []
    body = json.dumps({"pool": "t", "queries": [f"gone {number}" for number in range(5)]}).encode()
    with service.state.database.write():
        first = threading.Thread(
            target=lambda: answered.append(service.http.post("/v1/prompts", json={"pool": "t", "query": "in hand"}))
        )
        first.start()
        until(lambda: counted(service, "ics_embed_batch_queries_count") > before)
        host, _, port = service.url.removeprefix("http://").partition(":")
        with socket.create_connection((host, int(port))) as connection:
            head = (
                "POST /v1/prompts HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
                f"Content-Length: {len(body)}\r\n\r\n"
            )
            connection.sendall(head.encode() + body)
            until(lambda: counted(service, "ics_prompt_queue_length") == 5)
        until(lambda: counted(service, "ics_prompts_total", outcome="abandoned") == 5)
    first.join(60)
    assert answered[0].status_code == 200
    service.http.post("/v1/prompts", json={"pool": "t", "query": "after"}).raise_for_status()
    assert counted(service, "ics_prompt_queue_length") == 0
    assert not [content for content in rows_of(service, prompts.c.content) if "gone" in content]
    route = {"method": "POST", "route": "/v1/prompts", "status": "499"}
    assert counted(service, "ics_http_request_duration_seconds_count", **route) == 1


@pytest.mark.parametrize("asked", [{"query": "once ☕"}, {"queries": [f"many {number}" for number in range(200)]}])
def test_a_request_that_is_sent_again_has_the_same_answer_byte_for_byte(service: Service, asked: Any) -> None:
    headers = {"Idempotency-Key": f"key-{len(str(asked))}"}
    body = {"pool": "t", "k": 9, **asked}
    first = service.http.post("/v1/prompts", json=body, headers=headers).raise_for_status()
    word = {"labels": [{"id": "item-0", "label": f"other {len(str(asked))}"}]}
    service.http.put("/v1/pools/t/labels", json=word).raise_for_status()
    again = service.http.post("/v1/prompts", json=body, headers=headers).raise_for_status()
    assert again.content == first.content
    assert (first.headers.get("idempotency-replayed"), again.headers["idempotency-replayed"]) == (None, "true")
    assert service.http.post("/v1/prompts", json=body).content != first.content
    # What is kept of it does not grow with what was answered.
    assert max(map(len, rows_of(service, idempotency.c.body))) < max(10_000, len(first.content) // 10)
    other = service.http.post("/v1/prompts", json={**body, "k": 8}, headers=headers)
    assert (other.status_code, "another request" in other.json()["detail"]) == (422, True)


@pytest.mark.parametrize(
    ("query", "words"),
    [
        (b'{"text": "x", "n": NaN}', "NaN or an infinite number"),
        (b'{"text": "x", "n": -Infinity}', "NaN or an infinite number"),
        (b'{"text": "x", "n": 1e999}', "NaN or an infinite number"),
        (b'{"text": "x", "n": ' + b"[" * 900 + b"]" * 900 + b"}", "nested too deeply"),
        (b'{"text": "x", "n": ' + b"9" * 5_000 + b"}", "cannot be read as JSON"),
        (b'{"tex": "x"}', "Did you mean 'tex'"),
        (b'{"text": "x", "n": ["\\ud800"]}', "surrogate"),
    ],
)
def test_a_query_that_cannot_be_is_refused(service: Service, query: bytes, words: str) -> None:
    content = b'{"pool": "t", "query": ' + query + b"}"
    answer = service.http.post("/v1/prompts", content=content, headers={"Content-Type": "application/json"})
    assert answer.status_code in (400, 422), answer.text
    assert words in answer.json()["detail"]


@pytest.mark.parametrize(
    "body",
    [
        b'{"pool": "t", "query": "\xe2\x98\x95 \\u00e4", "k": 3}',
        b'{"pool": "t", "query": {"text": "a", "n": [1, 1.5, 12345678901234567890, 1e-7, null, true, {"x": ""}]}}',
        b'{"pool": "t", "queries": ["a", {"text": "b"}], "k": "4", "mmr": 1}',
        b'{"pool": "t", "query": "a", "query": "b"}',
        b'{"pool": "t", "query": "a", "k": 2.5}',
        b'{"pool": "t", "query": "a", "other": 1}',
        b'{"pool": "t"}',
        b'{"pool": "t", "query": "a"',
        b"",
        b"[]",
        b'{"pool": "t", "query": "\\ud800"}',
        b'{"pool": "t", "query": "\xff"}',
    ],
)
def test_the_quick_way_of_a_plain_request_answers_as_the_careful_one(service: Service, body: bytes) -> None:
    kinds = ("application/json", "application/json; charset=utf-8")
    answers = [
        service.http.post("/v1/prompts", content=body, headers={"Content-Type": kind, "X-Request-ID": "same"})
        for kind in kinds
    ]
    assert answers[0].content == answers[1].content
    assert answers[0].status_code == answers[1].status_code < 500


def test_a_large_query_of_many_fields_is_refused_at_once(service: Service) -> None:
    """Each name would be compared with the one that is missing, while everybody waits."""
    fields = {f"tex{number:06}": 1 for number in range(10_000)}
    answer = service.http.post("/v1/prompts", json={"pool": "t", "queries": [fields] * 30})
    assert (answer.status_code, "no field 'text'" in answer.json()["detail"]) == (422, True)


def test_a_file_of_labels_has_a_limit_of_its_own(service: Service) -> None:
    content = b"id,label\n" + b"item-19,a\n" * 9
    assert len(content) == 99
    assert service.http.post("/v1/pools/t/labels/import", content=content + b"\n").status_code == 200
    large = service.http.post("/v1/pools/t/labels/import", content=content + b"\n\n")
    assert (large.status_code, "larger than 100 bytes" in large.json()["detail"]) == (413, True)


def test_hashing_has_a_largest_vector(service: Service) -> None:
    answer = service.http.post("/v1/pools", json={"name": "wide", "encoder": "hash(dim=1000000000)"})
    assert (answer.status_code, "16,384" in answer.json()["detail"]) == (422, True)
