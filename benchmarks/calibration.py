"""Does the verdict against random hold its level, and does it find what is there?

Simulates campaigns whose truth is known and runs the statistics of `icl_select.stats` on them:

* no difference: how often is one claimed (at most 5%), and how often does the 95% interval hold 0;
* families of 12 comparisons: how often is any difference claimed after Holm;
* draws that share one data set: a rule that knows nothing about quality, on a real 1-nearest-neighbour task;
* McNemar's test, Welch's test and the smallest sufficient budget: how often does each claim what is not so;
* a difference: how often is it found, against what `Design.power` says before the run.

Exits with 1 if a claim of docs/statistics.md fails by more than binomial error.

    python benchmarks/calibration.py [--campaigns 1000] [--seed N] [--json | --markdown]
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from _rates import Row, judge, render, spread
from scipy import special, stats

from icl_select.stats import Design, VarianceComponents, budget_curve, holm, mcnemar, sign_flip, welch
from icl_select.stats._cells import Cells, make_cells
from icl_select.stats.bootstrap import bootstrap_means, stretch
from icl_select.stats.compare import shared_luck
from icl_select.stats.overlap import luck_variance
from icl_select.stats.variance import components_of, variance_of

ALPHA = 0.05
RESAMPLES = 300


@dataclass(frozen=True)
class World:
    """How scores come about: item i is right if all effects and its own noise add up to more than 0.

    Standard deviations on the probit scale, where the noise of one selection on one item has 1. Draws share
    one test file; every draw takes `n_items` of its `test_file` items.
    """

    accuracy: float
    n_draws: int = 10
    repeats: int = 1
    n_items: int = 256
    test_file: int = 500
    pool: float = 0.1  # this draw's pool is easier or harder, for everybody
    luck: float = 0.15  # this selection is better or worse: about 4 points of accuracy
    method_luck: float = 0.2  # the method's own luck may vary more than that of random
    item: float = 1.2  # items are easy or hard, for everybody
    method_item: float = 0.2  # items that the method favours or disfavours in every draw
    gain: float = 0.0  # true difference in accuracy

    def campaign(self, rng: np.random.Generator, n_methods: int = 1) -> tuple[list[Any], list[Any], list[Any]]:
        """Return the scores of each method, the random scores and the item ids, each with one entry per draw."""
        common = self.pool**2 + self.item**2 + 1.0
        at_random = special.ndtri(self.accuracy) * np.sqrt(common + self.luck**2)
        at_method = special.ndtri(self.accuracy + self.gain) * np.sqrt(
            common + self.method_luck**2 + self.method_item**2
        )
        item = self.item * rng.normal(size=self.test_file)
        favour = self.method_item * rng.normal(size=(n_methods, self.test_file))
        methods: list[Any] = [[] for _ in range(n_methods)]
        random, ids = [], []
        for _ in range(self.n_draws):
            chosen = rng.permutation(self.test_file)[: self.n_items]
            base = item[chosen] + self.pool * rng.normal()
            noise = rng.standard_normal((n_methods + self.repeats, self.n_items), dtype=np.float32)
            luck = self.luck * rng.normal(size=(self.repeats, 1))
            random.append((base + at_random + luck + noise[n_methods:] > 0).astype(np.float64))
            for k, scores in enumerate(methods):
                own = at_method + favour[k, chosen] + self.method_luck * rng.normal()
                scores.append((base + own + noise[k] > 0).astype(np.float64))
            ids.append(chosen)
        return methods, random, ids


def differences(method: list[Any], random: list[Any], ids: list[Any] | None) -> Cells:
    return make_cells([m - r.mean(axis=0) for m, r in zip(method, random, strict=True)], ids, name="method")


def pooled_items_p(cells: Cells) -> float:
    """What pooling all items as if independent gives: a paired z-test over R x m items."""
    values = np.concatenate(cells.values)
    se = values.std() / np.sqrt(len(values))
    return float(2 * special.ndtr(-abs(values.mean()) / se)) if se > 0 else 1.0


def unpaired_rejections(first: list[Any], second: list[Any]) -> float:
    """Share that Welch's test rejects, given the accuracies of every campaign's draws: rows of a table, unpaired."""
    return float((stats.ttest_ind(first, second, axis=1, equal_var=False).pvalue <= ALPHA).mean())


def draw_means(scores: list[Any]) -> list[float]:
    return [float(v.mean()) for v in scores]


def null_rows(n: int, seed: int) -> Iterator[Row]:
    """No difference: raw p-values, and coverage of the interval, plain and as used."""
    for n_draws in (5, 10):
        for repeats in (1, 4):
            for accuracy in (0.3, 0.5, 0.7, 0.85, 0.95):
                world = World(accuracy, n_draws=n_draws, repeats=repeats)
                condition = {"accuracy": accuracy, "draws": n_draws, "repeats": repeats}
                yield null_row(
                    world, condition, n, np.random.default_rng([seed, 1, n_draws, repeats, int(100 * accuracy)])
                )


def hard_rows(n: int, seed: int) -> Iterator[Row]:
    """No difference, under conditions that break simpler statistics."""
    hard = {
        "luck of selections dominates": {"luck": 0.4, "method_luck": 0.5, "n_items": 400},
        "method's luck three times that of random": {"luck": 0.1, "method_luck": 0.4},
        "same items in every draw, method favours some": {"test_file": 256, "method_item": 0.7},
        "few items (64), all recurring": {"n_items": 64, "test_file": 64, "method_item": 0.4},
    }
    for name, changes in hard.items():
        for n_draws in (5, 10):
            world = World(0.7, n_draws=n_draws, repeats=4, **changes)  # type: ignore[arg-type]
            condition = {"what": name, "draws": n_draws}
            yield null_row(world, condition, n, np.random.default_rng([seed, 5, n_draws, len(name)]))


def null_row(world: World, condition: dict[str, Any], n: int, rng: np.random.Generator) -> Row:
    names = ("p", "sign_flip", "two_way", "pooled_items")
    rejected = dict.fromkeys(names, 0)
    covered = plain = 0
    means: tuple[list[Any], list[Any]] = ([], [])
    for number in range(n):
        (method,), random, ids = world.campaign(rng)
        cells = differences(method, random, ids)
        variance = variance_of(cells)
        flip, two_way = sign_flip(cells.means).p_value, variance.p_value()
        for name, p in zip(names, (max(flip, two_way), flip, two_way, pooled_items_p(cells)), strict=True):
            rejected[name] += p <= ALPHA
        means[0].append(draw_means(method))
        means[1].append(draw_means(random))
        resampled = bootstrap_means(cells, seed=number, n_resamples=RESAMPLES)
        low, high = stretch(resampled, variance, 0.95)
        covered += low <= 0.0 <= high
        low, high = np.quantile(resampled, [0.025, 0.975], method="weibull")
        plain += bool(low <= 0.0 <= high)
    rates = {name: count / n for name, count in rejected.items()}
    rates |= {"welch": unpaired_rejections(*means), "coverage": covered / n, "coverage_plain": plain / n}
    return Row(condition, n, rates, *judge([(rejected["p"], n, ALPHA), (n - covered, n, 0.05)]))


def family_rows(n: int, seed: int) -> Iterator[Row]:
    """No difference in any of 12 comparisons: three budgets, and four methods that share draws, items and random."""
    for n_draws in (5, 10):
        rng = np.random.default_rng([seed, 2, n_draws])
        worlds = [World(a, n_draws=n_draws, repeats=2) for a in (0.45, 0.55, 0.65)]
        raw = adjusted = 0
        for _ in range(n):
            p = []
            for world in worlds:
                methods, random, ids = world.campaign(rng, n_methods=4)
                for method in methods:
                    cells = differences(method, random, ids)
                    p.append(max(sign_flip(cells.means).p_value, variance_of(cells).p_value()))
            raw += min(p) <= ALPHA
            adjusted += float(holm(p).min()) <= ALPHA
        rates = {"any_raw": raw / n, "any_holm": adjusted / n}
        yield Row({"draws": n_draws, "comparisons": 12}, n, rates, *judge([(adjusted, n, ALPHA)]))


@dataclass(frozen=True)
class Neighbours:
    """A real 1-nearest-neighbour task, and a rule that knows nothing about quality.

    The rule orders the whole data set once, at random, and takes the first `budget` examples of that order
    that the draw's pool holds: deterministic, stable under subsampling, and no better than random. Its luck
    is shared by draws whose pools overlap.
    """

    fraction: float  # of the data set in the pool of each draw
    repeats: int = 4
    n_draws: int = 10
    budget: int = 18
    data_set: int = 1000
    test_file: int = 500
    n_items: int = 256
    classes: int = 6

    def world(self, rng: np.random.Generator) -> np.ndarray:
        """Return similarity and agreement of labels, stacked, for every test item and example of the data set."""
        centres = rng.normal(size=(self.classes * 2, 12))
        n = self.data_set + self.test_file
        cluster = rng.integers(len(centres), size=n)
        x = centres[cluster] + 1.3 * rng.normal(size=(n, 12))
        label = np.where(rng.random(n) < 0.1, rng.integers(self.classes, size=n), cluster % self.classes)
        x /= np.linalg.norm(x, axis=1, keepdims=True)
        test, pool = x[self.data_set :], x[: self.data_set]
        right = label[self.data_set :, None] == label[None, : self.data_set]
        return np.stack([test @ pool.T, right.astype(np.float64)])

    def score(self, world: np.ndarray, items: np.ndarray, picks: np.ndarray) -> np.ndarray:
        similarity, right = world
        nearest = picks[similarity[np.ix_(items, picks)].argmax(axis=1)]
        return np.asarray(right[items, nearest])

    def campaign(
        self, world: np.ndarray, rng: np.random.Generator
    ) -> tuple[list[Any], list[Any], list[Any], list[Any]]:
        rank = rng.permutation(self.data_set)
        method, random, ids, picked = [], [], [], []
        for _ in range(self.n_draws):
            pool = rng.permutation(self.data_set)[: round(self.fraction * self.data_set)]
            items = rng.permutation(self.test_file)[: self.n_items]
            picks = pool[np.argsort(rank[pool])[: self.budget]]
            method.append(self.score(world, items, picks))
            chosen = [rng.permutation(pool)[: self.budget] for _ in range(self.repeats)]
            random.append(np.stack([self.score(world, items, c) for c in chosen]))
            ids.append(items)
            picked.append(picks)
        return method, random, ids, picked


def overlap_rows(n: int, seed: int) -> Iterator[Row]:
    """No difference, but draws that share one data set, and with it the luck of a deterministic rule."""
    for repeats in (1, 4):
        for fraction in (0.1, 0.25, 0.5, 0.9, 1.0):
            task = Neighbours(fraction, repeats=repeats)
            rng = np.random.default_rng([seed, 3, repeats, int(100 * fraction)])
            plain = guarded = 0
            overlap = 0.0
            for _ in range(n):
                world = task.world(rng)
                method, random, ids, picks = task.campaign(world, rng)
                cells = differences(method, random, ids)
                share, luck, df = shared_luck(cells, random, picks)
                flip = sign_flip(cells.means).p_value
                plain += max(flip, variance_of(cells).p_value()) <= ALPHA
                guarded += max(flip, variance_of(cells, luck=luck, luck_df=df).p_value()) <= ALPHA
                overlap += share or 0.0
            rates = {"overlap": overlap / n, "without_picks": plain / n, "p": guarded / n}
            condition = {"pool_fraction": fraction, "repeats": repeats}
            yield Row(condition, n, rates, *judge([(guarded, n, ALPHA)]))


def shared_luck_p(rng: np.random.Generator, overlap: float, repeats: int, luck: float) -> float:
    """Ten draws that share `overlap` of their luck; `luck` is in units of what the noise of items adds to a score."""
    n_draws, m = 10, 64
    noise = np.sqrt(m) * rng.normal(size=(n_draws, repeats + 1, m))
    at_random = np.sqrt(luck) * rng.normal(size=(n_draws, repeats, 1)) + noise[:, 1:]
    own = np.sqrt(overlap) * rng.normal() + np.sqrt(1 - overlap) * rng.normal(size=(n_draws, 1))
    gaps = np.sqrt(luck) * own + noise[:, 0] - at_random.mean(axis=1)
    cells = make_cells(list(gaps), None, name="gaps")
    variance, df = luck_variance(list(at_random), without_items=True, at_least=max(0.0, 2 * overlap - 1))
    return variance_of(cells, luck=overlap * variance, luck_df=df).p_value()


def luck_rows(n: int, seed: int) -> Iterator[Row]:
    """No difference: the two-way test alone, where shared luck is hard to tell from the noise of items."""
    for repeats in (2, 5):
        # Two random selections per draw say little of luck: 6.6% is the most that 40,000 campaigns of a grid showed.
        level = 0.07 if repeats == 2 else ALPHA
        for overlap in (0.25, 0.45, 0.75, 1.0):
            for luck in (0.1, 0.5, 2.0):
                rng = np.random.default_rng([seed, 7, repeats, int(100 * overlap), int(10 * luck)])
                events = sum(shared_luck_p(rng, overlap, repeats, luck) <= ALPHA for _ in range(n))
                condition: dict[str, Any] = {
                    "overlap of picks": overlap,
                    "repeats": repeats,
                    "luck by item noise": luck,
                }
                condition["claimed"] = f"at most {level:.0%}"
                yield Row(condition, n, {"p": events / n}, *judge([(events, n, level)]))


def mcnemar_p(rng: np.random.Generator, accuracy: float, spread: float) -> float:
    """Two selections of equal expected accuracy on 256 new items; `spread` is the noise that each adds to an item."""
    item = rng.normal(size=256)
    at = special.ndtri(accuracy) * np.sqrt(1 + spread**2)
    first, second = (item + at + spread * rng.normal(size=256) > 0 for _ in range(2))
    return mcnemar(first, second).p_value


def welch_p(rng: np.random.Generator, n1: int, sd1: float, n2: int, sd2: float) -> float:
    a, b = 0.6 + sd1 * rng.normal(size=n1), 0.6 + sd2 * rng.normal(size=n2)
    return welch(a.mean(), a.std(ddof=1), n1, b.mean(), b.std(ddof=1), n2).p_value


def budget_named(rng: np.random.Generator, accuracies: dict[int, float], delta: float, n_draws: int) -> int:
    """Smallest sufficient budget: draws of 256 of 500 items, some of which favour this or that budget."""
    item, favour = 1.2 * rng.normal(size=500), {b: 0.2 * rng.normal(size=500) for b in accuracies}
    scale = np.sqrt(1 + 1.2**2 + 0.2**2 + 0.15**2 + 0.1**2)
    scores: dict[int, list[Any]] = {b: [] for b in accuracies}
    ids = [rng.permutation(500)[:256] for _ in range(n_draws)]
    for chosen in ids:
        base = item[chosen] + 0.1 * rng.normal()
        for b, accuracy in accuracies.items():
            own = base + favour[b][chosen] + 0.15 * rng.normal() + rng.normal(size=256)
            scores[b].append((own + special.ndtri(accuracy) * scale > 0).astype(np.float64))
    return budget_curve(scores, item_ids=ids, delta=delta, seed=0, n_resamples=1).smallest_sufficient_budget


def other_rows(n: int, seed: int) -> Iterator[Row]:
    """No difference, or a loss of exactly delta: the tests that stand beside the verdict."""
    edge, plateau = {5: 0.56, 20: 0.56, 100: 0.6}, {5: 0.56, 20: 0.6, 100: 0.6}
    cases: dict[str, tuple[float, Callable[[np.random.Generator], bool]]] = {
        "McNemar, accuracy 0.7, selections much alike": (ALPHA, lambda rng: mcnemar_p(rng, 0.7, 0.3) <= ALPHA),
        "McNemar, accuracy 0.7, selections little alike": (ALPHA, lambda rng: mcnemar_p(rng, 0.7, 2.0) <= ALPHA),
        "McNemar, accuracy 0.95": (ALPHA, lambda rng: mcnemar_p(rng, 0.95, 1.0) <= ALPHA),
        "Welch, 3 and 3 runs": (ALPHA, lambda rng: welch_p(rng, 3, 0.02, 3, 0.02) <= ALPHA),
        "Welch, 10 and 10 runs, the one varies thrice as much": (
            ALPHA,
            lambda rng: welch_p(rng, 10, 0.06, 10, 0.02) <= ALPHA,
        ),
        # A weakness of Welch's test itself: 7.0% of 200,000 pairs.
        "Welch, 3 and 10 runs, the 3 vary thrice as much": (0.07, lambda rng: welch_p(rng, 3, 0.06, 10, 0.02) <= ALPHA),
        "budgets, 5 draws: both smaller ones lose delta": (ALPHA, lambda rng: budget_named(rng, edge, 0.04, 5) < 100),
        "budgets, 10 draws: both smaller ones lose delta": (ALPHA, lambda rng: budget_named(rng, edge, 0.04, 10) < 100),
        "budgets, 10 draws: the smallest loses delta": (ALPHA, lambda rng: budget_named(rng, plateau, 0.04, 10) < 20),
    }
    for number, (what, (level, rejects)) in enumerate(cases.items()):
        rng = np.random.default_rng([seed, 6, number])
        events = sum(rejects(rng) for _ in range(n))
        condition = {"what": what, "claimed": f"at most {level:.0%}"}
        yield Row(condition, n, {"p": events / n}, *judge([(events, n, level)]))


def power_rows(n: int, seed: int) -> Iterator[Row]:
    """A true difference: how often it is found, and how often `Design.power` says it will be."""
    for n_draws, gain in ((6, 0.1), (10, 0.04), (10, 0.06), (10, 0.08), (20, 0.04)):
        world = World(0.6, n_draws=n_draws, repeats=4, gain=gain)
        rng = np.random.default_rng([seed, 4, n_draws, int(100 * gain)])
        found = 0
        parts: list[VarianceComponents] = []
        means: tuple[list[Any], list[Any]] = ([], [])
        for _ in range(n):
            (method,), random, ids = world.campaign(rng)
            cells = differences(method, random, ids)
            found += max(sign_flip(cells.means).p_value, variance_of(cells).p_value()) <= ALPHA
            means[0].append(draw_means(method))
            means[1].append(draw_means(random))
            parts.append(components_of(cells))
        truth = VarianceComponents(*np.mean([[p.draw, p.item, p.residual] for p in parts], axis=0).tolist())
        predicted = Design(n_draws, 256, truth, item_share=256 / 500).power(gain)
        rates = {"predicted": predicted, "detected": found / n, "welch": unpaired_rejections(*means)}
        # The prediction is for normal draws with known components: five points, and chance.
        allowed = 0.05 + 3.3 * np.sqrt(predicted * (1 - predicted) / n)
        close = bool(abs(found / n - predicted) <= allowed)
        yield Row({"gain": gain, "draws": n_draws}, n, rates, close, "yes" if close else "NO")


TABLES = {
    "null": (null_rows, "No difference: how often one is claimed, and how often the 95% interval holds 0"),
    "hard": (hard_rows, "No difference, harder conditions (accuracy 0.7, 4 random selections per draw)"),
    "family": (family_rows, "No difference in families of 12 comparisons: how often any is claimed"),
    "overlap": (overlap_rows, "No difference, but draws that share one data set (1-NN, budget 18, 10 draws)"),
    "luck": (luck_rows, "No difference, normal scores, shared luck of known size: the two-way test alone, 10 draws"),
    "others": (other_rows, "Other tests, no difference or a loss of exactly delta: how often one claims otherwise"),
    "power": (power_rows, "A true difference: how often it is found (accuracy 0.6, 4 random selections per draw)"),
}
HEADINGS = {
    "p": "rejected",
    "sign_flip": "sign flip alone",
    "two_way": "two-way t alone",
    "pooled_items": "items pooled",
    "welch": "unpaired Welch",
    "coverage": "coverage",
    "coverage_plain": "plain percentiles",
    "any_raw": "any, unadjusted",
    "any_holm": "any, Holm",
    "without_picks": "rejected without picks",
    "overlap": "shared picks",
    "pool_fraction": "pool fraction",
}
CLAIMED = ("p", "coverage", "any_holm", "detected")  # these carry an error bar


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--campaigns", type=int, default=1000, help="simulated campaigns per row")
    parser.add_argument("--seed", type=int, default=20240607)
    parser.add_argument("--only", choices=sorted(TABLES), action="append", help="run only this table (repeatable)")
    shape = parser.add_mutually_exclusive_group()
    shape.add_argument("--json", action="store_true", help="rows as JSON")
    shape.add_argument("--markdown", action="store_true", help="tables for docs/statistics.md")
    options = parser.parse_args(argv)
    if options.campaigns < 20:
        parser.error("--campaigns must be at least 20, or no rate means anything")
    started = time.perf_counter()
    done: dict[str, list[Row]] = {}
    for name, (rows, title) in TABLES.items():
        if options.only and name not in options.only:
            continue
        done[name] = list(rows(options.campaigns, options.seed))
        if not options.json:
            table = render(title, done[name], markdown=options.markdown, headings=HEADINGS, claimed=CLAIMED)
            print(table, flush=True)
    if options.json:
        print(json.dumps({name: [asdict(row) for row in rows] for name, rows in done.items()}, indent=2))
    failed = [row for rows in done.values() for row in rows if not row.holds]
    for row in failed:
        print(f"does not hold: {row.condition} {row.rates}", file=sys.stderr)
    print(spread(row for rows in done.values() for row in rows), file=sys.stderr)
    seconds = time.perf_counter() - started
    print(f"{options.campaigns} campaigns per row, {seconds:.0f} s", file=sys.stderr)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
