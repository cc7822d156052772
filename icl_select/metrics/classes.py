"""Aggregates over classes, computed from pairs of prediction and reference."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from icl_select.errors import MetricError

__all__ = ["balanced_accuracy", "macro_f1"]


def balanced_accuracy(predictions: Sequence[str], references: Sequence[str]) -> float:
    """Mean over the classes of the references of the share of their items that is predicted right.

    Equal to scikit-learn's ``balanced_accuracy_score``. An empty prediction is a wrong one.

    Parameters
    ----------
    predictions, references : sequence of str
        One for each item.

    Returns
    -------
    float
        From 0 to 1.

    Raises
    ------
    MetricError
        If there is no item.

    Examples
    --------
    >>> balanced_accuracy(["a", "a", "a"], ["a", "a", "b"])
    0.5
    """
    counts = Counter(references)
    if not counts:
        raise MetricError("balanced accuracy of 0 items is not defined. Pass at least one.")
    right = Counter(r for p, r in zip(predictions, references, strict=True) if p == r)
    return sum(right[label] / count for label, count in counts.items()) / len(counts)


def macro_f1(predictions: Sequence[str], references: Sequence[str], *, labels: Sequence[str] | None = None) -> float:
    """Mean over the classes of the harmonic mean of precision and recall.

    Parameters
    ----------
    predictions, references : sequence of str
    labels : sequence of str, optional
        The classes to average over. None means every class that occurs in references or predictions, as in
        scikit-learn's ``f1_score(average="macro")``, but an empty prediction is no class: it is a wrong answer.

    Returns
    -------
    float
        From 0 to 1.

    Raises
    ------
    MetricError
        If there is no item.

    Notes
    -----
    A class of `labels` that neither occurs nor is predicted counts 0, as in scikit-learn.

    Examples
    --------
    >>> macro_f1(["a", "a", "a"], ["a", "a", "b"])
    0.4
    """
    if not references:
        raise MetricError("macro F1 of 0 items is not defined. Pass at least one.")
    classes = list(dict.fromkeys([*references, *predictions])) if labels is None else list(labels)
    if labels is None and "" not in references:
        classes = [label for label in classes if label != ""]
    right = Counter(r for p, r in zip(predictions, references, strict=True) if p == r)
    seen, said = Counter(references), Counter(predictions)
    scores = [2 * right[label] / (seen[label] + said[label]) if seen[label] + said[label] else 0.0 for label in classes]
    return sum(scores) / len(scores)
