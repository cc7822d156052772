"""How unsure a model was of its answers: what full Vote-k asks for."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from icl_select.errors import FeedbackError, ModelError, UnknownNameError, suggest
from icl_select.types import FloatArray, Prediction, ScoreItem

__all__ = ["UNCERTAINTY_VARIANTS", "uncertainty"]

UNCERTAINTY_VARIANTS = ("paper", "official")


def uncertainty(predictions: Sequence[Prediction], items: Sequence[ScoreItem], *, variant: str = "paper") -> FloatArray:
    """How unsure the model was of each item, whatever the scoring rule; larger is less confident.

    Parameters
    ----------
    predictions : sequence of Prediction, length n
        What a :class:`ModelScorer` answered.
    items : sequence of ScoreItem, length n
        What it was asked, in the same order.
    variant : {"paper", "official"}, default="paper"
        Which measure generated texts get; label words have one measure.

    Returns
    -------
    ndarray of shape (n,), float64
        With label words: the smallest mean negative log-likelihood of a token over the choices, in nats.
        Generated text, "paper": minus the mean log-probability of its tokens, in nats. "official": minus the sum of
        the probabilities of its tokens, as the published code does for summaries. There a larger sum counts as more
        confident, though it grows with the length of the text; it is no log-probability.

    Raises
    ------
    FeedbackError
        If the two sequences do not belong together.
    ModelError
        If the model gave no log-probabilities.
    UnknownNameError
        For an unknown variant.

    References
    ----------
    .. [1] Su et al., "Selective Annotation Makes Language Models Better Few-Shot Learners", ICLR 2023, and the
       authors' code.

    Examples
    --------
    >>> answer = Prediction("q", "a summary", {}, {"mean_logprob": -0.5, "probability_sum": 1.3})
    >>> uncertainty([answer], [ScoreItem("q", ())]).tolist()
    [0.5]
    >>> uncertainty([answer], [ScoreItem("q", ())], variant="official").tolist()
    [-1.3]
    """
    if variant not in UNCERTAINTY_VARIANTS:
        raise UnknownNameError(f"unknown variant {variant!r} of uncertainty.{suggest(variant, UNCERTAINTY_VARIANTS)}")
    if [prediction.id for prediction in predictions] != [item.id for item in items]:
        raise FeedbackError(
            f"{len(predictions)} predictions do not answer these {len(items)} items in their order. Pass the items "
            "that were scored."
        )
    values = []
    for prediction, item in zip(predictions, items, strict=True):
        summed = variant == "official" and item.choices is None
        value = prediction.info.get("probability_sum" if summed else "mean_logprob")
        if value is None:
            raise ModelError(
                f"the scorer gave no log-probability with its answer to item {item.id!r}, so it cannot say how unsure "
                "it is. Use an engine that gives log-probabilities (vllm, transformers), or a method that does not "
                "ask the model, such as vote_k(stage='graph')."
            )
        values.append(-float(value))
    return np.array(values, dtype=np.float64)
