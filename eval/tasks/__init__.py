"""The benchmarks, one file each, and how their rows are read."""

from __future__ import annotations

from ._load import TaskData, check_source, load_task
from ._task import ClassLabel, HubSource, Task, TextLabel
from .custom import CustomTask
from .registry import get_task, task_names

__all__ = [
    "ClassLabel",
    "CustomTask",
    "HubSource",
    "Task",
    "TaskData",
    "TextLabel",
    "check_source",
    "get_task",
    "load_task",
    "task_names",
]
