"""MRPC (GLUE): do two sentences say the same?"""

from __future__ import annotations

from ._task import METAICL, ClassLabel, HubSource, Task

WORDS = ("not equivalent", "equivalent")

_INPUT = (
    "Are the following two sentences 'equivalent' or 'not equivalent'?\n{{ sentence1 }}.\n{{ sentence2 }}.\nanswer:"
)

TASK = Task(
    name="mrpc",
    folder="mrpc",
    hub=HubSource("nyu-mll/glue", config="mrpc", pool_split="train", test_split="validation"),
    columns=("sentence1", "sentence2", "label"),
    embedded="{sentence1}.\n{sentence2}",
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
