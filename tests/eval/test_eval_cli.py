"""``icl-select eval``: data to stdout, remarks to stderr, exit codes that scripts can read."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml
from eval_helpers import contents, rows, write_rows
from score.fake_server import EVERYTHING, MODEL, FakeServer

from icl_select.cli import run as icl_select
from icl_select.score.tiny import make_tiny_model


@pytest.fixture
def config(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A campaign file beside its data; the current folder is another one."""
    monkeypatch.setenv("ICS_CACHE_DIR", str(tmp_path / "cache"))
    home = tmp_path / "files"
    home.mkdir()
    write_rows(home / "pool.jsonl", rows(60, 1))
    write_rows(home / "test.jsonl", rows(20, 2))
    content = {
        "name": "small",
        "tasks": [{"name": "desk", "pool": "pool.jsonl", "test": "test.jsonl"}],
        "methods": ["random", "max_herding"],
        "budgets": [3, 6],
        "draws": 2,
        "random_repeats": 2,
        "test_size": 12,
        "encoder": "hash(dim=64)",
        "n_resamples": 100,
    }
    path = home / "small.yaml"
    path.write_text(yaml.safe_dump(content), encoding="utf-8")
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    return path


def call(*words: object) -> int:
    return icl_select([str(word) for word in ("eval", *words)])


