"""Metrics by hand, against scikit-learn, and against literal definitions."""

from __future__ import annotations

import json
from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from icl_select.errors import MetricError, UnknownNameError
from icl_select.metrics import (
    METRICS,
    accuracy,
    aggregate,
    balanced_accuracy,
    evaluate,
    exact_match,
    format_state,
    joint_goal_accuracy,
    macro_f1,
    normalise,
    parse_state,
    rouge_l,
    rouge_lsum,
    score_items,
)


def test_accuracy_is_letter_by_letter() -> None:
    assert accuracy(["a", "A", "a "], ["a", "a", "a"]).tolist() == [1, 0, 0]


@pytest.mark.parametrize(
    ("text", "form"),
    [
        ("The  Eiffel-Tower!", "eiffel tower"),
        ("a cat, an owl", "cat owl"),
        ("ﬁve", "five"),
        ("STRASSE", "strasse"),
        ("Straße", "strasse"),
        ("$5 + 3", "$5 + 3"),
        ("?", "?"),
        ("The", "the"),
        ("theatre", "theatre"),
        ("«Да», сказал", "да сказал"),
        ("", ""),
    ],
)
def test_normalise(text: str, form: str) -> None:
    assert normalise(text) == form


def test_exact_match_takes_aliases() -> None:
    predictions, references = ["the USA.", "France", "x"], [["United States", "U S A", "USA"], "france", ["y", "z"]]
    assert exact_match(predictions, references).tolist() == [1, 1, 0]
    assert exact_match(predictions, references, normalised=False).tolist() == [0, 0, 0]


PAIRS = st.lists(st.tuples(st.sampled_from("abcd"), st.sampled_from("abc")), min_size=1, max_size=30)


@settings(deadline=None)
@given(pairs=PAIRS)
@pytest.mark.filterwarnings("ignore:A single label")
def test_balanced_accuracy_and_macro_f1_equal_scikit_learn(pairs: list[tuple[str, str]]) -> None:
    metrics = pytest.importorskip("sklearn.metrics", reason="scikit-learn is not installed")
    predictions, references = [p for p, _ in pairs], [r for _, r in pairs]
    classes = sorted(set(references))
    recall = metrics.recall_score(references, predictions, labels=classes, average=None, zero_division=0.0)
    assert balanced_accuracy(predictions, references) == pytest.approx(recall.mean())
    if set(predictions) <= set(references):
        expected = metrics.balanced_accuracy_score(references, predictions)
        assert balanced_accuracy(predictions, references) == pytest.approx(expected)
    for labels in (None, ["a", "b"], ["a", "z"]):
        expected = metrics.f1_score(references, predictions, average="macro", labels=labels, zero_division=0.0)
        assert macro_f1(predictions, references, labels=labels) == pytest.approx(expected)


def test_class_metrics_by_hand() -> None:
    """a: precision 2/3, recall 1, F 0.8; b: precision 1, recall 1/2, F 2/3. The empty answer is no class."""
    predictions, references = ["a", "a", "a", "b", ""], ["a", "a", "b", "b", "c"]
    assert balanced_accuracy(predictions, references) == pytest.approx((1 + 0.5 + 0) / 3)
    assert macro_f1(predictions, references) == pytest.approx((0.8 + 2 / 3 + 0) / 3)
    assert METRICS["macro_f1"].aggregate([None, "b"], ["a", "b"]) == pytest.approx(0.5)
    assert evaluate("macro_f1", ["a", "x"], ["a", "b"], labels=["a", "b"]).mean == pytest.approx(0.5)
    assert evaluate("macro_f1", ["a", "x"], ["a", "b"]).values.tolist() == [1, 0]


def lcs(a: Sequence[str], b: Sequence[str]) -> int:
    if not a or not b:
        return 0
    table = [[0] * (len(b) + 1) for _ in range(len(a) + 1)]
    for i, x in enumerate(a):
        for j, y in enumerate(b):
            table[i + 1][j + 1] = table[i][j] + 1 if x == y else max(table[i][j + 1], table[i + 1][j])
    return table[-1][-1]


WORDS = st.lists(st.sampled_from(["red", "fox", "dog", "sun", "big"]), max_size=9)


@settings(deadline=None)
@given(predicted=WORDS, reference=WORDS)
def test_rouge_l_equals_its_definition(predicted: list[str], reference: list[str]) -> None:
    """F = 2 PR / (P + R) with P = LCS / words predicted, R = LCS / words of the reference."""
    common = lcs(predicted, reference)
    expected = 2 * common / (len(predicted) + len(reference)) if common else 0.0
    for ascii_words in (True, False):
        got = rouge_l([" ".join(predicted)], [" ".join(reference)], ascii_words=ascii_words)[0]
        assert got == pytest.approx(expected)


