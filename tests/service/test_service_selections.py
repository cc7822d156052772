"""Selections over HTTP: asked for, read whole or as a prefix, handed out without collisions, exported as tasks."""

from __future__ import annotations

import csv
import dataclasses
import io
import json
from collections.abc import Iterator, Mapping
from typing import Any

import pytest
from fastapi.testclient import TestClient
from store_cases import make_pool, row, rows, say, until, upload
from work_cases import CONFIG, Here

from icl_select.service.app import create_app
from icl_select.service.settings import Limits
from icl_select.service.store import jobs, keys
from icl_select.service.work import run

WORDS = {"label_words": ["a", "b"]}


@pytest.fixture
def http(here: Here) -> Iterator[TestClient]:
    """The service without workers: the tests do the jobs."""
    limits = Limits(budget=30, lease_seconds=1000)
    with TestClient(
        create_app(here.settings.model_copy(update={"workers": 0, "limits": limits})), base_url="http://localhost"
    ) as client:
        yield client


def work(here: Here) -> None:
    """Do the jobs that wait."""
    while (context := here.claim()) is not None:
        run(context)


def select(here: Here, http: TestClient, **body: Any) -> dict[str, Any]:
    """Ask for a selection and have it made."""
    answer = http.post("/v1/pools/p/selections", json={"method": "max_herding", "budget": 8, **body})
    assert answer.status_code == 202, answer.text
    work(here)
    return read(http, answer.json()["id"])


def read(http: TestClient, selection: str, **query: Any) -> dict[str, Any]:
    answer = http.get(f"/v1/pools/p/selections/{selection}", params=query)
    assert answer.status_code == 200, answer.text
    found: dict[str, Any] = answer.json()
    return found


def take(http: TestClient, selection: str, annotator: str, count: int = 2, **body: Any) -> list[str]:
    answer = http.post(
        f"/v1/pools/p/selections/{selection}/next", json={"annotator": annotator, "count": count, **body}
    )
    assert answer.status_code == 200, answer.text
    return [item["id"] for item in answer.json()["items"]]


def ids(selection: Mapping[str, Any]) -> list[str]:
    return [pick["id"] for pick in selection["picks"]]


