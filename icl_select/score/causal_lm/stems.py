"""What has to be read of a model to score choices: stems, tails on top of them, and log-probabilities at places."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import pairwise

import numpy as np
import numpy.typing as npt

from icl_select.score.encoding import EncodedItem, common_length

__all__ = ["Questions", "Read", "Stem", "ask"]

Ids = tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Read:
    """The log-probability of `token` after column `column` of a row; the answer goes to place `slot`."""

    column: int
    token: int
    slot: int


@dataclass(slots=True)
class Stem:
    """Tokens that all choices of an item share: its context, and what every choice begins with.

    `reads` are in the stem itself; `tails` what is read on top of it, each with its own reads (columns count from
    the tail's first token). No tail begins another one.
    """

    tokens: Ids
    reads: list[Read] = field(default_factory=list)
    tails: list[tuple[Ids, list[Read]]] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Questions:
    """All that a list of items asks of a model, each thing once.

    Attributes
    ----------
    stems : list of Stem
        Distinct.
    stem_of : list of int
        The stem of each item.
    slots : list of list of list of int
        For each item and choice, the places of its tokens' log-probabilities.
    count : int
        Places in all.
    """

    stems: list[Stem]
    stem_of: list[int]
    slots: list[list[list[int]]]
    count: int

    def sums(self, answers: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
        """Log-probability of each choice, (n, c); NaN where an item has fewer."""
        values = np.full((len(self.slots), max((len(own) for own in self.slots), default=0)), np.nan)
        for row, own in enumerate(self.slots):
            for column, places in enumerate(own):
                values[row, column] = answers[places].sum()
        return values

    def whole(self) -> list[Stem]:
        """The same questions without tails: every stem with every tail is a row of its own."""
        rows = []
        for stem in self.stems:
            if not stem.tails:
                rows.append(stem)
            for number, (tail, reads) in enumerate(stem.tails):
                moved = [Read(len(stem.tokens) + read.column, read.token, read.slot) for read in reads]
                rows.append(Stem(stem.tokens + tail, moved + (stem.reads if number == 0 else [])))
        return rows


def ask(items: Sequence[EncodedItem]) -> Questions:
    """Say what has to be read to score the choices of `items`.

    The last token of a choice is predicted and never read. What all choices of an item begin with is read with the
    context, so that label words of one token after a common ``"\\n"`` have no tail at all.
    """
    shared = [_shared(item) for item in items]
    grouped: dict[Ids, list[int]] = {}
    for row, (item, extra) in enumerate(zip(items, shared, strict=True)):
        grouped.setdefault(item.context + item.choices[0][:extra], []).append(row)
    place_of: dict[tuple[int, Ids, int, int], int] = {}
    slots: list[list[list[int]]] = [[] for _ in items]
    stem_of = [0] * len(items)
    stems = []
    for number, (tokens, rows) in enumerate(grouped.items()):
        stem = Stem(tokens)
        owner = _owners([choice[shared[row] : -1] for row in rows for choice in items[row].choices])
        reads: dict[Ids, list[Read]] = {tail: [] for tail in owner.values() if tail}
        reads[()] = stem.reads
        for row in rows:
            stem_of[row] = number
            extra = shared[row]
            for choice in items[row].choices:
                places = []
                for tail, column, token in _steps(items[row], choice, extra, owner[choice[extra:-1]]):
                    key = (number, tail, column, token)
                    if key not in place_of:
                        place_of[key] = len(place_of)
                        reads[tail].append(Read(column, token, place_of[key]))
                    places.append(place_of[key])
                slots[row].append(places)
        stem.tails = [(tail, wanted) for tail, wanted in reads.items() if tail]
        stems.append(stem)
    return Questions(stems, stem_of, slots, len(place_of))


def _shared(item: EncodedItem) -> int:
    """Tokens that all choices begin with, their last ones left out."""
    first = item.choices[0]
    return min(min(common_length(first, choice), len(choice) - 1) for choice in item.choices)


def _owners(tails: Sequence[Ids]) -> dict[Ids, Ids]:
    """For each tail the one that is read for it: the longest that begins with it."""
    ordered = sorted(set(tails))
    owner = dict(zip(ordered, ordered, strict=True))
    for tail, following in reversed(list(pairwise(ordered))):
        if owner[following][: len(tail)] == tail:
            owner[tail] = owner[following] if tail else ()
    return owner


def _steps(item: EncodedItem, choice: Ids, extra: int, owner: Ids) -> list[tuple[Ids, int, int]]:
    """(row read, column, token predicted after it) for every token of a choice; the row () is the stem."""
    start = len(item.context) - 1
    stem: list[tuple[Ids, int, int]] = [((), start + place, choice[place]) for place in range(extra + 1)]
    return stem + [(owner, place, token) for place, token in enumerate(choice[extra + 1 :])]
