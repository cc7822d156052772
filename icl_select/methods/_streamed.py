"""Exact greedy above the number of rows whose pairs can be held, in little more than one product of all pairs.

1. A half product gives bounds of all first gains, and so the first pick.
2. Some more picks are guessed: bounds of their gains are the first ones less what the picks before took, which a sample
   of rows tells well; the best of the candidates that come out on top is found exactly.
3. A second half product (:mod:`._residual`) gives bounds of all gains before each of those picks. Whoever has a larger
   one is computed exactly, so a wrong guess is found and replaced by the true pick; the product is then made again.
4. It has also kept the few pairs that may still matter; lazy greedy on those needs no product any more.
"""

from __future__ import annotations

import heapq
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from icl_select.methods._exact import (
    Points,
    State,
    buffers,
    cover,
    cover_some,
    exact_gain,
    exact_gain_some,
    from_grid,
    next_candidate,
    to_grid,
)
from icl_select.methods._recomputed import greedy_recomputed
from icl_select.methods._residual import Residual, pass_over_pairs
from icl_select.methods._screen import Screen, add_columns, add_rises
from icl_select.types import IntArray

__all__ = ["PAIRS", "greedy_streamed"]

PAIRS = 2**29
"""Pairs that are kept at most, four bytes each. Where more would matter after some guesses, the slower way is taken."""

# Bytes of the bounds of the sample, and its rows at most.
_SAMPLE_BYTES = 2**28
_SAMPLE = 2_048
# Candidates that are looked at closely for each guess: so many, or this part of all rows.
_TRIED, _TRIED_PART = 256, 200
# The part of all rows that counts as near to a pick.
_NEAR = 128
# One guess more costs about what it saves where so few pairs matter; where it takes too many guesses, the sums of the
# pass cost more than the pairs that are kept.
_SHARE = 0.08
_GUESSES, _MOST_GUESSES = 12, 32


@dataclass(eq=False)
class _Known:
    """Bounds `sums` of all gains where `low` is covered, and bounds `seen` of a sample of rows against all."""

    sample: IntArray
    seen: Any
    units: Any
    low: Any
    sums: Any

    def estimate(self, low: Any) -> Any:
        """Gains where other rows are covered: what that takes from them is told by the sample.

        It is about the same for all candidates that are far from the picks, and so is its error; their own gains, which
        a sample tells badly, are known.
        """
        return self.sums - (self._sums(self.low) - self._sums(low)) * (len(low) / len(self.sample))

    def _sums(self, low: Any) -> Any:
        return _sampled(self.seen, low[self.sample], self.units[self.sample])


def _sampled(seen: Any, low: Any, units: Any) -> Any:
    out = np.zeros(seen.shape[1], dtype=np.int64)
    add_columns(seen, low, units, out)
    return out


@dataclass(eq=False)
class _Guess:
    """Rows guessed, the states before each and after the last, and the exact gains that were computed for each."""

    picks: list[int] = field(default_factory=list)
    states: list[State] = field(default_factory=list)
    tried: list[dict[int, int]] = field(default_factory=list)
    pairs: float = float("inf")


