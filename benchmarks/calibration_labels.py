"""Does leave-one-out claim anything of labels that have nothing to do with the vectors?

Random labels on random vectors: equally many rows of each label, labels drawn with equal chances, or drawn with
unequal ones. "Better" is then always false, at any k. "Worse" is false where labels are equally likely, and true where
they are not: there, always answering the most frequent label does beat the vote.

Exits with 1 if a false verdict is given in more than 5% by more than binomial error.

    python benchmarks/calibration_labels.py [--campaigns 300] [--seed 20240607] [--json | --markdown]
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from collections.abc import Iterator
from dataclasses import asdict

for _name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ.setdefault(_name, "1")

import numpy as np  # noqa: E402
from _rates import Row, judge, render  # noqa: E402

from icl_select.leave_one_out import leave_one_out  # noqa: E402

ALPHA = 0.05
SIZES = (24, 64, 200)
LABELS = ("2, as many of each", "2, equally likely", "6, equally likely", "4, as 4:3:2:1")
VECTORS = {"64 dimensions": (64, 1), "3 dimensions": (3, 1), "eight of each": (64, 8)}
TITLE = "Random labels, leave-one-out over five values of k: how often a verdict is given at any of them"
HEADINGS = {"better": "better (always false)", "worse": "worse (true only for 4:3:2:1)"}


def draw_labels(kind: str, m: int, rng: np.random.Generator) -> list[str]:
    count = int(kind[0])
    if "many" in kind:
        codes = rng.permutation(np.arange(m) % count)
    elif "likely" in kind:
        codes = rng.integers(count, size=m)
    else:
        codes = rng.choice(count, size=m, p=np.arange(count, 0, -1) / np.arange(count + 1).sum())
    return [str(code) for code in codes]


def draw_vectors(m: int, d: int, copies: int, rng: np.random.Generator) -> np.ndarray:
    """Directions without structure; in groups whose rows are far closer to each other than to any other."""
    x = np.repeat(rng.normal(size=(m // copies, d)), copies, axis=0)
    return x if copies == 1 else x + 1e-3 * rng.normal(size=x.shape)


def rows(campaigns: int, seed: int) -> Iterator[Row]:
    for place, (m, kind, vectors) in enumerate((m, k, v) for m in SIZES for k in LABELS for v in VECTORS):
        rng = np.random.default_rng([seed, place])
        better = worse = 0
        for campaign in range(campaigns):
            x, labels = draw_vectors(m, *VECTORS[vectors], rng), draw_labels(kind, m, rng)
            found = {
                vote.verdict for vote in leave_one_out(x, labels, [f"{i:03}" for i in range(m)], seed=campaign).votes
            }
            better += "better" in found
            worse += "worse" in found
        claims = [(better, campaigns, ALPHA), (worse, campaigns, ALPHA)]
        holds, says = judge(claims[:1] if "4:3" in kind else claims)
        rates = {"better": better / campaigns, "worse": worse / campaigns}
        yield Row({"rows": m, "labels": kind, "vectors": vectors}, campaigns, rates, holds, says)


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--campaigns", type=int, default=300, help="sets of labels per row")
    parser.add_argument("--seed", type=int, default=20240607)
    shape = parser.add_mutually_exclusive_group()
    shape.add_argument("--json", action="store_true", help="rows as JSON")
    shape.add_argument("--markdown", action="store_true", help="table for docs/statistics.md")
    options = parser.parse_args(argv)
    if options.campaigns < 20:
        parser.error("--campaigns must be at least 20, or no rate means anything")
    started = time.perf_counter()
    done = list(rows(options.campaigns, options.seed))
    if options.json:
        print(json.dumps([asdict(row) for row in done], indent=2))
    else:
        print(render(TITLE, done, markdown=options.markdown, headings=HEADINGS, claimed=("better", "worse")))
    print(f"{options.campaigns} sets of labels per row, {time.perf_counter() - started:.0f} s", file=sys.stderr)
    return 0 if all(row.holds for row in done) else 1


if __name__ == "__main__":
    sys.exit(main())
