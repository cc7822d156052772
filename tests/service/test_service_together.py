"""Many at once: two writers and eight readers for a minute, several servers on one database, stops and full disks."""

from __future__ import annotations

import os
import random
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx2
import pytest
from databases import SERVER, new_database
from running import Running, rows, until

SECONDS = 60.0
ITEMS = 200


class Person(threading.Thread):
    """Somebody who does one thing again and again until it is over; what goes wrong is noted."""

    def __init__(self, number: int, urls: list[str], over: threading.Event) -> None:
        super().__init__(daemon=True)
        self.number = number
        self.urls = urls
        self.over = over
        self.draw = random.Random(number)
        self.client = httpx2.Client(timeout=60, trust_env=False)
        self.done: list[Any] = []
        self.wrong: list[str] = []

    def run(self) -> None:
        while not self.over.is_set():
            try:
                self.act(self.draw.choice(self.urls))
            except Exception as exc:
                self.wrong.append(repr(exc))
                return

    def act(self, url: str) -> None:
        raise NotImplementedError


class Writer(Person):
    """Labels items, and corrects them; every word is new, so none may be called a repeat."""

    def act(self, url: str) -> None:
        chosen = self.draw.sample(range(ITEMS), self.draw.choice([1, 2, 5]))
        words = [
            {"id": f"item-{item}", "label": f"{self.number}/{len(self.done)}/{item}", "annotator": f"w{self.number}"}
            for item in chosen
        ]
        answer = self.client.put(f"{url}/v1/pools/t/labels", json={"labels": words})
        if answer.status_code != 200 or answer.json()["written"] != len(words):
            self.wrong.append(answer.text)
        self.done.append((answer.json()["version"], {word["id"]: word["label"] for word in words}))


class Reader(Person):
    """Asks for prompts, and keeps what they show."""

    def act(self, url: str) -> None:
        query = f"{self.draw.randrange(50)} word{self.draw.randrange(997)}"
        answer = self.client.post(f"{url}/v1/prompts", json={"pool": "t", "query": query, "k": 4})
        if answer.status_code != 200:
            self.wrong.append(answer.text)
            return
        self.done.append(answer.content)


def live_together(services: list[Running], seconds: float) -> None:
    first = services[0]
    first.pool("t", rows(ITEMS), resolve="latest")
    first.call("PUT", "/v1/pools/t/labels", {"labels": [{"id": "item-0", "label": "start", "annotator": "me"}]})
    over = threading.Event()
    urls = [service.url for service in services]
    writers = [Writer(number, urls, over) for number in range(2)]
    readers = [Reader(10 + number, urls, over) for number in range(8)]
    for person in (*writers, *readers):
        person.start()
    over.wait(seconds)
    over.set()
    for person in (*writers, *readers):
        person.join(120)
        assert not person.wrong, person.wrong[:3]
        assert person.done

    # No lost update: versions have no gap and no twin, and every word is in the history.
    versions = sorted(version for writer in writers for version, _ in writer.done)
    assert versions == list(range(2, 2 + len(versions)))
    assert first.call("GET", "/v1/pools/t")["labels_version"] == versions[-1]
    said = [word for writer in writers for _, words in writer.done for word in words.items()]
    kept = {
        (f"item-{item}", word["label"])
        for item in range(ITEMS)
        for word in first.call("GET", f"/v1/pools/t/history/item-{item}")
    }
    assert set(said) <= kept
    assert len(kept) == len(said) + 1

    # No wrong prompt: what it shows was the label of that item at its version.
    after: dict[int, dict[str, str]] = {1: {"item-0": "start"}}
    state: dict[str, str] = dict(after[1])
    for version, words in sorted((done for writer in writers for done in writer.done), key=lambda done: done[0]):
        state = {**state, **words}
        after[version] = state
    prompts = [httpx2.Response(200, content=content).json() for reader in readers for content in reader.done]
    for prompt in prompts:
        labels = after[prompt["versions"]["labels"]]
        assert len(prompt["examples"]) == min(4, len(labels))
        for shown in prompt["examples"]:
            assert labels[shown["id"]] == shown["label"]
    assert len({prompt["versions"]["labels"] for prompt in prompts}) > 5
    for content in readers[0].done[:50]:
        prompt_id = httpx2.Response(200, content=content).json()["id"]
        assert services[-1].send("GET", f"/v1/prompts/{prompt_id}").content == content


@pytest.mark.slow
def test_two_writers_and_eight_readers_for_a_minute(tmp_path: Path) -> None:
    with Running(tmp_path) as service:
        live_together([service], SECONDS)


