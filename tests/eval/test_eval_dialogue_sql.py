"""Changes of dialogue state as SQL: written, read back, read as models write it, and values repaired."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from icl_select.eval.tasks._dialogue_reading import Reading, read_sql
from icl_select.eval.tasks._dialogue_sql import COLUMNS, DELETE, TABLES, state_sql
from icl_select.eval.tasks._ontology import Ontology, build_ontology, clock, spelling

SLOTS = sorted(of.slot for columns in COLUMNS.values() for of in columns.values())


def rows(shared: Path, part: str) -> list[dict[str, Any]]:
    with gzip.open(shared / "data" / "multiwoz24" / f"{part}.jsonl.gz", "rt", encoding="utf-8") as lines:
        return [json.loads(line) for line in lines]


# The tables ---------------------------------------------------------------------------------------------------------


def test_every_slot_of_the_data_has_one_column(shared: Path) -> None:
    assert {slot for part in ("pool", "test") for row in rows(shared, part) for slot in row["slot_values"]} == set(
        SLOTS
    )
    assert len(SLOTS) == len(set(SLOTS)) == 30


def test_columns_are_read_from_the_text_of_the_tables() -> None:
    assert list(COLUMNS) == ["hotel", "train", "attraction", "restaurant", "taxi"]
    assert TABLES.count("\n  ") == 30
    assert COLUMNS["hotel"]["type"] == ("hotel-type", "text", ("hotel", "guest house"))
    assert COLUMNS["hotel"]["book_number_of_days"] == ("hotel-book stay", "int", ())
    assert COLUMNS["restaurant"]["food_type"].slot == "restaurant-food"
    assert COLUMNS["taxi"]["leave_at"].slot == "taxi-leaveat"


# Round trip ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("part", ["pool", "test"])
def test_every_labelled_change_reads_back(shared: Path, part: str) -> None:
    for row in rows(shared, part):
        change = row["turn_slot_values"]
        sql = state_sql(change)
        assert read_sql(f" {sql}") == read_sql(sql.removesuffix(";")) == read_sql(f"SELECT * FROM {sql}")
        assert (read_sql(sql).change, read_sql(sql).unread) == (change, ())
        assert "'" not in sql  # quotes are for values that no label has


TEXT = st.text(min_size=1).filter(str.strip) | st.from_regex(r"[a-z0-9:' ]{1,20}", fullmatch=True).filter(str.strip)
AWKWARD = st.sampled_from(
    [
        "and",
        "x and",
        "x AN",
        "O",
        "AND",
        "a AND area = b",
        "a' AND stars = '4",
        "rosa's",
        "'",
        "''",
        "\\'",
        "a;b",
        "a--b",
        "# 1",
        "```",
        "x\n\nExample #2",
        "x\nAND day = y",
        "(a)",
        "in (x",
        "limit 5",
        "to order by train",
        "GRAND hotel",
        "a LIKE b",
        "17:00",
        "a=b",
        "café “zoë”",
        "east|south",
        " east ",
        "SELECT * FROM taxi",
        "hotel WHERE",
        "null",
        DELETE,
        "[delete]",
        "a,b",
        "`x`",
        "\u2018x\u2019",
    ]
)


@settings(suppress_health_check=[HealthCheck.too_slow])  # a busy machine is no fault of the code
@given(st.dictionaries(st.sampled_from(SLOTS), TEXT | AWKWARD, max_size=8))
@example({"hotel-name": "a AND area = east", "hotel-area": "where"})
def test_any_change_reads_back(change: dict[str, str]) -> None:
    reading = read_sql(" " + state_sql(change))
    assert (reading.change, reading.unread) == (change, ())


# Reading what models write ------------------------------------------------------------------------------------------

H = "hotel-"


@pytest.mark.parametrize(
    ("text", "change"),
    [
        ("", {}),
        (" ;", {}),
        (" hotel;", {}),
        (" hotel WHERE area = east AND stars = 4;", {H + "area": "east", H + "stars": "4"}),
        ("SELECT * FROM hotel WHERE area='east'", {H + "area": "east"}),
        (
            "```sql\nSELECT *\nFROM hotel\nWHERE area = 'east'\n  AND stars = 4;\n```",
            {H + "area": "east", H + "stars": "4"},
        ),
        ('SQL: select * from hotel where area == "east" and stars = 4', {H + "area": "east", H + "stars": "4"}),
        ("The query is: SELECT * FROM taxi WHERE departure = ely;", {"taxi-departure": "ely"}),
        (" hotelWHERE area=eastAND stars=4", {H + "area": "east", H + "stars": "4"}),
        (" hotel WHERE (area = east) AND (stars = 4)", {H + "area": "east", H + "stars": "4"}),
        (
            " hotel AS d1, taxi AS d2 WHERE d1.area = east AND d2.departure = ely",
            {H + "area": "east", "taxi-departure": "ely"},
        ),
        (
            " hotel d1 , taxi d2 WHERE d1 . area = east AND d2.departure = ely",
            {H + "area": "east", "taxi-departure": "ely"},
        ),
        (" hotel AS d1 WHERE d2.area = east", {H + "area": "east"}),  # one table: there is no other
        (" hotel, taxi WHERE stars = 4 AND departure = ely", {H + "stars": "4", "taxi-departure": "ely"}),
        (" hotel JOIN taxi ON hotel.name = taxi.departure WHERE hotel.area = north", {H + "area": "north"}),
        (" WHERE taxi.departure = ely AND stars = 4", {"taxi-departure": "ely", H + "stars": "4"}),
        (" hotel WHERE hotel-book people = 3 AND book stay = 2", {H + "book people": "3", H + "book stay": "2"}),
        (" train WHERE leaveat = 17:00 AND Arrive_By = '18:00'", {"train-leaveat": "17:00", "train-arriveby": "18:00"}),
        (
            " hotel WHERE name = rosa's bed and breakfast AND area = east",
            {H + "name": "rosa's bed and breakfast", H + "area": "east"},
        ),
        (
            " hotel WHERE name = 'rosa's bed and breakfast' AND area = east",
            {H + "name": "rosa's bed and breakfast", H + "area": "east"},
        ),
        (" hotel WHERE name = 'a = b AND c' AND area = east", {H + "name": "a = b AND c", H + "area": "east"}),
        (" restaurant WHERE food_type = \u201cmodern european\u201d", {"restaurant-food": "modern european"}),
        (" restaurant WHERE name = caf\u00e9 zo\u00eb", {"restaurant-name": "caf\u00e9 zo\u00eb"}),
        (" hotel WHERE area IN ('east', 'west') AND stars = 3", {H + "area": "east|west", H + "stars": "3"}),
        (" hotel WHERE area = [DELETE];", {H + "area": DELETE}),
        (
            " hotel WHERE area = east\n\nExample #3\n[context] x\nSQL: SELECT * FROM taxi WHERE departure = y",
            {H + "area": "east"},
        ),
        (" hotel WHERE area = east ORDER BY stars LIMIT 1", {H + "area": "east"}),
    ],
)
def test_what_models_write_is_read(text: str, change: dict[str, str]) -> None:
    assert read_sql(text) == Reading(change, ())


@pytest.mark.parametrize(
    ("text", "change", "unread"),
    [
        (" hotel WHERE area = east AND", {H + "area": "east"}, ("AND",)),
        (" hotel WHERE area = east AND sta", {H + "area": "east"}, ("AND sta",)),
        (" hotel WHERE area = east AND stars =", {H + "area": "east"}, ("stars =",)),
        (" hotel WHERE name = 'rosa AND area = east", {H + "name": "rosa", H + "area": "east"}, ()),
        (" hotel WHERE colour = red AND stars = 4", {H + "stars": "4"}, ("colour = red",)),
        (" hotels WHERE area = east", {}, ("hotels", "area = east")),
        (" hospital WHERE department = x", {}, ("hospital", "department = x")),
        (" hotel, train WHERE book_people = 3", {}, ("book_people = 3",)),
        (" hotel AS d1, taxi AS d2 WHERE d3.departure = ely", {}, ("d3.departure = ely",)),
        (
            " hotel WHERE stars >= 3 AND area != east AND type = hotel",
            {H + "type": "hotel"},
            ("stars >= 3", "area != east"),
        ),
        (" hotel WHERE area = east OR area = west", {H + "area": "east"}, ("area = west",)),
        (" hotel WHERE near the river AND area = east", {H + "area": "east"}, ("near the river",)),
        (" hotel-area: east, hotel-stars: 4", {}, ("-area: east", "-stars: 4")),
        ("I cannot help with that.", {}, ("I cannot help with that.",)),
        (" hotel WHERE area", {}, ("area",)),
    ],
)
def test_what_cannot_be_read_is_named(text: str, change: dict[str, str], unread: tuple[str, ...]) -> None:
    assert read_sql(text) == Reading(change, unread)


FRAGMENTS = st.sampled_from(
    [
        *["hotel", "taxi", " AS d1", ", ", " WHERE ", " AND ", " OR ", "area", "d1.", "name", " = ", "'", "(", ")"],
        *["SELECT * FROM ", ";", "\n", "--", "#", "```", " IN ", " LIKE ", "17:00", "[DELETE]", " "],
        *['"', "\\", "\u201c", "\x00"],
    ]
)


@given(st.text() | st.lists(FRAGMENTS, max_size=40).map("".join))
def test_reading_never_fails_and_says_only_what_the_tables_have(text: str) -> None:
    reading = read_sql(text)
    assert set(reading.change) <= set(SLOTS)
    assert all(reading.change.values())
    repaired, _ = Ontology({}).repair(reading.change)
    assert set(repaired) <= set(reading.change)


@given(
    st.dictionaries(st.sampled_from(SLOTS), st.sampled_from(["east", "rosas bed and breakfast", "17:00"])), st.data()
)
def test_a_truncated_answer_keeps_the_tests_before_the_cut(change: dict[str, str], cut: st.DataObject) -> None:
    sql = state_sql(change)
    shown = sql[: cut.draw(st.integers(0, len(sql)))]
    reading = read_sql(shown)
    whole = [slot for slot, value in reading.change.items() if change.get(slot) == value]
    cut_off = [value for slot, value in reading.change.items() if slot not in whole]
    assert len(cut_off) <= 1
    assert all(any(value.startswith(part) for value in change.values()) for part in cut_off)


def test_a_long_answer_is_cut() -> None:
    assert read_sql("hotel WHERE " + "area = east AND " * 100_000).change == {"hotel-area": "east"}


# Repair -------------------------------------------------------------------------------------------------------------

POOL = [
    {"hotel-name": "acorn guest house", "hotel-area": "east|south", "taxi-leaveat": "after 2:30"},
    {"hotel-name": "rosas bed and breakfast", "restaurant-name": "saint johns chop house", "train-destination": "ely"},
    {"hotel-name": "rosas bed and breakfast", "attraction-type": "concert hall", "hotel-internet": DELETE},
    {"restaurant-name": "the gardenia", "attraction-name": "gallery at 12 a high street", "restaurant-food": "thai"},
    {"attraction-name": "all saints church", "hotel-type": "dontcare"},
]


@pytest.mark.parametrize(
    ("slot", "written", "meant"),
    [
        ("hotel-name", "Rosas  Bed and Breakfast", "rosas bed and breakfast"),
        ("hotel-name", "rosa's bed & breakfast", "rosas bed and breakfast"),
        ("hotel-name", "acorn guesthouse", "acorn guest house"),
        ("hotel-name", "the acorn guest-house", "acorn guest house"),
        ("hotel-name", "acorm guest house", "acorn guest house"),
        ("hotel-name", "%acorn guest house%", "acorn guest house"),
        ("hotel-name", "hamilton lodge", "hamilton lodge"),  # new names are possible
        ("hotel-name", DELETE, DELETE),
        ("hotel-name", "[delete]", DELETE),
        ("restaurant-name", "st. john's chop house", "saint johns chop house"),
        ("restaurant-name", "gardenia", "the gardenia"),
        ("attraction-name", "gallery at 13 a high street", "gallery at 13 a high street"),  # digits must agree
        ("attraction-type", "concerthall", "concert hall"),
        ("taxi-departure", "acorn guesthouse", "acorn guest house"),  # taxis leave from any venue
        ("taxi-destination", "all saint church", "all saints church"),
        ("train-departure", "Ely", "ely"),
        ("hotel-area", "center", "centre"),
        ("hotel-area", "city centre", "centre"),
        ("hotel-area", "northern", "north"),
        ("hotel-area", "East|South", "east|south"),
        ("hotel-area", "the west side of town", "west"),
        ("hotel-type", "guesthouse", "guest house"),
        ("hotel-type", "do n't care", "dontcare"),
        ("hotel-pricerange", "moderatly", "moderate"),
        ("hotel-parking", "free", "yes"),
        ("hotel-stars", "4 stars", "4"),
        ("hotel-stars", "four", "4"),
        ("hotel-stars", "4-star", "4"),
        ("hotel-book people", "three people", "3"),
        ("hotel-book stay", "2 nights", "2"),
        ("train-leaveat", "5pm", "17:00"),
        ("train-leaveat", "after 5", "after 5"),
        ("taxi-leaveat", "after 2:30", "after 2:30"),
        ("restaurant-book time", "5:30 p.m.", "17:30"),
        ("restaurant-food", "any", "dontcare"),
        # What a CHECK forbids, and what is no value, is dropped.
        ("hotel-area", "midlands", None),
        ("hotel-area", "north or south", None),
        ("hotel-stars", "nine", None),
        ("hotel-parking", "maybe", None),
        ("hotel-name", "none", None),
        ("train-day", "NULL", None),
        ("hotel-name", "a hotel " * 13, None),
    ],
)
def test_repair(slot: str, written: str, meant: str | None) -> None:
    repaired, dropped = build_ontology(POOL).repair({slot: written})
    assert repaired == ({} if meant is None else {slot: meant})
    assert dropped == (() if meant else (f"{slot} = {written}",))


def test_a_tie_is_not_decided() -> None:
    ontology = Ontology({"hotel-name": ("kirkwood house a", "kirkwood house b")})
    assert ontology.repair({"hotel-name": "kirkwood house c"})[0] == {"hotel-name": "kirkwood house c"}


@pytest.mark.parametrize(
    ("said", "time"),
    [
        *[("5pm", "17:00"), ("5 am", "05:00"), ("12am", "00:00"), ("12 pm", "12:00"), ("8:45", "08:45")],
        *[("0845", "08:45"), ("17.15", "17:15"), ("noon", "12:00"), ("24:00", "24:00"), ("13:30 pm", "13:30")],
        *[(said, said) for said in ("25:00", "12:75", "7", "after 5", "5 o'clock pm", "")],
    ],
)
def test_clock(said: str, time: str) -> None:
    assert clock(said) == time


@given(st.integers(0, 23), st.integers(0, 59))
def test_every_time_of_day_is_itself(hour: int, minute: int) -> None:
    assert clock(f"{hour:02d}:{minute:02d}") == clock(f"{hour}:{minute:02d}") == f"{hour:02d}:{minute:02d}"
    said = f"{(hour - 1) % 12 + 1}:{minute:02d}{'am' if hour < 12 else 'pm'}"
    assert clock(said) == f"{hour:02d}:{minute:02d}"


@given(st.dictionaries(st.sampled_from(SLOTS), TEXT | AWKWARD, max_size=6))
def test_repair_never_fails_and_is_settled(change: dict[str, str]) -> None:
    ontology = build_ontology(POOL)
    once, _ = ontology.repair(change)
    assert ontology.repair(once) == (once, ())
    assert set(once) <= set(change)


@given(st.permutations(POOL))
def test_the_ontology_does_not_depend_on_the_order_of_the_pool(pool: list[dict[str, str]]) -> None:
    assert build_ontology(pool) == build_ontology(POOL)


def test_the_ontology_counts_alternatives_one_by_one_and_no_deletions() -> None:
    values = build_ontology(POOL).values
    assert values["hotel-area"] == ("east", "south")
    assert values["hotel-internet"] == ()
    assert values["hotel-name"] == ("rosas bed and breakfast", "acorn guest house")  # most frequent first


def test_spelling_is_what_two_ways_of_writing_share() -> None:
    assert spelling("The Guesthouse, St. Mary's") == spelling("guest house saint marys")
    assert spelling("the") == "the"
    assert spelling("pizza hut") != spelling("pizza hub")
