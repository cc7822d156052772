"""Exact greedy above the number of rows whose pairs can be held, in little more than one product of all pairs.

1. The first picks are guessed. A row of each of two thousand cells of the pool, weighted by the rows of its cell,
   tells all gains to some hundredths; more rows of each cell rank those that come out on top; the best are found
   exactly.
2. One half product (:mod:`._residual`) gives bounds of all gains before each of those picks. Whoever has a larger one
   is computed exactly, so a wrong guess is found and replaced by the true pick; the product is then made again.
3. It has also kept the few pairs that may still matter; lazy greedy on those needs no product any more.
"""

from __future__ import annotations

import heapq
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np

from icl_select._threads import each
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
from icl_select.methods._residual import pass_over_pairs
from icl_select.methods._screen import TILE, Screen, add_columns, add_rises
from icl_select.types import IntArray, Progress

__all__ = ["PAIRS", "Pairs", "greedy_on_pairs", "greedy_streamed"]

PAIRS = 2**29
"""Pairs that are kept at most, four bytes each. Where more would matter after some guesses, the slower way is taken."""

# Cells of the pool, rows in each of them on average at least, and rows of a cell that rank the better candidates.
_CELLS, _CELL_ROWS, _MEMBERS = 2_048, 24, 4
# So many twelfths is a row of a cell worth: whatever the number of rows that stand for it, that is a whole number.
_TWELFTHS = 12
# Candidates ranked by more rows, and computed exactly, for each guess: this part of all rows, and at least so many.
_RANKED_PART, _TRIED = 32, 128
# One guess more costs about what it saves where so few pairs matter; where it takes too many guesses, the sums of the
# pass cost more than the pairs that are kept.
_SHARE = 0.08
_GUESSES, _MOST_GUESSES = 12, 32


class Pairs(Protocol):
    """All pairs of a candidate and a row that it may cover better, as :class:`._residual.Residual` holds them."""

    def row(self, candidate: int) -> tuple[IntArray, Any]: ...

    def gain(self, candidate: int, low: Any, units: Any) -> int: ...


@dataclass(eq=False)
class _Sample:
    """Rows that stand for all: `weights` say, in twelfths, for how many each."""

    rows: IntArray
    weights: Any

    def worth(self, state: State) -> Any:
        return self.weights * state.units[self.rows]


class _Estimates:
    """Gains of candidates, from a sample of the rows that they cover."""

    def __init__(self, screen: Screen) -> None:
        self.screen = screen
        order, place, sizes = _cells(screen)
        self.few, self.more = _stand_for(order, place, sizes, 1), _stand_for(order, place, sizes, _MEMBERS)
        self.seen = screen.rows(self.few.rows)

    def of_all(self, state: State) -> Any:
        """Gains of all rows, in twelfths of the screened gains."""
        out = np.zeros(len(state.low), dtype=np.int64)
        add_columns(self.seen, state.low[self.few.rows], self.few.worth(state), out)
        return out

    def of(self, candidates: IntArray, state: State) -> Any:
        """Gains of some rows, from more of the rows that they cover."""
        out = np.zeros(len(candidates), dtype=np.int64)
        low, worth = state.low[self.more.rows], self.more.worth(state)

        def rank(start: int) -> None:
            part = candidates[start : start + TILE]
            bounds = np.empty((len(part), len(low)), dtype=np.uint16)
            self.screen.tile(part, self.more.rows, self.screen.upper, bounds)
            add_rises(bounds, low, worth, out[start : start + TILE])

        each(rank, range(0, len(candidates), TILE))
        return out

    def pairs_above(self, state: State) -> float:
        """Pairs of all rows that may matter still."""
        above = (np.count_nonzero(row > least) for row, least in zip(self.seen, state.low[self.few.rows], strict=True))
        return float(np.dot(np.fromiter(above, dtype=np.float64), self.few.weights)) / _TWELFTHS


