"""What a server offers, found out by asking it once, never guessed."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from icl_select.errors import ModelError
from icl_select.score.http.client import Answer, Refused
from icl_select.score.http.plans import COMPLETIONS, Request, as_agreed, echoed, echoing, most_tokens, read_ids, reading
from icl_select.score.http.spend import Need
from icl_select.score.pretrained import Texts

__all__ = ["PROBE", "Ask", "Way", "find_way", "takes_ids"]

Ask = Callable[[Request], Answer]

PROBE = "Is 12 > 7? It's naïve – 很好 😀.\nanswer: yes"
"""A text that tokenizers cut differently."""

# Two runs of one prompt may differ by this in half precision; other tokens differ by far more.
_NOISE = 0.5
_AS_IDS = {"return_tokens_as_token_ids": True}


@dataclass(frozen=True)
class Way:
    """How choices are scored on this server.

    Attributes
    ----------
    mode : {"token_ids", "echo"}
    ids : bool
        Whether prompts are sent as token ids.
    max_tokens : int
        The fewest tokens that a request with ``echo`` may write here.
    extra : mapping
        Further fields of a request with ``echo``.
    """

    mode: str
    ids: bool
    max_tokens: int = 0
    extra: Mapping[str, Any] = field(default_factory=dict)


def find_way(ask: Ask, mode: str, texts: Texts | None, host: str) -> Way:
    """Find out how this server scores choices.

    Parameters
    ----------
    ask : callable
        Sends a request; raises Refused.
    mode : {"auto", "token_ids", "echo"}
        "auto" takes the first that works.
    texts : Texts or None
        The model's tokenizer.
    host : str
        For messages.

    Raises
    ------
    ModelError
        If the server does not offer the mode, or its tokenizer is another one.
    """
    reasons = []
    if mode != "echo" and texts is not None:
        with as_agreed():
            found = _by_reads(ask, texts)
        if isinstance(found, Way):
            return found
        reasons.append(f"token_ids: {found}")
    if mode != "token_ids":
        with as_agreed():
            found = _by_echo(ask, texts)
        if isinstance(found, Way):
            return found
        reasons.append(f"echo: {found}")
    raise ModelError(
        f"the server at {host} gives no log-probabilities of choices ({'; '.join(reasons)}). Use a server that does, "
        "such as vLLM, or mode='chat', where the model names one of the choices."
    )


def takes_ids(ask: Ask, texts: Texts) -> bool:
    """Whether the server takes token ids for a prompt."""
    ids = _plain(texts)
    try:
        ask(Request(COMPLETIONS, {"prompt": ids, "max_tokens": 1, "temperature": 0.0}, Need(len(ids), 1)))
    except Refused as exc:
        _about_the_request(exc)
        return False
    return True


def _by_reads(ask: Ask, texts: Texts) -> Way | str:
    ids = _plain(texts)
    wanted = sorted(set(ids))[:2]
    try:
        shown = ask(Request(COMPLETIONS, {**reading(PROBE, wanted), "return_token_ids": True}, Need(len(ids), 1)))
        as_text = read_ids(_first(shown))
        if not set(wanted) <= as_text.keys():
            return "logprob_token_ids is not answered"
        _check_ids(_first(shown).get("prompt_token_ids"), shown.used.prompt, ids)
        as_ids = read_ids(_first(ask(Request(COMPLETIONS, reading(ids, wanted), Need(len(ids), 1)))))
    except Refused as exc:
        _about_the_request(exc)
        return exc.message
    if any(abs(as_ids.get(token, 1.0) - as_text[token]) > _NOISE for token in wanted):
        raise _other_tokenizer()
    return Way("token_ids", ids=True)


def _by_echo(ask: Ask, texts: Texts | None) -> Way | str:
    reason = ""
    for max_tokens, extra in ((0, _AS_IDS), (0, {}), (1, {})):
        request = Request(COMPLETIONS, echoing(PROBE, max_tokens, extra), Need(most_tokens(PROBE), max_tokens))
        try:
            shown = ask(request)
            tokens, numbers = echoed(_first(shown))
        except Refused as exc:
            _about_the_request(exc)
            reason = exc.message
            continue
        except ModelError:
            reason = "echo with logprobs is not answered"
            continue
        length = len(numbers) - max_tokens
        if length < 2 or shown.used.prompt not in (0, length) or None in numbers[1:length]:
            reason = "the prompt's own tokens are not read out"
            continue
        if texts is None:
            return Way("echo", False, max_tokens, extra)
        ids = _plain(texts)
        read = [int(token.removeprefix("token_id:")) for token in tokens[:length] if token.startswith("token_id:")]
        _check_ids(read or None, length, ids)
        return Way("echo", takes_ids(ask, texts), max_tokens, extra)
    return reason


def _plain(texts: Texts) -> list[int]:
    """Ids that the server must make of the probe, special tokens included."""
    return list(texts.tokenizer(PROBE)["input_ids"])


def _check_ids(shown: Any, count: int, ids: list[int]) -> None:
    """Compare the server's tokens with ours: the ids where it shows them, else their number."""
    same = list(shown) == ids if isinstance(shown, list) else count in (0, len(ids))
    if not same:
        raise _other_tokenizer()


def _other_tokenizer() -> ModelError:
    return ModelError(
        "the server cuts texts into other tokens than the tokenizer given: its answers would be for another text. Pass "
        "tokenizer= (and tokenizer_revision=) of the model that is served."
    )


def _first(answer: Answer) -> Mapping[str, Any]:
    found = answer.body.get("choices")
    return found[0] if isinstance(found, list) and found and isinstance(found[0], dict) else {}


def _about_the_request(exc: Refused) -> None:
    """Raise a refusal that has nothing to do with what was asked for."""
    if exc.status in (401, 403, 404, 429):
        raise exc
