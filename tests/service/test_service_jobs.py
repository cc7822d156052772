"""Jobs of every kind, done in this process: what they write, what they were made from, and how they end."""

from __future__ import annotations

import base64
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import pytest
import sqlalchemy as sa
from store_cases import make_pool, row, rows, say, until, upload
from work_cases import CONFIG, BatchyEncoder, Here

from icl_select import embed, select
from icl_select.density import Density, density
from icl_select.errors import BudgetError, LabelError, ModelError
from icl_select.leave_one_out import LeaveOneOut, leave_one_out
from icl_select.service.errors import UnavailableError
from icl_select.service.store import jobs, pools, reports, selections
from icl_select.service.store.database import Database
from icl_select.service.store.jobs import JobRecord
from icl_select.service.work import Cancelled, Context, run
from icl_select.service.worker import Worker

TEXTS = [
    f"{verb} the {noun} {number}" for number in range(3) for verb in ("open", "close", "lose") for noun in "abcdef"
]


def make_texts(here: Here, *, labelled: int = 0, **config: Any) -> None:
    """A pool of texts; every label is the verb."""
    make_pool(here.database, 0, **{**CONFIG, **config})
    new = [row(f"t{i}", text.split()[0] if i < labelled else None, text) for i, text in enumerate(TEXTS)]
    upload(here.database, "p", [new])


def ask(here: Here, method: str, budget: int, *, seed: int = 0, ignore_labels: bool = False) -> dict[str, Any]:
    """Note a selection; the parameters of its job."""
    with here.database.write() as connection:
        pool = pools.lock(connection, "p")
        selections.create(connection, pool, "sel_1", "job_1", method, budget, seed)
    return {
        "selection": "sel_1",
        "method": method,
        "budget": budget,
        "seed": seed,
        "ignore_labels": ignore_labels,
    }


def picked(here: Here) -> tuple[list[int], list[float], dict[str, Any] | None]:
    """Positions and gains of the selection, and what is kept beside them."""
    with here.database.read() as connection:
        found = selections.find(connection, pools.find(connection, "p"), "sel_1")
        ranked = selections.picks(connection, "sel_1", -1, 10_000, 10_000)
    assert [rank for rank, _, _ in ranked] == list(range(len(ranked)))
    result = None if found.result is None else dict(found.result)
    return [pos for _, pos, _ in ranked], [gain for _, _, gain in ranked], result


def vectors(here: Here) -> Any:
    """The vectors of the pool as methods get them; that they are the library's is another test."""
    embedding = here.embedding()
    return here.vectors.matrix(embedding, embedding.shift)


class TestSelect:
    @pytest.mark.parametrize("method", ["max_herding", "vote_k(k=5)", "random", "ideal(k=3)", "sub_sa"])
    def test_it_is_the_library_s_answer_with_labels_as_given(self, here: Here, method: str) -> None:
        make_texts(here, labelled=7)
        here.do("select", ask(here, method, 9, seed=3))
        expected = select(method, vectors(here), 9, given=range(7), seed=3)
        positions, gains, result = picked(here)
        assert positions == expected.indices.tolist()
        assert np.allclose(gains, expected.gains, rtol=1e-5)
        assert result is not None
        assert result["nested"] == expected.nested
        assert set(result["info"]) == set(expected.info)

    def test_it_knows_what_it_was_made_from(self, here: Here) -> None:
        make_texts(here, labelled=7)
        say(here.database, 20, "open")
        here.do("select", ask(here, "max_herding", 4))
        pool, embedding = here.pool(), here.embedding()
        _, _, result = picked(here)
        assert result is not None
        assert result["made_from"] == {
            "pool": pool.version,
            "pool_fingerprint": pool.fingerprint,
            "labels": pool.labels_version,
            "n_items": len(TEXTS),
            "given": 8,
            "embedding": embedding.id,
            "encoder": "hash(dim=16)",
            "encoder_fingerprint": embedding.encoder_fingerprint,
            "centred": True,
        }

    def test_labels_can_be_ignored(self, here: Here) -> None:
        make_texts(here, labelled=len(TEXTS))
        here.do("select", ask(here, "max_herding", 5, ignore_labels=True))
        positions, _, result = picked(here)
        assert len(positions) == 5
        assert result is not None
        assert result["made_from"]["given"] == 0

    def test_items_are_embedded_first(self, here: Here) -> None:
        encoder = BatchyEncoder()
        here.use(encoder)
        make_texts(here)
        here.do("select", ask(here, "random", 5))
        assert len(encoder.seen) == len(TEXTS)
        assert here.embedding().n_items == len(TEXTS)

    def test_a_budget_that_labels_have_used_up_meanwhile_is_refused(self, here: Here) -> None:
        make_texts(here, labelled=50)
        asked = ask(here, "max_herding", 4)
        say(here.database, 53, "open")
        with pytest.raises(BudgetError, match="budget=4 exceeds the 3 rows"):
            here.do("select", asked)
        assert picked(here)[2] is None

    def test_vectors_of_a_pool_that_is_not_centred_stay_where_they_are(self, here: Here) -> None:
        make_texts(here, centre=False)
        here.do("select", ask(here, "max_herding", 6))
        assert picked(here)[0] == select("max_herding", vectors(here), 6).indices.tolist()

    def test_a_selection_that_was_taken_over_writes_nothing(self, here: Here, monkeypatch: pytest.MonkeyPatch) -> None:
        make_texts(here)
        context = here.begin("select", ask(here, "random", 3))
        import icl_select.service.work.select as module

        def lose(*args: Any, **options: Any) -> Any:
            here.die()
            return select(*args, **options)

        monkeypatch.setattr(module, "select_rows", lose)
        with pytest.raises(Cancelled):
            run(context)
        assert picked(here) == ([], [], None)
        assert here.job(context.job.id).state == "queued"

    def test_done_again_it_is_the_same(self, here: Here) -> None:
        make_texts(here, labelled=3)
        asked = ask(here, "random", 6, seed=11)
        here.do("select", asked)
        first = picked(here)
        here.do("select", asked)
        assert picked(here) == first


