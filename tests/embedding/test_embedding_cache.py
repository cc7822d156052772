"""The cache gives back what was stored, to the bit, or nothing: never a wrong vector."""

from __future__ import annotations

import logging
import os
import signal
import sqlite3
import subprocess
import sys
import tempfile
import textwrap
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import pytest

from icl_select.embedding import Encoded, HashEncoder, default_cache_folder, embed
from icl_select.embedding.cache import VectorCache
from icl_select.errors import EmbeddingError, StoreError

TEXTS = [f"message {i} about invoice {i * i % 97}" for i in range(60)]


class Counting(HashEncoder):
    """A HashEncoder that remembers what it was asked for, cuts some texts, and can stop half way."""

    batch_size = 5

    def __init__(self, dim: int = 16, stop_after: int | None = None) -> None:
        super().__init__(dim)
        self.asked: list[str] = []
        self.stop_after = stop_after

    def encode(self, texts: Sequence[str], *, progress: bool = False) -> Encoded:
        if self.stop_after is not None and len(self.asked) >= self.stop_after:
            raise KeyboardInterrupt
        self.asked += texts
        truncated = np.array(["7" in text for text in texts])
        return Encoded(super().encode(texts).vectors, truncated)


def run(texts: list[str], encoder: Counting, folder: Path) -> np.ndarray:
    return np.asarray(embed(texts, encoder, cache=folder, progress=False, centre=False))


def file_of(folder: Path, encoder: HashEncoder | None = None) -> Path:
    return VectorCache(folder, encoder or Counting()).path


def expected(texts: list[str]) -> np.ndarray:
    return HashEncoder(16).encode(texts).vectors


def test_second_run_encodes_nothing_and_gives_the_same_bits(tmp_path: Path) -> None:
    first = embed(TEXTS, Counting(), cache=tmp_path, progress=False, centre=False)
    again = Counting(stop_after=0)
    second = embed(TEXTS[::-1], again, cache=tmp_path, progress=False, centre=False)
    assert again.asked == []
    assert second.vectors[::-1].tolist() == first.vectors.tolist() == expected(TEXTS).tolist()
    assert second.truncated[::-1].tolist() == first.truncated.tolist() == ["7" in text for text in TEXTS]


def test_only_new_texts_are_encoded(tmp_path: Path) -> None:
    run(TEXTS[:40], Counting(), tmp_path)
    encoder = Counting()
    assert run(TEXTS, encoder, tmp_path).tolist() == expected(TEXTS).tolist()
    assert sorted(encoder.asked) == sorted(TEXTS[40:])


def test_another_encoder_is_another_file(tmp_path: Path) -> None:
    run(TEXTS, Counting(dim=16), tmp_path)
    encoder = Counting(dim=8)
    assert run(TEXTS, encoder, tmp_path).shape == (60, 8)
    assert len(encoder.asked) == 60
    assert len(list((tmp_path / "embeddings").iterdir())) == 2


def test_without_cache_nothing_is_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ICS_CACHE_DIR", str(tmp_path / "cache"))
    embed(TEXTS, Counting(), cache=False, progress=False, centre=False)
    assert list(tmp_path.iterdir()) == []


