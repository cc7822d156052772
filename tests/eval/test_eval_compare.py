"""From per-item results to verdicts: what is compared, in which family, with which evidence."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from icl_select.errors import ConfigError
from icl_select.eval import runner
from icl_select.eval.compare import comparison_entry
from icl_select.eval.config import Campaign
from icl_select.eval.store import CellName, RunFolder
from icl_select.eval.versus import compare_runs
from icl_select.stats import compare, holm

Make = Callable[..., Campaign]


def run(campaign: Campaign) -> runner.RunReport:
    return runner.run(campaign, cache=False, progress=False)


def two_tasks(tmp_path: Path) -> list[dict[str, Any]]:
    files = {"pool": tmp_path / "pool.jsonl", "test": tmp_path / "test.jsonl"}
    return [{"name": name, **files} for name in ("one", "two")]


@pytest.mark.parametrize(("family", "size"), [("campaign", 8), ("task", 4)])
def test_the_family_of_holm(campaign: Make, tmp_path: Path, family: str, size: int) -> None:
    """2 tasks x 2 methods x 2 budgets: one family of eight, or one of four for each task."""
    small = campaign(tasks=two_tasks(tmp_path), methods=["random", "sub_sa", "max_herding"], family=family)
    comparisons = run(small).results["comparisons"]
    assert [c["n_comparisons"] for c in comparisons] == [size] * 8
    for start in range(0, 8, size):
        part = comparisons[start : start + size]
        assert [c["p_adjusted"] for c in part] == pytest.approx(holm([c["p_value"] for c in part]).tolist())


def test_a_comparison_is_paired_by_draw_and_item(campaign: Make) -> None:
    """The effect is the mean over draws of the mean over items of method minus mean of the random repeats."""
    small = campaign(draws=6)
    report = run(small)
    store = RunFolder(report.folder)
    found = next(c for c in report.results["comparisons"] if c["budget"] == 6)
    effects = []
    for draw in range(6):
        ours = store.read_cell(CellName("desk", "max_herding", draw, 0, 6)).scores
        base = [store.read_cell(CellName("desk", "random", draw, repeat, 6)).scores for repeat in range(2)]
        effects.append((ours - np.mean(base, axis=0)).mean())
    assert found["delta"] == found["effect"] == pytest.approx(np.mean(effects))
    assert (found["baseline"], found["candidate"], found["metric"]) == ("random", "max_herding", "acc")
    assert (found["n_draws"], found["n_items"], found["n_repeats"]) == (6, 12, 2)
    assert found["ci"]["low"] <= found["delta"] <= found["ci"]["high"]
    assert found["overlap"] > 0  # half of the pool in each draw: picks recur
    assert found["seed"] >= 0


def test_the_power_asked_for_is_the_power_stated(campaign: Make) -> None:
    usual = run(campaign(draws=8)).results["comparisons"]
    strict = run(campaign(draws=8, power=0.95)).results["comparisons"]
    for a, b in zip(usual, strict, strict=True):
        assert (a["power"], b["power"]) == (0.8, 0.95)
        assert b["detectable_difference"] > a["detectable_difference"]


def test_curves_hold_every_budget_and_the_smallest_that_is_enough(campaign: Make) -> None:
    results = run(campaign(budgets=[2, 4, 8])).results
    for curve in results["curves"]:
        assert [point["budget"] for point in curve["points"]] == [2, 4, 8]
        assert curve["smallest_sufficient_budget"] in (2, 4, 8)
        for point in curve["points"]:
            cell = next(c for c in results["cells"] if (c["method"], c["budget"]) == (curve["method"], point["budget"]))
            assert cell["mean"] == pytest.approx(point["mean"])
            assert cell["ci"] == point["ci"]


def test_the_harness_part_has_its_keys(campaign: Make) -> None:
    entry = run(campaign()).results["results"]["desk"]
    assert entry["alias"] == "desk"
    assert 0 <= entry["acc,none"] <= 1
    assert entry["acc_stderr,none"] >= 0
    assert (entry["method"], entry["budget"]) == ("max_herding", 6)
    assert entry["n-samples"] == {"original": 20, "effective": 36}
    assert entry["higher_is_better"] == {"acc": True}


def test_the_majority_rate_stands_beside_the_scores(campaign: Make, tmp_path: Path) -> None:
    from eval_helpers import rows, write_rows

    test = [{**row, "label": "login"} for row in rows(15, 2)] + [{**row, "label": "billing"} for row in rows(5, 3)]
    write_rows(tmp_path / "test.jsonl", test)
    about = run(campaign(test_size=20)).results["tasks"]["desk"]
    assert (about["majority_label"], about["majority_rate"]) == ("login", 0.75)
    assert (about["n_pool_file"], about["n_pool_draw"], about["n_choices"]) == (60, 30, 3)


def test_the_design_says_what_cannot_be_shown(campaign: Make) -> None:
    design = run(campaign(draws=3)).results["design"]
    assert design["smallest_p"] == 0.25
    assert not design["reachable"]
    assert design["n_comparisons"] == 2
    assert design["tasks"]["desk"]["pool_overlap"] == pytest.approx(0.5, abs=0.2)
    assert any("cannot reach significance" in note for note in design["notes"])
    assert run(campaign(draws=8)).results["design"]["reachable"]


def test_a_baseline_alone_has_scores_and_no_comparison(campaign: Make) -> None:
    results = run(campaign(methods=["random"])).results
    assert results["comparisons"] == []
    assert results["design"]["n_comparisons"] == 0
    assert len(results["cells"]) == 2


def test_an_unfinished_run_is_not_compared(campaign: Make, tmp_path: Path) -> None:
    done, changed = campaign(output=tmp_path / "a"), campaign(output=tmp_path / "b")
    run(done)
    run(changed)
    store = RunFolder(changed.folder)
    store.write_json(store.path / "campaign.json", campaign(output=tmp_path / "b", seed=3).model_dump(mode="json"))
    with pytest.raises(ConfigError, match="was asked for another configuration since its results were written"):
        compare_runs(done.folder, changed.folder)


def test_intervals_stay_where_differences_can_lie() -> None:
    """Two draws that disagree give an interval of hundreds of points; a difference of shares is at most 100."""
    ours = [np.array([1.0, 1.0, 1.0, 0.0]), np.array([0.0, 1.0, 0.0, 0.0])]
    base = [np.zeros((1, 4)), np.array([[1.0, 0.0, 1.0, 0.0]])]
    ids = [["a", "b", "c", "d"], ["e", "f", "g", "h"]]
    found = compare(ours, base, item_ids=ids, picks=[("p",), ("q",)], seed=0)
    whole = found.to_dict()["ci"]
    assert whole["low"] < -1
    assert whole["high"] > 1
    entry = comparison_entry({"task": "t"}, found, power=0.8)
    assert (entry["ci"]["low"], entry["ci"]["high"]) == (-1.0, 1.0)
    assert entry["delta"] == pytest.approx(0.25)
