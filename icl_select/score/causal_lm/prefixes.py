"""Which common beginnings of token sequences are computed once: a tree over the sorted sequences."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

from icl_select.score.encoding import common_length

__all__ = ["Shared", "reused_tokens", "share_prefixes"]

# Computing a beginning by itself costs one more call of the model and splits a batch; fewer tokens saved are not
# worth it.
_WORTH = 256
# Each level keeps one more cache of up to the whole context alive.
_LEVELS = 4


@dataclass(frozen=True, slots=True)
class Shared:
    """A beginning that is computed once, and what is computed on top of it.

    Attributes
    ----------
    length : int
        Tokens of the beginning; 0 at the root.
    row : int
        A sequence that begins with it.
    leaves : tuple of int
        Sequences computed right on top of it; none is cut shorter than it may be.
    children : tuple of Shared
        Longer beginnings, computed on top of this one.
    """

    length: int
    row: int
    leaves: tuple[int, ...]
    children: tuple[Shared, ...]


def share_prefixes(
    sequences: Sequence[tuple[int, ...]], limits: Sequence[int], *, worth: int = _WORTH, levels: int = _LEVELS
) -> Shared:
    """Find the beginnings that are worth computing once.

    Sequences that share a beginning are neighbours once sorted, and what two neighbours of a run share, the whole
    run shares. A run becomes a node of the tree where that saves at least `worth` tokens over its parent.

    Parameters
    ----------
    sequences : sequence of tuple of int
        None is empty.
    limits : sequence of int
        Tokens of each sequence that may be computed apart from it: what is predicted after later ones is read with
        the sequence itself. Less than its length.
    worth : int
        Tokens that a node must save.
    levels : int
        Nodes on top of each other at most.

    Returns
    -------
    Shared
        The root, of length 0; every sequence is a leaf of exactly one node.

    Notes
    -----
    O(n log n) comparisons of sequences; O(n^2) steps at worst where each sequence is the beginning of the next.
    """
    order = sorted(range(len(sequences)), key=sequences.__getitem__)
    common = [common_length(sequences[a], sequences[b]) for a, b in pairwise(order)]
    return _node(limits, order, common, 0, worth, levels)


def _node(limits: Sequence[int], order: list[int], common: list[int], length: int, worth: int, levels: int) -> Shared:
    leaves: list[int] = []
    children: list[Shared] = []
    runs = [(0, len(order))]
    while runs:
        start, stop = runs.pop()
        if stop - start < 2 or not levels:
            leaves.extend(order[start:stop])
            continue
        least = min(common[start : stop - 1])
        end = min(least, *(limits[row] for row in order[start:stop]))
        if (stop - start - 1) * (end - length) >= worth:
            inner = common[start : stop - 1]
            children.append(_node(limits, order[start:stop], inner, end, worth, levels - 1))
        else:
            runs.extend(reversed(_split(common, start, stop, least)))
    return Shared(length, order[0] if order else -1, tuple(leaves), tuple(children))


def _split(common: list[int], start: int, stop: int, least: int) -> list[tuple[int, int]]:
    """Cut a run where neighbours share the least."""
    cuts = [start, *(place + 1 for place in range(start, stop - 1) if common[place] == least), stop]
    return list(pairwise(cuts))


def reused_tokens(tree: Shared, n: int) -> list[int]:
    """Tokens of each of `n` sequences that another one had computed before it."""
    reused = [0] * n

    def visit(node: Shared, before: int) -> None:
        # Whoever comes first pays for the node's own tokens.
        first = True
        for child in node.children:
            visit(child, before if first else node.length)
            first = False
        for row in node.leaves:
            reused[row] = before if first else node.length
            first = False

    visit(tree, 0)
    return reused
