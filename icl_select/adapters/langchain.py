"""An example selector for LangChain's few-shot templates. Needs the extra ``langchain``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal

from icl_select._optional import require
from icl_select.adapters.source import ExampleSource
from icl_select.errors import LabelError, ParameterError, suggest
from icl_select.types import Demonstration

require("langchain_core.example_selectors", extra="langchain", purpose="the LangChain adapter")

from langchain_core.example_selectors import BaseExampleSelector  # noqa: E402  # after the message that helps

__all__ = ["IclExampleSelector"]

_ORDERS = ("nearest_last", "nearest_first")


class IclExampleSelector(BaseExampleSelector):
    """Shows, with every query, the labelled examples nearest to it.

    Goes where LangChain takes an ``example_selector``: ``FewShotPromptTemplate``,
    ``FewShotChatMessagePromptTemplate``.

    Parameters
    ----------
    source : ExampleSource
        A :class:`icl_select.adapters.PoolSource` or :class:`icl_select.adapters.ServiceSource`; says how many
        examples.
    label_key : str, default="label"
        Under which key of an example its label stands.
    example_keys : sequence of str, optional
        The keys that examples keep; default all.
    order : {"nearest_last", "nearest_first"}
        Order of the examples; the first is the published one.

    Examples
    --------
    >>> import icl_select as icl
    >>> from icl_select.adapters import PoolSource
    >>> rows = [{"input": "My invoice is wrong", "output": "billing"}, {"input": "I cannot log in", "output": "login"}]
    >>> pool = icl.Pool.from_records(rows, text="input", label="output")
    >>> x = icl.embed(pool, "hash", centre=False, cache=False, progress=False)
    >>> selector = IclExampleSelector(PoolSource(pool, x, k=1, text="input"), label_key="output")
    >>> selector.select_examples({"input": "The invoice is not mine"})
    [{'input': 'My invoice is wrong', 'output': 'billing'}]
    """

    def __init__(
        self,
        source: ExampleSource,
        *,
        label_key: str = "label",
        example_keys: Sequence[str] | None = None,
        order: Literal["nearest_last", "nearest_first"] = "nearest_last",
    ) -> None:
        if order not in _ORDERS:
            raise ParameterError(f"unknown order {order!r}.{suggest(order, _ORDERS)}")
        self.source = source
        self.label_key = label_key
        self.example_keys = None if example_keys is None else list(example_keys)
        self.order = order

    def select_examples(self, input_variables: Mapping[str, Any]) -> list[dict[str, Any]]:
        """The examples to show with these inputs.

        Parameters
        ----------
        input_variables : mapping
            Has the fields that are embedded; others do not count.

        Returns
        -------
        list of dict
            Fields and label of each.
        """
        return self._examples(self.source.nearest(input_variables))

    async def aselect_examples(self, input_variables: Mapping[str, Any]) -> list[dict[str, Any]]:
        """The same as :meth:`select_examples`, without blocking the event loop."""
        return self._examples(await self.source.anearest(input_variables))

    def add_example(self, example: Mapping[str, Any]) -> str:
        """Add a labelled example, to be shown from now on.

        Parameters
        ----------
        example : mapping
            Fields, and the label under `label_key`.

        Returns
        -------
        str
            Its id.

        Raises
        ------
        LabelError
            If it has no label.
        """
        return self.source.add(*self._taken_apart(example))

    async def aadd_example(self, example: Mapping[str, Any]) -> str:
        """The same as :meth:`add_example`, without blocking the event loop."""
        return await self.source.aadd(*self._taken_apart(example))

    def _taken_apart(self, example: Mapping[str, Any]) -> tuple[dict[str, Any], str]:
        label = example.get(self.label_key)
        if not isinstance(label, str) or not label.strip():
            raise LabelError(
                f"the example has the keys {list(example)}, and no label under {self.label_key!r}. Only labelled "
                "examples can be shown: give it one, or name another key with label_key=."
            )
        return {key: value for key, value in example.items() if key != self.label_key}, label

    def _examples(self, found: list[Demonstration]) -> list[dict[str, Any]]:
        if self.order == "nearest_last":
            found = found[::-1]
        examples = [{**shown.fields, self.label_key: shown.label} for shown in found]
        if self.example_keys is None:
            return examples
        return [{key: self._kept(example, key) for key in self.example_keys} for example in examples]

    def _kept(self, example: dict[str, Any], key: str) -> Any:
        if key not in example:
            raise ParameterError(f"an example has no key {key!r}, which example_keys names.{suggest(key, example)}")
        return example[key]
