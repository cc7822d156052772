"""What a published table can and cannot say: Welch's test over its cells, and how rounding limits it."""

from __future__ import annotations

import functools
import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy import special

from icl_select.errors import StatisticsError
from icl_select.stats._evidence import Evidence, check_level, check_positive, finite_vector
from icl_select.stats.family import MARKS, Verdict
from icl_select.stats.multiplicity import holm
from icl_select.stats.welch import Welch, welch
from icl_select.types import FloatArray

__all__ = ["Summary", "WelchMark", "critical_difference", "detectable_gain", "spread_of_three", "welch_family"]

# Spreads between the bounds at which the p-value is looked up; it is not monotone in them (degrees of freedom).
_GRID = 9
_SAMPLES = 4000


@dataclass(frozen=True, slots=True)
class Summary(Evidence):
    """One cell of a table as it was printed.

    Attributes
    ----------
    mean : float
    sd : float
        Standard deviation over runs, divisor n - 1.
    n : int
        Runs.
    sd_low, sd_high : float
        Between these the standard deviation lay before figures were rounded.
    half_unit : float
        Half of the last printed digit of the mean.
    """

    mean: float
    sd: float
    n: int
    sd_low: float
    sd_high: float
    half_unit: float = 0.0


@dataclass(frozen=True, slots=True)
class WelchMark(Evidence):
    """One comparison of two cells, with what the table could have shown.

    Attributes
    ----------
    test : Welch
        Effect, interval, t, degrees of freedom, raw p-value.
    p_adjusted : float
        After Holm over the family.
    verdict : {"better", "worse", "no evidence"}
    mark : str
        ``+``, ``−`` or ``·``; always beside the word.
    smallest_shown : float
        Smallest observed difference that these spreads and runs could have shown at Holm's first step.
    detectable_difference : float
        True difference that would be shown at that step with the stated power.
    stable : bool
        Whether no figures that round to the printed ones give another verdict.
    """

    test: Welch
    p_adjusted: float
    verdict: Verdict
    mark: str
    smallest_shown: float
    detectable_difference: float
    stable: bool


def spread_of_three(
    mean: float, maximum: float, minimum: float, *, half_unit: float = 0.0
) -> tuple[float, float, float]:
    """Return the standard deviation of three runs from their mean, maximum and minimum, and its bounds.

    The run in the middle is three times the mean minus the other two, so nothing is assumed about the runs. What
    was lost by rounding is: the middle may be off by five half units, which the bounds say for the standard deviation.

    Parameters
    ----------
    mean, maximum, minimum : float
        As printed.
    half_unit : float
        Half of the last printed digit (0.05 for figures like 63.5); 0 for exact figures.

    Returns
    -------
    sd, low, high : float
        Standard deviation with divisor 2 (of the printed figures, the middle run moved into the range if it falls
        outside by rounding), and bounds on that of the figures before they were rounded.

    Raises
    ------
    StatisticsError
        If no three runs have this mean, maximum and minimum, rounding counted.

    Notes
    -----
    With range R and distance e of the mean from the middle of the range, the variance is R² / 4 + 3 e², and
    the middle run lies in the range iff 6 |e| <= R. Rounding moves R and e by at most two half units each.

    Examples
    --------
    Runs 4, 5 and 9, exact, and as printed without decimals:

    >>> [round(v, 2) for v in spread_of_three(6.0, 9.0, 4.0)]
    [2.65, 2.65, 2.65]
    >>> [round(v, 2) for v in spread_of_three(6.0, 9.0, 4.0, half_unit=0.5)]
    [2.65, 2.0, 3.46]
    """
    finite_vector([mean, maximum, minimum, half_unit], name="mean, maximum, minimum and half unit")
    if half_unit < 0:
        raise StatisticsError(f"half_unit={half_unit} is negative. Pass half of the last printed digit, such as 0.05.")
    width, offset = maximum - minimum, mean - (maximum + minimum) / 2
    slack = 2 * half_unit * (1 + 1e-9) + 1e-12 * max(abs(maximum), abs(minimum), 1.0)
    if width < -slack or 6 * max(abs(offset) - slack, 0.0) > width + slack:
        raise StatisticsError(
            f"no three runs have mean {mean}, maximum {maximum} and minimum {minimum}: the middle run would be "
            f"{3 * mean - maximum - minimum:g}. Look for a misread digit, or for another number of runs."
        )
    sd = math.sqrt(width**2 / 4 + 3 * min(abs(offset), max(width, 0.0) / 6) ** 2)
    widest = max(width, 0.0) + 2 * half_unit
    farthest = min(abs(offset) + 2 * half_unit, widest / 6)
    low = math.sqrt(max(width - 2 * half_unit, 0.0) ** 2 / 4 + 3 * max(abs(offset) - 2 * half_unit, 0.0) ** 2)
    return sd, min(low, sd), max(math.sqrt(widest**2 / 4 + 3 * farthest**2), sd)