@contextmanager
def two_on_one_database(tmp_path: Path) -> Iterator[list[Running]]:
    server = os.environ.get(SERVER)
    if not server:
        pytest.skip(f"needs PostgreSQL: scripts/postgres.sh run COMMAND, or a server's URL in {SERVER}")
    with new_database(server) as url:
        environ = {"ICS_SERVICE_DATABASE": url}
        with Running(tmp_path, environ=environ) as first, Running(tmp_path, environ=environ) as second:
            yield [first, second]


@pytest.mark.slow
def test_two_servers_on_one_postgresql_are_one_service(tmp_path: Path) -> None:
    with two_on_one_database(tmp_path) as services:
        live_together(services, SECONDS / 3)


def test_a_job_of_a_killed_server_goes_on_in_the_other(tmp_path: Path) -> None:
    with two_on_one_database(tmp_path) as (first, second):
        first.call("POST", "/v1/pools", {"name": "t", "encoder": "hash(dim=1024)"})
        job = first.upload("t", rows(6_000, words=60))["job"]
        until(lambda: first.call("GET", f"/v1/jobs/{job}")["state"] != "queued", "the start of the job")
        first.kill()
        assert second.wait(job)["state"] == "done"
        assert second.call("GET", "/v1/pools/t")["embedding"]["n_items"] == 6_000


def test_a_second_service_on_the_same_sqlite_is_refused(tmp_path: Path) -> None:
    with Running(tmp_path) as service:
        done = subprocess.run(
            [sys.executable, "-m", "icl_select", "serve", "--data-dir", str(tmp_path), "--port", "0"],
            capture_output=True, text=True, timeout=120,
        )  # fmt: skip
        assert done.returncode != 0
        assert "is in use by" in done.stderr
        assert "Traceback" not in done.stderr
        assert service.call("GET", "/health") == {"status": "ok"}


def test_a_port_in_use_is_told(tmp_path: Path) -> None:
    with Running(tmp_path / "one") as service:
        done = subprocess.run(
            [sys.executable, "-m", "icl_select", "serve", "--data-dir", str(tmp_path / "two"), "--port",
             str(service.port)],
            capture_output=True, text=True, timeout=120,
        )  # fmt: skip
        assert done.returncode == 1
        assert "cannot listen" in done.stderr


def test_a_stop_finishes_what_was_asked_and_gives_jobs_back(tmp_path: Path) -> None:
    with Running(tmp_path) as service:
        service.call("POST", "/v1/pools", {"name": "t", "encoder": "hash(dim=1024)"})
        job = service.upload("t", rows(20_000, words=60))["job"]
        until(lambda: service.call("GET", f"/v1/jobs/{job}")["done"], "progress")
        assert service.stop() == 0
        service.start()
        found = service.call("GET", f"/v1/jobs/{job}")
        assert found["state"] in ("queued", "running", "done")
        # Giving a job back is no failed attempt.
        assert service.wait(job)["attempts"] <= 2
        assert service.call("GET", "/v1/pools/t")["embedding"]["n_items"] == 20_000


def test_an_open_stream_of_events_does_not_hold_up_a_stop(tmp_path: Path) -> None:
    """It ends when the service is told to stop, long before the time that open answers are given."""
    with Running(tmp_path, environ={"ICS_SERVICE_SHUTDOWN_SECONDS": "60"}) as service:
        service.call("POST", "/v1/pools", {"name": "t", "encoder": "hash(dim=1024)"})
        job = service.upload("t", rows(20_000, words=60))["job"]
        with service.client.stream("GET", f"{service.url}/v1/jobs/{job}/events") as stream:
            lines = stream.iter_lines()
            assert next(lines)
            begun = time.monotonic()
            assert service.stop() == 0
            assert time.monotonic() - begun < 50
            assert not any('"state":"done"' in line for line in lines)


def test_an_index_that_does_not_fit_is_refused_never_used(tmp_path: Path) -> None:
    with Running(tmp_path, "--workers", "1") as service:
        service.pool("t", rows(30, labelled=10))
        ask = {"pool": "t", "query": "word1"}
        good = service.call("POST", "/v1/prompts", ask)
        service.stop()
        vectors = sorted((tmp_path / "pools").rglob("*.npy"))
        assert vectors
        content = bytearray(vectors[0].read_bytes())
        content[-40] ^= 1
        vectors[0].write_bytes(content)
        service.start()
        for damage in (lambda: None, vectors[0].unlink):
            damage()
            answer = service.send("POST", "/v1/prompts", ask)
            assert answer.status_code == 409, answer.text
            assert "/v1/pools/t/embeddings" in answer.json()["detail"]
        # What was answered before needs no vectors.
        assert service.call("GET", f"/v1/prompts/{good['id']}") == good
        assert service.wait(service.call("POST", "/v1/pools/t/embeddings")["id"])["state"] == "done"
        again = service.call("POST", "/v1/prompts", ask)
        assert again["prompt"] == good["prompt"]