class TestAsking:
    def test_it_is_a_job_that_can_be_followed(self, here: Here, http: TestClient) -> None:
        make_pool(here.database, 40, **CONFIG, **WORDS)
        say(here.database, 3, "a")
        answer = http.post("/v1/pools/p/selections", json={"method": "max_herding( bandwidth=1.0 )", "budget": 5})
        asked = answer.json()
        assert answer.status_code == 202
        assert answer.headers["location"] == f"/v1/jobs/{asked['job']}"
        assert (asked["state"], asked["picks"], asked["nested"], asked["made_from"]) == ("queued", [], None, None)
        assert asked["method"] == "max_herding(bandwidth=1.0)"
        assert http.get(answer.headers["location"]).json()["kind"] == "select"
        work(here)
        found = read(http, asked["id"])
        assert (found["state"], found["nested"], found["next"]) == ("done", True, None)
        assert [pick["rank"] for pick in found["picks"]] == list(range(5))
        gains = [pick["gain"] for pick in found["picks"]]
        assert gains == sorted(gains, reverse=True)
        assert "i3" not in ids(found)
        assert found["made_from"]["labels"] == 1
        assert found["made_from"]["given"] == 1
        assert found["picks"][0]["text"] == f"text of {found['picks'][0]['id']}"

    @pytest.mark.parametrize(
        ("body", "status", "words"),
        [
            ({"budget": 38}, 413, "exceeds 30"),
            ({"budget": 0}, 422, "budget"),
            ({"budget": 20}, 422, r"budget=20 exceeds the 19 rows that can still be picked (pool of 20, 1 already"),
            ({"budget": 3, "method": "herding"}, 422, "Did you mean 'max_herding'?"),
            ({"budget": 3, "method": "max_herding(width=1)"}, 422, "no parameter 'width'"),
            ({"budget": 3, "method": "max_herding(__import__('os'))"}, 422, "cannot read"),
            ({"budget": 3, "method": "vote_k(stage='full')"}, 422, "asks a language model"),
            ({"budget": 3, "methods": "random"}, 422, "methods"),
            ({"budget": 3, "seed": -1}, 422, "seed"),
            ({"budget": 3, "seed": 2**63}, 422, "seed"),
        ],
    )
    def test_what_cannot_be_selected_is_refused_at_once(
        self, here: Here, http: TestClient, body: dict[str, Any], status: int, words: str
    ) -> None:
        make_pool(here.database, 20, **CONFIG, **WORDS)
        say(here.database, 3, "a")
        answer = http.post("/v1/pools/p/selections", json=body)
        assert answer.status_code == status
        assert words in answer.json()["detail"]
        assert here.claim() is None

    def test_an_empty_pool_and_one_that_is_not_there_are_refused(self, here: Here, http: TestClient) -> None:
        make_pool(here.database, 0, **CONFIG)
        assert http.post("/v1/pools/p/selections", json={"budget": 1}).status_code == 409
        assert http.post("/v1/pools/q/selections", json={"budget": 1}).status_code == 404

    def test_a_parameter_that_only_the_method_can_judge_fails_the_job(self, here: Here, http: TestClient) -> None:
        make_pool(here.database, 20, **CONFIG, **WORDS)
        asked = http.post("/v1/pools/p/selections", json={"budget": 2, "method": "max_herding(bandwidth=-1)"}).json()
        context = here.claim()
        assert context is not None
        with pytest.raises(ValueError, match="bandwidth=-1"):
            run(context)
        context.end("failed", "bandwidth=-1 is no distance.", {"detail": "bandwidth=-1 is no distance."})
        found = read(http, asked["id"])
        assert (found["state"], found["picks"]) == ("failed", [])
        answer = http.post(f"/v1/pools/p/selections/{asked['id']}/next", json={})
        assert answer.status_code == 409
        assert "bandwidth=-1 is no distance" in answer.json()["detail"]

    def test_the_same_key_asks_once(self, here: Here, http: TestClient) -> None:
        make_pool(here.database, 20, **CONFIG, **WORDS)
        sent = {"json": {"budget": 3}, "headers": {"Idempotency-Key": "k1"}}
        first, second = (http.post("/v1/pools/p/selections", **sent) for _ in range(2))
        assert first.json() == second.json()
        assert second.headers["location"] == first.headers["location"]
        assert len(http.get("/v1/pools/p/selections").json()["selections"]) == 1
        other = http.post("/v1/pools/p/selections", json={"budget": 4}, headers={"Idempotency-Key": "k1"})
        assert other.status_code == 422

    def test_labels_can_be_ignored(self, here: Here, http: TestClient) -> None:
        make_pool(here.database, 8, **CONFIG, **WORDS)
        for pos in range(8):
            say(here.database, pos, "a")
        assert http.post("/v1/pools/p/selections", json={"budget": 1}).status_code == 422
        assert len(select(here, http, budget=8, ignore_labels=True)["picks"]) == 8


