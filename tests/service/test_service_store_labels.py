"""Labels: what annotators said is kept for ever, and resolves as it was at every version."""

from __future__ import annotations

import datetime
import random
import subprocess
import sys
from collections.abc import Sequence

import pytest
import sqlalchemy as sa
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from label_reference import Reference
from store_cases import TIMES, at_once, count, database, make_pool, row, say, upload

from icl_select.service.errors import InvalidError
from icl_select.service.store import items, labels, leases, pools, selections
from icl_select.service.store.database import Database, now
from icl_select.service.store.labels import Word, Written, made_at
from icl_select.service.store.tables import items as items_table
from icl_select.service.store.tables import label_events
from icl_select.service.store.tables import leases as leases_table

__all__ = ["database"]

N_ITEMS = 3
SETTINGS = settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


def words(times: st.SearchStrategy[str | None]) -> st.SearchStrategy[Word]:
    said = st.tuples(st.just("label"), st.sampled_from(["x", "y", "z"]), st.booleans())
    unsaid = st.tuples(st.sampled_from(["skip", "unsure", "retract"]), st.none(), st.just(False))
    retracted = st.tuples(st.just("retract"), st.none(), st.just(True))
    return st.builds(
        lambda pos, who, what, when: Word(pos, who, *what, when),
        st.integers(0, N_ITEMS - 1),
        st.sampled_from(["ann", "bob", "cy"]),
        said | said | unsaid | retracted,
        times,
    )


REQUESTS = st.lists(
    st.tuples(st.lists(words(st.none() | st.sampled_from(TIMES[:6])), max_size=5), st.sampled_from(TIMES[3:9])),
    max_size=12,
)


@SETTINGS
@given(requests=REQUESTS, how=st.sampled_from(["majority", "latest"]))
def test_labels_are_those_of_the_slow_reference_at_every_version(
    database: Database, requests: list[tuple[list[Word], str]], how: str
) -> None:
    """Clocks of servers may differ, so requests come at any time."""
    fresh(database, how)
    slow = Reference(N_ITEMS, how)
    for said, clock in requests:
        done = take(database, said, clock)
        news, changed = slow.take(said, clock)
        assert (done.written, done.unchanged, done.changed) == (news, len(said) - news, len(changed))
        assert done.pool.labels_version == slow.version
        touched = {word.pos for word in slow.kept if word.version == slow.version} if news else set()
        assert set(done.conflicts) <= {pos for pos in touched if slow.stands(pos)[2]}
        assert set(done.conflicts) >= {pos for pos in changed if slow.stands(pos)[2]}
    compare(database, slow)


def fresh(database: Database, how: str = "majority") -> None:
    """A new pool of N_ITEMS items in place of the old one."""
    with database.write() as connection:
        for pool in pools.listing(connection, None, 10):
            pools.delete(connection, pool.name)
    make_pool(database, N_ITEMS, resolve=how)


def take(database: Database, said: Sequence[Word], clock: str | None = None) -> Written:
    with pytest.MonkeyPatch.context() as patch, database.write() as connection:
        if clock is not None:
            patch.setattr(labels, "now", lambda: clock)
        return labels.write(connection, pools.lock(connection, "p"), said)


def compare(database: Database, slow: Reference) -> None:
    with database.read() as connection:
        pool = pools.find(connection, "p")
        every = list(range(N_ITEMS))
        assert pool.labels_version == slow.version
        assert pool.n_labelled == sum(label is not None for label in slow.states[-1].values())
        for version, state in enumerate(slow.states):
            known = {
                pos for earlier in slow.states[: version + 1] for pos, label in earlier.items() if label is not None
            }
            page = labels.page(connection, pool, version, -1, 100)
            assert {found.pos: found.label for found in page} == {pos: state[pos] for pos in sorted(known)}
            assert [found.pos for found in page] == sorted(known)
            assert labels.labelled_at(connection, pool.uid, every, version) == {pos: state[pos] for pos in known}
            for later in range(version, slow.version + 1):
                changed = {**state, **dict(labels.since(connection, pool.uid, version, later))}
                assert changed == slow.states[later]
        now_ = slow.states[-1]
        assert labels.labelled_positions(connection, pool) == [pos for pos in every if now_[pos] is not None]
        open_ = [f"i{pos}" for pos in every if slow.stands(pos)[2]]
        assert labels.conflicts(connection, pool, 100) == open_
        found_items = items.page(connection, pool, -1, 100)
        assert [(item.label, item.n_votes, item.conflict) for item in found_items] == [
            slow.stands(pos) for pos in every
        ]
        for item in found_items:
            if item.label is not None:  # since when it stands
                changes = range(1, slow.version + 1)
                changed = [n for n in changes if slow.states[n][item.pos] != slow.states[n - 1][item.pos]]
                assert item.label_version == changed[-1]
        votes = [
            (f"i{pos}", word.annotator, word.label, word.time)
            for pos in every
            for word in sorted(slow.last(pos, slow.kept).values(), key=lambda word: word.order)
            if word.status == "label"
        ]
        assert list(labels.votes_of_pool(connection, pool)) == votes
        assert labels.annotators(connection, pool) == len({word.annotator for word in slow.kept})
        for pos in every:
            told = [
                (event.version, event.annotator, event.status, event.label, event.adjudicated, event.created_at)
                for event in labels.history(connection, pool, pos)
            ]
            assert told == [
                (word.version, word.annotator, word.status, word.label, word.adjudicated, word.time)
                for word in slow.kept
                if word.pos == pos
            ]


