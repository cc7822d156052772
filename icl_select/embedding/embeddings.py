"""From texts to a matrix: every text once, out of the cache where it can be, centred if asked."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol, runtime_checkable

import numpy as np
import numpy.typing as npt

from icl_select._fingerprint import fingerprint, fingerprint_array
from icl_select.embedding._encoding import CacheChoice, EncodeBatches, encode_once
from icl_select.embedding.encoder import Encoder, Vectors, check_texts
from icl_select.embedding.load import load_encoder
from icl_select.errors import DataError, EmbeddingError
from icl_select.types import BoolArray

__all__ = ["Embeddings", "embed", "pool_mean"]


@runtime_checkable
class _Texts(Protocol):
    """What a pool looks like from here."""

    @property
    def texts(self) -> Sequence[str]: ...

    @property
    def ids(self) -> Sequence[str]: ...


@dataclass(frozen=True, eq=False)
class Embeddings:
    """Vectors of a pool, with what is needed to put queries into the same space.

    Works as an array: ``np.asarray(e)``, ``len(e)``, ``e.shape``, ``e[i]``.

    Attributes
    ----------
    vectors : ndarray of shape (n, d), float32
        One row per text; `shift` subtracted if there is one; not brought to unit norm.
    encoder : Encoder
        What encoded them.
    truncated : ndarray of shape (n,), bool
        Texts that were longer than the encoder reads.
    shift : ndarray of shape (d,), float64, or None
        What was subtracted from every row, and is from every query.
    """

    vectors: Vectors
    encoder: Encoder
    truncated: BoolArray
    shift: npt.NDArray[np.float64] | None = None
    cache: CacheChoice = field(default=None, repr=False)

    def __post_init__(self) -> None:
        for name in ("vectors", "truncated", "shift"):
            array = getattr(self, name)
            if array is not None:
                view = array.view()
                view.setflags(write=False)
                object.__setattr__(self, name, view)

    def __len__(self) -> int:
        return len(self.vectors)

    def __getitem__(self, item: Any) -> Any:
        return self.vectors[item]

    def __array__(self, dtype: npt.DTypeLike | None = None, copy: bool | None = None) -> npt.NDArray[Any]:
        return np.array(self.vectors, dtype=dtype, copy=copy)

    @property
    def shape(self) -> tuple[int, int]:
        """Number of texts and length of a vector."""
        n, d = self.vectors.shape
        return n, d

    @property
    def fingerprint(self) -> str:
        """Hash of the vectors, of the encoder and of the shift."""
        shift = None if self.shift is None else fingerprint_array(self.shift)
        return fingerprint(self.encoder.fingerprint, fingerprint_array(self.vectors), shift)

    def queries(self, texts: Any, progress: bool = False) -> Vectors:
        """Encode query texts into the same space: same encoder, same cache, same shift.

        Parameters
        ----------
        texts : Pool or sequence of str
        progress : bool, default=False
            Show a bar on stderr.

        Returns
        -------
        ndarray of shape (q, d), float32
            Not brought to unit norm.

        Raises
        ------
        DataError
            If a text is empty or no string.
        EmbeddingError
            If the encoder gives another dimension than for the pool, NaN or infinity.
        ModelError
            If the model cannot be loaded or run.
        StoreError
            If the cache cannot be read or written.
        """
        items, ids = _items(texts)
        if not items:
            return np.empty((0, self.shape[1]), dtype=np.float32)
        vectors = encode_once(check_texts(items, ids), self.encoder, self.cache, progress).vectors
        if vectors.shape[1] != self.shape[1]:
            raise EmbeddingError(
                f"the encoder {self.encoder.name} gave queries of dimension {vectors.shape[1]} for a pool of dimension "
                f"{self.shape[1]}. Embed the pool again with the same encoder."
            )
        return vectors if self.shift is None else _shifted(vectors, self.shift)

    def centred(self) -> Embeddings:
        """Return the same texts with their mean subtracted from every row and, later, from every query.

        Returns
        -------
        Embeddings
        """
        return self.subset(np.arange(len(self)), centre=True)

    def subset(self, indices: Any, *, centre: bool = False) -> Embeddings:
        """Return some of the rows, in the order asked for.

        Parameters
        ----------
        indices : array-like of int, or of bool of length n
            As numpy indexes rows.
        centre : bool, default=False
            Make the mean of these rows the new origin, for them and for queries; else the origin stays where it is.

        Returns
        -------
        Embeddings
        """
        vectors, shift = self.vectors[indices], self.shift
        if centre:
            mean = pool_mean(vectors)
            vectors, shift = _shifted(vectors, mean), mean if shift is None else shift + mean
        return Embeddings(vectors, self.encoder, self.truncated[indices], shift, self.cache)


def pool_mean(vectors: Any) -> npt.NDArray[np.float64]:
    """Mean over the rows, which centres a pool and its queries.

    Parameters
    ----------
    vectors : array-like of shape (n, d)
        At least one row.

    Returns
    -------
    ndarray of shape (d,), float64
        Accumulated in float64.

    Raises
    ------
    EmbeddingError
        If the array is not 2-D, or has no row.
    """
    array = np.asarray(vectors)
    if array.ndim != 2 or not len(array):
        raise EmbeddingError(
            f"the mean of an array of shape {array.shape} was asked for. Pass an (n, d) array, n >= 1."
        )
    mean: npt.NDArray[np.float64] = array.mean(axis=0, dtype=np.float64)
    return mean


def embed(
    texts: Any,
    encoder: str | Encoder = "minilm",
    *,
    centre: bool = True,
    cache: CacheChoice = None,
    progress: bool = True,
    run: EncodeBatches | None = None,
) -> Embeddings:
    """Turn the texts of a pool into vectors.

    Parameters
    ----------
    texts : Pool or sequence of str
        What to embed: a pool gives its texts. Equal texts are encoded once.
    encoder : str or Encoder, default="minilm"
        An encoder, or a name that :func:`load_encoder` reads: ``"minilm"``, ``"hash"``, a hub id with or without
        ``@revision``, the path of a model folder.
    centre : bool, default=True
        Subtract the mean of the pool from every row; :meth:`Embeddings.queries` subtracts the same. Embeddings of
        one kind of text share a direction that carries no information; without it, cosines spread out. The
        published code of Vote-k, IDEAL and Sub-SA centres too; that of MaxHerding does not.
    cache : path or False, optional
        Folder of the on-disk cache; by default ``$ICS_CACHE_DIR``, else ``$XDG_CACHE_HOME/icl-select``, else
        ``~/.cache/icl-select``. False keeps nothing. Finished work is stored every two batches, so that an
        interrupted run goes on from there.
    progress : bool, default=True
        Show a bar on stderr while texts are being encoded.

    run : callable, optional
        Encodes the batches of texts that the cache lacks, ``run(encoder, batches)``; in this process if left out.

    Returns
    -------
    Embeddings
        ``vectors`` of shape (n, d) float32, one row per text, in order.

    Raises
    ------
    DataError
        If there are no texts, or one is empty or no string.
    EmbeddingError
        If the encoder returns NaN or infinity, or vectors of changing dimension.
    ModelError
        If the model cannot be found, loaded or run.
    StoreError
        If the cache cannot be read or written.

    Examples
    --------
    >>> x = embed(["the app crashes", "my card was declined"], "hash(dim=64)", cache=False, progress=False)
    >>> x.shape
    (2, 64)
    >>> x.queries(["the app crashed again"]).shape
    (1, 64)
    """
    items, ids = _items(texts)
    if not items:
        raise DataError("there are no texts to embed: the pool is empty. Pass at least one text.")
    chosen = load_encoder(encoder) if isinstance(encoder, str) else encoder
    encoded = encode_once(check_texts(items, ids), chosen, cache, progress, run)
    whole = Embeddings(encoded.vectors, chosen, encoded.truncated, None, cache)
    return whole.centred() if centre else whole


def _items(texts: Any) -> tuple[Any, Sequence[str] | None]:
    if isinstance(texts, _Texts):
        return list(texts.texts), texts.ids
    return (texts if isinstance(texts, (str, bytes)) or not hasattr(texts, "__iter__") else list(texts)), None


def _shifted(vectors: Vectors, shift: npt.NDArray[np.float64]) -> Vectors:
    return (vectors - shift).astype(np.float32)
