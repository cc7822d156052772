"""The knn baseline by hand and against a literal vote, the fakes, and the seam for language models."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from fractions import Fraction
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from icl_select.errors import DataError, LabelError, ParameterError, PromptError, UnknownNameError
from icl_select.score import (
    Generation,
    KnnScorer,
    LanguageModel,
    Loglik,
    ModelScorer,
    Scorer,
    TableScorer,
    load_scorer,
    scorer_names,
)
from icl_select.score import load as load_module
from icl_select.types import Demonstration, Prompt, ScoreItem


def item(*votes: tuple[str, float], choices: tuple[str, ...] | None = ("a", "b", "c"), id_: str = "q") -> ScoreItem:
    shown = tuple(Demonstration(f"d{i}", label, similarity) for i, (label, similarity) in enumerate(votes))
    return ScoreItem(id_, shown, choices)


def answer(scorer: KnnScorer, asked: ScoreItem) -> str:
    return scorer.score([asked])[0].output


def test_vote_by_hand() -> None:
    """0.9 for a against 0.5 + 0.45 for b."""
    asked = item(("a", 0.9), ("b", 0.5), ("b", 0.45))
    got = KnnScorer().score([asked])[0]
    assert (got.id, got.output) == ("q", "b")
    assert got.scores == pytest.approx({"a": 0.9 / 1.85, "b": 0.95 / 1.85, "c": 0.0})
    assert got.info == {"voters": 3}
    assert answer(KnnScorer(k=1), asked) == "a"
    assert answer(KnnScorer(k=2), asked) == "a"
    assert answer(KnnScorer(k=3, weighting="uniform"), asked) == "b"


def test_negative_similarities_weigh_nothing() -> None:
    got = KnnScorer().score([item(("b", -0.9), ("b", -0.8), ("a", 0.01))])[0]
    assert got.output == "a"
    assert got.scores == {"a": 1.0, "b": 0.0, "c": 0.0}


def test_ties_go_to_the_nearest() -> None:
    assert answer(KnnScorer(weighting="uniform"), item(("b", 0.5), ("a", 0.9))) == "a"
    assert answer(KnnScorer(), item(("b", 0.3), ("b", 0.3), ("a", 0.6))) == "a"
    assert answer(KnnScorer(), item(("c", 0.5), ("b", 0.5))) == "c"
    without_weight = KnnScorer().score([item(("c", -0.5), ("b", -0.1))])[0]
    assert without_weight.output == "b"
    assert set(without_weight.scores.values()) == {0.0}


def test_sums_do_not_depend_on_their_order() -> None:
    """Ten times 0.1 is 1.0 exactly when summed exactly, so it ties with 1.0, and the nearest wins."""
    votes = [("a", 0.1)] * 10 + [("b", 1.0)]
    assert answer(KnnScorer(), item(*votes)) == "b"
    assert answer(KnnScorer(), item(*votes[::-1])) == "b"


@settings(deadline=None)
@given(
    votes=st.lists(st.tuples(st.sampled_from("abc"), st.floats(-1, 1)), min_size=1, max_size=12),
    k=st.one_of(st.none(), st.integers(1, 14)),
    weighting=st.sampled_from(["similarity", "uniform"]),
)
def test_equals_a_literal_vote(votes: list[tuple[str, float]], k: int | None, weighting: str) -> None:
    nearest = sorted(votes, key=lambda vote: -vote[1])[:k]
    totals = {
        label: float(sum(Fraction(max(s, 0.0)) if weighting == "similarity" else 1 for v, s in nearest if v == label))
        for label, _ in nearest
    }
    best = next(label for label, _ in nearest if totals[label] == max(totals.values()))
    assert answer(KnnScorer(k, weighting), item(*votes)) == best


def test_generation_copies_the_nearest_output() -> None:
    got = KnnScorer().score([item(("far", 0.1), ("near", 0.9), choices=None)])[0]
    assert (got.output, got.scores, got.info) == ("near", {}, {"copied_from": "d1"})


def test_without_demonstrations_the_prediction_is_empty_and_says_so() -> None:
    for choices in (("a", "b"), None):
        got = KnnScorer().score([item(choices=choices)])[0]
        assert got.output == ""
        assert got.info == {"empty": "no demonstrations"}
    assert KnnScorer().score([]) == []


def test_a_label_outside_the_choices() -> None:
    with pytest.raises(LabelError, match=r"'d1' bears the label 'z'.*'a', 'b', 'c'.*same label words"):
        KnnScorer().score([item(("a", 0.9), ("z", 0.1))])


def test_names_parse_and_print() -> None:
    for name in ("knn", "knn(k=5)", "knn(k=1, weighting='uniform')"):
        scorer = load_scorer(name)
        assert isinstance(scorer, KnnScorer)
        assert isinstance(scorer, Scorer)
        assert scorer.name == "knn"
        assert scorer.spec == scorer.versions["scorer"] == name
        assert not scorer.needs_prompt
    assert "knn" in scorer_names()
    assert "icl-select" in load_scorer("knn").versions
    assert load_scorer("knn(weighting='similarity')").versions["scorer"] == "knn"


@pytest.mark.parametrize(
    ("name", "error", "problem"),
    [
        ("kn", UnknownNameError, "Did you mean 'knn'"),
        ("knn(kk=1)", UnknownNameError, "no parameter 'kk'. Did you mean 'k'"),
        ("knn(k=0)", ParameterError, "k=0"),
        ("knn(k=1.5)", ParameterError, "k=1.5"),
        ("knn(weighting='cosine')", UnknownNameError, "unknown weighting 'cosine'"),
        ("knn(", ParameterError, "cannot read"),
    ],
)
def test_bad_names(name: str, error: type[Exception], problem: str) -> None:
    with pytest.raises(error, match=problem):
        load_scorer(name)


def test_other_packages_add_scorers_but_cannot_take_ours(monkeypatch: pytest.MonkeyPatch) -> None:
    points = {"oracle": "icl_select.score.table:TableScorer", "knn": "icl_select.score.table:TableScorer"}
    monkeypatch.setattr(load_module, "_plugins", lambda: points)
    assert isinstance(load_scorer("knn"), KnnScorer)
    with pytest.raises(UnknownNameError, match="scorer 'oracle' has no parameter 'size'"):
        load_scorer("oracle(size=3)")
    assert scorer_names() == ["knn", "oracle"]


def test_table() -> None:
    table = TableScorer({"q": "yes"}, name="gold", needs_prompt=True)
    assert isinstance(table, Scorer)
    assert (table.name, table.needs_prompt) == ("gold", True)
    assert table.score([item()])[0].output == "yes"
    with pytest.raises(DataError, match="none for item 'other'"):
        table.score([item(id_="other")])
    assert TableScorer({}, default="no").score([item()])[0].output == "no"


class Fake:
    """Log-probability of a choice: minus its length for each letter that the prompt lacks."""

    name = "fake"
    versions: Mapping[str, str] = {"fake": "1"}

    def loglik(self, prompts: Sequence[Prompt], choices: Sequence[Sequence[str]]) -> Loglik:
        width = max(map(len, choices))
        values, tokens = np.full((len(prompts), width), np.nan), np.zeros((len(prompts), width), dtype=np.int64)
        for i, (prompt, words) in enumerate(zip(prompts, choices, strict=True)):
            for j, word in enumerate(words):
                assert word.startswith("\n")
                tokens[i, j] = len(word)
                values[i, j] = -float(sum(letter not in prompt.text for letter in word))
        return Loglik(values, tokens)

    def generate(self, prompts: Sequence[Prompt], *, max_tokens: int, stop: Sequence[str]) -> list[Generation]:
        return [Generation(prompt.text[:max_tokens], min(len(prompt.text), max_tokens), True) for prompt in prompts]


def prompted(id_: str, text: str, choices: tuple[str, ...] | None) -> ScoreItem:
    return ScoreItem(id_, (), choices, Prompt(id_, text, (), (), (), len(text)))


def test_a_language_model_slots_in() -> None:
    assert isinstance(Fake(), LanguageModel)
    scorer = ModelScorer(Fake(), max_tokens=3)
    assert isinstance(scorer, Scorer)
    assert scorer.needs_prompt
    assert scorer.name == "fake"
    assert scorer.versions == {
        "fake": "1",
        "scorer": "model(max_tokens=3, prefix='\\n', rule='mean', stop=['\\n'])",
    }
    asked = [prompted("1", "\nab", ("zz", "a", "bz")), prompted("2", "story", None), prompted("3", "\nz", ("a", "z"))]
    got = scorer.score(asked)
    assert [p.id for p in got] == ["1", "2", "3"]
    assert [p.output for p in got] == ["a", "sto", "z"]
    assert got[0].scores == {"zz": pytest.approx(-2 / 3), "a": 0.0, "bz": pytest.approx(-1 / 3)}
    assert got[2].scores == {"a": pytest.approx(-0.5), "z": 0.0}
    assert got[0].info == {"tokens": [3, 2, 3], "truncated": False, "prompt_tokens": 3}
    assert got[1].info == {"tokens": 3, "truncated": True, "prompt_tokens": 5}


def test_length_normalisation_can_change_the_answer() -> None:
    """Letters of "xyyyyy" that are missing: 1 of 7 tokens; of "x": 1 of 2. Equal sums, different means."""
    asked = [prompted("1", "\ny", ("x", "xyyyyy"))]
    assert ModelScorer(Fake(), rule="mean").score(asked)[0].output == "xyyyyy"
    assert ModelScorer(Fake(), rule="sum").score(asked)[0].output == "x"


def test_a_language_model_needs_prompts_and_a_known_rule() -> None:
    with pytest.raises(PromptError, match="item 'q' has no prompt"):
        ModelScorer(Fake()).score([item()])
    with pytest.raises(UnknownNameError, match="unknown scoring rule 'median'"):
        ModelScorer(Fake(), rule="median")
    assert not isinstance(SimpleNamespace(name="x"), Scorer)
