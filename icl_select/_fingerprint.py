"""Content hashes: the same content gives the same name on every machine and in every process."""

from __future__ import annotations

import hashlib
import json
from typing import Any

import numpy as np

from icl_select.types import FloatArray

__all__ = ["fingerprint", "fingerprint_array", "seed_from"]


def _canonical(value: Any) -> bytes:
    text = json.dumps(value, sort_keys=True, ensure_ascii=False, separators=(",", ":"))
    # Lone surrogates are legal in Python strings and in JSON escapes; they must hash, not crash.
    return text.encode("utf-8", "surrogatepass")


def fingerprint(*parts: Any, length: int = 16) -> str:
    """Hash JSON values to a hexadecimal name of `length` characters (4 bits each).

    Parts are delimited, so ``("ab", "c")`` and ``("a", "bc")`` differ; key order of mappings does not count.

    Examples
    --------
    >>> fingerprint("ab", "c") == fingerprint("a", "bc")
    False
    >>> fingerprint({"a": 1, "b": 2}) == fingerprint({"b": 2, "a": 1})
    True
    """
    return hashlib.sha256(_canonical(list(parts))).hexdigest()[:length]


def fingerprint_array(x: FloatArray, length: int = 16) -> str:
    """Hash the shape, dtype and bytes of an array."""
    digest = hashlib.sha256(f"{x.shape}{x.dtype.str}".encode())
    digest.update(np.ascontiguousarray(x).data)
    return digest.hexdigest()[:length]


def seed_from(*parts: Any) -> int:
    """Derive a 128-bit seed from JSON values, for ``numpy.random.default_rng``.

    Seeds of different cells are independent of each other and of how many cells there are.
    """
    return int.from_bytes(hashlib.sha256(_canonical(list(parts))).digest()[:16], "big")
