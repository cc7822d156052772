"""Public fakes: language models without weights, for tests and for trying a campaign out."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence

import numpy as np

from icl_select import __version__
from icl_select._fingerprint import fingerprint, seed_from
from icl_select.errors import DataError, PromptError
from icl_select.score.protocol import Generation, Loglik, LoglikRow, Usage
from icl_select.types import Decoding, FloatArray, Prompt

__all__ = ["HashModel", "TableModel"]

# Characters that the hash model tells apart; all others share the last place.
_ALPHABET = "\n" + "".join(map(chr, range(32, 127))) + "\N{REPLACEMENT CHARACTER}"
_PLACE = {character: place for place, character in enumerate(_ALPHABET)}


class HashModel:
    """A language model over characters whose probabilities are made of hashes. One character is one token.

    The probabilities of the next character are a proper distribution that depends on the whole text before it, so
    that choices, generation and calibration hang together as with a real model; its answers are at chance.

    Parameters
    ----------
    seed : int, default=0
        Another seed is another model.
    chat : bool, default=False
        Read ``Prompt.messages`` in place of ``Prompt.text``.
    max_length : int, optional
        Characters read and written together; longer prompts are cut on the left.

    Attributes
    ----------
    usage : Usage
        Requests and characters asked so far.
    calls : int
        Calls of ``loglik`` and ``generate`` so far.

    Examples
    --------
    >>> model = HashModel()
    >>> prompt = Prompt("q", "Is it raining?", (), (), (), 14)
    >>> found = model.loglik([prompt], [["\\nyes", "\\nno"]])
    >>> found.tokens.tolist(), found.values.round(2).tolist()
    ([[4, 3]], [[-31.93, -21.99]])
    >>> model.usage.requests
    1
    """

    def __init__(self, seed: int = 0, *, chat: bool = False, max_length: int | None = None) -> None:
        self.seed = seed
        self.chat = chat
        self.max_length = max_length
        self.name = f"hash-{seed}"
        self.tokenizer_name: str | None = None
        self.usage = Usage()
        self.calls = 0

    @property
    def versions(self) -> Mapping[str, str]:
        """Everything that changes a number."""
        shape = {"chat": str(self.chat), "max_length": str(self.max_length)}
        return {"icl-select": __version__, "model": self.name, **shape}

    @property
    def fingerprint(self) -> str:
        """Hash of `versions`."""
        return fingerprint(dict(self.versions))

    def loglik(self, prompts: Sequence[Prompt], choices: Sequence[Sequence[str]]) -> Loglik:
        """Return how likely each choice follows its prompt; see :class:`LanguageModel`."""
        self.calls += 1
        rows = [self._row(*pair) for pair in zip(prompts, choices, strict=True)]
        self.usage.requests += len(prompts)
        self.usage.prompt_tokens += sum(row.prompt_tokens for row in rows)
        return Loglik.from_rows(rows)

    def _row(self, prompt: Prompt, words: Sequence[str]) -> LoglikRow:
        context, cut = self._read(prompt, max(map(len, words), default=0))
        values = [sum(self._next(context + word[:k])[_place(c)] for k, c in enumerate(word)) for word in words]
        return LoglikRow(np.array(values), np.array([len(word) for word in words]), len(context), cut)

    def generate(self, prompts: Sequence[Prompt], decoding: Decoding) -> list[Generation]:
        """Continue each prompt; see :class:`LanguageModel`."""
        self.calls += 1
        made = [self._continue(prompt, decoding) for prompt in prompts]
        self.usage.requests += len(prompts)
        self.usage.prompt_tokens += sum(one.prompt_tokens for one in made)
        self.usage.generated_tokens += sum(one.tokens for one in made)
        return made

    def _continue(self, prompt: Prompt, decoding: Decoding) -> Generation:
        context, cut = self._read(prompt, decoding.max_tokens)
        rng = np.random.default_rng(seed_from("hash model", decoding.seed, context))
        text, logprobs = "", []
        while len(text) < decoding.max_tokens:
            step = self._next(context + text)
            place = int(np.argmax(step))
            if decoding.temperature > 0:
                place = int(np.argmax(step / decoding.temperature + rng.gumbel(size=len(step))))
            logprobs.append(float(step[place]))
            text += _ALPHABET[place]
            ends = [text.index(stop) for stop in decoding.stop if stop in text]
            if ends:
                return Generation(text[: min(ends)], tuple(logprobs), len(logprobs), True, len(context), cut)
        return Generation(text, tuple(logprobs), len(logprobs), False, len(context), cut)

    def _read(self, prompt: Prompt, room: int) -> tuple[str, bool]:
        """What is read of a prompt, and whether it was cut, so that `room` more characters fit."""
        text = "".join(f"{m['role']}: {m['content']}\n" for m in prompt.messages) if self.chat else prompt.text
        if self.max_length is None or len(text) + room <= self.max_length:
            return text, False
        if room >= self.max_length:
            raise PromptError(f"{room} characters are to follow, and the model reads {self.max_length}. Ask for fewer.")
        return text[len(text) + room - self.max_length :], True

    def _next(self, context: str) -> FloatArray:
        """Log-probabilities of the next character."""
        digest = hashlib.shake_128(f"{self.seed}\0{context}".encode("utf-8", "surrogatepass"))
        logits = np.frombuffer(digest.digest(len(_ALPHABET)), dtype=np.uint8) / 32.0
        out: FloatArray = logits - np.logaddexp.reduce(logits)
        return out


class TableModel:
    """A language model that was written down: log-probabilities of choices by prompt, and texts by prompt.

    Parameters
    ----------
    logprobs : mapping of str to mapping of str to float
        Prompt text -> choice, with what stands before it -> log-probability. Each character counts as a token.
    texts : mapping of str to str, optional
        Prompt text -> what is generated; each character counts as a token of log-probability `each`.
    each : float or None, default=-1.0
        None: the model gives no log-probabilities of what it writes.
    name : str, default="table"

    Attributes
    ----------
    usage : Usage
    calls : int

    Examples
    --------
    >>> model = TableModel({"2 + 2 =": {" 4": -0.1, " 5": -2.5}})
    >>> model.loglik([Prompt("q", "2 + 2 =", (), (), (), 7)], [[" 4", " 5"]]).values.tolist()
    [[-0.1, -2.5]]
    """

    chat = False
    max_length: int | None = None
    tokenizer_name: str | None = None

    def __init__(
        self,
        logprobs: Mapping[str, Mapping[str, float]] | None = None,
        texts: Mapping[str, str] | None = None,
        *,
        each: float | None = -1.0,
        name: str = "table",
    ) -> None:
        self.logprobs = {prompt: dict(row) for prompt, row in (logprobs or {}).items()}
        self.texts = dict(texts or {})
        self.each = each
        self.name = name
        self.usage = Usage()
        self.calls = 0

    @property
    def versions(self) -> Mapping[str, str]:
        """Name and content."""
        return {"model": self.name, "content": fingerprint(self.logprobs, self.texts, self.each)}

    @property
    def fingerprint(self) -> str:
        """Hash of `versions`."""
        return fingerprint(dict(self.versions))

    def loglik(self, prompts: Sequence[Prompt], choices: Sequence[Sequence[str]]) -> Loglik:
        """Look the choices up; DataError for what the table does not hold."""
        self.calls += 1
        self.usage.requests += len(prompts)
        return Loglik.from_rows([self._row(*pair) for pair in zip(prompts, choices, strict=True)])

    def _row(self, prompt: Prompt, words: Sequence[str]) -> LoglikRow:
        known = self.logprobs.get(prompt.text, {})
        for word in words:
            if word not in known:
                raise DataError(f"the table has no choice {word!r} after the prompt {prompt.text!r}. Add it.")
        values, tokens = np.array([known[word] for word in words]), np.array([len(word) for word in words])
        return LoglikRow(values, tokens, len(prompt.text), False)

    def generate(self, prompts: Sequence[Prompt], decoding: Decoding) -> list[Generation]:
        """Look the texts up; `decoding` cuts them."""
        self.calls += 1
        self.usage.requests += len(prompts)
        return [self._text(prompt, decoding) for prompt in prompts]

    def _text(self, prompt: Prompt, decoding: Decoding) -> Generation:
        if prompt.text not in self.texts:
            raise DataError(f"the table has no text for the prompt {prompt.text!r}. Add it.")
        whole = self.texts[prompt.text]
        text = whole[: decoding.max_tokens]
        ends = [text.index(stop) for stop in decoding.stop if stop in text]
        text = text[: min(ends)] if ends else text
        logprobs = () if self.each is None else (self.each,) * len(text)
        finished = bool(ends) or len(whole) <= decoding.max_tokens
        return Generation(text, logprobs, len(text), finished, len(prompt.text))


def _place(character: str) -> int:
    return _PLACE.get(character, len(_ALPHABET) - 1)
