"""Sub-SA: a graph cut that rewards closeness to the pool and penalises closeness among the picks."""

from __future__ import annotations

from typing import Any

import numba
import numpy as np

from icl_select._validation import is_number
from icl_select.errors import ParameterError
from icl_select.methods._published import check_variant, published_unit_rows
from icl_select.types import FloatArray, IntArray, Selection

__all__ = ["sub_sa"]

# Rows of the published column sums computed at a time.
_BLOCK = 512
# Times n it is still a number in float32; the penalty has drowned in rounding long before.
_LARGEST_LAM = 1e20


def sub_sa(
    x: FloatArray,
    budget: int,
    *,
    given: IntArray | tuple[int, ...] = (),
    rng: np.random.Generator | None = None,
    raw: FloatArray | None = None,
    lam: float = 1.0,
    variant: str = "paper",
) -> Selection:
    """Pick rows close to the whole pool and far from each other, by greedy graph cut.

    With shifted cosines ``s = (1 + cos) / 2`` the picks A grow, one by one, the function [1]_ ::

        F(A) = lam * sum of s_ij over pool rows i and picks j  -  sum of s_ij over picks i and j

    Parameters
    ----------
    x : ndarray of shape (n, d), float32 or float64
        Unit-norm embeddings; not modified. Centre them first: uncentred text embeddings crowd into one cone,
        and so do the picks.
    budget : int
        Number of new rows to pick, ``1 <= budget <= n - len(given)``.
    given : ndarray of shape (g,), int64, default=()
        Rows already labelled; they count as members of A.
    rng : numpy.random.Generator, optional
        Ignored; the method is deterministic.
    raw : ndarray of shape (n, d), optional
        Rows before normalisation, handed over by :func:`icl_select.select` for ``variant="official"``.
    lam : float, default=1
        Weight of closeness to the pool, from 0 to 1e20.
    variant : {"paper", "official"}, default="paper"
        Both maximise the same F. "paper" computes in float64; "official" in float32 as published, where one
        unit in the last place of a column sum is larger than many differences of gains, so that some picks
        differ. Published code returns its picks sorted by index; here they keep their order.

    Returns
    -------
    Selection
        ``indices`` in pick order, any prefix being the answer to a smaller budget; ``gains`` the growth of F
        with each pick, never increasing ("official": up to float32 rounding).

    Raises
    ------
    ParameterError
        If `lam` or `variant` is out of range.

    Notes
    -----
    The sum over the pool is ``n / 2 + x_c . sum(x) / 2``, so no n x n matrix is needed: time and memory are
    O(n d) for the first pick and O(n d) time for each further one. "official" adds one blocked product,
    O(n^2 d). Ties go to the lower index. The reward is near n / 2 and the penalty below 2 budget, so early
    picks crowd the densest direction. F grows with every pick while ``lam n`` is well above 4 budget.

    References
    ----------
    .. [1] Qian et al., "Sub-SA: Strengthen In-context Learning via Submodular Selective Annotation",
       ECAI 2024, arXiv:2407.05693.

    Examples
    --------
    Two groups and a stray. The row closest to all comes first; then the other side, which is far from it.

    >>> import numpy as np
    >>> angle = np.radians([0, 10, 20, 180, 190, 270])
    >>> x = np.column_stack([np.cos(angle), np.sin(angle)])
    >>> picked = sub_sa(x, 3)
    >>> picked.indices.tolist()
    [0, 4, 1]
    >>> picked.gains.round(2).tolist()
    [2.47, 1.58, 0.42]
    """
    official = check_variant(variant)
    given = np.asarray(given, dtype=np.int64)
    if not is_number(lam) or not 0 <= lam <= _LARGEST_LAM:
        raise ParameterError(f"lam={lam!r} is no weight. Pass a number from 0 to {_LARGEST_LAM} (published: 1).")
    rows = published_unit_rows(x, raw) if official else x
    reward = _reward_published(rows) if official else _reward(rows)
    shifted = _shifted_published if official else _shifted
    penalty = np.zeros_like(reward)
    free = np.ones(len(x), dtype=np.bool_)
    for row in given.tolist():
        penalty += shifted(rows, row)
        free[row] = False
    indices, gains = np.empty(budget, dtype=np.int64), np.empty(budget)
    for step in range(budget):
        gain = reward.dtype.type(lam) * reward - 2 * penalty
        gain[~free] = -np.inf
        row = int(np.argmax(gain))
        indices[step], gains[step] = row, gain[row] - 1.0  # the pick's similarity to itself
        free[row] = False
        penalty += shifted(rows, row)
    return Selection(indices, gains)


def _reward(x: FloatArray) -> FloatArray:
    """Column sums of (1 + cos) / 2, through the sum of all rows."""
    return np.asarray(0.5 * len(x) + 0.5 * _products(x, x.sum(axis=0, dtype=np.float64)))


def _shifted(x: FloatArray, row: int) -> FloatArray:
    return np.asarray(0.5 + 0.5 * _products(x, x[row].astype(np.float64)))


def _reward_published(x: FloatArray) -> FloatArray:
    """Column sums added pairwise in float32, as numpy adds along contiguous rows of the symmetric matrix."""
    half = np.float32(0.5)
    sums = np.empty(len(x), dtype=np.float32)
    for start in range(0, len(x), _BLOCK):
        sums[start : start + _BLOCK] = (half * (x[start : start + _BLOCK] @ x.T) + half).sum(axis=1)
    return sums


def _shifted_published(x: FloatArray, row: int) -> FloatArray:
    half = np.float32(0.5)
    return np.asarray(half * (x @ x[row]) + half)


@numba.njit(cache=True, nogil=True, fastmath={"reassoc", "contract"})
def _products(x: Any, v: Any) -> Any:
    """``x @ v`` summed in float64, without a float64 copy of x and in the same order for every row."""
    out = np.empty(len(x), dtype=np.float64)
    for i in range(len(x)):
        total = 0.0
        for j in range(len(v)):
            total += np.float64(x[i, j]) * v[j]
        out[i] = total
    return out
