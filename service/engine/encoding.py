"""Threads that encode the texts of queries, while the engine's own thread does everything else.

On a processor a text costs about the same alone as among others, so an encoder that may be called by several threads at
once gets one text a call: each core works on its own, and no query waits for a batch to end. Other encoders get all
texts that wait in one call, one call at a time.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from icl_select.embedding import Encoder
from icl_select.errors import EmbeddingError

from ..metrics import Metrics

__all__ = ["Encoding", "Result", "Wanted"]

Key = tuple[str, bytes]


@dataclass(frozen=True, eq=False)
class Wanted:
    """A text to encode; ``key`` names encoder and text."""

    encoder: Encoder
    key: Key
    text: str


@dataclass(frozen=True, eq=False)
class Result:
    """The vector of a text, or why there is none."""

    key: Key
    vector: npt.NDArray[np.float32] | None = None
    problem: Exception | None = None


class Encoding:
    """Takes texts from one thread, and calls back from its own when some are encoded.

    Parameters
    ----------
    threads : int
        Calls of encoders at once, at most.
    metrics : Metrics
    done : callable
        Called, in any thread, when :meth:`results` has more.
    """

    def __init__(self, threads: int, metrics: Metrics, done: Callable[[], None]) -> None:
        self._metrics = metrics
        self._done = done
        self._waiting: deque[Wanted] = deque()
        self._busy: set[Encoder] = set()
        self._results: deque[Result] = deque()
        self._changed = threading.Condition()
        self._closed = False
        self._threads = [
            threading.Thread(target=self._run, name=f"encode {number}", daemon=True) for number in range(threads)
        ]

    def start(self) -> None:
        """Begin to encode."""
        for thread in self._threads:
            thread.start()

    def put(self, texts: Sequence[Wanted]) -> None:
        """Let texts wait for a thread."""
        with self._changed:
            self._waiting.extend(texts)
            self._changed.notify(len(texts))

    def at_once(self, texts: Sequence[Wanted]) -> list[Result]:
        """Encode in the caller's thread."""
        found: list[Result] = []
        for encoder in dict.fromkeys(wanted.encoder for wanted in texts):
            found.extend(self._encode([wanted for wanted in texts if wanted.encoder is encoder]))
        return found

    def results(self) -> list[Result]:
        """What was encoded since the last call."""
        with self._changed:
            found = list(self._results)
            self._results.clear()
        return found

    def close(self) -> None:
        """Let the threads end when nothing waits."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()

    def _run(self) -> None:
        while some := self._take():
            found = self._encode(some)
            with self._changed:
                self._results.extend(found)
                self._busy.discard(some[0].encoder)
                self._changed.notify()  # somebody may wait for this encoder
            self._done()

    def _take(self) -> list[Wanted]:
        """Texts for one call, as soon as there are some; none when all is over."""
        with self._changed:
            while True:
                first = next((wanted for wanted in self._waiting if wanted.encoder not in self._busy), None)
                if first is not None:
                    return self._together(first)
                if self._closed and not self._waiting:
                    return []
                self._changed.wait()

    def _together(self, first: Wanted) -> list[Wanted]:
        if getattr(first.encoder, "concurrent", False):
            self._waiting.remove(first)
            return [first]
        some = [wanted for wanted in self._waiting if wanted.encoder is first.encoder]
        self._waiting = deque(wanted for wanted in self._waiting if wanted.encoder is not first.encoder)
        self._busy.add(first.encoder)
        return some

    def _encode(self, some: Sequence[Wanted]) -> list[Result]:
        encoder = some[0].encoder
        begun = time.perf_counter()
        try:
            vectors = encoder.encode([wanted.text for wanted in some]).vectors
            if len(vectors) != len(some):
                raise EmbeddingError(f"the encoder {encoder.name} gave {len(vectors)} vectors for {len(some)} texts.")
        except Exception as exc:
            if len(some) > 1:  # one of them is to blame, or all are; the others get their vectors
                return [result for wanted in some for result in self._encode([wanted])]
            return [Result(some[0].key, problem=exc)]
        self._metrics.encoding.observe(time.perf_counter() - begun)
        self._metrics.batch.observe(len(some))
        # A part of an array keeps all of it in memory.
        return [Result(wanted.key, row.copy()) for wanted, row in zip(some, vectors, strict=True)]
