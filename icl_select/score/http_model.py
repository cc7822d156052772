"""Models behind an OpenAI-compatible HTTP server: vLLM's, OpenAI's, or any other."""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import PurePath
from typing import Any, TypeVar

import numpy as np

from icl_select._fingerprint import fingerprint, seed_from
from icl_select._validation import check_int, is_number
from icl_select.errors import ModelError, ParameterError, PromptError, suggest
from icl_select.score.encoding import cut_left, encode_item
from icl_select.score.http.choosing import CHAT, find_constraint, message_tokens, to_choose
from icl_select.score.http.client import Client, Refused, server_address
from icl_select.score.http.limits import Clock, Limits
from icl_select.score.http.plans import (
    COMPLETIONS,
    Plan,
    Request,
    Row,
    by_echo_ids,
    by_echo_text,
    by_reads,
    most_tokens,
    to_generate,
)
from icl_select.score.http.pool import as_completed
from icl_select.score.http.probe import Way, find_way, takes_ids
from icl_select.score.http.spend import Estimate, Need, Spend
from icl_select.score.language_model import ModelScorer
from icl_select.score.pretrained import Texts, read_facts
from icl_select.score.protocol import Generation, Loglik, Usage
from icl_select.score.source import find_model
from icl_select.types import Decoding, FloatArray, IntArray, Prompt

__all__ = ["MODES", "HttpModel", "HttpUsage", "openai"]

MODES = ("auto", "token_ids", "echo", "chat")

_logger = logging.getLogger(__name__)

Result = TypeVar("Result")


@dataclass
class HttpUsage(Usage):
    """What a server has been asked so far.

    Besides the counts of :class:`~icl_select.score.protocol.Usage`: ``retries`` are attempts beyond the first,
    ``spent`` the cost so far at the model's prices, ``outside`` the answers that were none of the choices.
    """

    retries: int = 0
    spent: float = 0.0
    outside: int = 0


