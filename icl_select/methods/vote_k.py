"""Vote-k: rows that many others have among their neighbours, discounted where picks already serve."""

from __future__ import annotations

import math

import numpy as np

from icl_select._validation import check_int, is_number
from icl_select.errors import FeedbackError, ParameterError
from icl_select.methods._published import check_variant
from icl_select.methods._votes import Votes, cast_votes
from icl_select.neighbors import knn_graph
from icl_select.registry import asks_when
from icl_select.types import Feedback, FloatArray, IntArray, Progress, Selection

__all__ = ["vote_k"]

# Graph picks of the full method in published code, whatever the budget.
_OFFICIAL_FIRST = 10


@asks_when(stage="full")
def vote_k(
    x: FloatArray,
    budget: int,
    *,
    given: IntArray | tuple[int, ...] = (),
    rng: np.random.Generator | None = None,
    feedback: Feedback | None = None,
    k: int = 150,
    rho: float = 10.0,
    stage: str = "graph",
    first: int | None = None,
    variant: str = "paper",
    progress: Progress | None = None,
) -> Selection:
    """Pick rows that many rows vote for, each vote worth less the more of its picks are taken.

    Every row v votes for its `k` nearest neighbours. The score of a free row u is the sum of ``rho ** -t(v)``
    over its voters v that are not picked, where t(v) counts the picked rows that v voted for [1]_. The graph
    stage takes the highest score, again and again. The full method spends only a tenth of the budget so; it
    then asks the model, sorts the pool from least to most confident, cuts the less confident 90% into one
    bucket for each remaining pick, and takes the highest score of each bucket.

    Parameters
    ----------
    x : ndarray of shape (n, d), float32 or float64
        Unit-norm embeddings; not modified.
    budget : int
        Number of new rows to pick, ``1 <= budget <= n - len(given)``.
    given : ndarray of shape (g,), int64, default=()
        Rows already labelled. They count as picked: they do not vote, and their voters are discounted.
    rng : numpy.random.Generator, optional
        Ignored; the method is deterministic.
    feedback : callable, optional
        ``feedback(labelled) -> (n,)``, larger is less confident; called once, with `given` followed by the
        graph picks. Needed for ``stage="full"`` and refused for ``stage="graph"``.
    k : int, default=150
        Votes of each row; pools of `k` rows or fewer use n - 1.
    rho : float, default=10
        Discount, at least 1.
    stage : {"graph", "full"}, default="graph"
        Graph stage only (published as "fast vote-k"), or both.
    first : int, optional
        Graph picks of the full method, at most `budget`. By default a tenth of the budget, rounded up, or 10
        with ``variant="official"``. The two agree at a budget of 100.
    variant : {"paper", "official"}, default="paper"
        Matters only for the full method. Published code intends the discount in the second stage too, but
        compares text keys with numbers, so picks of that stage never discount each other; "official"
        reproduces this, "paper" discounts every pick.
    progress : callable, optional
        Told how far the search for neighbours is.

    Returns
    -------
    Selection
        ``indices`` in pick order; ``gains`` the score of each pick when it was taken. The graph stage nests
        and its gains never increase; the full method does neither. ``info`` holds k as used and, for the full
        method, ``graph_picks`` and ``bucket_width``.

    Raises
    ------
    ParameterError
        If `k`, `rho`, `stage`, `first` or `variant` is out of range, or `first` is passed with ``stage="graph"``.
    FeedbackError
        If `feedback` is missing, refused, or returns something else than n numbers. What it raises itself passes
        through unchanged.

    Notes
    -----
    Ties go to the row with more voters, then to the one voted for first when voters speak in index order,
    each naming its least similar neighbour first (the published rule); rows that nobody votes for come last,
    by index, with gain 0, where published code never picks them. Row i is excluded from its own neighbours by index;
    published code drops the most similar row instead, which among exact duplicates may be the twin. Equal
    confidence goes to the lower index. A bucket is ``0.9 f / m`` rows wide, rounded down, for f rows not
    given and m picks; it is at least 1 and so narrow that every bucket holds free rows, where published code
    fails on empty buckets or fills up at random. Only the confident rows behind the last bucket are never
    reached.

    One exact k-nearest-neighbour search, O(n^2 d) time, plus O(n k) for each pick; memory O(n k).

    References
    ----------
    .. [1] Su et al., "Selective Annotation Makes Language Models Better Few-Shot Learners", ICLR 2023,
       arXiv:2209.01975.

    Examples
    --------
    Two groups. Rows 1 and 2 have three votes each, and row 0 names its less similar neighbour, 2, first. Then
    the voters of row 2 count a tenth, and the other group has its turn.

    >>> import numpy as np
    >>> angle = np.radians([0, 10, 20, 30, 120, 130, 145])
    >>> x = np.column_stack([np.cos(angle), np.sin(angle)])
    >>> picked = vote_k(x, 3, k=2)
    >>> picked.indices.tolist()
    [2, 6, 1]
    >>> picked.gains.tolist()
    [3.0, 2.0, 0.2]
    """
    official = check_variant(variant)
    given = np.asarray(given, dtype=np.int64)
    _check_stage(stage, feedback, first)
    if not is_number(rho) or not 1 <= rho < math.inf:
        raise ParameterError(f"rho={rho!r} is no discount. Pass a finite number of at least 1 (published: 10).")
    k = min(check_int(k, name="k", low=1), len(x) - 1)
    first = _graph_picks(first, budget, official) if stage == "full" else budget
    votes = cast_votes(knn_graph(x, k, progress=progress)[0], rho, len(given) + budget)
    for row in given.tolist():
        votes.pick(row)
    indices, gains = _graph_stage(votes, first)
    if feedback is None:
        return Selection(np.array(indices), np.array(gains), info={"k": k})
    more, more_gains, width = _confidence_stage(votes, feedback, given, indices, budget - first, discount=not official)
    info = {"k": k, "graph_picks": first, "bucket_width": width}
    return Selection(np.array(indices + more), np.array(gains + more_gains), nested=False, info=info)


