"""Uniform sampling: the baseline that every other method must beat."""

from __future__ import annotations

import numpy as np

from icl_select.methods._published import check_variant, python_random
from icl_select.types import FloatArray, IntArray, Selection

__all__ = ["random"]


def random(
    x: FloatArray,
    budget: int,
    *,
    given: IntArray | tuple[int, ...] = (),
    rng: np.random.Generator,
    variant: str = "paper",
) -> Selection:
    """Pick rows uniformly at random, without replacement.

    Parameters
    ----------
    x : ndarray of shape (n, d), float32 or float64
        Embeddings; only their number counts.
    budget : int
        Number of new rows to pick, ``1 <= budget <= n - len(given)``.
    given : ndarray of shape (g,), int64, default=()
        Rows already labelled; never returned.
    rng : numpy.random.Generator
        Source of the permutation.
    variant : {"paper", "official"}, default="paper"
        "paper" takes the head of one random permutation of the free rows, so that prefixes nest. "official"
        replays ``random.Random(seed).sample(range(n), budget)`` with the integer seed of `rng` (over the
        free rows in ascending order), as published code does [1]_; its picks do not nest.

    Returns
    -------
    Selection
        ``indices`` in the order drawn; ``gains`` are 0, as nothing is optimised.

    Raises
    ------
    ParameterError
        If `variant` is not known, or "official" gets a generator that no integer seeded.

    Notes
    -----
    Time and memory O(n). Published runs drew pool and test subsets from the same stream first, so the seed
    alone does not give the indices of the published tables.

    References
    ----------
    .. [1] Su et al., "Selective Annotation Makes Language Models Better Few-Shot Learners", ICLR 2023.

    Examples
    --------
    >>> import numpy as np
    >>> x = np.eye(6)
    >>> picked = random(x, 3, given=(0, 1), rng=np.random.default_rng(0))
    >>> picked.indices.tolist()
    [4, 2, 3]
    >>> picked.prefix(2).indices.tolist()
    [4, 2]
    """
    official = check_variant(variant)
    free = np.setdiff1d(np.arange(len(x)), np.asarray(given, dtype=np.int64))
    if official:
        indices = np.array(python_random(rng).sample(free.tolist(), budget), dtype=np.int64)
    else:
        indices = rng.permutation(free)[:budget]
    return Selection(indices, np.zeros(budget), nested=not official)
