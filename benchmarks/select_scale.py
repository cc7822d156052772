"""MaxHerding on large pools: time in products of the pool with itself, memory, and what near-exact selection loses.

Usage::

    python benchmarks/select_scale.py                                   # 10,000 and 30,000 rows, about two minutes
    python benchmarks/select_scale.py --rows 100000 --budgets 18 100 1000 --coverage
    python benchmarks/select_scale.py --rows 1000000 --modes near

Each line is a process of its own with one thread: the processor time of a selection (the second one, where all pairs
are held) over that of one blocked n x n x d product in single precision, which is estimated from a part of its blocks
for more than 100,000 rows; and the peak of memory beyond the rows. --coverage measures the picks on all rows.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from typing import Any

import _timing
import numpy as np

from icl_select import select
from icl_select.kernels import Kernel
from icl_select.methods._greedy import STORED_ROWS

D = 384
_BLOCK = 2_048
_VALUES = 2**26  # of one block of the product: less memory than any selection takes
# Rows of which the product is timed; a larger pool's product is that many times as long.
_TIMED = 100_000


def product_seconds(x: np.ndarray) -> float:
    """One product of all pairs, in blocks that are thrown away."""
    n = len(x)
    block = max(64, min(_BLOCK, _VALUES // n))
    out = np.empty((block, n), dtype=np.float32)
    starts = range(0, n, block)
    timed = starts[: max(1, min(len(starts), _TIMED * _TIMED // n // block))]

    def blocks() -> None:
        for start in timed:
            part = x[start : start + block]
            np.matmul(part, x.T, out=out[: len(part)])

    spent, _ = _timing.seconds(blocks)
    return spent * len(starts) / len(timed)


def coverage(x: np.ndarray, picks: np.ndarray) -> float:
    """Mean over all rows of the kernel to the nearest pick, in float64."""
    kernel, total = Kernel("gaussian"), 0.0
    chosen = x[picks].astype(np.float64)
    for start in range(0, len(x), _BLOCK):
        nearest = (x[start : start + _BLOCK].astype(np.float64) @ chosen.T).max(axis=1)
        total += float(kernel(np.minimum(nearest, 1.0)).sum())
    return total / len(x)


def measure(rows: int, budget: int, mode: str, *, with_coverage: bool) -> dict[str, Any]:
    """One selection; what is compiled is compiled before."""
    select(f"max_herding(exactness={mode!r})", _timing.pool(6_000, D), 5)
    x = _timing.pool(rows, D)
    unit = product_seconds(x)
    held = _timing.resident_bytes()
    if rows <= STORED_ROWS:  # the system hands the memory of all pairs over page by page, which can take as long
        select(f"max_herding(exactness={mode!r})", x, budget)
    begun = time.perf_counter()
    spent, picked = _timing.seconds(lambda: select(f"max_herding(exactness={mode!r})", x, budget))
    found = {
        "rows": rows,
        "budget": budget,
        "mode": mode,
        "products": spent / unit,
        "cpu_seconds": spent,
        "seconds": time.perf_counter() - begun,
        "peak_bytes": max(0, _timing.peak_bytes() - held),
        "stated_coverage": picked.info["coverage"],
    }
    if with_coverage:
        found["coverage"] = coverage(x, picked.indices)
    return found


def in_a_process(rows: int, budget: int, mode: str, with_coverage: bool) -> dict[str, Any]:
    """Measure apart, so that the peak of memory belongs to one selection."""
    command = [sys.executable, __file__, "--one", str(rows), str(budget), mode, *(["--coverage"] * with_coverage)]
    done = subprocess.run(command, capture_output=True, text=True, check=True, encoding="utf-8")
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, nargs="+", default=[10_000, 30_000])
    parser.add_argument("--budgets", type=int, nargs="+", default=[18, 100, 1_000])
    parser.add_argument("--modes", nargs="+", default=["exact", "near"], choices=["exact", "near"])
    parser.add_argument("--coverage", action="store_true", help="measure the picks of both modes on all rows")
    parser.add_argument("--json", action="store_true", help="print one JSON document a line")
    parser.add_argument("--one", nargs=3, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one:
        rows, budget, mode = options.one
        print(json.dumps(measure(int(rows), int(budget), mode, with_coverage=options.coverage)))
        return 0
    for rows in options.rows:
        for budget in options.budgets:
            exact = None
            for mode in options.modes:
                found = in_a_process(rows, budget, mode, options.coverage)
                if options.json:
                    print(json.dumps(found), flush=True)
                    continue
                covered = found.get("coverage", found["stated_coverage"])
                exact = covered if mode == "exact" else exact
                share = f" = {covered / exact:.4f} of exact" if mode == "near" and exact is not None else ""
                cost = f"{found['products']:7.2f} products  {found['cpu_seconds']:7.1f} s"
                memory = f"{found['peak_bytes'] / 1e9:5.2f} GB"
                asked = f"n = {rows:>9,}  B = {budget:>5,}  {mode:5}"
                print(f"{asked}  {cost}  {memory}  coverage {covered:.4f}{share}", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
