"""How one service is set up: flags over environment over defaults, all checked before anything starts."""

from __future__ import annotations

import functools
import ipaddress
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from icl_select.errors import ConfigError

__all__ = ["PREFIX", "Limits", "Settings", "is_loopback"]

PREFIX = "ICS_SERVICE_"
"""Environment variables: ``ICS_SERVICE_DATA_DIR``, ``ICS_SERVICE_LIMITS__BODY_BYTES`` …"""

_MIB = 1024 * 1024

Count = Annotated[int, Field(ge=1)]


class Limits(BaseModel):
    """What one request may ask for. Above a limit the answer is 413 or 422 and names the limit."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    body_bytes: Count = 8 * _MIB
    """A JSON body."""
    upload_bytes: Count = 8 * 1024 * _MIB
    """A streamed upload of items, which needs no memory."""
    label_file_bytes: Count = 256 * _MIB
    """A file of labels, which is read whole."""
    item_chars: Count = 200_000
    """Text and fields of one item, or one query, as JSON."""
    pool_items: Count = 5_000_000
    """Items of one pool."""
    batch: Count = 1_000
    """Queries of one request."""
    labels: Count = 10_000
    """Labels of one request."""
    template_chars: Count = 32_000
    """All parts of one template."""
    k: Count = 256
    """Demonstrations of one prompt."""
    budget: Count = 1_000_000
    """Budget of one selection."""
    page: Count = 1_000
    """Rows of one page of a list."""
    lease_seconds: Count = 86_400
    """How long an item may be handed to one annotator."""


class Settings(BaseModel):
    """Everything that decides how the service behaves.

    ``data_dir`` holds the embedded database and all derived files; with ``database`` a PostgreSQL URL it holds the
    derived files alone and must be shared by all processes.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    data_dir: Path = Path("icl-select-data")
    database: str | None = None
    """SQLAlchemy URL of PostgreSQL (``postgresql+psycopg://…``); None is the embedded SQLite."""
    host: str = "127.0.0.1"
    port: Annotated[int, Field(ge=0, le=65535)] = 8765
    allow_anonymous: bool = False
    """Listen beyond loopback although no key exists."""
    allowed_hosts: tuple[str, ...] = ()
    """Names that the Host header may have; default: any with keys, loopback names without."""
    workers: Annotated[int, Field(ge=0, le=64)] = 1
    """Processes that do long work; 0 leaves it to other servers on the same database."""
    encoders: tuple[str, ...] = ("onnx", "minilm", "hash")
    """Encoders that pools may ask for, by name; parameters are free. The first is the default: the packaged model as an
    ONNX graph, which is loaded in a second, where torch takes ten."""
    tokenizers: Mapping[str, str] = Field(default_factory=dict)
    """Tokenizers that prompts may ask for, beside utf8, chars and words: name -> hub id or folder."""
    upstream: str | None = None
    """Base URL of the OpenAI-compatible server that requests are passed on to, such as http://127.0.0.1:8000/v1."""
    upstream_key: Annotated[str | None, Field(repr=False)] = None
    upstream_timeout: Annotated[float, Field(gt=0)] = 600.0
    max_batch: Count = 32
    """Queries that are worked on at a time; the others wait in line, each request having its turn."""
    encode_threads: Count = Field(default_factory=lambda: min(8, _cores()))
    """Threads that encode queries, for encoders that several may call at once; by default one a core, up to 8."""
    queue: Count = 1_024
    """Queries that may come before the last one of a request; with more, it is refused with 429."""
    cache_prompts: Annotated[int, Field(ge=0)] = 10_000
    """Answered prompts kept in memory; 0 keeps none."""
    rate_per_minute: Annotated[int | None, Field(ge=1)] = None
    """Requests a minute for each key that has no rate of its own; None sets no limit."""
    shutdown_seconds: Annotated[float, Field(ge=0)] = 10.0
    """How long running requests and jobs may take to finish when the service is stopped."""
    log_format: Annotated[str, Field(pattern="^(json|text)$")] = "json"
    limits: Limits = Limits()

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.database is not None and not self.database.startswith(("postgresql", "sqlite")):
            raise ValueError("database is a URL of PostgreSQL (postgresql+psycopg://user@host/name) or of SQLite")
        if not self.encoders:
            raise ValueError("encoders is empty, so no pool could be embedded. Name at least one.")
        return self

    @property
    def loopback(self) -> bool:
        """Whether the service listens on this machine alone."""
        return is_loopback(self.host)

    @property
    def database_url(self) -> str:
        """The URL in use."""
        if self.database is not None:
            return self.database
        return f"sqlite:///{(self.data_dir / 'service.sqlite').absolute()}"

    @classmethod
    def load(
        cls,
        flags: Mapping[str, Any] | None = None,
        environ: Mapping[str, str] | None = None,
        file: Mapping[str, Any] | None = None,
    ) -> Self:
        """Flags that are not None win over the environment, that over a file's content, and that over the defaults.

        Raises
        ------
        ConfigError
            For an unknown variable under our prefix, or a value that cannot be.
        """
        found: dict[str, Any] = dict(file or {})
        for name, value in _from_environment(os.environ if environ is None else environ).items():
            inner = isinstance(value, dict) and isinstance(found.get(name), dict)
            found[name] = {**found[name], **value} if inner else value
        found.update({name: value for name, value in (flags or {}).items() if value is not None})
        try:
            return cls.model_validate(found)
        except ValidationError as exc:
            raise ConfigError(_explain(exc)) from exc


def _cores() -> int:
    """Cores that this process may use."""
    affinity = getattr(os, "sched_getaffinity", None)  # not everywhere
    return (os.cpu_count() or 1) if affinity is None else len(affinity(0))


def _from_environment(environ: Mapping[str, str]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for variable, value in environ.items():
        if not variable.startswith(PREFIX):
            continue
        name, _, inner = variable.removeprefix(PREFIX).lower().partition("__")
        if inner:
            found.setdefault(name, {})[inner] = value
        elif name in ("encoders", "allowed_hosts"):
            found[name] = tuple(part.strip() for part in value.split(",") if part.strip())
        else:
            found[name] = value
    return found


def _explain(exc: ValidationError) -> str:
    """Every problem in a line, without the value: it may be a password."""
    lines = []
    for error in exc.errors(include_input=False, include_url=False):
        name = "__".join(str(part) for part in error["loc"]) or "settings"
        lines.append(f"{name}: {error['msg'].removeprefix('Value error, ')}")
    return f"the service cannot be set up so: {'; '.join(lines)}. Flags and {PREFIX}… variables are in docs/service.md."


@functools.lru_cache(maxsize=1_024)
def is_loopback(host: str) -> bool:
    """Whether a host name or address reaches this machine alone."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False
