"""Results as something to read: HTML, Markdown, a terminal table, figures.

Every function takes the ``results`` mapping that a campaign writes as ``results.json`` and gives the same
bytes for the same input. A section whose data is absent is left out with a sentence that says so.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

_EXPORTS = {
    "budget_figure": "icl_select.report.plots",
    "density_figure": "icl_select.report.plots",
    "figure_bytes": "icl_select.report.plots",
    "render_density": "icl_select.report.html",
    "render_markdown": "icl_select.report.markdown",
    "render_report": "icl_select.report.html",
    "render_table": "icl_select.report.table",
}

__all__ = [
    "budget_figure",
    "density_figure",
    "figure_bytes",
    "render_density",
    "render_markdown",
    "render_report",
    "render_table",
]

if TYPE_CHECKING:
    from icl_select.report.html import render_density, render_report
    from icl_select.report.markdown import render_markdown
    from icl_select.report.plots import budget_figure, density_figure, figure_bytes
    from icl_select.report.table import render_table


def __getattr__(name: str) -> Any:
    if name not in _EXPORTS:
        raise AttributeError(f"module 'icl_select.report' has no attribute {name!r}")
    return getattr(importlib.import_module(_EXPORTS[name]), name)
