"""MaxHerding: pick the rows that cover the pool best."""

from __future__ import annotations

from typing import Literal

import numpy as np

from icl_select._validation import check_rng
from icl_select.errors import BudgetError, ParameterError, suggest
from icl_select.kernels import Kernel
from icl_select.methods._greedy import facility_location
from icl_select.methods._near_exact import LARGEST_BUDGET, Run, near_exact
from icl_select.registry import any_norm
from icl_select.types import FloatArray, IntArray, Progress, Selection

__all__ = ["EXACT_ROWS", "is_near", "max_herding", "select_near"]

EXACT_ROWS = 100_000
"""Largest pool for which ``exactness="auto"`` is exact: some minutes of one core."""

_VARIANTS = ("paper", "official")
_EXACTNESS = ("auto", "exact", "near")
# The published code draws this many candidates and forgets the rest of the pool.
_OFFICIAL_CANDIDATES = 35_000


@any_norm
def max_herding(
    x: FloatArray,
    budget: int,
    *,
    given: IntArray | tuple[int, ...] = (),
    rng: np.random.Generator | None = None,
    bandwidth: float = 1.0,
    kernel: str = "gaussian",
    variant: Literal["paper", "official"] = "paper",
    exactness: Literal["auto", "exact", "near"] = "auto",
    progress: Progress | None = None,
) -> Selection:
    """Pick the rows that cover the pool best.

    Greedy maximisation of the generalised coverage ``C(L) = mean_i max_{l in L} k(x_i, x_l)`` [1]_: every row
    counts with its similarity to the nearest picked row, and a pick is worth the coverage that it adds.
    Greedy reaches at least ``1 - 1/e`` of the best coverage that `budget` rows can have [2]_.

    Parameters
    ----------
    x : ndarray of shape (n, d), float32 or float64
        Embeddings, one row per pool example; only directions count. Not modified.
    budget : int
        Number of new rows to pick, ``1 <= budget <= n - len(given)``.
    given : ndarray of shape (g,), int64, default=()
        Rows already labelled, as indices into `x`. They cover from the start and are never returned.
    rng : numpy.random.Generator, optional
        With ``variant="official"`` it permutes the candidates; near-exact selection draws its samples from it (from
        ``numpy.random.default_rng(0)`` if None). Exact selection ignores it.
    bandwidth : float, default=1.0
        Distance scale ``h`` of the kernel, on unit rows (distances are 0 to 2).
    kernel : str, default="gaussian"
        ``gaussian`` is ``exp(-d^2 / h^2)``, without a factor 1/2. Others: ``top_hat``, ``laplace``, ``cauchy``,
        ``student_t``, ``rational``, ``cosine``; see :mod:`icl_select.kernels`.
    variant : {"paper", "official"}, default="paper"
        Both maximise the same coverage and differ in what they do with ties and with large pools.
        ``"official"`` follows the published code: candidates are permuted by `rng` (kept in order if None), a tie
        goes to the first of them, and above 35,000 candidates the rest of the pool is forgotten, both as
        candidates and as rows to cover. Its coverage curve is the published one; the lists may differ where
        gains are equal in exact arithmetic, which floating-point noise decides there and the order decides here.
    exactness : {"auto", "exact", "near"}, default="auto"
        ``"near"`` picks from the best rows of each part of the pool, at a small part of the time, and measures what
        its picks cover: on synthetic pools of 30,000 rows from 0.999 to 1.003 of exact greedy's coverage, with no
        guarantee. ``"auto"`` is exact up to 100,000 rows, and above them for budgets over 10,000, which "near" does
        not take. ``variant="official"`` is always exact.
    progress : callable, optional
        Told how far the work is.

    Returns
    -------
    Selection
        ``indices`` : ndarray of shape (budget,), int64. Unique indices into `x`, in pick order, so any prefix is
        the answer to a smaller budget.
        ``gains`` : ndarray of shape (budget,), float64. Coverage added by each pick, from 0 to 1; never
        increasing. With nothing given their cumulative sum is the coverage curve. Near-exact gains are measured on
        rows drawn after the picks, in their order, and need not fall; such a selection is not ``nested``.
        ``info["coverage"]`` : coverage by the given and the picked rows; ``info["exactness"]`` : "exact" or "near",
        the latter with ``info["coverage_interval"]``, 95%, and the number of rows measured.

    Raises
    ------
    BudgetError
        If `budget` exceeds the 35,000 candidates that ``variant="official"`` keeps, or the 10,000 of near-exact
        selection.
    ParameterError
        If the kernel, bandwidth, variant or exactness is not known or out of range, or "official" is to be near-exact.

    Notes
    -----
    Exact: picks are those of greedy on float64 kernel values and depend neither on BLAS nor on the number of
    threads. Ties go to the lowest index, also the structural ones of two remote rows that improve only each
    other. Once everything is covered, gains are 0 and the rest follows in order of index.

    Up to 30,000 rows: about the time of one ``n x n x d`` product, nearly independent of `budget`, and ``2 n^2``
    bytes of memory, which is 1.8 GB at 30,000. Above, no array of all pairs is held: half of the product is computed
    (again where a guess at the first picks was wrong), and pairs that matter after the first picks are kept, at most
    2 GB of them; where they are more, products are computed again for each pick, at several times the cost.
    Near-exact: see :mod:`icl_select.methods._near_exact`; a million rows take about a minute of one core.
    Kernels so narrow that every row covers only itself cost more: nearly all gains tie and are compared exactly.

    References
    ----------
    .. [1] Bae, Noh and Sutherland, "Generalized Coverage for More Robust Low-Budget Active Learning", ECCV 2024.
    .. [2] Nemhauser, Wolsey and Fisher, "An analysis of approximations for maximizing submodular set
       functions", Mathematical Programming 14, 1978.

    Examples
    --------
    Two tight pairs and one outlier: one pick for each comes first.

    >>> angle = np.radians([0, 10, 90, 100, 200])
    >>> x = np.column_stack([np.cos(angle), np.sin(angle)])
    >>> picked = max_herding(x, budget=3)
    >>> picked.indices.tolist()
    [2, 0, 4]
    >>> picked.gains.round(3).tolist()
    [0.473, 0.329, 0.186]
    """
    near = is_near(len(x), budget, variant, exactness)
    shape = Kernel(kernel, bandwidth)
    labelled = np.asarray(given, dtype=np.int64)
    if near:
        generator = np.random.default_rng(0) if rng is None else check_rng(rng)
        return select_near(x, budget, shape, labelled, generator, progress=progress)
    if not x.flags.writeable:  # compiled code exists for writable rows only
        x = x.copy()
    if variant == "paper":
        picked = facility_location(x, budget, kernel=shape, given=labelled, progress=progress)
        indices, n = picked.indices, len(x)
    else:
        order = _official_order(len(x), budget, labelled, rng)
        picked = facility_location(x[order], budget, kernel=shape, given=np.arange(len(labelled)), progress=progress)
        indices, n = order[picked.indices], len(order)
    info = {"coverage": picked.total / n, "exactness": "exact", "exact_evaluations": picked.evaluations}
    return Selection(indices, picked.gains / n, info=info)


