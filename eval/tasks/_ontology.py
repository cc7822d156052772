"""Values that the slots of a dialogue state can have, and repair of values that a model misspelt.

The published repair compares with a file of the values of the whole data set, its test part included. Here the
values are those of the pool's labels (a stand-in for the database, which names its venues whether or not anybody
labels a dialogue) and of the CHECK lists of the prompt's tables. The rules below are ours.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from difflib import SequenceMatcher

from ._dialogue_sql import COLUMNS, DELETE

__all__ = ["CUTOFF", "Ontology", "build_ontology", "clock", "spelling"]

CUTOFF = 0.9
"""Least similarity (``difflib`` ratio of the spellings without blanks) at which one value is taken for another."""

CUTOFF_LISTED = 0.8
"""The same where the table lists the values: they are few, and no two of them are closer than 0.75 (east, west)."""

DONTCARE = "dontcare"

_COLUMN = {column.slot: column for columns in COLUMNS.values() for column in columns.values()}
_CATEGORICAL = {slot: column.allowed for slot, column in _COLUMN.items() if column.allowed}
_NUMERIC = frozenset(slot for slot, column in _COLUMN.items() if column.type == "int") | {"hotel-stars"}
_TIMES = frozenset(slot for slot in _COLUMN if slot.endswith(("-arriveby", "-leaveat", "-book time")))
_NAMES = ("hotel-name", "restaurant-name", "attraction-name")
# Slots whose values are also values of another: people ride taxis to any venue, and trains both ways.
_SHARED = {
    "taxi-destination": ("taxi-departure", *_NAMES),
    "taxi-departure": ("taxi-destination", *_NAMES),
    "train-destination": ("train-departure",),
    "train-departure": ("train-destination",),
    "hotel-book day": ("restaurant-book day", "train-day"),
    "restaurant-book day": ("hotel-book day", "train-day"),
    "train-day": ("hotel-book day", "restaurant-book day"),
}

_LONGEST = 100  # characters; the longest label has 46. A model that runs on has named no place.
_NO_VALUE = frozenset(["", "none", "null", "not mentioned"])
_ANYTHING = frozenset(
    ["dontcare", "dont care", "do nt care", "do not care", "does not matter", "doesnt matter", "any", "no preference"]
)
_WORDS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten")
_NUMBERS = {word: str(number) for number, word in enumerate(_WORDS)}
_VARIANTS = {
    "center": "centre",
    "theater": "theatre",
    "theaters": "theatre",
    "guesthouse": "guest house",
    "guesthouses": "guest house",
    "st": "saint",
    "&": "and",
    "inexpensive": "cheap",
    "midrange": "moderate",
    "northern": "north",
    "southern": "south",
    "eastern": "east",
    "western": "west",
}
# Whole values of single slots. "free" is what people say of parking and internet that a hotel has.
_SAID = {
    "hotel-parking": {"free": "yes", "true": "yes", "false": "no"},
    "hotel-internet": {"free": "yes", "true": "yes", "false": "no"},
}


@dataclass(frozen=True)
class Ontology:
    """Known values of every slot, most frequent first."""

    values: Mapping[str, tuple[str, ...]]

    def known(self, slot: str) -> tuple[str, ...]:
        """Values that a slot can have, those of the slots that share its values last."""
        slots = (slot, *_SHARED.get(slot, ()))
        return tuple(dict.fromkeys([*_CATEGORICAL.get(slot, ()), *(v for s in slots for v in self.values.get(s, ()))]))

    def repair(self, change: Mapping[str, str]) -> tuple[dict[str, str], tuple[str, ...]]:
        """Values of a change as the ontology writes them.

        In this order: a value that the slot is known to have stays; a time becomes ``HH:MM``; a number word or
        "4 people" a number; a spelling that differs only in blanks, marks, a leading "the" or a known variant
        becomes the known value; a similar spelling (ratio of at least 0.9, the best alone, digits equal) does
        too (0.8 in columns whose values are listed). What remains stays as it is in an open column, and is
        dropped where the table's CHECK forbids it or it is longer than 100 characters.

        Parameters
        ----------
        change : mapping of str to str
            Slot -> value, or ``[DELETE]``.

        Returns
        -------
        tuple of (dict, tuple of str)
            The change, and what was dropped as ``slot = value``.

        Examples
        --------
        >>> ontology = Ontology({"hotel-name": ("acorn guest house",)})
        >>> ontology.repair({"hotel-name": "Acorn Guesthouse", "hotel-area": "center", "hotel-stars": "nine"})
        ({'hotel-name': 'acorn guest house', 'hotel-area': 'centre'}, ('hotel-stars = nine',))
        """
        repaired, dropped = {}, []
        for slot, value in change.items():
            parts = [self._value(slot, part) for part in value.split("|")]
            good = [part for part in dict.fromkeys(parts) if part is not None]
            if good:
                repaired[slot] = "|".join(good)
            if None in parts:
                dropped.append(f"{slot} = {value}")
        return repaired, tuple(dropped)

    def _value(self, slot: str, written: str) -> str | None:
        """One value repaired; None where it is none, or none that the slot can have."""
        value = " ".join(written.lower().replace("\\", "").split()).strip("%'\"`.,!? ")
        known = self.known(slot)
        if value.strip("[]").strip() == "delete":
            return DELETE
        if value in _NO_VALUE or len(value) > _LONGEST:
            return None
        if value in known:
            return value
        if re.sub(r"[^a-z ]", "", value) in _ANYTHING:
            return DONTCARE
        value = _SAID.get(slot, {}).get(value, value)
        if slot in _TIMES:
            return clock(value)
        if slot in _NUMERIC:
            value = _number(value)
        allowed = _CATEGORICAL.get(slot)
        if value in known:
            return value
        if slot in _NUMERIC:
            return None if allowed else value
        found = _nearest(value, known, listed=bool(allowed))
        return found if found is not None else None if allowed else value


def build_ontology(changes: Iterable[Mapping[str, str]]) -> Ontology:
    """Collect the values of labelled changes of state.

    Parameters
    ----------
    changes : iterable of mapping
        Slot -> value; alternatives (``east|west``) count one by one, deletions not at all.

    Returns
    -------
    Ontology
        Values by falling frequency, then alphabetically: the order of the changes does not matter.
    """
    counts: dict[str, Counter[str]] = {}
    for change in changes:
        for slot, value in change.items():
            counts.setdefault(slot, Counter()).update(part for part in value.split("|") if part != DELETE)
    return Ontology({slot: tuple(sorted(seen, key=lambda v: (-seen[v], v))) for slot, seen in sorted(counts.items())})


_CLOCK = re.compile(r"(\d{1,2})(?:[:.h ]?(\d{2}))?\s*(a\.?m\.?|p\.?m\.?)?(?:\s*o'?clock)?")


def clock(value: str) -> str:
    """A time of day as ``HH:MM``; other text as it is.

    Examples
    --------
    >>> [clock(said) for said in ("5pm", "8:45", "0845", "5:30 p.m.", "12 am", "noon", "after 5", "25:00", "7")]
    ['17:00', '08:45', '08:45', '17:30', '00:00', '12:00', 'after 5', '25:00', '7']
    """
    said = {"noon": "12:00", "midday": "12:00", "midnight": "00:00"}.get(value)
    if said is not None:
        return said
    found = _CLOCK.fullmatch(value)
    if found is None or (found[2] is None and found[3] is None):
        return value
    hour, minute, half = int(found[1]), int(found[2] or 0), (found[3] or "")[:1]
    if half and not 1 <= hour <= 12:
        half = ""
    if half:
        hour = hour % 12 + (12 if half == "p" else 0)
    return f"{hour:02d}:{minute:02d}" if hour <= 24 and minute <= 59 else value


def _number(value: str) -> str:
    """``four``, ``4 people`` or ``4-star`` as ``4``; other text as it is."""
    words = re.split(r"[\s-]+", value)
    first = _NUMBERS.get(words[0], words[0])
    units = {"people", "person", "persons", "guests", "nights", "night", "days", "day", "stars", "star"}
    if first.isdecimal() and (len(words) == 1 or (len(words) == 2 and words[1] in units)):
        return str(int(first))
    return value


def spelling(value: str) -> str:
    """What two spellings of one value have in common: no blanks, marks or leading "the", one form of variants.

    Examples
    --------
    >>> spelling("The St. John's Chop-House") == spelling("saint johns chop house")
    True
    """
    words = re.findall(r"[^\W_]+|&", re.sub(r"['\u2019]", "", value.lower()))
    if words[:1] == ["the"] and len(words) > 1:
        words = words[1:]
    return "".join(_VARIANTS.get(word, word) for word in words).replace(" ", "")


def _nearest(value: str, known: Iterable[str], *, listed: bool) -> str | None:
    """The known value that is meant; of a `listed` column, also the only one that stands in the text as a word."""
    key = spelling(value)
    by_key: dict[str, str] = {}
    for one in known:
        by_key.setdefault(spelling(one), one)  # of two spellings of one value, the frequent one
    if key in by_key:
        return by_key[key]
    if listed:
        words = {_VARIANTS.get(word, word) for word in value.split()}
        named = [one for one in by_key.values() if one in words]
        if len(named) == 1:
            return named[0]
    digits = re.findall(r"\d", key)
    rated = [
        (SequenceMatcher(None, key, other, autojunk=False).ratio(), one)
        for other, one in by_key.items()
        if re.findall(r"\d", other) == digits
    ]
    best = max((ratio for ratio, _ in rated), default=0.0)
    meant = [one for ratio, one in rated if ratio == best]
    return meant[0] if len(meant) == 1 and best >= (CUTOFF_LISTED if listed else CUTOFF) else None
