"""The section of published figures: ours beside theirs, marks, and what is missing. All figures are invented."""

from __future__ import annotations

import copy
import re
from typing import Any

import pytest
from test_html import Page
from test_text import markdown_tables

from icl_select.report import render_markdown, render_report, render_table

AT = {
    "p_value": 0.001,
    "p_adjusted": 0.002,
    "verdict": "better",
    "mark": "+",
    "ci": {"low": 0.02, "high": 0.1, "level": 0.95},
    "smallest_shown": 0.045,
    "detectable_difference": 0.07,
    "stable": True,
}
UNDECIDED = {**AT, "p_adjusted": 0.31, "verdict": "no evidence", "mark": "·", "smallest_shown": 1.3, "stable": False}
SPREAD = {"least": 0.045, "median": 0.1, "most": 1.3}
MARK = {
    "task": "MRPC",
    "budget": 18,
    "method": "Vote-k <b>",
    "model": "GPT-J",
    "embedding": "SBERT",
    "metric": "acc",
    "mean": 0.7,
    "sd": 0.02,
    "runs": 3,
    "baseline_mean": 0.64,
    "baseline_sd": 0.03,
    "delta": 0.06,
    "reason": None,
    "at": {"3": UNDECIDED, "10": AT},
}
PUBLISHED: dict[str, Any] = {
    "title": "An invented table",
    "source": {"paper": "Nobody, Nothing.", "arxiv": "0000.00000", "tables": "Table 0", "read": "nowhere"},
    "notes": ["a note"],
    "missing": [{"what": "Table 9", "reason": "It was never written."}],
    "comparisons": [
        {
            "task": "mrpc",
            "budget": 18,
            "method": "vote_k(variant='paper')",
            "ours": {"mean": 0.66, "sd": 0.01, "runs": 10},
            "theirs": {"mean": 0.7, "sd": 0.02, "runs": 3},
            "delta": -0.04,
            "ci": {"low": -0.09, "high": 0.01, "level": 0.95},
            "reason": None,
            "verdict": "no evidence",
            "p_adjusted": 0.2,
        },
        {
            "task": "rte",
            "budget": 18,
            "method": "random",
            "ours": {"mean": 0.6, "sd": 0.01, "runs": 10},
            "theirs": {"mean": 0.5, "sd": 0.01, "runs": 3},
            "delta": 0.1,
            "ci": {"low": 0.08, "high": 0.12, "level": 0.95},
            "reason": None,
            "verdict": "higher",
            "p_adjusted": 0.0001,
        },
        {
            "task": "rte",
            "budget": 100,
            "method": "random",
            "ours": {"mean": 0.6, "sd": None, "runs": 1},
            "theirs": {"mean": 0.5, "sd": 0.01, "runs": 3},
            "delta": 0.1,
            "reason": "ours: a single run has no spread",
        },
        {"task": "xsum", "budget": 18, "method": "random", "ours": None, "theirs": {}, "reason": "not in this run"},
        {"task": "xsum", "budget": 100, "method": "random", "ours": None, "theirs": {}, "reason": "not in this run"},
    ],
    "marks": {
        "baseline": "Random",
        "published_runs": 3,
        "runs": [3, 10],
        "alpha": 0.05,
        "power": 0.8,
        "n_tested": 1,
        "cells": [
            MARK,
            {**MARK, "budget": 100, "sd": None, "reason": "no standard deviation is printed", "at": {}},
        ],
        "summary": {
            "3": {
                "better": 0,
                "worse": 0,
                "no evidence": 1,
                "unstable": 1,
                "smallest_shown": SPREAD,
                "detectable_difference": SPREAD,
            },
            "10": {
                "better": 1,
                "worse": 0,
                "no evidence": 0,
                "unstable": 0,
                "smallest_shown": SPREAD,
                "detectable_difference": SPREAD,
            },
        },
    },
}


@pytest.fixture
def beside(results: dict[str, Any]) -> dict[str, Any]:
    return {**results, "published": copy.deepcopy(PUBLISHED)}


