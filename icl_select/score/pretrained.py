"""What an engine must know of a saved model before its weights are loaded, and its tokenizer."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from icl_select._models import Source, failures
from icl_select._optional import require
from icl_select.errors import ModelError, PromptError
from icl_select.score.encoding import EncodedItem, cut_left, encode_item
from icl_select.score.protocol import check_choices
from icl_select.types import Prompt

__all__ = ["ModelFacts", "Texts", "read_facts"]

# How configurations call the number of tokens that a model reads; GPT-2, GPT-J and MPT have names of their own.
_LENGTHS = ("max_position_embeddings", "n_positions", "max_seq_len", "seq_length", "max_sequence_length", "n_ctx")

# Tokens of the prompt that are decoded with a generation, so that tokenizers which drop the blank in front of a text
# keep the one in front of the generation.
_LEAD = 8


@dataclass(frozen=True, slots=True)
class ModelFacts:
    """What ``config.json`` says: the dtype the weights are saved in (float32 if it is silent), and the length."""

    dtype: str
    max_length: int | None


def read_facts(source: Source) -> ModelFacts:
    """Read the configuration of a model; no weights are loaded.

    Raises
    ------
    ModelError
        If there is no configuration, or it cannot be read.
    """
    if source.local:
        path = Path(source.location) / "config.json"
    else:
        hub = require("huggingface_hub", extra="models", purpose=f"the model {source.name}")
        with failures(source.name, source.revision):
            path = Path(hub.hf_hub_download(source.name, "config.json", revision=source.revision))
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as exc:
        raise ModelError(
            f"cannot read the configuration of {source.name} ({exc}). Check that config.json is there and is JSON."
        ) from exc
    # Models that also read images keep what concerns the text apart.
    config = {**config, **config.get("text_config", {})}
    dtype = str(config.get("dtype") or config.get("torch_dtype") or "float32").removeprefix("torch.")
    lengths = [config[key] for key in _LENGTHS if isinstance(config.get(key), int)]
    return ModelFacts(dtype, min(lengths, default=None))


class Texts:
    """A model's tokenizer: prompts to text, text to ids with the special tokens in front, ids to text.

    With `chat` a prompt is its messages in the model's chat template, which writes its special tokens itself.
    """

    def __init__(self, source: Source, *, chat: bool) -> None:
        transformers = require("transformers", extra="models", purpose=f"the tokenizer of {source.name}")
        with failures(source.name, source.hub_revision, local=source.local):
            self.tokenizer: Any = transformers.AutoTokenizer.from_pretrained(
                source.location, revision=source.hub_revision
            )
        self.chat = chat
        if chat and not getattr(self.tokenizer, "chat_template", None):
            raise ModelError(f"the model {source.name} has no chat template. Leave chat out, or use a chat model.")

    def text(self, prompt: Prompt) -> str:
        """What the model reads of a prompt."""
        if not self.chat:
            return prompt.text
        messages = [dict(message) for message in prompt.messages]
        # A last message of the assistant is the beginning of the answer.
        begun = bool(messages) and messages[-1]["role"] == "assistant"
        try:
            rendered: str = self.tokenizer.apply_chat_template(
                messages, tokenize=False, add_generation_prompt=not begun, continue_final_message=begun
            )
        except (
            ValueError,
            TypeError,
            require("jinja2", extra="models", purpose="chat templates").TemplateError,
        ) as exc:
            raise PromptError(
                f"the chat template of the model refuses the messages of {prompt.query_id!r}: {exc}. "
                "Build the prompt without a system message, say."
            ) from exc
        return rendered

    def encode(self, texts: Sequence[str]) -> list[list[int]]:
        """Ids of each text, encoded in one call."""
        if not texts:
            return []
        try:
            encoded = self.tokenizer(
                list(texts),
                add_special_tokens=not self.chat,
                return_attention_mask=False,
                return_token_type_ids=False,
                verbose=False,
            )
        except (TypeError, UnicodeEncodeError) as exc:
            raise PromptError(
                f"a prompt or choice cannot be encoded ({exc}). Remove lone surrogates: they are no Unicode text."
            ) from exc
        ids: list[list[int]] = encoded["input_ids"]
        return ids

    def encode_items(
        self, prompts: Sequence[Prompt], choices: Sequence[Sequence[str]], *, max_length: int | None
    ) -> list[EncodedItem]:
        """Ids of prompts with their choices; every distinct text is encoded once, and all of them in one call.

        Raises
        ------
        ParameterError
            If there are not choices for every prompt.
        PromptError
            If there are no choices for one, or an item cannot be encoded.
        """
        check_choices(prompts, choices)
        texts = [self.text(prompt) for prompt in prompts]
        needed = {text + word for text, words in zip(texts, choices, strict=True) for word in ("", *words)}
        order = sorted(needed | {""})
        known = dict(zip(order, self.encode(order), strict=True))
        return [
            encode_item(known.__getitem__, text, words, max_length=max_length)
            for text, words in zip(texts, choices, strict=True)
        ]

    def encode_prompts(
        self, prompts: Sequence[Prompt], *, max_length: int | None, max_tokens: int
    ) -> list[tuple[list[int], bool]]:
        """Ids of prompts that are to be continued, and whether they were cut on the left to leave `max_tokens`.

        Raises
        ------
        PromptError
            If a prompt has no token.
        ModelError
            If `max_tokens` leave no room for a prompt.
        """
        read = []
        for prompt, ids in zip(prompts, self.encode([self.text(prompt) for prompt in prompts]), strict=True):
            if not ids:
                raise PromptError(f"the prompt of {prompt.query_id!r} has no token to continue. Write a longer prompt.")
            if max_length is None or len(ids) <= max_length - max_tokens:
                read.append((ids, False))
            else:
                read.append((cut_left(lambda text: self.encode([text])[0], ids, max_length - max_tokens), True))
        return read

    def decode_after(self, before: Sequence[int], ids: Sequence[int]) -> str:
        """Text of `ids` as it stands after `before`; special tokens are left out."""
        lead = list(before[-_LEAD:])
        start, whole = self._decode(lead), self._decode([*lead, *ids])
        return whole[len(start) :] if whole.startswith(start) else self._decode(list(ids))

    def _decode(self, ids: list[int]) -> str:
        text: str = self.tokenizer.decode(ids, skip_special_tokens=True, clean_up_tokenization_spaces=False)
        return text
