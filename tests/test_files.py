"""Atomic writes and folder locks, on real files, a real second process, and a real full disk."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from icl_select._files import atomic_write, lock_folder
from icl_select.errors import LockedError, StoreError


def test_the_old_file_or_the_whole_new_one(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "result.json"
    atomic_write(path, b"old")
    atomic_write(path, b"new")
    assert path.read_bytes() == b"new"
    assert [entry.name for entry in path.parent.iterdir()] == ["result.json"], "no temporary file stays behind"


def test_a_link_stays_a_link(tmp_path: Path) -> None:
    (tmp_path / "real").write_bytes(b"old")
    (tmp_path / "link").symlink_to(tmp_path / "real")
    atomic_write(tmp_path / "link", b"new")
    assert (tmp_path / "link").is_symlink()
    assert (tmp_path / "real").read_bytes() == b"new"


def test_what_is_no_regular_file_is_written_to_not_replaced(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    with subprocess.Popen(["cat", str(pipe)], stdout=subprocess.PIPE) as reader:
        atomic_write(pipe, b"through")
        assert reader.stdout is not None
        assert reader.stdout.read() == b"through"
    assert pipe.is_fifo()
    with pytest.raises(StoreError, match="Choose another"):
        atomic_write(tmp_path, b"x")


def test_permissions_follow_the_umask(tmp_path: Path) -> None:
    atomic_write(tmp_path / "a", b"x")
    mask = os.umask(0)
    os.umask(mask)
    assert (tmp_path / "a").stat().st_mode & 0o777 == 0o666 & ~mask


def test_a_folder_that_is_a_file(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x", encoding="utf-8")
    with pytest.raises(StoreError, match="Choose another folder"):
        atomic_write(tmp_path / "file" / "result.json", b"x")


@pytest.mark.skipif(not Path("/dev/full").is_char_device(), reason="needs /dev/full, a disk that is always full")
def test_a_full_disk_keeps_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "result.json"
    atomic_write(path, b"old")
    real = os.fdopen

    def full(descriptor: int, mode: str) -> object:
        os.dup2(os.open("/dev/full", os.O_WRONLY), descriptor)
        return real(descriptor, mode)

    monkeypatch.setattr(os, "fdopen", full)
    with pytest.raises(StoreError, match="disk is full"):
        atomic_write(path, b"new")
    assert path.read_bytes() == b"old"
    assert [entry.name for entry in tmp_path.iterdir()] == ["result.json"]


def test_a_second_process_is_refused_and_told_who_is_there(tmp_path: Path) -> None:
    code = (
        "import sys\nfrom pathlib import Path\nfrom icl_select._files import lock_folder\n"
        "with lock_folder(Path(sys.argv[1]), 'eval run'):\n    print('locked', flush=True)\n    sys.stdin.read()\n"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code, str(tmp_path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "locked\n"
        with pytest.raises(LockedError, match=f"eval run .process {holder.pid}"), lock_folder(tmp_path, "me"):
            pass
        holder.kill()
        holder.wait()
    with lock_folder(tmp_path, "me"):
        assert (tmp_path / ".lock").read_text(encoding="utf-8").startswith("me")
