"""Scoring rules: from log-probabilities of the choices to the scores that are compared.

A rule sees one item at a time: ``values`` and ``tokens`` of shape (c,), the summed log-probabilities of the choices
after the prompt and their numbers of tokens; ``reference`` of shape (r, c) holds the same sums after r other prompts,
for the rules that ask for them. It returns the scores, shape (c,); the largest wins, the first of equals.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np

from icl_select.types import FloatArray, IntArray

__all__ = ["RULES", "Rule", "contextual", "mean", "pmi", "total"]


def mean(values: FloatArray, tokens: IntArray, reference: FloatArray) -> FloatArray:
    """Mean log-probability of a choice's tokens: ``log p(y | x) / tokens(y)``.

    The published rule [1]_, length-normalised; what stands between prompt and choice is scored with it.

    References
    ----------
    .. [1] Su et al., "Selective Annotation Makes Language Models Better Few-Shot Learners", ICLR 2023; the format is
       that of Min et al., "MetaICL: Learning to Learn In Context", NAACL 2022.

    Examples
    --------
    >>> mean(np.array([-2.0, -3.0]), np.array([1, 3]), np.empty((0, 2))).tolist()
    [-2.0, -1.0]
    """
    out: FloatArray = values / tokens
    return out


def total(values: FloatArray, tokens: IntArray, reference: FloatArray) -> FloatArray:
    """Log-probability of the whole choice: ``log p(y | x)``.

    Examples
    --------
    >>> total(np.array([-2.0, -3.0]), np.array([1, 3]), np.empty((0, 2))).tolist()
    [-2.0, -3.0]
    """
    return values


def contextual(values: FloatArray, tokens: IntArray, reference: FloatArray) -> FloatArray:
    """Contextual calibration [1]_: divide by what the model says of the same prompt with a meaningless query.

    With ``q(y | x) = p(y | x) / sum over choices y' of p(y' | x)``, and ``q0(y)`` the mean of ``q(y | x0)`` over the
    content-free prompts ``x0``, the score is ``log(q(y | x) / q0(y))``, shifted so that the exponentials sum to 1.
    This is their ``W = diag(q0)^-1, b = 0``. A content-free prompt itself scores all choices alike.

    References
    ----------
    .. [1] Zhao, Wallace, Feng, Klein and Singh, "Calibrate Before Use: Improving Few-Shot Performance of Language
       Models", ICML 2021.

    Examples
    --------
    The model prefers the first choice 3 : 1 whatever it reads, and 3 : 2 here, which speaks for the second:

    >>> scores = contextual(np.log([0.3, 0.2]), np.array([1, 1]), np.log([[0.6, 0.2]]))
    >>> np.exp(scores).round(3).tolist()
    [0.333, 0.667]
    """
    shares = reference - np.logaddexp.reduce(reference, axis=1, keepdims=True)
    # Of the mean only the sum is needed, and of the shares here only the values: factors fall out at the end.
    raised = values - np.logaddexp.reduce(shares, axis=0)
    out: FloatArray = raised - np.logaddexp.reduce(raised)
    return out


def pmi(values: FloatArray, tokens: IntArray, reference: FloatArray) -> FloatArray:
    """Domain-conditional pointwise mutual information [1]_: ``log p(y | x) - log p(y | premise)``.

    The premise announces an answer of this domain and nothing else, so that a choice wins by what the prompt adds
    to it, not by being frequent.

    References
    ----------
    .. [1] Holtzman, West, Shwartz, Choi and Zettlemoyer, "Surface Form Competition: Why the Highest Probability
       Answer Isn't Always Right", EMNLP 2021.

    Examples
    --------
    >>> pmi(np.array([-2.0, -5.0]), np.array([1, 1]), np.array([[-1.0, -7.0]])).tolist()
    [-1.0, 2.0]
    """
    out: FloatArray = values - reference[0]
    return out


@dataclass(frozen=True)
class Rule:
    """A named rule, and which extra fields of a ``ScoreItem`` it reads."""

    scores: Callable[[FloatArray, IntArray, FloatArray], FloatArray]
    reads: frozenset[str] = frozenset()


RULES: Mapping[str, Rule] = {
    "mean": Rule(mean),
    "sum": Rule(total),
    "contextual": Rule(contextual, frozenset({"content_free"})),
    "pmi": Rule(pmi, frozenset({"premise"})),
}
"""Scoring rules by name."""
