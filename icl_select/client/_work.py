"""Calls that make long work, and read what came of it: vectors, selections, reports."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, Literal

from icl_select.client._jobs import Progress
from icl_select.client._jobs import wait as wait_for
from icl_select.client._requests import get, given, post
from icl_select.client.flow import Flow, content_of, fetch, read, read_object, segment
from icl_select.client.records import Job, Pick, Selection

__all__ = [
    "density",
    "density_image",
    "density_report",
    "embed",
    "evaluate",
    "evaluation",
    "select",
    "selection",
    "selections",
]

_PAGE = 1_000


def embed(pool: str, *, wait: bool = True, timeout: float | None = None, progress: Progress | None = None) -> Flow[Job]:
    """Embed the items of a pool.

    Parameters
    ----------
    pool : str
    wait : bool, default=True
        Return when it is done; else at once, with the job as it was queued.
    timeout, progress
        As for ``wait``.

    Returns
    -------
    Job
    """
    started = yield from fetch(post(f"/v1/pools/{segment(pool)}/embeddings"), read(Job))
    return (yield from wait_for(started, timeout=timeout, progress=progress)) if wait else started


def select(
    pool: str,
    budget: int,
    *,
    method: str | None = None,
    seed: int | None = None,
    ignore_labels: bool | None = None,
    wait: bool = True,
    timeout: float | None = None,
    progress: Progress | None = None,
) -> Flow[Selection]:
    """Say which `budget` items of a pool to label next.

    Parameters
    ----------
    pool : str
    budget : int
    method : str, optional
        With parameters if you like, such as ``"max_herding(bandwidth=1.0)"``.
    seed : int, optional
    ignore_labels : bool, optional
        Select as if nothing was labelled.
    wait : bool, default=True
        Return when it is done, with all picks; else at once, without any.
    timeout, progress
        As for ``wait``.

    Returns
    -------
    Selection
    """
    value = {"budget": budget, **given(method=method, seed=seed, ignore_labels=ignore_labels)}
    made = yield from fetch(post(f"/v1/pools/{segment(pool)}/selections", value), read(Selection))
    if not wait:
        return made
    yield from wait_for(made.job, timeout=timeout, progress=progress)
    return (yield from selection(pool, made.id))


def selection(pool: str, selection_id: str, *, budget: int | None = None) -> Flow[Selection]:
    """A selection with all its picks.

    Parameters
    ----------
    pool, selection_id : str
    budget : int, optional
        Only the answer to this smaller budget.

    Returns
    -------
    Selection

    Raises
    ------
    InvalidError
        If the method's picks are not nested, so that there is no such answer in it.
    """
    whole: Selection | None = None
    picks: tuple[Pick, ...] = ()
    after: Any = None
    while True:
        request = get(
            f"/v1/pools/{segment(pool)}/selections/{segment(selection_id)}", budget=budget, after=after, limit=_PAGE
        )
        page = yield from fetch(request, read_object)
        part = content_of(Selection, page)
        whole, picks, after = whole or part, picks + part.picks, page.get("next")
        if after is None:
            return replace(whole, picks=picks)


def selections(pool: str) -> Flow[tuple[Selection, ...]]:
    """The selections of a pool, newest first, without their picks.

    Parameters
    ----------
    pool : str

    Returns
    -------
    tuple of Selection
    """
    return fetch(
        get(f"/v1/pools/{segment(pool)}/selections"),
        lambda answer: content_of(tuple[Selection, ...], read_object(answer).get("selections")),
    )


def density(
    pool: str,
    *,
    centre: bool | None = None,
    seed: int | None = None,
    timeout: float | None = None,
    progress: Progress | None = None,
) -> Flow[Mapping[str, Any]]:
    """Measure how dense a pool is, wait for it, and return the report.

    Parameters
    ----------
    pool : str
    centre : bool, optional
    seed : int, optional
    timeout, progress
        As for ``wait``.

    Returns
    -------
    mapping
    """
    value = given(centre=centre, seed=seed)
    started = yield from fetch(post(f"/v1/pools/{segment(pool)}/density", value), read(Job))
    yield from wait_for(started, timeout=timeout, progress=progress)
    return (yield from density_report(pool))


def density_report(pool: str) -> Flow[Mapping[str, Any]]:
    """The newest report of the density of a pool.

    Parameters
    ----------
    pool : str

    Returns
    -------
    mapping

    Raises
    ------
    NotFoundError
        If it was never measured.
    """
    return fetch(get(f"/v1/pools/{segment(pool)}/density", format="json"), read_object)


def density_image(pool: str, format: Literal["png", "html"] = "png") -> Flow[bytes]:
    """The same report as a picture or a page.

    Parameters
    ----------
    pool : str
    format : {"png", "html"}

    Returns
    -------
    bytes
    """
    return fetch(get(f"/v1/pools/{segment(pool)}/density", format=format), lambda answer: answer.content)


def evaluate(
    pool: str,
    *,
    ks: Sequence[int] | None = None,
    seed: int | None = None,
    timeout: float | None = None,
    progress: Progress | None = None,
) -> Flow[Mapping[str, Any]]:
    """Evaluate the labels of a pool, each answered by the others, wait for it, and return the report.

    Parameters
    ----------
    pool : str
    ks : sequence of int, optional
        How many neighbours answer.
    seed : int, optional
    timeout, progress
        As for ``wait``.

    Returns
    -------
    mapping
    """
    value = given(ks=None if ks is None else list(ks), seed=seed)
    started = yield from fetch(post(f"/v1/pools/{segment(pool)}/evaluations", value), read(Job))
    yield from wait_for(started, timeout=timeout, progress=progress)
    return (yield from evaluation(pool))


def evaluation(pool: str) -> Flow[Mapping[str, Any]]:
    """The newest evaluation of the labels of a pool.

    Parameters
    ----------
    pool : str

    Returns
    -------
    mapping

    Raises
    ------
    NotFoundError
        If there is none.
    """
    return fetch(get(f"/v1/pools/{segment(pool)}/evaluation"), read_object)
