"""Templates that remember what they wrote of each demonstration.

The same labelled items are shown again and again, and an item never changes: what a template writes of it under a label
is written once.
"""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from icl_select.prompt import PromptTemplate
from icl_select.types import Demonstration

from ..recent import Recent

__all__ = ["Written", "remembering"]

_NUMBER = 200_000
_CHARACTERS = 64 * 1024 * 1024
# What an entry takes beside its text, about.
_ENTRY = 400


class Written(Recent[tuple[Any, ...], Any]):
    """What all templates wrote last, up to a number of characters. One thread uses it."""

    def __init__(self, characters: int = _CHARACTERS) -> None:
        super().__init__(_NUMBER, characters)


class _Remembering(PromptTemplate):
    """A template for the items of one pool, whose ids name their content."""

    _written: Written
    _key: tuple[int, str]

    def __init__(self, template: PromptTemplate, uid: int, written: Written) -> None:
        super().__init__(**asdict(template))
        # The dataclass is frozen; what is remembered is no part of what it is.
        object.__setattr__(self, "_written", written)
        object.__setattr__(self, "_key", (uid, template.fingerprint))

    def render_demonstration(self, demonstration: Demonstration, number: int = 1) -> str:
        """As the template does, once for each item and label."""
        key = (self._key, "text", demonstration.id, demonstration.label)
        text: str | None = self._written.get(key)
        if text is None:
            text = super().render_demonstration(demonstration, number)
            self._written.put(key, text, _ENTRY + len(text))
        return text

    def render_turn(self, demonstration: Demonstration, number: int = 1) -> tuple[str, str]:
        """As the template does, once for each item and label."""
        key = (self._key, "turn", demonstration.id, demonstration.label)
        turn: tuple[str, str] | None = self._written.get(key)
        if turn is None:
            turn = super().render_turn(demonstration, number)
            self._written.put(key, turn, _ENTRY + sum(map(len, turn)))
        return turn


def remembering(template: PromptTemplate, uid: int, written: Written) -> PromptTemplate:
    """A template that remembers, unless it writes an item otherwise from one place of the prompt to another."""
    return template if template.numbers_demonstrations else _Remembering(template, uid, written)
