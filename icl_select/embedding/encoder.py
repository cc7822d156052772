"""What an encoder is, and one that needs no model: hashed character n-grams."""

from __future__ import annotations

import hashlib
import math
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import numpy as np
import numpy.typing as npt

from icl_select._fingerprint import fingerprint
from icl_select._validation import check_int
from icl_select.errors import DataError
from icl_select.registry import Spec
from icl_select.types import BoolArray

__all__ = ["Encoded", "Encoder", "HashEncoder", "check_texts"]

Vectors = npt.NDArray[np.float32]


@dataclass(frozen=True, eq=False)
class Encoded:
    """What an encoder returns.

    Attributes
    ----------
    vectors : ndarray of shape (n, d), float32
        One row per text, as the model gives it: neither centred nor brought to unit norm here.
    truncated : ndarray of shape (n,), bool
        Whether the text has more tokens than the model reads, so that its end does not count.
    """

    vectors: Vectors
    truncated: BoolArray

    def __len__(self) -> int:
        return len(self.vectors)


@runtime_checkable
class Encoder(Protocol):
    """Turns texts into vectors; the same text gives the same vector, up to float noise.

    ``fingerprint`` must change with everything that changes vectors (model, revision, pooling, dtype, token
    limit) and with nothing else: it is the key of the cache, so it holds no path and no device.

    Three more are used if they are there: ``batch_size``, since :func:`icl_select.embed` stores finished work every
    two batches; ``load()``, which gets ready what takes time before the progress bar starts; and ``concurrent``,
    which is true where several threads may call ``encode`` at once, each on one core, once it is loaded.
    """

    @property
    def name(self) -> str:
        """Short printable name."""

    @property
    def fingerprint(self) -> str:
        """Content hash of everything that changes vectors."""

    @property
    def dim(self) -> int:
        """Length of a vector."""

    @property
    def max_tokens(self) -> int | None:
        """Tokens that the model reads of a text, special tokens included; None if there is no limit."""

    def encode(self, texts: Sequence[str], *, progress: bool = False) -> Encoded:
        """Encode texts, in order."""


def check_texts(texts: Any, ids: Sequence[str] | None = None) -> list[str]:
    """Return `texts` as a list of strings that hold something; DataError names the first that does not."""
    if isinstance(texts, (str, bytes)):
        raise DataError("texts is one string, but a sequence of strings is wanted. Pass [text].")
    try:
        items = list(texts)
    except TypeError as exc:
        raise DataError(f"texts is {type(texts).__name__}, not a sequence of strings. Pass a pool or a list.") from exc
    for i, text in enumerate(items):
        if not isinstance(text, str):
            raise DataError(f"{_where(i, ids)} is {type(text).__name__}, not a string. Convert it, or leave it out.")
        if not text or text.isspace():
            raise DataError(f"{_where(i, ids)} is empty, so there is nothing to embed. Fill it in, or leave it out.")
        try:
            text.encode("utf-8")
        except UnicodeEncodeError as exc:
            raise DataError(
                f"{_where(i, ids)} holds half of a surrogate pair at character {exc.start}, which is no text. "
                "Read the file with the right encoding, or leave it out."
            ) from exc
    return items


def _where(i: int, ids: Sequence[str] | None) -> str:
    return f"text {i}" if ids is None else f"text {i} (id {ids[i]!r})"


_WORD = re.compile(r"\w+")
# How often a word occurs counts as a square root, in quarters; whole numbers add up the same in any order.
_QUARTERS = [round(4 * math.sqrt(count)) for count in range(65)]


_HASH_DEFAULTS = {"dim": 256, "seed": 0}


class HashEncoder:
    """Signed hashing of words and character n-grams: lexical similarity without a model.

    A deterministic stand-in for an embedding model in tests, demos and dry runs, and a lexical baseline. All
    sums are of whole numbers, so a text has the same vector, to the bit, on every machine.

    Parameters
    ----------
    dim : int, default=256
        Length of a vector; hash collisions become rarer as it grows.
    seed : int, default=0
        Another seed is another, equally good, assignment of n-grams to dimensions.

    Notes
    -----
    The features of a word are itself and the 3- to 5-grams of ``<word>``, in lower case; word order does not
    count. Vectors have unit norm and are never zero. There is no token limit.

    Examples
    --------
    >>> x = HashEncoder().encode(["refund my order", "Refunds for my orders", "the app crashes"]).vectors
    >>> bool(x[0] @ x[1] > 0.5 > x[0] @ x[2])
    True
    """

    batch_size = 512

    def __init__(self, dim: int = _HASH_DEFAULTS["dim"], seed: int = _HASH_DEFAULTS["seed"]) -> None:
        self._dim = check_int(dim, name="dim", low=1)
        self._seed = check_int(seed, name="seed", low=0)
        self._salt = hashlib.sha256(str(self._seed).encode()).digest()[: hashlib.blake2b.SALT_SIZE]

    @property
    def name(self) -> str:
        """``hash``, with the parameters that differ from the defaults; reads back with :func:`load_encoder`."""
        given = {"dim": self._dim, "seed": self._seed}
        return str(Spec("hash", {key: value for key, value in given.items() if value != _HASH_DEFAULTS[key]}))

    @property
    def fingerprint(self) -> str:
        """Hash of the recipe and its parameters."""
        return fingerprint({"kind": "hash", "version": 1, "dim": self._dim, "seed": self._seed})

    @property
    def dim(self) -> int:
        """Length of a vector."""
        return self._dim

    @property
    def max_tokens(self) -> None:
        """None: texts of any length are read to the end."""

    def encode(self, texts: Sequence[str], *, progress: bool = False) -> Encoded:
        """Encode texts, in order.

        Parameters
        ----------
        texts : sequence of str
        progress : bool, default=False
            Ignored: there is nothing to wait for.

        Returns
        -------
        Encoded
            ``vectors`` of shape (n, dim) float32; nothing is ever truncated.

        Raises
        ------
        DataError
            If a text is empty or no string.
        """
        items = check_texts(texts)
        out = np.empty((len(items), self._dim), dtype=np.float32)
        known: dict[str, npt.NDArray[np.int64]] = {}
        for row, text in enumerate(items):
            out[row] = self._vector(text, known)
        return Encoded(out, np.zeros(len(items), dtype=bool))

    def _vector(self, text: str, known: dict[str, npt.NDArray[np.int64]]) -> Vectors:
        lower = text.lower()
        total = np.zeros(self._dim, dtype=np.int64)
        # A text of punctuation only is one word.
        for word, count in Counter(_WORD.findall(lower) or [lower]).items():
            if word not in known:
                known[word] = self._word(word)
            total += known[word] * _QUARTERS[min(count, 64)]
        if not total.any():  # every feature met its opposite: give the text a dimension of its own
            total[self._hash(lower) % self._dim] = 1
        return (total / math.sqrt(int(total @ total))).astype(np.float32)

    def _word(self, word: str) -> npt.NDArray[np.int64]:
        marked = f"<{word}>"
        grams = [marked[i : i + n] for n in (3, 4, 5) for i in range(len(marked) - n + 1)]
        hashes = [self._hash(gram) for gram in [word, *grams]]
        vector = np.zeros(self._dim, dtype=np.int64)
        np.add.at(vector, [h % self._dim for h in hashes], [1 if h >> 63 else -1 for h in hashes])
        return vector

    def _hash(self, feature: str) -> int:
        return int.from_bytes(hashlib.blake2b(feature.encode(), digest_size=8, salt=self._salt).digest(), "big")
