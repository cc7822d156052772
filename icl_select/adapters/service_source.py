"""Examples from a pool of the service."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any, TypeVar, Unpack

from icl_select._fingerprint import fingerprint
from icl_select.adapters.source import fields_of, query_parts
from icl_select.client._jobs import wait
from icl_select.client._options import PromptOptions
from icl_select.client._pools import add_items, item
from icl_select.client._pools import pool as read_pool
from icl_select.client._prompts import prompt
from icl_select.client.errors import ServiceProblem
from icl_select.client.flow import Flow
from icl_select.client.records import Pool, Prompt
from icl_select.errors import ParameterError
from icl_select.types import Demonstration

if TYPE_CHECKING:
    from icl_select.client import AsyncClient, Client

__all__ = ["ServiceSource"]

T = TypeVar("T")

# Shows the embedded text, which every item and query has; only which examples are shown counts here.
_PLAIN = {"demonstration": "{{ text }}\n{{ label }}", "query": "{{ text }}"}


class ServiceSource:
    """The labelled items of a pool of the service.

    Parameters
    ----------
    pool : str
        Name of the pool; its vectors must have been made.
    client : Client, optional
        For the synchronous methods.
    aclient : AsyncClient, optional
        For the asynchronous methods; without it they use `client` in a thread.
    input_keys : sequence of str, optional
        Inputs that make the query; default: the fields that the pool embeds.
    **options
        See :class:`icl_select.client.PromptOptions`. With ``max_tokens``, also the pool's own, examples that do not fit
        are left out.

    Notes
    -----
    A query is one request, and one for each example that was not met before: items never change, so they are kept.
    """

    def __init__(
        self,
        pool: str,
        client: Client | None = None,
        aclient: AsyncClient | None = None,
        *,
        input_keys: Iterable[str] | None = None,
        **options: Unpack[PromptOptions],
    ) -> None:
        if client is None and aclient is None:
            raise ParameterError("no client was given. Pass client=Client(...), aclient=AsyncClient(...), or both.")
        self._pool = pool
        self._client = client
        self._aclient = aclient
        self._keys = None if input_keys is None else list(input_keys)
        self._options: PromptOptions = {"template": _PLAIN, **options}
        self._known: Pool | None = None
        self._fields: dict[str, Mapping[str, Any]] = {}
        # The vectors that these were found with: a pool that is deleted and made anew has others.
        self._embedding = ""

    def nearest(self, inputs: Mapping[str, Any]) -> list[Demonstration]:
        """The examples to show with these inputs, most similar first; see :class:`ExampleSource`."""
        return self._run(self._nearest(inputs))

    async def anearest(self, inputs: Mapping[str, Any]) -> list[Demonstration]:
        """The same, without blocking the event loop."""
        if self._aclient is None:
            return await asyncio.to_thread(self.nearest, inputs)
        return await self._aclient.run(self._nearest(inputs))

    def add(self, fields: Mapping[str, Any], label: str) -> str:
        """Add a labelled item and wait until it is embedded; see :class:`ExampleSource`."""
        return self._run(self._add(fields, label))

    async def aadd(self, fields: Mapping[str, Any], label: str) -> str:
        """The same, without blocking the event loop."""
        if self._aclient is None:
            return await asyncio.to_thread(self.add, fields, label)
        return await self._aclient.run(self._add(fields, label))

    def _run(self, flow: Flow[T]) -> T:
        if self._client is None:
            flow.close()
            raise ParameterError(
                "this source has an asynchronous client only. Pass client=Client(...) too, or use its asynchronous "
                "methods."
            )
        return self._client.run(flow)

    def _about(self) -> Flow[Pool]:
        """How the pool reads its rows, which does not change while it exists."""
        if self._known is None:
            self._known = yield from read_pool(self._pool)
        return self._known

    def _nearest(self, inputs: Mapping[str, Any]) -> Flow[list[Demonstration]]:
        about = yield from self._about()
        query = query_parts(inputs, self._keys or fields_of(about.text or "text"))
        try:
            made = yield from prompt(self._pool, query, **self._options)
            if made.versions.embedding != self._embedding:
                self._fields, self._embedding = {}, made.versions.embedding
            yield from self._read_fields(made)
        except ServiceProblem:
            # Perhaps because there is another pool of this name now.
            self._known = None
            raise
        return [
            Demonstration(shown.id, shown.label, shown.score, self._fields[shown.id])
            for shown in sorted(made.examples, key=lambda shown: shown.rank)
        ]

    def _read_fields(self, made: Prompt) -> Flow[None]:
        for shown in made.examples:
            if shown.id not in self._fields:
                self._fields[shown.id] = (yield from item(self._pool, shown.id)).fields

    def _add(self, fields: Mapping[str, Any], label: str) -> Flow[str]:
        about = yield from self._about()
        name, word = about.id_field or "id", about.label_field or "label"
        own = {key: value for key, value in fields.items() if key not in (name, word)}
        item_id = str(fields.get(name) or fingerprint(own))
        added = yield from add_items(self._pool, [{**own, name: item_id, word: label}])
        if added.job is not None:
            yield from wait(added.job)
        return item_id
