"""Published figures: files that say where they were read, marks, and ours beside theirs. Figures here are invented."""

from __future__ import annotations

import copy
import json
import re
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import yaml

from icl_select.errors import ConfigError, ParameterError
from icl_select.eval._yaml import find_config
from icl_select.eval.config import Campaign, load_campaign
from icl_select.eval.figures import Figures, figure_names, find_figures, load_figures
from icl_select.eval.marks import marks, supposed_runs
from icl_select.eval.published import attach, compare_with_published, figures_key
from icl_select.eval.published_cli import published
from icl_select.stats import Summary, holm, welch

ROOT = Path(__file__).resolve().parents[2]
CAMPAIGNS = sorted((ROOT / "configs" / "published").glob("*.yaml"))

INVENTED: dict[str, Any] = {
    "title": "An invented table",
    "source": {"paper": "Nobody, Nothing (invented for tests)", "read": "nowhere"},
    "units": "percent",
    "decimals": 1,
    "sd_decimals": 1,
    "runs": 3,
    "baseline": "Random",
    "tasks": {"MRPC": {"task": "mrpc", "metric": "acc"}, "Poems": {"task": None, "metric": "acc"}},
    "methods": {"Random": "random", "Vote-k": "vote_k(stage='full')", "Fast": "vote_k(stage='graph')", "Ours": None},
    "models": {"GPT-J": ["EleutherAI/gpt-j-6b"], "Gone": []},
    "embeddings": {"SBERT": ["sentence-transformers/paraphrase-mpnet-base-v2"]},
    "model": "GPT-J",
    "embedding": "SBERT",
    "cells": [
        {"task": "MRPC", "budget": 18, "method": "Random", "mean": 60.0, "sd": 2.0},
        {"task": "MRPC", "budget": 18, "method": "Vote-k", "mean": 75.0, "sd": 1.0},
        {"task": "MRPC", "budget": 18, "method": "Fast", "mean": 61.0, "max": 63.0, "min": 60.0},
        {"task": "MRPC", "budget": 18, "method": "Ours", "mean": 55.0},
        {"task": "MRPC", "budget": 100, "method": "Vote-k", "mean": 75.0, "sd": 1.0, "runs": 1},
        {"task": "MRPC", "budget": 100, "method": "Fast", "mean": 75.0, "sd": 1.0},
        {"task": "Poems", "budget": 18, "method": "Vote-k", "mean": 75.0, "sd": 1.0},
        {"task": "MRPC", "budget": 18, "method": "Vote-k", "mean": 80.0, "sd": 1.0, "model": "Gone"},
    ],
}


def invented(**changes: Any) -> Figures:
    return Figures.model_validate({**copy.deepcopy(INVENTED), **changes})


def write(tmp_path: Path, content: dict[str, Any]) -> Path:
    path = tmp_path / "figures.yaml"
    path.write_text(yaml.safe_dump(content), encoding="utf-8")
    return path


def cell(method: str, mean: float, sd: float | None, budget: int = 18, draws: int = 3) -> dict[str, Any]:
    place = {"task": "mrpc", "method": method, "budget": budget, "metric": "acc"}
    return {**place, "mean": mean, "sd": sd, "n_draws": draws, "n_repeats": 1}


def run(*cells: dict[str, Any], **config: Any) -> dict[str, Any]:
    scorer = "vllm(dtype='float16', model='EleutherAI/gpt-j-6B')"
    encoder = "sentence-transformers/paraphrase-mpnet-base-v2@0123456"
    return {"config": {"scorer": scorer, "encoder": encoder, **config}, "cells": list(cells)}


# --- files of figures


@pytest.mark.parametrize("name", figure_names())
def test_shipped_figures_say_where_they_were_read_or_why_they_are_missing(name: str) -> None:
    figures = load_figures(name)
    assert figures.source.paper
    assert (figures.source.read is not None) == bool(figures.cells)
    assert figures.cells or figures.missing
    assert load_figures(find_figures(f"{name}.yaml")) == figures


def test_the_five_tables_that_could_not_be_read_are_listed_as_missing() -> None:
    assert [item.what for item in load_figures("reexamination").missing] == [
        *(f"Table {i}" for i in (1, 2, 3, 4)),
        "Table C.1",
    ]


