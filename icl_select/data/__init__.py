"""Pools and labels on disk: reading, writing, exchange with labelling tools, duplicates and leaks."""

from __future__ import annotations

from icl_select.data.duplicates import DuplicateReport, duplicates
from icl_select.data.leaks import Leak, LeakReport, leaks
from icl_select.data.pool import Pool

__all__ = ["DuplicateReport", "Leak", "LeakReport", "Pool", "duplicates", "leaks"]
