"""Labels the slow way: a list of all words, looked through from its beginning for every question."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from icl_select.service.store.labels import Word

__all__ = ["Kept", "Reference", "Standing"]

Standing = tuple[str | None, int, bool]
"""Label, number of votes, and whether annotators disagree."""


@dataclass(frozen=True)
class Kept:
    """A word as it stands in the history."""

    order: int
    version: int
    pos: int
    annotator: str
    status: str
    label: str | None
    adjudicated: bool
    time: str

    def says(self, word: Word) -> bool:
        """Whether it is the same, whenever it was said."""
        return (self.status, self.label, self.adjudicated) == (word.status, word.label, word.adjudicated)


@dataclass
class Reference:
    """One pool of `n_items`. ``states`` holds the label of every item after every version."""

    n_items: int
    how: str
    kept: list[Kept] = field(default_factory=list)
    states: list[dict[int, str | None]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.states.append(dict.fromkeys(range(self.n_items)))

    @property
    def version(self) -> int:
        """How many requests changed anything."""
        return len(self.states) - 1

    def last(self, pos: int, kept: Sequence[Kept]) -> dict[str, Kept]:
        """The word of each annotator that was said last; of two of one moment, the one that was taken last."""
        found: dict[str, Kept] = {}
        for word in sorted((word for word in kept if word.pos == pos), key=lambda word: (word.time, word.order)):
            found[word.annotator] = word
        return found

    def stands(self, pos: int, kept: Sequence[Kept] | None = None) -> Standing:
        """What the words of an item resolve to."""
        spoken = self.last(pos, self.kept if kept is None else kept).values()
        votes = sorted((word for word in spoken if word.status == "label"), key=lambda word: (word.time, word.order))
        if decided := [word.label for word in votes if word.adjudicated]:
            return decided[-1], len(votes), False
        if self.how == "latest":
            return (votes[-1].label if votes else None), len(votes), False
        said = [word.label for word in votes]
        most = max((said.count(label) for label in said), default=0)
        best = {label for label in said if said.count(label) == most}
        return (best.pop() if len(best) == 1 else None), len(votes), len(best) > 1

    def take(self, words: Sequence[Word], clock: str) -> tuple[int, list[int]]:
        """Take one request that comes at `clock`; return how many words were news, and whose labels changed."""
        before = [self.stands(pos)[0] for pos in range(self.n_items)]
        size = len(self.kept)
        standing = list(self.kept)
        again = {word.pos for word in words if self.repeats(word.pos, words, standing)}
        for word in words:
            if word.pos not in again and (time := self.news(word, clock)) is not None:
                self.kept.append(self.heard(word, time))
        after = {pos: self.stands(pos)[0] for pos in range(self.n_items)}
        if len(self.kept) > size:
            self.states.append(after)
        return len(self.kept) - size, [pos for pos, label in after.items() if label != before[pos]]

    def repeats(self, pos: int, words: Sequence[Word], standing: Sequence[Kept]) -> bool:
        """Whether all that a request says of an item stands already, and would stand if it were said again in order."""
        spoken = self.last(pos, standing)
        again = list(standing)
        for word in words:
            if word.pos == pos:
                own = spoken.get(word.annotator)
                if own is None or not own.says(word) or word.created_at not in (None, own.time):
                    return False
                if word.created_at is None:
                    again.append(replace(own, order=len(again), time=max(said.time for said in spoken.values())))
        return self.stands(pos, again) == self.stands(pos, standing)

    def heard(self, word: Word, time: str) -> Kept:
        """The word as it would stand."""
        said = (word.pos, word.annotator, word.status, word.label, word.adjudicated)
        return Kept(len(self.kept), self.version + 1, *said, time)

    def news(self, word: Word, clock: str) -> str | None:
        """When a word was said; None if it is nothing new."""
        spoken = self.last(word.pos, self.kept)
        own = spoken.get(word.annotator)
        if word.created_at is None:
            time = max([clock, *(said.time for said in spoken.values())])
            if own is None:
                return None if word.status == "retract" else time
            if not own.says(word):
                return time
            again = self.stands(word.pos, [*self.kept, self.heard(word, time)])
            return time if again != self.stands(word.pos) else None
        same = (said for said in self.kept if (said.pos, said.annotator) == (word.pos, word.annotator))
        if any(said.says(word) and said.time == word.created_at for said in same):
            return None
        return word.created_at