@st.composite
def stories(draw: st.DrawFn) -> tuple[list[Word], list[Word], list[int]]:
    """Words of different moments, the same in another order, and how that is cut into requests."""
    times = draw(st.lists(st.sampled_from(TIMES), unique=True, max_size=14))
    told = [draw(words(st.just(time))) for time in times]
    return told, draw(st.permutations(told)), draw(st.lists(st.integers(1, 4), max_size=8))


@SETTINGS
@given(story=stories(), how=st.sampled_from(["majority", "latest"]))
def test_labels_do_not_depend_on_the_order_in_which_words_arrive(
    database: Database, story: tuple[list[Word], list[Word], list[int]], how: str
) -> None:
    told, shuffled, sizes = story
    fresh(database, how)
    while shuffled:
        size = sizes.pop() if sizes else len(shuffled)
        take(database, shuffled[:size])
        shuffled = shuffled[size:]
    slow = Reference(N_ITEMS, how)
    for word in sorted(told, key=lambda word: word.created_at or ""):
        slow.take([word], TIMES[-1])
    with database.read() as connection:
        pool = pools.find(connection, "p")
        shown = [(item.label, item.n_votes, item.conflict) for item in items.page(connection, pool, -1, 100)]
    assert shown == [slow.stands(pos) for pos in range(N_ITEMS)]


@SETTINGS
@given(
    requests=st.lists(st.lists(words(st.none() | st.sampled_from(TIMES[:4])), max_size=4), max_size=6),
    how=st.sampled_from(["majority", "latest"]),
)
def test_a_request_that_is_sent_twice_at_once_is_taken_once(
    database: Database, requests: list[list[Word]], how: str
) -> None:
    """As it is when the answer got lost. Within a request an annotator may not contradict himself at one moment."""
    fresh(database, how)
    for said in requests:
        once = {(word.pos, word.annotator, word.created_at): word for word in said}.values()
        single = [word for word in once if not (word.created_at is None and contradicted(word, once))]
        first = take(database, single)
        again = take(database, single)
        assert (again.written, again.unchanged, again.changed) == (0, len(single), 0)
        assert again.pool == first.pool


def contradicted(word: Word, others: Sequence[Word]) -> bool:
    return any(other is not word and (other.pos, other.annotator) == (word.pos, word.annotator) for other in others)


def label_of(database: Database, pos: int = 0) -> tuple[str | None, bool]:
    with database.read() as connection:
        found = items.page(connection, pools.find(connection, "p"), pos - 1, 1)[0]
    return found.label, found.conflict


def test_a_label_is_corrected_by_its_annotator(database: Database) -> None:
    make_pool(database, 2)
    assert say(database, 0, "x") == Written(say(database, 0, "x").pool, 1, 0, 1, ())
    assert say(database, 0, "y").changed == 1
    assert label_of(database) == ("y", False)
    for status in ("skip", "unsure", "retract"):
        say(database, 0, "y")
        done = say(database, 0, status=status)
        assert (label_of(database), done.pool.n_labelled) == ((None, False), 0)


