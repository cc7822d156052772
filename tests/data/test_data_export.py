"""Tasks and labels as bytes; labels of files whose name is another, and of files that no tool wrote."""

from __future__ import annotations

import contextlib
import gzip
import itertools
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as ET

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from icl_select.data import (
    FORMATS,
    LabelRecord,
    Pool,
    Task,
    export_tasks,
    label_bytes,
    label_lines,
    read_labels,
    task_files,
    write_labels,
)
from icl_select.errors import DataError, IclSelectError, LabelError, ParameterError
from icl_select.types import Selection

TASKS = [
    Task("a", 'Grüße, "x"\nU+2028 \u2028', 1, gain=0.5, method="vote_k", fields={"subject": "s", "body": "b"}),
    Task("b", "plain", 2, "NEG", gain=0.25, method="vote_k", fields={"text": "plain"}),
]
WORDS = ["POS", "NEG"]
SUFFIXES = {
    "csv": [".csv"],
    "jsonl": [".jsonl"],
    "label-studio": [".json", ".xml"],
    "argilla": [".json"],
    "prodigy": [".jsonl"],
}


@pytest.mark.parametrize("words", [WORDS, None])
@pytest.mark.parametrize("name", FORMATS)
def test_the_bytes_are_those_that_an_export_writes(tmp_path: Path, name: str, words: list[str] | None) -> None:
    pool = Pool.from_records([{"id": task.id, **task.fields, "label": task.label} for task in TASKS[1:]])
    selection = Selection(np.array([0]), np.array([0.25]), method="vote_k")
    tasks = [Task("b", "plain", 1, "NEG", gain=0.25, method="vote_k", fields={"text": "plain"})]
    files = task_files(tasks, name, words)
    assert list(files) == SUFFIXES[name], "the tasks first"
    written = export_tasks(pool, None, tmp_path / f"t{SUFFIXES[name][0]}", name, label_words=words, selection=selection)
    assert [path.suffix for path in written] == list(files)
    assert [path.read_bytes() for path in written] == list(files.values())


@pytest.mark.parametrize("name", FORMATS)
def test_tasks_as_bytes_are_read_back(tmp_path: Path, name: str) -> None:
    files = task_files(TASKS, name.upper().replace("-", "_"), WORDS)
    path = tmp_path / "upload"
    path.write_bytes(next(iter(files.values())))
    assert read_labels(path, name).ids == ("a", "b")
    if name == "label-studio":
        assert [choice.get("value") for choice in ET.fromstring(files[".xml"]).iter("Choice")] == WORDS


def test_no_tasks_are_an_empty_file() -> None:
    assert task_files([], "jsonl") == {".jsonl": b""}
    assert json.loads(task_files([], "argilla")[".json"]) == []


def test_tasks_are_checked_before_they_are_rendered() -> None:
    with pytest.raises(ParameterError, match=r"'prodgy' is unknown. Did you mean 'prodigy'"):
        task_files(TASKS, "prodgy")
    with pytest.raises(LabelError, match="the example 'b' is labelled 'NEG', which is not one of the 1 label words"):
        task_files(TASKS, "csv", ["POS"])
    with pytest.raises(LabelError, match="names a word twice"):
        task_files([], "csv", ["POS", "POS"])


RECORDS = [
    LabelRecord("a", 'x "y"\r\nz', "ann, bob", "2024-01-01"),
    LabelRecord("a", "0"),
    LabelRecord("d 4", "Grüße \u2028 東京", "cy"),
]


@pytest.mark.parametrize("name", ["csv", "jsonl"])
def test_labels_as_bytes_are_those_that_are_written(tmp_path: Path, name: str) -> None:
    content = label_bytes(RECORDS, name)
    path = write_labels(RECORDS, tmp_path / f"labels.{name}")
    assert path.read_bytes() == content == b"".join(label_lines(iter(RECORDS), name))
    assert read_labels(path).records == tuple(RECORDS)


