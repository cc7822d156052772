"""The order in which retrieved demonstrations stand in a prompt."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from icl_select._fingerprint import seed_from
from icl_select.errors import UnknownNameError, suggest
from icl_select.types import IntArray

__all__ = ["ORDERS", "prompt_order"]

ORDERS = ("nearest_last", "nearest_first", "shuffled")


def prompt_order(ids: Sequence[str], how: str = "nearest_last", *, query_id: str = "", seed: int = 0) -> IntArray:
    """Positions into `ids` in the order in which a prompt shows them.

    Parameters
    ----------
    ids : sequence of str
        Ids of the demonstrations, nearest first.
    how : {"nearest_last", "nearest_first", "shuffled"}, default="nearest_last"
        ``nearest_last`` is the published order: the most similar stands next to the query. ``shuffled`` sorts by
        a hash of (`seed`, `query_id`, id), so that the order of one query depends on no other query, and adding
        or dropping a demonstration moves none of the others.
    query_id : str, default=""
        Read by ``shuffled`` only.
    seed : int, default=0
        Read by ``shuffled`` only.

    Returns
    -------
    ndarray of shape (len(ids),), int64

    Raises
    ------
    UnknownNameError
        If `how` is none of the three.

    Examples
    --------
    >>> prompt_order(["near", "far"]).tolist()
    [1, 0]
    """
    positions = range(len(ids))
    if how == "nearest_last":
        return np.array(positions[::-1], dtype=np.int64)
    if how == "nearest_first":
        return np.array(positions, dtype=np.int64)
    if how == "shuffled":
        keys = [(seed_from("order", seed, query_id, id_), pos) for pos, id_ in enumerate(ids)]
        return np.array([pos for _, pos in sorted(keys)], dtype=np.int64)
    raise UnknownNameError(f"unknown order {how!r}.{suggest(how, ORDERS)}")
