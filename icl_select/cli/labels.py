"""``icl-select labels``: give examples to people and labelling tools, take labels back, and examine them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from cyclopts import App, Parameter

from icl_select.cli._options import EncoderOptions, LabelFormat, PoolOptions, UsageError, read_text
from icl_select.cli._output import emit_json, remark, row_lines, write_text
from icl_select.errors import DataError, IclSelectError, LabelError

if TYPE_CHECKING:
    from icl_select.data import Pool
    from icl_select.leave_one_out import LeaveOneOut
    from icl_select.types import Selection

__all__ = ["app"]

app = App(name="labels", help="Exchange labels with people and labelling tools, and examine them.")


@app.command(name="export")
def export_labels(
    pool: str,
    /,
    *,
    output: Annotated[Path, Parameter(name=["--output", "-o"])],
    selection: Path | None = None,
    ids: Annotated[tuple[str, ...], Parameter(consume_multiple=True, negative="")] = (),
    format: Annotated[LabelFormat, Parameter(name=["--format", "-f"])] = "csv",
    label_words: Annotated[tuple[str, ...], Parameter(consume_multiple=True, negative="")] = (),
    source: PoolOptions = PoolOptions(),
    as_json: Annotated[bool, Parameter(name="--json", negative="")] = False,
) -> None:
    """Write rows as tasks for people or a labelling tool, in the order they should be labelled.

    Parameters
    ----------
    pool
        File, folder or hub id of the pool.
    output
        Task file to write.
    selection
        JSON written by `icl-select select --json`; its rows are exported.
    ids
        Ids of the rows to export, where no selection is given.
    format
        csv, jsonl, label-studio, argilla or prodigy.
    label_words
        The labels to choose from, for tools that show them.
    as_json
        Write the names of the written files as JSON to standard output.
    """
    from icl_select.data import export_tasks

    if (selection is None) == (not ids):
        raise UsageError("say which rows: --selection FILE (from `select --json`), or --ids ID ID …, and not both.")
    texts = source.read(pool)
    picked = None if selection is None else _read_selection(selection, texts)
    rows = [texts.index(name) for name in ids] if picked is None else picked.indices.tolist()
    written = export_tasks(texts, rows, output, format, label_words=list(label_words) or None, selection=picked)
    remark(f"wrote {len(rows)} tasks to {' and '.join(str(path) for path in written)}")
    if as_json:
        emit_json({"tasks": len(rows), "format": format, "files": [str(path) for path in written]})


def _read_selection(path: Path, pool: Pool) -> Selection:
    """The selection in a file, its rows looked up by id: the pool may have been sorted since."""
    import numpy as np

    from icl_select.types import Selection

    try:
        record = json.loads(read_text(path))
        ids, gains, method = record["ids"], record["gains"], record["method"]
        rows = np.array([pool.index(name) for name in ids], dtype=np.int64)
        return Selection(indices=rows, gains=np.array(gains, dtype=np.float64), method=str(method))
    except (ValueError, KeyError, TypeError) as exc:
        if isinstance(exc, IclSelectError):
            raise
        raise DataError(f"{path} is no selection. Write one with: icl-select select POOL … --json -o {path}") from exc


@app.command(name="import")
def import_labels(
    pool: str,
    labels: Path,
    /,
    *,
    output: Annotated[Path, Parameter(name=["--output", "-o"])],
    format: Annotated[LabelFormat | None, Parameter(name=["--format", "-f"])] = None,
    label_words: Annotated[tuple[str, ...], Parameter(consume_multiple=True, negative="")] = (),
    on_conflict: Literal["error", "keep", "replace", "majority"] = "error",
    source: PoolOptions = PoolOptions(),
    as_json: Annotated[bool, Parameter(name="--json", negative="")] = False,
) -> None:
    """Read labels back and write the pool with them; unlabelled rows stay, conflicts are reported.

    Parameters
    ----------
    pool
        File, folder or hub id of the pool.
    labels
        File of labels.
    output
        Pool file (.jsonl) to write; may be the pool itself.
    format
        csv, jsonl, label-studio, argilla or prodigy; recognised by content where not given.
    label_words
        Labels that are allowed; others are an error.
    on_conflict
        What to do where annotators, or an old and a new label, disagree.
    as_json
        Write the report as JSON to standard output.
    """
    from icl_select.data import import_labels as merge

    if output.suffix.lower() in (".csv", ".parquet") or output.name.lower().endswith(".csv.gz"):
        raise UsageError(
            f"--output {output}: the pool is written as JSON lines, which no name of another format may hide. "
            "End it in .jsonl or .jsonl.gz."
        )
    texts = source.read(pool)
    words = list(label_words) or None
    merged, report = merge(texts, labels, format, label_words=words, on_conflict=on_conflict)
    merged.to_jsonl(output)
    remark(report.summary())
    if as_json:
        emit_json(report.to_dict())


@app.command(name="check")
def check_labels(
    pool: str,
    /,
    *,
    ks: Annotated[tuple[int, ...], Parameter(consume_multiple=True, negative="")] = (1, 3, 5, 8, 16),
    alpha: float = 0.05,
    keep: int = 50,
    seed: int = 0,
    source: PoolOptions = PoolOptions(),
    encoding: EncoderOptions = EncoderOptions(),
    as_json: Annotated[bool, Parameter(name="--json", negative="")] = False,
) -> None:
    """Let the other labelled rows vote for each label: do they know it, and which labels look wrong?

    The vote of the nearest rows is compared with always answering the most frequent label. Below the summary stand
    the verdict for each number of voters, how often each label is recognised, which labels are taken for each other,
    and the rows whose label looks wrong.

    Parameters
    ----------
    pool
        File, folder or hub id of the pool; its labelled rows count.
    ks
        How many of the nearest rows vote.
    alpha
        Level of the verdicts.
    keep
        How many suspect rows to list at most.
    seed
        Seed of the shuffled labels.
    as_json
        Write one JSON document.
    """
    from icl_select.leave_one_out import leave_one_out

    texts = source.read(pool)
    rows = texts.labelled.tolist()
    if len(rows) < 2:
        raise LabelError(
            f"{len(rows)} of {len(texts)} rows are labelled, but at least two have to be: one answers the other. Label "
            "more rows, or name the field that holds the labels with --label."
        )
    x = encoding.embed(texts)
    labels, ids = [str(texts[row].label) for row in rows], [texts[row].id for row in rows]
    report = leave_one_out(x[rows], labels, ids, ks=ks, seed=seed, alpha=alpha, keep=keep)
    if as_json:
        about = {"encoder": x.encoder.name, "fingerprint": x.fingerprint, "centred": x.shift is not None}
        emit_json({"schema": "icl-select/leave-one-out/1", "embeddings": about, **report.to_dict()})
    else:
        write_text("\n".join(_report_lines(report, texts)) + "\n")


def _report_lines(report: LeaveOneOut, pool: Pool) -> list[str]:
    """The summary, and below it one table after another."""
    votes = [(v.k, v.accuracy, v.effect, v.low, v.high, v.p_adjusted, v.mark, v.verdict) for v in report.votes]
    tables: list[tuple[tuple[str, ...], list[tuple[Any, ...]]]] = [
        (("k", "accuracy", "difference", "low", "high", "p", "mark", "verdict"), votes),
        (("label", "rows", "recall"), [(one.label, one.support, one.recall) for one in report.labels]),
        (("label", "voted", "rows"), [(one.label, one.voted, one.count) for one in report.confusions]),
        (
            ("id", "label", "voted", "share", "nearest", "similarity", "copy", "text"),
            [
                (s.id, s.label, s.voted, s.share, s.nearest, s.similarity, s.copy, pool.example(s.id).text)
                for s in report.suspects
            ],
        ),
    ]
    lines = [report.summary()]
    for header, cells in tables:
        if cells:
            lines += ["", *row_lines(header, cells)]
    return lines
