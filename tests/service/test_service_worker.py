"""Worker processes as they are: killed, stopped, frozen and orphaned; no job is lost, hangs, or is done twice."""

from __future__ import annotations

import itertools
import json
import os
import random
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from store_cases import make_pool, row, upload
from work_cases import CONFIG, Here

from icl_select._threads import threads
from icl_select.service.store import jobs, pools, selections
from icl_select.service.store.jobs import JobRecord
from icl_select.service.supervisor import ONE_THREAD, Supervisor
from icl_select.service.vectors import BLOCK_ROWS

# In one call of compiled code, which no word from outside can interrupt, for longer than any test.
ENDLESS = "ideal(k=3, rounds=1000000000, variant='official')"
PATIENCE = 120.0

# What a worker does to its job is the same on both databases where the store's own tests hold.
on_one_database = pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)


def until(condition: Callable[[], bool]) -> None:
    """Wait for a condition."""
    end = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < end, "what was waited for did not happen"
        time.sleep(0.02)


@contextmanager
def supervised(here: Here, workers: int = 1) -> Iterator[Supervisor]:
    """Workers as a server has them."""
    settings = here.settings.model_copy(update={"workers": workers})
    supervisor = Supervisor(settings, here.database, "server")
    supervisor.start()
    try:
        yield supervisor
    finally:
        supervisor.stop()


def start_worker(here: Here, owner: str = "alone/") -> subprocess.Popen[bytes]:
    """One worker without a supervisor."""
    process = subprocess.Popen([sys.executable, "-m", "icl_select.service.worker"], stdin=subprocess.PIPE)
    assert process.stdin is not None
    given = {"owner": owner, "settings": here.settings.model_dump(mode="json")}
    process.stdin.write(json.dumps(given).encode() + b"\n")
    process.stdin.flush()
    return process


def end(process: subprocess.Popen[bytes]) -> None:
    process.kill()
    process.wait()
    assert process.stdin is not None
    process.stdin.close()


