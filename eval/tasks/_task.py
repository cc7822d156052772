"""What a benchmark is: where its rows are, which text is embedded, how it is prompted, how it is scored."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from icl_select.errors import LabelError
from icl_select.prompt import PromptTemplate
from icl_select.types import Example

__all__ = ["ClassLabel", "HubSource", "Row", "Task", "TextLabel"]

Row = Mapping[str, Any]


@dataclass(frozen=True)
class HubSource:
    """Where a benchmark stands on the Hugging Face hub.

    ``columns`` maps a hub column to our field name where the two differ. ``revision`` None means that no
    revision was verified: the hub's current one is read and its content is part of every cell's key.
    """

    path: str
    pool_split: str
    test_split: str
    config: str | None = None
    revision: str | None = None
    columns: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class ClassLabel:
    """Turns the class number in a row into its label word (``words`` in the order of the data set's ids)."""

    words: tuple[str, ...]
    column: str = "label"

    def __call__(self, row: Row) -> str:
        value = row[self.column]
        try:
            number = int(value)
        except (TypeError, ValueError):
            number = -1
        if not 0 <= number < len(self.words):
            raise LabelError(
                f"{self.column}={value!r} is not a class number from 0 to {len(self.words) - 1}. "
                "Use a split whose labels are public, or mend the row."
            )
        return self.words[number]


@dataclass(frozen=True)
class TextLabel:
    """Takes the label as it stands in a column; with `words`, only those are allowed."""

    column: str
    words: tuple[str, ...] | None = None

    def __call__(self, row: Row) -> str:
        value = row[self.column]
        if value is None or str(value) == "":
            raise LabelError(f"{self.column} is empty. A campaign needs the gold label of every row.")
        if self.words is not None and str(value) not in self.words:
            shown = ", ".join(self.words[:8]) + (", ..." if len(self.words) > 8 else "")
            raise LabelError(f"{self.column}={value!r} is not one of the label words ({shown}). Mend the row.")
        return str(value)


def _gold(example: Example) -> str:
    return example.label or ""


def _as_is(output: str, example: Example) -> str:
    return output


def _no_options(folder: Path | None) -> dict[str, Any]:
    return {}


@dataclass(frozen=True)
class Task:
    """One benchmark.

    Attributes
    ----------
    name : str
        Name in a campaign file.
    folder : str
        Folder below the data directory that holds ``pool.jsonl.gz`` and ``test.jsonl.gz``.
    hub : HubSource or None
        Where the rows come from without a data directory.
    columns : tuple of str
        Columns that every row must have, and all that is used of it.
    embedded : str
        Field template (``"{title}: {body}"``) of the text that is embedded.
    demonstration, query : str
        Prompt templates (minijinja) of a labelled example, whose label is ``label``, and of the query.
    metric : str
        Name of the per-item metric.
    label : callable
        ``label(row) -> str``, the annotation that a demonstration shows and the knn baseline copies.
    shipped : tuple of str or None
        Pool and test file inside this package, for tasks that need neither folder nor hub.
    id : str or None
        Column of the item's id; None: a hash of `columns`.
    choices : tuple of str or None
        Label words in the order of the data set's class ids; None for generation.
    item_choices : str or None
        Field that holds the choices of each item where they differ from item to item.
    separator, instruction : str
        What stands between the parts of the prompt, and before them.
    max_tokens : int
        Published limit of demonstrations plus query, in tokens.
    max_demonstration_tokens : int or None
        Published limit of a single demonstration, which the published packing rule skips above.
    prepare : callable or None
        ``prepare(row, folder) -> fields``: what templates see; `folder` holds the task's resources. None: the
        columns, without the label.
    reference, finish : callable
        ``reference(example) -> str`` is what predictions are compared with; ``finish(output, example)`` turns
        a scorer's output into a prediction. Both are the identity but for tasks that predict a change of state.
    resources : tuple of str
        Files needed beside the rows (a database); always read from the data directory.
    metric_options : callable
        ``metric_options(folder) -> dict`` of keywords for the metric.
    not_applicable : mapping
        Scorer name -> why it has nothing to predict here.
    version : int
        Raised when any of this changes what a cell holds.
    notes : str
        What a reader of results should know about the protocol.
    """

    name: str
    folder: str
    columns: tuple[str, ...]
    embedded: str
    demonstration: str
    query: str
    metric: str
    label: Callable[[Row], str]
    hub: HubSource | None = None
    shipped: tuple[str, str] | None = None
    id: str | None = None
    choices: tuple[str, ...] | None = None
    item_choices: str | None = None
    separator: str = "\n\n\n"
    instruction: str = ""
    max_tokens: int = 1000
    max_demonstration_tokens: int | None = None
    prepare: Callable[[Row, Path | None], dict[str, Any]] | None = None
    reference: Callable[[Example], str] = _gold
    finish: Callable[[str, Example], str] = _as_is
    resources: tuple[str, ...] = ()
    metric_options: Callable[[Path | None], dict[str, Any]] = _no_options
    not_applicable: Mapping[str, str] = field(default_factory=dict)
    version: int = 1
    notes: str = ""

    def protocol(self) -> dict[str, Any]:
        """Everything about the task that a cell depends on, as JSON values."""
        return {
            "name": self.name,
            "version": self.version,
            "embedded": self.embedded,
            "demonstration": self.demonstration,
            "query": self.query,
            "separator": self.separator,
            "instruction": self.instruction,
            "metric": self.metric,
            "choices": list(self.choices) if self.choices is not None else None,
            "item_choices": self.item_choices,
            "max_tokens": self.max_tokens,
            "max_demonstration_tokens": self.max_demonstration_tokens,
        }

    @property
    def template(self) -> PromptTemplate:
        """The prompt template."""
        return PromptTemplate(
            demonstration=self.demonstration,
            query=self.query,
            separator=self.separator,
            instruction=self.instruction,
        )

    def choices_of(self, example: Example) -> tuple[str, ...] | None:
        """The label words for one item: the task's own, or the item's."""
        if self.item_choices is not None:
            return tuple(str(choice) for choice in example.fields[self.item_choices])
        return self.choices