class TestReports:
    def report(self, here: Here, kind: str) -> reports.ReportRecord:
        with here.database.read() as connection:
            found = reports.find(connection, pools.find(connection, "p"), kind)
        assert found is not None
        return found

    @pytest.mark.parametrize("pool_is_centred", [True, False])
    @pytest.mark.parametrize("centre", [True, False])
    def test_density_is_the_library_s(self, here: Here, pool_is_centred: bool, centre: bool) -> None:
        make_texts(here, centre=pool_is_centred)
        job = here.do("density", {"centre": centre, "seed": 0})
        found = self.report(here, "density")
        record = found.content["record"]
        shown = Density.from_dict(record["panels"]["hash(dim=16)"]["p"])
        expected = density(embed(TEXTS, "hash(dim=16)", centre=centre, cache=False, progress=False), seed=0)
        assert shown.n == len(TEXTS)
        assert shown.mean == pytest.approx(expected.mean, abs=1e-6)
        assert record["centred"] is centre
        assert found.job_id == job.id
        assert found.made_from == {"pool": 1, "n_items": len(TEXTS), "embedding": here.embedding().id}
        assert base64.b64decode(found.content["png"]).startswith(b"\x89PNG")
        assert found.content["html"].startswith("<!DOCTYPE html>")

    def test_the_newest_report_stays(self, here: Here) -> None:
        make_texts(here)
        here.do("density", {"centre": False, "seed": 0})
        here.do("density", {"centre": True, "seed": 0})
        assert self.report(here, "density").content["record"]["centred"] is True

    def test_evaluation_is_the_library_s(self, here: Here) -> None:
        make_texts(here, labelled=30)
        say(here.database, 40, "lose")
        job = here.do("evaluate", {"ks": [1, 3], "seed": 5})
        found = self.report(here, "evaluation")
        rows_ = [*range(30), 40]
        labels = [*(TEXTS[i].split()[0] for i in range(30)), "lose"]
        expected = leave_one_out(vectors(here)[rows_], labels, [f"t{i}" for i in rows_], ks=[1, 3], seed=5)
        shown = LeaveOneOut.from_dict(found.content)
        assert shown.n == 31
        assert [vote.accuracy for vote in shown.votes] == [vote.accuracy for vote in expected.votes]
        assert found.content["summary"] == shown.summary()
        assert job.result == {"summary": shown.summary()}
        assert found.made_from == {
            "pool": 1,
            "labels": 2,
            "embedding": here.embedding().id,
            "n_labelled": 31,
            "without_direction": 0,
        }

    def test_labelled_items_without_a_direction_are_left_out(self, here: Here) -> None:
        """Half of the items say one thing and half another, and one lies in the middle: at the mean."""
        encoder = BatchyEncoder()
        places = {"left": [1.0, 0.0, 0.0], "right": [-1.0, 0.0, 0.0], "middle": [0.0, 0.0, 0.0]}
        encoder.encode = lambda texts, progress=False: type(  # type: ignore[method-assign]
            "Found",
            (),
            {"vectors": np.array([places[t.split()[0]] for t in texts], dtype=np.float32)}
            | {"truncated": np.zeros(len(texts), dtype=bool)},
        )()
        here.use(encoder)
        make_pool(here.database, 0, **CONFIG)
        words = ["left"] * 4 + ["right"] * 4 + ["middle"]
        upload(here.database, "p", [[row(f"t{i}", word, f"{word} {i}") for i, word in enumerate(words)]])
        here.do("evaluate", {"ks": [1], "seed": 0})
        assert self.report(here, "evaluation").made_from["without_direction"] == 1

    def test_labels_of_one_item_cannot_be_evaluated(self, here: Here) -> None:
        make_texts(here, labelled=1)
        with pytest.raises(LabelError, match="at least two labelled rows"):
            here.do("evaluate", {"ks": [1], "seed": 0})

    def test_labels_that_come_with_new_items_wait_for_the_next_report(
        self, here: Here, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        make_texts(here, labelled=9)
        import icl_select.service.work.evaluate as module

        real = module.ensure_embedded

        def late(context: Context) -> Any:
            found = real(context)
            upload(here.database, "p", [[row("new", "open", "open the z 1")]])
            return found

        monkeypatch.setattr(module, "ensure_embedded", late)
        here.do("evaluate", {"ks": [1], "seed": 0})
        assert self.report(here, "evaluation").made_from["n_labelled"] == 9


@contextmanager
def working(here: Here, work: Callable[[Context], None]) -> Iterator[Worker]:
    """A worker in a thread of this process."""
    worker = Worker(here.settings, "thread/", work)
    thread = threading.Thread(target=worker.run, daemon=True)
    thread.start()
    try:
        yield worker
    finally:
        worker.stop()
        thread.join(60)
        assert not thread.is_alive()


def ended(here: Here, job: JobRecord) -> JobRecord:
    """The job, once it has ended."""
    until(lambda: here.job(job.id).state in jobs.FINAL)
    return here.job(job.id)


class TestEnds:
    def test_a_foreseen_error_is_told_as_a_problem(self, here: Here) -> None:
        make_pool(here.database, 3, **CONFIG)

        def fail(context: Context) -> None:
            raise ModelError("the model x cannot be loaded. Install it.")

        with working(here, fail):
            job = ended(here, here.enqueue("embed"))
        assert (job.state, job.message) == ("failed", "the model x cannot be loaded. Install it.")
        assert job.error == {
            "type": "urn:icl-select:error:model",
            "title": "The model cannot be used",
            "status": 503,
            "detail": job.message,
        }

    def test_an_unforeseen_error_keeps_its_text_for_the_log(self, here: Here, caplog: pytest.LogCaptureFixture) -> None:
        make_pool(here.database, 3, **CONFIG)

        def fail(context: Context) -> None:
            raise ValueError("secret path /home/x")

        with working(here, fail):
            job = ended(here, here.enqueue("embed"))
        assert job.state == "failed"
        assert job.error is not None
        assert job.error["status"] == 500
        assert "secret" not in str(job)
        assert job.id in job.message

    def test_too_little_memory_is_told(self, here: Here) -> None:
        make_pool(here.database, 3, **CONFIG)

        def fail(context: Context) -> None:
            raise MemoryError("Unable to allocate 9 TiB")

        with working(here, fail):
            job = ended(here, here.enqueue("embed"))
        assert job.error is not None
        assert (job.error["status"], job.state) == (507, "failed")
        assert "Unable to allocate 9 TiB" in job.message

    def test_one_failure_does_not_end_the_worker(self, here: Here) -> None:
        make_pool(here.database, 3, **CONFIG)
        failing = here.enqueue("evaluate", {"ks": [1], "seed": 0})
        with working(here, run):
            assert ended(here, failing).state == "failed"
            assert ended(here, here.enqueue("embed")).state == "done"

    def test_a_store_that_is_out_of_reach_for_a_while_is_no_failure(self, here: Here) -> None:
        make_pool(here.database, 3, **CONFIG)
        tries: list[int] = []

        def work(context: Context) -> None:
            tries.append(context.job.attempts)
            if len(tries) == 1:
                raise UnavailableError("the database closed the connection.")
            run(context)

        with working(here, work):
            job = ended(here, here.enqueue("embed"))
        assert job.state == "done"
        assert tries == [1, 1]

    def test_a_cancelled_job_ends_at_its_next_word(self, here: Here) -> None:
        make_pool(here.database, 3, **CONFIG)
        begun = threading.Event()

        def work(context: Context) -> None:
            while True:
                context.progress(1, 10, "items", "working")
                begun.set()

        with working(here, work):
            job = here.enqueue("embed")
            assert begun.wait(60)
            with here.database.write() as connection:
                jobs.cancel(connection, job.id)
            job = ended(here, job)
        assert (job.state, job.message, job.done, job.total) == ("cancelled", "cancelled", 1, 10)

    def test_progress_is_told_while_the_work_goes_on(self, here: Here) -> None:
        make_pool(here.database, 3, **CONFIG)
        seen = threading.Event()

        def work(context: Context) -> None:
            context.progress(4, 9, "items", "working")
            assert seen.wait(60)
            with context.finish("done so", {"a": 1}):
                pass

        with working(here, work):
            job = here.enqueue("embed")
            until(lambda: here.job(job.id).done == 4)
            now = here.job(job.id)
            assert (now.state, now.total, now.unit, now.message) == ("running", 9, "items", "working")
            seen.set()
            job = ended(here, job)
        assert (job.state, job.message, job.result) == ("done", "done so", {"a": 1})

    def test_a_worker_that_is_stopped_gives_its_job_back(self, here: Here) -> None:
        make_pool(here.database, 3, **CONFIG)
        begun, over = threading.Event(), threading.Event()

        def work(context: Context) -> None:
            begun.set()
            over.wait(60)
            context.progress(1, 1, "items", "working")

        with working(here, work):
            job = here.enqueue("embed")
            assert begun.wait(60)
        over.set()
        found = here.job(job.id)
        assert (found.state, found.attempts, found.owner) == ("queued", 0, None)

    def test_what_finish_writes_and_the_end_come_together(self, here: Here) -> None:
        make_pool(here.database, 3, **CONFIG)
        context = here.begin("embed")

        def fail() -> None:
            with context.finish("done", {}) as (connection, pool):
                reports.keep(connection, pool, "density", "job", {}, {})
                raise RuntimeError("full")

        with pytest.raises(RuntimeError, match="full"):
            fail()
        assert here.job(context.job.id).state == "running"
        with here.database.read() as connection:
            assert reports.find(connection, here.pool(), "density") is None

    def test_the_last_word_of_progress_is_kept_although_a_beat_is_on_its_way(
        self, here: Here, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        make_pool(here.database, 3, **CONFIG)
        context = here.begin("embed")
        context.progress(9, 9, "items", "working")
        with monkeypatch.context() as patch:
            # The other thread has taken what is new, and waits for the lock of writers.
            patch.setattr(jobs, "beat", lambda *arguments, **progress: True)
            assert context.beat()
        with context.finish("done", {}):
            pass
        assert here.job(context.job.id).done == 9

    def test_news_that_could_not_be_told_are_told_later(self, here: Here, monkeypatch: pytest.MonkeyPatch) -> None:
        make_pool(here.database, 3, **CONFIG)
        here.begin("embed")
        here.die()
        context = here.claim()
        assert context is not None
        context.progress(3, 9, "items", "working", safe=True)

        def broken(self: Database) -> Any:
            raise UnavailableError("not now")

        with monkeypatch.context() as patch:
            patch.setattr(Database, "write", broken)
            with pytest.raises(UnavailableError):
                context.beat()
        context.progress(4, 9, "items", "working")
        assert context.beat()
        told = here.job(context.job.id)
        assert (told.done, told.attempts) == (4, 1)
        assert not context.has_news

    def test_a_job_is_found_lost_or_cancelled_without_a_word_from_it(self, here: Here) -> None:
        make_pool(here.database, 3, **CONFIG)
        context = here.begin("embed")
        assert context.is_wanted()
        with here.database.write() as connection:
            jobs.cancel(connection, context.job.id)
        assert not context.is_wanted()
        assert not context.beat()
        here.die()
        assert not context.is_wanted()

    def test_jobs_that_wait_and_run_are_counted(self, here: Here) -> None:
        make_pool(here.database, 3, **CONFIG)
        here.begin("embed")
        for _ in range(2):
            here.enqueue("density", {})
        with here.database.read() as connection:
            assert jobs.counts(connection) == {"queued": 2, "running": 1}
            assert connection.execute(sa.text("SELECT count(*) FROM jobs")).scalar_one() == 3

    def test_new_items_come_in_while_a_job_holds_the_pool(self, here: Here) -> None:
        make_pool(here.database, 3, **CONFIG)
        context = here.begin("density", {"centre": False, "seed": 0})
        upload(here.database, "p", [rows(3, 3)])
        run(context)
        assert here.embedding().n_items == 6
