"""The calibration benchmarks: how they judge a rate, and that real campaigns are scored as campaigns are."""

from __future__ import annotations

import importlib
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy import stats as scipy_stats

from icl_select.retrieve import Retriever
from icl_select.score import KnnScorer
from icl_select.types import Demonstration, ScoreItem

BENCHMARKS = Path(__file__).resolve().parents[2] / "benchmarks"


@pytest.fixture
def real(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    return importlib.import_module("calibration_real")


@pytest.fixture
def rates(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    return importlib.import_module("_rates")


def test_a_rate_is_judged_by_its_interval_and_its_chance(rates: Any) -> None:
    """Of 1,000 at 5%: the 95% interval of 64 still reaches 5%, that of 65 lies above; 75 is beyond chance."""
    for events, says in ((20, "yes, below"), (50, "yes"), (64, "yes"), (65, "within chance (p=0.021)")):
        assert rates.judge([(events, 1000, 0.05)]) == (True, says)
        low = scipy_stats.binomtest(events, 1000).proportion_ci(0.95).low
        assert (low > 0.05) == says.startswith("within")
    holds, says = rates.judge([(75, 1000, 0.05)])
    assert not holds
    assert says.startswith("NO")
    assert rates.judge([(0, 1000, 0.05), (66, 1000, 0.05)])[1].startswith("within")  # the worst claim decides
    assert rates.judge([(0, 1000, 0.05), (50, 1000, 0.05)]) == (True, "yes")


def synthetic(real: Any, *, n: int = 240, q: int = 300, votes: bool = True) -> Any:
    rng = np.random.default_rng(8)
    centres = 2.0 * rng.normal(size=(5, 12))
    cluster = rng.integers(5, size=n + q)
    x = (centres[cluster] + rng.normal(size=(n + q, 12)) + 3.0).astype(np.float32)
    labels = np.where(rng.random(n + q) < 0.2, rng.integers(5, size=n + q), cluster).astype(str)
    ids = [f"p{i}" for i in range(n)], [f"t{i}" for i in range(q)]
    return real.Bench.of("made", ids, (x[:n], x[n:]), (labels[:n], labels[n:]), votes)


@pytest.mark.parametrize("votes", [True, False])
def test_scores_are_those_of_retriever_and_scorer(real: Any, votes: bool) -> None:
    bench = synthetic(real, votes=votes)
    rng = np.random.default_rng(1)
    pool, items = rng.permutation(240)[:120], rng.permutation(300)[:60]
    picks = rng.permutation(pool)[:40]
    found = real.Draw.of(bench, pool, items).scores(picks, (3, 18, 40))
    mean = bench.pool[pool].mean(axis=0)
    choices = tuple(str(code) for code in range(5)) if votes else None
    for budget, scores in zip((3, 18, 40), found, strict=True):
        shown = picks[:budget]
        retriever = Retriever(bench.pool[shown] - mean, [str(i) for i in shown])
        hits = retriever.retrieve(bench.test[items] - mean, real.K)
        asked = []
        for item, hit in zip(items, hits, strict=True):
            parts = zip(hit.ids, hit.similarities, strict=True)
            demos = tuple(Demonstration(i, str(bench.labels[int(i)]), float(s)) for i, s in parts)
            asked.append(ScoreItem(str(item), demos, choices))
        answers = KnnScorer().score(asked)
        expected = [float(a.output == str(bench.gold[i])) for a, i in zip(answers, items, strict=True)]
        assert scores.tolist() == expected


def test_tables_of_real_campaigns(real: Any) -> None:
    """Two campaigns of a made-up task: every row is there, and shared picks are where they should be."""
    bench = synthetic(real)
    known = {bench.name: real.outcomes(bench, 2, seed=0)}
    single, rule, family = [rows for _, rows in real.tables(known)]
    for rows in (single, rule):
        assert [row.condition["task"] for row in rows] == ["made"] * 3 + ["all"] * 3
        assert [row.condition["budget"] for row in rows] == [5, 18, 100] * 2
    assert [row.condition["method"] for row in family] == ["random"] * 2 + ["fixed rule"] * 2
    assert rule[1].rates["overlap"] > 3 * single[1].rates["overlap"] > 0
    assert real.outcomes(bench, 2, seed=0) == known["made"]


def test_absent_samples_are_skipped_with_a_reason(tmp_path: Path) -> None:
    command = [sys.executable, str(BENCHMARKS / "calibration_real.py"), "--data", str(tmp_path / "none")]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout == ""
    assert "skipped: the benchmark samples are not in" in done.stderr
