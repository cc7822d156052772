"""Leases: what is handed out comes in the order of the selection, and to no more people than labels are wanted."""

from __future__ import annotations

from dataclasses import dataclass, field

import pytest
import sqlalchemy as sa
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from store_cases import TIMES, add, at_once, count, database, make_pool, row, say

from icl_select.service.store import leases, pools, selections
from icl_select.service.store.database import Database, later, now
from icl_select.service.store.leases import Leased
from icl_select.service.store.tables import leases as leases_table
from icl_select.service.store.tables import selection_picks

__all__ = ["database"]

ORDER = [3, 0, 4, 1]
PEOPLE = ["ann", "bob", "cy"]
SETTINGS = settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


def prepare(database: Database, n_items: int = 5, order: list[int] | None = None, **config: object) -> None:
    """A pool with the selection ``s``."""
    make_pool(database, n_items, **config)
    with database.write() as connection:
        picks = ORDER if order is None else order
        selections.create(connection, pools.lock(connection, "p"), "s", "job", "random", len(picks), 0)
        selections.fill(connection, "s", picks, [0.0] * len(picks), {})


def take(
    database: Database, annotator: str, count: int = 1, seconds: float = 600, selection: str = "s"
) -> list[tuple[int, int]]:
    with database.write() as connection:
        found = leases.take(connection, pools.lock(connection, "p"), selection, annotator, count, seconds)
    assert found.expires_at > now() or seconds <= 0
    return list(found.picks)


def remaining(database: Database, annotator: str) -> int:
    with database.read() as connection:
        return leases.remaining(connection, pools.find(connection, "p"), "s", annotator)


def release(database: Database, annotator: str) -> int:
    with database.write() as connection:
        return leases.release(connection, pools.lock(connection, "p"), annotator)


@dataclass
class Slow:
    """Who may be given what, in the plainest words."""

    wanted: int
    said: dict[tuple[int, str], str] = field(default_factory=dict)
    final: set[tuple[int, str]] = field(default_factory=set)
    held: set[tuple[int, str]] = field(default_factory=set)

    def open_to(self, annotator: str) -> list[int]:
        found = []
        for rank, pos in enumerate(ORDER):
            labelled = [who for (at, who), status in self.said.items() if at == pos and status == "label"]
            spoken = self.said.get((pos, annotator), "retract") != "retract"
            decided = any((pos, who) in self.final for who in labelled)
            if len(labelled) < self.wanted and not spoken and not decided:
                found.append(rank)
        return found

    def take(self, annotator: str, count: int) -> list[tuple[int, int]]:
        found = []
        for rank in self.open_to(annotator):
            pos = ORDER[rank]
            labelled = [who for (at, who), status in self.said.items() if at == pos and status == "label"]
            holders = [who for at, who in self.held if at == pos and who != annotator]
            if len(labelled) + len(holders) < self.wanted and len(found) < count:
                found.append((rank, pos))
        self.held |= {(pos, annotator) for _, pos in found}
        return found

    def say(self, pos: int, annotator: str, status: str, final: bool) -> None:
        if status == "retract" and (pos, annotator) not in self.said:
            return
        self.said[pos, annotator] = status
        self.final.discard((pos, annotator))
        if final:
            self.final.add((pos, annotator))
        self.held.discard((pos, annotator))


STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("take"), st.sampled_from(PEOPLE), st.integers(1, 3)),
        st.tuples(
            st.sampled_from(["label", "label", "skip", "retract", "final"]), st.sampled_from(PEOPLE), st.integers(0, 4)
        ),
        st.tuples(st.sampled_from(["release", "expire"]), st.sampled_from(PEOPLE), st.just(0)),
    ),
    max_size=25,
)


@SETTINGS
@given(steps=STEPS, wanted=st.integers(1, 3))
def test_what_is_handed_out_is_what_the_slow_reference_hands_out(
    database: Database, steps: list[tuple[str, str, int]], wanted: int
) -> None:
    with database.write() as connection:
        for pool in pools.listing(connection, None, 5):
            pools.delete(connection, pool.name)
    prepare(database, annotators=wanted)
    slow = Slow(wanted)
    for turn, (what, who, number) in enumerate(steps):
        if what == "take":
            assert take(database, who, number) == slow.take(who, number)
        elif what == "release":
            mine = {lease for lease in slow.held if lease[1] == who}
            assert release(database, who) == len(mine)
            slow.held -= mine
        elif what == "expire":
            with database.write() as connection:
                of_who = leases_table.c.annotator == who
                connection.execute(leases_table.update().where(of_who).values(expires_at=later(-1)))
            slow.held = {lease for lease in slow.held if lease[1] != who}
            take(database, "nobody", 0)  # only who takes looks at the clock
        else:
            status = "label" if what == "final" else what
            say(
                database,
                number,
                f"{turn}" if status == "label" else None,
                who,
                status=status,
                adjudicated=what == "final",
            )
            slow.say(number, who, status, what == "final")
        for who_ in PEOPLE:
            assert remaining(database, who_) == len(slow.open_to(who_))
        with database.read() as connection:
            held = connection.execute(sa.select(leases_table.c.pos, leases_table.c.annotator)).all()
        assert {tuple(lease) for lease in held} == slow.held


