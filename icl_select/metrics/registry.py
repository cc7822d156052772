"""Metrics by name, and the rules that hold for all of them."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from icl_select.errors import MetricError, UnknownNameError, suggest
from icl_select.metrics.classes import balanced_accuracy, macro_f1
from icl_select.metrics.dialogue import joint_goal_accuracy
from icl_select.metrics.rouge import rouge_l, rouge_lsum
from icl_select.metrics.sql import sql_execution, sql_flags
from icl_select.metrics.text import accuracy, exact_match
from icl_select.types import FloatArray

__all__ = ["METRICS", "Evaluation", "Metric", "aggregate", "evaluate", "score_items"]


@dataclass(frozen=True)
class Metric:
    """A metric: a value for each item, and how the values become one.

    Attributes
    ----------
    name : str
    score : callable
        ``score(predictions, references, **options) -> (n,)``.
    whole : callable or None
        ``whole(predictions, references, **options) -> float`` for metrics that are no mean over items; their value
        for an item is that of `score` all the same, so that paired tests have something to pair.
    higher_is_better : bool
    default : float
        What a missing or empty prediction scores.
    flags : callable or None
        ``flags(references, **options)``: what is wrong with each reference; empty where nothing is.
    """

    name: str
    score: Callable[..., FloatArray]
    whole: Callable[..., float] | None = None
    higher_is_better: bool = True
    default: float = 0.0
    flags: Callable[..., list[str]] | None = None

    def per_item(self, predictions: Sequence[Any], references: Sequence[Any], **options: Any) -> FloatArray:
        """One value for each item; a missing (None) or blank prediction gets the default whatever the reference.

        Parameters
        ----------
        predictions : sequence
            One for each item; None where missing.
        references : sequence
            One for each item.
        **options
            Of the metric.

        Returns
        -------
        ndarray of shape (n,), float64

        Raises
        ------
        MetricError
            If the lengths differ.
        UnknownNameError
            If the metric has no such option.
        """
        _check_lengths(predictions, references)
        self._check_options(self.score, options)
        values = np.full(len(predictions), self.default)
        there = [pos for pos, prediction in enumerate(predictions) if not _is_empty(prediction)]
        if there:
            values[there] = self.score([predictions[p] for p in there], [references[p] for p in there], **options)
        return values

    def aggregate(
        self,
        predictions: Sequence[Any],
        references: Sequence[Any],
        values: FloatArray | None = None,
        **options: Any,
    ) -> float:
        """One value for all items: the mean of the items' values, or the metric's own.

        Parameters
        ----------
        predictions, references : sequence
        values : ndarray of shape (n,), optional
            What :meth:`per_item` gave, if at hand; saves measuring again.
        **options
            Of the metric.

        Returns
        -------
        float

        Raises
        ------
        MetricError
            If there is no item, the lengths differ, or an option that the metric needs is missing.
        UnknownNameError
            If the metric has no such option.
        """
        _check_lengths(predictions, references)
        if not len(references):
            raise MetricError(f"{self.name} of 0 items is not defined. Pass at least one.")
        if self.whole is not None:
            self._check_options(self.whole, options)
            said = ["" if _is_empty(prediction) else prediction for prediction in predictions]
            return self.whole(said, references, **options)
        return float(np.mean(self.per_item(predictions, references, **options) if values is None else values))

    def _check_options(self, function: Callable[..., Any], options: Mapping[str, Any]) -> None:
        known = list(inspect.signature(function).parameters)[2:]
        for name in options:
            if name not in known:
                raise UnknownNameError(f"metric {self.name!r} has no option {name!r}.{suggest(name, known)}")
        for name, parameter in list(inspect.signature(function).parameters.items())[2:]:
            if parameter.default is parameter.empty and name not in options:
                raise MetricError(f"metric {self.name!r} needs the option {name!r}. Pass {name}=...")


def _is_empty(prediction: Any) -> bool:
    return prediction is None or (isinstance(prediction, str) and not prediction.strip())


def _check_lengths(predictions: Sequence[Any], references: Sequence[Any]) -> None:
    if len(predictions) != len(references):
        raise MetricError(
            f"{len(predictions)} predictions for {len(references)} references. Pass one for each; None where missing."
        )


METRICS: Mapping[str, Metric] = {
    metric.name: metric
    for metric in (
        Metric("acc", accuracy),
        Metric("balanced_accuracy", accuracy, whole=balanced_accuracy),
        Metric("exact_match", exact_match),
        Metric("joint_goal_accuracy", joint_goal_accuracy),
        Metric("macro_f1", accuracy, whole=macro_f1),
        Metric("rouge_l", rouge_l),
        Metric("rouge_lsum", rouge_lsum),
        Metric("sql_execution", sql_execution, flags=sql_flags),
    )
}


@dataclass(frozen=True, eq=False)
class Evaluation:
    """Values of all items, with what a report must say about them.

    Attributes
    ----------
    values : ndarray of shape (n,), float64
    mean : float
        The aggregate (not always a mean: see :class:`Metric`).
    n_empty : int
        Items whose prediction is missing or blank; they scored the default.
    flags : tuple of str, length n
        What is wrong with the reference of an item (a gold query that does not run); empty where nothing is.
    """

    metric: str
    values: FloatArray
    mean: float
    n_empty: int
    flags: tuple[str, ...]

    @property
    def n_flagged(self) -> int:
        """Items with a reference that is itself at fault."""
        return sum(map(bool, self.flags))


def _resolve(metric: str | Metric) -> Metric:
    if isinstance(metric, Metric):
        return metric
    if metric not in METRICS:
        raise UnknownNameError(f"unknown metric {metric!r}.{suggest(metric, METRICS)}")
    return METRICS[metric]


def score_items(
    metric: str | Metric, predictions: Sequence[Any], references: Sequence[Any], **options: Any
) -> FloatArray:
    """Measure each item by itself.

    Parameters
    ----------
    metric : str or Metric
        A name in :data:`METRICS`, or a metric of your own.
    predictions : sequence
        One for each item; None where missing.
    references : sequence
        One for each item.
    **options
        Of the metric, such as ``database`` of "sql_execution".

    Returns
    -------
    ndarray of shape (n,), float64
        A missing or blank prediction has the metric's default, whatever the reference.

    Raises
    ------
    MetricError
        If the lengths differ, an option that the metric needs is missing, or a reference cannot be measured.
    UnknownNameError
        If there is no such metric or option; the nearest one is suggested.

    Examples
    --------
    >>> score_items("acc", ["yes", None, "no"], ["yes", "yes", "yes"]).tolist()
    [1.0, 0.0, 0.0]
    """
    return _resolve(metric).per_item(predictions, references, **options)


def aggregate(metric: str | Metric, predictions: Sequence[Any], references: Sequence[Any], **options: Any) -> float:
    """Measure all items as one: the mean over items, or the metric's own aggregate.

    Parameters
    ----------
    metric : str or Metric
        A name in :data:`METRICS`, or a metric of your own.
    predictions : sequence
        One for each item; None where missing.
    references : sequence
        One for each item.
    **options
        Of the metric, such as ``database`` of "sql_execution".

    Returns
    -------
    float

    Raises
    ------
    MetricError
        If there is no item, the lengths differ, an option that the metric needs is missing, or a reference cannot be
        measured.
    UnknownNameError
        If there is no such metric or option; the nearest one is suggested.

    Examples
    --------
    >>> aggregate("balanced_accuracy", ["a", "a", "a"], ["a", "a", "b"])
    0.5
    """
    return _resolve(metric).aggregate(predictions, references, **options)


def evaluate(metric: str | Metric, predictions: Sequence[Any], references: Sequence[Any], **options: Any) -> Evaluation:
    """Measure each item and all as one, and count what scored by default or has a faulty reference.

    Parameters
    ----------
    metric : str or Metric
        A name in :data:`METRICS`, or a metric of your own.
    predictions : sequence
        One for each item; None where missing.
    references : sequence
        One for each item.
    **options
        Of the metric, such as ``database`` of "sql_execution".

    Returns
    -------
    Evaluation

    Raises
    ------
    MetricError
        If there is no item, the lengths differ, an option that the metric needs is missing, or a reference cannot be
        measured.
    UnknownNameError
        If there is no such metric or option; the nearest one is suggested.

    Examples
    --------
    >>> result = evaluate("acc", ["yes", "", "no"], ["yes", "yes", "yes"])
    >>> round(result.mean, 3), result.n_empty, result.n_flagged
    (0.333, 1, 0)
    """
    chosen = _resolve(metric)
    values = chosen.per_item(predictions, references, **({} if chosen.whole else options))
    flags = [""] * len(references) if chosen.flags is None else chosen.flags(references, **options)
    mean = chosen.aggregate(predictions, references, values, **options)
    return Evaluation(chosen.name, values, mean, sum(map(_is_empty, predictions)), tuple(flags))
