"""The HTML report: valid, self-contained, safe, complete, and the same for the same results."""

from __future__ import annotations

import copy
import json
import re
from collections import Counter
from collections.abc import Callable
from html.parser import HTMLParser
from typing import Any

import pytest

from icl_select.errors import DataError
from icl_select.report import render_density, render_report

Make = Callable[..., dict[str, Any]]
VOID = {"area", "base", "br", "col", "embed", "hr", "img", "input", "link", "meta", "source", "track", "wbr"}


class Page(HTMLParser):
    """Reads a page strictly: every tag closed in order, ids unique, nothing fetched."""

    def __init__(self, text: str) -> None:
        super().__init__(convert_charrefs=True)
        self.open: list[str] = []
        self.ids: Counter[str] = Counter()
        self.tags: Counter[str] = Counter()
        self.links: list[str] = []
        self.attributes: list[tuple[str, dict[str, str | None]]] = []
        self.tables: list[list[list[str]]] = []
        self.words: list[str] = []
        self.feed(text)
        self.close()
        assert not self.open, f"never closed: {self.open}"

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        assert len(dict(attrs)) == len(attrs), f"an attribute stands twice in <{tag}>"
        self._seen(tag, dict(attrs))
        if tag not in VOID:
            self.open.append(tag)
        if tag == "table":
            self.tables.append([])
        if tag == "tr":
            self.tables[-1].append([])
        if tag in ("td", "th"):
            self.tables[-1][-1].append("")

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self._seen(tag, dict(attrs))

    def _seen(self, tag: str, attrs: dict[str, str | None]) -> None:
        self.tags[tag] += 1
        self.attributes.append((tag, attrs))
        if attrs.get("id"):
            self.ids[str(attrs["id"])] += 1
        for name in ("src", "href", "xlink:href", "data", "action", "srcset", "poster"):
            if attrs.get(name):
                self.links.append(str(attrs[name]))

    def handle_endtag(self, tag: str) -> None:
        assert tag not in VOID
        assert self.open, f"</{tag}> closes nothing"
        assert self.open[-1] == tag, f"</{tag}> closes <{self.open[-1]}>"
        self.open.pop()

    def handle_data(self, data: str) -> None:
        if "style" in self.open:
            return
        self.words.append(data)
        if self.tables and self.open and {"td", "th"} & set(self.open):
            self.tables[-1][-1][-1] += f" {data}"

    @property
    def text(self) -> str:
        return re.sub(r"\s+", " ", " ".join(self.words))

    def table(self, *header: str) -> list[list[str]]:
        """Rows of the one table whose header begins so."""
        clean = [[[cell.strip() for cell in row] for row in table] for table in self.tables]
        (found,) = [table for table in clean if tuple(table[0][: len(header)]) == header]
        return found[1:]


@pytest.fixture(scope="module")
def html(results: dict[str, Any]) -> str:
    return render_report(results)


@pytest.fixture(scope="module")
def page(html: str) -> Page:
    return Page(html)


def test_ids_are_unique_and_every_link_leads_to_one(page: Page) -> None:
    assert [name for name, n in page.ids.items() if n > 1] == []
    assert page.links, "the page has a table of contents"
    assert [link for link in page.links if not link.startswith("#")] == [], "nothing is fetched"
    assert [link for link in page.links if link[1:] not in page.ids] == []


def test_nothing_is_fetched_or_run(html: str, page: Page) -> None:
    assert not {"script", "link", "iframe", "img", "object", "embed", "base"} & set(page.tags)
    assert not [name for _, attrs in page.attributes for name in attrs if name.startswith("on")]
    style = "".join(re.findall(r"<style.*?</style>", html, flags=re.DOTALL))
    assert "@import" not in style
    assert [u for u in re.findall(r"url\(([^)]*)\)", html) if not u.strip("'\"").startswith("#")] == []
    namespaces = {"http://www.w3.org/2000/svg", "http://www.w3.org/1999/xlink"}
    assert set(re.findall(r"https?://[^\s\"'<>]+", html)) <= namespaces, "names of XML languages, which nobody fetches"


def test_a_reader_without_eyes_is_told_what_figures_and_tables_show(page: Page) -> None:
    drawings = [attrs for tag, attrs in page.attributes if tag == "svg"]
    assert drawings
    assert all(attrs["role"] == "img" and attrs["aria-label"] for attrs in drawings)
    headers = [attrs for tag, attrs in page.attributes if tag == "th"]
    assert headers
    assert all(attrs["scope"] in ("row", "col") for attrs in headers)
    assert page.tags["caption"] == page.tags["table"]
    assert [attrs["lang"] for tag, attrs in page.attributes if tag == "html"] == ["en"]
    assert [attrs for tag, attrs in page.attributes if attrs.get("name") == "viewport"]