def is_near(n: int, budget: int, variant: str, exactness: str) -> bool:
    """Say whether :func:`max_herding` selects near-exactly; raises ParameterError as it does."""
    if variant not in _VARIANTS:
        raise ParameterError(f"unknown variant {variant!r}.{suggest(str(variant), _VARIANTS)}")
    if exactness not in _EXACTNESS:
        raise ParameterError(f"unknown exactness {exactness!r}.{suggest(str(exactness), _EXACTNESS)}")
    if variant == "official" and exactness == "near":
        raise ParameterError("variant='official' follows the published code, which is exact. Leave exactness out.")
    fits = n > EXACT_ROWS and budget <= LARGEST_BUDGET
    return exactness == "near" or (exactness == "auto" and variant == "paper" and fits)


def select_near(
    x: FloatArray,
    budget: int,
    kernel: Kernel,
    given: IntArray,
    rng: np.random.Generator,
    *,
    run: Run | None = None,
    progress: Progress | None = None,
) -> Selection:
    """Select near-exactly, with the jobs done by `run`: see :func:`icl_select.methods._near_exact.near_exact`."""
    picked = near_exact(x, budget, kernel=kernel, given=given, rng=rng, run=run, progress=progress)
    info = {
        "coverage": picked.coverage,
        "exactness": "near",
        "coverage_interval": list(picked.interval),
        "rows_measured": picked.heldout,
        **picked.info,
    }
    return Selection(picked.indices, picked.gains, nested=False, info=info)


def _official_order(n: int, budget: int, given: IntArray, rng: np.random.Generator | None) -> IntArray:
    """The given rows, then the candidates in the order in which the published code looks at them."""
    candidates = np.setdiff1d(np.arange(n), given)
    if rng is not None:
        candidates = check_rng(rng).permutation(candidates)
    candidates = candidates[:_OFFICIAL_CANDIDATES]
    if budget > len(candidates):
        raise BudgetError(
            f"budget={budget} exceeds the {len(candidates)} candidates that variant='official' keeps. "
            "Use variant='paper'."
        )
    return np.concatenate([given, candidates])
