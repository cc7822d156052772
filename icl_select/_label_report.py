"""What leave-one-out says of a set of labels: numbers, suspects, and a paragraph for people."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any, Literal

from icl_select.errors import DataError

__all__ = ["Confusion", "LabelRecall", "LeaveOneOut", "Suspect", "Vote"]


@dataclass(frozen=True, slots=True)
class Vote:
    """The vote of the `k` nearest other rows, against always answering the most frequent label.

    Attributes
    ----------
    k : int
        Rows that vote.
    accuracy : float
        Share of the rows for whose label the others vote.
    effect : float
        Accuracy minus that of the baseline.
    low, high, level : float
        Interval of the effect, of this k alone.
    only_vote, only_baseline : int
        Rows that only the vote, or only the baseline, answers right.
    p_mcnemar : float
        McNemar's exact test of the paired answers, two-sided.
    p_shuffled : float
        Share of shuffles of the labels with which the vote is right at least as often; one-sided, plus-one rule.
    p_drawn : float
        Share of draws of as many equally likely labels with which the vote falls at least as far behind always
        answering the then most frequent one; one-sided, plus-one rule.
    shuffled_accuracy : float
        Mean accuracy of the vote with shuffled labels: what it reaches by chance.
    p_value : float
        What is adjusted: the larger of `p_mcnemar` and, where the vote is ahead, `p_shuffled`, else `p_drawn`.
    p_adjusted : float
        After Holm over the values of k.
    verdict : {"better", "worse", "no evidence"}
    mark : str
        ``+``, ``−`` or ``·``, for tables; always beside the word.
    detectable_difference : float or None
        Smallest difference that McNemar's test finds with 80% power at the level of the hardest of the family, if
        as many rows are answered differently as here; None if it can find none.
    """

    k: int
    accuracy: float
    effect: float
    low: float
    high: float
    level: float
    only_vote: int
    only_baseline: int
    p_mcnemar: float
    p_shuffled: float
    p_drawn: float
    shuffled_accuracy: float
    p_value: float
    p_adjusted: float
    verdict: Literal["better", "worse", "no evidence"]
    mark: str
    detectable_difference: float | None


@dataclass(frozen=True, slots=True)
class LabelRecall:
    """Rows that bear a label, and the share of them it is voted for; None for a single row: no other can."""

    label: str
    support: int
    recall: float | None


@dataclass(frozen=True, slots=True)
class Confusion:
    """How many rows of a label are voted another one."""

    label: str
    voted: str
    count: int


@dataclass(frozen=True, slots=True)
class Suspect:
    """A row whose label may be wrong.

    Attributes
    ----------
    id, label : str
    voted : str
        What its neighbours vote for; may be its own label, where a copy contradicts it.
    share : float
        Share of the votes for `voted`.
    nearest : str
        Id of the nearest other row.
    similarity : float
        Cosine similarity of that row.
    copy : str or None
        Id of a row in the same direction with another label.
    """

    id: str
    label: str
    voted: str
    share: float
    nearest: str
    similarity: float
    copy: str | None


@dataclass(frozen=True)
class LeaveOneOut:
    """How well labelled rows are answered by the other labelled rows.

    Attributes
    ----------
    n : int
        Labelled rows.
    baseline_label : str
        The most frequent label; of equally frequent ones the first in the alphabet.
    baseline_accuracy : float
        Its share of the rows.
    votes : tuple of Vote
        One for each number of voters, ascending.
    report_k : int
        The k of :meth:`summary`, `labels`, `confusions` and `suspects`: 8, or what comes nearest to it among the ks
        asked for. It is never chosen by its result.
    labels : tuple of LabelRecall
        Most frequent first.
    confusions : tuple of Confusion
        The most frequent ones.
    suspects : tuple of Suspect
        Most suspect first, at most as many as were asked for.
    n_suspects : int
        All of them.
    n_copies : int
        Rows that have another row in the same direction.
    alpha : float
    seed, n_shuffles : int
    notes : tuple of str
        What limits these numbers.
    """

    n: int
    baseline_label: str
    baseline_accuracy: float
    votes: tuple[Vote, ...]
    report_k: int
    labels: tuple[LabelRecall, ...]
    confusions: tuple[Confusion, ...]
    suspects: tuple[Suspect, ...]
    n_suspects: int
    n_copies: int
    alpha: float
    seed: int
    n_shuffles: int
    notes: tuple[str, ...]

    @property
    def reported(self) -> Vote:
        """The vote at `report_k`."""
        return next(vote for vote in self.votes if vote.k == self.report_k)

    def to_dict(self) -> dict[str, Any]:
        """Return a record of JSON values; :meth:`from_dict` reads it back.

        Returns
        -------
        dict
        """
        record = asdict(self)
        return {name: list(value) if isinstance(value, tuple) else value for name, value in record.items()}

    @classmethod
    def from_dict(cls, record: Mapping[str, Any]) -> LeaveOneOut:
        """Read what :meth:`to_dict` wrote; other fields are ignored.

        Parameters
        ----------
        record : mapping

        Returns
        -------
        LeaveOneOut

        Raises
        ------
        DataError
            If a field is missing.
        """
        values = _fields(cls, record)
        for name, kind in _PARTS.items():
            values[name] = tuple(kind(**_fields(kind, part)) for part in values[name])
        return cls(**{**values, "notes": tuple(values["notes"])})

    def summary(self) -> str:
        """One paragraph for people, which claims no more than the data allow."""
        vote = self.reported
        others = "the nearest other row votes" if vote.k == 1 else f"the {vote.k} nearest other rows vote"
        text = (
            f"Leave-one-out over {self.n:,} labelled rows with {_plural(len(self.labels), 'label')}: {others} for "
            f"the right label in {vote.accuracy:.1%} of them, always answering {self.baseline_label!r} is right in "
            f"{self.baseline_accuracy:.1%}. Difference {_points(vote.effect)} points "
            f"({vote.level:.0%} interval {_points(vote.low)} to {_points(vote.high)}); {self._verdict(vote)} With "
            f"shuffled labels the vote reaches {vote.shuffled_accuracy:.1%}. This speaks of these labels and these "
            "vectors, not of a way of selecting and not of a language model."
        )
        if self.notes:
            text += " Note: " + "; ".join(self.notes) + "."
        return text + self._suspicion()

    def _verdict(self, vote: Vote) -> str:
        family = f"adjusted over {_plural(len(self.votes), 'value')} of k"
        if vote.verdict != "no evidence":
            return f"verdict: {vote.verdict} (p = {vote.p_adjusted:.2g}, {family})."
        found = vote.detectable_difference
        power = (
            "so few rows are answered differently that no difference could have been found"
            if found is None
            else f"a difference below {100 * found:.0f} points would often have been missed"
        )
        return f"verdict: no evidence (p = {vote.p_adjusted:.2g}, {family}), which is not 'equal': {power}."

    def _suspicion(self) -> str:
        if not self.suspects:
            return ""
        first = self.suspects[0]
        reason = (
            f"{first.copy!r} has the same direction and bears another label"
            if first.copy is not None
            else f"its neighbours vote {first.voted!r} with {first.share:.0%}"
        )
        return f" Labels worth a second look: {self.n_suspects:,}, first {first.id!r} ({first.label!r}; {reason})."


_PARTS: dict[str, Any] = {"votes": Vote, "labels": LabelRecall, "confusions": Confusion, "suspects": Suspect}


def _fields(kind: Any, record: Mapping[str, Any]) -> dict[str, Any]:
    missing = [field.name for field in fields(kind) if field.name not in record]
    if missing:
        raise DataError(
            f"a leave-one-out record lacks {missing[0]!r} ({kind.__name__}). Pass what LeaveOneOut.to_dict() gives."
        )
    return {field.name: record[field.name] for field in fields(kind)}


def _points(value: float) -> str:
    return f"{100 * value:+.1f}"


def _plural(count: int, noun: str) -> str:
    return f"{count:,} {noun}{'' if count == 1 else 's'}"
