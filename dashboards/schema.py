"""Panels in Grafana's classic JSON (schemaVersion 39), which Grafana 10 to 13 import and provision.

Laws: every panel names its data source by the variable, for nothing else works both imported and provisioned; what is
left at Grafana's default is left out.
It does not know where a panel stands, nor its number.

Source: grafana.com/docs/grafana, "Dashboard JSON model"; what Grafana 11 writes itself for the same panels.
"""

from __future__ import annotations

import math
from typing import Any, Final

from dashboards.panels import RED, Kind, Panel, State, Target

Json = dict[str, Any]

DATASOURCE: Final[Json] = {"type": "prometheus", "uid": "${datasource}"}
_HIDE: Final[Json] = {"legend": False, "tooltip": False, "viz": False}
_LEGEND: Final[Json] = {"calcs": ["lastNotNull", "max"], "displayMode": "table", "placement": "bottom"}
_LAST: Final[Json] = {"calcs": ["lastNotNull"], "fields": "", "values": False}


def panel_json(panel: Panel) -> Json:
    """The panel, without number and place."""
    return {
        "type": panel.kind.value,
        "title": panel.title,
        "description": panel.description,
        "datasource": DATASOURCE,
        "targets": [_target(panel, target, chr(ord("A") + index)) for index, target in enumerate(panel.targets)],
        "fieldConfig": {"defaults": _defaults(panel), "overrides": _overrides(panel)},
        "options": _options(panel),
        **({"transformations": _columns(panel)} if panel.kind is Kind.TABLE else {}),
    }


def _target(panel: Panel, target: Target, letter: str) -> Json:
    form = {Kind.HEATMAP: "heatmap", Kind.TABLE: "table"}.get(panel.kind, "time_series")
    return {
        "refId": letter,
        "datasource": DATASOURCE,
        "editorMode": "code",
        "expr": target.query,
        "format": form,
        "instant": target.is_instant,
        "range": not target.is_instant,
        **({"legendFormat": target.legend} if target.legend else {}),
    }


def _defaults(panel: Panel) -> Json:
    is_about_states = panel.kind in (Kind.TILE, Kind.STATES)
    return {
        "unit": panel.unit.value,
        "color": {"mode": "thresholds" if is_about_states else "palette-classic"},
        "thresholds": {"mode": "absolute", "steps": _steps(panel)},
        "mappings": _mappings(panel.states),
        "custom": _custom(panel),
        "min": 0,
        **({"max": panel.maximum} if panel.maximum is not None else {}),
        **({"decimals": panel.decimals} if panel.decimals is not None else {}),
        **({"noValue": panel.nothing} if panel.nothing else {}),
    }


def _steps(panel: Panel) -> list[Json]:
    (_, lowest), *rest = panel.steps
    return [{"color": lowest, "value": None}, *({"color": color, "value": value} for value, color in rest)]


def _mappings(states: tuple[State, ...]) -> list[Json]:
    values: Json = {}
    special: list[Json] = []
    for index, state in enumerate(states):
        result = {"text": state.text, "color": state.color, "index": index}
        if math.isnan(state.value):
            special.append({"type": "special", "options": {"match": "nan", "result": result}})
        else:
            values[f"{state.value:g}"] = result
    return [*([{"type": "value", "options": values}] if values else []), *special]


def _custom(panel: Panel) -> Json:
    if panel.kind is Kind.GRAPH:
        return {
            "drawStyle": "line",
            "lineInterpolation": "linear",
            "lineWidth": 1,
            "fillOpacity": 30 if panel.is_stacked else 8,
            "gradientMode": "none",
            "showPoints": "never",
            "spanNulls": False,
            "axisPlacement": "auto",
            "axisLabel": "",
            "scaleDistribution": {"type": "log", "log": 10} if panel.is_logarithmic else {"type": "linear"},
            "stacking": {"mode": "normal" if panel.is_stacked else "none", "group": "A"},
            "thresholdsStyle": {"mode": "line" if len(panel.steps) > 1 else "off"},
            "hideFrom": _HIDE,
        }
    if panel.kind is Kind.STATES:
        return {"lineWidth": 0, "fillOpacity": 80, "spanNulls": False, "hideFrom": _HIDE}
    if panel.kind is Kind.HEATMAP:
        return {"hideFrom": _HIDE, "scaleDistribution": {"type": "linear"}}
    if panel.kind is Kind.TABLE:
        return {"align": "auto", "cellOptions": {"type": "auto"}, "inspect": False}
    return {}


def _overrides(panel: Panel) -> list[Json]:
    found = []
    for index, target in enumerate(panel.targets):
        properties: list[Json] = []
        if target.is_limit:
            properties = [
                {"id": "custom.lineStyle", "value": {"fill": "dash", "dash": [8, 6]}},
                {"id": "custom.fillOpacity", "value": 0},
                {"id": "custom.stacking", "value": {"mode": "none", "group": "limit"}},
            ]
        if color := target.color or (RED if target.is_limit else ""):
            properties.append({"id": "color", "value": {"mode": "fixed", "fixedColor": color}})
        if properties:
            matcher = {"id": "byFrameRefID", "options": chr(ord("A") + index)}
            found.append({"matcher": matcher, "properties": properties})
    return found


def _options(panel: Panel) -> Json:
    if panel.kind is Kind.TILE:
        return {
            "reduceOptions": _LAST, "colorMode": "background", "graphMode": "area", "justifyMode": "center",
            "orientation": "auto", "textMode": "value", "wideLayout": True,
        }  # fmt: skip
    if panel.kind is Kind.GRAPH:
        return {"legend": {**_LEGEND, "showLegend": True}, "tooltip": {"mode": "multi", "sort": "desc"}}
    if panel.kind is Kind.STATES:
        legend = {"displayMode": "list", "placement": "bottom", "showLegend": True}
        return {
            "alignValue": "left", "mergeValues": True, "rowHeight": 0.9, "showValue": "auto", "legend": legend,
            "tooltip": {"mode": "single", "sort": "none"},
        }  # fmt: skip
    if panel.kind is Kind.HEATMAP:
        return {
            "calculate": False,
            "cellGap": 1,
            "color": {"mode": "scheme", "scheme": "Oranges", "exponent": 0.5, "reverse": False, "steps": 64},
            "exemplars": {"color": "rgba(255,0,255,0.7)"},
            "filterValues": {"le": 1e-9},
            "legend": {"show": True},
            "rowsFrame": {"layout": "auto"},
            "showValue": "never",
            "tooltip": {"mode": "single", "yHistogram": False, "showColorScale": False},
            "yAxis": {"axisPlacement": "left", "reverse": False, "unit": panel.unit.value},
        }
    return {"cellHeight": "sm", "showHeader": True}


def _columns(panel: Panel) -> list[Json]:
    """Show the chosen labels alone, in their order."""
    names = [label for label, _ in panel.columns]
    return [
        {"id": "filterFieldsByName", "options": {"include": {"names": names}}},
        {
            "id": "organize",
            "options": {
                "excludeByName": {},
                "indexByName": {name: index for index, name in enumerate(names)},
                "renameByName": dict(panel.columns),
            },
        },
    ]
