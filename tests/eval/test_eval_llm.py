"""Campaigns with a language model, through the real Transformers engine on a tiny model with random weights."""

from __future__ import annotations

import gzip
import json
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from eval_helpers import contents, write_rows

from icl_select.errors import ConfigError, DataError, PromptError
from icl_select.eval import runner
from icl_select.eval.answering import waves
from icl_select.eval.config import Campaign, validate
from icl_select.eval.store import CellName, RunFolder
from icl_select.score import load_scorer
from icl_select.score.tiny import make_tiny_model
from icl_select.types import Example, ScoreItem

Make = Callable[..., Campaign]

FULL = "vote_k(k=10, stage='full')"


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_tiny_model(tmp_path_factory.mktemp("models") / "tiny")


@pytest.fixture
def asking(campaign: Make, tiny: Path, tmp_path: Path) -> Make:
    """A small campaign that asks the tiny model; full Vote-k asks it about the pool too."""

    def make(**changes: Any) -> Campaign:
        small = {
            "methods": ["random", FULL],
            "budgets": [5],
            "draws": 2,
            "test_size": 6,
            "pool_size": 20,
            "retrieval": {"k": 3},
            "scorer": f"transformers(model={str(tiny)!r})",
        }
        return campaign(**(small | changes))

    return make


def run(campaign: Campaign, cache: Path, **options: Any) -> runner.RunReport:
    return runner.run(campaign, cache=cache, progress=False, **options)


def no_engine(*_: Any, **__: Any) -> None:
    raise AssertionError("the engine was asked")


def test_a_campaign_asks_the_model(asking: Make, tmp_path: Path) -> None:
    report = run(asking(), tmp_path / "cache")
    assert report.n_cells == 2 * (2 + 1)
    cell = RunFolder(report.folder).read_cell(CellName("desk", FULL, 0, 0, 5))
    assert set(cell.column("prediction")) <= {"billing", "delivery", "login"}
    assert min(cell.column("prompt_tokens")) > 20
    for scores, prediction in zip(cell.column("choice_scores"), cell.column("prediction"), strict=True):
        assert len(scores) == 3
        assert max(scores) < 0
        assert sorted(["billing", "delivery", "login"])[int(np.argmax(scores))] == prediction
    versions = json.loads(cell.table.schema.metadata[b"icl_select.versions"])
    assert versions["scorer"]
    assert any("transformers" in key or "transformers" in str(value) for key, value in versions.items())
    entry = next(c for c in report.results["cells"] if c["method"] == FULL)
    assert entry["mean_prompt_tokens"] > 20
    assert entry["n_truncated"] == 0
    usage = json.loads((report.folder / "run.json").read_text())["usage"]
    assert usage["requests"] > 0


def test_full_vote_k_is_what_its_definition_says(asking: Make, tmp_path: Path, tiny: Path) -> None:
    """Literal: prompts from the graph picks, the least likely best option is the most uncertain row."""
    from icl_select.embedding import load_encoder
    from icl_select.eval.plan import plan_task
    from icl_select.eval.tasks import load_task
    from icl_select.methods import select

    made = asking()
    report = run(made, tmp_path / "cache")
    data = load_task(made.tasks[0])
    scorer = load_scorer(made.scorer)
    plan = plan_task(made, data, load_encoder("hash(dim=64)"), scorer)
    draw = plan.draws[0]
    rows = [data.pool[int(i)] for i in draw.pool]
    x = load_encoder("hash(dim=64)").encode([row.text for row in rows]).vectors.astype(np.float64)
    x -= x.mean(axis=0)
    unit = x / np.linalg.norm(x, axis=1, keepdims=True)
    import torch
    import transformers

    tokenizer = transformers.AutoTokenizer.from_pretrained(tiny)
    model = transformers.AutoModelForCausalLM.from_pretrained(tiny).eval()

    def mean_nll(prompt: str, choice: str) -> float:
        context, whole = tokenizer(prompt)["input_ids"], tokenizer(prompt + choice)["input_ids"]
        assert whole[: len(context)] == context
        with torch.no_grad():
            logits = model(torch.tensor([whole])).logits[0].log_softmax(-1)
        picked = [float(logits[i - 1, whole[i]]) for i in range(len(context), len(whole))]
        return -float(np.mean(picked))

    def feedback(labelled: Any) -> Any:
        unsure = []
        for i, row in enumerate(rows):
            near = sorted((j for j in labelled if j != i), key=lambda j: -unit[i] @ unit[j])[:3]
            shown = [rows[j] for j in reversed(near)]
            template = data.task.template
            from icl_select.types import Demonstration

            demonstrations = [Demonstration(r.id, str(r.label), 0.0, r.fields) for r in shown]
            prompt = template.text(demonstrations, row)
            unsure.append(min(mean_nll(prompt, data.task.prefix + word) for word in data.task.choices))
        return np.array(unsure)

    picked = select(FULL, x, 5, feedback=feedback)
    stored = RunFolder(report.folder).read_cell(CellName("desk", FULL, 0, 0, 5)).picks
    assert list(stored) == [rows[i].id for i in picked.indices]


