"""MultiWOZ 2.4: which slots does a turn of a dialogue fill?

An annotator labels the *change of state* that a turn brings (what the system and the user said since the last
turn), which a demonstration shows as SQL. A prediction is a change too: a language model's SQL is read
(`_dialogue_reading`) and its values repaired (`_ontology`); the knn baseline copies the change of the nearest turn. The
change is merged into the state *predicted* for the turn before, and the merged state is compared with the gold one:
so an error stays until a later turn mends it. The first turn of a dialogue starts from the empty state.
"""

from __future__ import annotations

import functools
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from icl_select._fingerprint import fingerprint
from icl_select.errors import DataError
from icl_select.types import Decoding, Example

from ._dialogue_reading import Reading, read_sql
from ._dialogue_sql import DELETE, TABLES, column, state_sql
from ._ontology import Ontology, build_ontology
from ._task import HubSource, Row, Task

# The pool is annotated as in MultiWOZ 2.1; 2.4 corrected the other splits only, and writes these otherwise. Without
# this, who follows the demonstrations could never be right.
_RESPELT = {
    "night club": "nightclub",
    "concerthall": "concert hall",
    "portugese": "portuguese",
    "museum of archaelogy and anthropology": "museum of archaeology and anthropology",
}


def state_json(state: Mapping[str, str]) -> str:
    """A state or change of state in its one canonical form."""
    return json.dumps(dict(state), sort_keys=True, ensure_ascii=False)


def flat_state(state: Any) -> dict[str, str]:
    """``{"hotel-area": "east"}`` from the flat form, or from the hub's form nested by service; blanks left out.

    Four spellings of the pool's annotation are read as MultiWOZ 2.4 writes them ("night club": "nightclub").
    """
    if not isinstance(state, Mapping):
        raise DataError(f"a state is {type(state).__name__}, not a mapping of slots to values. Mend the row.")
    flat: dict[str, str] = {}
    for key, value in state.items():
        if isinstance(value, Mapping):
            flat.update({f"{key}-{slot}": str(v) for slot, v in value.items() if v not in (None, "")})
        elif value not in (None, ""):
            flat[str(key)] = str(value)
    return {slot: _RESPELT.get(value, value) for slot, value in flat.items()}


def merge(state: Mapping[str, str], change: Mapping[str, str]) -> dict[str, str]:
    """The state after a change; ``[DELETE]`` takes a slot out.

    Examples
    --------
    >>> merge({"hotel-area": "east"}, {"hotel-area": "[DELETE]", "hotel-stars": "4"})
    {'hotel-stars': '4'}
    """
    merged = {**state, **change}
    return {slot: value for slot, value in merged.items() if value != DELETE}


def context(state: Mapping[str, str]) -> str:
    """A state as the prompt shows it, with the names of the prompt's columns, in alphabetical order of the slots.

    Examples
    --------
    >>> context({"train-leaveat": "08:45", "hotel-book stay": "3"})
    'hotel-book_number_of_days: 3, train-leave_at: 08:45'
    """
    return ", ".join(f"{slot.partition('-')[0]}-{column(slot)}: {value}" for slot, value in sorted(state.items()))


def turn_id(row: Row) -> str:
    """``PMUL4053.json:3``: dialogue and number of the turn, from 0."""
    return f"{row['ID']}:{_turn(row)}"


def _turn(row: Row) -> int:
    try:
        turn = int(row["turn_id"])
    except (TypeError, ValueError):
        turn = -1
    if turn < 0:
        raise DataError(f"turn_id={row['turn_id']!r} is not the number of a turn. Number them from 0 in each dialogue.")
    return turn


def fields(row: Row, folder: Path | None) -> dict[str, Any]:
    """Last system and user utterance, states before and after the turn, and what the prompt shows of them."""
    dialogue = row["dialog"] if "dialog" in row else {"sys": row["system_utterances"], "usr": row["user_utterances"]}
    before, turn = flat_state(row["last_slot_values"]), _turn(row)
    if turn == 0 and before:
        raise DataError("turn 0 has a state before it (last_slot_values). Number the turns from 0, or empty it.")
    return {
        "dialogue": str(row["ID"]),
        "turn": turn,
        "system": str(dialogue["sys"][-1] or ""),
        "user": str(dialogue["usr"][-1]),
        "context": context(before),
        "before": before,
        "after": flat_state(row["slot_values"]),
        "sql": state_sql(flat_state(row["turn_slot_values"])),
    }


def turn_label(row: Row) -> str:
    """The change of state of the turn; ``{}`` where it brings none."""
    return state_json(flat_state(row["turn_slot_values"]))


def gold_state(example: Example) -> str:
    """The whole state after the turn."""
    return state_json(example.fields["after"])


