"""Prompts that were answered: enough of each to write it again, byte for byte."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from ..errors import NotFoundError
from ._sql import insert_new
from .database import dumps, loads, now
from .tables import prompt_settings, prompts

__all__ = ["Found", "PromptRecord", "find", "keep", "keep_settings"]


@dataclass(frozen=True)
class PromptRecord:
    """What a prompt was made from.

    ``settings`` names template and options, kept once for all that share them; ``made_from`` is JSON: the query, the
    examples, the versions; ``hash`` is that of the answer.
    """

    id: str
    pool_uid: int
    settings: str
    made_from: str
    hash: str


@dataclass(frozen=True)
class Found:
    """A prompt as it was kept, with the settings themselves."""

    id: str
    pool_uid: int
    settings: Mapping[str, Any]
    made_from: Mapping[str, Any]
    hash: str


def keep_settings(connection: Connection, name: str, content: Mapping[str, Any]) -> None:
    """Keep template and options under their hash."""
    insert_new(connection, prompt_settings, [{"hash": name, "content": dumps(dict(content))}])


def keep(connection: Connection, records: Sequence[PromptRecord]) -> None:
    """Keep prompts; one that is there already is the same."""
    moment = now()
    rows = [
        {
            "id": record.id,
            "pool_uid": record.pool_uid,
            "settings": record.settings,
            "content": f'{{"hash":{dumps(record.hash)},"made_from":{record.made_from}}}',
            "created_at": moment,
        }
        # In one order, or two batches that share prompts could wait for each other.
        for record in sorted(records, key=lambda record: record.id)
    ]
    insert_new(connection, prompts, rows)


def find(connection: Connection, prompt_id: str) -> Found:
    """A prompt, or NotFoundError."""
    joined = prompts.join(prompt_settings, prompt_settings.c.hash == prompts.c.settings)
    query = sa.select(prompts, prompt_settings.c.content.label("options")).select_from(joined)
    row = connection.execute(query.where(prompts.c.id == prompt_id)).one_or_none()
    if row is None:
        raise NotFoundError(f"there is no prompt {prompt_id!r}: it was never answered here, or its pool was deleted.")
    content = loads(row.content)
    return Found(row.id, row.pool_uid, loads(row.options), content["made_from"], content["hash"])
