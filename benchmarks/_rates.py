"""Rates with their binomial error: what the calibration tables say of a claim, and how they are printed."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from scipy import stats

__all__ = ["CHANCE", "Row", "chance_of", "error_bar", "judge", "render", "spread"]

# A row fails if chance alone would do this or worse less often than 1 in 1,000.
CHANCE = 1e-3
# Below this the 95% interval of the rate (exact, two-sided) leaves out the level that is claimed.
NOTABLE = 0.025


@dataclass
class Row:
    """One line of a table: what was simulated, what was counted, and what that says of the claim."""

    condition: dict[str, Any]
    campaigns: int
    rates: dict[str, float] = field(default_factory=dict)
    holds: bool = True
    says: str = "yes"


def chance_of(events: int, n: int, level: float = 0.05) -> float:
    """Chance of at least `events` of `n` if each happens with probability `level`."""
    return float(stats.binom.sf(events - 1, n, level))


def judge(claims: Iterable[tuple[int, int, float]]) -> tuple[bool, str]:
    """Judge claims "at most `level`", each given as (events, n, level), by the worst of them.

    "yes" where every 95% interval reaches down to the level, "within chance (p=...)" where one lies above it but
    chance does this or worse at least once in 1,000, "NO" otherwise; "yes, below" where all lie below it.
    """
    known = list(claims)
    worst = min(chance_of(*claim) for claim in known)
    if worst < CHANCE:
        return False, f"NO (p={worst:.1g})"
    if worst < NOTABLE:
        return True, f"within chance (p={worst:.3f})"
    below = all(float(stats.binom.cdf(events, n, level)) < NOTABLE for events, n, level in known)
    return True, "yes, below" if below else "yes"


def error_bar(rate: float, n: int) -> str:
    """Percentage with its exact 95% binomial interval."""
    interval = stats.binomtest(round(rate * n), n).proportion_ci(0.95)
    return f"{100 * rate:.1f}% ({100 * interval.low:.1f}–{100 * interval.high:.1f})"


def spread(rows: Iterable[Row]) -> str:
    """Say how many rows hold within chance only; of rows exactly at the level, one in forty does for each claim."""
    known = list(rows)
    above = sum(row.says.startswith("within") for row in known)
    return f"{above} of {len(known)} rows hold within chance only; at exactly 5%, one claim in forty does"


def render(
    title: str, rows: list[Row], *, markdown: bool, headings: Mapping[str, str], claimed: Iterable[str] = ()
) -> str:
    """Return a table as text or markdown; rates named in `claimed` carry an error bar."""
    bars = frozenset(claimed)
    names = [headings.get(k, k) for k in (*rows[0].condition, *rows[0].rates)] + ["holds"]
    lines = [names, *(_cells(row, bars) for row in rows)]
    if markdown:
        head, *body = ["| " + " | ".join(line) + " |" for line in lines]
        return "\n".join([f"**{title}**", "", head, "|" + " --- |" * len(names), *body, ""])
    widths = [max(len(line[k]) for line in lines) for k in range(len(names))]
    table = [
        "  ".join(value.ljust(width) for value, width in zip(line, widths, strict=True)).rstrip() for line in lines
    ]
    return "\n".join([title, *table, ""])


def _cells(row: Row, bars: frozenset[str]) -> list[str]:
    values = [str(v) for v in row.condition.values()]
    for name, rate in row.rates.items():
        if name in bars:
            values.append(error_bar(rate, row.campaigns))
        else:
            values.append(f"{rate:.2f}" if name == "overlap" else f"{100 * rate:.1f}%")
    return [*values, row.says]
