"""Reading access to the ``results`` mapping, and how numbers are written."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, TypeGuard

from icl_select.errors import DataError

__all__ = [
    "MINUS",
    "SCHEMA",
    "View",
    "fraction",
    "interval",
    "number",
    "p_value",
    "percent",
    "plural",
    "printable",
    "signed",
]

SCHEMA = "icl-select/results/1"
MINUS = "−"
_DASH = "–"


def _finite(value: Any) -> TypeGuard[float]:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)


def number(value: Any, digits: int = 1) -> str:
    """Write a number with a real minus sign; a dash for what is absent."""
    if not _finite(value):
        return _DASH
    text = f"{value:,.{digits}f}" if abs(value) < 1e9 else f"{value:.1e}"
    if float(text.replace(",", "")) == 0:
        text = text.lstrip("-")
    return text.replace("-", MINUS)


def percent(value: Any, digits: int = 1) -> str:
    """Write a share as percent, without the sign."""
    return number(value * 100, digits) if _finite(value) else _DASH


def signed(value: Any, digits: int = 1) -> str:
    """Write a difference of shares in percentage points, always with a sign."""
    text = percent(value, digits)
    return text if text == _DASH or text.startswith(MINUS) or not text.strip("0.") else f"+{text}"


def p_value(value: Any) -> str:
    """Write a p-value with three decimals, ``<0.001`` below."""
    if not _finite(value):
        return _DASH
    return "<0.001" if value < 0.0005 else f"{value:.3f}"


def fraction(value: float) -> str:
    """Write a smallest p as ``1/512 (0.002)`` where it is one over a whole number."""
    inverse = round(1 / value) if value > 0 else 0
    if inverse > 1 and math.isclose(value * inverse, 1, rel_tol=1e-9):
        return f"1/{inverse} ({value:.2g})"
    return f"{value:.2g}"


def interval(ci: Any) -> str:
    """``[low, high]`` in points."""
    if not isinstance(ci, Mapping):
        return "[–]"
    return f"[{signed(ci.get('low'))}, {signed(ci.get('high'))}]"


def printable(text: str) -> str:
    """Make control characters and lone surrogates, which HTML and fonts forbid, a visible mark."""
    return re.sub(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\ud800-\udfff]", "\ufffd", text)


def plural(n: int, noun: str) -> str:
    """Write ``1 draw`` or ``3 draws``."""
    return f"{n:,} {noun}" if n == 1 else f"{n:,} {noun}s"


def _distinct(values: Iterable[Any]) -> list[Any]:
    return list(dict.fromkeys(values))


@dataclass(frozen=True)
class View:
    """The results of one campaign, with look-ups.

    Parameters
    ----------
    results : mapping
        What a campaign writes as ``results.json``.

    Raises
    ------
    DataError
        If it is no mapping, or says that it follows another schema.
    """

    results: Mapping[str, Any]

    def __post_init__(self) -> None:
        if not isinstance(self.results, Mapping):
            raise DataError(
                f"results are {type(self.results).__name__}, not a mapping. Pass what json.load gives for results.json."
            )
        schema = self.results.get("schema", SCHEMA)
        if schema != SCHEMA:
            raise DataError(
                f"results of the schema {schema!r} cannot be shown: this version reads {SCHEMA!r}. Use the version of "
                "icl-select that wrote them, or run the campaign again."
            )

    def part(self, name: str) -> Mapping[str, Any]:
        """A top-level mapping, empty if absent."""
        return self.results.get(name) or {}

    @cached_property
    def config(self) -> Mapping[str, Any]:
        return self.part("config")

    @cached_property
    def design(self) -> Mapping[str, Any]:
        return self.part("design")

    @cached_property
    def cells(self) -> list[Mapping[str, Any]]:
        return list(self.results.get("cells") or [])

    @cached_property
    def comparisons(self) -> list[Mapping[str, Any]]:
        return list(self.results.get("comparisons") or [])

    @cached_property
    def curves(self) -> list[Mapping[str, Any]]:
        return list(self.results.get("curves") or [])

    @cached_property
    def name(self) -> str:
        return str(self.results.get("name") or self.config.get("name") or "campaign")

    @cached_property
    def baseline(self) -> str:
        named = _distinct(c["baseline"] for c in self.comparisons if c.get("baseline"))
        return str(named[0] if named else self.config.get("baseline") or "random")

    @cached_property
    def tasks(self) -> list[str]:
        return _distinct(c["task"] for c in [*self.cells, *self.comparisons])

    @cached_property
    def candidates(self) -> list[str]:
        """Every method but the baseline, in order of appearance."""
        seen = [*(c["method"] for c in self.cells), *(c["candidate"] for c in self.comparisons)]
        return [method for method in _distinct(seen) if method != self.baseline]

    @cached_property
    def methods(self) -> list[str]:
        """The baseline first."""
        return [self.baseline, *self.candidates]

    @cached_property
    def budgets(self) -> list[int]:
        return sorted({c["budget"] for c in [*self.cells, *self.comparisons]})

    @cached_property
    def metrics(self) -> list[str]:
        return _distinct(c["metric"] for c in [*self.cells, *self.comparisons] if c.get("metric"))

    @cached_property
    def _cell_table(self) -> dict[tuple[str, str, str, int], Mapping[str, Any]]:
        return {(c["task"], c.get("metric", ""), c["method"], c["budget"]): c for c in self.cells}

    @cached_property
    def _comparison_table(self) -> dict[tuple[str, str, str, int], Mapping[str, Any]]:
        return {(c["task"], c.get("metric", ""), c["candidate"], c["budget"]): c for c in self.comparisons}

    @cached_property
    def task_metrics(self) -> list[tuple[str, str]]:
        """Each task with each of its metrics: what a table row is."""
        return _distinct((c["task"], c.get("metric", "")) for c in [*self.cells, *self.comparisons])

    def cell(self, task: str, metric: str, method: str, budget: int) -> Mapping[str, Any] | None:
        return self._cell_table.get((task, metric, method, budget))

    def comparison(self, task: str, metric: str, method: str, budget: int) -> Mapping[str, Any] | None:
        return self._comparison_table.get((task, metric, method, budget))

    @cached_property
    def short(self) -> dict[str, str]:
        """Method names without their parameters where that leaves them distinct."""
        bare = {method: method.split("(", 1)[0] for method in self.methods}
        names = list(bare.values())
        return {method: name if names.count(name) == 1 else method for method, name in bare.items()}

    @cached_property
    def alpha(self) -> float | None:
        """Level of the tests."""
        for source in [self.config, self.design, *self.comparisons[:1]]:
            if _finite(source.get("alpha")):
                return float(source["alpha"])
        return None

    @cached_property
    def family(self) -> int:
        """Comparisons that the adjustment for multiplicity runs over."""
        sizes = [c["n_comparisons"] for c in self.comparisons if _finite(c.get("n_comparisons"))]
        return max(sizes) if sizes else len(self.comparisons)

    @cached_property
    def smallest_p(self) -> float | None:
        """Smallest raw p-value that the design can reach."""
        smallest = self.design.get("smallest_p")
        return smallest if _finite(smallest) else None

    @cached_property
    def unreachable(self) -> bool:
        """Whether no comparison could become significant, whatever the data."""
        if self.of("better") or self.of("worse"):
            return False
        if isinstance(self.design.get("reachable"), bool):
            return not self.design["reachable"]
        if self.smallest_p is None or self.alpha is None:
            return False
        return self.smallest_p * self.family > self.alpha

    @cached_property
    def about(self) -> dict[str, Mapping[str, Any]]:
        """What is known of each task that was run."""
        known = {name: item for name, item in self.part("tasks").items() if isinstance(item, Mapping)}
        return {name: item for name, item in known.items() if not item.get("skipped")}

    @cached_property
    def skipped(self) -> dict[str, str]:
        """Tasks that were not run, and why."""
        known = {name: item for name, item in self.part("tasks").items() if isinstance(item, Mapping)}
        return {name: str(item["skipped"]) for name, item in known.items() if item.get("skipped")}

    def of(self, verdict: str) -> list[Mapping[str, Any]]:
        """The comparisons with that verdict."""
        return [c for c in self.comparisons if c.get("verdict") == verdict]
