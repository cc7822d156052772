"""Selection and embedding on a Ray of this machine: the bytes of one process, also where workers are killed."""

from __future__ import annotations

import functools
import json
import os
import pickle
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from reference.pools import clustered

import icl_select
from icl_select.cli import run as run_cli
from icl_select.distributed import RayEngine, check_method
from icl_select.distributed._encoding import _unloaded
from icl_select.distributed._tasks import run_on_ray
from icl_select.embedding import Encoded, HashEncoder
from icl_select.errors import (
    BudgetError,
    DataError,
    EmbeddingError,
    GivenError,
    IclSelectError,
    ParameterError,
    UnknownNameError,
)
from icl_select.kernels import Kernel
from icl_select.methods._near_exact import NearCover, Plan, near_exact

NEAR = "max_herding(exactness='near', kernel='laplace')"
# A few hundred rows fill several parts, jobs and groups.
SMALL = Plan(part_rows=100, parts=100, candidates=160, covered=500, steps=2, members=40, judged=300, heldout=400)
TEXTS = [
    f"text {number} about {['cats', 'dogs', 'birds'][number % 3]} {'very ' * (number % 7)}" for number in range(90)
]


@pytest.fixture(scope="module")
def ray() -> Iterator[Any]:
    """A Ray of two CPUs, reached over loopback, which ends with the tests of this file."""
    module = pytest.importorskip("ray", reason="Ray is not installed: pip install 'icl-select[ray]'")
    module.init(
        address="local",
        num_cpus=2,
        include_dashboard=False,
        object_store_memory=200 * 2**20,
        _node_ip_address="127.0.0.1",
        log_to_driver=False,
        logging_level="ERROR",
    )
    try:
        assert module.util.get_node_ip_address() == "127.0.0.1"
        yield module
    finally:
        module.shutdown()


def same(a: Any, b: Any) -> bool:
    return a.indices.tobytes() == b.indices.tobytes() and a.gains.tobytes() == b.gains.tobytes()


def small(x: np.ndarray, given: np.ndarray, run: Any = None) -> NearCover:
    rng = np.random.default_rng(5)
    return near_exact(x, 30, kernel=Kernel("gaussian"), given=given, rng=rng, plan=SMALL, run=run)


@pytest.mark.ray
@pytest.mark.parametrize("workers", [1, 2])
def test_any_number_of_workers_gives_the_bytes_of_one_process(ray: Any, tmp_path: Path, workers: int) -> None:
    """5,500 rows are two parts; rows of float64 and of every norm go another way than float32."""
    x = clustered(5_500, 8)
    np.save(tmp_path / "x.npy", x)
    given = [3, 77, 5_000]
    here = icl_select.select(NEAR, x, 20, given=given, seed=7)
    told: list[tuple[str, int, int]] = []
    with RayEngine(workers=workers) as engine:
        for rows in (x, str(tmp_path / "x.npy")):
            there = engine.select(NEAR, rows, 20, given=given, seed=7, progress=lambda *step: told.append(step))
            assert same(here, there)
            assert there.info == {**here.info, "engine": "ray"}
            assert (there.method, there.seed, there.nested) == (here.method, here.seed, here.nested)
        longer = x.astype(np.float64) * np.linspace(0.5, 3, len(x))[:, None]
        assert same(icl_select.select(NEAR, longer, 20, seed=7), engine.select(NEAR, longer, 20, seed=7))
    assert here.info["parts"] == 2
    assert told[:2] == [("parts", 1, 2), ("parts", 2, 2)]
    assert ray.is_initialized(), "a Ray that was there before stays"


@pytest.mark.ray
def test_a_killed_worker_changes_no_pick(ray: Any, tmp_path: Path) -> None:
    """One job of every kind of step kills its own process the first time that it is done."""
    x, given = clustered(900, 16), np.array([4, 9])

    def dies_once(x: np.ndarray, job: Any, step: Any, mark: Path) -> Any:
        try:
            mark.touch(exist_ok=False)
        except FileExistsError:
            return step(x, job)
        return os.kill(os.getpid(), signal.SIGKILL)

    kinds: list[str] = []

    def killing(step: Any, jobs: Any) -> Any:
        name = step.func.__name__
        if name in kinds:
            return plain(step, jobs)
        kinds.append(name)
        return plain(functools.partial(dies_once, step=step, mark=tmp_path / name), jobs)

    plain = run_on_ray(ray, ray.put(x), lambda: 2)
    assert same(small(x, given), small(x, given, killing))
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(kinds)
    assert len(kinds) == 4