def test_rouge_l_by_hand() -> None:
    """Stems: "the cat sit on mat" against "a cat sat on the mat": cat, on, mat of 5 and 6 words."""
    assert rouge_l(["The cats sitting on mats."], ["a cat sat on the mat"])[0] == pytest.approx(2 * 3 / 11)
    assert rouge_l(["The cats sitting on mats."], ["a cat sat on the mat"], stemmer=False)[0] == pytest.approx(2 / 11)
    assert rouge_l(["", "x"], ["x", ""]).tolist() == [0, 0]


def test_rouge_lsum_matches_sentences_in_any_order() -> None:
    """Both sentences occur, swapped: the union over sentences finds all 4 words, one sequence only 2."""
    swapped, reference = ["red fox. big dog."], ["Big dog. Red fox."]
    assert rouge_lsum(swapped, reference)[0] == pytest.approx(1.0)
    assert rouge_l(swapped, reference)[0] == pytest.approx(0.5)
    assert rouge_lsum(["red fox\nbig dog"], reference)[0] == pytest.approx(1.0)
    assert rouge_lsum(['He said "red fox." big dog'], ['He said "red fox." big dog'])[0] == pytest.approx(1.0)


def test_rouge_of_other_scripts_needs_the_option() -> None:
    assert rouge_l(["красная лиса"], ["красная лиса"])[0] == 0
    assert rouge_l(["Красная лиса"], ["красная лиса"], ascii_words=False)[0] == 1


@pytest.mark.parametrize(
    ("text", "state"),
    [
        ("{}", {}),
        ('{"hotel-area": "Centre ", "hotel-stars": 4, "taxi-x": null}', {"hotel-area": "centre", "hotel-stars": "4"}),
        ("hotel-area: centre, train-leaveat: 08:45", {"hotel-area": "centre", "train-leaveat": "08:45"}),
        ("hotel-name: one, two  three, hotel-area: none", {"hotel-name": "one, two three"}),
    ],
)
def test_states_are_read(text: str, state: dict[str, str]) -> None:
    assert parse_state(text) == state
    assert parse_state(format_state(state)) == state


@pytest.mark.parametrize("text", ["", "centre", "[1]", '{"a": ', '{"a": {"b": "c"}}', "{" * 100_000])
def test_states_that_cannot_be_read(text: str) -> None:
    with pytest.raises(MetricError):
        parse_state(text)


@settings(deadline=None)
@given(state=st.dictionaries(st.text(max_size=5), st.text(max_size=5), max_size=4))
def test_canonical_states_round_trip(state: dict[str, str]) -> None:
    once = format_state(state)
    assert format_state(json.loads(once)) == once
    assert joint_goal_accuracy([once], [state]).tolist() == [1.0]


def test_joint_goal_accuracy() -> None:
    gold = {"hotel-area": "east|south", "hotel-stars": "4"}
    said = [
        {"hotel-stars": "4", "hotel-area": "south"},
        '{"hotel-area": "east|south", "hotel-stars": "4", "hotel-name": "none"}',
        {"hotel-area": "east"},
        {"hotel-area": "east", "hotel-stars": "4", "hotel-name": "x"},
        {"hotel-area": "north", "hotel-stars": "4"},
        "no state at all",
        "",
    ]
    assert joint_goal_accuracy(said, [gold] * 7).tolist() == [1, 1, 0, 0, 0, 0, 0]
    assert joint_goal_accuracy(["{}", "", {}], ["{}"] * 3).tolist() == [1, 0, 1]
    with pytest.raises(MetricError, match="cannot read 'broken'"):
        joint_goal_accuracy(["{}"], ["broken"])


@pytest.mark.parametrize("name", sorted(set(METRICS) - {"sql_execution"}))
def test_every_metric_gives_one_value_per_item_and_counts_what_is_missing(name: str) -> None:
    reference = '{"slot": "red fox"}'
    predictions = [reference, None, "  ", '{"slot": "blue dog"}', ""]
    values = score_items(name, predictions, [reference] * 4 + ["{}"])
    assert values.dtype == np.float64
    assert values.shape == (5,)
    assert values[0] == 1
    assert values[[1, 2, 4]].tolist() == [0, 0, 0]
    result = evaluate(name, predictions, [reference] * 4 + ["{}"])
    np.testing.assert_array_equal(result.values, values)
    assert (result.metric, result.n_empty, result.n_flagged) == (name, 3, 0)
    assert METRICS[name].name == name
    assert METRICS[name].higher_is_better
    assert score_items(name, [], []).shape == (0,)
    if METRICS[name].whole is None:
        assert result.mean == pytest.approx(values.mean())


def test_errors() -> None:
    with pytest.raises(UnknownNameError, match=r"unknown metric 'rouge'\. Did you mean 'rouge_l'"):
        score_items("rouge", [], [])
    with pytest.raises(UnknownNameError, match=r"no option 'stem'\. Did you mean 'stemmer'"):
        score_items("rouge_l", ["a"], ["a"], stem=True)
    with pytest.raises(MetricError, match="1 predictions for 2 references"):
        score_items("acc", ["a"], ["a", "b"])
    for name in ("acc", "macro_f1", "balanced_accuracy"):
        with pytest.raises(MetricError, match="0 items"):
            aggregate(name, [], [])
