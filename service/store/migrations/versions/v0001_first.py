"""The first schema."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None

# Sorted by its bytes in both databases.
_TEXT = sa.Text().with_variant(postgresql.TEXT(collation="C"), "postgresql")


def upgrade() -> None:
    op.create_table(
        "api_keys",
        sa.Column("id", _TEXT, nullable=False),
        sa.Column("name", _TEXT, nullable=False),
        sa.Column("scope", _TEXT, nullable=False),
        sa.Column("hash", _TEXT, nullable=False),
        sa.Column("per_minute", sa.Integer(), nullable=True),
        sa.Column("created_at", _TEXT, nullable=False),
        sa.Column("revoked_at", _TEXT, nullable=True),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_api_keys")),
    )
    op.create_table(
        "embeddings",
        sa.Column("id", _TEXT, nullable=False),
        sa.Column("pool_uid", sa.BigInteger(), nullable=False),
        sa.Column("encoder", _TEXT, nullable=False),
        sa.Column("encoder_fingerprint", _TEXT, nullable=False),
        sa.Column("n_items", sa.BigInteger(), nullable=False),
        sa.Column("dim", sa.Integer(), nullable=False),
        sa.Column("truncated", sa.BigInteger(), nullable=False),
        sa.Column("pool_fingerprint", _TEXT, nullable=False),
        sa.Column("shift", sa.LargeBinary(), nullable=False),
        sa.Column("blocks", _TEXT, nullable=False),
        sa.Column("created_at", _TEXT, nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_embeddings")),
    )
    op.create_index(op.f("ix_embeddings_pool_uid"), "embeddings", ["pool_uid"], unique=False)
    op.create_table(
        "idempotency",
        sa.Column("principal", _TEXT, nullable=False),
        sa.Column("key", _TEXT, nullable=False),
        sa.Column("request", _TEXT, nullable=False),
        sa.Column("status", sa.Integer(), nullable=False),
        sa.Column("headers", _TEXT, nullable=False),
        sa.Column("body", _TEXT, nullable=False),
        sa.Column("created_at", _TEXT, nullable=False),
        sa.PrimaryKeyConstraint("principal", "key", name=op.f("pk_idempotency")),
    )
    op.create_index(op.f("ix_idempotency_created_at"), "idempotency", ["created_at"], unique=False)
    op.create_table(
        "items",
        sa.Column("pool_uid", sa.BigInteger(), nullable=False),
        sa.Column("pos", sa.BigInteger(), nullable=False),
        sa.Column("item_id", _TEXT, nullable=False),
        sa.Column("content", _TEXT, nullable=False),
        sa.Column("hash", _TEXT, nullable=False),
        sa.Column("uploaded_label", _TEXT, nullable=True),
        sa.PrimaryKeyConstraint("pool_uid", "pos", name=op.f("pk_items")),
        sa.UniqueConstraint("pool_uid", "item_id", name=op.f("uq_items_pool_uid_item_id")),
    )
    op.create_table(
        "jobs",
        sa.Column("seq", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), autoincrement=True, nullable=False),
        sa.Column("id", _TEXT, nullable=False),
        sa.Column("pool_uid", sa.BigInteger(), nullable=False),
        sa.Column("pool_name", _TEXT, nullable=False),
        sa.Column("kind", _TEXT, nullable=False),
        sa.Column("params", _TEXT, nullable=False),
        sa.Column("state", _TEXT, nullable=False),
        sa.Column("cancel", sa.Boolean(), nullable=False),
        sa.Column("attempts", sa.Integer(), nullable=False),
        sa.Column("owner", _TEXT, nullable=True),
        sa.Column("beat_at", _TEXT, nullable=True),
        sa.Column("done", sa.BigInteger(), nullable=False),
        sa.Column("total", sa.BigInteger(), nullable=True),
        sa.Column("unit", _TEXT, nullable=False),
        sa.Column("message", _TEXT, nullable=False),
        sa.Column("created_at", _TEXT, nullable=False),
        sa.Column("started_at", _TEXT, nullable=True),
        sa.Column("finished_at", _TEXT, nullable=True),
        sa.Column("result", _TEXT, nullable=True),
        sa.Column("error", _TEXT, nullable=True),
        sa.PrimaryKeyConstraint("seq", name=op.f("pk_jobs")),
        sa.UniqueConstraint("id", name=op.f("uq_jobs_id")),
    )
    op.create_index(op.f("ix_jobs_pool_uid"), "jobs", ["pool_uid"], unique=False)
    op.create_index(op.f("ix_jobs_state"), "jobs", ["state"], unique=False)
    op.create_table(
        "label_events",
        sa.Column("pool_uid", sa.BigInteger(), nullable=False),
        sa.Column("event", sa.BigInteger(), nullable=False),
        sa.Column("version", sa.BigInteger(), nullable=False),
        sa.Column("pos", sa.BigInteger(), nullable=False),
        sa.Column("annotator", _TEXT, nullable=False),
        sa.Column("status", _TEXT, nullable=False),
        sa.Column("label", _TEXT, nullable=True),
        sa.Column("adjudicated", sa.Boolean(), nullable=False),
        sa.Column("created_at", _TEXT, nullable=False),
        sa.Column("received_at", _TEXT, nullable=False),
        sa.Column("key_id", _TEXT, nullable=True),
        sa.PrimaryKeyConstraint("pool_uid", "event", name=op.f("pk_label_events")),
    )
    op.create_index(op.f("ix_label_events_pool_uid_pos"), "label_events", ["pool_uid", "pos"], unique=False)
    op.create_table(
        "label_history",
        sa.Column("pool_uid", sa.BigInteger(), nullable=False),
        sa.Column("pos", sa.BigInteger(), nullable=False),
        sa.Column("version", sa.BigInteger(), nullable=False),
        sa.Column("label", _TEXT, nullable=True),
        sa.PrimaryKeyConstraint("pool_uid", "pos", "version", name=op.f("pk_label_history")),
    )
    op.create_index(op.f("ix_label_history_pool_uid_version"), "label_history", ["pool_uid", "version"], unique=False)
    op.create_table(
        "labels",
        sa.Column("pool_uid", sa.BigInteger(), nullable=False),
        sa.Column("pos", sa.BigInteger(), nullable=False),
        sa.Column("label", _TEXT, nullable=True),
        sa.Column("version", sa.BigInteger(), nullable=False),
        sa.Column("n_votes", sa.BigInteger(), nullable=False),
        sa.Column("conflict", sa.Boolean(), nullable=False),
        sa.PrimaryKeyConstraint("pool_uid", "pos", name=op.f("pk_labels")),
    )
    op.create_index(op.f("ix_labels_pool_uid_version"), "labels", ["pool_uid", "version"], unique=False)
    op.create_table(
        "leases",
        sa.Column("pool_uid", sa.BigInteger(), nullable=False),
        sa.Column("pos", sa.BigInteger(), nullable=False),
        sa.Column("annotator", _TEXT, nullable=False),
        sa.Column("expires_at", _TEXT, nullable=False),
        sa.PrimaryKeyConstraint("pool_uid", "pos", "annotator", name=op.f("pk_leases")),
    )
    op.create_table(
        "pools",
        sa.Column("uid", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), autoincrement=True, nullable=False),
        sa.Column("name", _TEXT, nullable=False),
        sa.Column("created_at", _TEXT, nullable=False),
        sa.Column("config", _TEXT, nullable=False),
        sa.Column("n_items", sa.BigInteger(), nullable=False),
        sa.Column("version", sa.BigInteger(), nullable=False),
        sa.Column("labels_version", sa.BigInteger(), nullable=False),
        sa.Column("n_labelled", sa.BigInteger(), nullable=False),
        sa.Column("fingerprint", _TEXT, nullable=False),
        sa.Column("embedding_id", _TEXT, nullable=True),
        sa.Column("upload", _TEXT, nullable=True),
        sa.Column("upload_until", _TEXT, nullable=True),
        sa.PrimaryKeyConstraint("uid", name=op.f("pk_pools")),
        sa.UniqueConstraint("name", name=op.f("uq_pools_name")),
        sqlite_autoincrement=True,
    )
    op.create_table(
        "prompt_settings",
        sa.Column("hash", _TEXT, nullable=False),
        sa.Column("content", _TEXT, nullable=False),
        sa.PrimaryKeyConstraint("hash", name=op.f("pk_prompt_settings")),
    )
    op.create_table(
        "prompts",
        sa.Column("id", _TEXT, nullable=False),
        sa.Column("pool_uid", sa.BigInteger(), nullable=False),
        sa.Column("settings", _TEXT, nullable=False),
        sa.Column("content", _TEXT, nullable=False),
        sa.Column("created_at", _TEXT, nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_prompts")),
    )
    op.create_index(op.f("ix_prompts_pool_uid"), "prompts", ["pool_uid"], unique=False)
    op.create_table(
        "reports",
        sa.Column("pool_uid", sa.BigInteger(), nullable=False),
        sa.Column("kind", _TEXT, nullable=False),
        sa.Column("created_at", _TEXT, nullable=False),
        sa.Column("job_id", _TEXT, nullable=False),
        sa.Column("made_from", _TEXT, nullable=False),
        sa.Column("content", _TEXT, nullable=False),
        sa.PrimaryKeyConstraint("pool_uid", "kind", name=op.f("pk_reports")),
    )
    op.create_table(
        "selection_picks",
        sa.Column("selection_id", _TEXT, nullable=False),
        sa.Column("rank", sa.BigInteger(), nullable=False),
        sa.Column("pos", sa.BigInteger(), nullable=False),
        sa.Column("gain", sa.Double(), nullable=False),
        sa.PrimaryKeyConstraint("selection_id", "rank", name=op.f("pk_selection_picks")),
    )
    op.create_table(
        "selections",
        sa.Column("id", _TEXT, nullable=False),
        sa.Column("pool_uid", sa.BigInteger(), nullable=False),
        sa.Column("job_id", _TEXT, nullable=False),
        sa.Column("method", _TEXT, nullable=False),
        sa.Column("budget", sa.BigInteger(), nullable=False),
        sa.Column("seed", _TEXT, nullable=False),
        sa.Column("created_at", _TEXT, nullable=False),
        sa.Column("result", _TEXT, nullable=True),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_selections")),
    )
    op.create_index(op.f("ix_selections_pool_uid"), "selections", ["pool_uid"], unique=False)
    op.create_table(
        "votes",
        sa.Column("pool_uid", sa.BigInteger(), nullable=False),
        sa.Column("pos", sa.BigInteger(), nullable=False),
        sa.Column("annotator", _TEXT, nullable=False),
        sa.Column("status", _TEXT, nullable=False),
        sa.Column("label", _TEXT, nullable=True),
        sa.Column("adjudicated", sa.Boolean(), nullable=False),
        sa.Column("created_at", _TEXT, nullable=False),
        sa.Column("event", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("pool_uid", "pos", "annotator", name=op.f("pk_votes")),
    )