@pytest.mark.parametrize("wanted", [1, 2])
def test_of_those_who_ask_at_once_no_two_get_one_item_too_many(database: Database, wanted: int) -> None:
    picks = list(range(60))
    prepare(database, 60, picks, annotators=wanted)
    others = [Database(database.url.render_as_string(hide_password=False)) for _ in range(5)]

    def work(number: int) -> list[int]:
        mine: list[int] = []
        while found := take(others[number], f"ann {number}", 3):
            for _, pos in found:
                mine.append(pos)
                say(others[number], pos, f"{number}", f"ann {number}")
        return mine

    found = at_once([lambda number=number: work(number) for number in range(5)])
    assert sorted(pos for mine in found for pos in mine) == sorted(picks * wanted)
    assert all(len(mine) == len(set(mine)) for mine in found)
    assert count(database, leases_table) == 0
    for other in others:
        other.close()


def test_of_those_who_only_ask_each_gets_other_items(database: Database) -> None:
    prepare(database, 40, list(range(40)))
    found = at_once([lambda number=number: take(database, f"ann {number}", 7) for number in range(6)])
    given_ = [pos for mine in found for _, pos in mine]
    assert sorted(given_) == list(range(40))
    assert [len(mine) for mine in sorted(found)] == [7, 7, 7, 7, 7, 5]


def test_who_asks_again_gets_the_same_with_a_new_lease(database: Database) -> None:
    prepare(database)
    assert take(database, "ann", 2, seconds=5) == [(0, 3), (1, 0)]
    with database.write() as connection:
        first = connection.execute(sa.select(leases_table.c.expires_at)).scalars().all()
    assert take(database, "ann", 3, seconds=600) == [(0, 3), (1, 0), (2, 4)]
    assert take(database, "bob", 9) == [(3, 1)]
    with database.read() as connection:
        assert min(connection.execute(sa.select(leases_table.c.expires_at)).scalars()) > max(first)


@pytest.mark.parametrize("seconds", [0, -1])
def test_a_lease_ends(database: Database, seconds: float) -> None:
    prepare(database)
    assert take(database, "ann", 2, seconds) == take(database, "bob", 2, seconds) == [(0, 3), (1, 0)]
    assert take(database, "cy", 1) == [(0, 3)]
    assert count(database, leases_table) == 1


def test_who_comes_late_may_still_label(database: Database) -> None:
    prepare(database)
    take(database, "ann", 1, seconds=-1)
    assert take(database, "bob", 1) == [(0, 3)]
    assert say(database, 3, "x", "ann").changed == 1
    assert take(database, "bob", 1) == [(1, 0)]  # what he held is labelled by now
    assert say(database, 3, "x", "bob").written == 1


def test_what_one_skips_is_for_the_others(database: Database) -> None:
    prepare(database)
    take(database, "ann", 1)
    say(database, 3, status="skip", annotator="ann")
    say(database, 0, status="unsure", annotator="ann")
    assert take(database, "ann", 9) == [(2, 4), (3, 1)]
    assert take(database, "bob", 9) == [(0, 3), (1, 0)]
    say(database, 3, status="retract", annotator="ann")
    release(database, "bob")
    assert take(database, "ann", 1) == [(0, 3)]


def test_labels_of_the_upload_count(database: Database) -> None:
    prepare(database, annotators=2)
    add(database, "p", [row("i3", "x"), row("i0", "x")])
    assert take(database, "ann", 1) == [(0, 3)]
    assert take(database, "bob", 1) == [(1, 0)]
    assert take(database, "cy", 9) == [(2, 4), (3, 1)]


def test_a_lease_holds_for_every_selection_of_the_pool_and_for_no_other_pool(database: Database) -> None:
    prepare(database)
    make_pool(database, 5, "other")
    with database.write() as connection:
        selections.create(connection, pools.lock(connection, "p"), "t", "job", "random", 2, 0)
        selections.fill(connection, "t", [3, 2], [0.0] * 2, {})
        selections.create(connection, pools.lock(connection, "other"), "u", "job", "random", 1, 0)
        selections.fill(connection, "u", [3], [0.0], {})
        other = pools.lock(connection, "other")
        assert leases.take(connection, other, "u", "ann", 9, 600).picks == ((0, 3),)
    assert take(database, "ann", 1) == [(0, 3)]
    assert take(database, "bob", 9, selection="t") == [(1, 2)]
    assert release(database, "ann") == 1
    assert take(database, "bob", 9, selection="t") == [(0, 3), (1, 2)]
    assert count(database, leases_table) == 3


def test_nothing_to_hand_out(database: Database) -> None:
    prepare(database, order=[])
    assert take(database, "ann", 5) == []
    assert take(database, "ann", 5, selection="unknown") == []
    assert (remaining(database, "ann"), release(database, "ann")) == (0, 0)
    assert count(database, selection_picks) == 0
    with database.write() as connection:
        found = leases.take(connection, pools.lock(connection, "p"), "s", "ann", 1, 60)
    assert found == Leased((), found.expires_at)
    assert TIMES[0] < found.expires_at
