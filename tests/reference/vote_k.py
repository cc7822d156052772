"""Vote-k from its formulas, slowly: every score is summed again for every pick."""

from __future__ import annotations

import numpy as np


def in_voters(neighbours: np.ndarray) -> dict[int, list[int]]:
    """Return row -> voters; keys stand in the order of the first vote, voters name the least similar first."""
    votes: dict[int, list[int]] = {}
    for v, near in enumerate(neighbours):
        for u in reversed(list(near)):
            votes.setdefault(int(u), []).append(v)
    return votes


def score(u: int, votes: dict[int, list[int]], picked: list[int], discounted: list[int], rho: float) -> float:
    """Sum rho ** -t(v) over the voters of u that are not picked; t counts votes for `discounted` rows."""
    total = 0.0
    for v in votes.get(u, []):
        if v not in picked:
            total += float(rho) ** -sum(v in votes.get(row, []) for row in discounted)
    return total


def graph_stage(neighbours: np.ndarray, budget: int, given: list[int], rho: float) -> list[int]:
    votes = in_voters(neighbours)
    by_votes = sorted(votes, key=lambda u: -len(votes[u]))
    order = by_votes + [u for u in range(len(neighbours)) if u not in votes]
    picked = list(given)
    while len(picked) < len(given) + budget:
        free = [u for u in order if u not in picked]
        voted = [u for u in free if u in votes] or free
        picked.append(max(voted, key=lambda u: score(u, votes, picked, picked, rho)))
    return picked[len(given) :]


def full(
    neighbours: np.ndarray, first: list[int], budget: int, given: list[int], uncertainty: np.ndarray, rho: float,
    *, decay: bool,
) -> list[int]:  # fmt: skip
    """Continue after the graph picks `first` with one pick in each bucket of falling uncertainty."""
    votes = in_voters(neighbours)
    labelled = given + first
    free = sorted((u for u in range(len(neighbours)) if u not in labelled), key=lambda u: -uncertainty[u])
    buckets = budget - len(first)
    width = max(1, min(int(0.9 * (len(neighbours) - len(given)) / buckets), len(free) // buckets))
    picked = list(labelled)
    for b in range(buckets):
        bucket = free[b * width : (b + 1) * width]
        discounted = picked if decay else labelled
        picked.append(max(bucket, key=lambda u: score(u, votes, picked, discounted, rho)))
    return picked[len(given) :]


def graph_stage_arrays(neighbours: np.ndarray, budget: int, rho: float = 10.0) -> list[int]:
    """The graph stage with arrays, still summing all scores for every pick in ascending voter order."""
    n, k = neighbours.shape
    votes = in_voters(neighbours)
    order = np.array(sorted(votes, key=lambda u: -len(votes[u])))
    voter, target = np.repeat(np.arange(n), k), neighbours.ravel()
    times = np.zeros(n, dtype=int)
    picked: list[int] = []
    for _ in range(budget):
        weight = float(rho) ** -times.astype(float)
        weight[picked] = 0.0
        scores = np.bincount(target, weights=weight[voter], minlength=n)
        scores[picked] = -1.0
        picked.append(int(order[np.argmax(scores[order])]))
        times[votes[picked[-1]]] += 1
    return picked
