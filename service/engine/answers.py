"""From retrieved rows to an answer, and from what was kept of an answer to the same bytes again."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from pydantic_core import to_json
from sqlalchemy.engine import Connection

from icl_select.prompt import PromptTemplate, Tokenizer, pack
from icl_select.types import Demonstration, Example, Prompt, Retrieved

from ..errors import ConflictError
from ..store import items as items_store
from ..store import labels as labels_store
from ..store import pools as pools_store
from ..store import prompts as prompts_store
from ..store.prompts import PromptRecord
from .index import LabelledIndex
from .options import Options, options_from

__all__ = ["Answer", "Made", "make", "rebuild"]


# Characters of one prompt: far beyond what models read, and what a template can be made to write is far beyond that.
_MOST_CHARACTERS = 4_000_000


@dataclass(frozen=True)
class Answer:
    """A prompt as it is sent, byte for byte."""

    id: str
    body: bytes

    @property
    def document(self) -> dict[str, Any]:
        """What the bytes say."""
        found: dict[str, Any] = json.loads(self.body)
        return found


@dataclass(frozen=True)
class Made:
    """An answer, and what is kept of it."""

    answer: Answer
    record: PromptRecord
    prompt: Prompt
    options: Options


def make(
    index: LabelledIndex,
    query: Example,
    options: Options,
    template: PromptTemplate,
    tokenizer: Tokenizer,
    hits: Retrieved,
) -> Made:
    """Pack the prompt of one query; `template` is that of the options, and may remember what it wrote.

    Raises
    ------
    PromptError, TemplateError
        If the query does not fit or lacks a field of the template, or the demonstrations are too long for any prompt.
    """
    rows = hits.rows.tolist()
    demonstrations = [
        Demonstration(index.shown[row].id, index.labels[row], similarity, index.shown[row].fields)
        for row, similarity in zip(rows, hits.similarities.tolist(), strict=True)
    ]
    prompt = pack(
        template,
        demonstrations,
        query,
        max_tokens=options.max_tokens,
        tokenizer=tokenizer,
        order=options.order,
        rule=options.rule,
        max_demonstration_tokens=options.max_demonstration_tokens,
        chat=options.chat,
        seed=options.seed,
        max_characters=_MOST_CHARACTERS,
    )
    versions = {
        "pool": index.pool.version,
        "labels": index.pool.labels_version,
        "embedding": index.embedding.id,
        "index": index.version,
        "template": options.template_name,
        "encoder": f"{index.embedding.encoder}@{index.embedding.encoder_fingerprint}",
        "tokenizer": options.tokenizer,
    }
    content: dict[str, Any] = {
        "query": {"id": query.id, "text": query.text},
        "examples": [
            [index.positions[rows[rank]], shown.similarity, rank]
            for shown, rank in zip(prompt.examples, prompt.ranks, strict=True)
        ],
        "tokens": prompt.tokens,
        "dropped": [[dropped.id, dropped.reason] for dropped in prompt.dropped],
        "versions": versions,
    }
    if dict(query.fields) != {"text": query.text}:
        content["query"]["fields"] = dict(query.fields)
    made_from = to_json(content)
    # Of what went in and what came out: a vector may differ in its last digit from one batch to another.
    named = hashlib.sha256(b"%d %s " % (index.pool.uid, options.name.encode()) + made_from)
    prompt_id = f"prompt_{named.hexdigest()[:32]}"
    answer = _answer(prompt_id, index.pool.name, prompt, content)
    record = PromptRecord(prompt_id, index.pool.uid, options.name, made_from.decode(), _hash(answer))
    return Made(answer, record, prompt, options)


def _hash(answer: Answer) -> str:
    return hashlib.sha256(answer.body).hexdigest()


def _answer(prompt_id: str, pool: str, prompt: Prompt, content: Mapping[str, Any]) -> Answer:
    document = {
        "id": prompt_id,
        "pool": pool,
        "query_id": prompt.query_id,
        "prompt": prompt.text,
        "messages": prompt.messages,
        "examples": [
            {"id": shown.id, "label": shown.label, "score": shown.similarity, "rank": rank}
            for shown, rank in zip(prompt.examples, prompt.ranks, strict=True)
        ],
        "usage": {"prompt_tokens": content["tokens"]},
        "dropped": [{"id": name, "reason": reason} for name, reason in content["dropped"]],
        "versions": content["versions"],
    }
    return Answer(prompt_id, to_json(document))


def rebuild(connection: Connection, prompt_id: str) -> Answer:
    """Write a prompt again from what it was made of: the items, the labels as of then, the template.

    Raises
    ------
    NotFoundError
        If there is no such prompt.
    ConflictError
        If the bytes differ from those that were answered: another version of this package writes prompts otherwise.
    """
    record = prompts_store.find(connection, prompt_id)
    options, content = options_from(record.settings), record.made_from
    pool = pools_store.by_uid(connection, record.pool_uid)
    positions = [pos for pos, _, _ in content["examples"]]
    found = items_store.at(connection, pool, positions)
    labels = labels_store.labelled_at(connection, pool.uid, positions, content["versions"]["labels"])
    examples = tuple(
        Demonstration(found[pos].id, str(labels[pos]), similarity, {**found[pos].fields, "text": found[pos].text})
        for pos, similarity, _ in content["examples"]
    )
    asked = content["query"]
    query = Example(asked["id"], asked["text"], asked.get("fields", {"text": asked["text"]}))
    prompt = Prompt(
        query_id=query.id,
        text=options.template.text(examples, query),
        messages=options.template.messages(examples, query),
        examples=examples,
        ranks=tuple(rank for _, _, rank in content["examples"]),
        tokens=content["tokens"],
    )
    answer = _answer(prompt_id, pool.name, prompt, content)
    if _hash(answer) != record.hash:
        raise ConflictError(
            f"the prompt {prompt_id!r} comes out otherwise than it was answered: another version of icl-select wrote "
            "it. It is not shown, since it would not be the one that was sent."
        )
    return answer
