"""Items: uploads are seen all at once or never, name their rows as a pool file does, and never change what is there."""

from __future__ import annotations

import datetime
import tracemalloc
from collections.abc import Iterator, Sequence
from typing import Any

import pytest
import sqlalchemy as sa
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from store_cases import add, at_once, count, database, make_pool, row, rows, say, upload

from icl_select.data import Pool
from icl_select.data.readers import read_records
from icl_select.data.rows import RowSpec, read_rows
from icl_select.service.errors import ConflictError, InvalidError, NotFoundError
from icl_select.service.store import items, labels, pools
from icl_select.service.store.database import Database, later
from icl_select.service.store.items import ItemRecord
from icl_select.service.store.pools import PoolRecord
from icl_select.service.store.tables import items as items_table
from icl_select.service.store.tables import label_events
from icl_select.service.store.tables import pools as pools_table
from icl_select.service.store.uploads import NewItem, Upload, Uploaded

__all__ = ["database"]

SETTINGS = settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


def contents(database: Database, name: str = "p") -> tuple[PoolRecord, list[ItemRecord]]:
    with database.read() as connection:
        pool = pools.find(connection, name)
        return pool, items.page(connection, pool, -1, 1_000_000)


def from_records(records: Sequence[dict[str, Any]]) -> list[NewItem]:
    """Rows as the routes make them of records."""
    return [
        NewItem(found.where, found.given, found.content_id, found.text, found.fields, found.metadata, found.label)
        for found in read_rows(read_records(records, "items"), RowSpec())
    ]


def parts(new: Sequence[NewItem], sizes: Sequence[int]) -> Iterator[Sequence[NewItem]]:
    start = 0
    for size in sizes:
        yield new[start : start + size]
        start += size
    yield new[start:]


RECORDS = st.lists(
    st.fixed_dictionaries(
        {"text": st.sampled_from(["a", "b", "a\0b", "ä\u2028", "\U0001f600"])},
        optional={
            "subject": st.sampled_from(["s", "t"]),
            "metadata": st.sampled_from([{}, {"source": 1}, {"source": [None, "\0"]}]),
            "label": st.sampled_from(["x", "y", "", None, 3]),
        },
    ),
    min_size=1,
    max_size=14,
)
SIZES = st.lists(st.integers(1, 4), max_size=4)


@SETTINGS
@given(records=RECORDS, given_ids=st.sets(st.integers(0, 13)), sizes=SIZES)
def test_rows_become_the_items_that_a_pool_file_makes_of_them(
    database: Database, records: list[dict[str, Any]], given_ids: set[int], sizes: list[int]
) -> None:
    stated = [{**record, "id": f"given {i}"} if i in given_ids else record for i, record in enumerate(records)]
    expected = list(Pool.from_records(stated))
    remove(database)
    make_pool(database)
    done = upload(database, "p", list(parts(from_records(stated), sizes)))
    pool, found = contents(database)
    assert [item.example for item in found] == expected
    assert [item.pos for item in found] == list(range(len(expected)))
    assert pool == done.pool
    assert pool.n_items == done.added == len(expected)
    assert pool.n_labelled == done.labelled == sum(example.label is not None for example in expected)


def remove(database: Database) -> None:
    with database.write() as connection:
        for pool in pools.listing(connection, None, 10):
            pools.delete(connection, pool.name)


@SETTINGS
@given(first=RECORDS, second=RECORDS, sizes=SIZES)
def test_sending_rows_again_adds_nothing_and_others_are_added(
    database: Database, first: list[dict[str, Any]], second: list[dict[str, Any]], sizes: list[int]
) -> None:
    """A content that came n times in one upload and m times in another is there max(n, m) times."""
    remove(database)
    make_pool(database)
    upload(database, "p", [from_records(first)])
    before, old = contents(database)
    again = upload(database, "p", list(parts(from_records(first), sizes)))
    assert contents(database) == (before, old)
    assert (again.added, again.unchanged, again.labelled) == (0, len(first), 0)

    done = upload(database, "p", list(parts(from_records(second), sizes)))
    pool, found = contents(database)
    assert [(item.id, item.text) for item in found[: len(old)]] == [(item.id, item.text) for item in old]

    def often(records: Sequence[Any]) -> dict[Any, int]:
        keys = [repr((record["text"], record.get("subject"), record.get("metadata") or {})) for record in records]
        return {key: keys.count(key) for key in keys}

    one, two = often(first), often(second)
    assert often([{**item.fields, "metadata": item.metadata} for item in found]) == {
        key: max(one.get(key, 0), two.get(key, 0)) for key in one | two
    }
    assert len({item.id for item in found}) == len(found)
    assert done.added + done.unchanged == len(second)
    assert (pool.version, pool.n_items) == (before.version + bool(done.added), len(found))


