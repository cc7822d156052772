"""Label exchange: tasks out, answers as the tools write them back in."""

from __future__ import annotations

import csv
import gzip
import json
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as ET

import numpy as np
import pytest

from icl_select.data import FORMATS, LabelRecord, Pool, export_tasks, import_labels, read_labels, write_labels
from icl_select.errors import DataError, LabelError, ParameterError, StoreError
from icl_select.types import Selection

TEXTS = [
    "plain",
    "quotes \"double\" and 'single', commas; semicolons\tand tabs",
    "two\nlines\r\nand\rthree",
    "Grüße, 東京, emoji 😀, U+2028 \u2028 here",
    "=SUM(A1) <b>&amp;</b>",
]
WORDS = ["POS", 'neg "bad" & <worse>']


def pool() -> Pool:
    return Pool.from_texts(TEXTS, ids=["a", "b", "c", "d 4", "e"], labels=[None, None, None, None, "POS"])


def suffix(name: str) -> str:
    return {"csv": ".csv", "jsonl": ".jsonl", "prodigy": ".jsonl"}.get(name, ".json")


# What each tool does with our tasks: write the answers {id: label or None} in its own form.


def answer_csv(path: Path, answers: dict[str, str | None]) -> None:
    with path.open(encoding="utf-8", newline="") as stream:
        rows = list(csv.DictReader(stream))
    for row in rows:
        row["label"] = answers.get(row["id"]) or ""
    with path.open("w", encoding="utf-8-sig", newline="") as stream:  # as spreadsheets save it
        writer = csv.DictWriter(stream, list(rows[0]), delimiter=";")
        writer.writeheader()
        writer.writerows(rows)


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").split("\n") if line]


def answer_jsonl(path: Path, answers: dict[str, str | None]) -> None:
    rows = [{**row, "label": answers.get(row["id"])} for row in lines(path)]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")


def answer_label_studio(path: Path, answers: dict[str, str | None]) -> None:
    tasks = json.loads(path.read_text(encoding="utf-8"))
    for number, task in enumerate(tasks, 101):
        label = answers.get(task["data"]["pool_id"])
        task |= {"id": number, "file_upload": "x-tasks.json", "drafts": [], "predictions": [number], "meta": {}}
        task |= {"annotations": [], "total_annotations": int(label is not None), "project": 3}
        if label is not None:
            task["annotations"] = [annotation(label)]
    path.write_text(json.dumps(tasks), encoding="utf-8")


def annotation(label: str, by: Any = 1, when: str = "2024-05-01T10:00:00.000000Z", **more: Any) -> dict[str, Any]:
    value = {"choices": [label]}
    result = {
        "id": "Xk2",
        "from_name": "label",
        "to_name": "text",
        "type": "choices",
        "origin": "manual",
        "value": value,
    }
    own = {"id": 7, "completed_by": by, "result": [result], "was_cancelled": False, "ground_truth": False}
    return {**own, "created_at": when, "updated_at": when, "lead_time": 3.2, "result_count": 1, **more}


def answer_argilla(path: Path, answers: dict[str, str | None]) -> None:
    records = json.loads(path.read_text(encoding="utf-8"))
    for record in records:
        label = answers.get(record["id"])
        user = "d3b1-user"
        record["responses"] = {} if label is None else {"label": [{"value": label, "user_id": user}]}
        record["_server_id"] = "server"
    path.write_text(json.dumps(records), encoding="utf-8")


def answer_prodigy(path: Path, answers: dict[str, str | None]) -> None:
    rows = lines(path)
    for row in rows:
        label = answers.get(row["pool_id"])
        row |= {"_input_hash": -12, "_task_hash": 34, "_view_id": "choice", "_timestamp": 1714557600}
        row |= {"_annotator_id": "news-ann", "_session_id": "news-ann"}
        row |= {"accept": [], "answer": "ignore"} if label is None else {"accept": [label], "answer": "accept"}
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")


