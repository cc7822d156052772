"""How prompts look, as the service takes it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, is_dataclass
from typing import TYPE_CHECKING, Any, TypedDict

from icl_select.client._requests import given

if TYPE_CHECKING:
    from icl_select.prompt import PromptTemplate

__all__ = ["PromptOptions", "prompt_options"]


class PromptOptions(TypedDict, total=False):
    """What decides how a prompt looks; what is left out is as the pool has it. See :class:`icl_select.Prompter`.

    ``tokenizer`` is a name that the service knows; ``template`` an :class:`icl_select.PromptTemplate` or its parts.
    """

    k: int | None
    order: str | None
    max_tokens: int | None
    tokenizer: str | None
    template: PromptTemplate | Mapping[str, str | None] | None
    rule: str | None
    max_demonstration_tokens: int | None
    chat: bool | None
    mmr: float | None
    balance: bool | None
    min_similarity: float | None
    seed: int | None


def prompt_options(options: PromptOptions | Mapping[str, Any]) -> dict[str, Any]:
    """The options as JSON, without those that are None."""
    found = given(**options)
    template = found.get("template")
    if is_dataclass(template) and not isinstance(template, type):
        found["template"] = asdict(template)
    return found
