"""``icl-select density``: how similar the texts of pools are."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

from cyclopts import Parameter

from icl_select.cli._options import EncoderOptions, PoolOptions, UsageError
from icl_select.cli._output import emit_json, emit_rows, write_text

__all__ = ["density"]


def density(
    *pools: str,
    encoders: Annotated[
        tuple[str, ...],
        Parameter(name=["--encoders", "--encoder", "--embedder", "--embedding-model", "-e"], negative=""),
    ] = ("minilm",),
    source: PoolOptions = PoolOptions(),
    centre: bool = False,
    cache: bool = True,
    seed: int = 0,
    output: Annotated[Path | None, Parameter(name=["--output", "-o"])] = None,
    as_json: Annotated[bool, Parameter(name="--json", negative="")] = False,
) -> None:
    """Report the distribution of pairwise cosine similarity, per pool and per encoder.

    It tells whether coverage is a sensible notion for these texts: whether the nearest 1% of a pool, about what
    one label of a hundred has to stand for, are much closer than strangers. Exact for small pools, sampled with an
    error band above.

    Parameters
    ----------
    pools
        Files, folders or hub ids. A name can be given as NAME=PATH.
    encoders
        One panel for each; pass the option again for more.
    centre
        Subtract the pool's mean vector first.
    cache
        Keep embeddings on disk (ICS_CACHE_DIR).
    seed
        Seed of the sampled pairs.
    output
        Write here; the suffix decides: .json, .png, .svg or .html.
    as_json
        Write one JSON document to standard output.
    """
    if not pools:
        raise UsageError("density was asked of no pool. Name at least one file, folder or hub id.")
    if output is not None and output.suffix not in (".json", ".png", ".svg", ".html"):
        raise UsageError(f"--output {output} has no known suffix. End it in .json, .png, .svg or .html.")
    named = _named(pools)
    panels = {name: _measure(named, name, source, centre, cache, seed) for name in encoders}
    record = {
        "schema": "icl-select/density/1",
        "centred": centre,
        "seed": seed,
        "panels": {model: {name: d.to_dict() for name, d in panel.items()} for model, panel in panels.items()},
    }
    if as_json:
        emit_json(record)
    if output is not None:
        _write(output, panels, record)
    elif not as_json:
        _print(panels)


def _measure(pools: dict[str, str], encoder: str, source: PoolOptions, centre: bool, cache: bool, seed: int) -> Any:
    from icl_select.density import density as measure

    encoding = EncoderOptions(encoder=encoder, centre=centre, cache=cache)
    model = encoding.load()
    return {name: measure(encoding.embed(source.read(path), model), seed=seed) for name, path in pools.items()}


def _named(pools: tuple[str, ...]) -> dict[str, str]:
    """Paths by the names they are shown under, given as NAME=PATH or taken from the path."""
    found: dict[str, str] = {}
    for pool in pools:
        name, equals, path = pool.partition("=")
        if not equals or Path(pool).exists():
            name, path = _name(pool), pool
        if name in found:
            raise UsageError(f"two pools are called {name!r}: {found[name]} and {path}. Write NAME={path}.")
        found[name] = path
    return found


def _name(path: str) -> str:
    """A short name for a pool: the file's, or its folder's where the file is called 'pool'."""
    file = Path(path)
    stem = file.name.split(".")[0]
    return file.parent.name if stem in ("pool", "train", "test") and file.parent.name else stem or path


def _write(output: Path, panels: Any, record: dict[str, Any]) -> None:
    from icl_select._files import atomic_write
    from icl_select.report import density_figure, figure_bytes, render_density

    if output.suffix == ".json":
        emit_json(record, output)
    elif output.suffix == ".html":
        write_text(render_density(record), output)
    else:
        atomic_write(output, figure_bytes(density_figure(panels), output.suffix[1:]))


def _print(panels: Any) -> None:
    header = ("encoder", "pool", "mean", "q05", "median", "q95", "nearest", "neighbourhood", "closeness", "reading")
    rows = []
    for model, panel in panels.items():
        for name, d in panel.items():
            q = d.quantiles
            near = (d.nearest_mean, d.neighbourhood_mean, d.closeness)
            rows.append((model, name, d.mean, q[0.05], q[0.5], q[0.95], *near, d.reading))
    emit_rows(header, rows)
