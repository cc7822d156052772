"""DBpedia-14: which of 14 kinds of thing is an article about?"""

from __future__ import annotations

from ._task import METAICL, ClassLabel, HubSource, Task

WORDS = (
    "company",
    "educational institution",
    "artist",
    "athlete",
    "office holder",
    "mean of transportation",
    "building",
    "natural place",
    "village",
    "animal",
    "plant",
    "album",
    "film",
    "written work",
)

_INPUT = "title: {{ title }}; content: {{ content }}"

TASK = Task(
    name="dbpedia",
    folder="dbpedia_14",
    hub=HubSource("fancyzhx/dbpedia_14", pool_split="train", test_split="test"),
    columns=("title", "content", "label"),
    embedded="title: {title} ; content: {content}",
    demonstration=_INPUT + "\n{{ label }}",
    query=_INPUT,
    metric="acc",
    label=ClassLabel(WORDS),
    choices=WORDS,
    max_demonstration_tokens=250,
    premise="kind:",
    blank=("title", "content"),
    shorten="content",
    metaicl=True,
    notes=METAICL,
)