def test_a_majority_decides_and_a_tie_is_open(database: Database) -> None:
    make_pool(database, 2)
    say(database, 0, "x", "ann")
    done = say(database, 0, "y", "bob")
    assert (label_of(database), done.conflicts, done.changed, done.pool.n_labelled) == ((None, True), (0,), 1, 0)
    say(database, 1, status="skip")
    assert say(database, 0, status="unsure", annotator="cy").conflicts == (0,)
    done = say(database, 0, "y", "cy")
    assert (label_of(database), done.conflicts, done.pool.n_labelled) == (("y", False), (), 1)
    say(database, 0, "z", "dee")
    say(database, 0, "z", "eve")
    assert label_of(database) == (None, True)  # two against two, and one more
    with database.read() as connection:
        pool = pools.find(connection, "p")
        assert labels.conflicts(connection, pool, 5) == ["i0"]
        assert labels.annotators(connection, pool) == 5


def test_an_adjudicator_decides_until_it_is_taken_back(database: Database) -> None:
    make_pool(database, 1)
    for annotator in ("ann", "bob"):
        say(database, 0, "x", annotator)
    say(database, 0, "y", "judge", adjudicated=True)
    assert label_of(database) == ("y", False)
    say(database, 0, "x", "cy")
    assert label_of(database) == ("y", False)
    say(database, 0, "z", "other judge", adjudicated=True)
    assert label_of(database) == ("z", False)
    assert say(database, 0, "y", "judge", adjudicated=True).written == 1  # said again, because another has spoken since
    assert label_of(database) == ("y", False)
    assert say(database, 0, "y", "judge", adjudicated=True).written == 0
    say(database, 0, status="retract", annotator="judge", adjudicated=True)
    say(database, 0, status="retract", annotator="other judge", adjudicated=True)
    assert label_of(database) == ("x", False)


def test_the_latest_word_decides_where_the_pool_says_so(database: Database) -> None:
    make_pool(database, 1, resolve="latest")
    say(database, 0, "x", "ann")
    say(database, 0, "y", "bob")
    assert label_of(database) == ("y", False)
    assert say(database, 0, "x", "ann").written == 1
    assert label_of(database) == ("x", False)
    assert say(database, 0, "x", "ann").written == 0
    say(database, 0, status="retract", annotator="ann")
    assert label_of(database) == ("y", False)


@pytest.mark.parametrize("how", ["majority", "latest"])
def test_a_file_of_several_annotators_can_be_sent_again(database: Database, how: str) -> None:
    """Also where each of them would decide again after the other."""
    make_pool(database, 2, resolve=how)
    file = [Word(0, who, "label", label, how == "majority", None) for who, label in (("ann", "x"), ("bob", "y"))]
    first = take(database, file)
    assert (first.written, label_of(database)) == (2, ("y", False))
    again = take(database, file)
    assert (again.written, again.unchanged, again.pool) == (0, 2, first.pool)
    assert take(database, file[:1]).written == 1
    assert label_of(database) == ("x", False)
    assert take(database, [*file, Word(1, "ann", "label", "z", False, None)]).written == 2  # bob again, and what is new
    assert label_of(database) == ("y", False)


def test_a_late_word_is_kept_and_changes_nothing(database: Database) -> None:
    make_pool(database, 1)
    say(database, 0, "new", created_at=TIMES[5])
    late = say(database, 0, "old", created_at=TIMES[2])
    assert (late.written, late.changed, late.pool.labels_version, label_of(database)[0]) == (1, 0, 2, "new")
    again = say(database, 0, "old", created_at=TIMES[2])
    assert (again.written, again.pool.labels_version) == (0, 2)
    twice = take(database, [Word(0, "ann", "label", "older", False, TIMES[1])] * 2)
    assert (twice.written, twice.unchanged) == (1, 1)
    assert say(database, 0, "other", "bob", created_at=TIMES[0]).written == 1  # only his own words make one late
    with database.read() as connection:
        told = labels.history(connection, pools.find(connection, "p"), 0)
        assert [event.label for event in told] == ["new", "old", "older", "other"]


def test_a_word_that_was_said_again_outlives_one_from_between(database: Database) -> None:
    make_pool(database, 1)
    say(database, 0, "x", created_at=TIMES[1])
    assert say(database, 0, "x", created_at=TIMES[3]).pool.labels_version == 2
    say(database, 0, "y", created_at=TIMES[2])
    assert label_of(database)[0] == "x"


def test_a_retraction_is_kept_that_arrives_before_what_it_takes_back(database: Database) -> None:
    make_pool(database, 1)
    assert say(database, 0, status="retract").written == 0  # now there is nothing to take back
    assert say(database, 0, status="retract", created_at=TIMES[3]).written == 1
    say(database, 0, "x", created_at=TIMES[2])
    assert label_of(database) == (None, False)
    say(database, 0, "x", created_at=TIMES[4])
    assert label_of(database) == ("x", False)


