"""What each method asks, and what it makes of the answer; the same for both clients."""

from __future__ import annotations

import dataclasses
import inspect
import json
import subprocess
import sys
import typing
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import client_helpers as h
import httpx2
import pytest

import icl_select
from icl_select import PromptTemplate
from icl_select.client import AnswerError, AsyncClient, Client, records
from icl_select.errors import DataError, ParameterError

EVENT = {
    "version": 1,
    "annotator": "ann",
    "status": "label",
    "label": "billing",
    "adjudicated": False,
    "created_at": h.WHEN,
    "received_at": h.WHEN,
}
ITEM = {
    "id": "a/b",
    "text": "t",
    "fields": {"text": "t"},
    "metadata": {},
    "label": None,
    "label_version": None,
    "n_votes": 0,
    "conflict": False,
}
LEASES = {
    "annotator": "ann",
    "items": [{"rank": 0, "id": "i0", "text": "t", "fields": {}, "expires_at": h.WHEN}],
    "remaining": 2,
    "label_words": ["billing"],
}
NO_CONTENT = httpx2.Response(204)

# Method, positional and named arguments, answer, request line, body or None.
CALLS: list[tuple[str, tuple[Any, ...], dict[str, Any], Any, str, Any]] = [
    ("health", (), {}, {"status": "ok"}, "GET /health", None),
    ("info", (), {}, {"version": "1"}, "GET /info", None),
    (
        "create_pool",
        ("tickets",),
        {"encoder": "hash", "label_words": ("a", "b"), "prompt": {"k": 4, "mmr": None}},
        httpx2.Response(201, json=h.pool()),
        "POST /v1/pools",
        {"name": "tickets", "encoder": "hash", "label_words": ["a", "b"], "prompt": {"k": 4}},
    ),
    ("pool", ("tickets",), {}, h.pool(), "GET /v1/pools/tickets", None),
    (
        "update_pool",
        ("tickets",),
        {"annotators": 2},
        h.pool(annotators=2),
        "PATCH /v1/pools/tickets",
        {"annotators": 2},
    ),
    (
        "update_pool",
        ("tickets",),
        {"label_words": "any"},
        h.pool(),
        "PATCH /v1/pools/tickets",
        {"label_words": None},
    ),
    ("delete_pool", ("tickets",), {}, NO_CONTENT, "DELETE /v1/pools/tickets", None),
    ("item", ("tickets", "a/b ?"), {}, ITEM, "GET /v1/pools/tickets/items/a%2Fb%20%3F", None),
    (
        "next_items",
        ("tickets", "s1"),
        {"annotator": "ann", "count": 2},
        LEASES,
        "POST /v1/pools/tickets/selections/s1/next",
        {"annotator": "ann", "count": 2},
    ),
    ("next_items", ("tickets", "s1"), {}, LEASES, "POST /v1/pools/tickets/selections/s1/next", {}),
    ("release", ("tickets",), {"annotator": "a b"}, NO_CONTENT, "DELETE /v1/pools/tickets/leases?annotator=a+b", None),
    (
        "label",
        ("tickets", "i0", "billing"),
        {"annotator": "ann", "created_at": datetime(2026, 1, 2, tzinfo=UTC)},
        h.taken(1),
        "POST /v1/pools/tickets/labels",
        {
            "labels": [
                {
                    "annotator": "ann",
                    "id": "i0",
                    "label": "billing",
                    "status": "label",
                    "created_at": "2026-01-02T00:00:00+00:00",
                    "adjudicated": False,
                }
            ]
        },
    ),
    (
        "label",
        ("tickets", "i0"),
        {"status": "skip"},
        h.taken(1),
        "POST /v1/pools/tickets/labels",
        {"labels": [{"id": "i0", "status": "skip", "adjudicated": False}]},
    ),
    (
        "add_labels",
        ("tickets", {"i0": "a", "i1": "b"}),
        {"annotator": "ann"},
        h.taken(2),
        "POST /v1/pools/tickets/labels",
        {"labels": [{"annotator": "ann", "id": "i0", "label": "a"}, {"annotator": "ann", "id": "i1", "label": "b"}]},
    ),
    ("history", ("tickets", ".."), {}, [EVENT], "GET /v1/pools/tickets/history/%2E%2E", None),
    ("job", ("j1",), {}, h.job("done"), "GET /v1/jobs/j1", None),
    (
        "jobs",
        (),
        {"pool": "tickets", "state": "done"},
        {"jobs": [h.job("done")]},
        "GET /v1/jobs?pool=tickets&state=done",
        None,
    ),
    ("cancel", ("j1",), {}, h.job("running", cancel=True), "POST /v1/jobs/j1/cancel", None),
    (
        "embed",
        ("tickets",),
        {"wait": False},
        httpx2.Response(202, json=h.job("queued")),
        "POST /v1/pools/tickets/embeddings",
        None,
    ),
    (
        "select",
        ("tickets", 5),
        {"method": "random", "seed": 3, "wait": False},
        httpx2.Response(202, json=h.selection(0, state="queued", nested=None, made_from=None, info=None)),
        "POST /v1/pools/tickets/selections",
        {"budget": 5, "method": "random", "seed": 3},
    ),
    (
        "selection",
        ("tickets", "s1"),
        {"budget": 2},
        h.selection(2),
        "GET /v1/pools/tickets/selections/s1?budget=2&limit=1000",
        None,
    ),
    ("selections", ("tickets",), {}, {"selections": [h.selection(0)]}, "GET /v1/pools/tickets/selections", None),
    ("density_report", ("tickets",), {}, {"n": 3}, "GET /v1/pools/tickets/density?format=json", None),
    (
        "density_image",
        ("tickets", "png"),
        {},
        httpx2.Response(200, content=b"\x89PNG"),
        "GET /v1/pools/tickets/density?format=png",
        None,
    ),
    ("evaluation", ("tickets",), {}, {"ks": []}, "GET /v1/pools/tickets/evaluation", None),
    (
        "prompt",
        ("tickets", {"subject": "s"}),
        {"k": 4, "chat": True, "template": {"query": "{{ subject }}"}},
        h.prompt(),
        "POST /v1/prompts",
        {"pool": "tickets", "query": {"subject": "s"}, "k": 4, "chat": True, "template": {"query": "{{ subject }}"}},
    ),
    ("rebuild", ("prompt_1",), {}, h.prompt(), "GET /v1/prompts/prompt_1", None),
]


