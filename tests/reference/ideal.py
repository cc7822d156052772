"""Influence under the independent cascade: exact on tiny graphs, common worlds on others; the published cascade."""

from __future__ import annotations

import itertools
import random

import numpy as np


def reach(targets: np.ndarray, live: np.ndarray, seeds: list[int]) -> int:
    """Count the rows reached from `seeds` along live edges."""
    reached = np.zeros(len(targets), dtype=bool)
    reached[seeds] = True
    frontier = np.array(seeds)
    while len(frontier):
        hit = np.unique(targets[frontier][live[frontier]])
        frontier = hit[~reached[hit]]
        reached[frontier] = True
    return int(reached.sum())


def exact_influence(targets: np.ndarray, probabilities: np.ndarray, seeds: list[int]) -> float:
    """Sum over all worlds of live and dead edges."""
    total = 0.0
    for world in itertools.product((False, True), repeat=targets.size):
        live = np.array(world).reshape(targets.shape)
        chance = float(np.where(live, probabilities, 1 - probabilities).prod())
        if chance > 0:
            total += chance * reach(targets, live, seeds)
    return total


def common_worlds(
    targets: np.ndarray, probabilities: np.ndarray, sets: list[list[int]], worlds: int, seed: int = 0
) -> np.ndarray:
    """Return (worlds, len(sets)) counts of rows reached: the same worlds for every set of seeds."""
    rng = np.random.default_rng(seed)
    counts = np.empty((worlds, len(sets)))
    for w in range(worlds):
        live = rng.random(targets.shape) < probabilities
        counts[w] = [reach(targets, live, seeds) for seeds in sets]
    return counts


def greedy_cover(sets: list[set[int]], n: int, given: list[int], budget: int) -> tuple[list[int], list[int]]:
    """Pick rows that meet most sets not met before, counting anew for every candidate."""
    open_sets = [s for s in sets if not s & set(given)]
    picks, counts = [], []
    for _ in range(budget):
        free = [c for c in range(n) if c not in given and c not in picks]
        best = max(free, key=lambda c: (sum(c in s for s in open_sets), -c))
        picks.append(best)
        counts.append(sum(best in s for s in open_sets))
        open_sets = [s for s in open_sets if best not in s]
    return picks, counts


def published(
    targets: np.ndarray, probabilities: np.ndarray, given: list[int], budget: int, rounds: int, seed: int
) -> list[int]:
    """The published greedy, line by line in Python: fresh cascades, rows counted once for each parent."""
    stream = random.Random(seed)
    edges = {v: [(int(u), p) for u, p in zip(*row, strict=True) if u >= 0]
             for v, row in enumerate(zip(targets, probabilities, strict=True))}  # fmt: skip
    order: list[int] = []
    for v in range(len(targets)):
        for node in [v, *(u for u, _ in edges[v])]:
            if node not in order:
                order.append(node)

    def cascade(seeds: list[int]) -> int:
        active, frontier, count = set(seeds), list(seeds), len(seeds)
        while frontier:
            fresh = [w for v in frontier for w, p in edges[v] if w not in active and stream.random() < p]
            active.update(fresh)
            frontier = fresh
            count += len(fresh)
        return count

    picked = list(given) or [max(order, key=lambda v: len(edges[v]))]
    while len(picked) < len(given) + budget:
        best, best_node = -1.0, -1
        for node in order:
            if node not in picked:
                value = sum(cascade([*picked, node]) for _ in range(rounds)) / rounds
                if value > best:
                    best, best_node = value, node
        picked.append(best_node)
    return picked[len(given) :]
