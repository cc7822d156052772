"""``icl-select retrieve``: the labelled examples nearest to a query."""

from __future__ import annotations

from typing import Annotated

from cyclopts import Parameter

from icl_select.cli._options import EncoderOptions, PoolOptions, read_queries
from icl_select.cli._output import emit_json, emit_rows

__all__ = ["retrieve"]


def retrieve(
    pool: str,
    /,
    *,
    query: Annotated[tuple[str, ...], Parameter(name=["--query", "-q"], negative="")] = (),
    queries: str | None = None,
    k: Annotated[int, Parameter(name=["-k", "--k"])] = 8,
    mmr: float | None = None,
    balance: Annotated[bool, Parameter(negative="")] = False,
    min_similarity: float | None = None,
    source: PoolOptions = PoolOptions(),
    encoding: EncoderOptions = EncoderOptions(),
    as_json: Annotated[bool, Parameter(name="--json", negative="")] = False,
) -> None:
    """Find the labelled examples nearest to each query, most similar first.

    Parameters
    ----------
    pool
        File, folder or hub id of the pool; its labelled rows are searched.
    query
        A query text; pass the option again for more.
    queries
        File, folder or hub id of queries, read like the pool.
    k
        How many examples per query.
    mmr
        Maximal marginal relevance: 1 is similarity alone, lower values avoid examples alike.
    balance
        Take the labels in turn.
    min_similarity
        Leave out examples less similar than this.
    as_json
        Write one JSON document.
    """
    from icl_select.pipeline import Prompter

    texts = source.read(pool)
    asked = read_queries(query, queries, source)
    prompter = Prompter(texts, encoding.embed(texts), k=k, mmr=mmr, balance=balance, min_similarity=min_similarity)
    found = prompter.retrieve(asked)
    hits = [
        {
            "query_id": example.id,
            "rank": rank,
            "id": texts[int(row)].id,
            "similarity": float(similarity),
            "label": texts[int(row)].label,
            "text": texts[int(row)].text,
        }
        for example, result in zip(asked, found, strict=True)
        for rank, (row, similarity) in enumerate(zip(result.rows, result.similarities, strict=True))
    ]
    if as_json:
        emit_json({"schema": "icl-select/retrieved/1", "hits": hits})
    else:
        header = ("query_id", "rank", "id", "similarity", "label", "text")
        emit_rows(header, [[hit[name] for name in header] for hit in hits])