def test_a_run_that_names_no_figures_has_no_such_section(results: dict[str, Any]) -> None:
    assert "Published figures" not in render_report(results)
    assert "Published figures" not in render_markdown(results)
    assert "Published figures" not in render_table(results)


def test_ours_stand_beside_theirs_with_the_verdict_in_words(beside: dict[str, Any]) -> None:
    page = Page(render_report(beside))
    rows = page.table("task", "labels", "method", "ours", "theirs")
    assert len(rows) == 3
    assert rows[0][:6] == [
        "mrpc",
        "18",
        "vote_k(variant='paper')",
        "66.0 ± 1.0 (10)",
        "70.0 ± 2.0 (3)",
        "−4.0 [−9.0, +1.0]",
    ]
    assert "· no evidence" in rows[0][6]
    assert "+ higher" in rows[1][6]
    assert rows[2][6] == "not tested"
    assert "rte 100 random: ours: a single run has no spread." in page.text
    assert "2 cells tested" in page.text
    assert "xsum 18 random; xsum 100 random: not in this run." in page.text


def test_marks_say_what_the_table_could_show(beside: dict[str, Any]) -> None:
    page = Page(render_report(beside))
    counts = page.table("runs", "+ better", "− worse", "· no evidence")
    assert counts[0] == ["3", "0", "0", "1", "1", "4.5 / 10.0 / >100", "4.5 / 10.0 / >100"]
    cells = page.table("task", "labels", "method", "model", "theirs", "random")
    assert cells[0][:7] == ["MRPC", "18", "Vote-k <b>", "GPT-J", "70.0 ± 2.0", "64.0 ± 3.0", "+6.0"]
    assert "· no evidence" in cells[0][7]
    assert "needs >100" in cells[0][7]
    assert "could change by rounding" in cells[0][7]
    assert "+ better" in cells[0][8]
    assert "could change" not in cells[0][8]
    assert cells[1][7:] == ["not tested", "not tested"]
    assert "MRPC 100 Vote-k <b>: no standard deviation is printed." in page.text
    assert "it rests on 3" in page.text


def test_the_source_and_what_is_missing_are_said(beside: dict[str, Any]) -> None:
    for text in (Page(render_report(beside)).text, render_markdown(beside)):
        said = " ".join(text.split())
        assert "An invented table. Nobody, Nothing. arXiv 0000.00000. Table 0. Read in: nowhere." in said
        assert "Missing: Table 9. It was never written." in said


def test_figures_that_are_all_missing_make_a_section_without_tables(results: dict[str, Any]) -> None:
    empty = {"title": "T", "source": {"paper": "P"}, "missing": PUBLISHED["missing"], "comparisons": [], "marks": {}}
    text = render_markdown({**results, "published": empty})
    section = text.split("## Published figures\n")[1].split("\n## ")[0]
    assert "Missing: Table 9" in section
    assert "|" not in section


def test_markdown_holds_the_same_rows(beside: dict[str, Any]) -> None:
    tables = markdown_tables(render_markdown(beside))
    (ours,) = [table for table in tables if table[0][:5] == ["task", "labels", "method", "ours", "theirs"]]
    assert [row[0] for row in ours[2:]] == ["mrpc", "rte", "rte"]
    assert "· no evidence" in ours[2][6]


@pytest.mark.parametrize("width", [60, 100])
def test_the_terminal_says_it_in_lines(beside: dict[str, Any], width: int) -> None:
    text = render_table(beside, width=width)
    assert max(map(len, text.splitlines())) <= width
    said = re.sub(r"\s+", " ", text)
    assert "rte 18 random: ours 60.0 ± 1.0 (10), theirs 50.0 ± 1.0 (3), difference +10.0, + higher" in said
    assert "2 published cells without a figure of ours" in said
    assert "With 10 runs the published cells would be: 1 + better, 0 - worse, 0 = no evidence" in said