def test_a_clock_that_goes_back_loses_no_word(database: Database) -> None:
    make_pool(database, 1, resolve="latest")
    take(database, [Word(0, "ann", "label", "x", False, None)], TIMES[9])
    take(database, [Word(0, "ann", "label", "y", False, None)], TIMES[3])
    assert label_of(database)[0] == "y"
    take(database, [Word(0, "bob", "label", "z", False, None)], TIMES[2])
    assert label_of(database)[0] == "z"


def test_a_request_makes_one_version_or_none(database: Database) -> None:
    make_pool(database, 3)
    done = take(database, [Word(pos, who, "label", "x", False, None) for pos in range(3) for who in ("ann", "bob")])
    assert (done.pool.labels_version, done.written, done.changed, done.pool.n_labelled) == (1, 6, 3, 3)
    assert take(database, []).pool.labels_version == 1
    done = take(database, [Word(0, "ann", "label", label, False, None) for label in ("y", "x", "y")])
    assert (done.pool.labels_version, done.written) == (2, 3)
    with database.read() as connection:
        pool = pools.find(connection, "p")
        assert [event.label for event in labels.history(connection, pool, 0)] == ["x", "x", "y", "x", "y"]
        assert labels.since(connection, pool.uid, 1, 2) == [(0, None)]
        assert [found.version for found in labels.page(connection, pool, 2, -1, 9)] == [2, 1, 1]


def test_who_said_it_and_with_which_key_is_kept(database: Database) -> None:
    make_pool(database, 1)
    before = now()
    with database.write() as connection:
        word = Word(0, "ännchen", "label", "x" * 20_000, False, TIMES[0])
        labels.write(connection, pools.lock(connection, "p"), [word], key_id="key")
    with database.read() as connection:
        (event,) = labels.history(connection, pools.find(connection, "p"), 0)
    assert (event.annotator, event.label, event.key_id, event.created_at) == ("ännchen", "x" * 20_000, "key", TIMES[0])
    assert before <= event.received_at <= now()


def test_pages_of_labels_go_on_where_the_last_ended(database: Database) -> None:
    make_pool(database)
    upload(database, "p", [[row(f"i{n}", f"l{n}") for n in range(50)]])
    say(database, 7, "new", "upload")
    say(database, 8, status="retract", annotator="upload")
    with database.read() as connection:
        pool = pools.find(connection, "p")
        for version, changed in ((1, {}), (2, {7: "new"}), (3, {7: "new", 8: None})):
            after, seen = -1, {}
            while found := labels.page(connection, pool, version, after, 7):
                seen.update({label.pos: label.label for label in found})
                after = found[-1].pos
            assert seen == {**{n: f"l{n}" for n in range(50)}, **changed}
        assert labels.page(connection, pool, 0, -1, 7) == []


def test_labels_of_another_pool_are_another_matter(database: Database) -> None:
    make_pool(database, 2)
    make_pool(database, 2, "other")
    say(database, 0, "x")
    say(database, 0, "y", pool="other")
    say(database, 1, "z", pool="other")
    with database.read() as connection:
        one, two = pools.find(connection, "p"), pools.find(connection, "other")
        assert (one.n_labelled, one.labels_version, two.n_labelled, two.labels_version) == (1, 1, 2, 2)
        assert [found.label for found in labels.page(connection, one, 9, -1, 9)] == ["x"]
        assert labels.since(connection, two.uid, 0, 9) == [(0, "y"), (1, "z")]
        assert labels.labelled_at(connection, one.uid, [0, 1], 9) == {0: "x"}
    for pool in ("p", "other"):  # a word that was taken there was not taken here
        assert say(database, 0, "old", pool=pool, created_at=TIMES[0]).written == 1


def test_who_has_spoken_of_an_item_holds_it_no_longer(database: Database) -> None:
    make_pool(database, 3, annotators=2)
    with database.write() as connection:
        pool = pools.lock(connection, "p")
        selections.create(connection, pool, "s", "job", "random", 3, 0)
        selections.fill(connection, "s", [0, 1, 2], [0.0] * 3, {})
        for who in ("ann", "bob"):
            leases.take(connection, pool, "s", who, 3, 600)
    say(database, 0, "x", "ann")
    say(database, 1, status="skip", annotator="ann")
    with database.read() as connection:
        held = connection.execute(sa.select(leases_table.c.annotator, leases_table.c.pos)).all()
    assert sorted(tuple(found) for found in held) == [("ann", 2), ("bob", 0), ("bob", 1), ("bob", 2)]


