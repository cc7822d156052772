"""``icl-select select --keep``: a pool that grows, run by run, with the picks of a run that keeps nothing."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from icl_select.cli import run

WORDS = ["invoice", "refund", "login", "password", "parcel", "delivery", "crash", "update", "battery", "screen"]
TEXTS = [f"my {a} and the {b} do not work {i}" for i, (a, b) in enumerate((a, b) for a in WORDS for b in WORDS)]


def write(path: Path, n: int, labels: set[str] = frozenset()) -> str:  # type: ignore[assignment]
    rows = [{"id": f"t{i}", "text": TEXTS[i], "label": "a" if f"t{i}" in labels else None} for i in range(n)]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return str(path)


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("ICS_CACHE_DIR", str(tmp_path / "cache"))
    return tmp_path


def select(capsys: pytest.CaptureFixture[str], *argv: str) -> tuple[dict[str, Any], str]:
    assert run(["select", *argv, "-b", "6", "--encoder", "hash", "--json"]) == 0
    found = capsys.readouterr()
    return json.loads(found.out), found.err


def test_runs_on_a_growing_pool_equal_runs_that_keep_nothing(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Without centring, so that both see the same rows."""
    pool, kept = here / "pool.jsonl", here / "kept.npz"
    done: set[str] = set()
    for n in (60, 80, 80, 100):
        path = write(pool, n, done)
        plain, _ = select(capsys, path, "--no-centre", "--exactness", "exact")
        record, remarks = select(capsys, path, "--no-centre", "--exactness", "exact", "--keep", str(kept))
        assert "anew" not in remarks
        assert record == plain
        done |= set(record["ids"][:4])


def test_the_first_mean_stays_the_origin(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pool, kept = here / "pool.jsonl", here / "kept.npz"
    first, _ = select(capsys, write(pool, 60), "--keep", str(kept))
    plain, _ = select(capsys, str(pool))
    assert first == plain
    second, remarks = select(capsys, write(pool, 90, {"t3"}), "--keep", str(kept))
    assert second["embeddings"]["centred"] is True
    assert "anew" not in remarks
    assert second["given"] == ["t3"]


def test_what_does_not_fit_is_told_and_made_anew(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pool, kept = here / "pool.jsonl", here / "kept.npz"
    select(capsys, write(pool, 60, {"t1", "t2"}), "--keep", str(kept))
    cases = [
        (["--ignore-labels"], "2 rows that were labelled"),
        (["-m", "max_herding(kernel='laplace')"], "kernel='gaussian'"),
        (["-m", "max_herding(kernel='laplace')", "--no-centre"], "with --centre"),
    ]
    for options, told in cases:
        plain, _ = select(capsys, str(pool), *options)
        record, remarks = select(capsys, str(pool), "--keep", str(kept), *options)
        assert told in remarks
        assert "Selecting anew" in remarks
        assert record == plain
    plain, _ = select(capsys, write(pool, 50), "--no-centre", "-m", "max_herding(kernel='laplace')")
    record, remarks = select(
        capsys, str(pool), "--no-centre", "-m", "max_herding(kernel='laplace')", "--keep", str(kept)
    )
    assert "there are 50" in remarks
    assert record == plain


def test_a_foreign_file_is_left_alone(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = write(here / "pool.jsonl", 20)
    before = Path(path).read_bytes()
    assert run(["select", path, "-b", "2", "--encoder", "hash", "--keep", path]) == 1
    assert "as a kept selection" in capsys.readouterr().err
    assert Path(path).read_bytes() == before


@pytest.mark.parametrize(
    "options",
    [
        ["-m", "random"],
        ["-m", "max_herding(variant='official')"],
        ["--exactness", "near"],
        ["--engine", "ray"],
    ],
)
def test_what_keeps_nothing_is_refused(here: Path, capsys: pytest.CaptureFixture[str], options: list[str]) -> None:
    path = write(here / "pool.jsonl", 20)
    assert run(["select", path, "-b", "2", "--keep", str(here / "kept.npz"), *options]) == 2
    assert "--keep" in capsys.readouterr().err
    assert not (here / "kept.npz").exists()


def test_a_file_that_cannot_be_written_takes_no_picks_with_it(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    plain, _ = select(capsys, write(here / "pool.jsonl", 60))
    (here / "blocked").write_text("", encoding="utf-8")
    kept = here / "blocked" / "kept.npz"
    assert run(["select", str(here / "pool.jsonl"), "-b", "6", "--encoder", "hash", "--json", "--keep", str(kept)]) != 0
    found = capsys.readouterr()
    assert json.loads(found.out) == plain
    assert "a file of that name is in the way" in found.err
