"""Near-exact greedy maximisation of facility location, for pools whose pairs are too many to look at.

``F(L) = sum_i max_{l in L} k(i, l)`` by partition: exact greedy in each part of the pool names candidates, greedy among
all candidates covers a large sample of the rows, and the picks then move to the middle of the rows that they cover.

Every comparison that a pick depends on is made in float64, in one fixed order of summation, or in integers; products
in single precision only rule out what lies outside their rounding. So the picks depend neither on BLAS nor on the
number of threads.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial
from itertools import chain
from typing import Any, NamedTuple

import numba
import numpy as np
from numpy.typing import NDArray

from icl_select._threads import in_order
from icl_select.errors import BudgetError
from icl_select.kernels import Kernel, kernel_value
from icl_select.methods._exact import dot, inverse_norms
from icl_select.methods._greedy import STORED_ROWS, facility_location
from icl_select.types import FloatArray, IntArray, Progress

__all__ = [
    "LARGEST_BUDGET",
    "NearCover",
    "Plan",
    "Run",
    "grid_values",
    "make_plan",
    "merge",
    "near_exact",
    "part_candidates",
    "run_here",
]

LARGEST_BUDGET = 10_000
"""Above it the candidates are too many to be compared on enough rows."""

Step = Callable[[FloatArray, Any], Any]
Run = Callable[[Step, Iterable[Any]], Iterable[Any]]
"""``run(step, jobs)`` gives ``step(x, job)`` for each job, in order, as `map` would, wherever the rows `x` lie.

