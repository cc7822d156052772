"""How long the prompts of a task are, from a seeded sample of real ones: no text is embedded, no model is loaded."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, NamedTuple

import numpy as np

from icl_select._fingerprint import seed_from
from icl_select.prompt import Tokenizer
from icl_select.registry import asks_feedback, parse
from icl_select.score import ModelScorer
from icl_select.score.http_model import HttpModel
from icl_select.types import Decoding, Demonstration, Example, Prompt

from .config import Campaign
from .plan import Job, TaskPlan
from .prompting import Prompting, prompting_of

__all__ = ["SAMPLE", "TaskTokens", "count_task"]

SAMPLE = 64
"""Prompts that are built for each number of demonstrations."""

_CONTEXT = 64


class _Counts(NamedTuple):
    """Tokens of one sampled prompt; `extra` are those of the `extra_prompts` that a calibrated rule adds."""

    prompt: int
    own: int
    longest: int
    scored: int = 0
    written: int = 0
    most_written: int = 0
    extra: int = 0
    extra_prompts: int = 0
    cost: float = 0.0


@dataclass(frozen=True, slots=True)
class TaskTokens:
    """What the cells of one task ask of a language model.

    Attributes
    ----------
    task : str
    cells : int
    prompts : int
        One for each test item of each cell; distinct ones can only be fewer.
    feedback_prompts : int
        One for each pool row wherever a method asks the model while it selects.
    extra_prompts : int
        Those that calibrated scoring rules add.
    prompt_tokens : int
        Of all of these, estimated.
    standard_error : float
        Of `prompt_tokens`, from the sample.
    own_tokens : int
        Part of `prompt_tokens` that belongs to one query alone: what is left if instruction and demonstrations are
        shared with earlier prompts to the last token.
    scored_tokens : int
        Of all label words, with what stands before them.
    written_tokens, most_written_tokens : int
        Generated tokens if answers are as long as the references, and at most.
    longest : int
        Tokens of the longest sampled prompt with its answer.
    sampled : int
        Prompts that were built for this.
    cost : float or None
        At most, at the prices of a model behind a server; None without prices.
    """

    task: str
    cells: int
    prompts: int = 0
    feedback_prompts: int = 0
    extra_prompts: int = 0
    prompt_tokens: int = 0
    standard_error: float = 0.0
    own_tokens: int = 0
    scored_tokens: int = 0
    written_tokens: int = 0
    most_written_tokens: int = 0
    longest: int = 0
    sampled: int = 0
    cost: float | None = None

    @property
    def all_prompts(self) -> int:
        """Prompts of every kind."""
        return self.prompts + self.feedback_prompts + self.extra_prompts

    def to_dict(self) -> dict[str, Any]:
        """The counts as JSON values."""
        return asdict(self)


@dataclass(frozen=True)
class _Group:
    """Prompts of one shape: how many demonstrations, and whether the queries are test items or pool rows."""

    shown: int
    from_pool: bool


def count_task(
    campaign: Campaign,
    plan: TaskPlan,
    jobs: Sequence[tuple[Job, frozenset[int]]],
    scorer: ModelScorer,
    tokenizer: Tokenizer,
    *,
    sample: int = SAMPLE,
) -> TaskTokens:
    """Count prompts exactly and estimate their tokens.

    Parameters
    ----------
    campaign : Campaign
    plan : TaskPlan
    jobs : sequence of (Job, frozenset of int)
        Jobs with the budgets that are to be computed.
    scorer : ModelScorer
    tokenizer : Tokenizer
        Of the model.
    sample : int
        Prompts built for each number of demonstrations; the demonstrations of each are a random part of the pool of
        a random draw, in place of the nearest of a selection.

    Notes
    -----
    The sample depends on the campaign's seed and the task alone.
    """
    cells = sum(len(budgets) for _, budgets in jobs)
    groups = _groups(campaign, plan, jobs)
    totals, variance, longest = dict.fromkeys(_Counts._fields, 0.0), 0.0, 0
    for group, count in sorted(groups.items(), key=lambda pair: (pair[0].from_pool, pair[0].shown)):
        rows = list(_sample(campaign, plan, group, scorer, tokenizer, sample))
        for name, mean in zip(_Counts._fields, np.mean(rows, axis=0), strict=True):
            totals[name] += count * mean
        longest = max(longest, *(row.longest for row in rows))
        read = np.array([row.prompt + row.extra for row in rows], dtype=np.float64)
        variance += (count * read.std(ddof=1)) ** 2 / len(rows) if len(rows) > 1 else 0.0
    return TaskTokens(
        task=plan.name,
        cells=cells,
        prompts=sum(count for group, count in groups.items() if not group.from_pool),
        feedback_prompts=sum(count for group, count in groups.items() if group.from_pool),
        extra_prompts=round(totals["extra_prompts"]),
        prompt_tokens=round(totals["prompt"] + totals["extra"]),
        standard_error=round(math.sqrt(variance), 1),
        own_tokens=round(totals["own"]),
        scored_tokens=round(totals["scored"]),
        written_tokens=round(totals["written"]),
        most_written_tokens=round(totals["most_written"]),
        longest=longest,
        sampled=sample * len(groups),
        cost=totals["cost"] if _priced(scorer) else None,
    )


def _groups(campaign: Campaign, plan: TaskPlan, jobs: Sequence[tuple[Job, frozenset[int]]]) -> Counter[_Group]:
    """How many prompts there are of each shape."""
    draws = {draw.number: draw for draw in plan.draws}
    groups: Counter[_Group] = Counter()
    for job, budgets in jobs:
        for budget in budgets:
            groups[_Group(min(campaign.retrieval.k, budget), from_pool=False)] += len(draws[job.draw].test)
            if asks_feedback(job.method):
                labelled = _labelled_when_asking(job.method, budget)
                shown = min(campaign.retrieval.k, labelled)
                groups[_Group(shown, from_pool=True)] += len(draws[job.draw].pool)
    return groups


def _labelled_when_asking(method: str, budget: int) -> int:
    """Rows labelled when a method asks the model: known for the full Vote-k, else at most the budget."""
    spec = parse(method)
    if spec.name != "vote_k":
        return budget
    first = spec.params.get("first")
    if first is None:
        first = 10 if spec.params.get("variant") == "official" else math.ceil(budget / 10)
    return min(int(str(first)), budget)


def _sample(
    campaign: Campaign, plan: TaskPlan, group: _Group, scorer: ModelScorer, tokenizer: Tokenizer, size: int
) -> Iterator[_Counts]:
    """Token counts of real prompts of one shape."""
    task = plan.data.task
    rng = np.random.default_rng(seed_from(campaign.seed, "estimate", task.name, group.shown, group.from_pool))
    # What is shared is not known before anything is retrieved; the order changes next to nothing of a length.
    prompting = prompting_of(campaign, task, scorer, frequency={})
    for _ in range(size):
        draw = plan.draws[int(rng.integers(len(plan.draws)))]
        rows, pool = (plan.data.pool, draw.pool) if group.from_pool else (plan.data.test, draw.test)
        at = int(rng.choice(pool))
        query = rows[at]
        others = draw.pool[draw.pool != at] if group.from_pool else draw.pool
        picked = [plan.data.pool[int(i)] for i in rng.choice(others, min(group.shown, len(others)), replace=False)]
        yield _counts(campaign, plan, prompting, scorer, tokenizer, picked, query)


def _counts(
    campaign: Campaign,
    plan: TaskPlan,
    prompting: Prompting,
    scorer: ModelScorer,
    tokenizer: Tokenizer,
    picked: Sequence[Example],
    query: Example,
) -> _Counts:
    task, limit = plan.data.task, scorer.model.max_length
    shown = [Demonstration(row.id, str(row.label), 0.0, row.fields) for row in picked]
    prompt, bare = prompting.prompt(shown, query), prompting.prompt((), query)

    def length(text: str, messages: Sequence[Mapping[str, str]]) -> int:
        tokens = tokenizer.count_messages(messages) if scorer.model.chat else tokenizer.count(text)
        return tokens if limit is None else min(tokens, limit)

    tokens = length(prompt.text, prompt.messages)
    instruction = tokenizer.count(task.template.render_instruction(query)) if task.instruction else 0
    own = max(1, length(bare.text, bare.messages) - instruction)
    choices = task.choices_of(query)
    if choices is None:
        decoding = task.decoding_of(campaign.protocol) or Decoding(scorer.max_tokens, scorer.stop)
        written = tokenizer.count(task.reference(query)) - tokenizer.count("")
        most, price = decoding.max_tokens, _cost(scorer, [prompt], None, decoding)
        return _Counts(tokens, own, tokens + most, written=min(written, most), most_written=most, cost=price)
    # What tokens a word is cut into depends on no more than the end of the text before it.
    end, words = prompt.text[-_CONTEXT:], [task.prefix + word for word in choices]
    scored = [max(1, tokenizer.count(end + word) - tokenizer.count(end)) for word in words]
    free = list(prompting.content_free(shown, query)) if "content_free" in scorer.reads else []
    if "premise" in scorer.reads and task.premise is not None:
        free.append(replace(prompt, text=task.premise, messages=({"role": "user", "content": task.premise},)))
    extra = sum(length(one.text, one.messages) for one in free)
    price = _cost(scorer, [prompt, *free], words, None)
    return _Counts(
        tokens,
        own,
        tokens + max(scored),
        scored=sum(scored) * (1 + len(free)),
        extra=extra,
        extra_prompts=len(free),
        cost=price,
    )


def _priced(scorer: ModelScorer) -> bool:
    return isinstance(scorer.model, HttpModel) and scorer.model.estimate([], choices=[]).cost is not None


def _cost(
    scorer: ModelScorer, prompts: Sequence[Prompt], words: Sequence[str] | None, decoding: Decoding | None
) -> float:
    """What a server charges at most, as its model reckons the requests; 0 for a model in this process."""
    if not isinstance(scorer.model, HttpModel):
        return 0.0
    choices = None if words is None else [words] * len(prompts)
    return scorer.model.estimate(prompts, choices=choices, decoding=decoding).cost or 0.0