def test_the_lines_of_csv_and_json() -> None:
    records = [LabelRecord("a", "x, y"), LabelRecord("b", "z", "ann", "2024")]
    assert list(label_lines(records, "csv")) == [
        b"id,label,annotator,created_at\r\n",
        b'a,"x, y",,\r\n',
        b"b,z,ann,2024\r\n",
    ]
    first = {"id": "a", "label": "x, y", "annotator": None, "created_at": None}
    assert json.loads(next(label_lines(records, "jsonl"))) == first
    assert label_bytes([], "csv") == b"id,label,annotator,created_at\r\n"
    assert label_bytes([], "jsonl") == b""


@pytest.mark.parametrize("name", ["csv", "jsonl"])
def test_labels_without_end_are_written_line_by_line(name: str) -> None:
    def endless() -> Iterator[LabelRecord]:
        for number in itertools.count():
            yield LabelRecord(str(number), "x")

    lines = list(itertools.islice(label_lines(endless(), name), 5))
    assert all(line.endswith(b"\n") for line in lines)


def test_labels_have_two_formats() -> None:
    with pytest.raises(ParameterError, match=r"as csv or jsonl, not 'json'. Did you mean 'jsonl'"):
        label_lines(RECORDS, "json")
    with pytest.raises(ParameterError, match="not 'prodigy'"):
        label_bytes(RECORDS, "prodigy")


# Files under another name.


@pytest.mark.parametrize(
    ("content", "name", "message"),
    [
        (b"", None, r"the body is empty"),
        (b"id,label\n", None, r"the body holds no examples"),
        (b"id,label\n,x\n", None, r"the body, line 2: the id"),
        (b"id,lable\na,x\n", None, r"the body: no row has"),
        (b'{"id": "a", "label": "x"}\n{', None, r"the body, line 2: not JSON"),
        (b'{"answer": "accept"}\n', None, r"the body, line 1: no pool_id"),
        (b"[1]", None, r"the body, item 0: a int"),
        (b"[", None, r"the body is not JSON"),
        (b'[{"id": "\xe9"}]', None, r"the body: byte 9"),
        (b"{}", "argilla", r"the body holds a JSON dict"),
        (b'[{"x": 1}]', None, r"the body: the array's first object"),
        (b'[{"data": {}}]', None, r"the body, task 0: no data.pool_id"),
        (b'[{"fields": {}}]', None, r"the body, record 0: the id"),
        (b"\xff\xfe[", None, r"the body is UTF-16"),
    ],
)
def test_messages_name_the_source(tmp_path: Path, content: bytes, name: str | None, message: str) -> None:
    path = tmp_path / "spooled"
    path.write_bytes(content)
    with pytest.raises(DataError, match=f"^{message}") as caught:
        read_labels(path, name, source="the body")
    assert "spooled" not in str(caught.value)


@pytest.mark.parametrize("name", [None, *FORMATS])
def test_gzip_of_labels_can_be_refused(tmp_path: Path, name: str | None) -> None:
    path = tmp_path / "spooled"
    path.write_bytes(gzip.compress(task_files(TASKS, name or "csv")[SUFFIXES[name or "csv"][0]]))
    assert len(read_labels(path, name).ids) == 2
    with pytest.raises(DataError, match=r"^the body is gzip data, but only plain text is taken here"):
        read_labels(path, name, source="the body", plain_only=True)


# Files that no tool wrote.


def studio(**more: Any) -> dict[str, Any]:
    return {"id": 1, "data": {"pool_id": "a"}, "annotations": [], **more}


RESULT = {"from_name": "label", "type": "choices", "value": {"choices": ["x"]}}


