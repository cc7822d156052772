"""Metrics: one value per item first, aggregate last."""

from icl_select.metrics.classes import balanced_accuracy, macro_f1
from icl_select.metrics.dialogue import format_state, joint_goal_accuracy, parse_state
from icl_select.metrics.registry import METRICS, Evaluation, Metric, aggregate, evaluate, score_items
from icl_select.metrics.rouge import rouge_l, rouge_lsum
from icl_select.metrics.sql import run_query, same_result, sql_execution
from icl_select.metrics.text import accuracy, exact_match, normalise

__all__ = [
    "METRICS",
    "Evaluation",
    "Metric",
    "accuracy",
    "aggregate",
    "balanced_accuracy",
    "evaluate",
    "exact_match",
    "format_state",
    "joint_goal_accuracy",
    "macro_f1",
    "normalise",
    "parse_state",
    "rouge_l",
    "rouge_lsum",
    "run_query",
    "same_result",
    "score_items",
    "sql_execution",
]
