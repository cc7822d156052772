"""Replay of the published IDEAL: its graph, its Monte Carlo greedy, and Python's random stream."""

from __future__ import annotations

import random
from typing import Any

import numba
import numpy as np

from icl_select.types import FloatArray, IntArray

__all__ = ["node_order", "published_graph", "replay"]


def published_graph(rows: FloatArray, k: int) -> tuple[IntArray, FloatArray]:
    """Return the out-edges of every row in insertion order (least similar first) and their probabilities.

    `rows` are unit float32 rows. Both arrays have shape (n, k). One product per row, a sort that takes the
    last entry for the row itself, and a float32 sum: together they give the published probabilities to the
    bit. Where the row itself is not the last entry (exact duplicates), it is dropped from the list, which
    then is one short; missing edges are -1 with probability 0.
    """
    n = len(rows)
    targets = np.full((n, k), -1, dtype=np.int64)
    probabilities = np.zeros((n, k), dtype=np.float32)
    for v in range(n):
        cosines = (rows[v : v + 1] @ rows.T)[0]
        near = np.argsort(cosines)[-k - 1 : -1]
        near = near[near != v]
        weights = cosines[near]
        targets[v, : len(near)] = near
        with np.errstate(divide="ignore", invalid="ignore"):
            probabilities[v, : len(near)] = weights / np.sum(weights)
    return targets, probabilities


def node_order(targets: IntArray) -> IntArray:
    """Return the rows in the order in which a graph meets them when edges are added row by row."""
    own = np.arange(len(targets))[:, None]
    met = np.concatenate([own, targets], axis=1).ravel()
    met = met[met >= 0]
    first = np.unique(met, return_index=True)[1]
    return met[np.sort(first)]


def replay(
    targets: IntArray,
    probabilities: FloatArray,
    given: IntArray,
    budget: int,
    rounds: int,
    stream: random.Random,
) -> tuple[IntArray, FloatArray]:
    """Return the published picks and the published influence estimate after each of them.

    Without `given` the first pick is the row of largest out-degree that the graph met first (row 0 unless
    duplicates shorten its list), not estimated: 0.
    """
    order = node_order(targets)
    seeds = np.empty(len(given) + budget, dtype=np.int64)
    seeds[: len(given)] = given
    estimates = np.zeros(budget, dtype=np.float64)
    done = len(given)
    if done == 0:
        seeds[0] = order[np.argmax((targets >= 0).sum(axis=1)[order])]
        done = 1
    _, state, _ = stream.getstate()
    words = np.array(state[:-1], dtype=np.uint32)
    position = np.array([state[-1]], dtype=np.int64)
    _greedy(targets, probabilities, order, seeds, done, len(given), rounds, words, position, estimates)
    return seeds[len(given) :], estimates


@numba.njit(cache=True, nogil=True)
def _greedy(
    targets: Any,
    probabilities: Any,
    order: Any,
    seeds: Any,
    done: int,
    n_given: int,
    rounds: int,
    words: Any,
    position: Any,
    estimates: Any,
) -> None:
    """Fill `seeds` from `done` on: the first free row of strictly largest activation total in each round."""
    n = len(targets)
    taken = np.zeros(n, dtype=np.bool_)
    for pos in range(done):
        taken[seeds[pos]] = True
    stamp = np.zeros(n, dtype=np.int64)
    cascade = 0
    for pos in range(done, len(seeds)):
        best, best_row = -1, -1
        for row in order:
            if taken[row]:
                continue
            seeds[pos] = row
            total = 0
            for _ in range(rounds):
                cascade += 1
                total += _activate(targets, probabilities, seeds[: pos + 1], stamp, cascade, words, position)
            if total > best:
                best, best_row = total, row
        seeds[pos] = best_row
        taken[best_row] = True
        estimates[pos - n_given] = best / rounds


@numba.njit(cache=True, nogil=True)
def _activate(targets: Any, probabilities: Any, seeds: Any, stamp: Any, cascade: int, words: Any, position: Any) -> int:
    """Run one published cascade and count activations, a row once for every parent that hits it in a step."""
    frontier = seeds.copy()
    for row in frontier:
        stamp[row] = cascade
    count = len(frontier)
    while len(frontier) > 0:
        hit = np.empty(len(frontier) * targets.shape[1], dtype=np.int64)
        hits = 0
        for v in frontier:
            for edge in range(targets.shape[1]):
                w = targets[v, edge]
                if w >= 0 and stamp[w] != cascade and np.float32(_uniform(words, position)) < probabilities[v, edge]:
                    hit[hits] = w
                    hits += 1
        frontier = hit[:hits]
        for row in frontier:
            stamp[row] = cascade
        count += hits
    return count


@numba.njit(cache=True, nogil=True)
def _uniform(words: Any, position: Any) -> Any:
    """Return the next ``random.random()`` of the Mersenne Twister with state `words` and `position`."""
    a = _word(words, position) >> 5
    b = _word(words, position) >> 6
    return (a * 67108864.0 + b) / 9007199254740992.0


@numba.njit(cache=True, nogil=True)
def _word(words: Any, position: Any) -> Any:
    if position[0] >= 624:
        for i in range(624):
            mixed = (np.int64(words[i]) & 0x80000000) | (np.int64(words[(i + 1) % 624]) & 0x7FFFFFFF)
            twist = 0x9908B0DF if mixed & 1 else 0
            words[i] = np.int64(words[(i + 397) % 624]) ^ (mixed >> 1) ^ twist
        position[0] = 0
    y = np.int64(words[position[0]])
    position[0] += 1
    y ^= y >> 11
    y ^= (y << 7) & 0x9D2C5680
    y ^= (y << 15) & 0xEFC60000
    return y ^ (y >> 18)
