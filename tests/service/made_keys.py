"""Keys of a service that does not run yet, made as `icl-select keys create` makes them, without a process for each."""

from __future__ import annotations

from pathlib import Path

from icl_select.service.settings import Settings
from icl_select.service.store import keys
from icl_select.service.store.database import Database
from icl_select.service.store.migrate import migrate

__all__ = ["make_keys"]


def make_keys(folder: Path, *scopes: str) -> dict[str, str]:
    """One key for each scope, named after it; from then on the service of this data directory is closed."""
    database = Database(Settings(data_dir=folder).database_url)
    try:
        migrate(database)
        with database.write() as connection:
            return {scope: keys.create(connection, f"{scope}-key", scope)[1] for scope in scopes}
    finally:
        database.close()
