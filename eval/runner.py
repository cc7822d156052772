"""Running a campaign: what is missing is computed, what is there is kept, and nothing is done twice."""

from __future__ import annotations

import contextlib
import logging
import os
import platform
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from icl_select._cache import default_cache_folder
from icl_select._files import lock_folder
from icl_select.embedding import Embeddings, Encoder, embed, load_encoder
from icl_select.errors import ConfigError
from icl_select.registry import asks_feedback
from icl_select.score import ModelScorer, Scorer, load_scorer
from icl_select.types import FloatArray

from .compare import build_results, results_key
from .config import Campaign
from .design import describe_design
from .diagnose import diagnose, used_rows
from .plan import Job, Missing, TaskPlan, plan_task
from .pool import Crew
from .prompting import check_chat
from .store import RunFolder
from .tasks import Task, check_source, load_task
from .work import Unit

__all__ = ["RunReport", "plan_campaign", "run"]

_LOGGER = logging.getLogger(__name__)

Cache = str | Path | bool | None
Say = Callable[[str], None]


@dataclass(frozen=True)
class RunReport:
    """What a run did.

    Attributes
    ----------
    folder : Path
    results : dict
        Content of ``results.json``.
    n_cells, n_computed : int
        Cells of the campaign, and those that this run had to compute.
    seconds : dict
        Wall time by stage. With several workers, cells are computed while texts are still being embedded.
    """

    folder: Path
    results: dict[str, Any]
    n_cells: int
    n_computed: int
    seconds: Mapping[str, float] = field(default_factory=dict)


def plan_campaign(campaign: Campaign) -> tuple[list[TaskPlan], Encoder]:
    """Read every task and lay out its cells; whatever is wrong with the input is found here, before any work."""
    for entry in campaign.tasks:
        check_source(entry, campaign.data_dir)
    encoder = load_encoder(campaign.encoder)
    scorer = load_scorer(campaign.scorer)
    _check_feedback(campaign, scorer)
    if scorer.needs_prompt:
        check_chat(campaign, scorer)
    data = [load_task(entry, campaign.data_dir) for entry in campaign.tasks]
    for each in data:
        _check_rule(each.task, scorer)
    return [plan_task(campaign, each, encoder, scorer) for each in data], encoder


def _check_feedback(campaign: Campaign, scorer: Scorer) -> None:
    """Methods that ask the model need one that says how sure it is."""
    asking = [method for method in campaign.methods if asks_feedback(method)]
    if asking and not isinstance(scorer, ModelScorer):
        raise ConfigError(
            f"{', '.join(asking)} asks the model how sure it is of every pool text, and the scorer {scorer.name} is no "
            "language model. Use a scorer such as vllm(...) or transformers(...), or leave the method out."
        )


def _check_rule(task: Task, scorer: Scorer) -> None:
    """A calibrated rule needs to know what announces an answer, or what of a query can be emptied."""
    wanted: frozenset[str] = getattr(scorer, "reads", frozenset())
    if task.choices is None and task.item_choices is None:
        return
    if "premise" in wanted and task.premise is None:
        raise ConfigError(
            f"task {task.name}: the scoring rule of {scorer.name} compares with the text that announces an answer, and "
            "the task names none. Give it a premise, such as 'answer:', or use another rule."
        )
    if "content_free" in wanted and not task.blank:
        raise ConfigError(
            f"task {task.name}: the scoring rule of {scorer.name} asks with an emptied query, and the task names no "
            "field that can be emptied. Use another rule."
        )


def make_scorer(campaign: Campaign, cache: Cache) -> Scorer:
    """The scorer of a campaign; a language model keeps its answers on disk, in the run folder without a cache."""
    scorer = load_scorer(campaign.scorer)
    if not isinstance(scorer, ModelScorer):
        return scorer
    if cache is False:
        return scorer.cached(campaign.folder / ".answers")
    folder = default_cache_folder() if cache is None or cache is True else Path(cache)
    return scorer.cached(folder / "answers")


def missing_cells(store: RunFolder, plans: Sequence[TaskPlan]) -> Missing:
    """Per task the jobs with the budgets whose cell is not there, whole and up to date."""
    missing: dict[str, list[tuple[Job, frozenset[int]]]] = {plan.name: [] for plan in plans}
    for plan in plans:
        for job in plan.jobs:
            budgets = frozenset(name.budget for name, key in job.cells() if not store.has_cell(name, key))
            if budgets:
                missing[plan.name].append((job, budgets))
    return missing


