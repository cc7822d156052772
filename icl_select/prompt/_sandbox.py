"""Rendering of templates from strangers: fields in, text out, nothing else."""

from __future__ import annotations

import functools
import threading
from collections.abc import Iterable, Mapping
from typing import Any

import minijinja

from icl_select.errors import TemplateError, suggest
from icl_select.prompt._grammar import check_source, longest_in_loops

__all__ = ["Sandbox", "compile_template"]

# Steps of the engine for one rendering; a loop over a thousand items takes about five thousand.
_FUEL = 20_000
# What one rendering may write: this many characters, and this many times the size of the fields.
_ROOM = 100_000
_FACTOR = 16
# The engine counts a text that stands in a loop as one step, however long it is; with it, an iteration takes four at
# least. So many characters of such texts may be written.
_REPEATED = 1_000_000
_ITERATION = 4

_SCALARS = (str, int, float, bool)


class _TooLongError(Exception):
    pass


class Sandbox:
    """One template, checked and compiled. Safe to share between threads.

    The engine gets plain copies of the fields (text, numbers, lists, mappings), knows no file and no function,
    and works with limited fuel; what is written is limited too. A missing field is an error, and so is a field
    that is not text or a number where one is written.
    """

    def __init__(self, source: str, name: str) -> None:
        check_source(source, name)
        self.name = name
        self._local = threading.local()
        self._fuel = min(_FUEL, _ITERATION * _REPEATED // max(1, longest_in_loops(source, name)))
        self._engine = minijinja.Environment(
            debug=False,
            fuel=self._fuel,
            undefined_behavior="strict",
            auto_escape_callback=lambda _: False,
            finalizer=self._finish,
            keep_trailing_newline=True,
            pycompat=False,
        )
        for key in list(self._engine.globals):
            self._engine.remove_global(key)
        self._engine.add_filter("join", self._join)
        self._engine.add_filter("replace", self._replace)
        try:
            self._engine.add_template("t", source)
            self.variables = frozenset(self._engine.undeclared_variables_in_template("t", nested=True))
        except minijinja.TemplateError as exc:
            line = f" (line {exc.line})" if exc.line else ""
            raise TemplateError(f"the {name} template cannot be read{line}: {exc.detail or exc.kind}.") from exc

    def __call__(self, fields: Mapping[str, Any]) -> str:
        plain = {str(key): _plain(value, str(key)) for key, value in fields.items()}
        self._local.left = _ROOM + _FACTOR * sum(_size(value) for value in plain.values())
        try:
            return self._engine.render_template("t", **plain)
        except minijinja.TemplateError as exc:
            raise self._explain(exc, plain) from exc
        except TypeError as exc:
            raise TemplateError(f"the {self.name} template passes wrong arguments to a filter ({exc}).") from exc
        except _TooLongError as exc:
            raise TemplateError(
                f"the {self.name} template writes far more than its fields hold. Write each field a few times at most."
            ) from exc

    def _explain(self, exc: minijinja.TemplateError, plain: Mapping[str, Any]) -> TemplateError:
        line = f"line {exc.line} of the " if exc.line else "the "
        if exc.kind == "OutOfFuel":
            return TemplateError(
                f"the {self.name} template takes more than {self._fuel:,} steps for one example. Loop over less."
            )
        if exc.kind == "UndefinedError":
            missing = sorted(name for name in self.variables if _absent(name, plain))
            if missing:
                head, _, _ = missing[0].partition(".")
                known = _known(missing[0], plain)
                return TemplateError(
                    f"{line}{self.name} template names the field {missing[0]!r}, which the example does not have."
                    f"{suggest(missing[0] if head not in plain else missing[0].rpartition('.')[2], known)}"
                )
            return TemplateError(f"{line}{self.name} template names something that the example does not have.")
        return TemplateError(f"{line}{self.name} template fails: {exc.detail or exc.kind}.")

    def _spend(self, size: int) -> None:
        self._local.left -= size
        if self._local.left < 0:
            raise _TooLongError

    def _finish(self, value: Any) -> Any:
        """What is written must be text or a number; its size counts."""
        if value is None:
            raise TemplateError(f"the {self.name} template writes a field that is null. Fill it in, or test it.")
        if not isinstance(value, _SCALARS):
            raise TemplateError(
                f"the {self.name} template writes a {type(value).__name__}, which is neither text nor a number. "
                "Loop over it, or use the filter join."
            )
        self._spend(len(value) if isinstance(value, str) else 32)
        return value

    def _join(self, value: Iterable[Any], separator: str = "") -> str:
        items = list(value)
        for item in items:
            if not isinstance(item, _SCALARS):
                raise TemplateError(f"the {self.name} template joins items that are neither text nor numbers.")
        texts = [str(item) for item in items]
        self._spend(sum(map(len, texts)) + (len(separator) + 1) * len(texts))
        return separator.join(texts)

    def _replace(self, value: str, old: str, new: str) -> str:
        if not all(isinstance(part, str) for part in (value, old, new)):
            raise TemplateError(f"the {self.name} template replaces in or by something that is not text.")
        self._spend(len(value) + value.count(old) * len(new))
        return value.replace(old, new)


def _plain(value: Any, name: str, depth: int = 0) -> Any:
    """A copy made of text, numbers, lists and mappings: the engine never holds an object of ours."""
    if value is None or type(value) in _SCALARS:
        return value
    if isinstance(value, (bool, int, float, str)):
        for kind in (bool, int, float, str):
            if isinstance(value, kind):
                return kind(value)
    if depth < 16 and isinstance(value, Mapping):
        return {str(key): _plain(item, name, depth + 1) for key, item in value.items()}
    if depth < 16 and isinstance(value, (list, tuple)):
        return [_plain(item, name, depth + 1) for item in value]
    raise TemplateError(
        f"field {name!r} holds a {type(value).__name__}, but templates see text, numbers, lists and mappings (to a "
        "depth of 16). Convert it."
    )


def _size(value: Any) -> int:
    if isinstance(value, str):
        return len(value)
    if isinstance(value, dict):
        return sum(len(key) + _size(item) for key, item in value.items())
    if isinstance(value, list):
        return sum(map(_size, value))
    return 8


def _absent(name: str, plain: Mapping[str, Any]) -> bool:
    """Whether a dotted name leads nowhere; parts of lists are left to the engine."""
    here: Any = plain
    for part in name.split("."):
        if not isinstance(here, Mapping):
            return not isinstance(here, list)
        if part not in here:
            return True
        here = here[part]
    return False


def _known(name: str, plain: Mapping[str, Any]) -> list[str]:
    here: Any = plain
    for part in name.split("."):
        if not isinstance(here, Mapping) or part not in here:
            break
        here = here[part]
    return [str(key) for key in here] if isinstance(here, Mapping) else []


@functools.lru_cache(maxsize=256)
def compile_template(source: str, name: str) -> Sandbox:
    """Compile once per source; the name is the part of the prompt that it writes."""
    return Sandbox(source, name)
