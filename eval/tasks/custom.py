"""A task on a user's own files, described in the campaign file."""

from __future__ import annotations

from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from icl_select.errors import suggest
from icl_select.metrics import METRICS
from icl_select.prompt._sandbox import compile_template
from icl_select.types import Decoding, Example

from ._task import Task, TextLabel

__all__ = ["CustomTask"]

# Those that need nothing but predictions and references (no database).
_USABLE = tuple(name for name in METRICS if name != "sql_execution")


def _stripped(text: str, example: Example, protocol: str) -> str:
    """A generated label without the line break that stands before it in demonstrations."""
    return text.strip()


class CustomTask(BaseModel):
    """Your own pool and test files as a task of a campaign."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_-]*$", description="Name of the task, shown in reports.")
    pool: Path = Field(description="Labelled pool: .jsonl, .jsonl.gz, .csv, .parquet, or a saved data set.")
    test: Path = Field(description="Labelled test items, in one of the same formats.")
    text: str = Field("text", description="Field, or field template such as '{subject}: {body}', that is embedded.")
    label: str = Field("label", description="Field of the gold label.")
    id: str | None = Field(None, description="Field of the item's id; null: a field 'id', else a content hash.")
    template: str | None = Field(None, description="Prompt template (minijinja) of the input; null: the text.")
    labels: list[str] | None = Field(None, description="Label words; null: those that occur in the pool, sorted.")
    generation: bool = Field(False, description="The label is free text, not one of a few words.")
    metric: str | None = Field(None, description="Metric; null: acc, or rouge_l for generation.")
    answer_tokens: int = Field(64, ge=1, description="Tokens that a generated label may take.")
    shorten: str | None = Field(None, description="Field that may be cut from its end where a query is too long.")
    premise: str | None = Field(None, description="What announces a label, such as 'intent:', for the rule pmi.")

    @field_validator("pool", "test")
    @classmethod
    def _absolute(cls, path: Path) -> Path:
        return path.absolute()

    @model_validator(mode="after")
    def _consistent(self) -> CustomTask:
        if self.generation and self.labels is not None:
            raise ValueError("labels are the words of a classification task. Leave them out, or set generation: false.")
        if self.metric is not None and self.metric not in _USABLE:
            raise ValueError(f"unknown metric {self.metric!r}.{suggest(self.metric, _USABLE)}")
        return self

    def task(self, words: tuple[str, ...] | None) -> Task:
        """The task; `words` are its label words, None for generation."""
        query = self.template if self.template is not None else "{{ text }}"
        return Task(
            name=self.name,
            folder="",
            columns=(self.label,),
            embedded=self.text,
            demonstration=query + "\n{{ label }}",
            query=query,
            separator="\n\n",
            metric=self.metric or ("rouge_l" if self.generation else "acc"),
            label=TextLabel(self.label, words),
            choices=words,
            decoding=Decoding(max_tokens=self.answer_tokens, stop=("\n\n",)) if words is None else None,
            parse=_stripped,
            premise=self.premise,
            blank=self._asked(query),
            shorten=self.shorten,
        )

    def _asked(self, query: str) -> tuple[str, ...]:
        """The fields that the query shows."""
        shown = {name.partition(".")[0] for name in compile_template(query, "query").variables}
        return tuple(sorted(shown - {"number"}))