ANSWER: dict[str, Callable[[Path, dict[str, str | None]], None]] = {
    "csv": answer_csv,
    "jsonl": answer_jsonl,
    "label-studio": answer_label_studio,
    "argilla": answer_argilla,
    "prodigy": answer_prodigy,
}


def test_every_format_has_an_answer() -> None:
    assert set(ANSWER) == set(FORMATS)


@pytest.mark.parametrize("named", [True, False], ids=["named", "recognised"])
@pytest.mark.parametrize("name", FORMATS)
def test_round_trip_through_the_tool(tmp_path: Path, name: str, named: bool) -> None:
    """Four of five examples go out; two come back labelled, two unlabelled."""
    ours = pool()
    path = tmp_path / f"tasks{suffix(name)}"
    selection = Selection([3, 0, 2, 1], [0.5, 0.25, 0.125, 0.1], method="max_herding(bandwidth=0.8)")
    written = export_tasks(ours, None, path, name, label_words=WORDS, selection=selection)
    assert written[0] == path
    assert read_labels(path, name).ids == ("d 4", "a", "c", "b"), "in labelling order"
    assert read_labels(path, name).records == ()
    ANSWER[name](path, {"d 4": WORDS[1], "c": "POS"})
    merged, report = import_labels(ours, path, name if named else None, label_words=WORDS)
    assert merged.labels == [None, None, "POS", WORDS[1], "POS"]
    assert ours.labels == [None] * 4 + ["POS"], "the pool that was given does not change"
    assert report.added == ("d 4", "c")
    assert report.missing == ("a", "b")
    assert report.conflicts == ()
    again, second = import_labels(merged, path, label_words=WORDS)
    assert again == merged
    assert second.unchanged == ("d 4", "c")


@pytest.mark.parametrize("name", FORMATS)
def test_tasks_hold_what_was_picked(tmp_path: Path, name: str) -> None:
    path = tmp_path / f"tasks{suffix(name)}"
    selection = Selection([3, 4], [0.5, 0.25], method="vote_k")
    export_tasks(pool(), [4, 3], path, name, label_words=WORDS, selection=selection)
    content = path.read_text(encoding="utf-8")
    if name == "csv":
        with path.open(encoding="utf-8", newline="") as stream:
            rows = list(csv.DictReader(stream))
        keys = ("id", "rank", "method", "gain", "text", "label")
        assert [tuple(row[key] for key in keys) for row in rows] == [
            ("e", "1", "vote_k", "0.25", TEXTS[4], "POS"),
            ("d 4", "2", "vote_k", "0.5", TEXTS[3], ""),
        ]
    elif name == "jsonl":
        pick = {"id": "e", "rank": 1, "method": "vote_k", "gain": 0.25, "text": TEXTS[4], "label": "POS"}
        assert lines(path)[0] == pick
        assert len(content.splitlines()) == 2
    elif name == "label-studio":
        first, second = json.loads(content)
        assert first["data"] == {"pool_id": "e", "text": TEXTS[4], "rank": 1, "method": "vote_k", "gain": 0.25}
        (result,) = first["predictions"][0]["result"]
        assert result["value"] == {"choices": ["POS"]}
        assert set(second) == {"data"}
    elif name == "argilla":
        first, second = json.loads(content)
        assert first["id"] == "e"
        assert first["fields"] == {"text": TEXTS[4]}
        assert first["metadata"] == {"pool_id": "e", "rank": 1, "method": "vote_k", "gain": 0.25}
        assert first["suggestions"]["label"]["value"] == "POS"
        assert second["suggestions"] == {}
    else:
        first, second = lines(path)
        assert first["options"] == [{"id": word, "text": word} for word in WORDS]
        assert (first["pool_id"], first["accept"], second.get("accept")) == ("e", ["POS"], None)
        assert first["meta"] == {"rank": 1, "method": "vote_k", "gain": 0.25}


