"""Figures: the same bytes for the same numbers, the curves that were asked for, nothing global touched."""

from __future__ import annotations

import re
import subprocess
import sys
from typing import Any
from xml.etree import ElementTree

import matplotlib
import numpy as np
import pytest

from icl_select.errors import DataError, ParameterError
from icl_select.report import budget_figure, density_figure, figure_bytes
from icl_select.report.plots import svg_text

POINTS = [
    {"budget": 5, "mean": 0.31, "ci": {"low": 0.28, "high": 0.35}},
    {"budget": 18, "mean": 0.42, "ci": {"low": 0.40, "high": 0.44}},
    {"budget": 100, "mean": 0.55, "ci": None},
]


def test_the_curves_are_the_numbers() -> None:
    figure = budget_figure("mrpc", {"ideal": POINTS, "random": POINTS[::-1]})
    (axes,) = figure.axes
    assert [text.get_text() for text in axes.get_xticklabels()] == ["5", "18", "100"]
    drawn = {container.get_label(): container for container in axes.containers}
    assert set(drawn) == {"random", "ideal"}
    for container in drawn.values():
        np.testing.assert_allclose(container.lines[0].get_ydata(), [31, 42, 55])
        (bars,) = container.lines[2]
        np.testing.assert_allclose([segment[:, 1] for segment in bars.get_segments()], [[28, 35], [40, 44], [55, 55]])
    looks = {(c.lines[0].get_color(), c.lines[0].get_marker(), str(c.lines[0].get_linestyle())) for c in drawn.values()}
    assert len({look[1:] for look in looks} | {look[0] for look in looks}) >= 3, "more than colour tells curves apart"


def test_methods_differ_in_more_than_colour() -> None:
    series = {f"m{i}": POINTS for i in range(8)}
    (axes,) = budget_figure("t", series).axes
    markers = [container.lines[0].get_marker() for container in axes.containers]
    assert len(set(markers)) == 8


@pytest.mark.parametrize("suffix", ["png", "svg"])
def test_bytes_are_the_same_every_time(suffix: str, results: dict[str, Any]) -> None:
    panels = {"minilm": results["density"]}
    first = figure_bytes(density_figure(panels), suffix)
    assert figure_bytes(density_figure(panels), suffix) == first
    assert first[:4] == {"png": b"\x89PNG", "svg": b"<?xm"}[suffix]
    assert b"Date" not in first


def test_a_density_figure_has_a_panel_for_each_model_and_a_curve_for_each_data_set(results: dict[str, Any]) -> None:
    density = results["density"]
    two = {name: density[name] for name in ("mrpc", "rte")}
    figure = density_figure({"minilm": density, "mpnet": two, "hash": two, "gpt-j": two})
    shown = [axes for axes in figure.axes if axes.get_title(loc="left")]
    assert [axes.get_title(loc="left") for axes in shown] == ["minilm", "mpnet", "hash", "gpt-j"]
    named = [[line for line in axes.get_lines() if line.get_label()[0] != "_"] for axes in shown]
    assert [len(lines) for lines in named] == [8, 2, 2, 2]
    colours = {line.get_label(): line.get_color() for line in named[0]}
    assert all(colours[line.get_label()] == line.get_color() for line in named[1]), "a data set keeps its look"
    (legend,) = figure.legends
    assert [text.get_text() for text in legend.get_texts()] == list(density)


def test_the_curve_of_a_density_holds_all_of_it(results: dict[str, Any]) -> None:
    figure = density_figure({"m": {"mrpc": results["density"]["mrpc"]}})
    line = figure.axes[0].get_lines()[0]
    x, y = line.get_data()
    assert np.trapezoid(y, x) == pytest.approx(1.0, abs=0.02)
    assert np.trapezoid(np.asarray(x) * y, x) == pytest.approx(results["density"]["mrpc"]["mean"], abs=0.01)


def test_a_figure_inside_a_page_has_ids_of_its_own() -> None:
    figure = budget_figure("a & <b>", {"random": POINTS, "$x_1$ <i>": POINTS, "_hidden": POINTS})
    text = svg_text(figure, name="curve one")
    root = ElementTree.fromstring(text)
    assert root.tag.endswith("svg")
    ids = re.findall(r'\bid="([^"]+)"', text)
    assert ids
    assert all(name.startswith("curve-one-") for name in ids)
    assert len(set(ids)) == len(ids)
    assert set(re.findall(r"(?:url\(#|href=\"#)([^\")]+)", text)) <= set(ids)
    assert "metadata" not in text
    assert "$x_1$ &lt;i&gt;" in text
    assert "_hidden" in text
    assert root.get("height") is None, "the page scales it"
    assert root.get("viewBox")


def test_drawing_changes_no_setting(results: dict[str, Any]) -> None:
    before = dict(matplotlib.rcParams)
    figure_bytes(density_figure({"m": results["density"]}), "svg")
    figure_bytes(budget_figure("t", {"random": POINTS}), "png")
    assert dict(matplotlib.rcParams) == before


def test_nothing_to_draw_is_an_error() -> None:
    with pytest.raises(DataError, match="at least one series"):
        budget_figure("t", {})
    with pytest.raises(DataError, match="no data set"):
        density_figure({"minilm": {}})
    with pytest.raises(ParameterError, match="Pass 'png' or 'svg'"):
        figure_bytes(budget_figure("t", {"random": POINTS}), "gif")


def test_the_package_loads_matplotlib_only_when_it_draws() -> None:
    code = (
        "import sys, icl_select.report; from icl_select.report import render_table, render_report; "
        "render_report({}); sys.exit('matplotlib' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_eight_curves_on_top_of_each_other_differ_without_colour(results: dict[str, Any]) -> None:
    same = next(iter(results["density"].values()))
    lines = [
        line
        for line in density_figure({"m": {f"set {i}": same for i in range(8)}}).axes[0].get_lines()
        if line.get_label()[:1] != "_"
    ]
    assert len({line.get_marker() for line in lines}) == 8
    places = [place for line in lines for place in line.get_markevery()]
    assert len(set(places)) >= 0.75 * len(places), "markers of equal curves stand beside each other"
