"""How unsure a model was: by hand, whatever the rule, and end to end into full Vote-k."""

from __future__ import annotations

import math

import numpy as np
import pytest

from icl_select.errors import FeedbackError, ModelError, UnknownNameError
from icl_select.methods import select
from icl_select.score import RULES, HashModel, ModelScorer, TableModel, uncertainty
from icl_select.types import IntArray, Prediction, Prompt, ScoreItem


def asked(id_: str, choices: tuple[str, ...] | None = None) -> ScoreItem:
    shown = Prompt(id_, id_, (), (), (), 1)
    return ScoreItem(id_, (), choices, shown, content_free=(Prompt("", "N/A", (), (), (), 1),), premise="answer:")


@pytest.mark.parametrize("rule", sorted(RULES))
def test_choices_by_hand(rule: str) -> None:
    """Mean token NLL of the options: 2/2 and 6/3 for the first item, 8/2 and 2.4/3 for the second, by any rule."""
    rows = {"q1": {"\na": -2.0, "\nbb": -6.0}, "q2": {"\na": -8.0, "\nbb": -2.4}}
    model = TableModel({**rows, "N/A": {"\na": -1.0, "\nbb": -9.0}, "answer:": {"\na": -1.0, "\nbb": -9.0}})
    items = [asked("q1", ("a", "bb")), asked("q2", ("a", "bb"))]
    answers = ModelScorer(model, rule=rule).score(items)
    for variant in ("paper", "official"):
        assert uncertainty(answers, items, variant=variant).tolist() == [1.0, pytest.approx(0.8)]


def test_texts_by_hand() -> None:
    """Four tokens of log-probability -0.5 and one: the mean is the same; the published sum prefers the longer text."""
    model = TableModel(texts={"long": "four", "short": "1"}, each=-0.5)
    items = [asked("long"), asked("short")]
    answers = ModelScorer(model).score(items)
    assert uncertainty(answers, items).tolist() == [0.5, 0.5]
    official = uncertainty(answers, items, variant="official")
    assert official.tolist() == pytest.approx([-4 * math.exp(-0.5), -math.exp(-0.5)])
    assert official[0] < official[1], "the longer text counts as more confident there"


def test_without_log_probabilities() -> None:
    items = [asked("q")]
    answers = ModelScorer(TableModel(texts={"q": "text"}, each=None)).score(items)
    for variant in ("paper", "official"):
        with pytest.raises(
            ModelError, match=r"no log-probability with its answer to item 'q'.*vote_k\(stage='graph'\)"
        ):
            uncertainty(answers, items, variant=variant)
    with pytest.raises(ModelError, match="no log-probability"):
        uncertainty([Prediction("q", "a")], [asked("q", ("a", "b"))])


def test_what_does_not_belong_together() -> None:
    answers = [Prediction("q", "a", {}, {"mean_logprob": -1.0})]
    with pytest.raises(FeedbackError, match=r"1 predictions do not answer these 1 items"):
        uncertainty(answers, [asked("other")])
    with pytest.raises(FeedbackError, match=r"1 predictions do not answer these 2 items"):
        uncertainty(answers, [asked("q"), asked("q2")])
    with pytest.raises(UnknownNameError, match="Did you mean 'paper'"):
        uncertainty(answers, [asked("q")], variant="papers")


def test_full_vote_k_takes_it() -> None:
    rng = np.random.default_rng(0)
    x = rng.normal(size=(60, 8))
    items = [asked(f"row {i}", ("yes", "no")) for i in range(60)]

    def feedback(labelled: IntArray) -> np.ndarray:
        return np.asarray(uncertainty(ModelScorer(HashModel()).score(items), items))

    picked = select("vote_k(k=10, stage='full')", x, 12, feedback=feedback)
    assert len(set(picked.indices.tolist())) == 12
