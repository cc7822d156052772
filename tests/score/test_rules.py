"""Scoring rules by hand, against literal transcriptions of their papers, and by what must hold for any numbers."""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from icl_select.errors import PromptError
from icl_select.score import RULES, HashModel, ModelScorer, TableModel
from icl_select.types import Prompt, ScoreItem

LOGPROB = st.floats(-60, 0)


def prompt(text: str) -> Prompt:
    return Prompt(text, text, ({"role": "user", "content": text},), (), (), len(text))


def table(**rows: Mapping[str, float]) -> TableModel:
    """Probabilities of label words after a prompt, each word behind a line break."""
    return TableModel({text: {f"\n{word}": math.log(p) for word, p in row.items()} for text, row in rows.items()})


def literal(rule: str, values: list[float], tokens: list[int], others: list[list[float]]) -> list[float]:
    """The papers' formulas with plain probabilities."""
    if rule == "mean":
        return [value / count for value, count in zip(values, tokens, strict=True)]
    if rule == "sum":
        return values
    if rule == "pmi":
        return [math.log(math.exp(a) / math.exp(b)) for a, b in zip(values, others[0], strict=True)]
    p = [math.exp(value) for value in values]
    p_hat = [one / sum(p) for one in p]
    shares = [[math.exp(v) / sum(math.exp(w) for w in row) for v in row] for row in others]
    prior = [sum(column) / len(others) for column in zip(*shares, strict=True)]
    q = [one / before for one, before in zip(p_hat, prior, strict=True)]
    return [math.log(one / sum(q)) for one in q]


@settings(deadline=None)
@given(st.data(), st.sampled_from(sorted(RULES)))
def test_equals_the_formula(data: st.DataObject, rule: str) -> None:
    c = data.draw(st.integers(1, 5))
    values = data.draw(st.lists(LOGPROB, min_size=c, max_size=c))
    tokens = data.draw(st.lists(st.integers(1, 9), min_size=c, max_size=c))
    others = data.draw(st.lists(st.lists(LOGPROB, min_size=c, max_size=c), min_size=1, max_size=3))
    got = RULES[rule].scores(np.array(values), np.array(tokens), np.array(others))
    assert got.tolist() == pytest.approx(literal(rule, values, tokens, others), rel=1e-9, abs=1e-9)


def test_contextual_by_hand() -> None:
    """The model says 0.5 : 0.3 here; of the meaningless queries 0.8 : 0.2 and 0.2 : 0.2, on average 0.65 : 0.35.

    0.625 / 0.65 and 0.375 / 0.35 are 0.9615 and 1.0714, so the second wins: 0.473 : 0.527.
    """
    model = table(
        here={"a": 0.5, "b": 0.3},
        blank={"a": 0.8, "b": 0.2},
        none={"a": 0.2, "b": 0.2},
    )
    item = ScoreItem("q", (), ("a", "b"), prompt("here"), content_free=(prompt("blank"), prompt("none")))
    assert ModelScorer(model).score([item])[0].output == "a"
    got = ModelScorer(model, rule="contextual").score([item])[0]
    assert got.output == "b"
    assert {word: round(math.exp(score), 3) for word, score in got.scores.items()} == {"a": 0.473, "b": 0.527}
    assert got.info["mean_logprob"] == pytest.approx(math.log(0.5) / 2), "whatever the rule"


def test_pmi_by_hand() -> None:
    """ "a" is likely after anything: 0.5 / 0.8 < 1; "b" gains by the prompt: 0.3 / 0.1 = 3."""
    model = TableModel(
        {
            "here": {"\na": math.log(0.5), "\nb": math.log(0.3)},
            "answer:": {"\na": math.log(0.8), "\nb": math.log(0.1)},
        }
    )
    item = ScoreItem("q", (), ("a", "b"), prompt("here"), premise="answer:")
    got = ModelScorer(model, rule="pmi").score([item])[0]
    assert got.output == "b"
    assert got.scores == {"a": pytest.approx(math.log(0.625)), "b": pytest.approx(math.log(3))}


