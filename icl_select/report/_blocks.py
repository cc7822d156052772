"""What a report is made of, before it becomes HTML or Markdown: sections of a few kinds of blocks."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Literal

__all__ = [
    "Align",
    "Block",
    "Bullets",
    "Cell",
    "Code",
    "Details",
    "Figure",
    "Report",
    "Section",
    "State",
    "Table",
    "Text",
    "left",
    "right",
]

Align = Literal["left", "right"]
State = Literal["", "better", "worse", "open", "baseline"]


def right(n: int) -> tuple[Align, ...]:
    """Alignment of a table: the first column left, `n` more right."""
    columns: list[Align] = ["right"] * n
    return ("left", *columns)


def left(n: int) -> tuple[Align, ...]:
    """Alignment of a table of `n` columns, all left."""
    columns: list[Align] = ["left"] * n
    return tuple(columns)


@dataclass(frozen=True, slots=True)
class Cell:
    """A table cell: the number, the verdict by sign and word, and smaller print below.

    ``state`` only chooses a colour: nothing is said by it that ``mark`` and ``word`` do not say.
    """

    text: str
    mark: str = ""
    word: str = ""
    notes: tuple[str, ...] = ()
    state: State = ""


@dataclass(frozen=True, slots=True)
class Text:
    """A paragraph; ``lead`` is set larger."""

    text: str
    lead: bool = False


@dataclass(frozen=True, slots=True)
class Bullets:
    """A list of sentences."""

    items: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Code:
    """Text to be copied as it is."""

    text: str


@dataclass(frozen=True, slots=True)
class Table:
    """A table whose first ``headers`` columns name the row."""

    caption: str
    header: tuple[str, ...]
    rows: tuple[tuple[str | Cell, ...], ...]
    align: tuple[Align, ...]
    headers: int = 1


@dataclass(frozen=True, slots=True)
class Figure:
    """A drawing: ``draw()`` gives SVG text. ``alt`` says in words what it shows."""

    name: str
    alt: str
    caption: str
    draw: Callable[[], str]
    wide: bool = True


@dataclass(frozen=True, slots=True)
class Details:
    """Blocks that are folded until asked for (in print they are shown)."""

    summary: str
    blocks: tuple[Block, ...]


Block = Text | Bullets | Code | Table | Figure | Details


@dataclass(frozen=True, slots=True)
class Section:
    """A heading, its anchor, and its blocks."""

    title: str
    anchor: str
    blocks: tuple[Block, ...]


@dataclass(frozen=True, slots=True)
class Report:
    """A whole report: title, one line below it, sections."""

    title: str
    subtitle: str
    sections: tuple[Section, ...] = field(default_factory=tuple)
