"""What a campaign consists of: every cell with the key of all that determines it, before anything is computed."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from icl_select import __version__, registry
from icl_select._fingerprint import fingerprint, seed_from

from .config import Campaign
from .draws import Draw, make_draws
from .prompting import tokenizer_of
from .store import CellName
from .tasks import TaskData

if TYPE_CHECKING:
    from icl_select.embedding import Encoder
    from icl_select.score import Scorer

__all__ = ["PROTOCOL", "Job", "Missing", "TaskPlan", "not_applicable", "plan_task"]

PROTOCOL = 2
"""Raised whenever the same configuration and data would give other cells."""

FACTS = 2
"""Raised whenever the records about texts (density, duplicates, leaks) take another form."""


@dataclass(frozen=True)
class Job:
    """One selection and the cells that follow from it: task x method x draw x repeat, all budgets."""

    task: str
    method: str
    draw: int
    repeat: int
    seed: int
    budgets: tuple[int, ...]
    selection_keys: tuple[str, ...]
    cell_keys: tuple[str, ...]

    def name(self, budget: int) -> CellName:
        """The cell of one budget."""
        return CellName(self.task, self.method, self.draw, self.repeat, budget)

    def cells(self) -> Iterator[tuple[CellName, str]]:
        """Every cell with its key."""
        for budget, key in zip(self.budgets, self.cell_keys, strict=True):
            yield self.name(budget), key

    def selection_key(self, budget: int) -> str:
        """Key of the selection at one budget."""
        return self.selection_keys[self.budgets.index(budget)]


Missing = Mapping[str, Sequence[tuple[Job, frozenset[int]]]]
"""Task -> jobs with the budgets that are still to be computed."""


@dataclass(frozen=True, eq=False)
class TaskPlan:
    """A task with its rows, draws and jobs; ``skipped`` says why it has no jobs."""

    data: TaskData
    draws: tuple[Draw, ...]
    jobs: tuple[Job, ...]
    texts_key: str
    skipped: str | None = None

    @property
    def name(self) -> str:
        """Name of the task."""
        return self.data.task.name

    def cells(self) -> Iterator[tuple[CellName, str]]:
        """Every cell of the task with its key."""
        for job in self.jobs:
            yield from job.cells()


def not_applicable(task_reasons: Any, scorer: str) -> str | None:
    """Why a scorer has nothing to predict on a task, or None."""
    reason = task_reasons.get(registry.parse(scorer).name)
    return None if reason is None else f"not applicable: {reason}"


def plan_task(campaign: Campaign, data: TaskData, encoder: Encoder, scorer: Scorer) -> TaskPlan:
    """Lay out the cells of one task."""
    task = data.task
    skipped = not_applicable(task.not_applicable, campaign.scorer)
    if skipped is not None:
        return TaskPlan(data, (), (), "", skipped)
    draws = tuple(make_draws(campaign, data))
    space = [PROTOCOL, __version__, encoder.fingerprint, campaign.centre]
    scoring = {
        "task": task.protocol(),
        "options": data.options_key,
        "retrieval": campaign.retrieval.model_dump(mode="json"),
        "scorer": scorer.name,
        "versions": dict(scorer.versions),
        "protocol": campaign.protocol,
        "prompt": _prompt_key(campaign, scorer) if scorer.needs_prompt else None,
    }
    jobs = tuple(job for draw in draws for job in _jobs(campaign, task.name, draw, space, scoring))
    texts_key = fingerprint(
        *space, FACTS, campaign.leak_threshold, [[d.text_key, d.pool_key, d.test_key] for d in draws]
    )
    return TaskPlan(data, draws, jobs, texts_key)


def _prompt_key(campaign: Campaign, scorer: Scorer) -> dict[str, Any]:
    """What prompts depend on beside task and retrieval."""
    return {**campaign.prompt.model_dump(mode="json"), "tokenizer": tokenizer_of(campaign, scorer).fingerprint}


def _jobs(campaign: Campaign, task: str, draw: Draw, space: Sequence[Any], scoring: Mapping[str, Any]) -> Iterator[Job]:
    """The jobs of one draw, every method in turn."""
    for method in campaign.methods:
        for repeat in range(campaign.random_repeats if method == campaign.baseline else 1):
            # 53 bits: the seed survives JSON readers that hold numbers as doubles.
            seed = seed_from(campaign.seed, task, method, draw.number, repeat) >> 75
            asks = [draw.pool_key, scoring] if registry.asks_feedback(method) else []
            picked = [[*space, draw.text_key, method, seed, budget, *asks] for budget in campaign.budgets]
            yield Job(
                task=task,
                method=method,
                draw=draw.number,
                repeat=repeat,
                seed=seed,
                budgets=tuple(campaign.budgets),
                selection_keys=tuple(fingerprint(*parts) for parts in picked),
                cell_keys=tuple(fingerprint(*parts, draw.pool_key, draw.test_key, scoring) for parts in picked),
            )
