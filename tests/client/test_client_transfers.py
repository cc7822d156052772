"""Rows and files on their way: in parts, in blocks, whole or not at all."""

from __future__ import annotations

import gzip
import json
import tracemalloc
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import client_helpers as h
import httpx2
import pytest

from icl_select.client import InvalidError, UnreachableError
from icl_select.errors import DataError, StoreError

MIB = 1024 * 1024


class Streams(httpx2.BaseTransport, httpx2.AsyncBaseTransport):
    """Takes the parts of a body as they come, as a network would, and keeps only their sizes."""

    def __init__(self, *answers: Any) -> None:
        self.sizes: list[list[int]] = []
        self.requests: list[httpx2.Request] = []
        self.head = b""
        self._answers = iter(answers)

    def _answer(self, request: httpx2.Request) -> httpx2.Response:
        self.requests.append(request)
        answer = next(self._answers)
        if isinstance(answer, Exception):
            raise answer
        return httpx2.Response(200, json=answer, request=request)

    def _take(self, part: bytes) -> None:
        self.head = (self.head + part)[:4096]
        self.sizes[-1].append(len(part))

    def handle_request(self, request: httpx2.Request) -> httpx2.Response:
        self.sizes.append([])
        stream = request.stream
        assert isinstance(stream, httpx2.SyncByteStream)
        for part in stream:
            self._take(part)
        return self._answer(request)

    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        self.sizes.append([])
        stream = request.stream
        assert isinstance(stream, httpx2.AsyncByteStream)
        async for part in stream:
            self._take(part)
        return self._answer(request)


def send(both: h.Both, transport: Streams, name: str, *args: Any, **kwargs: Any) -> Any:
    """Call a method with this transport instead of a handler."""
    return both.call(h.Script(), name, *args, setup={"transport": transport}, **kwargs)


def test_rows_go_in_parts_that_fit(both: h.Both) -> None:
    def answer(request: httpx2.Request) -> httpx2.Response:
        return httpx2.Response(
            200, json=h.added(len(json.loads(request.content)["items"]), job=request.headers["idempotency-key"])
        )

    script = h.Script(*[answer] * 4)
    rows = [{"id": str(n), "text": "ä" * 300_000} for n in range(5)]
    found = both.call(script, "add_items", "tickets", iter(rows))
    sent = [script.body(n)["items"] for n in range(len(script.requests))]
    # 1.8 MB each as ASCII: two fit into 4 MiB.
    assert [len(part) for part in sent] == [2, 2, 1]
    assert [row for part in sent for row in part] == rows
    assert all(len(request.content) < 4 * MIB + 1000 for request in script.requests)
    assert (found.added, found.job) == (5, script.requests[-1].headers["idempotency-key"])

    script = h.Script(h.added(5000, job="j1", skipped=1), h.added(1, unchanged=2, labelled=3, n_items=5001))
    found = both.call(script, "add_items", "tickets", ({"text": str(n)} for n in range(5001)), skip_empty=True)
    assert [len(script.body(n)["items"]) for n in range(2)] == [5000, 1]
    assert (found.added, found.skipped, found.unchanged, found.labelled, found.n_items) == (5001, 1, 2, 3, 5001)
    assert found.job == "j1"
    assert script.lines == ["POST /v1/pools/tickets/items?skip_empty=true"] * 2


def test_row_larger_than_a_part_goes_alone(both: h.Both) -> None:
    script = h.Script(h.added(1), h.problem(413, "too-large"))
    with pytest.raises(InvalidError):
        both.call(script, "add_items", "tickets", [{"text": "a"}, {"text": "b" * 5 * MIB}])
    assert [len(script.body(n)["items"]) for n in range(2)] == [1, 1]


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("pool.jsonl", "application/x-ndjson"),
        ("pool.NDJSON", "application/x-ndjson"),
        ("pool.parquet", "application/vnd.apache.parquet"),
    ],
)
def test_files_are_streamed_and_never_in_memory(both: h.Both, tmp_path: Path, name: str, kind: str) -> None:
    path = tmp_path / name
    size = 40 * MIB
    with path.open("wb") as stream:
        stream.truncate(size)
    transport = Streams(h.added(7))
    tracemalloc.start()
    try:
        assert send(both, transport, "add_items", "tickets", path).added == 7
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert transport.sizes == [[MIB] * 40]
    assert peak < 12 * MIB
    request = transport.requests[0]
    assert (request.method, request.headers["content-type"]) == ("POST", kind)
    assert "idempotency-key" in request.headers


def test_packed_lines_are_unpacked_on_the_way(both: h.Both, tmp_path: Path) -> None:
    path = tmp_path / "pool.jsonl.gz"
    path.write_bytes(gzip.compress(b'{"text": "a"}\n'))
    script = h.Script(h.added(1))
    both.call(script, "add_items", "tickets", str(path))
    assert script.requests[0].content == b'{"text": "a"}\n'
    assert "content-encoding" not in script.requests[0].headers