def test_own_fields_travel_where_there_is_a_place(tmp_path: Path) -> None:
    ours = Pool.from_records([{"id": 1, "subject": "s", "body": "b"}], text="{subject} {body}")
    export_tasks(ours, [0], tmp_path / "t.jsonl")
    assert lines(tmp_path / "t.jsonl")[0]["fields"] == {"subject": "s", "body": "b"}
    export_tasks(ours, [0], tmp_path / "t.json", "label_studio")
    assert json.loads((tmp_path / "t.json").read_text(encoding="utf-8"))[0]["data"]["fields"]["body"] == "b"


def test_label_studio_configuration_matches_the_tasks(tmp_path: Path) -> None:
    written = export_tasks(pool(), [0], tmp_path / "t.json", "label-studio", label_words=WORDS)
    assert written == [tmp_path / "t.json", tmp_path / "t.xml"]
    root = ET.parse(tmp_path / "t.xml").getroot()  # the file was written above
    text, choices = list(root)
    assert (root.tag, text.attrib) == ("View", {"name": "text", "value": "$text"})
    assert (choices.tag, choices.get("name"), choices.get("toName"), choices.get("choice")) == (
        "Choices",
        "label",
        "text",
        "single",
    )
    assert [choice.get("value") for choice in choices] == WORDS
    export_tasks(pool(), [0], tmp_path / "t.json", "label-studio")
    assert [child.tag for child in ET.parse(tmp_path / "t.xml").getroot()] == ["Text", "TextArea"]
    with pytest.raises(ParameterError, match="both tasks and configuration"):
        export_tasks(pool(), [0], tmp_path / "t.xml", "label-studio")


def studio(path: Path, *tasks: dict[str, Any]) -> Path:
    path.write_text(json.dumps(tasks), encoding="utf-8")
    return path


def test_label_studio_cancelled_ground_truth_and_annotators(tmp_path: Path) -> None:
    email = {"id": 2, "email": "bob@example.org", "first_name": "", "last_name": ""}
    path = studio(
        tmp_path / "export.json",
        {"id": 1, "data": {"pool_id": "a"}, "annotations": [annotation("POS", was_cancelled=True)]},
        {
            "id": 2,
            "data": {"pool_id": "b"},
            "annotations": [annotation("POS", 1), annotation("NEG", email, ground_truth=True)],
        },
        {"id": 3, "data": {"pool_id": "c"}, "annotations": [annotation("POS", 1), annotation("NEG", email)]},
        {"id": 4, "data": {"pool_id": "d 4"}, "annotations": [annotation("POS") | {"result": []}], "predictions": [5]},
    )
    file = read_labels(path)
    assert file.format == "label-studio"
    assert file.ids == ("a", "b", "c", "d 4")
    assert [(r.id, r.label, r.annotator) for r in file.records] == [
        ("b", "NEG", "bob@example.org"),
        ("c", "POS", "1"),
        ("c", "NEG", "bob@example.org"),
    ]
    with pytest.raises(LabelError, match="'c': 'POS' \\(1\\), 'NEG' \\(1\\)"):
        import_labels(pool(), path)
    merged, report = import_labels(pool(), path, on_conflict="keep")
    assert merged.labels == [None, "NEG", None, None, "POS"]
    assert report.missing == ("a", "c", "d 4")
    assert report.agreement == 0.5


