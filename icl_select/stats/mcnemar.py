"""McNemar's exact test: one draw, the same items answered by two selections."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy import special

from icl_select.errors import StatisticsError
from icl_select.stats._evidence import Evidence, check_level, finite_vector
from icl_select.types import BoolArray, FloatArray

__all__ = ["McNemar", "mcnemar"]


@dataclass(frozen=True, slots=True)
class McNemar(Evidence):
    """Result of McNemar's exact test.

    Attributes
    ----------
    effect : float
        Accuracy of the method minus that of the baseline.
    low, high : float
        Interval of the effect.
    level : float
    p_value : float
        Exact, two-sided.
    only_method, only_baseline : int
        Items that only the one or only the other answered correctly; these alone carry evidence.
    n_items : int
    """

    effect: float
    low: float
    high: float
    level: float
    p_value: float
    only_method: int
    only_baseline: int
    n_items: int


def mcnemar(
    method_correct: Sequence[Any] | FloatArray | BoolArray,
    baseline_correct: Sequence[Any] | FloatArray | BoolArray,
    *,
    level: float = 0.95,
) -> McNemar:
    """Compare two selections on one set of items, each answered correctly or not.

    The items on which both agree say nothing; among the others each selection wins half under the null
    hypothesis, which is tested with the exact binomial distribution [1]_. The interval is the adjusted Wald
    interval of Bonett and Price [2]_.

    Parameters
    ----------
    method_correct, baseline_correct : sequence of bool or 0/1, length n
        The same items in the same order.
    level : float
        Level of the interval.

    Returns
    -------
    McNemar

    Raises
    ------
    StatisticsError
        If the lengths differ or a value is neither 0 nor 1.

    Notes
    -----
    One draw compares one selection with one other selection. A small p says that these two differ on new
    items, not that the method is better than random: another random draw may do as well. Near the level, the
    exact test and the interval can differ by one item; the test is the stricter.

    References
    ----------
    .. [1] McNemar, Psychometrika 12, 1947.
    .. [2] Bonett and Price, "Adjusted Wald confidence interval for a difference of binomial proportions based
       on paired data", J. Educ. Behav. Stat. 37, 2012.

    Examples
    --------
    Eight items only the method gets right, one only the baseline: p = 2 (1 + 9) / 2^9.

    >>> result = mcnemar([1] * 8 + [0] + [1] * 11, [0] * 8 + [1] + [1] * 11)
    >>> result.only_method, result.only_baseline, result.p_value
    (8, 1, 0.0390625)
    """
    from scipy.stats import binomtest

    check_level(level, name="level")
    method = _binary(method_correct, "method_correct")
    baseline = _binary(baseline_correct, "baseline_correct")
    if len(method) != len(baseline):
        raise StatisticsError(
            f"method_correct has {len(method)} items and baseline_correct {len(baseline)}: McNemar's test pairs the "
            "same items. Pass both in the same order."
        )
    b, c, n = int((method & ~baseline).sum()), int((baseline & ~method).sum()), len(method)
    p12, p21 = (b + 1) / (n + 2), (c + 1) / (n + 2)
    half = special.ndtri((1 + level) / 2) * np.sqrt((p12 + p21 - (p12 - p21) ** 2) / (n + 2))
    return McNemar(
        effect=(b - c) / n,
        low=float(max(-1.0, p12 - p21 - half)),
        high=float(min(1.0, p12 - p21 + half)),
        level=level,
        p_value=float(binomtest(b, b + c).pvalue) if b + c else 1.0,
        only_method=b,
        only_baseline=c,
        n_items=n,
    )


def _binary(values: Any, name: str) -> BoolArray:
    array = finite_vector(values, name=name)
    if not np.isin(array, (0.0, 1.0)).all():
        raise StatisticsError(
            f"{name} holds {array[~np.isin(array, (0.0, 1.0))][0]}: McNemar's test takes right (1) or wrong (0). "
            "For graded scores use sign_flip on the differences per item."
        )
    return array.astype(np.bool_)