def _check_stage(stage: str, feedback: Feedback | None, first: int | None) -> None:
    if stage not in ("graph", "full"):
        raise ParameterError(f"stage={stage!r} is not known. Pass stage='graph' or stage='full'.")
    if stage == "full" and feedback is None:
        raise FeedbackError(
            "vote_k with stage='full' asks the model how sure it is, but no feedback was passed. "
            "Pass feedback=f with f(labelled) -> (n,), or use stage='graph'."
        )
    if stage == "graph" and feedback is not None:
        raise FeedbackError(
            "feedback was passed, but vote_k with stage='graph' does not ask the model. "
            "Leave feedback out, or use stage='full'."
        )
    if stage == "graph" and first is not None:
        raise ParameterError(f"first={first!r} has no effect on stage='graph'. Leave it out, or use stage='full'.")
    if feedback is not None and not callable(feedback):
        raise FeedbackError(
            f"feedback is a {type(feedback).__name__}, which cannot be called. Pass a function f(labelled) -> (n,)."
        )


def _graph_picks(first: int | None, budget: int, official: bool) -> int:
    if first is None:
        return min(_OFFICIAL_FIRST, budget) if official else math.ceil(budget / 10)
    if check_int(first, name="first", low=0) > budget:
        raise ParameterError(f"first={first} graph picks exceed budget={budget}. Pass first <= budget.")
    return int(first)


def _graph_stage(votes: Votes, picks: int) -> tuple[list[int], list[float]]:
    indices, gains = [], []
    for _ in range(picks):
        row, score = votes.best()
        votes.pick(row)
        indices.append(row)
        gains.append(score)
    return indices, gains


def _confidence_stage(
    votes: Votes, feedback: Feedback, given: IntArray, graph: list[int], picks: int, *, discount: bool
) -> tuple[list[int], list[float], int]:
    """Take the highest score of each of `picks` buckets of falling uncertainty; also return their width."""
    if picks == 0:
        return [], [], 0
    n = len(votes.scores)
    labelled = np.concatenate([given, np.array(graph, dtype=np.int64)])
    uncertainty = _ask(feedback, labelled, n)
    order = np.argsort(-uncertainty, kind="stable")
    free = order[~votes.picked[order]]
    width = max(1, min(9 * (n - len(given)) // (10 * picks), len(free) // picks))
    indices, gains = [], []
    for b in range(picks):
        bucket = free[b * width : (b + 1) * width]
        row = int(bucket[np.argmax(votes.scores[bucket])])
        indices.append(row)
        gains.append(float(votes.scores[row]))
        votes.pick(row, discount=discount)
    return indices, gains, width


def _ask(feedback: Feedback, labelled: IntArray, n: int) -> FloatArray:
    returned = feedback(labelled.copy())
    try:
        answer = np.asarray(returned)
    except (TypeError, ValueError, RuntimeError) as exc:  # RuntimeError: a tensor that needs a gradient
        raise FeedbackError(
            f"feedback returned a {type(returned).__name__} that cannot be read as an array ({exc}). "
            f"Return one number for each pool row: an array of shape ({n},)."
        ) from exc
    if answer.shape != (n,) or answer.dtype.kind not in "fiu":
        raise FeedbackError(
            f"feedback returned shape {answer.shape} of {answer.dtype}, but the pool has {n} rows. "
            f"Return one number for each pool row: an array of shape ({n},)."
        )
    uncertainty = answer.astype(np.float64)
    uncertainty[labelled] = 0.0  # ignored
    finite = np.isfinite(uncertainty)
    if not finite.all():
        raise FeedbackError(
            f"feedback returned {uncertainty[np.argmin(finite)]} for row {int(np.argmin(finite))}. "
            "Return a finite number for every row that is not labelled."
        )
    return uncertainty
