"""Campaigns from end to end: nothing lost, nothing done twice, the same bytes however they came about."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from eval_helpers import HELLASWAG, contents, folder_with, rows, write_rows

from icl_select import registry
from icl_select._files import lock_folder
from icl_select.errors import BudgetError, DataError, IclSelectError, LockedError, StoreError, UnknownNameError
from icl_select.eval import pool, runner
from icl_select.eval.config import Campaign
from icl_select.eval.plan import plan_task
from icl_select.eval.store import CellName, RunFolder
from icl_select.eval.tasks import load_task
from icl_select.types import Selection

Make = Callable[..., Campaign]


def run(campaign: Campaign, **options: Any) -> runner.RunReport:
    return runner.run(campaign, cache=False, progress=False, **options)


def test_a_campaign_writes_every_cell_and_the_results(campaign: Make) -> None:
    said: list[str] = []
    report = run(campaign(), say=said.append)
    # 3 draws x (2 random + 1 max_herding) x 2 budgets
    assert (report.n_cells, report.n_computed) == (18, 18)
    files = contents(report.folder)
    assert sum(name.endswith(".parquet") for name in files) == 18
    assert {"results.json", "report.html", "report.md", "tasks/desk.json"} <= set(files)
    results = report.results
    assert results["schema"] == "icl-select/results/1"
    assert len(results["cells"]) == 4
    assert [(c["candidate"], c["budget"], c["n_comparisons"]) for c in results["comparisons"]] == [
        ("max_herding", 3, 2),
        ("max_herding", 6, 2),
    ]
    assert {c["method"] for c in results["curves"]} == {"random", "max_herding"}
    assert "18 cells to compute." in said
    assert any("cannot reach significance" in note for note in said)
    assert any(note.startswith("desk: Leaks: ") for note in said)


def test_scores_are_what_the_definition_says(campaign: Make) -> None:
    """Literal nearest-neighbour vote over the stored picks: same predictions, same means."""
    report = run(campaign(retrieval={"k": 1}))
    data = load_task(campaign().tasks[0])
    store = RunFolder(report.folder)
    from icl_select.embedding import load_encoder

    plan = plan_task(campaign(retrieval={"k": 1}), data, load_encoder("hash(dim=64)"), runner.load_scorer("knn"))
    encoder = load_encoder("hash(dim=64)")
    x = encoder.encode(data.pool.texts).vectors.astype(float)
    q = encoder.encode(data.test.texts).vectors.astype(float)
    means = []
    for draw in plan.draws:
        cell = store.read_cell(CellName("desk", "max_herding", draw.number, 0, 6))
        shift = x[draw.pool].mean(axis=0)
        rows_ = [data.pool.index(name) for name in cell.picks]
        assert set(rows_) <= set(draw.pool.tolist())
        correct = []
        for item, prediction in zip(cell.item_ids, cell.column("prediction"), strict=True):
            query = q[data.test.index(item)] - shift
            cosine = [(x[i] - shift) @ query / np.linalg.norm(x[i] - shift) / np.linalg.norm(query) for i in rows_]
            nearest = data.pool[rows_[int(np.argmax(cosine))]]
            assert prediction == nearest.label
            correct.append(float(nearest.label == data.test[data.test.index(item)].label))
        assert cell.scores.tolist() == correct
        means.append(np.mean(correct))
    entry = next(c for c in report.results["cells"] if (c["method"], c["budget"]) == ("max_herding", 6))
    assert entry["mean"] == pytest.approx(np.mean(means))
    assert entry["sd"] == pytest.approx(np.std(means, ddof=1))


def test_every_method_sees_the_same_pool_and_the_same_test_items(campaign: Make) -> None:
    report = run(campaign())
    store = RunFolder(report.folder)
    for draw in range(3):
        cells = [store.read_cell(CellName("desk", m, draw, 0, b)) for m in ("random", "max_herding") for b in (3, 6)]
        assert len({tuple(cell.item_ids) for cell in cells}) == 1
    random = [store.read_cell(CellName("desk", "random", 0, repeat, 6)).picks for repeat in range(2)]
    assert random[0] != random[1]


def test_a_second_run_computes_nothing(campaign: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    first = run(campaign())
    before = contents(first.folder)

    def never(*_: Any, **__: Any) -> None:
        raise AssertionError("computed again")

    for name in ("embed", "diagnose", "build_results"):
        monkeypatch.setattr(runner, name, never)
    said: list[str] = []
    second = run(campaign(), say=said.append)
    assert second.n_computed == 0
    assert "nothing to compute: all 18 cells are there and up to date." in said
    assert second.results == first.results
    assert contents(second.folder) == before


def test_two_runs_in_two_folders_give_the_same_bytes(campaign: Make, tmp_path: Path) -> None:
    one = run(campaign(output=tmp_path / "one"))
    two = run(campaign(output=tmp_path / "two"))
    assert contents(one.folder) == contents(two.folder)


@pytest.mark.slow
def test_processes_do_not_change_a_byte(campaign: Make, tmp_path: Path) -> None:
    one = run(campaign(output=tmp_path / "one"))
    two = run(campaign(output=tmp_path / "two"), workers=2)
    assert contents(one.folder) == contents(two.folder)


KILLER = """
import os, signal, sys
from pathlib import Path
from icl_select import _files
from icl_select.eval import runner, store, versus

