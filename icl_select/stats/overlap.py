"""Draws that share their pool: how much of a method's selection luck they have in common."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from icl_select.errors import StatisticsError
from icl_select.stats._evidence import check_positive
from icl_select.types import FloatArray

__all__ = ["luck_variance", "overlap_note", "selection_overlap"]


def selection_overlap(picks: Sequence[Sequence[Any]]) -> float:
    """Return the share of picks that two draws have in common, mean over all pairs of draws.

    Parameters
    ----------
    picks : sequence of R sequences
        Ids (or indices into the whole data set) that the method selected in each draw.

    Returns
    -------
    float
        0 if no pick recurs, 1 if every draw has the same selection.

    Examples
    --------
    >>> selection_overlap([["a", "b"], ["b", "c"], ["d", "e"]])
    0.16666666666666666
    """
    sets = [set(np.asarray(p).tolist()) for p in picks]
    if not sets or any(not s for s in sets):
        raise StatisticsError("picks must list at least one id for each draw.")
    shared = [len(a & b) / np.sqrt(len(a) * len(b)) for i, a in enumerate(sets) for b in sets[i + 1 :]]
    return float(np.mean(shared)) if shared else 0.0


def luck_variance(random: Sequence[FloatArray], *, without_items: bool, at_least: float = 0.0) -> tuple[float, float]:
    """Return how much a selection's score varies within a draw, from several random ones; and degrees of freedom.

    Both are 0 where no draw has two random selections.

    Parameters
    ----------
    random : sequence of R arrays of shape (repeats, n_items_r)
        Scores of the random selections of each draw, all on that draw's items.
    without_items : bool
        Take away what comes from single items going to this or that selection (two-way analysis of variance).
        Right where recurring items are accounted for on their own.
    at_least : float
        Smallest variance returned, in standard errors of its estimate.

    Notes
    -----
    The degrees of freedom are Satterthwaite's for a difference of mean squares: the noise that was taken off
    still makes the estimate uncertain.
    """
    freedom = sum(len(scores) - 1 for scores in random)
    if freedom == 0:
        return 0.0, 0.0
    between = noise = 0.0
    for scores in random:
        means, m = scores.mean(axis=1), scores.shape[1]
        between += float(((means - means.mean()) ** 2).sum()) / freedom
        if without_items and m > 1:
            rest = scores - means[:, None] - scores.mean(axis=0) + means.mean()
            noise += float((rest**2).sum()) / ((m - 1) * m) / freedom
    least = at_least * between * math.sqrt(2 / freedom)
    variance = min(max(between - noise, least), between)
    if variance <= 0:
        return 0.0, float(freedom)
    return variance, freedom * (variance / between) ** 2


def overlap_note(pool_size: int, n_pool: int, *, n_draws: int = 10) -> str | None:
    """Say before a run whether its draws share too much of the data set.

    Parameters
    ----------
    pool_size : int
        Pool examples of each draw.
    n_pool : int
        Examples in the whole data set.
    n_draws : int

    Returns
    -------
    str or None
        None where two draws share at most a tenth of their pool.

    Examples
    --------
    >>> print(overlap_note(2490, 2490))
    every draw holds the whole data set of 2490 examples: a deterministic method makes the same selection in every \
draw, so the draws say nothing about its luck. Take pools of at most 249 examples for 10 draws without any overlap, \
or accept verdicts that rest on the spread of the random selections (pass picks).
    >>> overlap_note(300, 3000) is None
    True
    """
    size, whole = check_positive(pool_size, name="pool_size"), check_positive(n_pool, name="n_pool")
    if size > whole:
        raise StatisticsError(f"pool_size={size} exceeds the {whole} examples of the data set.")
    share = size / whole
    if share <= 0.1:
        return None
    way_out = (
        f"Take pools of at most {max(1, whole // n_draws)} examples for {n_draws} draws without any overlap, "
        "or accept verdicts that rest on the spread of the random selections (pass picks)."
    )
    if share == 1.0:
        return (
            f"every draw holds the whole data set of {whole} examples: a deterministic method makes the same "
            f"selection in every draw, so the draws say nothing about its luck. {way_out}"
        )
    strength = "much" if share > 0.5 else "part"
    return (
        f"two draws share {share:.0%} of their pool ({size} of {whole} examples), so a deterministic method has "
        f"{strength} of its luck in common over draws, and more draws do not average it out. {way_out}"
    )
