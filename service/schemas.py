"""What goes over the wire: requests are checked by these models, answers are described by them."""

from __future__ import annotations

import datetime
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, model_validator

__all__ = [
    "AgreementOut",
    "DensityIn",
    "DroppedOut",
    "EmbeddingOut",
    "EvaluationIn",
    "ExampleOut",
    "ItemOut",
    "ItemsIn",
    "ItemsOut",
    "ItemsPage",
    "JobOut",
    "JobsPage",
    "LabelEventOut",
    "LabelIn",
    "LabelOut",
    "LabelsIn",
    "LabelsOut",
    "LabelsPage",
    "LeaseOut",
    "NextIn",
    "NextOut",
    "PickOut",
    "PoolIn",
    "PoolOut",
    "PoolPatch",
    "PoolsPage",
    "ProblemOut",
    "PromptIn",
    "PromptOptions",
    "PromptOut",
    "PromptsOut",
    "SelectionIn",
    "SelectionOut",
    "SelectionsPage",
    "TemplateIn",
    "Usage",
    "Versions",
]

PoolName = Annotated[
    str,
    StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$"),
    Field(description="Letters, digits, '.', '_', '-'; at most 64.", examples=["tickets"]),
]
# PostgreSQL keeps no NUL, and an id or name with one is a mistake everywhere.
_NO_NUL = r"^[^\x00]*$"
ItemId = Annotated[str, StringConstraints(min_length=1, max_length=512, pattern=_NO_NUL)]
Label = Annotated[str, StringConstraints(min_length=1, max_length=20_000, pattern=_NO_NUL)]
Annotator = Annotated[str, StringConstraints(min_length=1, max_length=200, pattern=_NO_NUL)]
Seed = Annotated[int, Field(ge=0, lt=2**63)]
Status = Literal["label", "skip", "unsure", "retract"]