def test_broken_upload_starts_again_from_the_first_block(both: h.Both, tmp_path: Path) -> None:
    path = tmp_path / "pool.jsonl"
    path.write_bytes(b"x" * (2 * MIB + 1))
    transport = Streams(httpx2.WriteError("broken pipe"), h.added(1))
    send(both, transport, "add_items", "tickets", path)
    assert transport.sizes == [[MIB, MIB, 1]] * 2
    assert len({request.headers["idempotency-key"] for request in transport.requests}) == 1


@pytest.mark.parametrize("name", ["pool.csv", "pool", "pool.parquet.gz", "pool.json"])
def test_other_files_are_refused(both: h.Both, tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_text("id,text\n")
    with pytest.raises(DataError, match=r"no \.jsonl, \.jsonl\.gz or \.parquet file"):
        both.call(h.Script(), "add_items", "tickets", tmp_path / name)


def test_missing_and_broken_files_are_named(both: h.Both, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="there is no file"):
        both.call(h.Script(), "add_items", "tickets", tmp_path / "none.jsonl")
    with pytest.raises(DataError, match="there is no file"):
        both.call(h.Script(), "import_labels", "tickets", tmp_path)
    cut = tmp_path / "cut.jsonl.gz"
    cut.write_bytes(gzip.compress(b"x" * 100_000)[:50])
    with pytest.raises(DataError, match="not all of it was sent"):
        send(both, Streams(h.added(1)), "add_items", "tickets", cut)


def test_labels_of_a_file_are_streamed(both: h.Both, tmp_path: Path) -> None:
    path = tmp_path / "labels.csv"
    path.write_bytes(b"id,label\na,b\n")
    script = h.Script(h.taken(1, unknown=["z"]))
    assert both.call(script, "import_labels", "tickets", path, format="csv").unknown == ("z",)
    assert script.lines == ["POST /v1/pools/tickets/labels/import?format=csv"]
    assert script.requests[0].content == path.read_bytes()


EXPORTS = [
    ("export_labels", ("tickets",), {"votes": True}, "GET /v1/pools/tickets/labels/export?format=jsonl&votes=true"),
    ("export_tasks", ("tickets", "s1"), {"format": "csv"}, "GET /v1/pools/tickets/selections/s1/export?format=csv"),
    ("export_pool", ("tickets",), {}, "GET /v1/pools/tickets/export"),
]


@pytest.mark.parametrize(("name", "args", "kwargs", "line"), EXPORTS)
def test_exports_are_written(
    both: h.Both, tmp_path: Path, name: str, args: tuple[Any, ...], kwargs: dict[str, Any], line: str
) -> None:
    path = tmp_path / "out.jsonl"
    path.write_text("old")
    script = h.Script(httpx2.Response(200, content=b"new" * MIB))
    with path.open() as reader:
        assert both.call(script, name, *args, path, **kwargs) == path
        # Who reads the old file sees all of it: the new one took its place at once.
        assert reader.read() == "old"
    assert path.read_bytes() == b"new" * MIB
    assert script.lines == [line]
    assert list(tmp_path.iterdir()) == [path]


class Breaks(httpx2.SyncByteStream, httpx2.AsyncByteStream):
    """A body that ends in the middle."""

    def __iter__(self) -> Iterator[bytes]:
        yield b"half"
        raise httpx2.ReadError("connection reset")

    async def __aiter__(self) -> AsyncIterator[bytes]:
        yield b"half"
        raise httpx2.ReadError("connection reset")


class Raw(httpx2.BaseTransport, httpx2.AsyncBaseTransport):
    """Answers with streams as they are."""

    def __init__(self, *answers: httpx2.Response) -> None:
        self._answers = iter(answers)

    def handle_request(self, request: httpx2.Request) -> httpx2.Response:
        return next(self._answers)

    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        return next(self._answers)


def test_export_that_breaks_off_begins_again_or_leaves_the_old_file(both: h.Both, tmp_path: Path) -> None:
    path = tmp_path / "labels.jsonl"
    path.write_text("old")
    broken = httpx2.Response(200, stream=Breaks())
    raw = Raw(broken, httpx2.Response(200, content=b"whole"))
    both.call(h.Script(), "export_labels", "tickets", path, setup={"transport": raw})
    assert path.read_bytes() == b"whole"

    raw = Raw(httpx2.Response(200, stream=Breaks()))
    with pytest.raises(UnreachableError, match="connection reset"):
        both.call(h.Script(), "export_labels", "tickets", path, setup={"transport": raw, "retries": 0})
    raw = Raw(h.problem(422))
    with pytest.raises(InvalidError, match="it cannot be"):
        both.call(h.Script(), "export_labels", "tickets", path, setup={"transport": raw, "retries": 0})
    assert path.read_bytes() == b"whole"
    assert list(tmp_path.iterdir()) == [path]


def test_export_that_cannot_be_written_is_named(both: h.Both, tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="cannot write"):
        both.call(h.Script(httpx2.Response(200, content=b"x")), "export_labels", "tickets", tmp_path / "no" / "x.jsonl")
    (tmp_path / "folder").mkdir()
    with pytest.raises(StoreError, match="cannot write"):
        both.call(h.Script(httpx2.Response(200, content=b"x")), "export_labels", "tickets", tmp_path / "folder")
    assert [entry.name for entry in tmp_path.iterdir()] == ["folder"]
