"""``icl-select serve`` and ``icl-select keys``."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Annotated, Any, Literal

from cyclopts import App, Parameter

from icl_select._optional import require
from icl_select.cli._options import UsageError
from icl_select.cli._output import emit_json, emit_rows, remark, write_text
from icl_select.errors import DataError

__all__ = ["keys", "serve"]

Flag = Annotated[bool, Parameter(negative="")]

_ORIGIN = "the service"


def serve(
    *,
    data_dir: Path | None = None,
    host: str | None = None,
    port: int | None = None,
    database: str | None = None,
    workers: int | None = None,
    encoders: Annotated[tuple[str, ...], Parameter(consume_multiple=True, negative="")] = (),
    tokenizer: Annotated[tuple[str, ...], Parameter(negative="")] = (),
    upstream: str | None = None,
    allowed_hosts: Annotated[tuple[str, ...], Parameter(consume_multiple=True, negative="")] = (),
    allow_anonymous: Flag = False,
    config: Annotated[Path | None, Parameter(name=["--config", "-C"])] = None,
    log_format: Literal["json", "text"] | None = None,
) -> int:
    """Serve pools, labels and prompts over HTTP.

    Everything is kept in one data directory. Options come from flags, then from ICS_SERVICE_… variables, then from a
    YAML file, then from the defaults. Without API keys the service listens to this machine alone.

    Parameters
    ----------
    data_dir
        Folder of database, vectors and uploads. Default: icl-select-data.
    host
        Address to listen on. Default: 127.0.0.1.
    port
        Port to listen on; 0 takes a free one. Default: 8765.
    database
        URL of PostgreSQL; better in ICS_SERVICE_DATABASE, which no list of processes shows. Default: SQLite in the
        data directory.
    workers
        Processes that embed and select. Default: 1.
    encoders
        Encoders that pools may use; the first is the default. Default: onnx minilm hash.
    tokenizer
        NAME=ID_OR_FOLDER of a tokenizer that prompts may use; pass the option again for more.
    upstream
        Base URL of the OpenAI-compatible server that chats are passed on to. Its key: ICS_SERVICE_UPSTREAM_KEY.
    allowed_hosts
        Names under which the service may be asked for. Default: any with keys, names of this machine without.
    allow_anonymous
        Listen beyond this machine although there is no API key.
    config
        YAML file with any of the settings, also limits.
    log_format
        json or text. Default: text on a terminal, else json.
    """
    require("fastapi", extra="service", purpose=_ORIGIN)
    from .run import run
    from .settings import Settings

    flags: dict[str, Any] = {
        "data_dir": data_dir,
        "host": host,
        "port": port,
        "database": database,
        "workers": workers,
        "encoders": encoders or None,
        "tokenizers": _pairs(tokenizer),
        "upstream": upstream,
        "allowed_hosts": allowed_hosts or None,
        "allow_anonymous": allow_anonymous or None,
        "log_format": log_format or ("text" if sys.stderr.isatty() else None),
    }
    return run(Settings.load(flags, os.environ, None if config is None else _read(config)))


def _pairs(values: tuple[str, ...]) -> dict[str, str] | None:
    found: dict[str, str] = {}
    for value in values:
        name, equals, target = value.partition("=")
        if not equals or not name or not target:
            raise UsageError(f"--tokenizer {value!r} is not of the form NAME=ID_OR_FOLDER.")
        found[name] = target
    return found or None


def _read(path: Path) -> dict[str, Any]:
    import yaml

    from icl_select.cli._options import read_text

    try:
        content = yaml.safe_load(read_text(path))
    except yaml.YAMLError as exc:
        raise DataError(f"{path} is not YAML ({exc}). Write one setting a line, such as 'port: 8765'.") from exc
    if content is None:
        return {}
    if not isinstance(content, dict):
        raise DataError(f"{path} holds no mapping. Write one setting a line, such as 'port: 8765'.")
    return content


keys = App(name="keys", help="API keys of the service. Once one was made, every route but /health needs a key.")


def _database(data_dir: Path | None) -> Any:
    require("sqlalchemy", extra="service", purpose=_ORIGIN)
    from .settings import Settings
    from .store.database import Database
    from .store.migrate import migrate

    settings = Settings.load({"data_dir": data_dir}, os.environ)
    database = Database(settings.database_url)
    migrate(database)
    return database


@keys.command
def create(
    name: str,
    /,
    *,
    scope: Literal["read", "label", "admin"] = "read",
    per_minute: int | None = None,
    data_dir: Path | None = None,
    as_json: Annotated[bool, Parameter(name="--json", negative="")] = False,
) -> None:
    """Make a key and write it to standard output, once: only a hash of it is kept.

    Parameters
    ----------
    name
        Whose it is; labels made with it bear this name.
    scope
        read: prompts and reports; label: also labels; admin: also pools, items and jobs.
    per_minute
        Requests a minute, at most.
    data_dir
        Folder of the service. Default: icl-select-data, or ICS_SERVICE_DATA_DIR.
    as_json
        Write one JSON document.
    """
    from .store import keys as store

    if not name.strip() or len(name) > 200 or "\0" in name:
        raise UsageError("the name of a key is 1 to 200 characters. It says whose key it is.")
    if per_minute is not None and per_minute < 1:
        raise UsageError(f"--per-minute {per_minute} lets nothing through. Pass at least 1, or leave it out.")
    with _database(data_dir).write() as connection:
        record, key = store.create(connection, name, scope, per_minute)
    if as_json:
        emit_json({"id": record.id, "name": record.name, "scope": record.scope, "key": key})
    else:
        write_text(f"{key}\n")
        remark(f"key {record.id} for {name!r}, scope {scope}. It is not shown again; keep it where secrets are kept.")


@keys.command(name="list")
def list_keys(
    *,
    data_dir: Path | None = None,
    as_json: Annotated[bool, Parameter(name="--json", negative="")] = False,
) -> None:
    """List keys, without their secrets.

    Parameters
    ----------
    data_dir
        Folder of the service. Default: icl-select-data, or ICS_SERVICE_DATA_DIR.
    as_json
        Write one JSON document.
    """
    from .store import keys as store

    with _database(data_dir).read() as connection:
        found = store.listing(connection)
    header = ("id", "name", "scope", "per_minute", "created_at", "revoked_at")
    if as_json:
        emit_json({"keys": [{name: getattr(key, name) for name in header} for key in found]})
    else:
        emit_rows(header, [[getattr(key, name) for name in header] for key in found])


@keys.command
def revoke(key_id: str, /, *, data_dir: Path | None = None) -> None:
    """Make a key invalid for good; a running service notices within two seconds.

    Parameters
    ----------
    key_id
        Its id, as `icl-select keys list` shows it.
    data_dir
        Folder of the service. Default: icl-select-data, or ICS_SERVICE_DATA_DIR.
    """
    from .store import keys as store

    with _database(data_dir).write() as connection:
        record = store.revoke(connection, key_id)
    remark(f"key {record.id} of {record.name!r} is revoked.")