def _error_and_df(sd1: float, n1: int, sd2: float, n2: int) -> tuple[float, float]:
    """Standard error of the difference and Welch-Satterthwaite degrees of freedom."""
    v1, v2 = sd1**2 / n1, sd2**2 / n2
    if v1 + v2 == 0:
        raise StatisticsError(
            "both standard deviations are 0, so the test has no scale. Look for more decimals in the table."
        )
    return math.sqrt(v1 + v2), (v1 + v2) ** 2 / (v1**2 / (n1 - 1) + v2**2 / (n2 - 1))


def critical_difference(sd1: float, n1: int, sd2: float, n2: int, *, alpha: float = 0.05) -> float:
    """Return the smallest difference of two means that Welch's test rejects at level `alpha`.

    Parameters
    ----------
    sd1, sd2 : float
        Standard deviations over runs, divisor n - 1.
    n1, n2 : int
        Runs, at least 2.
    alpha : float
        Level of this one test; divide by the size of the family for Holm's first step.

    Returns
    -------
    float
        In the units of the standard deviations.

    Examples
    --------
    Two means over three runs each with a spread of 3 points, alone and in a family of 20:

    >>> round(critical_difference(3.0, 3, 3.0, 3), 1), round(critical_difference(3.0, 3, 3.0, 3, alpha=0.05 / 20), 1)
    (6.8, 16.6)
    """
    check_level(alpha, name="alpha")
    error, df = _error_and_df(sd1, n1, sd2, n2)
    return float(special.stdtrit(df, 1 - alpha / 2) * error)


def detectable_gain(sd1: float, n1: int, sd2: float, n2: int, *, alpha: float = 0.05, power: float = 0.8) -> float:
    """Return the true difference that Welch's test at level `alpha` shows with probability `power`.

    The spreads are taken as the true ones and followed on 4,000 simulated pairs of samples (fixed seed): for each the
    difference that the test would reject is known in closed form. Parameters as for :func:`critical_difference`.

    Examples
    --------
    >>> [round(detectable_gain(3.0, n, 3.0, n), 1) for n in (3, 5, 10)]
    [10.5, 6.3, 4.0]
    """
    check_level(alpha, name="alpha")
    check_level(power, name="power")
    _error_and_df(sd1, n1, sd2, n2)
    means1, variances1 = _samples(n1, 1)
    means2, variances2 = _samples(n2, 2)
    v1, v2 = variances1 * sd1**2 / n1, variances2 * sd2**2 / n2
    df = (v1 + v2) ** 2 / (v1**2 / (n1 - 1) + v2**2 / (n2 - 1))
    limits = special.stdtrit(df, 1 - alpha / 2) * np.sqrt(v1 + v2) - (means1 * sd1 - means2 * sd2)
    return float(np.quantile(limits, power, method="inverted_cdf"))


