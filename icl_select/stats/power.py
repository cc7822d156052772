"""Power of the paired test: what a design can detect, and what would resolve an undecided cell."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
from scipy import special

from icl_select.errors import StatisticsError
from icl_select.stats._evidence import Evidence, check_level, check_positive
from icl_select.stats.sign_flip import sign_flip_floor
from icl_select.stats.variance import VarianceComponents
from icl_select.types import FloatArray

__all__ = ["PILOT", "Design"]

PILOT = VarianceComponents(draw=0.0013, item=0.028, residual=0.23, luck=0.0002)
"""Variances assumed before a run, for scores between 0 and 1: measured on four of the benchmark samples with 1-NN at
budget 18 and pools of a quarter of the data set (docs/statistics.md). At budget 100 draws vary less."""

_SAMPLES = 4000
# The sign-flip test is followed over all subsets of up to 10 draws. With more draws, over the subsets of the 10
# lowest as long as at most 64 patterns may be extreme; beyond, the t-test at the attained level agrees with it.
_SUBSET = 10
_FEW_PATTERNS = 64
_MOST_DRAWS = 500
_MOST_ITEMS = 100_000


@dataclass(frozen=True, slots=True)
class Design(Evidence):
    """Size and assumed variances of a paired comparison, and what it can detect.

    Attributes
    ----------
    n_draws, n_items : int
        Draws, and test items of each draw.
    components : VarianceComponents
        Assumed before a run (default: a pilot), or estimated from one.
    alpha : float
    n_comparisons : int
        Size of the Holm family; power is that against its hardest threshold, ``alpha / n_comparisons``.
    item_share : float
        Share of its items that a draw has in common with another draw.

    Raises
    ------
    StatisticsError
        If a number is out of its range.

    Notes
    -----
    Both tests that a verdict needs are followed on 4,000 simulated samples of normal draw differences (fixed
    seed). For each sample the smallest difference that both reject is known in closed form: a set F of
    flipped draws counts against the null hypothesis until the difference exceeds minus the mean noise of F.
    With many draws the t-test at the attained level of the sign-flip test stands for both.

    Examples
    --------
    >>> design = Design(n_draws=10, n_items=256)
    >>> design.power(0.1) > 0.95
    True
    >>> design.power(design.detectable_difference())
    0.8
    >>> Design(n_draws=5, n_items=256).detectable_difference() is None
    True
    """

    n_draws: int
    n_items: int
    components: VarianceComponents = PILOT
    alpha: float = 0.05
    n_comparisons: int = 1
    item_share: float = 1.0

    def __post_init__(self) -> None:
        check_positive(self.n_draws, name="n_draws")
        check_positive(self.n_items, name="n_items")
        check_positive(self.n_comparisons, name="n_comparisons")
        check_level(self.alpha, name="alpha")
        if not 0.0 <= self.item_share <= 1.0:
            raise StatisticsError(f"item_share={self.item_share} is no share between 0 and 1.")

    def power(self, difference: float) -> float:
        """Return the chance that a true difference of this size, either sign, gets its verdict.

        0 where the floor of the sign-flip test lies above the threshold.

        Parameters
        ----------
        difference : float
            In units of the metric, 0.02 for two points of accuracy.

        Returns
        -------
        float
            From 0 to 1.
        """
        limits = self._limits()
        return 0.0 if limits is None else float((limits <= abs(difference)).mean())

    def detectable_difference(self, target: float = 0.8) -> float | None:
        """Return the smallest true difference that is detected with probability `target`.

        Parameters
        ----------
        target : float, default=0.8
            Wanted power, between 0 and 1.

        Returns
        -------
        float or None
            In units of the metric; None if no difference could be detected, however large.

        Raises
        ------
        StatisticsError
            If `target` is no probability between 0 and 1.
        """
        check_level(target, name="target")
        limits = self._limits()
        if limits is None:
            return None
        # The smallest limit that at least the wanted share of samples does not exceed.
        return float(np.quantile(limits, target, method="inverted_cdf"))

    def needed_draws(self, difference: float, target: float = 0.8) -> int | None:
        """Return how many draws in total would detect `difference`.

        Parameters
        ----------
        difference : float
            In units of the metric, 0.02 for two points of accuracy.
        target : float, default=0.8
            Wanted power, between 0 and 1.

        Returns
        -------
        int or None
            None if no number up to 500 would: the difference is practically 0, or hidden by what all draws share
            (recurring items, overlapping selections).

        Raises
        ------
        StatisticsError
            If `target` is no probability between 0 and 1.
        """
        return _smallest(lambda n: replace(self, n_draws=n), difference, target, _MOST_DRAWS)

    def needed_items(self, difference: float, target: float = 0.8) -> int | None:
        """Return how many test items per draw would detect `difference`.

        Parameters
        ----------
        difference : float
            In units of the metric, 0.02 for two points of accuracy.
        target : float, default=0.8
            Wanted power, between 0 and 1.

        Returns
        -------
        int or None
            None if no number up to 100,000 would: the draws differ too much, or are too few for the floor of their
            test.

        Raises
        ------
        StatisticsError
            If `target` is no probability between 0 and 1.
        """
        return _smallest(lambda n: replace(self, n_items=n), difference, target, _MOST_ITEMS)

    def _limits(self) -> FloatArray | None:
        """For each simulated sample the smallest difference that both tests reject; None if the floor forbids."""
        threshold = self.alpha / self.n_comparisons
        if self.n_draws < 2 or sign_flip_floor(self.n_draws) > threshold:
            return None
        sd = math.sqrt(self.components.draw_variance(self.n_items, self.item_share))
        shared = self.components.shared_variance(self.n_items, self.item_share)
        mean, spread, flip, common = _samples(self.n_draws, threshold)
        draws_part = (spread * sd) ** 2 / self.n_draws
        total = draws_part + shared
        by_t = _critical(draws_part, total, self.n_draws, threshold) * np.sqrt(total) - mean * sd
        limits: FloatArray = np.maximum(by_t, flip * sd) - common * math.sqrt(shared)
        return limits


def _smallest(design: Callable[[int], Design], difference: float, target: float, most: int) -> int | None:
    """Smallest n in 1..most whose design detects `difference`, by bisection."""

    def enough(n: int) -> bool:
        limit = design(n).detectable_difference(target)
        return limit is not None and limit <= abs(difference)

    if difference == 0 or not enough(most):
        return None
    low, high = 0, most  # enough(high) holds, enough(low) does not
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if enough(middle) else (middle, high)
    return high


def _critical(draws_part: FloatArray, total: FloatArray, n_draws: int, threshold: float) -> FloatArray:
    """Two-sided t quantiles with Welch-Satterthwaite degrees of freedom (shared part taken as known)."""
    safe = np.maximum(draws_part, 1e-300)
    df = np.minimum((n_draws - 1) * (np.maximum(total, 1e-300) / safe) ** 2, 1e6)
    return np.asarray(special.stdtrit(df, 1 - threshold / 2))


@functools.lru_cache(maxsize=128)
def _samples(n_draws: int, threshold: float) -> tuple[FloatArray, FloatArray, FloatArray, FloatArray]:
    """Standard normal draws: their mean, standard deviation, smallest rejecting shift; and the shared noise."""
    rng = np.random.default_rng(20240607)
    common = rng.normal(size=_SAMPLES)
    z = rng.normal(size=(_SAMPLES, n_draws))
    mean, spread = z.mean(axis=1), z.std(axis=1, ddof=1)
    # Sign patterns that may be as extreme as the observed one, on one side. The t-test needs no such limit.
    count = math.floor(threshold * 2.0 ** (n_draws - 1) * (1 + 1e-12)) if n_draws < 50 else _FEW_PATTERNS + 1
    if n_draws > _SUBSET and count > _FEW_PATTERNS:
        attained = min(threshold, count * 2.0 ** (1 - n_draws)) if n_draws < 50 else threshold
        flip = float(special.stdtrit(n_draws - 1, 1 - attained / 2)) * spread / math.sqrt(n_draws) - mean
    else:
        flip = _flip_limits(np.sort(z, axis=1)[:, :_SUBSET], count)
    return mean, spread, flip, common


def _flip_limits(z: FloatArray, count: int) -> FloatArray:
    """Shift above which at most `count` one-sided sign patterns (with the observed one) are as extreme.

    Flipping the set F of draws is as extreme iff the mean of F, shifted, is at most 0: iff the shift is at
    most -mean_F. So the limit is the count-th largest of the -mean_F.
    """
    n = z.shape[1]
    sets = ((np.arange(1, 1 << n)[:, None] >> np.arange(n)) & 1).astype(np.float64)
    sets /= sets.sum(axis=1, keepdims=True)
    limits = np.empty(len(z))
    at = len(sets) - count
    for start in range(0, len(z), 250):
        limits[start : start + 250] = np.partition(-(z[start : start + 250] @ sets.T), at, axis=1)[:, at]
    return limits