def test_prompts_go_on_while_a_pool_grows(tmp_path: Path) -> None:
    """New items need not be embedded for the labelled ones to be shown; a new item with a label must be."""
    with Running(tmp_path) as service:
        service.pool("t", rows(30, labelled=10))
        ask = {"pool": "t", "query": "word1"}
        service.stop()
        service.options = ["--workers", "0"]
        service.start()
        service.upload("t", rows(5, start=100))
        assert service.send("POST", "/v1/prompts", ask).status_code == 200
        service.call("PUT", "/v1/pools/t/labels/item-100", {"label": "new"})
        answer = service.send("POST", "/v1/prompts", ask)
        assert (answer.status_code, "1 labelled items" in answer.json()["detail"]) == (409, True)
        service.stop()
        service.options = []
        service.start()
        until(lambda: service.send("POST", "/v1/prompts", ask).status_code == 200, "the embedding of the new items")


@contextmanager
def small_disk(folder: Path, size: str) -> Iterator[Path]:
    """A file system of its own that is soon full; skipped where none can be mounted."""
    folder.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(folder)], capture_output=True, text=True
    )
    if mounted.returncode:
        pytest.skip(f"needs to mount a small file system: {mounted.stderr.strip()}")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True)


def test_a_full_disk_loses_nothing_acknowledged_and_is_told(tmp_path: Path) -> None:
    with small_disk(tmp_path / "disk", "12m") as disk, Running(disk) as service:
        service.pool("t", rows(100))
        acknowledged: list[tuple[str, str]] = []
        refused = 0
        filler = disk / "filler"
        with filler.open("wb", buffering=0) as stream:
            try:
                while True:
                    stream.write(b"x" * 65_536)
            except OSError:
                pass
        for number in range(2_000):
            item, label = f"item-{number % 100}", f"label {number} {'long' * 200}"
            answer = service.send("PUT", f"/v1/pools/t/labels/{item}", {"label": label})
            if answer.status_code == 200:
                acknowledged.append((item, label))
                continue
            assert answer.status_code == 507, answer.text
            assert "disk" in answer.json()["detail"]
            refused += 1
            if refused == 20:
                break
        assert refused == 20
        assert service.send("GET", "/v1/pools/t").status_code == 200
        filler.unlink()
        service.call("PUT", "/v1/pools/t/labels/item-0", {"label": "after"})
        acknowledged.append(("item-0", "after"))
        service.kill()
        service.start()
        for item in {item for item, _ in acknowledged}:
            kept = [word["label"] for word in service.call("GET", f"/v1/pools/t/history/{item}")]
            assert kept == [label for name, label in acknowledged if name == item]
        upload = service.send(
            "PUT", "/v1/pools/t/items", b'{"text": "x"}\n' * 2_000_000, headers={"Content-Type": "application/x-ndjson"}
        )
        assert upload.status_code == 507, upload.text
        assert not list((disk / "uploads").glob("*"))
        assert service.call("GET", "/v1/pools/t")["n_items"] == 100


def test_a_client_that_goes_away_leaves_nothing(tmp_path: Path) -> None:
    import socket

    with Running(tmp_path) as service:
        service.call("POST", "/v1/pools", {"name": "t", "encoder": "hash"})
        with socket.create_connection(("127.0.0.1", service.port)) as connection:
            head = (
                "PUT /v1/pools/t/items HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/x-ndjson\r\n"
                "Content-Length: 1000000\r\n\r\n"
            )
            connection.sendall(head.encode() + b'{"text": "half"}\n')
            until(lambda: list((tmp_path / "uploads").glob("*")), "the upload")
        until(lambda: not list((tmp_path / "uploads").glob("*")), "the end of the upload")
        assert service.call("GET", "/v1/pools/t")["n_items"] == 0
        assert not [line for line in service.log if '"level": "error"' in line]
        begun = time.monotonic()
        service.upload("t", rows(3))
        assert time.monotonic() - begun < 60