def test_the_transcribed_tables_are_whole() -> None:
    table = load_figures("votek_table2")
    places = {(c.task, c.budget, c.method) for c in table.cells}
    assert len(table.cells) == len(places) == 10 * 2 * 2
    assert len(load_figures("votek_table5").cells) == 3 * 6
    assert len(load_figures("lmdpp_table1").cells) == 9 * 2 * 5 * 2
    # Table 5 repeats the cells of Table 2 at 100 labels.
    words = {"HellaSwag": "HSwag", "SST-5": "SST-5", "MWoZ": "MWoZ"}
    known = {(c.task, c.method): c.mean for c in table.cells if c.budget == 100}
    for c in load_figures("votek_table5").cells:
        if c.method in ("Random", "Vote-k"):
            assert c.mean == known[words[c.task], c.method]


def test_one_cell_of_the_transcribed_table_cannot_be_as_printed() -> None:
    table = load_figures("votek_table2")
    untested = {table.name(c): table.summary(c) for c in table.cells if isinstance(table.summary(c), str)}
    assert list(untested) == ["cell SST-5, 18, Random, GPT-J"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"unit": "percent"}, "unknown key 'unit'. Did you mean 'units'?"),
        ({"units": "fraction"}, "units are fraction, but a mean is 80. Write units: percent."),
        ({"cells": [], "missing": []}, "neither cells nor missing are given"),
        ({"source": {"paper": "x"}}, "source.read is null, but there are cells"),
        ({"source": {"read": "x"}}, "source.paper is missing"),
        ({"baseline": "Chance"}, "'Chance' is none of the methods"),
        ({"methods": {"Random": "randm"}}, "unknown method 'randm'. Did you mean 'random'?"),
        ({"tasks": {"MRPC": {"task": "mrpc", "metric": "accu"}}}, "unknown metric 'accu'"),
        ({"model": "GPT-K"}, "model 'GPT-K' is not listed under models. Add what it stands for."),
    ],
)
def test_a_bad_file_is_refused_with_its_reason(tmp_path: Path, change: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=re.escape(message)):
        load_figures(write(tmp_path, {**copy.deepcopy(INVENTED), **change}))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"mean": 0.6}, None),
        ({"mean": 120.0}, "cell MRPC, 18, Random, GPT-J: mean 120 lies outside 0 to 100"),
        ({"mean": float("nan")}, "finite number"),
        ({"sd": -1.0}, "greater than or equal to 0"),
        ({"max": 61.0}, "give max and min together"),
        ({"max": 50.0, "min": 61.0}, "min 61 lies above max 50"),
        ({"method": "Vote-k"}, "cell MRPC, 18, Vote-k, GPT-J stands twice"),
        ({"budgets": 18}, "unknown key 'cells.0.budgets'. Did you mean 'budget'?"),
    ],
)
def test_a_bad_cell_is_named(tmp_path: Path, change: dict[str, Any], message: str | None) -> None:
    content = copy.deepcopy(INVENTED)
    content["cells"][0].update(change)
    if message is None:
        assert load_figures(write(tmp_path, content)).cells[0].mean == 0.6
        return
    with pytest.raises(ConfigError, match=re.escape(message)):
        load_figures(write(tmp_path, content))


def test_percent_of_at_most_one_is_taken_for_a_slip() -> None:
    cells = [{"task": "MRPC", "budget": 18, "method": "Random", "mean": 0.6}]
    with pytest.raises(ValueError, match=r"units are percent, but the largest mean is 0\.6"):
        invented(cells=cells)
    assert invented(cells=cells, units="fraction").scale == 1.0


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="Did you mean 'votek_table2'"):
        find_figures("votek_tabel2")
    with pytest.raises(ConfigError, match="cannot read the file of published figures"):
        load_figures(tmp_path / "none.yaml")


def test_what_cannot_be_tested_says_why() -> None:
    def said(**changes: Any) -> Summary | str:
        base = {"task": "MRPC", "budget": 18, "method": "Random", "mean": 60.0}
        head = {key: changes.pop(key) for key in ("runs", "sd_divisor") if key in changes}
        return invented(cells=[{**base, **changes}], **head).summary(invented(cells=[{**base, **changes}]).cells[0])

    assert said() == "no standard deviation is printed"
    assert said(sd=1.0, runs=None) == "the number of runs is not given"
    assert said(sd=1.0, runs=1) == "a single run has no spread"
    assert said(max=61.0, min=59.0, runs=5) == (
        "maximum and minimum of 5 runs do not give their standard deviation (those of three do)"
    )
    assert said(max=65.0, min=60.0) == "no 3 runs have mean 60, maximum 65 and minimum 60"
    printed, corrected = said(sd=2.0), said(sd=2.0, sd_divisor="n")
    assert isinstance(printed, Summary)
    assert isinstance(corrected, Summary)
    assert (printed.mean, printed.sd, printed.sd_low, printed.sd_high) == pytest.approx((0.6, 0.02, 0.0195, 0.0205))
    assert corrected.sd == pytest.approx(0.02 * (3 / 2) ** 0.5)


