"""Vector files: right rows or none, written once, the same whatever way they came about."""

from __future__ import annotations

import contextlib
import dataclasses
import errno
import os
from pathlib import Path

import numpy as np
import pytest
from store_cases import make_pool, rows, upload
from work_cases import CONFIG, BatchyEncoder, Here

from icl_select.embedding import embed
from icl_select.errors import DataError, StoreError
from icl_select.service.errors import StaleError
from icl_select.service.store import embeddings, jobs, pools
from icl_select.service.store.embeddings import EmbeddingRecord
from icl_select.service.vectors import BLOCK_ROWS, Rows, VectorFiles
from icl_select.service.work import Cancelled, run

FINGERPRINT = "f" * 16


def written(files: VectorFiles, sizes: tuple[int, ...] = (3, 3, 2), dim: int = 4) -> EmbeddingRecord:
    """Blocks of the given sizes; row i holds i in all dimensions."""
    blocks, start = [], 0
    for size in sizes:
        numbers = np.arange(start, start + size, dtype=np.float32)
        block = Rows(np.repeat(numbers[:, None], dim, axis=1), np.zeros(size, dtype=bool))
        blocks.append(files.write_block(7, FINGERPRINT, start, [f"t{i}" for i in range(start, start + size)], block))
        start += size
    return EmbeddingRecord("emb_1", 7, "fake", FINGERPRINT, start, dim, 0, "pool", None, tuple(blocks), "now")


def path_of(root: Path, embedding: EmbeddingRecord, number: int) -> Path:
    return root / "pools" / "7" / FINGERPRINT / embedding.blocks[number].file


