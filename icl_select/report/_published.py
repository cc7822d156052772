"""Published tables beside this run, and what such tables can show."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from icl_select.report._blocks import Block, Bullets, Cell, Details, Section, Table, Text, left, right
from icl_select.report._verdict import verdict_cell
from icl_select.report._view import View, interval, number, p_value, percent, plural, signed

__all__ = ["published_lines", "published_sections"]

_NAMED = 4
_SIGNS = {"higher": "+", "lower": "−", "no evidence": "·"}
_PLAIN = {"higher": "+", "lower": "-", "no evidence": "=", "better": "+", "worse": "-"}


def published_sections(view: View) -> tuple[Section, ...]:
    """One section, or none where the campaign names no published figures."""
    found = view.part("published")
    if not found:
        return ()
    source = found.get("source") or {}
    blocks: list[Block] = [Text(f"{found.get('title')}. {_source(source)}")]
    missing = found.get("missing") or []
    if missing:
        blocks.append(Bullets(tuple(f"Missing: {item['what']}. {item['reason']}" for item in missing)))
    blocks += _beside(found.get("comparisons") or [])
    blocks += _marks(found.get("marks") or {})
    notes = found.get("notes") or []
    if notes:
        blocks.append(Details("Notes on the published figures", (Bullets(tuple(map(str, notes))),)))
    return (Section("Published figures", "published", tuple(blocks)),)


def _source(source: Mapping[str, Any]) -> str:
    parts = [
        str(source.get("paper") or "Source not recorded").rstrip("."),
        f"arXiv {source['arxiv']}" if source.get("arxiv") else "",
        str(source.get("tables") or ""),
        f"Read in: {source['read']}" if source.get("read") else "",
    ]
    return ". ".join(part for part in parts if part) + "."


def _beside(comparisons: Sequence[Mapping[str, Any]]) -> list[Block]:
    """Ours beside theirs; cells without a partner are counted by reason."""
    with_ours = [c for c in comparisons if c.get("ours")]
    blocks: list[Block] = []
    if with_ours:
        blocks.append(
            Text(
                "Difference: ours minus theirs, in points, by Welch's test from means, standard deviations and runs "
                f"({_tested(comparisons)}; p adjusted by Holm over them). Higher and lower say that the difference was "
                "shown, not which figure is right."
            )
        )
        header = ("task", "labels", "method", "ours", "theirs", "difference", "verdict")
        blocks.append(
            Table(
                "Ours beside theirs, in percent: mean ± standard deviation (runs).",
                header,
                tuple(_beside_row(c) for c in with_ours),
                ("left", "right", "left", "right", "right", "right", "left"),
                headers=3,
            )
        )
        blocks += _untested(c for c in with_ours if c.get("verdict") is None)
    without = [c for c in comparisons if not c.get("ours")]
    if without:
        blocks += [Text("Published cells without a figure of ours:"), Bullets(_by_reason(without))]
    return blocks


def _untested(cells: Iterable[Mapping[str, Any]]) -> list[Block]:
    """Why some cells of the table above have no verdict."""
    listed = list(cells)
    return [Text("Not tested:"), Bullets(_by_reason(listed))] if listed else []


def _by_reason(cells: Sequence[Mapping[str, Any]]) -> tuple[str, ...]:
    """One sentence for each reason: which cells, or how many."""
    groups: dict[str, list[str]] = {}
    for c in cells:
        groups.setdefault(str(c.get("reason")), []).append(f"{c['task']} {c['budget']} {c['method']}")
    return tuple(
        f"{'; '.join(places) if len(places) <= _NAMED else plural(len(places), 'cell')}: {reason}."
        for reason, places in groups.items()
    )


def _tested(comparisons: Sequence[Mapping[str, Any]]) -> str:
    n = sum(c.get("verdict") is not None for c in comparisons)
    return f"{plural(n, 'cell')} tested"


def _beside_row(c: Mapping[str, Any]) -> tuple[str | Cell, ...]:
    verdict = c.get("verdict")
    if verdict is None:
        cell = Cell("", word="not tested", state="open")
        difference = signed(c.get("delta"))
    else:
        cell = Cell(
            "", mark=_SIGNS[verdict], word=str(verdict), notes=(f"p {p_value(c.get('p_adjusted'))}",), state="open"
        )
        difference = f"{signed(c.get('delta'))} {interval(c.get('ci'))}"
    head = str(c["task"]), str(c["budget"]), str(c["method"])
    return *head, _score(c["ours"]), _score(c["theirs"]), difference, cell


def _score(figure: Mapping[str, Any]) -> str:
    return f"{percent(figure.get('mean'))} ± {percent(figure.get('sd'))} ({number(figure.get('runs'), 0)})"


def _marks(found: Mapping[str, Any]) -> list[Block]:
    """Every published cell against the random selection of its table, at several numbers of runs."""
    cells = found.get("cells") or []
    if not cells:
        return []
    runs = [str(n) for n in found.get("runs") or []]
    own = found.get("published_runs")
    blocks: list[Block] = [
        Text(
            f"What the published table can say: each cell against {found.get('baseline')} of the same table by Welch's "
            f"test, Holm-adjusted over {plural(int(found.get('n_tested') or 0), 'cell')}, if its means and standard "
            f"deviations were those of {', '.join(runs)} runs each"
            f"{f' (it rests on {own})' if own else ''}. Needs: the smallest observed difference that would be shown, "
            "in points. A verdict that rounding of the printed figures could change says so."
        )
    ]
    blocks += _mark_counts(found, runs)
    header = ("task", "labels", "method", "model", "theirs", "random", "difference", *(f"{n} runs" for n in runs))
    rows = tuple(_mark_row(c, runs) for c in cells)
    align = ("left", "right", "left", "left", "right", "right", "right", *left(len(runs)))
    table = Table("Published cells against random, in percent.", header, rows, align, headers=3)
    untested = _untested(c for c in cells if c.get("reason"))
    blocks.append(Details(f"All {len(cells):,} published cells", (table, *untested)))
    return blocks


def _mark_counts(found: Mapping[str, Any], runs: Sequence[str]) -> list[Block]:
    summary = found.get("summary") or {}
    rows = []
    for n in runs:
        if n in summary:
            s = summary[n]
            counts = [number(s.get(word), 0) for word in ("better", "worse", "no evidence", "unstable")]
            rows.append((n, *counts, _range(s["smallest_shown"]), _range(s["detectable_difference"])))
    if not rows:
        return [Text("No published cell can be tested; the table of cells says why.")]
    power = percent(found.get("power"), 0)
    header = (
        "runs",
        "+ better",
        "− worse",
        "· no evidence",
        "could change by rounding",
        "needs",
        f"found with {power}%",
    )
    caption = (
        "Verdicts over the published cells, and what a cell would have needed: smallest difference shown, and true "
        f"difference found with {power}% probability (least, median, most), in points."
    )
    return [Table(caption, header, tuple(rows), right(len(header) - 1))]


def _range(spread: Mapping[str, Any]) -> str:
    return " / ".join(_points(spread.get(key)) for key in ("least", "median", "most"))


def _points(value: Any) -> str:
    """Points of a difference; no score can differ by more than 100."""
    return ">100" if isinstance(value, (int, float)) and value > 1 else percent(value)


def _mark_row(c: Mapping[str, Any], runs: Sequence[str]) -> tuple[str | Cell, ...]:
    theirs = f"{percent(c.get('mean'))} ± {percent(c.get('sd'))}"
    base = f"{percent(c.get('baseline_mean'))} ± {percent(c.get('baseline_sd'))}"
    head = (str(c["task"]), str(c["budget"]), str(c["method"]), str(c["model"]), theirs, base, signed(c.get("delta")))
    if c.get("reason"):
        return (*head, *(Cell("", word="not tested", state="open") for _ in runs))
    return (*head, *(_mark_cell(c["at"][n]) for n in runs))


def _mark_cell(at: Mapping[str, Any]) -> Cell:
    notes = (f"p {p_value(at.get('p_adjusted'))}", f"needs {_points(at.get('smallest_shown'))}")
    loose = () if at.get("stable") else ("could change by rounding",)
    return verdict_cell(str(at["verdict"]), "", (*notes, *loose))


def published_lines(view: View) -> list[str]:
    """The same in plain lines for a terminal, not wrapped; none where no figures were named."""
    found = view.part("published")
    if not found:
        return []
    lines = [f"Published figures: {found.get('title')}."]
    lines += [f"Missing: {item['what']}. {item['reason']}" for item in found.get("missing") or []]
    comparisons = found.get("comparisons") or []
    for c in [c for c in comparisons if c.get("ours")]:
        verdict = c.get("verdict")
        said = f"not tested: {c.get('reason')}" if verdict is None else f"{_PLAIN[verdict]} {verdict}"
        lines.append(
            f"{c['task']} {c['budget']} {str(c['method']).split('(')[0]}: ours {_score(c['ours'])}, theirs "
            f"{_score(c['theirs'])}, difference {signed(c.get('delta'))}, {said}"
        )
    without = sum(not c.get("ours") for c in comparisons)
    if without:
        lines.append(f"{plural(without, 'published cell')} without a figure of ours; the HTML report says why.")
    summary = (found.get("marks") or {}).get("summary") or {}
    for n, s in summary.items():
        lines.append(
            f"With {n} runs the published cells would be: {s['better']} + better, {s['worse']} - worse, "
            f"{s['no evidence']} = no evidence against their random; a cell needs {_range(s['smallest_shown'])} points."
        )
    return lines
