"""Prefix trees: which one-token reads give the log-probabilities of all choices, and back from reads to sums.

A read is a beginning of ``context + choice`` and the set of tokens whose log-probability is wanted right after it.
Label words that differ in their first token and have no other need one read for a prompt; words that share their
first tokens share the reads up to where they part; items with the same context share whatever they have in common.
"""

from __future__ import annotations

import hashlib
from array import array
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from icl_select.errors import ModelError
from icl_select.score.encoding import EncodedItem
from icl_select.types import FloatArray

__all__ = ["MAX_WANTED", "Read", "ReadPlan", "collect", "plan_reads", "walk_cost"]

MAX_WANTED = 128
"""Most ids that one request may ask about: vLLM's limit for ``logprob_token_ids``."""


@dataclass(frozen=True, slots=True)
class Read:
    """One request: what the model reads, and the ids whose log-probability is wanted right after it.

    ``context`` belongs to the items and is not copied; ``walked`` are the tokens of a choice already passed.
    """

    context: tuple[int, ...]
    walked: tuple[int, ...]
    wanted: tuple[int, ...]

    @property
    def prefix(self) -> list[int]:
        """Ids that the model reads."""
        return [*self.context, *self.walked]


@dataclass(frozen=True, slots=True)
class ReadPlan:
    """The distinct reads of some items, and where each token of each choice is found.

    Attributes
    ----------
    reads : tuple of Read
        In the order of the items, a beginning before what continues it, so that an engine with a prefix cache has
        read the one when it meets the other.
    places : tuple of tuple of tuple of int
        ``places[i][j][t]`` is the position in `reads` of the read that gives token t of choice j of item i.
    """

    reads: tuple[Read, ...]
    places: tuple[tuple[tuple[int, ...], ...], ...]


class _Node:
    """A beginning that has been met: its first occurrence, and in which of its reads an id is asked for."""

    __slots__ = ("context", "reads", "walked", "where")

    def __init__(self, context: tuple[int, ...], walked: tuple[int, ...]) -> None:
        self.context = context
        self.walked = walked
        self.where: dict[int, int] = {}
        self.reads: list[int] = []


def plan_reads(items: Sequence[EncodedItem], *, limit: int = MAX_WANTED) -> ReadPlan:
    """Find the fewest one-token reads that give every token of every choice.

    Parameters
    ----------
    items : sequence of EncodedItem
    limit : int, default=128
        Ids that one read may ask about; a node that wants more is split into several reads.

    Returns
    -------
    ReadPlan
        One read for each distinct beginning and `limit` ids wanted after it.

    Notes
    -----
    Beginnings are told apart by a 128-bit hash of all their tokens, so that two items whose contexts end at different
    places still share what is the same; time is linear in the tokens of contexts and choices.

    Examples
    --------
    Two words of one token are one read; a third that begins like the first adds one.

    >>> plan = plan_reads([EncodedItem((1, 2), ((5,), (6,), (5, 7)))])
    >>> [(read.prefix, read.wanted) for read in plan.reads]
    [([1, 2], (5, 6)), ([1, 2, 5], (7,))]
    >>> plan.places
    (((0,), (0,), (0, 1)),)
    """
    nodes: dict[bytes, _Node] = {}
    paths: list[list[list[_Node]]] = []
    for item in items:
        root = hashlib.blake2b(array("q", item.context).tobytes(), digest_size=16)
        lines = []
        for choice in item.choices:
            digest, line = root.copy(), []
            for depth, token in enumerate(choice):
                key = digest.digest()
                if key not in nodes:
                    nodes[key] = _Node(item.context, choice[:depth])
                node = nodes[key]
                node.where.setdefault(token, len(node.where))
                line.append(node)
                digest.update(array("q", [token]).tobytes())
            lines.append(line)
        paths.append(lines)
    reads: list[Read] = []
    for node in nodes.values():
        wanted = tuple(node.where)
        for start in range(0, len(wanted), limit):
            node.reads.append(len(reads))
            reads.append(Read(node.context, node.walked, wanted[start : start + limit]))
    places = tuple(
        tuple(
            tuple(node.reads[node.where[token] // limit] for node, token in zip(line, choice, strict=True))
            for line, choice in zip(lines, item.choices, strict=True)
        )
        for lines, item in zip(paths, items, strict=True)
    )
    return ReadPlan(tuple(reads), places)


def collect(items: Sequence[EncodedItem], plan: ReadPlan, answers: Sequence[Mapping[int, float]]) -> FloatArray:
    """Sum the log-probabilities of each choice's tokens.

    Parameters
    ----------
    items : sequence of EncodedItem
        Those that `plan` was made of.
    plan : ReadPlan
    answers : sequence of mapping of int to float
        For each read the log-probability of at least the ids that it wants.

    Returns
    -------
    ndarray of shape (n, c), float64
        NaN where an item has fewer than c choices; c is that of the item with most.

    Raises
    ------
    ModelError
        If an answer lacks an id that was asked for, or is not a number.
    """
    out = np.full((len(items), max((len(item.choices) for item in items), default=0)), np.nan)
    for row, (item, lines) in enumerate(zip(items, plan.places, strict=True)):
        for column, (choice, line) in enumerate(zip(item.choices, lines, strict=True)):
            total = 0.0
            for place, token in zip(line, choice, strict=True):
                value = answers[place].get(token)
                if value is None or value != value:
                    raise ModelError(
                        f"the engine gave {'no log-probability' if value is None else 'NaN'} for token {token}. NaN "
                        "comes of numbers too large for the dtype: use dtype='bfloat16' or 'float32'. A missing one "
                        "means that the engine does not answer logprob_token_ids: use a version that does."
                    )
                total += value
            out[row, column] = total
    return out


def walk_cost(item: EncodedItem, block: int) -> tuple[int, int]:
    """Requests and tokens that a walk of one item costs an engine whose cache holds whole blocks of tokens.

    Parameters
    ----------
    item : EncodedItem
    block : int
        Tokens of a cache block. A read finds the full blocks of its prefix, but the last token is always computed.

    Returns
    -------
    tuple of int
        ``(requests, tokens)``, nothing being cached before.

    Examples
    --------
    The context of 5 is read once; what is after its first block of 4 is computed again for the second read.

    >>> walk_cost(EncodedItem((1, 2, 3, 4, 5), ((6, 7), (8,))), block=4)
    (2, 7)
    """
    start = len(item.context)
    walked = {choice[:depth] for choice in item.choices for depth in range(1, len(choice))}
    again = sum(start + len(path) - (start + len(path) - 1) // block * block for path in walked)
    return 1 + len(walked), start + again
