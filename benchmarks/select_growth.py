"""Every method over sizes of pools and budgets, and MaxHerding against its peers: tables, fitted exponents, a plot.

Usage::

    python benchmarks/select_growth.py FOLDER           # measures what FOLDER/growth.jsonl lacks, then writes the page
    python benchmarks/select_growth.py FOLDER --page    # writes the page from what was measured

One line of ``growth.jsonl`` is one measurement in a process of its own with one thread, in processor seconds. Whatever
is there is not measured again, so an interrupted run goes on. Each process times its own n x n x d product in single
precision, so that seconds of different moments can be compared as multiples of it. Takes about an hour; the page is
``growth.md`` with ``growth.svg``.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import _timing
import numpy as np
from select_scale import product_seconds
from select_speed import SAME, activeml_picks, apricot_picks, coverage_curve

from icl_select import select
from icl_select._optional import require

D = 384
METHODS = ("max_herding", "max_herding(exactness='near')", "vote_k", "ideal", "sub_sa", "random")
ROWS = (3_000, 10_000, 30_000, 100_000)
BUDGETS = (18, 100, 1_000)
AT_BUDGET, AT_ROWS = 100, 10_000
# Where growth with n is fitted: below, fixed costs show.
FITTED_FROM = 10_000


def literal_picks(x: np.ndarray, budget: int) -> np.ndarray:
    """The definition: the gain of every row, from all pairs, before each pick."""
    kernel = np.exp(2 * np.minimum(x @ x.T, 1) - 2)
    covered, picks = np.zeros(len(x), dtype=kernel.dtype), []
    for _ in range(budget):
        gains = np.array([np.maximum(row - covered, 0).sum(dtype=np.float64) for row in kernel])
        gains[picks] = -1
        picks.append(int(np.argmax(gains)))
        covered = np.maximum(covered, kernel[picks[-1]])
    return np.array(picks)


def submodlib_picks(x: np.ndarray, budget: int) -> np.ndarray:
    """Lazy greedy of submodlib on the same kernel, its computation included."""
    submodlib = require("submodlib", extra="bench", purpose="the comparison with submodlib")
    kernel = np.exp(2 * np.minimum(x @ x.T, 1) - 2)
    function = submodlib.FacilityLocationFunction(n=len(x), mode="dense", sijs=kernel, separate_rep=False)
    found = function.maximize(budget=budget, optimizer="LazyGreedy", show_progress=False)
    return np.array([index for index, _ in found])


_PEERS: dict[str, Callable[[np.ndarray, int], np.ndarray]] = {
    "apricot lazy": apricot_picks,
    "submodlib lazy": submodlib_picks,
    "scikit-activeml": activeml_picks,
    "literal": literal_picks,
}


def measure(what: str, rows: int, budget: int) -> dict[str, Any]:
    """Time and memory of one selection; what is compiled is compiled before."""
    chosen = _PEERS.get(what) or (lambda x, size: select(what, x, size).indices)
    small = _timing.pool(6_000 if what.startswith("max_herding") else 300, D)
    chosen(small, 5)
    x = _timing.pool(rows, D)
    unit = product_seconds(x)
    held = _timing.resident_bytes()
    spent, picks = _timing.seconds(lambda: chosen(x, budget))
    return {
        "what": what,
        "rows": rows,
        "budget": budget,
        "seconds": spent,
        "products": spent / unit,
        "bytes": max(0, _timing.peak_bytes() - held),
        "coverage": float(coverage_curve(x, picks)[-1]),
    }


def against_peers(rows: int, budget: int) -> Iterable[dict[str, Any]]:
    """Each peer and MaxHerding before and after it, in one process: the same moment, the same coverage."""
    x = _timing.pool(rows, D)
    for name, picks_of in _PEERS.items():
        select("max_herding", x[:6_000], 5)
        picks_of(x[:300], 3)
        before, ours = _timing.seconds(lambda: select("max_herding", x, budget).indices)
        spent, picks = _timing.seconds(lambda picks_of=picks_of: picks_of(x, budget))
        after, _ = _timing.seconds(lambda: select("max_herding", x, budget).indices)
        curves = coverage_curve(x, ours), coverage_curve(x, picks)
        worst = float(np.max(np.abs(curves[1] / curves[0] - 1)))
        if worst > SAME:
            raise SystemExit(f"{name}: coverage differs by {worst:.1e} of its value; it solved another problem.")
        yield {
            "peer": name,
            "rows": rows,
            "budget": budget,
            "ratio": 2 * spent / (before + after),
            "seconds": spent,
            "ours": (before + after) / 2,
            "same": len(np.intersect1d(ours, picks)),
        }


def wanted() -> list[tuple[str, int, int]]:
    """What the page shows: growth with n at one budget, and with the budget at one n."""
    points = [(method, rows, AT_BUDGET) for rows in ROWS for method in METHODS]
    points += [(method, AT_ROWS, budget) for budget in BUDGETS if budget != AT_BUDGET for method in METHODS]
    points += [("max_herding", 100_000, budget) for budget in BUDGETS if budget != AT_BUDGET]
    points += [("max_herding(exactness='near')", 1_000_000, budget) for budget in BUDGETS]
    return points


def run_missing(path: Path) -> None:
    """Measure what the file lacks, each in a process of its own, and add it at once."""
    have = {(line["what"], line["rows"], line["budget"]) for line in _lines(path) if "what" in line}
    for point in (point for point in wanted() if point not in have):
        _add(path, _child("--one", *map(str, point)))
    if not any("peer" in line for line in _lines(path)):
        _add(path, _child("--peers", str(AT_ROWS), str(AT_BUDGET)))


def _child(*arguments: str) -> str:
    command = [sys.executable, __file__, *arguments]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True, encoding="utf-8")
    print(done.stdout, end="", flush=True)
    return done.stdout


def _add(path: Path, text: str) -> None:
    with path.open("a", encoding="utf-8") as file:
        # Libraries print, too.
        file.writelines(f"{line}\n" for line in text.splitlines() if line.startswith("{"))


def _lines(path: Path) -> list[dict[str, Any]]:
    if not path.exists():
        return []
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def exponent(points: list[tuple[float, float]]) -> float:
    """Slope of a straight line through the logarithms."""
    x, y = np.log(np.array(points)).T
    return float(np.polyfit(x, y, 1)[0])


def page(folder: Path) -> None:
    """Write the tables and the plot from what was measured."""
    lines = _lines(folder / "growth.jsonl")
    found = {(line["what"], line["rows"], line["budget"]): line for line in lines if "what" in line}
    peers = [line for line in lines if "peer" in line]
    parts = [
        "# Time and memory of selection",
        "Measured with `python benchmarks/select_growth.py docs/results`; every figure is in "
        "[growth.jsonl](growth.jsonl). Each is the first selection of its process, so memory that the system hands "
        "over for the first time counts (a second one of 10,000 or 30,000 rows by `max_herding` takes less: "
        "`benchmarks/select_scale.py`). One thread; d = 384; synthetic clustered rows of unit norm (200 groups); "
        "processor seconds. *Product*: one n × n × d matrix product in float32, measured in the same process.",
        *_peer_table(peers),
        *_growth_table(found),
        *_budget_table(found),
        "![Seconds against rows, both on logarithmic scales](growth.svg)",
        *_dominating(found),
    ]
    (folder / "growth.md").write_text("\n\n".join(parts) + "\n", encoding="utf-8")
    _plot(found, folder / "growth.svg")


def _table(head: list[str], rows: list[list[str]]) -> str:
    marks = ["---", *["---:"] * (len(head) - 1)]
    return "\n".join("| " + " | ".join(row) + " |" for row in [head, marks, *rows])


def _peer_table(peers: list[dict[str, Any]]) -> list[str]:
    if not peers:
        return []
    rows = [
        [line["peer"], f"{line['seconds']:.1f}", f"{line['ours']:.2f}", f"**{line['ratio']:.0f}**", str(line["same"])]
        for line in peers
    ]
    n, budget = peers[0]["rows"], peers[0]["budget"]
    return [
        f"## MaxHerding against others, {n:,} rows, {budget} picks",
        "Facility location with the same kernel, its computation included; ours timed before and after each. Coverage "
        f"after each pick is equal to {SAME:.0e} of its value; where picks differ, gains were equal but for rounding.",
        _table(["", "seconds", "ours", "times slower", f"of {budget} picks the same"], rows),
    ]


def _cell(line: dict[str, Any] | None) -> str:
    if line is None:
        return "–"
    return f"{line['seconds']:.3g} s = {line['products']:.2g}, {line['bytes'] / 1e9:.2g} GB"


def _growth_table(found: dict[tuple[str, int, int], dict[str, Any]]) -> list[str]:
    sizes = [*ROWS, 1_000_000]
    rows = []
    for method in METHODS:
        cells = [found.get((method, n, AT_BUDGET)) for n in sizes]
        fitted = [(n, one["seconds"]) for n, one in zip(sizes, cells, strict=True) if one and n >= FITTED_FROM]
        slope = f"{exponent(fitted):.2f}" if len(fitted) > 1 else "–"
        rows.append([f"`{method}`", *map(_cell, cells), slope])
    return [
        f"## Growth with the pool, {AT_BUDGET} picks",
        "Seconds, the same in products, and memory beyond the rows; the last column is the exponent of n, fitted from "
        f"{FITTED_FROM:,} rows up.",
        _table(["", *(f"n = {n:,}" for n in sizes), "exponent"], rows),
    ]


def _budget_table(found: dict[tuple[str, int, int], dict[str, Any]]) -> list[str]:
    rows = []
    for method, n in [*((method, AT_ROWS) for method in METHODS), (METHODS[0], 100_000), (METHODS[1], 1_000_000)]:
        cells = [found.get((method, n, budget)) for budget in BUDGETS]
        fitted = [(budget, one["seconds"]) for budget, one in zip(BUDGETS, cells, strict=True) if one]
        slope = f"{exponent(fitted):.2f}" if len(fitted) > 1 else "–"
        rows.append([f"`{method}`, n = {n:,}", *map(_cell, cells), slope])
    return [
        "## Growth with the budget",
        _table(["", *(f"{budget:,} picks" for budget in BUDGETS), "exponent"], rows),
    ]


def _dominating(found: dict[tuple[str, int, int], dict[str, Any]]) -> list[str]:
    """What the costs consist of, with the share of the product where it was measured."""
    shares = []
    for method in ("max_herding", "vote_k", "ideal", "sub_sa"):
        some = [found[method, n, AT_BUDGET]["products"] for n in ROWS if (method, n, AT_BUDGET) in found]
        if some:
            shares.append(f"`{method}` took {min(some):.2g} to {max(some):.2g} products")
    return [
        "## Which term dominates where",
        f"At {AT_BUDGET} picks {'; '.join(shares)}. So the product of all pairs, n² d, decides for `max_herding` at "
        "every size; for `vote_k` and `ideal` it does in large pools, and the partial sort of each row (n²) or the "
        "sampled cascades (n) in small ones. `sub_sa` has no product: n d a pick. Near-exact selection costs a fixed "
        "amount, for its parts and its sample, and n d budget for the steps on all rows, which decide from some "
        "hundred thousand rows up.",
    ]


def _plot(found: dict[tuple[str, int, int], dict[str, Any]], path: Path) -> None:
    matplotlib = require("matplotlib", extra="bench", purpose="the plot")
    matplotlib.use("svg")
    matplotlib.rcParams["svg.hashsalt"] = "growth"
    plt = require("matplotlib.pyplot", extra="bench", purpose="the plot")
    figure, axes = plt.subplots(figsize=(7, 4.6), layout="constrained")
    for method, marker in zip(METHODS, "osD^vx", strict=True):
        sizes = [n for n in (*ROWS, 1_000_000) if (method, n, AT_BUDGET) in found]
        axes.loglog(sizes, [found[method, n, AT_BUDGET]["seconds"] for n in sizes], marker=marker, label=method)
    units = {n: found["max_herding", n, AT_BUDGET] for n in ROWS if ("max_herding", n, AT_BUDGET) in found}
    axes.loglog(
        list(units),
        [line["seconds"] / line["products"] for line in units.values()],
        color="0.5",
        linestyle="--",
        label="one product of all pairs",
    )
    axes.set_xlabel("rows of the pool")
    axes.set_ylabel("processor seconds")
    axes.set_title(f"{AT_BUDGET} picks, d = {D}, one thread")
    axes.grid(visible=True, which="major", alpha=0.3)
    axes.legend(fontsize=8)
    figure.savefig(path, metadata={"Date": None})


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, nargs="?", help="where growth.jsonl and the page are")
    parser.add_argument("--page", action="store_true", help="measure nothing")
    parser.add_argument("--one", nargs=3, help=argparse.SUPPRESS)
    parser.add_argument("--peers", nargs=2, type=int, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one:
        what, rows, budget = options.one
        print(json.dumps(measure(what, int(rows), int(budget))))
        return 0
    if options.peers:
        for line in against_peers(*options.peers):
            print(json.dumps(line), flush=True)
        return 0
    if options.folder is None:
        parser.error("say where the measurements are to be kept")
    options.folder.mkdir(parents=True, exist_ok=True)
    if not options.page:
        run_missing(options.folder / "growth.jsonl")
    page(options.folder)
    return 0


if __name__ == "__main__":
    sys.exit(main())