def run(
    campaign: Campaign,
    *,
    workers: int = 1,
    cache: Cache = None,
    progress: bool = True,
    say: Say = _LOGGER.info,
) -> RunReport:
    """Run a campaign, or what is left of it.

    Parameters
    ----------
    campaign : Campaign
    workers : int, default=1
        Processes that compute cells; results do not depend on it.
    cache : path or False, optional
        Cache of embeddings, as in :func:`icl_select.embed`.
    progress : bool, default=True
        Show a bar with cells and time left on stderr.
    say : callable
        Receives remarks for the user: what the design can show, what is reused, what was found in the texts.

    Returns
    -------
    RunReport

    Raises
    ------
    LockedError
        If another process works in the run folder.
    StoreError
        If the folder cannot be read or written; finished cells are kept.
    IclSelectError
        Whatever is wrong with tasks, data or methods; before any work where it can be known.
    """
    clock = _Clock()
    store = RunFolder(campaign.folder)
    with clock("loading"):
        plans, encoder = plan_campaign(campaign)
    design = describe_design(campaign, plans)
    for note in design["notes"]:
        say(note)
    with lock_folder(store.path, "icl-select eval"):
        store.write_json(store.path / "campaign.json", campaign.model_dump(mode="json"))
        with clock("checking"):
            missing = missing_cells(store, plans)
        n_cells = sum(1 for plan in plans for _ in plan.cells())
        n_missing = sum(len(budgets) for jobs in missing.values() for _, budgets in jobs)
        say(_announce(n_cells, n_missing))
        job = _Run(campaign, store, encoder, make_scorer(campaign, cache), cache, progress, say, clock)
        known = job.compute(plans, missing, n_missing, workers)
        results = job.results(plans, known, design, fresh=n_missing == 0)
        report = RunReport(store.path, results, n_cells, n_missing, clock.done())
        if n_missing or not (store.path / "run.json").exists():
            record = _run_record(report, clock.started, workers)
            if isinstance(job.scorer, ModelScorer):
                record["usage"] = job.scorer.model.usage.to_dict()
            store.write_json(store.path / "run.json", record)
    return report


def _announce(n_cells: int, n_missing: int) -> str:
    if n_missing == 0:
        return f"nothing to compute: all {n_cells} cells are there and up to date."
    if n_missing == n_cells:
        return f"{n_cells} cells to compute."
    return f"{n_missing} of {n_cells} cells to compute; {n_cells - n_missing} are there and up to date."