@functools.lru_cache(maxsize=64)
def _samples(n: int, stream: int) -> tuple[FloatArray, FloatArray]:
    """Means and variances (divisor n - 1) of samples of n standard normal runs."""
    z = np.random.default_rng((20240607, stream)).normal(size=(_SAMPLES, n))
    return z.mean(axis=1), z.var(axis=1, ddof=1)


def welch_family(
    pairs: Sequence[tuple[Summary, Summary]], *, alpha: float = 0.05, power: float = 0.8
) -> list[WelchMark]:
    """Test every pair of cells by Welch's test, Holm-adjusted over all of them.

    Parameters
    ----------
    pairs : sequence of (Summary, Summary)
        Cell, and what it is compared with. Both at least 2 runs, and not both without spread.
    alpha : float
        Chance of any false verdict in the family.
    power : float
        Of the stated detectable differences.

    Returns
    -------
    list of WelchMark
        In the order of `pairs`; empty for none.

    Notes
    -----
    With unchanged means and spreads, more runs make every p-value smaller, so they can only add verdicts.
    """
    check_level(alpha, name="alpha")
    check_level(power, name="power")
    if not pairs:
        return []
    tests = [welch(a.mean, a.sd, a.n, b.mean, b.sd, b.n, level=1 - alpha) for a, b in pairs]
    adjusted = holm([test.p_value for test in tests])
    extremes = np.array([_p_range(a, b) for a, b in pairs])
    sure, possible = holm(extremes[:, 1]) <= alpha, holm(extremes[:, 0]) <= alpha
    first_step = alpha / len(pairs)
    marks = []
    for i, (a, b) in enumerate(pairs):
        decided = bool(adjusted[i] <= alpha)
        verdict: Verdict = "no evidence" if not decided else "better" if tests[i].effect > 0 else "worse"
        marks.append(
            WelchMark(
                test=tests[i],
                p_adjusted=float(adjusted[i]),
                verdict=verdict,
                mark=MARKS[verdict],
                smallest_shown=critical_difference(a.sd, a.n, b.sd, b.n, alpha=first_step),
                detectable_difference=detectable_gain(a.sd, a.n, b.sd, b.n, alpha=first_step, power=power),
                stable=bool(sure[i] if decided else not possible[i]),
            )
        )
    return marks


def _p_range(a: Summary, b: Summary) -> tuple[float, float]:
    """Smallest and largest p-value of figures that round to the printed ones, searched on a grid of spreads."""
    for name, count in (("first", a.n), ("second", b.n)):
        if check_positive(count, name=f"runs of the {name} cell") < 2:
            raise StatisticsError("one run has no standard deviation. Welch's test needs at least 2 runs.")
    effect, slack = abs(a.mean - b.mean), a.half_unit + b.half_unit
    spreads = (np.linspace(a.sd_low, a.sd_high, _GRID), np.linspace(b.sd_low, b.sd_high, _GRID))
    v1, v2 = np.array(list(itertools.product(spreads[0] ** 2 / a.n, spreads[1] ** 2 / b.n))).T
    least = _p_values(effect + slack, v1, a.n, v2, b.n).min()
    most = _p_values(max(effect - slack, 0.0), v1, a.n, v2, b.n).max()
    return float(least), float(most)


def _p_values(effect: float, v1: FloatArray, n1: int, v2: FloatArray, n2: int) -> FloatArray:
    """Two-sided p-values of Welch's test for variances of the means; 0 where nothing varies."""
    total = np.maximum(v1 + v2, 1e-300)
    df = total**2 / np.maximum(v1**2 / (n1 - 1) + v2**2 / (n2 - 1), 1e-300)
    t = effect / np.sqrt(total)
    return np.asarray(np.where(v1 + v2 > 0, 2 * special.stdtr(np.maximum(df, 1.0), -t), 0.0 if effect > 0 else 1.0))