def test_the_time_of_a_word_is_checked() -> None:
    moment = datetime.datetime.now(datetime.UTC)
    assert made_at(None) is None
    assert made_at(datetime.datetime(2024, 1, 1)) == TIMES[0]
    assert made_at(datetime.datetime.fromisoformat("2024-01-01T05:00:00+05:00")) == TIMES[0]
    assert made_at(moment + datetime.timedelta(minutes=4)) is None  # a little ahead is now
    for wrong, reason in (
        (moment + datetime.timedelta(minutes=6), "lies in the future"),
        (datetime.datetime.max.replace(tzinfo=datetime.timezone(datetime.timedelta(hours=-12))), "lies in the future"),
        (datetime.datetime.min.replace(tzinfo=datetime.timezone(datetime.timedelta(hours=12))), "before the year 1"),
    ):
        with pytest.raises(InvalidError, match=reason):
            made_at(wrong)


@pytest.mark.parametrize("field", ["label", "annotator"])
@pytest.mark.parametrize("text", ["a\0", "\ud800"], ids=["NUL", "surrogate"])
def test_what_is_no_text_is_refused_and_nothing_of_its_request_is_kept(
    database: Database, field: str, text: str
) -> None:
    make_pool(database, 2)
    said = {"label": "x", "annotator": "ann", field: text}
    with pytest.raises(InvalidError, match=r"a NUL|half of a surrogate pair"):
        take(
            database,
            [
                Word(0, "ann", "label", "x", False, None),
                Word(1, said["annotator"], "label", said["label"], False, None),
            ],
        )
    assert count(database, label_events) == 0


