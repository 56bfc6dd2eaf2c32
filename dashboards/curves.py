"""Lines over time: a graph of a panel's series, with its axes, its limits and its legend, as SVG."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from html import escape
from itertools import pairwise
from typing import Any

from dashboards.panels import BLUE, GREEN, GREY, ORANGE, PURPLE, RED, YELLOW
from dashboards.units import shown, steps

COLORS = {
    GREEN: "#73bf69", YELLOW: "#f2cc0c", ORANGE: "#ff9830", RED: "#f2495c", BLUE: "#5794f2", PURPLE: "#b877d9",
    GREY: "#8e8e99",
}  # fmt: skip
PALETTE = ("#73bf69", "#f2cc0c", "#8ab8ff", "#ff780a", "#f2495c", "#5794f2", "#b877d9", "#705da0", "#37872d", "#fade2a")
LINES_OF_LEGEND = 4
LEFT, RIGHT, AXIS, LEGEND = 68, 10, 18, 15

Json = dict[str, Any]


@dataclass(frozen=True)
class Line:
    """A series as it is drawn: the index of its target, its name, its labels, its points (time, value)."""

    target: int
    name: str
    labels: dict[str, str]
    points: list[tuple[float, float]]

    @property
    def last(self) -> float:
        """Its newest value."""
        return self.points[-1][1]


def named(target: int, legend: str, labels: dict[str, str], points: list[tuple[float, float]]) -> Line:
    """A series with the name that its target's legend gives it."""
    name = re.sub(r"\{\{(\w+)\}\}", lambda match: labels.get(match[1], ""), legend).strip()
    return Line(target, name, labels, points)


def graph(panel: Json, lines: Sequence[Line], span: tuple[float, float], width: int, height: int) -> str:
    """Draw the lines of a panel, stacked if it says so, and name them below."""
    defaults, custom = panel["fieldConfig"]["defaults"], panel["fieldConfig"]["defaults"]["custom"]
    unit, is_log = defaults["unit"], custom["scaleDistribution"]["type"] == "log"
    shown_lines = min(len(lines), LINES_OF_LEGEND)
    bottom = height - AXIS - LEGEND * (shown_lines + (len(lines) > LINES_OF_LEGEND))
    limits = _limits(panel)
    stacked = custom["stacking"]["mode"] == "normal"
    heights = _stacked([line for line in lines if line.target not in limits]) if stacked else {}
    drawn = [(line, heights.get(id(line)) or line.points) for line in lines]
    values = [value for _, points in drawn for _, value in points if math.isfinite(value)]
    scale = _Scale(values, span, width, bottom, is_log, defaults.get("max"))
    parts = [scale.axes(unit)]
    for index, (line, points) in reversed(list(enumerate(drawn))):
        color = _color_of(panel, line, index)
        is_limit = line.target in limits
        parts += scale.curve(points, color, is_limit, 0 if is_limit else custom["fillOpacity"] / 100)
    parts.append(_legend(panel, lines, unit, height))
    return "".join(parts)


def _stacked(lines: Sequence[Line]) -> dict[int, list[tuple[float, float]]]:
    below: dict[float, float] = {}
    found = {}
    for line in lines:
        points = []
        for at, value in line.points:
            below[at] = below.get(at, 0.0) + (value if math.isfinite(value) else 0.0)
            points.append((at, below[at]))
        found[id(line)] = points
    return found


