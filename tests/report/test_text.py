"""Markdown and the terminal table: the same numbers as the HTML report, in plain text."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest

from icl_select.errors import ParameterError
from icl_select.report import render_markdown, render_report, render_table
from icl_select.report._view import interval, number, signed

Make = Callable[..., dict[str, Any]]


def markdown_tables(text: str) -> list[list[list[str]]]:
    tables: list[list[list[str]]] = []
    for block in re.findall(r"(?:^\|.*\n)+", text, flags=re.MULTILINE):
        rows = [re.split(r"(?<!\\)\|", line)[1:-1] for line in block.splitlines()]
        assert len({len(row) for row in rows}) == 1, "every row has as many cells as the header"
        tables.append([[cell.strip() for cell in row] for row in rows])
    return tables


def test_markdown_has_the_sections_of_the_report(results: dict[str, Any]) -> None:
    text = render_markdown(results)
    assert text.startswith("# knn nine: 13 of 96 comparisons beat random, 9 lose\n")
    assert re.findall(r"^## (.*)$", text, flags=re.MULTILINE) == [
        "Verdict",
        "Scores by budget",
        "Score against number of labels",
        "How similar the texts are",
        "Design and power",
        "Checks of the data",
        "All comparisons",
        "How to read and quote the numbers",
        "Versions and configuration",
    ]
    assert text == render_markdown(results)
    assert "<svg" not in text


def test_markdown_lists_every_comparison_once(results: dict[str, Any]) -> None:
    tables = [
        t for t in markdown_tables(render_markdown(results)) if t[0][:4] == ["task", "labels", "method", "verdict"]
    ]
    (table,) = tables
    rows = Counter((row[0], row[1], row[2], row[3].strip("*")) for row in table[2:])
    signs = {"better": "+ better", "worse": "− worse", "no evidence": "· no evidence"}
    assert rows == Counter(
        (c["task"], str(c["budget"]), c["candidate"].split("(")[0], signs[c["verdict"]]) for c in results["comparisons"]
    )


def test_markdown_escapes_what_would_be_markup(make: Make) -> None:
    name = "a|b <script> `x` [y](http://z) *w*"
    results = make(tasks=(name,), methods=("random", "ideal"), budgets=(5, 18))
    results["config"]["note"] = "```\nout of the fence"
    text = render_markdown(results)
    body, fenced = text.split("````", 1)
    assert "<script>" not in body
    assert not re.search(r"(?<!\\)\]\(http", body)
    assert "out of the fence" in fenced
    markdown_tables(body)


def test_the_terminal_table_fits_and_aligns(results: dict[str, Any]) -> None:
    text = render_table(results)
    lines = text.splitlines()
    assert max(map(len, lines)) <= 100
    assert "scored by knn (baseline without an LLM)" in text
    assert "+ better   - worse   = no evidence of a difference" in lines
    at = lines.index(next(line for line in lines if line.startswith("18 labels")))
    ends = [i for i, letter in enumerate(lines[at + 1]) if letter == "-" and lines[at + 1][i + 1 : i + 2] in ("", " ")]
    marks = {"better": "+", "worse": "-", "no evidence": "="}
    for line, task in zip(lines[at + 2 : at + 10], ("mrpc", "sst5", "mnli"), strict=False):
        assert line.startswith(task)
        found = [c for c in results["comparisons"] if (c["task"], c["budget"]) == (task, 18)]
        assert [line[end] for end in ends[2:]] == [marks[c["verdict"]] for c in found]


@pytest.mark.parametrize("width", [40, 60, 72, 200])
def test_the_terminal_table_keeps_any_width(width: int, make: Make) -> None:
    methods = ("random", *(f"a_rather_long_method_name_{i}(alpha={i})" for i in range(9)))
    text = render_table(make(tasks=("a" * 60, "b"), methods=methods, budgets=(5,)), width=width)
    assert max(map(len, text.splitlines())) <= width
    assert text.count("…") >= 1


def test_the_terminal_table_without_comparisons_or_anything(make: Make) -> None:
    assert "there is no verdict" in render_table(make(methods=("random",)))
    assert render_table({}).startswith("The results hold no comparison with random")
    with pytest.raises(ParameterError, match="width >= 40"):
        render_table({}, width=10)


def test_no_control_character_reaches_the_terminal(make: Make) -> None:
    text = render_table(make(tasks=("\x1b[31mred\x07",), methods=("random", "m\x1b]0;title\x07"), budgets=(5, 18)))
    assert not re.search(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]", text)


def test_a_single_draw_speaks_of_one_selection_only(make: Make) -> None:
    results = make(tasks=("rte",), budgets=(18,))
    for c in results["comparisons"]:
        c.update(scope="selection", n_draws=1)
    assert "With a single draw a verdict speaks of this one selection" in re.sub(r"\s+", " ", render_table(results))


def test_a_single_task_makes_one_table_of_its_budgets(make: Make) -> None:
    results = make(tasks=("support",), budgets=(10, 30, 100))
    lines = render_table(results).splitlines()
    at = next(i for i, line in enumerate(lines) if line.startswith("support"))
    assert [line[:10].strip() for line in lines[at + 2 : at + 5]] == ["10 labels", "30 labels", "100 labels"]
    tables = [
        table for table in markdown_tables(render_markdown(results)) if table[0][:2] == ["labels", "commonest label"]
    ]
    assert [row[0] for row in tables[0][2:]] == ["10", "30", "100"]


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0.0123, "+1.2"),
        (-0.0123, "−1.2"),
        (0.0004, "0.0"),
        (-0.0004, "0.0"),
        (0.1, "+10.0"),
        (12.345, "+1,234.5"),
        (-12.345, "−1,234.5"),
        (4.73e51, "+4.7e+53"),
        (None, "–"),
        (float("inf"), "–"),
    ],
)
def test_differences_of_any_size_are_written(value: float | None, text: str) -> None:
    """Two draws that hardly differ can leave an interval with next to no degrees of freedom, and so of any width."""
    assert signed(value) == text
    assert interval({"low": value, "high": value}) == f"[{text}, {text}]"


def test_large_counts_stay_whole() -> None:
    assert number(123_456_789, 0) == "123,456,789"


def test_an_interval_of_any_width_does_not_end_the_report(results: dict[str, Any]) -> None:
    for comparison in results["comparisons"]:
        comparison["ci"] = {**comparison["ci"], "low": -3.1e51, "high": 4.7e51}
    assert "+4.7e+53" in render_markdown(results)
    assert "+4.7e+53" in render_report(results)