class _Request(BaseModel):
    """Unknown keys are refused: a slip in a name must not pass for a default."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class _Answer(BaseModel):
    model_config = ConfigDict(extra="forbid")


class TemplateIn(_Request):
    """How demonstrations and the query are written; the parts of icl_select.PromptTemplate."""

    demonstration: str = "{{ text }}\n{{ label }}"
    query: str = "{{ text }}"
    separator: str = "\n\n"
    instruction: str = ""
    user: str | None = None
    assistant: str = "{{ label }}"
    system: str | None = None


class PromptOptions(_Request):
    """What decides how a prompt looks; a pool has defaults for all of it."""

    k: Annotated[int | None, Field(ge=1)] = None
    order: Literal["nearest_last", "nearest_first", "shuffled"] | None = None
    max_tokens: Annotated[int | None, Field(ge=1)] = None
    tokenizer: Annotated[str | None, StringConstraints(min_length=1, max_length=200)] = None
    template: TemplateIn | None = None
    rule: Literal["exact", "published"] | None = None
    max_demonstration_tokens: Annotated[int | None, Field(ge=1)] = None
    chat: bool | None = None
    mmr: Annotated[float | None, Field(ge=0, le=1)] = None
    balance: bool | None = None
    min_similarity: Annotated[float | None, Field(ge=-1, le=1)] = None
    seed: Seed | None = None


class PoolIn(_Request):
    """A new, empty pool."""

    name: PoolName
    encoder: Annotated[str | None, StringConstraints(min_length=1, max_length=300)] = None
    centre: bool = True
    text: Annotated[str | None, Field(description="Field that is embedded, or a template of fields.")] = None
    id_field: str | None = None
    label_field: str | None = None
    label_words: Annotated[list[Label] | None, Field(min_length=1, max_length=1000)] = None
    annotators: Annotated[int, Field(ge=1, le=100, description="Labels wanted for each item.")] = 1
    resolve: Literal["majority", "latest"] = "majority"
    prompt: PromptOptions = PromptOptions()

    model_config = ConfigDict(
        extra="forbid",
        frozen=True,
        json_schema_extra={
            "examples": [{"name": "tickets", "text": "{subject}: {body}", "label_words": ["billing", "account"]}]
        },
    )


class PoolPatch(_Request):
    """What may change later; what is left out stays."""

    label_words: Annotated[list[Label] | None, Field(min_length=1, max_length=1000)] = None
    annotators: Annotated[int | None, Field(ge=1, le=100)] = None
    prompt: PromptOptions | None = None


class EmbeddingOut(_Answer):
    """The vectors in use."""

    id: str
    encoder: str
    encoder_fingerprint: str
    n_items: int
    dim: int
    truncated: Annotated[int, Field(description="Items longer than the encoder reads.")]
    centred: bool
    created_at: str


class PoolOut(_Answer):
    """A pool as it stands."""

    name: str
    created_at: str
    encoder: str
    centre: bool
    text: str | None
    id_field: str | None
    label_field: str | None
    label_words: list[str] | None
    annotators: int
    resolve: str
    prompt: dict[str, Any]
    n_items: int
    n_labelled: int
    version: Annotated[int, Field(description="Grows with every upload of items.")]
    labels_version: Annotated[int, Field(description="Grows with every change of labels.")]
    fingerprint: str
    embedding: EmbeddingOut | None


class PoolsPage(_Answer):
    """Pools by name; pass `next` as `after` for more."""

    pools: list[PoolOut]
    next: str | None


class ItemsIn(_Request):
    """Rows as a pool file has them; large pools go as JSON Lines or Parquet."""

    items: Annotated[list[dict[str, Any]], Field(min_length=1)]

    model_config = ConfigDict(
        extra="forbid",
        frozen=True,
        json_schema_extra={"examples": [{"items": [{"id": "t1", "text": "My invoice is wrong"}]}]},
    )


class ItemsOut(_Answer):
    """What an upload did."""

    added: int
    unchanged: Annotated[int, Field(description="Items that were there already, with the same content.")]
    skipped: Annotated[int, Field(description="Rows left out because their text is empty.")]
    labelled: Annotated[int, Field(description="Labels that came with the rows and changed something.")]
    n_items: int
    version: int
    labels_version: int
    job: Annotated[str | None, Field(description="The job that embeds the new items.")]


class ItemOut(_Answer):
    """One item with what is known of it."""

    id: str
    text: str
    fields: dict[str, Any]
    metadata: dict[str, Any]
    label: str | None
    label_version: int | None
    n_votes: int
    conflict: bool


class ItemsPage(_Answer):
    """Items in the order in which they were added; pass `next` as `after` for more."""

    items: list[ItemOut]
    next: int | None


class LabelIn(_Request):
    """What one annotator says of one item. The latest word of each annotator counts."""

    id: ItemId
    label: Label | None = None
    annotator: Annotated[Annotator | None, Field(description="Default: the name of the key.")] = None
    status: Status = "label"
    adjudicated: Annotated[bool, Field(description="Overrides the votes of all others.")] = False
    created_at: Annotated[datetime.datetime | None, Field(description="When it was made; default: now.")] = None

    @model_validator(mode="after")
    def _one_meaning(self) -> LabelIn:
        if (self.status == "label") != (self.label is not None):
            raise ValueError(
                "a label is given with status 'label' and with no other: skip, unsure and retract have none"
            )
        if self.adjudicated and self.status in ("skip", "unsure"):
            raise ValueError("only a label, or retracting one, can be adjudicated")
        return self


class LabelsIn(_Request):
    """Labels of one request are taken together or not at all."""

    labels: Annotated[list[LabelIn], Field(min_length=1)]

    model_config = ConfigDict(
        extra="forbid",
        frozen=True,
        json_schema_extra={"examples": [{"labels": [{"id": "t1", "label": "billing", "annotator": "ann"}]}]},
    )


class LabelsOut(_Answer):
    """What a request did; when it is answered, the labels are on disk."""

    version: int
    written: Annotated[int, Field(description="Words of annotators that are new.")]
    unchanged: Annotated[int, Field(description="Words that repeat what the annotator said before.")]
    changed: Annotated[int, Field(description="Items whose label is another one now.")]
    conflicts: Annotated[list[str], Field(description="Ids of these items on which annotators disagree.")]
    unknown: Annotated[list[str], Field(description="Ids of an imported file that the pool does not have.")] = []
    n_labelled: int


class LabelOut(_Answer):
    """The label of an item, as its annotators' votes resolve."""

    id: str
    label: str | None
    version: int
    n_votes: int
    conflict: bool


class LabelsPage(_Answer):
    """Labels by item order, as of a version; pass `next` as `after` for more."""

    version: int
    labels: list[LabelOut]
    next: int | None


class LabelEventOut(_Answer):
    """One word of one annotator, as it came."""

    version: int
    annotator: str
    status: Status
    label: str | None
    adjudicated: bool
    created_at: str
    received_at: str


class AgreementOut(_Answer):
    """How far annotators agree; see icl_select.data.agreement."""

    model_config = ConfigDict(extra="allow")

    n_items: int
    n_annotators: int
    n_multiple: Annotated[int, Field(description="Items that several annotators labelled.")]
    conflicts: Annotated[list[str], Field(description="Ids whose label is open because annotators disagree.")]


class SelectionIn(_Request):
    """Which method, and how many labels you can pay for. Labelled items count as covered and are not picked."""

    budget: Annotated[int, Field(ge=1)]
    method: Annotated[str, StringConstraints(min_length=1, max_length=500)] = "max_herding"
    seed: Seed = 0
    ignore_labels: bool = False

    model_config = ConfigDict(
        extra="forbid",
        frozen=True,
        json_schema_extra={"examples": [{"method": "max_herding(bandwidth=1.0)", "budget": 50}]},
    )


