"""What annotators say of items, and what their words resolve to: rules alone, no database.

Words come late, twice and out of order. What an item's label is depends on what was said and when, never on the order
in which the words arrived; a word without a time of its own is said when it arrives, after all that was said before.
"""

from __future__ import annotations

import datetime
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ..errors import InvalidError
from .database import stamp

__all__ = ["Word", "adds_nothing", "made_at", "resolve", "said_at", "unsettled"]

_SKEW = datetime.timedelta(minutes=5)
_AFTER = 1 << 63  # behind every event that was taken

Votes = Mapping[str, Mapping[str, Any]]
"""The latest word of each annotator about one item."""


@dataclass(frozen=True)
class Word:
    """What one annotator says of the item at one position; ``created_at`` is None for now."""

    pos: int
    annotator: str
    status: str
    label: str | None
    adjudicated: bool
    created_at: str | None


def made_at(created_at: datetime.datetime | None) -> str | None:
    """When a word was said; None for now.

    Clocks may differ a little, and a word from the future would outrank later ones: one that is a little ahead is now.

    Raises
    ------
    InvalidError
        If the time lies too far in the future, or outside of all years.
    """
    if created_at is None:
        return None
    moment = datetime.datetime.now(datetime.UTC)
    if created_at.tzinfo is None:
        created_at = created_at.replace(tzinfo=datetime.UTC)
    if created_at > moment + _SKEW:
        raise InvalidError(
            f"created_at={created_at.isoformat()} lies in the future. Set the clock of the client, or leave it out."
        )
    try:
        return stamp(created_at) if created_at <= moment else None
    except OverflowError as exc:
        raise InvalidError(f"created_at={created_at.isoformat()} is before the year 1. Leave it out.") from exc


def said_at(word: Word, votes: Votes, received: str) -> str:
    """The time of a word. Clocks go back at times; the newest word must not lose by it."""
    if word.created_at is not None:
        return word.created_at
    return max([received, *(str(vote["created_at"]) for vote in votes.values())])


def adds_nothing(word: Word, said: Mapping[str, Any], votes: Votes, how: str) -> bool:
    """Whether a word repeats what its annotator said last.

    With a time of its own it does so if it is of the same time: at another one, even an earlier one, it was said too.
    Without one it does, unless it decides again: another annotator has spoken since, and the later word counts.
    """
    vote = votes.get(word.annotator)
    if vote is None:
        return word.status == "retract" and word.created_at is None  # there is nothing to take back
    if not _same(word, vote):
        return False
    if word.created_at is not None:
        return word.created_at == str(vote["created_at"])
    return resolve({**votes, word.annotator: said}, how) == resolve(votes, how)


def unsettled(words: Sequence[Word], standing: Mapping[int, Votes], how: str) -> list[Word]:
    """The words of a request about items of which it says more than what stands, so that sending it twice is safe."""
    about: dict[int, list[Word]] = {}
    for word in words:
        about.setdefault(word.pos, []).append(word)
    settled = {pos for pos, said in about.items() if _repeat(said, standing.get(pos, {}), how)}
    return [word for word in words if word.pos not in settled]


def _repeat(words: Sequence[Word], votes: Votes, how: str) -> bool:
    """Whether these words say nothing of their item but what stands.

    Where the last word counts and two annotators disagree, each of them would decide again; in the end nothing changes.
    """
    again = dict(votes)
    last = max((str(vote["created_at"]) for vote in votes.values()), default="")
    for place, word in enumerate(words):
        vote = votes.get(word.annotator)
        if vote is None or not _same(word, vote) or word.created_at not in (None, vote["created_at"]):
            return False
        if word.created_at is None:
            again[word.annotator] = {**vote, "created_at": last, "event": _AFTER + place}
    return resolve(again, how) == resolve(votes, how)


def _same(word: Word, vote: Mapping[str, Any]) -> bool:
    return (word.status, word.label, word.adjudicated) == (vote["status"], vote["label"], bool(vote["adjudicated"]))


def resolve(votes: Votes, how: str) -> tuple[str | None, int, bool]:
    """Label, number of votes, and whether annotators disagree so that there is no label.

    An adjudicated word decides, the last one where there are several; else the majority, or with `how` ``"latest"`` the
    last word. Of words of the same moment the one that was taken last counts.
    """
    cast = [vote for vote in votes.values() if vote["status"] == "label"]
    in_time = sorted(cast, key=lambda vote: (vote["created_at"], vote["event"]))
    final = [vote for vote in in_time if vote["adjudicated"]]
    if final:
        return final[-1]["label"], len(cast), False
    if not cast:
        return None, 0, False
    if how == "latest":
        return in_time[-1]["label"], len(cast), False
    (best, most), *rest = Counter(vote["label"] for vote in in_time).most_common()
    if rest and rest[0][1] == most:
        return None, len(cast), True
    return best, len(cast), False
