"""Which beginnings are computed once, and which log-probabilities are read where."""

from __future__ import annotations

import random

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from icl_select.score.causal_lm.prefixes import Shared, reused_tokens, share_prefixes
from icl_select.score.causal_lm.stems import ask
from icl_select.score.encoding import EncodedItem

IDS = st.lists(st.integers(0, 2), min_size=1, max_size=12).map(tuple)


def whole(rows: list[tuple[int, ...]], worth: int, levels: int = 4) -> Shared:
    """Sharing where only the last token of a row is read with it."""
    return share_prefixes(rows, [len(row) - 1 for row in rows], worth=worth, levels=levels)


def test_two_groups_and_one_alone() -> None:
    """Rows 0 and 2 share four tokens, 1 and 3 share two; 4 shares nothing. Two tokens saved are enough here."""
    rows = [(1, 2, 3, 4, 5), (7, 8, 1), (1, 2, 3, 4, 6), (7, 8, 2), (9,)]
    tree = whole(rows, worth=2)
    assert tree.leaves == (4,)
    assert {(child.length, child.leaves) for child in tree.children} == {(4, (0, 2)), (2, (1, 3))}
    assert reused_tokens(tree, 5) == [0, 0, 4, 2, 0]


def test_what_saves_too_little_is_not_shared_but_its_parts_may_be() -> None:
    """All four begin with 1, which saves three tokens; the pair in the middle shares five, which saves four more."""
    rows = [(1, 5), (1, 2, 3, 4, 5, 6), (1, 2, 3, 4, 5, 7), (1, 9)]
    tree = whole(rows, worth=4)
    assert set(tree.leaves) == {0, 3}
    assert [(child.length, child.leaves) for child in tree.children] == [(5, (1, 2))]
    assert whole(rows, worth=6).children == ()


def test_beginnings_stand_on_each_other() -> None:
    rows = [(1,) * 10 + (2,) * 5 + (end,) for end in range(4)] + [(1,) * 10 + (3, end) for end in range(4)]
    tree = whole(rows, worth=3)
    (outer,) = tree.children
    assert outer.length == 10
    assert {(child.length, child.leaves) for child in outer.children} == {(15, (0, 1, 2, 3)), (11, (4, 5, 6, 7))}
    assert reused_tokens(tree, 8) == [0, 15, 15, 15, 10, 11, 11, 11]


def nodes(node: Shared, above: int, depth: int) -> list[tuple[Shared, int, int]]:
    return [(node, above, depth)] + [found for child in node.children for found in nodes(child, node.length, depth + 1)]


def rows_under(node: Shared) -> list[int]:
    return [*node.leaves, *(row for child in node.children for row in rows_under(child))]


@given(st.lists(IDS, max_size=12), st.integers(1, 6), st.integers(0, 3), st.randoms(use_true_random=False))
def test_every_row_once_on_a_beginning_of_its_own(
    rows: list[tuple[int, ...]], worth: int, levels: int, rng: random.Random
) -> None:
    limits = [rng.randrange(len(row)) for row in rows]
    tree = share_prefixes(rows, limits, worth=worth, levels=levels)
    assert sorted(rows_under(tree)) == list(range(len(rows)))
    computed = 0
    for node, above, depth in nodes(tree, 0, 0):
        under = rows_under(node)
        assert depth <= levels
        for row in under:
            assert rows[row][: node.length] == rows[node.row][: node.length]
            assert limits[row] >= node.length
        if node is not tree:
            assert (len(under) - 1) * (node.length - above) >= worth
        computed += node.length - above + sum(len(rows[row]) - node.length for row in node.leaves)
    assert sum(map(len, rows)) - computed == sum(reused_tokens(tree, len(rows)))


CHOICES = st.lists(st.lists(st.integers(0, 2), min_size=1, max_size=4).map(tuple), min_size=1, max_size=4)


def chance(ids: tuple[int, ...], token: int) -> float:
    """A made-up log-probability of a token after `ids`; exact in binary, so that sums are."""
    return -(hash((ids, token)) % 1024) / 64


@given(st.lists(st.tuples(IDS, CHOICES), max_size=6))
def test_reads_add_up_to_the_choices(drawn: list[tuple[tuple[int, ...], list[tuple[int, ...]]]]) -> None:
    items = [EncodedItem(context, tuple(choices)) for context, choices in drawn]
    questions = ask(items)
    wanted = [
        [sum(chance(item.context + choice[:k], token) for k, token in enumerate(choice)) for choice in item.choices]
        for item in items
    ]
    for stems in (questions.stems, questions.whole()):
        answers = np.full(questions.count, np.nan)
        for stem in stems:
            for read in stem.reads:
                answers[read.slot] = chance(stem.tokens[: read.column + 1], read.token)
            for tail, reads in stem.tails:
                for read in reads:
                    answers[read.slot] = chance(stem.tokens + tail[: read.column + 1], read.token)
        values = questions.sums(answers)
        for row, line in enumerate(wanted):
            assert values[row, : len(line)].tolist() == line
            assert np.isnan(values[row, len(line) :]).all()


@given(st.lists(st.tuples(IDS, CHOICES), max_size=6))
def test_nothing_is_read_twice(drawn: list[tuple[tuple[int, ...], list[tuple[int, ...]]]]) -> None:
    questions = ask([EncodedItem(context, tuple(choices)) for context, choices in drawn])
    assert len({stem.tokens for stem in questions.stems}) == len(questions.stems)
    for stem in questions.stems:
        tails = [tail for tail, _ in stem.tails]
        assert all(a == b or a != b[: len(a)] for a in tails for b in tails)
        assert len(set(tails)) == len(tails)
        for reads in (stem.reads, *(reads for _, reads in stem.tails)):
            assert len({(read.column, read.token) for read in reads}) == len(reads)


def test_label_words_of_one_token_after_a_common_one_have_no_tail() -> None:
    r"""After the context (1, 2): "\nTrue" is (9, 4), "\nFalse" is (9, 5). All is read in the stem (1, 2, 9)."""
    questions = ask([EncodedItem((1, 2), ((9, 4), (9, 5)))])
    (stem,) = questions.stems
    assert stem.tokens == (1, 2, 9)
    assert stem.tails == []
    assert [(read.column, read.token) for read in stem.reads] == [(1, 9), (2, 4), (2, 5)]