# --- marks


def test_marks_by_hand() -> None:
    """Two cells can be tested: 75 ± 1 and 61 ± 1.73 (runs 60, 60, 63) against 60 ± 2."""
    found = marks(invented())
    by_place = {(c["method"], c["budget"], c["task"], c["model"]): c for c in found["cells"]}
    assert found["n_tested"] == 2
    for n in (3, 5, 10):
        p = [welch(75, 1, n, 60, 2, n).p_value, welch(61, 3**0.5, n, 60, 2, n).p_value]
        full, fast = (by_place[m, 18, "MRPC", "GPT-J"]["at"][str(n)] for m in ("Vote-k", "Fast"))
        assert [full["p_adjusted"], fast["p_adjusted"]] == pytest.approx(holm(p).tolist())
        assert (full["verdict"], fast["verdict"]) == ("better", "no evidence")
        assert full["mark"] == "+"
    assert by_place["Vote-k", 18, "MRPC", "GPT-J"]["delta"] == 0.15
    reasons = {place: c["reason"] for place, c in by_place.items() if c["reason"]}
    assert reasons["Ours", 18, "MRPC", "GPT-J"] == "no standard deviation is printed"
    assert reasons["Vote-k", 100, "MRPC", "GPT-J"] == "a single run has no spread"
    assert reasons["Fast", 100, "MRPC", "GPT-J"] == "the table has no random selection to compare with"
    assert found["summary"]["3"]["better"] == 1
    json.dumps(found, allow_nan=False)


def test_what_a_cell_needs_falls_with_the_number_of_runs() -> None:
    (first, *_) = [c for c in marks(invented())["cells"] if c["reason"] is None]
    needs = [first["at"][n]["smallest_shown"] for n in ("3", "5", "10")]
    finds = [first["at"][n]["detectable_difference"] for n in ("3", "5", "10")]
    assert needs == sorted(needs, reverse=True)
    assert all(find > need for find, need in zip(finds, needs, strict=True))


def test_cells_without_any_spread_are_not_tested() -> None:
    cells = [
        {"task": "MRPC", "budget": 18, "method": method, "mean": mean, "sd": 0.0}
        for method, mean in (("Random", 60.0), ("Fast", 70.0))
    ]
    found = marks(invented(cells=cells))
    assert [c["reason"] for c in found["cells"]] == ["both standard deviations are printed as 0"]
    assert (found["n_tested"], found["summary"]) == (0, {})


def test_the_runs_of_the_table_are_among_those_supposed() -> None:
    assert supposed_runs(invented(runs=4)) == (3, 4, 5, 10)
    assert supposed_runs(invented(runs=1)) == supposed_runs(invented(runs=None)) == (3, 5, 10)


# --- ours beside theirs


def test_ours_beside_theirs_by_hand() -> None:
    results = run(
        cell("random", 0.50, 0.01, draws=5),
        cell("vote_k(stage='full', variant='official')", 0.76, 0.02),
        cell("vote_k", 0.61, 0.02),
        cell("vote_k(stage='graph')", 0.76, 0.02, budget=100),
    )
    found = {(c["method"], c["budget"]): c for c in compare_with_published(results, invented()) if c["ours"]}
    full = found["vote_k(stage='full', variant='official')", 18]
    p = [
        welch(0.50, 0.01, 5, 0.60, 0.02, 3).p_value,
        welch(0.76, 0.02, 3, 0.75, 0.01, 3).p_value,
        welch(0.61, 0.02, 3, 0.61, 0.03**0.5 / 10, 3).p_value,
        welch(0.76, 0.02, 3, 0.75, 0.01, 3).p_value,
    ]
    tested = [found[place] for place in (("random", 18), (full["method"], 18), ("vote_k", 18))]
    tested.append(found["vote_k(stage='graph')", 100])
    assert [c["p_adjusted"] for c in tested] == pytest.approx(holm(p).tolist())
    assert [c["verdict"] for c in tested] == ["lower", "no evidence", "no evidence", "no evidence"]
    assert found["random", 18]["ours"] == {"mean": 0.50, "sd": 0.01, "runs": 5}
    assert full["delta"] == 0.01
    assert full["theirs"]["mean"] == 0.75
    assert full["n_comparisons"] == 4
    json.dumps(list(found.values()), allow_nan=False)