def alive(pid: int) -> bool:
    """Whether a process runs; one that has ended and is not yet waited for does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def large_pool(here: Here, blocks: int) -> None:
    """Blocks that take about a second each."""
    draw = random.Random(0)
    words = [f"word{i}" for i in range(2000)]
    texts = [f"{i} {' '.join(draw.choices(words, k=80))}" for i in range(blocks * BLOCK_ROWS)]
    make_pool(here.database, 0, **CONFIG)
    upload(here.database, "p", [[row(f"i{i}", None, text) for i, text in enumerate(texts)]])


def ask_endless(here: Here) -> JobRecord:
    """A selection that never ends by itself."""
    make_pool(here.database, 60, **CONFIG)
    with here.database.write() as connection:
        selections.create(connection, pools.lock(connection, "p"), "sel_1", "job_1", ENDLESS, 3, 0)
    return here.enqueue(
        "select", {"selection": "sel_1", "method": ENDLESS, "budget": 3, "seed": 0, "ignore_labels": False}
    )


def is_selecting(here: Here, job: JobRecord) -> bool:
    found = here.job(job.id)
    return found.state == "running" and found.message.startswith("selecting")


def ended(here: Here, job: JobRecord) -> JobRecord:
    until(lambda: here.job(job.id).state in jobs.FINAL)
    return here.job(job.id)


class TestKilled:
    def test_another_goes_on_and_encodes_no_block_twice(self, here: Here) -> None:
        large_pool(here, 5)
        job = here.enqueue("embed")
        with supervised(here) as supervisor:
            until(lambda: here.job(job.id).done >= 2 * BLOCK_ROWS)
            (pid,) = supervisor.processes
            os.kill(pid, signal.SIGKILL)
            until(lambda: not alive(pid))
            kept = {name: (path.stat().st_ino, path.stat().st_mtime_ns) for name, path in here.files().items()}
            assert here.job(job.id).state in ("running", "queued")
            done = ended(here, job)
        assert done.state == "done"
        assert 2 <= len(kept) < 5
        now = {name: (path.stat().st_ino, path.stat().st_mtime_ns) for name, path in here.files().items()}
        assert len(now) == 5
        assert {name: now[name] for name in kept} == kept
        embedding = here.embedding()
        assert embedding.n_items == 5 * BLOCK_ROWS
        assert here.vectors.matrix(embedding).any(axis=1).all()

    @on_one_database
    def test_its_job_goes_back_at_once(self, here: Here) -> None:
        job = ask_endless(here)
        with supervised(here) as supervisor:
            until(lambda: is_selecting(here, job))
            (pid,) = supervisor.processes
            os.kill(pid, signal.SIGKILL)
            # Long before its lease ends: whoever starts a process sees it die.
            begun = time.monotonic()
            until(lambda: here.job(job.id).attempts == 2)
            assert time.monotonic() - begun < jobs.LEASE_SECONDS
            assert supervisor.alive()

    @on_one_database
    def test_a_job_whose_process_dies_three_times_fails_and_says_so(self, here: Here) -> None:
        job = ask_endless(here)
        with supervised(here) as supervisor:
            for attempt in range(1, jobs.ATTEMPTS + 1):
                until(lambda attempt=attempt: here.job(job.id).attempts == attempt and is_selecting(here, job))
                (pid,) = supervisor.processes
                os.kill(pid, signal.SIGKILL)
            failed = ended(here, job)
        assert failed.state == "failed"
        assert "ended 3 times" in failed.message
        assert failed.error is not None

    @on_one_database
    def test_the_other_workers_go_on(self, here: Here) -> None:
        job = ask_endless(here)
        make_pool(here.database, 5, "other", **CONFIG)
        with supervised(here, workers=2) as supervisor:
            until(lambda: is_selecting(here, job))
            until(lambda: len(supervisor.processes) == 2)
            assert ended(here, here.enqueue("embed", pool="other")).state == "done"

    def test_a_server_that_starts_takes_up_what_its_predecessor_left(self, here: Here) -> None:
        make_pool(here.database, 5, **CONFIG)
        job = here.begin("embed").job
        if not here.database.is_sqlite:  # others may live on the same database, so they get time
            with here.database.write() as connection:
                connection.exec_driver_sql("UPDATE jobs SET beat_at = '2020-01-01T00:00:00.000000Z'")
        with supervised(here, workers=0):
            assert here.job(job.id).state == "queued"
        with supervised(here):
            assert ended(here, job).state == "done"

    def test_a_live_job_of_another_server_is_left_alone(self, here: Here) -> None:
        if here.database.is_sqlite:
            pytest.skip("SQLite has one server")
        make_pool(here.database, 5, **CONFIG)
        context = here.begin("embed")
        with supervised(here, workers=0):
            assert context.beat()
        assert here.job(context.job.id).state == "running"


class TestStopped:
    def test_the_job_goes_back_and_the_process_ends(self, here: Here) -> None:
        job = ask_endless(here)
        process = start_worker(here)
        try:
            until(lambda: is_selecting(here, job))
            begun = time.monotonic()
            process.send_signal(signal.SIGTERM)
            assert process.wait(PATIENCE) == 0
            assert time.monotonic() - begun < 10
        finally:
            end(process)
        found = here.job(job.id)
        assert (found.state, found.attempts, found.owner) == ("queued", 0, None)

    @on_one_database
    def test_a_terminal_s_interrupt_is_the_server_s_to_handle(self, here: Here) -> None:
        make_pool(here.database, 5, **CONFIG)
        process = start_worker(here)
        try:
            assert ended(here, here.enqueue("embed")).state == "done"
            process.send_signal(signal.SIGINT)
            assert ended(here, here.enqueue("embed")).state == "done"
        finally:
            end(process)

    @on_one_database
    def test_a_supervisor_leaves_no_process_and_no_running_job(self, here: Here) -> None:
        job = ask_endless(here)
        with supervised(here, workers=2) as supervisor:
            until(lambda: is_selecting(here, job))
            pids = supervisor.processes
            assert len(pids) == 2
        assert not any(alive(pid) for pid in pids)
        found = here.job(job.id)
        assert (found.state, found.attempts) == ("queued", 0)

    @on_one_database
    def test_a_worker_that_does_not_listen_is_killed_and_its_job_given_back(self, here: Here) -> None:
        job = ask_endless(here)
        here.settings = here.settings.model_copy(update={"shutdown_seconds": 0.5})
        with supervised(here) as supervisor:
            until(lambda: is_selecting(here, job))
            (pid,) = supervisor.processes
            os.kill(pid, signal.SIGSTOP)
        assert not alive(pid)
        found = here.job(job.id)
        assert (found.state, found.attempts) == ("queued", 0)

    @on_one_database
    def test_a_worker_ends_with_its_server_however_that_ends(self, here: Here) -> None:
        job = ask_endless(here)
        program = textwrap.dedent(
            """
            import json, sys, time
            from icl_select.service.logs import set_up
            from icl_select.service.settings import Settings
            from icl_select.service.store.database import Database
            from icl_select.service.supervisor import Supervisor
            set_up()
            settings = Settings.model_validate(json.loads(sys.stdin.readline()))
            supervisor = Supervisor(settings, Database(settings.database_url), "doomed")
            supervisor.start()
            while not supervisor.processes:
                time.sleep(0.02)
            print(supervisor.processes[0], flush=True)
            time.sleep(600)
            """
        )
        server = subprocess.Popen([sys.executable, "-c", program], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        try:
            assert server.stdin is not None
            assert server.stdout is not None
            server.stdin.write(here.settings.model_dump_json().encode() + b"\n")
            server.stdin.flush()
            pid = int(server.stdout.readline())
            until(lambda: is_selecting(here, job))
            assert alive(pid)
            server.kill()
            until(lambda: not alive(pid))
        finally:
            end(server)
        assert here.job(job.id).state == "running"
        if here.database.is_sqlite:
            with supervised(here, workers=0):
                assert here.job(job.id).state == "queued"


class TestCancelled:
    def test_compiled_code_is_ended_with_its_process(self, here: Here) -> None:
        job = ask_endless(here)
        with supervised(here) as supervisor:
            until(lambda: is_selecting(here, job))
            with here.database.write() as connection:
                jobs.cancel(connection, job.id)
            begun = time.monotonic()
            assert ended(here, job).state == "cancelled"
            assert time.monotonic() - begun < 15
            # The place of the worker is filled again, and the pool is free.
            assert ended(here, here.enqueue("embed")).state == "done"
            assert supervisor.alive()

    @on_one_database
    def test_a_worker_ends_itself_to_be_rid_of_a_job(self, here: Here) -> None:
        job = ask_endless(here)
        process = start_worker(here)
        try:
            until(lambda: is_selecting(here, job))
            with here.database.write() as connection:
                jobs.cancel(connection, job.id)
            assert process.wait(PATIENCE) == 0
        finally:
            end(process)
        assert here.job(job.id).state == "cancelled"

    @on_one_database
    def test_deleting_the_pool_ends_the_job(self, here: Here) -> None:
        job = ask_endless(here)
        with supervised(here):
            until(lambda: is_selecting(here, job))
            with here.database.write() as connection:
                uid = pools.delete(connection, "p").uid
            assert ended(here, job).state == "cancelled"
            here.vectors.remove_pool(uid)
        assert here.files() == {}

    @on_one_database
    def test_a_frozen_worker_is_killed(self, here: Here) -> None:
        """It neither beats nor looks, so it cannot end itself."""
        job = ask_endless(here)
        with supervised(here) as supervisor:
            until(lambda: is_selecting(here, job))
            (pid,) = supervisor.processes
            os.kill(pid, signal.SIGSTOP)
            with here.database.write() as connection:
                jobs.cancel(connection, job.id)
            assert ended(here, job).state == "cancelled"
            until(lambda: not alive(pid))

    def test_a_worker_that_does_not_beat_loses_its_job_and_its_life(
        self, here: Here, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(jobs, "LEASE_SECONDS", 6.0)
        job = ask_endless(here)
        with supervised(here) as supervisor:
            until(lambda: is_selecting(here, job))
            (pid,) = supervisor.processes
            os.kill(pid, signal.SIGSTOP)
            until(lambda: here.job(job.id).attempts == 2)
            until(lambda: not alive(pid))


class TestProcess:
    @on_one_database
    def test_it_shows_no_secret_and_takes_one_core_behind_others(self, here: Here) -> None:
        settings = here.settings.model_copy(update={"upstream_key": "sk-very-secret"})
        here.settings = settings
        with supervised(here) as supervisor:
            until(lambda: len(supervisor.processes) == 1)
            (pid,) = supervisor.processes
            until(lambda: os.getpriority(os.PRIO_PROCESS, pid) == os.getpriority(os.PRIO_PROCESS, 0) + 10)
            shown = Path(f"/proc/{pid}/cmdline").read_bytes() + Path(f"/proc/{pid}/environ").read_bytes()
        assert b"icl_select.service.worker" in shown
        assert b"OMP_NUM_THREADS=1" in shown
        assert b"sk-very-secret" not in shown

    def test_waiting_needs_no_heavy_library(self) -> None:
        program = "import sys, icl_select.service.worker; print([m for m in sys.argv[1:] if m in sys.modules])"
        heavy = ["torch", "transformers", "numba", "scipy", "matplotlib", "fastapi", "onnxruntime", "pyarrow"]
        found = subprocess.run([sys.executable, "-c", program, *heavy], capture_output=True, text=True, check=True)
        assert found.stdout.strip() == "[]"

    @on_one_database
    def test_files_of_a_pool_that_is_gone_are_removed_at_the_start(self, here: Here) -> None:
        make_pool(here.database, 5, **CONFIG)
        here.do("embed")
        orphan = here.settings.data_dir / "pools" / "999" / "old"
        orphan.mkdir(parents=True)
        (orphan / "left.npy").touch()
        with supervised(here, workers=0):
            until(lambda: not orphan.parent.exists())
        assert len(here.files()) == 1

    @on_one_database
    def test_a_worker_that_cannot_start_is_not_started_all_the_time(
        self, here: Here, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(sys, "executable", "/bin/false")
        started: list[float] = []
        real = subprocess.Popen

        def popen(*args: object, **options: object) -> object:
            started.append(time.monotonic())
            return real(*args, **options)  # type: ignore[call-overload]

        monkeypatch.setattr(subprocess, "Popen", popen)
        with supervised(here) as supervisor:
            until(lambda: len(started) >= 4)
            assert not supervisor.alive()
        waits = [later - earlier for earlier, later in itertools.pairwise(started)]
        assert waits == sorted(waits)
        assert waits[-1] >= 1.9


def test_a_worker_takes_one_core_whatever_the_server_is_allowed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ICS_THREADS", "8")
    monkeypatch.setenv("OMP_NUM_THREADS", "8")
    for name, value in ONE_THREAD.items():
        monkeypatch.setenv(name, value)
    assert threads() == 1
