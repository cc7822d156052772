"""The work of one draw of one task: select, retrieve, score, write. Runs in this process or in another.

It has two halves, so that one unit can be prepared while an engine still answers for the one before: what needs no
model (selections, retrieval, the first prompts), and what does.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from icl_select.errors import IclSelectError
from icl_select.methods import select
from icl_select.registry import asks_feedback
from icl_select.score import Scorer
from icl_select.types import Example, FloatArray, Selection

from .answering import Cell, Desk
from .config import Campaign
from .plan import Job
from .store import CellName, ItemResult, RunFolder
from .tasks import Task

__all__ = ["Prepared", "Unit", "compute", "finish", "prepare"]


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
class Prepared:
    """A unit with the cells that could be laid out without the model, and the jobs whose methods ask it."""

    unit: Unit
    store: RunFolder
    desk: Desk
    cells: list[tuple[Job, Cell]] = field(default_factory=list)
    asking: list[tuple[Job, frozenset[int]]] = field(default_factory=list)


def compute(unit: Unit, scorer: Scorer, on_cell: Callable[[CellName], object] | None = None) -> int:
    """Compute and write the missing cells of a unit; returns how many.

    Every cell is written whole or not at all and depends on nothing but the unit: so it does not matter in which
    process, in which order or after how many interruptions it is computed.
    """
    return finish(prepare(unit, scorer), on_cell)


def prepare(unit: Unit, scorer: Scorer) -> Prepared:
    """Select and retrieve for every cell whose method does not ask the model, and build the first prompts."""
    work = Prepared(unit, RunFolder(unit.folder), Desk(unit, scorer))
    for job, missing in unit.jobs:
        if asks_feedback(job.method):
            work.asking.append((job, missing))
        else:
            work.cells += _lay_out(work, job, missing)
    return work


def finish(work: Prepared, on_cell: Callable[[CellName], object] | None = None) -> int:
    """Ask the model where methods need it, answer every cell, and write.

    With a language model all cells of the unit are asked together, so that the engine is kept busy and prompts
    with the same demonstrations meet; without, each is written as soon as it is known.
    """
    cells = work.cells + [pair for job, missing in work.asking for pair in _lay_out(work, job, missing)]
    together = work.desk.scorer.needs_prompt
    for group in [cells] if together else [[pair] for pair in cells]:
        with _context(None if together else group[0][0], work.unit):
            answered = work.desk.answer([cell for _, cell in group])
        for (job, cell), items in zip(group, answered, strict=True):
            with _context(job, work.unit):
                _write(work, job, cell, items)
            if on_cell is not None:
                on_cell(job.name(cell.budget))
    return work.unit.n_cells


def _write(work: Prepared, job: Job, cell: Cell, items: Sequence[ItemResult]) -> None:
    picks = [work.unit.pool[i].id for i in cell.selection.indices]
    key = job.cell_keys[job.budgets.index(cell.budget)]
    work.store.write_cell(job.name(cell.budget), key, picks, items, work.desk.scorer.versions)


def _lay_out(work: Prepared, job: Job, missing: frozenset[int]) -> list[tuple[Job, Cell]]:
    """The cells of a job, with their selections and, for a language model, their first prompts."""
    with _context(job, work.unit):
        selections = _selections(work, job, missing)
        return [(job, work.desk.cell(budget, selections[budget])) for budget in sorted(missing)]


@contextmanager
def _context(job: Job | None, unit: Unit) -> Iterator[None]:
    """Say in an error which cell it is about."""
    try:
        yield
    except IclSelectError as exc:
        method = "" if job is None else f", method {job.method}"
        raise type(exc)(f"task {unit.task.name}{method}, draw {unit.draw}: {exc}") from exc


def _selections(work: Prepared, job: Job, missing: frozenset[int]) -> dict[int, Selection]:
    """Selections for the missing budgets: one at the largest budget and its prefixes where picks are nested."""
    largest = _selection(work, job, max(job.budgets))
    if largest.nested:
        return {budget: largest.prefix(budget) for budget in missing}
    return {budget: largest if budget == len(largest) else _selection(work, job, budget) for budget in missing}


def _selection(work: Prepared, job: Job, budget: int) -> Selection:
    name, key = job.name(budget), job.selection_key(budget)
    pool_ids = [example.id for example in work.unit.pool]
    stored = work.store.read_selection(name, key, pool_ids)
    if stored is not None:
        return stored
    feedback = work.desk.feedback(job.method) if asks_feedback(job.method) else None
    picked = select(job.method, work.unit.x, budget, seed=job.seed, feedback=feedback)
    work.store.write_selection(name, key, picked, pool_ids)
    return picked
