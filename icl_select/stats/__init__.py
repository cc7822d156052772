"""Is it better than random? Paired tests, intervals and power, each with all of its evidence.

The whole story, with what a verdict claims and what it does not, is in docs/statistics.md.
"""

from __future__ import annotations

from icl_select.stats.bootstrap import Interval, hierarchical_bootstrap
from icl_select.stats.compare import compare
from icl_select.stats.curve import BudgetCurve, CurvePoint, NonInferiority, budget_curve
from icl_select.stats.family import MARKS, Comparison, Verdict, compare_family
from icl_select.stats.mcnemar import McNemar, mcnemar
from icl_select.stats.multiplicity import holm
from icl_select.stats.overlap import overlap_note, selection_overlap
from icl_select.stats.power import PILOT, Design
from icl_select.stats.published import (
    Summary,
    WelchMark,
    critical_difference,
    detectable_gain,
    spread_of_three,
    welch_family,
)
from icl_select.stats.sign_flip import DesignCheck, SignFlip, design_notes, sign_flip, sign_flip_floor
from icl_select.stats.variance import (
    MeanVariance,
    VarianceComponents,
    mean_variance,
    variance_components,
)
from icl_select.stats.welch import Welch, welch

__all__ = [
    "MARKS",
    "PILOT",
    "BudgetCurve",
    "Comparison",
    "CurvePoint",
    "Design",
    "DesignCheck",
    "Interval",
    "McNemar",
    "MeanVariance",
    "NonInferiority",
    "SignFlip",
    "Summary",
    "VarianceComponents",
    "Verdict",
    "Welch",
    "WelchMark",
    "budget_curve",
    "compare",
    "compare_family",
    "critical_difference",
    "design_notes",
    "detectable_gain",
    "hierarchical_bootstrap",
    "holm",
    "mcnemar",
    "mean_variance",
    "overlap_note",
    "selection_overlap",
    "sign_flip",
    "sign_flip_floor",
    "spread_of_three",
    "variance_components",
    "welch",
    "welch_family",
]
