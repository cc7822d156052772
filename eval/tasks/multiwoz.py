"""MultiWOZ 2.4: which slots does a turn of a dialogue fill?

An annotator labels the *change of state* that a turn brings (what the system and the user said since the last
turn). A prediction is a change too; it is merged into the state before the turn, and the merged state is
compared with the gold state of the turn. Without a language model the state before the turn is the gold one:
the items of a campaign are single turns, drawn one by one, so there is no predicted state to carry over, and
errors do not add up along a dialogue as they do in the published numbers.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from icl_select.errors import DataError
from icl_select.types import Example

from ._task import HubSource, Row, Task

DELETE = "[DELETE]"

# Slot names of the data -> column names of the prompt's tables.
_RENAMED = {"leaveat": "leave_at", "arriveby": "arrive_by", "pricerange": "price_range", "food": "food_type"}

TABLES = """CREATE TABLE hotel(
  name text,
  price_range text CHECK (price_range IN (dontcare, cheap, moderate, expensive)),
  type text CHECK (type IN (hotel, guest house)),
  parking text CHECK (parking IN (dontcare, yes, no)),
  internet text CHECK (internet IN (dontcare, yes, no)),
  area text CHECK (area IN (dontcare, centre, east, north, south, west)),
  stars text CHECK (stars IN (dontcare, 0, 1, 2, 3, 4, 5)),
  book_day text,
  book_people int,
  book_number_of_days int
)
CREATE TABLE train(
  destination text,
  departure text,
  day text,
  arrive_by text,
  leave_at text,
  book_people int
)
CREATE TABLE attraction(
  name text,
  area text CHECK (area IN (dontcare, centre, east, north, south, west)),
  type text
)
CREATE TABLE restaurant(
  name text,
  food_type text,
  price_range text CHECK (price_range IN (dontcare, cheap, moderate, expensive)),
  area text CHECK (area IN (dontcare, centre, east, north, south, west)),
  book_day text,
  book_time text,
  book_people int
)
CREATE TABLE taxi(
  destination text,
  departure text,
  arrive_by text,
  leave_at text
)
-- Using valid SQLite, answer the following multi-turn conversational questions for the tables provided above."""


def state_json(state: Mapping[str, str]) -> str:
    """A state or change of state in its one canonical form."""
    return json.dumps(dict(state), sort_keys=True, ensure_ascii=False)


def flat_state(state: Any) -> dict[str, str]:
    """``{"hotel-area": "east"}`` from the flat form, or from the hub's form nested by service; blanks left out."""
    if not isinstance(state, Mapping):
        raise DataError(f"a state is {type(state).__name__}, not a mapping of slots to values. Mend the row.")
    flat: dict[str, str] = {}
    for key, value in state.items():
        if isinstance(value, Mapping):
            flat.update({f"{key}-{slot}": str(v) for slot, v in value.items() if v not in (None, "")})
        elif value not in (None, ""):
            flat[str(key)] = str(value)
    return flat


def merge(state: Mapping[str, str], change: Mapping[str, str]) -> dict[str, str]:
    """The state after a change; ``[DELETE]`` takes a slot out.

    Examples
    --------
    >>> merge({"hotel-area": "east"}, {"hotel-area": "[DELETE]", "hotel-stars": "4"})
    {'hotel-stars': '4'}
    """
    merged = {**state, **change}
    return {slot: value for slot, value in merged.items() if value != DELETE}


def column(slot: str) -> str:
    """The column of a slot in the prompt's tables: ``hotel-book stay`` -> ``book_number_of_days``."""
    name = slot.partition("-")[2]
    if name == "book stay":
        return "book_number_of_days"
    return _RENAMED.get(name, name.replace(" ", "_"))


def state_sql(change: Mapping[str, str]) -> str:
    """A change of state as the SQL that a demonstration shows, without the leading ``SELECT * FROM``.

    Examples
    --------
    >>> state_sql({"hotel-area": "east", "hotel-stars": "4"})
    'hotel WHERE area = east AND stars = 4;'
    >>> state_sql({"hotel-area": "east", "taxi-leaveat": "14:00"})
    'hotel AS d1, taxi AS d2 WHERE d1.area = east AND d2.leave_at = 14:00;'
    """
    domains = sorted({slot.partition("-")[0] for slot in change})
    if not domains:
        return ";"
    if len(domains) == 1:
        tests = [f"{column(slot)} = {value}" for slot, value in sorted(change.items())]
        return f"{domains[0]} WHERE {' AND '.join(tests)};"
    alias = {domain: f"d{i}" for i, domain in enumerate(domains, start=1)}
    tables = ", ".join(f"{domain} AS {alias[domain]}" for domain in domains)
    tests = [f"{alias[slot.partition('-')[0]]}.{column(slot)} = {value}" for slot, value in sorted(change.items())]
    return f"{tables} WHERE {' AND '.join(tests)};"


def fields(row: Row, folder: Path | None) -> dict[str, Any]:
    """Last system and user utterance, states before and after the turn, and what the prompt shows of them."""
    dialogue = row["dialog"] if "dialog" in row else {"sys": row["system_utterances"], "usr": row["user_utterances"]}
    before = flat_state(row["last_slot_values"])
    change = flat_state(row["turn_slot_values"])
    return {
        "system": str(dialogue["sys"][-1] or ""),
        "user": str(dialogue["usr"][-1]),
        "context": ", ".join(f"{slot}: {value}" for slot, value in sorted(before.items())),
        "before": before,
        "after": flat_state(row["slot_values"]),
        "sql": state_sql(change),
    }


def turn_label(row: Row) -> str:
    """The change of state of the turn; ``{}`` where it brings none."""
    return state_json(flat_state(row["turn_slot_values"]))


def gold_state(example: Example) -> str:
    """The whole state after the turn."""
    return state_json(example.fields["after"])


def predicted_state(output: str, example: Example) -> str:
    """Merge a predicted change into the state before the turn; an unreadable change changes nothing."""
    try:
        change = flat_state(json.loads(output))
    except (ValueError, DataError):
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
    notes=(
        "The knn baseline copies the change of state of the nearest labelled turn and merges it into the gold state "
        "before the turn; published numbers carry the predicted state along the dialogue instead."
    ),
)
