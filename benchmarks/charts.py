"""Charts of the figures that are kept, as SVG that takes the colours of the page it stands in.

What a chart shows is said in tables here, and nothing of it is known twice: every row of a benchmark becomes a bar (or
a point), and goals are read from the benchmark's own setting.
"""

from __future__ import annotations

import html
import io
import math
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

from . import report

Row = Mapping[str, Any]
INK, FAINT, OURS, PEER, GOAL = "#010203", "#040506", "#009688", "#9e9e9e", "#e65100"
"""The first two stand for the page's colour of text, whole and faint; the others are readable on white and black."""
STYLE = {
    "font.size": 9,
    "font.family": "sans-serif",
    "text.color": INK,
    "axes.edgecolor": FAINT,
    "axes.labelcolor": INK,
    "xtick.color": INK,
    "ytick.color": INK,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "legend.frameon": False,
}


class Bars(NamedTuple):
    """One benchmark as bars: a column of its rows, against what 1 stands for."""

    part: str
    benchmark: str
    value: str
    label: str
    """How a row is called, with its columns in braces."""
    title: str
    one: str | None
    """What has the value 1: the peer, or what is possible; None where 1 means nothing."""
    log: bool = True
    aims: Callable[[Row], bool] = lambda row: True  # noqa: ARG005
    """Which rows the benchmark's goal is about."""
    other: Callable[[Row], bool] = lambda row: False  # noqa: ARG005
    """Which rows are not ours: a peer, or a bare loop that marks the limit."""
    limit: str | None = None
    """Of several bars the one that is a physical limit, by its label."""
    at_least: Callable[[Row], bool] = lambda row: False  # noqa: ARG005
    """Which rows are lower bounds, since the peer did not finish."""

    def goal(self) -> float | None:
        """What the benchmark's own setting wants of this column at least."""
        setting = report.stored()[self.part][self.benchmark]["setting"]
        told = f"{setting.get('goal', '')}, {setting.get('goals', '')}"
        found = re.search(rf"\b{self.value} >= ([\d.,]*\d)", told)
        return float(found[1].replace(",", "")) if found else None

    def rows(self) -> list[Row]:
        """The rows that are kept."""
        return list(report.stored()[self.part][self.benchmark]["rows"])

    def labels(self) -> list[str]:
        """A name for each row."""
        return [self.label.format(**{key: _plain(value) for key, value in row.items()}) for row in self.rows()]


def _is(column: str, *values: object) -> Callable[[Row], bool]:
    return lambda row: row[column] in values


FASTER = "times faster than"
BARS = (
    Bars(
        "foundation",
        "import and construct",
        "ratio",
        "{clock}",
        f"Import and construct: {FASTER} cortical-tools",
        "cortical-tools",
    ),
    Bars(
        "foundation",
        "root_id_to_cell_id",
        "ratio",
        "{part}, {ids} ids",
        f"Roots to cells: {FASTER} cortical-tools",
        "cortical-tools",
        at_least=_is("peer_finished", False),
    ),
    Bars(
        "foundation",
        "transport",
        "of_bound",
        "{in_flight} at once",
        "Transport: share of requests at once / delay",
        "the bound",
        log=False,
        aims=_is("in_flight", 16),
    ),
    Bars(
        "foundation",
        "transport",
        "of_bare",
        "{in_flight} at once",
        "Transport: share of a bare client's rate",
        "the bare client",
        log=False,
        aims=_is("in_flight", 64),
    ),
    Bars("graph", "roots, costs on", "ratio", "get_roots, {ids} ids", f"Look-ups: {FASTER} caveclient", "caveclient"),
    Bars(
        "graph",
        "timestamps",
        "cpu_ratio",
        "timestamps, {way}",
        "Look-ups: times less CPU than caveclient",
        "caveclient",
        aims=_is("way", "a call for each"),
    ),
    Bars(
        "graph",
        "roots, costs off",
        "of_bare",
        "get_roots, {ids} ids",
        "Look-ups: share of a bare loop's rate",
        "the bare loop",
        log=False,
    ),
    Bars("index", "roots to cells, file to file", "ids_per_s", "{ids} ids", "Index: ids a second", None, log=False),
    Bars(
        "limits",
        "300 queries a minute",
        "of_limit",
        "{way}",
        "Share of the 300 queries a minute",
        "the limit",
        log=False,
        aims=_is("way", "limit known", "limit learned"),
        other=_is("way", "naive gather"),
    ),
    Bars(
        "tables",
        "a whole table",
        "peer_cpu_ratio",
        "{call}",
        "A whole table: times less CPU",
        "caveclient",
        other=_is("call", "caveclient query_table()", "receive + decode"),
        limit="receive + decode",
    ),
    Bars(
        "tables",
        "synapses of many roots",
        "ratio",
        "{call}",
        "Synapses: times our time",
        "query_synapses",
        other=_is("call", "cortical-tools, batches of 10", "one root a batch"),
    ),
    Bars(
        "exports",
        "a dump",
        "peer_cpu_ratio",
        "{call}",
        "A dump: times less CPU than cortical-tools",
        "cortical-tools",
        other=_is("call", "cortical-tools get_table"),
    ),
    Bars(
        "skeletons",
        "cached skeletons as arrays",
        "over_our_service",
        "{route}",
        "Skeletons: times our time",
        "ours",
        other=lambda row: row["route"].startswith("caveclient"),
    ),
    Bars(
        "skeletons",
        "cached skeletons as arrays",
        "cpu_over_bare",
        "{route}",
        "Skeletons: CPU, times that of decoding the same bytes",
        "decoding alone",
        other=lambda row: row["route"].startswith("caveclient"),
    ),
    *(
        Bars(
            "skeletons",
            f"Meshworks with synapses, {cells}",
            "ratio",
            "{who}",
            f"Meshworks, {cells}: times our time",
            "ours",
            other=_is("who", "pcg_skel"),
        )
        for cells in ("real neurons", "synthetic cells")
    ),
    Bars(
        "meshes",
        "against cloud-volume",
        "ratio",
        "fragments {layout}",
        f"Meshes: {FASTER} cloud-volume",
        "cloud-volume",
    ),
    Bars(
        "meshes",
        "against cloud-volume",
        "cpu_ratio",
        "fragments {layout}",
        "Meshes: times less CPU than cloud-volume",
        "cloud-volume",
    ),
    Bars(
        "meshes",
        "labels of vertices",
        "ratio",
        "{method}",
        f"Labels of vertices: {FASTER} cortical-tools",
        "cortical-tools",
        other=_is("method", "cortical-tools"),
    ),
)


