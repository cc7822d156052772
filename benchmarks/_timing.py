"""One thread, a synthetic pool, and timings that can be compared within one run.

Import this module before numpy: the thread count is read when numpy loads.
"""

from __future__ import annotations

import os
import resource
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

for _name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMBA_NUM_THREADS"):
    os.environ[_name] = "1"

import numpy as np  # noqa: E402

__all__ = ["peak_bytes", "pool", "ratio_of", "resident_bytes", "seconds"]


def pool(n: int, d: int, *, components: int = 200, seed: int = 0) -> np.ndarray:
    """Unit float32 rows from a mixture of Gaussians, made in blocks."""
    rng = np.random.default_rng(seed)
    centres = rng.normal(size=(components, d))
    x = np.empty((n, d), dtype=np.float32)
    for start in range(0, n, 4096):
        part = x[start : start + 4096]
        block = centres[rng.integers(components, size=len(part))] + 0.7 * rng.normal(size=part.shape)
        part[:] = block / np.linalg.norm(block, axis=1, keepdims=True)
    return x


def seconds(work: Callable[[], Any]) -> tuple[float, Any]:
    """Processor seconds of one call, which other work on the machine hardly changes, and its result."""
    start = time.process_time()
    result = work()
    return time.process_time() - start, result


def ratio_of(work: Callable[[], Any], unit: Callable[[], Any], *, runs: int) -> tuple[float, float]:
    """Median of time(work) / time(unit), each run timing the unit before and after; and the median of work."""
    ratios, times = [], []
    for _ in range(runs):
        before, _ = seconds(unit)
        spent, _ = seconds(work)
        after, _ = seconds(unit)
        ratios.append(2 * spent / (before + after))
        times.append(spent)
    return statistics.median(ratios), statistics.median(times)


def resident_bytes() -> int:
    """Memory that this process holds now; its peak where the system does not say."""
    statm = Path("/proc/self/statm")
    if statm.exists():
        return int(statm.read_text(encoding="utf-8").split()[1]) * resource.getpagesize()
    return peak_bytes()


def peak_bytes() -> int:
    """Most memory that this process ever held."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024
