"""Which pool rows and test items a draw sees, and what a design can and cannot show.

Draw r ranks every item by a hash of the seed, the draw and the item's own id, and takes the first ones. So an
item's place does not depend on the other items, on their order in the file, or on which methods run. Items that
depend on each other (the turns of a dialogue) are ranked and taken together.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from icl_select._fingerprint import fingerprint
from icl_select.errors import BudgetError
from icl_select.types import Example, IntArray

from .config import Campaign
from .tasks import TaskData

__all__ = ["Draw", "item_digest", "make_draws", "overlap", "ranked"]


@dataclass(frozen=True, eq=False)
class Draw:
    """One draw of a task.

    ``pool`` and ``test`` are indices into the task's pool and test items, in hash order. ``text_key`` hashes ids
    and texts of the pool rows (all that a selection depends on), ``pool_key`` and ``test_key`` everything.
    """

    number: int
    pool: IntArray
    test: IntArray
    text_key: str
    pool_key: str
    test_key: str


def ranked(ids: Sequence[str], *parts: Any) -> IntArray:
    """Indices of `ids` by the hash of `parts` and the id.

    Examples
    --------
    Leaving an item out leaves the order of the others:

    >>> ids = ["a", "b", "c", "d"]
    >>> [ids[i] for i in ranked(ids, 0)]
    ['a', 'b', 'd', 'c']
    >>> ["acd"[i] for i in ranked("acd", 0)]
    ['a', 'd', 'c']
    """
    prefix = hashlib.blake2b(fingerprint(*parts, length=64).encode(), digest_size=16)
    keys = []
    for name in ids:
        digest = prefix.copy()
        digest.update(name.encode("utf-8", "surrogatepass"))
        keys.append(digest.digest())
    return np.array(sorted(range(len(ids)), key=lambda i: (keys[i], ids[i])), dtype=np.int64)


def item_digest(example: Example) -> str:
    """Hash of all of an item that results depend on."""
    return fingerprint(example.id, example.text, example.label, dict(example.fields))


def make_draws(campaign: Campaign, data: TaskData) -> list[Draw]:
    """The draws of a task.

    Raises
    ------
    BudgetError
        If the largest budget exceeds the pool rows of a draw.
    """
    n = len(data.pool)
    size = min(n, campaign.pool_size)
    if campaign.pool_fraction is not None:
        size = min(size, int(n * campaign.pool_fraction))
    if max(campaign.budgets) > size:
        raise BudgetError(
            f"task {data.task.name}: budget {max(campaign.budgets)} exceeds the {size} pool rows of a draw (pool of "
            f"{n}, pool_size {campaign.pool_size}, pool_fraction {campaign.pool_fraction}). Lower the budget, or raise "
            "pool_size or pool_fraction."
        )
    pool_ids, test_ids = data.pool.ids, data.test.ids
    text_digests = [fingerprint(example.id, example.text) for example in data.pool]
    pool_digests = [item_digest(example) for example in data.pool]
    test_digests = [item_digest(example) for example in data.test]
    draws = []
    for r in range(campaign.draws):
        pool = ranked(pool_ids, campaign.seed, data.task.name, "pool", r)[:size]
        test = _test_items(campaign, data, test_ids, r)
        draws.append(
            Draw(
                number=r,
                pool=pool,
                test=test,
                text_key=fingerprint([text_digests[i] for i in pool]),
                pool_key=fingerprint([pool_digests[i] for i in pool]),
                test_key=fingerprint([test_digests[i] for i in test]),
            )
        )
    return draws


def _test_items(campaign: Campaign, data: TaskData, ids: Sequence[str], r: int) -> IntArray:
    """The test items of draw `r`: single ones, or whole groups in file order, the last one cut at its end."""
    parts = (campaign.seed, data.task.name, "test", r)
    group = data.task.group
    if group is None:
        return ranked(ids, *parts)[: campaign.test_size]
    members: dict[str, list[int]] = {}
    for i, example in enumerate(data.test):
        members.setdefault(str(example.fields[group]), []).append(i)
    names = list(members)
    items = [i for place in ranked(names, *parts) for i in members[names[place]]]
    return np.array(items[: campaign.test_size], dtype=np.int64)


def overlap(parts: Sequence[IntArray]) -> float:
    """Mean share of rows that two draws have in common (1 for a single draw).

    Examples
    --------
    >>> overlap([np.array([0, 1]), np.array([1, 2])])
    0.5
    """
    if len(parts) < 2:
        return 1.0
    shares = [len(np.intersect1d(a, b)) / min(len(a), len(b)) for i, a in enumerate(parts) for b in parts[i + 1 :]]
    return float(np.mean(shares))