class Curve(NamedTuple):
    """A benchmark that was repeated at growing sizes."""

    part: str
    benchmark: str
    x: str
    y: str
    title: str
    bound: Callable[[Row], float] | None = None
    """What physics allows at best, in the unit of ``y``."""
    route: str | None = None
    """The column that tells several curves apart."""

    def rows(self) -> list[Row]:
        """The rows that are kept."""
        return list(report.stored()[self.part][self.benchmark]["rows"])


CURVES = (
    Curve(
        "growth",
        "root look-ups by number of ids",
        "ids",
        "seconds",
        "Root look-ups: seconds, by number of ids",
        lambda row: row["bound_s"],
    ),
    Curve(
        "growth",
        "root look-ups by requests at once",
        "in_flight",
        "ids_per_s",
        "Root look-ups a second, by requests at once",
        lambda row: row["ids"] / row["bound_s"],
    ),
    Curve(
        "growth",
        "roots to cells by number of ids",
        "ids",
        "seconds",
        "Roots to cells: seconds, by number of ids",
        route="route",
    ),
)


def figures(part: str) -> list[tuple[str, Figure]]:
    """The charts of a part, each with its text for whoever cannot see it; none if nothing is kept."""
    kept = report.stored().get(part, {})
    panels = [bars for bars in BARS if bars.part == part and bars.benchmark in kept]
    curves = [curve for curve in CURVES if curve.part == part and curve.benchmark in kept]
    found = []
    with mpl.rc_context(STYLE):
        if panels:
            found.append(("; ".join(_told(bars) for bars in panels), _bars_figure(panels)))
        if curves:
            found.append(("; ".join(curve.title for curve in curves), _curves_figure(curves)))
    return found


def as_html(part: str) -> str:
    """The charts of a part as one block of HTML, which is nothing but inline SVG."""
    with mpl.rc_context({"svg.fonttype": "none", "svg.hashsalt": part}):
        return "".join(_svg(told, figure) for told, figure in figures(part))


def _told(bars: Bars) -> str:
    values = (f"{label} {_text(row.get(bars.value))}" for label, row in zip(bars.labels(), bars.rows(), strict=True))
    return f"{bars.title}: {', '.join(values)}"


def _bars_figure(panels: Sequence[Bars]) -> Figure:
    counts = [len(bars.rows()) for bars in panels]
    figure = Figure(figsize=(7.6, sum(0.27 * n + 0.62 for n in counts)), layout="constrained")
    drawn = figure.subplots(len(panels), 1, height_ratios=[n + 0.8 for n in counts], squeeze=False)
    for axes, bars in zip(drawn[:, 0], panels, strict=True):
        _draw_bars(axes, bars)
    return figure


