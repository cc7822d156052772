"""Is the vote of neighbours better than a constant answer? Two tests for each number of voters, one Holm family."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numba
import numpy as np
from scipy import special, stats

from icl_select._label_report import Vote
from icl_select.stats import MARKS, McNemar, Verdict, holm, mcnemar
from icl_select.types import BoolArray, FloatArray, IntArray

__all__ = ["chance_votes", "n_shuffles", "right_votes", "vote_tests"]

_POWER = 0.8


def n_shuffles(n_ks: int, alpha: float) -> int:
    """Shuffles enough for the smallest p to pass the hardest threshold of Holm with room."""
    return max(999, math.ceil(10 * n_ks / alpha))


def vote_tests(
    voted: Mapping[int, Sequence[str]],
    words: Sequence[str],
    baseline: str,
    nearest: IntArray,
    similar: FloatArray,
    *,
    alpha: float,
    seed: int,
) -> tuple[Vote, ...]:
    """Compare votes with always answering `baseline`.

    Parameters
    ----------
    voted : mapping of int to sequence of str
        Labels voted for, by the number of voters, ascending.
    words : sequence of str, length m
        The labels.
    baseline : str
    nearest, similar : ndarray of shape (m, k)
        Rows that vote for each row, most similar first, and their similarity.
    alpha : float
    seed : int
        Seeds the random labels.

    Returns
    -------
    tuple of Vote
    """
    counted = np.array(list(voted))
    code_of = {word: code for code, word in enumerate(dict.fromkeys(words))}
    codes = np.array([code_of[word] for word in words])
    n = n_shuffles(len(voted), alpha)
    shuffled, behind = chance_votes(nearest, similar, codes, counted, n=n, seed=seed)
    right = right_votes(nearest, similar, codes, counted)
    ahead = (shuffled >= right).sum(axis=0)
    as_far = (behind <= right - np.bincount(codes).max()).sum(axis=0)
    constant = _equal([baseline] * len(words), words)
    drafts = []
    for pos, (k, said) in enumerate(voted.items()):
        correct = _equal(said, words)
        test = mcnemar(correct, constant, level=1 - alpha)
        p_shuffled, p_drawn = (1 + int(ahead[pos])) / (1 + n), (1 + int(as_far[pos])) / (1 + n)
        draft = Vote(
            k=k,
            accuracy=float(correct.mean()),
            effect=test.effect,
            low=test.low,
            high=test.high,
            level=test.level,
            only_vote=test.only_method,
            only_baseline=test.only_baseline,
            p_mcnemar=test.p_value,
            p_shuffled=p_shuffled,
            p_drawn=p_drawn,
            shuffled_accuracy=float(shuffled[:, pos].mean()) / len(words),
            p_value=max(test.p_value, p_shuffled if test.effect > 0 else p_drawn),
            p_adjusted=1.0,
            verdict="no evidence",
            mark=MARKS["no evidence"],
            detectable_difference=_detectable(test, alpha / len(voted)),
        )
        drafts.append(draft)
    adjusted = holm([draft.p_value for draft in drafts]).tolist()
    return tuple(_decide(draft, p, alpha) for draft, p in zip(drafts, adjusted, strict=True))


def _decide(draft: Vote, p_adjusted: float, alpha: float) -> Vote:
    verdict: Verdict = "no evidence"
    if p_adjusted <= alpha and not draft.low <= 0 <= draft.high:
        verdict = "better" if draft.effect > 0 else "worse"
    return replace(draft, p_adjusted=p_adjusted, verdict=verdict, mark=MARKS[verdict])


def _equal(said: Sequence[str], words: Sequence[str]) -> BoolArray:
    return np.array([one == word for one, word in zip(said, words, strict=True)])


def _detectable(test: McNemar, threshold: float) -> float | None:
    """Smallest difference found with 80% power among as many rows answered differently as here."""
    n = test.only_method + test.only_baseline
    # The fewest of n rows that reject, and how often a row must go that way for that many.
    wins = 1 + int(stats.binom.isf(threshold / 2, n, 0.5)) if n else 1
    if wins > n:
        return None
    return float((2 * special.betaincinv(wins, n - wins + 1, _POWER) - 1) * n / test.n_items)


def right_votes(nearest: IntArray, similar: FloatArray, codes: IntArray, ks: IntArray) -> IntArray:
    """Count the rows for whose label their nearest rows vote.

    The votes of :class:`icl_select.score.KnnScorer` with similarity weights, fast enough to be repeated a thousand
    times.

    Parameters
    ----------
    nearest, similar : ndarray of shape (m, k)
        Rows that vote for each row, most similar first, and their similarity.
    codes : ndarray of shape (m,), int64
        Labels as whole numbers from 0.
    ks : ndarray of shape (j,), int64
        How many of the nearest vote, ascending, at most k.

    Returns
    -------
    ndarray of shape (j,), int64
    """
    right = np.zeros(len(ks), dtype=np.int64)
    _count(nearest, np.maximum(similar, 0.0), codes, ks, np.zeros(int(codes.max()) + 1), right)
    return right


def chance_votes(
    nearest: IntArray, similar: FloatArray, codes: IntArray, ks: IntArray, *, n: int, seed: int
) -> tuple[IntArray, IntArray]:
    """Repeat :func:`right_votes` `n` times with labels that have nothing to do with the rows; O(n m sum(ks)) time.

    Returns
    -------
    shuffled : ndarray of shape (n, j)
        Rows answered right, the labels permuted.
    behind : ndarray of shape (n, j)
        Rows answered right less those that bear the then most frequent label, as many labels drawn with equal chances.
    """
    rng = np.random.default_rng(seed)
    weights, n_labels = np.maximum(similar, 0.0), int(codes.max()) + 1
    totals = np.zeros(n_labels)
    shuffled, behind = np.zeros((2, n, len(ks)), dtype=np.int64)
    for permuted, drawn in zip(shuffled, behind, strict=True):
        _count(nearest, weights, rng.permutation(codes), ks, totals, permuted)
        random = rng.integers(n_labels, size=len(codes))
        _count(nearest, weights, random, ks, totals, drawn)
        drawn -= np.bincount(random).max()
    return shuffled, behind


@numba.njit(cache=True, nogil=True)
def _count(nearest: Any, weights: Any, codes: Any, ks: Any, totals: Any, right: Any) -> None:
    """Add up votes rank by rank; equal totals go to the label with the nearest voter. `totals` is all 0 again after."""
    for row in range(len(codes)):
        voters = 0
        for pos in range(len(ks)):
            for rank in range(voters, ks[pos]):
                totals[codes[nearest[row, rank]]] += weights[row, rank]
            voters = ks[pos]
            most, voted = -1.0, -1
            for rank in range(voters):
                code = codes[nearest[row, rank]]
                if totals[code] > most:
                    most, voted = totals[code], code
            if voted == codes[row]:
                right[pos] += 1
        for rank in range(voters):
            totals[codes[nearest[row, rank]]] = 0.0
