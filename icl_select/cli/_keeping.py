"""``icl-select select --keep FILE``: what a run worked out is there for the next one, when the pool has grown."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from icl_select.cli._options import UsageError
from icl_select.cli._output import remark
from icl_select.errors import EmbeddingError, ParameterError
from icl_select.registry import parse

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    from icl_select.data import Pool
    from icl_select.embedding import Embeddings, Encoder
    from icl_select.growing import GrowingSelection
    from icl_select.types import Selection

__all__ = ["Keeper", "check_keep"]


def check_keep(method: str, engine: str) -> None:
    """Raise UsageError for a method of which nothing can be kept."""
    spec = parse(method)
    if spec.name != "max_herding":
        raise UsageError(f"--keep keeps what max_herding works out, and the method is {method!r}. Leave --keep out.")
    if spec.params.get("variant", "paper") != "paper":
        raise UsageError("--keep follows variant='paper' of max_herding. Leave --keep or the variant out.")
    if spec.params.get("exactness") == "near":
        raise UsageError("--keep selects exactly. Leave --keep out, or the exactness.")
    if engine != "local":
        raise UsageError(f"--keep selects in this process. Leave --engine {engine} out.")


class Keeper:
    """Embeds and selects like :func:`icl_select.embed` and :func:`icl_select.select`, going on from a file if it fits.

    Centring moves all rows whenever the pool grows, so the mean of the first run stays the origin.

    Parameters
    ----------
    path : Path
        Read where it exists, and written after the selection.
    method : str
        max_herding, checked by :func:`check_keep`.
    given : sequence of int
        Rows that are labelled.
    embed : callable
        Embeds a pool, as :func:`icl_select.embed`.
    """

    def __init__(self, path: Path, method: str, given: Sequence[int], embed: Callable[..., Embeddings]) -> None:
        params = parse(method).params
        self.path = path
        self.kernel: dict[str, Any] = {key: params[key] for key in ("kernel", "bandwidth") if key in params}
        self.given = frozenset(given)
        self._embed = embed
        self._growing: GrowingSelection | None = None

    def embed(self, pool: Pool, encoder: Encoder, *, centre: bool, cache: Any) -> Embeddings:
        """Embed, with the origin of the file if that is gone on from."""
        from icl_select.embedding import pool_mean
        from icl_select.growing import GrowingSelection

        plain = self._embed(pool, encoder, centre=False, cache=cache)
        if self.path.exists():
            x, problem = self._gone_on(plain, centre)
            if x is not None:
                return x
            remark(f"{problem} Selecting anew, and writing {self.path} anew.")
        origin = pool_mean(plain.vectors) if centre else None
        x = _moved(plain, origin)
        self._growing = GrowingSelection(**self.kernel, origin=origin)
        self._growing.add(x.vectors)
        return x

    def _gone_on(self, plain: Embeddings, centre: bool) -> tuple[Embeddings | None, str]:
        """The rows as the file has them; or nothing, and why it does not fit.

        A file that is no such file is an error that goes up: what else it is must not be written over.
        """
        from icl_select.growing import GrowingSelection

        origin = GrowingSelection.read_origin(self.path)
        if (origin is not None) != centre:
            return None, f"{self.path} was kept {'without' if centre else 'with'} --centre."
        if origin is not None and origin.shape != plain.shape[1:]:
            return None, f"{self.path} was kept for rows of dimension {len(origin)}, not {plain.shape[1]}."
        x = _moved(plain, origin)
        try:
            growing = GrowingSelection.load(self.path, x.vectors, **self.kernel)
        except (EmbeddingError, ParameterError) as exc:
            return None, str(exc)
        lost = set(growing.labelled.tolist()) - self.given
        if lost:
            return None, f"{len(lost)} rows that were labelled when {self.path} was kept are not labelled now."
        self._growing = growing
        return x, ""

    def select(
        self, method: str, x: Embeddings, budget: int, *, given: Sequence[int], seed: int, progress: bool
    ) -> Selection:
        """Select. What is long is told by bars, if asked for."""
        assert self._growing is not None  # embed comes first
        known = set(self._growing.labelled.tolist())
        self._growing.label(sorted(set(given) - known))
        picked = self._growing.pick(budget, progress=progress)
        return replace(picked, method=str(parse(method)), seed=seed)

    def write(self) -> None:
        """Write the file. Last of all: what cannot be written takes no picks with it."""
        assert self._growing is not None
        self._growing.save(self.path)


def _moved(x: Embeddings, origin: npt.NDArray[np.float64] | None) -> Embeddings:
    if origin is None:
        return x
    from icl_select.embedding import Embeddings

    return Embeddings((x.vectors - origin).astype(x.vectors.dtype), x.encoder, x.truncated, origin, x.cache)
