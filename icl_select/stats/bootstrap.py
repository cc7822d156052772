"""Hierarchical bootstrap: resample draws, then items, with a small-sample correction that holds."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy import special

from icl_select.stats._cells import Cells, make_cells
from icl_select.stats._evidence import Evidence, check_level, check_positive
from icl_select.stats.variance import MeanVariance, variance_of
from icl_select.types import FloatArray

__all__ = ["Interval", "bootstrap_means", "hierarchical_bootstrap"]

_BLOCK = 250  # resamples at a time: keeps the temporaries in cache


@dataclass(frozen=True, slots=True)
class Interval(Evidence):
    """Interval of a mean over draws and items.

    Attributes
    ----------
    estimate, low, high : float
    level : float
    method : str
        How it was made.
    se, df : float
        Standard error and degrees of freedom that the resamples were scaled to.
    n_draws, n_items : int
        Draws, and distinct items over all draws.
    n_resamples, seed : int
    """

    estimate: float
    low: float
    high: float
    level: float
    method: str
    se: float
    df: float
    n_draws: int
    n_items: int
    n_resamples: int
    seed: int

    def __contains__(self, value: float) -> bool:
        return self.low <= value <= self.high


def hierarchical_bootstrap(
    differences: Sequence[Any],
    *,
    item_ids: Sequence[Any] | None = None,
    seed: int,
    n_resamples: int = 2000,
    level: float = 0.95,
) -> Interval:
    """Return an interval of the mean difference over draws and items.

    Resamples draws with replacement and items with replacement, within each draw, or across draws where
    `item_ids` says that items recur ("pigeonhole" bootstrap [1]_). The deviations of the resamples are then
    stretched to the unbiased standard error and the t quantile of its degrees of freedom, because plain
    percentiles cover far too seldom with few draws (see docs/statistics.md).

    Parameters
    ----------
    differences : sequence of R arrays
        Per-item differences of each draw; draws may hold different numbers of items.
    item_ids : sequence of R sequences, optional
        Which item each value belongs to. Pass it when test items recur over draws: effects of single items
        are then shared by the draws and do not average out over them.
    seed : int
    n_resamples : int
    level : float

    Returns
    -------
    Interval

    Raises
    ------
    StatisticsError
        If there is no draw, a draw is empty, holds NaN, or does not fit its ids.

    Notes
    -----
    With one draw the interval covers new items only: nothing is known about other draws.

    References
    ----------
    .. [1] Owen, "The pigeonhole bootstrap", Ann. Appl. Stat. 1, 2007.
    .. [2] Hesterberg, "What teachers should know about the bootstrap", Am. Stat. 69, 2015 (narrowness bias).

    Examples
    --------
    >>> rng = np.random.default_rng(0)
    >>> interval = hierarchical_bootstrap(0.05 + 0.3 * rng.normal(size=(6, 200)), seed=1)
    >>> interval.low < 0.05 < interval.high
    True
    """
    cells = make_cells(differences, item_ids, name="differences")
    return interval_of(cells, variance_of(cells), seed=seed, n_resamples=n_resamples, level=level)


def interval_of(cells: Cells, variance: MeanVariance, *, seed: int, n_resamples: int, level: float) -> Interval:
    """Bootstrap `cells` and stretch the resamples to the standard error and degrees of freedom of `variance`."""
    check_level(level, name="level")
    check_positive(n_resamples, name="n_resamples")
    low, high = stretch(bootstrap_means(cells, seed=seed, n_resamples=n_resamples), variance, level)
    return Interval(
        estimate=variance.effect,
        low=low,
        high=high,
        level=level,
        method="hierarchical bootstrap (draws x items), t-scaled",
        se=variance.se,
        df=variance.df,
        n_draws=cells.n_draws,
        n_items=cells.n_distinct,
        n_resamples=n_resamples,
        seed=seed,
    )


def stretch(resampled: FloatArray, variance: MeanVariance, level: float) -> tuple[float, float]:
    """Return the percentile interval of the resamples after giving them the right spread."""
    deviations = resampled - resampled.mean()
    spread = float(deviations.std())
    if variance.se == 0 or spread == 0:
        return variance.effect, variance.effect
    upper = (1 + level) / 2
    normal = float(special.ndtri(upper))
    quantile = float(special.stdtrit(variance.df, upper)) if math.isfinite(variance.df) else normal
    # "weibull": the quantile that a further resample falls below with exactly this probability
    tails = np.quantile(deviations, [1 - upper, upper], method="weibull")
    low, high = tails * (variance.se / spread * quantile / normal)
    return variance.effect + min(float(low), 0.0), variance.effect + max(float(high), 0.0)


def bootstrap_means(cells: Cells, *, seed: int, n_resamples: int) -> FloatArray:
    """Return the plain, unscaled bootstrap means, shape (n_resamples,)."""
    rng = np.random.default_rng(seed)
    per_draw = _nested(cells, rng, n_resamples) if cells.columns is None else _crossed(cells, rng, n_resamples)
    if cells.n_draws == 1:
        return per_draw[:, 0]
    picks = rng.integers(cells.n_draws, size=(n_resamples, cells.n_draws))
    if cells.columns is not None:
        return np.asarray(np.take_along_axis(per_draw, picks, axis=1).mean(axis=1))
    # A draw picked twice gets two resamples of its items: slot j reads from rows shifted by j.
    rows = (np.arange(n_resamples)[:, None] + np.arange(cells.n_draws)) % n_resamples
    return np.asarray(per_draw[rows, picks].mean(axis=1))


def _nested(cells: Cells, rng: np.random.Generator, n_resamples: int) -> FloatArray:
    """Means of resampled items within each draw, shape (n_resamples, n_draws)."""
    out = np.empty((n_resamples, cells.n_draws))
    for r, values in enumerate(cells.values):
        for start in range(0, n_resamples, _BLOCK):
            stop = min(start + _BLOCK, n_resamples)
            index = rng.integers(len(values), size=(stop - start, len(values)), dtype=np.int32)
            out[start:stop, r] = values[index].mean(axis=1)
    return out


def _crossed(cells: Cells, rng: np.random.Generator, n_resamples: int) -> FloatArray:
    """Means of each draw under item weights that all draws share, shape (n_resamples, n_draws)."""
    n, means = cells.n_distinct, cells.means
    values = cells.dense(cells.values).T
    mask = cells.dense([np.ones(len(v)) for v in cells.values]).T
    out = np.empty((n_resamples, cells.n_draws))
    for start in range(0, n_resamples, _BLOCK):
        stop = min(start + _BLOCK, n_resamples)
        index = rng.integers(n, size=(stop - start, n), dtype=np.int32)
        index += (np.arange(stop - start, dtype=np.int32) * n)[:, None]
        counts = np.bincount(index.ravel(), minlength=(stop - start) * n).reshape(stop - start, n).astype(np.float64)
        weight = counts @ mask
        # A draw of very few items may lose all of them; it then keeps its own mean.
        out[start:stop] = np.where(weight > 0, (counts @ values) / np.maximum(weight, 1.0), means)
    return out
