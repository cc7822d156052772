"""Documentation cannot drift: every registered method has its rows, its citation and a passing example."""

from __future__ import annotations

import doctest
import inspect
import re
from pathlib import Path

import numpy as np
import pytest

from icl_select.registry import method_names, own_parameters, resolve

PAGE = Path(__file__).resolve().parents[1] / "docs" / "methods.md"


def rows(name: str) -> list[str]:
    return [line for line in PAGE.read_text(encoding="utf-8").splitlines() if line.startswith(f"| `{name}` |")]


def test_no_row_is_left_over() -> None:
    named = set(re.findall(r"^\| `(\w+)` \|", PAGE.read_text(encoding="utf-8"), flags=re.MULTILINE))
    assert named == set(method_names())


@pytest.mark.parametrize("name", method_names())
def test_method_has_a_row_in_both_tables(name: str) -> None:
    assert len(rows(name)) == 2


@pytest.mark.parametrize("name", method_names())
def test_row_names_every_parameter_and_its_default(name: str) -> None:
    cell = rows(name)[0].split("|")[2]
    listed = re.findall(r"`(\w+)`", cell)
    own = own_parameters(resolve(name)[1])
    assert listed == list(own) or set(listed) == set(own)
    for parameter in own.values():
        if isinstance(parameter.default, (int, float)):
            assert f"`{parameter.name}` ({parameter.default:g}" in cell


@pytest.mark.parametrize("name", method_names())
def test_docstring_has_every_section_and_parameter(name: str) -> None:
    function = resolve(name)[1]
    text = inspect.getdoc(function) or ""
    for section in ("Parameters", "Returns", "Raises", "Notes", "References", "Examples"):
        assert f"\n{section}\n{'-' * len(section)}\n" in text, section
    for parameter in inspect.signature(function).parameters:
        assert re.search(rf"^{parameter} : ", text, flags=re.MULTILINE), parameter


@pytest.mark.parametrize("name", method_names())
def test_citation_is_the_one_of_the_page(name: str) -> None:
    title = re.search(r"\*(.+?)\*", rows(name)[0].split("|")[4])
    assert title is not None
    text = re.sub(r"\s+", " ", inspect.getdoc(resolve(name)[1]) or "")
    assert title[1] in text


@pytest.mark.parametrize("name", method_names())
def test_examples_run(name: str) -> None:
    function = resolve(name)[1]
    tests = doctest.DocTestFinder(recurse=False).find(function, name, globs={**function.__globals__, "np": np})
    assert sum(len(test.examples) for test in tests) > 2
    for test in tests:
        assert doctest.DocTestRunner().run(test).failed == 0