@pytest.mark.ray
def test_results_come_in_order_and_few_jobs_are_under_way(ray: Any, tmp_path: Path) -> None:
    def record(x: np.ndarray, job: int) -> int:
        time.sleep(0.3 if job == 0 else 0.02)  # the first is the last of the first three
        (tmp_path / f"{job}").touch()
        return job + int(x.sum())

    def jobs() -> Iterator[int]:
        for job in range(12):
            assert len(list(tmp_path.iterdir())) >= job - 3
            yield job

    assert list(run_on_ray(ray, ray.put(np.ones(3)), lambda: 3)(record, jobs())) == [job + 3 for job in range(12)]


@pytest.mark.ray
def test_results_are_given_while_jobs_are_still_asked_for(ray: Any) -> None:
    asked: list[int] = []

    def jobs() -> Iterator[int]:
        for job in range(5):
            asked.append(job)
            yield job

    found = iter(run_on_ray(ray, ray.put(np.ones(3)), lambda: 1)(lambda x, job: job, jobs()))
    assert next(found) == 0
    assert asked == [0, 1]
    assert list(found) == [1, 2, 3, 4]


@pytest.mark.ray
def test_what_fails_in_a_task_is_raised_as_it_is_and_a_lost_task_says_so(ray: Any) -> None:
    def refuses(x: np.ndarray, job: int) -> int:
        from icl_select.errors import EmbeddingError

        raise EmbeddingError(f"job {job} is refused")

    def dies(x: np.ndarray, job: int) -> None:
        os.kill(os.getpid(), signal.SIGKILL)

    run = run_on_ray(ray, ray.put(np.ones(3)), lambda: 1)
    with pytest.raises(EmbeddingError, match=r"^job 4 is refused$"):
        list(run(refuses, [4]))
    with pytest.raises(IclSelectError, match="was lost, and 3 retries did not help"):
        list(run(dies, [0]))


@pytest.mark.ray
def test_embedding_equals_that_of_one_process_and_goes_on_after_a_kill(ray: Any, tmp_path: Path) -> None:
    mark = tmp_path / "killed"

    class DiesOnce(HashEncoder):
        batch_size = 8

        def encode(self, texts: Sequence[str], *, progress: bool = False) -> Encoded:
            if any("text 44 " in text for text in texts) and not mark.exists():
                mark.touch()
                os.kill(os.getpid(), signal.SIGKILL)
            return super().encode(texts)

    here = icl_select.embed(TEXTS, "hash", cache=False, progress=False)
    icl_select.embed(TEXTS[:20], "hash", cache=tmp_path, progress=False)
    with RayEngine(workers=2) as engine:
        there = engine.embed(TEXTS, DiesOnce(), cache=tmp_path, progress=False)
        assert mark.exists()
        assert there.vectors.tobytes() == here.vectors.tobytes()
        assert there.fingerprint == here.fingerprint

    def never(*_: Any) -> Any:
        raise AssertionError("everything is in the cache")

    again = icl_select.embed(TEXTS, "hash", cache=tmp_path, progress=False, run=never)
    assert again.vectors.tobytes() == here.vectors.tobytes()


@pytest.mark.ray
def test_the_command_line_selects_on_ray(ray: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pool = tmp_path / "pool.jsonl"
    pool.write_text("".join(json.dumps({"text": text}) + "\n" for text in TEXTS), encoding="utf-8")
    icl_select.embed(TEXTS, "hash", cache=tmp_path / "cache", progress=False)
    argv = ["select", str(pool), "-b", "5", "--encoder", "hash", "--json", "--exactness", "near"]
    records = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ICS_CACHE_DIR", str(tmp_path / "cache"))
        for more in ([], ["--engine", "ray", "--workers", "1"]):
            assert run_cli([*argv, *more]) == 0
            records.append(json.loads(capsys.readouterr().out))
    here, there = records
    assert there["info"].pop("engine") == "ray"
    assert here == there


@pytest.mark.ray
def test_bad_pools_are_refused(ray: Any, tmp_path: Path) -> None:
    x = clustered(60, 8)
    np.save(tmp_path / "double.npy", x.astype(np.float64))
    x[40] = 0
    np.save(tmp_path / "zero.npy", x)
    (tmp_path / "text.npy").write_text("no array")
    with RayEngine() as engine:
        for rows, error, message in (
            (tmp_path / "missing.npy", DataError, "missing.npy"),
            (tmp_path / "text.npy", DataError, "numpy.save"),
            (tmp_path / "double.npy", EmbeddingError, "float64.*float32"),
            (tmp_path / "zero.npy", EmbeddingError, "row 40 of .*zero.npy is a zero vector"),
            (x, EmbeddingError, "row 40 of x is a zero vector"),
        ):
            with pytest.raises(error, match=message):
                engine.select(NEAR, rows, 5)
        with pytest.raises(BudgetError, match="budget=61"):
            engine.select(NEAR, clustered(60, 8), 61)
        with pytest.raises(GivenError, match="holds 60"):
            engine.select(NEAR, clustered(60, 8), 5, given=[60])


@pytest.mark.ray
def test_a_ray_of_its_own_listens_on_loopback_and_ends_with_the_block() -> None:
    pytest.importorskip("ray", reason="Ray is not installed: pip install 'icl-select[ray]'")
    code = """if True:
        from icl_select.distributed import RayEngine
        with RayEngine(workers=1) as engine:
            import psutil, ray, socket
            family = psutil.Process().children(recursive=True)
            listening = [c.laddr.ip for p in family for c in p.net_connections("tcp") if c.status == "LISTEN"]
            print(ray.cluster_resources()["CPU"], ray.is_initialized(), sorted(set(listening)))
        gone, alive = psutil.wait_procs(family, timeout=30)
        print(ray.is_initialized(), len(gone) > 1, alive)
    """
    env = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env=env)
    first, second = done.stdout.splitlines()
    assert first.startswith("1.0 True ['")
    assert set(re.findall(r"'([^']*)'", first)) <= {"127.0.0.1", "::ffff:127.0.0.1", "::1"}
    assert second == "False True []"