def _draw_bars(axes: Axes, bars: Bars) -> None:
    rows, labels, goal = bars.rows(), bars.labels(), bars.goal()
    known = {place: float(row[bars.value]) for place, row in enumerate(rows) if _is_number(row.get(bars.value))}
    start = min([1.0, *known.values()]) / 1.6 if bars.log else 0.0
    ends = [known.get(place, start) for place in range(len(rows))]
    colours = [PEER if bars.other(row) else OURS for row in rows]
    axes.barh(range(len(rows)), [end - start for end in ends], left=start, height=0.62, color=colours)
    for place, row in enumerate(rows):
        more = "≥ " if bars.at_least(row) else ""
        text = f"{more}{_text(row.get(bars.value))}"
        axes.text(1.0, place, text, transform=axes.get_yaxis_transform(), ha="right", va="center")
        if goal is not None and bars.aims(row):
            axes.vlines(goal, place - 0.42, place + 0.42, color=GOAL, lw=2, label=f"goal: at least {_text(goal)}")
    if bars.one is not None:
        axes.axvline(1, color=FAINT, lw=1, ls="--", label=f"1: {bars.one}")
    if bars.limit is not None:
        axes.axvline(ends[labels.index(bars.limit)], color=INK, lw=1, label=f"limit: {bars.limit}")
    axes.set_yticks(range(len(rows)), labels)
    axes.invert_yaxis()
    axes.set_title(bars.title, loc="left", fontsize=9, fontweight="bold")
    _scale(axes, bars.log, start, max([*ends, goal or 1, 1]))
    _legend(axes)


def _scale(axes: Axes, log: bool, low: float, high: float) -> None:
    if log:
        axes.set_xscale("log")
        axes.set_xlim(low, high * (high / low) ** 0.12)
        axes.xaxis.set_minor_formatter(NullFormatter())
    else:
        axes.set_xlim(0, high * 1.15)
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: _text(value)))
    axes.tick_params(axis="y", length=0)


def _curves_figure(curves: Sequence[Curve]) -> Figure:
    figure = Figure(figsize=(7.6, 3.0 * len(curves)), layout="constrained")
    for axes, curve in zip(figure.subplots(len(curves), 1, squeeze=False)[:, 0], curves, strict=True):
        _draw_curve(axes, curve)
    return figure


def _draw_curve(axes: Axes, curve: Curve) -> None:
    routes: dict[str, list[Row]] = {}
    for row in curve.rows():
        routes.setdefault(row[curve.route] if curve.route else "measured", []).append(row)
    colours = (OURS, GOAL, PEER, INK)
    for colour, (route, rows) in zip(colours, routes.items(), strict=False):
        xs, ys = [row[curve.x] for row in rows], [row[curve.y] for row in rows]
        axes.plot(xs, ys, "o-", color=colour, ms=5, label=route)
        for x, y in zip(xs, ys, strict=True):
            axes.annotate(_text(y), (x, y), (0, 7), textcoords="offset points", ha="center", fontsize=8)
        if curve.bound is not None:
            axes.plot(
                xs,
                [curve.bound(row) for row in rows],
                "--",
                color=FAINT,
                lw=1.2,
                label="bound: what latency, price and workers allow",
            )
    axes.set(xscale="log", yscale="log", xlabel=curve.x.replace("_", " "))
    axes.margins(y=0.18)
    if curve.x == "in_flight":
        axes.set_xticks([row[curve.x] for row in curve.rows()])
    axes.xaxis.set_minor_locator(LogLocator(subs=()))
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_formatter(FuncFormatter(lambda value, _: _text(value)))
        axis.set_minor_formatter(NullFormatter())
    axes.set_title(curve.title, loc="left", fontsize=9, fontweight="bold")
    axes.legend(loc="best", fontsize=8)


def _legend(axes: Axes) -> None:
    """What the lines mean, once each, above the plot on the right."""
    handles, labels = axes.get_legend_handles_labels()
    once = dict(zip(labels, handles, strict=True))
    if once:
        axes.legend(
            once.values(),
            once.keys(),
            loc="lower right",
            bbox_to_anchor=(1.0, 0.98),
            ncols=len(once),
            fontsize=8,
            borderaxespad=0.2,
            handlelength=1.4,
            columnspacing=1.0,
        )


def _svg(told: str, figure: Figure) -> str:
    """Inline SVG: no blank line, no name that another chart of the page may have, the page's own colours."""
    file = io.StringIO()
    figure.savefig(file, format="svg", transparent=True, metadata={"Date": None, "Creator": None})
    text = file.getvalue()
    text = text[text.index("<svg") :].replace(INK, "currentColor")
    text = text.replace(f"stroke: {FAINT}", "stroke: currentColor; stroke-opacity: 0.45")
    text = re.sub(r"<metadata>.*?</metadata>|<style.*?</style>|<!--.*?-->", "", text, flags=re.DOTALL)
    text = re.sub(r' id="(?:figure|axes|patch|line2d|matplotlib|text|legend|xtick|ytick|LineCollection)\S*"', "", text)
    text = re.sub(r'width="[\d.]+pt" height="[\d.]+pt"|height="[\d.]+pt"', "", text, count=1)
    described = text.replace("<svg", f'<svg role="img" class="chart" aria-label="{html.escape(told)}"', 1)
    return re.sub(r"\n\s*", " ", described).strip()


def _plain(value: Any) -> Any:
    return f"{value:,}" if isinstance(value, int) and not isinstance(value, bool) else value


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _text(value: Any) -> str:
    if not _is_number(value):
        return "not measured" if value is None else str(value)
    for size, letter in ((1e6, "M"), (1e3, "k")):
        if abs(value) >= size:
            return f"{value / size:.3g}{letter}"
    return f"{value:.3g}"
