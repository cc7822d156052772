"""Where the variance of a mean difference comes from: draws, items that recur, and shared selection luck."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy import special

from icl_select.stats._cells import Cells, make_cells
from icl_select.stats._evidence import Evidence

__all__ = ["MeanVariance", "VarianceComponents", "mean_variance", "variance_components"]


@dataclass(frozen=True, slots=True)
class MeanVariance(Evidence):
    """Variance of the mean over draws, split by its sources.

    Attributes
    ----------
    effect : float
        Mean over draws of the mean over items.
    draws : float
        s^2 / R: what differs from draw to draw.
    items : float
        Mean covariance of two draws through the items that both hold; never negative.
    luck : float
        Covariance of two draws through picks that both share; 0 unless given.
    df : float
        Welch-Satterthwaite degrees of freedom of the sum; 0 with one draw and no other source. An uncertain
        `luck` takes them no lower than draws and items alone, or one less than the number of draws.
    """

    effect: float
    draws: float
    items: float
    luck: float
    df: float

    @property
    def total(self) -> float:
        return self.draws + self.items + self.luck

    @property
    def se(self) -> float:
        return math.sqrt(self.total)

    def p_value(self, alternative: str = "two-sided", shift: float = 0.0) -> float:
        """Return the t-test p-value of the null hypothesis that the mean is `shift`."""
        distance = self.effect - shift
        if self.total <= 0:
            if alternative == "two-sided":
                return 1.0 if distance == 0 else 0.0
            return 0.0 if (distance > 0) == (alternative == "greater") and distance != 0 else 1.0
        t = distance / self.se
        if alternative == "two-sided":
            return float(min(1.0, 2 * special.stdtr(self.df, -abs(t))))
        return float(special.stdtr(self.df, -t if alternative == "greater" else t))


def mean_variance(
    values: Sequence[Any], *, item_ids: Sequence[Any] | None = None, luck: float = 0.0, luck_df: float = math.inf
) -> MeanVariance:
    """Estimate the mean over draws of the mean over items, and its variance by source.

    Parameters
    ----------
    values : sequence of R arrays
        Per-item differences (or scores) of each draw. With one draw, the items are the sample.
    item_ids : sequence of R sequences, optional
        Which item each value belongs to. Without, no covariance between draws is estimated.
    luck : float
        Covariance of two draws through shared picks, known from elsewhere.
    luck_df : float
        Degrees of freedom of that figure.

    Returns
    -------
    MeanVariance

    Examples
    --------
    >>> result = mean_variance([[0.0, 0.2], [0.2, 0.4], [0.4, 0.6]])
    >>> round(result.effect, 6), round(result.draws, 6), round(result.p_value(), 4)
    (0.3, 0.013333, 0.1217)
    """
    return variance_of(make_cells(values, item_ids, name="values"), luck=luck, luck_df=luck_df)


def variance_of(cells: Cells, *, luck: float = 0.0, luck_df: float = math.inf) -> MeanVariance:
    """As `mean_variance`, for checked cells."""
    means, sizes = cells.means, cells.sizes
    n_draws = len(means)
    if n_draws == 1:
        m = int(sizes[0])
        draws, df = (float(cells.values[0].var(ddof=1)) / m, m - 1.0) if m > 1 else (0.0, 0.0)
        return MeanVariance(float(means[0]), draws, 0.0, luck, df)
    # An exact zero stays zero: equal means must not leave a rounding error as variance.
    spread = float(np.ptp(means)) > 1e-12 * float(np.abs(means).max())
    draws = float(means.var(ddof=1)) / n_draws if spread else 0.0
    items = _item_covariance(cells)
    squares = draws**2 / (n_draws - 1)
    if items > 0:
        # The covariance is a difference of mean squares: the noise that was taken off still makes it uncertain.
        noise = float(np.mean([v.var() / len(v) for v in cells.values])) / n_draws
        squares += (items + noise) ** 2 / (cells.n_distinct - 1)
    total = draws + items + luck
    # An uncertain guess of luck must not weigh more than none: where there is no luck, the rest suffices.
    floor = min(n_draws - 1.0, (draws + items) ** 2 / squares) if squares > 0 else n_draws - 1.0
    if luck > 0 and math.isfinite(luck_df):
        squares += luck**2 / luck_df
    df = max(total**2 / squares, floor) if squares > 0 else math.inf if total > 0 else n_draws - 1.0
    return MeanVariance(float(means.mean()), draws, items, luck, df)


def _item_covariance(cells: Cells) -> float:
    """Mean over pairs of draws of the covariance of their means through common items, at least 0.

    For an item effect of variance s2 that is the same in every draw, two draws of m items with o items in
    common have means that covary by s2 * o / m^2. The sum over common items of the products of centred
    values estimates it; centring within draws takes 1/m_r + 1/m_s - o/(m_r m_s) of it away, which is undone.
    """
    if cells.columns is None or cells.n_draws < 2:
        return 0.0
    sizes = cells.sizes.astype(np.float64)
    centred = cells.dense([(v - v.mean()) / len(v) for v in cells.values])
    mask = cells.dense([np.ones(len(v)) for v in cells.values])
    products, common = centred @ centred.T, mask @ mask.T
    inverse = 1.0 / sizes
    keep = 1.0 - inverse[:, None] - inverse[None, :] + common * np.outer(inverse, inverse)
    off = ~np.eye(cells.n_draws, dtype=bool) & (keep > 0)
    if not off.any():
        return 0.0
    pairs = cells.n_draws * (cells.n_draws - 1)
    return max(0.0, float((products[off] / keep[off]).sum() / pairs))


@dataclass(frozen=True, slots=True)
class VarianceComponents(Evidence):
    """Variances of the model  x[r, i] = mean + draw[r] + item[i] + residual[r, i].

    Attributes
    ----------
    draw : float
        Between draws: luck of the selections and of the pool. In squared score units.
    item : float
        Items that favour the method in every draw, as much as others disfavour it.
    residual : float
        The rest: which item falls to whom in this draw.
    luck : float
        Part of the draws' luck that all draws share because their selections overlap; more draws do not
        average it out. 0 unless given.
    """

    draw: float
    item: float
    residual: float
    luck: float = 0.0

    def draw_variance(self, n_items: float, item_share: float = 1.0) -> float:
        """Variance of one draw's difference around the level that all draws share."""
        return self.draw + (self.item * (1 - item_share) + self.residual) / n_items

    def shared_variance(self, n_items: float, item_share: float = 1.0) -> float:
        """Variance that all draws share, which more draws do not reduce."""
        return self.item * item_share / n_items + self.luck


