"""HellaSwag: which of four endings continues a scene?"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from icl_select.errors import DataError, LabelError

from ._task import METAICL, HubSource, Row, Task


def scene(row: Row) -> str:
    """The input text: topic, then both halves of the context, each followed by a space.

    Rows whose halves are unknown give the joined context; rows without a topic give the context alone.
    """
    topic = f"The topic is {row['activity_label']}. " if row.get("activity_label") else ""
    if row.get("ctx_a") is None:
        return f"{topic}{row['ctx']} "
    return f"{topic}{row['ctx_a']} {row.get('ctx_b') or ''} "


def fields(row: Row, folder: Path | None) -> dict[str, Any]:
    """The scene and its endings; null columns become empty."""
    endings = [str(ending) for ending in row["endings"]]
    if not endings:
        raise DataError("the row has no endings. A HellaSwag row lists the four endings to choose from.")
    return {"scene": scene(row), "endings": endings, "joined_endings": " | ".join(endings)}


def gold_ending(row: Row) -> str:
    """The right ending; the class number indexes the item's own endings."""
    value = str(row["label"])
    if not value.isdigit() or int(value) >= len(row["endings"]):
        raise LabelError(
            f"label={row['label']!r} is not the number of one of the {len(row['endings'])} endings. "
            "Use a split whose labels are public (validation), or mend the row."
        )
    return str(row["endings"][int(value)])


TASK = Task(
    name="hellaswag",
    folder="hellaswag",
    hub=HubSource("Rowan/hellaswag", pool_split="train", test_split="validation"),
    columns=("activity_label", "ctx_a", "ctx_b", "ctx", "endings", "label"),
    embedded="{scene} | {joined_endings}",
    demonstration="{{ scene }}\n{{ label }}",
    query="{{ scene }}",
    metric="acc",
    label=gold_ending,
    item_choices="endings",
    prepare=fields,
    not_applicable={
        "knn": "each item has its own four endings, so the endings of other items, which the knn baseline votes "
        "with, are never among the choices. Use a language model as the scorer."
    },
    premise="The scene goes on:",
    blank=("scene",),
    shorten="scene",
    metaicl=True,
    notes=METAICL,
)
