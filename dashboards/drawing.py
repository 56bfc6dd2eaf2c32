"""Panels drawn from the dashboards' own JSON and the answers of a Prometheus, in the manner of Grafana's dark theme.

These are our drawings and no screenshots of Grafana: they show that the queries have data, and what there is to see.
It does not know where the answers come from.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from html import escape
from itertools import pairwise

from dashboards.curves import AXIS, COLORS, LEFT, RIGHT, Json, Line, graph, runs, times
from dashboards.units import shown

HEAT = ("#2b1a10", "#5c2d10", "#94450f", "#cc640f", "#f58a1f", "#ffb357", "#ffdca8")


def draw(panel: Json, lines: Sequence[Line], span: tuple[float, float], width: int, height: int) -> str:
    """The inside of a panel, below its title, as HTML."""
    if not lines:
        return f'<div class="nothing">{escape(panel["fieldConfig"]["defaults"].get("noValue", "No data"))}</div>'
    kind = panel["type"]
    if kind == "stat":
        return _tile(panel, lines, span, width, height)
    if kind == "table":
        return _table(panel, lines)
    inside = {"timeseries": graph, "heatmap": _heatmap, "state-timeline": _states}[kind](
        panel, lines, span, width, height
    )
    return f'<svg width="{width}" height="{height}" viewBox="0 0 {width} {height}">{inside}</svg>'


def _state(panel: Json, value: float) -> tuple[str, str]:
    """What a value is called, and its colour."""
    defaults = panel["fieldConfig"]["defaults"]
    for mapping in defaults["mappings"]:
        options = mapping["options"]
        if mapping["type"] == "special" and math.isnan(value):
            return options["result"]["text"], COLORS[options["result"]["color"]]
        if mapping["type"] == "value" and f"{value:g}" in options:
            result = options[f"{value:g}"]
            return result["text"], COLORS[result["color"]]
    color = next(
        step["color"] for step in reversed(defaults["thresholds"]["steps"])
        if step["value"] is None or value >= step["value"]
    )  # fmt: skip
    return shown(value, defaults["unit"], defaults.get("decimals")), COLORS[color]


def _tile(panel: Json, lines: Sequence[Line], span: tuple[float, float], width: int, height: int) -> str:
    line = lines[0]
    text, color = _state(panel, line.last)
    values = [value for _, value in line.points if math.isfinite(value)]
    high = max(values, default=0.0) * 1.25 or 1.0
    path = " ".join(
        f"{(at - span[0]) / (span[1] - span[0]) * width:.1f},{height - value / high * height * 0.5:.1f}"
        for run in runs(line.points) for at, value in run
    )  # fmt: skip
    spark = f'<polyline points="0,{height} {path} {width},{height}" fill="#000" fill-opacity=".18"/>'
    size = min(30, int(1.55 * width / max(len(text), 5)))
    return (
        f'<div class="tile" style="background:{color}"><svg width="{width}" height="{height}">{spark}</svg>'
        f'<b style="font-size:{size}px">{escape(text)}</b></div>'
    )


def _states(panel: Json, lines: Sequence[Line], span: tuple[float, float], width: int, height: int) -> str:
    bottom = height - AXIS
    left = 118
    scale = (width - left - RIGHT) / (span[1] - span[0])
    thickness = min((bottom - 8) / len(lines), 40)
    parts = []
    for row, line in enumerate(lines):
        y = 6 + row * thickness
        parts.append(f'<text class="mark" x="8" y="{y + thickness / 2 + 3:.1f}">{escape(line.name)}</text>')
        began = 0
        for index in range(1, len(line.points) + 1):
            if index < len(line.points) and line.points[index][1] == line.points[began][1]:
                continue
            text, color = _state(panel, line.points[began][1])
            start = left + (line.points[began][0] - span[0]) * scale
            end = left + (line.points[min(index, len(line.points) - 1)][0] - span[0]) * scale
            parts.append(
                f'<rect x="{start:.1f}" y="{y:.1f}" width="{max(end - start, 1):.1f}" height="{thickness - 4:.1f}" '
                f'fill="{color}" fill-opacity=".8"/>'
            )
            if end - start > 7 * len(text):
                parts.append(
                    f'<text class="state" x="{start + 6:.1f}" y="{y + thickness / 2 + 3:.1f}">{escape(text)}</text>'
                )
            began = index
    return "".join(parts) + times(span, lambda at: left + (at - span[0]) * scale, bottom)


def _heatmap(panel: Json, lines: Sequence[Line], span: tuple[float, float], width: int, height: int) -> str:
    """Rows are buckets; what Prometheus tells is how many are in a bucket or below it."""
    buckets = sorted(lines, key=lambda line: float(line.labels["le"]))
    below: dict[float, float] = {}
    cells: list[tuple[int, float, float]] = []
    for row, line in enumerate(buckets):
        for at, value in line.points:
            if math.isfinite(value):
                cells.append((row, at, max(value - below.get(at, 0.0), 0.0)))
                below[at] = value
    cells = [cell for cell in cells if cell[2] > 1e-9]
    if not cells:
        return f'<text class="middle" x="{width / 2:.0f}" y="{height / 2:.0f}">none in this time</text>'
    rows = {row for row, _, _ in cells}
    first, last = max(min(rows) - 1, 0), min(max(rows) + 1, len(buckets) - 1)
    bottom = height - AXIS
    thickness = (bottom - 6) / (last - first + 1)
    scale = (width - LEFT - RIGHT) / (span[1] - span[0])
    step = min((b[0] - a[0] for a, b in pairwise(buckets[0].points)), default=1.0)
    most = max((value for _, _, value in cells), default=1.0)
    parts = []
    for row, at, value in cells:
        shade = HEAT[min(int((value / most) ** 0.5 * len(HEAT)), len(HEAT) - 1)]
        x, y = LEFT + (at - span[0]) * scale, bottom - (row - first + 1) * thickness
        size = f'width="{step * scale - 0.5:.1f}" height="{thickness - 1:.1f}"'
        parts.append(f'<rect x="{x:.1f}" y="{y:.1f}" {size} fill="{shade}"/>')
    unit = panel["fieldConfig"]["defaults"]["unit"]
    for row in range(first, last + 1):
        bound = float(buckets[row].labels["le"])
        text = "more" if math.isinf(bound) else shown(bound, unit)
        y = bottom - (row - first + 0.5) * thickness + 3.5
        parts.append(f'<text class="mark end" x="{LEFT - 6}" y="{y:.1f}">{escape(text)}</text>')
    return "".join(parts) + times(span, lambda at: LEFT + (at - span[0]) * scale, bottom)


def _table(panel: Json, lines: Sequence[Line]) -> str:
    organize = next(each for each in panel["transformations"] if each["id"] == "organize")
    columns = organize["options"]["renameByName"]
    head = "".join(f"<th>{escape(title)}</th>" for title in columns.values())
    rows = "".join(
        "<tr>" + "".join(f"<td>{escape(line.labels.get(label, ''))}</td>" for label in columns) + "</tr>"
        for line in lines
    )
    return f"<table><tr>{head}</tr>{rows}</table>"
