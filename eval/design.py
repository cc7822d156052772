"""What a design can and cannot show, said before it runs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from icl_select import registry
from icl_select.score.tiny import TINY
from icl_select.stats import Design, design_notes, overlap_note

from .config import Campaign
from .draws import overlap
from .plan import TaskPlan

__all__ = ["describe_design", "family_size"]


def family_size(campaign: Campaign, n_tasks: int) -> int:
    """Comparisons that Holm adjusts together."""
    per_task = (len(campaign.methods) - 1) * len(campaign.budgets)
    return per_task * (n_tasks if campaign.family == "campaign" else 1)


def describe_design(campaign: Campaign, plans: Sequence[TaskPlan]) -> dict[str, Any]:
    """Sizes, smallest reachable p, detectable difference, overlap of draws, and notes in words."""
    active = [plan for plan in plans if plan.skipped is None]
    family = family_size(campaign, len(active))
    tasks = {}
    notes: list[str] = [f"{plan.name}: {plan.skipped}" for plan in plans if plan.skipped is not None]
    if registry.parse(campaign.scorer).params.get("model") == TINY:
        notes.append("The model is tiny and its weights are random: accuracy is at chance, whatever is labelled.")
    for plan in active:
        share = overlap([draw.test for draw in plan.draws])
        n_items = len(plan.draws[0].test)
        limit = None
        if family:
            design = Design(campaign.draws, n_items, alpha=campaign.alpha, n_comparisons=family, item_share=share)
            limit = design.detectable_difference(campaign.power)
        tasks[plan.name] = {
            "pool_size": len(plan.draws[0].pool),
            "pool_file": len(plan.data.pool),
            "test_size": n_items,
            "test_file": len(plan.data.test),
            "pool_overlap": overlap([draw.pool for draw in plan.draws]),
            "test_overlap": share,
            "detectable_difference": limit,
        }
    if family:
        notes += _family_notes(campaign, family, tasks)
    notes += _overlap_notes(campaign, plans)
    check = design_notes(campaign.draws, max(family, 1), campaign.alpha)
    return {
        "draws": campaign.draws,
        "random_repeats": campaign.random_repeats,
        "pool_size": campaign.pool_size,
        "test_size": campaign.test_size,
        "baseline": campaign.baseline,
        "family": campaign.family,
        "n_comparisons": family,
        "smallest_p": check.smallest_p,
        "smallest_p_adjusted": check.smallest_p_adjusted,
        "reachable": check.reachable,
        "needed_draws": check.needed_draws,
        "alpha": campaign.alpha,
        "power": campaign.power,
        "tasks": tasks,
        "notes": notes,
    }


def _family_notes(campaign: Campaign, family: int, tasks: dict[str, Any]) -> list[str]:
    check = design_notes(campaign.draws, family, campaign.alpha)
    scope = "of the whole campaign" if campaign.family == "campaign" else "of one task"
    notes = [
        f"Holm adjusts the {family} comparisons {scope} with {campaign.baseline}; the smallest adjusted p that "
        f"{campaign.draws} draws can give is {check.smallest_p_adjusted:.3g} (level {campaign.alpha:g})."
    ]
    notes += check.notes
    limits = [task["detectable_difference"] for task in tasks.values() if task["detectable_difference"] is not None]
    if limits:
        low, high = min(limits), max(limits)
        shown = f"{low:.3f}" if high - low < 5e-4 else f"{low:.3f} to {high:.3f}"
        notes.append(
            f"Smallest difference from {campaign.baseline} detected with {campaign.power:.0%} power: about {shown} "
            "(with the variances of a pilot study; yours are used after the run)."
        )
    return notes


def _overlap_notes(campaign: Campaign, plans: Sequence[TaskPlan]) -> list[str]:
    """One note for all tasks that share one, so that a campaign of nine tasks does not say it nine times."""
    by_note: dict[str, list[str]] = {}
    for plan in plans:
        if plan.skipped is not None or campaign.draws < 2:
            continue
        size, whole = len(plan.draws[0].pool), len(plan.data.pool)
        if overlap_note(size, whole, n_draws=campaign.draws) is None:
            continue
        kind = "the whole pool" if size == whole else f"{size / whole:.0%} of the pool"
        by_note.setdefault(kind, []).append(plan.name)
    return [
        f"{', '.join(names)}: every draw holds {kind}, so draws share rows and a method's picks recur; the test "
        "counts with that (overlap of picks), and a smaller pool_fraction lowers it."
        for kind, names in by_note.items()
    ]
