"""Dialogue states as SQL: the tables of the prompt, and changes of state written for them.

`_dialogue_reading` reads such SQL back. The two are made for each other: whatever is written here reads back as it was.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import NamedTuple

__all__ = ["COLUMNS", "DELETE", "SPACED_NAMES", "TABLES", "Column", "column", "slot_of", "state_sql"]

DELETE = "[DELETE]"

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


class Column(NamedTuple):
    """A column of the prompt's tables: the slot it stands for, its type, and the values its CHECK allows."""

    slot: str
    type: str
    allowed: tuple[str, ...]


# Column names of the prompt's tables that are not the slot's name with its blanks as underscores.
_SLOT_NAMES = {
    "book_number_of_days": "book stay",
    "leave_at": "leaveat",
    "arrive_by": "arriveby",
    "price_range": "pricerange",
    "food_type": "food",
}


def _columns(tables: str) -> dict[str, dict[str, Column]]:
    """Table -> column name -> Column, as the DDL says."""
    found: dict[str, dict[str, Column]] = {}
    for table, body in re.findall(r"CREATE TABLE (\w+)\(\n(.*?)\n\)", tables, re.DOTALL):
        found[table] = {}
        for name, kind, allowed in re.findall(r"^  (\w+) (\w+)(?: CHECK \(\w+ IN \((.*)\)\))?,?$", body, re.MULTILINE):
            slot = f"{table}-{_SLOT_NAMES.get(name, name.replace('_', ' '))}"
            found[table][name] = Column(slot, kind, tuple(allowed.split(", ")) if allowed else ())
    return found


COLUMNS: Mapping[str, Mapping[str, Column]] = _columns(TABLES)

_NAMES = {of.slot: name for columns in COLUMNS.values() for name, of in columns.items()}


def _compact(name: str) -> str:
    """A name as it is compared: without case, blanks, hyphens and underscores."""
    return re.sub(r"[\W_]+", "", name.lower())


# (table, compact name of a column or of its slot) -> slot.
_SLOTS = {
    (table, _compact(alias)): of.slot
    for table, columns in COLUMNS.items()
    for name, of in columns.items()
    for alias in (name, of.slot.partition("-")[2])
}
_ALL_NAMES = {name for columns in COLUMNS.values() for name in columns} | {slot.partition("-")[2] for slot in _NAMES}

SPACED_NAMES = sorted({name.replace("_", " ") for name in _ALL_NAMES if re.search("[ _]", name)}, key=len, reverse=True)
"""Names of two or more words, as a model may write them with blanks; longer ones first."""


def slot_of(table: str, name: str) -> str | None:
    """The slot of a column, by its own name or the slot's, however written (``Arrive_By``, ``arriveby``); or None."""
    return _SLOTS.get((table, _compact(name)))


# What reads back as it is without quotes: words without marks that SQL gives a meaning, and no word that ends a value.
_PLAIN = re.compile(r"[^\W_][\w:.|&/+]*(?:[ -][\w:.|&/+]+)*")
_KEYWORD = re.compile(
    r"\b(?:AND|OR|IS|LIKE|IN|NOT)|^(?:and|or)\b|\b(?:and|or|AN?|O)$|(?i:\b(?:group by|order by|limit)\b)|(?i:^in\b)"
)


def column(slot: str) -> str:
    """The column of a slot in the prompt's tables: ``hotel-book stay`` -> ``book_number_of_days``."""
    return _NAMES.get(slot, slot.partition("-")[2].replace(" ", "_"))


def state_sql(change: Mapping[str, str]) -> str:
    """A change of state as the SQL that a demonstration shows, without the leading ``SELECT * FROM``.

    Tables and slots are in alphabetical order. A value is quoted only where it would not read back as it is.

    Examples
    --------
    >>> state_sql({"hotel-area": "east", "hotel-stars": "4"})
    'hotel WHERE area = east AND stars = 4;'
    >>> state_sql({"hotel-area": "east", "taxi-leaveat": "14:00"})
    'hotel AS d1, taxi AS d2 WHERE d1.area = east AND d2.leave_at = 14:00;'
    >>> state_sql({"restaurant-name": "rosa's = best"})
    "restaurant WHERE name = 'rosa''s = best';"
    """
    domains = sorted({slot.partition("-")[0] for slot in change})
    if not domains:
        return ";"
    if len(domains) == 1:
        tests = [f"{column(slot)} = {_literal(value)}" for slot, value in sorted(change.items())]
        return f"{domains[0]} WHERE {' AND '.join(tests)};"
    alias = {domain: f"d{i}" for i, domain in enumerate(domains, start=1)}
    tables = ", ".join(f"{domain} AS {alias[domain]}" for domain in domains)
    tests = [
        f"{alias[slot.partition('-')[0]]}.{column(slot)} = {_literal(value)}" for slot, value in sorted(change.items())
    ]
    return f"{tables} WHERE {' AND '.join(tests)};"


def _literal(value: str) -> str:
    if value == DELETE or (_PLAIN.fullmatch(value) and not _KEYWORD.search(value)):
        return value
    return "'" + value.replace("'", "''") + "'"
