"""The index of labelled items: as labels change it is always what it would be had it been built just now."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from engine_cases import Stage, asked, on_one_database, outcomes
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from store_cases import add, make_pool, row, say
from work_cases import Here

from icl_select.errors import EmbeddingError
from icl_select.retrieve import Retriever
from icl_select.service.engine.index import Indexes, LabelledIndex
from icl_select.service.errors import ConflictError, StaleError
from icl_select.service.store import items, labels, pools
from icl_select.service.store.embeddings import EmbeddingRecord
from icl_select.service.vectors import VectorFiles


def get(here: Here, indexes: Indexes, name: str = "p") -> LabelledIndex:
    """The index of a pool as it is now."""
    with here.database.read() as connection:
        pool = pools.find(connection, name)
        return indexes.get(connection, pool, here.embedding(name).encoder_fingerprint)


def check(here: Here, index: LabelledIndex, name: str = "p") -> None:
    """Compare an index with the tables and the files, by the library alone."""
    embedding = here.embedding(name)
    with here.database.read() as connection:
        pool = pools.find(connection, name)
        positions = labels.labelled_positions(connection, pool)
        found = items.at(connection, pool, positions)
    vectors = here.vectors.rows(embedding, positions)
    if embedding.shift is not None:
        vectors = (vectors - embedding.shift).astype(np.float32)
    expected = Retriever(vectors, [found[pos].id for pos in positions], [found[pos].label for pos in positions])
    assert index.positions == tuple(positions)
    assert index.labels == tuple(found[pos].label for pos in positions)
    assert [shown.id for shown in index.shown] == [found[pos].id for pos in positions]
    assert [shown.fields["text"] for shown in index.shown] == [found[pos].text for pos in positions]
    assert index.retriever.fingerprint == expected.fingerprint
    queries = np.random.default_rng(0).normal(size=(3, embedding.dim))
    for mine, theirs in zip(index.retriever.retrieve(queries, 4), expected.retrieve(queries, 4), strict=True):
        assert mine.ids == theirs.ids
        assert mine.similarities.tolist() == theirs.similarities.tolist()
    assert (index.pool, index.embedding.id) == (pool, embedding.id)
    assert len(index) == len(positions)


steps = st.lists(
    st.one_of(
        st.tuples(st.just("say"), st.integers(0, 7), st.sampled_from("abc"), st.sampled_from(["ann", "bob"])),
        st.tuples(st.just("retract"), st.integers(0, 7), st.none(), st.sampled_from(["ann", "bob"])),
        st.tuples(st.just("look"), st.none(), st.none(), st.none()),
        st.tuples(st.just("grow"), st.none(), st.none(), st.none()),
    ),
    max_size=25,
)


@on_one_database
@pytest.mark.parametrize("resolve", ["majority", "latest"])
@settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(steps=steps)
def test_an_index_that_grew_equals_one_that_was_built_now(
    stage: Stage, resolve: str, steps: list[tuple[str, Any, Any, Any]]
) -> None:
    """Labels, corrections, disagreement and retraction, looked at now and then, and a pool that grows meanwhile."""
    here = stage.here
    if "fake" not in stage.fakes:
        stage.fake(dim=16)
    name = f"pool-{sum(1 for _ in here.settings.data_dir.glob('pools/*'))}"
    stage.pool(name, 8, labelled=0, centre=True, resolve=resolve)
    growing = Indexes(here.vectors)
    size = 8
    for what, pos, label, annotator in steps:
        if what in ("say", "retract"):
            status = "label" if what == "say" else "retract"
            say(here.database, pos, label, annotator, status=status, pool=name)
        elif what == "grow":
            add(here.database, name, [row(f"i{size}")])
            stage.embed(name)
            size += 1
        elif here.pool(name).n_labelled:
            index = get(here, growing, name)
            check(here, index, name)
            assert index.version == get(here, Indexes(here.vectors), name).version
        else:
            with pytest.raises(ConflictError, match="is labelled, so there is nothing to show"):
                get(here, growing, name)


class Counting(VectorFiles):
    """Vector files that count what is read of them."""

    def __init__(self, data_dir: Path) -> None:
        super().__init__(data_dir)
        self.read: list[list[int]] = []

    def rows(
        self, embedding: EmbeddingRecord, positions: Sequence[int] | npt.NDArray[np.int64]
    ) -> npt.NDArray[np.float32]:
        self.read.append(list(np.asarray(positions).tolist()))
        return super().rows(embedding, positions)


@pytest.fixture
def counting(here: Here) -> Counting:
    return Counting(here.settings.data_dir)


@on_one_database
def test_only_what_changed_is_read(stage: Stage, counting: Counting) -> None:
    stage.pool(texts=8, labelled=3)
    indexes = Indexes(counting)
    first = get(stage.here, indexes)
    assert get(stage.here, indexes) is first
    stage.label(5, "a")
    stage.label(1, "other")
    check(stage.here, get(stage.here, indexes))
    stage.label(5, None)
    get(stage.here, indexes)
    stage.label(5, "b")
    check(stage.here, get(stage.here, indexes))
    assert counting.read == [[0, 1, 2], [5]]


@on_one_database
def test_an_index_outlives_what_could_not_be_added_to_it(stage: Stage, counting: Counting) -> None:
    """An item with a label and without a vector: refused, and nothing is read again when it is embedded."""
    stage.pool(texts=5, labelled=3)
    indexes = Indexes(counting)
    first = get(stage.here, indexes)
    add(stage.here.database, "p", [row("new")])
    assert get(stage.here, indexes).retriever is first.retriever  # items without a label change nothing
    stage.label(5, "a")
    for _ in range(3):
        with pytest.raises(StaleError, match="1 labelled items of the pool 'p' are not embedded yet") as caught:
            get(stage.here, indexes)
        assert caught.value.headers["Retry-After"] == "1"
    stage.label(5, None)
    check(stage.here, get(stage.here, indexes))
    assert counting.read == [[0, 1, 2]]
    stage.label(5, "a")
    stage.embed()
    check(stage.here, get(stage.here, indexes))


@on_one_database
def test_an_index_outlives_a_file_that_is_missing_for_a_while(stage: Stage) -> None:
    stage.pool(texts=5, labelled=3)
    indexes = Indexes(VectorFiles(stage.here.settings.data_dir))
    before = get(stage.here, indexes)
    (path,) = stage.here.files().values()
    content = path.read_bytes()
    path.unlink()
    assert get(stage.here, indexes) is before
    stage.label(4, "a")
    with pytest.raises(StaleError, match="/v1/pools/p/embeddings"):
        get(stage.here, indexes)
    path.write_bytes(content)
    check(stage.here, get(stage.here, indexes))


@on_one_database
def test_the_labels_of_a_pool_may_all_go_and_come_again(stage: Stage, counting: Counting) -> None:
    stage.pool(texts=4, labelled=1)
    indexes = Indexes(counting)
    get(stage.here, indexes)
    stage.label(0, None)
    for _ in range(2):
        with pytest.raises(ConflictError, match="none of the 4 items"):
            get(stage.here, indexes)
    assert indexes.n_items == 0
    stage.label(0, "again")
    check(stage.here, get(stage.here, indexes))
    assert counting.read == [[0]]


@on_one_database
def test_another_encoder_of_the_same_name_is_found_out(stage: Stage) -> None:
    stage.pool()
    indexes = Indexes(stage.here.vectors)
    get(stage.here, indexes)
    with (
        stage.here.database.read() as connection,
        pytest.raises(StaleError, match="another version of fake"),
    ):
        indexes.get(connection, pools.find(connection, "p"), "another")
    check(stage.here, get(stage.here, indexes))


@on_one_database
def test_a_pool_that_was_deleted_and_made_again_is_another_one(stage: Stage) -> None:
    stage.pool(texts=["old one", "old two"], labelled=2)
    before = stage.one("old one", k=1)
    for tell in (True, False):  # another server may have deleted it: then nobody tells
        with stage.here.database.write() as connection:
            gone = pools.delete(connection, "p")
        if tell:
            stage.engine.forget(gone.uid)
        stage.pool(texts=["new one", "new two", "new three"], labelled=3)
        after = stage.one("old one", k=1)
        assert after.id != before.id
        assert after.document["prompt"].startswith("new one\na")
        assert stage.counted("ics_index_items") == (3 if tell else 6)
        before = after


@on_one_database
def test_indexes_that_were_not_used_for_longest_make_room(stage: Stage, counting: Counting) -> None:
    for name in "abc":
        stage.pool(name, 4)
    indexes = Indexes(counting, most=13_000)  # two of them, about
    for name in "abacac":
        check(stage.here, get(stage.here, indexes, name), name)
    assert len(counting.read) == 3
    get(stage.here, indexes, "b")
    assert len(counting.read) == 4
    assert indexes.n_items == 8


@on_one_database
def test_one_index_may_be_larger_than_all_should_be(stage: Stage) -> None:
    for name in "ab":
        stage.pool(name, 4)
    indexes = Indexes(stage.here.vectors, most=1)
    for name in "abab":
        check(stage.here, get(stage.here, indexes, name), name)
        assert indexes.n_items == 4


@on_one_database
def test_versions_that_go_back_are_built_anew(stage: Stage) -> None:
    """A database that was brought back from a copy while the service went on."""
    stage.pool()
    indexes = Indexes(stage.here.vectors)
    before = get(stage.here, indexes)
    stage.label(0, "later")
    get(stage.here, indexes)
    with stage.here.database.read() as connection:
        old = indexes.get(connection, before.pool, before.embedding.encoder_fingerprint)
    assert old.labels == before.labels
    assert old.version == before.version


FIXED = {"middle": [1.0, 1.0], "left": [2.0, 1.0], "right": [0.0, 1.0], "up": [3.0, 3.0], "down": [-1.0, -1.0]}


@on_one_database
def test_an_item_without_a_direction_is_not_shown(stage: Stage) -> None:
    """The mean of the pool, less itself: nothing is similar to it, and the others are not harmed."""
    stage.fake(dim=2, fixed=FIXED)
    stage.pool(texts=["left", "middle", "right"], labelled=3, centre=True)
    found = stage.one("up", k=3).document["examples"]
    assert sorted(shown["id"] for shown in found) == ["i0", "i2"]
    stage.label(2, None)
    assert [shown["id"] for shown in stage.one("up", k=3).document["examples"]] == ["i0"]
    stage.label(0, None)
    with pytest.raises(ConflictError, match="has the mean of the pool for its vector"):
        stage.one("up", k=3)


@on_one_database
def test_a_query_without_a_direction_is_refused_alone(stage: Stage) -> None:
    stage.fake(dim=2, fixed=FIXED)
    stage.pool(texts=["left", "middle", "right"], labelled=3, centre=True)
    good, bad, several = outcomes(stage, asked(stage, "up"), asked(stage, "middle"), asked(stage, "down", "middle"))
    assert len(good) == 1
    assert isinstance(bad, EmbeddingError)
    assert isinstance(several, EmbeddingError)
    assert str(several).startswith("queries[1]: ")


@on_one_database
def test_a_pool_of_one_item_has_nothing_to_compare(stage: Stage) -> None:
    stage.pool(texts=["alone"], labelled=1, centre=True)
    with pytest.raises(ConflictError, match="centre=false"):
        stage.one("x")
    stage.pool("plain", texts=["alone"], labelled=1)
    assert stage.one("x", pool="plain").document["examples"][0]["id"] == "i0"


@on_one_database
def test_a_pool_that_is_not_embedded_says_so(stage: Stage) -> None:
    make_pool(stage.here.database, 3, encoder="fake", centre=False, text=None, prompt={})
    stage.fake()
    say(stage.here.database, 0, "a")
    with pytest.raises(ConflictError, match="the 3 items of the pool 'p' are not embedded yet"):
        stage.one("x")
    stage.embed()
    assert stage.one("x").document["examples"]


def test_each_prompt_shows_the_labels_of_the_version_that_it_names(stage: Stage) -> None:
    """Whatever else is kept, on both databases."""
    stage.pool(texts=6, labelled=2)
    history: dict[int, dict[str, str]] = {}
    for step in range(30):
        stage.label(step * 7 % 6, None if step % 5 == 4 else f"L{step}")
        pool = stage.here.pool()
        with stage.here.database.read() as connection:
            rows = labels.page(connection, pool, pool.labels_version, -1, 100)
        history[pool.labels_version] = {one.id: one.label for one in rows if one.label is not None}
        if step % 3 and pool.n_labelled:
            document = stage.one(f"query {step % 4}", k=4).document
            stands = history[document["versions"]["labels"]]
            assert document["versions"]["labels"] == pool.labels_version
            assert {shown["id"]: shown["label"] for shown in document["examples"]}.items() <= stands.items()
            assert len(document["examples"]) == min(4, len(stands))
