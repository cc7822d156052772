"""What a benchmark is: where its rows are, which text is embedded, how it is prompted, how it is scored."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from icl_select.errors import LabelError
from icl_select.prompt import PromptTemplate
from icl_select.types import Decoding, Example

__all__ = ["METAICL", "ClassLabel", "HubSource", "Row", "Task", "TextLabel"]

Row = Mapping[str, Any]

METAICL = (
    "Under the protocol 'published', parts are cut at token borders as MetaICL does: the query to 254 tokens with its "
    "longest choice, from its end, so that a long one loses its cue for the answer; a demonstration to 256; the whole "
    "to 1,024, from its beginning. Under 'sound' nothing is cut but one field of a query that is too long alone."
)


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


def _as_written(text: str, example: Example, protocol: str) -> str:
    return text


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
    id : str, callable or None
        Column of the item's id, or ``id(row) -> str``; None: a hash of `columns`.
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
    prefix : str
        What stands between the rendered query and a choice, and is scored with it.
    decoding : Decoding or None
        How an answer is generated; None where there are choices.
    published_decoding : Decoding or None
        The same under the protocol "published", where it differs.
    premise : str or None
        What announces an answer of this domain and nothing else, for the scoring rule "pmi".
    blank : tuple of str
        Fields that content-free prompts fill with meaningless text, for the scoring rule "contextual".
    shorten : str or None
        Field whose text may be cut from its end where the query alone is too long for the model.
    metaicl : bool
        Whether the published code cuts and joins the parts of the prompt by token ids, as MetaICL does.
    published_text : callable or None
        ``published_text(pieces) -> str``: what the published code makes of the generated tokens, each decoded
        alone; None where it decodes them together.
    parse : callable
        ``parse(text, example, protocol) -> output``: from what a model wrote to what `finish` takes.
    previous : callable or None
        ``previous(example) -> id`` of the test item whose prediction this one needs, None for those that need none.
    carry : callable or None
        ``carry(example, prediction) -> example`` with the prediction of the previous item in its fields.
    group : str or None
        Field that names what test items are drawn whole by (a dialogue).
    published_query_centre : bool
        Whether the published code centres the embeddings of the test items with their own mean.
    fit : callable or None
        ``fit(task, pool) -> task`` that has learnt what it needs from the whole pool, and says so in `learnt`.
    learnt : str
        Fingerprint of what `fit` took from the pool.
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
    id: str | Callable[[Row], str] | None = None
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
    prefix: str = "\n"
    decoding: Decoding | None = None
    published_decoding: Decoding | None = None
    premise: str | None = None
    blank: tuple[str, ...] = ()
    shorten: str | None = None
    metaicl: bool = False
    published_text: Callable[[Sequence[str]], str] | None = None
    parse: Callable[[str, Example, str], str] = _as_written
    previous: Callable[[Example], str | None] | None = None
    carry: Callable[[Example, str], Example] | None = None
    group: str | None = None
    published_query_centre: bool = True
    fit: Callable[[Task, Sequence[Example]], Task] | None = None
    learnt: str = ""
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
            "prefix": self.prefix,
            "decoding": None if self.decoding is None else asdict(self.decoding),
            "published_decoding": None if self.published_decoding is None else asdict(self.published_decoding),
            "premise": self.premise,
            "blank": list(self.blank),
            "shorten": self.shorten,
            "metaicl": self.metaicl,
            "group": self.group,
            "published_query_centre": self.published_query_centre,
            "learnt": self.learnt,
        }

    def decoding_of(self, protocol: str) -> Decoding | None:
        """How answers are generated under a protocol; None where there are choices."""
        if protocol == "published" and self.published_decoding is not None:
            return self.published_decoding
        return self.decoding

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
