"""The sign-flip permutation test over draws, and what a design can reach with it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from icl_select.errors import StatisticsError
from icl_select.stats._evidence import Evidence, check_level, check_positive, finite_vector
from icl_select.types import FloatArray

__all__ = ["Alternative", "DesignCheck", "SignFlip", "design_notes", "sign_flip", "sign_flip_floor"]

Alternative = Literal["two-sided", "greater", "less"]

# Up to here all 2^R sign patterns are counted: two halves of at most 2^15 sums each.
EXACT_LIMIT = 30
# Sums closer than this, relative to the sum of absolute differences, count as equal. Accuracies are ratios
# of counts below 10^5, so sums that differ at all differ by far more; rounding errors are far smaller.
_TOLERANCE = 1e-10


@dataclass(frozen=True, slots=True)
class SignFlip(Evidence):
    """Result of a sign-flip test.

    Attributes
    ----------
    effect : float
        Mean of the differences.
    p_value : float
    alternative : str
    n_draws : int
    n_nonzero : int
        Draws with a difference other than 0; only these carry evidence.
    n_resamples : int
        Sign patterns counted: 2^n_draws if exact, else the random ones (the observed one not included).
    exact : bool
    floor : float
        Smallest p-value that this number of draws can give.
    seed : int or None
        Seed of the random patterns; None if exact.
    """

    effect: float
    p_value: float
    alternative: str
    n_draws: int
    n_nonzero: int
    n_resamples: int
    exact: bool
    floor: float
    seed: int | None


def sign_flip(
    differences: Sequence[float] | FloatArray,
    *,
    alternative: Alternative = "two-sided",
    n_resamples: int = 100_000,
    seed: int = 0,
) -> SignFlip:
    """Test whether paired differences are symmetric about 0, by flipping their signs.

    Under the null hypothesis each draw's difference is as likely as its negative, so all 2^R sign patterns are
    equally likely; the p-value is the share of patterns whose sum is at least as extreme as the observed one.
    Up to 30 draws every pattern is counted (meet in the middle); above, random patterns with the plus-one rule.

    Parameters
    ----------
    differences : sequence of float, length R
        One difference per independent draw (mean over items of method minus random).
    alternative : {"two-sided", "greater", "less"}
    n_resamples : int
        Random patterns where R > 30.
    seed : int
        Seed of the random patterns.

    Returns
    -------
    SignFlip

    Raises
    ------
    StatisticsError
        If `differences` is empty or holds NaN, or the alternative is unknown.

    Notes
    -----
    Patterns whose sum equals the observed one up to rounding count as at least as extreme. Draws without a
    difference stay in: they double numerator and denominator alike. Time O(R 2^(R/2)).

    References
    ----------
    .. [1] Fisher, "The Design of Experiments", 1935, section 21.
    .. [2] Phipson and Smyth, "Permutation P-values should never be zero", SAGMB 9, 2010 (plus-one rule).

    Examples
    --------
    Five draws that all agree reach the floor of two in 32, and no level of 5%:

    >>> sign_flip([0.02, 0.01, 0.03, 0.02, 0.04]).p_value
    0.0625
    """
    d = finite_vector(differences, name="differences")
    if alternative not in ("two-sided", "greater", "less"):
        raise StatisticsError(f"alternative={alternative!r} is unknown. Pass 'two-sided', 'greater' or 'less'.")
    exact = len(d) <= EXACT_LIMIT
    if exact:
        count, total = _count_exact(d, alternative), 1 << len(d)
        p = count / total
    else:
        total = check_positive(n_resamples, name="n_resamples")
        p = (1 + _count_random(d, alternative, total, seed)) / (1 + total)
    return SignFlip(
        effect=float(d.mean()),
        p_value=float(p),
        alternative=alternative,
        n_draws=len(d),
        n_nonzero=int(np.count_nonzero(np.abs(d) > _TOLERANCE * np.abs(d).max())),
        n_resamples=total,
        exact=exact,
        floor=sign_flip_floor(len(d), alternative=alternative) if exact else 1 / (1 + total),
        seed=None if exact else seed,
    )


def _sums(d: FloatArray) -> FloatArray:
    """All 2^len(d) signed sums, sorted."""
    sums = np.zeros(1)
    for value in d:
        sums = np.concatenate([sums + value, sums - value])
    sums.sort()
    return sums


def _count_exact(d: FloatArray, alternative: Alternative) -> int:
    """How many sign patterns have a sum at least as extreme as the observed one."""
    scale = float(np.abs(d).sum())
    observed, slack = float(d.sum()), _TOLERANCE * scale
    left, right = _sums(d[: len(d) // 2]), _sums(d[len(d) // 2 :])
    if alternative == "less":
        observed = -observed  # the set of sums is symmetric about 0
    if alternative == "two-sided":
        observed = abs(observed)
        if observed <= slack:
            return 1 << len(d)
    # For each left sum a: right sums b with a + b >= observed - slack.
    above = len(right) - np.searchsorted(right, observed - slack - left, side="left")
    count = int(above.sum(dtype=np.int64))
    return 2 * count if alternative == "two-sided" else count


def _count_random(d: FloatArray, alternative: Alternative, n_resamples: int, seed: int) -> int:
    scale = float(np.abs(d).sum())
    observed, slack = float(d.sum()), _TOLERANCE * scale
    rng = np.random.default_rng(seed)
    count = 0
    for start in range(0, n_resamples, 8192):
        signs = rng.integers(0, 2, size=(min(8192, n_resamples - start), len(d)), dtype=np.int8)
        sums = (2.0 * signs - 1.0) @ d
        if alternative == "two-sided":
            count += int((np.abs(sums) >= abs(observed) - slack).sum())
        else:
            sign = 1.0 if alternative == "greater" else -1.0
            count += int((sign * sums >= sign * observed - slack).sum())
    return count


def sign_flip_floor(n_draws: int, *, alternative: Alternative = "two-sided") -> float:
    """Return the smallest p-value that a sign-flip test over `n_draws` draws can give.

    Parameters
    ----------
    n_draws : int
        At least 1.
    alternative : {"two-sided", "greater", "less"}, default="two-sided"

    Returns
    -------
    float
        ``2 ** (1 - n_draws)``, or half of it for a one-sided test.

    Raises
    ------
    StatisticsError
        If `n_draws` is no whole number of at least 1.

    Examples
    --------
    >>> sign_flip_floor(5), sign_flip_floor(10)
    (0.0625, 0.001953125)
    """
    draws = check_positive(n_draws, name="n_draws")
    # ldexp gives 0 instead of an overflow for absurd numbers of draws
    return math.ldexp(1.0, 1 - draws if alternative == "two-sided" else -draws)


@dataclass(frozen=True, slots=True)
class DesignCheck(Evidence):
    """Whether a design can reach a verdict at all, known before it runs.

    Attributes
    ----------
    n_draws, n_comparisons : int
    alpha : float
    smallest_p : float
        Smallest raw two-sided p-value (the sign-flip floor).
    smallest_p_adjusted : float
        The same after Holm, for a comparison that is alone in reaching the floor.
    reachable : bool
        Whether any comparison of the family can become significant.
    needed_draws : int
        Fewest draws with which one can.
    largest_family : int
        Most comparisons among which one can, with the draws at hand; 0 if not even a single comparison can.
    notes : tuple of str
        What to tell the user; empty if there is nothing to say.
    """

    n_draws: int
    n_comparisons: int
    alpha: float
    smallest_p: float
    smallest_p_adjusted: float
    reachable: bool
    needed_draws: int
    largest_family: int
    notes: tuple[str, ...]


def design_notes(n_draws: int, n_comparisons: int, alpha: float = 0.05) -> DesignCheck:
    """Say before a run whether its number of draws allows a verdict.

    Holm compares the smallest p of m comparisons with alpha / m, and R draws give no two-sided p below
    ``2^(1 - R)``.

    Parameters
    ----------
    n_draws : int
        Independent draws per comparison.
    n_comparisons : int
        Size of the family that Holm adjusts over.
    alpha : float

    Returns
    -------
    DesignCheck

    Examples
    --------
    >>> check = design_notes(n_draws=5, n_comparisons=1)
    >>> check.reachable, check.needed_draws
    (False, 6)
    >>> print(check.notes[0])
    5 draws cannot reach significance: the smallest p of a sign-flip test over 5 draws is 1/16 = 0.0625, above \
