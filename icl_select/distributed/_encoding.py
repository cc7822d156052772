"""Batches of texts through a pool of Ray actors, each with an encoder of its own."""

from __future__ import annotations

import copy
import functools
import logging
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np

from icl_select._optional import require
from icl_select.embedding import Encoded, Encoder
from icl_select.errors import IclSelectError

__all__ = ["encode_on_ray"]

# More blocks than this cost the driver more than finer steps of the progress are worth.
_BLOCKS = 1_000


def encode_on_ray(
    encoder: Encoder, batches: list[list[str]], actors: int, gpus: float
) -> Iterable[tuple[int, Encoded]]:
    """Encode batches with Ray Data; gives the number of each and its vectors, as they arrive.

    A batch is encoded whole, as it would be here, so that it does not matter which actor it comes to. Ray starts an
    actor again if its process dies, and gives it the block of batches that it had.
    """
    ray = require("ray", extra="ray", purpose="the engine ray")
    data = require("ray.data", extra="ray", purpose="embedding on Ray")
    items = [{"number": number, "texts": texts} for number, texts in enumerate(batches)]
    blocks = min(len(items), _BLOCKS)
    with _quiet(data):
        encoded = data.from_items(items, override_num_blocks=blocks).map_batches(
            _Encoding,
            fn_constructor_args=(_unloaded(encoder),),
            batch_size=1,
            compute=data.ActorPoolStrategy(size=min(actors, blocks)),
            num_cpus=1,
            num_gpus=gpus,
        )
        try:
            for row in encoded.iter_rows():
                truncated = np.asarray(row["truncated"], dtype=bool)
                vectors = np.frombuffer(row["vectors"], dtype=np.float32).reshape(len(truncated), -1)
                yield int(row["number"]), Encoded(vectors, truncated)
        except ray.exceptions.RayTaskError as exc:
            raise exc.cause from exc
        except ray.exceptions.RayError as exc:
            raise IclSelectError(
                f"embedding on Ray stopped ({exc}). See `ray status`; then embed again: what was finished is in the "
                "cache."
            ) from exc


def _unloaded(encoder: Encoder) -> Encoder:
    """A copy without what it has loaded, which is large and may not travel: each actor loads for itself."""
    fresh = copy.copy(encoder)
    for kind in type(encoder).__mro__:
        for name, attribute in vars(kind).items():
            if isinstance(attribute, functools.cached_property):
                vars(fresh).pop(name, None)
    return fresh


class _Encoding:
    """An actor: loads the encoder once, then encodes what comes."""

    def __init__(self, encoder: Encoder) -> None:
        self._encoder = encoder
        load = getattr(encoder, "load", None)
        if load is not None:
            load()

    def __call__(self, batch: dict[str, Any]) -> dict[str, Any]:
        encoded = self._encoder.encode([str(text) for text in batch["texts"][0]])
        vectors = np.ascontiguousarray(encoded.vectors, dtype=np.float32)
        return {"number": batch["number"], "vectors": [vectors.tobytes()], "truncated": [encoded.truncated]}


@contextmanager
def _quiet(data: Any) -> Iterator[None]:
    """No bars and plans of Ray Data on stderr: the encoder has a bar of its own."""
    context, log = data.DataContext.get_current(), logging.getLogger("ray.data")
    before, level = context.enable_progress_bars, log.level
    context.enable_progress_bars = False
    log.setLevel(logging.ERROR)
    try:
        yield
    finally:
        context.enable_progress_bars = before
        log.setLevel(level)
