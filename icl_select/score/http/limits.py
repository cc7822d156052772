"""When a request may leave: a clock that can be replaced, and limits on requests and tokens per minute."""

from __future__ import annotations

import threading
import time
from collections import deque

from icl_select.errors import ModelError

__all__ = ["Clock", "Limits", "Stopped"]

_WINDOW = 60.0


class Stopped(Exception):  # noqa: N818
    """Another request of the run has failed for good, so this one is given up; never leaves the engine."""


class Clock:
    """Time, and waiting that ends early when the run stops."""

    def now(self) -> float:
        """Seconds of a clock that never runs backwards."""
        return time.monotonic()

    def wall(self) -> float:
        """Seconds since 1970, as HTTP dates count them."""
        return time.time()

    def sleep(self, seconds: float, stop: threading.Event) -> None:
        """Wait, or raise :class:`Stopped` as soon as `stop` is set."""
        if stop.wait(seconds):
            raise Stopped


class Limits:
    """At most so many requests and tokens in any 60 seconds, and none while the server asks for quiet.

    Parameters
    ----------
    requests_per_minute, tokens_per_minute : int or None
        None for no limit.
    clock : Clock

    Notes
    -----
    A log of the last 60 seconds is kept, so the limit holds in every such window, not only on average; a server that
    counts in fixed minutes sees no more either. What a request takes is what it may take: its prompt and the most it
    may write.
    """

    def __init__(self, requests_per_minute: int | None, tokens_per_minute: int | None, clock: Clock) -> None:
        self._requests = requests_per_minute
        self._tokens = tokens_per_minute
        self._clock = clock
        self._lock = threading.Lock()
        self._log: deque[tuple[float, int]] = deque()
        self._used = 0
        self._quiet_until = float("-inf")

    def acquire(self, tokens: int, stop: threading.Event) -> None:
        """Return when a request of `tokens` may be sent, and count it.

        Raises
        ------
        ModelError
            If it is larger than a minute's tokens.
        """
        if self._tokens is not None and tokens > self._tokens:
            raise ModelError(
                f"a request of up to {tokens} tokens exceeds tokens_per_minute={self._tokens}, so it could never be "
                "sent. Raise the limit, shorten the prompt, or lower max_tokens."
            )
        while True:
            with self._lock:
                wait = self._wait(tokens)
                if wait <= 0:
                    self._log.append((self._clock.now(), tokens))
                    self._used += tokens
                    return
            self._clock.sleep(wait, stop)

    def pause(self, seconds: float) -> None:
        """Send nothing for so long: one request was told to wait, and the others would be told the same."""
        with self._lock:
            self._quiet_until = max(self._quiet_until, self._clock.now() + seconds)

    def _wait(self, tokens: int) -> float:
        """Seconds until the request fits; 0 or less if it fits now."""
        now = self._clock.now()
        while self._log and self._log[0][0] <= now - _WINDOW:
            self._used -= self._log.popleft()[1]
        wait = self._quiet_until - now
        if self._requests is not None and len(self._log) >= self._requests:
            wait = max(wait, self._log[len(self._log) - self._requests][0] + _WINDOW - now)
        if self._tokens is not None and self._used + tokens > self._tokens:
            excess = self._used + tokens - self._tokens
            for sent, size in self._log:
                excess -= size
                if excess <= 0:
                    wait = max(wait, sent + _WINDOW - now)
                    break
        return wait
