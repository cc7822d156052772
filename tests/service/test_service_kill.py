"""Labels cost money: what was acknowledged is there after SIGKILL at any moment, once, and no job hangs."""

from __future__ import annotations

import os
import random
import threading
from pathlib import Path

import httpx2
import pytest
from databases import SERVER, new_database
from running import Running, rows, until

ITEMS = 300


class Writer(threading.Thread):
    """Writes labels, each with a text of its own, alone and in batches, and notes what was acknowledged."""

    def __init__(self, service: Running, number: int) -> None:
        super().__init__(daemon=True)
        self.service = service
        self.name = f"writer-{number}"
        self.draw = random.Random(number)
        self.acknowledged: list[tuple[str, str]] = []
        self.unsure: list[tuple[str, str]] = []
        self.wrong: list[str] = []
        self.over = threading.Event()
        self.client = httpx2.Client(timeout=20, trust_env=False)

    def run(self) -> None:
        count = 0
        while not self.over.is_set():
            size = self.draw.choice([1, 1, 1, 7])
            chosen = self.draw.sample(range(ITEMS), size)
            sent = [(f"item-{item}", f"{self.name}/{count + place}") for place, item in enumerate(chosen)]
            count += size
            self._send(sent)

    def _send(self, sent: list[tuple[str, str]]) -> None:
        words = [{"id": item, "label": label, "annotator": self.name} for item, label in sent]
        try:
            answer = self.client.put(f"{self.service.url}/v1/pools/t/labels", json={"labels": words})
        except httpx2.TransportError:
            self.unsure += sent  # written or not: nobody said so
            self.over.wait(0.02)
            return
        if answer.status_code == 200 and answer.json()["written"] == len(sent):
            self.acknowledged += sent
        elif answer.status_code == 503:  # stopping or starting: said clearly, and nothing was written
            self.over.wait(0.02)
        else:
            self.wrong.append(f"{answer.status_code} {answer.text}")


def check(service: Running, writers: list[Writer]) -> int:
    """Every acknowledged label is in the history once; returns how many were looked for."""
    said: dict[str, list[str]] = {}
    for number in range(ITEMS):
        history = service.call("GET", f"/v1/pools/t/history/item-{number}")
        said[f"item-{number}"] = [word["label"] for word in history]
        versions = [word["version"] for word in history]
        assert versions == sorted(versions)
        if history:
            item = service.call("GET", f"/v1/pools/t/items/item-{number}")
            latest = {word["annotator"]: word["label"] for word in history}
            # One annotator's latest word, or as many different ones as annotators: then the item is open.
            assert item["label"] in {*latest.values(), None}
            assert item["n_votes"] == len(latest)
    twice = [item for item, labels in said.items() if len(labels) != len(set(labels))]
    assert not twice
    acknowledged = [pair for writer in writers for pair in writer.acknowledged]
    lost = [(item, label) for item, label in acknowledged if label not in said[item]]
    assert not lost, lost[:5]
    known = {*acknowledged, *(pair for writer in writers for pair in writer.unsure)}
    invented = [(item, label) for item, labels in said.items() for label in labels if (item, label) not in known]
    assert not invented, invented[:5]
    return len(acknowledged)


def kill_again_and_again(service: Running, kills: int) -> None:
    draw = random.Random(4)
    service.pool("t", rows(ITEMS))
    writers = [Writer(service, number) for number in range(2)]
    for writer in writers:
        writer.start()
    done = 0
    for number in range(kills):
        seen = sum(len(writer.acknowledged) for writer in writers)
        until(lambda seen=seen: sum(len(writer.acknowledged) for writer in writers) > seen, "a label")  # type: ignore[misc]
        service.upload("t", rows(5, start=1_000 + 10 * number))
        method = draw.choice(["random", "max_herding", "vote_k(k=5)"])
        service.call("POST", "/v1/pools/t/selections", {"method": method, "budget": 20, "seed": number})
        threading.Event().wait(draw.uniform(0.0, 0.5))  # the moment is random; nothing waits for anything here
        service.kill()
        done += 1
        service.start()
    for writer in writers:
        writer.over.set()
    for writer in writers:
        writer.join(60)
    assert done == kills
    assert not [wrong for writer in writers for wrong in writer.wrong]
    assert check(service, writers) > kills
    jobs = service.call("GET", "/v1/jobs?limit=1000")["jobs"]
    ended = [service.wait(job["id"]) for job in jobs]
    # Done, or failed and said why: one that was running at three of the deaths is not begun a fourth time.
    assert [job for job in ended if job["state"] != "done" and "ended 3 times" not in str(job["error"])] == []
    assert service.wait(service.call("POST", "/v1/pools/t/embeddings")["id"])["state"] == "done"
    assert service.call("GET", "/v1/pools/t")["n_items"] == ITEMS + 5 * kills
    assert service.call("GET", "/v1/pools/t")["embedding"]["n_items"] == ITEMS + 5 * kills


@pytest.mark.slow
def test_nothing_acknowledged_is_lost_when_the_server_is_killed_twenty_times(tmp_path: Path) -> None:
    with Running(tmp_path) as service:
        kill_again_and_again(service, 20)


@pytest.mark.slow
def test_nothing_acknowledged_is_lost_on_postgresql(tmp_path: Path) -> None:
    server = os.environ.get(SERVER)
    if not server:
        pytest.skip(f"needs PostgreSQL: scripts/postgres.sh run COMMAND, or a server's URL in {SERVER}")
    with new_database(server) as url, Running(tmp_path, environ={"ICS_SERVICE_DATABASE": url}) as service:
        kill_again_and_again(service, 6)