def test_the_verdict_comes_first_and_counts_right(page: Page, results: dict[str, Any]) -> None:
    counts = Counter(c["verdict"] for c in results["comparisons"])
    total = len(results["comparisons"])
    said = (
        f"Of {total} comparisons with random, {counts['better']} are better, {counts['worse']} are worse, "
        f"and {counts['no evidence']} give no evidence of a difference (level 5%, Holm-adjusted"
    )
    assert said in page.text
    assert page.text.index(said) < page.text.index("Metric: acc")
    assert "1/512 (0.002)" in page.text
    assert "knn (baseline without an LLM)" in page.text


def test_every_comparison_stands_once_with_sign_and_word(page: Page, results: dict[str, Any]) -> None:
    rows = page.table("task", "labels", "method", "verdict")
    signs = {"better": "+ better", "worse": "− worse", "no evidence": "· no evidence"}
    wanted = Counter(
        (c["task"], str(c["budget"]), c["candidate"].split("(")[0], signs[c["verdict"]]) for c in results["comparisons"]
    )
    assert Counter(tuple(row[:4]) for row in rows) == wanted
    assert max(wanted.values()) == 1
    first, c = rows[0], results["comparisons"][0]
    assert first[4] == f"{100 * c['delta']:+.1f}".replace("-", "−")
    assert first[8] == "10 × 256"


def test_a_budget_table_holds_mean_sd_verdict_interval_and_adjusted_p(page: Page, results: dict[str, Any]) -> None:
    header = ("task", "commonest label", "random", "vote_k", "ideal", "sub_sa", "max_herding")
    tables = [table for table in page.tables if tuple(cell.strip() for cell in table[0]) == header]
    assert len(tables) == 3
    cell = re.sub(r"\s+", " ", tables[1][1][3]).strip()
    c = next(c for c in results["cells"] if (c["task"], c["budget"], c["method"][:6]) == ("mrpc", 18, "vote_k"))
    d = next(
        c for c in results["comparisons"] if (c["task"], c["budget"], c["candidate"][:6]) == ("mrpc", 18, "vote_k")
    )
    assert cell.startswith(f"{100 * c['mean']:.1f} ± {100 * c['sd']:.1f} ")
    assert d["verdict"] in cell
    assert f"{100 * d['ci']['low']:+.1f}".replace("-", "−") in cell
    assert cell.endswith(f"p {d['p_adjusted']:.3f}")


def test_colour_is_never_alone(html: str) -> None:
    for state, word in (("better", "+ better"), ("worse", "− worse"), ("open", "· no evidence")):
        cells = re.findall(rf'<td class="{state}">(.*?)</td>', html, flags=re.DOTALL)
        assert cells
        assert all(word in cell for cell in cells)


def test_what_was_not_run_says_why(page: Page) -> None:
    assert "Not run: hellaswag, because its options are free text" in page.text


def test_leaks_show_the_score_with_and_without_them(page: Page) -> None:
    rows = page.table("task", "labels", "random")
    assert [row[:2] for row in rows] == [["mnli", "5"], ["mnli", "18"], ["mnli", "100"]]
    assert all("→" in cell for row in rows for cell in row[2:])


def test_the_same_results_give_the_same_bytes(html: str, results: dict[str, Any]) -> None:
    assert render_report(copy.deepcopy(results)) == html
    assert render_report(json.loads(json.dumps(results))) == html, "what was read back from results.json"


HOSTILE = "<script>alert(1)</script>&amp; \"x\" 'y' \x00\x1b[31m ]]> $x_1$ 日本語 \ud800"


def test_hostile_names_stay_text(make: Make) -> None:
    results = make(tasks=(HOSTILE, "_b"), methods=("random", f"m({HOSTILE})", f"m2({HOSTILE})"))
    results["name"] = HOSTILE
    results["versions"] = {HOSTILE: HOSTILE}
    results["tasks"]["skip <b>"] = {"skipped": "<img src=x onerror=alert(1)>"}
    html = render_report(results)
    page = Page(html)
    assert "<script" not in html
    assert "<img" not in html
    assert "<b>" not in html
    assert not [name for _, attrs in page.attributes for name in attrs if name.startswith("on")]
    assert "<script>alert(1)</script>&amp; \"x\" 'y'" in page.text, "it is shown as it is written"
    assert "日本語" in page.text
    assert not re.search(r"[\x00-\x08\x0b-\x1f\ud800-\udfff]", html)
    html.encode("utf-8")


def test_one_task_one_budget_one_method(make: Make) -> None:
    page = Page(render_report(make(tasks=("dbpedia",), methods=("random", "ideal"), budgets=(18,))))
    assert "single budget: there is no curve to draw" in page.text
    assert "Of 1 comparison with random" in page.text
    assert len(page.table("task", "labels", "method", "verdict")) == 1