@pytest.mark.parametrize("variant", ["paper", "official"])
def test_a_row_is_never_shown_to_itself(
    asking: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, variant: str
) -> None:
    """Every pool row is asked about once for each draw, prompted from the labelled rows alone, without itself."""
    from icl_select.eval import answering

    asked: list[list[ScoreItem]] = []
    whole = answering.uncertainty

    def recording(predictions: Any, items: Any, **options: Any) -> Any:
        asked.append(list(items))
        assert options == {"variant": variant}
        return whole(predictions, items, **options)

    monkeypatch.setattr(answering, "uncertainty", recording)
    made = asking(methods=["random", f"vote_k(first=3, k=10, stage='full', variant={variant!r})"])
    report = run(made, tmp_path / "cache")
    assert len(asked) == made.draws
    for draw, items in enumerate(asked):
        picks = RunFolder(report.folder).read_cell(CellName("desk", made.methods[1], draw, 0, 5)).picks[:3]
        assert len({item.id for item in items}) == len(items) == 20
        for item in items:
            assert item.prompt is not None
            shown = {one.id for one in item.prompt.examples}
            assert shown == set(picks) - {item.id}


def test_what_was_asked_once_is_never_asked_again(
    asking: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A second folder, another rule and another method that picks the same: no engine call, the engine not loaded."""
    from icl_select.score.transformers_model import TransformersModel

    first = run(asking(output=tmp_path / "one"), tmp_path / "cache")
    for name in ("loglik", "generate"):
        monkeypatch.setattr(TransformersModel, name, no_engine)
    again = run(asking(output=tmp_path / "two"), tmp_path / "cache")
    assert contents(first.folder) == contents(again.folder)
    assert json.loads((again.folder / "run.json").read_text())["usage"]["requests"] == 0
    summed = asking(output=tmp_path / "three", scorer=asking().scorer.replace(")", ", rule='sum')"), methods=["random"])
    assert run(summed, tmp_path / "cache").n_computed == 4


KILLER = """
import os, signal, sys
from pathlib import Path
from icl_select.eval import runner, store, versus
from icl_select.score.transformers_model import TransformersModel

what, stop = sys.argv[3], int(sys.argv[4])
done = 0

def deadly(whole, counts=lambda *a: True):
    def call(*args, **options):
        global done
        if counts(*args):
            done += 1
            if done > stop:
                os.kill(os.getpid(), signal.SIGKILL)
        return whole(*args, **options)
    return call

if what == "engine":
    TransformersModel.loglik = deadly(TransformersModel.loglik)
else:
    store.atomic_write = deadly(store.atomic_write, lambda path, content: path.suffix == ".parquet")
runner.run(versus.stored_campaign(Path(sys.argv[1])), cache=Path(sys.argv[2]), progress=False)
"""


@pytest.mark.parametrize(("what", "after"), [("engine", 1), ("engine", 2), ("cell", 1)])
def test_killed_in_the_middle_and_resumed(asking: Make, tmp_path: Path, what: str, after: int) -> None:
    """SIGKILL at a call of the engine or at the write of a cell: the files end as those of an undisturbed run."""
    undisturbed = run(asking(output=tmp_path / "undisturbed"), tmp_path / "cache-a")
    interrupted = asking(output=tmp_path / "interrupted")
    store = RunFolder(interrupted.folder)
    store.write_json(store.path / "campaign.json", interrupted.model_dump(mode="json"))
    command = [sys.executable, "-c", KILLER, str(interrupted.folder), str(tmp_path / "cache-b"), what, str(after)]
    killed = subprocess.run(command, capture_output=True, check=False)
    assert killed.returncode == -signal.SIGKILL, killed.stderr.decode()
    assert not (interrupted.folder / "results.json").exists()
    report = run(interrupted, tmp_path / "cache-b")
    assert report.n_computed > 0
    assert contents(report.folder) == contents(undisturbed.folder)


def test_methods_that_ask_need_a_model(campaign: Make, tmp_path: Path) -> None:
    with pytest.raises(
        ConfigError, match=r"vote_k\(k=10, stage='full'\) asks the model.*knn is no language model.*vllm"
    ):
        run(campaign(methods=["random", FULL]), tmp_path / "cache")


def test_a_rule_that_lacks_its_text_is_told_before_any_work(asking: Make, tmp_path: Path) -> None:
    scorer = asking().scorer.replace(")", ", rule='pmi')")
    with pytest.raises(ConfigError, match=r"task desk: .*announces an answer.*premise"):
        run(asking(scorer=scorer), tmp_path / "cache")


@pytest.mark.parametrize("rule", ["sum", "contextual", "pmi"])
def test_every_rule_runs(asking: Make, tmp_path: Path, rule: str) -> None:
    scorer = asking().scorer.replace(")", f", rule={rule!r})")
    own = {"name": "desk", "pool": tmp_path / "pool.jsonl", "test": tmp_path / "test.jsonl", "premise": "label:"}
    report = run(asking(tasks=[own], scorer=scorer, methods=["random"], draws=1), tmp_path / "cache")
    assert report.results["config"]["scorer"].count(rule) == 1
    assert report.results["cells"][0]["n_empty"] == 0


def test_generation_is_read_and_recorded(asking: Make, tmp_path: Path) -> None:
    own = {"name": "free", "pool": tmp_path / "pool.jsonl", "test": tmp_path / "test.jsonl", "generation": True}
    report = run(asking(tasks=[own], draws=1), tmp_path / "cache")
    cell = RunFolder(report.folder).read_cell(CellName("free", FULL, 0, 0, 5))
    assert all(isinstance(text, str) for text in cell.column("response"))
    assert set(cell.column("choice_scores")) == {None}
    assert set(cell.column("finished")) <= {True, False}
    assert all(tokens >= 1 for tokens in cell.column("answer_tokens"))


@pytest.mark.parametrize(
    ("protocol", "length", "cut"), [("sound", 24, True), ("sound", 512, False), ("published", 24, True)]
)
def test_results_tell_which_prompts_were_cut(
    asking: Make, tmp_path: Path, protocol: str, length: int, cut: bool
) -> None:
    """A long query loses the end of its text ("sound"), or the engine the beginning of all ("published")."""
    long = {"id": "long", "text": "The parcel that I asked for " * 30, "label": "delivery"}
    test = write_rows(tmp_path / "long.jsonl", [long, {**long, "id": "other", "text": "My bill is wrong, " * 30}])
    own = {"name": "long", "pool": tmp_path / "pool.jsonl", "test": test, "shorten": "text"}
    scorer = asking().scorer.replace(")", f", max_length={length})")
    made = asking(tasks=[own], protocol=protocol, scorer=scorer, methods=["random"], draws=1, random_repeats=1)
    report = run(made, tmp_path / "cache")
    cell = RunFolder(report.folder).read_cell(CellName("long", "random", 0, 0, 5))
    assert cell.column("truncated") == [cut, cut]
    assert report.results["cells"][0]["n_truncated"] == 2 * cut
    if cut:
        assert max(cell.column("prompt_tokens")) < length


def test_what_goes_wrong_while_the_next_draw_is_prepared_says_where(asking: Make, tmp_path: Path) -> None:
    """Prompts are built beside the engine, in another thread: an error there ends the run and names the cell."""
    scorer = asking().scorer.replace(")", ", max_length=12)")
    with pytest.raises(PromptError, match=r"^task desk, method random, draw [01]: .*takes \d+ tokens alone"):
        run(asking(scorer=scorer), tmp_path / "cache")
    with pytest.raises(PromptError, match="takes"):  # the folder is free again
        run(asking(scorer=scorer), tmp_path / "cache")


def test_waves_by_hand() -> None:
    turns = [Example(name, "") for name in ("b2", "a1", "b1", "c1", "a2", "a3")]
    before = {"b2": "b1", "a2": "a1", "a3": "a2"}
    assert waves(turns, [before.get(turn.id) for turn in turns]) == [[1, 2, 3], [0, 4], [5]]
    assert waves([], []) == []
    with pytest.raises(DataError, match="follows itself"):
        waves(turns[:2], ["a1", "b2"])


def test_a_dialogue_with_a_hole_is_refused(shared: Path, tmp_path: Path) -> None:
    """Otherwise the turn behind the hole would start from the gold state."""
    folder = tmp_path / "data" / "multiwoz24"
    folder.mkdir(parents=True)
    for part in ("pool", "test"):
        with gzip.open(shared / "data" / "multiwoz24" / f"{part}.jsonl.gz", "rt", encoding="utf-8") as stream:
            lines = stream.readlines()[:40]
        if part == "test":
            del lines[1]
        with gzip.open(folder / f"{part}.jsonl.gz", "wt", encoding="utf-8") as stream:
            stream.writelines(lines)
    content = {"name": "hole", "tasks": ["multiwoz"], "methods": ["random"], "budgets": [3], "encoder": "hash(dim=64)"}
    made = validate({**content, "draws": 1, "data_dir": tmp_path / "data", "output": tmp_path / "run"}, "test")
    with pytest.raises(DataError, match=r"needs the prediction for .*not among the test items. Add the missing turns"):
        run(made, tmp_path / "cache")
