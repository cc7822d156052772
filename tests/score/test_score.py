"""The knn baseline by hand and against a literal vote, the fakes, and the seam for language models."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from fractions import Fraction
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from icl_select.errors import DataError, LabelError, ModelError, ParameterError, PromptError, UnknownNameError
from icl_select.score import (
    Generation,
    HashModel,
    KnnScorer,
    LanguageModel,
    Loglik,
    ModelScorer,
    Scorer,
    TableModel,
    TableScorer,
    Usage,
    load_scorer,
    scorer_names,
)
from icl_select.score import load as load_module
from icl_select.types import Decoding, Demonstration, Prompt, ScoreItem


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
        ("transformers", ParameterError, r"scorer 'transformers' needs model. Write transformers\(model='...'\)"),
        ("openai(url='http://localhost/v1')", ParameterError, "scorer 'openai' needs model"),
        ("transformers(modle='tiny')", UnknownNameError, "no parameter 'modle'. Did you mean 'model'"),
        ("transformers(model='tiny', batchsize=4)", UnknownNameError, "Did you mean 'batch_size'"),
        ("transformers(model='tiny', rul='sum')", UnknownNameError, "Did you mean 'rule'"),
        ("vllm(rule='sum')", ParameterError, "scorer 'vllm' needs model"),
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
    assert {"knn", "oracle"} <= set(scorer_names())
    assert scorer_names() == sorted(set(scorer_names()))


def test_table() -> None:
    table = TableScorer({"q": "yes"}, name="gold", needs_prompt=True)
    assert isinstance(table, Scorer)
    assert (table.name, table.needs_prompt) == ("gold", True)
    assert table.score([item()])[0].output == "yes"
    with pytest.raises(DataError, match="none for item 'other'"):
        table.score([item(id_="other")])
    assert TableScorer({}, default="no").score([item()])[0].output == "no"


class Missing:
    """Log-probability of a choice: minus one for each of its letters that the prompt lacks; a letter is a token."""

    name = "missing"
    versions: Mapping[str, str] = {"missing": "1"}
    fingerprint = "1"
    tokenizer_name = None
    max_length = None
    chat = False

    def __init__(self) -> None:
        self.usage = Usage()
        self.decodings: list[Decoding] = []

    def loglik(self, prompts: Sequence[Prompt], choices: Sequence[Sequence[str]]) -> Loglik:
        width = max(map(len, choices))
        values, tokens = np.full((len(prompts), width), np.nan), np.zeros((len(prompts), width), dtype=np.int64)
        for i, (prompt, words) in enumerate(zip(prompts, choices, strict=True)):
            for j, word in enumerate(words):
                tokens[i, j] = len(word)
                values[i, j] = -float(sum(letter not in prompt.text for letter in word))
        lengths = np.array([len(prompt.text) for prompt in prompts])
        return Loglik(values, tokens, lengths, lengths > 5)

    def generate(self, prompts: Sequence[Prompt], decoding: Decoding) -> list[Generation]:
        self.decodings.append(decoding)
        return [
            Generation(p.text[: decoding.max_tokens], (-0.5, -1.5), 2, len(p.text) < decoding.max_tokens, len(p.text))
            for p in prompts
        ]


def prompted(id_: str, text: str, choices: tuple[str, ...] | None, **fields: Any) -> ScoreItem:
    return ScoreItem(id_, (), choices, Prompt(id_, text, (), (), (), 99), **fields)


def test_a_language_model_slots_in() -> None:
    assert isinstance(Missing(), LanguageModel)
    scorer = ModelScorer(Missing(), max_tokens=3)
    assert isinstance(scorer, Scorer)
    assert scorer.needs_prompt
    assert scorer.reads == frozenset()
    assert scorer.name == "missing"
    assert scorer.versions == {"missing": "1", "scorer": "model(max_tokens=3, rule='mean', stop=['\\n'])"}
    asked = [prompted("1", "\nab", ("zz", "a", "bz")), prompted("2", "story!", None), prompted("3", "\nz", ("a", "z"))]
    got = scorer.score(asked)
    assert [p.id for p in got] == ["1", "2", "3"]
    assert [p.output for p in got] == ["a", "sto", "z"]
    assert got[0].scores == {"zz": pytest.approx(-2 / 3), "a": 0.0, "bz": pytest.approx(-1 / 3)}
    assert got[2].scores == {"a": pytest.approx(-0.5), "z": 0.0}
    assert got[0].info == {"tokens": [3, 2, 3], "prompt_tokens": 3, "truncated": False, "mean_logprob": 0.0}
    assert got[1].info == {
        "tokens": 2,
        "prompt_tokens": 6,
        "truncated": False,
        "finished": False,
        "mean_logprob": -1.0,
        "probability_sum": pytest.approx(np.exp(-0.5) + np.exp(-1.5)),
    }


def test_what_stands_before_a_choice_is_scored_with_it() -> None:
    """The line break is missing from the prompt: one of two tokens, or none if a blank that is there stands there."""
    line, blank = prompted("1", "a b", ("a",)), prompted("2", "a b", ("a",), prefix=" ")
    got = ModelScorer(Missing()).score([line, blank, prompted("3", "a b", ("a",), prefix="")])
    assert [p.scores["a"] for p in got] == [-0.5, 0.0, 0.0]
    assert [p.info["tokens"] for p in got] == [[2], [2], [1]]


def test_an_item_says_how_it_is_decoded() -> None:
    """Equal decodings go in one call, in the order of their first."""
    model = Missing()
    long, default = Decoding(5, ("#",)), Decoding(2, (";",))
    asked = [prompted(f"{i}", f"{i}bcdef", None, decoding=how) for i, how in enumerate([None, long, default, long])]
    got = ModelScorer(model, max_tokens=2, stop=";").score(asked)
    assert [p.output for p in got] == ["0b", "1bcde", "2b", "3bcde"]
    assert model.decodings == [default, long]


def test_ties_go_to_the_first() -> None:
    assert ModelScorer(Missing()).score([prompted("1", "\n", ("b", "a", "c"))])[0].output == "b"


def test_truncated_prompts_say_so() -> None:
    got = ModelScorer(Missing()).score([prompted("1", "\n" * 6, ("b",)), prompted("2", "\n" * 5, ("b",))])
    assert [p.info["truncated"] for p in got] == [True, False]


def test_length_normalisation_can_change_the_answer() -> None:
    """Letters of "xyyyyy" that are missing: 1 of 7 tokens; of "x": 1 of 2. Equal sums, different means."""
    asked = [prompted("1", "\ny", ("x", "xyyyyy"))]
    assert ModelScorer(Missing(), rule="mean").score(asked)[0].output == "xyyyyy"
    assert ModelScorer(Missing(), rule="sum").score(asked)[0].output == "x"


def test_a_language_model_needs_prompts_choices_and_a_known_rule() -> None:
    with pytest.raises(PromptError, match="item 'q' has no prompt"):
        ModelScorer(Missing()).score([item()])
    with pytest.raises(PromptError, match="item 'q' has an empty list of choices"):
        ModelScorer(Missing()).score([prompted("q", "text", ())])
    with pytest.raises(UnknownNameError, match="unknown scoring rule 'median'"):
        ModelScorer(Missing(), rule="median")
    with pytest.raises(ParameterError, match="max_tokens=0"):
        ModelScorer(Missing(), max_tokens=0)
    assert ModelScorer(Missing()).score([]) == []
    assert not isinstance(SimpleNamespace(name="x"), Scorer)


class Choosing(TableModel):
    """A chat server without log-probabilities: takes the last choice, or another word."""

    scores_choices = False
    answer: str | None = None

    def choose(self, prompts: Sequence[Prompt], choices: Sequence[Sequence[str]]) -> list[Generation]:
        self.calls += 1
        return [Generation(self.answer or words[-1], (), 1, True, 7) for words in choices]


def test_a_model_that_only_chooses() -> None:
    got = ModelScorer(Choosing()).score([prompted("1", "text", ("a", "b"))])[0]
    assert (got.output, got.scores) == ("b", {})
    assert got.info["mean_logprob"] is None
    with pytest.raises(ParameterError, match=r"rule='sum' needs the log-probability.*only names the choice"):
        ModelScorer(Choosing(), rule="sum")
    assert got.info["outside"] is False


def test_an_answer_that_is_no_choice_stays_as_it_is(tmp_path: Path) -> None:
    """Wrong and marked, never mapped to a choice; it is kept like any other, so that it is not paid for twice."""
    refusing = Choosing()
    refusing.answer = "I cannot say"
    scorer = ModelScorer(refusing).cached(tmp_path)
    for _ in range(2):
        got = scorer.score([prompted("1", "text", ("a", "b"))])[0]
        assert (got.output, got.scores, got.info["outside"]) == ("I cannot say", {}, True)
    assert refusing.calls == 1


def test_a_model_that_returns_no_number() -> None:
    model = TableModel({"text": {"\na": float("nan")}})
    with pytest.raises(ModelError, match="no log-probability of a choice of item '1'"):
        ModelScorer(model).score([prompted("1", "text", ("a",))])


def test_the_hash_model_is_a_language_model() -> None:
    """Probabilities of the next character sum to one, and greedy text is what they say is likeliest."""
    model = HashModel(seed=3)
    assert isinstance(model, LanguageModel)
    prompt = Prompt("q", "Once", (), (), (), 4)
    alphabet = ["\n", *map(chr, range(32, 127)), "\N{REPLACEMENT CHARACTER}"]
    step = np.exp(model.loglik([prompt], [alphabet]).values[0])
    assert step.sum() == pytest.approx(1.0)
    made = model.generate([prompt], Decoding(max_tokens=1, stop=()))[0]
    assert made.text == alphabet[int(step.argmax())]
    assert made.logprobs == (pytest.approx(float(np.log(step.max()))),)
    assert (made.finished, made.prompt_tokens, model.calls, model.usage.requests) == (False, 4, 2, 2)
    long = model.generate([prompt], Decoding(max_tokens=20, stop=()))[0]
    joint = model.loglik([prompt], [[long.text]])
    assert joint.values[0, 0] == pytest.approx(sum(long.logprobs))
    stopped = model.generate([prompt], Decoding(max_tokens=20, stop=(long.text[3:5],)))[0]
    assert (stopped.text, stopped.tokens, stopped.finished) == (long.text[:3], 5, True)
    assert HashModel(seed=4).fingerprint != model.fingerprint
    short = HashModel(seed=3, max_length=6)
    assert short.loglik([prompt], [["abc"]]).truncated.tolist() == [True]
    assert short.loglik([prompt], [["ab"]]).truncated.tolist() == [False]
    with pytest.raises(PromptError, match="6 characters are to follow"):
        short.generate([prompt], Decoding(max_tokens=6))


def test_sampling_follows_the_probabilities() -> None:
    """2000 draws of one character; the likeliest has probability p, so its count is within 5 standard deviations."""
    model = HashModel()
    prompt = Prompt("q", "Once", (), (), (), 4)
    how = [Decoding(max_tokens=1, stop=(), temperature=1.0, seed=seed) for seed in range(2000)]
    texts = [model.generate([prompt], one)[0].text for one in how]
    likeliest = model.generate([prompt], Decoding(max_tokens=1, stop=()))[0]
    p = float(np.exp(likeliest.logprobs[0]))
    assert abs(texts.count(likeliest.text) - 2000 * p) < 5 * np.sqrt(2000 * p * (1 - p))
    assert model.generate([prompt], how[7])[0].text == texts[7]


def test_the_table_model_says_what_it_lacks() -> None:
    model = TableModel({"a": {"x": -1.0}}, {"a": "one; two"})
    assert isinstance(model, LanguageModel)
    prompt, other = Prompt("q", "a", (), (), (), 1), Prompt("q", "b", (), (), (), 1)
    assert model.generate([prompt], Decoding(20, (";",)))[0].text == "one"
    assert model.generate([prompt], Decoding(2, (";",)))[0].finished is False
    with pytest.raises(DataError, match="no choice 'y' after the prompt 'a'"):
        model.loglik([prompt], [["x", "y"]])
    with pytest.raises(DataError, match="no text for the prompt 'b'"):
        model.generate([other], Decoding())
