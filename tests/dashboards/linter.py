"""The rules of Grafana's dashboard linter, and some of our own, over a dashboard's JSON.

Each rule takes the whole dashboard and yields a sentence for each thing that is wrong. The names are the linter's
(github.com/grafana/dashboard-linter, docs/rules), those of our own begin with ``our-``.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final

import yaml

from dashboards.build import FOLDER
from tests.dashboards.queries import selectors

Json = dict[str, Any]
Rule = Callable[[Json], Iterator[str]]

#: Of Grafana's units (packages/grafana-data, valueFormats/categories), those that a server has a use for.
UNITS: Final = {
    "none", "short", "percent", "percentunit", "bytes", "decbytes", "bits", "Bps", "binBps", "bps", "s", "ms", "µs",
    "ns", "cps", "ops", "reqps", "rps", "wps", "iops", "cpm", "opm", "rpm", "wpm", "mps", "mpm", "dtdurations",
}  # fmt: skip
DATASOURCE: Final = {"type": "prometheus", "uid": "${datasource}"}
RATES: Final = {"rate", "irate", "increase"}
#: Histograms over the clients there are, made anew at each scrape, are no counters; and of a load test's handshakes,
#: which are all at its beginning, those of the whole run are looked at.
SNAPSHOTS: Final = re.compile(r"stentor_(client_queue_\w+|loadtest_handshake_duration_seconds)_(bucket|sum|count)")
_WITH_QUERIES: Final = {"stat", "timeseries", "heatmap", "state-timeline", "table"}
_FUNCTION: Final = re.compile(r"(label_names|label_values|metrics|query_result)\((.+)\)")


def panels_of(dashboard: Json) -> list[Json]:
    """All panels, those of collapsed rows too, without the rows."""
    found = []
    for panel in dashboard["panels"]:
        found += panel["panels"] if panel["type"] == "row" else [panel]
    return found


def targets_of(dashboard: Json) -> Iterator[tuple[str, str]]:
    """The title and the query of each target."""
    for panel in panels_of(dashboard):
        for target in panel["targets"]:
            yield panel["title"], target["expr"]


def variables_of(dashboard: Json, kind: str) -> list[Json]:
    return [each for each in dashboard["templating"]["list"] if each["type"] == kind]


def excused(folder: Path = FOLDER) -> set[tuple[str, str, str]]:
    """Rule, dashboard and panel of what ``.lint`` lets pass; each with a reason."""
    found = set()
    for rule, exclusion in yaml.safe_load((folder / ".lint").read_text())["exclusions"].items():
        assert exclusion["reason"], rule
        found |= {(rule, entry["dashboard"], entry["panel"]) for entry in exclusion["entries"]}
    return found


def template_datasource(dashboard: Json) -> Iterator[str]:
    found = variables_of(dashboard, "datasource")
    if [(each["name"], each["label"], each["query"]) for each in found] != [
        ("datasource", "Data source", "prometheus")
    ]:
        yield "there is not one data source variable 'datasource', labelled 'Data source', for prometheus"


def _template(dashboard: Json, name: str) -> Iterator[str]:
    found = [each for each in dashboard["templating"]["list"] if each["name"] == name]
    if len(found) != 1:
        yield f"there is not one variable '{name}'"
        return
    [variable] = found
    for key, wanted in (
        ("type", "query"), ("datasource", DATASOURCE), ("label", name.title()), ("multi", True), ("allValue", ".+"),
        ("includeAll", True),
    ):  # fmt: skip
        if variable.get(key) != wanted:
            yield f"the variable '{name}' has {key} {variable.get(key)!r}"


def template_job(dashboard: Json) -> Iterator[str]:
    yield from _template(dashboard, "job")


def template_instance(dashboard: Json) -> Iterator[str]:
    yield from _template(dashboard, "instance")


def template_label_promql(dashboard: Json) -> Iterator[str]:
    for variable in variables_of(dashboard, "query"):
        if not _FUNCTION.fullmatch(variable["query"]):
            yield f"the variable '{variable['name']}' asks for {variable['query']!r}"


def template_on_time_change_reload(dashboard: Json) -> Iterator[str]:
    for variable in variables_of(dashboard, "query"):
        if variable["refresh"] != 2:
            yield f"the variable '{variable['name']}' is not asked for again when the time changes"


def panel_datasource(dashboard: Json) -> Iterator[str]:
    for panel in panels_of(dashboard):
        for each in (panel, *panel["targets"]):
            if each.get("datasource") != DATASOURCE:
                yield f"{panel['title']}: the data source is {each.get('datasource')}"


def panel_title_description(dashboard: Json) -> Iterator[str]:
    for panel in panels_of(dashboard):
        if not panel.get("title") or not panel.get("description"):
            yield f"{panel.get('title') or panel['id']}: title or description is missing"


def panel_units(dashboard: Json) -> Iterator[str]:
    for panel in panels_of(dashboard):
        unit = panel["fieldConfig"]["defaults"].get("unit")
        if unit not in UNITS:
            yield f"{panel['title']}: the unit is {unit!r}"


def panel_no_targets(dashboard: Json) -> Iterator[str]:
    for panel in panels_of(dashboard):
        if panel["type"] not in _WITH_QUERIES or not panel.get("targets"):
            yield f"{panel['title']}: a {panel['type']} with {len(panel.get('targets', []))} targets"


def target_rate_interval(dashboard: Json) -> Iterator[str]:
    for title, query in targets_of(dashboard):
        for selector in selectors(query):
            if selector.range is not None and selector.range != "$__rate_interval":
                yield f"{title}: looks back {selector.range}"


def _target_matcher(dashboard: Json, label: str) -> Iterator[str]:
    for title, query in targets_of(dashboard):
        for selector in selectors(query):
            if (label, "=~", f"${label}") not in selector.matchers:
                yield f'{title}: {selector.metric} without {label}=~"${label}"'


def target_job(dashboard: Json) -> Iterator[str]:
    yield from _target_matcher(dashboard, "job")


def target_instance(dashboard: Json) -> Iterator[str]:
    yield from _target_matcher(dashboard, "instance")


def target_counter_agg(dashboard: Json) -> Iterator[str]:
    for title, query in targets_of(dashboard):
        for selector in selectors(query):
            is_counter = selector.metric.endswith(("_total", "_bucket", "_sum", "_count"))
            if is_counter and not SNAPSHOTS.fullmatch(selector.metric) and selector.function not in RATES:
                yield f"{title}: {selector.metric} is a counter, and not seen through rate"


def uneditable(dashboard: Json) -> Iterator[str]:
    if dashboard["editable"] is not False:
        yield "it can be edited on the page, and the next start undoes that"


def our_no_inputs(dashboard: Json) -> Iterator[str]:
    """Inputs are asked for by the page's import, and never filled in when files are provisioned."""
    if "__inputs" in dashboard or "__requires" in dashboard or "${DS_" in str(dashboard):
        yield "it has inputs, which provisioning does not know"


