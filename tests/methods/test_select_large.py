"""What `select` does for large pools: no copy where none is needed, and word of how far the work is."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from reference.pools import clustered

from icl_select import _progress, select
from icl_select.errors import EmbeddingError
from icl_select.kernels import Kernel
from icl_select.methods._greedy import facility_location
from icl_select.registry import any_norm
from icl_select.types import Selection


def first_rows(seen: list[np.ndarray]) -> object:
    """A method that shows what it was handed."""

    @any_norm
    def method(x: np.ndarray, budget: int, *, given: np.ndarray, rng: np.random.Generator) -> Selection:
        seen.append(x)
        return Selection(np.arange(budget), np.zeros(budget))

    return method


def test_a_method_that_reads_directions_gets_the_rows_as_they_are(tmp_path: Path) -> None:
    np.save(tmp_path / "x.npy", 7 * clustered(50, 4, seed=1).astype(np.float32))
    stored = np.load(tmp_path / "x.npy", mmap_mode="r")
    seen: list[np.ndarray] = []
    select(first_rows(seen), stored, 3)  # type: ignore[arg-type]
    assert np.shares_memory(seen[0], stored)
    assert not seen[0].flags.writeable
    own = np.array(stored)
    select(first_rows(seen), own, 3)  # type: ignore[arg-type]
    assert np.shares_memory(seen[1], own)
    assert not seen[1].flags.writeable
    assert own.flags.writeable


def test_float64_rows_are_brought_to_unit_norm_first() -> None:
    seen: list[np.ndarray] = []
    select(first_rows(seen), clustered(20, 4, seed=1).astype(np.float64) * 1e200, 3)  # type: ignore[arg-type]
    np.testing.assert_allclose(np.linalg.norm(seen[0], axis=1), 1.0, rtol=1e-12)


def test_a_zero_row_is_refused_all_the_same() -> None:
    x = clustered(20, 4, seed=1).astype(np.float32)
    x[7] = 0
    with pytest.raises(EmbeddingError, match="row 7 of x is a zero vector"):
        select(first_rows([]), x, 3)  # type: ignore[arg-type]


@pytest.mark.parametrize("exactness", ["exact", "near"])
def test_a_memory_map_gives_the_picks_of_the_array(tmp_path: Path, exactness: str) -> None:
    x = clustered(7_000, 12, seed=2).astype(np.float32)
    np.save(tmp_path / "x.npy", x)
    method = f"max_herding(exactness={exactness!r})"
    stored = select(method, np.load(tmp_path / "x.npy", mmap_mode="r"), 8)
    assert stored.indices.tolist() == select(method, x, 8).indices.tolist()


@pytest.mark.parametrize(
    ("method", "stages"),
    [
        ("max_herding", {"all pairs"}),
        ("max_herding(exactness='near')", {"parts", "medoid steps"}),
        ("vote_k", {"neighbours"}),
        ("ideal", {"neighbours"}),
    ],
)
@pytest.mark.parametrize("threads", ["1", "3"])
def test_progress_is_told(monkeypatch: pytest.MonkeyPatch, method: str, stages: set[str], threads: str) -> None:
    monkeypatch.setenv("ICS_THREADS", threads)
    x = clustered(6_000, 12, seed=3).astype(np.float32)
    told: list[tuple[str, int, int]] = []
    picked = select(method, x, 5, progress=lambda *one: told.append(one))
    assert picked.indices.tolist() == select(method, x, 5).indices.tolist()
    assert {stage for stage, _, _ in told} == stages
    for stage in stages:
        total = {total for name, _, total in told if name == stage}
        done = [done for name, done, _ in told if name == stage]
        assert len(total) == 1
        assert done == list(range(1, len(done) + 1))
        assert stage == "medoid steps" or done[-1] == total.pop()


def test_progress_of_the_streamed_loop() -> None:
    told: list[tuple[str, int, int]] = []
    facility_location(
        clustered(2_000, 12, seed=3),
        60,
        kernel=Kernel("gaussian"),
        given=np.empty(0, dtype=np.int64),
        stored_rows=0,
        progress=lambda *one: told.append(one),
    )
    assert {stage for stage, _, _ in told} == {"all pairs", "picks"}
    assert told[-1] == ("picks", 60, 60)


class StopHere(Exception):  # noqa: N818
    """What somebody raises who wants no more."""


@pytest.mark.parametrize("threads", ["1", "3"])
@pytest.mark.parametrize("method", ["max_herding", "vote_k"])
def test_what_progress_raises_ends_the_selection(monkeypatch: pytest.MonkeyPatch, method: str, threads: str) -> None:
    monkeypatch.setenv("ICS_THREADS", threads)
    calls = 0

    def stop(stage: str, done: int, total: int) -> None:
        nonlocal calls
        calls += 1
        raise StopHere

    with pytest.raises(StopHere):
        select(method, clustered(6_000, 12, seed=3), 5, progress=stop)
    assert calls == 1


def test_bars(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    x = clustered(3_000, 12, seed=3)
    select("vote_k", x, 5, progress=True)
    assert capsys.readouterr() == ("", "")  # over too soon to be shown
    monkeypatch.setattr(_progress, "_DELAY_SECONDS", 0.0)
    select("vote_k", x, 5, progress=True)
    shown = capsys.readouterr()
    assert shown.out == ""
    assert "neighbours: 100%" in shown.err
    select("random", x, 5, progress=True)
    assert capsys.readouterr() == ("", "")


def test_a_stage_that_begins_again_gets_a_bar_of_its_own(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(_progress, "_DELAY_SECONDS", 0.0)
    with _progress.progress_of(True) as told:
        assert told is not None
        for _ in range(2):
            for done in (1, 2):
                told("all pairs", done, 2)
        told("picks", 1, 1)
    shown = capsys.readouterr().err
    assert shown.count("all pairs: 100%") == 2
    assert "picks: 100%" in shown