class HttpModel:
    """A model behind an OpenAI-compatible server.

    Parameters
    ----------
    model : str
        Name that the server serves it under.
    url : str, optional
        Address of the API, such as ``http://localhost:8000/v1``; default ``$OPENAI_BASE_URL``. The key is read from
        ``$OPENAI_API_KEY`` only, and is written nowhere.
    tokenizer : str, optional
        Hub id or folder of the served model's tokenizer, or "tiny". With it prompts are cut to what the model reads,
        counted exactly, and sent as token ids; checked against the server at the first call.
    tokenizer_revision : str, optional
    mode : {"auto", "token_ids", "echo", "chat"}, default="auto"
        How choices are scored.

        ``token_ids``: log-probabilities of named tokens after prompts of token ids (vLLM 0.21 or later); needs
        `tokenizer`. ``echo``: the server reads prompt and choice out, with log-probabilities (vLLM, llama.cpp and
        other servers with the completions endpoint). Both give the numbers of the other engines. ``chat``: no
        log-probabilities; the model is made to answer with one of the choices (:meth:`choose`). ``auto``: the first of
        ``token_ids`` and ``echo`` that the server offers when asked; with `chat` and without `tokenizer`, ``chat``.
    concurrency : int, default=8
        Requests in flight.
    requests_per_minute, tokens_per_minute : int, optional
        Never more than this in any 60 seconds.
    max_retries : int, default=6
        Further attempts after a timeout, a broken connection, or HTTP 408, 425, 429 or 5xx.
    timeout : float, default=120
        Seconds to wait for an answer.
    chat : bool, default=False
        Send ``Prompt.messages``, not ``Prompt.text``: through the chat endpoint in mode ``chat``, else rendered with
        the tokenizer's chat template.
    price_in, price_out : float, optional
        Of a million prompt tokens and of a million generated ones.
    max_spend : float, optional
        What this object may spend. No request is sent that might pass it.
    max_length : int, optional
        Tokens read and written together. Default what the configuration beside `tokenizer` says, else not known:
        then prompts are not cut, and the server refuses what is too long.
    served : str, optional
        What the server runs, in your words: revision, dtype, quantisation. With it, answers are kept under model and
        `served`, whatever the address; without it, the host is part of the key, because nobody knows what is behind
        another one.

    Attributes
    ----------
    usage : HttpUsage
    scores_choices : bool
        Whether :meth:`loglik` works; False in mode ``chat``.
    streams : bool
        Answers come one by one from :meth:`loglik_each`, :meth:`generate_each` and :meth:`choose_each`.

    Raises
    ------
    ParameterError
        For values out of range, or that exclude each other.
    ModelError
        If there is no such tokenizer.

    Notes
    -----
    Nothing is sent to the server before the first call. Versions hold what is known before it; what the server says of
    itself is in :attr:`info`. Its numbers depend on what else it computes at that moment, in the last digits.

    Answers come in any order and are kept as they come by :class:`~icl_select.score.answers.CachedModel`. After an
    error no new request is sent, and what is in flight is waited for.
    """

    streams = True

    def __init__(
        self,
        model: str,
        *,
        url: str | None = None,
        tokenizer: str | None = None,
        tokenizer_revision: str | None = None,
        mode: str = "auto",
        concurrency: int = 8,
        requests_per_minute: int | None = None,
        tokens_per_minute: int | None = None,
        max_retries: int = 6,
        timeout: float = 120.0,
        chat: bool = False,
        price_in: float | None = None,
        price_out: float | None = None,
        max_spend: float | None = None,
        max_length: int | None = None,
        served: str | None = None,
        clock: Clock | None = None,
    ) -> None:
        if not model:
            raise ParameterError("model is empty. Pass the name that the server serves a model under.")
        if not (is_number(timeout) and 0 < timeout < float("inf")):
            raise ParameterError(f"timeout={timeout!r} is no time to wait. Pass seconds above 0.")
        for name, limit in (("requests_per_minute", requests_per_minute), ("tokens_per_minute", tokens_per_minute)):
            if limit is not None:
                check_int(limit, name=name, low=1)
        self._mode = _check_mode(mode, tokenizer, chat)
        self._model = model
        self._concurrency = check_int(concurrency, name="concurrency", low=1)
        self._clock = clock or Clock()
        self._spend = Spend(price_in, price_out, max_spend)
        self._client = Client(
            server_address(url),
            float(timeout),
            check_int(max_retries, name="max_retries", low=0),
            self._concurrency,
            Limits(requests_per_minute, tokens_per_minute, self._clock),
            self._spend,
            self._clock,
        )
        self._source = None if tokenizer is None else find_model(tokenizer, tokenizer_revision)
        if self._source is None and tokenizer_revision is not None:
            raise ParameterError(f"tokenizer_revision={tokenizer_revision!r} was given without a tokenizer. Give both.")
        if max_length is not None:
            check_int(max_length, name="max_length", low=2)
        elif self._source is not None:
            max_length = read_facts(self._source).max_length
        self.max_length = max_length
        self.chat = chat or self._mode == "chat"
        self.scores_choices = self._mode != "chat"
        self.usage = HttpUsage()
        # A server may serve a folder under its path; paths differ between machines.
        self.name = (PurePath(model).name if model.startswith(("/", ".", "~")) else model) + (
            f"@{served}" if served else ""
        )
        self.versions: Mapping[str, str] = {
            "model": self.name,
            "engine": "http",
            "server": f"served as {served}" if served else self._client.host,
            "mode": self._mode,
            "tokenizer": f"{self._source.name}@{self._source.revision}" if self._source else "the server's",
            "max_length": str(max_length) if max_length else "the server's",
            "chat": "yes" if self.chat else "no",
        }
        self._lock = threading.Lock()
        self._info: dict[str, Any] = {}
        self._connected = False
        self._known_texts: Texts | None = None
        self._way: Way | None = None
        self._ids: bool | None = None
        self._constraint: str | None = None
        # Fields that this server was found to refuse, with the endpoint in front.
        self._refused: frozenset[str] = frozenset()

    @property
    def fingerprint(self) -> str:
        """Hash of `versions`."""
        return fingerprint(dict(self.versions))

    @property
    def tokenizer_name(self) -> str | None:
        """Folder, or hub id with the full revision; None without a tokenizer."""
        if self._source is None:
            return None
        return self._source.location if self._source.local else f"{self._source.name}@{self._source.revision}"

    @property
    def info(self) -> Mapping[str, Any]:
        """What the server said of itself and how it is asked; empty before the first call.

        Keys, each where known: ``served`` (model behind the name), ``version`` (of the server), ``max_length``,
        ``mode`` (that "auto" became), ``prompts`` ("ids" or "text"), ``constraint`` (of :meth:`choose`),
        ``system_fingerprint`` (list of those seen).
        """
        return dict(self._info)

    def loglik(self, prompts: Sequence[Prompt], choices: Sequence[Sequence[str]]) -> Loglik:
        r"""Return how likely each choice follows its prompt.

        Parameters
        ----------
        prompts : sequence of Prompt, length n
        choices : sequence of sequence of str, length n
            What stands after the prompt, leading blanks included.

        Returns
        -------
        Loglik

        Raises
        ------
        ModelError
            In mode ``chat``; if the server does not offer the mode, cannot be reached, or refuses a request.
        SpendError
            If the next request might pass `max_spend`.
        PromptError
            If an item cannot be encoded.

        Notes
        -----
        Requests: one for each item (in mode ``token_ids`` one more for every 128 distinct tokens). Prompt tokens
        that a server without a prefix cache computes, for choices of t tokens in all: ``token_ids`` once for each
        distinct beginning, ``echo`` once for each choice, and by text once more.
        """
        rows = {answer[0]: Row(*answer[1:]) for answer in self.loglik_each(prompts, choices)}
        width = max((len(words) for words in choices), default=0)
        values = np.full((len(prompts), width), np.nan)
        tokens = np.zeros((len(prompts), width), dtype=np.int64)
        for pos, found in rows.items():
            values[pos, : len(found.values)] = found.values
            tokens[pos, : len(found.tokens)] = found.tokens
        order = range(len(prompts))
        return Loglik(
            values,
            tokens,
            np.array([rows[pos].prompt_tokens for pos in order], dtype=np.int64),
            np.array([rows[pos].truncated for pos in order], dtype=np.bool_),
        )

    def loglik_each(
        self, prompts: Sequence[Prompt], choices: Sequence[Sequence[str]]
    ) -> Iterator[tuple[int, FloatArray, IntArray, int, bool]]:
        """Yield ``(position, values, tokens, prompt_tokens, truncated)`` as answers come; see :meth:`loglik`."""
        if not self.scores_choices:
            raise ModelError(
                f"{self.name} in mode='chat' gives no log-probabilities. Call choose(), or use mode='token_ids' or "
                "'echo' with a server that offers them."
            )
        pairs = _pairs(prompts, choices)
        if not pairs:
            return
        way = self._find_way()
        plans = (self._scoring(prompt, words, way) for prompt, words in pairs)
        for pos, row in self._run(plans):
            yield pos, *row

    def generate(self, prompts: Sequence[Prompt], decoding: Decoding) -> list[Generation]:
        """Continue each prompt.

        Parameters
        ----------
        prompts : sequence of Prompt
        decoding : Decoding

        Returns
        -------
        list of Generation, of the length of `prompts`
            ``logprobs`` stay empty where the server gives none.

        Raises
        ------
        ModelError
            If the server cannot be reached or refuses a request.
        SpendError
            If the next request might pass `max_spend`.
        """
        made = dict(self.generate_each(prompts, decoding))
        return [made[pos] for pos in range(len(prompts))]

    def generate_each(self, prompts: Sequence[Prompt], decoding: Decoding) -> Iterator[tuple[int, Generation]]:
        """Yield ``(position, generation)`` as answers come; see :meth:`generate`."""
        check_int(decoding.max_tokens, name="max_tokens", low=1)
        if not prompts:
            return
        ids = self._find_ids()
        yield from self._run(self._writing(prompt, decoding, ids) for prompt in prompts)

    def choose(self, prompts: Sequence[Prompt], choices: Sequence[Sequence[str]]) -> list[Generation]:
        """Have the model name one of the choices of each prompt, through the chat endpoint.

        Parameters
        ----------
        prompts : sequence of Prompt, length n
            Their messages are sent.
        choices : sequence of sequence of str, length n

        Returns
        -------
        list of Generation, length n
            The text is what the model named, letter for letter: one of the choices, unless the server let something
            else through or cut it. Those are counted in ``usage.outside`` and logged, never mapped to a choice.

        Raises
        ------
        ModelError
            If the server does not constrain answers, cannot be reached, or refuses a request.
        SpendError
            If the next request might pass `max_spend`.
        """
        made = dict(self.choose_each(prompts, choices))
        return [made[pos] for pos in range(len(prompts))]

    def choose_each(
        self, prompts: Sequence[Prompt], choices: Sequence[Sequence[str]]
    ) -> Iterator[tuple[int, Generation]]:
        """Yield ``(position, generation)`` as answers come; see :meth:`choose`."""
        pairs = _pairs(prompts, choices)
        if not pairs:
            return
        constraint = self._find_constraint()
        plans = (to_choose(_messages(prompt), words, constraint) for prompt, words in pairs)
        for pos, made in self._run(plans):
            if made.text not in choices[pos]:
                self.usage.outside += 1
                _logger.warning("%s answered %r, which is none of the choices", self.name, made.text[:80])
            yield pos, made

    def estimate(
        self,
        prompts: Sequence[Prompt],
        choices: Sequence[Sequence[str]] | None = None,
        decoding: Decoding | None = None,
    ) -> Estimate:
        """Say what :meth:`loglik` (or :meth:`choose`) or :meth:`generate` would take; nothing is sent.

        Parameters
        ----------
        prompts : sequence of Prompt
        choices : sequence of sequence of str, optional
        decoding : Decoding, optional
            Exactly one of the two.

        Returns
        -------
        Estimate
            Without the few requests that find out what a server offers, and without retries. In mode "auto" before
            the first call, for the way that is tried first.
        """
        if (choices is None) == (decoding is None):
            raise ParameterError("give either choices or decoding, for what is to be estimated. Not both, not neither.")
        plans: Iterable[Plan[Any]]
        if decoding is not None:
            plans = (self._writing(prompt, decoding, self._texts is not None) for prompt in prompts)
        elif self.scores_choices:
            way = self._way or Way(
                "echo" if self._mode == "echo" or not self._texts else "token_ids", bool(self._texts)
            )
            plans = (self._scoring(prompt, words, way) for prompt, words in _pairs(prompts, choices or ()))
        else:
            name = self._constraint or "json_schema"
            plans = (to_choose(_messages(prompt), words, name) for prompt, words in _pairs(prompts, choices or ()))
        needs = [request.need for plan in plans for request in plan.requests]
        need = Need(sum(one.prompt for one in needs), sum(one.generated for one in needs))
        return Estimate(len(needs), need.prompt, need.generated, self._spend.cost(need), self._exact)

    @property
    def _exact(self) -> bool:
        return self._source is not None and self._mode != "chat"

    @property
    def _texts(self) -> Texts | None:
        if self._known_texts is None and self._exact and self._source is not None:
            self._known_texts = Texts(self._source, chat=self.chat)
        return self._known_texts

    def _scoring(self, prompt: Prompt, words: Sequence[str], way: Way) -> Plan[Row]:
        """The requests that score the choices of one prompt."""
        texts = self._texts
        if texts is None or not way.ids:
            if self.chat:
                raise ModelError(
                    "the server takes no token ids, and a chat that is rendered here cannot be sent as text: special "
                    "tokens would be put in front twice. Use mode='chat', or chat=False."
                )
            return by_echo_text(prompt.text, words, way.max_tokens, way.extra)
        text = texts.text(prompt)
        needed = ["", text, *(text + word for word in words)]
        known = dict(zip(needed, texts.encode(needed), strict=True))
        # A server that reads out also writes, at least one token that is then thrown away.
        length = self.max_length and self.max_length - (way.mode == "echo")
        item = encode_item(known.__getitem__, text, words, max_length=length)
        return by_reads(item) if way.mode == "token_ids" else by_echo_ids(item, way.max_tokens, way.extra)

    def _writing(self, prompt: Prompt, decoding: Decoding, as_ids: bool) -> Plan[Generation]:
        """The request that continues one prompt."""
        if self._mode == "chat":
            messages = _messages(prompt)
            seed = seed_from(decoding.seed, [[m["role"], m["content"]] for m in messages]) % 2**63
            return to_generate(CHAT, {"messages": messages}, decoding, seed, message_tokens(messages), False)
        texts = self._texts
        text = prompt.text if texts is None else texts.text(prompt)
        seed = seed_from(decoding.seed, text) % 2**63
        if texts is None:
            return to_generate(COMPLETIONS, {"prompt": text}, decoding, seed, most_tokens(text), False)
        ids = texts.encode([text])[0]
        room = None if self.max_length is None else self.max_length - decoding.max_tokens
        cut = room is not None and len(ids) > room
        if not as_ids:
            if cut or self.chat:
                raise ModelError(
                    f"the prompt of {prompt.query_id!r} " + ("must be cut" if cut else "is a chat rendered here") + ", "
                    "which takes a server that reads token ids; this one does not. "
                    + ("Shorten the prompt." if cut else "Use mode='chat'.")
                )
            return to_generate(COMPLETIONS, {"prompt": text}, decoding, seed, len(ids), False)
        read = cut_left(lambda some: texts.encode([some])[0], ids, room) if room is not None and cut else ids
        if not read:
            raise PromptError(f"the prompt of {prompt.query_id!r} has no token to continue. Write a longer prompt.")
        return to_generate(COMPLETIONS, {"prompt": read}, decoding, seed, len(read), cut)

    def _run(self, plans: Iterable[Plan[Result]]) -> Iterator[tuple[int, Result]]:
        """Send the requests of many items at once; yields positions and answers as they come."""
        started = self._clock.now()

        def work(plan: Plan[Result], stop: threading.Event) -> Result:
            return plan.read([self._ask(request, stop) for request in plan.requests])

        try:
            yield from as_completed(plans, work, self._concurrency)
        finally:
            self.usage.seconds += self._clock.now() - started

    def _ask(self, request: Request, stop: threading.Event | None = None) -> Any:
        """Send one request, without the fields that this server was found to refuse."""
        stop = stop or threading.Event()
        left_out = self._refused
        while True:
            body = {"model": self._model, **request.body}
            for key in (key for key in ("logprobs", "max_tokens") if f"{request.path} {key}" in left_out):
                value = body.pop(key)
                if key == "max_tokens":
                    body["max_completion_tokens"] = value
            try:
                answer = self._client.post(request.path, body, request.need, stop)
            except Refused as exc:
                change = _change(request, exc, left_out)
                if change is None:
                    raise
                left_out |= {change}
                continue
            break
        with self._lock:
            self._refused |= left_out
            self.usage.requests += 1
            self.usage.retries += answer.attempts - 1
            self.usage.prompt_tokens += answer.used.prompt
            self.usage.cached_tokens += answer.cached_tokens
            self.usage.generated_tokens += answer.used.generated
            self.usage.spent = self._spend.spent
            seen = self._info.setdefault("system_fingerprint", [])
            mark = answer.body.get("system_fingerprint")
            if mark and mark not in seen:
                seen.append(mark)
        return answer

    def _connect(self) -> None:
        """Ask the server what it is, once."""
        if self._connected:
            return
        stop = threading.Event()
        listed = self._client.look(f"{self._client.url}/models", stop, needed=True) or {}
        models = {str(one.get("id")): one for one in listed.get("data") or [] if isinstance(one, dict)}
        if models and self._model not in models:
            _logger.warning(
                "%s does not list the model %r.%s", self._client.host, self._model, suggest(self._model, models)
            )
        mine = models.get(self._model, {})
        length = mine.get("max_model_len")
        if isinstance(length, int) and self.max_length is not None and length < self.max_length:
            raise ModelError(
                f"max_length={self.max_length} exceeds the {length} tokens that the server at {self._client.host} "
                f"reads. Pass max_length={length}, or start the server with a longer context."
            )
        version = self._client.look(f"{self._client.root}/version", stop) or {}
        found = {"served": mine.get("root"), "version": version.get("version"), "max_length": length}
        self._info |= {key: value for key, value in found.items() if value is not None}
        self._connected = True

    def _find_way(self) -> Way:
        self._connect()
        if self._way is None:
            self._way = find_way(self._ask, self._mode, self._texts, self._client.host)
            self._ids = self._way.ids if self._texts is not None else None
            self._info |= {"mode": self._way.mode, "prompts": "ids" if self._way.ids else "text"}
        return self._way

    def _find_ids(self) -> bool:
        """Whether prompts to continue are sent as token ids."""
        self._connect()
        if self._ids is None:
            texts = self._texts
            self._ids = texts is not None and takes_ids(self._ask, texts)
            self._info["prompts"] = "messages" if self._mode == "chat" else "ids" if self._ids else "text"
        return self._ids

    def _find_constraint(self) -> str:
        self._connect()
        if self._constraint is None:
            self._constraint = find_constraint(self._ask, self._client.host)
            self._info |= {"mode": "chat", "constraint": self._constraint}
        return self._constraint


