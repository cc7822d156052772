"""The order of requests in which common beginnings meet, and what an engine's prefix cache can spare at best."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Sequence

import numpy as np

from icl_select._validation import check_int
from icl_select.score.encoding import common_length
from icl_select.types import IntArray

__all__ = ["prefix_order", "reusable_tokens", "reused_tokens"]


def prefix_order(sequences: Sequence[Sequence[int]] | Sequence[str]) -> IntArray:
    """Positions of the sequences in lexicographic order, so that common beginnings stand next to each other.

    Parameters
    ----------
    sequences : sequence of str, or of sequences of int
        Prompts as text or as token ids. What begins with the same tokens begins with the same text, so text serves
        where ids are not at hand.

    Returns
    -------
    ndarray of shape (n,), int64
        Equal sequences keep their order.

    Notes
    -----
    Why this order is the best there is: in it, all sequences with a given beginning are neighbours. So every
    distinct beginning is computed once, even by a cache that remembers the previous request only, and no order can
    compute it less often. A sequence that is the beginning of others comes before them and so serves them in full,
    whereas it would have to compute its own last token again if it came later. :func:`reusable_tokens` is
    therefore what :func:`reused_tokens` counts in this order; the tests compare with every order of small sets.

    Time O(n log n) comparisons, each as long as the common beginning.

    Examples
    --------
    >>> prefix_order(["demo B, query 1", "demo A, query 2", "demo B, query 0"]).tolist()
    [1, 2, 0]
    """
    keys = [sequence if isinstance(sequence, str) else tuple(sequence) for sequence in sequences]
    return np.array(sorted(range(len(keys)), key=keys.__getitem__), dtype=np.int64)


def reusable_tokens(sequences: Sequence[Sequence[int]], block: int = 1) -> int:
    """How many tokens of a set of requests a prefix cache without bounds spares at best, over all orders.

    Parameters
    ----------
    sequences : sequence of sequences of int
        Token ids of the requests.
    block : int, default=1
        Tokens that the engine's cache keeps as one; only whole blocks, counted from the start, are reused.

    Returns
    -------
    int
        Tokens read from the cache, out of ``sum(map(len, sequences))``.

    Raises
    ------
    ParameterError
        If `block` is below 1.

    Notes
    -----
    Let a beginning be a sequence's first ``b * block`` tokens. Each distinct beginning must be computed once; and
    as an engine always computes the last token of a request, to know what follows, a beginning that is exactly
    the whole of ``m`` requests is computed ``m`` times. All other blocks can be spared, and :func:`prefix_order`
    spares them. Time O(tokens), memory O(tokens of the distinct beginnings).

    Examples
    --------
    The second request reads two of its tokens; the third repeats it and still computes the last one:

    >>> reusable_tokens([[1, 2, 3], [1, 2, 4], [1, 2, 4]])
    4
    >>> reusable_tokens([[1, 2, 3], [1, 2, 4], [1, 2, 4]], block=2)
    4
    """
    check_int(block, name="block", low=1)
    # A beginning is named by the number of the one before it and its last block: exact, without long keys.
    numbers: dict[tuple[int, tuple[int, ...]], int] = {}
    wholes: Counter[int] = Counter()
    blocks = 0
    for sequence in sequences:
        at = 0
        for start in range(0, len(sequence) - block + 1, block):
            at = numbers.setdefault((at, tuple(sequence[start : start + block])), len(numbers) + 1)
            blocks += 1
        if sequence and len(sequence) % block == 0:
            wholes[at] += 1
    return block * (blocks - len(numbers) - sum(times - 1 for times in wholes.values()))


def reused_tokens(sequences: Sequence[Sequence[int]], block: int = 1) -> int:
    """How many tokens a cache spares that remembers the previous request only, in the order given.

    Parameters
    ----------
    sequences : sequence of sequences of int
        Token ids of the requests, in the order in which they are asked.
    block : int, default=1
        As for :func:`reusable_tokens`.

    Returns
    -------
    int

    Raises
    ------
    ParameterError
        If `block` is below 1.

    Examples
    --------
    >>> requests = [[1, 2, 3], [7, 8, 9], [1, 2, 4]]
    >>> reused_tokens(requests), reused_tokens([requests[i] for i in prefix_order(requests)])
    (0, 2)
    """
    check_int(block, name="block", low=1)
    total = 0
    for before, now in itertools.pairwise(sequences):
        total += min(common_length(before, now), max(len(now) - 1, 0)) // block * block
    return total
