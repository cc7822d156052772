"""Models behind an OpenAI-compatible HTTP server: vLLM's, OpenAI's, or any other."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import PurePath
from typing import Any

from icl_select._fingerprint import fingerprint
from icl_select._validation import check_int, is_number
from icl_select.errors import ModelError, ParameterError, suggest
from icl_select.score.http.client import Client, server_address
from icl_select.score.http.limits import Clock, Limits
from icl_select.score.http.planner import Planner
from icl_select.score.http.plans import Plan
from icl_select.score.http.probe import Way
from icl_select.score.http.session import HttpUsage, Session
from icl_select.score.http.spend import Estimate, Need, Spend
from icl_select.score.pretrained import read_facts
from icl_select.score.protocol import Generation, Loglik, LoglikRow, check_choices, check_decoding
from icl_select.score.source import find_model
from icl_select.types import Decoding, Prompt

__all__ = ["MODES", "HttpModel", "HttpUsage"]

MODES = ("auto", "token_ids", "echo", "chat")

_logger = logging.getLogger(__name__)


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

        ``token_ids``: log-probabilities of named tokens after prompts of token ids (vLLM); needs
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
    clock : Clock, optional
        Time to wait by; tests pass one that does not wait.

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
        self._mode = _check_mode(mode, tokenizer, chat)
        clock = clock or Clock()
        self._spend = Spend(price_in, price_out, max_spend)
        client = Client(
            server_address(url),
            _check_timeout(timeout),
            check_int(max_retries, name="max_retries", low=0),
            check_int(concurrency, name="concurrency", low=1),
            Limits(
                None
                if requests_per_minute is None
                else check_int(requests_per_minute, name="requests_per_minute", low=1),
                None if tokens_per_minute is None else check_int(tokens_per_minute, name="tokens_per_minute", low=1),
                clock,
            ),
            self._spend,
            clock,
        )
        if tokenizer is None and tokenizer_revision is not None:
            raise ParameterError(f"tokenizer_revision={tokenizer_revision!r} was given without a tokenizer. Give both.")
        self._source = None if tokenizer is None else find_model(tokenizer, tokenizer_revision)
        if max_length is not None:
            check_int(max_length, name="max_length", low=2)
        elif self._source is not None:
            max_length = read_facts(self._source).max_length
        self.max_length = max_length
        self.chat = chat or self._mode == "chat"
        self.scores_choices = self._mode != "chat"
        self.name = _name(model, served)
        self.versions: Mapping[str, str] = {
            "model": self.name,
            "engine": "http",
            "server": "as named" if served else client.host,
            "mode": self._mode,
            "tokenizer": f"{self._source.name}@{self._source.revision}" if self._source else "the server's",
            "max_length": str(max_length) if max_length else "the server's",
            "chat": "yes" if self.chat else "no",
        }
        self._planner = Planner(
            self._source, server_chat=not self.scores_choices, chat=self.chat, max_length=max_length
        )
        self._session = Session(client, model, concurrency, max_length)
        self.usage = self._session.usage

    @property
    def fingerprint(self) -> str:
        """Hash of `versions`."""
        return fingerprint(dict(self.versions))

    @property
    def tokenizer_name(self) -> str | None:
        """Folder, or hub id with the full revision; None without a tokenizer."""
        return None if self._source is None else self._source.pinned

    @property
    def info(self) -> Mapping[str, Any]:
        """What the server said of itself and how it is asked; empty before the first call.

        Keys, each where known: ``served`` (model behind the name), ``version`` (of the server), ``max_length``,
        ``mode`` (that "auto" became), ``prompts`` ("ids" or "text"), ``constraint`` (of :meth:`choose`),
        ``system_fingerprint`` (list of those seen).
        """
        return dict(self._session.info)

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
        One request for each item; in mode ``token_ids`` one more for every 128 distinct tokens. What a server without
        a prefix cache reads: in mode ``token_ids`` the prompt once for each distinct beginning of its choices (once
        in all for label words of one token), in mode ``echo`` once for each choice, and without a tokenizer once
        more.
        """
        rows = dict(self.loglik_each(prompts, choices))
        return Loglik.from_rows([rows[pos] for pos in range(len(prompts))])

    def loglik_each(
        self, prompts: Sequence[Prompt], choices: Sequence[Sequence[str]]
    ) -> Iterator[tuple[int, LoglikRow]]:
        """Yield ``(position, row)`` as answers come; see :meth:`loglik`."""
        if not self.scores_choices:
            raise ModelError(
                f"{self.name} in mode='chat' gives no log-probabilities. Call choose(), or use mode='token_ids' or "
                "'echo' with a server that offers them."
            )
        pairs = _pairs(prompts, choices)
        if not pairs:
            return
        way = self._session.find_way(self._mode, self._planner.texts)
        plans = (self._planner.score(prompt, words, way) for prompt, words in pairs)
        yield from self._session.run(plans)

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
        check_decoding(decoding)
        if not prompts:
            return
        ids = self._session.find_ids(self._planner.texts)
        yield from self._session.run(self._planner.write(prompt, decoding, ids) for prompt in prompts)

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
        constraint = self._session.find_constraint()
        plans = (self._planner.choose(prompt, words, constraint) for prompt, words in pairs)
        for pos, made in self._session.run(plans):
            if made.text not in choices[pos]:
                self.usage.outside += 1
                _logger.warning("%s answered %r, which is none of the choices", self.name, made.text[:80])
            yield pos, made

    def close(self) -> None:
        """Give back the connections; the next call opens new ones."""
        self._session.client.close()

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
        planner, session = self._planner, self._session
        plans: Iterable[Plan[Any]]
        exact = planner.texts is not None
        if decoding is not None:
            plans = (planner.write(prompt, decoding, exact) for prompt in prompts)
        elif self.scores_choices:
            way = session.way or Way("token_ids" if exact and self._mode != "echo" else "echo", exact)
            plans = (planner.score(prompt, words, way) for prompt, words in _pairs(prompts, choices or ()))
        else:
            constraint = session.constraint or "json_schema"
            plans = (planner.choose(prompt, words, constraint) for prompt, words in _pairs(prompts, choices or ()))
        needs = [request.need for plan in plans for request in plan.requests]
        need = Need(sum(one.prompt for one in needs), sum(one.generated for one in needs))
        return Estimate(len(needs), need.prompt, need.generated, self._spend.cost(need), exact)


def _name(model: str, served: str | None) -> str:
    if not model:
        raise ParameterError("model is empty. Pass the name that the server serves a model under.")
    # A server may serve a folder under its path; paths differ between machines.
    short = PurePath(model).name if model.startswith(("/", ".", "~")) else model
    return f"{short}@{served}" if served else short


def _check_timeout(timeout: float) -> float:
    if not (is_number(timeout) and 0 < timeout < float("inf")):
        raise ParameterError(f"timeout={timeout!r} is no time to wait. Pass seconds above 0.")
    return float(timeout)


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


def _pairs(prompts: Sequence[Prompt], choices: Sequence[Sequence[str]]) -> list[tuple[Prompt, Sequence[str]]]:
    check_choices(prompts, choices)
    return list(zip(prompts, choices, strict=True))