class TestReading:
    @pytest.mark.parametrize("wanted", [[], [0], [7], [7, 0, 3, 3, 2], list(range(8))])
    def test_rows_come_in_the_order_asked_for(self, tmp_path: Path, wanted: list[int]) -> None:
        files = VectorFiles(tmp_path)
        embedding = written(files)
        found = files.rows(embedding, wanted)
        assert found.dtype == np.float32
        assert found.shape == (len(wanted), 4)
        assert found[:, 2].tolist() == wanted

    def test_the_matrix_holds_all_rows(self, tmp_path: Path) -> None:
        files = VectorFiles(tmp_path)
        assert files.matrix(written(files))[:, 1].tolist() == list(range(8))

    def test_the_matrix_can_be_shifted(self, tmp_path: Path) -> None:
        files = VectorFiles(tmp_path)
        found = files.matrix(written(files), np.array([0.5, 1.0, 1.5, 2.0]))
        assert found.dtype == np.float32
        assert found[5].tolist() == [4.5, 4.0, 3.5, 3.0]

    @pytest.mark.parametrize("wanted", [[8], [-1], [0, 100]])
    def test_a_row_that_is_not_embedded_is_refused(self, tmp_path: Path, wanted: list[int]) -> None:
        files = VectorFiles(tmp_path)
        with pytest.raises(StaleError, match=r"8 items of the pool are embedded. POST /v1/pools/\{pool\}/embeddings"):
            files.rows(written(files), wanted)

    @pytest.mark.parametrize("place", [0, 100, -1])
    def test_a_damaged_file_is_refused_and_names_the_way_out(self, tmp_path: Path, place: int) -> None:
        embedding = written(VectorFiles(tmp_path))
        path = path_of(tmp_path, embedding, 1)
        content = bytearray(path.read_bytes())
        content[place] ^= 1
        path.write_bytes(content)
        files = VectorFiles(tmp_path)
        for _ in range(2):
            with pytest.raises(StaleError, match=r"from 3 to 5 is damaged .*POST /v1/pools/\{pool\}/embeddings"):
                files.rows(embedding, [0, 4])
            with pytest.raises(StaleError, match="is damaged"):
                files.matrix(embedding)
        assert files.rows(embedding, [0, 7])[:, 0].tolist() == [0, 7]

    def test_a_file_that_is_replaced_later_is_compared_again(self, tmp_path: Path) -> None:
        files = VectorFiles(tmp_path)
        embedding = written(files)
        files.rows(embedding, [0])
        path = path_of(tmp_path, embedding, 0)
        other = path.with_suffix(".other")
        other.write_bytes(path.read_bytes()[:-1] + b"\1")
        other.replace(path)
        with pytest.raises(StaleError, match="is damaged"):
            files.rows(embedding, [0])

    def test_a_missing_file_is_refused(self, tmp_path: Path) -> None:
        files = VectorFiles(tmp_path)
        embedding = written(files)
        files.matrix(embedding)
        path_of(tmp_path, embedding, 2).unlink()
        with pytest.raises(StaleError, match="from 6 to 7 is missing"):
            files.rows(embedding, [7])

    def test_a_record_of_another_dimension_is_refused(self, tmp_path: Path) -> None:
        files = VectorFiles(tmp_path)
        embedding = dataclasses.replace(written(files), dim=5)
        with pytest.raises(StaleError, match=r"shape \(3, 4\)"):
            files.rows(embedding, [0])

    def test_content_is_compared_once(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        files = VectorFiles(tmp_path)
        embedding = written(files)
        files.matrix(embedding)
        opened: list[Path] = []
        real = Path.open
        monkeypatch.setattr(Path, "open", lambda path, *args, **kw: opened.append(path) or real(path, *args, **kw))
        files.matrix(embedding)
        assert opened == []
        VectorFiles(tmp_path).matrix(embedding)
        assert len(opened) == 3


class TestWriting:
    def test_the_name_says_rows_texts_and_content(self, tmp_path: Path) -> None:
        files = VectorFiles(tmp_path)
        block = Rows(np.ones((2, 3), dtype=np.float32), np.array([True, False]))
        first = files.write_block(1, FINGERPRINT, 4, ["a", "b"], block)
        assert (first.start, first.stop) == (4, 6)
        assert files.write_block(1, FINGERPRINT, 4, ["a", "b"], block) == first
        others = [
            files.write_block(1, FINGERPRINT, 5, ["a", "b"], block),
            files.write_block(1, FINGERPRINT, 4, ["a", "c"], block),
            files.write_block(1, FINGERPRINT, 4, ["a", "b"], Rows(block.vectors * 2, block.truncated)),
        ]
        assert len({first.file, *(other.file for other in others)}) == 4

    def test_a_block_comes_back_whole(self, tmp_path: Path) -> None:
        files = VectorFiles(tmp_path)
        block = Rows(np.random.default_rng(0).normal(size=(5, 3)).astype(np.float32), np.arange(5) % 2 == 0)
        kept = files.write_block(1, FINGERPRINT, 0, list("abcde"), block)
        found = files.read_block(1, FINGERPRINT, kept)
        assert found is not None
        assert np.array_equal(found.vectors, block.vectors)
        assert np.array_equal(found.truncated, block.truncated)

    def test_a_block_is_found_by_its_texts_if_it_is_whole(self, tmp_path: Path) -> None:
        files = VectorFiles(tmp_path)
        block = Rows(np.ones((2, 3), dtype=np.float32), np.zeros(2, dtype=bool))
        kept = files.write_block(1, FINGERPRINT, 0, ["a", "b"], block)
        assert files.find_block(1, FINGERPRINT, 0, ["a", "b"]) == kept
        assert files.find_block(1, FINGERPRINT, 0, ["a", "c"]) is None
        assert files.find_block(1, FINGERPRINT, 2, ["a", "b"]) is None
        assert files.find_block(1, "other", 0, ["a", "b"]) is None
        assert files.find_block(2, FINGERPRINT, 0, ["a", "b"]) is None
        path = tmp_path / "pools" / "1" / FINGERPRINT / kept.file
        path.write_bytes(path.read_bytes()[:-1])
        assert files.find_block(1, FINGERPRINT, 0, ["a", "b"]) is None
        assert files.read_block(1, FINGERPRINT, kept) is None

    def test_a_full_disk_leaves_nothing_half_written(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        def full(descriptor: int) -> None:
            raise OSError(errno.ENOSPC, "No space left on device")

        monkeypatch.setattr(os, "fsync", full)
        block = Rows(np.ones((2, 3), dtype=np.float32), np.zeros(2, dtype=bool))
        with pytest.raises(StoreError, match="the disk is full"):
            VectorFiles(tmp_path).write_block(1, FINGERPRINT, 0, ["a", "b"], block)
        assert list((tmp_path / "pools" / "1" / FINGERPRINT).iterdir()) == []

    def test_sweeping_leaves_what_is_named_and_what_is_young(self, tmp_path: Path) -> None:
        files = VectorFiles(tmp_path)
        embedding = written(files)
        folder = tmp_path / "pools" / "7"
        (folder / "gone").mkdir()
        (folder / "gone" / "old.npy").touch()
        named = {(FINGERPRINT, block.file) for block in embedding.blocks[:2]}
        files.sweep(7, named)
        assert len(list(folder.rglob("*.npy"))) == 4
        files.sweep(7, named, older_than=0)
        assert {(path.parent.name, path.name) for path in folder.rglob("*.npy")} == named
        assert not (folder / "gone").exists()
        files.remove_pool(7)
        assert files.uids() == set()


class TestEmbedding:
    def test_vectors_and_mean_are_the_library_s(self, here: Here) -> None:
        make_pool(here.database, 3000, **CONFIG)
        job = here.do("embed")
        embedding = here.embedding()
        expected = embed([f"text of i{i}" for i in range(3000)], "hash(dim=16)", cache=False, progress=False)
        assert embedding.shift is not None
        assert expected.shift is not None
        assert np.allclose(embedding.shift, expected.shift, rtol=0, atol=1e-15)
        assert np.allclose(here.vectors.matrix(embedding, embedding.shift), expected.vectors, rtol=0, atol=1e-7)
        assert [(block.start, block.stop) for block in embedding.blocks] == [(0, 2048), (2048, 3000)]
        pool = here.pool()
        assert (embedding.n_items, embedding.dim, embedding.pool_fingerprint) == (3000, 16, pool.fingerprint)
        assert (job.state, job.done, job.total, job.unit) == ("done", 3000, 3000, "items")
        assert job.result is not None
        assert job.result["embedding"] == embedding.id == pool.embedding_id

    def test_a_pool_that_is_not_centred_has_no_shift(self, here: Here) -> None:
        make_pool(here.database, 5, **{**CONFIG, "centre": False})
        here.do("embed")
        assert here.embedding().shift is None

    def test_an_empty_pool_is_refused(self, here: Here) -> None:
        make_pool(here.database, 0, **CONFIG)
        with pytest.raises(DataError, match=r"'p' is empty.*PUT /v1/pools/p/items"):
            here.do("embed")

    def test_texts_that_are_cut_are_counted(self, here: Here) -> None:
        encoder = BatchyEncoder()
        here.use(encoder)
        make_pool(here.database, 40, **CONFIG)
        upload(here.database, "p", [[dataclasses.replace(one, text="x" * 30 + one.text) for one in rows(7, 40)]])
        here.do("embed")
        assert here.embedding().truncated == 7
        upload(here.database, "p", [rows(3, 47)])
        here.do("embed")
        assert here.embedding().truncated == 7

    @pytest.mark.parametrize("parts", [(70,), (1, 69), (20, 11, 1, 38), (2048, 4), (2040, 20, 2000), (31, 33, 2100)])
    def test_files_are_the_same_in_how_many_parts_ever_the_items_came(self, here: Here, parts: tuple[int, ...]) -> None:
        """Parts of 32 texts are encoded together: the vectors of a short part are made again, and only they."""
        total = sum(parts)
        for name, sizes in (("whole", (total,)), ("grown", parts)):
            encoder = BatchyEncoder()
            here.use(encoder)
            make_pool(here.database, 0, name, **CONFIG)
            for start, size in zip(np.cumsum([0, *sizes]).tolist(), sizes, strict=False):
                upload(here.database, name, [rows(size, start)])
                here.do("embed", pool=name)
            again = len(encoder.seen) - total
            assert 0 <= again < 32 * len(sizes)
        whole, grown = here.embedding("whole"), here.embedding("grown")
        assert [block.sha256 for block in grown.blocks] == [block.sha256 for block in whole.blocks]
        assert np.array_equal(here.vectors.matrix(grown), here.vectors.matrix(whole))
        assert grown.shift is not None
        assert whole.shift is not None
        assert np.array_equal(grown.shift, whole.shift)

    def test_whole_blocks_are_taken_over(self, here: Here) -> None:
        encoder = BatchyEncoder()
        here.use(encoder)
        make_pool(here.database, BLOCK_ROWS + 10, **CONFIG)
        here.do("embed")
        before, kept = here.embedding(), here.files()
        states = {name: path.stat().st_mtime_ns for name, path in kept.items()}
        encoder.seen.clear()
        upload(here.database, "p", [rows(5, BLOCK_ROWS + 10)])
        here.do("embed")
        after = here.embedding()
        assert after.blocks[0] == before.blocks[0]
        assert after.blocks[1] != before.blocks[1]
        assert len(encoder.seen) == 15
        name = before.blocks[0].file
        assert here.files()[name].stat().st_mtime_ns == states[name]
        # The old embedding can still be read by whoever is at it.
        assert len(here.vectors.matrix(before)) == BLOCK_ROWS + 10

    def test_nothing_new_is_nothing_to_do(self, here: Here) -> None:
        encoder = BatchyEncoder()
        here.use(encoder)
        make_pool(here.database, 50, **CONFIG)
        here.do("embed")
        first = here.embedding()
        encoder.seen.clear()
        assert here.do("embed").state == "done"
        assert encoder.seen == []
        assert here.embedding().id == first.id

    def test_items_that_come_meanwhile_are_embedded_too(self, here: Here) -> None:
        encoder = BatchyEncoder()
        here.use(encoder)
        make_pool(here.database, 40, **CONFIG)

        def more() -> None:
            encoder.before_batch = lambda: None
            upload(here.database, "p", [rows(30, 40)])

        encoder.before_batch = more
        job = here.do("embed")
        assert here.embedding().n_items == here.pool().n_items == 70
        assert job.result is not None
        assert job.result["version"] == here.pool().version == 2

    def test_another_encoder_embeds_everything(self, here: Here) -> None:
        make_pool(here.database, 40, **CONFIG)
        here.use(BatchyEncoder("old"))
        here.do("embed")
        encoder = BatchyEncoder("new")
        here.use(encoder)
        here.do("embed")
        assert len(encoder.seen) == 40
        assert here.embedding().encoder_fingerprint == "new"

    @pytest.mark.parametrize("lost", ["damaged", "missing"])
    def test_a_lost_block_is_made_again_and_no_other(self, here: Here, lost: str) -> None:
        encoder = BatchyEncoder()
        here.use(encoder)
        make_pool(here.database, BLOCK_ROWS + 10, **CONFIG)
        here.do("embed")
        embedding = here.embedding()
        path = here.files()[embedding.blocks[1].file]
        whole = path.read_bytes()
        if lost == "missing":
            path.unlink()
        else:
            path.write_bytes(whole[:-1] + b"\7")
        with pytest.raises(StaleError):
            here.vectors.rows(embedding, [BLOCK_ROWS])
        encoder.seen.clear()
        here.do("embed")
        assert len(encoder.seen) == 10
        assert path.read_bytes() == whole
        assert here.embedding().id == embedding.id
        assert len(here.vectors.rows(embedding, [BLOCK_ROWS])) == 1

    def test_files_of_another_pool_under_the_same_number_are_not_taken(self, here: Here) -> None:
        """A data directory that outlived its database holds blocks of other texts."""
        encoder = BatchyEncoder()
        here.use(encoder)
        pool = make_pool(here.database, 10, **CONFIG)
        foreign = Rows(np.ones((10, 3), dtype=np.float32), np.zeros(10, dtype=bool))
        here.vectors.write_block(pool.uid, encoder.fingerprint, 0, [f"other {i}" for i in range(10)], foreign)
        here.do("embed")
        assert len(encoder.seen) == 10
        assert here.vectors.matrix(here.embedding())[3, 0] == 1 + len("text of i3")

    def test_a_pool_only_goes_forwards(self, here: Here) -> None:
        here.use(BatchyEncoder())
        make_pool(here.database, 40, **CONFIG)
        here.do("embed")
        old = here.embedding()
        upload(here.database, "p", [rows(10, 40)])
        here.do("embed")
        with here.database.write() as connection:
            embeddings.adopt(connection, pools.lock(connection, "p"), old)
        assert here.embedding().n_items == 50

    def test_a_record_is_kept_and_read_as_it_was(self, here: Here) -> None:
        here.use(BatchyEncoder())
        make_pool(here.database, 40, **CONFIG)
        here.do("embed")
        first = here.embedding()
        with here.database.read() as connection:
            found = embeddings.find(connection, first.id)
        assert found.blocks == first.blocks
        assert found.shift is not None
        assert first.shift is not None
        assert found.shift.dtype == np.float64
        assert np.array_equal(found.shift, first.shift)

    def test_old_embeddings_are_forgotten_and_their_files_removed(self, here: Here) -> None:
        here.use(BatchyEncoder())
        make_pool(here.database, 0, **CONFIG)
        records = []
        for number in range(8):
            upload(here.database, "p", [rows(1, number)])
            here.do("embed")
            records.append(here.embedding())
            for path in here.files().values():
                os.utime(path, (0, 0))
        assert len(here.files()) == 4
        with here.database.read() as connection:
            named = embeddings.files(connection, here.pool().uid)
        assert {name for _, name in named} == set(here.files())
        assert here.vectors.rows(records[-4], [0]).shape == (1, 3)
        with pytest.raises(StaleError):
            here.vectors.rows(records[0], [0])


class TestEndingEarly:
    def test_what_an_interrupted_job_finished_is_not_encoded_again(self, here: Here) -> None:
        encoder = BatchyEncoder()
        here.use(encoder)
        make_pool(here.database, 2 * BLOCK_ROWS + 20, **CONFIG)

        def die() -> None:
            if len(encoder.seen) >= 2 * BLOCK_ROWS:
                raise RuntimeError("killed")

        encoder.before_batch = die
        context = here.begin("embed")
        with pytest.raises(RuntimeError, match="killed"):
            run(context)
        assert here.pool().embedding_id is None
        assert len(here.files()) == 2
        again = BatchyEncoder()
        here.use(again)
        here.die()
        resumed = here.claim()
        assert resumed is not None
        run(resumed)
        assert len(again.seen) == 20
        assert set(encoder.seen).isdisjoint(again.seen)
        assert here.embedding().n_items == 2 * BLOCK_ROWS + 20

    def test_a_job_that_is_to_stop_stops_after_one_part(self, here: Here) -> None:
        encoder = BatchyEncoder()
        here.use(encoder)
        make_pool(here.database, 500, **CONFIG)
        context = here.begin("embed")
        encoder.before_batch = context.stop
        with pytest.raises(Cancelled):
            run(context)
        assert len(encoder.seen) == 4 * encoder.batch_size
        assert here.pool().embedding_id is None

    def test_a_job_that_was_taken_over_changes_nothing(self, here: Here) -> None:
        encoder = BatchyEncoder()
        here.use(encoder)
        make_pool(here.database, 40, **CONFIG)
        context = here.begin("embed")

        encoder.before_batch = here.die
        with pytest.raises(Cancelled):
            run(context)
        assert here.pool().embedding_id is None
        assert here.job(context.job.id).state == "queued"

    def test_a_pool_that_is_deleted_meanwhile_ends_the_job(self, here: Here) -> None:
        encoder = BatchyEncoder()
        here.use(encoder)
        make_pool(here.database, 40, **CONFIG)
        context = here.begin("embed")

        def delete() -> None:
            encoder.before_batch = lambda: None
            with here.database.write() as connection:
                pools.delete(connection, "p")

        encoder.before_batch = delete
        with pytest.raises(Cancelled):
            run(context)

    def test_only_new_blocks_count_as_getting_somewhere(self, here: Here) -> None:
        """A job that dies at one place again and again must fail in the end."""
        encoder = BatchyEncoder()
        here.use(encoder)
        make_pool(here.database, BLOCK_ROWS + 20, **CONFIG)

        def die() -> None:
            if len(here.files()) == 1:
                context.beat()
                raise RuntimeError("killed")

        encoder.before_batch = die
        job = here.enqueue("embed")
        attempts = []
        while (context := here.claim()) is not None:
            with pytest.raises(RuntimeError, match="killed"):
                run(context)
            attempts.append(here.job(job.id).attempts)
            here.die()
        # The first block was new the first time only.
        assert attempts == [1, 2, 3]
        assert here.job(job.id).state == "failed"

    def test_a_job_that_gets_on_in_each_life_is_done_in_the_end(self, here: Here) -> None:
        encoder = BatchyEncoder()
        here.use(encoder)
        make_pool(here.database, 5 * BLOCK_ROWS, **CONFIG)

        def die() -> None:
            if len(here.files()) > there:
                context.beat()
                raise RuntimeError("killed")

        encoder.before_batch = die
        job = here.enqueue("embed")
        lives = 0
        while (context := here.claim()) is not None:
            there, lives = len(here.files()), lives + 1
            with contextlib.suppress(RuntimeError):
                run(context)
            here.die()
        assert lives == 5 > jobs.ATTEMPTS
        assert here.job(job.id).state == "done"
        assert here.embedding().n_items == 5 * BLOCK_ROWS
