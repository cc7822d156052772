"""The file that answers are kept in, and how an answer is written as bytes."""

from __future__ import annotations

import logging
import struct
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from icl_select._cache import CACHE_VARIABLE, CacheFile, cache_file_name, checksum
from icl_select.score.protocol import Generation, LanguageModel, LoglikRow

__all__ = ["AnswerFile", "pack_row", "pack_text", "read_row", "read_text"]

log = logging.getLogger(__name__)


class AnswerFile:
    """The stored answers of one model, as bytes.

    Parameters
    ----------
    folder : Path
        Shared by all models; made when the first answer is stored.
    model : LanguageModel
        Its name and fingerprint give the file.
    """

    def __init__(self, folder: Path, model: LanguageModel) -> None:
        self._file = CacheFile(
            path=folder / cache_file_name(model.name, model.fingerprint),
            what="cache of answers",
            format="icl-select/answers/1",
            owner=("model", model.fingerprint),
            table="answers",
            columns="answer BLOB NOT NULL",
            lost="the model will be asked again",
            way_out=f"Choose another folder ({CACHE_VARIABLE} names the default), or work without a cache.",
        )

    @property
    def path(self) -> Path:
        """The file of this model."""
        return self._file.path

    def prepare(self) -> None:
        """Make folder and file, so that a place that cannot be written to shows before the model is asked."""
        self._file.prepare()

    def get(self, keys: Sequence[bytes]) -> dict[bytes, bytes]:
        """The answers stored under these keys.

        Rows whose checksum fails are left out, with a warning in the log; storing them again repairs them.
        """
        sound, damaged = _sift(self._file.rows(keys))
        if damaged:
            log.warning("%d damaged answers in %s; the model is asked again", damaged, self.path)
        return sound

    def put(self, answers: Mapping[bytes, bytes]) -> dict[bytes, bytes]:
        """Commit answers, all or none. Call :meth:`prepare` first.

        Returns what now stands under their keys: where another process was first, its answer stands.
        """
        with self._file.connection() as connection:
            connection.execute("BEGIN IMMEDIATE")
            standing, _ = _sift(self._file.select(connection, list(answers)))
            new = [(key, answer) for key, answer in answers.items() if key not in standing]
            self._file.replace(connection, [(key, answer, checksum(key, answer)) for key, answer in new])
            connection.execute("COMMIT")
        return {**answers, **standing}


def _sift(rows: Iterable[tuple[Any, ...]]) -> tuple[dict[bytes, bytes], int]:
    """Sound answers by key, and how many were damaged."""
    sound: dict[bytes, bytes] = {}
    damaged = 0
    for key, answer, check in rows:
        if isinstance(answer, bytes) and check == checksum(key, answer):
            sound[key] = answer
        else:
            damaged += 1
    return sound, damaged


# Answers as bytes: little-endian, every float with its 64 bits.
_ROW = struct.Struct("<q?I")
_TEXT = struct.Struct("<qq??I")


def pack_row(row: LoglikRow) -> bytes:
    """A row as bytes."""
    head = _ROW.pack(int(row.prompt_tokens), bool(row.truncated), len(row.values))
    return head + np.asarray(row.values, "<f8").tobytes() + np.asarray(row.tokens, "<i8").tobytes()


def read_row(packed: bytes) -> LoglikRow:
    """The row that was packed."""
    prompt_tokens, truncated, n = _ROW.unpack_from(packed)
    values = np.frombuffer(packed, "<f8", n, _ROW.size).astype(np.float64)
    tokens = np.frombuffer(packed, "<i8", n, _ROW.size + 8 * n).astype(np.int64)
    return LoglikRow(values, tokens, prompt_tokens, truncated)


def pack_text(made: Generation) -> bytes:
    """A generated text as bytes."""
    head = _TEXT.pack(made.tokens, made.prompt_tokens, made.finished, made.truncated, len(made.logprobs))
    return head + struct.pack(f"<{len(made.logprobs)}d", *made.logprobs) + made.text.encode("utf-8", "surrogatepass")


def read_text(packed: bytes) -> Generation:
    """The text that was packed."""
    tokens, prompt_tokens, finished, truncated, n = _TEXT.unpack_from(packed)
    logprobs = struct.unpack_from(f"<{n}d", packed, _TEXT.size)
    text = packed[_TEXT.size + 8 * n :].decode("utf-8", "surrogatepass")
    return Generation(text, logprobs, tokens, finished, prompt_tokens, truncated)
