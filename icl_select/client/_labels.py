"""Calls about labels: who labels what next, what they say, and files of it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import fields, replace
from datetime import datetime
from pathlib import Path
from typing import Any

from icl_select.client._requests import delete, get, given, post, upload
from icl_select.client._transfer import blocks, json_lists, save
from icl_select.client.flow import Answer, Flow, Turn, content_of, fetch, read, read_object, segment
from icl_select.client.records import Agreement, Label, LabelEvent, LabelsTaken, NextItems
from icl_select.errors import DataError

__all__ = [
    "add_labels",
    "agreement",
    "export_labels",
    "export_tasks",
    "history",
    "import_labels",
    "label",
    "labels",
    "next_items",
    "release",
]

# What the service takes in one request.
_LABELS = 10_000
_PAGE = 1_000


def next_items(
    pool: str,
    selection: str,
    *,
    annotator: str | None = None,
    count: int | None = None,
    lease_seconds: int | None = None,
) -> Flow[NextItems]:
    """Take the next items of a selection to label. Nobody else gets them until the lease ends.

    Parameters
    ----------
    pool, selection : str
    annotator : str, optional
        Who labels; default: the name of the key.
    count : int, optional
        How many items, one by default.
    lease_seconds : int, optional
        How long they stay this annotator's.

    Returns
    -------
    NextItems
    """
    value = given(annotator=annotator, count=count, lease_seconds=lease_seconds)
    return fetch(post(f"/v1/pools/{segment(pool)}/selections/{segment(selection)}/next", value), read(NextItems))


def release(pool: str, *, annotator: str | None = None) -> Flow[None]:
    """Give back the items that an annotator has taken and not labelled.

    Parameters
    ----------
    pool : str
    annotator : str, optional
        Default: the name of the key.
    """
    return fetch(delete(f"/v1/pools/{segment(pool)}/leases", annotator=annotator), lambda answer: None)


def label(
    pool: str,
    item_id: str,
    label: str | None = None,
    *,
    annotator: str | None = None,
    status: str = "label",
    adjudicated: bool = False,
    created_at: datetime | None = None,
) -> Flow[LabelsTaken]:
    """Say what an annotator says of one item; when this returns, it is on disk.

    Parameters
    ----------
    pool, item_id : str
    label : str, optional
        The label, with status "label" only.
    annotator : str, optional
        Default: the name of the key.
    status : {"label", "skip", "unsure", "retract"}
    adjudicated : bool, default=False
        The label overrides the votes of all others.
    created_at : datetime, optional
        When it was made; default: now.

    Returns
    -------
    LabelsTaken
    """
    value = {"id": item_id, "label": label, "annotator": annotator, "status": status, "created_at": created_at}
    return add_labels(pool, [{**value, "adjudicated": adjudicated}])


def add_labels(
    pool: str, labels: Mapping[str, str] | Iterable[Mapping[str, Any]], *, annotator: str | None = None
) -> Flow[LabelsTaken]:
    """Give many labels, in requests of at most 10,000; those of one request are taken together or not at all.

    Parameters
    ----------
    pool : str
    labels : mapping of id to label, or iterable of mapping
        Mappings have the keys ``id`` and ``label``, and may have ``annotator``, ``status``, ``adjudicated`` and
        ``created_at``; see ``label``.
    annotator : str, optional
        Of the labels that name none; default: the name of the key.

    Returns
    -------
    LabelsTaken
        Counts over all requests; ``version`` and ``n_labelled`` as after the last one.

    Raises
    ------
    DataError
        If there are no labels.
    InvalidError
        If the pool has no such item, or does not take the label.
    """
    if isinstance(labels, Mapping):
        labels = ({"id": name, "label": word} for name, word in labels.items())
    rows = (_label_row(row, annotator) for row in labels)
    whole: LabelsTaken | None = None
    for content in json_lists("labels", rows, _LABELS):
        part = yield from fetch(post(f"/v1/pools/{segment(pool)}/labels", content=content), read(LabelsTaken))
        whole = part if whole is None else _together(whole, part)
    if whole is None:
        raise DataError("there are no labels to give. Pass at least one.")
    return whole


def _label_row(row: Mapping[str, Any], annotator: str | None) -> dict[str, Any]:
    found = given(**{"annotator": annotator, **given(**row)})
    when = found.get("created_at")
    return {**found, "created_at": when.isoformat()} if isinstance(when, datetime) else found


def _together(whole: LabelsTaken, part: LabelsTaken) -> LabelsTaken:
    return replace(
        part,
        written=whole.written + part.written,
        unchanged=whole.unchanged + part.unchanged,
        changed=whole.changed + part.changed,
        conflicts=tuple(dict.fromkeys((*whole.conflicts, *part.conflicts))),
        unknown=tuple(dict.fromkeys((*whole.unknown, *part.unknown))),
    )


def labels(pool: str, *, version: int | None = None) -> Turn[Label]:
    """The labels of a pool, in the order of its items; fetched page by page.

    Parameters
    ----------
    pool : str
    version : int, optional
        As of this version of the labels; default: the newest at the first page, for all pages.

    Returns
    -------
    iterator of Label
    """

    def turn(cursor: Any) -> Flow[tuple[tuple[Label, ...], Any]]:
        after, as_of = cursor or (None, version)
        request = get(f"/v1/pools/{segment(pool)}/labels", after=after, limit=_PAGE, version=as_of)
        page = yield from fetch(request, read_object)
        after = page.get("next")
        return content_of(tuple[Label, ...], page.get("labels")), None if after is None else (after, page["version"])

    return turn


def history(pool: str, item_id: str) -> Flow[tuple[LabelEvent, ...]]:
    """Everything that was said of an item, as it came.

    Parameters
    ----------
    pool, item_id : str

    Returns
    -------
    tuple of LabelEvent
    """
    return fetch(get(f"/v1/pools/{segment(pool)}/history/{segment(item_id)}"), read(tuple[LabelEvent, ...]))


def agreement(pool: str) -> Flow[Agreement]:
    """How far the annotators of a pool agree.

    Parameters
    ----------
    pool : str

    Returns
    -------
    Agreement
    """
    return fetch(get(f"/v1/pools/{segment(pool)}/agreement"), _read_agreement)


def _read_agreement(answer: Answer) -> Agreement:
    found = read_object(answer)
    known = {one.name for one in fields(Agreement)} - {"measures"}
    measures = {name: value for name, value in found.items() if name not in known}
    return content_of(Agreement, {**{name: found[name] for name in known if name in found}, "measures": measures})


def import_labels(pool: str, path: str | Path, *, format: str | None = None) -> Flow[LabelsTaken]:
    """Send a file of labels: CSV, JSON Lines, or as a labelling tool writes it. It is streamed.

    Parameters
    ----------
    pool : str
    path : path
    format : {"csv", "jsonl", "label-studio", "argilla", "prodigy"}, optional
        Recognised by the service where it is None.

    Returns
    -------
    LabelsTaken
        ``unknown`` has the ids that the pool does not have.
    """
    target = f"/v1/pools/{segment(pool)}/labels/import"
    request = upload(target, "application/octet-stream", blocks(Path(path)), format=format)
    return fetch(request, read(LabelsTaken))


def export_labels(pool: str, path: str | Path, *, format: str = "jsonl", votes: bool = False) -> Flow[Path]:
    """Write the labels of a pool to a file.

    Parameters
    ----------
    pool : str
    path : path
        The old file or the whole new one is there, whatever happens.
    format : {"jsonl", "csv"}
    votes : bool, default=False
        Write the label of every annotator instead of what they resolve to.

    Returns
    -------
    Path
    """
    params = {"format": format, "votes": "true" if votes else None}
    return save(get(f"/v1/pools/{segment(pool)}/labels/export", **params), Path(path))


def export_tasks(
    pool: str,
    selection: str,
    path: str | Path,
    *,
    format: str = "csv",
    budget: int | None = None,
    part: str | None = None,
) -> Flow[Path]:
    """Write a selection as tasks for people or a labelling tool, in the order to label them.

    Parameters
    ----------
    pool, selection : str
    path : path
        The old file or the whole new one is there, whatever happens.
    format : {"csv", "jsonl", "label-studio", "argilla", "prodigy"}
    budget : int, optional
        Only the first picks.
    part : {"tasks", "config"}, optional
        "config" is the labelling configuration of Label Studio instead of the tasks.

    Returns
    -------
    Path
    """
    target = f"/v1/pools/{segment(pool)}/selections/{segment(selection)}/export"
    return save(get(target, format=format, budget=budget, part=part), Path(path))