class PickOut(_Answer):
    """One pick; rank 0 is to be labelled first."""

    rank: int
    id: str
    text: str
    gain: float
    label: str | None


class SelectionOut(_Answer):
    """A selection: picks in labelling order, and everything that made them."""

    id: str
    pool: str
    job: str
    state: str
    method: str
    budget: int
    seed: int
    created_at: str
    nested: Annotated[bool | None, Field(description="Whether any prefix answers the smaller budget.")]
    made_from: Annotated[dict[str, Any] | None, Field(description="Versions of pool, labels and embedding.")]
    info: dict[str, Any] | None
    n_labelled: Annotated[int, Field(description="Picks that have a label by now.")]
    picks: list[PickOut]
    next: int | None


class SelectionsPage(_Answer):
    """Selections of a pool, newest first, without their picks."""

    selections: list[SelectionOut]


class NextIn(_Request):
    """Who labels, and how many items they take."""

    annotator: Annotator | None = None
    count: Annotated[int, Field(ge=1, le=1000)] = 1
    lease_seconds: Annotated[int, Field(ge=1)] = 600


class LeaseOut(_Answer):
    """An item that is this annotator's until the lease ends."""

    rank: int
    id: str
    text: str
    fields: dict[str, Any]
    expires_at: str


class NextOut(_Answer):
    """The next items to label, in the order of the selection."""

    annotator: str
    items: list[LeaseOut]
    remaining: Annotated[int, Field(description="Picks that still lack a label this annotator could give.")]
    label_words: list[str] | None


class DensityIn(_Request):
    """How the density of a pool is measured."""

    centre: bool = False
    seed: Seed = 0


class EvaluationIn(_Request):
    """Leave-one-out evaluation of the labels: each labelled item is answered by the others."""

    ks: Annotated[list[Annotated[int, Field(ge=1, le=1000)]], Field(min_length=1, max_length=20)] = [1, 3, 5, 8, 16]
    seed: Seed = 0


class JobOut(_Answer):
    """Long work; it survives the process that does it."""

    id: str
    kind: Literal["embed", "select", "density", "evaluate"]
    pool: str
    state: Literal["queued", "running", "done", "failed", "cancelled"]
    done: int
    total: int | None
    unit: str
    message: str
    attempts: int
    cancel: bool
    created_at: str
    started_at: str | None
    finished_at: str | None
    result: dict[str, Any] | None
    error: dict[str, Any] | None


class JobsPage(_Answer):
    """Jobs, newest first."""

    jobs: list[JobOut]


class PromptIn(PromptOptions):
    """One query, or a list of them; a query is a text or a mapping of fields."""

    pool: PoolName
    query: str | dict[str, Any] | None = None
    queries: Annotated[list[str | dict[str, Any]] | None, Field(min_length=1)] = None

    model_config = ConfigDict(
        extra="forbid",
        frozen=True,
        json_schema_extra={"examples": [{"pool": "tickets", "query": "My invoice is wrong", "k": 4}]},
    )

    @model_validator(mode="after")
    def _one_of(self) -> PromptIn:
        if (self.query is None) == (self.queries is None):
            raise ValueError("pass query for one prompt, or queries for a list of them, and not both")
        return self


class ExampleOut(_Answer):
    """A demonstration in the prompt; rank 0 is the one most similar to the query."""

    id: str
    label: str
    score: float
    rank: int


class DroppedOut(_Answer):
    """A demonstration that was retrieved and is not in the prompt, and why."""

    id: str
    reason: str


class Usage(_Answer):
    """Tokens that the tokenizer counts for the whole prompt."""

    prompt_tokens: int


class Versions(_Answer):
    """What the prompt was made from."""

    pool: int
    labels: int
    embedding: str
    index: str
    template: str
    encoder: str
    tokenizer: str


class PromptOut(_Answer):
    """A prompt as text and as messages; GET /v1/prompts/{id} gives the same bytes again."""

    id: str
    pool: str
    query_id: str
    prompt: str
    messages: list[dict[str, str]]
    examples: list[ExampleOut]
    usage: Usage
    dropped: list[DroppedOut]
    versions: Versions


class PromptsOut(_Answer):
    """One prompt for each query, in order."""

    prompts: list[PromptOut]


class ProblemOut(BaseModel):
    """RFC 9457 problem details."""

    model_config = ConfigDict(extra="allow")

    type: str
    title: str
    status: int
    detail: str
    instance: str | None = None
    errors: list[dict[str, Any]] = []
