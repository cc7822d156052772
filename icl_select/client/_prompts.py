"""Calls that ask for prompts."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from itertools import islice
from typing import Any, Unpack

from icl_select.client._options import PromptOptions, prompt_options
from icl_select.client._requests import ask, get
from icl_select.client.errors import AnswerError
from icl_select.client.flow import Flow, content_of, fetch, read, read_object, segment
from icl_select.client.records import Prompt

__all__ = ["prompt", "prompts", "rebuild"]

# Queries that the service takes in one request.
_BATCH = 1_000

Query = str | Mapping[str, Any]


def prompt(pool: str, query: Query, **options: Unpack[PromptOptions]) -> Flow[Prompt]:
    """Build the prompt for a query from the labelled items of a pool.

    Parameters
    ----------
    pool : str
    query : str or mapping
        A text, or the fields that the pool embeds.
    **options
        See :class:`PromptOptions`; what is left out is as the pool has it.

    Returns
    -------
    Prompt

    Raises
    ------
    InvalidError
        If nothing is labelled, or the query alone exceeds ``max_tokens``.
    ConflictError
        If the vectors of the pool are missing or stale.
    """
    value = {"pool": pool, "query": query, **prompt_options(options)}
    return fetch(ask("/v1/prompts", value), read(Prompt))


def prompts(pool: str, queries: Iterable[Query], **options: Unpack[PromptOptions]) -> Flow[tuple[Prompt, ...]]:
    """Build one prompt for each query, in requests of at most 1,000.

    Parameters
    ----------
    pool : str
    queries : iterable of str or mapping
    **options
        As for ``prompt``.

    Returns
    -------
    tuple of Prompt
        In the order of the queries.

    Raises
    ------
    InvalidError, ConflictError
        As for ``prompt``; prompts of requests before it are lost with it.
    """
    made: list[Prompt] = []
    rest = iter(queries)
    while part := list(islice(rest, _BATCH)):
        value = {"pool": pool, "queries": part, **prompt_options(options)}
        found = content_of(
            tuple[Prompt, ...], (yield from fetch(ask("/v1/prompts", value), read_object)).get("prompts")
        )
        if len(found) != len(part):
            raise AnswerError(f"{len(part)} prompts were asked for, and {len(found)} came. Report this.")
        made.extend(found)
    return tuple(made)


def rebuild(prompt_id: str) -> Flow[Prompt]:
    """A prompt that was answered before, byte for byte.

    Parameters
    ----------
    prompt_id : str
        ``Prompt.id``.

    Returns
    -------
    Prompt

    Raises
    ------
    NotFoundError
        If there is none, or its pool was deleted.
    """
    return fetch(get(f"/v1/prompts/{segment(prompt_id)}"), read(Prompt))
