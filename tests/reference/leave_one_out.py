"""Leave-one-out by a vote of neighbours, written out literally: one row after another, no arrays of rows."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence

import numpy as np


def cosine(a: np.ndarray, b: np.ndarray) -> float:
    return float(a @ b / math.sqrt((a @ a) * (b @ b)))


def nearest(x: np.ndarray, ids: Sequence[str], row: int) -> list[tuple[float, str, int]]:
    """The other rows, most similar first; equally similar ones (up to rounding) by id."""
    others = [other for other in range(len(x)) if other != row]
    return sorted((-round(cosine(x[row], x[other]), 12), ids[other], other) for other in others)


def vote(ranked: Sequence[tuple[float, str, int]], labels: Sequence[str], k: int) -> tuple[str, float, int]:
    """Label voted for, its share of the votes, and how many rows gave it weight."""
    totals: dict[str, float] = {}
    for minus, _, other in ranked[:k]:
        totals[labels[other]] = totals.get(labels[other], 0.0) + max(-minus, 0.0)
    # Rounded, so that sums that are equal on paper tie; the first label that was entered has the nearest voter.
    best = max(round(total, 12) for total in totals.values())
    label = next(label for label, total in totals.items() if round(total, 12) == best)
    whole = sum(totals.values())
    voters = sum(labels[other] == label and minus < 0 for minus, _, other in ranked[:k])
    return label, totals[label] / whole if whole else 0.0, voters


def most_frequent(labels: Sequence[str]) -> str:
    counts = Counter(labels)
    return sorted(counts, key=lambda label: (-counts[label], label))[0]


def mcnemar_p(method: Sequence[bool], baseline: Sequence[bool]) -> float:
    """Exact, two-sided: twice the smaller tail of fair coins over the rows that differ."""
    b = sum(m and not c for m, c in zip(method, baseline, strict=True))
    c = sum(c and not m for m, c in zip(method, baseline, strict=True))
    tail = sum(math.comb(b + c, i) for i in range(min(b, c) + 1)) / 2 ** (b + c)
    return min(1.0, 2 * tail)


def by_chance(
    x: np.ndarray, labels: Sequence[str], ids: Sequence[str], k: int, n: int, seed: int
) -> tuple[list[int], list[int]]:
    """Rows answered right under `n` permutations of the labels; and under as many sets of equally likely labels, those
    answered right less those of the most frequent label. Rows are in the order of their ids."""
    order = sorted(range(len(ids)), key=lambda row: ids[row])
    ranked = [[(s, name, order.index(other)) for s, name, other in nearest(x, ids, row)] for row in order]
    words = np.array([labels[row] for row in order], dtype=object)

    def right(said: list[str]) -> int:
        return sum(vote(ranked[row], said, k)[0] == said[row] for row in range(len(said)))

    rng = np.random.default_rng(seed)
    shuffled, behind = [], []
    for _ in range(n):
        shuffled.append(right(rng.permutation(words).tolist()))
        drawn = [str(code) for code in rng.integers(len(set(labels)), size=len(labels))]
        behind.append(right(drawn) - max(Counter(drawn).values()))
    return shuffled, behind