def test_run_prints_a_table_and_writes_the_folder(config: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert call("run", config, "--workers", 1) == 0
    out, err = capsys.readouterr()
    assert "max_herding" in out
    assert "12 cells to compute." in err
    assert "cannot reach significance" in err
    assert Path("runs/small/report.html").exists()


def test_json_on_stdout_is_results_json(config: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert call("run", config, "-j", 1, "--json", "-o", "out") == 0
    printed = json.loads(capsys.readouterr().out)
    assert printed == json.loads(Path("out/results.json").read_text(encoding="utf-8"))


def test_flags_override_the_file(config: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ("--methods", "random,sub_sa", "--budgets", "4", "-L", 5, "--draws", 3, "--seed", 9, "--scorer", "knn(k=1)")
    assert call("run", config, "-j", 1, "--no-cache", "--json", *words) == 0
    used = json.loads(capsys.readouterr().out)["config"]
    assert used["methods"] == ["random", "sub_sa"]
    assert (used["budgets"], used["test_size"], used["draws"], used["seed"]) == ([4], 5, 3, 9)
    assert used["scorer"] == "knn(k=1)"


def test_the_environment_overrides_the_file(
    config: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("ICS_BUDGETS", "5")
    assert call("run", config, "--dry-run", "--json") == 0
    assert {cell["budget"] for cell in json.loads(capsys.readouterr().out)["cells"]} == {5}


def test_a_dry_run_lists_the_cells_and_computes_nothing(config: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert call("run", config, "--dry-run") == 0
    out, err = capsys.readouterr()
    lines = out.strip().split("\n")
    assert lines[0] == "task\tmethod\tbudget\tdraw\trepeat\tmissing"
    assert lines[1] == "desk\trandom\t3\t0\t0\tTrue"
    assert len(lines) == 13
    assert "12 of 12 cells to compute" in err
    assert not Path("runs").exists()


def test_resume_goes_on_where_it_stopped(config: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert call("run", config, "-j", 1) == 0
    before = contents(Path("runs/small"))
    gone = sorted(Path("runs/small").rglob("*.parquet"))[:5]
    for path in gone:
        path.unlink()
    capsys.readouterr()
    assert call("resume", "runs/small", "-j", 1) == 0
    assert "5 of 12 cells to compute; 7 are there and up to date." in capsys.readouterr().err
    assert contents(Path("runs/small")) == before
    assert call("run", config, "-j", 1, "--resume") == 0
    assert "nothing to compute: all 12 cells are there" in capsys.readouterr().err


def test_resume_needs_something_to_resume(config: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert call("run", config, "--resume") == 1
    assert "holds no interrupted run" in capsys.readouterr().err
    assert call("resume", "nowhere") == 1
    assert "nowhere is no run folder" in capsys.readouterr().err


def test_samples_are_written_as_the_harness_does(config: Path) -> None:
    assert call("run", config, "-j", 1, "--log-samples") == 0
    lines = Path("runs/small/samples/samples_desk.jsonl").read_text(encoding="utf-8").splitlines()
    assert len(lines) == 12 * 12
    sample = json.loads(lines[0])
    expected = {"doc_id", "doc", "target", "resps", "filtered_resps", "doc_hash", "target_hash", "acc", "demo_ids"}
    assert expected | {"demo_scores", "n_shots_effective", "prompt_tokens", "selection_id", "draw_seed"} <= set(sample)
    assert sample["acc"] == float(sample["filtered_resps"] == [sample["target"]])


def test_compare_shows_the_verdicts(config: Path, capsys: pytest.CaptureFixture[str]) -> None:
    call("run", config, "-j", 1)
    capsys.readouterr()
    assert call("compare", "runs/small") == 0
    lines = capsys.readouterr().out.strip().split("\n")
    assert lines[0].startswith("task\tmethod\tbudget\tmetric\tdelta")
    assert [line.split("\t")[1:3] for line in lines[1:]] == [["max_herding", "3"], ["max_herding", "6"]]
    assert call("compare", "runs/small", "--json") == 0
    assert len(json.loads(capsys.readouterr().out)) == 2


def test_compare_two_runs_item_by_item(config: Path, capsys: pytest.CaptureFixture[str]) -> None:
    call("run", config, "-j", 1, "-o", "one", "--draws", 8)
    call("run", config, "-j", 1, "-o", "two", "--draws", 8, "--scorer", "knn(k=1)")
    call("run", config, "-j", 1, "-o", "three", "--draws", 8, "--seed", 4)
    capsys.readouterr()
    assert call("compare", "one", "two", "--json") == 0
    found = json.loads(capsys.readouterr().out)
    assert len(found) == 4  # 2 methods x 2 budgets
    assert {c["n_comparisons"] for c in found} == {4}
    assert {c["baseline"] for c in found} == {"one"}
    means = {}
    for name in ("one", "two"):
        cells = json.loads(Path(name, "results.json").read_text(encoding="utf-8"))["cells"]
        means[name] = {(c["method"], c["budget"]): c["mean"] for c in cells}
    for c in found:
        cell = (c["method"], c["budget"])
        assert c["delta"] == pytest.approx(means["two"][cell] - means["one"][cell])
    assert call("compare", "one", "one", "--fail-on-worse") == 0
    assert call("compare", "one", "three") == 1
    assert "holds other test items" in capsys.readouterr().err


def test_fail_on_worse_is_a_gate(config: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A scorer that always names the class of the nearest message against one that is always wrong."""
    call("run", config, "-j", 1, "-o", "good", "--draws", 8)
    call("run", config, "-j", 1, "-o", "bad", "--draws", 8)
    from icl_select.eval.store import CellName, ItemResult, RunFolder

    store = RunFolder(Path("bad"))
    for path in sorted(Path("bad/cells").rglob("*.parquet")):
        method, (budget, draw, repeat) = path.parent.name, (int(p[1:]) for p in path.stem.split("-"))
        name = CellName("desk", method, draw, repeat, budget)
        cell = store.read_cell(name)
        wrong = [
            ItemResult(i, "", r, 0.0, (), ()) for i, r in zip(cell.item_ids, cell.column("reference"), strict=True)
        ]
        store.write_cell(name, "any", cell.picks, wrong, {})
    capsys.readouterr()
    assert call("compare", "good", "bad") == 0
    assert call("compare", "good", "bad", "--fail-on-worse") == 100
    assert "worse than the baseline:\n  desk, " in capsys.readouterr().err


def test_reports_in_every_format(config: Path, capsys: pytest.CaptureFixture[str]) -> None:
    call("run", config, "-j", 1)
    capsys.readouterr()
    for form, start in (("html", "<!doctype html>"), ("md", "#"), ("json", "{"), ("text", "acc in percent")):
        assert call("report", "runs/small", "--format", form) == 0
        assert capsys.readouterr().out.lower().startswith(start)
    assert call("report", "runs/small", "--format", "md", "-o", "deep/report.md") == 0
    assert Path("deep/report.md").read_text(encoding="utf-8") == Path("runs/small/report.md").read_text(
        encoding="utf-8"
    )
    assert call("report", "nowhere") == 1
    assert "holds no readable results.json" in capsys.readouterr().err


def test_the_benchmarks_are_listed(capsys: pytest.CaptureFixture[str]) -> None:
    assert call("tasks") == 0
    assert "mrpc\tacc\t2\tmrpc\tnyu-mll/glue" in capsys.readouterr().out
    assert call("tasks", "--json") == 0
    assert len(json.loads(capsys.readouterr().out)) == 10


def test_the_schema_is_printed(capsys: pytest.CaptureFixture[str]) -> None:
    assert call("schema") == 0
    assert json.loads(capsys.readouterr().out)["title"] == "icl-select campaign"


@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        (("run",), 2, "CONFIG"),
        (("run", "none.yaml"), 1, "there is no campaign file none.yaml"),
        (("run", "knn-nine"), 1, "Did you mean 'knn_nine'?"),
        (("run", "folder/none.yaml"), 1, "cannot read the campaign file folder/none.yaml"),
        (("run", "{config}", "--drwas", "3"), 2, "--drwas"),
        (("run", "{config}", "--draws", "few"), 2, "few"),
        (("run", "{config}", "--tasks", "mprc"), 1, "unknown task 'mprc'. Did you mean 'mrpc'?"),
        (("run", "{config}", "--methods", "rndom"), 1, "Did you mean 'random'?"),
        (("run", "{config}", "--tasks", "mrpc", "--data-dir", "none"), 1, "there is no folder"),
        (("report", "x", "--format", "pdf"), 2, "pdf"),
    ],
)
def test_wrong_usage_and_errors(
    config: Path, capsys: pytest.CaptureFixture[str], words: tuple[str, ...], code: int, message: str
) -> None:
    assert call(*(word.replace("{config}", str(config)) for word in words)) == code
    captured = capsys.readouterr()
    assert message in captured.out + captured.err
    assert "Traceback" not in captured.err


def test_a_shipped_campaign_goes_by_its_name(config: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert call("run", "demo", "--encoder", "hash", "--dry-run", "--json") == 0
    assert {cell["task"] for cell in json.loads(capsys.readouterr().out)["cells"]} == {"support"}
    Path("demo").write_text(
        config.read_text(encoding="utf-8")
        .replace("pool.jsonl", str(config.parent / "pool.jsonl"))
        .replace("test.jsonl", str(config.parent / "test.jsonl")),
        encoding="utf-8",
    )
    assert call("run", "demo", "--dry-run", "--json") == 0
    assert {cell["task"] for cell in json.loads(capsys.readouterr().out)["cells"]} == {"desk"}, "a file comes first"


def test_json_on_every_command_is_json_alone(config: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert call("run", config, "--workers", 1, "--json") == 0
    results = json.loads(capsys.readouterr().out)
    folder = "runs/small"
    for words in (["resume", folder], ["report", folder]):
        assert call(*words, "--json") == 0
        assert json.loads(capsys.readouterr().out) == results
    for words in (["compare", folder], ["tasks"], ["schema"], ["run", config, "--dry-run"]):
        assert call(*words, "--json") == 0
        json.loads(capsys.readouterr().out)


def test_a_paid_model_is_priced_before_and_capped_during_the_run(
    config: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The cap ends the run with what it had; a higher one goes on from there and pays for nothing twice."""
    monkeypatch.setenv("OPENAI_API_KEY", "sk-test")
    tokenizer = pytest.importorskip("transformers").AutoTokenizer.from_pretrained(
        make_tiny_model(config.parent / "tiny")
    )
    with FakeServer(tokenizer, EVERYTHING) as server:
        scorer = f"openai(model={MODEL!r}, url={server.url!r}, served='fake', price_in=10.0, price_out=10.0"
        words = ("run", config, "--methods", "random", "--budgets", "4", "-L", 4)
        content = yaml.safe_load(config.read_text(encoding="utf-8"))
        config.write_text(yaml.safe_dump(content | {"prompt": {"tokenizer": "utf8"}}), encoding="utf-8")
        assert call(*words, "--scorer", f"{scorer}, max_spend=0.02)") == 1
        err = capsys.readouterr().err
        assert "estimated cost: " in err
        assert "max_spend" in err.splitlines()[-1]
        paid = len(server.seen)
        assert paid > 0
        assert call(*words, "--scorer", f"{scorer}, max_spend=5)") == 0
        first = len(server.seen)
        assert call(*words, "--scorer", f"{scorer}, max_spend=5)", "-o", "again") == 0
        assert len(server.seen) == first
    assert contents(Path("runs/small")) == contents(Path("again"))


def test_a_chat_server_without_log_probabilities(
    config: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Answers are constrained to the labels; what a server says instead is wrong, counted, and stops nothing."""
    monkeypatch.setenv("OPENAI_API_KEY", "sk-test")
    tokenizer = pytest.importorskip("transformers").AutoTokenizer.from_pretrained(
        make_tiny_model(config.parent / "tiny")
    )
    content = yaml.safe_load(config.read_text(encoding="utf-8"))
    config.write_text(yaml.safe_dump(content | {"prompt": {"tokenizer": "utf8", "chat": True}}), encoding="utf-8")
    with FakeServer(tokenizer, EVERYTHING) as server:
        scorer = f"openai(model={MODEL!r}, url={server.url!r}, served='fake', chat=True, mode='chat')"
        words = ("run", config, "--methods", "random", "--budgets", "4", "-L", 4, "--scorer", scorer, "--json")
        assert call(*words) == 0
        cell = json.loads(capsys.readouterr().out)["cells"][0]
        assert (cell["n_outside"], cell["n_empty"]) == (0, 0)
        server.said = "I would rather not"
        assert call(*words, "-o", "refused", "--seed", "5") == 0
        cell = json.loads(capsys.readouterr().out)["cells"][0]
        assert cell["mean"] == 0
        assert cell["n_outside"] == 2 * 2 * 4  # every item of 2 repeats in 2 draws
