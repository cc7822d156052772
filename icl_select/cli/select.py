"""``icl-select select``: which examples to label."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from cyclopts import Parameter

from icl_select._validation import check_budget
from icl_select.cli._keeping import Keeper, check_keep
from icl_select.cli._options import EncoderOptions, LabelFormat, PoolOptions, UsageError, report_duplicates
from icl_select.cli._output import emit_json, emit_rows, remark
from icl_select.registry import Spec, parse, resolve

if TYPE_CHECKING:
    from icl_select.data import Pool
    from icl_select.embedding import Embeddings
    from icl_select.types import Selection

__all__ = ["select"]


def select(
    pool: str,
    /,
    *,
    budget: Annotated[int, Parameter(name=["--budget", "--annotation-size", "-b"])],
    method: Annotated[str, Parameter(name=["--method", "--selective-annotation-method", "-m"])] = "max_herding",
    exactness: Literal["auto", "exact", "near"] | None = None,
    seed: int = 0,
    ignore_labels: Annotated[bool, Parameter(negative="")] = False,
    keep: Path | None = None,
    engine: Literal["local", "ray"] = "local",
    ray_address: str | None = None,
    workers: int | None = None,
    source: PoolOptions = PoolOptions(),
    encoding: EncoderOptions = EncoderOptions(),
    output: Annotated[Path | None, Parameter(name=["--output", "-o"])] = None,
    format: Annotated[LabelFormat | None, Parameter(name=["--format", "-f"])] = None,
    label_words: Annotated[tuple[str, ...], Parameter(consume_multiple=True, negative="")] = (),
    as_json: Annotated[bool, Parameter(name="--json", negative="")] = False,
) -> None:
    """Say which examples to label.

    Rows that already have a label count as labelled: they cover others and are not picked again.

    Parameters
    ----------
    pool
        File, folder or hub id of the pool.
    budget
        How many new labels you can pay for.
    method
        Method with parameters, such as 'max_herding(bandwidth=0.8)'; see `icl-select methods`.
    exactness
        For max_herding: 'exact' greedy, or 'near', which takes about a minute for a million rows and measures what its
        picks cover; 'auto' decides by the size of the pool.
    seed
        Seed of methods that draw at random.
    ignore_labels
        Select as if no row were labelled yet.
    keep
        For max_herding: go on from this file where it exists, and write it for the next run. The picks are those of
        exact greedy on all texts, in time that grows with those added or labelled since. The first run's mean stays
        the origin.
    engine
        Where texts are embedded and near-exact max_herding selects: in this process, or on Ray, with the same picks.
    ray_address
        Head of the Ray cluster, such as 'host:6379', or 'auto'. Default: a Ray of this machine, for this command only.
    workers
        Workers of the engine ray at the same time, at most. Default: one for each CPU.
    output
        Write here instead of to standard output.
    format
        Write tasks for a labelling tool: csv, jsonl, label-studio, argilla or prodigy. Needs --output.
    label_words
        The labels to choose from, for tools that show them.
    as_json
        Write one JSON document with everything that made the selection.
    """
    if format is not None and output is None:
        raise UsageError(f"--format {format} writes a file of tasks. Say where with --output FILE.")
    if format is not None and as_json:
        raise UsageError("--format and --json each say how to write the result. Pass one of them.")
    if exactness is not None:
        method = _with_exactness(method, exactness)
    if engine == "local" and (ray_address is not None or workers is not None):
        raise UsageError("--ray-address and --workers say where Ray runs. Pass --engine ray too.")
    resolve(method)  # a slip in its name is told before anything is embedded
    if keep is not None:
        check_keep(method, engine)
    texts = source.read(pool)
    given = [] if ignore_labels else texts.labelled.tolist()
    check_budget(budget, len(texts), len(given))
    with _engine(engine, ray_address, workers, method, len(texts), budget) as (embed, select_rows):
        keeper = None if keep is None else Keeper(keep, method, given, embed)
        if keeper is not None:
            embed, select_rows = keeper.embed, keeper.select
        x = encoding.embed(texts, embed=embed)
        found = report_duplicates(texts, x)
        if given:
            remark(
                f"{len(given)} of {len(texts)} rows are labelled already; they count as covered and are not picked "
                "(--ignore-labels selects among all rows)."
            )
        picked = select_rows(method, x, budget, given=given, seed=seed, progress=True)
    if picked.info.get("exactness") == "near":
        low, high = picked.info["coverage_interval"]
        remark(
            f"near-exact: the picks cover {picked.info['coverage']:.4f} of the pool (95%: {low:.4f} to {high:.4f}, "
            f"from {picked.info['rows_measured']:,} rows); --exactness exact computes greedy's own picks."
        )
    elif "exactness" in picked.info:
        remark(f"exact greedy: the picks cover {picked.info['coverage']:.4f} of the pool.")
    if format is not None and output is not None:
        from icl_select.data import export_tasks

        words = list(label_words) or None
        written = export_tasks(texts, picked.indices, output, format, label_words=words, selection=picked)
        remark(f"wrote {budget} tasks to {' and '.join(str(path) for path in written)}")
    elif as_json:
        emit_json(_record(texts, x, picked, [texts[i].id for i in given], found), output)
    else:
        rows = [(r + 1, texts[i].id, float(picked.gains[r]), texts[i].text) for r, i in enumerate(picked.indices)]
        emit_rows(("rank", "id", "gain", "text"), rows, output)
    if keeper is not None:
        keeper.write()


@contextmanager
def _engine(
    name: str, address: str | None, workers: int | None, method: str, n: int, budget: int
) -> Iterator[tuple[Callable[..., Embeddings], Callable[..., Selection]]]:
    """What embeds and what selects; a method that does not run there is told before anything is embedded."""
    if name == "local":
        from icl_select.embedding import embed
        from icl_select.methods import select

        yield embed, select
        return
    from icl_select.distributed import RayEngine, check_method

    check_method(method, n, budget)
    with RayEngine(address, workers) as engine:
        yield engine.embed, engine.select


def _with_exactness(method: str, exactness: str) -> str:
    spec = parse(method)
    if "exactness" in spec.params:
        raise UsageError(f"the method {method!r} says how exact it is, and so does --exactness. Say it once.")
    return str(Spec(spec.name, {**spec.params, "exactness": exactness}))


def _record(
    pool: Pool, x: Embeddings, picked: Selection, given: list[str], duplicates: dict[str, Any]
) -> dict[str, Any]:
    """Everything that made the selection, so that it can be traced and repeated."""
    from icl_select import __version__

    return {
        "schema": "icl-select/selection/1",
        "method": picked.method,
        "seed": picked.seed,
        "budget": len(picked),
        "nested": picked.nested,
        "ids": [pool[i].id for i in picked.indices],
        "indices": picked.indices.tolist(),
        "gains": picked.gains.tolist(),
        "given": given,
        "info": dict(picked.info),
        "pool": {"fingerprint": pool.fingerprint, "size": len(pool)},
        "embeddings": {
            "fingerprint": x.fingerprint,
            "encoder": x.encoder.name,
            "centred": x.shift is not None,
            "truncated": int(x.truncated.sum()),
        },
        "duplicates": duplicates,
        "version": __version__,
    }