class _Scale:
    """Where a time and a value are on a graph."""

    def __init__(
        self,
        values: Sequence[float],
        span: tuple[float, float],
        width: int,
        bottom: int,
        is_log: bool,
        most: float | None,
    ) -> None:
        self.span, self.width, self.bottom, self.is_log = span, width, bottom, is_log
        high = max((*values, most or 0.0))
        positive = [value for value in values if value > 0]
        self.low = 10 ** math.floor(math.log10(min(positive))) if is_log and positive else 0.0
        self.high = (high * (1.5 if is_log else 1.08)) or 1.0

    def x(self, at: float) -> float:
        return LEFT + (at - self.span[0]) / (self.span[1] - self.span[0]) * (self.width - LEFT - RIGHT)

    def y(self, value: float) -> float:
        if self.is_log and self.low > 0:
            share = math.log(max(value, self.low) / self.low) / math.log(self.high / self.low)
        else:
            share = value / self.high
        return self.bottom - share * (self.bottom - 6)

    def axes(self, unit: str) -> str:
        """Grid lines with their values, and the times below."""
        parts = []
        if self.is_log and self.low > 0:
            count = int(math.log10(self.high / self.low)) + 1
            marks = [self.low * 10**power for power in range(count)]
        else:
            marks = steps(0, self.high, unit)
        for value in marks:
            y = self.y(value)
            parts.append(f'<path class="grid" d="M{LEFT} {y:.1f}H{self.width - RIGHT}"/>')
            parts.append(f'<text class="mark end" x="{LEFT - 6}" y="{y + 3.5:.1f}">{escape(shown(value, unit))}</text>')
        return "".join(parts) + times(self.span, self.x, self.bottom)

    def curve(self, points: Sequence[tuple[float, float]], color: str, is_limit: bool, opacity: float) -> list[str]:
        """The line, broken where there is no number, and what is below it."""
        parts = []
        for run in runs(points):
            path = "L".join(f"{self.x(at):.1f} {self.y(value):.1f}" for at, value in run)
            if opacity:
                ends = f"{self.x(run[-1][0]):.1f} {self.bottom}L{self.x(run[0][0]):.1f} {self.bottom}Z"
                parts.append(f'<path d="M{path}L{ends}" fill="{color}" fill-opacity="{opacity:g}"/>')
            dash = ' stroke-dasharray="7 5"' if is_limit else ""
            parts.append(f'<path d="M{path}" fill="none" stroke="{color}" stroke-width="1.3"{dash}/>')
        return parts


def runs(points: Sequence[tuple[float, float]]) -> list[list[tuple[float, float]]]:
    """The points in pieces, cut where one is no number or is missing."""
    step = min((b[0] - a[0] for a, b in pairwise(points)), default=1.0)
    runs: list[list[tuple[float, float]]] = [[]]
    for at, value in points:
        if not math.isfinite(value) or (runs[-1] and at - runs[-1][-1][0] > 1.5 * step):
            runs.append([])
        if math.isfinite(value):
            runs[-1].append((at, value))
    return [run for run in runs if run]


def times(span: tuple[float, float], x: Callable[[float], float], bottom: int) -> str:
    """Minutes and seconds since the left edge: what clock it was does not matter in a picture."""
    parts = []
    for seconds in steps(0, span[1] - span[0], "", 5)[1:]:
        if seconds > 0.96 * (span[1] - span[0]):
            break  # it would not fit
        text = f"{int(seconds) // 60}:{int(seconds) % 60:02d}"
        parts.append(f'<text class="mark middle" x="{x(span[0] + seconds):.1f}" y="{bottom + 13}">{text}</text>')
    return "".join(parts)


def _legend(panel: Json, lines: Sequence[Line], unit: str, height: int) -> str:
    is_narrow = panel["gridPos"]["w"] < 8
    listed = list(lines)[:LINES_OF_LEGEND]
    more = len(lines) - len(listed)
    y = height - LEGEND * (len(listed) + (more > 0)) + 11
    parts = []
    for index, line in enumerate(listed):
        color = _color_of(panel, line, index)
        most = max((value for _, value in line.points if math.isfinite(value)), default=math.nan)
        numbers = shown(line.last, unit) + ("" if is_narrow else f" · max {shown(most, unit)}")
        parts.append(f'<path d="M12 {y - 4}h12" stroke="{color}" stroke-width="3"/>')
        parts.append(f'<text class="legend" x="30" y="{y}">{escape(line.name or "value")}</text>')
        parts.append(f'<text class="legend right" x="100%" dx="-12" y="{y}">{escape(numbers)}</text>')
        y += LEGEND
    if more > 0:
        parts.append(f'<text class="legend" x="30" y="{y}">and {more} more</text>')
    return "".join(parts)


def _limits(panel: Json) -> set[int]:
    """The targets that are drawn as limits."""
    return {
        ord(each["matcher"]["options"]) - ord("A")
        for each in panel["fieldConfig"]["overrides"]
        if any(entry["id"] == "custom.lineStyle" for entry in each["properties"])
    }


def _color_of(panel: Json, line: Line, index: int) -> str:
    for each in panel["fieldConfig"]["overrides"]:
        if each["matcher"]["options"] == chr(ord("A") + line.target):
            for entry in each["properties"]:
                if entry["id"] == "color":
                    return COLORS[entry["value"]["fixedColor"]]
    return PALETTE[index % len(PALETTE)]
