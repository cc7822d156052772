"""The routes of pools, items, labels and prompts, over HTTP, on both databases."""

from __future__ import annotations

import csv
import io
import json
import os
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from databases import SERVER, new_database
from running import Running, rows

from icl_select import Pool


@pytest.fixture(scope="module", params=["sqlite", "postgresql"])
def service(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    folder = tmp_path_factory.mktemp("service")
    options = ("--encoders", "hash", "minilm")
    if request.param == "sqlite":
        with Running(folder, *options) as running:
            yield running
        return
    server = os.environ.get(SERVER)
    if not server:
        pytest.skip(f"needs PostgreSQL: scripts/postgres.sh run COMMAND, or a server's URL in {SERVER}")
    with (
        new_database(server) as url,
        Running(folder, *options, environ={"ICS_SERVICE_DATABASE": url}) as running,
    ):
        yield running


_NAMES = iter(f"pool-{number}" for number in range(10_000))


@pytest.fixture
def name() -> str:
    return next(_NAMES)


def fails(service: Running, status: int, words: str, *request: Any, **options: Any) -> dict[str, Any]:
    """The problem document of a request that must fail so."""
    answer = service.send(*request, **options)
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    problem: dict[str, Any] = answer.json()
    assert problem["status"] == status
    assert problem["instance"] == f"urn:icl-select:request:{answer.headers['x-request-id']}"
    assert words in problem["detail"], problem["detail"]
    return problem


def test_a_pool_is_made_read_changed_listed_and_deleted(service: Running, name: str) -> None:
    made = service.call("POST", "/v1/pools", {"name": name, "label_words": ["a", "b"], "annotators": 2}, status=201)
    assert made["encoder"] == "hash"  # the first that is offered
    assert made == service.call("GET", f"/v1/pools/{name}")
    fails(service, 409, "exists already", "POST", "/v1/pools", {"name": name})
    changed = service.call("PATCH", f"/v1/pools/{name}", {"annotators": 1, "prompt": {"k": 3}})
    assert (changed["annotators"], changed["prompt"], changed["label_words"]) == (1, {"k": 3}, ["a", "b"])
    assert name in [pool["name"] for pool in service.call("GET", "/v1/pools?limit=1000")["pools"]]
    assert service.send("DELETE", f"/v1/pools/{name}").status_code == 204
    fails(service, 404, f"no pool '{name}'", "GET", f"/v1/pools/{name}")


def test_pools_are_listed_page_by_page(service: Running) -> None:
    names = [f"page{letter}" for letter in "abc"]
    for each in names:
        service.call("POST", "/v1/pools", {"name": each})
    found, after = [], None
    while True:
        page = service.call("GET", "/v1/pools", params={"limit": 2, **({"after": after} if after else {})})
        found += [pool["name"] for pool in page["pools"]]
        after = page["next"]
        if after is None:
            break
    assert len(found) == len(set(found))
    assert set(names) <= set(found)


@pytest.mark.parametrize(
    ("body", "words"),
    [
        ({"name": "a b"}, "/name"),
        ({"name": "../x"}, "/name"),
        ({}, "/name"),
        ({"name": "x", "encodr": "hash"}, "/encodr"),
        ({"name": "x", "encoder": "some/model"}, "not offered"),
        ({"name": "x", "encoder": "/etc"}, "not offered"),
        ({"name": "x", "encoder": "hash(dm=3)"}, "has no parameter 'dm'"),
        ({"name": "x", "encoder": "minilm(model='other/model')"}, "names a model"),
        ({"name": "x", "prompt": {"k": 100_000}}, "exceeds the 256"),
        ({"name": "x", "prompt": {"tokenizer": "/etc/passwd"}}, "not offered"),
        ({"name": "x", "prompt": {"template": {"query": "{{ label }}"}}}, "label"),
        ({"name": "x", "prompt": {"template": {"query": "{% include 'x' %}"}}}, "include"),
        ({"name": "x", "text": "  "}, "blank"),
    ],
)
def test_a_pool_that_cannot_be_is_refused(service: Running, body: dict[str, Any], words: str) -> None:
    fails(service, 422, words, "POST", "/v1/pools", body)
    assert service.send("GET", "/v1/pools/x").status_code == 404


def test_a_body_that_is_no_json_is_refused(service: Running) -> None:
    headers = {"Content-Type": "application/json"}
    fails(service, 422, "JSON", "POST", "/v1/pools", b"{", headers=headers)
    fails(service, 400, "JSON", "POST", "/v1/pools", b'{"name": "\xff"}', headers=headers)
    fails(service, 404, "/v1/nothing", "GET", "/v1/nothing")
    fails(service, 405, "PUT", "PUT", "/v1/pools", {})


def as_parquet(items: list[dict[str, Any]]) -> bytes:
    stream = io.BytesIO()
    pq.write_table(pa.Table.from_pylist(items), stream)
    return stream.getvalue()


def as_lines(items: list[dict[str, Any]]) -> bytes:
    return b"".join(json.dumps(item).encode() + b"\n" for item in items)


def as_json(items: list[dict[str, Any]]) -> bytes:
    return json.dumps({"items": items}).encode()


@pytest.mark.parametrize(
    ("kind", "write"),
    [("application/json", as_json), ("application/x-ndjson", as_lines), ("application/vnd.apache.parquet", as_parquet)],
)
def test_items_come_in_three_kinds(service: Running, name: str, kind: str, write: Any) -> None:
    service.call("POST", "/v1/pools", {"name": name})
    items = rows(5, labelled=2)
    for each in items:
        each.setdefault("label", None)
    done = service.call("PUT", f"/v1/pools/{name}/items", write(items), headers={"Content-Type": kind})
    assert (done["added"], done["unchanged"], done["labelled"], done["n_items"], done["version"]) == (5, 0, 2, 5, 1)
    again = service.call("PUT", f"/v1/pools/{name}/items", write(items), headers={"Content-Type": kind})
    assert (again["added"], again["unchanged"], again["version"], again["job"]) == (0, 5, 1, None)
    shown = service.call("GET", f"/v1/pools/{name}/items?limit=3")
    assert [item["id"] for item in shown["items"]] == ["item-0", "item-1", "item-2"]
    assert [item["label"] for item in shown["items"]] == ["a", "b", None]
    rest = service.call("GET", f"/v1/pools/{name}/items?limit=3&after={shown['next']}")
    assert [item["id"] for item in rest["items"]] == ["item-3", "item-4"]
    assert rest["next"] is None
    assert len(service.call("GET", f"/v1/pools/{name}/items?labelled=true")["items"]) == 2
    one = service.call("GET", f"/v1/pools/{name}/items/item-3")
    assert (one["text"], one["label"], one["conflict"]) == (items[3]["text"], None, False)


@pytest.mark.parametrize(
    ("content", "kind", "status", "words"),
    [
        (b'{"text": "good"}\n{"text": ', "application/x-ndjson", 422, "line 2: not JSON"),
        (b'{"text": "good"}\n{"text": " "}', "application/x-ndjson", 422, "line 2: the text is empty"),
        (b'{"text": "good"}\n{"body": "x"}', "application/x-ndjson", 422, "line 2: no field 'text'"),
        (b'{"id": "a", "text": "x"}\n{"id": "a", "text": "x"}', "application/x-ndjson", 409, "comes twice"),
        (b'{"id": "a", "text": "x"}\n{"id": "a", "text": "y"}', "application/x-ndjson", 409, "other content"),
        (b'{"id": "a\\u0000", "text": "x"}', "application/x-ndjson", 422, "NUL"),
        (b'{"text": "\\ud800"}', "application/x-ndjson", 422, "surrogate"),
        (b'{"text": "x", "n": 1e999}', "application/x-ndjson", 422, "JSON"),
        (b"", "application/x-ndjson", 422, "no rows"),
        (b"\x1f\x8b\x08", "application/x-ndjson", 422, "gzip"),
        (b"PAR1 no", "application/vnd.apache.parquet", 422, "Parquet"),
        (b"a,b\n1,2", "text/csv", 415, "text/csv"),
        (b'{"items": []}', "application/json", 422, "/items"),
        (b'{"items": [{"text": "x"}', "application/json", 422, "JSON"),
    ],
)
def test_an_upload_is_taken_whole_or_not_at_all(
    service: Running, name: str, content: bytes, kind: str, status: int, words: str
) -> None:
    service.call("POST", "/v1/pools", {"name": name})
    fails(service, status, words, "PUT", f"/v1/pools/{name}/items", content, headers={"Content-Type": kind})
    pool = service.call("GET", f"/v1/pools/{name}")
    assert (pool["n_items"], pool["version"], pool["n_labelled"]) == (0, 0, 0)
    # What was refused leaves nothing in the way of the next.
    assert service.upload(name, rows(2))["n_items"] == 2


def test_text_is_made_of_fields_as_the_pool_says(service: Running, name: str) -> None:
    config = {"name": name, "text": "{subject}: {body}", "id_field": "key", "label_field": "topic"}
    service.call("POST", "/v1/pools", {**config, "label_words": ["post", "bill"]})
    service.upload(name, [{"key": 7, "subject": "Parcel", "body": "lost", "topic": "post"}])
    item = service.call("GET", f"/v1/pools/{name}/items/7")
    assert (item["text"], item["label"]) == ("Parcel: lost", "post")
    fails(
        service, 422, "label words", "PUT", f"/v1/pools/{name}/items",
        as_lines([{"key": 8, "subject": "a", "body": "b", "topic": "other"}]),
        headers={"Content-Type": "application/x-ndjson"},
    )  # fmt: skip


UNICODE = [
    "naïve café ☕",
    "日本語のテキスト",
    "مرحبا",
    "👩‍👩‍👧‍👦 family",
    "tab\tand\u2028line",
    "nul \u0000 inside",
    "e\u0301 \u00e9",
]


def test_unicode_of_every_sort_comes_back_as_it_went_in(service: Running, name: str) -> None:
    items = [{"id": f"id {text.replace(chr(0), '')}", "text": text} for text in UNICODE]
    service.pool(name, [{**item, "label": "☕"} for item in items])
    shown = service.call("GET", f"/v1/pools/{name}/items")["items"]
    assert [item["text"] for item in shown] == UNICODE
    one = service.send("GET", f"/v1/pools/{name}/items/{items[3]['id']}")
    assert one.json()["text"] == UNICODE[3]
    answer = service.send("POST", "/v1/prompts", {"pool": name, "query": UNICODE[5]})
    assert answer.status_code == 200
    assert service.send("GET", f"/v1/prompts/{answer.json()['id']}").content == answer.content


def test_the_pool_comes_back_as_a_file_that_the_library_reads(service: Running, name: str, tmp_path: Path) -> None:
    items = [*rows(5, labelled=2), {"id": "nul", "text": "a\u2028b", "more": [1, {"x": None}]}]
    service.pool(name, items)
    service.call("PUT", f"/v1/pools/{name}/labels/nul", {"label": "c"})
    path = tmp_path / "pool.jsonl"
    path.write_bytes(service.send("GET", f"/v1/pools/{name}/export").content)
    pool = Pool.read(path)
    expected = Pool.from_records(items).label({"nul": "c"})
    assert list(pool) == list(expected)


def test_labels_are_written_corrected_and_kept(service: Running, name: str) -> None:
    service.pool(name, rows(4))
    path = f"/v1/pools/{name}/labels"
    first = service.call("PUT", path, {"labels": [{"id": "item-0", "label": "a"}, {"id": "item-1", "label": "b"}]})
    assert (first["written"], first["changed"], first["version"], first["n_labelled"]) == (2, 2, 1, 2)
    again = service.call("PUT", path, {"labels": [{"id": "item-0", "label": "a"}]})
    assert (again["written"], again["unchanged"], again["version"]) == (0, 1, 1)
    service.call("PUT", f"{path}/item-0", {"label": "c"})
    service.call("PUT", f"{path}/item-1", {"status": "retract"})
    now = service.call("GET", path)
    assert [(label["id"], label["label"]) for label in now["labels"]] == [("item-0", "c"), ("item-1", None)]
    then = service.call("GET", f"{path}?version=1")
    assert [(label["id"], label["label"]) for label in then["labels"]] == [("item-0", "a"), ("item-1", "b")]
    said = service.call("GET", f"/v1/pools/{name}/history/item-0")
    assert [(word["label"], word["annotator"], word["version"]) for word in said] == [
        ("a", "anonymous", 1),
        ("c", "anonymous", 2),
    ]
    fails(service, 422, "lies ahead", "GET", f"{path}?version=99")


def test_labels_of_one_request_are_taken_together_or_not_at_all(service: Running, name: str) -> None:
    service.pool(name, rows(3), label_words=["a", "b"])
    path = f"/v1/pools/{name}/labels"
    good = {"id": "item-0", "label": "a"}
    problem = fails(service, 404, "nobody", "PUT", path, {"labels": [good, {"id": "nobody", "label": "a"}]})
    assert problem["errors"] == [{"pointer": "/labels/1/id", "detail": "no item 'nobody'"}]
    fails(service, 422, "not one of the 2 label words", "PUT", path, {"labels": [good, {"id": "item-1", "label": "c"}]})
    fails(service, 422, "status 'label'", "PUT", path, {"labels": [good, {"id": "item-1", "status": "label"}]})
    fails(service, 422, "future", "PUT", path, {"labels": [{**good, "created_at": "2999-01-01T00:00:00Z"}]})
    fails(service, 422, "/labels/0/label", "PUT", path, {"labels": [{"id": "item-0", "label": "a\u0000"}]})
    assert service.call("GET", path)["labels"] == []
    assert service.call("GET", f"/v1/pools/{name}")["labels_version"] == 0


def test_several_annotators_are_resolved_by_majority_and_reported(service: Running, name: str) -> None:
    service.pool(name, rows(3), annotators=3)
    path = f"/v1/pools/{name}/labels"

    def says(annotator: str, item: int, label: str | None = None, **more: Any) -> Any:
        word = {"id": f"item-{item}", "annotator": annotator, **more}
        return service.call("POST", path, {"labels": [{**word, **({"label": label} if label else {})}]})

    says("ann", 0, "a")
    assert says("bob", 0, "b")["conflicts"] == ["item-0"]
    assert service.call("GET", f"/v1/pools/{name}/items/item-0")["label"] is None
    says("cy", 0, "a")
    assert service.call("GET", f"/v1/pools/{name}/items/item-0")["label"] == "a"
    says("dee", 0, "b", adjudicated=True)
    assert service.call("GET", f"/v1/pools/{name}/items/item-0")["label"] == "b"
    says("ann", 1, status="unsure")
    says("ann", 2, "x")
    says("bob", 2, "y")
    report = service.call("GET", f"/v1/pools/{name}/agreement")
    assert report["conflicts"] == ["item-2"]
    assert (report["n_annotators"], report["n_multiple"]) == (4, 2)


@pytest.mark.parametrize("kind", ["csv", "jsonl"])
def test_labels_go_out_and_come_in_as_files(service: Running, name: str, kind: str) -> None:
    service.pool(name, rows(5, labelled=3))
    content = service.send("GET", f"/v1/pools/{name}/labels/export?format={kind}").content
    other = f"{name}-copy"
    service.pool(other, rows(4))
    done = service.call("POST", f"/v1/pools/{other}/labels/import", content)
    assert (done["written"], done["n_labelled"], done["unknown"]) == (3, 3, [])
    mine, copied = (service.call("GET", f"/v1/pools/{pool}/labels")["labels"] for pool in (name, other))
    assert [(label["id"], label["label"]) for label in mine] == [(label["id"], label["label"]) for label in copied]
    fails(service, 422, "none of the", "POST", f"/v1/pools/{other}/labels/import", b"id,label\nx,a\n")
    part = service.call("POST", f"/v1/pools/{other}/labels/import", b"id,label\nx,a\nitem-3,b\n")
    assert (part["unknown"], part["changed"]) == (["x"], 1)


def test_every_vote_can_be_exported(service: Running, name: str) -> None:
    service.pool(name, rows(2))
    for annotator, label in (("ann", "a"), ("bob", "b")):
        body = {"label": label, "annotator": annotator}
        service.call("PUT", f"/v1/pools/{name}/labels/item-0", body)
    content = service.send("GET", f"/v1/pools/{name}/labels/export?votes=true").text
    assert [(row["id"], row["label"], row["annotator"]) for row in csv.DictReader(io.StringIO(content))] == [
        ("item-0", "a", "ann"),
        ("item-0", "b", "bob"),
    ]


def ask(service: Running, pool: str, query: Any, **options: Any) -> Any:
    return service.call("POST", "/v1/prompts", {"pool": pool, "query": query, **options})


def test_a_prompt_says_all_that_made_it(service: Running, name: str) -> None:
    service.pool(name, rows(20, labelled=10))
    query = rows(1)[0]["text"]
    made = ask(service, name, query, k=3)
    assert [shown["rank"] for shown in made["examples"]] == [2, 1, 0]  # the nearest stands next to the query
    assert made["examples"][-1]["id"] == "item-0"
    assert made["examples"][-1]["score"] == pytest.approx(1.0)
    assert made["prompt"].endswith(query)
    assert made["messages"][-1] == {"role": "user", "content": query}
    assert len(made["messages"]) == 7
    assert made["usage"]["prompt_tokens"] == len(made["prompt"].encode())
    pool = service.call("GET", f"/v1/pools/{name}")
    assert made["versions"]["pool"] == pool["version"]
    assert made["versions"]["labels"] == pool["labels_version"]
    assert made["versions"]["embedding"] == pool["embedding"]["id"]
    assert made["versions"]["encoder"] == f"hash(dim=64)@{pool['embedding']['encoder_fingerprint']}"


def test_a_prompt_is_the_one_that_the_library_makes(service: Running, name: str) -> None:
    from icl_select import Prompter, PromptTemplate, embed

    items = rows(30, labelled=15)
    service.pool(name, items)
    pool = Pool.from_records(items)
    x = embed(pool, "hash(dim=64)", cache=False, progress=False)
    template = PromptTemplate("Q: {{ text }}\nA: {{ label }}", "Q: {{ text }}\nA:", instruction="Sort it.")
    for query in ("word7 word14", items[3]["text"], "nothing alike"):
        for options in ({"k": 5}, {"k": 8, "max_tokens": 400}, {"k": 4, "mmr": 0.5}, {"k": 4, "balance": True}):
            expected = Prompter(pool, x, template=template, **options)(query)
            parts = {"demonstration": template.demonstration, "query": template.query, "instruction": "Sort it."}
            made = ask(service, name, query, template=parts, **options)
            assert made["prompt"] == expected.text
            assert [shown["id"] for shown in made["examples"]] == [shown.id for shown in expected.examples]
            assert made["usage"]["prompt_tokens"] == expected.tokens
            assert [dropped["id"] for dropped in made["dropped"]] == [dropped.id for dropped in expected.dropped]


def test_many_queries_are_answered_in_order(service: Running, name: str) -> None:
    service.pool(name, rows(20, labelled=10))
    queries = [row["text"] for row in rows(40, start=100)]
    made = service.call("POST", "/v1/prompts", {"pool": name, "queries": queries})["prompts"]
    assert [one["messages"][-1]["content"] for one in made] == queries
    assert made == [ask(service, name, query) for query in queries]
    fails(
        service, 422, "queries[1]", "POST", "/v1/prompts", {"pool": name, "queries": ["good", " "]}
    )  # fmt: skip
    fails(service, 422, "exceed the 1000", "POST", "/v1/prompts", {"pool": name, "queries": ["x"] * 1001})


def test_every_answered_prompt_is_rebuilt_byte_for_byte_whatever_came_after(service: Running, name: str) -> None:
    service.pool(name, rows(20, labelled=10), text="text")
    answers = []
    template = {"demonstration": "{{ number }}. {{ text }} -> {{ label }}", "query": "{{ number }}. {{ text }}"}
    for place, query in enumerate(["word3", {"text": "word5 word6", "id": "q7"}, "word9 ☕", "word3"]):
        options: dict[str, Any] = {"k": 2 + place} if place % 2 else {"template": template, "order": "shuffled"}
        answers.append(service.send("POST", "/v1/prompts", {"pool": name, "query": query, **options}))
        service.call("PUT", f"/v1/pools/{name}/labels/item-{place}", {"label": f"new {place}"})
        service.upload(name, rows(2, start=100 + 2 * place))
    assert len({answer.json()["id"] for answer in answers}) == 4
    for answer in answers:
        assert service.send("GET", f"/v1/prompts/{answer.json()['id']}").content == answer.content
    fails(service, 404, "no prompt", "GET", "/v1/prompts/prompt_nothing")


def test_a_label_is_seen_by_the_next_prompt(service: Running, name: str) -> None:
    items = rows(10)
    service.pool(name, items)
    fails(service, 409, "none of the 10 items", "POST", "/v1/prompts", {"pool": name, "query": "word1"})
    for number, item in enumerate(items):
        service.call("PUT", f"/v1/pools/{name}/labels/{item['id']}", {"label": f"L{number}"})
        made = ask(service, name, item["text"], k=1)
        assert [(shown["id"], shown["label"]) for shown in made["examples"]] == [(item["id"], f"L{number}")]
    service.call("PUT", f"/v1/pools/{name}/labels/item-9", {"label": "other"})
    assert ask(service, name, items[9]["text"], k=1)["examples"][0]["label"] == "other"


def test_a_query_never_sees_the_item_of_its_own_id(service: Running, name: str) -> None:
    items = rows(5, labelled=5)
    service.pool(name, items)
    made = ask(service, name, {"id": "item-2", "text": items[2]["text"]}, k=5)
    assert "item-2" not in [shown["id"] for shown in made["examples"]]
    assert len(made["examples"]) == 4


@pytest.mark.parametrize(
    ("body", "status", "words"),
    [
        ({"query": ""}, 422, "empty"),
        ({"query": "  \u2028"}, 422, "empty"),
        ({"query": "\ud800"}, 422, ""),
        ({"query": "x" * 300_000}, 422, "300,000 characters"),
        ({"query": {"body": "x"}}, 422, "no field 'text'"),
        ({"query": "x", "queries": ["y"]}, 422, "not both"),
        ({}, 422, "query"),
        ({"query": "x", "k": 0}, 422, "/k"),
        ({"query": "x", "k": 1_000_000}, 422, "exceeds the 256"),
        ({"query": "x" * 50, "max_tokens": 20}, 422, "takes 50 tokens alone"),
        ({"query": "x", "template": {"query": "{{ nothing }}"}}, 422, "nothing"),
        ({"query": "x", "template": {"query": "x" * 70_000}}, 422, "64,000"),
        ({"query": "x", "template": {"query": "{% for a in b %}" * 300}}, 422, "template"),
        ({"query": "x", "tokenizer": "gpt2"}, 422, "not offered"),
        ({"query": "x", "order": "backwards"}, 422, "/order"),
        ({"query": "x", "mmr": 2}, 422, "/mmr"),
        ({"query": "x", "kk": 2}, 422, "/kk"),
        ({"query": "x", "pool": "nobody"}, 404, "no pool 'nobody'"),
    ],
)
def test_a_prompt_that_cannot_be_is_refused(service: Running, body: dict[str, Any], status: int, words: str) -> None:
    if not service.send("GET", "/v1/pools/refusals").is_success:
        service.pool("refusals", rows(5, labelled=5))
    content = json.dumps({"pool": "refusals", **body}).encode()
    fails(service, status, words, "POST", "/v1/prompts", content, headers={"Content-Type": "application/json"})


def test_an_idempotency_key_does_a_thing_once(service: Running, name: str) -> None:
    key = {"Idempotency-Key": f"key-{name}"}
    first = service.send("POST", "/v1/pools", {"name": name}, headers=key)
    again = service.send("POST", "/v1/pools", {"name": name}, headers=key)
    assert (first.status_code, again.status_code) == (201, 201)
    assert first.json() == again.json()
    assert again.headers["idempotency-replayed"] == "true"
    assert again.headers["location"] == first.headers["location"]
    fails(service, 422, "another request", "POST", "/v1/pools", {"name": f"{name}2"}, headers=key)
    lines = {"Idempotency-Key": f"items-{name}", "Content-Type": "application/x-ndjson"}
    added = service.call("POST", f"/v1/pools/{name}/items", as_lines(rows(3, labelled=1)), headers=lines)
    assert service.call("POST", f"/v1/pools/{name}/items", as_lines(rows(3, labelled=1)), headers=lines) == added
    fails(service, 422, "another request", "POST", f"/v1/pools/{name}/items", as_lines(rows(2)), headers=lines)
    service.wait(added["job"])
    prompt = {"pool": name, "query": "word1"}
    answer = service.call("POST", "/v1/prompts", prompt, headers={"Idempotency-Key": f"prompt-{name}"})
    service.call("PUT", f"/v1/pools/{name}/labels/item-1", {"label": "x"})
    # The same key, the same answer, although another one would be given now.
    assert service.call("POST", "/v1/prompts", prompt, headers={"Idempotency-Key": f"prompt-{name}"}) == answer
    assert service.call("POST", "/v1/prompts", prompt)["id"] != answer["id"]


def test_one_upload_at_a_time_writes_to_a_pool(service: Running, name: str) -> None:
    """The second is refused while the first sends; what the first sent is there in the end."""
    service.call("POST", "/v1/pools", {"name": name})
    results: list[int] = []

    def upload(start: int) -> None:
        content = as_lines(rows(3_000, start=start))
        headers = {"Content-Type": "application/x-ndjson"}
        results.append(service.send("PUT", f"/v1/pools/{name}/items", content, headers=headers).status_code)

    threads = [threading.Thread(target=upload, args=(10_000 * number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert set(results) <= {200, 409}
    assert service.call("GET", f"/v1/pools/{name}")["n_items"] == 3_000 * results.count(200)


def test_the_system_says_how_it_is(service: Running) -> None:
    assert service.call("GET", "/health") == {"status": "ok"}
    assert service.call("GET", "/ready") == {"status": "ready"}
    info = service.call("GET", "/info")
    assert "max_herding" in info["methods"]
    assert info["limits"]["batch"] == 1_000
    text = service.send("GET", "/metrics").text
    for metric in ("ics_http_request_duration_seconds_bucket", "ics_prompts_total", "ics_index_items", "ics_jobs"):
        assert metric in text
    assert "word1" not in text


def test_every_answer_bears_the_id_of_its_request_and_the_log_has_it(service: Running) -> None:
    answer = service.send("GET", "/info", headers={"X-Request-ID": "my-own.id_1"})
    assert answer.headers["x-request-id"] == "my-own.id_1"
    strange = service.send("GET", "/info", headers={"X-Request-ID": "not good\tat all"})
    assert strange.headers["x-request-id"] != "not good\tat all"
    assert any('"request_id": "my-own.id_1"' in line for line in service.log)
