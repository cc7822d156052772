"""IDEAL: rows from which influence spreads to most of the pool along similar neighbours."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from icl_select._validation import check_int, is_number
from icl_select.errors import ParameterError
from icl_select.methods._cascade import published_graph, replay
from icl_select.methods._published import check_variant, published_unit_rows, python_random
from icl_select.methods._reverse_reachable import RRSets, certify, cover, hits, in_edges, sample
from icl_select.neighbors import knn_graph
from icl_select.types import FloatArray, IntArray, Progress, Selection

__all__ = ["ideal"]

# Members of one collection of RR sets that epsilon may ask for: 4 GB with its index.
_MOST_MEMBERS = 2**29


def ideal(
    x: FloatArray,
    budget: int,
    *,
    given: IntArray | tuple[int, ...] = (),
    rng: np.random.Generator,
    raw: FloatArray | None = None,
    k: int = 10,
    n_sets: int | None = None,
    epsilon: float | None = None,
    delta: float = 0.01,
    variant: str = "paper",
    rounds: int = 10,
    progress: Progress | None = None,
) -> Selection:
    """Pick rows whose influence reaches as many rows as possible.

    Every row v has edges to its `k` nearest neighbours u with probability ``cos(v, u) / sum of its cos``.
    Influence spreads from the picks along edges, each tried once (independent cascade). The picks greedily
    maximise the expected number of rows reached [1]_.

    Parameters
    ----------
    x : ndarray of shape (n, d), float32 or float64
        Unit-norm embeddings; not modified.
    budget : int
        Number of new rows to pick, ``1 <= budget <= n - len(given)``.
    given : ndarray of shape (g,), int64, default=()
        Rows already labelled; influence spreads from them too.
    rng : numpy.random.Generator
        Seeds the samples. The answer depends on it, not on the number of threads.
    raw : ndarray of shape (n, d), optional
        Rows before normalisation, handed over by :func:`icl_select.select` for ``variant="official"``.
    k : int, default=10
        Edges out of each row; pools of `k` rows or fewer use n - 1.
    n_sets : int, optional
        Reverse-reachable sets that the picks are made on; as many again measure them. By default 400 for each
        row, but at least 20,000 and at most 4,000,000: whatever the budget, so that the picks nest.
    epsilon : float, optional
        If given, `n_sets` doubles until the picks are certain to reach ``1 - 1/e - epsilon`` of the best
        possible influence. The number of sets then depends on the budget, so the picks do not nest.
    delta : float, default=0.01
        Probability with which the certified share may fail.
    variant : {"paper", "official"}, default="paper"
        "paper" covers reverse-reachable sets [2]_, an unbiased estimate of the influence that the paper
        defines. "official" replays published code bit for bit with the integer seed of `rng`: it starts with
        the first row of largest out-degree (row 0), estimates every free row in every round by a few fresh
        cascades, and counts a row once for each parent that reaches it in the same step.
    rounds : int, default=10
        Cascades for each estimate of "official".
    progress : callable, optional
        Told how far the search for neighbours is.

    Returns
    -------
    Selection
        ``indices`` in pick order, any prefix being the answer to a smaller budget (unless `epsilon` is
        given); ``gains`` the estimated number of rows reached first through each pick, never increasing.
        ``info`` holds ``k``, ``n_sets``, ``influence`` (rows reached from given and picked rows, estimated
        on sets that the picks have not seen) and its standard error ``influence_se``, and
        ``certified_share``: with probability ``1 - delta`` the picks reach at least this share of what the
        best rows of the same number would add to `given`. With "official", gains are differences of the
        published estimates: noisy, too high, and 0 for the first pick, which is not estimated; ``info``
        holds ``k`` and the last estimate as ``claimed_influence``.

    Raises
    ------
    ParameterError
        If a parameter is out of range, `epsilon` needs more sets than memory holds, or "official" gets `n_sets`,
        `epsilon`, or a generator that no integer seeded.

    Notes
    -----
    Negative cosines count as 0 (such edges never carry influence; a row without a positive neighbour reaches
    only itself); "official" keeps them and divides by whatever the sum is, as published. Ties go to the lower
    index. "official" never returns a row twice, where published code could return row 0 again if no candidate
    beat the last estimate of the round before.

    Time O(n^2 d) for the graph, then proportional to the members of all sets (six each on synthetic pools of
    3,000 rows); memory O(n k) plus 8 bytes a member. "official" takes O(budget n rounds) cascades.

    References
    ----------
    .. [1] Zhang et al., "IDEAL: Influence-Driven Selective Annotations Empower In-Context Learners in Large
       Language Models", ICLR 2024, arXiv:2310.10873.
    .. [2] Borgs et al., "Maximizing Social Influence in Nearly Optimal Time", SODA 2014; bound: Tang et al.,
       "Online Processing Algorithms for Influence Maximization", SIGMOD 2018. The lazy greedy (CELF), whose
       picks these are: Leskovec et al., "Cost-effective Outbreak Detection in Networks", KDD 2007.

    Examples
    --------
    Two groups that do not reach each other: one pick in each.

    >>> import numpy as np
    >>> angle = np.radians([0, 5, 10, 15, 90, 95, 100])
    >>> x = np.column_stack([np.cos(angle), np.sin(angle)])
    >>> picked = ideal(x, 2, rng=np.random.default_rng(0), k=2)
    >>> sorted(bool(i > 3) for i in picked.indices)
    [False, True]
    >>> picked.info["certified_share"] > 0.8
    True
    """
    official = check_variant(variant)
    given = np.asarray(given, dtype=np.int64)
    k = min(check_int(k, name="k", low=1), len(x) - 1)
    rounds = check_int(rounds, name="rounds", low=1)
    if official:
        if n_sets is not None or epsilon is not None:
            raise ParameterError("n_sets and epsilon have no effect on variant='official'. Leave them out.")
        rows = published_unit_rows(x, raw)
        indices, estimates = replay(*published_graph(rows, k), given, budget, rounds, python_random(rng))
        info: dict[str, Any] = {"k": k, "claimed_influence": float(estimates[-1])}
        return Selection(indices, np.diff(estimates, prepend=0.0), info=info)
    n_sets = min(max(400 * len(x), 20_000), 4_000_000) if n_sets is None else check_int(n_sets, name="n_sets", low=1)
    _check_open_unit(delta, "delta")
    if epsilon is not None:
        _check_open_unit(epsilon, "epsilon")
    edges = in_edges(*_graph(x, k, progress))
    return _cover_until(edges, len(x), budget, given, rng, k, n_sets, epsilon, delta)


def _check_open_unit(value: Any, name: str) -> None:
    if not is_number(value) or not 0 < value < 1:
        raise ParameterError(f"{name}={value!r} is out of range. Pass a number strictly between 0 and 1.")


def _cover_until(
    edges: tuple[IntArray, IntArray, FloatArray],
    n: int,
    budget: int,
    given: IntArray,
    rng: np.random.Generator,
    k: int,
    n_sets: int,
    epsilon: float | None,
    delta: float,
) -> Selection:
    """Cover once, or with `epsilon` again with twice the sets until the certificate holds.

    Round r tests at ``delta / 2 ** r``, so that all rounds together fail with probability below `delta`.
    """
    seeds = rng.integers(2**64, size=2, dtype=np.uint64).tolist()
    level = delta if epsilon is None else delta / 2
    while True:
        indices, counts, ceiling = cover(sample(edges, n_sets, seeds[0]), n, given, budget)
        measuring = sample(edges, n_sets, seeds[1])
        info = _measure(measuring, n, given, indices, ceiling, level)
        if epsilon is None or info["certified_share"] >= 1 - 1 / math.e - epsilon:
            info.update(k=k, n_sets=n_sets, delta=delta)
            return Selection(indices, counts * (n / n_sets), nested=epsilon is None, info=info)
        if 2 * len(measuring.members) > _MOST_MEMBERS:
            raise ParameterError(
                f"epsilon={epsilon} is not reached with {n_sets} sets (certified share "
                f"{info['certified_share']:.3f}), and twice as many do not fit. Pass a larger epsilon."
            )
        n_sets, level = 2 * n_sets, level / 2


def _graph(x: FloatArray, k: int, progress: Progress | None = None) -> tuple[IntArray, FloatArray]:
    targets, cosines = knn_graph(x, k, progress=progress)
    weights = np.maximum(cosines, 0.0)
    totals = weights.sum(axis=1, keepdims=True)
    return targets, np.divide(weights, totals, out=np.zeros_like(weights), where=totals > 0)


def _measure(sets: RRSets, n: int, given: IntArray, picked: IntArray, ceiling: int, delta: float) -> dict[str, Any]:
    """Estimate what the picks reach on sets that they were not made on, and certify it."""
    rows = np.zeros(n, dtype=np.bool_)
    rows[given] = True
    before = int(hits(sets, rows).sum())
    rows[picked] = True
    after = int(hits(sets, rows).sum())
    share = after / len(sets)
    return {
        "influence": n * share,
        "influence_se": n * math.sqrt(share * (1 - share) / len(sets)),
        "certified_share": certify(after - before, ceiling, len(sets), delta),
    }
