"""A dashboard in Grafana's classic JSON: variables, annotations, and where each panel stands on the grid.

Laws: the same dashboard gives the same bytes; a panel's number is its place in the order, so that adding one at the end
of a row changes no more than those after it.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from typing import Any, Final

from dashboards.panels import Dashboard, Panel, Row
from dashboards.promql import IS_STENTOR, series
from dashboards.schema import DATASOURCE, Json, panel_json

#: Columns of Grafana's grid.
COLUMNS: Final = 24
SCHEMA: Final = 39

#: Alerts may have lost the labels of the series that they sum up, so they are known by their names.
FIRING: Final = 'ALERTS{alertstate="firing",alertname=~"Stentor.+"}'


def dashboard_json(dashboard: Dashboard) -> Json:
    """The whole file."""
    return {
        "uid": dashboard.uid,
        "title": dashboard.title,
        "description": dashboard.description,
        "tags": list(dashboard.tags),
        "id": None,
        "version": 1,
        "schemaVersion": SCHEMA,
        "editable": False,
        "graphTooltip": 1,
        "refresh": "10s",
        "time": {"from": "now-30m", "to": "now"},
        "timezone": "browser",
        "timepicker": {},
        "fiscalYearStartMonth": 0,
        "liveNow": False,
        "weekStart": "",
        "links": [_LINK],
        "annotations": {"list": [_ALERTS, _STARTS]},
        "templating": {"list": _variables(dashboard.chooser)},
        "panels": list(_numbered(_placed(dashboard))),
    }


def text_of(dashboard: Dashboard) -> str:
    """The file's text."""
    return json.dumps(dashboard_json(dashboard), indent=2, ensure_ascii=False) + "\n"


def _variables(chooser: str) -> list[Json]:
    """The data source, the jobs that have what the dashboard is about, and their instances."""
    datasource = {
        "name": "datasource", "label": "Data source", "type": "datasource", "query": "prometheus",
        "current": {}, "hide": 0, "includeAll": False, "multi": False, "options": [], "refresh": 1, "regex": "",
    }  # fmt: skip
    return [
        datasource,
        _variable("job", f"label_values({{{chooser}}}, job)"),
        _variable("instance", f'label_values({{{chooser},job=~"$job"}}, instance)'),
    ]


def _variable(name: str, query: str) -> Json:
    return {
        "name": name,
        "label": name.title(),
        "type": "query",
        "datasource": DATASOURCE,
        "definition": query,
        "query": query,
        "current": {"selected": True, "text": ["All"], "value": ["$__all"]},
        "includeAll": True,
        "allValue": ".+",
        "multi": True,
        "hide": 0,
        "options": [],
        "refresh": 2,
        "regex": "",
        "sort": 1,
    }


def _annotation(name: str, query: str, color: str, title: str, text: str) -> Json:
    return {
        "name": name, "datasource": DATASOURCE, "enable": True, "hide": False, "iconColor": color,
        "expr": query, "titleFormat": title, "textFormat": text, "step": "10s",
    }  # fmt: skip


_ALERTS: Final = _annotation("Alerts", FIRING, "red", "{{alertname}}", "{{severity}} {{instance}} {{worker}}")
_STARTS: Final = _annotation(
    "Starts",
    f"time() - {series('process_start_time_seconds')} < 60 and on (job, instance) {series(IS_STENTOR)}",
    "blue",
    "Process started",
    "{{instance}} {{worker}}",
)
_LINK: Final[Json] = {
    "type": "dashboards", "title": "Stentor", "tags": ["stentor"], "asDropdown": False, "includeVars": True,
    "keepTime": True, "targetBlank": False, "icon": "external link", "tooltip": "", "url": "",
}  # fmt: skip


def _placed(dashboard: Dashboard) -> Iterator[Json]:
    y = 0
    items: tuple[tuple[Panel, ...] | Row, ...] = (dashboard.top, *dashboard.rows)
    for item in items:
        panels = item.panels if isinstance(item, Row) else item
        if isinstance(item, Row):
            heading: Json = {
                "type": "row", "title": item.title, "collapsed": item.is_collapsed,
                "gridPos": {"x": 0, "y": y, "w": COLUMNS, "h": 1},
            }  # fmt: skip
            y += 1
            inside = list(_flow(panels, y))
            yield {**heading, "panels": inside if item.is_collapsed else []}
            if item.is_collapsed:
                continue
        yield from (inside := list(_flow(panels, y)))
        y = max((each["gridPos"]["y"] + each["gridPos"]["h"] for each in inside), default=y)


def _flow(panels: Iterable[Panel], y: int) -> Iterator[Json]:
    """Place panels from left to right, and below when a line is full."""
    x, height = 0, 0
    for panel in panels:
        if x + panel.width > COLUMNS:
            x, y, height = 0, y + height, 0
        yield {**panel_json(panel), "gridPos": {"x": x, "y": y, "w": panel.width, "h": panel.height}}
        x, height = x + panel.width, max(height, panel.height)


def _numbered(panels: Iterable[Json]) -> Iterator[Json]:
    number = 0
    for panel in panels:
        number += 1
        numbered: dict[str, Any] = {"id": number, **panel}
        if panel["type"] == "row":
            inside = []
            for each in panel["panels"]:
                number += 1
                inside.append({"id": number, **each})
            numbered["panels"] = inside
        yield numbered
