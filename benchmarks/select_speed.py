"""How fast the selection methods are, as ratios taken within one run on one thread.

Usage::

    python benchmarks/select_speed.py              # about two minutes, most of them scikit-activeml's
    python benchmarks/select_speed.py --memory     # also peak memory at 30,000 rows
    python benchmarks/select_speed.py --json       # the same as JSON

MaxHerding is compared with apricot's lazy facility location and with scikit-activeml's MaxHerding, the other methods
with one n x n x d product in single precision. Seconds are processor seconds of one thread. Exits with 1 if a target
is missed.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

import _timing
import numpy as np

from icl_select import select
from icl_select._optional import require
from icl_select.errors import MissingDependencyError

N, D = 3000, 384
MEMORY_ROWS = 30_000
SAME = 1e-6


@dataclass(frozen=True)
class Row:
    """One line of the table: a measured ratio and the target it must reach."""

    name: str
    ratio: float
    target: float
    at_least: bool
    detail: str

    @property
    def met(self) -> bool:
        return self.ratio >= self.target if self.at_least else self.ratio <= self.target


def coverage_curve(x: np.ndarray, picks: np.ndarray) -> np.ndarray:
    """Generalised coverage after each pick, in float64, by the formula."""
    unit = x.astype(np.float64)
    unit /= np.linalg.norm(unit, axis=1, keepdims=True)
    covered, curve = np.zeros(len(x)), []
    for pick in picks:
        covered = np.maximum(covered, np.exp(2 * np.minimum(unit @ unit[pick], 1.0) - 2))
        curve.append(covered.mean())
    return np.array(curve)


def against_peer(name: str, x: np.ndarray, budget: int, peer: Callable[[], Any], target: float, runs: int) -> Row:
    """Time ours before and after the peer, and compare what the picks cover."""
    ours, own, others = select("max_herding", x, budget), [], []
    for _ in range(runs):
        own += [_timing.seconds(lambda: select("max_herding", x, budget))[0] for _ in range(3)]
        spent, picks = _timing.seconds(peer)
        others.append(spent)
        own += [_timing.seconds(lambda: select("max_herding", x, budget))[0] for _ in range(3)]
    mine, theirs = statistics.median(own), statistics.median(others)
    curves = coverage_curve(x, ours.indices), coverage_curve(x, np.asarray(picks))
    worst = float(np.max(np.abs(curves[1] / curves[0] - 1)))
    if worst > SAME:
        raise SystemExit(
            f"{name}: coverage differs by {worst:.1e} of its value; the two did not solve the same problem."
        )
    shared = len(np.intersect1d(ours.indices, picks))
    detail = f"{theirs:.2f} s : {mine:.3f} s; coverage equal to {worst:.0e}, {shared} of {budget} picks the same"
    return Row(name, theirs / mine, target, True, detail)


def apricot_picks(x: np.ndarray, budget: int) -> np.ndarray:
    """Lazy greedy of apricot on the same kernel, its computation included."""
    apricot = require("apricot", extra="bench", purpose="the comparison with apricot")
    kernel = np.exp(2 * np.minimum(x @ x.T, 1) - 2)
    chooser = apricot.FacilityLocationSelection(budget, metric="precomputed", optimizer="lazy")
    return np.asarray(chooser.fit(kernel).ranking)


def activeml_picks(x: np.ndarray, budget: int) -> np.ndarray:
    """MaxHerding of scikit-activeml on the same kernel: its gamma is 1 / h^2."""
    pool = require("skactiveml.pool", extra="bench", purpose="the comparison with scikit-activeml")
    query = pool.MaxHerding(metric_dict={"gamma": 1.0}, missing_label=np.nan, random_state=0)
    return np.asarray(query.query(x, np.full(len(x), np.nan), batch_size=budget))


def in_products(x: np.ndarray, method: str, target: float, runs: int = 5) -> Row:
    """Time a method at budget 100 in units of one product of the pool with itself."""
    other = x.copy()  # the product of an array with itself would take half the time
    ratio, spent = _timing.ratio_of(lambda: select(method, x, 100), lambda: x @ other.T, runs=runs)
    return Row(f"{method}, B = 100, in products", ratio, target, False, f"{spent:.3f} s")


def memory() -> Row:
    """Peak memory of MaxHerding at 30,000 rows in a process of its own, over 2 n^2 bytes + 200 MB."""
    done = subprocess.run(
        [sys.executable, __file__, "--memory-child"], capture_output=True, text=True, check=True, encoding="utf-8"
    )
    measured = json.loads(done.stdout)
    allowed = 2 * MEMORY_ROWS**2 + 200e6
    detail = f"{measured['bytes'] / 1e6:.0f} MB of {allowed / 1e6:.0f} MB, {measured['seconds']:.1f} s"
    return Row(f"max_herding memory, n = {MEMORY_ROWS:,}", measured["bytes"] / allowed, 1.0, False, detail)


def memory_child() -> None:
    """What :func:`memory` runs: everything is compiled before memory is looked at."""
    select("max_herding", _timing.pool(200, D), 5)
    x = _timing.pool(MEMORY_ROWS, D)
    held = _timing.resident_bytes()
    spent, _ = _timing.seconds(lambda: select("max_herding", x, 100))
    print(json.dumps({"bytes": _timing.peak_bytes() - held, "seconds": spent}))


def measure(*, with_memory: bool) -> list[Row]:
    x = _timing.pool(N, D)
    for method in ("max_herding", "vote_k", "sub_sa", "ideal"):
        select(method, x[:300], 10)  # compile
    apricot_picks(x[:300], 10)
    activeml_picks(x[:300], 2)
    rows = [
        against_peer("apricot lazy, B = 100 : max_herding", x, 100, lambda: apricot_picks(x, 100), 10, 3),
        against_peer("scikit-activeml, B = 1000 : max_herding", x, 1000, lambda: activeml_picks(x, 1000), 300, 1),
        in_products(x, "vote_k", 15),
        in_products(x, "sub_sa", 3),
        in_products(x, "ideal", 150, runs=3),
    ]
    return [*rows, memory()] if with_memory else rows


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--memory", action="store_true", help=f"also measure memory at {MEMORY_ROWS:,} rows")
    parser.add_argument("--json", action="store_true", help="print JSON instead of a table")
    parser.add_argument("--memory-child", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.memory_child:
        memory_child()
        return 0
    try:
        rows = measure(with_memory=options.memory)
    except MissingDependencyError as error:
        print(error, file=sys.stderr)
        return 1
    if options.json:
        print(json.dumps([{**asdict(row), "met": row.met} for row in rows], indent=2))
    else:
        print(f"n = {N}, d = {D}, one thread")
        for row in rows:
            sign = ">=" if row.at_least else "<="
            verdict = "met" if row.met else "MISSED"
            print(f"{row.name:40} {row.ratio:8.2f}  target {sign} {row.target:<5g} {verdict:6}  {row.detail}")
    return 0 if all(row.met for row in rows) else 1


if __name__ == "__main__":
    sys.exit(main())
