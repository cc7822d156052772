"""The tables of the service, for SQLite and PostgreSQL alike.

Times are ISO 8601 in UTC with microseconds, as text: they sort as they are and mean the same in both databases. JSON is
text in ASCII: a NUL inside a string, which PostgreSQL refuses, passes as its escape. Other text with a NUL is refused.

Items never change and never move: a position, once visible, means the same text for as long as the pool exists. That is
what lets labels, selections, embeddings and prompts refer to items by position and stay true.
"""

from __future__ import annotations

import sqlalchemy as sa

from ._types import Text, Whole

__all__ = [
    "api_keys",
    "embeddings",
    "idempotency",
    "items",
    "jobs",
    "label_events",
    "label_history",
    "labels",
    "leases",
    "metadata",
    "pools",
    "prompt_settings",
    "prompts",
    "reports",
    "selection_picks",
    "selections",
    "votes",
]

metadata = sa.MetaData(
    naming_convention={
        "ix": "ix_%(table_name)s_%(column_0_N_name)s",
        "uq": "uq_%(table_name)s_%(column_0_N_name)s",
        "pk": "pk_%(table_name)s",
    }
)


def _pool() -> sa.Column[int]:
    return sa.Column("pool_uid", Whole, nullable=False)


# SQLite numbers rows by itself only where the key is called INTEGER.
_SERIAL = sa.BigInteger().with_variant(sa.Integer, "sqlite")

pools = sa.Table(
    "pools",
    metadata,
    sa.Column("uid", _SERIAL, primary_key=True, autoincrement=True),
    sa.Column("name", Text, nullable=False, unique=True),
    sa.Column("created_at", Text, nullable=False),
    # How rows become items, what encodes them, how labels resolve, defaults of prompts.
    sa.Column("config", Text, nullable=False),
    # Items at positions below n_items are visible; others belong to an upload that has not finished.
    sa.Column("n_items", Whole, nullable=False),
    sa.Column("version", Whole, nullable=False),
    sa.Column("labels_version", Whole, nullable=False),
    sa.Column("n_labelled", Whole, nullable=False),
    # Hash chain over the items, so that two pools of equal content, uploaded alike, have the same name.
    sa.Column("fingerprint", Text, nullable=False),
    sa.Column("embedding_id", Text),
    # The upload that may write hidden items, and until when it is believed to live.
    sa.Column("upload", Text),
    sa.Column("upload_until", Text),
    sqlite_autoincrement=True,
)

items = sa.Table(
    "items",
    metadata,
    _pool(),
    sa.Column("pos", Whole, nullable=False),
    sa.Column("item_id", Text, nullable=False),
    sa.Column("content", Text, nullable=False),
    sa.Column("hash", Text, nullable=False),
    # The label that came with the row; it becomes a word of the annotator "upload" when the upload is finished.
    sa.Column("uploaded_label", Text),
    sa.PrimaryKeyConstraint("pool_uid", "pos"),
    sa.UniqueConstraint("pool_uid", "item_id"),
)

label_events = sa.Table(
    "label_events",
    metadata,
    _pool(),
    # Grows in the order in which words were taken: the version in the upper bits, the place in its request below.
    sa.Column("event", Whole, nullable=False),
    sa.Column("version", Whole, nullable=False),
    sa.Column("pos", Whole, nullable=False),
    sa.Column("annotator", Text, nullable=False),
    sa.Column("status", Text, nullable=False),
    sa.Column("label", Text),
    sa.Column("adjudicated", sa.Boolean, nullable=False),
    sa.Column("created_at", Text, nullable=False),
    sa.Column("received_at", Text, nullable=False),
    sa.Column("key_id", Text),
    sa.PrimaryKeyConstraint("pool_uid", "event"),
    sa.Index(None, "pool_uid", "pos"),
)

# The latest event of each annotator for each item.
votes = sa.Table(
    "votes",
    metadata,
    _pool(),
    sa.Column("pos", Whole, nullable=False),
    sa.Column("annotator", Text, nullable=False),
    sa.Column("status", Text, nullable=False),
    sa.Column("label", Text),
    sa.Column("adjudicated", sa.Boolean, nullable=False),
    sa.Column("created_at", Text, nullable=False),
    sa.Column("event", Whole, nullable=False),
    sa.PrimaryKeyConstraint("pool_uid", "pos", "annotator"),
)

# What the votes resolve to now: a label, or none because annotators disagree.
labels = sa.Table(
    "labels",
    metadata,
    _pool(),
    sa.Column("pos", Whole, nullable=False),
    sa.Column("label", Text),
    sa.Column("version", Whole, nullable=False),
    sa.Column("n_votes", Whole, nullable=False),
    sa.Column("conflict", sa.Boolean, nullable=False),
    sa.PrimaryKeyConstraint("pool_uid", "pos"),
    sa.Index(None, "pool_uid", "version"),
)

# What they resolved to after each version that changed it; prompts are rebuilt from it.
label_history = sa.Table(
    "label_history",
    metadata,
    _pool(),
    sa.Column("pos", Whole, nullable=False),
    sa.Column("version", Whole, nullable=False),
    sa.Column("label", Text),
    sa.PrimaryKeyConstraint("pool_uid", "pos", "version"),
    sa.Index(None, "pool_uid", "version"),
)