def test_label_studio_free_text_other_questions_and_minimal_export(tmp_path: Path) -> None:
    written = {"from_name": "summary", "to_name": "text", "type": "textarea", "value": {"text": ["two\nlines"]}}
    rated = {"from_name": "sure", "to_name": "text", "type": "rating", "value": {"rating": 4}}
    task = {"data": {"pool_id": "a"}, "annotations": [annotation("x") | {"result": [rated, written]}]}
    assert read_labels(studio(tmp_path / "a.json", task)).records[0].label == "two\nlines"
    other = written | {"from_name": "remark"}
    task = {"data": {"pool_id": "a"}, "annotations": [annotation("x") | {"result": [other, written]}]}
    with pytest.raises(DataError, match=r"several questions \(remark, summary\)"):
        read_labels(studio(tmp_path / "b.json", task))
    both = annotation("x")
    both["result"].append(other)
    assert (
        read_labels(studio(tmp_path / "c.json", {"data": {"pool_id": "a"}, "annotations": [both]})).records[0].label
        == "x"
    )
    two = annotation("x")
    two["result"][0]["value"]["choices"] = ["x", "y"]
    with pytest.raises(LabelError, match=r"task 9: the label is a list"):
        read_labels(studio(tmp_path / "d.json", {"id": 9, "data": {"pool_id": "a"}, "annotations": [two]}))
    minimal = {"id": 1, "pool_id": "a", "text": "t", "label": "POS", "annotator": 3, "updated_at": "2024-05-01"}
    assert read_labels(studio(tmp_path / "e.json", minimal)).records == (LabelRecord("a", "POS", "3", "2024-05-01"),)
    with pytest.raises(DataError, match=r"task 5: no data.pool_id"):
        read_labels(studio(tmp_path / "f.json", {"id": 5, "data": {"text": "t"}, "annotations": []}))


def test_argilla_drafts_other_questions_and_flat_records(tmp_path: Path) -> None:
    base = {"id": "a", "fields": {"text": "t"}, "metadata": {}, "suggestions": {"label": {"value": "s"}}, "vectors": {}}
    answers = [
        {"value": "POS", "user_id": "u1", "status": "submitted"},
        {"value": "NEG", "user_id": "u2", "status": "draft"},
        {"value": "NEG", "user_id": "u3", "status": "discarded"},
    ]
    path = studio(tmp_path / "a.json", {**base, "responses": {"label": answers, "comment": [{"value": "hm"}]}})
    file = read_labels(path)
    assert (file.format, file.records) == ("argilla", (LabelRecord("a", "POS", "u1"),))
    path = studio(tmp_path / "b.json", {**base, "responses": {"topic": [{"value": "POS", "user_id": "u1"}]}})
    assert read_labels(path).records == (LabelRecord("a", "POS", "u1"),)
    flat = {"id": "a", "text": "t", "topic.responses": ["POS", "NEG"], "topic.responses.users": ["u1", "u2"]}
    path = studio(tmp_path / "c.json", {**flat, "topic.responses.status": ["submitted", "discarded"]})
    assert read_labels(path).records == (LabelRecord("a", "POS", "u1"),)
    path = studio(tmp_path / "d.json", {**base, "responses": [1]})
    with pytest.raises(DataError, match="record 0: responses is a list"):
        read_labels(path)


def test_prodigy_answers_of_every_kind(tmp_path: Path) -> None:
    rows = [
        {"pool_id": "a", "text": "t", "options": [], "accept": ["POS"], "answer": "accept", "_timestamp": 0},
        {"pool_id": "b", "text": "t", "options": [], "accept": ["POS"], "answer": "reject"},
        {"pool_id": "c", "text": "t", "label": "NEG", "answer": "accept", "_session_id": "s-1"},
        {"meta": {"pool_id": "d 4"}, "text": "t", "user_input": "free\ntext", "answer": "accept"},
        {"pool_id": "e", "text": "t", "options": [], "accept": [], "answer": "accept"},
    ]
    path = tmp_path / "a.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    file = read_labels(path)
    assert (file.format, file.ids) == ("prodigy", ("a", "b", "c", "d 4", "e"))
    assert file.records == (
        LabelRecord("a", "POS", None, "1970-01-01T00:00:00+00:00"),
        LabelRecord("c", "NEG", "s-1"),
        LabelRecord("d 4", "free\ntext"),
    )
    path.write_text(json.dumps({"text": "t", "answer": "accept", "label": "x"}) + "\n", encoding="utf-8")
    with pytest.raises(DataError, match=r"a.jsonl, line 1: no pool_id"):
        read_labels(path)


