"""XSum: one sentence that sums up a news article."""

from __future__ import annotations

from ._task import HubSource, Task, TextLabel

_INPUT = "write a short summary:\n{{ document }}\nTL;DR:"

TASK = Task(
    name="xsum",
    folder="xsum",
    hub=HubSource("EdinburghNLP/xsum", pool_split="train", test_split="test"),
    columns=("document", "summary"),
    embedded="{document}",
    demonstration=_INPUT + "{{ label }}",
    query=_INPUT,
    separator="\n\n",
    metric="rouge_l",
    label=TextLabel("summary"),
    max_tokens=1900,
    notes="The knn baseline copies the summary of the nearest labelled article.",
)
