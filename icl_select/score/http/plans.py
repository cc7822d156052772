"""What is sent for one item, and how its answers are read: scoring by token ids, by echo, and generation."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

import numpy as np

from icl_select.errors import IclSelectError, ModelError, PromptError
from icl_select.score.encoding import EncodedItem
from icl_select.score.http.client import Answer
from icl_select.score.http.spend import Need
from icl_select.score.protocol import Generation, LoglikRow
from icl_select.score.trie import MAX_WANTED, Read, collect, plan_reads
from icl_select.types import Decoding, FloatArray

__all__ = [
    "COMPLETIONS",
    "Plan",
    "Request",
    "as_agreed",
    "by_echo_ids",
    "by_echo_text",
    "by_reads",
    "echoed",
    "echoing",
    "first_choice",
    "most_tokens",
    "read_ids",
    "read_text",
    "reading",
    "to_generate",
]

COMPLETIONS = "/completions"

_TOKEN_ID = "token_id:"
# Tokens that hold a part of a character are all shown alike; then only their log-probabilities tell them apart.
_PARTIAL = ("", "\N{REPLACEMENT CHARACTER}")
_NOISE = 0.01

Result = TypeVar("Result")


@dataclass(frozen=True, slots=True)
class Request:
    """One request. What is named in ``optional`` may be left out where a server refuses it."""

    path: str
    body: Mapping[str, Any]
    need: Need
    optional: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Plan(Generic[Result]):
    """The requests of one item, and how their answers are read."""

    requests: tuple[Request, ...]
    read: Callable[[Sequence[Answer]], Result]

    def result(self, answers: Sequence[Answer]) -> Result:
        """Read the answers; a ModelError if they are of another shape than OpenAI's."""
        with as_agreed():
            return self.read(answers)


@contextlib.contextmanager
def as_agreed() -> Iterator[None]:
    """Turn what reading an answer of an unknown shape raises into a ModelError."""
    try:
        yield
    except IclSelectError:
        raise
    except (LookupError, TypeError, ValueError, AttributeError) as exc:
        raise ModelError(
            f"an answer of the server cannot be read ({type(exc).__name__}: {exc}). It is not compatible with OpenAI's "
            "API: use another, or another mode."
        ) from exc


def most_tokens(text: str) -> int:
    """More tokens than any byte-level tokenizer makes of the text: its bytes, and a few special tokens."""
    return len(text.encode("utf-8", "surrogatepass")) + 4


def by_reads(item: EncodedItem) -> Plan[LoglikRow]:
    """Score by one-token reads with ``logprob_token_ids``; see :mod:`icl_select.score.trie`.

    One request holds all reads of the item that together want no more ids than a server allows.
    """
    plan = plan_reads([item])
    groups: list[tuple[list[Read], dict[int, None]]] = []
    for one in plan.reads:
        if not groups or len(groups[-1][1].keys() | set(one.wanted)) > MAX_WANTED:
            groups.append(([], {}))
        groups[-1][0].append(one)
        groups[-1][1].update(dict.fromkeys(one.wanted))
    requests = tuple(
        Request(
            COMPLETIONS,
            reading([one.prefix for one in reads], list(wanted)),
            Need(sum(len(one.prefix) for one in reads), len(reads)),
        )
        for reads, wanted in groups
    )

    def read(answers: Sequence[Answer]) -> LoglikRow:
        found: list[Mapping[int, float]] = []
        for answer, (reads, _) in zip(answers, groups, strict=True):
            found.extend(read_ids(choice) for choice in _choices(answer, len(reads)))
        return _row(collect([item], plan, found)[0], item)

    return Plan(requests, read)


def reading(prompt: str | list[int] | list[list[int]], wanted: list[int]) -> dict[str, Any]:
    """The body of a request for the log-probabilities of `wanted` right after the prompt."""
    return {
        "prompt": prompt,
        "max_tokens": 1,
        "temperature": 0.0,
        "logprobs": 1,
        "logprob_token_ids": wanted,
        "return_tokens_as_token_ids": True,
    }


