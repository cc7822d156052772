"""Chat answers that can only be one of the choices."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from icl_select.errors import ModelError, PromptError
from icl_select.score.http.client import Answer, Refused
from icl_select.score.http.plans import Plan, Request, first_choice, most_tokens, read_text
from icl_select.score.http.spend import Need
from icl_select.score.protocol import Generation

__all__ = ["CHAT", "CONSTRAINTS", "find_constraint", "message_tokens", "to_choose"]

CHAT = "/chat/completions"

# What a chat template may write around a message.
_AROUND = 32
# Braces, quotes and the name in a JSON answer, and some blanks.
_JSON_TOKENS = 32
# Words that no model writes unless it must.
_PROBES = ("zq7x", "vk9w")


def _schema(choices: Sequence[str]) -> dict[str, Any]:
    answer = {"type": "string", "enum": list(choices)}
    schema = {"type": "object", "properties": {"answer": answer}, "required": ["answer"], "additionalProperties": False}
    return {"type": "json_schema", "json_schema": {"name": "answer", "strict": True, "schema": schema}}


CONSTRAINTS: dict[str, Callable[[Sequence[str]], dict[str, Any]]] = {
    "structured_outputs": lambda choices: {"structured_outputs": {"choice": list(choices)}},
    "guided_choice": lambda choices: {"guided_choice": list(choices)},
    "json_schema": lambda choices: {"response_format": _schema(choices)},
}
"""How servers are told the choices: vLLM, older vLLM, OpenAI and others."""


def message_tokens(messages: Sequence[Mapping[str, str]]) -> int:
    """More tokens than a chat template makes of the messages, unless it adds long texts of its own."""
    return _AROUND + sum(_AROUND + most_tokens(message["content"]) for message in messages)


def to_choose(messages: Sequence[Mapping[str, str]], choices: Sequence[str], constraint: str) -> Plan[Generation]:
    """Have one of the choices named.

    The text of the generation is what the model named. It is none of the choices only if the server let it through.
    """
    if not choices or any(not choice for choice in choices):
        raise PromptError("a chat is asked to name one of no choices, or an empty one. Give each some text.")
    most = max(most_tokens(choice) for choice in choices) + (_JSON_TOKENS if constraint == "json_schema" else 0)
    sent = [dict(message) for message in messages]
    body = {"messages": sent, "max_tokens": most, "temperature": 0.0, **CONSTRAINTS[constraint](choices)}

    def read(answers: Sequence[Answer]) -> Generation:
        answer = answers[0]
        choice = first_choice(answer)
        text = read_text(choice)
        if constraint == "json_schema":
            text = _named(text)
        finished = choice.get("finish_reason") != "length"
        return Generation(text, (), answer.used.generated, finished, answer.used.prompt)

    return Plan((Request(CHAT, body, Need(message_tokens(messages), most)),), read)


def find_constraint(ask: Callable[[Request], Answer], host: str) -> str:
    """Find out how this server is told the choices: by a request that only a constrained model answers so.

    Raises
    ------
    ModelError
        If it holds to no kind of constraint.
    """
    reasons = []
    for name in CONSTRAINTS:
        plan = to_choose([{"role": "user", "content": "Write one word."}], _PROBES, name)
        try:
            made = plan.result([ask(plan.requests[0])])
        except Refused as exc:
            if exc.status in (401, 403, 404, 429):
                raise
            reasons.append(f"{name}: {exc.message}")
            continue
        if made.text in _PROBES:
            return name
        reasons.append(f"{name}: the answer was free")
    raise ModelError(
        f"the server at {host} does not hold answers to given choices ({'; '.join(reasons)}). Use a server that does, "
        "or have answers generated."
    )


def _named(text: str) -> str:
    """The answer in a JSON object; the text itself if it is none."""
    try:
        found = json.loads(text)
    except ValueError:
        return text
    answer = found.get("answer") if isinstance(found, dict) else None
    return answer if isinstance(answer, str) else text
