"""Prompt order of what was retrieved."""

from __future__ import annotations

from collections.abc import Mapping

from icl_select._ordering import ORDERS, prompt_order
from icl_select.types import IntArray, Retrieved

__all__ = ["ORDERS", "order"]


def order(
    retrieved: Retrieved,
    how: str = "nearest_last",
    *,
    query_id: str = "",
    seed: int = 0,
    frequency: Mapping[str, int] | None = None,
) -> IntArray:
    """Positions into `retrieved` in the order in which a prompt shows them.

    Parameters
    ----------
    retrieved : Retrieved
        What :meth:`Retriever.retrieve` returned for the query, nearest first.
    how : {"nearest_last", "nearest_first", "shuffled", "shared_first"}, default="nearest_last"
        ``nearest_last`` is the published order: the most similar demonstration stands next to the query.
        ``shuffled`` sorts by a hash of (`seed`, `query_id`, demonstration id): the order of one query depends on
        no other query. ``shared_first`` begins with those that several queries show, the most frequent first and
        equally frequent ones by id, so that prompts begin alike; the others follow, the nearest last.
    query_id : str, default=""
        Id of the query; read by ``shuffled`` only.
    seed : int, default=0
        Read by ``shuffled`` only.
    frequency : mapping of str to int, optional
        In how many of the prompts that go together each demonstration stands; ``shared_first`` needs it.

    Returns
    -------
    ndarray of shape (len(retrieved),), int64
        ``retrieved.ids[positions[0]]`` is shown first.

    Raises
    ------
    UnknownNameError
        If `how` is none of the four.
    ParameterError
        If ``shared_first`` gets no `frequency`.

    Examples
    --------
    >>> found = Retrieved(rows=[4, 2], ids=("d", "b"), similarities=[0.9, 0.5])
    >>> [found.ids[pos] for pos in order(found)]
    ['b', 'd']
    """
    return prompt_order(retrieved.ids, how, query_id=query_id, seed=seed, frequency=frequency)
