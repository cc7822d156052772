"""What an adapter asks for examples."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Protocol

from icl_select._template import field_names
from icl_select.errors import ParameterError, suggest
from icl_select.types import Demonstration

__all__ = ["ExampleSource", "fields_of", "query_parts"]


class ExampleSource(Protocol):
    """Finds labelled examples for a query, and takes new ones."""

    def nearest(self, inputs: Mapping[str, Any]) -> list[Demonstration]:
        """The examples to show with these inputs, most similar first."""

    async def anearest(self, inputs: Mapping[str, Any]) -> list[Demonstration]:
        """The same, without blocking the event loop."""

    def add(self, fields: Mapping[str, Any], label: str) -> str:
        """Take a labelled example, to be found from now on; returns its id."""

    async def aadd(self, fields: Mapping[str, Any], label: str) -> str:
        """The same, without blocking the event loop."""


def query_parts(inputs: Mapping[str, Any], names: Iterable[str]) -> dict[str, Any]:
    """The inputs that make the query; hosts pass everything that their templates know."""
    names = list(names)
    missing = [name for name in names if name not in inputs]
    if missing:
        raise ParameterError(
            f"the query is made of {', '.join(names)}, and {missing[0]!r} is missing.{suggest(missing[0], inputs)}"
        )
    return {name: inputs[name] for name in names}


def fields_of(text: str) -> list[str]:
    return field_names(text) if "{" in text else [text]