def read_ids(choice: Mapping[str, Any]) -> dict[int, float]:
    """Log-probabilities by token id of the one token that was generated; empty if the server shows no ids."""
    shown = (choice.get("logprobs") or {}).get("top_logprobs") or [{}]
    pairs = (shown[0] or {}).items()
    return {int(key.removeprefix(_TOKEN_ID)): float(value) for key, value in pairs if key.startswith(_TOKEN_ID)}


def echoing(prompts: Any, max_tokens: int, extra: Mapping[str, Any]) -> dict[str, Any]:
    """The body of a request for the log-probabilities of the prompts' own tokens."""
    return {"prompt": prompts, "max_tokens": max_tokens, "temperature": 0.0, "echo": True, "logprobs": 1, **extra}


def by_echo_ids(item: EncodedItem, max_tokens: int, extra: Mapping[str, Any]) -> Plan[LoglikRow]:
    """Score by having the server read out context and choice as token ids, one prompt for each choice."""
    lines = [[*item.context, *choice] for choice in item.choices]
    need = Need(sum(map(len, lines)), max_tokens * len(lines))
    request = Request(COMPLETIONS, echoing(lines, max_tokens, extra), need)

    def read(answers: Sequence[Answer]) -> LoglikRow:
        values = []
        for choice, line in zip(_choices(answers[0], len(lines)), lines, strict=True):
            _, numbers = echoed(choice)
            if len(numbers) not in (len(line), len(line) + max_tokens):
                raise ModelError(
                    f"the server read out {len(numbers)} tokens of a prompt of {len(line)}. Its tokenizer is another "
                    "one: pass the right tokenizer=, or none, to score by text."
                )
            values.append(_total(numbers[len(item.context) : len(line)]))
        return _row(np.array(values), item)

    return Plan((request,), read)


def by_echo_text(prompt: str, choices: Sequence[str], max_tokens: int, extra: Mapping[str, Any]) -> Plan[LoglikRow]:
    """Score by having the server read out prompt and choice as text.

    The prompt is read out alone too, so that the border is where :func:`~icl_select.score.encoding.encode_item` puts
    it: after the tokens that the prompt has in common with the prompt and each choice.
    """
    if any(not choice for choice in choices):
        raise PromptError("an empty choice cannot be scored. Give every choice at least one character.")
    texts = [prompt, *(prompt + choice for choice in choices)]
    need = Need(sum(most_tokens(text) for text in texts), max_tokens * len(texts))
    request = Request(COMPLETIONS, echoing(texts, max_tokens, extra), need)

    def read(answers: Sequence[Answer]) -> LoglikRow:
        found = [echoed(choice) for choice in _choices(answers[0], len(texts))]
        if max_tokens:
            found = [(tokens[:-max_tokens], numbers[:-max_tokens]) for tokens, numbers in found]
        alone, joint = found[0], found[1:]
        border = min(min(_common(alone, one), len(one[0]) - 1) for one in joint)
        if border < 1:
            raise PromptError(
                f"the prompt {prompt[:40]!r} leaves the model nothing to read before the choice. Write a longer prompt."
            )
        values = np.array([_total(numbers[border:]) for _, numbers in joint])
        tokens = np.array([len(numbers) - border for _, numbers in joint], dtype=np.int64)
        return LoglikRow(values, tokens, border, False)

    return Plan((request,), read)


def echoed(choice: Mapping[str, Any]) -> tuple[list[str], list[float | None]]:
    """Tokens as the server writes them, and their log-probabilities; the first has none.

    Raises
    ------
    ModelError
        If the server reads nothing out.
    """
    shown = choice.get("logprobs") or {}
    tokens, numbers = shown.get("tokens"), shown.get("token_logprobs")
    if not isinstance(tokens, list) or not isinstance(numbers, list) or len(tokens) != len(numbers) or not tokens:
        raise ModelError(
            "the server gives no log-probabilities of the prompt, though echo and logprobs were asked for. Use another "
            "server, or mode='chat'."
        )
    return [str(token) for token in tokens], [None if value is None else float(value) for value in numbers]


