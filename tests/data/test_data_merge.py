"""Merging labels: every policy by hand, and laws that hold for any votes."""

from __future__ import annotations

import json
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from icl_select.data import LabelRecord, merge
from icl_select.errors import LabelError, ParameterError

STANDING = {"a": None, "b": "x", "c": "x", "d": None, "e": None}
VOTES = [
    LabelRecord("a", "x", "ann", "2024-01-01"),
    LabelRecord("a", "y", "bob", "2024-01-03"),
    LabelRecord("a", "x", "cy", "2024-01-02"),
    LabelRecord("b", "y", "ann", "2024-01-01"),
    LabelRecord("c", "x", "ann", "2024-01-01"),
    LabelRecord("d", "y", "bob", "2024-01-01"),
    LabelRecord("zz", "y", "bob", "2024-01-01"),
]
EXPECTED = ["a", "b", "c", "d", "e"]


@pytest.mark.parametrize(
    ("policy", "labels", "added", "replaced"),
    [
        ("keep", {"d": "y"}, ("d",), ()),
        ("replace", {"a": "y", "b": "y", "d": "y"}, ("a", "d"), ("b",)),
        ("majority", {"a": "x", "d": "y"}, ("a", "d"), ()),
    ],
)
def test_policies_by_hand(policy: str, labels: dict[str, str], added: tuple[str], replaced: tuple[str]) -> None:
    """a: two say x, one (the latest) y; b stands as x and one says y, a tie; c is confirmed; d is new; e is missing."""
    found, report = merge(STANDING, VOTES, on_conflict=policy, expected=EXPECTED)  # type: ignore[arg-type]
    assert found == labels
    assert (report.added, report.replaced, report.unchanged) == (added, replaced, ("c",))
    assert [(c.id, c.standing, dict(c.votes)) for c in report.conflicts] == [
        ("a", None, {"x": 2, "y": 1}),
        ("b", "x", {"y": 1}),
    ]
    assert report.unknown == ("zz",)
    assert report.missing == (("a", "e") if policy == "keep" else ("e",))
    assert report.agreement == pytest.approx(2 / 3)
    assert report.annotators == {"ann": 3, "bob": 2, "cy": 1}


def test_conflicts_are_an_error_that_lists_them() -> None:
    with pytest.raises(
        LabelError, match=r"2 examples have labels that disagree \('a': 'x' \(2\), 'y' \(1\); 'b'.*majority"
    ):
        merge(STANDING, VOTES)
    many = [LabelRecord(str(i), label) for i in range(9) for label in "xy"]
    with pytest.raises(LabelError, match="and 4 more"):
        merge({str(i): None for i in range(9)}, many)
    with pytest.raises(ParameterError, match=r"on_conflict='major' is unknown. Did you mean 'majority'\?"):
        merge(STANDING, VOTES, on_conflict="major")  # type: ignore[arg-type]


def test_one_annotator_has_one_vote_the_latest() -> None:
    again = [
        LabelRecord("a", "y", "ann", "2024-01-02"),
        LabelRecord("a", "x", "ann", "2024-01-01"),
        LabelRecord("b", "x", "ann"),
        LabelRecord("b", "y", "ann", "2024-01-01"),
    ]
    labels, report = merge({"a": None, "b": None}, again)
    assert labels == {"a": "y", "b": "y"}, "by time where all have one, else by place in the file"
    assert report.agreement is None
    with pytest.raises(LabelError):
        merge({"a": None}, [LabelRecord("a", "x"), LabelRecord("a", "y")])  # votes without a name all count


def test_a_tie_leaves_the_example_as_it_stands() -> None:
    votes = [LabelRecord("a", "x", "ann"), LabelRecord("a", "y", "bob")]
    labels, report = merge({"a": None}, votes, on_conflict="majority")
    assert labels == {}
    assert report.conflicts[0].chosen is None
    assert report.missing == ("a",)
    labels, report = merge({"a": "y"}, votes, on_conflict="majority")
    assert labels == {}
    assert report.conflicts[0].chosen == "y", "the label that stands has a vote"


def test_the_summary_says_all_of_it() -> None:
    _, report = merge(STANDING, VOTES, on_conflict="majority", expected=EXPECTED)
    assert report.summary() == (
        "Labels: 2 added, 0 replaced, 1 unchanged. 2 in conflict, of which 1 left as they were; first 'a': 'x' (2), "
        "'y' (1). 1 still without a label. 1 unknown to the pool, such as 'zz'. Annotators agree to 67%."
    )
    record = json.loads(json.dumps(report.to_dict()))
    assert record["conflicts"][1] == {"id": "b", "standing": "x", "votes": {"y": 1}, "chosen": "x"}
    assert record["unknown"] == ["zz"]


IDS = st.sampled_from("abcdef")
RECORDS = st.lists(
    st.builds(LabelRecord, IDS, st.sampled_from("xyz"), st.none() | st.sampled_from(["p", "q", "r"]), st.none()),
    max_size=25,
)
LABELS = st.dictionaries(st.sampled_from("abcd"), st.none() | st.sampled_from("xyz"), min_size=1)


@given(LABELS, RECORDS, st.sampled_from(["keep", "replace", "majority"]))
def test_every_id_has_one_outcome_and_merging_again_changes_nothing(
    standing: dict[str, str | None], records: list[LabelRecord], policy: str
) -> None:
    before = dict(standing)
    labels, report = merge(standing, records, on_conflict=policy)  # type: ignore[arg-type]
    assert standing == before
    left = [conflict.id for conflict in report.conflicts if conflict.chosen == conflict.standing]
    outcomes = Counter([*report.added, *report.replaced, *report.unchanged, *left, *report.unknown])
    assert outcomes == Counter({record.id for record in records})
    assert set(labels) == {*report.added, *report.replaced}
    assert all(standing[name] is None for name in report.added)
    assert all(standing[name] not in (None, labels[name]) for name in report.replaced)
    after = {**standing, **labels}
    if policy != "majority":  # a majority that stands has one more vote, which can only keep it
        again, second = merge(after, records, on_conflict=policy)  # type: ignore[arg-type]
        assert again == {}
        assert second.added == second.replaced == ()
    else:
        again, _ = merge(after, records, on_conflict="majority")
        assert not (set(again) & set(labels)), "what a majority decided stays"
