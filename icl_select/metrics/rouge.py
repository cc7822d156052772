"""ROUGE-L, by the package rouge-score."""

from __future__ import annotations

import functools
import re
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from icl_select.types import FloatArray

__all__ = ["rouge_l", "rouge_lsum"]

# A sentence ends at a mark of its end, with closing quotes or brackets, before a blank.
_SENTENCE_END = re.compile(r"(?<=[.!?…。！？])([\"'”’)\]]*)\s+")
_WORD = re.compile(r"\w+")


class _UnicodeWords:
    """Words of any script in lower case; the package's own tokenizer keeps a-z and 0-9 only."""

    def tokenize(self, text: str) -> list[str]:
        return _WORD.findall(text.casefold())


class _Remembering:
    """Words of the texts seen last: a campaign scores the same texts in many pairs, and stemming costs most."""

    def __init__(self, tokenize: Callable[[str], list[str]]) -> None:
        self._words = functools.lru_cache(maxsize=8192)(lambda text: tuple(tokenize(text)))

    def tokenize(self, text: str) -> list[str]:
        return list(self._words(text))


@functools.cache
def _scorer(kind: str, stemmer: bool, ascii_words: bool) -> Any:
    from rouge_score.rouge_scorer import RougeScorer

    if ascii_words:
        from rouge_score.tokenizers import DefaultTokenizer

        return RougeScorer([kind], tokenizer=_Remembering(DefaultTokenizer(use_stemmer=stemmer).tokenize))
    return RougeScorer([kind], tokenizer=_UnicodeWords())


def rouge_l(
    predictions: Sequence[str], references: Sequence[str], *, stemmer: bool = True, ascii_words: bool = True
) -> FloatArray:
    """F-measure of the longest common subsequence of words (sentence-level ROUGE-L).

    Parameters
    ----------
    predictions, references : sequence of str
    stemmer : bool, default=True
        Compare Porter stems, as published for XSum. English only.
    ascii_words : bool, default=True
        Words are runs of a-z and 0-9, as in the reference implementation: text in other scripts scores 0. False
        takes the words of any script, without stemming.

    Returns
    -------
    ndarray of shape (n,), float64
        From 0 to 1; 0 where either text has no word.

    Notes
    -----
    Computed by ``rouge-score``, Google's reference implementation (last release 2022, pure Python; its stemmer is
    that of the maintained ``nltk``, which needs no download for it). Newer packages either wrap it, need torch, or
    score differently. Where summaries have several sentences, published tables often mean :func:`rouge_lsum`.

    References
    ----------
    .. [1] Lin, "ROUGE: A Package for Automatic Evaluation of Summaries", 2004.

    Examples
    --------
    >>> rouge_l(["the cat sat"], ["the cats were sitting"]).round(3).tolist()
    [0.571]
    """
    scorer = _scorer("rougeL", stemmer, ascii_words)
    pairs = zip(predictions, references, strict=True)
    return np.array([float(scorer.score(r, p)["rougeL"].fmeasure) for p, r in pairs])


def rouge_lsum(
    predictions: Sequence[str], references: Sequence[str], *, stemmer: bool = True, ascii_words: bool = True
) -> FloatArray:
    """F-measure of the union of longest common subsequences over sentences (summary-level ROUGE-L).

    As :func:`rouge_l`, but both texts are first split into sentences: at line breaks, and after ``.``, ``!``,
    ``?`` and their like before a blank. No sentence model is downloaded; abbreviations ("Dr. No") do split, in
    both texts alike.

    Parameters
    ----------
    predictions, references : sequence of str
    stemmer, ascii_words : bool, default=True
        As in :func:`rouge_l`.

    Returns
    -------
    ndarray of shape (n,), float64
        From 0 to 1; 0 where either text has no word.
    """
    scorer = _scorer("rougeLsum", stemmer, ascii_words)
    pairs = zip(predictions, references, strict=True)
    return np.array([float(scorer.score(_lines(r), _lines(p))["rougeLsum"].fmeasure) for p, r in pairs])


def _lines(text: str) -> str:
    return _SENTENCE_END.sub(r"\1\n", text)
