"""From prompts to requests: encoded here where there is a tokenizer, left to the server where there is none."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property

from icl_select._fingerprint import seed_from
from icl_select._models import Source
from icl_select.errors import ModelError, PromptError
from icl_select.score.encoding import encode_item
from icl_select.score.http.choosing import CHAT, message_tokens, to_choose
from icl_select.score.http.plans import (
    COMPLETIONS,
    Plan,
    by_echo_ids,
    by_echo_text,
    by_reads,
    most_tokens,
    to_generate,
)
from icl_select.score.http.probe import Way
from icl_select.score.pretrained import Texts
from icl_select.score.protocol import Generation, LoglikRow
from icl_select.types import Decoding, Prompt

__all__ = ["Planner"]


class Planner:
    """Makes the requests of one model.

    Parameters
    ----------
    source : Source or None
        Where the tokenizer is loaded from, at first use.
    server_chat : bool
        Messages go to the chat endpoint, and the tokenizer is not used.
    chat : bool
        Messages are sent, not the text.
    max_length : int or None
        Tokens read and written together.
    """

    def __init__(self, source: Source | None, *, server_chat: bool, chat: bool, max_length: int | None) -> None:
        self._source = source
        self._server_chat = server_chat
        self._chat = chat
        self._max_length = max_length

    @cached_property
    def texts(self) -> Texts | None:
        """The tokenizer; None if there is none or it is not used."""
        return None if self._source is None or self._server_chat else Texts(self._source, chat=self._chat)

    def score(self, prompt: Prompt, words: Sequence[str], way: Way) -> Plan[LoglikRow]:
        """Log-probabilities of the choices of one prompt."""
        texts = self.texts
        if texts is None or not way.ids:
            if self._chat:
                raise _no_ids(prompt, "is a chat rendered here", "Use mode='chat', or chat=False.")
            _check_text(prompt)
            return by_echo_text(prompt.text, words, way.max_tokens, way.extra)
        text = texts.text(prompt)
        needed = ["", text, *(text + word for word in words)]
        known = dict(zip(needed, texts.encode(needed), strict=True))
        # A server that reads out also writes, at least one token that is then thrown away.
        length = None if self._max_length is None else self._max_length - (way.mode == "echo")
        item = encode_item(known.__getitem__, text, words, max_length=length)
        return by_reads(item) if way.mode == "token_ids" else by_echo_ids(item, way.max_tokens, way.extra)

    def write(self, prompt: Prompt, decoding: Decoding, as_ids: bool) -> Plan[Generation]:
        """Continue one prompt."""
        if self._server_chat:
            messages = _messages(prompt)
            seed = _seed(decoding, [[message["role"], message["content"]] for message in messages])
            return to_generate(CHAT, {"messages": messages}, decoding, seed, message_tokens(messages), False)
        texts = self.texts
        if texts is None:
            _check_text(prompt)
            seed, most = _seed(decoding, prompt.text), most_tokens(prompt.text)
            return to_generate(COMPLETIONS, {"prompt": prompt.text}, decoding, seed, most, False)
        text = texts.text(prompt)
        [(read, cut)] = texts.encode_prompts([prompt], max_length=self._max_length, max_tokens=decoding.max_tokens)
        if not as_ids and self._chat:
            raise _no_ids(prompt, "is a chat rendered here", "Use mode='chat', or chat=False.")
        if not as_ids and cut:
            raise _no_ids(prompt, f"must be cut to {len(read)} tokens", "Write a shorter prompt.")
        return to_generate(
            COMPLETIONS, {"prompt": read if as_ids else text}, decoding, _seed(decoding, text), len(read), cut
        )

    def choose(self, prompt: Prompt, words: Sequence[str], constraint: str) -> Plan[Generation]:
        """Have one of the choices named."""
        return to_choose(_messages(prompt), words, constraint)


def _seed(decoding: Decoding, content: str | list[list[str]]) -> int:
    """The seed of one prompt; 63 bits are what servers take."""
    return seed_from(decoding.seed, content) % 2**63


def _messages(prompt: Prompt) -> list[dict[str, str]]:
    if not prompt.messages:
        raise PromptError(f"the prompt of {prompt.query_id!r} has no messages to send as a chat. Build it with some.")
    return [{"role": str(message["role"]), "content": str(message["content"])} for message in prompt.messages]


def _check_text(prompt: Prompt) -> None:
    if not prompt.text:
        raise PromptError(
            f"the prompt of {prompt.query_id!r} is empty, and only a tokenizer knows whether the model can begin from "
            "nothing. Write a longer prompt, or pass tokenizer=."
        )


def _no_ids(prompt: Prompt, what: str, way: str) -> ModelError:
    return ModelError(
        f"the prompt of {prompt.query_id!r} {what}, so it must be sent as token ids, and this server takes none. {way}"
    )
