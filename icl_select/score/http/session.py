"""A model on a server: what it offers, asked once, and requests to it, counted."""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

from icl_select.errors import ModelError, suggest
from icl_select.score.http.choosing import CHAT, find_constraint
from icl_select.score.http.client import Answer, Client, Refused
from icl_select.score.http.plans import Plan, Request
from icl_select.score.http.pool import as_completed
from icl_select.score.http.probe import Way, find_way, takes_ids
from icl_select.score.pretrained import Texts
from icl_select.score.protocol import Usage

__all__ = ["HttpUsage", "Session"]

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


class Session:
    """One model on one server.

    Parameters
    ----------
    client : Client
    model : str
        Name that it is served under.
    concurrency : int
        Requests in flight.
    max_length : int or None
        Tokens that the server must read, if prompts are to be cut to this.

    Attributes
    ----------
    usage : HttpUsage
    info : dict
        What the server said of itself, and how it is asked.
    way : Way or None
        How choices are scored, once it is known.
    constraint : str or None
        How it is told the choices, once it is known.
    """

    def __init__(self, client: Client, model: str, concurrency: int, max_length: int | None) -> None:
        self.client = client
        self.usage = HttpUsage()
        self.info: dict[str, Any] = {}
        self.way: Way | None = None
        self.constraint: str | None = None
        self._model = model
        self._concurrency = concurrency
        self._max_length = max_length
        self._lock = threading.Lock()
        self._connected = False
        self._ids: bool | None = None
        # Fields that this server was found to refuse, with the endpoint in front.
        self._refused: frozenset[str] = frozenset()

    def find_way(self, mode: str, texts: Texts | None) -> Way:
        """How choices are scored; see :func:`~icl_select.score.http.probe.find_way`."""
        self._connect()
        if self.way is None:
            self.way = find_way(self.ask, mode, texts, self.client.host)
            if texts is not None:
                self._ids = self.way.ids
            self.info |= {"mode": self.way.mode, "prompts": "ids" if self.way.ids else "text"}
        return self.way

    def find_ids(self, texts: Texts | None) -> bool:
        """Whether prompts to continue are sent as token ids."""
        self._connect()
        if texts is None:
            return False
        if self._ids is None:
            self._ids = takes_ids(self.ask, texts)
            self.info["prompts"] = "ids" if self._ids else "text"
        return self._ids

    def find_constraint(self) -> str:
        """How the server is told the choices; see :func:`~icl_select.score.http.choosing.find_constraint`."""
        self._connect()
        if self.constraint is None:
            self.constraint = find_constraint(self.ask, self.client.host)
            self.info |= {"mode": "chat", "constraint": self.constraint}
        return self.constraint

    def run(self, plans: Iterable[Plan[Result]]) -> Iterator[tuple[int, Result]]:
        """Send the requests of many items at once; yields positions and answers as they come."""
        started = self.client.clock.now()

        def work(plan: Plan[Result], stop: threading.Event) -> Result:
            return plan.result([self.ask(request, stop) for request in plan.requests])

        try:
            yield from as_completed(plans, work, self._concurrency)
        finally:
            self.usage.seconds += self.client.clock.now() - started
            self.usage.spent = self.client.spend.spent

    def ask(self, request: Request, stop: threading.Event | None = None) -> Answer:
        """Send one request, without the fields that this server was found to refuse.

        Raises
        ------
        Refused, ModelError, SpendError
            As :meth:`Client.post` does.
        """
        stop = stop or threading.Event()
        left_out = self._refused
        while True:
            body = {"model": self._model, **_without(request, left_out)}
            try:
                answer = self.client.post(request.path, body, request.need, stop)
            except Refused as exc:
                change = _change(request, exc, left_out)
                if change is None:
                    raise
                left_out |= {change}
                continue
            self._count(answer, left_out)
            return answer

    def _count(self, answer: Answer, left_out: frozenset[str]) -> None:
        with self._lock:
            self._refused |= left_out
            self.usage.requests += 1
            self.usage.retries += answer.attempts - 1
            self.usage.prompt_tokens += answer.used.prompt
            self.usage.cached_tokens += answer.cached_tokens
            self.usage.generated_tokens += answer.used.generated
            self.usage.spent = self.client.spend.spent
            mark = answer.body.get("system_fingerprint")
            if mark:
                seen = self.info.setdefault("system_fingerprint", [])
                if mark not in seen:
                    seen.append(mark)

    def _connect(self) -> None:
        """Ask the server what it is, once."""
        if self._connected:
            return
        client, stop = self.client, threading.Event()
        listed = _models(client.look(f"{client.url}/models", stop, needed=True))
        if listed and self._model not in listed:
            # Some servers serve more than they list; one that does not will refuse the first request.
            _logger.warning("%s does not list the model %r.%s", client.host, self._model, suggest(self._model, listed))
        mine = listed.get(self._model, {})
        length = mine.get("max_model_len")
        if isinstance(length, int) and self._max_length is not None and length < self._max_length:
            raise ModelError(
                f"max_length={self._max_length} exceeds the {length} tokens that the server at {client.host} reads. "
                f"Pass max_length={length}, or start the server with a longer context."
            )
        version = client.look(f"{client.root}/version", stop) or {}
        found = {"served": mine.get("root"), "version": version.get("version"), "max_length": length}
        self.info |= {key: value for key, value in found.items() if value is not None}
        self._connected = True


def _models(listed: Mapping[str, Any] | None) -> dict[str, Mapping[str, Any]]:
    """The models that a server lists, by name."""
    entries = (listed or {}).get("data")
    if not isinstance(entries, list):
        return {}
    return {str(one["id"]): one for one in entries if isinstance(one, dict) and "id" in one}


def _without(request: Request, left_out: frozenset[str]) -> dict[str, Any]:
    """The body of a request without the fields that are refused; one of them has another name now."""
    body = {key: value for key, value in request.body.items() if f"{request.path} {key}" not in left_out}
    if "max_tokens" in request.body and "max_tokens" not in body:
        body["max_completion_tokens"] = request.body["max_tokens"]
    return body


def _change(request: Request, exc: Refused, left_out: frozenset[str]) -> str | None:
    """Which field to leave out or rename after a refusal that may be about it."""
    if exc.status not in (400, 422):
        return None
    renamed = f"{request.path} max_tokens"
    if "max_completion_tokens" in exc.message and request.path == CHAT and renamed not in left_out:
        return renamed
    fields = (f"{request.path} {key}" for key in request.optional)
    return next((name for name in fields if name not in left_out), None)
