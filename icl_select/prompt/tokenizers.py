"""Counting the tokens of the target model."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

from icl_select._fingerprint import fingerprint
from icl_select._optional import require
from icl_select.errors import ModelError, UnknownNameError, suggest

__all__ = [
    "CharTokenizer",
    "HuggingFaceTokenizer",
    "Tokenizer",
    "Utf8Tokenizer",
    "WordTokenizer",
    "load_tokenizer",
]

Messages = Sequence[Mapping[str, str]]


@runtime_checkable
class Tokenizer(Protocol):
    """Counts the tokens that the target model will be sent.

    ``count`` is for a text prompt with all that the engine adds to it (a beginning-of-text token, if any);
    ``count_messages`` for a chat with the model's own template, ready for the assistant to answer. Both count
    whole renderings: the tokens of two parts need not add up, since byte pairs join across their border.
    ``fingerprint`` names all that changes a count.
    """

    @property
    def name(self) -> str: ...
    @property
    def fingerprint(self) -> str: ...
    def count(self, text: str) -> int: ...
    def count_messages(self, messages: Messages) -> int: ...


def _plain_chat(messages: Messages) -> str:
    lines = "".join(f"{message['role']}: {message['content']}\n" for message in messages)
    return f"{lines}assistant:"


class _Plain:
    """Counts without a model; a chat counts as lines ``role: content`` and a last ``assistant:``."""

    name = ""

    @property
    def fingerprint(self) -> str:
        return self.name

    def count(self, text: str) -> int:
        raise NotImplementedError

    def count_messages(self, messages: Messages) -> int:
        return self.count(_plain_chat(messages))


class Utf8Tokenizer(_Plain):
    """One token a byte of UTF-8: an upper bound for every byte-level tokenizer, and exact for byte models.

    Examples
    --------
    >>> Utf8Tokenizer().count("añ")
    3
    """

    name = "utf8"

    def count(self, text: str) -> int:
        """Bytes of `text`; a lone surrogate counts as three."""
        return len(text.encode("utf-8", "surrogatepass"))


class CharTokenizer(_Plain):
    """One token a character (a Unicode code point)."""

    name = "chars"

    def count(self, text: str) -> int:
        """Code points of `text`."""
        return len(text)


class WordTokenizer(_Plain):
    """One token a word, punctuation mark or line break: roughly what people mean by a word count."""

    name = "words"
    _WORD = re.compile(r"\w+|[^\w\s]|\n")

    def count(self, text: str) -> int:
        """Words, punctuation marks and line breaks of `text`."""
        return len(self._WORD.findall(text))


class HuggingFaceTokenizer:
    """The tokenizer of a model, through ``transformers``.

    Parameters
    ----------
    model : str or Path
        Hub id, ``id@revision``, or a folder with the tokenizer's files. Nothing is run from the hub: tokenizers
        that need their own code are refused.
    special_tokens : bool, default=True
        Count what the tokenizer puts around a text prompt (such as a beginning-of-text token), as engines do.

    Raises
    ------
    MissingDependencyError
        If transformers is not installed.
    ModelError
        If the tokenizer cannot be loaded, or, in `count_messages`, has no chat template.
    """

    def __init__(self, model: str | Path, *, special_tokens: bool = True) -> None:
        transformers = require("transformers", extra="models", purpose="a Hugging Face tokenizer")
        self.name = str(model)
        self.special_tokens = special_tokens
        path, _, revision = (str(model), "", "") if Path(model).exists() else str(model).partition("@")
        try:
            self._tokenizer: Any = transformers.AutoTokenizer.from_pretrained(
                path, revision=revision or None, trust_remote_code=False
            )
        except (OSError, ValueError, ImportError) as exc:
            raise ModelError(
                f"the tokenizer {self.name!r} cannot be loaded ({str(exc).splitlines()[0]}). Pass a folder with its "
                "files, a hub id (with a network or a filled cache), or one of: chars, utf8, words."
            ) from exc
        # Only reached for whole prompts, which are cut by nobody: the warning about long texts would be noise.
        self._tokenizer.model_max_length = int(1e30)
        self.fingerprint = fingerprint(special_tokens, _content_hash(self._tokenizer))

    def count(self, text: str) -> int:
        """Tokens of the text prompt."""
        return len(self._tokenizer(text, add_special_tokens=self.special_tokens)["input_ids"])

    def count_messages(self, messages: Messages) -> int:
        """Tokens of the chat under the model's own template, with the cue for the answer.

        Raises
        ------
        ModelError
            If the model has no chat template, or its template refuses the chat.
        """
        if not self._tokenizer.chat_template:
            raise ModelError(
                f"the tokenizer {self.name!r} has no chat template: its model is not a chat model. "
                "Use text prompts, or the tokenizer of a chat model."
            )
        jinja2 = require("jinja2", extra="models", purpose="a chat template")
        try:
            encoded = self._tokenizer.apply_chat_template(
                [dict(message) for message in messages], add_generation_prompt=True, tokenize=True, return_dict=True
            )
        except jinja2.TemplateError as exc:
            raise ModelError(
                f"the chat template of {self.name!r} refuses this chat ({exc}). Leave out the instruction if it takes "
                "no system message, or use text prompts."
            ) from exc
        return len(encoded["input_ids"])


def _content_hash(tokenizer: Any) -> str:
    """Hash of vocabulary, merges, normalisation and chat template, wherever they were loaded from."""
    backend = getattr(tokenizer, "backend_tokenizer", None)
    state = backend.to_str() if backend is not None else repr(sorted(tokenizer.get_vocab().items()))
    text = f"{type(tokenizer).__name__}\n{state}\n{tokenizer.chat_template}"
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()


_PLAIN: dict[str, type[_Plain]] = {"chars": CharTokenizer, "utf8": Utf8Tokenizer, "words": WordTokenizer}


def load_tokenizer(name: str | Path) -> Tokenizer:
    """Return the tokenizer of a name.

    Parameters
    ----------
    name : str or Path
        "utf8", "chars" or "words", which need no model; else a folder, a hub id, or ``id@revision``.

    Returns
    -------
    Tokenizer

    Raises
    ------
    UnknownNameError
        If the name is none of these and cannot be a hub id or folder either.

    Examples
    --------
    >>> load_tokenizer("words").count("How are you?")
    4
    """
    if str(name) in _PLAIN:
        return _PLAIN[str(name)]()
    if "/" not in str(name) and not Path(name).exists() and suggest(str(name), _PLAIN).startswith(" Did"):
        raise UnknownNameError(f"unknown tokenizer {str(name)!r}.{suggest(str(name), _PLAIN)}")
    return HuggingFaceTokenizer(name)
