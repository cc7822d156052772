"""The whole life of a pool through the client, and through the adapters, against a real server process."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import icl_select as icl
from icl_select.adapters import ServiceSource
from icl_select.client import (
    AsyncClient,
    Client,
    ConflictError,
    DeniedError,
    InvalidError,
    JobFailedError,
    NotFoundError,
    ServiceProblem,
    WaitTimeoutError,
    records,
)

SECONDS = 120.0
WORDS = ("billing", "account")


class Server:
    """A server process on loopback, with a data directory of its own."""

    def __init__(self, folder: Path, port: int = 0, workers: int = 1) -> None:
        self.folder = folder
        self.lines: list[str] = []
        self._listening = threading.Event()
        command = [sys.executable, "-m", "icl_select", "serve", "--data-dir", str(folder), "--port", str(port)]
        env = {key: value for key, value in os.environ.items() if not key.startswith("ICS_")}
        self._process = subprocess.Popen(
            [*command, "--workers", str(workers), "--encoders", "hash", "--log-format", "json"],
            stderr=subprocess.PIPE,
            text=True,
            env=env,
        )
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()
        if not self._listening.wait(SECONDS):
            self.stop()
            raise AssertionError("the server does not listen:\n" + "\n".join(self.lines))
        self.url = next(json.loads(line)["url"] for line in self.lines if '"listening"' in line)

    def _read(self) -> None:
        assert self._process.stderr is not None
        for line in self._process.stderr:
            self.lines.append(line.rstrip())
            if '"listening"' in line:
                self._listening.set()
        # Ended before it listened: no use in waiting for it.
        self._listening.set()

    def await_ready(self, client: Client) -> None:
        deadline = time.monotonic() + SECONDS
        while not client.ready():
            assert time.monotonic() < deadline, "\n".join(self.lines)
            time.sleep(0.05)

    def stop(self, signal_number: int = signal.SIGTERM) -> None:
        if self._process.poll() is None:
            self._process.send_signal(signal_number)
        try:
            self._process.wait(SECONDS)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._reader.join(SECONDS)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    found = Server(tmp_path_factory.mktemp("service") / "data")
    with Client(found.url) as client:
        found.await_ready(client)
    yield found
    found.stop()


class Face:
    """Both clients as one that is called and answers."""

    def __init__(self, kind: str, url: str, key: str | None = None) -> None:
        self.kind = kind
        self._runner = asyncio.Runner()
        self._sync = Client(url, key)
        self._async = AsyncClient(url, key)

    def __getattr__(self, name: str) -> Any:
        return lambda *args, **kwargs: self._call(name, *args, **kwargs)

    def _call(self, name: str, *args: Any, **kwargs: Any) -> Any:
        if self.kind == "sync":
            found = getattr(self._sync, name)(*args, **kwargs)
            return list(found) if isinstance(found, Iterator) else found
        found = getattr(self._async, name)(*args, **kwargs)
        return self._runner.run(self._gather(found) if isinstance(found, AsyncIterator) else found)

    async def _gather(self, rows: AsyncIterator[Any]) -> list[Any]:
        return [row async for row in rows]

    def shut(self) -> None:
        self._sync.close()
        self._runner.run(self._async.aclose())
        self._runner.close()


@pytest.fixture(params=["sync", "async"])
def client(request: pytest.FixtureRequest, server: Server) -> Iterator[Face]:
    face = Face(request.param, server.url)
    yield face
    face.shut()


def tickets(n: int = 30) -> list[dict[str, Any]]:
    return [
        {"id": f"t/{i}", "subject": f"{WORDS[i % 2]} question {i}", "body": f"my {WORDS[i % 2]} is wrong, case {i * i}"}
        for i in range(n)
    ]


def filled(client: Face, name: str, n: int = 30, **options: Any) -> records.Pool:
    client.create_pool(name, encoder="hash", text="{subject}: {body}", **options)
    done = client.wait(client.add_items(name, tickets(n)).job)
    assert done.kind == "embed"
    return client.pool(name)


def truth(item_id: str) -> str:
    return WORDS[int(item_id.partition("/")[2]) % 2]


def test_whole_life_of_a_pool(client: Face, tmp_path: Path) -> None:
    name = f"life-{client.kind}"
    pool = filled(client, name, label_words=WORDS, prompt={"k": 4})
    assert (pool.n_items, pool.n_labelled, pool.prompt["k"]) == (30, 0, 4)
    assert pool.embedding is not None
    assert name in [one.name for one in client.pools()]
    assert client.embed(name).state == "done"

    heard: list[str] = []
    picked = client.select(name, 8, method="max_herding(bandwidth=1.0)", progress=lambda job: heard.append(job.state))
    assert (len(picked.ids), picked.nested, picked.state, heard[-1]) == (8, True, "done", "done")
    assert client.selection(name, picked.id, budget=3).ids == picked.ids[:3]
    assert [one.id for one in client.selections(name)] == [picked.id]

    # Two annotators never get the same item; what is given back is handed out again.
    ann = client.next_items(name, picked.id, annotator="ann", count=3)
    bob = client.next_items(name, picked.id, annotator="bob", count=2)
    assert [item.id for item in ann.items] + [item.id for item in bob.items] == list(picked.ids[:5])
    assert ann.label_words == WORDS
    client.release(name, annotator="bob")
    assert client.next_items(name, picked.id, annotator="eve").items[0].id == picked.ids[3]
    client.release(name, annotator="eve")

    first = client.label(name, picked.ids[0], truth(picked.ids[0]), annotator="ann")
    assert (first.written, first.n_labelled) == (1, 1)
    rest = client.add_labels(name, {one: truth(one) for one in picked.ids[1:]}, annotator="ann")
    assert (rest.written, rest.n_labelled) == (7, 8)
    assert client.label(name, picked.ids[0], status="retract", annotator="ann").n_labelled == 7
    assert client.label(name, picked.ids[0], truth(picked.ids[0]), annotator="ann").n_labelled == 8
    assert [event.status for event in client.history(name, picked.ids[0])] == ["label", "retract", "label"]
    assert {label.id: label.label for label in client.labels(name)} == {one: truth(one) for one in picked.ids}
    assert client.selection(name, picked.id).n_labelled == 8
    assert client.agreement(name).n_annotators == 1
    assert {item.id for item in client.items(name, labelled=True)} == set(picked.ids)
    assert client.item(name, picked.ids[0]).label == truth(picked.ids[0])

    query = {"subject": "billing question", "body": "the billing is wrong"}
    prompt = client.prompt(name, query, k=2, max_tokens=500)
    assert len(prompt.examples) == 2
    assert prompt.prompt.endswith("billing question: the billing is wrong")
    assert prompt.usage.prompt_tokens == len(prompt.prompt.encode())
    many = client.prompts(name, [query, "an account question"], k=2, max_tokens=500)
    assert many[0] == prompt
    client.add_labels(name, {"t/29": truth("t/29")}, annotator="ann")
    assert client.rebuild(prompt.id) == prompt

    report = client.density(name, seed=1)
    assert report["pool"] == name
    assert client.density_report(name) == report
    assert client.density_image(name, "png").startswith(b"\x89PNG")
    assert b"<html" in client.density_image(name, "html")
    evaluation = client.evaluate(name, ks=[1, 3])
    assert evaluation["stale"] is False
    assert client.evaluation(name) == evaluation
    assert {job.state for job in client.jobs(pool=name)} == {"done"}

    back = client.export_pool(name, tmp_path / "pool.jsonl")
    assert sum(row.label is not None for row in icl.Pool.read(back)) == 9
    client.delete_pool(name)
    with pytest.raises(NotFoundError):
        client.pool(name)
    with pytest.raises(NotFoundError):
        client.rebuild(prompt.id)


@pytest.mark.parametrize("suffix", [".jsonl", ".jsonl.gz", ".parquet"])
def test_files_are_uploaded(client: Face, tmp_path: Path, suffix: str) -> None:
    name = f"file{suffix}-{client.kind}"
    path = tmp_path / f"pool{suffix}"
    rows = tickets(2_000)
    if suffix == ".parquet":
        pq.write_table(pa.Table.from_pylist(rows), path)
    else:
        icl.Pool.from_records(rows, text="body").to_jsonl(path)
    client.create_pool(name, encoder="hash", text="{subject}: {body}")
    added = client.add_items(name, path)
    assert (added.added, added.n_items) == (2_000, 2_000)
    assert client.add_items(name, path).unchanged == 2_000
    assert len(client.items(name)) == 2_000
    client.delete_pool(name)


def test_labels_go_out_and_come_back(client: Face, tmp_path: Path) -> None:
    name = f"exchange-{client.kind}"
    filled(client, name)
    picked = client.select(name, 5, method="random", seed=3)
    tasks = client.export_tasks(name, picked.id, tmp_path / "tasks.csv", budget=2)
    assert tasks.read_text().count("\n") == 3
    client.add_labels(name, [{"id": one, "label": truth(one), "annotator": "ann"} for one in picked.ids])
    client.label(name, picked.ids[0], "other", annotator="bob")
    assert client.agreement(name).conflicts == (picked.ids[0],)
    client.label(name, picked.ids[0], truth(picked.ids[0]), annotator="judge", adjudicated=True)
    for format in ("csv", "jsonl"):
        path = client.export_labels(name, tmp_path / f"labels.{format}", format=format)
        assert client.import_labels(name, path, format=format).n_labelled == 5
    votes = client.export_labels(name, tmp_path / "votes.jsonl", votes=True)
    assert sum(1 for _ in votes.open()) >= 7
    client.delete_pool(name)


def test_errors_are_those_of_the_service(client: Face) -> None:
    name = f"errors-{client.kind}"
    filled(client, name, 4, label_words=WORDS)
    with pytest.raises(ConflictError, match="exists") as conflict:
        client.create_pool(name, encoder="hash")
    assert conflict.value.request_id
    with pytest.raises(InvalidError, match="encoder"):
        client.create_pool("x", encoder="none")
    with pytest.raises(ServiceProblem, match="not one of the 2 label words") as wrong:
        client.label(name, "t/0", "biling")
    assert (wrong.value.status, wrong.value.kind) == (422, "label")
    with pytest.raises(NotFoundError, match="t/99"):
        client.label(name, "t/99", "billing")
    with pytest.raises(InvalidError, match="budget=5 exceeds"):
        client.select(name, 5)
    with pytest.raises(ServiceProblem, match="labelled"):
        client.prompt(name, "q")
    with pytest.raises(NotFoundError):
        client.density_report(name)
    with pytest.raises(NotFoundError):
        client.wait("job_none")
    client.delete_pool(name)


def test_names_that_paths_cannot_hold_reach_the_service(client: Face) -> None:
    name = f"names-{client.kind}"
    client.create_pool(name, encoder="hash")
    odd = ["a/b", "..", ".", "a b?c#d%2F", "ключ", "../../x"]
    client.wait(client.add_items(name, [{"id": one, "text": f"text {n}"} for n, one in enumerate(odd)]).job)
    for n, one in enumerate(odd):
        assert client.item(name, one).text == f"text {n}"
        client.label(name, one, "x")
        assert len(client.history(name, one)) == 1
    client.delete_pool(name)


@pytest.fixture(scope="module")
def idle(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server that leaves long work to others, of which there are none."""
    found = Server(tmp_path_factory.mktemp("idle") / "data", workers=0)
    with Client(found.url) as client:
        found.await_ready(client)
    yield found
    found.stop()