def greedy_streamed(points: Points, state: State, screen: Screen, indices: Any, gains: Any) -> int:
    """Fill `indices` and `gains` with the picks of exact greedy; returns how many gains were computed exactly.

    Parameters
    ----------
    points, state, screen
        The pool, what covers it already (changed in place), and its bounds.
    indices, gains : ndarray of shape (budget,), int64
    """
    n, budget = len(state.low), len(indices)
    weighted = state.pad > 0
    sample = np.linspace(0, n - 1, max(1, min(_SAMPLE, n, _SAMPLE_BYTES // (2 * n)))).astype(np.int64)
    seen = screen.rows(sample)
    first = _after_one(points, state, screen, _sampled(seen, state.low[sample], state.units[sample]))
    opening, _ = pass_over_pairs(screen, np.stack([state.low, first.low]), state.units, weighted=weighted, keep=False)
    known = _Known(sample, seen, state.units, first.low, opening[1])
    done = evaluations = 0
    while done < budget:
        guess = _guess(points, state, screen, known, budget - done, opening[0] if done == 0 else None)
        rest = budget - done - len(guess.picks)
        if rest and guess.pairs > PAIRS:
            return evaluations + greedy_recomputed(points, state, screen, indices[done:], gains[done:], first=done)
        # Bounds before the very first pick are known; those after the last of all picks are of no use.
        states = guess.states[done == 0 : None if rest else -1]
        lows = np.array([one.low for one in states], dtype=np.int32).reshape(-1, n)
        sums, residual = pass_over_pairs(screen, lows, state.units, weighted=weighted, keep=rest > 0)
        bounds = [*([opening[0]] if done == 0 else []), *sums]
        for place, guessed in enumerate(guess.picks):
            before = guess.states[place]
            winner, gain, more = _winner(points, before, screen, bounds[place], guess.tried[place], done)
            evaluations += more + len(guess.tried[place])
            indices[done], gains[done] = winner, gain
            state.lazy[winner] = -1
            done += 1
            if winner != guessed:
                known = _Known(sample, known.seen, state.units, before.low, bounds[place])
                _become(state, before)
                cover(points, state, winner, screen.rows(np.array([winner]))[0], *buffers(n))
                break
        else:
            _become(state, guess.states[-1])
            if residual is not None:
                evaluations += _greedy_on(residual, points, state, bounds[-1], indices, gains, done)
            return evaluations
    return evaluations


def _become(state: State, other: State) -> None:
    state.low[:], state.cover[:] = other.low, other.cover


def _after_one(points: Points, state: State, screen: Screen, estimate: Any) -> State:
    """The state after a good first pick: most of what it takes from all others, any good pick takes."""
    rows, bounds = _promising(screen, np.where(state.lazy >= 0, estimate, -1))
    pick, place, _ = _best_of(points, state, rows, bounds)
    after = state._replace(low=state.low.copy(), cover=state.cover.copy())
    cover(points, after, pick, bounds[place], *buffers(len(state.low)))
    return after


def _promising(screen: Screen, estimate: Any) -> tuple[IntArray, Any]:
    """The rows of the largest estimates from 0 up, and their bounds against all rows."""
    n = len(estimate)
    tried = max(_TRIED, n // _TRIED_PART)
    rows = np.argpartition(estimate, max(0, n - tried))[-tried:]
    rows = np.sort(rows[estimate[rows] >= 0])
    return rows, screen.rows(rows)


def _guess(points: Points, state: State, screen: Screen, known: _Known, budget: int, opening: Any) -> _Guess:
    """Greedy among the candidates that estimates put first, until few enough pairs matter.

    `opening` holds bounds of all gains before the first of these picks, if they are known.
    """
    n = len(state.low)
    changed = buffers(n)
    free = state.lazy >= 0
    now = state._replace(low=state.low.copy(), cover=state.cover.copy())
    guess = _Guess(states=[now])
    while len(guess.picks) < min(budget, _GUESSES if guess.pairs <= PAIRS else _MOST_GUESSES):
        estimate = known.estimate(now.low) if guess.picks or opening is None else opening
        rows, bounds = _promising(screen, np.where(free, np.maximum(estimate, 0), -1))
        pick, place, exact = _best_of(points, now, rows, bounds)
        guess.picks.append(pick)
        guess.tried.append(exact)
        # What a pick takes from its own neighbours is told badly, and they are no good picks: others are looked at.
        near = np.argpartition(bounds[place], n - max(1, n // _NEAR))[-max(1, n // _NEAR) :]
        if np.count_nonzero(free) > 2 * len(near) + budget:
            free[near] = False
        free[pick] = False
        now = now._replace(low=now.low.copy(), cover=now.cover.copy())
        cover(points, now, pick, bounds[place], *changed)
        guess.states.append(now)
        guess.pairs = _pairs_above(known.seen, now.low[known.sample]) * n * n
        if guess.pairs <= min(PAIRS, _SHARE * n * n):
            break
    return guess


def _best_of(points: Points, state: State, candidates: IntArray, rows: Any) -> tuple[int, int, dict[int, int]]:
    """The candidate of the largest exact gain, its place, and the gains that had to be computed to know."""
    screened = np.zeros(len(candidates), dtype=np.int64)
    add_rises(rows, state.low, state.units, screened)
    exact: dict[int, int] = {}
    best, winner, found = -1, -1, -1
    for place in np.argsort(-screened, kind="stable").tolist():
        candidate, limit = int(candidates[place]), int(to_grid(screened[place], state))
        if limit < best or (limit == best and candidate > winner):
            break
        gain = exact[candidate] = int(exact_gain(points, state, candidate, rows[place]))
        if gain > best or (gain == best and candidate < winner):
            best, winner, found = gain, candidate, place
    return winner, found, exact


def _pairs_above(seen: Any, low: Any) -> float:
    """Share of the pairs of a sample and all rows that may matter still."""
    above = sum(int(np.count_nonzero(row > least)) for row, least in zip(seen, low, strict=True))
    return above / int(seen.size)


def _winner(
    points: Points, state: State, screen: Screen, sums: Any, tried: dict[int, int], step: int
) -> tuple[int, int, int]:
    """Greedy's pick and its gain, given bounds of all gains and the exact gains of some; and how many more it took."""
    best, winner, more = -1, -1, 0
    for candidate, gain in tried.items():
        state.seen[candidate] = step
        state.lazy[candidate] = from_grid(gain, state)
        if gain > best or (gain == best and candidate < winner):
            best, winner = gain, candidate
    while (candidate := next_candidate(state, sums, step, best, winner)) >= 0:
        gain = exact_gain(points, state, candidate, screen.rows(np.array([candidate]))[0])
        more += 1
        state.seen[candidate] = step
        state.lazy[candidate] = from_grid(gain, state)
        if gain > best or (gain == best and candidate < winner):
            best, winner = gain, candidate
    return winner, best, more


def _greedy_on(
    residual: Residual, points: Points, state: State, screened: Any, indices: Any, gains: Any, done: int
) -> int:
    """Lazy greedy [1]_ on the pairs that were kept: bounds stay bounds, and only those at the top are looked at again.

    References
    ----------
    .. [1] Minoux, "Accelerated greedy algorithms for maximizing submodular set functions", 1978.
    """
    free = np.flatnonzero(state.lazy >= 0)
    # Equal bounds come in order of index, as ties do.
    heap = list(zip((-np.minimum(screened[free], state.lazy[free])).tolist(), free.tolist(), strict=True))
    heapq.heapify(heap)
    fresh = dict.fromkeys(free.tolist(), done)
    evaluations = 0
    for step in range(done, len(indices)):
        best, winner, held = -1, -1, []
        while heap:
            bound, candidate = -heap[0][0], heap[0][1]
            limit = int(to_grid(bound, state))
            if limit < best or (limit == best and candidate > winner):
                break
            if fresh[candidate] < step:
                fresh[candidate] = step
                newer = min(bound, residual.gain(candidate, state.low, state.units))
                heapq.heapreplace(heap, (-newer, candidate))
                continue
            heapq.heappop(heap)
            gain = int(exact_gain_some(points, state, candidate, *residual.row(candidate)))
            evaluations += 1
            held.append((-int(from_grid(gain, state)), candidate))
            if gain > best or (gain == best and candidate < winner):
                best, winner = gain, candidate
        indices[step], gains[step] = winner, best
        state.lazy[winner] = -1
        cover_some(points, state, winner, *residual.row(winner))
        for entry in held:
            if entry[1] != winner:
                heapq.heappush(heap, entry)
    return evaluations