@pytest.mark.parametrize("name", ["labels.csv", "labels.jsonl"])
def test_written_labels_read_back_equal(tmp_path: Path, name: str) -> None:
    records = [
        LabelRecord("a", 'x "y"\nz', "ann, bob", "2024-01-01"),
        LabelRecord("a", "0"),
        LabelRecord("d 4", "Grüße \u2028 東京"),
    ]
    path = write_labels(records, tmp_path / name)
    assert read_labels(path).records == tuple(records)
    with pytest.raises(ParameterError, match=r"\.csv or \.jsonl"):
        write_labels(records, tmp_path / "labels.txt")


def test_numbers_label_words_and_gzip_in_label_files(tmp_path: Path) -> None:
    path = tmp_path / "labels.jsonl"
    path.write_bytes(gzip.compress(b'{"id": "a", "label": 1}\n{"id": "b", "label": [0]}\n{"id": "c", "label": null}\n'))
    assert [r.label for r in read_labels(path).records] == ["1", "0"]
    merged, _ = import_labels(pool(), path, label_words=["no", "yes"])
    assert merged.labels[:3] == ["yes", "no", None]


def test_a_labelled_pool_is_a_file_of_labels(tmp_path: Path) -> None:
    path = pool().label({"a": "POS"}).to_jsonl(tmp_path / "pool.jsonl")
    merged, report = import_labels(pool(), path)
    assert merged.labels[0] == "POS"
    assert (report.added, report.unchanged) == (("a",), ("e",))


def labels_file(tmp_path: Path, content: str, name: str = "labels.csv") -> Path:
    path = tmp_path / name
    path.write_text(content, encoding="utf-8")
    return path


def test_labels_outside_the_label_words_change_nothing(tmp_path: Path) -> None:
    ours = pool()
    path = labels_file(tmp_path, "id,label\na,POS\nb,Pos\n")
    with pytest.raises(LabelError, match=r"labels.csv, line 3: the label 'Pos' is not one .* Did you mean 'POS'"):
        import_labels(ours, path, label_words=["POS", "NEG"])
    assert ours == pool()


def test_unknown_ids_are_reported_and_a_wrong_pool_is_an_error(tmp_path: Path) -> None:
    path = labels_file(tmp_path, "id,label\na,POS\nzz,NEG\n")
    merged, report = import_labels(pool(), path, expected=["a", "b"])
    assert merged.labels[0] == "POS"
    assert report.unknown == ("zz",)
    assert report.missing == ("b",)
    path = labels_file(tmp_path, "id,label\n1,POS\n2,NEG\n")
    with pytest.raises(
        LabelError, match=r"none of the 2 ids in .* is in the pool, for example '1' \(the pool's first is 'a'\)"
    ):
        import_labels(pool(), path)


