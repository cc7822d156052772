"""How similar the rows of a pool are to each other, and whether their neighbours are closer than strangers."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from typing import Any

import numpy as np

from icl_select._pairs import BINS, Tally, all_pairs, drawn_pairs, neighbourhoods
from icl_select._validation import check_embeddings, check_int, check_rng, unit_rows
from icl_select.errors import DataError, EmbeddingError, ParameterError

__all__ = ["LEVELS", "THRESHOLDS", "Density", "density"]

LEVELS = (0.01, 0.05, 0.25, 0.5, 0.75, 0.95, 0.99)
"""Levels of the quantiles that are reported."""

THRESHOLDS = (0.5, 0.7, 0.8, 0.9, 0.95)
"""Similarities above which the share of pairs is reported."""

_LEVEL = 0.95
# Between what directions without structure reach (0.12 in 384 dimensions) and what pools of unrelated
# sentences do (0.24 and up), and where the nearest rows are at half the squared distance of a stranger.
_FEW = 0.2
_MANY = 0.5


@dataclass(frozen=True)
class Density:
    """Distribution of the cosine similarity of two different rows of a pool.

    Attributes
    ----------
    n : int
        Rows of the pool.
    n_pairs : int
        Pairs looked at: all ``n (n - 1) / 2`` if `exact`, else drawn independently with replacement.
    exact : bool
        Whether all pairs were looked at.
    band : float
        0 if `exact`. Else, with 95% confidence, the share of pairs below any similarity is known to within `band`,
        for all similarities at once (Dvoretzky-Kiefer-Wolfowitz inequality with Massart's constant; it holds
        because the pairs are independent given the pool). It bounds `shares` and the level of every quantile.
    mean_band : float
        0 if `exact`, else the half-width of the 95% interval of `mean` (normal approximation).
    mean, sd, minimum, maximum : float
        Of the similarity of the pairs looked at.
    quantiles : mapping of float to float
        At :data:`LEVELS`, to 0.0001.
    shares : mapping of float to float
        Share of pairs more similar than each threshold.
    edges, density : tuple of float
        Histogram over -1 to 1 whose area is 1: 401 edges, 400 heights.
    n_nearest : int
        Rows whose nearest neighbour was searched, each among all rows; `n`, or a random subset of a large pool.
    nearest_mean : float
        Mean similarity of these rows to their nearest other row. Exact duplicates count, with similarity 1. It
        grows with `n`; far above `neighbourhood_mean`, it tells of near-duplicates.
    nearest_quantiles, nearest_shares : mapping of float to float
        As `quantiles` and `shares`, of the similarity to the nearest other row.
    nearest_band : float
        As `band`, for the nearest neighbours; 0 if all rows were searched.
    share : float
        Share of the other rows that counts as the neighbourhood of a row.
    neighbourhood_rank : int
        Rank of the neighbour that bounds it: ``ceil(share (n - 1))``, at least 1.
    neighbourhood_mean : float
        Neighbourhood similarity: mean similarity of the searched rows to their neighbour at that rank. All other
        rows of the neighbourhood are at least as similar.
    closeness : float
        ``(neighbourhood_mean - mean) / (1 - mean)``, within 0 and 1: 0 where the rows that a label has to stand for
        are strangers, 1 where they are copies. One minus closeness is the squared distance to the edge of the
        neighbourhood over the squared distance to a stranger.
    reading : str
        What `closeness` means, in a sentence: below 0.2 neighbours are hardly closer than strangers, from 0.5
        the pool is clustered.
    """

    n: int
    n_pairs: int
    exact: bool
    band: float
    mean: float
    mean_band: float
    sd: float
    minimum: float
    maximum: float
    quantiles: Mapping[float, float]
    shares: Mapping[float, float]
    edges: tuple[float, ...]
    density: tuple[float, ...]
    n_nearest: int
    nearest_mean: float
    nearest_quantiles: Mapping[float, float]
    nearest_shares: Mapping[float, float]
    nearest_band: float
    share: float
    neighbourhood_rank: int
    neighbourhood_mean: float
    closeness: float
    reading: str

    def to_dict(self) -> dict[str, Any]:
        """Return a record of JSON values; :meth:`from_dict` reads it back.

        Returns
        -------
        dict
        """
        record = asdict(self)
        for name, value in record.items():
            if isinstance(value, Mapping):
                record[name] = {str(key): number for key, number in value.items()}
            elif isinstance(value, tuple):
                record[name] = list(value)
        return record

    @classmethod
    def from_dict(cls, record: Mapping[str, Any]) -> Density:
        """Read what :meth:`to_dict` wrote.

        Parameters
        ----------
        record : mapping

        Returns
        -------
        Density

        Raises
        ------
        DataError
            If a field is missing.
        """
        values: dict[str, Any] = {}
        for name in (field.name for field in fields(cls)):
            if name not in record:
                raise DataError(f"a density record lacks {name!r}. Pass what Density.to_dict() gives.")
            value = record[name]
            if isinstance(value, Mapping):
                value = {float(key): number for key, number in value.items()}
            values[name] = tuple(value) if isinstance(value, list) else value
        return cls(**values)


def density(
    x: Any,
    *,
    max_pairs: int = 5_000_000,
    seed: int = 0,
    thresholds: Sequence[float] = THRESHOLDS,
    share: float = 0.01,
) -> Density:
    """Measure how similar the rows of a pool are to each other.

    Parameters
    ----------
    x : array-like of shape (n, d)
        Embeddings, ``n >= 2``; centred or not, of any scale. Rows are brought to unit norm in a copy.
    max_pairs : int, default=5_000_000
        A pool with at most this many pairs (3,162 rows by default) is measured exactly. Of a larger one this many
        pairs are drawn, and nearest neighbours are searched for at most ``20 max_pairs / n`` rows (at least 500).
    seed : int, default=0
        Seeds what is drawn. Ignored where everything is exact.
    thresholds : sequence of float, default=(0.5, 0.7, 0.8, 0.9, 0.95)
        Similarities above which the share of pairs is counted.
    share : float, default=0.01
        Share of the pool that one label has to stand for, in (0, 1]: about one over the budget. `closeness` asks how
        similar a row is to the edge of its nearest rows of this share.

    Returns
    -------
    Density

    Raises
    ------
    EmbeddingError
        If there are fewer than two rows, or a row is zero, NaN or infinite.
    ParameterError
        If `max_pairs`, a threshold or `share` is out of range.

    Notes
    -----
    Products are in single precision, so a similarity is exact to about 1e-6. Time O(min(n^2, max_pairs) d);
    memory O(nd) and one block of products.

    `closeness` is read at a share of the pool, not at the single nearest row, because a label under a budget of 100
    stands for about 1% of the pool. The share also makes it a property of where the rows come from and not of how
    many there are: a sample of 500 rows reads as the whole pool does. Where ``share (n - 1) <= 1`` (up to 101 rows by
    default) the neighbourhood is the nearest row alone, and closeness comes out somewhat higher.

    The limits of the reading lie between reference cases, each at ``share=0.01``. Uniform directions: 0.12 in 384
    dimensions, 0.15 in 256, 0.29 in 64. Centred MiniLM embeddings of unrelated sentences or paragraphs (SST-5, RTE,
    MRPC, MNLI, DBpedia): 0.24 to 0.28; of questions about one small database (GeoQuery): 0.57. Groups that each hold
    more than 1% of the pool, with a similarity of c inside: about c. Groups smaller than that are twins to a label
    under such a budget, and count as no neighbourhood. The limits are not fitted to what any method gains.

    Examples
    --------
    Two pairs of copies at a right angle: a third of the pairs are copies, and every row has one.

    >>> found = density([[1.0, 0.0], [1.0, 0.0], [0.0, 1.0], [0.0, 1.0]])
    >>> round(found.mean, 3), found.nearest_mean, found.closeness
    (0.333, 1.0, 1.0)
    >>> found.reading
    'Clustered: neighbours are much closer than strangers, so coverage is a sensible notion.'
    """
    rows = unit_rows(check_embeddings(x)).astype(np.float32, copy=False)
    n = len(rows)
    if n < 2:
        raise EmbeddingError("a pool of 1 row has no pair to measure. Pass at least two rows.")
    max_pairs = check_int(max_pairs, name="max_pairs", low=1)
    rng = check_rng(seed)
    limits = _check_thresholds(thresholds)
    share = _check_share(share)
    exact = n * (n - 1) // 2 <= max_pairs
    pairs = Tally(limits)
    for part in all_pairs(rows) if exact else drawn_pairs(rows, max_pairs, rng):
        pairs.add(part)
    searched = min(n, max(500, 20 * max_pairs // n))
    chosen = np.arange(n) if searched == n else np.sort(rng.choice(n, size=searched, replace=False))
    # Rounded first: 0.07 * 100 is a little more than 7.
    rank = max(1, math.ceil(round(share * (n - 1), 9)))
    nearest, bounds = Tally(limits), Tally(limits)
    for first, last in neighbourhoods(rows, chosen, rank):
        nearest.add(first)
        bounds.add(last)
    return _summary(n, pairs, nearest, _Neighbourhood(share, rank, bounds.mean), exact=exact)


@dataclass(frozen=True)
class _Neighbourhood:
    share: float
    rank: int
    mean: float


def _summary(n: int, pairs: Tally, nearest: Tally, around: _Neighbourhood, *, exact: bool) -> Density:
    alpha = 1 - _LEVEL
    spread = 1.0 - pairs.mean
    # Where all rows are one, up to single precision, there is nothing to be closer than.
    closeness = min(max((around.mean - pairs.mean) / spread, 0.0), 1.0) if spread > 1e-6 else 0.0
    return Density(
        n=n,
        n_pairs=pairs.count,
        exact=exact,
        band=0.0 if exact else math.sqrt(math.log(2 / alpha) / (2 * pairs.count)),
        mean=pairs.mean,
        mean_band=0.0 if exact else 1.959964 * pairs.sd / math.sqrt(pairs.count),
        sd=pairs.sd,
        minimum=pairs.low,
        maximum=pairs.high,
        quantiles=pairs.quantiles(LEVELS),
        shares=pairs.shares(),
        edges=tuple(np.linspace(-1.0, 1.0, BINS + 1).round(6).tolist()),
        density=tuple(pairs.heights()),
        n_nearest=nearest.count,
        nearest_mean=nearest.mean,
        nearest_quantiles=nearest.quantiles(LEVELS),
        nearest_shares=nearest.shares(),
        nearest_band=0.0 if nearest.count == n else math.sqrt(math.log(2 / alpha) / (2 * nearest.count)),
        share=around.share,
        neighbourhood_rank=around.rank,
        neighbourhood_mean=around.mean,
        closeness=closeness,
        reading=_reading(spread, closeness),
    )


def _reading(spread: float, closeness: float) -> str:
    if spread <= 1e-6:
        return "All rows are equal: no method can tell them apart."
    if closeness < _FEW:
        return "Neighbours are hardly closer than strangers: coverage has little to work with."
    if closeness < _MANY:
        return "Neighbours are somewhat closer than strangers: coverage has something to work with, but not much."
    return "Clustered: neighbours are much closer than strangers, so coverage is a sensible notion."


def _check_thresholds(thresholds: Sequence[float]) -> tuple[float, ...]:
    found = tuple(float(limit) for limit in thresholds)
    for limit in found:
        if not -1 <= limit <= 1:
            raise ParameterError(f"threshold {limit} is no cosine similarity. Pass numbers from -1 to 1.")
    return found


def _check_share(share: float) -> float:
    share = float(share)
    if not 0 < share <= 1:
        raise ParameterError(f"share={share} is no share of a pool. Pass a number above 0 and at most 1.")
    return share