class TestReading:
    def test_any_beginning_answers_a_smaller_budget(self, here: Here, http: TestClient) -> None:
        make_pool(here.database, 40, **CONFIG, **WORDS)
        whole = select(here, http, budget=10)
        for budget in (1, 4, 10):
            assert ids(read(http, whole["id"], budget=budget)) == ids(whole)[:budget]
        assert ids(select(here, http, budget=4)) == ids(whole)[:4]

    def test_a_budget_above_the_selection_is_refused(self, here: Here, http: TestClient) -> None:
        make_pool(here.database, 40, **CONFIG, **WORDS)
        answer = http.get(f"/v1/pools/p/selections/{select(here, http)['id']}", params={"budget": 9})
        assert answer.status_code == 422
        assert answer.json()["type"] == "urn:icl-select:error:budget"
        assert "select again with budget=9" in answer.json()["detail"]

    def test_picks_that_are_not_nested_answer_their_own_budget_alone(self, here: Here, http: TestClient) -> None:
        make_pool(here.database, 40, **CONFIG, **WORDS)
        made = select(here, http, method="random(variant='official')")
        assert made["nested"] is False
        assert ids(read(http, made["id"], budget=8)) == ids(made)
        for path in ("", "/export"):
            answer = http.get(f"/v1/pools/p/selections/{made['id']}{path}", params={"budget": 3})
            assert answer.status_code == 422
            assert "not nested" in answer.json()["detail"]

    @pytest.mark.parametrize("limit", [1, 3, 8, 100])
    def test_pages_make_up_the_whole(self, here: Here, http: TestClient, limit: int) -> None:
        make_pool(here.database, 40, **CONFIG, **WORDS)
        whole = select(here, http)
        found: list[str] = []
        after: int | None = -1
        while after is not None:
            page = read(http, whole["id"], after=after, limit=limit)
            assert len(page["picks"]) <= limit
            found += ids(page)
            after = page["next"]
        assert found == ids(whole)

    def test_labels_that_picks_get_are_shown_and_counted(self, here: Here, http: TestClient) -> None:
        make_pool(here.database, 40, **CONFIG, **WORDS)
        made = select(here, http)
        assert made["n_labelled"] == 0
        say(here.database, int(ids(made)[2][1:]), "b")
        found = read(http, made["id"])
        assert found["n_labelled"] == 1
        assert [pick["label"] for pick in found["picks"]] == [None, None, "b", *[None] * 5]
        assert found["made_from"] == made["made_from"]

    def test_a_selection_stays_true_when_items_are_added(self, here: Here, http: TestClient) -> None:
        make_pool(here.database, 40, **CONFIG, **WORDS)
        made = select(here, http)
        upload(here.database, "p", [rows(20, 40)])
        found = read(http, made["id"])
        assert ids(found) == ids(made)
        assert found["made_from"]["pool"] == 1
        assert here.pool().version == 2

    def test_the_newest_come_first(self, here: Here, http: TestClient) -> None:
        make_pool(here.database, 40, **CONFIG, **WORDS)
        made = [select(here, http, budget=budget)["id"] for budget in (1, 2, 3)]
        listed = http.get("/v1/pools/p/selections").json()["selections"]
        assert [found["id"] for found in listed] == made[::-1]
        assert all(found["picks"] == [] for found in listed)
        assert len(http.get("/v1/pools/p/selections", params={"limit": 2}).json()["selections"]) == 2

    def test_a_selection_of_another_pool_is_not_found(self, here: Here, http: TestClient) -> None:
        make_pool(here.database, 40, **CONFIG, **WORDS)
        make_pool(here.database, 4, "q", **CONFIG)
        made = select(here, http)
        for method, path in (("GET", ""), ("POST", "/next"), ("GET", "/export")):
            answer = http.request(
                method, f"/v1/pools/q/selections/{made['id']}{path}", json={} if method == "POST" else None
            )
            assert answer.status_code == 404


