"""Prompts from the labelled rows of a pool: the stages composed."""

from __future__ import annotations

import numpy as np
import pytest

import icl_select as icl
from icl_select.errors import EmbeddingError, LabelError, PromptError
from icl_select.types import Example

TEXTS = ["invoice wrong", "invoice sum wrong", "login fails", "login page down", "parcel late", "parcel broken"]


@pytest.fixture
def pool() -> icl.Pool:
    return icl.Pool.from_texts(TEXTS, ids=list("abcdef"))


def embed(pool: icl.Pool) -> object:
    return icl.embed(pool, "hash", centre=True, cache=False, progress=False)


def test_the_nearest_labelled_rows_are_shown_nearest_last(pool: icl.Pool) -> None:
    pool.label({"a": "billing", "c": "account", "e": "delivery"})
    prompter = icl.Prompter(pool, embed(pool), k=2)
    prompt = prompter("the login page")
    assert prompt.examples[-1].id == "c"
    assert prompt.ranks == (1, 0)
    assert prompt.text.endswith("login fails\naccount\n\nthe login page")
    hits = prompter.retrieve(["the login page"])[0]
    assert [pool[i].id for i in hits.rows] == list(hits.ids), "rows are pool indices"


def test_labels_added_later_are_seen(pool: icl.Pool) -> None:
    pool.label({"a": "billing"})
    prompter = icl.Prompter(pool, embed(pool), k=1)
    assert prompter("login page down again").examples[0].id == "a"
    pool.label({"d": "account"})
    assert prompter("login page down again").examples[0].id == "d"
    pool.label({"d": "access"}, overwrite=True)
    assert prompter("login page down again").examples[0].label == "access"


def test_a_pool_row_never_demonstrates_itself(pool: icl.Pool) -> None:
    pool.label({"a": "billing", "b": "billing"})
    prompter = icl.Prompter(pool, embed(pool), k=2)
    assert [e.id for e in prompter(pool[0]).examples] == ["b"]
    assert len(prompter(Example("other", "invoice wrong", {"text": "invoice wrong"})).examples) == 2, "text may recur"


def test_a_budget_that_the_query_exceeds(pool: icl.Pool) -> None:
    pool.label({"a": "billing"})
    with pytest.raises(PromptError, match="10"):
        icl.Prompter(pool, embed(pool), max_tokens=10)("a query of more than ten bytes")


def test_long_demonstrations_can_be_left_out(pool: icl.Pool) -> None:
    pool.label({"a": "billing", "c": "account"})
    prompt = icl.Prompter(pool, embed(pool), rule="published", max_demonstration_tokens=20)("hello")
    assert [e.id for e in prompt.examples] == ["c"]
    assert [(d.id, d.reason.split()[0]) for d in prompt.dropped] == [("a", "too")]


def test_nothing_labelled(pool: icl.Pool) -> None:
    with pytest.raises(LabelError, match="none of the 6 pool rows"):
        icl.Prompter(pool, embed(pool))("hello")


def test_bare_arrays_need_query_vectors(pool: icl.Pool) -> None:
    pool.label({"a": "billing", "c": "account"})
    prompter = icl.Prompter(pool, np.eye(6, dtype=np.float32), k=1)
    with pytest.raises(EmbeddingError, match="vectors="):
        prompter("hello")
    assert prompter("hello", vector=np.eye(6)[2]).examples[0].id == "c"
    with pytest.raises(EmbeddingError, match="6"):
        icl.Prompter(pool, np.eye(5))


def test_a_mapping_is_read_like_the_pool() -> None:
    rows = [{"subject": "invoice", "body": "wrong", "label": "billing"}]
    pool = icl.Pool.from_records(rows, text="{subject}: {body}")
    x = icl.embed(pool, "hash", centre=False, cache=False, progress=False)
    prompter = icl.Prompter(pool, x, k=1, text="{subject}: {body}")
    assert "invoice: wrong\nbilling" in prompter({"subject": "invoice", "body": "late"}).text


def test_no_queries_no_prompts(pool: icl.Pool) -> None:
    assert icl.Prompter(pool, embed(pool)).batch([]) == []
