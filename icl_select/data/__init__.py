"""Pools and labels on disk: reading, writing, exchange with labelling tools, duplicates and leaks."""

from __future__ import annotations

from icl_select.data.duplicates import DuplicateReport, duplicates
from icl_select.data.exchange.record import LabelFile, LabelRecord
from icl_select.data.labels import FORMATS, export_tasks, import_labels, read_labels, write_labels
from icl_select.data.leaks import Leak, LeakReport, leaks
from icl_select.data.merge import Conflict, MergeReport, merge
from icl_select.data.pool import Pool

__all__ = [
    "FORMATS",
    "Conflict",
    "DuplicateReport",
    "LabelFile",
    "LabelRecord",
    "Leak",
    "LeakReport",
    "MergeReport",
    "Pool",
    "duplicates",
    "export_tasks",
    "import_labels",
    "leaks",
    "merge",
    "read_labels",
    "write_labels",
]