def test_no_comparisons(make: Make) -> None:
    page = Page(render_report(make(methods=("random",))))
    assert "Nothing was compared with random" in page.text
    assert "there is no verdict" in page.text


def test_hundreds_of_cells(make: Make) -> None:
    tasks = tuple(f"task{i}" for i in range(12))
    methods = ("random", *(f"method{i}" for i in range(7)))
    results = make(tasks, methods, (5, 10, 20, 50))
    assert len(results["cells"]) == 384
    page = Page(render_report(results))
    assert len(page.table("task", "labels", "method", "verdict")) == 336


SECTIONS = {
    "cells": "The results hold no scores",
    "curves": "The results hold no curves",
    "comparisons": "there is no verdict",
    "density": "The results hold no densities",
    "leaks": "no check for leaks",
    "duplicates": "no check for duplicates",
    "truncation": "no check for truncated texts",
    "design": "do not record their design",
    "versions": "do not record their versions",
    "config": "do not record their config",
}


@pytest.mark.parametrize("part", SECTIONS)
def test_a_missing_part_is_named_not_invented(part: str, results: dict[str, Any], page: Page) -> None:
    without = {key: value for key, value in results.items() if key != part}
    assert SECTIONS[part] in Page(render_report(without)).text
    assert SECTIONS[part] not in page.text


def test_empty_results_make_a_page() -> None:
    assert "there is no verdict" in Page(render_report({})).text


def test_numbers_that_are_missing_become_dashes(results: dict[str, Any]) -> None:
    holes = copy.deepcopy(results)
    for c in holes["comparisons"][:3]:
        c.update(p_adjusted=None, ci=None, detectable_difference=None, delta=float("nan"))
    for c in holes["cells"][:3]:
        c.update(sd=None, ci=None)
    html = render_report(holes)
    Page(html)
    assert "nan" not in re.sub(r"<svg.*?</svg>|<style.*?</style>", "", html, flags=re.DOTALL).lower()


def test_random_is_enough_only_where_gains_are_ruled_out(make: Make) -> None:
    results = make()
    for c in results["comparisons"]:
        c.update(verdict="no evidence", mark="·", p_adjusted=1.0)
        c["ci"].update(low=-0.03, high=0.02)
    results["config"]["delta"] = 0.02
    assert "Random is enough: every interval rules out a gain above 2.0 points" in Page(render_report(results)).text
    results["comparisons"][0]["ci"]["high"] = 0.07
    open_still = Page(render_report(results)).text
    assert "Random is enough" not in open_still
    assert "No method is shown to beat random" in open_still
    assert "room for gains of up to 7.0 points" in open_still


def test_a_design_that_cannot_decide_says_so_instead_of_praising_random(make: Make) -> None:
    results = make()
    for c in results["comparisons"]:
        c.update(verdict="no evidence", mark="·", p_adjusted=1.0)
        c["ci"].update(low=-0.03, high=0.02)
    results["config"]["delta"] = 0.02
    assert "Random is enough" in Page(render_report(results)).text
    results["design"].update(draws=5, smallest_p=1 / 16, reachable=False, needed_draws=9)
    blind = Page(render_report(results)).text
    assert "Random is enough" not in blind
    assert "no data could have given a verdict" in blind
    assert "Run at least 9 draws." in blind


def test_results_of_another_schema_are_refused() -> None:
    with pytest.raises(DataError, match="icl-select/results/99"):
        render_report({"schema": "icl-select/results/99"})
    with pytest.raises(DataError, match="not a mapping"):
        render_report([])  # type: ignore[arg-type]


def test_a_density_report_has_a_panel_for_each_model(results: dict[str, Any]) -> None:
    density = results["density"]
    panels = {"minilm": density, "hash <i>": {"mrpc": density["mrpc"]}}
    html = render_density({"panels": panels, "centred": True, "seed": 0})
    page = Page(html)
    assert "hash <i>" in page.text
    rows = page.table("model", "data set")
    assert len(rows) == len(density) + 1
    wanted = [density["mrpc"][name] for name in ("nearest_mean", "neighbourhood_mean", "closeness")]
    assert next(row for row in rows if row[1] == "mrpc")[9:12] == [f"{value:.2f}" for value in wanted]
    assert "the nearest 1% of the pool" in page.text
    with pytest.raises(DataError, match=r"lacks 'share'.*measure again"):
        render_density({"panels": {"m": {"old": {k: v for k, v in density["mrpc"].items() if k != "share"}}}})
    assert page.tags["svg"] == 1
    with pytest.raises(DataError, match="no data set"):
        render_density({"panels": {}})
