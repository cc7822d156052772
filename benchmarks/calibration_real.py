"""Does the verdict hold its level on real data, where nothing is simulated but the choice?

Campaigns on the benchmark samples, as `icl_select.eval` runs them: draws by hash, pools of half of the data set,
five random selections per draw, the k nearest labelled examples vote, and the comparison gets item ids and picks.
Two methods that cannot be better than random:

* random selection itself;
* a fixed rule: the examples with the lowest hash. It knows nothing of texts, but its picks recur in every draw
  whose pool holds them, and so does their luck.

Every campaign has its own seed. All campaigns of a task share its pool and its test file.

Exits with 1 if a rate is above 5% by more than binomial error.

    python benchmarks/calibration_real.py [--campaigns 60] [--data DIR] [--json | --markdown]
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

for _name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ.setdefault(_name, "1")

import numpy as np  # noqa: E402
from _rates import Row, judge, render, spread  # noqa: E402

from icl_select.embedding import embed  # noqa: E402
from icl_select.eval.draws import ranked  # noqa: E402
from icl_select.eval.tasks import load_task  # noqa: E402
from icl_select.stats import compare, compare_family, mean_variance  # noqa: E402

ALPHA = 0.05
TASKS = ("sst5", "mrpc", "dbpedia", "rte", "mnli", "geoquery")
BUDGETS = (5, 18, 100)
DRAWS, REPEATS, TEST_SIZE, POOL_SIZE, FRACTION, K = 10, 5, 256, 3000, 0.5, 5
RESAMPLES = 300
DATA = Path(__file__).resolve().parents[1].parent / "shared" / "data"
METHODS = ("random", "fixed rule")


@dataclass(frozen=True, eq=False)
class Bench:
    """A task as arrays. Scores of a selection need similarities to its own examples only."""

    name: str
    pool_ids: list[str]
    test_ids: list[str]
    pool: np.ndarray  # (n, d) float64, not centred
    test: np.ndarray  # (q, d)
    pool_squares: np.ndarray
    test_squares: np.ndarray
    products: np.ndarray  # (q, n) test @ pool.T
    labels: np.ndarray  # (n,) codes of the labels
    gold: np.ndarray  # (q,)
    votes: bool  # k neighbours vote; False: the nearest label is copied (no classes)

    @classmethod
    def of(cls, name: str, ids: Sequence[Sequence[str]], x: Sequence[Any], labels: Sequence[Any], votes: bool) -> Bench:
        pool, test = (np.asarray(part, dtype=np.float64) for part in x)
        codes: dict[Any, int] = {}
        known, gold = (np.array([codes.setdefault(label, len(codes)) for label in part]) for part in labels)
        squares = [(part**2).sum(axis=1) for part in (pool, test)]
        return cls(name, list(ids[0]), list(ids[1]), pool, test, *squares, test @ pool.T, known, gold, votes)

    @classmethod
    def load(cls, name: str, data: Path) -> Bench:
        rows = load_task(name, data)
        x = [embed(part, "minilm", centre=False, progress=True).vectors for part in (rows.pool, rows.test)]
        labels = (rows.pool.labels, rows.test.labels)
        return cls.of(name, (rows.pool.ids, rows.test.ids), x, labels, rows.task.choices is not None)


@dataclass(frozen=True, eq=False)
class Draw:
    """Test items of one draw, and the centre of its pool, around which cosines are taken."""

    bench: Bench
    items: np.ndarray
    mean: np.ndarray  # of the pool
    at_test: np.ndarray  # products of items and mean

    @classmethod
    def of(cls, bench: Bench, pool: np.ndarray, items: np.ndarray) -> Draw:
        mean = bench.pool[pool].mean(axis=0)
        return cls(bench, items, mean, bench.test[items] @ mean)

    def scores(self, picks: np.ndarray, budgets: Sequence[int]) -> list[np.ndarray]:
        """Score of every item for each prefix of `picks`."""
        bench, items = self.bench, self.items
        mean, at_test, at_pool = self.mean, self.at_test, bench.pool[picks] @ self.mean
        square = mean @ mean
        dots = bench.products[np.ix_(items, picks)] - at_test[:, None] - at_pool[None, :] + square
        test_norms = np.sqrt(bench.test_squares[items] - 2 * at_test + square)
        pool_norms = np.sqrt(bench.pool_squares[picks] - 2 * at_pool + square)
        cosines = dots / np.outer(test_norms, pool_norms)
        labels = bench.labels[picks]
        return [self._right(cosines[:, :budget], labels[:budget]) for budget in budgets]

    def _right(self, cosines: np.ndarray, labels: np.ndarray) -> np.ndarray:
        gold = self.bench.gold[self.items]
        if not self.bench.votes:
            return (labels[cosines.argmax(axis=1)] == gold).astype(np.float64)
        nearest = np.argsort(-cosines, axis=1, kind="stable")[:, :K]
        voters = labels[nearest]
        weights = np.maximum(np.take_along_axis(cosines, nearest, axis=1), 0.0)
        # For each voter the votes of its label; the first of the largest is the nearest of the tied.
        totals = ((voters[:, :, None] == voters[:, None, :]) * weights[:, None, :]).sum(axis=2)
        first = (totals >= totals.max(axis=1, keepdims=True) - 1e-12).argmax(axis=1)
        return (voters[np.arange(len(voters)), first] == gold).astype(np.float64)


def campaign(bench: Bench, seed: int) -> dict[str, dict[int, dict[str, Any]]]:
    """Arguments of `compare` by method and budget."""
    size = min(POOL_SIZE, int(len(bench.pool_ids) * FRACTION))
    budgets = [b for b in BUDGETS if b <= size]
    rule = np.empty(len(bench.pool_ids), dtype=np.int64)
    rule[ranked(bench.pool_ids, seed, bench.name, "rule")] = np.arange(len(rule))
    rng = np.random.default_rng([seed, len(rule)])
    found: dict[str, dict[int, dict[str, Any]]] = {m: {b: defaultdict(list) for b in budgets} for m in METHODS}
    for r in range(DRAWS):
        pool = ranked(bench.pool_ids, seed, bench.name, "pool", r)[:size]
        items = ranked(bench.test_ids, seed, bench.name, "test", r)[:TEST_SIZE]
        draw = Draw.of(bench, pool, items)
        at_random = [draw.scores(rng.permutation(pool)[: max(budgets)], budgets) for _ in range(REPEATS)]
        chosen = {"random": rng.permutation(pool), "fixed rule": pool[np.argsort(rule[pool])]}
        for method, order in chosen.items():
            scores = draw.scores(order[: max(budgets)], budgets)
            for k, budget in enumerate(budgets):
                cell = found[method][budget]
                cell["method"].append(scores[k])
                cell["random"].append(np.stack([repeat[k] for repeat in at_random]))
                cell["item_ids"].append(items)
                cell["picks"].append(order[:budget])
    return found


Outcome = dict[str, float]


def outcomes(bench: Bench, n: int, seed: int) -> dict[tuple[str, int | str], list[Outcome]]:
    """What `compare` says in each of `n` campaigns, by method and budget, and of the family of budgets."""
    found: dict[tuple[str, int | str], list[Outcome]] = defaultdict(list)
    for number in range(n):
        for method, cells in campaign(bench, seed + number).items():
            family = []
            for budget, cell in cells.items():
                result = compare(**cell, seed=number, alpha=ALPHA, n_resamples=RESAMPLES)
                family.append(result)
                gaps = [own - many.mean(axis=0) for own, many in zip(cell["method"], cell["random"], strict=True)]
                without = mean_variance(gaps, item_ids=cell["item_ids"]).p_value()
                found[method, budget].append(
                    {
                        "accuracy": result.random_mean,
                        "overlap": result.overlap or 0.0,
                        "without_picks": float(max(result.p_sign_flip, without) <= ALPHA),
                        "p": float(result.p_value <= ALPHA),
                        "coverage": float(0.0 in result.ci),
                    }
                )
            any_raw = any(c.p_value <= ALPHA for c in family)
            # Adjusting makes no p smaller: without a raw rejection there is no verdict to ask for.
            decided = compare_family(family, alpha=ALPHA) if any_raw else family
            any_holm = any(c.verdict != "no evidence" for c in decided) if any_raw else False
            found[method, "family"].append({"any_raw": float(any_raw), "any_holm": float(any_holm)})
    return found


def row_of(condition: dict[str, Any], known: list[Outcome]) -> Row:
    rates = {name: float(np.mean([o[name] for o in known])) for name in known[0]}
    n = len(known)
    claims = [(round(rates[name] * n), n, ALPHA) for name in ("p", "any_holm") if name in rates]
    if "coverage" in rates:
        claims.append((n - round(rates["coverage"] * n), n, 0.05))
    holds, says = judge(claims)
    return Row(condition, n, rates, holds, says)


def tables(known: dict[str, dict[tuple[str, int | str], list[Outcome]]]) -> Iterator[tuple[str, list[Row]]]:
    """Title and rows: each task and budget, then all tasks together."""
    for method in METHODS:
        rows, pooled = [], []
        for budget in BUDGETS:
            every: list[Outcome] = []
            for task, found in known.items():
                if (method, budget) in found:
                    rows.append(row_of({"task": task, "budget": budget}, found[method, budget]))
                    every += found[method, budget]
            pooled.append(row_of({"task": "all", "budget": budget}, every))
        rows.sort(key=lambda row: list(known).index(row.condition["task"]))
        yield TITLES[method], rows + pooled
    rows = []
    for method in METHODS:
        every = []
        for task, found in known.items():
            rows.append(row_of({"method": method, "task": task}, found[method, "family"]))
            every += found[method, "family"]
        rows.append(row_of({"method": method, "task": "all"}, every))
    yield "Families of three budgets: how often any difference is claimed", rows


TITLES = {
    "random": "Random selection against random selection",
    "fixed rule": "A fixed rule that knows nothing against random selection",
}
HEADINGS = {
    "p": "rejected",
    "overlap": "shared picks",
    "without_picks": "rejected without picks",
    "any_raw": "any, unadjusted",
    "any_holm": "any, Holm",
}
CLAIMED = ("p", "coverage", "any_holm")


def arguments(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--campaigns", type=int, default=60, help="campaigns per task")
    parser.add_argument("--seed", type=int, default=0, help="seed of the first campaign; the others follow")
    parser.add_argument("--data", type=Path, default=DATA, help="folder with one folder per benchmark")
    parser.add_argument("--only", choices=TASKS, action="append", help="run only this task (repeatable)")
    shape = parser.add_mutually_exclusive_group()
    shape.add_argument("--json", action="store_true", help="rows as JSON")
    shape.add_argument("--markdown", action="store_true", help="tables for docs/statistics.md")
    options = parser.parse_args(argv)
    if options.campaigns < 1:
        parser.error("--campaigns must be at least 1")
    return options


def main(argv: list[str] | None = None) -> int:
    options = arguments(argv)
    if not options.data.is_dir():
        print(f"skipped: the benchmark samples are not in {options.data}. Pass --data DIR.", file=sys.stderr)
        return 0
    started = time.perf_counter()
    known = {}
    for task in options.only or TASKS:
        known[task] = outcomes(Bench.load(task, options.data), options.campaigns, options.seed)
        print(f"{task}: {time.perf_counter() - started:.0f} s", file=sys.stderr)
    done = list(tables(known))
    if options.json:
        print(json.dumps({title: [asdict(row) for row in rows] for title, rows in done}, indent=2))
    else:
        for title, rows in done:
            print(render(title, rows, markdown=options.markdown, headings=HEADINGS, claimed=CLAIMED))
    single = [row for _, rows in done[:2] for row in rows if row.condition["task"] != "all"]
    print(spread(single), file=sys.stderr)
    failed = [row for _, rows in done for row in rows if not row.holds]
    for row in failed:
        print(f"does not hold: {row.condition} {row.rates}", file=sys.stderr)
    print(f"{options.campaigns} campaigns per task, {time.perf_counter() - started:.0f} s", file=sys.stderr)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