def test_every_published_cell_is_accounted_for() -> None:
    figures = invented()
    found = compare_with_published(run(cell("random", 0.5, 0.01)), figures)
    assert len(found) == len(figures.cells)
    reasons = {(c["published_as"]["method"], c["budget"], c["published_as"]["task"]): c["reason"] for c in found}
    assert reasons["Random", 18, "MRPC"] is None
    assert reasons["Fast", 18, "MRPC"] == "not in this run"
    assert reasons["Ours", 18, "MRPC"] == "Ours is none of our methods"
    assert reasons["Vote-k", 18, "Poems"] == "Poems is none of our tasks"
    assert found[-1]["reason"] == "another model: ours EleutherAI/gpt-j-6B, theirs Gone"


@pytest.mark.parametrize(
    ("config", "reason"),
    [
        ({"scorer": "knn"}, "another model: ours knn, theirs GPT-J"),
        ({"scorer": "vllm(model='Qwen/Qwen2.5-7B')"}, "another model: ours Qwen/Qwen2.5-7B, theirs GPT-J"),
        ({"encoder": "minilm"}, "another embedding: ours minilm, theirs SBERT"),
    ],
)
def test_another_model_or_embedding_is_never_set_beside(config: dict[str, str], reason: str) -> None:
    (first, *_) = compare_with_published(run(cell("random", 0.5, 0.01), **config), invented())
    assert (first["ours"], first["reason"]) == (None, reason)


def test_a_folder_with_the_name_of_the_model_is_that_model() -> None:
    results = run(cell("random", 0.5, 0.01), scorer="transformers(model='models/GPT-J-6B/')")
    assert compare_with_published(results, invented())[0]["verdict"] == "lower"


def test_both_variants_of_a_method_are_shown() -> None:
    names = ["vote_k(stage='full', variant='official')", "vote_k(stage='full')"]
    found = compare_with_published(run(*(cell(name, 0.7, 0.01) for name in names)), invented())
    assert [c["method"] for c in found if c["ours"]] == names


def test_ours_that_cannot_be_tested_says_why() -> None:
    single = compare_with_published(run(cell("random", 0.5, None, draws=1)), invented())[0]
    assert (single["reason"], single["delta"]) == ("ours: a single run has no spread", -0.1)
    figures = invented(cells=[{"task": "MRPC", "budget": 18, "method": "Random", "mean": 60.0}])
    assert compare_with_published(run(cell("random", 0.5, 0.01)), figures)[0]["reason"] == (
        "theirs: no standard deviation is printed"
    )
    other = {**cell("random", 0.5, 0.01), "metric": "macro_f1"}
    assert compare_with_published(run(other), invented())[0]["reason"] == "another metric: ours macro_f1, theirs acc"


def test_scores_in_percent_are_refused() -> None:
    with pytest.raises(ConfigError, match="is 50, no fraction from 0 to 1"):
        compare_with_published(run(cell("random", 50.0, 1.0)), invented())


def test_attach_adds_what_the_campaign_names(tmp_path: Path) -> None:
    results = run(cell("random", 0.5, 0.01))
    nothing = SimpleNamespace(published=None, alpha=0.05, power=0.8)
    assert attach(results, nothing) == results
    assert figures_key(nothing) is None
    path = write(tmp_path, INVENTED)
    campaign = SimpleNamespace(published=str(path), alpha=0.05, power=0.8)
    found = attach(results, campaign)
    assert found["published"]["title"] == "An invented table"
    assert found["published"]["marks"]["runs"] == [3, 5, 10]
    assert "published" not in results
    key = figures_key(campaign)
    write(tmp_path, {**INVENTED, "title": "Another"})
    assert figures_key(campaign) != key
    missing = attach(results, SimpleNamespace(published="reexamination", alpha=0.05, power=0.8))["published"]
    assert (missing["comparisons"], missing["marks"]["cells"], len(missing["missing"])) == ([], [], 5)


# --- shipped campaigns and the command