def test_a_repeat_takes_no_name_that_was_given(database: Database) -> None:
    name = Pool.from_records([{"text": "a"}]).ids[0]
    records = [{"id": f"{name}-2", "text": "other"}, {"text": "a"}, {"text": "a"}]
    make_pool(database)
    add(database, "p", from_records(records))
    assert [item.id for item in contents(database)[1]] == Pool.from_records(records).ids
    late = [{"text": "b"}, {"id": Pool.from_records([{"text": "b"}]).ids[0], "text": "other"}]
    with pytest.raises(ConflictError, match=r"items, item 1: the id '.*' belongs to an item of other content"):
        add(database, "p", from_records(late))  # a file may not be read twice, so what comes late cannot be known


def test_many_equal_rows_take_time_for_each_once(database: Database) -> None:
    make_pool(database)
    new = from_records([{"text": "a"}] * 600)
    asked: list[str] = []
    sa.event.listen(database.engine, "before_cursor_execute", lambda *args: asked.append(args[2]))
    upload(database, "p", [new[:200], new[200:400], new[400:]])
    upload(database, "p", [new[:200], new[200:400], new[400:]])
    assert [item.id for item in contents(database)[1]] == Pool.from_records([{"text": "a"}] * 600).ids
    assert len(asked) < 2.2 * 600


