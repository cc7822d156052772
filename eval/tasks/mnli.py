"""MNLI (GLUE): does a claim follow from a premise?"""

from __future__ import annotations

from ._task import METAICL, ClassLabel, HubSource, Task

# Class ids 0 entailment, 1 neutral, 2 contradiction.
WORDS = ("True", "Inconclusive", "False")

_CLAIM = 'Based on that information, is the claim {hypothesis} "True", "False", or "Inconclusive"?'
_INPUT = "{{ premise }}. " + _CLAIM.replace("{hypothesis}", "{{ hypothesis }}") + "\nanswer:"

TASK = Task(
    name="mnli",
    folder="mnli",
    hub=HubSource("nyu-mll/glue", config="mnli", pool_split="train", test_split="validation_matched"),
    columns=("premise", "hypothesis", "label"),
    embedded="{premise}. " + _CLAIM,
    demonstration=_INPUT + "\n{{ label }}",
    query=_INPUT,
    metric="acc",
    label=ClassLabel(WORDS),
    choices=WORDS,
    max_demonstration_tokens=250,
    premise="answer:",
    blank=("premise", "hypothesis"),
    shorten="premise",
    metaicl=True,
    notes=METAICL,
)