stop, before_rename = int(sys.argv[2]), sys.argv[3] == "half"
written = 0
whole = _files.atomic_write

def atomic_write(path, content):
    global written
    if path.suffix == ".parquet":
        written += 1
        if written > stop:
            if before_rename:
                (path.parent / f".{path.name}.half.tmp").write_bytes(content[: len(content) // 2])
            os.kill(os.getpid(), signal.SIGKILL)
    whole(path, content)

store.atomic_write = atomic_write
runner.run(versus.stored_campaign(Path(sys.argv[1])), cache=False, progress=False)
"""


@pytest.mark.parametrize(("after", "how"), [(0, "whole"), (7, "half"), (17, "whole")])
def test_killed_in_the_middle_and_resumed(campaign: Make, tmp_path: Path, after: int, how: str) -> None:
    """SIGKILL at the write of a cell, also with half a file on disk: resuming loses and repeats nothing."""
    undisturbed = run(campaign(output=tmp_path / "undisturbed"))
    interrupted = campaign(output=tmp_path / "interrupted")
    store = RunFolder(interrupted.folder)
    store.write_json(store.path / "campaign.json", interrupted.model_dump(mode="json"))
    killed = subprocess.run(
        [sys.executable, "-c", KILLER, str(interrupted.folder), str(after), how], capture_output=True, check=False
    )
    assert killed.returncode == -9, killed.stderr.decode()
    done = sorted(interrupted.folder.rglob("cells/**/*.parquet"))
    assert len(done) == after
    times = {path: path.stat().st_mtime_ns for path in done}
    assert not (interrupted.folder / "results.json").exists()
    report = run(interrupted)
    assert report.n_computed == 18 - after
    assert {path: path.stat().st_mtime_ns for path in done} == times
    left = contents(interrupted.folder)
    assert {name: content for name, content in left.items() if not name.endswith(".tmp")} == contents(
        undisturbed.folder
    )


def test_another_method_changes_no_other_cell(campaign: Make) -> None:
    first = run(campaign())
    before = contents(first.folder)
    second = run(campaign(methods=["sub_sa", "random", "max_herding"]))
    assert second.n_computed == 6
    after = contents(second.folder)
    kept = [name for name in before if name.startswith(("cells", "selections", "tasks"))]
    assert kept
    assert all(after[name] == before[name] for name in kept)


def test_another_draw_or_budget_changes_no_other_cell(campaign: Make) -> None:
    before = contents(run(campaign()).folder)
    report = run(campaign(draws=4, budgets=[3, 6, 9]))
    # 9 cells of budget 9 in the old draws, 9 in the new one
    assert report.n_computed == 18
    after = contents(report.folder)
    assert all(after[name] == content for name, content in before.items() if name.startswith("cells"))


def test_another_test_item_changes_only_draws_that_see_it(campaign: Make, tmp_path: Path) -> None:
    before = contents(run(campaign(draws=4)).folder)
    write_rows(tmp_path / "test.jsonl", [*rows(20, 2), {"id": "new", "text": "parcel is late", "label": "delivery"}])
    report = run(campaign(draws=4))
    after = contents(report.folder)
    store = RunFolder(report.folder)
    for draw in range(4):
        sees = "new" in store.read_cell(CellName("desk", "random", draw, 0, 3)).item_ids
        name = f"cells/desk/random/b0003-d{draw:03d}-r00.parquet"
        assert (after[name] != before[name]) == sees
    assert 0 < report.n_computed < report.n_cells


@pytest.mark.parametrize(
    ("change", "recomputed"),
    [
        ({"alpha": 0.1}, 0),
        ({"retrieval": {"k": 2}}, 18),
        ({"scorer": "knn(k=1)"}, 18),
        ({"seed": 5}, 18),
        ({"centre": False}, 18),
        ({"encoder": "hash(dim=32)"}, 18),
        ({"draws": 2}, 0),
        ({"random_repeats": 3}, 6),
    ],
)
def test_a_changed_configuration_recomputes_what_it_must(
    campaign: Make, change: dict[str, Any], recomputed: int
) -> None:
    first = run(campaign())
    second = run(campaign(**change))
    assert second.n_computed == recomputed
    assert second.results != first.results


def test_a_damaged_cell_is_computed_again(campaign: Make, caplog: pytest.LogCaptureFixture) -> None:
    first = run(campaign())
    before = contents(first.folder)
    path = RunFolder(first.folder).cell_path(CellName("desk", "random", 1, 0, 6))
    path.write_bytes(path.read_bytes()[:100])
    second = run(campaign())
    assert second.n_computed == 1
    assert "will be computed again" in caplog.text
    assert contents(second.folder) == before


def test_two_runs_on_one_folder(campaign: Make) -> None:
    small = campaign()
    with lock_folder(small.folder, "another run"), pytest.raises(LockedError, match="is in use by another run"):
        run(small)


def test_a_task_that_the_scorer_cannot_answer_is_skipped_with_the_reason(campaign: Make, tmp_path: Path) -> None:
    data = folder_with(tmp_path / "data", "hellaswag", [HELLASWAG])
    own = campaign().tasks[0]
    said: list[str] = []
    report = run(campaign(tasks=["hellaswag", own], data_dir=data), say=said.append)
    skipped = report.results["tasks"]["hellaswag"]["skipped"]
    assert skipped.startswith("not applicable: each item has its own four endings")
    assert any(note.startswith("hellaswag: not applicable") for note in said)
    assert {c["task"] for c in report.results["cells"]} == {"desk"}
    assert skipped.split(":")[1].strip()[:20] in (report.folder / "report.md").read_text(encoding="utf-8")


def test_what_is_wrong_is_found_before_any_work(campaign: Make, tmp_path: Path) -> None:
    own = campaign().tasks[0]
    for change, error, message in (
        ({"tasks": [own, "mrpc"], "data_dir": tmp_path / "none"}, IclSelectError, "there is no folder"),
        ({"budgets": [31]}, BudgetError, "budget 31 exceeds the 30 pool rows"),
        ({"encoder": "hsh"}, UnknownNameError, "unknown encoder 'hsh'"),
        ({"scorer": "kn"}, UnknownNameError, "unknown scorer 'kn'"),
    ):
        with pytest.raises(error, match=message):
            run(campaign(**change))
    assert not campaign().folder.exists()
    (tmp_path / "test.jsonl").unlink()
    with pytest.raises(DataError, match=r"test\.jsonl does not exist"):
        run(campaign())


def test_a_full_disk_keeps_what_is_finished(campaign: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    small = campaign()
    written: list[CellName] = []
    whole = RunFolder.write_cell

    def write_cell(self: RunFolder, name: CellName, *rest: Any) -> None:
        if len(written) == 5:
            raise StoreError(
                "cannot write: the disk is full. Free some space and run again; what was finished is kept."
            )
        whole(self, name, *rest)
        written.append(name)

    monkeypatch.setattr(RunFolder, "write_cell", write_cell)
    with pytest.raises(StoreError, match=r"task desk, method .*, draw .*: cannot write: the disk is full"):
        run(small)
    monkeypatch.undo()
    assert run(small).n_computed == 13


def test_leaked_queries_are_told_and_scored_apart(campaign: Make, tmp_path: Path) -> None:
    pool = rows(60, 1)
    copied = [{**pool[i], "id": f"copy-{i}"} for i in range(10)]
    write_rows(tmp_path / "test.jsonl", copied + rows(10, 2))
    report = run(campaign(test_size=20, retrieval={"k": 1}))
    assert report.results["leaks"]["desk"]["counts"]["exact"] == 10
    for entry in report.results["cells"]:
        assert entry["n_leaked"] >= 30  # 10 in each of 3 draws
        assert entry["mean_without_leaks"] is not None
    knowing = next(c for c in report.results["cells"] if (c["method"], c["budget"]) == ("max_herding", 6))
    assert knowing["mean_without_leaks"] != knowing["mean"]


def test_generation_copies_the_nearest_answer(campaign: Make, tmp_path: Path) -> None:
    own = {"name": "free", "pool": tmp_path / "pool.jsonl", "test": tmp_path / "test.jsonl", "generation": True}
    report = run(campaign(tasks=[own]))
    entry = report.results["cells"][0]
    assert entry["metric"] == "rouge_l"
    assert "macro_f1" not in entry
    assert report.results["tasks"]["free"]["majority_rate"] is None


class PromptReader:
    """A scorer that reads prompts: says which label stands last in the prompt."""

    name = "reader"
    needs_prompt = True
    versions = {"reader": "1"}  # noqa: RUF012

    def score(self, items: Any) -> list[Any]:
        from icl_select.types import Prediction

        assert all(item.prompt is not None for item in items)
        return [Prediction(item.id, item.prompt.text.split("\n")[-3]) for item in items]


def test_a_scorer_that_reads_prompts_slots_in(campaign: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runner, "load_scorer", lambda name: PromptReader())
    report = run(campaign(scorer="reader", prompt={"max_tokens": 120}))
    cell = RunFolder(report.folder).read_cell(CellName("desk", "random", 0, 0, 6))
    tokens, shots = cell.column("prompt_tokens"), cell.column("n_shots")
    assert max(tokens) <= 120
    assert set(cell.column("prediction")) <= {"billing", "delivery", "login"}
    assert [s + d for s, d in zip(shots, cell.column("n_dropped"), strict=True)] == [6] * 12


def test_results_are_json_without_nan(campaign: Make) -> None:
    report = run(campaign(draws=1, random_repeats=1))
    text = (report.folder / "results.json").read_text(encoding="utf-8")
    assert json.loads(text, parse_constant=lambda name: pytest.fail(name)) == json.loads(json.dumps(report.results))


def test_the_shipped_messages_run_without_folder_or_hub(campaign: Make) -> None:
    report = run(campaign(tasks=["support"], draws=1, random_repeats=1))
    assert report.results["tasks"]["support"]["source"] == "shipped"
    assert report.results["tasks"]["support"]["n_choices"] == 10


def backwards(x: Any, budget: int, *, given: Any, rng: Any, **own: Any) -> Selection:
    """The last rows, most important last: a method whose picks are not nested."""
    return Selection(np.arange(len(x))[-budget:], np.zeros(budget), nested=False)


def test_a_method_without_nested_picks_selects_for_every_budget(
    campaign: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(registry._BUILTIN, "backwards", f"{__name__}:backwards")
    report = run(campaign(methods=["random", "backwards"]))
    store = RunFolder(report.folder)
    small, large = (store.read_cell(CellName("desk", "backwards", 0, 0, b)).picks for b in (3, 6))
    assert large[3:] == small
    assert store.selection_path(CellName("desk", "backwards", 0, 0, 3)).exists()
    store.cell_path(CellName("desk", "backwards", 0, 0, 3)).unlink()
    before = store.selection_path(CellName("desk", "backwards", 0, 0, 3)).stat().st_mtime_ns
    assert run(campaign(methods=["random", "backwards"])).n_computed == 1
    assert store.selection_path(CellName("desk", "backwards", 0, 0, 3)).stat().st_mtime_ns == before


@pytest.mark.slow
def test_workers_end_with_the_process_that_started_them(campaign: Make, tmp_path: Path) -> None:
    """SIGKILL of the parent leaves no worker behind that would wait for ever."""
    interrupted = campaign(draws=40)
    store = RunFolder(interrupted.folder)
    store.write_json(store.path / "campaign.json", interrupted.model_dump(mode="json"))
    program = (
        "import os, signal, sys; from pathlib import Path; from icl_select.eval import pool, runner, versus\n"
        "if __name__ == '__main__':\n"
        "    def stop(self):\n"
        "        print(*self._executor._processes, flush=True)\n"
        "        os.kill(os.getpid(), signal.SIGKILL)\n"
        "    pool.Crew.wait = stop\n"
        "    runner.run(versus.stored_campaign(Path(sys.argv[1])), cache=False, progress=False, workers=2)\n"
    )
    (tmp_path / "program.py").write_text(program, encoding="utf-8")
    killed = subprocess.run(
        [sys.executable, str(tmp_path / "program.py"), str(interrupted.folder)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert killed.returncode == -9, killed.stderr
    workers = [int(word) for word in killed.stdout.split()]
    assert len(workers) == 2
    for _ in range(600):
        if not any(Path(f"/proc/{worker}").exists() for worker in workers):
            break
        time.sleep(0.1)
    assert not any(Path(f"/proc/{worker}").exists() for worker in workers)
    assert run(interrupted).n_cells == 240


@pytest.mark.slow
def test_a_worker_that_is_killed_is_a_clear_error(campaign: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    def kill_one(self: pool.Crew) -> None:
        assert self._executor is not None
        for worker in list(self._executor._processes):
            os.kill(worker, signal.SIGKILL)
        waited(self)

    waited = pool.Crew.wait
    monkeypatch.setattr(pool.Crew, "wait", kill_one)
    with pytest.raises(IclSelectError, match="a worker process ended on its own"):
        run(campaign(draws=40), workers=2)
    monkeypatch.undo()
    assert run(campaign(draws=40)).n_cells == 240
