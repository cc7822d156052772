"""Leave-one-out of labels: by hand, against a literal reference, laws, and what it must not claim."""

from __future__ import annotations

import json
from importlib.resources import files
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from reference import leave_one_out as literal
from scipy import stats

import icl_select.leave_one_out as module
from icl_select import Pool, embed
from icl_select._vote_tests import right_votes
from icl_select.errors import DataError, EmbeddingError, LabelError, ParameterError
from icl_select.leave_one_out import LabelRecall, LeaveOneOut, leave_one_out
from icl_select.stats import holm

# Two directions of texts, a to e and f to i; c bears the label of the others.
X = np.array([[9, 0], [9, 1], [9, 2], [9, 3], [9, 4], [0, 9], [1, 9], [2, 9], [3, 9]], dtype=float)
LABELS = ["log in", "log in", "refund", "log in", "log in", "refund", "refund", "refund", "refund"]
IDS = list("abcdefghi")


def names(n: int) -> list[str]:
    return [f"r{row:04}" for row in range(n)]


def blobs(m: int, d: int = 8, classes: int = 3, seed: int = 0, spread: float = 0.6) -> tuple[np.ndarray, list[str]]:
    rng = np.random.default_rng(seed)
    codes = rng.integers(classes, size=m)
    x = rng.normal(size=(classes, d))[codes] + spread * rng.normal(size=(m, d))
    return x, [f"class {code}" for code in codes]


def test_two_directions_by_hand() -> None:
    """At k=1, b (between a and c, nearer to c) and c are voted wrong; at k=3, c alone.

    'refund', the most frequent label, is right for c, f, g, h, i. At k=3 the vote alone is right for a, b, d, e, and
    the baseline alone for c: p = 2 (1 + 5) / 2^5 = 0.375. At k=1: a, d, e against c, p = 2 (1 + 4) / 2^4 = 0.625.
    Holm: 2 * 0.375 for both.
    """
    report = leave_one_out(X, LABELS, IDS, ks=(3, 1))
    one, three = report.votes
    assert (report.n, report.baseline_label, report.baseline_accuracy) == (9, "refund", 5 / 9)
    assert (one.k, one.accuracy, one.only_vote, one.only_baseline, one.p_mcnemar) == (1, 7 / 9, 3, 1, 0.625)
    assert (three.k, three.accuracy, three.only_vote, three.only_baseline, three.p_mcnemar) == (3, 8 / 9, 4, 1, 0.375)
    assert [vote.p_value for vote in report.votes] == [0.625, 0.375]
    assert [vote.p_adjusted for vote in report.votes] == [0.75, 0.75]
    assert [vote.verdict for vote in report.votes] == ["no evidence"] * 2
    assert three.effect == pytest.approx(3 / 9)
    assert three.low < 3 / 9 < three.high
    assert report.report_k == 3, "what comes nearest to 8"
    assert [(one.label, one.support, one.recall) for one in report.labels] == [("refund", 5, 0.8), ("log in", 4, 1.0)]
    assert [(one.label, one.voted, one.count) for one in report.confusions] == [("refund", "log in", 1)]
    (suspect,) = report.suspects
    assert (suspect.id, suspect.label, suspect.voted, suspect.nearest, suspect.copy) == (
        "c",
        "refund",
        "log in",
        "d",
        None,
    )
    assert suspect.share == pytest.approx(1.0)
    assert suspect.similarity == pytest.approx(np.cos(np.arctan(3 / 9) - np.arctan(2 / 9)))
    assert report.n_suspects == 1
    assert report.n_copies == 0


def test_a_near_row_outweighs_two_far_ones() -> None:
    """Votes weigh by similarity: 1.0 for 'yes' against 2 * 0.1 for 'no' (uniform votes would say 'no')."""
    far = [0.1, np.sqrt(0.99)]
    x = np.array([[1, 0, 0], [1, 0.01, 0], [far[0], far[1], 0], [far[0], 0, far[1]]])
    report = leave_one_out(x, ["yes", "yes", "no", "no"], list("abcd"), ks=[3])
    assert {one.label: one.recall for one in report.labels}["yes"] == 1.0