@dataclass(frozen=True, eq=False)
class _Run:
    """One run of a campaign in a locked folder."""

    campaign: Campaign
    store: RunFolder
    encoder: Encoder
    scorer: Scorer
    cache: Cache
    progress: bool
    say: Say
    clock: _Clock

    def compute(
        self, plans: Sequence[TaskPlan], missing: Missing, n_missing: int, workers: int
    ) -> dict[str, dict[str, Any]]:
        """Compute the missing cells; returns what is known about the texts of every task."""
        known = {}
        with (
            tqdm(total=n_missing, desc="cells", unit="cell", disable=not self.progress or not n_missing) as bar,
            Crew(min(workers, max(1, n_missing)), bar.update, self.scorer) as crew,
        ):
            for plan in plans:
                if plan.skipped is not None:
                    continue
                bar.set_postfix_str(plan.name)
                facts = self._stored_facts(plan)
                if missing[plan.name] or facts is None:
                    rows, items = used_rows(plan)
                    with self.clock("embedding"):
                        x_pool = self._embed(plan.data.pool.subset(rows))
                        x_test = self._embed(plan.data.test.subset(items))
                    for unit in self._units(plan, missing[plan.name], x_pool, x_test, rows, items):
                        with self.clock("cells"):
                            crew.add(unit)
                    if facts is None:
                        with self.clock("texts"):
                            facts = self._facts(plan, x_pool, x_test)
                for part in ("duplicates", "leaks"):
                    self.say(f"{plan.name}: {facts[part]['summary']}")
                known[plan.name] = facts
            with self.clock("cells"):
                crew.wait()
        return known

    def results(
        self, plans: Sequence[TaskPlan], known: Mapping[str, Any], design: Mapping[str, Any], *, fresh: bool
    ) -> dict[str, Any]:
        """Return the results, written with the reports; those in the folder if they are of the same cells."""
        path = self.store.path / "results.json"
        reports = [self.store.path / name for name in ("report.html", "report.md")]
        if fresh and path.exists():
            stored = self.store.read_json(path)
            if stored is not None and stored.get("key") == results_key(self.campaign, plans):
                if not all(report.exists() for report in reports):
                    self._write_reports(stored)
                return stored
        with self.clock("analysis"):
            versions = {"encoder": self.encoder.name, "numpy": np.__version__, **self.scorer.versions}
            results = build_results(self.campaign, self.store, plans, known, design, versions)
            self.store.write_json(path, results)
        with self.clock("report"):
            self._write_reports(results)
        return results

    def _write_reports(self, results: Mapping[str, Any]) -> None:
        from icl_select._files import atomic_write
        from icl_select.report import render_markdown, render_report

        atomic_write(self.store.path / "report.html", render_report(dict(results)).encode("utf-8"))
        atomic_write(self.store.path / "report.md", render_markdown(dict(results)).encode("utf-8"))

    def _embed(self, texts: Any) -> Embeddings:
        return embed(texts, self.encoder, centre=False, cache=self.cache, progress=self.progress)

    def _stored_facts(self, plan: TaskPlan) -> dict[str, Any] | None:
        record = self.store.read_json(self.store.task_path(plan.name))
        if record is None or record.get("key") != plan.texts_key:
            return None
        facts = record.get("facts")
        return facts if isinstance(facts, dict) else None

    def _facts(self, plan: TaskPlan, x_pool: Embeddings, x_test: Embeddings) -> dict[str, Any]:
        facts = diagnose(self.campaign, plan, x_pool, x_test)
        self.store.write_json(self.store.task_path(plan.name), {"key": plan.texts_key, "facts": facts})
        return facts

    def _units(
        self,
        plan: TaskPlan,
        missing: Sequence[tuple[Job, frozenset[int]]],
        x_pool: Embeddings,
        x_test: Embeddings,
        rows: Sequence[int],
        items: Sequence[int],
    ) -> Iterator[Unit]:
        """One unit per draw with something to do; both parts are moved by the mean of the draw's pool rows."""
        for draw in plan.draws:
            jobs = [(job, budgets) for job, budgets in missing if job.draw == draw.number]
            if not jobs:
                continue
            x = x_pool.subset(np.searchsorted(rows, draw.pool), centre=self.campaign.centre)
            queries = x_test.vectors[np.searchsorted(items, draw.test)]
            shift = self._query_shift(plan, x, queries)
            if shift is not None:
                queries = (queries - shift).astype(np.float32)
            yield Unit(
                folder=self.store.path,
                campaign=self.campaign,
                task=plan.data.task,
                draw=draw.number,
                pool=[plan.data.pool[int(i)] for i in draw.pool],
                test=[plan.data.test[int(i)] for i in draw.test],
                x=x.vectors,
                queries=queries,
                metric_options=plan.data.metric_options,
                jobs=jobs,
            )

    def _query_shift(self, plan: TaskPlan, x: Embeddings, queries: FloatArray) -> FloatArray | None:
        """What queries are moved by: the mean of the pool rows, or what published code subtracts instead."""
        if x.shift is None or self.campaign.protocol == "sound":
            return x.shift
        return queries.mean(axis=0) if plan.data.task.published_query_centre else None


class _Clock:
    """Wall time by stage."""

    def __init__(self) -> None:
        self.started = time.time()
        self._seconds: dict[str, float] = {}

    @contextlib.contextmanager
    def __call__(self, stage: str) -> Iterator[None]:
        start = time.perf_counter()
        try:
            yield
        finally:
            self._seconds[stage] = self._seconds.get(stage, 0.0) + time.perf_counter() - start

    def done(self) -> dict[str, float]:
        """Seconds by stage and in total, rounded."""
        return {**{k: round(v, 3) for k, v in self._seconds.items()}, "total": round(time.time() - self.started, 3)}


def _run_record(report: RunReport, started: float, workers: int) -> dict[str, Any]:
    """What differs from run to run, kept out of results.json."""
    return {
        "started": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(started)),
        "seconds": dict(report.seconds),
        "cells": {"total": report.n_cells, "computed": report.n_computed},
        "workers": workers,
        "machine": {"system": platform.system(), "machine": platform.machine(), "cpus": os.cpu_count()},
        "git_hash": _git_hash(),
    }


def _git_hash() -> str | None:
    """Commit of the working directory, as the harness records it; None outside a repository."""
    try:
        answer = subprocess.run(["git", "rev-parse", "HEAD"], capture_output=True, text=True, timeout=5, check=False)
    except (OSError, subprocess.SubprocessError):
        return None
    return answer.stdout.strip() or None if answer.returncode == 0 else None