def previous_turn(example: Example) -> str | None:
    """Id of the turn before in the same dialogue; None for the first."""
    turn = int(example.fields["turn"])
    return None if turn == 0 else f"{example.fields['dialogue']}:{turn - 1}"


def orphans(examples: Iterable[Example]) -> list[str]:
    """Ids of the turns whose turn before is not among `examples`: they can start from the gold state only."""
    turns = list(examples)
    ids = {example.id for example in turns}
    return [example.id for example in turns if previous_turn(example) not in ids | {None}]


def carry_state(example: Example, prediction: str) -> Example:
    """The turn with the state that was predicted for the turn before, in what is merged and in what is shown.

    Parameters
    ----------
    example : Example
        A turn with the gold state before it.
    prediction : str
        The state predicted for the turn before, as :func:`predicted_state` returns it.

    Returns
    -------
    Example
        A copy; the gold state after the turn is as it was.
    """
    before = flat_state(json.loads(prediction))
    return replace(example, fields={**example.fields, "before": before, "context": context(before)})


def read_change(text: str, ontology: Ontology) -> Reading:
    """The change of state that a model wrote as SQL, values repaired, and all that was not read or not allowed."""
    reading = read_sql(text)
    change, dropped = ontology.repair(reading.change)
    return Reading(change, (*reading.unread, *dropped))


_NO_POOL = Ontology({})


def parse(text: str, example: Example, protocol: str, *, ontology: Ontology = _NO_POOL) -> str:
    """The change of state in a model's SQL as JSON; ``{}`` where none can be read. Both protocols agree."""
    return state_json(read_change(text, ontology).change)


def with_ontology(task: Task, pool: Sequence[Example]) -> Task:
    """The task with the values of the pool's labels to repair predictions by."""
    ontology = build_ontology(flat_state(json.loads(example.label or "{}")) for example in pool)
    learnt = fingerprint({slot: list(values) for slot, values in ontology.values.items()})
    return replace(task, parse=functools.partial(parse, ontology=ontology), learnt=learnt)


def predicted_state(output: str, example: Example) -> str:
    """Merge a predicted change into the state before the turn; an unreadable change changes nothing."""
    try:
        change = flat_state(json.loads(output))
    except (ValueError, RecursionError, DataError):
        change = {}
    return state_json(merge(example.fields["before"], change))


_TURN = "[context] {{ context }}\n[system] {{ system }}\nQ: [user] {{ user }}\nSQL: SELECT * FROM"

TASK = Task(
    name="multiwoz",
    folder="multiwoz24",
    # Columns of the hub copy as its author's code reads them; the card itself could not be opened.
    hub=HubSource(
        "Brendan/icdst_multiwoz_turns_v24",
        pool_split="train",
        test_split="test",
        columns={"dialogue_id": "ID"},
    ),
    columns=("ID", "turn_id", "slot_values", "turn_slot_values", "last_slot_values"),
    id=turn_id,
    embedded="[system] {system} [user] {user}",
    demonstration="Example #{{ number }}\n" + _TURN + " {{ sql }}",
    query="Example #{{ number }}\n" + _TURN,
    separator="\n\n",
    instruction=TABLES + "\n",
    metric="joint_goal_accuracy",
    label=turn_label,
    max_tokens=3800,
    prepare=fields,
    reference=gold_state,
    finish=predicted_state,
    decoding=Decoding(max_tokens=200, stop=("--", "\n\n", ";", "#")),
    parse=parse,
    previous=previous_turn,
    carry=carry_state,
    shorten="context",  # predicted states may grow; what is merged is never cut
    group="dialogue",
    fit=with_ontology,
    version=2,
    notes=(
        "Since version 2 the state is carried along: a predicted change, a language model's or the one that the knn "
        "baseline copies from the nearest labelled turn, is merged into the state predicted for the turn before "
        "(version 1 merged into the gold state). Test turns are drawn as whole dialogues. A turn whose turn before is "
        "not among the test items starts from its gold state; the benchmark's own files have none. A budget counts "
        "labelled turns for every method under both protocols; the published runs counted turns for random and IDEAL "
        "but up to as many dialogues, with all their turns, for Vote-k, so that Vote-k was shown several times as "
        "many labels: their rows are not comparable with each other, nor Vote-k's with ours. Published: the form of "
        "the prompt, temperature 0, 200 tokens, repair of values, the predicted state carried along. Ours, because "
        "the published wording is not known to us: the text of the tables, what renamed columns are called, the "
        "(alphabetical) order of slots, quotes around values that need them, the marks that end an answer (those "
        "published for GeoQuery), and the rules of the repair. Values are repaired by the labels of the whole pool "
        "and the CHECK lists; published runs used a list of the values of the whole data set, test part included. "
        "Four spellings of the pool's labels are read as MultiWOZ 2.4 writes them (night club, concerthall, "
        "portugese, archaelogy), because 2.4 corrected the test annotation only."
    ),
)
