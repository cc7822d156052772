"""What counts the tokens of a campaign's prompts."""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from icl_select.errors import ConfigError
from icl_select.prompt import Tokenizer, load_tokenizer
from icl_select.prompt.tokenizers import Side
from icl_select.score import ModelScorer, Scorer

if TYPE_CHECKING:
    from .config import Campaign

__all__ = ["tokenizer_of"]


class _Remembering:
    """A tokenizer that remembers what it did lately: cells share demonstrations, and queries that must be cut."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._tokenizer = tokenizer
        self.count = functools.lru_cache(maxsize=16_384)(tokenizer.count)
        self._cut = functools.lru_cache(maxsize=2_048)(tokenizer.cut)

    @property
    def name(self) -> str:
        return self._tokenizer.name

    @property
    def fingerprint(self) -> str:
        return self._tokenizer.fingerprint

    def count_messages(self, messages: Sequence[Mapping[str, str]]) -> int:
        return self._tokenizer.count_messages(messages)

    def cut(self, text: str, tokens: int, side: Side = "right") -> str:
        return self._cut(text, tokens, side)

    def pieces(self, text: str) -> list[str]:
        return self._tokenizer.pieces(text)


@functools.lru_cache(maxsize=4)
def _tokenizer(name: str) -> Tokenizer:
    return _Remembering(load_tokenizer(name))


def tokenizer_of(campaign: Campaign, scorer: Scorer) -> Tokenizer:
    """What counts the tokens of a campaign's prompts.

    Parameters
    ----------
    campaign : Campaign
        ``prompt.tokenizer`` names it; null means the one of the scorer's model, and bytes of UTF-8 for a scorer that
        reads prompts without being a model.
    scorer : Scorer

    Raises
    ------
    ConfigError
        If the model does not say which tokenizer it has.
    """
    name = campaign.prompt.tokenizer
    if name is None:
        name = scorer.model.tokenizer_name if isinstance(scorer, ModelScorer) else "utf8"
    if name is None:
        raise ConfigError(
            f"prompt.tokenizer: the tokenizer of {scorer.name} is not known. Name it: a hub id, a folder, or utf8, "
            "which counts bytes and so never too little."
        )
    return _tokenizer(name)
