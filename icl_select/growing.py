"""Selection from a pool that grows: what one run worked out is kept for the next."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from icl_select._growing_file import kept_origin, read_growing, write_growing
from icl_select._progress import progress_of
from icl_select._validation import check_budget, check_directions, check_embeddings, check_given
from icl_select.errors import EmbeddingError, GivenError, ParameterError
from icl_select.kernels import Kernel
from icl_select.methods._growing import PAIRS_A_ROW, Growing
from icl_select.methods.max_herding import max_herding
from icl_select.types import FloatArray, IntArray, Progress, Selection

__all__ = ["GrowingSelection"]


class GrowingSelection:
    """MaxHerding on a pool to which rows are added and of which rows are labelled, again and again.

    Picks and gains are those of exact :func:`max_herding` on all rows with the labelled ones as `given`, bit for bit.
    What is kept between picks is what the labelled rows cover, and the pairs of a candidate and a row that the
    candidate would cover better. Coverage only grows, so pairs are only ever dropped, and a new row adds its own.

    Parameters
    ----------
    kernel : str, default="gaussian"
        As for :func:`max_herding`.
    bandwidth : float, default=1.0
        Distance scale of the kernel.
    origin : ndarray of shape (d,), optional
        What was subtracted from every row before it came here. Kept in the file, so that later rows can be moved alike;
        not read otherwise.
    pairs_a_row : int, default=1024
        Pairs that are kept at most, for each row on average, at six bytes. Where more matter (few labels, or a kernel
        so wide that nothing is covered well), picks are made from scratch.

    Attributes
    ----------
    labelled : ndarray of shape (g,), int64
        Rows that are labelled, ascending.

    Raises
    ------
    ParameterError
        If the kernel or bandwidth is not known or out of range, or `pairs_a_row` is below 0.

    Notes
    -----
    For n rows of d numbers: :meth:`add` of m rows and :meth:`label` of g rows take one product of these rows with all,
    ``O(m n d)`` and ``O(g n d)``; :meth:`pick` computes exact gains of the candidates at the top from their kept
    pairs, and no product. The first pick after the first label takes half a product of all pairs; a pick before it, or
    with too many pairs, the time of :func:`max_herding`. Memory: a copy of the rows, and the pairs.

    Lazy evaluation of gains is Minoux's [1]_.

    References
    ----------
    .. [1] Minoux, "Accelerated greedy algorithms for maximizing submodular set functions", 1978.

    Examples
    --------
    >>> angle = np.radians([0, 10, 90, 100, 200])
    >>> growing = GrowingSelection()
    >>> growing.add(np.column_stack([np.cos(angle), np.sin(angle)]))
    >>> growing.pick(2).indices.tolist()
    [2, 0]
    >>> growing.label([2, 0])
    >>> growing.add(np.array([[0.0, -1.0], [-0.3, -0.9]]))
    >>> growing.pick(2).indices.tolist()
    [6, 4]
    """

    def __init__(
        self,
        kernel: str = "gaussian",
        bandwidth: float = 1.0,
        *,
        origin: npt.NDArray[np.float64] | None = None,
        pairs_a_row: int = PAIRS_A_ROW,
    ) -> None:
        if pairs_a_row < 0:
            raise ParameterError(f"pairs_a_row={pairs_a_row} is below 0. Pass 0 to keep none, or leave it out.")
        self.kernel = Kernel(kernel, bandwidth)
        self.origin = origin
        self.pairs_a_row = pairs_a_row
        self._core: Growing | None = None

    def __len__(self) -> int:
        return 0 if self._core is None else len(self._core.x)

    @property
    def labelled(self) -> IntArray:
        return np.empty(0, dtype=np.int64) if self._core is None else np.flatnonzero(self._core.labelled)

    def add(self, x_new: Any) -> None:
        """Append rows to the pool.

        Parameters
        ----------
        x_new : array-like of shape (m, d), float32 or float64
            Rows of any norm but 0; copied. The first rows fix the dimension and the dtype.

        Raises
        ------
        EmbeddingError
            If a row is zero, holds NaN or infinity, or is so small or large that its norm leaves float64; or if
            dimension or dtype differ from those of the rows before.
        """
        rows = _checked(x_new)
        if self._core is None:
            self._core = Growing(rows.copy(), self.kernel, pairs_a_row=self.pairs_a_row)
            return
        old = self._core.x
        if rows.shape[1] != old.shape[1] or rows.dtype != old.dtype:
            raise EmbeddingError(
                f"the new rows are {rows.dtype} of dimension {rows.shape[1]}, those of the pool {old.dtype} of "
                f"dimension {old.shape[1]}. Embed all with the same encoder, and keep one dtype."
            )
        self._core.add(rows)

    def label(self, indices: Iterable[int]) -> None:
        """Say that rows are labelled: from now on they cover others and are not picked.

        Parameters
        ----------
        indices : iterable of int
            Rows of the pool, each not labelled yet.

        Raises
        ------
        GivenError
            If an index is outside the pool, listed twice, or labelled already. Nothing is labelled then.
        """
        rows = check_given(indices, len(self))
        if self._core is None or not len(rows):
            return
        again = rows[self._core.labelled[rows]]
        if len(again):
            raise GivenError(f"row {int(again[0])} is labelled already. Pass each row once.")
        self._core.label(rows)

    def pick(self, budget: int, *, progress: bool | Progress = False) -> Selection:
        """Say which `budget` rows to label next. They are not labelled by that: call :meth:`label` once they are.

        Parameters
        ----------
        budget : int
            Number of rows, ``1 <= budget <= len(self) - len(self.labelled)``.
        progress : bool or callable, default=False
            As for :func:`icl_select.select`; told where picks are made from scratch.

        Returns
        -------
        Selection
            As of :func:`max_herding` with ``exactness="exact"``: indices, gains and ``info["coverage"]`` are the same.

        Raises
        ------
        BudgetError
            If `budget` is below 1 or above the rows that are not labelled.
        """
        given = self.labelled
        budget = check_budget(budget, len(self), len(given))
        core = self._core
        assert core is not None  # an empty pool has no budget that passes
        if not core.prepare():
            name, bandwidth = self.kernel.name, self.kernel.bandwidth
            with progress_of(progress) as told:
                return max_herding(
                    core.x, budget, given=given, kernel=name, bandwidth=bandwidth, exactness="exact", progress=told
                )
        picked, n = core.pick(budget), len(self)
        info = {"coverage": picked.total / n, "exactness": "exact", "exact_evaluations": picked.evaluations}
        return Selection(picked.indices, picked.gains / n, info=info)

    def save(self, path: str | Path) -> None:
        """Write what is kept to a file, which replaces an older one only when it is whole. Rows are not in it.

        Parameters
        ----------
        path : str or Path

        Raises
        ------
        EmbeddingError
            If there are no rows yet.
        StoreError
            If the file cannot be written.
        """
        if self._core is None:
            raise EmbeddingError("a pool of 0 rows has nothing to keep. Add rows first.")
        write_growing(Path(path), self._core, self.origin)

    @classmethod
    def load(
        cls,
        path: str | Path,
        x: Any,
        *,
        kernel: str = "gaussian",
        bandwidth: float = 1.0,
        pairs_a_row: int = PAIRS_A_ROW,
    ) -> GrowingSelection:
        """Go on from a file.

        Parameters
        ----------
        path : str or Path
        x : array-like of shape (n, d)
            The rows that were kept, in their order; rows after them are new, and added.
        kernel, bandwidth, pairs_a_row
            As they were; another number of pairs counts from now on.

        Returns
        -------
        GrowingSelection

        Raises
        ------
        DataError
            If the file cannot be read, is damaged, or no such file.
        ParameterError
            If it was written for another kernel or bandwidth.
        EmbeddingError
            If a row differs from the one that was kept, or rows are missing; if the file comes from a processor that
            rounds otherwise; and as :meth:`add` does.
        """
        growing = cls(kernel, bandwidth, pairs_a_row=pairs_a_row)
        rows = _checked(x)
        growing._core, growing.origin = read_growing(Path(path), rows, growing.kernel, pairs_a_row)
        if len(rows) > len(growing):
            growing.add(rows[len(growing) :])
        return growing

    @staticmethod
    def read_origin(path: str | Path) -> npt.NDArray[np.float64] | None:
        """Return the origin that a file keeps. Raises DataError as :meth:`load` does."""
        return kept_origin(Path(path))


def _checked(x: Any) -> FloatArray:
    rows = check_embeddings(x)
    check_directions(rows)
    with np.errstate(over="ignore", under="ignore"):
        squares = np.einsum("ij,ij->i", rows, rows, dtype=np.float64)
    unfit = ~np.isfinite(squares) | (squares < np.finfo(np.float64).tiny)
    if unfit.any():
        raise EmbeddingError(
            f"row {int(np.argmax(unfit))} is so long or so short that its norm leaves float64. Scale the rows first."
        )
    return rows
