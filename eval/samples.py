"""Per-item results in the layout of lm-evaluation-harness: one JSON line per item of every cell."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from icl_select._files import atomic_write
from icl_select._fingerprint import fingerprint
from icl_select.types import Example

from .plan import TaskPlan
from .store import Cell, RunFolder

__all__ = ["write_samples"]


def write_samples(store: RunFolder, plans: Sequence[TaskPlan]) -> list[Path]:
    """Write ``samples/samples_<task>.jsonl`` for every task; returns the files."""
    written = []
    for plan in plans:
        if plan.skipped is not None:
            continue
        path = store.path / "samples" / f"samples_{plan.name}.jsonl"
        lines = [json.dumps(line, ensure_ascii=False, sort_keys=True) for line in _lines(store, plan)]
        atomic_write(path, ("\n".join(lines) + "\n").encode("utf-8", "backslashreplace"))
        written.append(path)
    return written


def _lines(store: RunFolder, plan: TaskPlan) -> Iterator[dict[str, Any]]:
    position = {name: i for i, name in enumerate(plan.data.test.ids)}
    for job in plan.jobs:
        for name, key in job.cells():
            cell = store.read_cell(name, key)
            record = {
                "task": name.task,
                "method": name.method,
                "budget": name.budget,
                "draw": name.draw,
                "repeat": name.repeat,
                "draw_seed": job.seed,
                "selection_id": job.selection_key(name.budget),
                "metric": plan.data.task.metric,
            }
            for row in _rows(cell):
                at = position[row["item_id"]]
                yield {**record, **_sample(plan, plan.data.test[at], at, row)}


def _rows(cell: Cell) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = cell.table.to_pylist()
    return rows


def _sample(plan: TaskPlan, example: Example, at: int, row: dict[str, Any]) -> dict[str, Any]:
    doc = {"id": example.id, "text": example.text, "label": example.label}
    return {
        "doc_id": at,
        "doc": doc,
        "target": row["reference"],
        "arguments": [],
        "resps": [[row["prediction"] if row["response"] is None else row["response"]]],
        "filtered_resps": [row["prediction"]],
        plan.data.task.metric: row["score"],
        "demo_ids": row["demo_ids"],
        "demo_scores": row["demo_scores"],
        "n_shots_effective": row["n_shots"],
        "prompt_tokens": row["prompt_tokens"],
        "n_dropped": row["n_dropped"],
        "truncated": bool(row["truncated"]),
        "finished": row["finished"],
        "choice_scores": row["choice_scores"],
        "answer_tokens": row["answer_tokens"],
        "doc_hash": fingerprint(doc),
        "target_hash": fingerprint(row["reference"]),
    }
