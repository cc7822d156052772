"""MultiWOZ: dialogues carried along by predicted states, from rows of data to joint goal accuracy."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from eval_helpers import folder_with

from icl_select.errors import DataError
from icl_select.eval.answering import Desk
from icl_select.eval.config import validate
from icl_select.eval.tasks import TaskData, load_task, multiwoz
from icl_select.eval.tasks._dialogue_reading import Reading
from icl_select.eval.tasks._dialogue_sql import DELETE, TABLES, state_sql
from icl_select.eval.tasks._ontology import Ontology, build_ontology, spelling
from icl_select.eval.work import Unit
from icl_select.metrics import joint_goal_accuracy
from icl_select.score import Generation, Loglik, ModelScorer, Usage
from icl_select.types import Decoding, Example, Prompt, Selection


@pytest.fixture(scope="module")
def data(shared: Path) -> TaskData:
    return load_task("multiwoz", shared / "data")


# Pool and repair ---------------------------------------------------------------------------------------------------


def test_every_labelled_change_survives_repair(data: TaskData) -> None:
    for turn in (*data.pool, *data.test):
        assert data.task.parse(" " + turn.fields["sql"], turn, "sound") == turn.label


def test_the_ontology_comes_from_the_pool_alone(tmp_path: Path) -> None:
    def names(folder: str, pool: str, test: str) -> tuple[str, str]:
        row = {"ID": "A", "turn_id": 0, "dialog": {"sys": [""], "usr": ["hi"]}, "last_slot_values": {}}
        made = [
            {**row, "turn_slot_values": {"hotel-name": name}, "slot_values": {"hotel-name": name}}
            for name in (pool, test)
        ]
        loaded = load_task("multiwoz", folder_with(tmp_path / folder, "multiwoz24", made[:1], made[1:]))
        return loaded.task.learnt, loaded.task.parse(" hotel WHERE name = acorn house", loaded.test[0], "sound")

    first = names("a", "acorn houses", "x")
    assert first[1] == '{"hotel-name": "acorn houses"}'
    assert names("b", "acorn houses", "acorn house") == first
    assert names("c", "lodge", "acorn houses") != first
    assert names("d", "lodge", "acorn houses")[1] == '{"hotel-name": "acorn house"}'


def test_typos_of_the_real_names_are_mended(data: TaskData) -> None:
    """With the last letter doubled, every name of at least five letters comes back, in its more frequent spelling."""
    ontology = build_ontology(json.loads(str(turn.label)) for turn in data.pool)
    names = [name for name in ontology.values["restaurant-name"] if len(name) >= 5]
    read = [ontology.repair({"restaurant-name": name + name[-1]})[0]["restaurant-name"] for name in names]
    assert [spelling(one) for one in read] == [spelling(name) for name in names]
    assert {one for one, name in zip(read, names, strict=True) if one != name} <= {"hotpot", "the gardenia"}


# Along a dialogue ---------------------------------------------------------------------------------------------------

DIALOGUE = [
    ("i want a hotel in the east", {"hotel-area": "east"}),
    ("with 4 stars", {"hotel-stars": "4"}),
    ("no , in the west instead", {"hotel-area": "west"}),
    ("and i leave by taxi at 5 pm", {"taxi-leaveat": "17:00"}),
]


def dialogue_rows(turns: list[tuple[str, dict[str, str]]], name: str = "D1") -> list[dict[str, Any]]:
    made, state, said = [], {}, []
    for number, (user, change) in enumerate(turns):
        said.append(user)
        after = multiwoz.merge(state, change)
        made.append(
            {
                "ID": name,
                "turn_id": number,
                "dialog": {"sys": [""] * (number + 1), "usr": list(said)},
                "last_slot_values": state,
                "turn_slot_values": change,
                "slot_values": after,
            }
        )
        state = after
    return made


def carried(data: TaskData, model: Callable[[Example], str]) -> tuple[list[float], list[Example]]:
    """Ask `model` for every test turn, each with the state predicted for the turn before; scores and turns as asked."""
    task, predictions, asked = data.task, {}, []
    assert task.previous is not None
    assert task.carry is not None
    for turn in data.test:
        before = task.previous(turn)
        shown = turn if before is None else task.carry(turn, predictions[before])
        asked.append(shown)
        predictions[turn.id] = task.finish(task.parse(model(shown), shown, "sound"), shown)
    gold = [task.reference(turn) for turn in asked]
    return joint_goal_accuracy([predictions[turn.id] for turn in asked], gold).tolist(), asked


def oracle(turn: Example) -> str:
    return " " + state_sql(json.loads(str(turn.label)))


def test_the_right_answers_reach_accuracy_one_along_all_dialogues(data: TaskData) -> None:
    scores, asked = carried(data, oracle)
    assert scores == [1.0] * 731
    assert [dict(turn.fields["before"]) for turn in asked] == [dict(turn.fields["before"]) for turn in data.test]
    assert [turn.fields["context"] for turn in asked] == [turn.fields["context"] for turn in data.test]


def test_no_answer_at_all_is_right_only_while_nothing_was_said(data: TaskData) -> None:
    scores, _ = carried(data, lambda turn: "")
    assert scores == [float(not turn.fields["after"]) for turn in data.test]


def test_one_error_stays_until_a_later_turn_mends_it(tmp_path: Path) -> None:
    """The first of 4 turns hears "south" for "east": it and the next are wrong; the third says the area again."""
    made = dialogue_rows(DIALOGUE)
    data = load_task("multiwoz", folder_with(tmp_path, "multiwoz24", made))
    scores, asked = carried(
        data, lambda turn: " hotel WHERE area = south;" if turn.fields["turn"] == 0 else oracle(turn)
    )
    assert scores == [0.0, 0.0, 1.0, 1.0]
    assert [turn.fields["context"] for turn in asked] == [
        "",
        "hotel-area: south",
        "hotel-area: south, hotel-stars: 4",
        "hotel-area: west, hotel-stars: 4",
    ]
    # The same error in the last turn that speaks of the area is never mended.
    scores, _ = carried(data, lambda turn: " hotel WHERE area = south;" if turn.fields["turn"] == 2 else oracle(turn))
    assert scores == [1.0, 1.0, 0.0, 0.0]


def test_an_error_of_deletion_stays_too(tmp_path: Path) -> None:
    turns = [("hotel in the east", {"hotel-area": "east"}), ("forget the area", {"hotel-area": DELETE}), ("thanks", {})]
    data = load_task("multiwoz", folder_with(tmp_path, "multiwoz24", dialogue_rows(turns)))
    assert carried(data, oracle)[0] == [1.0, 1.0, 1.0]
    assert carried(data, lambda turn: oracle(turn) if turn.fields["turn"] != 1 else ";")[0] == [1.0, 0.0, 0.0]


def test_carrying_changes_what_is_shown_and_merged_and_nothing_else(tmp_path: Path) -> None:
    data = load_task("multiwoz", folder_with(tmp_path, "multiwoz24", dialogue_rows(DIALOGUE)))
    turn = data.test[1]
    assert data.task.carry is not None
    moved = data.task.carry(turn, '{"train-leaveat": "08:45", "hotel-book stay": "3"}')
    assert moved.fields["context"] == "hotel-book_number_of_days: 3, train-leave_at: 08:45"
    assert {name: value for name, value in moved.fields.items() if value != turn.fields[name]} == {
        "before": {"train-leaveat": "08:45", "hotel-book stay": "3"},
        "context": "hotel-book_number_of_days: 3, train-leave_at: 08:45",
    }
    assert (moved.id, moved.text, moved.label) == (turn.id, turn.text, turn.label)
    assert turn.fields["before"] == {"hotel-area": "east"}
    assert data.task.reference(moved) == data.task.reference(turn) == '{"hotel-area": "east", "hotel-stars": "4"}'


def test_the_prompt_of_the_second_turn_shows_the_predicted_state(tmp_path: Path) -> None:
    data = load_task("multiwoz", folder_with(tmp_path, "multiwoz24", dialogue_rows(DIALOGUE)))
    assert data.task.carry is not None
    turn = data.task.carry(data.test[3], '{"hotel-area": "centre", "hotel-book stay": "2"}')
    assert data.task.template.text([], turn) == (
        f"{TABLES}\nExample #1\n[context] hotel-area: centre, hotel-book_number_of_days: 2\n[system] \n"
        "Q: [user] and i leave by taxi at 5 pm\nSQL: SELECT * FROM"
    )


def test_turns_name_the_turn_before(data: TaskData) -> None:
    assert data.test[0].id == "PMUL4053.json:0"
    assert multiwoz.previous_turn(data.test[0]) is None
    assert multiwoz.previous_turn(data.test[1]) == "PMUL4053.json:0"
    assert data.task.group == "dialogue"
    assert len({turn.fields["dialogue"] for turn in data.test}) == 100


def test_the_dialogues_of_the_files_are_whole(data: TaskData) -> None:
    assert multiwoz.orphans(data.test) == multiwoz.orphans(data.pool) == []
    assert multiwoz.orphans(data.test[i] for i in (0, 1, 3, 4)) == ["PMUL4053.json:3"]


@pytest.mark.parametrize(
    ("changes", "match"),
    [
        ({"turn_id": "first"}, "turn_id='first' is not the number of a turn"),
        ({"turn_id": -1}, "is not the number of a turn"),
        ({"last_slot_values": {"hotel-area": "east"}}, "turn 0 has a state before it"),
    ],
)
def test_rows_that_are_no_turns_are_refused(tmp_path: Path, changes: dict[str, Any], match: str) -> None:
    folder = folder_with(tmp_path, "multiwoz24", [{**dialogue_rows(DIALOGUE)[0], **changes}])
    with pytest.raises(DataError, match=match):
        load_task("multiwoz", folder)


def test_spellings_of_the_training_annotation_are_read_as_the_test_annotation_has_them() -> None:
    assert multiwoz.flat_state({"attraction-type": "night club", "restaurant-food": "portugese"}) == {
        "attraction-type": "nightclub",
        "restaurant-food": "portuguese",
    }


def test_parse_names_what_it_drops() -> None:
    reading = multiwoz.read_change(" hotel WHERE area = moon AND stars = 4 AND x = y", Ontology({}))
    assert reading == Reading({"hotel-stars": "4"}, ("x = y", "hotel-area = moon"))
    assert multiwoz.parse("nonsense", Example("x", ""), "published") == "{}"


def test_the_protocol_says_what_was_learnt_from_the_pool(data: TaskData) -> None:
    protocol = data.task.protocol()
    assert protocol["learnt"] == data.task.learnt != ""
    assert protocol["version"] == 2
    assert protocol["decoding"]["max_tokens"] == 200
    assert protocol["decoding"]["temperature"] == 0
    assert protocol["group"] == "dialogue"


# Through a language model -------------------------------------------------------------------------------------------


class Oracle:
    """A language model that knows the change of every turn; `wrong` says what it answers instead, by id."""

    name = "oracle"
    fingerprint = "oracle"
    tokenizer_name = "words"
    max_length = None
    chat = False

    def __init__(self, test: list[Example], wrong: dict[str, str] | None = None) -> None:
        self.answers = {turn.id: oracle(turn).removesuffix(";") for turn in test} | (wrong or {})
        self.versions = {"model": self.name}
        self.usage = Usage()
        self.calls: list[list[Prompt]] = []

    def loglik(self, prompts: Any, choices: Any) -> Loglik:
        raise AssertionError("states are generated")

    def generate(self, prompts: Any, decoding: Decoding) -> list[Generation]:
        assert (decoding.max_tokens, decoding.temperature) == (200, 0)
        self.calls.append(list(prompts))
        return [Generation(self.answers[p.query_id], (), 1, True, p.tokens, False) for p in prompts]


def through_a_campaign(data: TaskData, model: Oracle, n: int, protocol: str = "sound") -> list[Any]:
    """The first `n` test turns asked as a campaign asks them, with five labelled turns of the pool."""
    campaign = validate(
        {
            "name": "small",
            "tasks": ["multiwoz"],
            "methods": ["random"],
            "budgets": [5],
            "retrieval": {"k": 2},
            "protocol": protocol,
        },
        "test",
    )
    rng = np.random.default_rng(0)
    pool, test = list(data.pool)[:5], list(data.test)[:n]
    x, queries = rng.normal(size=(len(pool), 4)), rng.normal(size=(n, 4))
    unit = Unit(Path("nowhere"), campaign, data.task, 0, pool, test, x, queries, {}, [])
    desk = Desk(unit, ModelScorer(model))
    cell = desk.cell(len(pool), Selection(np.arange(len(pool)), np.zeros(len(pool))))
    return desk.answer([cell])[0]


@pytest.mark.parametrize("protocol", ["sound", "published"])
def test_the_oracle_is_right_in_a_campaign(data: TaskData, protocol: str) -> None:
    model = Oracle(list(data.test))
    results = through_a_campaign(data, model, 60, protocol)
    assert [result.score for result in results] == [1.0] * 60
    assert [result.item_id for result in results] == [turn.id for turn in list(data.test)[:60]]
    # One call per number of turn: every dialogue that is long enough is asked at once.
    turns = [turn.fields["turn"] for turn in list(data.test)[:60]]
    assert [len(call) for call in model.calls] == [turns.count(number) for number in range(max(turns) + 1)]
    assert all(prompt.text.count("Example #") >= 2 for call in model.calls for prompt in call)


def test_what_a_campaign_shows_is_what_was_predicted(data: TaskData) -> None:
    """The first dialogue has 7 turns or fewer; an error in its first stays in the context of all that follow."""
    first = [turn for turn in data.test if turn.fields["dialogue"] == "PMUL4053.json"]
    model = Oracle(first, {first[0].id: " taxi WHERE departure = nowhere"})
    results = through_a_campaign(data, model, len(first))
    assert [result.score for result in results] == [0.0] * len(first)
    contexts = [call[0].text.rpartition("[context]")[2].split("\n")[0] for call in model.calls]
    assert contexts[0] == " "
    assert all("taxi-departure: nowhere" in context for context in contexts[1:])
    assert all("restaurant-food_type: italian" not in context for context in contexts)
    assert json.loads(results[-1].prediction)["taxi-departure"] == "nowhere"


def test_a_predicted_state_that_outgrows_the_prompt_is_cut_there_and_nowhere_else(data: TaskData) -> None:
    dialogue = [turn for turn in data.test if turn.fields["dialogue"] == "PMUL4053.json"][:2]
    names = {f"hotel-invented {i}": "x " * 40 for i in range(90)}  # 3,600 words and more
    task = replace(data.task, parse=lambda text, example, protocol: multiwoz.state_json(names if text else {}))
    model = Oracle(dialogue, {dialogue[0].id: "all", dialogue[1].id: ""})
    results = through_a_campaign(replace(data, task=task), model, 2)
    shown = model.calls[1][0]
    assert shown.tokens <= task.max_tokens
    assert shown.text.endswith(f"\nQ: [user] {dialogue[1].fields['user']}\nSQL: SELECT * FROM")
    assert shown.info["shortened"]["field"] == "context"
    assert json.loads(results[1].prediction) == names
