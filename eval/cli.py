"""``icl-select eval``: run a campaign, resume it, compare, report."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

from cyclopts import App, Parameter

from icl_select.cli._output import emit_json, emit_rows, remark, write_text
from icl_select.errors import ConfigError

from .published_cli import published

__all__ = ["app"]

GATE_FAILED = 100

app = App(
    name="eval",
    help="Test whether clever selection beats random selection, on benchmarks or on your own files.",
    result_action="return_value",
)

Json = Annotated[bool, Parameter(name="--json", negative="")]
Workers = Annotated[int | None, Parameter(name=["--workers", "-j"])]
Output = Annotated[Path | None, Parameter(name=["--output", "-o", "--output-path"])]


@app.command
def run(
    config: str,
    /,
    *,
    data_dir: Path | None = None,
    output: Output = None,
    tasks: Annotated[str | None, Parameter(name=["--tasks", "-t"])] = None,
    methods: Annotated[str | None, Parameter(name=["--methods", "--method", "--selective-annotation-method"])] = None,
    budgets: Annotated[str | None, Parameter(name=["--budgets", "--budget", "--annotation-size"])] = None,
    limit: Annotated[int | None, Parameter(name=["--limit", "-L"])] = None,
    seed: int | None = None,
    draws: Annotated[int | None, Parameter(name=["--draws", "--repeat"])] = None,
    encoder: Annotated[str | None, Parameter(name=["--encoder", "--embedder", "--embedding-model"])] = None,
    scorer: str | None = None,
    cache: bool = True,
    resume: Annotated[bool, Parameter(negative="")] = False,
    workers: Workers = None,
    log_samples: Annotated[bool, Parameter(name=["--log-samples", "-s"], negative="")] = False,
    protocol: Literal["sound", "published"] | None = None,
    dry_run: Annotated[bool, Parameter(negative="")] = False,
    tokens_per_second: str | None = None,
    as_json: Json = False,
) -> int:
    """Run a campaign: every task, method, budget and draw that is not there yet, then the verdicts.

    Parameters
    ----------
    config
        Campaign file (YAML), or the name of a shipped one: demo, knn_nine, tiny_llm, votek_table2, ... `icl-select
        eval schema` prints what a file may hold.
    data_dir
        Folder with one folder per benchmark; without, the Hugging Face hub is read.
    output
        Run folder; default runs/NAME. Finished cells in it are kept and used.
    tasks
        Only these tasks of the file, or other benchmarks, separated by commas.
    methods
        These methods, separated by commas.
    budgets
        These budgets, separated by commas.
    limit
        Test items per draw.
    seed
        Seed of the campaign.
    draws
        Number of draws.
    encoder
        Encoder of the texts.
    scorer
        Scorer with parameters, such as 'knn(k=1)' or "vllm(model='EleutherAI/gpt-j-6b', dtype='float16')".
    cache
        Keep embeddings and a model's answers in the cache folder (ICS_CACHE_DIR). Without, embeddings are not kept,
        and answers are kept in the run folder.
    resume
        Insist that the run folder holds an interrupted run. Without, finished cells are used all the same.
    workers
        Processes that compute cells; default: the cores that this process may use, at most 4.
    log_samples
        Write every item of every cell as JSON lines, as lm-evaluation-harness does.
    protocol
        sound, or published: repeat what the published code does to prompts and answers.
    dry_run
        List the cells and what is missing, and estimate prompts, tokens, time, memory and cost; compute nothing.
    tokens_per_second
        For --dry-run: measured speed of the engine, a number or the folder of a previous run with the same model.
    as_json
        Write the results as JSON to standard output instead of a table.
    """
    from ._yaml import find_config
    from .config import load_campaign, split_list
    from .launch import launch, list_cells

    overrides: dict[str, Any] = {
        "data_dir": data_dir,
        "output": output,
        "methods": None if methods is None else split_list(methods),
        "budgets": None if budgets is None else split_list(budgets),
        "test_size": limit,
        "seed": seed,
        "draws": draws,
        "encoder": encoder,
        "scorer": scorer,
        "protocol": protocol,
    }
    campaign = load_campaign(
        find_config(config),
        overrides=overrides,
        environment=os.environ,
        only=None if tasks is None else split_list(tasks),
    )
    if resume and not (campaign.folder / "campaign.json").exists():
        raise ConfigError(f"--resume: {campaign.folder} holds no interrupted run. Leave --resume out to start one.")
    if dry_run:
        return list_cells(campaign, tokens_per_second=tokens_per_second, as_json=as_json)
    return launch(campaign, workers=workers, cache=cache, log_samples=log_samples, as_json=as_json)


@app.command
def resume(
    folder: Path,
    /,
    *,
    workers: Workers = None,
    cache: bool = True,
    log_samples: Annotated[bool, Parameter(name=["--log-samples", "-s"], negative="")] = False,
    as_json: Json = False,
) -> int:
    """Go on with an interrupted campaign, as it was asked for.

    Parameters
    ----------
    folder
        Run folder.
    workers
        Processes that compute cells.
    cache
        Keep embeddings on disk.
    log_samples
        Write every item of every cell as JSON lines.
    as_json
        Write the results as JSON to standard output instead of a table.
    """
    from .launch import launch
    from .versus import stored_campaign

    return launch(stored_campaign(folder), workers=workers, cache=cache, log_samples=log_samples, as_json=as_json)


@app.command
def compare(
    folder: Path,
    other: Path | None = None,
    /,
    *,
    fail_on_worse: Annotated[bool, Parameter(negative="")] = False,
    as_json: Json = False,
) -> int:
    """Show the verdicts of a run against its baseline, or of a second run against the first.

    Parameters
    ----------
    folder
        Run folder; with two folders the baseline.
    other
        Run folder to compare with `folder`, cell by cell, paired by draw and item.
    fail_on_worse
        Exit with code 100 if anything is worse than its baseline.
    as_json
        Write JSON.
    """
    from .versus import compare_runs, load_results, worse

    comparisons = load_results(folder)["comparisons"] if other is None else compare_runs(folder, other)
    if as_json:
        emit_json(comparisons)
    else:
        emit_rows(*_comparison_rows(comparisons))
    found = worse(comparisons)
    if fail_on_worse and found:
        remark("worse than the baseline:\n  " + "\n  ".join(found))
        return GATE_FAILED
    return 0


@app.command
def report(
    folder: Path,
    /,
    *,
    format: Annotated[Literal["html", "md", "json", "text"], Parameter(name=["--format", "-f"])] = "text",
    output: Output = None,
    as_json: Json = False,
) -> int:
    """Write the report of a finished run.

    Parameters
    ----------
    folder
        Run folder.
    format
        html (self-contained), md, json (results.json), or text (the table of the terminal).
    output
        Write here instead of to standard output.
    as_json
        The same as --format json.
    """
    from icl_select.report import render_markdown, render_report, render_table

    from .versus import load_results

    results = load_results(folder)
    if as_json or format == "json":
        text = json.dumps(results, ensure_ascii=False, indent=1, allow_nan=False) + "\n"
    else:
        text = {"html": render_report, "md": render_markdown, "text": render_table}[format](results)
    write_text(text if text.endswith("\n") else f"{text}\n", output)
    return 0


@app.command
def tasks(*, as_json: Json = False) -> int:
    """List the benchmarks that a campaign can name.

    Parameters
    ----------
    as_json
        Write JSON.
    """
    from .tasks import get_task, task_names

    rows = []
    for name in task_names():
        task = get_task(name)
        rows.append(
            {
                "task": name,
                "metric": task.metric,
                "choices": "per item" if task.item_choices else len(task.choices) if task.choices else "free text",
                "folder": task.folder,
                "hub": None if task.hub is None else task.hub.path,
            }
        )
    if as_json:
        emit_json(rows)
    else:
        emit_rows(list(rows[0]), [list(row.values()) for row in rows])
    return 0


@app.command
def schema(*, as_json: Json = False) -> int:
    """Print the JSON Schema of a campaign file.

    Parameters
    ----------
    as_json
        Changes nothing: a schema is JSON.
    """
    from .config import schema_text

    write_text(schema_text())
    return 0


app.command(published)


def _comparison_rows(comparisons: Sequence[Mapping[str, Any]]) -> tuple[list[str], list[list[Any]]]:
    """Comparisons as a header and rows."""
    header = ["task", "method", "budget", "metric", "delta", "low", "high", "p", "p_adjusted", "mark", "verdict"]
    rows = [
        [
            c["task"],
            c.get("method") or c["candidate"],
            c["budget"],
            c["metric"],
            *(f"{value:+.4f}" for value in (c["delta"], c["ci"]["low"], c["ci"]["high"])),
            c["p_value"],
            c["p_adjusted"],
            c["mark"],
            c["verdict"],
        ]
        for c in comparisons
    ]
    return header, rows
