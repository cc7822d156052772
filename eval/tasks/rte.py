"""RTE (GLUE): does the second sentence follow from the first?"""

from __future__ import annotations

from ._task import METAICL, ClassLabel, HubSource, Task

# Class ids 0 entailment, 1 not entailment.
WORDS = ("True", "False")

_INPUT = "{{ sentence1 }}.\nquestion: {{ sentence2 }}. True or False?\nanswer:"

TASK = Task(
    name="rte",
    folder="rte",
    hub=HubSource("nyu-mll/glue", config="rte", pool_split="train", test_split="validation"),
    columns=("sentence1", "sentence2", "label"),
    embedded="{sentence1}.\nquestion: {sentence2}",
    demonstration=_INPUT + "\n{{ label }}",
    query=_INPUT,
    metric="acc",
    label=ClassLabel(WORDS),
    choices=WORDS,
    max_demonstration_tokens=250,
    premise="answer:",
    blank=("sentence1", "sentence2"),
    shorten="sentence1",
    metaicl=True,
    notes=METAICL,
)