def test_a_large_upload_lets_the_server_look_at_the_table(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without it PostgreSQL reads the whole pool to find the ids of each part."""
    if database.is_sqlite:
        pytest.skip("SQLite needs no statistics for this")
    monkeypatch.setattr("icl_select.service.store.uploads._ANALYSED", 100)
    make_pool(database)

    def looked() -> float:
        with database.read() as connection:
            query = "SELECT reltuples FROM pg_class WHERE relname = 'items'"
            return float(connection.execute(sa.text(query)).scalar_one())

    running = Upload(database, "p", max_items=10**6)
    running.begin()
    seen = []
    for start in range(0, 500, 50):
        running.add(rows(50, start))
        seen.append(looked())
    assert seen == [-1, *[100] * 6, *[400] * 3]


def test_nothing_is_seen_before_the_end(database: Database) -> None:
    before = make_pool(database, 2)
    running = Upload(database, "p", max_items=100)
    running.begin()
    running.add([row("a", "x"), row("b")])
    running.add([row("c")])
    pool, found = contents(database)
    assert [item.id for item in found] == ["i0", "i1"]
    assert (pool.n_items, pool.version, pool.labels_version, pool.fingerprint) == (2, 1, 0, before.fingerprint)
    with database.read() as connection:
        assert items.positions(connection, pool, ["i1", "a", "c"]) == {"i1": 1}
        assert items.at(connection, pool, [1, 2, 3]).keys() == {1}
        with pytest.raises(NotFoundError, match="the pool 'p' of 2 items has no item 'a'"):
            items.find(connection, pool, "a")
        assert labels.page(connection, pool, 9, -1, 9) == []
    with database.write() as connection:
        done = running.finish(connection)
        with database.read() as other:
            assert pools.find(other, "p").n_items == 2
    pool, found = contents(database)
    assert [(item.id, item.label) for item in found[2:]] == [("a", "x"), ("b", None), ("c", None)]
    assert done == Uploaded(pool, 3, 0, 1)
    assert (pool.version, pool.labels_version, pool.n_labelled, pool.upload) == (2, 1, 1, None)
    assert pool.fingerprint != before.fingerprint


def test_the_fingerprint_is_that_of_the_content_and_of_how_it_came(database: Database) -> None:
    prints = []
    for name, cut in (("one", [[0, 1, 2]]), ("two", [[0], [1, 2]]), ("three", [[0, 2, 1]])):
        make_pool(database, name=name)
        prints.append(upload(database, name, [[row(f"i{n}") for n in part] for part in cut]).pool.fingerprint)
    assert prints[0] == prints[1] != prints[2]
    make_pool(database, name="four")
    assert add(database, "four", [row(f"j{n}", text=f"text of i{n}") for n in range(3)]).pool.fingerprint not in prints
    assert contents(database, "one")[0].fingerprint == prints[0]
    assert len(prints[0]) == 16


def test_an_upload_without_rows_changes_nothing(database: Database) -> None:
    before = make_pool(database, 2)
    assert upload(database, "p", []) == Uploaded(before, 0, 0, 0)
    assert upload(database, "p", [[], []]) == Uploaded(before, 0, 0, 0)


def test_an_upload_that_is_aborted_leaves_nothing(database: Database) -> None:
    before = make_pool(database, 2)
    running = Upload(database, "p", max_items=100)
    running.begin()
    running.add([row("a", "x"), row("i1")])
    running.abort()
    running.abort()
    assert contents(database)[0] == before
    assert count(database, items_table) == 2
    with pytest.raises(ConflictError, match="lost its place"), database.write() as connection:
        running.finish(connection)
    assert add(database, "p", [row("a", text="other")]).added == 1


def test_one_upload_into_a_pool_at_a_time(database: Database) -> None:
    make_pool(database)
    make_pool(database, name="other")
    first, second = (Upload(database, "p", max_items=100) for _ in range(2))
    first.begin()
    with pytest.raises(ConflictError, match="another upload into the pool 'p' is running") as failure:
        second.begin()
    assert failure.value.headers == {"Retry-After": "5"}
    second.abort()  # takes nothing from the first
    assert add(database, "other", [row("a")]).added == 1
    first.add([row("a")])
    with database.write() as connection:
        assert first.finish(connection).added == 1
    second.begin()
    second.abort()


def test_of_uploads_that_begin_at_once_one_does(database: Database) -> None:
    make_pool(database)

    def begin() -> bool:
        try:
            Upload(database, "p", max_items=100).begin()
        except ConflictError:
            return False
        return True

    assert sorted(at_once([begin] * 4)) == [False, False, False, True]


def kill(database: Database) -> None:
    """Make the running upload look as if nothing had been heard of it for long."""
    with database.write() as connection:
        connection.execute(pools_table.update().values(upload_until=later(-1)))


def test_what_a_dead_upload_left_is_removed_by_the_next_and_the_dead_stays_dead(database: Database) -> None:
    make_pool(database, 3)
    dead = Upload(database, "p", max_items=10**6)
    dead.begin()
    dead.add([row("a", "lost", text="lost"), *rows(20_500, start=100)])
    kill(database)
    running = Upload(database, "p", max_items=10**6)
    running.begin()
    assert count(database, items_table) == 3
    running.add([row("a", "kept")])
    for late in (lambda: dead.add([row("b")]), lambda: finish(database, dead)):
        with pytest.raises(ConflictError, match="this upload paused for more than 120 s and lost its place"):
            late()
    dead.abort()
    assert finish(database, running).added == 1
    found = contents(database)[1]
    assert [(item.id, item.label) for item in found] == [("i0", None), ("i1", None), ("i2", None), ("a", "kept")]
    assert count(database, label_events) == 1


def finish(database: Database, running: Upload) -> Uploaded:
    with database.write() as connection:
        return running.finish(connection)


def test_an_upload_that_writes_keeps_its_place(database: Database) -> None:
    make_pool(database)
    running = Upload(database, "p", max_items=100)
    running.begin()
    kill(database)
    running.add([row("a")])  # nobody took the place meanwhile
    with pytest.raises(ConflictError, match="is running"):
        Upload(database, "p", max_items=100).begin()
    assert finish(database, running).added == 1


def test_a_pool_that_is_deleted_during_an_upload(database: Database) -> None:
    make_pool(database, 1)
    running = Upload(database, "p", max_items=100)
    running.begin()
    running.add([row("a")])
    with database.write() as connection:
        pools.delete(connection, "p")
    for late in (lambda: running.add([row("b")]), lambda: finish(database, running)):
        with pytest.raises(NotFoundError, match="the pool was deleted meanwhile"):
            late()
    running.abort()
    make_pool(database, 1)  # under the same name, and not to be touched
    with pytest.raises(NotFoundError):
        running.add([row("b")])
    assert count(database, items_table) == 1


def test_an_id_means_one_content_for_ever(database: Database) -> None:
    make_pool(database, 2)
    before = contents(database)
    for new, reason in (
        ([row("new"), row("i1", text="other")], "row i1: the id 'i1' belongs to an item of other content"),
        ([NewItem("row 1", "i1", "", "text of i1", {"text": "text of i1"}, {"m": 1}, None)], "of other content"),
        ([NewItem("row 1", "i1", "", "text of i1", {"text": "text of i1", "b": 1}, {}, None)], "of other content"),
        ([row("new"), row("new")], "row new: the id 'new' comes twice in this upload"),
        ([row("new"), row("new", text="other")], "belongs to an item of other content"),
        ([row("i1", "x"), row("i1", "y")], "row i1: the id 'i1' comes twice in this upload"),
    ):
        for cut in ([new], [[one] for one in new]):
            with pytest.raises(ConflictError, match=reason):
                upload(database, "p", cut)
            assert contents(database) == before
    assert count(database, items_table) == 2


def test_a_pool_takes_as_many_items_as_it_may(database: Database) -> None:
    make_pool(database, 2)
    with pytest.raises(ConflictError, match="the pool would hold more than 4 items, which is its limit"):
        upload(database, "p", [[row("a"), row("b")], [row("i1"), row("c")]], max_items=4)
    assert contents(database)[0].n_items == 2
    assert upload(database, "p", [[row("a"), row("i0"), row("i1")], [row("b")]], max_items=4).pool.n_items == 4


def test_labels_that_come_with_rows_are_words_of_the_upload(database: Database) -> None:
    make_pool(database)
    done = upload(database, "p", [[row("a", "x"), row("b")], [row("c", "y")]])
    assert (done.labelled, done.pool.labels_version, done.pool.n_labelled) == (2, 1, 2)
    with database.read() as connection:
        said = [labels.history(connection, done.pool, pos) for pos in range(3)]
        assert [(event.annotator, event.status, event.label, event.version) for events in said for event in events] == [
            ("upload", "label", "x", 1),
            ("upload", "label", "y", 1),
        ]
        assert list(labels.votes_of_pool(connection, done.pool)) == [
            ("a", "upload", "x", said[0][0].created_at),
            ("c", "upload", "y", said[2][0].created_at),
        ]
        assert labels.since(connection, done.pool.uid, 0, 1) == [(0, "x"), (2, "y")]
        page = labels.page(connection, done.pool, 1, -1, 10)
    assert [(found.id, found.label, found.version, found.n_votes, found.conflict) for found in page] == [
        ("a", "x", 1, 1, False),
        ("c", "y", 1, 1, False),
    ]


def test_labels_of_rows_that_are_there_already(database: Database) -> None:
    make_pool(database)
    upload(database, "p", [[row("same", "x"), row("other", "x"), row("none", "x"), row("new"), row("ann"), row("odd")]])
    say(database, 4, "z")
    say(database, 5, "z")
    new = [row("same", "x"), row("other", "y"), row("none"), row("new", "y"), row("ann", "z"), row("odd", "w")]
    done = upload(database, "p", [new[:2], new[2:]])
    assert (done.added, done.unchanged, done.labelled) == (0, 6, 3)
    pool, found = contents(database)
    assert [(item.label, item.n_votes, item.conflict) for item in found] == [
        ("x", 1, False),
        ("y", 1, False),  # the upload corrects itself
        ("x", 1, False),  # a row without a label takes none back
        ("y", 1, False),
        ("z", 1, False),  # what stands already is not said again, and nobody seems to agree with ann
        (None, 2, True),
    ]
    assert (pool.version, pool.labels_version, pool.n_labelled) == (1, 4, 5)
    again = upload(database, "p", [new])
    assert (again.labelled, again.pool.labels_version) == (0, 4)
    assert count(database, label_events) == 3 + 2 + 3


def test_many_labels_of_old_rows_are_taken_in_one_transaction(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("icl_select.service.store.uploads._RELABELLED", 3)
    make_pool(database, 10)
    done = upload(database, "p", [[row(f"i{n}", f"label {n}") for n in range(10)]])
    assert (done.labelled, done.pool.n_labelled, count(database, label_events)) == (10, 10, 10)
    assert [item.label for item in contents(database)[1]] == [f"label {n}" for n in range(10)]


def test_labels_may_be_written_while_an_upload_runs(database: Database) -> None:
    make_pool(database, 3)
    say(database, 0, "x")
    running = Upload(database, "p", max_items=100)
    running.begin()
    running.add([row("i0", "x"), row("i1", "mine"), row("new", "fresh")])
    assert say(database, 1, "hers").pool.labels_version == 2
    assert say(database, 2, "hers").pool.labels_version == 3
    assert say(database, 0, "z").pool.labels_version == 4
    done = finish(database, running)
    pool, found = contents(database)
    assert [(item.label, item.n_votes) for item in found] == [("z", 1), (None, 2), ("hers", 1), ("fresh", 1)]
    assert (pool.labels_version, pool.n_labelled, done.labelled) == (6, 3, 2)


def test_labels_of_uploads_stand_in_order_among_many_versions(database: Database) -> None:
    """Events are numbered beyond 32 bits."""
    make_pool(database, 1)
    for version in (126, 2**31 - 1):
        with database.write() as connection:
            pools.update(connection, pools.lock(connection, "p"), labels_version=version)
        say(database, 0, f"before {version}")
        done = add(database, "p", [row(f"new {version}", "x")])
        assert done.pool.labels_version == version + 2
        say(database, done.pool.n_items - 1, "z", "upload")
    with database.read() as connection:
        pool = pools.find(connection, "p")
        events = [event for pos in range(pool.n_items) for event in labels.history(connection, pool, pos)]
        in_order = sorted(events, key=lambda event: event.event)
        assert [event.version for event in in_order] == [127, 128, 129, 2**31, 2**31 + 1, 2**31 + 2]
    assert [item.label for item in contents(database)[1]] == [f"before {2**31 - 1}", "z", "z"]


@pytest.mark.parametrize(
    ("new", "reason"),
    [
        (row("a\0b"), r"'a\\x00b' holds a NUL"),
        (row("a\ud800"), r"U\+D800, half of a surrogate pair"),
        (row("a", "x\0"), "holds a NUL"),
        (row("a", "\udc00"), r"U\+DC00, half of a surrogate pair"),
        (NewItem("row 7", "a", "", "t", {"n": float("nan")}, {}, None), "row 7: a field holds what JSON cannot"),
        (NewItem("row 7", "a", "", "t", {"when": datetime.date(2024, 1, 1)}, {}, None), "row 7: .*date"),
        (NewItem("row 7", "a", "", "t", {}, {"set": {1}}, None), "row 7: .*set"),
    ],
    ids=["NUL in id", "surrogate in id", "NUL in label", "surrogate in label", "NaN", "date", "set"],
)
def test_what_cannot_be_kept_is_refused_with_its_row(database: Database, new: NewItem, reason: str) -> None:
    make_pool(database, 1)
    with pytest.raises(InvalidError, match=reason):
        add(database, "p", [row("fine"), new])
    assert count(database, items_table) == 1
    assert add(database, "p", [row("fine")]).added == 1


def test_fields_and_metadata_come_back_as_they_were(database: Database) -> None:
    make_pool(database)
    fields = {"text": "a\0ä\u2028\U0001f600", "n": 2**70, "x": 0.1, "list": [None, True, {"b": "c"}], "\0": ""}
    add(database, "p", [NewItem("row 1", "id/with ä?#%", "", "the text", fields, {"source": ["\0"]}, None)])
    with database.read() as connection:
        pool = pools.find(connection, "p")
        found = items.find(connection, pool, "id/with ä?#%")
        assert list(items.texts(connection, pool, 0, 1)) == ["the text"]
    assert (found.text, found.fields, found.metadata) == ("the text", fields, {"source": ["\0"]})


def test_pages_and_texts_go_through_the_pool_in_order(database: Database) -> None:
    make_pool(database, 10_000)
    for pos in (3, 5000, 9999):
        say(database, pos, "x")
    say(database, 4, status="skip")
    with database.read() as connection:
        pool = pools.find(connection, "p")
        assert list(items.texts(connection, pool, 4000, 9000)) == [f"text of i{n}" for n in range(4000, 9000)]
        assert list(items.texts(connection, pool, 7, 7)) == []
        assert [item.pos for item in items.page(connection, pool, 4, 3)] == [5, 6, 7]
        assert [item.pos for item in items.page(connection, pool, -1, 9, labelled=True)] == [3, 5000, 9999]
        assert [item.pos for item in items.page(connection, pool, 3, 2, labelled=True)] == [5000, 9999]
        assert [item.pos for item in items.page(connection, pool, 1, 3, labelled=False)] == [2, 4, 5]
        assert items.page(connection, pool, 9999, 5) == []
        some = list(range(9000))
        assert list(items.at(connection, pool, some)) == some
        assert items.positions(connection, pool, [f"i{n}" for n in some] + ["no"]) == {f"i{n}": n for n in some}


def test_memory_does_not_grow_with_an_upload(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    """Rows are sent twice, the second time with labels, which take a little more while they wait for the end."""
    monkeypatch.setattr("icl_select.service.store.uploads._RELABELLED", 250)
    make_pool(database)

    def send(total: int, label: str | None) -> int:
        running = Upload(database, "p", max_items=10**6)
        running.begin()
        tracemalloc.start()
        try:
            for start in range(0, total, 250):
                running.add([row(f"i{n}", label, "text " * 100 + str(n)) for n in range(start, start + 250)])
            finish(database, running)
            return tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()

    few = max(send(500, None), send(500, "x"))
    assert send(4_000, None) < few + 300_000  # 100 bytes a row, of 500 and more that each takes
    assert send(4_000, "x") < few + 1_200_000
    pool = contents(database)[0]
    assert (pool.n_items, pool.n_labelled) == (4_000, 4_000)
