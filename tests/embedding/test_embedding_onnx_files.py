"""Exported encoders on disk: held against their hashes, made once, safe among processes. No model is needed."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from icl_select.embedding._onnx_files import Exported, Settings, find_or_export
from icl_select.errors import StoreError

FILES = ["model.onnx", "tokenizer.json", "meta.json"]


def fail(*args: Any, **kwargs: Any) -> Any:
    raise AssertionError("this must not happen")


def flip(path: Path) -> None:
    """One digit of a number, or one bit of a weight."""
    content = bytearray(path.read_bytes())
    position = content.rindex(b"2") if path.suffix == ".json" else len(content) // 2
    content[position] ^= 1
    path.write_bytes(bytes(content))


DAMAGES: dict[str, Callable[[Path], object]] = {
    "flip": flip,
    "cut": lambda path: path.write_bytes(path.read_bytes()[:-10]),
    "empty": lambda path: path.write_bytes(b""),
    "other": lambda path: path.write_bytes(b"[1, 2]"),
}


@pytest.mark.parametrize("damage", DAMAGES)
@pytest.mark.parametrize("name", FILES)
def test_damaged_file_is_exported_again_with_a_warning(
    name: str, damage: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    made = made_up()
    assert find_or_export(tmp_path, "abc", lambda: made) == made
    DAMAGES[damage](tmp_path / name)
    new = replace(made, graph=b"another 2")
    assert find_or_export(tmp_path, "abc", lambda: new) == new
    assert [f"{name} is not what was written; it is exported again" in message for message in caplog.messages] == [True]
    assert find_or_export(tmp_path, "abc", fail) == new


def made_up() -> Exported:
    return Exported(b"a graph 2", b"a tokenizer 2", Settings(16, 12, "", 1, 0, False, False), {"torch": "2"})


@pytest.mark.parametrize("name", FILES)
def test_missing_file(name: str, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Without meta.json an export was not finished, which is no damage."""
    find_or_export(tmp_path, "abc", made_up)
    (tmp_path / name).unlink()
    assert find_or_export(tmp_path, "abc", made_up) == made_up()
    assert ["is missing" in message for message in caplog.messages] == ([] if name == "meta.json" else [True])
    assert find_or_export(tmp_path, "abc", fail) == made_up()


def test_export_of_another_encoder_is_not_used(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    find_or_export(tmp_path, "abc", made_up)
    new = replace(made_up(), graph=b"another")
    assert find_or_export(tmp_path, "def", lambda: new) == new
    assert "is that of another encoder (abc" in caplog.text


def test_failed_export_leaves_nothing_that_counts(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with pytest.raises(AssertionError):
        find_or_export(tmp_path, "abc", fail)
    assert find_or_export(tmp_path, "abc", made_up) == made_up()
    assert caplog.messages == []


def test_sound_export_is_read_without_the_lock(tmp_path: Path) -> None:
    """So that a folder on a read-only file system serves too."""
    find_or_export(tmp_path, "abc", made_up)
    (tmp_path / ".lock").unlink()
    assert find_or_export(tmp_path, "abc", fail) == made_up()
    assert not (tmp_path / ".lock").exists()


SECOND_PROCESS = """
import logging, sys
from pathlib import Path
from icl_select.embedding._onnx_files import find_or_export
logging.basicConfig(level=logging.INFO)
def export():
    raise SystemExit("the second process exported too")
print(find_or_export(Path(sys.argv[1]), "abc", export).graph.decode())
"""


def test_second_process_waits_for_the_first_and_uses_what_it_exported(tmp_path: Path) -> None:
    command = [sys.executable, "-c", SECOND_PROCESS, str(tmp_path)]
    started: list[subprocess.Popen[str]] = []

    def export_while_another_asks() -> Exported:
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        started.append(process)
        assert process.stderr is not None
        assert "waiting for another process" in process.stderr.readline()
        return made_up()

    find_or_export(tmp_path, "abc", export_while_another_asks)
    out, err = started[0].communicate(timeout=60)
    assert (started[0].returncode, out) == (0, "a graph 2\n"), err


def test_wait_ends(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("icl_select.embedding._onnx_files._WAIT_SECONDS", 0.0)
    second: list[BaseException] = []

    def export() -> Exported:
        with pytest.raises(StoreError, match=r"is in use by the export of an encoder \(process") as caught:
            find_or_export(tmp_path, "abc", fail)
        second.append(caught.value)
        return made_up()

    find_or_export(tmp_path, "abc", export)
    assert len(second) == 1