@pytest.mark.parametrize("kind", ["sync", "async"])
def test_waiting_ends_in_time_and_with_a_cancelled_job(idle: Server, kind: str) -> None:
    client = Face(kind, idle.url)
    client.create_pool(kind, encoder="hash")
    job = client.add_items(kind, [{"text": "a"}, {"text": "b"}]).job
    with pytest.raises(WaitTimeoutError, match=r"not finished after 1\.2 s") as late:
        client.wait(job, timeout=1.2)
    assert late.value.job is not None
    assert late.value.job.state == "queued"
    selected = client.select(kind, 1, wait=False)
    assert (selected.state, selected.picks) == ("queued", ())
    assert client.cancel(job).state == "cancelled"
    with pytest.raises(JobFailedError, match="cancelled") as caught:
        client.wait(job)
    assert caught.value.job.state == "cancelled"
    client.shut()


def test_service_source_of_the_adapters(server: Server) -> None:
    """What the fake service of the adapters' own tests is taken to do, the real one does."""
    with Client(server.url) as client:
        client.create_pool("adapter", encoder="hash", text="input", label_field="output", centre=False)
        rows = [{"input": f"{WORDS[n % 2]} is wrong {n}", "output": WORDS[n % 2]} for n in range(6)]
        client.wait(client.add_items("adapter", rows).job or "")
        source = ServiceSource("adapter", client, k=3)
        found = source.nearest({"input": "my billing is wrong", "more": object()})
        assert {shown.label for shown in found} == {"billing"}
        assert [shown.similarity for shown in found] == sorted((shown.similarity for shown in found), reverse=True)
        name = source.add({"input": "where is my parcel"}, "shipping")
        found = source.nearest({"input": "where is my parcel now"})
        assert (found[0].id, found[0].label, dict(found[0].fields)) == (
            name,
            "shipping",
            {"input": "where is my parcel"},
        )

        async def both() -> Any:
            async with AsyncClient(server.url) as aclient:
                mine = ServiceSource("adapter", aclient=aclient, k=3)
                other = await mine.aadd({"input": "where is my letter"}, "shipping")
                return other, await mine.anearest({"input": "where is my letter now"})

        other, found = asyncio.run(both())
        assert found[0].id == other
        client.delete_pool("adapter")


