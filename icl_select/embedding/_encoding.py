"""Encoding each distinct text once, out of the cache where it can be, and keeping what was made."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np

from icl_select.embedding._progress import progress_bar
from icl_select.embedding.cache import VectorCache, default_cache_folder
from icl_select.embedding.encoder import Encoded, Encoder, Vectors
from icl_select.errors import EmbeddingError
from icl_select.types import BoolArray

__all__ = ["CacheChoice", "EncodeBatches", "encode_once"]

_LOG = logging.getLogger(__name__)

CacheChoice = str | Path | bool | None

EncodeBatches = Callable[[Encoder, list[list[str]]], Iterable[tuple[int, Encoded]]]
"""``run(encoder, batches)`` gives the number of each batch and its vectors, as they are ready, in any order."""


def _encode_here(encoder: Encoder, batches: list[list[str]]) -> Iterable[tuple[int, Encoded]]:
    """Encode the batches in this process, one after the other."""
    return enumerate(map(encoder.encode, batches))


def encode_once(
    texts: list[str], encoder: Encoder, cache: CacheChoice, progress: bool, run: EncodeBatches | None = None
) -> Encoded:
    """Encode each distinct text once, out of the cache where it can be."""
    position = {text: i for i, text in enumerate(dict.fromkeys(texts))}
    unique = list(position)
    store = None if cache is False else VectorCache(_folder(cache), encoder)
    vectors, truncated, missing = _stored(unique, store)
    if missing:
        vectors = _encode_missing(unique, missing, vectors, truncated, encoder, store, progress, run)
    rows = np.array([position[text] for text in texts], dtype=np.int64)
    cut = int(truncated[rows].sum())
    if cut:
        _LOG.warning("%d of %d texts are longer than %s reads; their ends do not count", cut, len(texts), encoder.name)
    return Encoded(vectors[rows], truncated[rows])


def _folder(cache: CacheChoice) -> Path:
    return default_cache_folder() if cache is None or isinstance(cache, bool) else Path(cache).expanduser()


def _stored(unique: list[str], store: VectorCache | None) -> tuple[Vectors, BoolArray, list[int]]:
    """What the cache has, in the rows of the whole, and the rows that are missing."""
    truncated = np.zeros(len(unique), dtype=bool)
    if store is None:
        return np.empty((len(unique), 0), dtype=np.float32), truncated, list(range(len(unique)))
    rows, found = store.get(unique)
    vectors = np.empty((len(unique), found.vectors.shape[1]), dtype=np.float32)
    vectors[rows], truncated[rows] = found.vectors, found.truncated
    present = np.zeros(len(unique), dtype=bool)
    present[rows] = True
    missing = np.flatnonzero(~present).tolist()
    if missing:
        store.prepare()
    return vectors, truncated, missing


def _encode_missing(
    unique: list[str],
    missing: list[int],
    vectors: Vectors,
    truncated: BoolArray,
    encoder: Encoder,
    store: VectorCache | None,
    progress: bool,
    run: EncodeBatches | None,
) -> Vectors:
    """Fill the missing rows, longest texts first, storing every two batches as they finish."""
    order = sorted(missing, key=lambda row: -len(unique[row]))
    step = 2 * int(getattr(encoder, "batch_size", 32))
    batches = [order[start : start + step] for start in range(0, len(order), step)]
    texts = [[unique[row] for row in rows] for rows in batches]
    load = getattr(encoder, "load", None)
    if run is None and load is not None:
        load()
    with progress_bar(len(order), encoder.name, progress) as bar:
        for number, encoded in (run or _encode_here)(encoder, texts):
            rows, some = batches[number], texts[number]
            _check_encoded(encoded, some, vectors.shape[1], encoder)
            if store is not None:
                store.put(some, encoded)
            if not vectors.shape[1]:
                vectors = np.empty((len(unique), encoded.vectors.shape[1]), dtype=np.float32)
            vectors[rows], truncated[rows] = encoded.vectors, encoded.truncated
            bar.update(len(rows))
    return vectors


def _check_encoded(encoded: Encoded, texts: list[str], dim: int, encoder: Encoder) -> None:
    shape = encoded.vectors.shape
    if len(shape) != 2 or shape[0] != len(texts) or not shape[1] or (dim and shape[1] != dim):
        wanted = f"({len(texts)}, {dim or 'd'})"
        raise EmbeddingError(f"the encoder {encoder.name} returned shape {shape}, not {wanted}. Repair the encoder.")
    finite = np.isfinite(encoded.vectors).all(axis=1)
    if not finite.all():
        text = texts[int(np.argmin(finite))]
        start = text if len(text) <= 60 else f"{text[:57]}..."
        raise EmbeddingError(
            f"the encoder {encoder.name} returned NaN or infinity for the text {start!r}. Use dtype='float32' (float16 "
            "overflows in many models), or leave that text out."
        )
