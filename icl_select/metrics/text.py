"""Metrics that compare strings."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence

import numpy as np

from icl_select.types import FloatArray

__all__ = ["accuracy", "exact_match", "normalise"]

_ARTICLES = re.compile(r"\b(?:a|an|the)\b")


def accuracy(predictions: Sequence[str], references: Sequence[str]) -> FloatArray:
    """1 where the prediction is the reference, letter by letter; 0 elsewhere.

    For label words, which a scorer gives back as they are. To forgive case and blanks, use :func:`exact_match`.

    Parameters
    ----------
    predictions, references : sequence of str
        One for each item.

    Returns
    -------
    ndarray of shape (n,), float64
    """
    return np.array([float(p == r) for p, r in zip(predictions, references, strict=True)])


def normalise(text: str) -> str:
    """Bring an answer to the form in which :func:`exact_match` compares it.

    Compatibility forms and case are folded, punctuation becomes a blank, the English articles a, an, the go, and
    blanks run together. Symbols that are no punctuation ($, +, <) stay; an answer of punctuation and articles alone
    (such as "?") is compared as it is.

    Parameters
    ----------
    text : str

    Returns
    -------
    str

    Examples
    --------
    >>> normalise(" The Eiffel-Tower, Paris. ")
    'eiffel tower paris'
    """
    folded = unicodedata.normalize("NFKC", text).casefold()
    words = "".join(" " if unicodedata.category(letter).startswith("P") else letter for letter in folded)
    short = " ".join(_ARTICLES.sub(" ", words).split())
    return short or folded.strip()


def exact_match(
    predictions: Sequence[str], references: Sequence[str | Sequence[str]], *, normalised: bool = True
) -> FloatArray:
    """1 where the prediction is the reference, or one of its aliases, after :func:`normalise`.

    Parameters
    ----------
    predictions : sequence of str
    references : sequence of str or sequence of str
        The right answer of each item, or all of its right answers.
    normalised : bool, default=True
        Compare normalised answers; False compares letter by letter.

    Returns
    -------
    ndarray of shape (n,), float64

    Examples
    --------
    >>> exact_match(["The Louvre.", "Rome"], [["louvre", "musée du Louvre"], "Paris"]).tolist()
    [1.0, 0.0]
    """
    form = normalise if normalised else str
    values = []
    for prediction, reference in zip(predictions, references, strict=True):
        aliases = [reference] if isinstance(reference, str) else reference
        values.append(float(form(prediction) in {form(alias) for alias in aliases}))
    return np.array(values)