@settings(deadline=None, max_examples=30)
@given(st.text(min_size=1, max_size=8), st.lists(st.text(min_size=1, max_size=5), min_size=1, max_size=5, unique=True))
def test_what_is_compared_with_itself_is_uniform(text: str, words: list[str]) -> None:
    """The content-free prompt scores all choices alike, and its first choice wins; the premise gains nothing."""
    asked = prompt(text)
    item = ScoreItem("q", (), tuple(words), asked, content_free=(asked,), premise=text)
    got = ModelScorer(HashModel(), rule="contextual").score([item])[0]
    assert list(got.scores.values()) == pytest.approx([-math.log(len(words))] * len(words))
    assert set(ModelScorer(HashModel(), rule="pmi").score([item])[0].scores.values()) == {0.0}


@settings(deadline=None, max_examples=30)
@given(st.data())
def test_calibration_forgets_what_the_model_always_prefers(data: st.DataObject) -> None:
    """Adding the same to a choice after every prompt changes no calibrated score."""
    c = data.draw(st.integers(2, 4))
    row = st.lists(LOGPROB, min_size=c, max_size=c)
    values, other, bias = (np.array(data.draw(row)) for _ in range(3))
    tokens = np.ones(c, dtype=np.int64)
    for rule in ("contextual", "pmi"):
        before = RULES[rule].scores(values, tokens, other[None])
        after = RULES[rule].scores(values + bias, tokens, (other + bias)[None])
        assert after.tolist() == pytest.approx(before.tolist(), abs=1e-9)


def test_rules_say_what_they_read() -> None:
    reads = {rule: ModelScorer(HashModel(), rule=rule).reads for rule in RULES}
    none: frozenset[str] = frozenset()
    assert reads == {"mean": none, "sum": none, "contextual": {"content_free"}, "pmi": {"premise"}}
    assert "rule='pmi'" in ModelScorer(HashModel(), rule="pmi").versions["scorer"]


def test_without_what_they_read() -> None:
    item = ScoreItem("q7", (), ("a", "b"), prompt("here"))
    with pytest.raises(PromptError, match=r"content_free, and item 'q7' has none.*meaningless queries"):
        ModelScorer(HashModel(), rule="contextual").score([item])
    with pytest.raises(PromptError, match=r"premise, and item 'q7' has none.*announces an answer"):
        ModelScorer(HashModel(), rule="pmi").score([item])
    written = ScoreItem("q8", (), None, prompt("here"))
    assert ModelScorer(HashModel(), rule="pmi").score([written])[0].id == "q8"


def test_other_rules_do_not_ask_for_what_they_do_not_read() -> None:
    model = HashModel()
    item = ScoreItem("q", (), ("a", "b"), prompt("here"), content_free=(prompt("blank"),), premise="answer:")
    ModelScorer(model).score([item])
    assert model.usage.requests == 1


def test_what_items_share_is_asked_once() -> None:
    """Three prompts, one premise with one set of choices and one with another: five requests in one call."""
    model = HashModel()
    items = [ScoreItem(f"{i}", (), ("a", "b"), prompt(f"here {i}"), premise="answer:") for i in range(2)]
    items.append(ScoreItem("2", (), ("c", "d"), prompt("here 2"), premise="answer:"))
    together = ModelScorer(model, rule="pmi").score(items)
    assert (model.usage.requests, model.calls) == (5, 1)
    alone = [ModelScorer(HashModel(), rule="pmi").score([item])[0] for item in items]
    assert [p.scores for p in together] == [p.scores for p in alone]


def test_a_chat_model_reads_the_premise_as_a_message() -> None:
    item = ScoreItem("q", (), ("a", "b"), prompt("answer:"), premise="answer:")
    assert set(ModelScorer(HashModel(chat=True), rule="pmi").score([item])[0].scores.values()) == {0.0}
