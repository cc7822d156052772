"""The paragraph that a report begins with."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from icl_select.report._blocks import Cell, State
from icl_select.report._view import View, fraction, percent, plural

__all__ = ["MARKS", "headline", "method_sentences", "scorer_name", "verdict_cell", "verdict_sentences"]

_BASELINE_SCORER = "knn (baseline without an LLM)"
MARKS = {"better": "+", "worse": "−", "no evidence": "·"}
_STATES: Mapping[str, State] = {"better": "better", "worse": "worse", "no evidence": "open"}


def verdict_cell(verdict: str, text: str = "", notes: tuple[str, ...] = ()) -> Cell:
    """A table cell that shows a verdict by sign, word and colour."""
    return Cell(text, mark=MARKS.get(verdict, ""), word=verdict, notes=notes, state=_STATES.get(verdict, ""))


def scorer_name(view: View) -> str:
    """The scorer as reports call it; the nearest-neighbour vote is never passed off as a language model."""
    scorer = str(view.config.get("scorer") or "")
    if scorer.split("(")[0] == "knn":
        return _BASELINE_SCORER if scorer == "knn" else f"{_BASELINE_SCORER}, {scorer}"
    return scorer


def headline(view: View) -> str:
    """The verdict in a few words."""
    better, worse = len(view.of("better")), len(view.of("worse"))
    if not view.comparisons:
        return f"Nothing was compared with {view.baseline}"
    if view.unreachable:
        return "This design could not have told any method from " + view.baseline
    if better:
        # Of all comparisons, not of the luckiest method: picking the winner afterwards is what the tests guard against.
        lost = f", {worse} {'loses' if worse == 1 else 'lose'}" if worse else ""
        verb = "beats" if better == 1 else "beat"
        return f"{better} of {plural(len(view.comparisons), 'comparison')} {verb} {view.baseline}{lost}"
    name = view.baseline[:1].upper() + view.baseline[1:]
    found = f"{name} is enough here" if _enough(view) else f"No method is shown to beat {view.baseline}"
    return f"{found}, and some are worse" if worse else found


def _enough(view: View) -> bool:
    """Whether every interval rules out a gain above the loss that the campaign calls negligible."""
    delta, highs = view.config.get("delta"), _highs(view)
    return isinstance(delta, (int, float)) and None not in highs and all(high <= delta for high in highs)


def _highs(view: View) -> list[Any]:
    """Upper ends of the intervals, None where one is missing."""
    return [(c.get("ci") or {}).get("high") for c in view.comparisons]


def verdict_sentences(view: View) -> list[str]:
    """The verdict: how many, at which level, by which method, and what the design could have seen."""
    if not view.comparisons:
        return [
            f"The results hold no comparison with {view.baseline}, so there is no verdict. "
            f"Run at least one other method beside {view.baseline}."
        ]
    counts = {word: len(view.of(word)) for word in MARKS}
    total = len(view.comparisons)
    level = f"level {percent(view.alpha, 3).rstrip('0').rstrip('.')}%, " if view.alpha is not None else ""
    sentences = [
        f"Of {plural(total, 'comparison')} with {view.baseline}, {counts['better']} "
        f"{'is' if counts['better'] == 1 else 'are'} better, {counts['worse']} "
        f"{'is' if counts['worse'] == 1 else 'are'} worse, and {counts['no evidence']} "
        f"{'gives' if counts['no evidence'] == 1 else 'give'} no evidence of a difference "
        f"({level}Holm-adjusted over {_family(view)})."
    ]
    return [*sentences, *_floor(view), *_meaning(view)]


def _family(view: View) -> str:
    if view.design.get("family") == "task":
        return f"each task's family of up to {view.family:,}"
    return f"a family of {view.family:,}"


def method_sentences(view: View) -> list[str]:
    """For each method with a decided comparison: how many, and where."""
    out = []
    for method in view.candidates:
        own = [c for c in view.comparisons if c["candidate"] == method]
        better = [c for c in own if c.get("verdict") == "better"]
        worse = [c for c in own if c.get("verdict") == "worse"]
        if better or worse:
            parts = [
                f"{word} in {len(found)} of {len(own)} ({_where(found)})"
                for word, found in (("better", better), ("worse", worse))
                if found
            ]
            out.append(f"{view.short[method]} is {', and '.join(parts)}.")
    return out


def _where(comparisons: Sequence[Mapping[str, Any]]) -> str:
    places: dict[str, list[str]] = {}
    for c in comparisons:
        places.setdefault(c["task"], []).append(str(c["budget"]))
    shown = [f"{task} with {_listed(budgets)} labels" for task, budgets in list(places.items())[:3]]
    more = len(places) - len(shown)
    return "; ".join(shown) + (f"; and {plural(more, 'more task')}" if more else "")


def _floor(view: View) -> list[str]:
    smallest = view.smallest_p
    if smallest is None:
        return []
    adjusted = min(1.0, smallest * view.family)
    draws = view.design.get("draws")
    over = f" with {plural(draws, 'draw')}" if isinstance(draws, int) else ""
    return [f"The smallest p-value this design can reach{over} is {fraction(smallest)}, {adjusted:.2g} after Holm."]


def _meaning(view: View) -> list[str]:
    undecided = view.of("no evidence")
    if view.unreachable:
        needed = view.design.get("needed_draws")
        way = f" Run at least {needed} draws." if isinstance(needed, int) else " Run more draws."
        return [
            "That is above the level: no data could have given a verdict, so “no evidence” says nothing about the "
            "methods." + way
        ]
    out = []
    found = [c["detectable_difference"] for c in undecided if isinstance(c.get("detectable_difference"), (int, float))]
    if not view.of("better"):
        out.append(_nothing_better(view))
    elif undecided:
        out.append(f"Everywhere else {view.baseline} selection is the safe choice.")
    if any(c.get("scope") == "selection" for c in view.comparisons):
        out.append("With a single draw a verdict speaks of this one selection, not of the method.")
    if found:
        low, middle, high = percent(min(found)), percent(float(np.median(found))), percent(max(found))
        differences = (
            f"a true difference of {middle} points"
            if low == high
            else f"true differences of {low} to {high} points (median {middle})"
        )
        out.append(
            f"In the undecided cells, {differences} would have been found with 80% probability; smaller ones may exist "
            "unseen."
        )
    return out


def _nothing_better(view: View) -> str:
    if _enough(view):
        most = percent(view.config["delta"])
        return f"{view.baseline.capitalize()} is enough: every interval rules out a gain above {most} points."
    highs = [high for high in _highs(view) if high is not None]
    room = f"; the intervals leave room for gains of up to {percent(max(highs))} points" if highs else ""
    return f"Nothing here supports labelling more cleverly than by {view.baseline} selection{room}."


def _listed(items: Sequence[str]) -> str:
    return items[0] if len(items) == 1 else f"{', '.join(items[:-1])} and {items[-1]}"