@pytest.mark.skipif("published" not in Campaign.model_fields, reason="campaigns do not name published figures yet")
@pytest.mark.parametrize("path", CAMPAIGNS, ids=lambda path: path.stem)
def test_shipped_campaigns_are_valid_and_name_figures_that_exist(path: Path) -> None:
    assert find_config(path.stem).read_bytes() == path.read_bytes()
    campaign = load_campaign(path)
    assert campaign.name == path.stem
    assert (campaign.protocol, campaign.prompt.tokenizer, campaign.random_repeats) == ("published", "gpt2", 1)
    figures = load_figures(str(campaign.published))
    results = {
        "config": {"scorer": campaign.scorer, "encoder": campaign.encoder},
        "cells": [
            {"task": task, "method": method, "budget": budget, "metric": metric, "mean": 0.5, "sd": 0.1, "n_draws": 3}
            for task in campaign.task_list
            for method in campaign.methods
            for budget in campaign.budgets
            for metric in [{"xsum": "rouge_l"}.get(task, "acc")]
        ],
    }
    found = compare_with_published(results, figures)
    if figures.cells:
        assert sum(c["ours"] is not None for c in found) == len(results["cells"]), "every cell has its published one"


def test_the_command_lists_and_marks(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert published() == 0
    listed = capsys.readouterr().out
    assert "votek_table2" in listed
    assert "Table C.1" in listed
    path = str(write(tmp_path, INVENTED))
    assert published(path, as_json=True) == 0
    assert json.loads(capsys.readouterr().out)["marks"]["summary"]["10"]["better"] == 1
    assert published(path, runs="3") == 0
    out = capsys.readouterr()
    assert "+\tbetter" in out.out
    assert "not tested: a single run has no spread" in out.out
    assert "3 runs: 1 better, 0 worse, 1 no evidence" in out.err
    assert published("reexamination") == 0
    assert "missing: Table C.1. The paper was not found" in capsys.readouterr().err


@pytest.mark.parametrize("runs", ["1", "3,x", ""])
def test_the_command_refuses_numbers_of_runs_that_cannot_be(runs: str) -> None:
    with pytest.raises(ParameterError, match="--runs"):
        published("votek_table2", runs=runs)


# --- docs/published.md


def test_the_page_shows_the_marks_that_are_computed() -> None:
    def spread(values: dict[str, float]) -> str:
        return " / ".join(">100" if values[k] > 1 else f"{100 * values[k]:.1f}" for k in ("least", "median", "most"))

    rows = []
    for name in ("votek_table2", "lmdpp_table1"):
        figures = load_figures(name)
        for n, s in marks(figures, supposed_runs(figures))["summary"].items():
            counts = " | ".join(str(s[verdict]) for verdict in ("better", "worse", "no evidence"))
            ranges = f"{spread(s['smallest_shown'])} | {spread(s['detectable_difference'])}"
            rows.append(f"| `{name}` | {n} | {counts} | {ranges} |")
    page = (ROOT / "docs" / "published.md").read_text(encoding="utf-8")
    shown = page.partition("<!-- marks:")[2].partition("<!-- /marks -->")[0]
    assert [line for line in shown.splitlines() if line.startswith("| `")] == rows


def test_the_page_counts_cells_without_adjustment_right() -> None:
    def below(name: str, n: int) -> list[float]:
        cells = [c for c in marks(load_figures(name), (n,))["cells"] if c["at"]]
        return [c["delta"] for c in cells if c["at"][str(n)]["p_value"] <= 0.05]

    page = (ROOT / "docs" / "published.md").read_text(encoding="utf-8")
    votek, lmdpp = below("votek_table2", 3), below("lmdpp_table1", 4)
    said = " ".join(page.split())
    assert f"without adjustment {len(votek)} of 19 are below 5%" in said
    better = sum(delta > 0 for delta in lmdpp)
    assert f"without adjustment {len(lmdpp)} are below 5% ({better} better, {len(lmdpp) - better} worse)" in said
    assert all(cell["delta"] > 0 for cell in marks(load_figures("votek_table2"), ())["cells"])


def test_the_page_counts_the_cells_of_every_campaign() -> None:
    page = (ROOT / "docs" / "published.md").read_text(encoding="utf-8")
    for path in CAMPAIGNS:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
        cells = len(content["tasks"]) * len(content["methods"]) * len(content["budgets"]) * content["draws"]
        row = rf"^\| [^|]*`{path.stem}`[^|]*\|[^|]*\| {cells}( each)? \| {cells * 256:,}( each)? \|"
        assert re.search(row, page, flags=re.MULTILINE), path.stem


def test_the_example_of_the_page_is_a_valid_file(tmp_path: Path) -> None:
    page = (ROOT / "docs" / "published.md").read_text(encoding="utf-8")
    path = tmp_path / "example.yaml"
    path.write_text(page.partition("```yaml\n")[2].partition("```")[0], encoding="utf-8")
    assert marks(load_figures(path))["n_tested"] == 1
