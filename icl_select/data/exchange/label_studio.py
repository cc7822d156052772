"""Label Studio: tasks with the labelling configuration they need, and the JSON it exports.

Tasks are matched on ``data.pool_id``, which holds our id, never on the tool's own task id: importing tasks again
makes new ones.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any
from xml.sax.saxutils import quoteattr

from icl_select.data._checks import LabelWords
from icl_select.data._file import File
from icl_select.data._records import json_text
from icl_select.data.exchange.record import (
    QUESTION,
    LabelFile,
    Reading,
    Task,
    json_array,
    object_at,
    objects_at,
    only_question,
)
from icl_select.errors import DataError

__all__ = ["config", "dump", "load"]

_ANSWERS = {"choices": "choices", "textarea": "text"}  # result type -> where its value stands


def config(label_words: Sequence[str] | None) -> str:
    """The labelling interface: a choice of the label words, or free text where there are none.

    Examples
    --------
    >>> print(config(["yes", "no"]))
    <View>
      <Text name="text" value="$text"/>
      <Choices name="label" toName="text" choice="single" showInline="true">
        <Choice value="yes"/>
        <Choice value="no"/>
      </Choices>
    </View>
    <BLANKLINE>
    """
    question = f'name="{QUESTION}" toName="text"'
    lines = ["<View>", '  <Text name="text" value="$text"/>']
    if label_words is None:
        lines.append(f'  <TextArea {question} rows="4" maxSubmissions="1" editable="true"/>')
    else:
        lines.append(f'  <Choices {question} choice="single" showInline="true">')
        lines += [f"    <Choice value={quoteattr(word)}/>" for word in label_words]
        lines.append("  </Choices>")
    return "\n".join([*lines, "</View>", ""])


def dump(tasks: Sequence[Task], label_words: Sequence[str] | None) -> str:
    """Tasks to import; a label that stands becomes a prediction, which people see and may change."""
    kind = "textarea" if label_words is None else "choices"
    items = []
    for task in tasks:
        data: dict[str, Any] = {"pool_id": task.id, "text": task.text, **task.metadata}
        if task.own_fields:
            data["fields"] = task.own_fields
        item: dict[str, Any] = {"data": data}
        if task.label is not None:
            value = {_ANSWERS[kind]: [task.label]}
            result = {"from_name": QUESTION, "to_name": "text", "type": kind, "value": value}
            item["predictions"] = [{"model_version": "label before export", "score": 1.0, "result": [result]}]
        items.append(item)
    return json_text(items, indent=1) + "\n"


def load(file: File, label_words: LabelWords | None) -> LabelFile:
    """Labels of a JSON or JSON-MIN export.

    Cancelled annotations are left out; where an example has annotations marked as ground truth, only those count.
    Predictions are never labels.
    """
    reading = Reading(file, "label-studio", label_words)
    for position, task in enumerate(json_array(file)):
        where = f"{file}, task {task.get('id', position)}"
        data = task.get("data", task)  # JSON-MIN holds the data in the task itself
        if not isinstance(data, dict) or data.get("pool_id") in (None, ""):
            raise DataError(
                f"{where}: no data.pool_id, which matches the task with the pool. Import tasks into Label Studio as "
                "written by export_tasks, and export only those."
            )
        name = reading.example(data["pool_id"], where)
        if data is task:
            _read_minimal(task, name, where, reading)
            continue
        annotations = [a for a in objects_at(task, "annotations", where) if not a.get("was_cancelled")]
        truth = [a for a in annotations if a.get("ground_truth")]
        for annotation in truth or annotations:
            _read_annotation(annotation, name, where, reading)
    return reading.done()


def _read_annotation(annotation: Mapping[str, Any], name: str, where: str, reading: Reading) -> None:
    answers = [r for r in objects_at(annotation, "result", where) if str(r.get("type")) in _ANSWERS]
    question = only_question([str(r.get("from_name")) for r in answers], where)
    values: list[Any] = []
    for result in answers:
        if str(result.get("from_name")) == question:
            value = object_at(result, "value", where).get(_ANSWERS[result["type"]])
            values += value if isinstance(value, list) else [value]
    if values:
        when = annotation.get("updated_at") or annotation.get("created_at")
        reading.label(name, values, where, _annotator(annotation.get("completed_by")), when)


def _read_minimal(task: Mapping[str, Any], name: str, where: str, reading: Reading) -> None:
    value = task.get(QUESTION)
    if isinstance(value, dict):
        value = value.get("choices")
    when = task.get("updated_at") or task.get("created_at")
    reading.label(name, value, where, _annotator(task.get("annotator")), when)


def _annotator(value: Any) -> Any:
    """A number, an e-mail address, or an object that holds both."""
    return value.get("email") or value.get("id") if isinstance(value, dict) else value
