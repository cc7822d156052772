"""One method against random, paired by draw and item."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from icl_select.errors import StatisticsError
from icl_select.stats._cells import Cells, make_cells
from icl_select.stats._evidence import check_level, finite_vector
from icl_select.stats.bootstrap import interval_of
from icl_select.stats.family import MARKS, Comparison, compare_family
from icl_select.stats.mcnemar import mcnemar
from icl_select.stats.overlap import luck_variance, selection_overlap
from icl_select.stats.sign_flip import sign_flip
from icl_select.stats.variance import components_of, variance_of
from icl_select.types import FloatArray

__all__ = ["compare"]


def compare(
    method: Sequence[Any],
    random: Sequence[Any],
    *,
    item_ids: Sequence[Any] | None = None,
    picks: Sequence[Sequence[Any]] | None = None,
    seed: int,
    level: float = 0.95,
    alpha: float = 0.05,
    n_resamples: int = 2000,
) -> Comparison:
    """Compare a method with random selection, paired by draw and item.

    In draw r both select from the same pool subsample and answer the same test items; the difference of the
    draw is the mean over items of the method's score minus the mean over the random selections.

    Parameters
    ----------
    method : sequence of R arrays of shape (n_items_r,)
        Scores per item, larger is better.
    random : sequence of R arrays of shape (repeats, n_items_r) or (n_items_r,)
        The same for one or several random selections of each draw.
    item_ids : sequence of R sequences, optional
        Test item of each score. Pass it whenever test items recur over draws (they do if draws subsample one
        test file); without, every score counts as an item of its own.
    picks : sequence of R sequences, optional
        Ids that the method selected in each draw. Pass it whenever draws subsample one data set: a
        deterministic method then makes partly the same, luckily or unluckily same, selections in every draw.
        Best with two or more random selections per draw, whose spread says how large that luck is.
    seed : int
        Seed of the bootstrap.
    level : float
        Level of the interval.
    alpha : float
        Level of the verdict.
    n_resamples : int

    Returns
    -------
    Comparison

    Raises
    ------
    StatisticsError
        If draws or items do not match, or a score is NaN.

    Notes
    -----
    A verdict needs the adjusted p-value at most `alpha` and an interval without 0. See docs/statistics.md
    for what it claims and what it does not.

    Examples
    --------
    >>> rng = np.random.default_rng(0)
    >>> random = [(rng.random((2, 200)) < 0.5).astype(float) for _ in range(8)]
    >>> method = [(rng.random(200) < 0.7).astype(float) for _ in range(8)]
    >>> result = compare(method, random, seed=1)
    >>> result.verdict, result.mark, result.p_sign_flip
    ('better', '+', 0.0078125)
    """
    check_level(alpha, name="alpha")
    scores = [finite_vector(v, name=f"draw {r} of method") for r, v in enumerate(method)]
    baseline = _repeats(random, scores)
    cells = make_cells([m - b.mean(axis=0) for m, b in zip(scores, baseline, strict=True)], item_ids, name="method")
    shared, luck, luck_df = shared_luck(cells, baseline, picks)
    variance = variance_of(cells, luck=luck, luck_df=luck_df)
    interval = interval_of(cells, variance, seed=seed, n_resamples=n_resamples, level=level)
    p_flip, test = _over_draws(cells, scores, baseline, seed)
    p_two_way = variance.p_value()
    draft = Comparison(
        effect=variance.effect,
        method_mean=float(np.mean([s.mean() for s in scores])),
        random_mean=float(np.mean([b.mean() for b in baseline])),
        ci=interval,
        p_value=max(p_flip, p_two_way) if cells.n_draws > 1 else p_flip,
        p_adjusted=1.0,
        p_sign_flip=p_flip,
        p_two_way=p_two_way,
        test=test,
        verdict="no evidence",
        mark=MARKS["no evidence"],
        scope="method" if cells.n_draws > 1 else "selection",
        n_draws=cells.n_draws,
        n_items=round(float(cells.sizes.mean())),
        n_repeats=min(len(b) for b in baseline),
        n_distinct_items=cells.n_distinct,
        n_comparisons=1,
        alpha=alpha,
        level=level,
        n_resamples=n_resamples,
        seed=seed,
        overlap=shared,
        components=components_of(cells, luck),
        item_share=cells.share,
        detectable_difference=None,
        needed_draws=None,
        needed_items=None,
        notes=(),
    )
    return compare_family([draft], alpha=alpha)[0]


def _repeats(random: Sequence[Any], scores: Sequence[FloatArray]) -> list[FloatArray]:
    """Return the random scores of each draw as a finite (repeats, n_items) matrix."""
    if len(random) != len(scores):
        raise StatisticsError(f"method has {len(scores)} draws and random {len(random)}: draws are paired.")
    baseline: list[FloatArray] = []
    for r, (values, score) in enumerate(zip(random, scores, strict=True)):
        matrix = np.atleast_2d(np.asarray(values, dtype=np.float64))
        if matrix.ndim != 2 or len(matrix) == 0 or matrix.shape[1] != len(score):
            raise StatisticsError(
                f"draw {r} of random has shape {np.shape(values)}, but method scored {len(score)} items there. "
                "Pass (repeats, n_items): the same items, in the same order."
            )
        finite_vector(matrix.ravel(), name=f"draw {r} of random")
        baseline.append(matrix)
    return baseline


def shared_luck(
    cells: Cells, baseline: Sequence[FloatArray], picks: Sequence[Sequence[Any]] | None
) -> tuple[float | None, float, float]:
    """Overlap of the picks, the variance it makes all draws share, and that variance's degrees of freedom."""
    if picks is None:
        return None, 0.0, math.inf
    if len(picks) != cells.n_draws:
        raise StatisticsError(f"picks lists {len(picks)} draws, but method has {cells.n_draws}.")
    shared = selection_overlap(picks)
    if cells.n_draws == 1 or shared == 0.0:
        return shared, 0.0, math.inf
    # Draws that share most of their picks cannot show on their own that luck is small: then an estimate near 0,
    # which may as well be too low by its error, is not taken at its word.
    variance, df = luck_variance(
        baseline, without_items=cells.columns is not None, at_least=max(0.0, 2.0 * shared - 1.0)
    )
    if df == 0:
        # One random selection per draw: a draw's difference holds its luck once and the method's own part once.
        variance, df = float(cells.means.var(ddof=1)) / (2.0 - shared), cells.n_draws - 1.0
    return shared, shared * variance, df


def _over_draws(
    cells: Cells, scores: Sequence[FloatArray], baseline: Sequence[FloatArray], seed: int
) -> tuple[float, str]:
    """P-value over draws; with a single draw over items, McNemar's where scores are right or wrong."""
    if cells.n_draws > 1:
        return sign_flip(cells.means, seed=seed).p_value, "sign flip over draws and two-way t"
    if len(baseline[0]) == 1 and np.isin(scores[0], (0, 1)).all() and np.isin(baseline[0], (0, 1)).all():
        return mcnemar(scores[0], baseline[0][0]).p_value, "McNemar"
    return sign_flip(cells.values[0], seed=seed, n_resamples=10_000).p_value, "sign flip over items"
