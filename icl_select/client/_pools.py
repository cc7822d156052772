"""Calls about pools and their items."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

from icl_select.client._options import PromptOptions, prompt_options
from icl_select.client._requests import delete, get, given, patch, post, upload
from icl_select.client._transfer import blocks, json_lists, save
from icl_select.client.flow import Flow, Turn, content_of, fetch, read, read_object, segment
from icl_select.client.records import Item, ItemsAdded, Pool
from icl_select.errors import DataError

__all__ = [
    "add_items",
    "create_pool",
    "delete_pool",
    "export_pool",
    "item",
    "items",
    "pool",
    "pools",
    "update_pool",
]

_ROWS = 5_000
_PAGE = 500
_KINDS = {
    ".jsonl": "application/x-ndjson",
    ".ndjson": "application/x-ndjson",
    ".parquet": "application/vnd.apache.parquet",
}


def create_pool(
    name: str,
    *,
    encoder: str | None = None,
    centre: bool | None = None,
    text: str | None = None,
    id_field: str | None = None,
    label_field: str | None = None,
    label_words: Sequence[str] | None = None,
    annotators: int | None = None,
    resolve: str | None = None,
    prompt: PromptOptions | None = None,
) -> Flow[Pool]:
    """Make an empty pool. What is None is as the service has it.

    Parameters
    ----------
    name : str
        Letters, digits, ``.``, ``_``, ``-``; at most 64.
    encoder : str, optional
        One that the service allows, such as ``"minilm"`` or ``"hash"``.
    centre : bool, optional
        Subtract the mean of the pool from every vector.
    text : str, optional
        Field that is embedded, or a template of fields such as ``"{subject}: {body}"``.
    id_field, label_field : str, optional
        Where rows hold their id and their label.
    label_words : sequence of str, optional
        The only labels to take.
    annotators : int, optional
        Labels wanted for each item.
    resolve : {"majority", "latest"}, optional
        What counts where annotators differ.
    prompt : PromptOptions, optional
        How prompts of this pool look.

    Returns
    -------
    Pool

    Raises
    ------
    ConflictError
        If there is a pool of that name.
    """
    value = given(
        name=name,
        encoder=encoder,
        centre=centre,
        text=text,
        id_field=id_field,
        label_field=label_field,
        label_words=None if label_words is None else list(label_words),
        annotators=annotators,
        resolve=resolve,
        prompt=None if prompt is None else prompt_options(prompt),
    )
    return fetch(post("/v1/pools", value), read(Pool))


def pools() -> Turn[Pool]:
    """All pools, by name; fetched page by page.

    Returns
    -------
    iterator of Pool
    """

    def turn(after: Any) -> Flow[tuple[tuple[Pool, ...], Any]]:
        page = yield from fetch(get("/v1/pools", after=after, limit=_PAGE), read_object)
        return content_of(tuple[Pool, ...], page.get("pools")), page.get("next")

    return turn


def pool(name: str) -> Flow[Pool]:
    """A pool as it stands.

    Parameters
    ----------
    name : str

    Returns
    -------
    Pool

    Raises
    ------
    NotFoundError
        If there is none of that name.
    """
    return fetch(get(f"/v1/pools/{segment(name)}"), read(Pool))


def update_pool(
    name: str,
    *,
    label_words: Sequence[str] | Literal["any"] | None = None,
    annotators: int | None = None,
    prompt: PromptOptions | None = None,
) -> Flow[Pool]:
    """Change what may change of a pool; what is None stays.

    Parameters
    ----------
    name : str
    label_words : sequence of str or "any", optional
        The only labels to take from now on; "any" takes all.
    annotators, prompt
        As for ``create_pool``; `prompt` replaces all options that were set.

    Returns
    -------
    Pool
    """
    value = given(annotators=annotators, prompt=None if prompt is None else prompt_options(prompt))
    if label_words is not None:
        value["label_words"] = None if label_words == "any" else list(label_words)
    return fetch(patch(f"/v1/pools/{segment(name)}", value), read(Pool))


def delete_pool(name: str) -> Flow[None]:
    """Delete a pool with its items, labels, selections and prompts.

    Parameters
    ----------
    name : str

    Raises
    ------
    NotFoundError
        If there is none of that name.
    """
    return fetch(delete(f"/v1/pools/{segment(name)}"), lambda answer: None)


def add_items(
    pool: str, rows: Iterable[Mapping[str, Any]] | str | Path, *, skip_empty: bool = False
) -> Flow[ItemsAdded]:
    """Add items to a pool. Those that are there already, with the same content, are left as they are.

    Parameters
    ----------
    pool : str
    rows : iterable of mapping, or path
        Rows are sent in requests of at most 5,000 rows or about 4 MiB, each taken whole or not at all. The path of a
        ``.jsonl`` file (or ``.jsonl.gz``) or a ``.parquet`` file is streamed in one request and never held in memory.
    skip_empty : bool, default=False
        Leave rows with an empty text out instead of refusing them.

    Returns
    -------
    ItemsAdded
        Counts over all requests; versions and job as after the last one.

    Raises
    ------
    DataError
        If there are no rows, or the file cannot be read or is of another kind.
    InvalidError
        If a row is no item; the rows of this request are not kept, those of requests before it are.
    """
    path = f"/v1/pools/{segment(pool)}/items"
    params = {"skip_empty": "true"} if skip_empty else {}
    if isinstance(rows, (str, Path)):
        return _upload_items(path, params, Path(rows))
    return _post_items(path, params, rows)


def _upload_items(path: str, params: Mapping[str, str], file: Path) -> Flow[ItemsAdded]:
    kind = _KINDS.get(Path(file.name.removesuffix(".gz")).suffix.lower())
    if kind is None or (file.suffix == ".gz" and kind.endswith("parquet")):
        raise DataError(
            f"{file} is no .jsonl, .jsonl.gz or .parquet file. Read it with icl_select.Pool.read, and write it with "
            "to_jsonl."
        )
    return (yield from fetch(upload(path, kind, blocks(file), **params), read(ItemsAdded)))


def _post_items(path: str, params: Mapping[str, str], rows: Iterable[Mapping[str, Any]]) -> Flow[ItemsAdded]:
    whole: ItemsAdded | None = None
    for content in json_lists("items", rows, _ROWS):
        request = replace(post(path, content=content), params=params)
        part = yield from fetch(request, read(ItemsAdded))
        if whole is not None:
            part = replace(
                part,
                added=whole.added + part.added,
                unchanged=whole.unchanged + part.unchanged,
                skipped=whole.skipped + part.skipped,
                labelled=whole.labelled + part.labelled,
                job=part.job or whole.job,
            )
        whole = part
    if whole is None:
        raise DataError("there are no rows to add. Pass at least one.")
    return whole


def export_pool(pool: str, path: str | Path) -> Flow[Path]:
    """Write a pool with its labels as JSON Lines, which :meth:`icl_select.Pool.read` reads.

    Parameters
    ----------
    pool : str
    path : path
        The old file or the whole new one is there, whatever happens.

    Returns
    -------
    Path
    """
    return save(get(f"/v1/pools/{segment(pool)}/export"), Path(path))


def items(pool: str, *, labelled: bool | None = None) -> Turn[Item]:
    """The items of a pool, in the order in which they were added; fetched page by page.

    Parameters
    ----------
    pool : str
    labelled : bool, optional
        Only those with a label, or only those without.

    Returns
    -------
    iterator of Item
    """

    def turn(after: Any) -> Flow[tuple[tuple[Item, ...], Any]]:
        request = get(
            f"/v1/pools/{segment(pool)}/items",
            after=after,
            limit=_PAGE,
            labelled=None if labelled is None else str(labelled).lower(),
        )
        page = yield from fetch(request, read_object)
        return content_of(tuple[Item, ...], page.get("items")), page.get("next")

    return turn


def item(pool: str, item_id: str) -> Flow[Item]:
    """One item with what is known of it.

    Parameters
    ----------
    pool, item_id : str

    Returns
    -------
    Item

    Raises
    ------
    NotFoundError
        If the pool has no such item.
    """
    return fetch(get(f"/v1/pools/{segment(pool)}/items/{segment(item_id)}"), read(Item))
