"""The work of one draw of one task: select, retrieve, score, write. Runs in this process or in another."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from icl_select.errors import IclSelectError
from icl_select.methods import select
from icl_select.metrics import METRICS
from icl_select.prompt import PromptTemplate, Tokenizer, load_tokenizer, pack
from icl_select.retrieve import Retriever
from icl_select.score import Scorer, load_scorer
from icl_select.types import Demonstration, Example, FloatArray, Prompt, Retrieved, ScoreItem, Selection

from .config import Campaign
from .plan import Job
from .store import CellName, ItemResult, RunFolder
from .tasks import Task

__all__ = ["Unit", "compute"]


@dataclass(frozen=True, eq=False)
class Unit:
    """One draw of one task with everything that its cells need; small enough to be sent to another process."""

    folder: Path
    campaign: Campaign
    task: Task
    draw: int
    pool: Sequence[Example]
    test: Sequence[Example]
    x: FloatArray
    queries: FloatArray
    metric_options: Mapping[str, Any]
    jobs: Sequence[tuple[Job, frozenset[int]]]

    @property
    def n_cells(self) -> int:
        """Cells to compute."""
        return sum(len(budgets) for _, budgets in self.jobs)


@dataclass(eq=False)
class _Bench:
    """What the cells of a unit share; nothing in it changes a result."""

    unit: Unit
    store: RunFolder
    scorer: Scorer
    pool_ids: list[str]
    template: PromptTemplate
    tokenizer: Tokenizer | None
    known_scores: dict[tuple[str, str], float] = field(default_factory=dict)


def compute(unit: Unit, on_cell: Callable[[CellName], object] | None = None) -> int:
    """Compute and write the missing cells of a unit; returns how many.

    Every cell is written as soon as it is known, whole or not at all, and depends on nothing but the unit: so
    it does not matter in which process, in which order or after how many interruptions it is computed.
    """
    scorer = load_scorer(unit.campaign.scorer)
    bench = _Bench(
        unit=unit,
        store=RunFolder(unit.folder),
        scorer=scorer,
        pool_ids=[example.id for example in unit.pool],
        template=unit.task.template,
        tokenizer=load_tokenizer(unit.campaign.prompt.tokenizer) if scorer.needs_prompt else None,
    )
    for job, missing in unit.jobs:
        try:
            selections = _selections(bench, job, missing)
            for budget in sorted(missing):
                items = _score(bench, selections[budget])
                name = job.name(budget)
                picks = [bench.pool_ids[i] for i in selections[budget].indices]
                bench.store.write_cell(name, job.cell_keys[job.budgets.index(budget)], picks, items)
                if on_cell is not None:
                    on_cell(name)
        except IclSelectError as exc:
            raise type(exc)(f"task {job.task}, method {job.method}, draw {job.draw}: {exc}") from exc
    return unit.n_cells


def _selections(bench: _Bench, job: Job, missing: frozenset[int]) -> dict[int, Selection]:
    """Selections for the missing budgets: one at the largest budget and its prefixes where picks are nested."""
    largest = _selection(bench, job, max(job.budgets))
    if largest.nested:
        return {budget: largest.prefix(budget) for budget in missing}
    return {budget: largest if budget == len(largest) else _selection(bench, job, budget) for budget in missing}


def _selection(bench: _Bench, job: Job, budget: int) -> Selection:
    name, key = job.name(budget), job.selection_key(budget)
    stored = bench.store.read_selection(name, key, bench.pool_ids)
    if stored is not None:
        return stored
    picked = select(job.method, bench.unit.x, budget, seed=job.seed)
    bench.store.write_selection(name, key, picked, bench.pool_ids)
    return picked


def _score(bench: _Bench, selection: Selection) -> list[ItemResult]:
    """Retrieve demonstrations for every test item, ask the scorer, and measure each answer."""
    unit, settings = bench.unit, bench.unit.campaign.retrieval
    rows = [unit.pool[i] for i in selection.indices]
    retriever = Retriever(unit.x[selection.indices], [row.id for row in rows], [str(row.label) for row in rows])
    found = retriever.retrieve(
        unit.queries,
        settings.k,
        query_ids=[example.id for example in unit.test],
        mmr=settings.mmr,
        balance=settings.balance,
        min_similarity=settings.min_similarity,
    )
    items, prompts = [], []
    for example, hits in zip(unit.test, found, strict=True):
        demonstrations = _demonstrations(rows, hits, with_fields=bench.scorer.needs_prompt)
        prompt = _prompt(bench, demonstrations, example) if bench.scorer.needs_prompt else None
        prompts.append(prompt)
        items.append(ScoreItem(example.id, demonstrations, unit.task.choices_of(example), prompt))
    answers = bench.scorer.score(items)
    outputs = [unit.task.finish(answer.output, e) for answer, e in zip(answers, unit.test, strict=True)]
    references = [unit.task.reference(example) for example in unit.test]
    values = _measure(bench, outputs, references)
    return [
        ItemResult(
            item_id=item.id,
            prediction=output,
            reference=reference,
            score=value,
            demo_ids=tuple(shown.id for shown in (prompt.examples if prompt else item.demonstrations)),
            demo_scores=tuple(shown.similarity for shown in (prompt.examples if prompt else item.demonstrations)),
            prompt_tokens=prompt.tokens if prompt else None,
            n_dropped=len(prompt.dropped) if prompt else None,
        )
        for item, prompt, output, reference, value in zip(items, prompts, outputs, references, values, strict=True)
    ]


def _demonstrations(rows: Sequence[Example], hits: Retrieved, *, with_fields: bool) -> tuple[Demonstration, ...]:
    return tuple(
        Demonstration(rows[i].id, str(rows[i].label), float(similarity), rows[i].fields if with_fields else {})
        for i, similarity in zip(hits.rows, hits.similarities, strict=True)
    )


def _measure(bench: _Bench, outputs: list[str], references: list[str]) -> list[float]:
    """The metric of every pair; equal pairs recur in many cells and are measured once."""
    pairs = list(zip(outputs, references, strict=True))
    new = [pair for pair in dict.fromkeys(pairs) if pair not in bench.known_scores]
    if new:
        metric = METRICS[bench.unit.task.metric].per_item
        values = metric([pair[0] for pair in new], [pair[1] for pair in new], **bench.unit.metric_options)
        bench.known_scores.update(zip(new, np.asarray(values, dtype=np.float64).tolist(), strict=True))
    return [bench.known_scores[pair] for pair in pairs]


def _prompt(bench: _Bench, demonstrations: tuple[Demonstration, ...], example: Example) -> Prompt:
    task, settings = bench.unit.task, bench.unit.campaign.prompt
    return pack(
        bench.template,
        demonstrations,
        example,
        max_tokens=settings.max_tokens or task.max_tokens,
        tokenizer=bench.tokenizer,
        order=bench.unit.campaign.retrieval.order,
        seed=bench.unit.campaign.seed,
        rule=settings.rule,
        max_demonstration_tokens=task.max_demonstration_tokens if settings.rule == "published" else None,
    )