leases = sa.Table(
    "leases",
    metadata,
    _pool(),
    sa.Column("pos", Whole, nullable=False),
    sa.Column("annotator", Text, nullable=False),
    sa.Column("expires_at", Text, nullable=False),
    sa.PrimaryKeyConstraint("pool_uid", "pos", "annotator"),
)

embeddings = sa.Table(
    "embeddings",
    metadata,
    sa.Column("id", Text, primary_key=True),
    _pool(),
    sa.Column("encoder", Text, nullable=False),
    sa.Column("encoder_fingerprint", Text, nullable=False),
    sa.Column("n_items", Whole, nullable=False),
    sa.Column("dim", sa.Integer, nullable=False),
    sa.Column("truncated", Whole, nullable=False),
    sa.Column("pool_fingerprint", Text, nullable=False),
    # Mean of the pool at this version, float64 little endian; empty if the pool is not centred.
    sa.Column("shift", sa.LargeBinary, nullable=False),
    # Files that hold the vectors, with their row ranges and hashes.
    sa.Column("blocks", Text, nullable=False),
    sa.Column("created_at", Text, nullable=False),
    sa.Index(None, "pool_uid"),
)

selections = sa.Table(
    "selections",
    metadata,
    sa.Column("id", Text, primary_key=True),
    _pool(),
    sa.Column("job_id", Text, nullable=False),
    sa.Column("method", Text, nullable=False),
    sa.Column("budget", Whole, nullable=False),
    sa.Column("seed", Text, nullable=False),
    sa.Column("created_at", Text, nullable=False),
    # What it was computed from and what came out; empty until its job is done.
    sa.Column("result", Text),
    sa.Index(None, "pool_uid"),
)

selection_picks = sa.Table(
    "selection_picks",
    metadata,
    sa.Column("selection_id", Text, nullable=False),
    sa.Column("rank", Whole, nullable=False),
    sa.Column("pos", Whole, nullable=False),
    sa.Column("gain", sa.Double, nullable=False),
    sa.PrimaryKeyConstraint("selection_id", "rank"),
)

# Density and evaluation: the newest result of each kind.
reports = sa.Table(
    "reports",
    metadata,
    _pool(),
    sa.Column("kind", Text, nullable=False),
    sa.Column("created_at", Text, nullable=False),
    sa.Column("job_id", Text, nullable=False),
    sa.Column("made_from", Text, nullable=False),
    sa.Column("content", Text, nullable=False),
    sa.PrimaryKeyConstraint("pool_uid", "kind"),
)

jobs = sa.Table(
    "jobs",
    metadata,
    sa.Column("seq", _SERIAL, primary_key=True, autoincrement=True),
    sa.Column("id", Text, nullable=False, unique=True),
    sa.Column("pool_uid", Whole, nullable=False),
    sa.Column("pool_name", Text, nullable=False),
    sa.Column("kind", Text, nullable=False),
    sa.Column("params", Text, nullable=False),
    sa.Column("state", Text, nullable=False),
    sa.Column("cancel", sa.Boolean, nullable=False),
    sa.Column("attempts", sa.Integer, nullable=False),
    sa.Column("owner", Text),
    sa.Column("beat_at", Text),
    sa.Column("done", Whole, nullable=False),
    sa.Column("total", Whole),
    sa.Column("unit", Text, nullable=False),
    sa.Column("message", Text, nullable=False),
    sa.Column("created_at", Text, nullable=False),
    sa.Column("started_at", Text),
    sa.Column("finished_at", Text),
    sa.Column("result", Text),
    sa.Column("error", Text),
    sa.Index(None, "state"),
    sa.Index(None, "pool_uid"),
)

# Templates and options of prompts, once each, under their hash.
prompt_settings = sa.Table(
    "prompt_settings",
    metadata,
    sa.Column("hash", Text, primary_key=True),
    sa.Column("content", Text, nullable=False),
)

prompts = sa.Table(
    "prompts",
    metadata,
    sa.Column("id", Text, primary_key=True),
    _pool(),
    sa.Column("settings", Text, nullable=False),
    # Query, positions and similarities of the examples, versions, hash of the answer.
    sa.Column("content", Text, nullable=False),
    sa.Column("created_at", Text, nullable=False),
    sa.Index(None, "pool_uid"),
)

api_keys = sa.Table(
    "api_keys",
    metadata,
    sa.Column("id", Text, primary_key=True),
    sa.Column("name", Text, nullable=False),
    sa.Column("scope", Text, nullable=False),
    sa.Column("hash", Text, nullable=False),
    sa.Column("per_minute", sa.Integer),
    sa.Column("created_at", Text, nullable=False),
    sa.Column("revoked_at", Text),
)

idempotency = sa.Table(
    "idempotency",
    metadata,
    sa.Column("principal", Text, nullable=False),
    sa.Column("key", Text, nullable=False),
    sa.Column("request", Text, nullable=False),
    sa.Column("status", sa.Integer, nullable=False),
    sa.Column("headers", Text, nullable=False),
    sa.Column("body", Text, nullable=False),
    sa.Column("created_at", Text, nullable=False),
    sa.PrimaryKeyConstraint("principal", "key"),
    sa.Index(None, "created_at"),
)
