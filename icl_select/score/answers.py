"""Answers on disk, so that no model is asked twice: one SQLite file for each model."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from icl_select._cache import default_cache_folder
from icl_select._fingerprint import fingerprint
from icl_select._validation import check_int
from icl_select.score.answer_file import AnswerFile, pack_row, pack_text, read_row, read_text
from icl_select.score.protocol import Generation, LanguageModel, Loglik, LoglikRow, Usage
from icl_select.score.schedule import prefix_order
from icl_select.types import Decoding, Prompt

__all__ = ["CachedModel", "Counts", "content"]

Answer = TypeVar("Answer")


@dataclass
class Counts:
    """Where answers came from so far.

    Attributes
    ----------
    asked : int
        Requests, repeated ones included.
    cached : int
        Distinct requests of a call that were answered from the cache.
    computed : int
        Distinct requests of a call that the engine was asked.
    calls : int
        Calls of the engine.
    """

    asked: int = 0
    cached: int = 0
    computed: int = 0
    calls: int = 0


@dataclass(frozen=True)
class _Request:
    """One distinct question: its key in the cache, its place in the schedule, and what the engine is to be sent."""

    key: bytes
    order: tuple[str, tuple[str, ...]]
    prompt: Prompt
    choices: tuple[str, ...]


class CachedModel:
    """A language model that keeps every answer on disk, and asks its engine only for what is missing.

    Parameters
    ----------
    model : LanguageModel
        Its fingerprint names the file, so another revision, dtype or engine has a cache of its own.
    folder : Path, optional
        Cache folder, shared by all models; ``answers`` in the default cache folder if not given.
    chunk : int, default=512
        Distinct requests that are asked and stored together.
    progress : bool, default=False
        Show a bar on stderr, in requests.

    Attributes
    ----------
    model : LanguageModel
        The engine.
    counts : Counts
        Where answers came from so far.

    Raises
    ------
    StoreError
        If the cache cannot be read or written; always before the engine is asked, except for a disk that fills up.

    Notes
    -----
    The key of an answer is what the model reads (the prompt's text, or its messages for a chat model) with the
    choices, or with how it is decoded. Of sampled texts the seed is part of the key: ask with another seed for
    another sample.

    Distinct requests are sorted so that common prefixes meet and cut into chunks, whether they are stored or not; of
    each chunk what is missing is asked in one call and committed at once. So a run that was killed loses at most one
    chunk, and repeats exactly the calls that it would have made: its answers are the same to the bit, if those of the
    engine depend on the call alone. An engine with ``streams = True`` (a server) is asked for everything missing in
    one call, and each answer is committed as it arrives.

    The first answer stored is the answer: of two processes that compute the same, both return what the first wrote.
    Floats are stored with all 64 bits. A row whose checksum fails is asked again, with a warning in the log. With
    everything stored, the engine is not called, so its weights are never loaded.

    Examples
    --------
    >>> import tempfile
    >>> from icl_select.score.fake_model import HashModel
    >>> prompt = Prompt("q", "Is it raining?", (), (), (), 14)
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     model = CachedModel(HashModel(), Path(folder))
    ...     for _ in range(2):
    ...         _ = model.loglik([prompt, prompt], [["yes", "no"], ["yes", "no"]])
    ...     model.counts
    Counts(asked=4, cached=1, computed=1, calls=1)
    """

    def __init__(
        self, model: LanguageModel, folder: Path | None = None, *, chunk: int = 512, progress: bool = False
    ) -> None:
        self.model = model
        self.chunk = check_int(chunk, name="chunk", low=1)
        self.progress = progress
        self.counts = Counts()
        folder = default_cache_folder() / "answers" if folder is None else Path(folder)
        self.file = AnswerFile(folder, model)

    @property
    def name(self) -> str:
        """That of the engine, like all that follow."""
        return self.model.name

    @property
    def versions(self) -> Mapping[str, str]:
        """What changes a number."""
        return self.model.versions

    @property
    def fingerprint(self) -> str:
        """Hash of `versions`."""
        return self.model.fingerprint

    @property
    def tokenizer_name(self) -> str | None:
        """Name of the tokenizer."""
        return self.model.tokenizer_name

    @property
    def max_length(self) -> int | None:
        """Tokens that the model reads."""
        return self.model.max_length

    @property
    def chat(self) -> bool:
        """Whether messages are sent."""
        return self.model.chat

    @property
    def usage(self) -> Usage:
        """What the engine has been asked; what the cache answers is not counted."""
        return self.model.usage

    @property
    def scores_choices(self) -> bool:
        """False for a model that names a choice without log-probabilities."""
        return bool(getattr(self.model, "scores_choices", True))

    def loglik(self, prompts: Sequence[Prompt], choices: Sequence[Sequence[str]]) -> Loglik:
        """Return how likely each choice follows its prompt; see :class:`LanguageModel`."""
        model: Any = self.model

        def ask(some: Sequence[_Request]) -> list[LoglikRow]:
            return _lines(model.loglik([one.prompt for one in some], [one.choices for one in some]), some)

        def stream(some: Sequence[_Request]) -> Iterator[tuple[int, LoglikRow]]:
            yield from model.loglik_each([one.prompt for one in some], [one.choices for one in some])

        words = [tuple(some) for some in choices]
        return Loglik.from_rows(self._answers(("loglik",), prompts, words, ask, stream, pack_row, read_row))

    def generate(self, prompts: Sequence[Prompt], decoding: Decoding) -> list[Generation]:
        """Continue each prompt; see :class:`LanguageModel`."""
        model: Any = self.model

        def ask(some: Sequence[_Request]) -> list[Generation]:
            return list(model.generate([one.prompt for one in some], decoding))

        def stream(some: Sequence[_Request]) -> Iterator[tuple[int, Generation]]:
            yield from model.generate_each([one.prompt for one in some], decoding)

        how = ["generate", decoding.max_tokens, list(decoding.stop), float(decoding.temperature)]
        if decoding.temperature > 0:
            how.append(decoding.seed)
        nothing: list[tuple[str, ...]] = [()] * len(prompts)
        return self._answers(how, prompts, nothing, ask, stream, pack_text, read_text)

    def choose(self, prompts: Sequence[Prompt], choices: Sequence[Sequence[str]]) -> list[Generation]:
        """Have a model without log-probabilities name one of the choices of each prompt."""
        model: Any = self.model

        def ask(some: Sequence[_Request]) -> list[Generation]:
            return list(model.choose([one.prompt for one in some], [one.choices for one in some]))

        def stream(some: Sequence[_Request]) -> Iterator[tuple[int, Generation]]:
            yield from model.choose_each([one.prompt for one in some], [one.choices for one in some])

        words = [tuple(some) for some in choices]
        return self._answers(("choose",), prompts, words, ask, stream, pack_text, read_text)

    def _answers(
        self,
        how: Sequence[Any],
        prompts: Sequence[Prompt],
        choices: Sequence[tuple[str, ...]],
        ask: Callable[[Sequence[_Request]], list[Answer]],
        stream: Callable[[Sequence[_Request]], Iterator[tuple[int, Answer]]],
        pack: Callable[[Answer], bytes],
        read: Callable[[bytes], Answer],
    ) -> list[Answer]:
        """One answer for each prompt: from the file, and what is missing from the engine."""
        requests = [self._request(how, *pair) for pair in zip(prompts, choices, strict=True)]
        distinct = list({one.key: one for one in requests}.values())
        known = self.file.get([one.key for one in distinct])
        self.counts.asked += len(requests)
        self.counts.cached += len(known)
        self.counts.computed += len(distinct) - len(known)
        if len(known) < len(distinct):
            self.file.prepare()
            with self._bar(len(distinct), len(known)) as bar:
                for batch in self._ask(distinct, known, ask, stream, pack):
                    known |= self.file.put(batch)
                    bar.update(len(batch))
        return [read(known[one.key]) for one in requests]

    def _ask(
        self,
        distinct: list[_Request],
        known: Mapping[bytes, bytes],
        ask: Callable[[Sequence[_Request]], list[Answer]],
        stream: Callable[[Sequence[_Request]], Iterator[tuple[int, Answer]]],
        pack: Callable[[Answer], bytes],
    ) -> Iterator[dict[bytes, bytes]]:
        """Ask the engine for what is not known; yields what is to be committed together."""
        # Choices decide among equal prompts, so that the order is the same however the requests came.
        distinct = sorted(distinct, key=lambda one: one.order[1])
        distinct = [distinct[i] for i in prefix_order([one.order[0] for one in distinct])]
        if getattr(self.model, "streams", False):
            missing = [one for one in distinct if one.key not in known]
            self.counts.calls += 1
            for place, answer in stream(missing):
                yield {missing[place].key: pack(answer)}
            return
        chunks = [distinct[start : start + self.chunk] for start in range(0, len(distinct), self.chunk)]
        for missing in ([one for one in chunk if one.key not in known] for chunk in chunks):
            if missing:
                self.counts.calls += 1
                answers = ask(missing)
                yield {one.key: pack(answer) for one, answer in zip(missing, answers, strict=True)}

    def _request(self, how: Sequence[Any], prompt: Prompt, choices: tuple[str, ...]) -> _Request:
        read = content(prompt, self.model.chat)
        key = bytes.fromhex(fingerprint(list(how), read, list(choices), length=32))
        text = read if isinstance(read, str) else "".join(f"{role}\0{said}\0" for role, said in read)
        return _Request(key, (text, choices), prompt, choices)

    def _bar(self, total: int, done: int) -> Any:
        from tqdm import tqdm

        return tqdm(
            total=total,
            initial=done,
            desc=f"ask {self.name}",
            unit="request",
            disable=not self.progress,
            dynamic_ncols=True,
        )


def content(prompt: Prompt, chat: bool) -> str | tuple[tuple[str, str], ...]:
    """What the model reads of a prompt: its text, or the roles and contents of its messages."""
    return tuple((str(m["role"]), str(m["content"])) for m in prompt.messages) if chat else prompt.text


def _lines(found: Loglik, asked: Sequence[_Request]) -> list[LoglikRow]:
    """One row for each request."""
    rows = zip(asked, found.values, found.tokens, found.prompt_tokens, found.truncated, strict=True)
    return [LoglikRow(v[: len(one.choices)], t[: len(one.choices)], p, cut) for one, v, t, p, cut in rows]