def our_grid(dashboard: Json) -> Iterator[str]:
    """Nothing lies over anything else, nor beyond the 24 columns; each number and each title is there once."""
    rows = [each for each in dashboard["panels"] if each["type"] == "row"]
    for key, all_of_them in (("id", [*rows, *panels_of(dashboard)]), ("title", panels_of(dashboard))):
        for value, count in Counter(each[key] for each in all_of_them).items():
            if count > 1:
                yield f"{count} have the {key} {value!r}"
    for group in ([*dashboard["panels"]], *(row["panels"] for row in rows)):
        taken: set[tuple[int, int]] = set()
        for panel in group:
            at = panel["gridPos"]
            covered = {(x, y) for x in range(at["x"], at["x"] + at["w"]) for y in range(at["y"], at["y"] + at["h"])}
            if not covered or at["x"] < 0 or at["x"] + at["w"] > 24:
                yield f"{panel['title']}: beyond the page"
            if covered & taken:
                yield f"{panel['title']}: lies over another"
            taken |= covered


def our_identity(dashboard: Json) -> Iterator[str]:
    """It is found again at its next provisioning, and Grafana 10 to 13 read it."""
    if not re.fullmatch(r"[a-z0-9-]{8,40}", dashboard["uid"]):
        yield f"the uid is {dashboard['uid']!r}"
    if (dashboard["id"], dashboard["schemaVersion"]) != (None, 39):
        yield "it has a number of its own, or another schema"


RULES: Final[dict[str, Rule]] = {
    "template-datasource-rule": template_datasource,
    "template-job-rule": template_job,
    "template-instance-rule": template_instance,
    "template-label-promql-rule": template_label_promql,
    "template-on-time-change-reload-rule": template_on_time_change_reload,
    "panel-datasource-rule": panel_datasource,
    "panel-title-description-rule": panel_title_description,
    "panel-units-rule": panel_units,
    "panel-no-targets-rule": panel_no_targets,
    "target-rate-interval-rule": target_rate_interval,
    "target-job-rule": target_job,
    "target-instance-rule": target_instance,
    "target-counter-agg-rule": target_counter_agg,
    "uneditable-dashboard": uneditable,
    "our-no-inputs": our_no_inputs,
    "our-grid": our_grid,
    "our-identity": our_identity,
}
