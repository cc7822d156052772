"""Growing pools: picks, gains and coverage of exact greedy from scratch, bit for bit, without the old pairs again."""

from __future__ import annotations

import io
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given as draw
from hypothesis import settings
from hypothesis import strategies as st
from reference.pools import clustered

from icl_select import GrowingSelection, select
from icl_select.errors import BudgetError, DataError, EmbeddingError, GivenError, ParameterError, StoreError
from icl_select.kernels import KERNELS, Kernel
from icl_select.methods._greedy import facility_location
from icl_select.methods._screen import Screen
from icl_select.methods.max_herding import max_herding

ANY = 10**6


def from_scratch(growing: GrowingSelection, x: np.ndarray, budget: int) -> Any:
    name, bandwidth = growing.kernel.name, growing.kernel.bandwidth
    given = growing.labelled
    return max_herding(x.copy(), budget, given=given, kernel=name, bandwidth=bandwidth, exactness="exact")


def assert_same(growing: GrowingSelection, x: np.ndarray, budget: int) -> np.ndarray:
    kept, again = growing.pick(budget), from_scratch(growing, x, budget)
    assert kept.indices.tolist() == again.indices.tolist()
    assert kept.gains.tobytes() == again.gains.tobytes()
    assert kept.info["coverage"] == again.info["coverage"]
    return kept.indices


def twins(n: int, d: int = 8, *, seed: int = 0, dtype: type = np.float32) -> np.ndarray:
    """Rows of several lengths, many of them twins of earlier ones."""
    rng = np.random.default_rng(seed)
    x = clustered(n, d, clusters=6, seed=seed)
    copies = rng.random(n) < 0.2
    x[copies] = x[rng.integers(n, size=int(copies.sum()))]
    return (x * rng.choice([0.5, 1.0, 4.0], size=(n, 1))).astype(dtype)