@pytest.mark.parametrize("seed", range(6))
def test_equals_the_literal_reference(seed: int) -> None:
    """Copies make exact ties; few dimensions make neighbours that point away."""
    rng = np.random.default_rng(seed)
    m, ks = 14 + seed, (1, 3, 8)
    x = rng.normal(size=(m, 3))[rng.integers(m, size=m)]
    labels = [str(label) for label in rng.choice(["x", "y", "z"], size=m)]
    ids = [str(name) for name in rng.permutation(names(m))]
    report = leave_one_out(x, labels, ids, ks=ks, seed=seed)
    baseline = literal.most_frequent(labels)
    assert report.baseline_label == baseline
    ranked = [literal.nearest(x, ids, row) for row in range(m)]
    raw = []
    for vote, k in zip(report.votes, ks, strict=True):
        right = [literal.vote(ranked[row], labels, k)[0] == labels[row] for row in range(m)]
        assert vote.accuracy == pytest.approx(sum(right) / m)
        assert vote.p_mcnemar == pytest.approx(literal.mcnemar_p(right, [label == baseline for label in labels]))
        shuffled, behind = literal.by_chance(x, labels, ids, k, report.n_shuffles, seed)
        assert vote.shuffled_accuracy == pytest.approx(sum(shuffled) / len(shuffled) / m)
        ahead = sum(count >= sum(right) for count in shuffled)
        as_far = sum(count <= sum(right) - labels.count(baseline) for count in behind)
        assert vote.p_shuffled == pytest.approx((1 + ahead) / (1 + len(shuffled)))
        assert vote.p_drawn == pytest.approx((1 + as_far) / (1 + len(behind)))
        raw.append(max(vote.p_mcnemar, vote.p_shuffled if vote.effect > 0 else vote.p_drawn))
    assert [vote.p_value for vote in report.votes] == pytest.approx(raw)
    assert [vote.p_adjusted for vote in report.votes] == pytest.approx(holm(raw).tolist())
    answers = {ids[row]: literal.vote(ranked[row], labels, 8) for row in range(m)}
    pairs = {(labels[row], answers[ids[row]][0]) for row in range(m) if answers[ids[row]][0] != labels[row]}
    assert {(one.label, one.voted) for one in report.confusions} == pairs
    for one in report.labels:
        own = [row for row in range(m) if labels[row] == one.label]
        hits = sum(answers[ids[row]][0] == one.label for row in own)
        assert (one.support, one.recall) == (len(own), pytest.approx(hits / len(own)))
    clear = {
        ids[row]
        for row in range(m)
        if answers[ids[row]][0] != labels[row] and answers[ids[row]][1] >= 2 / 3 and answers[ids[row]][2] >= 3
    }
    assert {suspect.id for suspect in report.suspects if suspect.copy is None} <= clear
    assert clear <= {suspect.id for suspect in report.suspects}
    for suspect in report.suspects:
        assert suspect.voted == answers[suspect.id][0]
        assert suspect.share == pytest.approx(answers[suspect.id][1])


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 10_000), st.integers(2, 30), st.booleans())
def test_the_order_and_the_scale_of_rows_decide_nothing(seed: int, m: int, whole: bool) -> None:
    rng = np.random.default_rng(seed)
    x = rng.integers(-1, 2, size=(m, 3)).astype(float) if whole else rng.normal(size=(m, 3))
    x[~x.any(axis=1)] = 1.0
    labels, ids = [str(label) for label in rng.integers(3, size=m)], names(m)
    report = leave_one_out(x, labels, ids, ks=(1, 4), seed=1)
    order = rng.permutation(m)
    scale = 2.0 ** rng.integers(-3, 4, size=(m, 1))
    moved = leave_one_out((x * scale)[order], [labels[i] for i in order], [ids[i] for i in order], ks=(1, 4), seed=1)
    assert moved == report


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 10_000), st.integers(4, 30))
def test_a_copy_with_another_label_is_at_the_top(seed: int, m: int) -> None:
    x, labels = blobs(m, seed=seed)
    row = seed % m
    x, labels = np.vstack([x, 2.0 * x[row]]), [*labels, "another"]
    report = leave_one_out(x, labels, names(m + 1))
    pair = {names(m + 1)[row], names(m + 1)[m]}
    assert {suspect.id for suspect in report.suspects[:2]} == pair
    assert {suspect.copy for suspect in report.suspects[:2]} == pair
    assert report.suspects[0].voted != report.suspects[0].label or report.suspects[1].voted == report.suspects[1].label
    assert report.n_copies == 2
    same = leave_one_out(x, [*labels[:-1], labels[row]], names(m + 1))
    assert all(suspect.copy is None for suspect in same.suspects), "copies that agree contradict nobody"