Steps are functions of a module, or partials of them, and jobs hold plain values and small arrays, so that both travel.
"""

_NORMAL_95 = 1.959963984540054
_NOTHING = -2.0  # below any cosine: no row covers this one yet
_STEPS = 32_768.0  # a kernel value on the grid of the merge
_MERGE_VALUES = 250_000_000  # grid values of the merge: 500 MB
_BLOCK_VALUES = 2**23  # products of one block: 32 MB
_JOB_ROWS = 16_384  # rows of a job that looks for their nearest targets
_JOB_PAIRS = 2**27  # pairs of a job that moves picks
_UNIT_ROUNDOFF = 2.0**-24


@dataclass(frozen=True)
class Plan:
    """Sizes of the steps: they decide the cost, and how near to exact greedy the picks come.

    Attributes
    ----------
    part_rows : int
        Rows of a part at most. A pool with no more free rows is left to exact greedy.
    parts : int
        Parts at most; rows beyond them name no candidates, but count in every later step.
    candidates : int
        Candidates of all parts together.
    covered : int
        Rows sampled to compare the candidates on.
    steps : int
        Medoid steps at most.
    members : int
        Rows of a group that a medoid step looks at.
    judged : int
        Rows sampled to judge the medoid steps and to order the picks.
    heldout : int
        Rows sampled to measure the result.
    """

    part_rows: int
    parts: int
    candidates: int
    covered: int
    steps: int
    members: int
    judged: int
    heldout: int


@dataclass(frozen=True, eq=False)
class NearCover:
    """What near-exact greedy picked, and how much of the pool it covers.

    Attributes
    ----------
    indices : ndarray of shape (budget,), int64
        Rows in pick order, unique and none of them given.
    gains : ndarray of shape (budget,), float64
        Coverage that each pick added, from 0 to 1: the mean over the held-out rows. With the coverage by the given
        rows they sum to `coverage`. The order of the picks comes from other rows, so gains need not fall.
    coverage : float
        Mean coverage of a row by the given and the picked rows, as the held-out rows estimate it.
    interval : tuple of two floats
        Low and high end of a 95% interval for the mean coverage over all n rows: the normal interval of a mean of
        h rows with standard deviation s, drawn without replacement, ``coverage -+ 1.96 s sqrt((1 - h / n) / h)``,
        within 0 and 1. Both ends are `coverage` where every row was measured.
    heldout : int
        Number of rows measured. They are drawn from the whole pool after the last decision, so that the picks do not
        depend on which rows they are and the estimate is unbiased.
    info : mapping
        How the picks came about; JSON values only.
    """

    indices: IntArray
    gains: FloatArray
    coverage: float
    interval: tuple[float, float]
    heldout: int
    info: Mapping[str, Any] = field(default_factory=dict)


class Nearest(NamedTuple):
    """The most similar of some target rows, for each row."""

    which: IntArray  # position among the targets
    cosine: FloatArray  # float64; below -1 if there are no targets


def make_plan(budget: int) -> Plan:
    """Choose the sizes that measured best for `budget` picks; :func:`near_exact` says how they measured.

    Every part names at least a quarter as many candidates as there are picks. With fewer, all parts of a pool with
    many small clusters name the heart of the large ones.
    """
    candidates = max(2_500, min(5 * budget, 5_000), 2 * budget)
    return Plan(
        part_rows=5_000 if budget <= 200 else 10_000,
        parts=min(50, 4 * candidates // budget),
        candidates=candidates,
        covered=min(100_000, _MERGE_VALUES // candidates),
        steps=2,
        members=min(4_000, max(200, math.isqrt(500_000_000 // budget))),
        judged=min(20_000, _MERGE_VALUES // budget),
        heldout=20_000,
    )


def near_exact(
    x: FloatArray,
    budget: int,
    *,
    kernel: Kernel,
    given: IntArray,
    rng: np.random.Generator,
    plan: Plan | None = None,
    progress: Progress | None = None,
    run: Run | None = None,
) -> NearCover:
    """Pick `budget` rows so that every row is close to a picked or given one, nearly as well as exact greedy does.

    Up to `plan.part_rows` free rows this is exact greedy. Above:

    1. A random permutation splits the free rows into parts. Exact greedy in each part names candidates
       (:func:`part_candidates`), in the manner of distributed greedy [1]_.
    2. Greedy among all candidates covers a large sample of the rows (:func:`merge`).
    3. A medoid step on all rows: each row goes to its best pick, and each pick moves to the member of its group with
       the largest sum of kernel values. It is taken if coverage of another sample does not fall.
    4. Greedy orders the picks by that sample, so that prefixes are useful.
    5. Rows drawn after the last decision measure the gains.

    Parameters
    ----------
    x : ndarray of shape (n, d), float32 or float64
        Rows of any norm but 0; only directions count. Not modified, and read in blocks: a read-only memory map will do.
    budget : int
        Number of rows to pick, ``1 <= budget <= n - len(given)``, assumed checked; at most 10,000 if there is more
        than one part.
    kernel : Kernel
        Similarity of two rows, from 0 to 1.
    given : ndarray of shape (g,), int64
        Rows that cover from the start, in every step, and are never picked.
    rng : numpy.random.Generator
        Splits the pool and draws the samples.
    plan : Plan, optional
        Sizes of the steps; :func:`make_plan` chooses them by `budget` if left out.
    progress : callable, optional
        Told how far the work is.
    run : callable, optional
        Does the steps that go through many rows, each cut into jobs that depend on nothing but `x`; in threads of
        this process if left out. Which rows a job holds changes nothing in the result.

    Returns
    -------
    NearCover
        Picks, their gains, and the coverage of the pool with an interval.

    Raises
    ------
    BudgetError
        If `budget` exceeds 10,000 and the pool has more rows than a part.

    Notes
    -----
    The same `rng` gives the same bytes, whatever BLAS does and however many threads it has, and wherever the parts
    run: float64 in one fixed order of summation decides. Another processor, or another version of numba, may sum in
    another order; then picks can differ where two rows are equal to the last bits of float64.

    Nothing is guaranteed of the coverage; it is measured. Rows of 384 dimensions in 200 equal clusters, Gaussian
    kernel of bandwidth 1, processor seconds of one core (Zen 4):

    =========  =======  =====================  =======
    n          picks    coverage / by exact    seconds
    =========  =======  =====================  =======
    30,000     18       0.2048 / 0.2047        7
    30,000     100      0.3758 / 0.3748        7
    30,000     1,000    0.5776 / 0.5777        18
    100,000    18       0.2037                 26
    100,000    100      0.3732                 24
    100,000    1,000    0.5709                 31
    =========  =======  =====================  =======

    A million rows took 43, 55 and 75 seconds with 100 parts of 5,000 rows, which is more work than :func:`make_plan`
    asks for. Clusters whose sizes fall as ``rank^-1.2`` (25,000 rows, 20 parts): 1.003, 1.001 and 0.999 of exact.

    Candidates are compared on sampled rows. Letting each of the same 432 candidates stand for the rows nearest to it,
    with their number as its weight, reached 0.968 of exact greedy (18 of 30,000 rows), where the sample reached 0.9998.

    Time: ``n d (budget + g)`` in single precision for each medoid step and the given rows; the steps before cost the
    same for all pools above 250,000 rows. Memory beyond `x`: 500 MB for the merge, 150 MB for its rows (``d = 384``),
    200 MB for a part in each thread, 60 bytes a row of the pool.

    References
    ----------
    .. [1] Mirzasoleiman, Karbasi, Sarkar and Krause, "Distributed Submodular Maximization", JMLR 17, 2016.

    Examples
    --------
    >>> rng = np.random.default_rng(0)
    >>> x = rng.normal(size=(8_000, 16)).astype(np.float32)
    >>> near = near_exact(x, 10, kernel=Kernel("gaussian"), given=np.array([5]), rng=rng)
    >>> len(near.indices), near.info["parts"]
    (10, 2)
    >>> near.interval[0] <= near.coverage <= near.interval[1]
    True
    """
    x = np.asarray(x)  # of a memory map it is a view, whose blocks are then plain arrays in memory
    n = len(x)
    plan = plan or make_plan(budget)
    run = run or run_here(x)
    free = np.setdiff1d(np.arange(n), given)
    alone = len(free) <= plan.part_rows and n <= STORED_ROWS
    if not alone:
        _check_budget(budget, n)
    shown = _nearest(run, np.arange(n), given)
    if alone:
        picks = facility_location(np.array(x), budget, kernel=kernel, given=given).indices
        info: dict[str, Any] = {"parts": 1, "candidates": len(free), "covered": n, "medoid_steps": 0}
    else:
        parts = _split(free, plan, rng)
        candidates = _candidates(run, parts, budget, kernel, given, shown, plan, progress)
        covered = _sample(n, plan.covered, rng)
        picks = np.sort(_greedy_among(run, candidates, budget, kernel, covered, shown))
        judged = _sample(n, plan.judged, rng)
        picks, steps = _to_medoids(run, picks, kernel, given, shown, judged, plan, rng, progress)
        picks = _greedy_among(run, picks, budget, kernel, judged, shown)
        info = {
            "parts": len(parts),
            "candidates": len(candidates),
            "covered": len(covered),
            "medoid_steps": steps,
        }
    return _measure(x, picks, kernel, shown, _sample(n, plan.heldout, rng), info)


def part_candidates(rows: FloatArray, covering: FloatArray, count: int, kernel: Kernel) -> IntArray:
    """Pick candidates from one part of the pool by exact greedy.

    Parameters
    ----------
    rows : ndarray of shape (m, d)
        The rows of the part, writable.
    covering : ndarray of shape (c, d)
        Given rows, which cover from the start.
    count : int
        Candidates wanted, from 1 up.
    kernel : Kernel

    Returns
    -------
    ndarray of shape (at most count,), int64
        Positions in `rows`, in pick order. Those that add nothing to the part are left out.

    Notes
    -----
    Time and memory are those of exact greedy on ``m + c`` rows: one ``m x m x d`` product and ``2 (m + c)^2`` bytes.
    """
    m = len(rows)
    both = np.concatenate([rows, covering])
    picked = facility_location(both, min(count, m), kernel=kernel, given=np.arange(m, len(both)))
    adds: IntArray = picked.indices[picked.gains > 0]
    return adds


def grid_values(x: FloatArray, candidates: IntArray, rows: IntArray, kernel: Kernel) -> NDArray[np.uint16]:
    """Compute kernel values of candidates and rows, both given as rows of `x`, in multiples of ``2^-15``.

    They come from float64 dot products. Time ``O(u w d)``, about 55 ns a pair at ``d = 384``.

    Returns
    -------
    ndarray of shape (u, w), uint16
        One row for each of `candidates`.
    """
    y, covered = x[candidates], x[rows]
    values = np.empty((len(y), len(covered)), dtype=np.uint16)
    _fill(covered, inverse_norms(covered), y, inverse_norms(y), kernel.code, kernel.bandwidth, values)
    return values


def merge(values: NDArray[np.uint16], start: FloatArray, budget: int) -> IntArray:
    """Pick from the candidates of all parts, greedily, those that cover the rows best.

    Parameters
    ----------
    values : ndarray of shape (u, w), uint16
        What each candidate covers of each row, as :func:`grid_values` has it; ``u >= budget``.
    start : ndarray of shape (w,), float64
        Coverage of the rows by the given rows, from 0 to 1.
    budget : int
        Number of candidates to pick.

    Returns
    -------
    ndarray of shape (budget,), int64
        Positions among the candidates, in pick order. A tie goes to the lowest.

    Notes
    -----
    Sums are of whole numbers, so they are exact. Memory ``2 u w`` bytes.
    """
    picked: IntArray = _lazy_greedy(values, np.rint(start * _STEPS).astype(np.int32), budget)
    return picked


def nearest(x: FloatArray, rows: IntArray, targets: IntArray) -> Nearest:
    """Find for each of `rows` the most similar of `targets`, both given as rows of `x`.

    A product in single precision leaves the targets within its rounding of the best; float64 decides between them,
    and a tie goes to the first. Time: one ``rows x targets x d`` product.
    """
    which, cosine = np.zeros(len(rows), dtype=np.int64), np.full(len(rows), _NOTHING)
    if not len(targets):
        return Nearest(which, cosine)
    y = x[targets]
    kept = _distinct(y)
    y = y[kept]
    inverse = inverse_norms(y)
    unit = (y * inverse[:, None]).astype(np.float32)
    # Twice the error of a dot product of rounded unit rows, in any order of summation.
    margin = np.float32((2.02 * x.shape[1] + 64) * _UNIT_ROUNDOFF)
    step = min(4096, max(64, _BLOCK_VALUES // len(y)))
    for begin in range(0, len(rows), step):
        part = slice(begin, begin + step)
        block = x[rows[part]]
        own = inverse_norms(block)
        products = (block * own[:, None]).astype(np.float32) @ unit.T
        _decide(block, own, y, inverse, products, products.max(axis=1) - margin, which[part], cosine[part])
    return Nearest(kept[which], cosine)


def run_here(x: FloatArray) -> Run:
    """Do jobs on `x` in threads of this process."""
    return lambda step, jobs: in_order(partial(step, x), jobs)


def _nearest(run: Run, rows: IntArray, targets: IntArray) -> Nearest:
    """:func:`nearest` of many rows, in jobs."""
    blocks = [rows[begin : begin + _JOB_ROWS] for begin in range(0, len(rows), _JOB_ROWS)]
    found = list(run(partial(_nearest_job, targets=targets), blocks))
    return Nearest(np.concatenate([near.which for near in found]), np.concatenate([near.cosine for near in found]))


def _nearest_job(x: FloatArray, rows: IntArray, targets: IntArray) -> Nearest:
    return nearest(x, rows, targets)


def _distinct(y: FloatArray) -> IntArray:
    """Positions of the first of each set of equal rows: of many copies in a pool, one needs to be compared."""
    whole = np.ascontiguousarray(y).view(np.dtype((np.void, y.shape[1] * y.itemsize))).ravel()
    return np.sort(np.unique(whole, return_index=True)[1])


@numba.njit(cache=True, nogil=True)
def _decide(block: Any, own: Any, y: Any, inverse: Any, products: Any, floors: Any, which: Any, cosine: Any) -> None:
    for i in range(products.shape[0]):
        for j in range(products.shape[1]):
            if products[i, j] >= floors[i]:
                value = dot(block[i], y[j]) * (own[i] * inverse[j])
                if value > cosine[i]:
                    which[i], cosine[i] = j, value


def _check_budget(budget: int, n: int) -> None:
    if budget > LARGEST_BUDGET:
        raise BudgetError(
            f"budget={budget} exceeds the {LARGEST_BUDGET:,} rows that near-exact greedy picks from a pool of {n} "
            "rows. Pass a smaller budget, or select exactly."
        )


def _sample(n: int, size: int, rng: np.random.Generator) -> IntArray:
    return np.sort(rng.choice(n, min(n, size), replace=False))


def _split(free: IntArray, plan: Plan, rng: np.random.Generator) -> list[IntArray]:
    """Random parts of equal size, each in order of index, on which ties depend."""
    count = -(-len(free) // plan.part_rows)
    parts = np.array_split(rng.permutation(free), count)
    return [np.sort(part) for part in parts[: plan.parts]]


def _candidates(
    run: Run,
    parts: list[IntArray],
    budget: int,
    kernel: Kernel,
    given: IntArray,
    shown: Nearest,
    plan: Plan,
    progress: Progress | None,
) -> IntArray:
    share = -(-plan.candidates // len(parts))
    # No other given row covers a row of a part better.
    jobs = [(rows, given[np.unique(shown.which[rows])] if len(given) else given) for rows in parts]
    found = []
    for some in run(partial(_part_job, share=share, kernel=kernel), jobs):
        found.append(some)
        if progress is not None:
            progress("parts", len(found), len(parts))
    candidates = np.sort(np.concatenate(found))
    missing = budget - len(candidates)
    if missing > 0:  # the parts are covered in full, by so few: the rest adds nothing
        rest = np.setdiff1d(np.arange(len(shown.which)), np.concatenate([given, candidates]))
        candidates = np.sort(np.concatenate([candidates, rest[:missing]]))
    return candidates


def _part_job(x: FloatArray, job: tuple[IntArray, IntArray], share: int, kernel: Kernel) -> IntArray:
    rows, covering = job
    return rows[part_candidates(x[rows], x[covering], share, kernel)]


def _greedy_among(
    run: Run, candidates: IntArray, budget: int, kernel: Kernel, rows: IntArray, shown: Nearest
) -> IntArray:
    values = np.empty((len(candidates), len(rows)), dtype=np.uint16)
    width = max(64, _BLOCK_VALUES // len(candidates))
    begins = range(0, len(rows), width)
    jobs = (rows[begin : begin + width] for begin in begins)
    for begin, block in zip(begins, run(partial(_grid_job, candidates=candidates, kernel=kernel), jobs), strict=True):
        values[:, begin : begin + width] = block
    return candidates[merge(values, _coverage(shown.cosine[rows], kernel), budget)]


def _grid_job(x: FloatArray, rows: IntArray, candidates: IntArray, kernel: Kernel) -> NDArray[np.uint16]:
    return grid_values(x, candidates, rows, kernel)


@numba.njit(cache=True, nogil=True)
def _fill(rows: Any, own: Any, y: Any, inverse: Any, code: int, bandwidth: float, out: Any) -> None:
    """Fill `out`, of shape (len(y), len(rows)), with kernel values on the grid."""
    for begin in range(0, len(rows), 64):  # these rows stay in the second-level cache
        for j in range(len(y)):
            for i in range(begin, min(begin + 64, len(rows))):
                cosine = dot(rows[i], y[j]) * (own[i] * inverse[j])
                out[j, i] = np.uint16(np.rint(kernel_value(cosine, code, bandwidth) * _STEPS))


@numba.njit(cache=True, nogil=True)
def _lazy_greedy(values: Any, covered: Any, budget: int) -> Any:
    """Greedy by lazy evaluation: a gain never rises, so one that is still the largest when fresh is the largest."""
    bound = np.full(len(values), np.iinfo(np.int64).max)
    fresh = np.full(len(values), -1)
    picked = np.empty(budget, dtype=np.int64)
    for step in range(budget):
        top = np.argmax(bound)
        while fresh[top] < step:
            row, total = values[top], np.int64(0)
            for i in range(covered.size):
                total += max(np.int32(row[i]) - covered[i], 0)
            bound[top], fresh[top] = total, step
            top = np.argmax(bound)
        picked[step] = top
        bound[top] = -1
        row = values[top]
        for i in range(covered.size):
            covered[i] = max(covered[i], np.int32(row[i]))
    return picked


def _to_medoids(
    run: Run,
    picks: IntArray,
    kernel: Kernel,
    given: IntArray,
    shown: Nearest,
    judged: IntArray,
    plan: Plan,
    rng: np.random.Generator,
    progress: Progress | None,
) -> tuple[IntArray, int]:
    """Move the picks to the middle of the rows that they cover, as long as this does not lower the coverage."""
    coverage = _mean_coverage(run, picks, kernel, shown, judged)
    for step in range(plan.steps):
        moved = _medoids(run, picks, kernel, given, shown, plan.members, rng)
        reached = _mean_coverage(run, moved, kernel, shown, judged)
        if progress is not None:
            progress("medoid steps", step + 1, plan.steps)
        if reached < coverage or np.array_equal(moved, picks):
            return picks, step
        picks, coverage = moved, reached
    return picks, plan.steps


def _medoids(
    run: Run,
    picks: IntArray,
    kernel: Kernel,
    given: IntArray,
    shown: Nearest,
    members: int,
    rng: np.random.Generator,
) -> IntArray:
    """For each pick the row with the largest sum of kernel values over the rows that it covers best."""
    near = _nearest(run, np.arange(len(shown.which)), picks)
    owner = np.where(near.cosine > shown.cosine, near.which, -1)
    owner[given] = -1  # a pick of the same direction may seem nearer, by rounding, and would move to the given row
    owner[picks] = np.arange(len(picks))  # whatever rounding says of two equal picks: no pick joins another's group
    order = np.argsort(owner, kind="stable")
    bounds = np.searchsorted(owner[order], np.arange(len(picks) + 1))
    moved, changed, groups = picks.copy(), [], []
    for pos in range(len(picks)):
        group = order[bounds[pos] : bounds[pos + 1]]
        if len(group) > members:
            group = np.union1d(rng.choice(group, members, replace=False), picks[pos])
        if len(group) > 2:  # in a pair both sums are equal
            changed.append(pos)
            groups.append(group)
    for pos, row in zip(changed, chain(*run(partial(_middles_job, kernel=kernel), _by_pairs(groups))), strict=True):
        moved[pos] = row
    return np.sort(moved)


def _by_pairs(groups: list[IntArray]) -> Iterator[list[IntArray]]:
    """Neighbouring groups together, as long as their rows make few pairs: ten thousand groups are not as many jobs."""
    some: list[IntArray] = []
    pairs = 0
    for group in groups:
        if some and pairs + len(group) ** 2 > _JOB_PAIRS:
            yield some
            some, pairs = [], 0
        some.append(group)
        pairs += len(group) ** 2
    if some:
        yield some


def _middles_job(x: FloatArray, groups: list[IntArray], kernel: Kernel) -> list[int]:
    nobody = np.empty(0, dtype=np.int64)
    return [int(group[facility_location(x[group], 1, kernel=kernel, given=nobody).indices[0]]) for group in groups]


def _coverage(cosine: FloatArray, kernel: Kernel) -> FloatArray:
    """Kernel values of the cosine of each row to what covers it; 0 where nothing does."""
    return np.where(cosine == _NOTHING, 0.0, kernel(cosine))


def _mean_coverage(run: Run, picks: IntArray, kernel: Kernel, shown: Nearest, rows: IntArray) -> float:
    cosine = np.maximum(_nearest(run, rows, picks).cosine, shown.cosine[rows])
    return float(_coverage(cosine, kernel).mean())


def _measure(
    x: FloatArray, picks: IntArray, kernel: Kernel, shown: Nearest, heldout: IntArray, info: Mapping[str, Any]
) -> NearCover:
    n, h = len(x), len(heldout)
    y = x[picks]
    inverse = inverse_norms(y)
    cosine = shown.cosine[heldout]
    covered = _coverage(cosine, kernel)
    gains = np.zeros(len(picks))
    for begin in range(0, h, 4096):
        part = slice(begin, begin + 4096)
        block = x[heldout[part]]
        own = inverse_norms(block)
        _add_rises(block, own, y, inverse, kernel.code, kernel.bandwidth, cosine[part], covered[part], gains)
    coverage = float(covered.mean())
    error = float(covered.std(ddof=1)) * math.sqrt((1 - h / n) / h) if h < n else 0.0
    low, high = max(0.0, coverage - _NORMAL_95 * error), min(1.0, coverage + _NORMAL_95 * error)
    return NearCover(picks, gains / h, coverage, (low, high), h, info)


@numba.njit(cache=True, nogil=True)
def _add_rises(
    rows: Any, own: Any, y: Any, inverse: Any, code: int, bandwidth: float, cosine: Any, covered: Any, gains: Any
) -> None:
    """Let `y` cover the rows one after the other; adds to each gain by how much coverage rose."""
    for i in range(len(rows)):
        for j in range(len(y)):
            value = dot(rows[i], y[j]) * (own[i] * inverse[j])
            if value > cosine[i]:
                reached = kernel_value(value, code, bandwidth)
                gains[j] += reached - covered[i]
                cosine[i], covered[i] = value, reached
