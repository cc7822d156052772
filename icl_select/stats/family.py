"""The result of a comparison, and the verdicts over a family of them."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from icl_select.errors import StatisticsError
from icl_select.stats._evidence import Evidence, check_level
from icl_select.stats.bootstrap import Interval
from icl_select.stats.multiplicity import holm
from icl_select.stats.power import Design
from icl_select.stats.sign_flip import design_notes
from icl_select.stats.variance import VarianceComponents

__all__ = ["MARKS", "Comparison", "Verdict", "compare_family"]

Verdict = Literal["better", "worse", "no evidence"]
MARKS: dict[Verdict, str] = {"better": "+", "worse": "−", "no evidence": "·"}


@dataclass(frozen=True, slots=True)
class Comparison(Evidence):
    """A method against random, with all the evidence.

    Attributes
    ----------
    effect : float
        Mean over draws and items of the method's score minus that of random.
    method_mean, random_mean : float
    ci : Interval
        Of the effect; not adjusted for the family.
    p_value : float
        The larger of `p_sign_flip` and `p_two_way`: both must reject.
    p_adjusted : float
        After Holm over the family (of one, until `compare_family`).
    p_sign_flip : float
        Exact sign-flip test over draws: about this test file and this data set.
    p_two_way : float
        t-test with the variance of draws, recurring items and shared selection luck: about new ones.
    test : str
        Name of the tests behind `p_value`.
    verdict : {"better", "worse", "no evidence"}
    mark : str
        ``+``, ``−`` or ``·``, for tables; always beside the word.
    scope : {"method", "selection"}
        What the p-value speaks of: the method, or with a single draw only this one selection.
    n_draws, n_items, n_repeats : int
        Draws, test items per draw (mean, rounded), random selections per draw (smallest).
    n_distinct_items : int
        Distinct items over all draws.
    n_comparisons : int
        Size of the Holm family.
    alpha, level : float
    n_resamples, seed : int
    overlap : float or None
        Share of the method's picks that two draws have in common, if picks were given.
    components : VarianceComponents
    item_share : float
        Share of its items that a draw has in common with another draw.
    detectable_difference : float or None
        Smallest difference this design detects with 80% power; None if it can detect none.
    needed_draws, needed_items : int or None
        Undecided cells: total draws, or items per draw, that would detect a difference as large as the
        observed one with 80% power. None where decided or where no sensible number would.
    notes : tuple of str
    """

    effect: float
    method_mean: float
    random_mean: float
    ci: Interval
    p_value: float
    p_adjusted: float
    p_sign_flip: float
    p_two_way: float
    test: str
    verdict: Verdict
    mark: str
    scope: Literal["method", "selection"]
    n_draws: int
    n_items: int
    n_repeats: int
    n_distinct_items: int
    n_comparisons: int
    alpha: float
    level: float
    n_resamples: int
    seed: int
    overlap: float | None
    components: VarianceComponents
    item_share: float
    detectable_difference: float | None
    needed_draws: int | None
    needed_items: int | None
    notes: tuple[str, ...]


def compare_family(comparisons: Sequence[Comparison], *, alpha: float = 0.05) -> list[Comparison]:
    """Adjust a family of comparisons with Holm and give each its verdict.

    Parameters
    ----------
    comparisons : sequence of Comparison
        All that is claimed together: for example every method and budget on one data set. The larger the
        family, the more draws any verdict needs (:func:`icl_select.stats.design_notes`).
    alpha : float
        Chance of any false verdict in the family.

    Returns
    -------
    list of Comparison
        In the same order, with `p_adjusted`, `verdict`, `mark`, power and notes filled in.

    Raises
    ------
    StatisticsError
        If the family is empty.

    Examples
    --------
    >>> import numpy as np
    >>> from icl_select.stats import compare
    >>> rng = np.random.default_rng(0)
    >>> def cell(gain):
    ...     random = [(rng.random((2, 200)) < 0.5).astype(float) for _ in range(10)]
    ...     return compare([(rng.random(200) < 0.5 + gain).astype(float) for _ in range(10)], random, seed=1)
    >>> [f"{c.mark} {c.verdict}" for c in compare_family([cell(0.2), cell(0.0), cell(-0.2)])]
    ['+ better', '· no evidence', '− worse']
    """
    check_level(alpha, name="alpha")
    if not comparisons:
        raise StatisticsError("the family holds no comparison. Pass at least one.")
    adjusted = holm([c.p_value for c in comparisons])
    return [_decide(c, float(p), len(comparisons), alpha) for c, p in zip(comparisons, adjusted, strict=True)]


def _decide(draft: Comparison, p_adjusted: float, n_comparisons: int, alpha: float) -> Comparison:
    verdict: Verdict = "no evidence"
    if draft.scope == "method" and p_adjusted <= alpha and 0.0 not in draft.ci:
        verdict = "better" if draft.effect > 0 else "worse"
    design = Design(draft.n_draws, draft.n_items, draft.components, alpha, n_comparisons, draft.item_share)
    undecided = verdict == "no evidence" and draft.scope == "method"
    return dataclasses.replace(
        draft,
        p_adjusted=p_adjusted,
        n_comparisons=n_comparisons,
        alpha=alpha,
        verdict=verdict,
        mark=MARKS[verdict],
        detectable_difference=design.detectable_difference(),
        needed_draws=design.needed_draws(draft.effect) if undecided else None,
        needed_items=design.needed_items(draft.effect) if undecided else None,
        notes=_notes(draft, p_adjusted, n_comparisons, alpha),
    )


def _notes(draft: Comparison, p_adjusted: float, n_comparisons: int, alpha: float) -> tuple[str, ...]:
    check = design_notes(draft.n_draws, n_comparisons, alpha)
    if draft.scope == "selection":
        return (
            "one draw: the p-value says whether this selection and this random one differ on new items, not whether "
            f"the method is better than random. A verdict needs at least {check.needed_draws} draws.",
        )
    notes = [] if check.reachable else list(check.notes)
    if p_adjusted <= alpha and 0.0 in draft.ci:
        notes.append("the test rejects but the interval holds 0 (skewed draws); no verdict is given.")
    if p_adjusted > alpha and 0.0 not in draft.ci:
        notes.append(
            f"the interval ({draft.level:.0%}, of this comparison alone) leaves out 0, but the adjusted p in the "
            f"family of {n_comparisons} is {p_adjusted:.3g}; the verdict follows the adjusted p."
        )
    if draft.p_sign_flip <= alpha < draft.p_two_way:
        notes.append(
            "on this data set and test file the difference is systematic (sign-flip p "
            f"{draft.p_sign_flip:.3g}), but recurring test items or shared picks could explain it."
        )
    if draft.overlap is not None and draft.overlap > 0.5:
        notes.append(f"two draws share {draft.overlap:.0%} of the method's picks: they are hardly independent.")
    return tuple(notes)
