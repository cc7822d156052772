"""Names with parameters, and what they stand for.

A method is written ``max_herding(bandwidth=0.8)`` everywhere: in Python, YAML, on the command line, over
HTTP and as a column of a table. The name parses and prints, holds numbers and strings only, and is never
evaluated. Other packages add methods through the entry-point group ``icl_select.methods``.
"""

from __future__ import annotations

import ast
import functools
import importlib
import inspect
import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from importlib.metadata import entry_points
from typing import Any, TypeVar

from icl_select._fingerprint import fingerprint
from icl_select.errors import MissingDependencyError, ParameterError, UnknownNameError, suggest

__all__ = [
    "ENTRY_POINTS",
    "Spec",
    "any_norm",
    "asks_feedback",
    "asks_when",
    "method_names",
    "own_parameters",
    "parse",
    "resolve",
]

ENTRY_POINTS = "icl_select.methods"

_BUILTIN = {
    "ideal": "icl_select.methods.ideal:ideal",
    "max_herding": "icl_select.methods.max_herding:max_herding",
    "random": "icl_select.methods.random:random",
    "sub_sa": "icl_select.methods.sub_sa:sub_sa",
    "vote_k": "icl_select.methods.vote_k:vote_k",
}

# The shared signature; everything else a method takes is its own parameter.
_Method = TypeVar("_Method", bound=Callable[..., Any])

_SHARED = ("x", "budget", "given", "rng", "feedback", "raw", "progress")


@dataclass(frozen=True, eq=False)
class Spec:
    """A registered name with its parameters; ``str(spec)`` parses back to an equal spec.

    Specs are equal if they print alike, so ``k=1`` and ``k=1.0`` differ, as their file names do.
    """

    name: str
    params: Mapping[str, Any] = field(default_factory=dict)

    def __str__(self) -> str:
        inner = ", ".join(f"{key}={value!r}" for key, value in sorted(self.params.items()))
        return f"{self.name}({inner})" if inner else self.name

    def __eq__(self, other: object) -> bool:
        return str(self) == str(other) if isinstance(other, Spec) else NotImplemented

    def __hash__(self) -> int:
        return hash(str(self))

    @property
    def slug(self) -> str:
        """A file name: readable, safe on every system, different for different specs."""
        text = str(self)
        safe = re.sub(r"[^A-Za-z0-9_.=-]+", "-", text).strip("-")
        return safe if safe == text else f"{safe[:80]}-{fingerprint(text, length=8)}"


def parse(text: str) -> Spec:
    """Read ``name`` or ``name(key=value, ...)``; values are numbers, strings, booleans, None, or lists of them.

    Raises
    ------
    ParameterError
        If the text is not of that form. Nothing is looked up: see :func:`resolve`.

    Examples
    --------
    >>> parse("max_herding(bandwidth=0.8)")
    Spec(name='max_herding', params={'bandwidth': 0.8})
    >>> str(parse("vote_k( stage = 'graph', k=50 )"))
    "vote_k(k=50, stage='graph')"
    """
    problem = ParameterError(
        f"cannot read {text!r} as a method. Write name or name(key=value, ...) with numbers and quoted strings, "
        "such as max_herding(bandwidth=0.8)."
    )
    try:
        node = ast.parse(text.strip(), mode="eval").body
    except (SyntaxError, ValueError, RecursionError, MemoryError) as exc:
        raise problem from exc
    if isinstance(node, ast.Name):
        return Spec(node.id)
    if not isinstance(node, ast.Call) or not isinstance(node.func, ast.Name) or node.args:
        raise problem
    params: dict[str, Any] = {}
    for keyword in node.keywords:
        if keyword.arg is None or keyword.arg in params:
            raise problem
        try:
            params[keyword.arg] = ast.literal_eval(keyword.value)
        except (ValueError, TypeError, RecursionError, MemoryError) as exc:
            raise problem from exc
        if not _plain(params[keyword.arg]):
            raise problem
    return Spec(node.func.id, params)


def _plain(value: Any) -> bool:
    if isinstance(value, list):
        return all(_plain(item) for item in value)
    if isinstance(value, float):
        return math.isfinite(value)
    return value is None or isinstance(value, (bool, int, str))


@functools.cache
def _plugins() -> dict[str, str]:
    return {point.name: point.value for point in entry_points(group=ENTRY_POINTS)}


def method_names() -> list[str]:
    """Every registered method, ours and those of installed packages, sorted."""
    return sorted({**_plugins(), **_BUILTIN})


def own_parameters(method: Callable[..., Any]) -> dict[str, inspect.Parameter]:
    """The parameters of a method beyond the shared signature."""
    return {name: parameter for name, parameter in inspect.signature(method).parameters.items() if name not in _SHARED}


def asks_when(**params: Any) -> Callable[[_Method], _Method]:
    """Mark a method that takes feedback, but asks the model only where its parameters have these values.

    Examples
    --------
    >>> @asks_when(stage="full")
    ... def method(x, budget, *, feedback=None, stage="graph"): ...
    """

    def mark(method: _Method) -> _Method:
        method.__dict__["asks_when"] = params
        return method

    return mark


def any_norm(method: _Method) -> _Method:
    """Mark a method that reads only the directions of rows.

    It is handed float32 rows as they came, read-only, without the copy of unit norm that others get: a memory map stays
    one. No row is zero.
    """
    method.__dict__["any_norm"] = True
    return method


def asks_feedback(method: str | Spec) -> bool:
    """Whether a method asks the model how sure it is, so that it must be called with ``feedback``.

    A method does if it has a parameter ``feedback``; with :func:`asks_when`, only for those parameter values.

    Raises
    ------
    UnknownNameError
        As :func:`resolve`.

    Examples
    --------
    >>> asks_feedback("vote_k"), asks_feedback("vote_k(stage='full')")
    (False, True)
    """
    spec, function = resolve(method)
    parameters = inspect.signature(function).parameters
    if "feedback" not in parameters:
        return False
    wanted = getattr(function, "asks_when", {})
    return all(spec.params.get(name, parameters[name].default) == value for name, value in wanted.items())


def resolve(method: str | Spec) -> tuple[Spec, Callable[..., Any]]:
    """Return the spec and the function of a method name; parameters are checked by name.

    Our own names cannot be taken over by a plug-in.

    Raises
    ------
    UnknownNameError
        For an unknown method or parameter; the nearest known name is suggested.
    MissingDependencyError
        If the package that a plug-in lives in cannot be imported.
    """
    spec = parse(method) if isinstance(method, str) else method
    target = _BUILTIN.get(spec.name) or _plugins().get(spec.name)
    if target is None:
        raise UnknownNameError(f"unknown method {spec.name!r}.{suggest(spec.name, method_names())}")
    function = _load(spec.name, target)
    known = own_parameters(function)
    if not any(p.kind is inspect.Parameter.VAR_KEYWORD for p in known.values()):
        for name in spec.params:
            if name not in known:
                hint = suggest(name, known) or " It takes none."
                raise UnknownNameError(f"method {spec.name!r} has no parameter {name!r}.{hint}")
    return spec, function


def _load(name: str, target: str) -> Callable[..., Any]:
    module, _, attribute = target.partition(":")
    try:
        function: Callable[..., Any] = getattr(importlib.import_module(module), attribute)
    except (ImportError, AttributeError) as exc:
        raise MissingDependencyError(
            f"method {name!r} is registered as {target}, which cannot be loaded ({exc}). Repair or remove the package "
            "that registers it.",
            name=module,
        ) from exc
    return function