alpha = 0.05. Run at least 6 draws.
    >>> design_notes(n_draws=10, n_comparisons=12).reachable
    True
    """
    draws = check_positive(n_draws, name="n_draws")
    family = check_positive(n_comparisons, name="n_comparisons")
    check_level(alpha, name="alpha")
    floor = sign_flip_floor(draws)
    needed = 1
    while sign_flip_floor(needed) * family > alpha:
        needed += 1
    reachable = floor * family <= alpha
    # A billion comparisons stand for "any": keeps the number finite for absurd numbers of draws.
    largest = 10**9 if floor * 1e9 <= alpha else math.floor(alpha / floor)
    return DesignCheck(
        n_draws=draws,
        n_comparisons=family,
        alpha=alpha,
        smallest_p=floor,
        smallest_p_adjusted=min(1.0, floor * family),
        reachable=reachable,
        needed_draws=needed,
        largest_family=largest,
        notes=_notes(draws, family, alpha, floor, needed, largest),
    )


def _notes(draws: int, family: int, alpha: float, floor: float, needed: int, largest: int) -> tuple[str, ...]:
    several = "1 draw" if draws == 1 else f"{draws} draws"
    smallest = f"the smallest p of a sign-flip test over {several} is 1/{2 ** (draws - 1)} = {floor:.4g}"
    if largest == 0:
        note = f"{several} cannot reach significance: {smallest}, above alpha = {alpha:g}. Run at least {needed} draws"
        return (f"{note} for this family of {family} comparisons." if family > 1 else f"{note}.",)
    if family > largest:
        return (
            f"{several} cannot reach significance in a family of {family} comparisons: {smallest}, and Holm needs "
            f"alpha/{family} = {alpha / family:.3g}. Run at least {needed} draws, or compare at most {largest} cells "
            "per family.",
        )
    if 2 * floor * family > alpha:
        return (
            f"{several} leave no slack in a family of {family} comparisons: one becomes significant only if all "
            f"{draws} draws agree in sign ({smallest}). {needed + 1} draws or more allow an exception.",
        )
    return ()