class TestHandingOut:
    def test_nobody_gets_what_another_has(self, here: Here, http: TestClient) -> None:
        make_pool(here.database, 40, **CONFIG, **WORDS)
        made = select(here, http, budget=5)
        first = take(http, made["id"], "ann")
        second = take(http, made["id"], "bob")
        assert [*first, *second] == ids(made)[:4]
        assert take(http, made["id"], "ann") == first
        assert take(http, made["id"], "cas", 9) == ids(made)[4:]
        assert take(http, made["id"], "dan", 9) == []

    def test_what_is_labelled_is_done_and_what_is_given_back_is_free(self, here: Here, http: TestClient) -> None:
        make_pool(here.database, 40, **CONFIG, **WORDS)
        made = select(here, http, budget=5)
        first = take(http, made["id"], "ann")
        labelled = http.put("/v1/pools/p/labels", json={"labels": [{"id": first[0], "label": "a", "annotator": "ann"}]})
        assert labelled.status_code == 200
        assert take(http, made["id"], "ann") == ids(made)[1:3]
        assert http.delete("/v1/pools/p/leases", params={"annotator": "ann"}).status_code == 204
        assert take(http, made["id"], "bob") == ids(made)[1:3]

    def test_an_answer_says_all_that_labelling_needs(self, here: Here, http: TestClient) -> None:
        make_pool(here.database, 0, **CONFIG, **WORDS)
        new = [dataclasses.replace(row(f"i{i}"), fields={"subject": f"s{i}", "body": "b"}) for i in range(9)]
        upload(here.database, "p", [new])
        made = select(here, http, budget=4)
        answer = http.post(f"/v1/pools/p/selections/{made['id']}/next", json={"lease_seconds": 5}).json()
        assert answer["annotator"] == "anonymous"
        assert answer["label_words"] == ["a", "b"]
        assert answer["remaining"] == 4
        (item,) = answer["items"]
        assert (item["rank"], item["id"]) == (0, ids(made)[0])
        assert item["text"] == f"text of {item['id']}"
        assert item["fields"] == {"subject": f"s{item['id'][1:]}", "body": "b"}
        assert item["expires_at"] > made["created_at"]

    def test_a_pool_that_wants_two_labels_hands_an_item_to_two(self, here: Here, http: TestClient) -> None:
        make_pool(here.database, 40, **{**CONFIG, "annotators": 2}, **WORDS)
        made = select(here, http, budget=3)
        assert take(http, made["id"], "ann") == take(http, made["id"], "bob") == ids(made)[:2]
        assert take(http, made["id"], "cas") == ids(made)[2:]

    def test_the_same_key_hands_out_once(self, here: Here, http: TestClient) -> None:
        make_pool(here.database, 40, **CONFIG, **WORDS)
        made = select(here, http)
        sent = {"json": {"annotator": "ann"}, "headers": {"Idempotency-Key": "n1"}}
        first, second = (http.post(f"/v1/pools/p/selections/{made['id']}/next", **sent) for _ in range(2))
        assert first.json() == second.json()
        assert second.headers["idempotency-replayed"] == "true"

    @pytest.mark.parametrize(
        ("body", "status"),
        [({"lease_seconds": 1001}, 422), ({"lease_seconds": 0}, 422), ({"count": 0}, 422), ({"annotator": ""}, 422)],
    )
    def test_what_cannot_be_asked_is_refused(
        self, here: Here, http: TestClient, body: dict[str, Any], status: int
    ) -> None:
        make_pool(here.database, 40, **CONFIG, **WORDS)
        made = select(here, http)
        assert http.post(f"/v1/pools/p/selections/{made['id']}/next", json=body).status_code == status

    def test_a_selection_that_waits_has_nothing_to_hand_out(self, here: Here, http: TestClient) -> None:
        make_pool(here.database, 40, **CONFIG, **WORDS)
        asked = http.post("/v1/pools/p/selections", json={"budget": 3}).json()
        for method, path in (("POST", "next"), ("GET", "export")):
            answer = http.request(
                method, f"/v1/pools/p/selections/{asked['id']}/{path}", json={} if method == "POST" else None
            )
            assert answer.status_code == 409
            assert "waits for its turn" in answer.json()["detail"]