@pytest.mark.parametrize(
    ("record", "name", "message"),
    [
        (studio(annotations={"x": 1}), "label-studio", r"task 1: annotations is a dict, but the tool writes a list"),
        (studio(annotations=[1]), "label-studio", r"task 1: annotations holds a int, but the tool writes objects"),
        (studio(annotations=[{"result": "x"}]), "label-studio", r"result is a str"),
        (studio(annotations=[{"result": [None]}]), "label-studio", r"result holds a NoneType"),
        (studio(annotations=[{"result": [{**RESULT, "value": 1}]}]), "label-studio", r"value is a int"),
        (
            studio(annotations=[{"result": [RESULT], "completed_by": [1]}]),
            "label-studio",
            r"task 1: the annotator is a list, but it is one string or number",
        ),
        (
            studio(annotations=[{"result": [RESULT], "completed_by": "\ud83d"}]),
            "label-studio",
            r"task 1: 'annotator' holds U\+D83D",
        ),
        ({"id": "a", "metadata": [1]}, "argilla", r"record 0: metadata is a list, but the tool writes an object"),
        ({"id": "a", "responses": {"label": {"value": 1}}}, "argilla", r"record 0: label is a dict"),
        ({"id": "a", "responses": {"label": ["x"]}}, "argilla", r"record 0: label holds a str"),
        ({"id": "a", "label.responses": "x"}, "argilla", r"label.responses is a str"),
        (
            {"id": "a", "label.responses": ["x"], "label.responses.users": ["u", "v"]},
            "argilla",
            r"record 0: 1 responses, but 2 users and 1 statuses",
        ),
    ],
)
def test_json_that_is_not_as_the_tool_writes_it(
    tmp_path: Path, record: dict[str, Any], name: str, message: str
) -> None:
    path = tmp_path / "a.json"
    path.write_text(json.dumps([record]), encoding="utf-8")
    with pytest.raises(DataError, match=message):
        read_labels(path, name)


def test_an_answer_of_no_known_type_is_no_label(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    path.write_text(json.dumps([studio(annotations=[{"result": [{**RESULT, "type": ["choices"]}]}])]), encoding="utf-8")
    assert read_labels(path).ids == ("a",)
    assert read_labels(path).records == ()


@pytest.mark.parametrize("when", [1e20, -1e20, float("inf")])
def test_times_that_no_calendar_has(tmp_path: Path, when: float) -> None:
    path = tmp_path / "a.jsonl"
    row = {"pool_id": "a", "label": "x", "answer": "accept", "_timestamp": when}
    path.write_text(json.dumps(row).replace("Infinity", "1e999") + "\n", encoding="utf-8")
    with pytest.raises(DataError, match=r"a.jsonl, line 1: the _timestamp .* is no time in seconds since 1970"):
        read_labels(path)


def test_a_first_line_that_is_nested_too_deeply_is_not_json(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text('{"id": ' + "[" * 100_000, encoding="utf-8")
    with pytest.raises(DataError, match=r"line 1: not JSON"):
        read_labels(path)


SCALARS = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=3)
KEYS = st.sampled_from(
    [
        "id",
        "data",
        "pool_id",
        "annotations",
        "result",
        "type",
        "value",
        "choices",
        "text",
        "from_name",
        "was_cancelled",
        "ground_truth",
        "completed_by",
        "updated_at",
        "metadata",
        "responses",
        "label",
        "label.responses",
        "label.responses.users",
        "label.responses.status",
        "user_id",
        "status",
        "answer",
        "accept",
        "options",
        "meta",
        "_timestamp",
        "_annotator_id",
        "user_input",
        "submitted",
    ]
)
JSON = st.recursive(
    SCALARS | KEYS, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS, inner, max_size=6), max_leaves=25
)


@settings(
    max_examples=200, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(st.sampled_from(["label-studio", "argilla", "prodigy", "jsonl"]), st.dictionaries(KEYS, JSON, max_size=8))
def test_whatever_a_file_holds_the_error_is_ours(tmp_path: Path, name: str, record: dict[str, Any]) -> None:
    record = {**record, "pool_id": "a"} if name != "label-studio" else {**record, "data": {"pool_id": "a"}}
    if name == "prodigy":
        record["answer"] = "accept"
    text = json.dumps(record)
    path = tmp_path / "a"
    path.write_text(text + "\n" if name in ("prodigy", "jsonl") else f"[{text}]", encoding="utf-8")
    with contextlib.suppress(IclSelectError):
        file = read_labels(path, name)
        assert len(file.ids) == 1
        label_bytes(file.records, "csv")
