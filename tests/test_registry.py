"""Method names parse and print both ways, are never evaluated, and are open to other packages."""

from __future__ import annotations

import keyword
import sys
import types
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from icl_select import registry
from icl_select.errors import ParameterError, UnknownNameError
from icl_select.methods.vote_k import vote_k
from icl_select.registry import Spec, asks_feedback, method_names, own_parameters, parse, resolve

NAMES = st.from_regex(r"[A-Za-z_][A-Za-z0-9_]{0,20}", fullmatch=True).filter(lambda name: not keyword.iskeyword(name))
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4),
    max_leaves=8,
)
SPECS = st.builds(Spec, NAMES, st.dictionaries(NAMES, VALUES, max_size=5))


@given(SPECS)
def test_round_trip(spec: Spec) -> None:
    again = parse(str(spec))
    assert again == spec
    assert (again.name, again.params) == (spec.name, spec.params)
    assert hash(again) == hash(spec)


@given(SPECS, SPECS)
def test_slug_is_a_file_name_of_its_own(one: Spec, other: Spec) -> None:
    assert set(one.slug) <= set("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_.=-")
    assert 0 < len(one.slug) <= 100
    assert (one.slug == other.slug) == (one == other)


@given(st.text(max_size=40))
def test_any_text_parses_or_is_refused(text: str) -> None:
    try:
        spec = parse(text)
    except ParameterError:
        return
    assert parse(str(spec)) == spec


@pytest.mark.parametrize(
    ("text", "printed"),
    [
        ("random", "random"),
        (" random ( ) ", "random"),
        ("vote_k(stage='full',k=5)", "vote_k(k=5, stage='full')"),
        ('vote_k(variant="official", stage="graph")', "vote_k(stage='graph', variant='official')"),
        ("max_herding(bandwidth=8e-1)", "max_herding(bandwidth=0.8)"),
        ("f(a=-1, b=[1, 'x', None], c=True)", "f(a=-1, b=[1, 'x', None], c=True)"),
    ],
)
def test_canonical_form(text: str, printed: str) -> None:
    assert str(parse(text)) == printed


@pytest.mark.parametrize(
    "text",
    [
        "", " ", "1", "a.b", "a b", "f(1)", "f(*a)", "f(**a)", "f(k=g())", "f(k=x)", "f(k=1)(k=2)", "f(k=1, k=2)",
        "f(k=1e999)", "f(k=[1e999])", "f(k=1j)", "f(k=b'x')", "f(k={1: 2})", "f(k=(1, 2))", "f(k=1", "f(k=lambda: 0)",
        "__import__('os').system('true')", "f(k=__import__('os'))", "f(k=[x for x in y])", "lambda", "f(k='a' 'b'",
        "\0", "f(k=" + "[" * 5_000 + "]" * 5_000 + ")",
    ],
)  # fmt: skip
def test_what_is_no_name_is_refused(text: str) -> None:
    with pytest.raises(ParameterError, match="cannot read"):
        parse(text)


def test_equal_means_printed_alike() -> None:
    assert Spec("f", {"k": 1}) != Spec("f", {"k": 1.0})
    assert Spec("f", {"a": 1, "b": 2}) == Spec("f", {"b": 2, "a": 1})
    assert Spec("f") != "f"
    assert len({Spec("f", {"k": 1}), Spec("f", {"k": True}), Spec("f", {"k": 1})}) == 2


def test_slug_stays_readable() -> None:
    assert Spec("random").slug == "random"
    assert parse("vote_k(k=5, stage='full')").slug.startswith("vote_k-k=5-stage=-full-")


def test_registered_methods() -> None:
    assert {"ideal", "max_herding", "random", "sub_sa", "vote_k"} <= set(method_names())
    assert method_names() == sorted(method_names())
    for name in method_names():
        spec, function = resolve(name)
        assert (spec, callable(function)) == (Spec(name), True)


def test_own_parameters_leave_out_the_shared_ones() -> None:
    assert list(own_parameters(vote_k)) == ["k", "rho", "stage", "first", "variant"]


def test_other_packages_add_methods(monkeypatch: pytest.MonkeyPatch) -> None:
    def mine(x: Any, budget: int, *, given: Any, rng: Any, power: float = 1.0) -> None: ...

    def anything(x: Any, budget: int, *, given: Any, rng: Any, **own: Any) -> None: ...

    module = types.ModuleType("other_package")
    module.mine, module.anything = mine, anything  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "other_package", module)
    plugins = {"mine": "other_package:mine", "anything": "other_package:anything", "random": "other_package:mine"}
    monkeypatch.setattr(registry, "_plugins", lambda: plugins)
    assert {"mine", "anything"} <= set(method_names())
    assert resolve("mine(power=2)") == (parse("mine(power=2)"), mine)
    assert resolve("anything(whatever=2)")[1] is anything
    assert resolve("random")[1] is not mine
    with pytest.raises(UnknownNameError, match=r"has no parameter 'powr'\. Did you mean 'power'"):
        resolve("mine(powr=2)")


def test_method_without_parameters(monkeypatch: pytest.MonkeyPatch) -> None:
    module = types.ModuleType("bare_package")
    module.bare = lambda x, budget, *, given, rng: None  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "bare_package", module)
    monkeypatch.setattr(registry, "_plugins", lambda: {"bare": "bare_package:bare"})
    with pytest.raises(UnknownNameError, match="It takes none"):
        resolve("bare(k=1)")


def test_which_methods_ask_the_model() -> None:
    """By signature alone; a method that asks only in one of its stages says so by its parameters."""
    assert [name for name in method_names() if asks_feedback(name)] == []
    assert asks_feedback("vote_k(stage='full', variant='official')")
    assert not asks_feedback("vote_k(stage='graph')")
    assert not asks_feedback("max_herding(bandwidth=0.8)")
    with pytest.raises(UnknownNameError):
        asks_feedback("vote_q")
