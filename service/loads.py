"""Things that take long to get ready, such as models: each is loaded once, and nobody waits who does not need it."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any, Generic, TypeVar

import structlog

from .recent import Recent

__all__ = ["Loads", "NotLoadedError"]

_LOG = structlog.get_logger("icl_select.service")

T = TypeVar("T")

Done = Callable[[Exception | None], None]


class NotLoadedError(Exception):
    """What was wanted at once has to be loaded first."""

    def __init__(self, loads: Loads[Any], name: str) -> None:
        super().__init__(name)
        self.loads, self.name = loads, name


class Loads(Generic[T]):
    """What was loaded, by name. Threads share it.

    Parameters
    ----------
    load : callable
        Makes the thing of a name, ready for use.
    most : int
        Things kept at once; the one that was not used for longest is let go.
    """

    def __init__(self, load: Callable[[str], T], most: int) -> None:
        self._load = load
        self._lock = threading.Lock()
        self._loading = threading.Lock()
        self._loaded: Recent[str, T] = Recent(most)
        self._waiting: dict[str, list[Done]] = {}

    def ready(self, name: str) -> T | None:
        """The thing of a name, if it can be had at once."""
        with self._lock:
            return self._loaded.get(name)

    def at_once(self, name: str) -> T:
        """The thing of a name; NotLoadedError if it has to be loaded first."""
        found = self.ready(name)
        if found is None:
            raise NotLoadedError(self, name)
        return found

    def load(self, name: str) -> T:
        """The thing of a name, loaded; one load at a time. What the load raises is raised."""
        with self._loading:
            found = self.ready(name)
            if found is None:
                found = self._load(name)
                with self._lock:
                    self._loaded.put(name, found)
        return found

    def load_in_background(self, name: str, done: Done) -> None:
        """Load in another thread, then call `done` there with what went wrong, or None."""
        with self._lock:
            waiting = self._waiting.setdefault(name, [])
            waiting.append(done)
            if len(waiting) > 1:
                return
        try:
            threading.Thread(target=self._run, args=(name,), name=f"load {name}", daemon=True).start()
        except RuntimeError as exc:  # no more threads
            self._tell(name, exc)

    def _run(self, name: str) -> None:
        problem: Exception | None = None
        try:
            self.load(name)
        except Exception as exc:
            _LOG.error("cannot be loaded", name=name, exc_info=exc)
            problem = exc
        self._tell(name, problem)

    def _tell(self, name: str, problem: Exception | None) -> None:
        with self._lock:
            waiting = self._waiting.pop(name)
        for done in waiting:
            done(problem)
