"""The answers of one unit: what is retrieved for each query, how it is asked, and what the answer is worth."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from icl_select.errors import DataError
from icl_select.metrics import METRICS
from icl_select.registry import parse
from icl_select.retrieve import Retriever
from icl_select.score import ModelScorer, Scorer, uncertainty
from icl_select.types import (
    Demonstration,
    Example,
    Feedback,
    FloatArray,
    IntArray,
    Prediction,
    Prompt,
    Retrieved,
    ScoreItem,
    Selection,
)

from .prompting import Prompting, prompting_of
from .store import ItemResult

if TYPE_CHECKING:
    from .work import Unit

__all__ = ["Cell", "Desk", "waves"]


@dataclass(eq=False)
class Cell:
    """One selection at one budget, with what was retrieved for every test item and, later, what was answered."""

    budget: int
    selection: Selection
    found: list[tuple[Demonstration, ...]]
    prompting: Prompting | None
    first: list[ScoreItem] = field(default_factory=list)
    results: dict[int, ItemResult] = field(default_factory=dict)


def waves(test: Sequence[Example], previous: Sequence[str | None]) -> list[list[int]]:
    """Positions of the test items in the order in which they can be asked, those of one wave at once.

    An item that needs the prediction of another comes in a later wave.

    Examples
    --------
    >>> turns = [Example("a1", ""), Example("a2", ""), Example("b1", ""), Example("b2", "")]
    >>> waves(turns, [None, "a1", None, "b1"])
    [[0, 2], [1, 3]]
    """
    place = {example.id: i for i, example in enumerate(test)}
    depth: dict[int, int] = {}

    def rank(i: int) -> int:
        chain = []
        at: int | None = i
        while at is not None and at not in depth:
            if at in chain:
                raise DataError(f"test item {test[at].id!r} follows itself. Mend the numbers of the turns.")
            chain.append(at)
            before = previous[at]
            at = None if before is None else place.get(before)
        start = -1 if at is None else depth[at]
        for step, member in enumerate(reversed(chain), start=1):
            depth[member] = start + step
        return depth[i]

    for i in range(len(test)):
        rank(i)
    return [[i for i in range(len(test)) if depth[i] == level] for level in range(max(depth.values(), default=-1) + 1)]


class Desk:
    """Where the queries of one unit are asked. What it remembers saves time and changes no result."""

    def __init__(self, unit: Unit, scorer: Scorer) -> None:
        self.unit = unit
        self.scorer = scorer
        task = unit.task
        self._previous = [task.previous(example) if task.previous else None for example in unit.test]
        _check_whole(unit.test, self._previous)
        self._waves = waves(unit.test, self._previous)
        self._known: dict[tuple[str, str], float] = {}

    # Laying out ---------------------------------------------------------------------------------------------

    def cell(self, budget: int, selection: Selection) -> Cell:
        """Retrieve for every test item; with a language model, build the prompts that need no earlier answer."""
        found = self._retrieve(selection.indices, self.unit.queries, self.unit.test)
        cell = Cell(budget, selection, found, self._prompting(found))
        if self.scorer.needs_prompt and self._waves:
            cell.first = [self._item(cell, i, self.unit.test[i]) for i in self._waves[0]]
        return cell

    def _prompting(self, found: Sequence[Sequence[Demonstration]]) -> Prompting | None:
        if not self.scorer.needs_prompt:
            return None
        shown = Counter(demonstration.id for row in found for demonstration in row)
        return prompting_of(self.unit.campaign, self.unit.task, self.scorer, frequency=shown)

    def _retrieve(
        self, labelled: IntArray, queries: FloatArray, examples: Sequence[Example]
    ) -> list[tuple[Demonstration, ...]]:
        unit, settings = self.unit, self.unit.campaign.retrieval
        rows = [unit.pool[i] for i in labelled]
        retriever = Retriever(unit.x[labelled], [row.id for row in rows], [str(row.label) for row in rows])
        hits = retriever.retrieve(
            queries,
            settings.k,
            query_ids=[example.id for example in examples],
            mmr=settings.mmr,
            balance=settings.balance,
            min_similarity=settings.min_similarity,
        )
        return [_demonstrations(rows, hit, with_fields=self.scorer.needs_prompt) for hit in hits]

    def _item(self, cell: Cell, i: int, example: Example) -> ScoreItem:
        return self._ask(example, cell.found[i], cell.prompting)

    def _ask(self, example: Example, shown: tuple[Demonstration, ...], prompting: Prompting | None) -> ScoreItem:
        """What the scorer sees of one query."""
        task = self.unit.task
        choices = task.choices_of(example)
        if prompting is None:
            return ScoreItem(example.id, shown, choices)
        wanted: frozenset[str] = getattr(self.scorer, "reads", frozenset())
        return ScoreItem(
            example.id,
            shown,
            choices,
            prompting.prompt(shown, example),
            prefix=task.prefix,
            decoding=task.decoding_of(self.unit.campaign.protocol),
            content_free=prompting.content_free(shown, example) if "content_free" in wanted else (),
            premise=task.premise if "premise" in wanted else None,
        )

    # Asking -------------------------------------------------------------------------------------------------

    def answer(self, cells: Sequence[Cell]) -> list[list[ItemResult]]:
        """Ask for every test item of these cells, wave by wave; one list of results per cell."""
        predictions: list[dict[str, str]] = [{} for _ in cells]
        for level, positions in enumerate(self._waves):
            asked = [
                list(self._wave(cell, level, positions, known)) for cell, known in zip(cells, predictions, strict=True)
            ]
            answers = iter(self.scorer.score([item for items in asked for _, item in items]))
            for cell, items, known in zip(cells, asked, predictions, strict=True):
                pairs = [(example, item, next(answers)) for example, item in items]
                for i, result in zip(positions, self._results(cell, pairs), strict=True):
                    cell.results[i] = result
                    known[result.item_id] = result.prediction
        return [[cell.results[i] for i in range(len(self.unit.test))] for cell in cells]

    def _wave(
        self, cell: Cell, level: int, positions: Sequence[int], known: dict[str, str]
    ) -> Iterator[tuple[Example, ScoreItem]]:
        """The items of one wave with the predictions of the wave before in them."""
        for place, i in enumerate(positions):
            example, before = self.unit.test[i], self._previous[i]
            if level == 0:
                yield example, cell.first[place] if cell.first else self._item(cell, i, example)
                continue
            assert before is not None
            assert self.unit.task.carry is not None
            carried = self.unit.task.carry(example, known[before])
            yield carried, self._item(cell, i, carried)

    def _results(self, cell: Cell, asked: Sequence[tuple[Example, ScoreItem, Prediction]]) -> list[ItemResult]:
        outputs = [self._output(cell, example, answer) for example, _, answer in asked]
        references = [self.unit.task.reference(example) for example, _, _ in asked]
        values = self._measure(outputs, references)
        return [
            _result(item, answer, output, reference, value)
            for (_, item, answer), output, reference, value in zip(asked, outputs, references, values, strict=True)
        ]

    def _output(self, cell: Cell, example: Example, answer: Prediction) -> str:
        """What an answer says: text that a model wrote is read first; a label or a copied output is as it is."""
        text = answer.output
        if cell.prompting is not None and self.unit.task.choices_of(example) is None:
            text = cell.prompting.read(text, example)
        return self.unit.task.finish(text, example)

    def _measure(self, outputs: Sequence[str], references: Sequence[str]) -> list[float]:
        """The metric of every pair; equal pairs recur in many cells and are measured once."""
        pairs = list(zip(outputs, references, strict=True))
        new = [pair for pair in dict.fromkeys(pairs) if pair not in self._known]
        if new:
            metric = METRICS[self.unit.task.metric].per_item
            values = metric([pair[0] for pair in new], [pair[1] for pair in new], **self.unit.metric_options)
            self._known.update(zip(new, np.asarray(values, dtype=np.float64).tolist(), strict=True))
        return [self._known[pair] for pair in pairs]

    # What a method may ask ----------------------------------------------------------------------------------

    def feedback(self, method: str) -> Feedback:
        """How unsure the model is of every pool row, prompted from the rows labelled so far.

        A row is never shown to itself. What a dialogue's earlier turns hold is taken from the pool as it is.
        """
        variant = str(parse(method).params.get("variant", "paper"))

        def ask(labelled: IntArray) -> FloatArray:
            assert isinstance(self.scorer, ModelScorer)  # the plan refuses others
            found = self._retrieve(labelled, self.unit.x, self.unit.pool)
            prompting = self._prompting(found)
            items = [self._ask(row, shown, prompting) for row, shown in zip(self.unit.pool, found, strict=True)]
            return uncertainty(self.scorer.score(items), items, variant=variant)

        return ask


def _check_whole(test: Sequence[Example], previous: Sequence[str | None]) -> None:
    """An item whose predecessor is missing would silently start from the gold state."""
    ids = {example.id for example in test}
    for example, before in zip(test, previous, strict=True):
        if before is not None and before not in ids:
            raise DataError(
                f"test item {example.id!r} needs the prediction for {before!r}, which is not among the test items. Add "
                "the missing turns, or leave the dialogue out."
            )


def _demonstrations(rows: Sequence[Example], hits: Retrieved, *, with_fields: bool) -> tuple[Demonstration, ...]:
    return tuple(
        Demonstration(rows[i].id, str(rows[i].label), float(similarity), rows[i].fields if with_fields else {})
        for i, similarity in zip(hits.rows, hits.similarities, strict=True)
    )


def _result(item: ScoreItem, answer: Prediction, output: str, reference: str, value: float) -> ItemResult:
    prompt: Prompt | None = item.prompt
    shown = prompt.examples if prompt is not None else item.demonstrations
    asked: dict[str, Any] = {}
    if prompt is not None:
        info = answer.info
        tokens = info.get("tokens")
        asked = {
            "prompt_tokens": info.get("prompt_tokens", prompt.tokens),
            "n_dropped": len(prompt.dropped),
            "response": None if answer.scores else answer.output,
            "choice_scores": tuple(answer.scores.values()) or None,
            "answer_tokens": sum(tokens) if isinstance(tokens, (list, tuple)) else tokens,
            "truncated": bool(info.get("truncated", False)) or bool(prompt.info.get("truncated", False)),
            "finished": info.get("finished"),
        }
    return ItemResult(
        item_id=item.id,
        prediction=output,
        reference=reference,
        score=value,
        demo_ids=tuple(one.id for one in shown),
        demo_scores=tuple(one.similarity for one in shown),
        **asked,
    )