def test_conflicts_with_labels_that_stand(tmp_path: Path) -> None:
    path = labels_file(tmp_path, "id,label,annotator\na,POS,ann\na,NEG,bob\na,NEG,cy\ne,NEG,ann\n")
    with pytest.raises(LabelError, match="2 examples have labels that disagree"):
        import_labels(pool(), path)
    assert import_labels(pool(), path, on_conflict="keep")[0].labels == [None, None, None, None, "POS"]
    assert import_labels(pool(), path, on_conflict="replace")[0].labels == ["NEG", None, None, None, "NEG"]
    merged, report = import_labels(pool(), path, on_conflict="majority")
    assert merged.labels == ["NEG", None, None, None, "POS"]
    assert report.agreement == pytest.approx(2 / 3)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.csv", "", "is empty"),
        ("a.csv", "id,label\n", "holds no examples"),
        ("a.csv", "id,lable\na,x\n", r"no row has the field 'label'. Did you mean 'lable'\?"),
        ("a.csv", "idd,label\na,x\n", r"line 2: no field 'id'.*Did you mean 'idd'\?"),
        ("a.csv", "id,label\n,x\n", r"line 2: the id, which matches labels with the pool, is empty"),
        ("a.jsonl", '{"id": "a", "label": "x"}\n{"id": \n', r"a.jsonl, line 2: not JSON"),
        ("a.jsonl", '{"id": \n', r"a.jsonl, line 1: not JSON"),
        ("a.jsonl", "{\n", r"a.jsonl, line 1: not JSON"),
        ("a.json", '[{"data": {"pool_id": "a"}}', r"a.json is not JSON \(Expecting"),
        ("a.json", "[1]", r"item 0: a int, but each item is an object"),
        ("a.json", "[]", r"no known format. Name it: format= one of csv, jsonl"),
        ("a.json", '[{"x": 1}]', r"first object has the fields x, which is no known format"),
    ],
)
def test_broken_label_files_say_where(tmp_path: Path, name: str, content: str, message: str) -> None:
    with pytest.raises((DataError, LabelError), match=f"(?s){message}"):
        import_labels(pool(), labels_file(tmp_path, content, name))


def test_json_readers_refuse_what_is_not_theirs(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="holds a JSON dict"):
        read_labels(labels_file(tmp_path, "{}", "a.json"), "argilla")
    (tmp_path / "b.json").write_bytes(b'[{"id": "\xe9"}]')
    with pytest.raises(DataError, match="byte 9 is not UTF-8"):
        read_labels(tmp_path / "b.json", "argilla")


def test_exports_are_checked_before_anything_is_written(tmp_path: Path) -> None:
    ours, path = pool(), tmp_path / "t.csv"
    selection = Selection([0], [1.0])
    cases: list[tuple[type[Exception], str, Callable[[], object]]] = [
        (ParameterError, "neither indices nor a selection", lambda: export_tasks(ours, None, path)),
        (ParameterError, "index 9 is outside", lambda: export_tasks(ours, [9], path)),
        (DataError, "same id", lambda: export_tasks(ours, [0, 0], path)),
        (DataError, "empty", lambda: export_tasks(ours, [], path)),
        (
            ParameterError,
            r"'prodgy' is unknown. Did you mean 'prodigy'",
            lambda: export_tasks(ours, [0], path, "prodgy"),
        ),
        (ParameterError, r"format 'json' is unknown", lambda: export_tasks(ours, [0], tmp_path / "t.json")),
        (LabelError, "one of the 1 label", lambda: export_tasks(ours, [4], path, label_words=["NEG"])),
        (LabelError, "names a word twice", lambda: export_tasks(ours, [0], path, label_words=["x", "x"])),
        (LabelError, "no list of words", lambda: export_tasks(ours, [0], path, label_words="POS")),
        (LabelError, "no list of words", lambda: export_tasks(ours, [0], path, label_words=["x", " "])),
        (LabelError, "is empty", lambda: export_tasks(ours, None, path, label_words=[], selection=selection)),
    ]
    for error, message, call in cases:
        with pytest.raises(error, match=message):
            call()
    assert list(tmp_path.iterdir()) == []


def test_an_export_that_cannot_be_written_keeps_the_old_file(tmp_path: Path) -> None:
    folder = tmp_path / "file"
    folder.write_text("in the way", encoding="utf-8")
    with pytest.raises(StoreError, match="cannot"):
        export_tasks(pool(), np.array([0]), folder / "t.csv")
    assert folder.read_text(encoding="utf-8") == "in the way"
    path = export_tasks(pool(), [0], tmp_path / "t.csv")[0]
    assert stat.S_IMODE(path.stat().st_mode) & 0o400
    assert [entry.name for entry in tmp_path.iterdir() if entry.name.endswith(".tmp")] == []