def variance_components(
    values: Sequence[Any], *, item_ids: Sequence[Any] | None = None, luck: float = 0.0
) -> VarianceComponents:
    """Estimate the variance components from per-item differences by the method of moments.

    Parameters
    ----------
    values : sequence of R arrays
        Per-item differences of each draw, at least 2 draws.
    item_ids : sequence of R sequences, optional
        Which item each value belongs to. Without, `item` cannot be told from `residual` and is 0.
    luck : float
        Shared selection luck, carried along.

    Returns
    -------
    VarianceComponents
        Estimates that fall below 0 are set to 0.

    Examples
    --------
    Two draws that differ by 0.2 on items that all agree: draws vary, items do not.

    >>> parts = variance_components([[0.1, 0.1], [0.3, 0.3]])
    >>> round(parts.draw, 6), parts.item, parts.residual
    (0.02, 0.0, 0.0)
    """
    return components_of(make_cells(values, item_ids, name="values"), luck)


def components_of(cells: Cells, luck: float = 0.0) -> VarianceComponents:
    sizes = cells.sizes.astype(np.float64)
    m, share = float(sizes.mean()), cells.share
    freedom = float((sizes - 1).sum())
    within = sum(float(((v - v.mean()) ** 2).sum()) for v in cells.values) / freedom if freedom > 0 else 0.0
    item = min(within, _item_covariance(cells) * m / share) if share > 0 else 0.0
    residual = within - item
    between = float(cells.means.var(ddof=1)) if cells.n_draws > 1 else 0.0
    draw = max(0.0, between - (item * (1 - share) + residual) / m)
    return VarianceComponents(draw=draw, item=item, residual=residual, luck=luck)
