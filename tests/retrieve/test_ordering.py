"""Demonstrations that queries share stand first: by hand, against a literal reference, and as more shared text."""

from __future__ import annotations

from collections import Counter
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from icl_select.errors import ParameterError
from icl_select.prompt import PromptTemplate, pack
from icl_select.retrieve import ORDERS, order
from icl_select.types import Demonstration, Example, Retrieved


def found(*ids: str) -> Retrieved:
    return Retrieved(rows=np.arange(len(ids)), ids=ids, similarities=np.linspace(0.9, 0.1, len(ids)))


def test_by_hand() -> None:
    """Most shared first, equally shared ones by id; those of this query alone behind, the nearest last."""
    times = {"d": 2, "b": 5, "a": 2, "own": 1}
    got = order(found("near", "d", "own", "a", "far", "b"), "shared_first", frequency=times)
    assert [("near", "d", "own", "a", "far", "b")[pos] for pos in got] == ["b", "a", "d", "far", "own", "near"]
    assert order(found(), "shared_first", frequency={}).tolist() == []
    assert "shared_first" in ORDERS


def test_without_shared_demonstrations_it_is_the_published_order() -> None:
    assert order(found("a", "b", "c"), "shared_first", frequency={}).tolist() == [2, 1, 0]


def test_it_needs_to_know_what_is_shared() -> None:
    with pytest.raises(ParameterError, match="Pass frequency, or take another order"):
        order(found("a"), "shared_first")


@given(ids=st.permutations("abcdefgh"), times=st.dictionaries(st.sampled_from("abcdefgh"), st.integers(0, 4)))
def test_equals_a_literal_reference(ids: list[str], times: dict[str, int]) -> None:
    shared = [id_ for id_ in ids if times.get(id_, 1) > 1]
    expected = []
    for n in (4, 3, 2):
        expected += sorted(id_ for id_ in shared if times[id_] == n)
    expected += [id_ for id_ in reversed(ids) if id_ not in shared]
    assert [ids[pos] for pos in order(found(*ids), "shared_first", frequency=times)] == expected


def test_prompts_of_one_cell_begin_alike() -> None:
    """40 queries that show 6 of 12 demonstrations each: more characters of each prompt stand in the one before it."""
    rng = np.random.default_rng(0)
    weights = np.arange(12, 0, -1) / 78
    rows = [rng.choice(12, size=6, replace=False, p=weights) for _ in range(40)]
    times = Counter(f"d{i}" for row in rows for i in row)

    def shared(how: str) -> int:
        texts = []
        for number, row in enumerate(rows):
            shown = [Demonstration(f"d{i}", "yes", 0.5, {"text": f"demonstration {i:02d}"}) for i in row]
            texts.append(
                pack(PromptTemplate(), shown, Example(f"q{number}", f"query {number}"), order=how, frequency=times).text
            )
        texts.sort()
        return sum(_common(a, b) for a, b in pairwise(texts))

    assert shared("shared_first") > 1.5 * shared("nearest_last")


def _common(a: str, b: str) -> int:
    return next((i for i, (x, y) in enumerate(zip(a, b, strict=False)) if x != y), min(len(a), len(b)))
