"""Each benchmark: the exact strings that are embedded and shown, the gold label, and its real files."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from eval_helpers import HELLASWAG, folder_with

from icl_select.errors import ConfigError, DataError, LabelError, UnknownNameError
from icl_select.eval.tasks import (
    CustomTask,
    check_source,
    geoquery,
    get_task,
    hellaswag,
    load_task,
    multiwoz,
    task_names,
)
from icl_select.types import Decoding, Demonstration, Example

BENCHMARKS = ["dbpedia", "geoquery", "hellaswag", "mnli", "mrpc", "multiwoz", "rte", "sst5", "xsum"]

# Rows read, pool and test (../shared/data/README.md).
SIZES = {
    "mrpc": (3668, 408),
    "sst5": (6000, 1000),
    "mnli": (3000, 1000),
    "dbpedia": (5000, 1000),
    "rte": (2490, 277),
    "hellaswag": (4303, 1000),
    "multiwoz": (3656, 731),
    "geoquery": (549, 328),
    "xsum": (2954, 1000),
}


def one(tmp_path: Path, name: str, row: dict[str, Any]) -> tuple[Any, Example]:
    task = get_task(name)
    data = load_task(name, folder_with(tmp_path, task.folder, [row]))
    return data.task, data.pool[0]


def shown(example: Example) -> Demonstration:
    return Demonstration(example.id, str(example.label), 0.9, example.fields)


def prompt(task: Any, example: Example) -> str:
    """One demonstration and the query, both the same example: every part of the assembly is in it."""
    return str(task.template.text([shown(example)], example))


def test_every_benchmark_is_registered() -> None:
    assert set(BENCHMARKS) <= set(task_names())
    with pytest.raises(UnknownNameError, match="Did you mean 'mrpc'"):
        get_task("mprc")


def test_mrpc(tmp_path: Path) -> None:
    task, example = one(tmp_path, "mrpc", {"sentence1": "A ran", "sentence2": "A walked", "label": 1, "idx": 7})
    assert example.text == "A ran.\nA walked"
    assert example.label == "equivalent"
    asked = "Are the following two sentences 'equivalent' or 'not equivalent'?\nA ran.\nA walked.\nanswer:"
    assert prompt(task, example) == f"{asked}\nequivalent\n\n\n{asked}"
    assert task.choices == ("not equivalent", "equivalent")
    assert task.metric == "acc"


def test_sst5(tmp_path: Path) -> None:
    task, example = one(tmp_path, "sst5", {"text": "a stirring film", "label": 4, "label_text": "very positive"})
    assert example.text == "a stirring film"
    asked = "How do you feel about the following sentence?\na stirring film\nanswer:"
    assert prompt(task, example) == f"{asked}\nvery positive\n\n\n{asked}"
    assert task.choices == ("very negative", "negative", "neutral", "positive", "very positive")


def test_mnli(tmp_path: Path) -> None:
    task, example = one(tmp_path, "mnli", {"premise": "It rains", "hypothesis": "It is wet", "label": 1})
    claim = 'It rains. Based on that information, is the claim It is wet "True", "False", or "Inconclusive"?'
    assert example.text == claim
    assert prompt(task, example) == f"{claim}\nanswer:\nInconclusive\n\n\n{claim}\nanswer:"
    assert task.choices == ("True", "Inconclusive", "False")


def test_rte(tmp_path: Path) -> None:
    task, example = one(tmp_path, "rte", {"sentence1": "It rains.", "sentence2": "It is wet.", "label": 1, "idx": 0})
    assert example.text == "It rains..\nquestion: It is wet."
    asked = "It rains..\nquestion: It is wet.. True or False?\nanswer:"
    assert prompt(task, example) == f"{asked}\nFalse\n\n\n{asked}"
    assert task.choices == ("True", "False")


def test_dbpedia(tmp_path: Path) -> None:
    task, example = one(tmp_path, "dbpedia", {"label": 13, "title": "Emma", "content": " Emma is a novel."})
    assert example.text == "title: Emma ; content:  Emma is a novel."
    assert prompt(task, example) == (
        "title: Emma; content:  Emma is a novel.\nwritten work\n\n\ntitle: Emma; content:  Emma is a novel."
    )
    assert task.choices is not None
    assert len(task.choices) == 14
    assert task.choices[:5] == ("company", "educational institution", "artist", "athlete", "office holder")


def test_xsum(tmp_path: Path) -> None:
    task, example = one(tmp_path, "xsum", {"document": "Line one.\nLine two.", "summary": "Two lines.", "id": "1"})
    assert example.text == "Line one.\nLine two."
    asked = "write a short summary:\nLine one.\nLine two.\nTL;DR:"
    assert prompt(task, example) == f"{asked}Two lines.\n\n{asked}"
    assert (task.metric, task.choices, task.max_tokens) == ("rouge_l", None, 1900)


def test_hellaswag(tmp_path: Path) -> None:
    task, example = one(tmp_path, "hellaswag", HELLASWAG)
    scene = "The topic is Baking. A chef shows pans. the pans "
    assert example.text == f"{scene} | melt. | sing. | fly. | are filled."
    assert prompt(task, example) == f"{scene}\nare filled.\n\n\n{scene}"
    assert task.choices_of(example) == ("melt.", "sing.", "fly.", "are filled.")
    assert "four endings" in task.not_applicable["knn"]


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"ctx_a": None, "ctx_b": None}, "The topic is Baking. A chef shows pans. the pans "),
        ({"ctx_a": None, "ctx_b": None, "activity_label": None}, "A chef shows pans. the pans "),
        ({"ctx_b": ""}, "The topic is Baking. A chef shows pans.  "),
    ],
)
def test_hellaswag_with_unknown_halves(change: dict[str, Any], expected: str) -> None:
    assert hellaswag.scene({**HELLASWAG, **change}) == expected


@pytest.mark.parametrize("label", [4, -1, "", None])
def test_hellaswag_refuses_a_label_that_is_no_ending(tmp_path: Path, label: object) -> None:
    with pytest.raises(LabelError, match=r"line 1: label=.* is not the number of one of the 4 endings"):
        load_task("hellaswag", folder_with(tmp_path, "hellaswag", [{**HELLASWAG, "label": label}]))


def test_geoquery(shared: Path) -> None:
    data = load_task("geoquery", shared / "data")
    database = shared / "data" / "geoquery" / "geography.sqlite"
    example = next(e for e in data.pool if e.fields["question"] == "what is the biggest city in nebraska")
    schema = geoquery.serialised_schema(database)
    assert schema.startswith("border_info : state_name , border | city : city_name , population , country_name")
    assert example.text == f"what is the biggest city in nebraska\n{schema}"
    assert str(example.label).startswith("SELECT CITYalias0.CITY_NAME FROM CITY")
    text = prompt(data.task, example)
    asked = "-- what is the biggest city in nebraska\n"
    cue = "-- Using valid SQLite, answer the following questions for the tables provided above.\n"
    assert text.endswith(f"\n\n{cue}{asked}{example.label}\n\n{asked}SELECT")
    assert text.startswith('CREATE TABLE "border_info" (')
    assert data.metric_options == {"database": database}
    assert data.task.metric == "sql_execution"


def test_geoquery_shows_at_most_three_rows_named_in_the_question(shared: Path) -> None:
    database = shared / "data" / "geoquery" / "geography.sqlite"
    text = geoquery.schema_prompt(database, "What is the capital of Texas?")
    named = text.split("Rows of city named in the question:\n")[1].split("\n*/")[0].split("\n")
    assert named[0] == "city_name\tpopulation\tcountry_name\tstate_name"
    assert len(named) == 4
    assert all(row.endswith("\ttexas") for row in named[1:])
    assert "Rows of" not in geoquery.schema_prompt(database, "how many are there")


def test_geoquery_without_its_database_says_so(tmp_path: Path) -> None:
    folder = folder_with(tmp_path, "geoquery", [{"question": "q", "query": "SELECT 1"}])
    with pytest.raises(DataError, match=r"needs .*geography\.sqlite, which is not there"):
        load_task("geoquery", folder)
    with pytest.raises(DataError, match="which no hub has"):
        check_source("geoquery", None)
    (folder / "geoquery" / "geography.sqlite").write_bytes(b"this is no database, but long enough to be one" * 9)
    with pytest.raises(DataError, match="cannot be read as an SQLite database"):
        load_task("geoquery", folder)


TURN = {
    "ID": "PMUL1.json",
    "turn_id": 1,
    "dialog": {"sys": ["", "where to ?"], "usr": ["a train please", "to ely , and a hotel with 4 stars"]},
    "last_slot_values": {"train-day": "sunday", "hotel-area": "east"},
    "turn_slot_values": {"train-destination": "ely", "hotel-stars": "4", "hotel-area": "[DELETE]"},
    "slot_values": {"train-day": "sunday", "train-destination": "ely", "hotel-stars": "4"},
}


def test_multiwoz(tmp_path: Path) -> None:
    task, example = one(tmp_path, "multiwoz", TURN)
    assert example.text == "[system] where to ? [user] to ely , and a hotel with 4 stars"
    assert example.label == '{"hotel-area": "[DELETE]", "hotel-stars": "4", "train-destination": "ely"}'
    turn = (
        "[context] hotel-area: east, train-day: sunday\n[system] where to ?\n"
        "Q: [user] to ely , and a hotel with 4 stars\nSQL: SELECT * FROM"
    )
    sql = "hotel AS d1, train AS d2 WHERE d1.area = [DELETE] AND d1.stars = 4 AND d2.destination = ely;"
    assert prompt(task, example).endswith(f"above.\nExample #1\n{turn} {sql}\n\nExample #2\n{turn}")
    assert prompt(task, example).count("CREATE TABLE") == 5


def test_multiwoz_merges_the_copied_change_into_the_state_before_the_turn(tmp_path: Path) -> None:
    task, example = one(tmp_path, "multiwoz", TURN)
    gold = '{"hotel-stars": "4", "train-day": "sunday", "train-destination": "ely"}'
    assert task.reference(example) == gold
    assert task.finish(str(example.label), example) == gold
    assert task.finish('{"taxi-leaveat": "14:00"}', example) == (
        '{"hotel-area": "east", "taxi-leaveat": "14:00", "train-day": "sunday"}'
    )
    for unreadable in ("", "SELECT", "[1]"):
        assert task.finish(unreadable, example) == '{"hotel-area": "east", "train-day": "sunday"}'


def test_multiwoz_reads_states_nested_by_service() -> None:
    assert multiwoz.flat_state({"hotel": {"area": "east", "stars": None}, "taxi": {"leaveat": ""}}) == {
        "hotel-area": "east"
    }
    with pytest.raises(DataError, match="a state is list"):
        multiwoz.flat_state([])


@pytest.mark.parametrize(
    "slot", ["hotel-book stay", "train-leaveat", "taxi-arriveby", "restaurant-food", "hotel-pricerange"]
)
def test_multiwoz_columns_stand_in_the_tables_of_the_prompt(slot: str) -> None:
    domain = slot.split("-")[0]
    table = multiwoz.TABLES.split(f"CREATE TABLE {domain}(")[1].split("\n)")[0]
    assert f"\n  {multiwoz.column(slot)} " in table


@pytest.mark.parametrize("name", BENCHMARKS)
def test_real_files(shared: Path, name: str) -> None:
    data = load_task(name, shared / "data")
    assert (len(data.pool), len(data.test)) == SIZES[name]
    assert len(set(data.pool.ids)) == len(data.pool)
    for example in (*data.pool, *data.test):
        assert example.label
        if data.task.choices is not None:
            assert example.label in data.task.choices
        elif data.task.item_choices is not None:
            assert example.label in (data.task.choices_of(example) or ())
    if data.task.choices is not None:
        assert set(data.pool.labels) == set(data.task.choices)


def test_multiwoz_states_of_the_real_files_add_up(shared: Path) -> None:
    data = load_task("multiwoz", shared / "data")
    for example in (*data.pool, *data.test):
        assert data.task.finish(str(example.label), example) == data.task.reference(example)


@pytest.mark.parametrize("name", BENCHMARKS)
def test_every_slot_of_the_prompt_is_filled_on_real_rows(shared: Path, name: str) -> None:
    data = load_task(name, shared / "data")
    text = data.task.template.text([shown(data.pool[0])], data.test[0])
    assert str(data.pool[0].label) in text or name == "multiwoz"
    assert "{{" not in text


def test_an_id_depends_on_the_content_of_the_row_only(tmp_path: Path) -> None:
    rows = [{"text": text, "label": 0, "source_split": "train"} for text in ("a b", "c d", "a b")]
    ids = load_task("sst5", folder_with(tmp_path / "x", "sst5", rows)).pool.ids
    assert ids[2] == f"{ids[0]}-2"
    moved = [{"label": 0, "text": text, "other": 1} for text in ("c d", "a b")]
    assert load_task("sst5", folder_with(tmp_path / "y", "sst5", moved)).pool.ids == [ids[1], ids[0]]


def test_a_broken_row_is_named(tmp_path: Path) -> None:
    good = {"text": "fine", "label": 0}
    with pytest.raises(LabelError, match=r"line 2: label=5 is not a class number from 0 to 4"):
        load_task("sst5", folder_with(tmp_path / "a", "sst5", [good, {"text": "bad", "label": 5}]))
    with pytest.raises(DataError, match=r"line 2: no column 'label', which task sst5 needs\. Did you mean 'lable'"):
        load_task("sst5", folder_with(tmp_path / "b", "sst5", [good, {"text": "bad", "lable": 1}]))
    with pytest.raises(DataError, match="line 1: the text that would be embedded is empty"):
        load_task("sst5", folder_with(tmp_path / "c", "sst5", [{"text": " ", "label": 1}]))


def test_a_missing_folder_is_found_before_any_work(tmp_path: Path) -> None:
    folder_with(tmp_path, "sst5", [{"text": "fine", "label": 0}])
    check_source("sst5", tmp_path)
    with pytest.raises(DataError, match="has no folder 'mrpc'"):
        check_source("mrpc", tmp_path)
    with pytest.raises(ConfigError, match="data_dir: there is no folder"):
        check_source("sst5", tmp_path / "nowhere")
    (tmp_path / "sst5" / "test.jsonl.gz").unlink()
    with pytest.raises(DataError, match=r"holds no test\.jsonl\.gz"):
        check_source("sst5", tmp_path)


def test_a_benchmark_is_read_from_the_hub_with_renamed_columns(monkeypatch: pytest.MonkeyPatch) -> None:
    from icl_select.data.readers import Table
    from icl_select.eval.tasks import _load

    asked = []

    def read_hub(name: str, **options: Any) -> Table:
        asked.append((name, options))
        row = {key: value for key, value in TURN.items() if key not in ("ID", "dialog")}
        row.update(dialogue_id="PMUL1.json", system_utterances=["", "where to ?"], user_utterances=["x", "to ely"])
        return Table("hub", "row", [(1, row)])

    monkeypatch.setattr(_load, "read_hub", read_hub)
    data = load_task("multiwoz")
    assert data.pool[0].text == "[system] where to ? [user] to ely"
    assert asked == [
        ("Brendan/icdst_multiwoz_turns_v24", {"config": None, "split": split, "revision": None})
        for split in ("train", "test")
    ]
    assert data.source == "hub: Brendan/icdst_multiwoz_turns_v24"


def test_the_hub_out_of_reach_is_a_clear_error() -> None:
    with pytest.raises(DataError, match=r"nyu-mll/glue cannot be (fetched|loaded)"):
        load_task("mrpc")


def write_jsonl(path: Path, rows: list[dict[str, Any]]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def test_a_task_of_ones_own(tmp_path: Path) -> None:
    pool = write_jsonl(tmp_path / "p.jsonl", [{"id": "1", "subject": "Hi", "body": "pay", "intent": "billing"}])
    test = write_jsonl(tmp_path / "t.jsonl", [{"id": "2", "subject": "Yo", "body": "box", "intent": "billing"}])
    entry = CustomTask(
        name="desk", pool=pool, test=test, text="{subject}\n{body}", label="intent", template="{{ subject }}!"
    )
    data = load_task(entry)
    assert data.task.choices == ("billing",)
    assert data.pool[0].text == "Hi\npay"
    assert prompt(data.task, data.pool[0]) == "Hi!\nbilling\n\nHi!"
    assert CustomTask(name="desk", pool=pool, test=test).task(("a",)).query == "{{ text }}"
    assert (data.task.blank, data.task.decoding, data.task.prefix) == (("subject",), None, "\n")


def test_a_task_of_ones_own_says_how_its_answers_are_asked_for(tmp_path: Path) -> None:
    entry = CustomTask(
        name="desk", pool=tmp_path / "p.jsonl", test=tmp_path / "t.jsonl", generation=True, answer_tokens=20,
        template="{{ number }}. {{ subject }} ({{ meta.kind }}): {{ body }}", shorten="body", premise="reply:",
    )  # fmt: skip
    task = entry.task(None)
    assert task.decoding == Decoding(max_tokens=20, stop=("\n\n",))
    assert task.blank == ("body", "meta", "subject")
    assert (task.shorten, task.premise) == ("body", "reply:")
    assert task.parse("\n We will call. ", Example("1", "x"), "sound") == "We will call."
    plain = CustomTask(name="desk", pool=tmp_path / "p.jsonl", test=tmp_path / "t.jsonl").task(("a", "b"))
    assert (plain.decoding, plain.blank, plain.shorten, plain.premise) == (None, ("text",), None, None)


def test_whatever_a_prompt_depends_on_is_part_of_the_protocol() -> None:
    task = get_task("xsum")
    changes: dict[str, Any] = {
        "prefix": " ", "decoding": Decoding(9), "published_decoding": None, "premise": "so:", "blank": ("document",),
        "shorten": None, "metaicl": True, "group": "id", "published_query_centre": False, "version": 99,
    }  # fmt: skip
    for name, value in changes.items():
        assert replace(task, **{name: value}).protocol() != task.protocol(), name
    assert json.loads(json.dumps(task.protocol())) == task.protocol() | {
        "decoding": {"max_tokens": 64, "stop": ["\n"], "temperature": 0.0, "seed": 0},
        "published_decoding": {"max_tokens": 64, "stop": [], "temperature": 0.0, "seed": 0},
    }


def test_support(tmp_path: Path) -> None:
    task = get_task("support")
    example = Example("1", "t", {"subject": "Late", "body": "Where is it?"}, "delivery")
    assert prompt(task, example) == ("Late\nWhere is it?\nintent: delivery\n\nLate\nWhere is it?\nintent:")
    assert (task.prefix, task.premise) == (" ", "intent:")


def test_a_task_of_ones_own_refuses_labels_outside_its_words(tmp_path: Path) -> None:
    pool = write_jsonl(tmp_path / "p.jsonl", [{"id": "1", "text": "pay", "label": "billing"}])
    test = write_jsonl(tmp_path / "t.jsonl", [{"id": "2", "text": "box", "label": "parcel"}])
    with pytest.raises(LabelError, match=r"t\.jsonl, item 2: label='parcel' is not one of the label words \(billing\)"):
        load_task(CustomTask(name="desk", pool=pool, test=test))
    generated = load_task(CustomTask(name="desk", pool=pool, test=test, generation=True))
    assert (generated.task.choices, generated.task.metric) == (None, "rouge_l")
