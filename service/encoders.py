"""The encoders that this service offers, loaded once and told apart from those it does not."""

from __future__ import annotations

import functools
from collections.abc import Callable

from icl_select.embedding import Encoder, load_encoder
from icl_select.errors import ParameterError, suggest
from icl_select.registry import parse

from .loads import Loads
from .settings import Settings

__all__ = ["Encoders", "check_encoder"]

# Models in memory at once: pools may ask for the same model with other parameters, as often as they like.
_MODELS = 8
# A vector of so many numbers for each item is what hashing can be asked for.
_HASH_DIM = 16_384


def check_encoder(name: str | None, settings: Settings) -> str:
    """The encoder to use, by its canonical name.

    Raises
    ------
    ParameterError
        For one that is not offered: a name that comes over the network must not make the service fetch a model or read
        a folder.
    """
    if name is None:
        return settings.encoders[0]
    if name in settings.encoders:
        return name
    try:
        kind = parse(name).name
    except ParameterError:
        kind = name
    if kind not in settings.encoders or "(" not in name:
        raise ParameterError(
            f"the encoder {name!r} is not offered here.{suggest(kind, settings.encoders)} Whoever runs the service can "
            "offer more: icl-select serve --encoders."
        )
    spec = parse(name)
    if "model" in spec.params:
        raise ParameterError(f"the encoder {name!r} names a model of its own. Use one that is offered by its name.")
    encoder = load_encoder(name)  # parameters are checked; no model is loaded by this
    if kind == "hash" and encoder.dim > _HASH_DIM:
        raise ParameterError(f"the encoder {name!r} makes vectors of {encoder.dim:,} numbers; {_HASH_DIM:,} may be.")
    return str(spec)


# Queries in one call of the model.
_TOGETHER = 8


class Encoders(Loads[Encoder]):
    """The encoders of this process. Threads share it.

    Parameters
    ----------
    make : callable, optional
        The encoder of a name; it is loaded here. Default: :func:`icl_select.embedding.load_encoder`.
    """

    def __init__(self, make: Callable[[str], Encoder] = load_encoder) -> None:
        super().__init__(functools.partial(_loaded, make), _MODELS)
        self._hashing = functools.lru_cache(maxsize=64)(make)

    def ready(self, name: str) -> Encoder | None:
        """The encoder of a name, if it can encode without being loaded first."""
        if _kind(name) == "hash":  # there is nothing to load, so there is nothing to wait for
            return self._hashing(name)
        return super().ready(name)


def _loaded(make: Callable[[str], Encoder], name: str) -> Encoder:
    encoder = make(name)
    load = getattr(encoder, "load", None)
    if load is not None:
        load()
    # Queries that wait together differ in length, and a batch takes as long as its longest: few of like length at a
    # time waste least, and on a processor lose next to nothing.
    if getattr(encoder, "batch_size", 0) > _TOGETHER:
        encoder.batch_size = _TOGETHER  # type: ignore[attr-defined]
    return encoder


def _kind(name: str) -> str:
    return name.partition("(")[0].strip()
