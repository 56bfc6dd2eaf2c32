"""Line charts as inline SVG.

Laws: pure (data in, text out); every chart has a title, a unit on each axis, round ticks, and a text for those
who do not see it (`title` and `desc`); every word from outside is escaped; colours are CSS variables, so that
one picture is right on light paper, on a dark screen and in print; series differ in dash as well as in colour.
It does not know what a load test is.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from html import escape
from typing import Literal

from loadtest.axes import Axis, Scale, scaled

Point = tuple[float, float]

WIDTH, HEIGHT = 480, 300
# The mean advance of a letter at 12 px in the faces that browsers fall back to; measuring it takes a browser.
_LETTER = 7.3
_RIGHT, _BOTTOM = 22, 46
_DASHES = ("", "6 3", "2 3", "9 3 2 3", "12 4", "1 4")

STYLE = """
.chart{--ink:#1b1f24;--faint:#626b76;--grid:#d9dee4;--ground:#fff;--bad:#c22b3b;
--tone0:#1f66c1;--tone1:#c8550b;--tone2:#16805a;--tone3:#7b3fb5;--tone4:#8a6d00;--tone5:#5b6570;
font:12px system-ui,-apple-system,"Segoe UI",Roboto,"Helvetica Neue",Arial,sans-serif}
.chart text{fill:var(--faint);font-variant-numeric:tabular-nums}
.chart .head{fill:var(--ink);font-size:14px;font-weight:600}.chart .key{fill:var(--ink)}
.chart .grid{stroke:var(--grid);stroke-width:1}.chart .axis{stroke:var(--faint);stroke-width:1}
.chart .line{fill:none;stroke-width:1.8;stroke-linejoin:round;stroke-linecap:round}
.chart .whisker{stroke-width:1.2;opacity:.75}.chart .dot{stroke-width:1.6}.chart .hollow{fill:var(--ground)}
.chart .mark{stroke:var(--bad);stroke-width:1.2;stroke-dasharray:4 3}
.chart .marked{fill:var(--bad);paint-order:stroke;stroke:var(--ground);stroke-width:3px}
.chart .band{fill:var(--faint);opacity:.12}.chart .ground{fill:var(--ground)}
@media (prefers-color-scheme:dark){.chart{
--ink:#e8ecf1;--faint:#9aa5b1;--grid:#303841;--ground:#14181d;--bad:#ff7b86;
--tone0:#6cb0ff;--tone1:#ff9e57;--tone2:#4fd1a1;--tone3:#c79bff;--tone4:#e3c04a;--tone5:#aab4bf}}
@media print{.chart{--ink:#000;--faint:#444;--grid:#ccc;--ground:#fff;--bad:#b00020;
--tone0:#1f66c1;--tone1:#c8550b;--tone2:#16805a;--tone3:#7b3fb5;--tone4:#8a6d00;--tone5:#5b6570}}
""".strip()


@dataclass(frozen=True, slots=True)
class Series:
    """One named run of points, in the order of x; a point whose y is not finite leaves a gap.

    `whiskers` gives each point its (lowest, highest) seen; `hollow` draws points that do not count as rings.
    """

    name: str
    points: Sequence[Point]
    tone: int = 0
    draw: Literal["line", "dots", "both"] = "line"
    whiskers: Sequence[Point] = ()
    hollow: bool = False
    dash: int | None = None


@dataclass(frozen=True, slots=True)
class Mark:
    """A reference line with a word on it: across at a value of y, or upright at a value of x."""

    name: str
    value: float
    along: Literal["x", "y"] = "y"


@dataclass(frozen=True, slots=True)
class Band:
    """A shaded stretch of x, such as a warm-up."""

    name: str
    start: float
    end: float


@dataclass(frozen=True, slots=True)
class Chart:
    """What to draw; `svg()` draws it.

    `description` says in words what the picture shows; `name` is unique on the page (it becomes an id).
    """

    name: str
    title: str
    description: str
    x: Axis
    y: Axis
    series: Sequence[Series]
    marks: Sequence[Mark] = ()
    bands: Sequence[Band] = ()
    empty: str = "no data"


@dataclass(frozen=True, slots=True)
class _Frame:
    """Where the plot lies in the picture, and the two scales that place a point in it."""

    left: float
    top: float
    x: Scale
    y: Scale

    @property
    def right(self) -> float:
        return WIDTH - _RIGHT

    @property
    def bottom(self) -> float:
        return HEIGHT - _BOTTOM

    def across(self, value: float) -> float:
        return self.left + self.x.at(value) * (self.right - self.left)

    def up(self, value: float) -> float:
        return self.bottom - self.y.at(value) * (self.bottom - self.top)


def svg(chart: Chart) -> str:
    """The chart as one `<svg>` element, to be used where `STYLE` is in force."""
    shown = [replace(s, points=thin(s.points)) if not s.whiskers else s for s in chart.series]
    keys, lines = _legend(shown)
    frame = _framed(chart, shown, top=46 + 17 * lines)
    name = escape(chart.name, quote=True)
    body = [
        f'<svg class="chart" viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-labelledby="{name}-t {name}-d">',
        f'<title id="{name}-t">{escape(chart.title)}</title>',
        f'<desc id="{name}-d">{escape(chart.description)}</desc>',
        f'<rect class="ground" width="{WIDTH}" height="{HEIGHT}"/>',
        f'<text class="head" x="2" y="16">{escape(chart.title)}</text>',
        *keys,
    ]
    if any(_finite(p) for s in shown for p in s.points):
        body += _grid(frame)
        body += [_band(frame, band) for band in chart.bands]
        body += [_drawn(frame, series, i) for i, series in enumerate(shown)]
        body += [_mark(frame, mark) for mark in chart.marks]
    else:
        body.append(f'<text x="{WIDTH / 2}" y="{HEIGHT / 2}" text-anchor="middle">{escape(chart.empty)}</text>')
    return "".join((*body, "</svg>"))


def sheet(charts: Sequence[Chart], title: str, *, columns: int = 2) -> str:
    """A standalone SVG file of several charts side by side, its style inside."""
    rows = math.ceil(len(charts) / columns)
    width, height = columns * (WIDTH + 20) + 20, rows * (HEIGHT + 20) + 50
    placed = []
    for i, chart in enumerate(charts):
        x, y = 20 + (i % columns) * (WIDTH + 20), 50 + (i // columns) * (HEIGHT + 20)
        placed.append(f'<svg x="{x}" y="{y}" width="{WIDTH}" height="{HEIGHT}">{svg(chart)}</svg>')
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" class="chart" viewBox="0 0 {width} {height}" '
        f'width="{width}" height="{height}" role="img" aria-label="{escape(title, quote=True)}">'
        f"<style>{STYLE}</style>"
        f'<rect class="ground" width="{width}" height="{height}"/>'
        f'<text class="head" x="22" y="30">{escape(title)}</text>{"".join(placed)}</svg>\n'
    )


def thin(points: Sequence[Point], most: int = 480) -> Sequence[Point]:
    """At most `most` points that look the same: of each stretch the lowest and the highest, in their order.

    Averages would hide the one slow second that the chart is there to show.
    """
    if len(points) <= most:
        return points
    width = math.ceil(len(points) / (most // 2))
    kept: list[Point] = []
    for start in range(0, len(points), width):
        stretch = points[start : start + width]
        known = [i for i, p in enumerate(stretch) if _finite(p)] or [0]
        pair = {min(known, key=lambda i: stretch[i][1]), max(known, key=lambda i: stretch[i][1])}
        kept += [stretch[i] for i in sorted(pair)]
    return kept


def _finite(point: Point) -> bool:
    return math.isfinite(point[0]) and math.isfinite(point[1])


def _framed(chart: Chart, shown: Sequence[Series], top: float) -> _Frame:
    points = [p for s in shown for p in s.points if _finite(p)]
    heights = [y for _, y in points] + [y for s in shown for pair in s.whiskers for y in pair]
    heights += [m.value for m in chart.marks if m.along == "y"]
    widths = [x for x, _ in points] + [m.value for m in chart.marks if m.along == "x"]
    y = scaled(chart.y, heights, most=5)
    widest = max(len(chart.y.text(tick)) for tick in y.ticks)
    return _Frame(14 + widest * _LETTER, top, scaled(chart.x, widths), y)


def _legend(shown: Sequence[Series]) -> tuple[list[str], int]:
    """The names of the series under the title, wrapped, and how many lines they took."""
    if len(shown) < 2:
        return [], 0
    parts: list[str] = []
    x, line = 2.0, 0
    for i, series in enumerate(shown):
        need = 34 + len(series.name) * _LETTER
        if x > 2 and x + need > WIDTH:
            x, line = 2.0, line + 1
        y = 34 + line * 17
        parts.append(_swatch(series, i, x, y - 4))
        parts.append(f'<text class="key" x="{x + 26:.0f}" y="{y}">{escape(series.name)}</text>')
        x += need + 10
    return parts, line + 1


def _swatch(series: Series, index: int, x: float, y: float) -> str:
    line = "" if series.draw == "dots" else f'<path class="line" {_stroke(series, index)} d="M{x:.0f} {y}h20"/>'
    return line if series.draw == "line" else line + _dot(series, x + 10, y)


def _stroke(series: Series, index: int) -> str:
    dash = _DASHES[(index if series.dash is None else series.dash) % len(_DASHES)]
    dashed = f' stroke-dasharray="{dash}"' if dash else ""
    return f'style="stroke:var(--tone{series.tone % 6})"{dashed}'


def _dot(series: Series, x: float, y: float) -> str:
    tone = f"var(--tone{series.tone % 6})"
    fill = "" if series.hollow else f";fill:{tone}"
    hollow = " hollow" if series.hollow else ""
    return f'<circle class="dot{hollow}" style="stroke:{tone}{fill}" cx="{x:.1f}" cy="{y:.1f}" r="3.2"/>'


def _grid(frame: _Frame) -> list[str]:
    x_axis, y_axis = frame.x.axis, frame.y.axis
    parts = [f'<text x="2" y="{frame.top - 10:.0f}">{escape(y_axis.title)}</text>']
    for tick in frame.y.ticks:
        y = frame.up(tick)
        parts.append(f'<path class="grid" d="M{frame.left:.1f} {y:.1f}H{frame.right}"/>')
        parts.append(_label(frame.left - 6, y + 4, y_axis.text(tick), "end"))
    edge = -math.inf
    for tick in frame.x.ticks:
        x, text = frame.across(tick), x_axis.text(tick)
        parts.append(f'<path class="axis" d="M{x:.1f} {frame.bottom}v4"/>')
        half = len(text) * _LETTER / 2
        middle = min(x, WIDTH - half)
        # A label that would touch the one before it is left out; its tick stays.
        if middle - half > edge + 4:
            parts.append(_label(middle, frame.bottom + 18, text, "middle"))
            edge = middle + half
    parts.append(f'<path class="axis" d="M{frame.left:.1f} {frame.bottom}H{frame.right}"/>')
    parts.append(_label((frame.left + frame.right) / 2, HEIGHT - 8, x_axis.title, "middle"))
    return parts


def _label(x: float, y: float, text: str, anchor: str, css: str = "") -> str:
    css = f' class="{css}"' if css else ""
    return f'<text{css} x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{escape(text)}</text>'


def _band(frame: _Frame, band: Band) -> str:
    left, right = frame.across(band.start), frame.across(band.end)
    if right - left < 0.5:
        return ""
    rectangle = (
        f'<rect class="band" x="{left:.1f}" y="{frame.top}" width="{right - left:.1f}" '
        f'height="{frame.bottom - frame.top}"/>'
    )
    fits = right - left > len(band.name) * _LETTER
    return rectangle + (_label((left + right) / 2, frame.top + 12, band.name, "middle") if fits else "")


def _mark(frame: _Frame, mark: Mark) -> str:
    if mark.along == "y":
        y = frame.up(mark.value)
        text = _label(frame.left + 6, y - 4 if y > frame.top + 14 else y + 13, mark.name, "start", "marked")
        return f'<path class="mark" d="M{frame.left:.1f} {y:.1f}H{frame.right}"/>{text}'
    x = frame.across(mark.value)
    anchor, shift = ("end", -5) if x > (frame.left + frame.right) / 2 else ("start", 5)
    text = _label(x + shift, frame.top + 12, mark.name, anchor, "marked")
    return f'<path class="mark" d="M{x:.1f} {frame.top}V{frame.bottom}"/>{text}'


def _drawn(frame: _Frame, series: Series, index: int) -> str:
    parts = [_whisker(frame, series, p[0], span) for p, span in zip(series.points, series.whiskers, strict=False)]
    if series.draw != "dots":
        for finite, run in itertools.groupby(series.points, _finite):
            if finite:
                parts.append(f'<path class="line" {_stroke(series, index)} d="{_path(frame, run)}"/>')
    if series.draw != "line":
        parts += [_dot(series, frame.across(x), frame.up(y)) for x, y in series.points if _finite((x, y))]
    return "".join(parts)


def _path(frame: _Frame, run: Iterable[Point]) -> str:
    places = [f"{frame.across(x):.1f} {frame.up(y):.1f}" for x, y in run]
    # A lone point has no length; a line to itself, with its round cap, shows as a dot.
    return "M" + "L".join(places if len(places) > 1 else places * 2)


def _whisker(frame: _Frame, series: Series, x: float, span: Point) -> str:
    if not _finite(span):
        return ""
    at, low, high = frame.across(x), frame.up(span[0]), frame.up(span[1])
    tone = f'style="stroke:var(--tone{series.tone % 6})"'
    ends = f"M{at - 3:.1f} {low:.1f}h6M{at - 3:.1f} {high:.1f}h6"
    return f'<path class="whisker" {tone} d="M{at:.1f} {low:.1f}V{high:.1f}{ends}"/>'