@pytest.mark.parametrize(("name", "args", "kwargs", "answer", "line", "body"), CALLS, ids=lambda value: str(value)[:30])
def test_request_of_each_method(
    both: h.Both, name: str, args: tuple[Any, ...], kwargs: dict[str, Any], answer: Any, line: str, body: Any
) -> None:
    script = h.Script(answer)
    both.call(script, name, *args, **kwargs)
    assert script.lines == [line]
    request = script.requests[0]
    assert (json.loads(request.content) if request.content else None) == body
    assert request.headers["authorization"] == f"Bearer {h.KEY}"
    # Whatever makes something carries a name of its own; asking for a prompt makes nothing.
    named = request.method == "POST" and request.url.path != "/v1/prompts"
    assert ("idempotency-key" in request.headers) == named


def test_records_hold_what_was_answered(both: h.Both) -> None:
    embedding = {
        "id": "e1",
        "encoder": "hash",
        "encoder_fingerprint": "f",
        "n_items": 3,
        "dim": 8,
        "truncated": 1,
        "centred": True,
        "created_at": h.WHEN,
    }
    found = both.call(h.Script(h.pool(embedding=embedding, label_words=["a"], prompt={"k": 4})), "pool", "tickets")
    assert isinstance(found, records.Pool)
    assert isinstance(found.embedding, records.Embedding)
    assert (found.embedding.dim, found.label_words, found.prompt) == (8, ("a",), {"k": 4})
    assert found.created_at == datetime(2026, 1, 2, 3, 4, 5, 678901, tzinfo=UTC)
    with pytest.raises(dataclasses.FrozenInstanceError):
        found.name = "other"

    made = both.call(h.Script(h.prompt()), "prompt", "tickets", "q")
    assert made.examples == (records.Shown("i0", "billing", 0.5, 0),)
    assert made.usage.prompt_tokens == 4
    assert made.versions.embedding == "e1"
    assert made.messages == ({"role": "user", "content": "text"},)

    leased = both.call(h.Script(LEASES), "next_items", "tickets", "s1")
    assert [item.id for item in leased.items] == ["i0"]
    assert both.call(h.Script([EVENT]), "history", "tickets", "i0")[0].label == "billing"
    assert both.call(h.Script(h.selection(2)), "selection", "tickets", "s1").ids == ("i0", "i1")


def test_keys_of_a_newer_service_are_left_out(both: h.Both) -> None:
    newer = h.prompt(model="x", usage={"prompt_tokens": 4, "cached_tokens": 1})
    assert both.call(h.Script(newer), "rebuild", "p").usage == records.Usage(4)


