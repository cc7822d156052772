"""Reads over prefix trees: by hand, and against scoring each choice by itself with a model that is a table."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from icl_select.errors import ModelError
from icl_select.score.encoding import EncodedItem, to_loglik
from icl_select.score.trie import Read, collect, plan_reads, walk_cost


def table(prefix: Sequence[int], token: int) -> float:
    """Log-probability of a token after a prefix: any number will do, if it depends on all of both."""
    digest = hashlib.sha256(repr((list(prefix), token)).encode()).digest()
    return -1e-3 - int.from_bytes(digest[:4], "big") / 2**30


def separately(item: EncodedItem) -> list[float]:
    """Each choice by itself, one token after the other."""
    sums = []
    for choice in item.choices:
        ids, total = list(item.context), 0.0
        for token in choice:
            total += table(ids, token)
            ids.append(token)
        sums.append(total)
    return sums


def shown(items: Sequence[EncodedItem], limit: int = 128) -> list[tuple[list[int], tuple[int, ...]]]:
    return [(read.prefix, read.wanted) for read in plan_reads(items, limit=limit).reads]


tokens = st.integers(0, 3)
choice_tokens = st.lists(tokens, min_size=1, max_size=4).map(tuple)
contexts = st.lists(tokens, min_size=1, max_size=3).map(tuple)
items_of = st.lists(
    st.builds(EncodedItem, contexts, st.lists(choice_tokens, min_size=1, max_size=5).map(tuple)), max_size=6
)


def test_words_of_one_token_are_one_read() -> None:
    assert shown([EncodedItem((1, 2, 3), ((7,), (8,), (9,)))]) == [([1, 2, 3], (7, 8, 9))]


def test_words_behind_a_common_newline_are_two_reads() -> None:
    """The published format scores the newline with the word: 5 is read once, and the words in one read after it."""
    assert shown([EncodedItem((1,), ((5, 7), (5, 8), (5, 9)))]) == [([1], (5,)), ([1, 5], (7, 8, 9))]


def test_words_part_where_they_differ() -> None:
    """positive, positively and negative as (4,), (4, 6), (5, 6, 7): the root, after 4, after 5, after 5 6."""
    items = [EncodedItem((1,), ((4,), (4, 6), (5, 6, 7)))]
    assert shown(items) == [([1], (4, 5)), ([1, 4], (6,)), ([1, 5], (6,)), ([1, 5, 6], (7,))]
    assert plan_reads(items).places == (((0,), (0, 1), (0, 2, 3)),)


def test_equal_contexts_share_their_reads() -> None:
    items = [EncodedItem((1, 2), ((5,), (6,))), EncodedItem((1, 2), ((6,), (7, 8))), EncodedItem((1, 3), ((5,),))]
    assert shown(items) == [([1, 2], (5, 6, 7)), ([1, 2, 7], (8,)), ([1, 3], (5,))]
    assert plan_reads(items).places == (((0,), (0,)), ((0,), (0, 1)), ((2,),))


def test_the_same_beginning_is_one_read_wherever_the_context_ends() -> None:
    """A border one token earlier: context (1,) with 2 in front of each choice meets the reads of context (1, 2)."""
    items = [EncodedItem((1, 2), ((5,), (6,))), EncodedItem((1,), ((2, 5), (2, 7)))]
    assert shown(items) == [([1, 2], (5, 6, 7)), ([1], (2,))]


def test_a_node_with_too_many_ids_is_split() -> None:
    words = tuple((token,) for token in range(5))
    assert shown([EncodedItem((9,), words)], limit=2) == [([9], (0, 1)), ([9], (2, 3)), ([9], (4,))]
    assert plan_reads([EncodedItem((9,), words)], limit=2).places == (((0,), (0,), (1,), (1,), (2,)),)
    assert [len(wanted) for _, wanted in shown([EncodedItem((9,), tuple((token,) for token in range(300)))])] == [
        128,
        128,
        44,
    ]


@settings(max_examples=200, deadline=None)
@given(items_of, st.integers(1, 3))
def test_sums_equal_scoring_each_choice_by_itself(items: list[EncodedItem], limit: int) -> None:
    plan = plan_reads(items, limit=limit)
    answers = [{token: table(read.prefix, token) for token in read.wanted} for read in plan.reads]
    got = collect(items, plan, answers)
    counts = to_loglik(items, got).tokens
    assert got.shape == counts.shape == (len(items), max((len(item.choices) for item in items), default=0))
    for row, item in enumerate(items):
        known = len(item.choices)
        # The same terms in the same order: equal to the last bit.
        assert got[row, :known].tolist() == separately(item)
        assert np.isnan(got[row, known:]).all()
        assert counts[row].tolist() == [len(choice) for choice in item.choices] + [0] * (got.shape[1] - known)


@settings(max_examples=200, deadline=None)
@given(items_of, st.integers(1, 3))
def test_no_fewer_reads_would_do(items: list[EncodedItem], limit: int) -> None:
    """Every (beginning, id) that some choice needs is asked exactly once, in as few reads as the limit allows."""
    needed: dict[tuple[int, ...], set[int]] = {}
    for item in items:
        for choice in item.choices:
            for depth, token in enumerate(choice):
                needed.setdefault(item.context + choice[:depth], set()).add(token)
    plan = plan_reads(items, limit=limit)
    asked: dict[tuple[int, ...], list[int]] = {}
    for read in plan.reads:
        assert 1 <= len(read.wanted) <= limit
        asked.setdefault(tuple(read.prefix), []).extend(read.wanted)
    assert {prefix: sorted(ids) for prefix, ids in asked.items()} == {
        prefix: sorted(ids) for prefix, ids in needed.items()
    }
    assert len(plan.reads) == sum(math.ceil(len(ids) / limit) for ids in needed.values())


@settings(max_examples=100, deadline=None)
@given(items_of)
def test_a_beginning_comes_before_what_continues_it(items: list[EncodedItem]) -> None:
    """Within an item: an engine with a prefix cache has then read it."""
    for item in items:
        place = {read.walked: number for number, read in enumerate(plan_reads([item]).reads)}
        for walked, number in place.items():
            assert not walked or place[walked[:-1]] < number


def test_what_an_engine_fails_to_answer_is_an_error() -> None:
    items = [EncodedItem((1,), ((5,), (6,)))]
    plan = plan_reads(items)
    assert plan.reads == (Read((1,), (), (5, 6)),)
    with pytest.raises(ModelError, match="no log-probability for token 6"):
        collect(items, plan, [{5: -1.0}])
    with pytest.raises(ModelError, match="NaN for token 5"):
        collect(items, plan, [{5: math.nan, 6: -1.0}])
    assert collect(items, plan, [{5: -math.inf, 6: -1.0, 7: -3.0}]).tolist() == [[-math.inf, -1.0]]


def test_nothing_asked() -> None:
    assert plan_reads([]).reads == ()
    assert collect([], plan_reads([]), []).shape == (0, 0)


@settings(max_examples=100, deadline=None)
@given(items_of, st.integers(1, 5))
def test_the_cost_of_a_walk_is_that_of_a_cache_of_blocks(items: list[EncodedItem], block: int) -> None:
    """Literally: a set of cached beginnings of whole blocks; a read computes what stands behind the longest."""
    for item in items:
        cached: set[tuple[int, ...]] = set()
        computed = 0
        reads = plan_reads([item], limit=1000).reads
        for read in reads:
            prefix = tuple(read.prefix)
            hit = 0
            while hit + block < len(prefix) and prefix[: hit + block] in cached:
                hit += block
            computed += len(prefix) - hit
            cached |= {prefix[:end] for end in range(block, len(prefix) + 1, block)}
        assert walk_cost(item, block) == (len(reads), computed)
