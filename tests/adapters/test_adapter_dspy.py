"""The retriever and the optimiser inside DSPy programs that run, are saved and come back."""

from __future__ import annotations

import asyncio
import copy
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import dspy
import numpy as np
import pytest
from adapter_helpers import ROWS, make_source
from dspy.teleprompt import Teleprompter
from dspy.utils import DummyLM

import icl_select as icl
from icl_select.adapters import ExampleSource
from icl_select.adapters.dspy import IclFewShot, IclRetriever
from icl_select.embedding import HashEncoder
from icl_select.errors import BudgetError, DataError, ParameterError, UnknownNameError

QUERY = "Is my invoice wrong?"


@pytest.fixture(autouse=True)
def _no_cache(_alone: None) -> None:
    dspy.configure_cache(enable_disk_cache=False, enable_memory_cache=False)


@pytest.fixture
def trainset() -> list[dspy.Example]:
    return [
        dspy.Example(question=row["input"], answer=row["output"], source=row["topic"]).with_inputs("question")
        for row in ROWS
    ]


def retriever_of(trainset: list[dspy.Example], **options: Any) -> IclRetriever:
    return IclRetriever.from_trainset(trainset, encoder="hash", centre=False, cache=False, **options)


def test_retriever_gives_back_the_examples_of_the_trainset(trainset: list[dspy.Example]) -> None:
    found = retriever_of(trainset, k=2)(question=QUERY)
    assert [id(example) for example in found] == [id(trainset[0]), id(trainset[1])]
    assert found[0].inputs().keys() == ["question"]
    assert found[0].labels().keys() == ["answer", "source"]
    assert asyncio.run(retriever_of(trainset, k=2).acall(question=QUERY)) == found
    assert retriever_of(trainset, k=2, order="nearest_last")(question=QUERY) == found[::-1]
    assert len(retriever_of(trainset)(question=QUERY)) == 5


def test_retriever_agrees_with_the_one_of_dspy(trainset: list[dspy.Example]) -> None:
    encoder = HashEncoder()

    def vectors(texts: list[str]) -> Any:
        found = encoder.encode([text.removeprefix("question: ") for text in texts]).vectors.astype(np.float64)
        return found / np.linalg.norm(found, axis=1, keepdims=True)

    theirs = dspy.KNN(3, trainset, vectorizer=dspy.Embedder(vectors, caching=False))
    mine = retriever_of(trainset, k=3)
    for question in (QUERY, "login on Monday fails", "the app"):
        assert mine(question=question) == theirs(question=question)


def test_inputs_of_several_fields_are_read_in_one_order() -> None:
    trainset = [
        dspy.Example(subject=subject, body=body, answer="x").with_inputs("body", "subject")
        for subject, body in [("invoice", "wrong sum"), ("login", "fails"), ("app", "crashes")]
    ]
    nearest = retriever_of(trainset, k=1)
    assert nearest(subject="login", body="fails") == nearest(body="fails", subject="login") == [trainset[1]]
    with pytest.raises(ParameterError, match="made of subject, body, and 'body' is missing"):
        nearest(subject="login")


def test_retriever_over_a_source_builds_examples(source: ExampleSource) -> None:
    nearest = IclRetriever(source, label_key="output", input_keys=["input"])
    found = nearest(input=QUERY)
    assert found[0].toDict() == {"input": "My invoice is wrong", "topic": "money", "output": "billing"}
    assert found[0].inputs().toDict() == {"input": "My invoice is wrong"}
    assert asyncio.run(nearest.acall(input=QUERY)) == found
    every = IclRetriever(source, label_key="output")(input=QUERY)[0]
    assert set(every.inputs().keys()) == {"input", "topic"}


