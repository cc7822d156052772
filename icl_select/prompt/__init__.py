"""Prompts: sandboxed templates, chat messages, and exact packing to a token budget."""

from icl_select.prompt.packing import RULES, pack
from icl_select.prompt.template import PromptTemplate
from icl_select.prompt.tokenizers import (
    CharTokenizer,
    HuggingFaceTokenizer,
    Tokenizer,
    Utf8Tokenizer,
    WordTokenizer,
    load_tokenizer,
)

__all__ = [
    "RULES",
    "CharTokenizer",
    "HuggingFaceTokenizer",
    "PromptTemplate",
    "Tokenizer",
    "Utf8Tokenizer",
    "WordTokenizer",
    "load_tokenizer",
    "pack",
]
