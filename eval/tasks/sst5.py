"""SST-5: how does a sentence of a film review feel, in five steps?"""

from __future__ import annotations

from ._task import METAICL, ClassLabel, HubSource, Task

WORDS = ("very negative", "negative", "neutral", "positive", "very positive")

_INPUT = "How do you feel about the following sentence?\n{{ text }}\nanswer:"

TASK = Task(
    name="sst5",
    folder="sst5",
    hub=HubSource("SetFit/sst5", pool_split="train", test_split="test"),
    columns=("text", "label"),
    embedded="{text}",
    demonstration=_INPUT + "\n{{ label }}",
    query=_INPUT,
    metric="acc",
    label=ClassLabel(WORDS),
    choices=WORDS,
    max_demonstration_tokens=250,
    premise="answer:",
    blank=("text",),
    shorten="text",
    metaicl=True,
    notes=METAICL,
)
