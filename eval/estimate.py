"""What a campaign will cost, before it runs: prompts, tokens, memory, time, money. Every figure is an estimate."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from icl_select.errors import MissingDependencyError, ModelError, ParameterError, StoreError
from icl_select.prompt import load_tokenizer
from icl_select.registry import parse
from icl_select.score import ModelScorer, Scorer
from icl_select.score.http_model import HttpModel

from .config import Campaign
from .footprint import Footprint, measure_model
from .plan import Job, Missing, TaskPlan
from .sampled import TaskTokens, count_task

__all__ = ["DEVICE_FLOPS", "UTILISATION", "Estimate", "Range", "estimate", "measured_speed", "read_speed"]

DEVICE_FLOPS = 312e12
"""Operations a second of an NVIDIA A100 in 16 bit, as its maker states: times that nobody measured are given for it."""

UTILISATION = 0.4
"""Share of them that an engine reaches on long prompts; an assumption."""

_SEQUENCES = 64


@dataclass(frozen=True, slots=True)
class Range:
    """From what is needed at least to what is needed at most."""

    low: float
    high: float


@dataclass(frozen=True)
class Estimate:
    """What a campaign asks for.

    Attributes
    ----------
    tasks : tuple of TaskTokens
    model : str or None
        None for a scorer without a model: then only cells are counted.
    tokenizer : str or None
        What tokens were counted with.
    tokens : Range
        That the engine computes: with all that prompts share read once, and with nothing shared.
    memory : Footprint or None
        Weights, and keys and values of as many sequences as are computed at a time, each as long as the longest of
        the sample. None where the model's configuration is not known.
    seconds : Range or None
        None where neither the size of the model nor a speed is known.
    cost : float or None
        At most, in the currency of the prices; None for models without prices.
    assumptions : tuple of str
        What the figures rest on, and which could not be had.
    """

    tasks: tuple[TaskTokens, ...]
    model: str | None = None
    tokenizer: str | None = None
    tokens: Range = Range(0, 0)
    memory: Footprint | None = None
    seconds: Range | None = None
    cost: float | None = None
    assumptions: tuple[str, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """The estimate as JSON values."""
        return {
            "estimate": True,
            "tasks": [task.to_dict() for task in self.tasks],
            "total": {name: sum(getattr(task, name) for task in self.tasks) for name in _SUMMED},
            "model": self.model,
            "tokenizer": self.tokenizer,
            "tokens": asdict(self.tokens),
            "memory": None if self.memory is None else self.memory.to_dict(),
            "seconds": None if self.seconds is None else asdict(self.seconds),
            "cost": self.cost,
            "assumptions": list(self.assumptions),
        }

    def lines(self) -> list[str]:
        """The estimate for people."""
        from .estimate_text import describe

        return list(describe(self))


_SUMMED = (
    "cells",
    "prompts",
    "feedback_prompts",
    "extra_prompts",
    "prompt_tokens",
    "own_tokens",
    "scored_tokens",
    "written_tokens",
    "most_written_tokens",
)


def estimate(
    campaign: Campaign,
    plans: Sequence[TaskPlan],
    scorer: Scorer,
    *,
    missing: Missing | None = None,
    tokens_per_second: float | None = None,
) -> Estimate:
    """Estimate what a campaign asks of its model; nothing is embedded and no weights are loaded.

    Parameters
    ----------
    campaign : Campaign
    plans : sequence of TaskPlan
        As :func:`icl_select.eval.runner.plan_campaign` lays them out.
    scorer : Scorer
    missing : mapping, optional
        Task -> jobs with the budgets that are still to be computed; None counts the whole campaign.
    tokens_per_second : float, optional
        Tokens that the engine computes in a second, measured: see :func:`measured_speed`. None reckons with the
        size of the model and an assumed device.

    Returns
    -------
    Estimate

    Notes
    -----
    Prompts are counted; their tokens come from a seeded sample of real prompts (about a millisecond for each thousand
    tokens). Answers that are kept already cost nothing, and are counted all the same.
    """
    active = [plan for plan in plans if plan.skipped is None]
    todo = {plan.name: _jobs(plan, missing) for plan in active}
    if not isinstance(scorer, ModelScorer):
        counted = [TaskTokens(name, sum(len(budgets) for _, budgets in jobs)) for name, jobs in todo.items()]
        return Estimate(tuple(counted), assumptions=(f"the scorer {scorer.name} asks no model.",))
    assumptions = list(_ASSUMED)
    name = scorer.model.tokenizer_name
    if name is None:
        name = campaign.prompt.tokenizer or "utf8"
        assumptions.append(f"tokens are those of {name}: the tokenizer of the model is not known.")
    tokenizer = load_tokenizer(name)
    tasks = tuple(count_task(campaign, plan, todo[plan.name], scorer, tokenizer) for plan in active)
    tokens = Range(
        float(sum(t.own_tokens + t.scored_tokens + t.written_tokens for t in tasks)),
        float(sum(t.prompt_tokens + t.scored_tokens + t.most_written_tokens for t in tasks)),
    )
    memory = _memory(campaign, scorer, tasks, assumptions)
    return Estimate(
        tasks=tasks,
        model=scorer.model.name,
        tokenizer=Path(name).name if Path(name).exists() else name,
        tokens=tokens,
        memory=memory,
        seconds=_seconds(tokens, memory, tokens_per_second, assumptions),
        cost=_cost(tasks, assumptions),
        assumptions=tuple(assumptions),
    )


def measured_speed(run_record: Path) -> float:
    """Tokens a second that an engine computed in a previous run.

    Parameters
    ----------
    run_record : Path
        A run folder, or the ``run.json`` in it.

    Raises
    ------
    StoreError
        If it cannot be read, or holds no measurement.
    """
    path = run_record / "run.json" if run_record.is_dir() else run_record
    try:
        usage = json.loads(path.read_text(encoding="utf-8"))["usage"]
        computed = usage["prompt_tokens"] - usage["cached_tokens"] + usage["generated_tokens"]
        if computed <= 0:
            raise ValueError("nothing was computed")
        return float(computed / usage["seconds"])
    except (OSError, ValueError, KeyError, TypeError, ZeroDivisionError) as exc:
        raise StoreError(
            f"{path} holds no measured speed ({type(exc).__name__}: {exc}). Pass the folder of a run that asked a "
            "model, or a number."
        ) from exc


def read_speed(text: str) -> float:
    """Tokens a second as a user states them: a number, or the folder of a previous run with the same model.

    Raises
    ------
    ParameterError
        For a number that is no speed.
    StoreError
        If the run holds no measurement.
    """
    try:
        speed = float(text)
    except ValueError:
        return measured_speed(Path(text))
    if not 0 < speed < math.inf:
        raise ParameterError(f"{text} tokens a second is no speed. Pass a number above 0, or the folder of a run.")
    return speed


_ASSUMED = (
    "prompts are counted, tokens estimated: from a seeded sample of real prompts whose demonstrations are random "
    "instead of nearest.",
    "tokens: at least those of the queries alone (instruction and demonstrations shared to the last token, each read "
    "once at no cost), at most every prompt in full.",
)


def _jobs(plan: TaskPlan, missing: Missing | None) -> Sequence[tuple[Job, frozenset[int]]]:
    if missing is not None:
        return missing.get(plan.name, ())
    return [(job, frozenset(job.budgets)) for job in plan.jobs]


def _memory(
    campaign: Campaign, scorer: ModelScorer, tasks: Sequence[TaskTokens], assumptions: list[str]
) -> Footprint | None:
    """The memory of a model that runs on this machine; where it is not known, why."""
    model, given = scorer.model, parse(campaign.scorer).params
    if isinstance(model, HttpModel):
        assumptions.append("memory: that of the server, not known here.")
        return None
    if model.tokenizer_name is None:
        assumptions.append("memory: not known, like the configuration of the model.")
        return None
    if given.get("quantization") is not None:
        assumptions.append("memory: not known, since the weights are quantised when they are loaded.")
        return None
    sequences = getattr(model, "batch_size", None) or given.get("max_num_seqs")
    if sequences is None:
        sequences = _SEQUENCES
        assumptions.append(f"memory: {_SEQUENCES} sequences at a time are assumed; max_num_seqs sets them.")
    longest = max((task.longest for task in tasks), default=0)
    try:
        return measure_model(
            model.tokenizer_name,
            dtype=str(model.versions.get("dtype", "auto")),
            max_length=longest if model.max_length is None else min(longest, model.max_length),
            sequences=int(str(sequences)),
        )
    except (ModelError, MissingDependencyError) as exc:
        assumptions.append(f"memory: not known. {exc}")
        return None


def _seconds(
    tokens: Range, memory: Footprint | None, tokens_per_second: float | None, assumptions: list[str]
) -> Range | None:
    if tokens_per_second is not None:
        assumptions.append(f"time: {tokens_per_second:,.0f} computed tokens a second, as measured.")
        return Range(tokens.low / tokens_per_second, tokens.high / tokens_per_second)
    if memory is None:
        assumptions.append("time: not known; a measured speed (--tokens-per-second) gives it.")
        return None
    speed = DEVICE_FLOPS * UTILISATION / (2 * memory.parameters)
    assumptions.append(
        f"time: 2 operations per parameter and token, {DEVICE_FLOPS / 1e12:.0f} TFLOP/s (A100, 16 bit) used to "
        f"{UTILISATION:.0%}, attention and small batches left out: no measurement of this machine. "
        "--tokens-per-second takes one."
    )
    return Range(tokens.low / speed, tokens.high / speed)


def _cost(tasks: Sequence[TaskTokens], assumptions: list[str]) -> float | None:
    """The sum over the tasks; None if the model has no prices."""
    prices = [task.cost for task in tasks if task.cost is not None]
    if not prices:
        return None
    assumptions.append("cost: generations as long as allowed, no discount for prompts that a server has cached.")
    return sum(prices)
