"""Jobs and reports over HTTP: started, followed, cancelled, read, and known to be stale."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from typing import Any

import pytest
from fastapi.testclient import TestClient
from running_service import serve
from store_cases import make_pool, row, rows, say, upload
from work_cases import CONFIG, Here

from icl_select.density import Density
from icl_select.leave_one_out import LeaveOneOut
from icl_select.service.app import create_app
from icl_select.service.store import jobs
from icl_select.service.work import run


@pytest.fixture
def http(here: Here) -> Iterator[TestClient]:
    """The service without workers: the tests do the jobs."""
    settings = here.settings.model_copy(update={"workers": 0})
    with TestClient(create_app(settings), base_url="http://localhost") as client:
        yield client


def work(here: Here) -> None:
    """Do the jobs that wait."""
    while (context := here.claim()) is not None:
        run(context)


def start(http: TestClient, path: str, body: Any = None) -> dict[str, Any]:
    answer = http.post(f"/v1/pools/p/{path}", json=body)
    assert answer.status_code == 202, answer.text
    job: dict[str, Any] = answer.json()
    assert answer.headers["location"] == f"/v1/jobs/{job['id']}"
    return job


class TestEmbeddings:
    def test_who_asks_while_a_job_waits_gets_that_job(self, here: Here, http: TestClient) -> None:
        make_pool(here.database, 9, **CONFIG)
        first = start(http, "embeddings")
        assert (first["kind"], first["state"], first["pool"]) == ("embed", "queued", "p")
        assert start(http, "embeddings")["id"] == first["id"]
        work(here)
        assert start(http, "embeddings")["id"] != first["id"]
        assert here.embedding().n_items == 9

    def test_lost_vectors_are_made_again(self, here: Here, http: TestClient) -> None:
        make_pool(here.database, 9, **CONFIG)
        here.do("embed")
        for path in here.files().values():
            path.unlink()
        start(http, "embeddings")
        work(here)
        assert here.vectors.matrix(here.embedding()).shape == (9, 16)

    @pytest.mark.parametrize("path", ["embeddings", "density", "evaluations"])
    def test_an_empty_pool_and_one_that_is_not_there_are_refused(self, here: Here, http: TestClient, path: str) -> None:
        make_pool(here.database, 0, **CONFIG)
        answer = http.post(f"/v1/pools/p/{path}", json={})
        assert answer.status_code == 409
        assert "PUT /v1/pools/p/items" in answer.json()["detail"]
        assert http.post(f"/v1/pools/q/{path}", json={}).status_code == 404

    @pytest.mark.parametrize("path", ["embeddings", "density", "evaluations"])
    def test_the_same_key_starts_one_job(self, here: Here, http: TestClient, path: str) -> None:
        make_pool(here.database, 9, **CONFIG)
        for pos in range(3):
            say(here.database, pos, "a")
        sent = {"json": {}, "headers": {"Idempotency-Key": "k"}}
        first, second = (http.post(f"/v1/pools/p/{path}", **sent) for _ in range(2))
        assert first.status_code == second.status_code == 202
        assert first.json() == second.json()
        assert second.headers["idempotency-replayed"] == "true"
        assert len(http.get("/v1/jobs").json()["jobs"]) == 1


class TestDensity:
    def test_there_is_none_before_it_was_made(self, here: Here, http: TestClient) -> None:
        make_pool(here.database, 9, **CONFIG)
        answer = http.get("/v1/pools/p/density")
        assert answer.status_code == 404
        assert "POST /v1/pools/p/density makes one" in answer.json()["detail"]

    def test_it_comes_as_json_figure_and_page_and_says_when_it_is_stale(self, here: Here, http: TestClient) -> None:
        make_pool(here.database, 30, **CONFIG)
        job = start(http, "density", {"centre": True, "seed": 4})
        work(here)
        for stale in (False, True):
            found = http.get("/v1/pools/p/density").json()
            assert found["stale"] is stale
            assert (found["pool"], found["job"], found["seed"], found["centred"]) == ("p", job["id"], 4, True)
            assert found["made_from"]["n_items"] == 30
            assert found["schema"] == "icl-select/density/1"
            assert Density.from_dict(found["panels"]["hash(dim=16)"]["p"]).n == 30
            figure = http.get("/v1/pools/p/density", params={"format": "png"})
            page = http.get("/v1/pools/p/density", params={"format": "html"})
            assert figure.headers["content-type"] == "image/png"
            assert figure.content.startswith(b"\x89PNG")
            assert page.headers["content-type"] == "text/html; charset=utf-8"
            assert page.text.startswith("<!DOCTYPE html>")
            assert "default-src 'none'" in page.headers["content-security-policy"]
            shown = "true" if stale else "false"
            assert figure.headers["icl-select-stale"] == page.headers["icl-select-stale"] == shown
            upload(here.database, "p", [rows(1, 30)])

    def test_a_label_makes_no_density_stale(self, here: Here, http: TestClient) -> None:
        make_pool(here.database, 30, **CONFIG)
        start(http, "density", {})
        work(here)
        say(here.database, 0, "a")
        assert http.get("/v1/pools/p/density").json()["stale"] is False

    @pytest.mark.parametrize("query", ["format=svg", "format="])
    def test_another_format_is_refused(self, here: Here, http: TestClient, query: str) -> None:
        make_pool(here.database, 30, **CONFIG)
        assert http.get(f"/v1/pools/p/density?{query}").status_code == 422


class TestEvaluation:
    def pool(self, here: Here) -> None:
        make_pool(here.database, 0, **CONFIG)
        words = ["open the door", "close the window", "lose the key"]
        new = [row(f"i{i}", words[i % 3].split()[0], f"{words[i % 3]} number {i}") for i in range(30)]
        upload(here.database, "p", [new])

    def test_it_says_how_the_labels_answer_each_other(self, here: Here, http: TestClient) -> None:
        self.pool(here)
        assert http.get("/v1/pools/p/evaluation").status_code == 404
        job = start(http, "evaluations", {"ks": [1, 3]})
        work(here)
        found = http.get("/v1/pools/p/evaluation").json()
        report = LeaveOneOut.from_dict(found)
        assert (report.n, [vote.k for vote in report.votes]) == (30, [1, 3])
        assert report.votes[0].verdict == "better"
        assert found["summary"] == report.summary()
        assert (found["schema"], found["job"]) == ("icl-select/leave-one-out/1", job["id"])
        assert found["stale"] is False

    @pytest.mark.parametrize("change", ["label", "item"])
    def test_labels_and_items_that_come_later_make_it_stale(self, here: Here, http: TestClient, change: str) -> None:
        self.pool(here)
        start(http, "evaluations", {"ks": [1]})
        work(here)
        if change == "label":
            say(here.database, 0, "close")
        else:
            upload(here.database, "p", [rows(1, 99)])
        assert http.get("/v1/pools/p/evaluation").json()["stale"] is True

    def test_one_label_is_too_few(self, here: Here, http: TestClient) -> None:
        make_pool(here.database, 9, **CONFIG)
        say(here.database, 0, "a")
        answer = http.post("/v1/pools/p/evaluations", json={})
        assert answer.status_code == 409
        assert "labelled items of the pool 'p': 1." in answer.json()["detail"]

    @pytest.mark.parametrize("body", [{"ks": []}, {"ks": [0]}, {"ks": [1] * 21}, {"seed": -1}, {"k": 3}])
    def test_what_cannot_be_asked_is_refused(self, here: Here, http: TestClient, body: dict[str, Any]) -> None:
        self.pool(here)
        assert http.post("/v1/pools/p/evaluations", json=body).status_code == 422


class TestJobs:
    def test_they_are_listed_by_pool_and_state(self, here: Here, http: TestClient) -> None:
        make_pool(here.database, 9, "p", **CONFIG)
        make_pool(here.database, 9, "q", **CONFIG)
        done = here.enqueue("embed", pool="q")
        work(here)
        waits = [here.enqueue("density", {"centre": False, "seed": 0}, pool=pool) for pool in ("p", "q")]

        def listed(**query: str) -> list[str]:
            return [job["id"] for job in http.get("/v1/jobs", params=query).json()["jobs"]]

        assert listed() == [waits[1].id, waits[0].id, done.id]
        assert listed(pool="p") == [waits[0].id]
        assert listed(pool="q", state="done") == [done.id]
        assert listed(state="failed") == []
        assert listed(limit="1") == [waits[1].id]
        assert http.get("/v1/jobs", params={"state": "lost"}).status_code == 422

    def test_one_that_waits_is_cancelled_at_once(self, here: Here, http: TestClient) -> None:
        make_pool(here.database, 9, **CONFIG)
        job = start(http, "embeddings")
        cancelled = http.post(f"/v1/jobs/{job['id']}/cancel").json()
        assert (cancelled["state"], cancelled["cancel"]) == ("cancelled", True)
        assert http.get(f"/v1/jobs/{job['id']}").json() == cancelled
        assert here.claim() is None

    def test_one_that_runs_is_asked_to_stop(self, here: Here, http: TestClient) -> None:
        make_pool(here.database, 9, **CONFIG)
        context = here.begin("embed")
        asked = http.post(f"/v1/jobs/{context.job.id}/cancel").json()
        assert (asked["state"], asked["cancel"]) == ("running", True)
        assert not context.beat()

    def test_one_that_is_done_stays_done(self, here: Here, http: TestClient) -> None:
        make_pool(here.database, 9, **CONFIG)
        job = here.do("embed")
        found = http.post(f"/v1/jobs/{job.id}/cancel").json()
        assert (found["state"], found["cancel"]) == ("done", False)

    @pytest.mark.parametrize("path", ["", "/events", "/cancel"])
    def test_one_that_is_not_there_is_not_found(self, http: TestClient, path: str) -> None:
        answer = http.request("POST" if path == "/cancel" else "GET", f"/v1/jobs/job_0{path}")
        assert answer.status_code == 404
        assert answer.headers["content-type"] == "application/problem+json"

    def test_a_failed_job_says_why(self, here: Here, http: TestClient) -> None:
        make_pool(here.database, 9, **CONFIG)
        context = here.begin("embed")
        context.progress(3, 9, "items", "embedding")
        context.end("failed", "no", {"type": "urn:x", "title": "t", "status": 503, "detail": "no"})
        found = http.get(f"/v1/jobs/{context.job.id}").json()
        assert (found["state"], found["done"], found["error"]["detail"]) == ("failed", 3, "no")


def events(lines: Iterator[str]) -> Iterator[dict[str, Any]]:
    """Server-sent events of the one kind there is."""
    for line in lines:
        if line.startswith("data: "):
            yield json.loads(line.removeprefix("data: "))
        else:
            assert line in ("event: job", "") or line.startswith(":")


class TestEvents:
    def test_a_job_is_followed_to_its_end(self, here: Here) -> None:
        make_pool(here.database, 9, **CONFIG)
        job = here.enqueue("embed")
        with (
            serve(here.settings.model_copy(update={"workers": 0})) as service,
            service.http.stream("GET", f"/v1/jobs/{job.id}/events") as stream,
        ):
            assert stream.headers["content-type"].startswith("text/event-stream")
            told = events(stream.iter_lines())
            first = next(told)
            assert (first["id"], first["state"]) == (job.id, "queued")
            context = here.claim()
            assert context is not None
            assert next(told)["state"] == "running"
            context.progress(4, 9, "items", "embedding")
            context.beat()
            progressed = next(told)
            assert (progressed["state"], progressed["done"], progressed["total"]) == ("running", 4, 9)
            run(context)
            *_, last = told
            assert last["state"] == "done"
            assert last == service.http.get(f"/v1/jobs/{job.id}").json()

    def test_a_job_that_has_ended_is_told_once(self, here: Here, http: TestClient) -> None:
        make_pool(here.database, 9, **CONFIG)
        job = here.do("embed")
        with http.stream("GET", f"/v1/jobs/{job.id}/events") as stream:
            assert [event["state"] for event in events(stream.iter_lines())] == ["done"]

    def test_that_the_process_lives_is_no_event(self, here: Here) -> None:
        make_pool(here.database, 9, **CONFIG)
        context = here.begin("embed")
        told: list[dict[str, Any]] = []
        with serve(here.settings.model_copy(update={"workers": 0})) as service:
            taken = here.job(context.job.id)
            if taken.state == "queued":  # SQLite: a server that starts takes what runs for dead
                context = here.claim() or context

            def follow() -> None:
                with service.http.stream("GET", f"/v1/jobs/{context.job.id}/events") as stream:
                    told.extend(events(stream.iter_lines()))

            thread = threading.Thread(target=follow, daemon=True)
            thread.start()
            for _ in range(20):
                context.beat()
                thread.join(0.1)
            run(context)
            thread.join(60)
            assert not thread.is_alive()
        assert told[-1]["state"] == jobs.FINAL[0]
        # Between the first and the last there is at most what the work itself said.
        assert sum(event["message"] == "started" for event in told) == 1
