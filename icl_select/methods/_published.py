"""What the replays of published code (``variant="official"``) share: its random stream and its rounding."""

from __future__ import annotations

import random

import numpy as np

from icl_select.errors import ParameterError
from icl_select.types import FloatArray

__all__ = ["check_variant", "published_unit_rows", "python_random"]


def check_variant(variant: str) -> bool:
    """Return whether `variant` is "official", or raise ParameterError for anything but the two variants."""
    if variant not in ("paper", "official"):
        raise ParameterError(f"variant={variant!r} is not known. Pass variant='paper' or variant='official'.")
    return variant == "official"


def python_random(rng: np.random.Generator) -> random.Random:
    """Return ``random.Random(seed)`` for the integer seed that `rng` was made from.

    Published code draws from Python's generator, so its stream cannot be had from a numpy Generator; the
    seed itself is needed. ``numpy.random.default_rng(seed)`` keeps it. The state of `rng` plays no part.
    """
    sequence = rng.bit_generator.seed_seq
    entropy = sequence.entropy if isinstance(sequence, np.random.SeedSequence) and not sequence.spawn_key else None
    if not isinstance(entropy, (int, np.integer)):
        raise ParameterError(
            "variant='official' replays Python's random stream and needs the integer seed of its generator, but this "
            "generator was not made from one. Pass an integer seed to select, or rng=numpy.random.default_rng(seed)."
        )
    return random.Random(int(entropy))


def published_unit_rows(x: FloatArray, raw: FloatArray | None) -> FloatArray:
    """Return unit rows in float32, rounded as published code rounds them.

    That code divides each raw row by its float32 norm, which differs in the last bit from the unit rows `x`
    made in float64. Rows of `raw` whose float32 norm over- or underflows are taken from `x`; so are all rows
    if `raw` is None (the method was called directly).
    """
    if raw is None:
        return np.ascontiguousarray(x, dtype=np.float32)
    with np.errstate(over="ignore", under="ignore", invalid="ignore", divide="ignore"):
        rows = raw.astype(np.float32)
        norms = np.sqrt(np.einsum("ij,ij->i", rows, rows))
        unit = rows / norms[:, None]
    sound = (norms > 1e-15) & (norms < 1e15)
    unit[~sound] = x[~sound]
    return np.ascontiguousarray(unit)
