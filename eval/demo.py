"""``icl-select demo``: the main job on the shipped messages."""

from __future__ import annotations

import os
from importlib.resources import as_file, files
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

__all__ = ["demo"]


def demo(
    *,
    output: Annotated[Path, Parameter(name=["--output", "-o"])] = Path("runs/demo"),
    encoder: Annotated[str, Parameter(name=["--encoder", "--embedder", "--embedding-model"])] = "minilm",
    workers: Annotated[int | None, Parameter(name=["--workers", "-j"])] = None,
    as_json: Annotated[bool, Parameter(name="--json", negative="")] = False,
) -> int:
    """Run the main job on 1,500 shipped support messages: five methods against random, and a report.

    Parameters
    ----------
    output
        Run folder; report.html in it is the report. A second run finds everything done.
    encoder
        minilm (needs the extra of that name) or hash (lexical, needs nothing).
    workers
        Processes that compute cells; default: the cores that this process may use, at most 4.
    as_json
        Write the results as JSON to standard output instead of a table.
    """
    from .config import load_campaign
    from .launch import launch

    with as_file(files("icl_select.configs") / "demo.yaml") as path:
        campaign = load_campaign(path, overrides={"output": output, "encoder": encoder}, environment=os.environ)
    return launch(campaign, workers=workers, as_json=as_json)
