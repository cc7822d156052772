"""Agreement of annotators: published examples, a literal reference, laws, and an interval that covers."""

from __future__ import annotations

import json
from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from icl_select.data import Agreement, LabelRecord, PairAgreement, agreement, merge
from icl_select.errors import LabelError, ParameterError

Table = dict[str, list[str | None]]


def table(*rows: str) -> Table:
    """One string per annotator, one character per item, a dot where a label is missing."""
    columns = zip(*(row.replace(" ", "") for row in rows), strict=True)
    return {f"u{pos:02}": [None if said == "." else said for said in column] for pos, column in enumerate(columns)}


# Krippendorff, "Computing Krippendorff's Alpha-Reliability" (2011), his examples A, B and C.
BINARY = table("0100000010", "1110010000")
NOMINAL = table("aabbdcccedda", "babbbccceddd")
MISSING = table("123321412...", "12332241 25.3", ".33323422 51.", "12332441251.")


@pytest.mark.parametrize(("votes", "alpha"), [(BINARY, 0.095), (NOMINAL, 0.692), (MISSING, 0.743)])
def test_published_examples(votes: Table, alpha: float) -> None:
    found = agreement(votes)
    assert found.alpha is not None
    assert round(found.alpha, 3) == alpha


def test_four_observers_by_hand() -> None:
    """Eleven units have several labels: 48 pairs in eight of four labels, 6 in two of three, 1 in one of two.

    All labels are equal but in the units 2 and 8 (three of four: 3 of 6 pairs) and 6 (1, 2, 3, 4: none of 6).
    """
    found = agreement(MISSING)
    assert (found.n_items, found.n_multiple, found.n_labels, found.n_annotators) == (12, 11, 41, 0)
    assert found.pairwise == pytest.approx((55 - 3 - 3 - 6) / 55)
    assert found.majority_share == pytest.approx((8 * 1.0 + 3 / 4 + 1 / 4 + 3 / 4) / 11)


def literal_alpha(votes: Table) -> float | None:
    """From the coincidence matrix: every ordered pair of labels of an item, weighted 1 / (labels - 1)."""
    coincidences: dict[tuple[str, str], float] = {}
    for column in votes.values():
        labels = [label for label in column if label is not None]
        for i, first in enumerate(labels):
            for j, second in enumerate(labels):
                if i != j:
                    pair = first, second
                    coincidences[pair] = coincidences.get(pair, 0.0) + 1 / (len(labels) - 1)
    totals: dict[str, float] = {}
    for (first, _), weight in coincidences.items():
        totals[first] = totals.get(first, 0.0) + weight
    n = sum(totals.values())
    observed = sum(weight for (first, second), weight in coincidences.items() if first != second)
    expected = sum(totals[a] * totals[b] for a in totals for b in totals if a != b)
    return None if expected == 0 else 1 - (n - 1) * observed / expected


TABLES = st.lists(st.lists(st.none() | st.sampled_from("xyz"), max_size=5), min_size=1, max_size=12).map(
    lambda columns: {f"i{pos}": list(column) for pos, column in enumerate(columns)}
)


@given(TABLES)
def test_alpha_equals_the_literal_reference(votes: Table) -> None:
    found, expected = agreement(votes, n_resamples=100), literal_alpha(votes)
    assert (found.alpha is None) == (expected is None)
    if expected is not None:
        assert found.alpha == pytest.approx(expected)
        assert -1 <= found.alpha <= 1
    if found.low is not None and found.high is not None:
        assert -1 <= found.low <= found.alpha <= found.high <= 1
    pairs = [
        (a, b)
        for column in votes.values()
        for i, a in enumerate(column)
        for b in column[i + 1 :]
        if a is not None and b is not None
    ]
    assert found.pairwise == (pytest.approx(sum(a == b for a, b in pairs) / len(pairs)) if pairs else None)
    json.dumps(found.to_dict(), allow_nan=False)
    assert found.summary()


@given(TABLES, st.randoms(use_true_random=False))
def test_names_and_order_of_annotators_and_labels_decide_nothing(votes: Table, random: object) -> None:
    renamed = {"x": "third", "y": "x", "z": "y", None: None}
    moved = {name: [renamed[label] for label in column][::-1] for name, column in votes.items()}
    first, second = agreement(votes, n_resamples=100), agreement(moved, n_resamples=100)
    assert first.alpha == pytest.approx(second.alpha)
    assert first.pairwise == pytest.approx(second.pairwise)


def test_full_agreement_chance_and_contradiction() -> None:
    full = agreement({str(i): ["xy"[i % 2]] * 2 for i in range(20)})
    assert (full.alpha, full.pairwise, full.majority_share) == (1.0, 1.0, 1.0)
    assert (full.low, full.high) == (None, None), "twenty items that agree do not prove that all do"
    against = agreement({str(i): ["x", "y"] for i in range(10)})
    assert against.alpha is not None
    assert against.alpha < 0
    rng = np.random.default_rng(0)
    chance = agreement({str(i): [str(label) for label in rng.integers(3, size=3)] for i in range(2000)})
    assert chance.alpha == pytest.approx(0.0, abs=0.05)


