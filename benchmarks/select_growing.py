"""A pool that grows: seconds of going on from what is kept over those of selecting from scratch, with the same picks.

Usage::

    python benchmarks/select_growing.py                       # 30,000 rows, 1,000 more, 100 picks: about two minutes
    python benchmarks/select_growing.py --rows 50000

One process, one thread. The first picks are labelled; then rows are added and the next picks are made, from scratch and
from what is kept, over and over. Printed is processor time, which other work on the machine hardly changes.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path
from typing import Any

import _timing
import numpy as np

from icl_select import GrowingSelection
from icl_select.methods.max_herding import max_herding

D = 384


def grown(growing: GrowingSelection, new: np.ndarray, budget: int) -> dict[str, tuple[float, Any]]:
    """Seconds and results of adding rows, and of picking."""
    return {"add": _timing.seconds(lambda: growing.add(new)), "pick": _timing.seconds(lambda: growing.pick(budget))}


def round_of(growing: GrowingSelection, x: np.ndarray, new: int, picks: np.ndarray, budget: int) -> np.ndarray:
    """Label, add rows up to all of `x`, pick; the same from scratch; returns the picks."""
    label, _ = _timing.seconds(lambda: growing.label(picks))
    if len(growing.labelled) == len(picks):
        spent, _ = _timing.seconds(lambda: growing.pick(1))
        print(f"first label {label:.2f} s; pairs that matter made in {spent:.1f} s", flush=True)
        label = 0.0
    found = grown(growing, x[len(x) - new :], budget)
    given = growing.labelled
    scratch, again = _timing.seconds(lambda: max_herding(x, budget, given=given, exactness="exact"))
    picked = found["pick"][1]
    assert picked.indices.tolist() == again.indices.tolist()
    assert picked.gains.tolist() == again.gains.tolist()
    add, pick = found["add"][0], found["pick"][0]
    print(
        f"{new:,} more rows, {len(given)} labelled: label {label:.2f} s, add {add:.2f} s, pick {pick:.2f} s; "
        f"from scratch {scratch:.1f} s, {scratch / (label + add + pick):.0f} times as long; the same picks",
        flush=True,
    )
    return np.asarray(picked.indices)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=30_000)
    parser.add_argument("--new", type=int, default=1_000)
    parser.add_argument("--budget", type=int, default=100)
    parser.add_argument("--rounds", type=int, default=2, help="how often rows are added and picked")
    args = parser.parse_args()
    warm = GrowingSelection()  # compiles everything
    warm.add(_timing.pool(2_000, D))
    warm.label(range(0, 200, 2))
    warm.pick(3)
    grown(warm, _timing.pool(50, D, seed=1), 3)
    warm.label([1])

    x = _timing.pool(args.rows + args.rounds * args.new, D)
    growing = GrowingSelection()
    growing.add(x[: args.rows])
    spent, picked = _timing.seconds(lambda: growing.pick(args.budget))
    print(f"{args.rows:,} rows, nothing labelled: {args.budget} picks in {spent:.1f} s", flush=True)
    picks = picked.indices
    for turn in range(args.rounds):
        picks = round_of(growing, x[: args.rows + (turn + 1) * args.new], args.new, picks, args.budget)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "kept.npz"
        saved, _ = _timing.seconds(lambda: growing.save(path))
        loaded, _ = _timing.seconds(lambda: GrowingSelection.load(path, x))
        print(f"file: {path.stat().st_size / 2**20:.0f} MB, written in {saved:.2f} s, read in {loaded:.2f} s")
    print(f"peak of memory: {_timing.peak_bytes() / 2**20:,.0f} MB")


if __name__ == "__main__":
    main()