@pytest.fixture
def screened(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Pairs whose bounds were computed, tile by tile."""
    counts: list[int] = []
    tile = Screen.tile

    def counted(self: Screen, rows: Any, columns: Any, table: Any, out: Any) -> None:
        counts.append(out.size)
        tile(self, rows, columns, table, out)

    monkeypatch.setattr(Screen, "tile", counted)
    return counts


@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize("bandwidth", [0.2, 1.0, 5.0])
def test_rounds_of_adding_picking_and_labelling_equal_from_scratch(kernel: str, bandwidth: float) -> None:
    """The pool passes 256 and 512 rows, where the grid of exact values gets coarser, and covers itself in the end."""
    if kernel == "cosine" and bandwidth != 1.0:
        pytest.skip("has no bandwidth")
    x, rng = twins(600, seed=1), np.random.default_rng(2)
    growing = GrowingSelection(kernel, bandwidth, pairs_a_row=ANY)
    growing.add(x[:240])
    n = 240
    for m in (10, 1, 6, 200, 60, 83):
        picks = assert_same(growing, x[:n], 12)
        growing.label(rng.permutation(picks)[: int(rng.integers(1, 12))])
        growing.add(x[n : n + m])
        n += m
    assert n == 600
    assert_same(growing, x, n - len(growing.labelled))


@settings(max_examples=60, deadline=None)
@draw(
    seed=st.integers(0, 10**6),
    kernel=st.sampled_from(KERNELS),
    double=st.booleans(),
    moves=st.lists(
        st.tuples(st.sampled_from(["add", "label", "label picks", "pick", "file"]), st.integers(1, 25)), max_size=10
    ),
)
def test_any_sequence_of_moves(
    seed: int, kernel: str, double: bool, moves: list[tuple[str, int]], tmp_path_factory: pytest.TempPathFactory
) -> None:
    x, rng = twins(300, d=3, seed=seed, dtype=np.float64 if double else np.float32), np.random.default_rng(seed)
    growing = GrowingSelection(kernel, pairs_a_row=ANY)
    n = int(rng.integers(2, 40))
    growing.add(x[:n])
    picks = np.empty(0, dtype=np.int64)
    for move, size in [*moves, ("pick", 5)]:
        free = np.setdiff1d(np.arange(n), growing.labelled)
        if move == "add":
            growing.add(x[n : n + size])
            n += size
        elif move == "label":
            growing.label(rng.permutation(free)[: min(size, len(free) - 1)])
        elif move == "label picks":
            growing.label(np.intersect1d(picks, free)[: len(free) - 1])
        elif move == "pick":
            picks = assert_same(growing, x[:n], min(size, len(free)))
        else:
            path = tmp_path_factory.mktemp("kept") / "kept.npz"
            growing.save(path)
            more = min(size, 5)
            growing = GrowingSelection.load(path, x[: n + more], kernel=kernel, pairs_a_row=ANY)
            n += more


def test_same_as_select_on_float32_rows() -> None:
    x = twins(80)
    growing = GrowingSelection(bandwidth=0.7)
    growing.add(x)
    growing.label([4, 70])
    picked = select("max_herding(bandwidth=0.7)", x, 9, given=[4, 70])
    assert growing.pick(9).gains.tobytes() == picked.gains.tobytes()


def test_a_far_row_moves_the_grid() -> None:
    """Rows so close that the grid spans little; then one on the other side, and it spans all."""
    x = clustered(60, 6, clusters=1, seed=3)
    x[:50] = x[0] + 1e-3 * x[:50]
    x[50:] = -x[0] + 0.1 * x[50:]
    growing = GrowingSelection(pairs_a_row=ANY)
    growing.add(x[:50])
    growing.label([7])
    assert_same(growing, x[:50], 49)
    growing.add(x[50:])
    assert_same(growing, x, 59)


def test_old_pairs_are_not_computed_again(screened: list[int]) -> None:
    n, m, g = 1500, 40, 30
    x = clustered(n + m, 16, clusters=60)
    growing = GrowingSelection()
    growing.add(x[:n])
    growing.label(growing.pick(g).indices)
    screened.clear()
    growing.pick(g)
    sampled = 128 * n
    assert sum(screened) <= (n * n + 512 * n) // 2 + sampled, "the pairs that matter: half of all"
    screened.clear()
    growing.add(x[n:])
    assert 0 < sum(screened) <= (m + g) * (n + m)
    screened.clear()
    picks = growing.pick(g).indices
    assert not screened, "a pick reads what is kept"
    growing.label(picks)
    assert sum(screened) <= g * (n + m)


def test_from_scratch_guesses_nothing_where_the_given_rows_cover_enough(screened: list[int]) -> None:
    """Late gains are so close that guesses fail, and each that fails would cost another half product."""
    n, g = 1500, 60
    x = clustered(n, 16, clusters=60)
    given = max_herding(x, g).indices
    stored = facility_location(x, 20, kernel=Kernel("gaussian"), given=given)
    screened.clear()
    streamed = facility_location(x, 20, kernel=Kernel("gaussian"), given=given, stored_rows=0)
    assert streamed.indices.tolist() == stored.indices.tolist()
    sampled = n // 24 * n
    assert sum(screened) <= (n * n + 512 * n) // 2 + sampled + g * n


def test_picking_does_not_label() -> None:
    x = twins(90)
    growing = GrowingSelection(pairs_a_row=ANY)
    growing.add(x)
    growing.label([3])
    first, again = growing.pick(20), growing.pick(20)
    assert first.indices.tolist() == again.indices.tolist()
    assert growing.labelled.tolist() == [3]
    assert first.prefix(5).indices.tolist() == growing.pick(5).indices.tolist()


@pytest.mark.parametrize("pairs_a_row", [0, 3, 30])
def test_too_many_pairs_change_the_time_only(pairs_a_row: int) -> None:
    x, growing = twins(400, seed=5), GrowingSelection(pairs_a_row=pairs_a_row)
    growing.add(x[:200])
    growing.label([0])
    for n in (200, 300, 400):
        if n > 200:
            growing.add(x[n - 100 : n])
        growing.label(assert_same(growing, x[:n], 25))


def test_what_is_covered_in_full_is_no_longer_kept(tmp_path: Path) -> None:
    x, growing = np.tile(twins(3), (30, 1)), GrowingSelection()
    growing.add(x)
    growing.label([0, 1, 2])
    assert growing.pick(3).gains.tolist() == [0, 0, 0]
    growing.save(tmp_path / "kept.npz")
    with np.load(tmp_path / "kept.npz") as content:
        assert not content["rows"].size


@pytest.mark.parametrize("first", [40, 50])
def test_rows_are_copied(first: int) -> None:
    x = twins(50)
    changed, growing = x.copy(), GrowingSelection(pairs_a_row=ANY)
    growing.add(changed[:first])
    if first < 50:
        growing.add(changed[first:])
    growing.label([1])
    changed[:] = 1.0
    assert_same(growing, x, 20)


def kept(tmp_path: Path) -> tuple[GrowingSelection, np.ndarray, Path]:
    x, path = twins(120, seed=9), tmp_path / "kept.npz"
    growing = GrowingSelection(pairs_a_row=ANY, origin=np.arange(8.0))
    growing.add(x[:100])
    growing.label([5, 50])
    growing.pick(3)
    growing.save(path)
    return growing, x, path


def test_a_file_brings_everything_back(tmp_path: Path, screened: list[int]) -> None:
    growing, x, path = kept(tmp_path)
    screened.clear()
    again = GrowingSelection.load(path, x[:100])
    assert again.pick(30).gains.tobytes() == growing.pick(30).gains.tobytes()
    assert not screened
    assert again.labelled.tolist() == [5, 50]
    assert GrowingSelection.read_origin(path).tolist() == again.origin.tolist() == list(range(8))  # type: ignore[union-attr]
    more = GrowingSelection.load(path, x)
    assert 0 < sum(screened) <= 22 * 120
    assert_same(more, x, 40)
    more.save(path)
    assert_same(GrowingSelection.load(path, x), x, 40)


def test_another_pool_or_kernel_is_refused(tmp_path: Path) -> None:
    _, x, path = kept(tmp_path)
    before = path.read_bytes()
    changed = x.copy()
    changed[17, 2] = np.nextafter(changed[17, 2], np.float32(9))
    with pytest.raises(EmbeddingError, match=r"row 17 is not the one .*\(1 of 100 differ\)"):
        GrowingSelection.load(path, changed)
    with pytest.raises(EmbeddingError, match="row 0 is not"):
        GrowingSelection.load(path, x[::-1])
    with pytest.raises(EmbeddingError, match="kept for 100 rows of float32, but there are 99"):
        GrowingSelection.load(path, x[:99])
    with pytest.raises(EmbeddingError, match="of float64"):
        GrowingSelection.load(path, x.astype(np.float64))
    with pytest.raises(ParameterError, match=r"kept for kernel='gaussian', bandwidth=1\.0, not for kernel='laplace'"):
        GrowingSelection.load(path, x, kernel="laplace")
    with pytest.raises(ParameterError, match=r"bandwidth=0.5. Use another file"):
        GrowingSelection.load(path, x, bandwidth=0.5)
    assert path.read_bytes() == before


def rewritten(path: Path, **changes: Any) -> None:
    with np.load(path) as content:
        arrays = {name: content[name] for name in content.files}
    for name, value in changes.items():
        arrays.pop(name)
        if value is not None:
            arrays[name] = value
    np.savez(path, **arrays)


def test_broken_and_foreign_files_are_told(tmp_path: Path) -> None:
    _, x, path = kept(tmp_path)
    whole = path.read_bytes()
    buffer = io.BytesIO()
    np.save(buffer, x)
    middle = len(whole) // 2
    flipped = whole[:middle] + bytes([whole[middle] ^ 0xFF]) + whole[middle + 1 :]
    for content in (b"", b"id,text\n1,hello\n", whole[:500], whole[:-20], flipped, buffer.getvalue()):
        path.write_bytes(content)
        with pytest.raises(DataError, match="cannot read"):
            GrowingSelection.load(path, x)
        assert path.read_bytes() == content
    path.unlink()
    with pytest.raises(DataError, match="No such file"):
        GrowingSelection.load(path, x)


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"format": np.array("icl-select/growing/0")}, "does not say that it is"),
        ({"covered": None}, "missing or misshapen"),
        ({"covered": np.full(100, np.nan)}, "coverage is outside"),
        ({"labelled": np.zeros(99, dtype=bool)}, "another shape or type"),
        ({"starts": None}, "a part is missing"),
        ({"starts": np.zeros(101, dtype=np.int64)}, "do not fit together"),
        ({"bounds": np.zeros(3, dtype=np.uint16)}, "do not fit together"),
        ({"origin": np.array(["a"])}, "its origin"),
    ],
)
def test_content_is_checked_before_it_is_believed(tmp_path: Path, changes: dict[str, Any], told: str) -> None:
    _, x, path = kept(tmp_path)
    rewritten(path, **changes)
    with pytest.raises(DataError, match=told):
        GrowingSelection.load(path, x)


def test_pairs_outside_the_pool_are_refused(tmp_path: Path) -> None:
    _, x, path = kept(tmp_path)
    with np.load(path) as content:
        rows = content["rows"]
    rows[7] = 100
    rewritten(path, rows=rows)
    with pytest.raises(DataError, match="rows that are not there"):
        GrowingSelection.load(path, x)


def test_a_file_of_other_rounding_is_refused(tmp_path: Path) -> None:
    _, x, path = kept(tmp_path)
    rewritten(path, arithmetic=np.array("0123456789abcdef"))
    with pytest.raises(EmbeddingError, match="sums are rounded otherwise"):
        GrowingSelection.load(path, x)


def test_a_failed_write_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    growing, _, path = kept(tmp_path)
    before = path.read_bytes()

    def full(_descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    growing.label([7])
    with pytest.raises(StoreError, match="disk is full"):
        growing.save(path)
    assert path.read_bytes() == before
    assert [entry.name for entry in tmp_path.iterdir()] == ["kept.npz"]


def test_wrong_calls_are_told() -> None:
    growing = GrowingSelection()
    with pytest.raises(BudgetError):
        growing.pick(1)
    with pytest.raises(EmbeddingError, match="0 rows"):
        growing.save("nowhere.npz")
    growing.add(twins(20))
    with pytest.raises(EmbeddingError, match="dimension 3"):
        growing.add(twins(4, d=3))
    with pytest.raises(EmbeddingError, match="float64"):
        growing.add(twins(4, dtype=np.float64))
    with pytest.raises(EmbeddingError, match=r"row 1 .*zero vector"):
        growing.add(np.array([[1.0] * 8, [0.0] * 8], dtype=np.float32))
    growing.label([2, 3])
    with pytest.raises(GivenError, match="row 3 is labelled already"):
        growing.label([1, 3])
    with pytest.raises(GivenError, match="holds 20"):
        growing.label([1, 20])
    assert growing.labelled.tolist() == [2, 3]
    with pytest.raises(BudgetError):
        growing.pick(19)
    with pytest.raises(ParameterError):
        GrowingSelection("gausian")
    with pytest.raises(ParameterError, match="pairs_a_row=-1"):
        GrowingSelection(pairs_a_row=-1)
    huge = GrowingSelection()
    with pytest.raises(EmbeddingError, match="row 1 is so long"):
        huge.add(np.array([[1.0, 0.0], [1e200, 1.0]]))
