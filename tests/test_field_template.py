"""Field templates: names in braces and nothing else."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from icl_select._template import field_names, fill
from icl_select.errors import TemplateError


def test_fields_are_put_in() -> None:
    assert fill("{subject}\n{{{body}}}", {"subject": "Invoice", "body": "wrong"}) == "Invoice\n{wrong}"
    assert field_names("{a} and {b} and {a}") == ["a", "b", "a"]


@pytest.mark.parametrize("template", ["{a.b}", "{a[0]}", "{a!r}", "{a:>9}", "{}", "{0.__class__}", "{a", "a}"])
def test_anything_more_than_a_name_is_refused(template: str) -> None:
    with pytest.raises(TemplateError, match="braces"):
        fill(template, {"a": "x", "": "y", "0": "z"})


def test_a_missing_field_names_the_nearest() -> None:
    with pytest.raises(TemplateError, match="Did you mean 'subject'"):
        fill("{subjct}", {"subject": "x"})
    with pytest.raises(TemplateError, match="null"):
        fill("{subject}", {"subject": None})


@given(st.text(), st.text())
def test_values_are_never_read_as_templates(a: str, b: str) -> None:
    assert fill("{a}{b}", {"a": a, "b": b}) == a + b
