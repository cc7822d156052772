"""Pools and labels on disk: reading, writing, exchange with labelling tools, agreement, duplicates and leaks."""

from __future__ import annotations

from icl_select.data.agreement import Agreement, PairAgreement, agreement
from icl_select.data.duplicates import DuplicateReport, duplicates
from icl_select.data.exchange.formats import FORMATS
from icl_select.data.exchange.record import LabelFile, LabelRecord, Task
from icl_select.data.export import export_tasks, label_bytes, label_lines, task_files, write_labels
from icl_select.data.labels import import_labels, read_labels
from icl_select.data.leaks import Leak, LeakReport, leaks
from icl_select.data.merge import Conflict, MergeReport, merge
from icl_select.data.pool import Pool

__all__ = [
    "FORMATS",
    "Agreement",
    "Conflict",
    "DuplicateReport",
    "LabelFile",
    "LabelRecord",
    "Leak",
    "LeakReport",
    "MergeReport",
    "PairAgreement",
    "Pool",
    "Task",
    "agreement",
    "duplicates",
    "export_tasks",
    "import_labels",
    "label_bytes",
    "label_lines",
    "leaks",
    "merge",
    "read_labels",
    "task_files",
    "write_labels",
]
