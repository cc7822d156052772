"""A public fake: answers that were written down before."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from icl_select.errors import DataError
from icl_select.types import Prediction, ScoreItem

__all__ = ["TableScorer"]


class TableScorer:
    """Answers each item with what a table holds under its id; for tests, and for answers computed elsewhere.

    Parameters
    ----------
    answers : mapping of str to str
        Item id -> output.
    default : str, optional
        Output for other items. None: they are an error.
    name : str, default="table"
    needs_prompt : bool, default=False
        What to declare; True lets a test go through the prompt stage.

    Examples
    --------
    >>> TableScorer({"q1": "yes"}).score([ScoreItem("q1", ())])[0].output
    'yes'
    """

    def __init__(
        self,
        answers: Mapping[str, str],
        *,
        default: str | None = None,
        name: str = "table",
        needs_prompt: bool = False,
    ) -> None:
        self.answers = dict(answers)
        self.default = default
        self.name = name
        self.needs_prompt = needs_prompt
        self.versions: Mapping[str, str] = {}

    def score(self, items: Sequence[ScoreItem]) -> list[Prediction]:
        """Return one prediction for each item, in their order.

        Parameters
        ----------
        items : sequence of ScoreItem

        Returns
        -------
        list of Prediction, of the length of `items`

        Raises
        ------
        DataError
            If the table has no answer to an item, and there is no default.
        """
        return [Prediction(item.id, self._answer(item.id)) for item in items]

    def _answer(self, id_: str) -> str:
        answer = self.answers.get(id_, self.default)
        if answer is None:
            raise DataError(
                f"the table of {len(self.answers)} answers has none for item {id_!r}. Add it, or a default."
            )
        return answer
