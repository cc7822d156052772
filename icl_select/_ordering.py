"""The order in which retrieved demonstrations stand in a prompt."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from icl_select._fingerprint import seed_from
from icl_select.errors import ParameterError, UnknownNameError, suggest
from icl_select.types import IntArray

__all__ = ["ORDERS", "prompt_order"]

ORDERS = ("nearest_last", "nearest_first", "shuffled", "shared_first")


def prompt_order(
    ids: Sequence[str],
    how: str = "nearest_last",
    *,
    query_id: str = "",
    seed: int = 0,
    frequency: Mapping[str, int] | None = None,
) -> IntArray:
    """Positions into `ids` in the order in which a prompt shows them.

    Parameters
    ----------
    ids : sequence of str
        Ids of the demonstrations, nearest first.
    how : {"nearest_last", "nearest_first", "shuffled", "shared_first"}, default="nearest_last"
        ``nearest_last`` is the published order: the most similar stands next to the query. ``shuffled`` sorts by
        a hash of (`seed`, `query_id`, id), so that the order of one query depends on no other query, and adding
        or dropping a demonstration moves none of the others. ``shared_first`` begins with the demonstrations that
        several queries show, the most frequent first and equally frequent ones by id, so that prompts begin alike
        and an engine can reuse what it has read; those of this query alone follow, the nearest last.
    query_id : str, default=""
        Read by ``shuffled`` only.
    seed : int, default=0
        Read by ``shuffled`` only.
    frequency : mapping of str to int, optional
        In how many of the prompts that go together each demonstration stands; one that is missing stands in this
        one alone. Read by ``shared_first``, which needs it.

    Returns
    -------
    ndarray of shape (len(ids),), int64

    Raises
    ------
    UnknownNameError
        If `how` is none of the four.
    ParameterError
        If ``shared_first`` gets no `frequency`.

    Examples
    --------
    >>> prompt_order(["near", "far"]).tolist()
    [1, 0]
    >>> prompt_order(["near", "often", "far"], "shared_first", frequency={"often": 9}).tolist()
    [1, 2, 0]
    """
    positions = range(len(ids))
    if how == "nearest_last":
        return np.array(positions[::-1], dtype=np.int64)
    if how == "nearest_first":
        return np.array(positions, dtype=np.int64)
    if how == "shuffled":
        keys = [(seed_from("order", seed, query_id, id_), pos) for pos, id_ in enumerate(ids)]
        return np.array([pos for _, pos in sorted(keys)], dtype=np.int64)
    if how == "shared_first":
        if frequency is None:
            raise ParameterError(
                "the order 'shared_first' needs to know in how many prompts each demonstration stands. "
                "Pass frequency, or take another order."
            )
        return np.array(sorted(positions, key=lambda pos: _by_frequency(ids[pos], pos, frequency)), dtype=np.int64)
    raise UnknownNameError(f"unknown order {how!r}.{suggest(how, ORDERS)}")


def _by_frequency(id_: str, pos: int, frequency: Mapping[str, int]) -> tuple[int, str, int]:
    """Sort key: shared demonstrations by their number and id, the others behind them from the farthest."""
    times = frequency.get(id_, 1)
    return (-times, id_, 0) if times > 1 else (-1, "", -pos)
