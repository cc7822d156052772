"""Reading the SQL that a language model wrote for the tables of the dialogue prompt.

Aliases may be missing or unknown, quotes may be there or not, the text may end in the middle of a word or go on with
something else. Reading never fails; it returns what is certain and names the rest.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

from ._dialogue_sql import COLUMNS, SPACED_NAMES, slot_of

__all__ = ["Reading", "read_sql"]


@dataclass(frozen=True)
class Reading:
    """What a text says: slot -> value as written, and the parts of it that could not be read."""

    change: Mapping[str, str]
    unread: tuple[str, ...] = ()


_LONGEST = 5_000  # characters that are read of one answer

# "d1.area =", "hotel-book people =", "area LIKE": a column, perhaps of a named table, and an operator. Operators that
# are words count in capitals, or before a quote or bracket: "like" and "is" may stand in a name.
_TEST = (
    rf"(?<!\w)(?:(?P<table>\w+)\s*[.-]\s*)?[`\"\[]?(?P<column>(?i:{'|'.join(SPACED_NAMES)})|\w+)[`\"\]]?\s*"
    r"(?P<operator><>|!=|<=|>=|==|=|<|>|\b(?:IS\s+NOT|IS|NOT\s+LIKE|LIKE|NOT\s+IN|IN)\b|\blike\b(?=\s*['\"])|\bin\b(?=\s*\())\s*"
)
_IS_TEST = re.compile(_TEST)
# AND or OR before a test; "eastAND stars = 4" has lost a blank.
_JOINT = re.compile(r"(?:\s(?i:and|or)|(?<=[\s)'\"])(?i:and|or)|AND|OR)\s+\(*\s*(?=" + _TEST + ")")
# What ends a statement, outside quotes.
_END = re.compile(r"[;#]|--|```|\n(?!\s*(?i:and|or)\b)|(?i:\s(?:group|order)\s+by\b|\slimit\s+\d)|\Z")
# What stands behind a value where an answer was cut off: AND, a part of it, or a test that was only begun.
_DANGLING = re.compile(r"\s(?:AND|OR)\b.*$|\s(?:and|or|AN?|O)$", re.DOTALL)
_CLOSED = re.compile(r"[\s)]*(?:[;,#]|--|```|(?i:and|or|group|order|limit)\b|\Z)")
_QUOTES = {"'": "'", '"': '"', "`": "`", "\u2018": "\u2019", "\u201c": "\u201d"}
_EQUAL = frozenset(["=", "==", "is", "like", "in"])

_PREFIX = re.compile(r"\s*(?:```\w*\s)?\s*(?i:sql\s*:\s*)?(?i:select\b[^;]{0,200}?\bfrom\b)?\s*")
_SELECT = re.compile(r"(?i:\bselect\b[^;]{0,200}?\bfrom\b)\s*")
_WHERE = re.compile(r"(?i:\bwhere\b)|(?<=\w)WHERE\b")
_TABLE = re.compile(r"[\s(`\"\[]*(\w+)[`\"\]]?(?:\s+(?:(?i:as)\s+)?(?!(?i:on)\b)(\w+))?")
_STOP = re.compile(r"[;#]|--|\n\s*\n")
_ON = re.compile(r"(?is)^\s*\bon\b.*")
_OPENING = re.compile(r"[\s(]*")


def read_sql(text: str) -> Reading:
    """Read what a model wrote after ``SELECT * FROM`` as a change of state; never fails.

    Parameters
    ----------
    text : str
        The rest of the query, or a whole one, in a fence or not. Only the first statement is read, and no more
        than 5,000 characters.

    Returns
    -------
    Reading
        A test counts if it says that a column of a table equals a value; of which table, the query must say, or
        there must be only one that has the column (of those that it names, or of all where it names none). Other
        tests, tables and trailing text are in `unread`. The first value of a slot counts; lists in brackets
        become alternatives (``east|west``).

    Examples
    --------
    >>> read_sql(" hotel AS d1, taxi AS d2 WHERE d1.area = east AND d2.leave_at = '14:00';").change
    {'hotel-area': 'east', 'taxi-leaveat': '14:00'}
    >>> read_sql("hotel WHERE colour = red AND name = alexander bed and breakfast AND sta")
    Reading(change={'hotel-name': 'alexander bed and breakfast'}, unread=('colour = red', 'AND sta'))
    """
    text = text[:_LONGEST]
    start = _start(text)
    end = _END.search(text, start)
    first = _first_test(text, start, end.start() if end else len(text))
    aliases, unread = _tables(text[start : first[0]])
    change: dict[str, str] = {}
    position = first[1]
    while position < len(text):
        test = _IS_TEST.match(text, position)
        if test is None:
            position = _skip(text, position, unread)
            continue
        value, after, rest = _value(text, test.end())
        slot = _slot(test["table"], test["column"], aliases)
        written = " ".join(text[position:after].split())
        usable = slot is not None and value and test["operator"].lower() in _EQUAL
        if not usable or change.setdefault(str(slot), value) != value:
            unread.append(written)
        if rest:
            unread.append(rest)
        position = _skip(text, after, unread)
    return Reading(change, tuple(unread))


def _start(text: str) -> int:
    """Where the tables begin: after what a model repeats of the prompt, and after talk before a query."""
    prefix = _PREFIX.match(text)
    start = prefix.end() if prefix else 0
    word = _TABLE.match(text, start)
    if (word is None or word[1].lower() not in COLUMNS) and not text[start:].startswith(";"):
        select = _SELECT.search(text, start)
        return select.end() if select else start
    return start


def _first_test(text: str, start: int, end: int) -> tuple[int, int]:
    """Where the tables end and the first test begins; both are the end of the statement where there is no test."""
    # A newline may stand between tables and WHERE.
    where = _WHERE.search(text, start)
    if where is not None and not _STOP.search(text, start, where.start()):
        opening = _OPENING.match(text, where.end())
        return where.start(), opening.end() if opening else where.end()
    test = _IS_TEST.search(text, start, end)
    return (test.start(), test.start()) if test else (end, len(text))


def _tables(text: str) -> tuple[dict[str, str], list[str]]:
    """Aliases and names -> tables of the prompt ("" for all others), and what names no table."""
    aliases: dict[str, str] = {}
    unread = []
    for part in re.split(r",|(?i:\bjoin\b)", text):
        named = _TABLE.match(part)
        if not part.strip():
            continue
        if named is None or named[1].lower() not in COLUMNS:
            aliases[""] = ""  # a table that the prompt has not
            rest = part
        else:
            table = named[1].lower()
            aliases[table] = table
            if named[2]:
                aliases[named[2].lower()] = table
            rest = _ON.sub("", part[named.end() :])
        if rest.strip(" \t\n()"):
            unread.append(" ".join(rest.split()))
    return aliases, unread


def _slot(table: str | None, name: str, aliases: Mapping[str, str]) -> str | None:
    """The slot that a column stands for; None where it is unknown or could be two."""
    named = sorted(set(aliases.values()))
    if table is not None:
        known = aliases.get(table.lower()) or (table.lower() if table.lower() in COLUMNS else None)
        tables = [known] if known else named if len(named) == 1 else []
    else:
        tables = named or list(COLUMNS)
    slots = [slot for slot in (slot_of(at, name) for at in tables) if slot is not None]
    return slots[0] if len(slots) == 1 else None


def _value(text: str, start: int) -> tuple[str, int, str]:
    """A value, where it ends, and what of it cannot be part of it."""
    close = _QUOTES.get(text[start : start + 1])
    if close is not None:
        quoted = _quoted(text, start, close)
        if quoted is not None:
            return (*quoted, "")
        start += 1  # a quote that is never closed
    if text[start : start + 1] == "(" and ")" in text[start:]:
        after = text.index(")", start) + 1
        parts = [part.strip().strip("'\"`") for part in text[start + 1 : after - 1].split(",")]
        return "|".join(part for part in parts if part), after, ""
    ends = [found.start() for found in (_JOINT.search(text, start), _END.search(text, start)) if found]
    after = min(ends, default=len(text))
    value, rest = text[start:after].rstrip(), ""
    if dangling := _DANGLING.search(value):
        value, rest = value[: dangling.start()].rstrip(), dangling[0].strip()
    if "(" not in value:
        value = value.rstrip(") ")
    return value, after, rest


def _quoted(text: str, start: int, close: str) -> tuple[str, int] | None:
    """A quoted value and where it ends; a quote inside is written twice, or is no quote for what follows it."""
    value: list[str] = []
    i = start + 1
    while i < len(text):
        if text[i] == close:
            if close in "'\"`" and text.startswith(close, i + 1):
                i += 1
            elif _CLOSED.match(text, i + 1):
                return "".join(value), i + 1
        value.append(text[i])
        i += 1
    return None


def _skip(text: str, position: int, unread: list[str]) -> int:
    """Where the next test begins, or the end of the text; what lies between is unread."""
    end, joint = _END.search(text, position), _JOINT.search(text, position)
    at_end = end.start() if end else len(text)
    if joint is not None and joint.start() <= at_end:
        skipped, after = text[position : joint.start()], joint.end()
    else:
        skipped, after = text[position:at_end], len(text)
    if skipped.strip(" \t\n)"):
        unread.append(" ".join(skipped.split()))
    return after