def test_too_many_words_for_one_request(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where each word stands in its request is kept in so many bits."""
    monkeypatch.setattr(labels, "_PLACES", 2)
    make_pool(database, 4)
    with pytest.raises(InvalidError, match="one request takes fewer than 4 labels"):
        take(database, [Word(pos, "ann", "label", "x", False, None) for pos in range(4)])
    with pytest.raises(InvalidError, match="one upload takes fewer than 4 labelled rows"):
        upload(database, "p", [[row(f"n{n}", "x") for n in range(4)]])
    assert upload(database, "p", [[row(f"n{n}", "x") for n in range(3)]]).labelled == 3


def replay(database: Database) -> None:
    """What stands must be what the history says, each version made by one request, none missing."""
    with database.read() as connection:
        pool = pools.find(connection, "p")
        events = connection.execute(sa.select(label_events).order_by(label_events.c.event)).all()
        assert [event.version for event in events] == sorted(event.version for event in events)
        assert {event.version for event in events} == set(range(1, pool.labels_version + 1))
        slow = Reference(pool.n_items, "majority")
        known: set[int] = set()
        for version in range(1, pool.labels_version + 1):
            told = [event for event in events if event.version == version]
            slow.take([Word(e.pos, e.annotator, e.status, e.label, e.adjudicated, e.created_at) for e in told], "")
            assert len(slow.kept) == len([event for event in events if event.version <= version])
            known |= {pos for pos, label in slow.states[version].items() if label is not None}
            found = labels.labelled_at(connection, pool.uid, range(pool.n_items), version)
            assert found == {pos: slow.states[version][pos] for pos in known}
        assert [item.label for item in items.page(connection, pool, -1, 1000)] == list(slow.states[-1].values())
        assert pool.n_labelled == sum(label is not None for label in slow.states[-1].values())


def test_of_those_who_write_at_once_nobody_loses_a_word(database: Database) -> None:
    make_pool(database, 10)
    writers, requests = 4, 25
    others = [Database(database.url.render_as_string(hide_password=False)) for _ in range(writers)]

    def write(number: int) -> list[tuple[int, list[Word]]]:
        chance = random.Random(number)
        told = []
        for turn in range(requests):
            said = [
                Word(pos, f"ann {number}", "label", f"{number}.{turn}.{pos}", False, None)
                for pos in chance.sample(range(10), 3)
            ]
            with others[number].write() as connection:
                done = labels.write(connection, pools.lock(connection, "p"), said)
            told.append((done.pool.labels_version, said))
        return told

    told = [one for found in at_once([lambda n=n: write(n) for n in range(writers)]) for one in found]
    assert sorted(version for version, _ in told) == list(range(1, writers * requests + 1))
    with database.read() as connection:
        events = connection.execute(sa.select(label_events)).all()
    assert sorted((event.version, event.pos, event.annotator, event.label) for event in events) == sorted(
        (version, word.pos, word.annotator, word.label) for version, said in told for word in said
    )
    replay(database)
    for other in others:
        other.close()


SCRIPT = """
import sys
from icl_select.service.store import labels, pools
from icl_select.service.store.database import Database
database, number = Database(sys.argv[1]), sys.argv[2]
print("here", flush=True)
sys.stdin.readline()
for turn in range(10_000):
    word = labels.Word(turn % 10, f"ann {number}", "label", f"{number}.{turn}", False, None)
    with database.write() as connection:
        done = labels.write(connection, pools.lock(connection, "p"), [word])
    print(done.pool.labels_version, word.pos, word.annotator, word.label, sep="|", flush=True)
"""


def test_processes_that_are_killed_while_they_write_lose_nothing_that_they_acknowledged(database: Database) -> None:
    make_pool(database, 10)
    url = database.url.render_as_string(hide_password=False)
    told: list[str] = []
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    for turn in range(2):
        writers = [
            subprocess.Popen([sys.executable, "-c", SCRIPT, url, f"{turn}.{number}"], **pipes)  # type: ignore[call-overload]
            for number in range(2)
        ]
        try:
            for writer in writers:
                assert writer.stdout.readline() == "here\n"
            for writer in writers:
                writer.stdin.write("go\n")
                writer.stdin.flush()
            for writer in writers:
                told += [writer.stdout.readline().strip() for _ in range(15)]
        finally:
            for writer in writers:
                writer.kill()
        for writer in writers:
            told += [line.strip() for line in writer.stdout if line.endswith("\n")]
            writer.wait()
            writer.stdin.close()
            writer.stdout.close()
    with database.read() as connection:
        events = connection.execute(sa.select(label_events)).all()
    kept = [f"{event.version}|{event.pos}|{event.annotator}|{event.label}" for event in events]
    assert len(kept) == len(set(kept))
    assert set(told) <= set(kept)
    assert len(kept) - len(set(told)) <= 4  # taken, and killed before it could be told
    replay(database)


def test_nothing_that_is_asked_often_reads_a_whole_table(database: Database) -> None:
    if not database.is_sqlite:
        pytest.skip("SQLite tells its plans without statistics")
    make_pool(database, 50)
    with database.write() as connection:
        pool = pools.lock(connection, "p")
        selections.create(connection, pool, "s", "job", "random", 50, 0)
        selections.fill(connection, "s", list(range(50)), [0.0] * 50, {})
    plans: list[str] = []

    def explain(connection: sa.Connection, _cursor: object, statement: str, parameters: object, *_: object) -> None:
        if statement.startswith(("SELECT", "UPDATE", "DELETE")):
            given_ = parameters[0] if isinstance(parameters, list) else parameters
            raw = connection.connection.cursor()
            raw.execute(f"EXPLAIN QUERY PLAN {statement}", given_)
            plans.extend(f"{line[3]} <- {statement}" for line in raw.fetchall())

    sa.event.listen(database.engine, "before_cursor_execute", explain)
    say(database, 3, "x")
    say(database, 3, "y", created_at=TIMES[0])
    upload(database, "p", [[row("a", "x"), row("i5", "y")]])
    with database.write() as connection:
        leases.take(connection, pools.lock(connection, "p"), "s", "ann", 5, 600)
    with database.read() as connection:
        pool = pools.find(connection, "p")
        leases.remaining(connection, pool, "s", "ann")
        selections.labelled(connection, pool, "s")
        labels.page(connection, pool, 1, -1, 5)
        labels.since(connection, pool.uid, 0, 1)
        labels.labelled_at(connection, pool.uid, [1, 2, 3], 1)
        labels.history(connection, pool, 3)
        items.page(connection, pool, -1, 5)
        items.find(connection, pool, "i3")
        items.positions(connection, pool, ["i3", "i4"])
        items.at(connection, pool, [1, 2])
    assert len(plans) > 30
    wide = [
        plan
        for plan in plans
        if plan.startswith("SCAN") and not plan.startswith(("SCAN CONSTANT", "SCAN anon", "SCAN (sub"))
    ]
    assert wide == []
    rows_by_key = [
        plan for plan in plans if "(pool_uid=?)" in plan and f" {items_table.name} " in plan.split(" <- ")[0]
    ]
    assert rows_by_key == []