def test_where_the_cache_is_by_default(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("ICS_CACHE_DIR", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    assert default_cache_folder() == tmp_path / ".cache" / "icl-select"
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    assert default_cache_folder() == tmp_path / "xdg" / "icl-select"
    monkeypatch.setenv("ICS_CACHE_DIR", str(tmp_path / "own"))
    assert default_cache_folder() == tmp_path / "own"
    embed(TEXTS[:3], Counting(), progress=False, centre=False)
    assert file_of(tmp_path / "own").exists()


def test_interrupt_keeps_every_finished_chunk(tmp_path: Path) -> None:
    """Two batches of 5 are a chunk; the fourth never runs, so three are on disk."""
    with pytest.raises(KeyboardInterrupt):
        run(TEXTS, Counting(stop_after=30), tmp_path)
    encoder = Counting()
    assert run(TEXTS, encoder, tmp_path).tolist() == expected(TEXTS).tolist()
    assert len(encoder.asked) == 30


def script(body: str, *arguments: object) -> subprocess.Popen[str]:
    prelude = """
        import os, sys, time
        from pathlib import Path
        from icl_select.embedding import HashEncoder, embed
        from icl_select.errors import StoreError
        texts = [f"message {i} about invoice {i * i % 97}" for i in range(60)]
    """
    code = textwrap.dedent(prelude) + textwrap.dedent(body)
    command = [sys.executable, "-c", code, *map(str, arguments)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def test_killed_process_leaves_a_usable_file(tmp_path: Path) -> None:
    """The child stores one chunk, says so, and is killed in the middle of a second, open transaction."""
    body = """
        from icl_select.embedding.cache import VectorCache
        encoder = HashEncoder(16)
        store = VectorCache(Path(sys.argv[1]), encoder)
        store.prepare()
        store.put(texts[:10], encoder.encode(texts[:10]))
        with store.file.connection() as connection:
            connection.execute("PRAGMA cache_size = 1")
            connection.execute("BEGIN IMMEDIATE")
            for i in range(3000):
                connection.execute("INSERT INTO vectors VALUES (?, 0, ?, ?)", (os.urandom(16), b"x" * 64, b"y"))
            print("open", flush=True)
            time.sleep(60)
    """
    child = script(body, tmp_path)
    assert child.stdout is not None
    assert child.stdout.readline() == "open\n"
    assert file_of(tmp_path).with_name(file_of(tmp_path).name + "-journal").exists()
    child.send_signal(signal.SIGKILL)
    child.communicate()
    encoder = Counting()
    assert run(TEXTS, encoder, tmp_path).tolist() == expected(TEXTS).tolist()
    assert len(encoder.asked) == 50


def test_two_processes_write_at_once(tmp_path: Path) -> None:
    body = """
        from icl_select.embedding import Encoded
        class Small(HashEncoder):
            batch_size = 1
        start = int(sys.argv[2])
        x = embed(texts[start:] + texts[:start], Small(16), cache=sys.argv[1], progress=False, centre=False)
        print(x.shape)
    """
    children = [script(body, tmp_path, start) for start in (0, 25)]
    for child in children:
        out, err = child.communicate(timeout=120)
        assert (child.returncode, out) == (0, "(60, 16)\n"), err
    encoder = Counting(stop_after=0)
    assert run(TEXTS, encoder, tmp_path).tolist() == expected(TEXTS).tolist()


def test_threads_share_a_folder(tmp_path: Path) -> None:
    results: list[np.ndarray] = []
    threads = [threading.Thread(target=lambda: results.append(run(TEXTS, Counting(), tmp_path))) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [result.tolist() for result in results] == [expected(TEXTS).tolist()] * 4


@pytest.mark.parametrize(
    "damage",
    [
        "vector = zeroblob(64)",
        "vector = substr(vector, 1, 60)",
        "vector = zeroblob(0)",
        "vector = 'text'",
        "truncated = 1 - truncated",
        "truncated = 2",
        "checksum = zeroblob(8)",
        "vector = (SELECT vector FROM vectors ORDER BY rowid DESC LIMIT 1)",
    ],
)
def test_damaged_rows_are_encoded_again(tmp_path: Path, damage: str, caplog: pytest.LogCaptureFixture) -> None:
    run(TEXTS, Counting(), tmp_path)
    with sqlite3.connect(file_of(tmp_path)) as connection:
        connection.execute(f"UPDATE vectors SET {damage} WHERE rowid IN (2, 3, 5)")
    encoder = Counting()
    with caplog.at_level(logging.WARNING, "icl_select"):
        assert run(TEXTS, encoder, tmp_path).tolist() == expected(TEXTS).tolist()
    assert "3 damaged vectors" in caplog.text
    assert len(encoder.asked) == 3
    repaired = Counting(stop_after=0)
    assert run(TEXTS, repaired, tmp_path).tolist() == expected(TEXTS).tolist()


def test_any_damage_gives_an_error_or_the_right_vectors(tmp_path: Path) -> None:
    """Overwrite 40 random bytes, or cut the file, 40 times over; there is no third outcome."""
    run(TEXTS, Counting(), tmp_path)
    path = file_of(tmp_path)
    sound = path.read_bytes()
    rng = np.random.default_rng(0)
    outcomes = {"error": 0, "right": 0}
    for trial in range(40):
        content = np.frombuffer(sound, dtype=np.uint8).copy()
        content[rng.integers(0 if trial % 2 else 4096, len(content), size=40)] = rng.integers(0, 256, size=40)
        path.write_bytes(content.tobytes()[: None if trial % 4 else int(rng.integers(1, len(sound)))])
        try:
            vectors = run(TEXTS, Counting(), tmp_path)
        except StoreError:
            outcomes["error"] += 1
        else:
            assert vectors.tolist() == expected(TEXTS).tolist()
            outcomes["right"] += 1
    assert min(outcomes.values()) > 0


def test_file_that_is_no_database(tmp_path: Path) -> None:
    path = file_of(tmp_path)
    path.parent.mkdir(parents=True)
    path.write_bytes(b"half a download" * 100)
    with pytest.raises(StoreError, match=r"is damaged.*Delete the file.*cache=False"):
        run(TEXTS, Counting(), tmp_path)


def test_empty_file_is_an_empty_cache(tmp_path: Path) -> None:
    path = file_of(tmp_path)
    path.parent.mkdir(parents=True)
    path.touch()
    assert run(TEXTS, Counting(), tmp_path).tolist() == expected(TEXTS).tolist()


def test_file_of_another_encoder(tmp_path: Path) -> None:
    run(TEXTS, Counting(16), tmp_path)
    file_of(tmp_path, Counting(16)).rename(file_of(tmp_path, Counting(8)))
    with pytest.raises(StoreError, match="not the cache of this encoder"):
        run(TEXTS, Counting(8), tmp_path)


def test_fingerprint_that_hides_the_dimension(tmp_path: Path) -> None:
    class Liar(Counting):
        name = fingerprint = "same"

    run(TEXTS[:10], Liar(16), tmp_path)
    with pytest.raises(EmbeddingError, match=r"dimension 8.*dimension 16"):
        run(TEXTS[10:20], Liar(8), tmp_path)
    with pytest.raises(EmbeddingError, match="returned shape"):
        run(TEXTS, Liar(8), tmp_path)


def test_folder_that_is_a_file(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way", encoding="utf-8")
    encoder = Counting()
    with pytest.raises(StoreError, match=r"file.*cache=False"):
        run(TEXTS, encoder, tmp_path / "file")
    assert encoder.asked == [], "no work before the place is known to be good"


@pytest.fixture
def unprivileged() -> Iterator[Path]:
    """A folder of a user who is not root, and that user for the length of the test."""
    with tempfile.TemporaryDirectory() as folder:
        if os.geteuid() != 0:
            yield Path(folder)
            return
        os.chown(folder, 65534, 65534)
        os.seteuid(65534)
        try:
            yield Path(folder)
        finally:
            os.seteuid(0)


def test_read_only_folder_serves_what_it_has(unprivileged: Path) -> None:
    run(TEXTS[:10], Counting(), unprivileged)
    file_of(unprivileged).chmod(0o400)
    file_of(unprivileged).parent.chmod(0o500)
    try:
        again = run(TEXTS[:10], Counting(stop_after=0), unprivileged)
        assert again.tolist() == expected(TEXTS[:10]).tolist()
        encoder = Counting()
        with pytest.raises(StoreError, match=r"cannot be written.*cache=False"):
            run(TEXTS, encoder, unprivileged)
        assert encoder.asked == [], "no work before the place is known to be good"
        with pytest.raises(StoreError, match=r"permission denied.*cache=False"):
            run(TEXTS, Counting(), unprivileged / "embeddings" / "below")
    finally:
        file_of(unprivileged).parent.chmod(0o700)


def test_full_disk_keeps_what_was_finished(tmp_path: Path) -> None:
    """A limit on the size of files stands in for a full disk: some chunks fit, then a write fails."""
    body = """
        import resource
        class Small(HashEncoder):
            batch_size = 5
        resource.setrlimit(resource.RLIMIT_FSIZE, (24_000, 24_000))
        try:
            embed([f"{t} {i}" for i in range(20) for t in texts], Small(16), cache=sys.argv[1], progress=False)
        except StoreError as exc:
            print(exc)
    """
    out, err = script(body, tmp_path).communicate(timeout=120)
    assert "embedding cache" in out, err
    assert "cache=False" in out
    texts = [f"{text} {i}" for i in range(20) for text in TEXTS]
    encoder = Counting()
    assert run(texts, encoder, tmp_path).tolist() == expected(texts).tolist()
    assert 0 < len(encoder.asked) < len(texts)


def test_many_rows_come_back_in_order(tmp_path: Path) -> None:
    """More keys than one query of SQLite takes."""
    texts = [f"text number {i}" for i in range(2345)]
    encoder = HashEncoder(8)
    first = embed(texts, encoder, cache=tmp_path, progress=False, centre=False).vectors
    rows, found = VectorCache(tmp_path, encoder).get([*texts, "never stored"])
    assert rows.tolist() == list(range(2345))
    assert found.vectors.tolist() == first.tolist()
