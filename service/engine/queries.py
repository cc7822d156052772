"""What a request asks, as an example of the library."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from icl_select._fingerprint import fingerprint
from icl_select.data import Pool
from icl_select.data.rows import check_text
from icl_select.errors import DataError, ParameterError
from icl_select.types import Example

from ..settings import Settings
from ..store.database import dumps
from ..store.pools import PoolRecord

__all__ = ["example_of"]


def example_of(query: str | Mapping[str, Any], pool: PoolRecord, settings: Settings) -> tuple[Example, str]:
    """A query as an example, and the text that tells it from others.

    Raises
    ------
    DataError
        If it is blank, lacks a field that the pool embeds, or holds what JSON does not know.
    ParameterError
        If it is larger than an item may be.
    """
    asked = query if isinstance(query, str) else _written(query)
    most = settings.limits.item_chars
    if len(asked) > most:
        raise ParameterError(f"the query has {len(asked):,} characters, and {most:,} are the limit of one text here.")
    if not isinstance(query, str):
        return Pool.from_records([query], source="the query", text=pool.config["text"])[0], f"fields {asked}"
    if not query or query.isspace():
        raise DataError("the query is empty, so nothing is similar to it. Send a text.")
    check_text("the query", text=query)
    return Example(id=f"query-{fingerprint(query)}", text=query, fields={"text": query}), f"text {asked}"


def _written(query: Mapping[str, Any]) -> str:
    try:
        return dumps(query)
    except ValueError as exc:  # what Python reads as JSON and nobody else does
        raise DataError("the query holds NaN or an infinite number, which JSON does not know. Leave it out.") from exc
    except RecursionError as exc:
        raise DataError("the query is nested too deeply. Flatten it.") from exc
