"""The charts of the benchmark page show what is kept: every row, its own value, and the goal that its setting names."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as ET

import pytest
from benchmarks import report

pytest.importorskip("matplotlib")
from benchmarks import charts

PAGE = Path(__file__).parents[2] / "docs" / "benchmarks.md"
PARTS = sorted(report.stored())
DRAWN = {(drawn.part, drawn.benchmark) for drawn in (*charts.BARS, *charts.CURVES)}
KEPT = [bars for bars in charts.BARS if bars.benchmark in report.stored().get(bars.part, {})]


@cache
def figures(part: str) -> list[Any]:
    return [figure for _, figure in charts.figures(part)]


html = cache(charts.as_html)


def panel(thing: charts.Bars | charts.Curve) -> Any:
    """The axes that show it."""
    titled = [axes for figure in figures(thing.part) for axes in figure.axes]
    return next(axes for axes in titled if axes.get_title(loc="left") == thing.title)


def name(thing: charts.Bars | charts.Curve) -> str:
    return f"{thing.part}: {thing.title}"


@pytest.mark.parametrize("bars", KEPT, ids=name)
def test_every_row_is_a_bar_as_long_as_its_value(bars: charts.Bars) -> None:
    axes, rows = panel(bars), report.stored()[bars.part][bars.benchmark]["rows"]
    assert [bar.get_x() + bar.get_width() for bar in axes.patches] == pytest.approx([row[bars.value] for row in rows])
    assert [label.get_text() for label in axes.get_yticklabels()] == bars.labels()
    assert len(set(bars.labels())) == len(rows), "two rows have one name"
    low, high = axes.get_xlim()
    assert all(low < row[bars.value] < high for row in rows)


@pytest.mark.parametrize("bars", [bars for bars in KEPT if bars.goal() is not None], ids=name)
def test_goals_are_marked_where_they_were_set(bars: charts.Bars) -> None:
    rows = report.stored()[bars.part][bars.benchmark]["rows"]
    marks = [lines for lines in panel(bars).collections if str(lines.get_label()).startswith("goal")]
    assert [mark.get_segments()[0][0][0] for mark in marks] == [bars.goal()] * sum(map(bars.aims, rows))
    assert marks


def test_every_goal_about_shares_and_ratios_is_drawn() -> None:
    told = {
        (part, benchmark, column)
        for part, benchmarks in report.stored().items()
        for benchmark, kept in benchmarks.items()
        for column in re.findall(r"(\w+) >= ", f"{kept['setting'].get('goal', '')}, {kept['setting'].get('goals', '')}")
    }
    assert told == {(bars.part, bars.benchmark, bars.value) for bars in KEPT if bars.goal() is not None}


@pytest.mark.parametrize("curve", [c for c in charts.CURVES if c.benchmark in report.stored()[c.part]], ids=name)
def test_every_row_is_a_point_of_its_curve(curve: charts.Curve) -> None:
    rows = report.stored()[curve.part][curve.benchmark]["rows"]
    measured = [line for line in panel(curve).lines if line.get_marker() == "o"]
    points = [tuple(point) for line in measured for point in line.get_xydata()]
    assert sorted(points) == sorted((row[curve.x], row[curve.y]) for row in rows)
    if curve.bound is not None:
        assert len(panel(curve).lines) == 2 * len(measured)
        assert all(curve.bound(row) > 0 for row in rows)


def test_every_benchmark_against_a_peer_has_a_chart() -> None:
    rivals = {
        (part, benchmark)
        for part, benchmarks in report.stored().items()
        for benchmark, kept in benchmarks.items()
        if any("ratio" in column for column in kept["rows"][0])
    }
    assert rivals - DRAWN == set()


@pytest.mark.parametrize("part", PARTS)
def test_the_svg_stands_in_any_page(part: str) -> None:
    """One line (a blank one would end the block), in the page's colours, with nothing from elsewhere."""
    text = html(part)
    assert "\n" not in text
    assert charts.INK not in text
    assert charts.FAINT not in text
    assert not re.search(r"(?:href|src)=\"(?!#)", text)
    for svg in re.findall(r"<svg.*?</svg>", text):
        ET.fromstring(svg)  # it is well formed
        assert 'aria-label="' in svg


def test_names_are_unique_within_the_page() -> None:
    found = [identity for part in PARTS for identity in set(re.findall(r' id="([^"]+)"', html(part)))]
    assert len(found) == len(set(found))


def test_the_page_has_all_charts() -> None:
    page = PAGE.read_text()
    assert [part for part, _ in DRAWN if f"<!-- charts: {part} -->" not in page] == []


@pytest.fixture
def results(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Figures of one's own; what was drawn from others is forgotten before and after."""
    monkeypatch.setattr(report, "RESULTS", tmp_path)
    monkeypatch.setattr(report, "PACKAGES", ("numpy",))
    figures.cache_clear()
    yield tmp_path
    figures.cache_clear()


def test_figures_that_are_no_numbers_are_told_in_words(results: Path) -> None:
    odd: list[Any] = [None, "all of it", float("nan"), True]
    rows = [{"clock": f"{value}", "ratio": value} for value in odd]
    kept = {"import and construct": {"setting": {}, "machine": report.machine(), "rows": rows}}
    (results / "foundation.json").write_text(json.dumps(kept))
    axes = panel(charts.BARS[0])
    assert [bar.get_width() for bar in axes.patches] == [0] * len(odd)
    assert [text.get_text() for text in axes.texts] == ["not measured", "all of it", "nan", "True"]
    assert "all of it" in charts.as_html("foundation")
    assert report.as_markdown("foundation").count("all of it") == 2