def refusal(client: Client) -> DeniedError | None:
    try:
        client.info()
    except DeniedError as exc:
        return exc
    return None


@pytest.mark.slow
def test_keys_and_restarts(tmp_path: Path) -> None:
    """A job is waited for while its service is killed and comes back; keys open what their scope allows."""
    folder = tmp_path / "data"
    first = Server(folder)
    port = int(first.url.rpartition(":")[2])
    second: list[Server] = []
    try:
        with Client(first.url) as client:
            first.await_ready(client)
            client.create_pool("tickets", encoder="hash")
            added = client.add_items("tickets", ({"text": f"text {n} of {n * n}"} for n in range(20_000)))
        first.stop(signal.SIGKILL)
        done: list[records.Job] = []
        with Client(first.url, retries=1) as client:
            waiting = threading.Thread(target=lambda: done.append(client.wait(added.job or "", timeout=SECONDS)))
            waiting.start()
            second.append(Server(folder, port))
            waiting.join(SECONDS)
            assert [job.state for job in done] == ["done"]
            assert client.pool("tickets").n_items == 20_000
        command = [
            sys.executable,
            "-m",
            "icl_select",
            "keys",
            "create",
            "--data-dir",
            str(folder),
            "--scope",
            "read",
            "ann",
        ]
        key = subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
        with Client(second[0].url) as nobody, Client(second[0].url, key) as reader:
            deadline = time.monotonic() + SECONDS
            # A running service notices its first key within seconds.
            while (refused := refusal(nobody)) is None:
                assert time.monotonic() < deadline
                time.sleep(0.05)
            assert refused.status == 401
            assert nobody.health()["status"] == "ok"
            assert reader.pool("tickets").n_items == 20_000
            with pytest.raises(DeniedError, match="scope") as denied:
                reader.delete_pool("tickets")
            assert denied.value.status == 403
            assert key not in str(denied.value)
    finally:
        first.stop()
        for server in second:
            server.stop()
    assert key not in "\n".join(second[0].lines)