def _check_mode(mode: str, tokenizer: str | None, chat: bool) -> str:
    """The mode, "auto" replaced where there is only one."""
    if mode not in MODES:
        raise ParameterError(f"unknown mode {mode!r}.{suggest(str(mode), MODES)}")
    if mode == "auto" and chat and tokenizer is None:
        return "chat"
    if tokenizer is None and (mode == "token_ids" or (mode == "echo" and chat)):
        what = "to send token ids" if mode == "token_ids" else "to render messages here"
        raise ParameterError(f"mode={mode!r} needs a tokenizer {what}. Pass tokenizer=, or use another mode.")
    return mode


def _change(request: Request, exc: Refused, left_out: frozenset[str]) -> str | None:
    """Which field to leave out or rename after a refusal that may be about it."""
    if exc.status not in (400, 422):
        return None
    renamed = f"{request.path} max_tokens"
    if "max_completion_tokens" in exc.message and request.path == CHAT and renamed not in left_out:
        return renamed
    fields = (f"{request.path} {key}" for key in request.optional)
    return next((field for field in fields if field not in left_out), None)


def _pairs(prompts: Sequence[Prompt], choices: Sequence[Sequence[str]]) -> list[tuple[Prompt, Sequence[str]]]:
    if len(prompts) != len(choices):
        raise ParameterError(f"{len(prompts)} prompts, but choices for {len(choices)}. Pass choices for each prompt.")
    for prompt, words in zip(prompts, choices, strict=True):
        if not words:
            raise PromptError(f"no choices for {prompt.query_id!r}. Give at least one, or generate.")
    return list(zip(prompts, choices, strict=True))


