"""No order of a small set of requests spares more than the schedule, by trying all of them."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from icl_select.errors import ParameterError
from icl_select.score import prefix_order, reusable_tokens, reused_tokens

REQUESTS = st.lists(st.lists(st.integers(0, 1), max_size=6), max_size=5)


def spared(requests: Sequence[Sequence[int]], block: int) -> int:
    """What a cache without bounds spares in this order: whole blocks seen before, never a request's last token."""
    seen: set[tuple[int, ...]] = set()
    total = 0
    for request in requests:
        hit = 0
        for end in range(block, len(request), block):
            if tuple(request[:end]) not in seen:
                break
            hit = end
        total += hit
        seen |= {tuple(request[:end]) for end in range(block, len(request) + 1, block)}
    return total


@settings(deadline=None)
@given(REQUESTS, st.integers(1, 3))
def test_the_schedule_reaches_the_best_of_all_orders(requests: list[list[int]], block: int) -> None:
    best = max(spared(order, block) for order in itertools.permutations(requests))
    ordered = [requests[i] for i in prefix_order(requests)]
    assert reusable_tokens(requests, block) == best
    assert reused_tokens(ordered, block) == best
    assert spared(ordered, block) == best


@settings(deadline=None)
@given(REQUESTS, st.integers(1, 3))
def test_no_order_beats_what_is_called_best(requests: list[list[int]], block: int) -> None:
    assert reused_tokens(requests, block) <= spared(requests, block) <= reusable_tokens(requests, block)


@settings(deadline=None)
@given(st.lists(st.text(alphabet="ab\né\U0001f600", max_size=4), max_size=6))
def test_the_order_does_not_depend_on_how_requests_come(texts: list[str]) -> None:
    ordered = [texts[i] for i in prefix_order(texts)]
    backwards = texts[::-1]
    assert ordered == [backwards[i] for i in prefix_order(backwards)]
    assert sorted(prefix_order(texts).tolist()) == list(range(len(texts)))


def test_equal_requests_keep_their_order() -> None:
    assert prefix_order(["b", "a", "b", "a"]).tolist() == [1, 3, 0, 2]
    assert prefix_order([]).tolist() == []


def test_by_hand() -> None:
    """Four requests of ten tokens, two sets of eight shared ones: alternating nothing is spared, sorted 16."""
    a, b = list(range(8)), list(range(10, 18))
    requests = [[*a, 1, 2], [*b, 1, 2], [*a, 3, 4], [*b, 3, 4]]
    assert reused_tokens(requests) == 0
    assert reusable_tokens(requests) == 16
    assert reused_tokens([requests[i] for i in prefix_order(requests)]) == 16
    assert reusable_tokens(requests, block=5) == 10


def test_blocks_are_at_least_one_token() -> None:
    for count in (reusable_tokens, reused_tokens):
        with pytest.raises(ParameterError, match="block=0"):
            count([[1]], block=0)