def test_of_three_copies_the_odd_one_is_suspect() -> None:
    x, labels = blobs(30)
    x = np.vstack([x, x[0], x[0]])
    report = leave_one_out(x, [*labels, labels[0], "odd"], names(32))
    assert [suspect.id for suspect in report.suspects if suspect.copy is not None] == ["r0031"]


def test_fast_votes_are_those_of_the_scorer() -> None:
    """What is shuffled is what is reported: the same rows are right."""
    for seed in range(20):
        rng = np.random.default_rng(seed)
        x, codes = rng.normal(size=(40, 4)), rng.integers(4, size=40)
        x[::5] = x[1::5]
        ballots = module._vote(x, [str(code) for code in codes], names(40), [1, 2, 3, 8, 39], 8)
        found = right_votes(ballots.nearest, ballots.similar, codes, np.array([1, 2, 3, 8, 39]))
        assert found.tolist() == [
            sum(said == str(code) for said, code in zip(voted, codes, strict=True)) for voted in ballots.voted.values()
        ]


@pytest.mark.parametrize(("labels", "d"), [("balanced", 3), ("drawn", 3), ("skewed", 32)])
def test_random_labels_are_hardly_ever_called_better(labels: str, d: int) -> None:
    """At most 5% of 40 sets, with binomial room; a baseline of the other rows alone would be 0% right if balanced."""
    rng = np.random.default_rng(20240607)
    better = 0
    for seed in range(40):
        if labels == "balanced":
            codes = rng.permutation(np.arange(60) % 2)
        else:
            codes = rng.choice(3, size=60, p=[1 / 3] * 3 if labels == "drawn" else [0.7, 0.2, 0.1])
        x = np.repeat(rng.normal(size=(30, d)), 2, axis=0) + 1e-3 * rng.normal(size=(60, d))
        report = leave_one_out(x, [str(code) for code in codes], names(60), seed=seed)
        assert report.baseline_accuracy >= 1 / 3
        better += any(vote.verdict == "better" for vote in report.votes)
    assert better <= 3


def test_labels_that_follow_the_vectors_are_better_and_the_contrary_is_worse() -> None:
    x, labels = blobs(120)
    report = leave_one_out(x, labels, names(120))
    assert {vote.verdict for vote in report.votes} == {"better"}
    assert {vote.p_value for vote in report.votes} == {1 / 1001}, "no p is below what a thousand shuffles can show"
    # Every row has one neighbour far closer than all others, of the other label: neighbours mislead.
    rng = np.random.default_rng(0)
    pairs = np.repeat(rng.normal(size=(60, 16)), 2, axis=0) + 1e-2 * rng.normal(size=(120, 16))
    (vote,) = leave_one_out(pairs, ["a", "b"] * 60, names(120), ks=[1]).votes
    assert (vote.accuracy, vote.verdict, vote.mark) == (0.0, "worse", "−")
    assert vote.p_value == vote.p_drawn == 1 / 1000


def test_equally_likely_labels_are_hardly_ever_called_worse() -> None:
    """The most frequent of equally likely labels is ahead of any vote by luck; McNemar's test alone calls 11% worse."""
    rng = np.random.default_rng(20240607)
    worse = 0
    for seed in range(40):
        x, codes = rng.normal(size=(60, 3)), rng.integers(2, size=60)
        report = leave_one_out(x, [str(code) for code in codes], names(60), seed=seed)
        worse += any(vote.verdict == "worse" for vote in report.votes)
    assert worse <= 3


def test_detectable_difference_has_the_power_it_names() -> None:
    x, labels = blobs(200, classes=4, spread=4.0)
    (vote,) = leave_one_out(x, labels, names(200), ks=[5]).votes
    n = vote.only_vote + vote.only_baseline
    assert vote.detectable_difference is not None

    def power(difference: float) -> float:
        share = 0.5 + difference * 200 / n / 2
        wins = np.arange(n + 1)
        rejected = np.array([stats.binomtest(int(w), n).pvalue <= 0.05 and w > n / 2 for w in wins])
        return float(stats.binom.pmf(wins, n, share)[rejected].sum())

    assert power(vote.detectable_difference) == pytest.approx(0.8, abs=1e-6)
    few = leave_one_out(X, LABELS, IDS, ks=[3]).votes[0]
    assert few.detectable_difference is None, "of five rows that differ not even five of five reject at 5%"


