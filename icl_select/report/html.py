"""A report as one HTML file: no network, no script, readable on a phone and in print."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cache
from html import escape
from importlib.resources import files
from itertools import groupby
from typing import Any

from icl_select.errors import DataError
from icl_select.report._blocks import Block, Bullets, Cell, Code, Details, Figure, Report, Section, Table, Text
from icl_select.report._density import density_blocks
from icl_select.report._sections import campaign_report
from icl_select.report._view import View, printable

__all__ = ["render_density", "render_report"]


def render_report(results: Mapping[str, Any]) -> str:
    """Return the HTML report of a campaign.

    Parameters
    ----------
    results : mapping
        What the campaign writes as ``results.json``.

    Returns
    -------
    str
        One self-contained document; the same results give the same text.

    Raises
    ------
    DataError
        If the results follow another schema.

    Examples
    --------
    >>> page = render_report({"config": {"name": "nothing yet"}})
    >>> page.startswith("<!DOCTYPE html>"), "no verdict" in page
    (True, True)
    """
    return _document(campaign_report(View(results)))


def render_density(record: Mapping[str, Any]) -> str:
    """Return the HTML report of densities.

    Parameters
    ----------
    record : mapping
        ``{"panels": {model: {data set: Density.to_dict()}}}``, as ``icl-select density --json`` writes it.

    Returns
    -------
    str
    """
    panels = record.get("panels")
    if not isinstance(panels, Mapping) or not any(panels.values()):
        raise DataError("a density report was asked of no data set. Pass {'panels': {model: {data set: density}}}.")
    n = len({name for panel in panels.values() for name in panel})
    subtitle = f"{n} data set{'' if n == 1 else 's'}, {', '.join(panels)}{', centred' if record.get('centred') else ''}"
    section = Section("Pairwise similarity", "density", tuple(density_blocks(panels)))
    return _document(Report("How similar the texts are", subtitle, (section,)))


@cache
def _css() -> str:
    return (files("icl_select.report") / "style.css").read_text(encoding="utf-8")


def _document(report: Report) -> str:
    sections = "\n".join(_section(section) for section in report.sections)
    links = "".join(f'<a href="#{section.anchor}">{_text(section.title)}</a>' for section in report.sections)
    nav = f'<nav aria-label="Sections">{links}</nav>' if len(report.sections) > 1 else ""
    return f"""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="referrer" content="no-referrer">
<title>{_text(report.title)}</title>
<style>
{_css()}</style>
</head>
<body>
<header>
<h1>{_text(report.title)}</h1>
<p class="subtitle">{_text(report.subtitle)}</p>
{nav}
</header>
<main>
{sections}
</main>
<footer>Written by icl-select. Whatever is not recorded in the results is not shown here.</footer>
</body>
</html>
"""


def _text(value: str) -> str:
    """Escape for text and attributes."""
    return escape(printable(value))


def _section(section: Section) -> str:
    body = "\n".join(_blocks(section.blocks))
    return f'<section id="{section.anchor}">\n<h2>{_text(section.title)}</h2>\n{body}\n</section>'


def _blocks(blocks: Sequence[Block]) -> list[str]:
    """Blocks in order; neighbouring small figures share a grid."""
    out = []
    for small, group in groupby(blocks, key=lambda block: isinstance(block, Figure) and not block.wide):
        drawn = [_block(block) for block in group]
        out += ['<div class="figures">', *drawn, "</div>"] if small else drawn
    return out


def _block(block: Block) -> str:
    match block:
        case Text(text, lead):
            return f'<p class="lead">{_text(text)}</p>' if lead else f"<p>{_text(text)}</p>"
        case Bullets(items):
            return "<ul>" + "".join(f"<li>{_text(item)}</li>" for item in items) + "</ul>"
        case Code(text):
            return f"<pre>{_text(text)}</pre>"
        case Table():
            return _table(block)
        case Figure():
            return _figure(block)
        case Details(summary, blocks):
            return f"<details><summary>{_text(summary)}</summary>\n" + "\n".join(_blocks(blocks)) + "\n</details>"


def _figure(figure: Figure) -> str:
    drawing = figure.draw().replace("<svg", f'<svg role="img" aria-label="{_text(figure.alt)}"', 1)
    kind = ' class="wide"' if figure.wide else ""
    caption = f"<figcaption>{_text(figure.caption)}</figcaption>" if figure.wide else ""
    return f'<figure{kind}><div class="paper">{drawing}</div>{caption}</figure>'


def _table(table: Table) -> str:
    title = ' class="title"' if len(table.caption) < 30 else ""
    head = "".join(
        f'<th scope="col"{_align(align)}>{_text(name)}</th>'
        for name, align in zip(table.header, table.align, strict=True)
    )
    rows = "\n".join(_row(table, row) for row in table.rows)
    return (
        f'<div class="scroll" role="region" tabindex="0" aria-label="{_text(table.caption)}"><table>'
        f"<caption{title}><span>{_text(table.caption)}</span></caption>\n<thead><tr>{head}</tr></thead>\n"
        f"<tbody>\n{rows}\n</tbody></table></div>"
    )


def _row(table: Table, row: Sequence[str | Cell]) -> str:
    cells = []
    for i, (cell, align) in enumerate(zip(row, table.align, strict=True)):
        if isinstance(cell, Cell):
            cells.append(f'<td class="{cell.state or "plain"}">{_cell(cell)}</td>')
        elif i < table.headers:
            cells.append(f'<th scope="row"{_align(align)}>{_text(cell)}</th>')
        else:
            cells.append(f"<td{_align(align)}>{_text(cell)}</td>")
    return f"<tr>{''.join(cells)}</tr>"


def _cell(cell: Cell) -> str:
    parts = []
    if cell.text:
        parts.append(f'<span class="value">{_text(cell.text)}</span>')
    if cell.word:
        parts.append(f'<span class="verdict">{_text(f"{cell.mark} {cell.word}".strip())}</span>')
    return "<br>".join(parts) + "".join(f"<small>{_text(note)}</small>" for note in cell.notes)


def _align(align: str) -> str:
    return ' class="right"' if align == "right" else ""
