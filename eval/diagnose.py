"""What a reader should know about the texts of a task: duplicates, leaks, truncation, density, majority rate."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from icl_select.data import duplicates, leaks
from icl_select.density import density

from .config import Campaign
from .plan import TaskPlan

if TYPE_CHECKING:
    from icl_select.embedding import Embeddings

__all__ = ["diagnose", "used_rows"]


def used_rows(plan: TaskPlan) -> tuple[list[int], list[int]]:
    """Pool rows and test items that any draw uses, in file order; nothing else is embedded."""
    pool = sorted({int(i) for draw in plan.draws for i in draw.pool})
    test = sorted({int(i) for draw in plan.draws for i in draw.test})
    return pool, test


def diagnose(campaign: Campaign, plan: TaskPlan, x_pool: Embeddings, x_test: Embeddings) -> dict[str, Any]:
    """Look at the texts that the draws use; rows of both embeddings are those of :func:`used_rows`, uncentred."""
    rows, items = used_rows(plan)
    pool, test = plan.data.pool.subset(rows), plan.data.test.subset(items)
    leak = leaks(pool, test, x_pool.vectors, x_test.vectors, threshold=campaign.leak_threshold)
    twins = duplicates(pool, x_pool.vectors, threshold=campaign.leak_threshold)
    space = x_pool.centred() if campaign.centre else x_pool
    return {
        "about": _about(plan),
        "density": density(space.vectors, seed=campaign.seed).to_dict(),
        "duplicates": {**twins.to_dict(), "summary": twins.summary()},
        "leaks": {**leak.to_dict(), "summary": leak.summary()},
        "truncation": {
            "max_tokens": x_pool.encoder.max_tokens,
            "pool": _cut(x_pool),
            "test": _cut(x_test),
        },
    }


def _about(plan: TaskPlan) -> dict[str, Any]:
    """Sizes, and what always naming the commonest label of the test items would score."""
    data = plan.data
    about: dict[str, Any] = {
        "source": data.source,
        "metric": data.task.metric,
        "notes": data.task.notes,
        "n_pool_file": len(data.pool),
        "n_test_file": len(data.test),
        "n_pool_draw": len(plan.draws[0].pool),
        "n_test_draw": len(plan.draws[0].test),
        "n_choices": None if data.task.choices is None else len(data.task.choices),
        "majority_label": None,
        "majority_rate": None,
    }
    if data.task.choices is not None:
        _, items = used_rows(plan)
        counts = Counter(_labels(data.test.labels, items))
        label = min(counts, key=lambda word: (-counts[word], word))
        about.update(majority_label=label, majority_rate=counts[label] / sum(counts.values()))
    return about


def _labels(labels: Sequence[str | None], items: Sequence[int]) -> list[str]:
    return [str(labels[i]) for i in items]


def _cut(x: Embeddings) -> dict[str, Any]:
    n = len(x.truncated)
    cut = int(np.count_nonzero(x.truncated))
    return {"n": n, "truncated": cut, "share": cut / n if n else 0.0}