def test_more_voters_than_rows_one_label_and_a_lonely_label() -> None:
    report = leave_one_out(X, LABELS, IDS)
    assert [vote.k for vote in report.votes] == [1, 3, 5, 8], "16 means all eight others, as 8 does"
    assert report.report_k == 8
    assert any(note.startswith("k = 16 is more than the 8 other rows") for note in report.notes)
    one = leave_one_out(X, ["only"] * 9, IDS)
    assert {(vote.accuracy, vote.effect, vote.p_value, vote.verdict) for vote in one.votes} == {
        (1.0, 0.0, 1.0, "no evidence")
    }
    assert any("one label" in note for note in one.notes)
    assert one.suspects == ()
    assert "no difference could have been found" in one.summary()
    lonely = leave_one_out(X[[0, 1, 5]], ["a", "a", "typo"], IDS[:3])
    assert [(one.label, one.support, one.recall) for one in lonely.labels] == [("a", 2, 1.0), ("typo", 1, None)]
    assert any("single row bears (1)" in note for note in lonely.notes)
    tie = leave_one_out(X[:4], ["z", "z", "a", "a"], IDS[:4])
    assert tie.baseline_label == "a", "of equally frequent ones the first in the alphabet"
    two = leave_one_out([[1, 0], [0, 1]], ["a", "b"], ["x", "y"])
    assert (two.votes[0].accuracy, two.suspects) == (0.0, ()), "one voter is no clear vote"


def test_neighbours_that_point_away_make_nothing_suspect() -> None:
    """Corners of a simplex around the origin: every cosine is -1/5, so no vote has weight."""
    report = leave_one_out(np.eye(6) - 1 / 6, ["a", "b", "b", "b", "b", "b"], names(6), ks=[5])
    assert report.votes[0].accuracy < 1.0
    assert report.suspects == ()
    x = np.array([[10, 0], [9, 1], [-10, 1], [-10, -1], [-10, 2]])
    alone = leave_one_out(x, ["a", "b", "b", "b", "b"], names(5), ks=[4])
    assert alone.labels[1] == LabelRecall("a", 1, None)
    assert alone.suspects == (), "all of the votes, but from one row"


BAD: list[tuple[dict[str, Any], type[Exception], str]] = [
    ({"labels": [*LABELS[:-1], None]}, LabelError, "the label of 'i' is None. Pass the labelled rows only"),
    ({"labels": [], "ids": [], "x": np.empty((0, 2))}, LabelError, "at least two labelled rows.*got 0"),
    ({"labels": ["a"], "ids": ["x"], "x": X[:1]}, LabelError, "got 1"),
    ({"x": np.where(np.arange(9)[:, None] == 4, 0.0, X)}, EmbeddingError, r"the vector of 'e' \(row 4 of x\) is zero"),
    ({"x": np.where(np.arange(9)[:, None] == 4, np.nan, X)}, EmbeddingError, "row 4 of x holds NaN"),
    ({"x": X[:8]}, EmbeddingError, "x has 8 rows for 9 labels"),
    ({"ids": IDS[:8]}, DataError, "8 ids for 9 labels"),
    ({"ids": [*IDS[:8], "a"]}, DataError, "'a' names more than one labelled row"),
    ({"ks": []}, ParameterError, "ks is empty"),
    ({"ks": [0]}, ParameterError, "k=0 is below 1"),
    ({"ks": [1.5]}, ParameterError, "not a whole number"),
    ({"alpha": 0.0}, ParameterError, "alpha=0.0 is no level"),
    ({"alpha": 1e-9}, ParameterError, "from 0.001 to 0.5"),
    ({"seed": -1}, ParameterError, "seed=-1 is below 0"),
    ({"keep": 0}, ParameterError, "keep=0 is below 1"),
]


@pytest.mark.parametrize(("change", "kind", "words"), BAD)
def test_what_cannot_be_examined_is_refused(change: dict[str, Any], kind: type[Exception], words: str) -> None:
    with pytest.raises(kind, match=words):
        leave_one_out(**{"x": X, "labels": LABELS, "ids": IDS, **change})


