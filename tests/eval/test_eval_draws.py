"""Draws: which rows they see, and that an item's place depends on nothing but itself."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from icl_select.data import Pool
from icl_select.errors import BudgetError
from icl_select.eval.config import Campaign
from icl_select.eval.draws import make_draws, overlap, ranked
from icl_select.eval.tasks import TaskData, load_task
from icl_select.types import Example

IDS = st.lists(st.text(min_size=1, max_size=6), unique=True, min_size=2, max_size=30)


@given(ids=IDS, leave_out=st.integers(0, 29), seed=st.integers(0, 5))
def test_leaving_an_item_out_leaves_the_order_of_the_others(ids: list[str], leave_out: int, seed: int) -> None:
    gone = ids[leave_out % len(ids)]
    order = [ids[i] for i in ranked(ids, seed) if ids[i] != gone]
    rest = [name for name in ids if name != gone]
    assert [rest[i] for i in ranked(rest, seed)] == order


@given(ids=IDS, seed=st.integers(0, 5))
def test_the_order_of_the_file_does_not_matter(ids: list[str], seed: int) -> None:
    back = ids[::-1]
    assert [ids[i] for i in ranked(ids, seed)] == [back[i] for i in ranked(back, seed)]


def test_every_item_is_as_likely_as_any_other() -> None:
    """Over 2,000 draws of 5 out of 20, each item is taken about 500 times (binomial, sd 19)."""
    ids = [f"id-{i}" for i in range(20)]
    counts = np.zeros(20)
    for r in range(2000):
        counts[ranked(ids, 0, "pool", r)[:5]] += 1
    assert counts.sum() == 10_000
    assert abs(counts - 500).max() < 5 * 19.4


def data_of(campaign: Campaign) -> TaskData:
    return load_task(campaign.tasks[0])


def test_sizes_of_a_draw(campaign: Callable[..., Campaign]) -> None:
    small = campaign(draws=4)
    draws = make_draws(small, data_of(small))
    assert [draw.number for draw in draws] == [0, 1, 2, 3]
    assert {len(draw.pool) for draw in draws} == {30}  # half of 60
    assert {len(draw.test) for draw in draws} == {12}
    assert len({draw.pool_key for draw in draws}) == 4
    whole = campaign(pool_fraction=None, test_size=100)
    draw = make_draws(whole, data_of(whole))[0]
    assert (len(draw.pool), len(draw.test)) == (60, 20)
    capped = campaign(pool_size=7)
    assert len(make_draws(capped, data_of(capped))[0].pool) == 7


def test_more_draws_change_no_draw(campaign: Callable[..., Campaign]) -> None:
    few, many = campaign(draws=2), campaign(draws=5)
    data = data_of(few)
    for a, b in zip(make_draws(few, data), make_draws(many, data), strict=False):
        assert (a.pool_key, a.test_key) == (b.pool_key, b.test_key)


def test_another_seed_is_another_draw(campaign: Callable[..., Campaign]) -> None:
    one, two = campaign(seed=0), campaign(seed=1)
    data = data_of(one)
    assert make_draws(one, data)[0].pool_key != make_draws(two, data)[0].pool_key


def test_a_new_test_item_moves_at_most_one_item_of_a_draw(campaign: Callable[..., Campaign]) -> None:
    small = campaign()
    data = data_of(small)
    more = TaskData(data.task, data.pool, Pool([*data.test, Example("new", "new text", {}, "login")]), "")
    for before, after in zip(make_draws(small, data), make_draws(small, more), strict=True):
        old, new = set(before.test.tolist()), set(after.test.tolist())
        assert len(old - new) <= 1
        assert before.pool_key == after.pool_key


def test_keys_tell_texts_from_labels(campaign: Callable[..., Campaign]) -> None:
    small = campaign()
    data = data_of(small)
    first = data.pool[0]
    relabelled = Pool([Example(first.id, first.text, first.fields, "other", {}), *list(data.pool)[1:]])
    changed = 0
    for before, after in zip(
        make_draws(small, data), make_draws(small, TaskData(data.task, relabelled, data.test, "")), strict=True
    ):
        assert before.text_key == after.text_key
        assert before.test_key == after.test_key
        assert (before.pool_key != after.pool_key) == (0 in before.pool)
        changed += before.pool_key != after.pool_key
    assert changed


def test_a_budget_above_the_pool_of_a_draw(campaign: Callable[..., Campaign]) -> None:
    small = campaign(budgets=[31])
    with pytest.raises(BudgetError, match="task desk: budget 31 exceeds the 30 pool rows of a draw"):
        make_draws(small, data_of(small))


def test_overlap() -> None:
    assert overlap([np.array([0, 1, 2]), np.array([2, 3, 4])]) == pytest.approx(1 / 3)
    assert overlap([np.array([0, 1])]) == 1.0


def test_items_of_a_group_are_drawn_together(campaign: Callable[..., Campaign]) -> None:
    """Dialogues of 1 to 4 turns: whole ones in file order, in hash order of the dialogues; the last is cut."""
    turns = [(d, t) for d in range(12) for t in range(1 + d % 4)]
    test = Pool([Example(f"{d}-{t}", f"turn {d} {t}", {"dialogue": str(d), "turn": t}, "x") for d, t in turns])
    small = campaign(draws=3, test_size=13)
    data = data_of(small)
    grouped = replace(data, task=replace(data.task, group="dialogue"), test=test)
    for draw in make_draws(small, grouped):
        ids = [test.ids[i] for i in draw.test]
        assert len(ids) == 13
        seen: list[str] = []
        for name in ids:
            dialogue, turn = name.split("-")
            if turn == "0":
                assert dialogue not in seen
                seen.append(dialogue)
            else:
                assert seen[-1] == dialogue
                assert ids[ids.index(name) - 1] == f"{dialogue}-{int(turn) - 1}"
    orders = [tuple(test.ids[i] for i in draw.test) for draw in make_draws(small, grouped)]
    assert len(set(orders)) == 3
