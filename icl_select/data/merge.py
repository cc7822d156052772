"""Merging labels: several annotators, labels that stand, and a report of what happened to every id."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal, get_args

from icl_select.data.exchange.record import LabelRecord
from icl_select.errors import LabelError, ParameterError, suggest

__all__ = ["Conflict", "MergeReport", "OnConflict", "latest_by_annotator", "merge"]

OnConflict = Literal["error", "keep", "replace", "majority"]


@dataclass(frozen=True)
class Conflict:
    """An example whose labels disagree: ``votes`` of the annotators, the label that stood, the label chosen."""

    id: str
    standing: str | None
    votes: Mapping[str, int]
    chosen: str | None

    def __str__(self) -> str:
        votes = ", ".join(f"{label!r} ({count})" for label, count in self.votes.items())
        return f"{self.id!r}: {votes}" + (f" against {self.standing!r}, which stands" if self.standing else "")


@dataclass(frozen=True)
class MergeReport:
    """What a merge did; ids are in file order.

    Attributes
    ----------
    added, replaced, unchanged : tuple of str
        Ids that got a first label, got another one, or were labelled so already.
    conflicts : tuple of Conflict
        Ids whose labels disagree, also where they could be resolved. Where ``chosen`` equals ``standing``,
        nothing changed.
    unknown : tuple of str
        Ids that the pool does not have.
    missing : tuple of str
        Ids of the file (or expected) that are still without a label.
    agreement : float or None
        Share of the most frequent label, averaged over the ids that several annotators labelled; None if
        there are none.
    annotators : mapping of str to int
        Labels by annotator.
    """

    added: tuple[str, ...]
    replaced: tuple[str, ...]
    unchanged: tuple[str, ...]
    conflicts: tuple[Conflict, ...]
    unknown: tuple[str, ...]
    missing: tuple[str, ...]
    agreement: float | None
    annotators: Mapping[str, int]

    def to_dict(self) -> dict[str, Any]:
        """The report as JSON values."""
        record = asdict(self)
        lists = {name: list(value) for name, value in record.items() if isinstance(value, tuple)}
        return {**record, **lists, "annotators": dict(self.annotators)}

    def summary(self) -> str:
        """One paragraph for people."""
        counts = {name: len(getattr(self, name)) for name in ("added", "replaced", "unchanged")}
        text = "Labels: " + ", ".join(f"{count:,} {name}" for name, count in counts.items()) + "."
        if self.conflicts:
            kept = sum(conflict.chosen == conflict.standing for conflict in self.conflicts)
            text += (
                f" {len(self.conflicts):,} in conflict, of which {kept:,} left as they were; first {self.conflicts[0]}."
            )
        if self.missing:
            text += f" {len(self.missing):,} still without a label."
        if self.unknown:
            text += f" {len(self.unknown):,} unknown to the pool, such as {self.unknown[0]!r}."
        if self.agreement is not None:
            text += f" Annotators agree to {self.agreement:.0%}."
        return text


def merge(
    standing: Mapping[str, str | None],
    records: Iterable[LabelRecord],
    *,
    on_conflict: OnConflict = "error",
    expected: Iterable[str] = (),
) -> tuple[dict[str, str], MergeReport]:
    """Merge labels into those that stand.

    Parameters
    ----------
    standing : mapping of str to str or None
        Label of every id of the pool, None while unlabelled.
    records : iterable of LabelRecord
        New labels. Of several by one annotator for one id the latest counts: by ``created_at`` where
        all have it, else the last.
    on_conflict : {"error", "keep", "replace", "majority"}, default="error"
        Where annotators disagree, or with a label that stands:

        * ``"error"``: raise LabelError that lists the conflicts;
        * ``"keep"``: leave the example as it stands, labelled or not;
        * ``"replace"``: the latest new label;
        * ``"majority"``: the label with most votes, where the one that stands has a vote too; a tie leaves the
          example as it stands.
    expected : iterable of str, default=()
        Ids that were to be labelled, for ``missing`` and ``unknown``.

    Returns
    -------
    labels : dict of str to str
        Labels to set, only where they change something.
    report : MergeReport

    Raises
    ------
    LabelError
        If labels disagree (``on_conflict="error"``); the message lists the conflicts.
    ParameterError
        If `on_conflict` is unknown.

    Examples
    --------
    >>> votes = [LabelRecord("a", "yes", "ann"), LabelRecord("a", "no", "bob"), LabelRecord("a", "yes", "cy")]
    >>> labels, report = merge({"a": None, "b": None}, votes, on_conflict="majority", expected=["a", "b"])
    >>> labels, report.missing, round(report.agreement, 2)
    ({'a': 'yes'}, ('b',), 0.67)
    """
    if on_conflict not in get_args(OnConflict):
        raise ParameterError(
            f"on_conflict={on_conflict!r} is unknown.{suggest(str(on_conflict), get_args(OnConflict))}"
        )
    by_id: dict[str, list[LabelRecord]] = {}
    for record in records:
        by_id.setdefault(record.id, []).append(record)
    named = dict.fromkeys([*expected, *by_id])
    labels: dict[str, str] = {}
    outcome: dict[str, list[str]] = {"added": [], "replaced": [], "unchanged": []}
    conflicts: list[Conflict] = []
    votes_of: dict[str, list[LabelRecord]] = {}
    for name in (name for name in named if name in by_id and name in standing):
        votes_of[name] = votes = latest_by_annotator(by_id[name])
        stood = standing[name]
        chosen: str | None = votes[0].label
        if len({vote.label for vote in votes}) > 1 or stood not in (None, chosen):
            chosen = _resolve(votes, stood, on_conflict)
            conflicts.append(Conflict(name, stood, _count(votes), chosen))
            if chosen == stood:
                continue
        outcome["unchanged" if chosen == stood else "added" if stood is None else "replaced"].append(name)
        if chosen is not None and chosen != stood:
            labels[name] = chosen
    if conflicts and on_conflict == "error":
        raise _conflict_error(conflicts)
    report = MergeReport(
        **{kind: tuple(ids) for kind, ids in outcome.items()},
        conflicts=tuple(conflicts),
        unknown=tuple(name for name in named if name not in standing),
        missing=tuple(name for name in named if name in standing and standing[name] is None and name not in labels),
        agreement=_agreement(votes_of.values()),
        annotators=dict(Counter(v.annotator for votes in votes_of.values() for v in votes if v.annotator is not None)),
    )
    return labels, report


def _in_time(records: Sequence[LabelRecord]) -> list[LabelRecord]:
    if all(record.created_at for record in records):
        return sorted(records, key=lambda record: str(record.created_at))
    return list(records)


def latest_by_annotator(records: Sequence[LabelRecord]) -> list[LabelRecord]:
    """One vote for each annotator, oldest first; votes without a name all count."""
    ordered = _in_time(records)
    last = {record.annotator: place for place, record in enumerate(ordered)}
    return [r for place, r in enumerate(ordered) if r.annotator is None or last[r.annotator] == place]


def _count(votes: Sequence[LabelRecord]) -> dict[str, int]:
    return dict(Counter(vote.label for vote in votes).most_common())


def _resolve(votes: Sequence[LabelRecord], stood: str | None, on_conflict: OnConflict) -> str | None:
    if on_conflict == "replace":
        return votes[-1].label
    if on_conflict == "majority":
        counts = Counter(vote.label for vote in votes)
        if stood is not None:
            counts[stood] += 1
        (best, most), *rest = counts.most_common()
        if not rest or rest[0][1] < most:
            return best
    return stood


def _agreement(all_votes: Iterable[Sequence[LabelRecord]]) -> float | None:
    shares = [max(_count(votes).values()) / len(votes) for votes in all_votes if len(votes) > 1]
    return sum(shares) / len(shares) if shares else None


def _conflict_error(conflicts: Sequence[Conflict]) -> LabelError:
    shown = "; ".join(str(conflict) for conflict in conflicts[:5])
    more = f"; and {len(conflicts) - 5} more" if len(conflicts) > 5 else ""
    return LabelError(
        f"{len(conflicts)} example{'s have' if len(conflicts) > 1 else ' has'} labels that disagree ({shown}{more}). "
        "Nothing was changed. Pass on_conflict='keep', 'replace' or 'majority'."
    )