def test_agreement_keeps_every_measure(both: h.Both) -> None:
    report = {"n_items": 2, "n_annotators": 2, "n_multiple": 1, "conflicts": ["i0"], "alpha": 0.5}
    found = both.call(h.Script(report), "agreement", "tickets")
    assert found == records.Agreement(2, 2, 1, ("i0",), {"alpha": 0.5})


def test_template_object_is_sent_as_its_parts(both: h.Both) -> None:
    script = h.Script(h.prompt())
    both.call(script, "prompt", "tickets", "q", template=PromptTemplate(query="Q: {{ text }}"))
    assert script.body(0)["template"]["query"] == "Q: {{ text }}"
    assert script.body(0)["template"]["system"] is None


def test_lists_follow_their_pages(both: h.Both) -> None:
    script = h.Script(
        {"pools": [h.pool(name="a"), h.pool(name="b")], "next": "b"}, {"pools": [h.pool(name="c")], "next": None}
    )
    assert [pool.name for pool in both.call(script, "pools")] == ["a", "b", "c"]
    assert script.lines == ["GET /v1/pools?limit=500", "GET /v1/pools?after=b&limit=500"]

    script = h.Script({"items": [ITEM], "next": 0}, {"items": [], "next": None})
    assert [item.id for item in both.call(script, "items", "tickets", labelled=False)] == ["a/b"]
    assert script.lines[1] == "GET /v1/pools/tickets/items?after=0&limit=500&labelled=false"


def test_labels_of_all_pages_are_of_one_version(both: h.Both) -> None:
    row = {"id": "i0", "label": "a", "version": 1, "n_votes": 1, "conflict": False}
    script = h.Script(
        {"version": 7, "labels": [row], "next": 0},
        {"version": 7, "labels": [row | {"id": "i1"}], "next": None},
    )
    assert [label.id for label in both.call(script, "labels", "tickets")] == ["i0", "i1"]
    assert script.lines == [
        "GET /v1/pools/tickets/labels?limit=1000",
        "GET /v1/pools/tickets/labels?after=0&limit=1000&version=7",
    ]


def test_selection_gathers_the_picks_of_all_pages(both: h.Both) -> None:
    whole = h.selection(3)
    script = h.Script(whole | {"picks": whole["picks"][:2], "next": 1}, whole | {"picks": whole["picks"][2:]})
    assert both.call(script, "selection", "tickets", "s1").ids == ("i0", "i1", "i2")
    assert script.lines[1] == "GET /v1/pools/tickets/selections/s1?after=1&limit=1000"


def test_prompts_are_split_at_the_limit_of_the_service(both: h.Both) -> None:
    def answer(request: httpx2.Request) -> httpx2.Response:
        return httpx2.Response(
            200, json={"prompts": [h.prompt(query) for query in json.loads(request.content)["queries"]]}
        )

    script = h.Script(answer, answer, answer)
    queries = [f"q{n}" for n in range(2001)]
    found = both.call(script, "prompts", "tickets", iter(queries), k=3)
    assert [one.query_id for one in found] == queries
    assert [len(script.body(n)["queries"]) for n in range(3)] == [1000, 1000, 1]
    assert script.body(2)["k"] == 3
    assert both.call(h.Script(), "prompts", "tickets", []) == ()


def test_fewer_prompts_than_queries_are_an_error(both: h.Both) -> None:
    with pytest.raises(AnswerError, match="2 prompts were asked for, and 1 came"):
        both.call(h.Script({"prompts": [h.prompt()]}), "prompts", "tickets", ["a", "b"])


def test_labels_are_split_and_counted_together(both: h.Both) -> None:
    first = h.taken(10_000, conflicts=["i1"], unknown=["u"])
    script = h.Script(first, h.taken(1, version=10_001, conflicts=["i1", "i2"], n_labelled=10_001))
    rows = ({"id": f"i{n}", "label": "a"} for n in range(10_001))
    found = both.call(script, "add_labels", "tickets", rows)
    assert [len(script.body(n)["labels"]) for n in range(2)] == [10_000, 1]
    assert (found.written, found.version, found.n_labelled) == (10_001, 10_001, 10_001)
    assert (found.conflicts, found.unknown) == (("i1", "i2"), ("u",))
    keys = {request.headers["idempotency-key"] for request in script.requests}
    assert len(keys) == 2