@pytest.mark.parametrize("make", [retriever_of, IclFewShot(2, encoder="hash", cache=False).choose])
def test_trainsets_that_say_no_inputs_are_refused(make: Any) -> None:
    with pytest.raises(DataError, match="trainset is empty"):
        make([])
    with pytest.raises(DataError, match=r"example 0 .*with_inputs\('question'\)"):
        make([dspy.Example(question="q", answer="a")])
    with pytest.raises(DataError, match=r"example 1 of the trainset has the inputs \['answer'\]"):
        make([
            dspy.Example(question="q", answer="a").with_inputs("question"),
            dspy.Example(question="q", answer="a").with_inputs("answer"),
        ])  # fmt: skip
    with pytest.raises(DataError, match="at least one"):
        make([dspy.Example(question="q").with_inputs()])


class Router(dspy.Module):  # type: ignore[misc]
    """Shows, with every question, the examples nearest to it."""

    def __init__(self, retriever: IclRetriever) -> None:
        super().__init__()
        self.retriever = retriever
        self.answer = dspy.Predict("question -> answer")

    def forward(self, question: str) -> Any:
        return self.answer(question=question, demos=self.retriever(question=question))


def sent(lm: DummyLM) -> str:
    """What the language model was sent last, all of it."""
    return "\n".join(str(message["content"]) for message in lm.history[-1]["messages"])


def test_program_shows_what_the_retriever_finds(trainset: list[dspy.Example]) -> None:
    program = Router(retriever_of(trainset, k=1))
    lm = DummyLM([{"answer": "?"}] * 4, follow_examples=True)
    with dspy.context(lm=lm):
        assert program(question="I cannot log in").answer == "account"
        assert program(question="The app crashes on start").answer == "bug"
    assert "The app crashes on start" in sent(lm)
    assert "I cannot log in" not in sent(lm)


def test_copies_of_a_program_share_the_retriever(trainset: list[dspy.Example]) -> None:
    program = Router(retriever_of(trainset, k=1))
    assert program.deepcopy().retriever is program.retriever
    assert copy.deepcopy(program.retriever) is program.retriever


def test_retriever_stands_in_for_the_one_of_knn_few_shot(trainset: list[dspy.Example]) -> None:
    """DSPy's own optimiser, its neighbours found by ours."""
    encode = HashEncoder().encode
    optimiser = dspy.KNNFewShot(
        1,
        trainset,
        vectorizer=dspy.Embedder(lambda texts: encode(texts).vectors, caching=False),
        max_bootstrapped_demos=0,
        max_labeled_demos=1,
    )
    optimiser.KNN = retriever_of(trainset, k=1)
    program = optimiser.compile(dspy.Predict("question -> answer"))
    lm = DummyLM([{"answer": "?"}] * 4, follow_examples=True)
    with dspy.context(lm=lm):
        assert program(question="Login fails since Monday").answer == "account"
    assert "The invoice" not in sent(lm)


def test_optimiser_shows_what_the_method_picks(trainset: list[dspy.Example]) -> None:
    optimiser = IclFewShot(3, "max_herding(bandwidth=1.0)", encoder="hash", cache=False)
    student = dspy.ChainOfThought("question -> answer")
    program = optimiser.compile(student, trainset=trainset)
    assert isinstance(optimiser, Teleprompter)
    texts = [row["input"] for row in ROWS]
    x = icl.embed(texts, "hash", cache=False, progress=False)
    picked = icl.select("max_herding(bandwidth=1.0)", x, 3).indices
    assert program.predictors()[0].demos == [trainset[row] for row in picked] == optimiser.choose(trainset)
    assert student.predictors()[0].demos == []
    assert optimiser.get_params()["budget"] == 3
    lm = DummyLM([{"reasoning": "because", "answer": "billing"}])
    with dspy.context(lm=lm):
        assert program(question=QUERY).answer == "billing"
    for example in optimiser.choose(trainset):
        assert example.question in sent(lm)


