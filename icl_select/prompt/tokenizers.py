"""Counting the tokens of the target model."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, Protocol, runtime_checkable

from icl_select._fingerprint import fingerprint
from icl_select._optional import require
from icl_select._validation import check_int
from icl_select.errors import ModelError, UnknownNameError, suggest

__all__ = [
    "CharTokenizer",
    "HuggingFaceTokenizer",
    "Side",
    "Tokenizer",
    "Utf8Tokenizer",
    "WordTokenizer",
    "load_tokenizer",
]

Messages = Sequence[Mapping[str, str]]
Side = Literal["left", "right"]


@runtime_checkable
class Tokenizer(Protocol):
    """Counts the tokens that the target model will be sent, and cuts texts at their borders.

    ``count`` is for a text prompt with all that the engine adds to it (a beginning-of-text token, if any);
    ``count_messages`` for a chat with the model's own template, ready for the assistant to answer. Both count
    whole renderings: the tokens of two parts need not add up, since byte pairs join across their border.
    ``fingerprint`` names all that changes a count.

    ``cut`` and ``pieces`` know no special tokens. ``cut(text, tokens, side)`` is what is left of a text when all but
    `tokens` of its tokens are cut off on that side: "right" keeps the beginning, "left" the end. It splits no code
    point, and what is left never counts more than `tokens` when it is read again. ``pieces`` are the tokens of a
    text, each decoded alone.
    """

    @property
    def name(self) -> str: ...
    @property
    def fingerprint(self) -> str: ...
    def count(self, text: str) -> int: ...
    def count_messages(self, messages: Messages) -> int: ...
    def cut(self, text: str, tokens: int, side: Side = "right") -> str: ...
    def pieces(self, text: str) -> list[str]: ...


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

    def cut(self, text: str, tokens: int, side: Side = "right") -> str:
        """What is left of `text` with all but `tokens` tokens cut off on that side; no code point is split.

        Parameters
        ----------
        text : str
        tokens : int
            Tokens to keep, at least 0.
        side : {"right", "left"}, default="right"
            "right" keeps the beginning, "left" the end.

        Returns
        -------
        str
        """
        spans = self._spans(text)
        if len(spans) <= check_int(tokens, name="tokens", low=0):
            return text
        return _between(text, spans, tokens, side)

    def pieces(self, text: str) -> list[str]:
        """The tokens of `text`, each as text."""
        return [text[start:end] for start, end in self._spans(text)]

    def _spans(self, text: str) -> list[tuple[int, int]]:
        """Characters (start, end) of every token."""
        raise NotImplementedError


def _between(text: str, spans: Sequence[tuple[int, int]], tokens: int, side: Side) -> str:
    """Keep fewer tokens than there are; a character of which a token is lost is lost as a whole."""
    if tokens == 0:
        return ""
    if side == "right":
        return text[: min(spans[tokens - 1][1], spans[tokens][0])]
    return text[max(spans[-tokens][0], spans[-tokens - 1][1]) :]


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
        return len(_utf8(text))

    def pieces(self, text: str) -> list[str]:
        """The bytes of `text`, each decoded alone: U+FFFD for those of characters that take several."""
        return [chr(byte) if byte < 128 else "\N{REPLACEMENT CHARACTER}" for byte in _utf8(text)]

    def _spans(self, text: str) -> list[tuple[int, int]]:
        return [(pos, pos + 1) for pos, character in enumerate(text) for _ in _utf8(character)]


def _utf8(text: str) -> bytes:
    return text.encode("utf-8", "surrogatepass")


class CharTokenizer(_Plain):
    """One token a character (a Unicode code point)."""

    name = "chars"

    def count(self, text: str) -> int:
        """Code points of `text`."""
        return len(text)

    def _spans(self, text: str) -> list[tuple[int, int]]:
        return [(pos, pos + 1) for pos in range(len(text))]


class WordTokenizer(_Plain):
    """One token a word, punctuation mark or line break: roughly what people mean by a word count."""

    name = "words"
    _WORD = re.compile(r"\w+|[^\w\s]|\n")

    def count(self, text: str) -> int:
        """Words, punctuation marks and line breaks of `text`."""
        return len(self._WORD.findall(text))

    def _spans(self, text: str) -> list[tuple[int, int]]:
        return [match.span() for match in self._WORD.finditer(text)]


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

    def cut(self, text: str, tokens: int, side: Side = "right") -> str:
        """What is left of `text` with all but `tokens` tokens cut off on that side; no code point is split.

        Parameters
        ----------
        text : str
        tokens : int
            Tokens to keep, at least 0; special tokens are not counted.
        side : {"right", "left"}, default="right"
            "right" keeps the beginning, "left" the end.

        Returns
        -------
        str
            Counts at most `tokens` when it is read again. Where byte pairs join differently in the rest, that can
            take a second cut.

        Raises
        ------
        ModelError
            If the tokenizer does not tell where its tokens stand in the text.
        """
        allowed = check_int(tokens, name="tokens", low=0)
        while len(spans := self._spans(text)) > allowed:
            text = _between(text, spans, tokens, side)
            tokens -= 1
        return text

    def pieces(self, text: str) -> list[str]:
        """The tokens of `text`, each decoded alone: U+FFFD where one holds a part of a character."""
        ids = self._tokenizer(text, add_special_tokens=False)["input_ids"]
        return [str(self._tokenizer.decode([id_], clean_up_tokenization_spaces=False)) for id_ in ids]

    def _spans(self, text: str) -> list[tuple[int, int]]:
        if not self._tokenizer.is_fast:
            raise ModelError(
                f"the tokenizer {self.name!r} does not tell where its tokens stand in a text, so no text can be cut at "
                "their borders. Use a model with a tokenizer.json."
            )
        encoded = self._tokenizer(text, add_special_tokens=False, return_offsets_mapping=True)
        return [(start, end) for start, end in encoded["offset_mapping"]]


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
