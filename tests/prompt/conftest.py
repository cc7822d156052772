"""A real byte-pair tokenizer, made on the spot."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

CHAT = (
    "{% for m in messages %}{% if m.role == 'tool' %}{{ raise_exception('no tools') }}{% endif %}"
    "<{{ m.role }}>{{ m.content }}</s>{% endfor %}{% if add_generation_prompt %}<assistant>{% endif %}"
)


def _build(folder: Path, *, chat: bool = True, extra: str = "") -> Path:
    """A byte-level byte-pair tokenizer trained on a few lines, with a beginning-of-text token."""
    from tokenizers import ByteLevelBPETokenizer
    from tokenizers.processors import TemplateProcessing
    from transformers import PreTrainedTokenizerFast

    lines = ["the quick brown fox\n\n\njumps over", "the lazy dog\nanswer:\nyes\n\n\n", extra] * 20
    bpe = ByteLevelBPETokenizer()
    bpe.train_from_iterator(lines, vocab_size=400, special_tokens=["<s>"], show_progress=False)
    bpe._tokenizer.post_processor = TemplateProcessing(
        single="<s> $A", special_tokens=[("<s>", bpe.token_to_id("<s>") or 0)]
    )
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=bpe._tokenizer, bos_token="<s>")
    if chat:
        tokenizer.chat_template = CHAT
    tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def build() -> Callable[..., Path]:
    """``build(folder, chat=True, extra="")`` writes the tokenizer into the folder and returns it."""
    return _build
