"""Bringing a database to the schema of this version, and refusing one that is newer."""

from __future__ import annotations

import logging
from pathlib import Path

import sqlalchemy as sa
from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy.engine import Connection

from icl_select.errors import StoreError

from .database import Database

__all__ = ["check_schema", "migrate"]

_LOG = logging.getLogger(__name__)

# Any number, the same in every process: who holds it migrates.
_LOCK = 4_201_734


def migrate(database: Database) -> str:
    """Create or upgrade the tables; return the revision.

    Raises
    ------
    StoreError
        If a newer version of this package made the schema.
    """
    with database.write() as connection:
        if not database.is_sqlite:  # SQLite's write lock is held already
            connection.execute(sa.text("SELECT pg_advisory_xact_lock(:lock)"), {"lock": _LOCK})
        found, head = _revisions(connection)
        if found != head:
            _LOG.info("schema of the database goes from %s to %s", found or "nothing", head)
            config = _config()
            config.attributes["connection"] = connection
            command.upgrade(config, "head")
    return head


def check_schema(database: Database) -> None:
    """Raise StoreError unless the tables are those of this version."""
    with database.read() as connection:
        found, head = _revisions(connection)
    if found != head:
        raise StoreError(f"the schema of the database is {found or 'missing'}, not {head}. Start the service once.")


def _revisions(connection: Connection) -> tuple[str | None, str]:
    scripts = ScriptDirectory.from_config(_config())
    head = scripts.get_current_head()
    assert head is not None
    found = MigrationContext.configure(connection).get_current_revision()
    if found is not None and found not in {script.revision for script in scripts.walk_revisions()}:
        raise StoreError(
            f"the database has the schema {found}, which this version of icl-select does not know: a newer one made "
            "it. Upgrade icl-select, or use another data directory."
        )
    return found, head


def _config() -> Config:
    config = Config()
    config.set_main_option("script_location", str(Path(__file__).parent / "migrations").replace("%", "%%"))
    return config
