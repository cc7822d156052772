"""Many comparisons at once: Holm's step-down adjustment."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from icl_select.errors import StatisticsError
from icl_select.stats._evidence import finite_vector
from icl_select.types import FloatArray

__all__ = ["holm"]


def holm(p: Sequence[float] | FloatArray) -> FloatArray:
    """Adjust p-values so that the chance of any false rejection in the family stays below the level.

    The smallest of m p-values is multiplied by m, the next by m - 1, and so on; an adjusted value is never
    below that of a smaller p [1]_. No assumption about how the tests depend on each other.

    Parameters
    ----------
    p : sequence of float
        Raw p-values of the whole family, in any order.

    Returns
    -------
    ndarray of shape (m,), float64
        Adjusted p-values in the order of `p`, at most 1. Reject where they are <= alpha.

    Raises
    ------
    StatisticsError
        If `p` is empty or holds a value outside [0, 1].

    References
    ----------
    .. [1] Holm, "A simple sequentially rejective multiple test procedure", Scand. J. Statist. 6, 1979.

    Examples
    --------
    0.01 * 4, then 0.02 * 3, then max(0.06, 0.03 * 2), then max(0.06, 0.04 * 1):

    >>> holm([0.01, 0.04, 0.03, 0.02]).round(10).tolist()
    [0.04, 0.06, 0.06, 0.06]
    """
    values = finite_vector(p, name="p")
    if ((values < 0) | (values > 1)).any():
        raise StatisticsError(f"p holds {values[(values < 0) | (values > 1)][0]}, which is no probability.")
    order = np.argsort(values, kind="stable")
    factors = np.arange(len(values), 0, -1)
    stepped = np.maximum.accumulate(values[order] * factors)
    adjusted = np.empty_like(values)
    adjusted[order] = np.minimum(stepped, 1.0)
    return adjusted