def _messages(prompt: Prompt) -> list[dict[str, str]]:
    if not prompt.messages:
        raise PromptError(f"the prompt of {prompt.query_id!r} has no messages to send as a chat. Build it with some.")
    return [{"role": str(m["role"]), "content": str(m["content"])} for m in prompt.messages]


def openai(
    model: str,
    *,
    rule: str = "mean",
    url: str | None = None,
    tokenizer: str | None = None,
    tokenizer_revision: str | None = None,
    mode: str = "auto",
    concurrency: int = 8,
    requests_per_minute: int | None = None,
    tokens_per_minute: int | None = None,
    max_retries: int = 6,
    timeout: float = 120.0,
    chat: bool = False,
    price_in: float | None = None,
    price_out: float | None = None,
    max_spend: float | None = None,
    max_length: int | None = None,
    served: str | None = None,
) -> ModelScorer:
    """Make the scorer ``openai(model='…')`` of a campaign: see :class:`HttpModel`, and `rule` of ModelScorer."""
    engine = HttpModel(
        model,
        url=url,
        tokenizer=tokenizer,
        tokenizer_revision=tokenizer_revision,
        mode=mode,
        concurrency=concurrency,
        requests_per_minute=requests_per_minute,
        tokens_per_minute=tokens_per_minute,
        max_retries=max_retries,
        timeout=timeout,
        chat=chat,
        price_in=price_in,
        price_out=price_out,
        max_spend=max_spend,
        max_length=max_length,
        served=served,
    )
    return ModelScorer(engine, rule=rule)