def test_optimiser_fills_every_predictor_and_draws_by_its_seed(trainset: list[dspy.Example]) -> None:
    class Two(dspy.Module):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            self.first = dspy.Predict("question -> answer")
            self.second = dspy.Predict("question, answer -> source")

    program = IclFewShot(2, "random", encoder="hash", cache=False, seed=3).compile(Two(), trainset=trainset)
    first, second = (predictor.demos for predictor in program.predictors())
    assert first == second
    assert first is not second
    drawn = {
        tuple(
            example.question
            for example in IclFewShot(2, "random", encoder="hash", cache=False, seed=seed).choose(trainset)
        )
        for seed in range(8)
    }
    assert len(drawn) > 1


def test_optimiser_refuses_what_it_cannot_do(trainset: list[dspy.Example]) -> None:
    student = dspy.Predict("question -> answer")
    with pytest.raises(ParameterError, match="a teacher was passed"):
        IclFewShot(2, encoder="hash", cache=False).compile(student, trainset=trainset, teacher=student)
    with pytest.raises(BudgetError, match="budget=6 exceeds"):
        IclFewShot(6, encoder="hash", cache=False).compile(student, trainset=trainset)
    with pytest.raises(UnknownNameError, match="max_herding"):
        IclFewShot(2, "max_herdin", encoder="hash", cache=False).compile(student, trainset=trainset)
    assert student.demos == []
    assert IclFewShot(2, encoder="hash", cache=False).compile(student, trainset=trainset, valset=trainset).demos


def test_compiled_program_is_saved_and_loaded(trainset: list[dspy.Example], tmp_path: Path) -> None:
    program = IclFewShot(2, encoder="hash", cache=False).compile(dspy.Predict("question -> answer"), trainset=trainset)
    program.save(tmp_path / "program.json")
    again = dspy.Predict("question -> answer")
    again.load(tmp_path / "program.json")
    program.save(tmp_path / "whole", save_program=True)
    whole = dspy.load(tmp_path / "whole", allow_pickle=True)
    expected = [demo.toDict() for demo in program.demos]
    for loaded in (again, whole):
        assert [dict(demo) for demo in loaded.demos] == expected
        lm = DummyLM([{"answer": "?"}], follow_examples=True)
        with dspy.context(lm=lm):
            assert loaded(question=program.demos[1].question).answer == program.demos[1].answer


def test_program_with_a_retriever_is_saved_whole(trainset: list[dspy.Example], tmp_path: Path) -> None:
    program = Router(retriever_of(trainset, k=1))
    program.save(tmp_path / "state.json")
    Router(retriever_of(trainset, k=1)).load(tmp_path / "state.json")
    program.save(tmp_path / "whole", save_program=True)
    whole = dspy.load(tmp_path / "whole", allow_pickle=True)
    assert whole.retriever(question=QUERY) == program.retriever(question=QUERY)


def test_unknown_order_is_refused() -> None:
    with pytest.raises(ParameterError, match="unknown order"):
        IclRetriever(make_source(), order="nearest")  # type: ignore[arg-type]


def test_nothing_is_written_at_home(tmp_path: Path) -> None:
    code = (
        "import dspy\n"
        "from icl_select.adapters.dspy import IclFewShot, IclRetriever\n"
        "rows = [dspy.Example(question=f'What is {n}?', answer=str(n)).with_inputs('question') for n in range(5)]\n"
        "IclRetriever.from_trainset(rows, k=2, encoder='hash', cache=False)(question='What is 3?')\n"
        "student = dspy.Predict('question -> answer')\n"
        "program = IclFewShot(2, encoder='hash', cache=False).compile(student, trainset=rows)\n"
        "assert len(program.demos) == 2\n"
    )
    env = {key: value for key, value in os.environ.items() if not key.startswith(("DSPY", "ICS_", "XDG_"))}
    subprocess.run([sys.executable, "-c", code], check=True, env={**env, "HOME": str(tmp_path)})
    assert list(tmp_path.iterdir()) == []
