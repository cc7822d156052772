"""What the service answers, as small frozen records.

Names are those of the JSON. A newer service may say more: keys that this client does not know are left out.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

__all__ = [
    "Agreement",
    "Dropped",
    "Embedding",
    "Item",
    "ItemsAdded",
    "Job",
    "Label",
    "LabelEvent",
    "LabelsTaken",
    "Lease",
    "NextItems",
    "Pick",
    "Pool",
    "Prompt",
    "Selection",
    "Shown",
    "Usage",
    "Versions",
]


@dataclass(frozen=True, slots=True)
class Embedding:
    """The vectors that a pool uses; ``truncated`` counts items longer than the encoder reads."""

    id: str
    encoder: str
    encoder_fingerprint: str
    n_items: int
    dim: int
    truncated: int
    centred: bool
    created_at: datetime


@dataclass(frozen=True, slots=True)
class Pool:
    """A pool as it stands. ``version`` grows with every upload, ``labels_version`` with every change of labels."""

    name: str
    created_at: datetime
    encoder: str
    centre: bool
    text: str | None
    id_field: str | None
    label_field: str | None
    label_words: tuple[str, ...] | None
    annotators: int
    resolve: str
    prompt: Mapping[str, Any]
    n_items: int
    n_labelled: int
    version: int
    labels_version: int
    fingerprint: str
    embedding: Embedding | None


@dataclass(frozen=True, slots=True)
class ItemsAdded:
    """What an upload did; ``job`` is the job that embeds the new items."""

    added: int
    unchanged: int
    skipped: int
    labelled: int
    n_items: int
    version: int
    labels_version: int
    job: str | None


@dataclass(frozen=True, slots=True)
class Item:
    """One item with what is known of it."""

    id: str
    text: str
    fields: Mapping[str, Any]
    metadata: Mapping[str, Any]
    label: str | None
    label_version: int | None
    n_votes: int
    conflict: bool


@dataclass(frozen=True, slots=True)
class LabelsTaken:
    """What a request with labels did. The labels are on disk by then.

    ``written`` are words of annotators that are new, ``changed`` items whose label is another one now, ``conflicts``
    ids on which annotators disagree, ``unknown`` ids of an imported file that the pool does not have.
    """

    version: int
    written: int
    unchanged: int
    changed: int
    conflicts: tuple[str, ...]
    n_labelled: int
    unknown: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Label:
    """The label of an item, as the votes of its annotators resolve; None where they disagree."""

    id: str
    label: str | None
    version: int
    n_votes: int
    conflict: bool


@dataclass(frozen=True, slots=True)
class LabelEvent:
    """One word of one annotator, as it came. ``status`` is "label", "skip", "unsure" or "retract"."""

    version: int
    annotator: str
    status: str
    label: str | None
    adjudicated: bool
    created_at: datetime
    received_at: datetime


@dataclass(frozen=True, slots=True)
class Agreement:
    """How far annotators agree. ``measures`` holds everything else that the service reports."""

    n_items: int
    n_annotators: int
    n_multiple: int
    conflicts: tuple[str, ...]
    measures: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Pick:
    """One pick of a selection; rank 0 is to be labelled first."""

    rank: int
    id: str
    text: str
    gain: float
    label: str | None


@dataclass(frozen=True, slots=True)
class Selection:
    """Which items to label, in that order. Without picks until its job is done."""

    id: str
    pool: str
    job: str
    state: str
    method: str
    budget: int
    seed: int
    created_at: datetime
    nested: bool | None
    made_from: Mapping[str, Any] | None
    info: Mapping[str, Any] | None
    n_labelled: int
    picks: tuple[Pick, ...]

    @property
    def ids(self) -> tuple[str, ...]:
        """Ids of the picks, in the order to label them."""
        return tuple(pick.id for pick in self.picks)


@dataclass(frozen=True, slots=True)
class Lease:
    """An item that is one annotator's until the lease ends."""

    rank: int
    id: str
    text: str
    fields: Mapping[str, Any]
    expires_at: datetime


@dataclass(frozen=True, slots=True)
class NextItems:
    """The next items to label; ``remaining`` counts the picks that this annotator could still label."""

    annotator: str
    items: tuple[Lease, ...]
    remaining: int
    label_words: tuple[str, ...] | None


@dataclass(frozen=True, slots=True)
class Job:
    """Long work of the service. ``kind`` is "embed", "select", "density" or "evaluate"."""

    id: str
    kind: str
    pool: str
    state: str
    done: int
    total: int | None
    unit: str
    message: str
    attempts: int
    cancel: bool
    created_at: datetime
    started_at: datetime | None
    finished_at: datetime | None
    result: Mapping[str, Any] | None
    error: Mapping[str, Any] | None

    @property
    def finished(self) -> bool:
        """Whether it will not change any more."""
        return self.state in ("done", "failed", "cancelled")


@dataclass(frozen=True, slots=True)
class Shown:
    """A demonstration in a prompt; rank 0 is the one most similar to the query."""

    id: str
    label: str
    score: float
    rank: int


@dataclass(frozen=True, slots=True)
class Dropped:
    """A demonstration that was retrieved and is not in the prompt, and why."""

    id: str
    reason: str


@dataclass(frozen=True, slots=True)
class Usage:
    """Tokens that the tokenizer counts for the whole prompt."""

    prompt_tokens: int


@dataclass(frozen=True, slots=True)
class Versions:
    """What a prompt was made from."""

    pool: int
    labels: int
    embedding: str
    index: str
    template: str
    encoder: str
    tokenizer: str


@dataclass(frozen=True, slots=True)
class Prompt:
    """A prompt as text and as messages, and everything that made it. Its id gives the same bytes again."""

    id: str
    pool: str
    query_id: str
    prompt: str
    messages: tuple[Mapping[str, str], ...]
    examples: tuple[Shown, ...]
    usage: Usage
    dropped: tuple[Dropped, ...]
    versions: Versions
