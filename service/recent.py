"""What was used last, up to a number and a weight."""

from __future__ import annotations

from collections import OrderedDict
from typing import Generic, TypeVar

__all__ = ["Recent"]

K = TypeVar("K")
V = TypeVar("V")


class Recent(Generic[K, V]):
    """A mapping that forgets what was not used for longest. One thread uses it at a time.

    Parameters
    ----------
    size : int
        Values kept at most.
    most : int, optional
        Weight of all values together, at most: their number says nothing of the memory that strangers' texts take.

    Attributes
    ----------
    weight : int
        Of all values that are kept.
    """

    def __init__(self, size: int, most: int | None = None) -> None:
        self._size = size
        self._most = most
        self.weight = 0
        self._kept: OrderedDict[K, tuple[V, int]] = OrderedDict()

    def __len__(self) -> int:
        return len(self._kept)

    def get(self, key: K) -> V | None:
        """The value of a key, which counts as used now; None if there is none."""
        found = self._kept.get(key)
        if found is None:
            return None
        self._kept.move_to_end(key)
        return found[0]

    def put(self, key: K, value: V, weight: int = 1) -> None:
        """Keep a value, and forget others until it fits; one that could never fit is not kept."""
        self.pop(key)
        if not self._size or (self._most is not None and weight > self._most):
            return
        self._kept[key] = (value, weight)
        self.weight += weight
        while len(self._kept) > self._size or (self._most is not None and self.weight > self._most):
            self.pop(next(iter(self._kept)))

    def pop(self, key: K) -> None:
        """Forget a key, if it is there."""
        found = self._kept.pop(key, None)
        if found is not None:
            self.weight -= found[1]
