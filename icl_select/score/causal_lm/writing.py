"""Text that grows token by token: where it stops, and which token comes next."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from icl_select._fingerprint import seed_from
from icl_select.types import Decoding

__all__ = ["Writer", "draw"]


@dataclass(slots=True)
class Writer:
    """One prompt that is being continued.

    ``decode`` turns all tokens written so far into text at once, so that characters and words of several tokens come
    out whole, and a stop string is found wherever its tokens are cut.
    """

    prompt: tuple[int, ...]
    text: str
    decoding: Decoding
    decode: Callable[[Sequence[int], Sequence[int]], str]
    ends: frozenset[int]
    ids: list[int] = field(default_factory=list)
    logprobs: list[float] = field(default_factory=list)
    written: str = ""
    finished: bool = False
    _rng: np.random.Generator | None = None

    @property
    def open(self) -> bool:
        """Whether another token is wanted."""
        return not self.finished and len(self.ids) < self.decoding.max_tokens

    def add(self, logprobs: Any) -> None:
        """Take the next token.

        Parameters
        ----------
        logprobs : ndarray of shape (vocabulary,), float32
            Of the next token, temperature not applied.
        """
        token = self._choose(logprobs)
        self.ids.append(token)
        self.logprobs.append(float(logprobs[token]))
        if token in self.ends:
            # The end is not part of the text, whatever the tokenizer makes of it.
            self.written = self.decode(self.prompt, self.ids[:-1])
            self.finished = True
            return
        self.written = self.decode(self.prompt, self.ids)
        places = [place for stop in self.decoding.stop if (place := self.written.find(stop)) >= 0]
        if places:
            self.written = self.written[: min(places)]
            self.finished = True

    def _choose(self, logprobs: Any) -> int:
        if self.decoding.temperature == 0:
            return int(np.argmax(logprobs))
        if self._rng is None:
            self._rng = np.random.default_rng(seed_from(self.decoding.seed, self.text))
        return draw(logprobs, self.decoding.temperature, self._rng)


def draw(logprobs: Any, temperature: float, rng: np.random.Generator) -> int:
    """Draw a token from log-probabilities at a temperature, by one uniform number."""
    scaled = np.asarray(logprobs, dtype=np.float64) / temperature
    mass = np.cumsum(np.exp(scaled - scaled.max()))
    return min(int(np.searchsorted(mass, rng.random() * mass[-1], side="right")), len(mass) - 1)
