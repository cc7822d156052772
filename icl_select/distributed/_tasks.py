"""Jobs of near-exact selection as Ray tasks."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from icl_select.errors import IclSelectError
from icl_select.methods._near_exact import Run, Step

__all__ = ["RETRIES", "run_on_ray"]

RETRIES = 3
"""How often a job is done again because its worker, or the machine under it, is gone."""


def run_on_ray(ray: Any, source: Any, at_once: Callable[[], int]) -> Run:
    """Do jobs on the rows of a pool as tasks.

    Parameters
    ----------
    ray : module
    source : Path or ObjectRef
        A .npy file that every machine sees under this path, mapped into memory by each task, or rows that were put
        into the object store.
    at_once : callable
        How many tasks to have under way; asked before each, since a cluster may grow.

    Returns
    -------
    Run
        Results come in the order of the jobs, each as soon as those before it are there.
    """
    task = ray.remote(num_cpus=1, max_retries=RETRIES)(_do)

    def run(step: Step, jobs: Iterable[Any]) -> Iterator[Any]:
        under_way: list[Any] = []
        unread: deque[Any] = deque()
        for job in jobs:
            while len(under_way) >= at_once():
                _, under_way = ray.wait(under_way)
            unread.append(task.remote(step, source, job))
            under_way.append(unread[-1])
            while unread[0] not in under_way:
                yield _result(ray, unread.popleft())
        while unread:
            yield _result(ray, unread.popleft())

    return run


def _do(step: Step, source: Any, job: Any) -> Any:
    # A reference to an object arrives as the object: read-only rows in the memory that all tasks of a machine share.
    return step(np.load(source, mmap_mode="r") if isinstance(source, Path) else source, job)


def _result(ray: Any, ref: Any) -> Any:
    try:
        return ray.get(ref)
    except ray.exceptions.RayTaskError as exc:
        raise exc.cause from exc
    except ray.exceptions.RayError as exc:
        raise IclSelectError(
            f"a task of the selection was lost, and {RETRIES} retries did not help ({exc}). See `ray status` for dead "
            "machines and for memory; then select again: the same seed gives the same picks."
        ) from exc
