"""Accuracy against budget, and the smallest budget that is enough."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from icl_select.errors import StatisticsError
from icl_select.stats._cells import Cells, make_cells
from icl_select.stats._evidence import Evidence, check_level
from icl_select.stats.bootstrap import Interval, interval_of
from icl_select.stats.sign_flip import sign_flip, sign_flip_floor
from icl_select.stats.variance import variance_of

__all__ = ["BudgetCurve", "CurvePoint", "NonInferiority", "budget_curve"]


@dataclass(frozen=True, slots=True)
class CurvePoint(Evidence):
    """Mean score at one budget, with its interval over draws and items."""

    budget: int
    mean: float
    ci: Interval


@dataclass(frozen=True, slots=True)
class NonInferiority(Evidence):
    """One step of the search: is this budget at most `delta` worse than the largest?

    ``p_value`` is one-sided, the larger of the sign-flip test over draws and the two-way t-test, of the null
    hypothesis that the budget loses `delta` or more.
    """

    budget: int
    difference: float
    p_value: float
    sufficient: bool


@dataclass(frozen=True, slots=True)
class BudgetCurve(Evidence):
    """Scores of the nested prefixes of one method's selections.

    Attributes
    ----------
    points : tuple of CurvePoint
        Ascending budgets.
    delta, alpha : float
    smallest_sufficient_budget : int
        The smallest budget shown to be at most `delta` worse than the largest; the largest if none is shown.
    steps : tuple of NonInferiority
        Tests in the order they were made, from the second-largest budget downwards to the first failure.
    n_draws : int
    notes : tuple of str
    """

    points: tuple[CurvePoint, ...]
    delta: float
    alpha: float
    smallest_sufficient_budget: int
    steps: tuple[NonInferiority, ...]
    n_draws: int
    notes: tuple[str, ...]


def budget_curve(
    scores: Mapping[int, Sequence[Any]],
    *,
    item_ids: Sequence[Any] | None = None,
    delta: float = 0.02,
    alpha: float = 0.05,
    level: float = 0.95,
    seed: int,
    n_resamples: int = 2000,
) -> BudgetCurve:
    """Return mean score against budget, and the smallest budget not worse than the largest by `delta`.

    Budgets are tested from the second-largest downwards, each against the largest, paired by draw and item,
    one-sided at `alpha`; the first that fails ends the search. The order is fixed before the data are seen, so
    no further adjustment is needed: the chance of naming a budget that loses `delta` or more is at most
    `alpha` [1]_.

    Parameters
    ----------
    scores : mapping of budget to sequence of R arrays of shape (n_items_r,)
        Scores per item in each draw; the same items, in the same order, at every budget.
    item_ids : sequence of R sequences, optional
        Test item of each score, as in :func:`icl_select.stats.compare`.
    delta : float
        Loss that does not matter, in score units.
    alpha, level : float
    seed : int
    n_resamples : int

    Returns
    -------
    BudgetCurve

    Raises
    ------
    StatisticsError
        If there is no budget, `delta` is not positive, or the items of two budgets do not match.

    References
    ----------
    .. [1] Maurer, Hothorn and Lehmacher, "Multiple comparisons in drug clinical trials and preclinical
       assays: a-priori ordered hypotheses", 1995.

    Examples
    --------
    >>> import numpy as np
    >>> rng = np.random.default_rng(0)
    >>> luck = rng.random((8, 300))
    >>> scores = {b: (luck < p).astype(float) for b, p in ((5, 0.5), (20, 0.79), (100, 0.8))}
    >>> budget_curve(scores, delta=0.03, seed=1).smallest_sufficient_budget
    20
    """
    check_level(alpha, name="alpha")
    if not scores:
        raise StatisticsError("scores holds no budget. Pass {budget: scores per draw}.")
    if not delta > 0:
        raise StatisticsError(f"delta={delta} allows no loss, which no finite sample can show. Pass delta > 0.")
    cells = {b: make_cells(scores[b], item_ids, name=f"budget {b}") for b in sorted(scores)}
    largest = max(cells)
    for b, cell in cells.items():
        if cell.sizes.tolist() != cells[largest].sizes.tolist():
            raise StatisticsError(f"budgets {b} and {largest} hold different numbers of draws or items; pair them.")
    points = tuple(
        CurvePoint(
            budget=b,
            mean=float(cell.means.mean()),
            ci=interval_of(cell, variance_of(cell), seed=seed, n_resamples=n_resamples, level=level),
        )
        for b, cell in cells.items()
    )
    steps = _descend(cells, largest, delta, alpha)
    passed = [step.budget for step in steps if step.sufficient]
    n_draws = cells[largest].n_draws
    return BudgetCurve(
        points=points,
        delta=delta,
        alpha=alpha,
        smallest_sufficient_budget=passed[-1] if passed else largest,
        steps=steps,
        n_draws=n_draws,
        notes=_notes(n_draws, alpha),
    )


def _descend(cells: Mapping[int, Cells], largest: int, delta: float, alpha: float) -> tuple[NonInferiority, ...]:
    steps: list[NonInferiority] = []
    for b in sorted((b for b in cells if b != largest), reverse=True):
        pairs = zip(cells[b].values, cells[largest].values, strict=True)
        gap = Cells(tuple(small - large for small, large in pairs), cells[b].columns, cells[b].n_distinct)
        p_flip = sign_flip(gap.means + delta, alternative="greater").p_value
        p = max(p_flip, variance_of(gap).p_value("greater", shift=-delta))
        steps.append(NonInferiority(b, float(gap.means.mean()), p, p <= alpha))
        if p > alpha:
            break
    return tuple(steps)


def _notes(n_draws: int, alpha: float) -> tuple[str, ...]:
    floor = sign_flip_floor(n_draws, alternative="greater")
    if floor <= alpha:
        return ()
    needed = n_draws
    while sign_flip_floor(needed, alternative="greater") > alpha:
        needed += 1
    return (
        f"{n_draws} draws cannot show that a smaller budget is enough: the smallest one-sided p is {floor:.4g}, above "
        f"{alpha:g}. Run at least {needed} draws.",
    )
