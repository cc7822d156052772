"""``icl-select check``: duplicates in a pool, and queries that stand in it."""

from __future__ import annotations

from typing import Annotated, Any

from cyclopts import Parameter

from icl_select.cli._options import EncoderOptions, PoolOptions
from icl_select.cli._output import emit_json, write_text

__all__ = ["check"]


def check(
    pool: str,
    /,
    *,
    queries: str | None = None,
    threshold: float = 0.95,
    source: PoolOptions = PoolOptions(),
    encoding: EncoderOptions = EncoderOptions(centre=False),
    fail_on_leak: Annotated[bool, Parameter(negative="")] = False,
    as_json: Annotated[bool, Parameter(name="--json", negative="")] = False,
) -> int:
    """Find duplicates in a pool and queries that stand in it: exact, normalised, and near by embedding.

    Parameters
    ----------
    pool
        File, folder or hub id of the pool.
    queries
        File, folder or hub id of the queries to look for in the pool.
    threshold
        Cosine similarity from which two texts count as near duplicates.
    fail_on_leak
        Exit with 100 if a query stands in the pool.
    as_json
        Write one JSON document.
    """
    from icl_select.data import duplicates, leaks

    texts = source.read(pool)
    encoder = encoding.load()
    x = encoding.embed(texts, encoder)
    found = duplicates(texts, x, threshold=threshold)
    record: dict[str, Any] = {"duplicates": found.to_dict()}
    lines = [found.summary()]
    leaked = False
    if queries is not None:
        asked = source.read(queries)
        leak = leaks(texts, asked, x, x.queries(asked.texts), threshold=threshold)
        record["leaks"] = leak.to_dict()
        lines.append(leak.summary())
        leaked = bool(leak.query_ids)
    if as_json:
        emit_json(record)
    else:
        write_text("\n".join(lines) + "\n")
    return 100 if fail_on_leak and leaked else 0
