"""How long ``import icl_select`` takes, beside ``import numpy`` and an empty program.

Every figure is the median over fresh interpreters, taken in turn so that other load falls on all alike.

    python benchmarks/import_time.py [--runs 15]
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
import time

PROGRAMS = {"nothing": "pass", "numpy": "import numpy", "icl_select": "import icl_select"}


def seconds(code: str) -> float:
    """Wall seconds of one fresh interpreter."""
    start = time.perf_counter()
    subprocess.run([sys.executable, "-c", code], check=True)
    return time.perf_counter() - start


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=15, help="interpreters started for each program")
    runs = parser.parse_args().runs
    for code in PROGRAMS.values():  # fill the file cache and write the bytecode
        seconds(code)
    times: dict[str, list[float]] = {name: [] for name in PROGRAMS}
    for _ in range(runs):
        for name, code in PROGRAMS.items():
            times[name].append(seconds(code))
    medians = {name: statistics.median(values) for name, values in times.items()}
    print(f"{'program':<12}{'median s':>10}{'fastest s':>11}{'x numpy':>9}")
    for name, median in medians.items():
        print(f"{name:<12}{median:>10.3f}{min(times[name]):>11.3f}{median / medians['numpy']:>9.2f}")


if __name__ == "__main__":
    main()