@pytest.mark.parametrize(
    ("votes", "words"),
    [
        ({}, "0 labels of 0 items, 0 of which have several labels. Agreement needs items"),
        ({"a": ["x", None], "b": []}, "1 label of 1 item, 0 of which"),
        ({"a": ["x", "x"], "b": ["x", "x"]}, "alpha is not defined: all these labels are the same one"),
    ],
)
def test_what_is_not_defined_is_none(votes: Table, words: str) -> None:
    found = agreement(votes)
    assert (found.alpha, found.low, found.high) == (None, None, None)
    assert words in found.summary()


RECORDS = [
    LabelRecord("a", "x", "ann"),
    LabelRecord("a", "x", "bob"),
    LabelRecord("b", "x", "ann", "2024-01-01"),
    LabelRecord("b", "y", "ann", "2024-01-03"),
    LabelRecord("b", "x", "bob", "2024-01-02"),
    LabelRecord("c", "y", "ann"),
    LabelRecord("c", "y", "bob"),
    LabelRecord("c", "y", "cy"),
    LabelRecord("d", "x", "cy"),
    LabelRecord("e", "x"),
    LabelRecord("e", "y"),
]


def test_records_by_annotator() -> None:
    """The later label of ann counts; cy shares one item with each; labels without a name all count, in no pair."""
    found = agreement(RECORDS)
    assert (found.n_items, found.n_multiple, found.n_labels, found.n_annotators) == (5, 4, 10, 3)
    assert found.pairs == (
        PairAgreement("ann", "bob", 3, 2 / 3),
        PairAgreement("ann", "cy", 1, 1.0),
        PairAgreement("bob", "cy", 1, 1.0),
    )
    assert found.pairwise == pytest.approx(4 / 6)
    assert found.alpha == pytest.approx(
        literal_alpha({"a": ["x", "x"], "b": ["y", "x"], "c": ["y", "y", "y"], "e": ["x", "y"]})
    )
    _, report = merge(dict.fromkeys("abcde"), RECORDS, on_conflict="keep")
    assert found.majority_share == report.agreement
    record = json.loads(json.dumps(found.to_dict()))
    assert record["pairs"][0] == {"first": "ann", "second": "bob", "n_items": 3, "share": 2 / 3}


def draw(n: int, annotators: int, right: float, rng: np.random.Generator) -> dict[str, Sequence[str]]:
    """Annotators who give the true one of three labels with this chance, else any."""
    truth = rng.integers(3, size=(n, 1))
    said = np.where(rng.random((n, annotators)) < right, truth, rng.integers(3, size=(n, annotators)))
    return {str(i): [str(label) for label in row] for i, row in enumerate(said)}


def test_the_interval_covers_and_is_seeded() -> None:
    """Alpha of such annotators is `right` squared: two labels are bound to each other where both are not guessed."""
    rng = np.random.default_rng(7)
    held = 0
    for seed in range(120):
        found = agreement(draw(25, 3, 0.8, rng), n_resamples=300, seed=seed)
        assert found.low is not None
        assert found.high is not None
        held += found.low <= 0.64 <= found.high
    assert held >= 106, "95% of 120 are 114; fewer than 106 would happen once in a thousand times"
    votes = draw(25, 3, 0.8, rng)
    assert agreement(votes, seed=1) == agreement(votes, seed=1)
    assert agreement(votes, seed=1).low != agreement(votes, seed=2).low
    narrow, wide = agreement(votes, level=0.5), agreement(votes, level=0.99)
    assert wide.low < narrow.low < narrow.alpha < narrow.high < wide.high  # type: ignore[operator]


def test_wrong_input_is_refused() -> None:
    with pytest.raises(LabelError, match="the labels of 'a' are the string 'xy'"):
        agreement({"a": "xy"})
    with pytest.raises(LabelError, match="a label of 'a' is 1"):
        agreement({"a": [1, 2]})  # type: ignore[list-item]
    with pytest.raises(ParameterError, match=r"level=95 is no level.*0\.95"):
        agreement({}, level=95)
    with pytest.raises(ParameterError, match="n_resamples=10 is below 100"):
        agreement({}, n_resamples=10)
    with pytest.raises(ParameterError, match="seed=-1"):
        agreement({}, seed=-1)


def test_the_summary_says_all_of_it() -> None:
    found = agreement(MISSING)
    assert found.summary() == (
        "41 labels of 12 items, 11 of which have several labels. On these, 78% of the pairs of labels are equal, and "
        "the most frequent label has 89% of them. Krippendorff's alpha is 0.74 (95% interval over items 0.34 to 1.00)."
    )
    assert isinstance(found, Agreement)
    assert "too little disagreement" in agreement({"a": ["x", "x"], "b": ["y", "y"]}).summary()