class TestExporting:
    def test_csv_and_json_lines_hold_the_picks_in_order(self, here: Here, http: TestClient) -> None:
        make_pool(here.database, 40, **CONFIG, **WORDS)
        made = select(here, http)
        where = f"/v1/pools/p/selections/{made['id']}/export"
        answer = http.get(where)
        assert answer.headers["content-type"] == "text/csv; charset=utf-8"
        assert answer.headers["content-disposition"] == f'attachment; filename="{made["id"]}.csv"'
        table = list(csv.DictReader(io.StringIO(answer.text)))
        assert [one["id"] for one in table] == ids(made)
        assert [one["rank"] for one in table] == [str(rank) for rank in range(1, 9)]
        lines = [
            json.loads(line) for line in http.get(where, params={"format": "jsonl", "budget": 3}).text.splitlines()
        ]
        assert [one["id"] for one in lines] == ids(made)[:3]

    @pytest.mark.parametrize("format", ["label-studio", "argilla", "prodigy"])
    def test_tools_get_their_own_tasks(self, here: Here, http: TestClient, format: str) -> None:
        make_pool(here.database, 40, **CONFIG, **WORDS)
        made = select(here, http)
        where = f"/v1/pools/p/selections/{made['id']}/export"
        answer = http.get(where, params={"format": format})
        assert answer.status_code == 200
        content = answer.text
        tasks = json.loads(content) if content.startswith("[") else [json.loads(line) for line in content.splitlines()]
        assert len(tasks) == 8
        places = [content.index(f'text of {name}"') for name in ids(made)]
        assert places == sorted(places)
        config = http.get(where, params={"format": format, "part": "config"})
        if format == "label-studio":
            assert config.headers["content-type"] == "application/xml"
            assert 'value="a"' in config.text
        else:
            assert config.status_code == 404


class TestScopes:
    def test_each_route_needs_its_scope(self, here: Here, http: TestClient) -> None:
        make_pool(here.database, 40, **CONFIG, **WORDS)
        made = select(here, http)
        with here.database.write() as connection:
            texts = {scope: keys.create(connection, scope, scope)[1] for scope in keys.SCOPES}
        until(lambda: http.get("/v1/jobs").status_code == 401)  # keys are read again every two seconds
        where = "/v1/pools/p/selections"
        asked = [
            ("read", "GET", where, None),
            ("read", "GET", f"{where}/{made['id']}", None),
            ("read", "GET", f"{where}/{made['id']}/export", None),
            ("label", "POST", f"{where}/{made['id']}/next", {}),
            ("label", "DELETE", "/v1/pools/p/leases", None),
            ("admin", "POST", where, {"budget": 2}),
        ]
        for scope, method, path, body in asked:
            for held in keys.SCOPES:
                answer = http.request(method, path, json=body, headers={"Authorization": f"Bearer {texts[held]}"})
                enough = keys.SCOPES.index(held) >= keys.SCOPES.index(scope)
                assert answer.is_success == enough, (scope, held, method, path)
                assert enough or answer.status_code == 403
            assert http.request(method, path, json=body).status_code == 401

    def test_the_annotator_is_the_key_unless_it_says_otherwise(self, here: Here, http: TestClient) -> None:
        make_pool(here.database, 40, **CONFIG, **WORDS)
        made = select(here, http)
        with here.database.write() as connection:
            _, text = keys.create(connection, "ann", "label")
        until(lambda: http.get("/v1/jobs").status_code == 401)  # keys are read again every two seconds
        held = {"Authorization": f"Bearer {text}"}
        answer = http.post(f"/v1/pools/p/selections/{made['id']}/next", json={}, headers=held)
        assert answer.json()["annotator"] == "ann"
        assert http.delete("/v1/pools/p/leases", headers=held).status_code == 204
        answer = http.post(f"/v1/pools/p/selections/{made['id']}/next", json={"annotator": "bob"}, headers=held)
        assert [item["id"] for item in answer.json()["items"]] == ids(made)[:1]


def test_jobs_of_selections_are_final_in_the_end(here: Here, http: TestClient) -> None:
    make_pool(here.database, 40, **CONFIG, **WORDS)
    made = select(here, http)
    assert here.job(made["job"]).state in jobs.FINAL
