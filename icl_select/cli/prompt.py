"""``icl-select prompt``: few-shot prompts from the labelled examples."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any, Literal

from cyclopts import Parameter

from icl_select.cli._options import EncoderOptions, PoolOptions, read_queries
from icl_select.cli._output import remark, write_text
from icl_select.types import Prompt

__all__ = ["prompt"]


def prompt(
    pool: str,
    /,
    *,
    query: Annotated[tuple[str, ...], Parameter(name=["--query", "-q"], negative="")] = (),
    queries: str | None = None,
    k: Annotated[int, Parameter(name=["-k", "--k", "--num-fewshot"])] = 8,
    template: Path | None = None,
    max_tokens: int | None = None,
    tokenizer: str = "utf8",
    order: Literal["nearest_last", "nearest_first", "shuffled"] = "nearest_last",
    rule: Literal["exact", "published"] = "exact",
    max_demonstration_tokens: int | None = None,
    mmr: float | None = None,
    balance: Annotated[bool, Parameter(negative="")] = False,
    min_similarity: float | None = None,
    chat: Annotated[bool, Parameter(negative="")] = False,
    source: PoolOptions = PoolOptions(),
    encoding: EncoderOptions = EncoderOptions(),
    output: Annotated[Path | None, Parameter(name=["--output", "-o"])] = None,
    as_json: Annotated[bool, Parameter(name="--json", negative="")] = False,
) -> None:
    """Build a few-shot prompt for each query from the labelled examples nearest to it.

    Parameters
    ----------
    pool
        File, folder or hub id of the pool; its labelled rows are the demonstrations.
    query
        A query text; pass the option again for more.
    queries
        File, folder or hub id of queries, read like the pool.
    k
        Demonstrations per prompt, at most.
    template
        Template file (YAML); default: the text, a line break, the label.
    max_tokens
        Exact token budget of the whole prompt. The query is never cut.
    tokenizer
        What counts the tokens: utf8 (bytes), words, or a hub id or path of a tokenizer.
    order
        Order of the demonstrations.
    rule
        Packing rule; 'published' is the one of the Vote-k code.
    max_demonstration_tokens
        Leave out longer demonstrations; the Vote-k code uses 250 for classification.
    mmr
        Maximal marginal relevance: 1 is similarity alone, lower values avoid examples alike.
    balance
        Take the labels in turn.
    min_similarity
        Leave out examples less similar than this.
    chat
        Write chat messages instead of plain text.
    output
        Write here instead of to standard output.
    as_json
        Write JSON lines, one per query, with example ids, similarities, ranks, tokens and what was dropped.
    """
    from icl_select.data import leaks
    from icl_select.pipeline import Prompter
    from icl_select.prompt import PromptTemplate

    texts = source.read(pool)
    asked = read_queries(query, queries, source)
    x = encoding.embed(texts)
    prompter = Prompter(
        texts,
        x,
        template=None if template is None else PromptTemplate.from_file(template),
        k=k,
        max_tokens=max_tokens,
        tokenizer=tokenizer,
        order=order,
        rule=rule,
        max_demonstration_tokens=max_demonstration_tokens,
        chat=chat,
        mmr=mmr,
        balance=balance,
        min_similarity=min_similarity,
    )
    built = prompter.batch(asked)
    report = leaks(texts, asked)
    if report.query_ids:
        remark(report.summary())
    if as_json:
        text = "".join(json.dumps(_record(item), ensure_ascii=False) + "\n" for item in built)
    elif chat:
        text = "".join(json.dumps(list(item.messages), ensure_ascii=False) + "\n" for item in built)
    else:
        text = "\n\n".join(item.text for item in built) + "\n"
    write_text(text, output)


def _record(prompt: Prompt) -> dict[str, Any]:
    return {
        "query_id": prompt.query_id,
        "prompt": prompt.text,
        "messages": [dict(message) for message in prompt.messages],
        "examples": [
            {"id": e.id, "label": e.label, "score": e.similarity, "rank": rank}
            for e, rank in zip(prompt.examples, prompt.ranks, strict=True)
        ],
        "usage": {"prompt_tokens": prompt.tokens},
        "dropped": [asdict(dropped) for dropped in prompt.dropped],
    }