def test_nothing_to_send_is_said_before_anything_is_sent(both: h.Both) -> None:
    with pytest.raises(DataError, match="no labels"):
        both.call(h.Script(), "add_labels", "tickets", [])
    with pytest.raises(DataError, match="no rows"):
        both.call(h.Script(), "add_items", "tickets", [])
    with pytest.raises(ParameterError, match="not empty"):
        both.call(h.Script(), "pool", "")
    with pytest.raises(ParameterError, match="JSON cannot hold"):
        both.call(h.Script(), "add_items", "tickets", [{"text": float("nan")}])


@pytest.mark.parametrize(("status", "ready"), [(200, True), (503, False)])
def test_ready_asks_once(both: h.Both, status: int, ready: bool) -> None:
    script = h.Script(httpx2.Response(status, json={"status": "ready"}, headers={"retry-after": "1"}))
    assert both.call(script, "ready") is ready
    assert script.lines == ["GET /ready"]


def test_both_clients_have_the_same_methods_and_signatures() -> None:
    def methods(kind: type) -> dict[str, Any]:
        return {name: value for name, value in vars(kind).items() if not name.startswith("_")} | {}

    sync, other = methods(Client), methods(AsyncClient)
    assert set(sync) - {"close"} == set(other) - {"aclose"}
    for name in set(sync) - {"close", "run"}:
        assert inspect.signature(sync[name]).parameters == inspect.signature(other[name]).parameters, name
        assert sync[name].__doc__ == other[name].__doc__, name
        assert "Returns" in sync[name].__doc__ or name in ("delete_pool", "release"), name
    assert str(inspect.signature(Client.pools).return_annotation) == "Iterator[Pool]"
    assert str(inspect.signature(AsyncClient.pools).return_annotation) == "AsyncIterator[Pool]"
    assert str(inspect.signature(Client.history).return_annotation) == "tuple[LabelEvent, ...]"


def test_records_are_those_of_the_service() -> None:
    """Every field that the service answers is in the record of the client, and no other."""
    schemas = pytest.importorskip("icl_select.service.schemas")
    pairs = {
        "Embedding": "EmbeddingOut",
        "Pool": "PoolOut",
        "ItemsAdded": "ItemsOut",
        "Item": "ItemOut",
        "LabelsTaken": "LabelsOut",
        "Label": "LabelOut",
        "LabelEvent": "LabelEventOut",
        "Pick": "PickOut",
        "Selection": "SelectionOut",
        "Lease": "LeaseOut",
        "NextItems": "NextOut",
        "Job": "JobOut",
        "Shown": "ExampleOut",
        "Dropped": "DroppedOut",
        "Usage": "Usage",
        "Versions": "Versions",
        "Prompt": "PromptOut",
    }
    assert set(pairs) | {"Agreement"} == set(records.__all__)
    for record, schema in pairs.items():
        mine = {field.name for field in dataclasses.fields(getattr(records, record))}
        # Pages are put together, so that only the client sees where the next one begins.
        theirs = set(getattr(schemas, schema).model_fields) - {"next"}
        assert mine == theirs, record
    options = typing.get_type_hints(icl_select.client.PromptOptions, localns={"PromptTemplate": PromptTemplate})
    assert set(options) == set(schemas.PromptOptions.model_fields)


def test_limits_are_those_of_the_service() -> None:
    settings = pytest.importorskip("icl_select.service.settings")
    from icl_select.client import _labels, _pools, _prompts, _transfer, _work

    limits = settings.Limits()
    assert limits.batch >= _prompts._BATCH
    assert limits.labels >= _labels._LABELS
    assert max(_pools._PAGE, _labels._PAGE, _work._PAGE) <= limits.page
    assert limits.body_bytes >= 2 * _transfer._CHUNK


def test_importing_the_client_loads_no_http_library_and_nothing_of_the_service() -> None:
    code = (
        "import sys, icl_select.client\n"
        "assert not {'httpx2', 'anyio', 'fastapi', 'numba', 'pyarrow'} & set(sys.modules)\n"
        "from icl_select.client import Client, AsyncClient\n"
        "assert 'httpx2' in sys.modules\n"
        "assert not [name for name in sys.modules if name.startswith('icl_select.service') or name == 'fastapi']\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=Path.cwd())


def test_missing_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    import icl_select.client as package

    monkeypatch.setitem(sys.modules, "httpx2", None)
    monkeypatch.delitem(package.__dict__, "Client", raising=False)
    with pytest.raises(ImportError, match=r"pip install 'icl-select\[client\]'"):
        _ = package.Client
    with pytest.raises(AttributeError, match="no attribute 'Clinet'"):
        _ = package.Clinet  # type: ignore[attr-defined]