def _cells(screen: Screen) -> tuple[IntArray, IntArray, IntArray]:
    """Each row belongs to the nearest of some rows, drawn at random.

    Returned are all rows, cell by cell and within each in random order; the place of each within its cell; and how many
    that cell has. What is drawn decides how long the selection takes, and nothing else.
    """
    n = len(screen.y)
    rng = np.random.default_rng(0)
    centres = screen.y[rng.choice(n, max(1, min(_CELLS, n // _CELL_ROWS)), replace=False)]
    half = 0.5 * np.einsum("ij,ij->i", centres, centres)
    nearest = np.empty(n, dtype=np.int64)

    def assign(start: int) -> None:
        part = slice(start, start + TILE)
        nearest[part] = np.argmax(screen.y[part] @ centres.T - half, axis=1)

    each(assign, range(0, n, TILE))
    shuffled = rng.permutation(n)
    order = shuffled[np.argsort(nearest[shuffled], kind="stable")]
    sizes = np.bincount(nearest, minlength=len(centres))
    place = np.arange(n) - (np.cumsum(sizes) - sizes)[nearest[order]]
    return order, place, sizes[nearest[order]]


def _stand_for(order: IntArray, place: IntArray, sizes: IntArray, members: int) -> _Sample:
    """So many rows of each cell, or all that it has."""
    kept = place < members
    rows, size = order[kept], sizes[kept]
    weights = size * (_TWELFTHS // np.minimum(size, members))
    by_index = np.argsort(rows)
    return _Sample(rows[by_index], weights[by_index])


@dataclass(eq=False)
class _Guess:
    """Rows guessed, the states before each and after the last, and the exact gains that were computed for each."""

    pairs: float  # how many may matter still
    states: list[State]
    picks: list[int] = field(default_factory=list)
    tried: list[dict[int, int]] = field(default_factory=list)


def greedy_streamed(
    points: Points, state: State, screen: Screen, indices: Any, gains: Any, progress: Progress | None = None
) -> int:
    """Fill `indices` and `gains` with the picks of exact greedy; returns how many gains were computed exactly.

    Parameters
    ----------
    points, state, screen
        The pool, what covers it already (changed in place), and its bounds.
    indices, gains : ndarray of shape (budget,), int64
    progress : callable, optional
        Told how far each pass over all pairs is, and how many rows are picked.
    """
    n, budget = len(state.low), len(indices)
    weighted = state.pad > 0
    estimates = _Estimates(screen)
    done = evaluations = 0
    while done < budget:
        guess = _guess(points, state, estimates, budget - done)
        rest = budget - done - len(guess.picks)
        if rest and guess.pairs > PAIRS:
            return evaluations + greedy_recomputed(points, state, screen, indices[done:], gains[done:], first=done)
        # Bounds after the last of all picks are of no use.
        lows = np.array([one.low for one in guess.states[: None if rest else -1]], dtype=np.int32)
        bounds, residual = pass_over_pairs(
            screen, lows, state.units, weighted=weighted, keep=rest > 0, progress=progress
        )
        for place, guessed in enumerate(guess.picks):
            before = guess.states[place]
            winner, gain, more = _winner(points, before, screen, bounds[place], guess.tried[place], done)
            evaluations += more + len(guess.tried[place])
            indices[done], gains[done] = winner, gain
            state.lazy[winner] = -1
            done += 1
            if winner != guessed:
                _become(state, before)
                cover(points, state, winner, screen.rows(np.array([winner]))[0], *buffers(n))
                break
        else:
            _become(state, guess.states[-1])
            if residual is not None:
                evaluations += greedy_on_pairs(residual, points, state, bounds[-1], indices, gains, done, progress)
            return evaluations
    return evaluations


def _become(state: State, other: State) -> None:
    state.low[:], state.cover[:] = other.low, other.cover


def _top(values: Any, count: int) -> IntArray:
    """Where the largest values from 0 up are, ascending."""
    found = np.argpartition(values, max(0, len(values) - count))[-count:]
    return np.sort(found[values[found] >= 0])


def _guess(points: Points, state: State, estimates: _Estimates, budget: int) -> _Guess:
    """Greedy among the candidates that estimates put first, until few enough pairs matter."""
    n, screen = len(state.low), estimates.screen
    changed = buffers(n)
    free = state.lazy >= 0
    now = state._replace(low=state.low.copy(), cover=state.cover.copy())
    few = min(PAIRS, _SHARE * n * n)
    # Where what is given or picked covers enough, nothing is guessed: late gains are so close that most guesses fail.
    guess = _Guess(estimates.pairs_above(now), [now])
    while guess.pairs > few and len(guess.picks) < min(budget, _GUESSES if guess.pairs <= PAIRS else _MOST_GUESSES):
        ranked = _top(np.where(free, estimates.of_all(now), -1), max(8 * _TRIED, n // _RANKED_PART))
        tried = ranked[_top(estimates.of(ranked, now), _TRIED)]
        bounds = screen.rows(tried)
        pick, place, exact = _best_of(points, now, tried, bounds)
        guess.picks.append(pick)
        guess.tried.append(exact)
        free[pick] = False
        now = now._replace(low=now.low.copy(), cover=now.cover.copy())
        cover(points, now, pick, bounds[place], *changed)
        guess.states.append(now)
        guess.pairs = estimates.pairs_above(now)
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


def greedy_on_pairs(
    residual: Pairs,
    points: Points,
    state: State,
    screened: Any,
    indices: Any,
    gains: Any,
    done: int,
    progress: Progress | None,
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
        if progress is not None:
            progress("picks", step + 1, len(indices))
    return evaluations
