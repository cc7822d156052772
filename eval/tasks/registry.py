"""Task names and what they stand for."""

from __future__ import annotations

import importlib

from icl_select.errors import UnknownNameError, suggest

from ._task import Task

__all__ = ["get_task", "task_names"]

_BUILTIN = ("dbpedia", "geoquery", "hellaswag", "mnli", "mrpc", "multiwoz", "rte", "sst5", "support", "xsum")


def task_names() -> list[str]:
    """Every benchmark that a campaign can name, sorted."""
    return sorted(_BUILTIN)


def get_task(name: str) -> Task:
    """The benchmark of that name, or UnknownNameError that suggests the nearest one."""
    if name not in _BUILTIN:
        raise UnknownNameError(f"unknown task {name!r}.{suggest(name, _BUILTIN)}")
    task = importlib.import_module(f".{name}", __package__).TASK
    assert isinstance(task, Task)
    return task
