"""A baseline without a language model: the labelled neighbours vote."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from icl_select import __version__
from icl_select._validation import check_int
from icl_select.errors import LabelError, UnknownNameError, suggest
from icl_select.registry import Spec
from icl_select.types import Demonstration, Prediction, ScoreItem

__all__ = ["WEIGHTINGS", "KnnScorer"]

WEIGHTINGS = ("similarity", "uniform")


class KnnScorer:
    """The k-nearest-neighbour baseline. It is no language model and reads no prompt.

    With label words, the demonstrations vote for their labels; without, the output of the nearest demonstration
    is copied. It shows what selection and retrieval alone are worth.

    Parameters
    ----------
    k : int, optional
        How many of the nearest demonstrations vote; None means all. ``k=1`` is the one-nearest-neighbour
        classifier of the MaxHerding paper.
    weighting : {"similarity", "uniform"}, default="similarity"
        Weight of a vote: the cosine similarity, 0 where it is negative (a neighbour that points away is no
        evidence against its label), or 1.

    Attributes
    ----------
    name : str
        "knn".
    spec : str
        The name with parameters, such as ``knn(k=5)``; :func:`load_scorer` reads it back.

    Raises
    ------
    ParameterError, UnknownNameError
        If `k` is below 1, or the weighting is not known.

    Notes
    -----
    Equal votes, also when all weights are 0, go to the label with the nearest demonstration; among equally near
    demonstrations the earlier counts as nearer. Votes are summed exactly, so that their order cannot decide.
    An item without demonstrations gets the empty prediction, with ``info["empty"]`` saying why; metrics score it
    with their default and count it.

    Examples
    --------
    >>> near, far = Demonstration("1", "refund", 0.9), Demonstration("2", "login", 0.4)
    >>> item = ScoreItem("q", (near, far), choices=("login", "refund"))
    >>> answer = KnnScorer().score([item])[0]
    >>> answer.output, round(answer.scores["login"], 3)
    ('refund', 0.308)
    """

    name = "knn"
    needs_prompt = False

    def __init__(self, k: int | None = None, weighting: str = "similarity") -> None:
        self.k = None if k is None else check_int(k, name="k", low=1)
        if weighting not in WEIGHTINGS:
            raise UnknownNameError(f"unknown weighting {weighting!r}.{suggest(weighting, WEIGHTINGS)}")
        self.weighting = weighting

    @property
    def spec(self) -> str:
        """Name with parameters; those that have their default are left out."""
        params: dict[str, object] = {} if self.k is None else {"k": self.k}
        if self.weighting != "similarity":
            params["weighting"] = self.weighting
        return str(Spec(self.name, params))

    @property
    def versions(self) -> Mapping[str, str]:
        """That of this package, and the parameters."""
        return {"icl-select": __version__, "scorer": self.spec}

    def score(self, items: Sequence[ScoreItem]) -> list[Prediction]:
        """Return one prediction for each item, in their order.

        Classification: ``scores`` holds the share of the votes of every choice (0 if no vote has weight).
        Generation: ``info["copied_from"]`` is the id of the demonstration whose output is copied.

        Parameters
        ----------
        items : sequence of ScoreItem

        Returns
        -------
        list of Prediction, of the length of `items`

        Raises
        ------
        LabelError
            If a demonstration bears a label that is not among the choices of the item.
        """
        return [self._answer(item) for item in items]

    def _answer(self, item: ScoreItem) -> Prediction:
        # Stable: among equals the earlier stays nearer.
        nearest = sorted(item.demonstrations, key=lambda shown: -shown.similarity)
        if not nearest:
            scores = dict.fromkeys(item.choices or (), 0.0)
            return Prediction(item.id, "", scores, {"empty": "no demonstrations"})
        if item.choices is None:
            return Prediction(item.id, nearest[0].label, {}, {"copied_from": nearest[0].id})
        return self._vote(item, item.choices, nearest[: self.k])

    def _vote(self, item: ScoreItem, choices: Sequence[str], voters: Sequence[Demonstration]) -> Prediction:
        votes: dict[str, list[float]] = {choice: [] for choice in choices}
        for shown in voters:
            if shown.label not in votes:
                raise LabelError(
                    f"demonstration {shown.id!r} bears the label {shown.label!r}, which is not one of the choices of "
                    f"item {item.id!r} ({', '.join(map(repr, choices))}). knn votes for labels, so every item needs "
                    "the same label words; for outputs that differ from item to item pass no choices."
                )
            votes[shown.label].append(1.0 if self.weighting == "uniform" else max(shown.similarity, 0.0))
        totals = {choice: math.fsum(weights) for choice, weights in votes.items()}
        most = max(totals.values())
        output = next(shown.label for shown in voters if totals[shown.label] == most)
        whole = math.fsum(weight for weights in votes.values() for weight in weights)
        scores = {choice: total / whole if whole else 0.0 for choice, total in totals.items()}
        return Prediction(item.id, output, scores, {"voters": len(voters)})
