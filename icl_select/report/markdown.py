"""A report as Markdown, with the same sections and tables as the HTML one."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from icl_select.report._blocks import Block, Bullets, Cell, Code, Details, Figure, Table, Text
from icl_select.report._sections import campaign_report
from icl_select.report._view import View, printable

__all__ = ["render_markdown"]


def render_markdown(results: Mapping[str, Any]) -> str:
    """Return the Markdown report of a campaign.

    Figures stand as the sentence that describes them; the HTML report draws them.

    Parameters
    ----------
    results : mapping
        What the campaign writes as ``results.json``.

    Returns
    -------
    str

    Examples
    --------
    >>> print(render_markdown({"config": {"name": "nothing yet"}}).splitlines()[0])
    # nothing yet: Nothing was compared with random
    """
    report = campaign_report(View(results))
    lines = [f"# {_text(report.title)}", "", _text(report.subtitle), ""]
    for section in report.sections:
        lines += [f"## {_text(section.title)}", ""]
        for block in section.blocks:
            lines += [*_block(block), ""]
    return "\n".join(lines).rstrip() + "\n"


def _text(value: str) -> str:
    """Escape what Markdown or HTML would read as markup; one line."""
    line = re.sub(r"\s+", " ", printable(value))
    return re.sub(r"([\\`*<>|\[\]#]|(?<!\w)_|_(?!\w))", r"\\\1", line)


def _block(block: Block) -> list[str]:
    match block:
        case Text(text, lead):
            return [f"**{_text(text)}**" if lead else _text(text)]
        case Bullets(items):
            return [f"* {_text(item)}" for item in items]
        case Code(text):
            fence = "`" * max(3, 1 + max((len(run) for run in re.findall(r"`+", text)), default=0))
            return [fence, *printable(text).splitlines(), fence]
        case Table():
            return _table(block)
        case Figure():
            return [f"*Figure.* {_text(block.alt)}"]
        case Details(summary, blocks):
            return [f"### {_text(summary)}", "", *(line for inner in blocks for line in (*_block(inner), ""))][:-1]


def _table(table: Table) -> list[str]:
    rule = ["---:" if align == "right" else "---" for align in table.align]
    rows = [table.header, *([_cell(cell) for cell in row] for row in table.rows)]
    head, *body = [[_text(cell) if i == 0 else cell for cell in row] for i, row in enumerate(rows)]
    return [f"{_text(table.caption)}", "", _line(head), _line(rule), *(_line(row) for row in body)]


def _cell(cell: str | Cell) -> str:
    if isinstance(cell, str):
        return _text(cell)
    verdict = f"{cell.mark} {cell.word}".strip()
    parts = [
        _text(cell.text),
        f"**{verdict}**" if cell.state in ("better", "worse") else verdict,
        *map(_text, cell.notes),
    ]
    return "<br>".join(part for part in parts if part)


def _line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"