def test_blocks_and_the_length_of_the_list_change_nothing_else(monkeypatch: pytest.MonkeyPatch) -> None:
    x, labels = blobs(90, spread=3.0)
    report = leave_one_out(x, labels, names(90))
    assert report.n_suspects > 3
    short = leave_one_out(x, labels, names(90), keep=2)
    assert short.suspects == report.suspects[:2]
    assert short.n_suspects == report.n_suspects
    monkeypatch.setattr(module, "_BLOCK", 7)
    assert leave_one_out(x, labels, names(90)) == report
    assert leave_one_out(x, labels, names(90), seed=1).votes != report.votes, "the seed shuffles"


def test_json_and_back() -> None:
    x, labels = blobs(40, spread=2.0)
    report = leave_one_out(np.vstack([x, x[:1]]), [*labels, "other"], names(41))
    record = json.loads(json.dumps(report.to_dict(), allow_nan=False))
    assert LeaveOneOut.from_dict({**record, "schema": "more is ignored"}) == report
    del record["votes"][0]["p_value"]
    with pytest.raises(DataError, match=r"lacks 'p_value' \(Vote\)"):
        LeaveOneOut.from_dict(record)
    del record["suspects"]
    with pytest.raises(DataError, match="lacks 'suspects'"):
        LeaveOneOut.from_dict(record)


def test_the_summary_claims_no_more_than_was_found() -> None:
    assert leave_one_out(X, LABELS, IDS, ks=(1, 3)).summary() == (
        "Leave-one-out over 9 labelled rows with 2 labels: the 3 nearest other rows vote for the right label in 88.9% "
        "of them, always answering 'refund' is right in 55.6%. Difference +33.3 points (95% interval -17.0 to +71.6); "
        "verdict: no evidence (p = 0.75, adjusted over 2 values of k), which is not 'equal': so few rows are answered "
        "differently that no difference could have been found. With shuffled labels the vote reaches 39.3%. This "
        "speaks of these labels and these vectors, not of a way of selecting and not of a language model. Labels worth "
        "a second look: 1, first 'c' ('refund'; its neighbours vote 'log in' with 100%)."
    )
    x, labels = blobs(120)
    better = leave_one_out(np.vstack([x, x[:1]]), [*labels, "other"], names(121)).summary()
    assert "verdict: better (p = " in better
    assert "not of a language model" in better
    assert "Note: no row can vote for the labels that a single row bears (1); 2 rows have a copy among" in better
    assert "first 'r0120' ('other'; 'r0000' has the same direction and bears another label)." in better


@pytest.fixture(scope="module")
def demo() -> tuple[Pool, np.ndarray]:
    pool = Pool.from_jsonl(str(files("icl_select") / "data" / "demo_pool.jsonl"), text="{subject}\n{body}")
    return pool, np.asarray(embed(pool, "hash", cache=False, progress=False))


def test_the_shipped_pool_and_labels_spoilt_on_purpose(demo: tuple[Pool, np.ndarray]) -> None:
    pool, x = demo
    labels = [str(label) for label in pool.labels]
    report = leave_one_out(x, labels, pool.ids)
    assert (report.n, report.report_k, report.baseline_label) == (1500, 8, "delivery")
    assert report.baseline_accuracy == 332 / 1500
    assert report.n_copies == 24, "the shipped pool repeats twelve messages"
    assert {vote.verdict for vote in report.votes} == {"better"}
    unit = x / np.linalg.norm(x, axis=1, keepdims=True)
    similar = unit @ unit.T
    np.fill_diagonal(similar, -2.0)
    nearest = np.argsort(-similar, axis=1, kind="stable")[:, 0]
    first = np.mean([labels[near] == label for near, label in zip(nearest, labels, strict=True)])
    assert report.votes[0].accuracy == pytest.approx(first, abs=0.002), "up to ties"
    assert not any(suspect.copy for suspect in report.suspects)

    rng = np.random.default_rng(0)
    words = sorted(set(labels))
    spoilt = sorted(rng.choice(1500, 40, replace=False).tolist())
    for row in spoilt:
        labels[row] = str(rng.choice([word for word in words if word != labels[row]]))
    found = leave_one_out(x, labels, pool.ids)
    wrong = {pool.ids[row] for row in spoilt}
    assert len(wrong & {suspect.id for suspect in found.suspects}) >= 30, "most of the wrong labels are listed"
    assert {suspect.id for suspect in found.suspects[:10]} <= wrong, "and they come first"