@pytest.mark.parametrize(
    ("method", "error", "message"),
    [
        ("vote_k", ParameterError, "'vote_k' does not run on Ray; 'max_herding' does"),
        ("random", ParameterError, "--engine local"),
        ("max_herding", ParameterError, "picks 10 of 5000 rows exactly.*exactness='near'"),
        ("max_herding(exactness='exact')", ParameterError, "exactly, which runs on one machine"),
        ("max_herding(variant='official')", ParameterError, "variant='paper'"),
        ("max_herding(exactness='nearly')", ParameterError, "Did you mean 'near'"),
        ("max_herding(exactness='near', kernel='gauss')", ParameterError, "gaussian"),
        ("max_hedring", UnknownNameError, "'max_herding'"),
        (max, ParameterError, "pass its name"),
    ],
)
def test_what_does_not_run_on_ray_is_refused_with_what_does(method: Any, error: type, message: str) -> None:
    with pytest.raises(error, match=message):
        check_method(method, 5_000, 10)


class Loaded(HashEncoder):
    """What it loads cannot be pickled."""

    @functools.cached_property
    def model(self) -> Any:
        return threading.Lock()


def test_an_encoder_travels_without_what_it_has_loaded() -> None:
    encoder = Loaded(dim=64)
    model = encoder.model
    sent = pickle.loads(pickle.dumps(_unloaded(encoder)))
    assert (sent.dim, sent.fingerprint) == (64, encoder.fingerprint)
    assert sent.model is not model
    assert encoder.model is model, "the one that stays keeps it"


def test_the_cluster_of_the_documentation_is_one_that_ray_can_launch() -> None:
    ray = pytest.importorskip("ray", reason="Ray is not installed: pip install 'icl-select[ray]'")
    jsonschema = pytest.importorskip("jsonschema")
    schema = json.loads((Path(ray.__file__).parent / "autoscaler" / "ray-schema.json").read_text(encoding="utf-8"))
    page = (Path(__file__).resolve().parents[2] / "docs" / "ray.md").read_text(encoding="utf-8")
    [block] = re.findall(r"```yaml\n(.*?)```", page, re.DOTALL)
    jsonschema.validate(yaml.safe_load(block), schema)


def test_near_exact_herding_runs_on_ray() -> None:
    spec, kernel = check_method("max_herding(bandwidth=0.8)", 100_001, 10)
    assert (str(spec), kernel.name, kernel.bandwidth) == ("max_herding(bandwidth=0.8)", "gaussian", 0.8)
    assert check_method("max_herding(exactness='near')", 5, 2)[1].bandwidth == 1.0


def test_an_engine_wants_its_block_and_some_workers() -> None:
    with pytest.raises(IclSelectError, match="with RayEngine"):
        RayEngine().select(NEAR, clustered(60, 8), 5)
    with pytest.raises(ParameterError, match="workers=0"):
        RayEngine(workers=0)


def test_an_address_where_nothing_listens_is_told_at_once() -> None:
    pytest.importorskip("ray", reason="Ray is not installed: pip install 'icl-select[ray]'")
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # bound, and nobody listens
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        with pytest.raises(ParameterError, match=f"no Ray cluster can be used at '{address}'.*ray start --head"):
            RayEngine(address).__enter__()


@pytest.mark.parametrize("options", [["--workers", "2"], ["--ray-address", "auto"]])
def test_options_of_ray_want_the_engine(options: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert run_cli(["select", "pool.jsonl", "-b", "2", *options]) == 2
    assert "--engine ray" in capsys.readouterr().err