def to_generate(
    path: str, prompt: Mapping[str, Any], decoding: Decoding, seed: int, size: int, truncated: bool
) -> Plan[Generation]:
    """Continue a prompt: `prompt` is ``{"prompt": ...}`` or ``{"messages": ...}`` of `size` tokens at most."""
    body = {
        **prompt,
        "max_tokens": decoding.max_tokens,
        "temperature": decoding.temperature,
        "logprobs": 1 if path == COMPLETIONS else True,
    }
    if decoding.stop:
        body["stop"] = list(decoding.stop)
    if decoding.temperature > 0:
        body["seed"] = seed

    def read(answers: Sequence[Answer]) -> Generation:
        answer = answers[0]
        choice = first_choice(answer)
        text, numbers = read_text(choice), _written(choice)
        cut = min((place for place in map(text.find, decoding.stop) if place >= 0), default=None)
        return Generation(
            text[:cut],
            numbers,
            answer.used.generated or len(numbers),
            cut is not None or choice.get("finish_reason") != "length",
            answer.used.prompt,
            truncated,
        )

    return Plan((Request(path, body, Need(size, decoding.max_tokens), ("logprobs",)),), read)


def read_text(choice: Mapping[str, Any]) -> str:
    """What was written, by either endpoint; nothing if the server filtered or refused it."""
    found = choice["text"] if "text" in choice else (choice.get("message") or {}).get("content")
    return found if isinstance(found, str) else ""


def _written(choice: Mapping[str, Any]) -> tuple[float, ...]:
    """Log-probabilities of the tokens that were written, by either endpoint."""
    shown = choice.get("logprobs") or {}
    numbers = shown.get("token_logprobs") or [token.get("logprob") for token in shown.get("content") or []]
    return tuple(float(value) for value in numbers if value is not None)


def first_choice(answer: Answer) -> Mapping[str, Any]:
    """The answer to a request with one prompt."""
    return _choices(answer, 1)[0]


def _choices(answer: Answer, count: int) -> list[Mapping[str, Any]]:
    """The answers to the prompts of one request, in their order."""
    found = answer.body.get("choices")
    if not isinstance(found, list) or len(found) != count or not all(isinstance(choice, dict) for choice in found):
        got = len(found) if isinstance(found, list) else "no"
        raise ModelError(
            f"the server gave {got} answers to a request with {count} prompts. It is not compatible with OpenAI's API: "
            "use another, or another mode."
        )
    return sorted(found, key=lambda choice: int(choice.get("index", 0)))


def _common(alone: tuple[list[str], list[float | None]], joint: tuple[list[str], list[float | None]]) -> int:
    """Tokens that two texts have in common at their beginning."""
    count = 0
    for left, right, a, b in zip(alone[0], joint[0], alone[1], joint[1], strict=False):
        partial = left in _PARTIAL or "\N{REPLACEMENT CHARACTER}" in left
        if left != right or (partial and a is not None and b is not None and abs(a - b) > _NOISE):
            break
        count += 1
    return count


def _total(numbers: Sequence[float | None]) -> float:
    if any(value is None or math.isnan(value) for value in numbers):
        raise ModelError(
            "the server gave no log-probability for a token of a choice. Use another server, or mode='chat'."
        )
    return math.fsum(value for value in numbers if value is not None)


def _row(values: FloatArray, item: EncodedItem) -> LoglikRow:
    tokens = np.array([len(choice) for choice in item.choices], dtype=np.int64)
    return LoglikRow(values, tokens, len(item.context), item.truncated)
