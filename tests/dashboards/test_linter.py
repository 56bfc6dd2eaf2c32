"""The rules of Grafana's linter are kept by the dashboards; and each rule, as held here, finds what it looks for."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from typing import cast

import pytest

from dashboards.build import DASHBOARDS, FOLDER
from tests.dashboards.linter import RULES, Json, excused, panels_of
from tests.dashboards.queries import Selector, filled_in, selectors

FILES = {dashboard.uid: FOLDER / f"{dashboard.uid}.json" for dashboard in DASHBOARDS}


def read(uid: str = "stentor-overview") -> Json:
    found: Json = json.loads(FILES[uid].read_text())
    return found


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("uid", FILES)
def test_the_rules_are_kept(uid: str, rule: str) -> None:
    dashboard = read(uid)
    excuses = {f"{panel}: " for name, title, panel in excused() if (name, title) == (rule, dashboard["title"])}
    found = [wrong for wrong in RULES[rule](dashboard) if not wrong.startswith(tuple(excuses))]
    assert found == []


def test_no_excuse_is_left_over() -> None:
    by_title = {read(uid)["title"]: uid for uid in FILES}
    for rule, title, panel in excused():
        assert any(wrong.startswith(f"{panel}: ") for wrong in RULES[rule](read(by_title[title]))), (rule, panel)


def variable(dashboard: Json, name: str) -> Json:
    [found] = [each for each in dashboard["templating"]["list"] if each["name"] == name]
    return cast(Json, found)


def first(dashboard: Json) -> Json:
    return panels_of(dashboard)[0]


def ask(query: str) -> Callable[[Json], object]:
    return lambda dashboard: first(dashboard)["targets"][0].update(expr=query)


CHOSEN = 'job=~"$job",instance=~"$instance"'
WRONGS: dict[str, list[Callable[[Json], object]]] = {
    "template-datasource-rule": [
        lambda it: variable(it, "datasource").update(name="ds"),
        lambda it: it["templating"]["list"].pop(0),
    ],
    "template-job-rule": [
        lambda it: variable(it, "job").update(multi=False),
        lambda it: variable(it, "job").update(allValue=".*"),
        lambda it: variable(it, "job").update(datasource={"type": "prometheus", "uid": "abc"}),
        lambda it: it["templating"]["list"].pop(1),
    ],
    "template-instance-rule": [lambda it: variable(it, "instance").update(label="instance")],
    "template-label-promql-rule": [lambda it: variable(it, "job").update(query="stentor_worker_up")],
    "template-on-time-change-reload-rule": [lambda it: variable(it, "job").update(refresh=1)],
    "panel-datasource-rule": [
        lambda it: first(it).update(datasource={"type": "prometheus", "uid": "prometheus"}),
        lambda it: first(it)["targets"][0].pop("datasource"),
        lambda it: panels_of(it)[-1].update(datasource=None),
    ],
    "panel-title-description-rule": [
        lambda it: first(it).update(description=""),
        lambda it: panels_of(it)[-1].pop("title"),
    ],
    "panel-units-rule": [
        lambda it: first(it)["fieldConfig"]["defaults"].update(unit="messages"),
        lambda it: first(it)["fieldConfig"]["defaults"].pop("unit"),
    ],
    "panel-no-targets-rule": [lambda it: first(it).update(targets=[]), lambda it: first(it).update(type="text")],
    "target-rate-interval-rule": [
        ask(f"rate(stentor_messages_sent_total{{{CHOSEN}}}[5m])"),
        ask(f"sum by (le) (irate(stentor_messages_sent_total{{{CHOSEN}}}[$__interval]))"),
    ],
    "target-job-rule": [
        ask('stentor_channels{instance=~"$instance"}'),
        ask(f"stentor_channels{{{CHOSEN}}} / stentor_subscriptions"),
        ask('sum(stentor_channels{job="$job",instance=~"$instance"})'),
    ],
    "target-instance-rule": [ask('stentor_channels{job=~"$job"}')],
    "target-counter-agg-rule": [
        ask(f"stentor_messages_sent_total{{{CHOSEN}}}"),
        ask(f"sum by (worker) (stentor_messages_sent_total{{{CHOSEN}}})"),
        ask(f"max_over_time(stentor_messages_sent_total{{{CHOSEN}}}[$__rate_interval])"),
        ask(f"histogram_quantile(0.9, stentor_ping_rtt_seconds_bucket{{{CHOSEN}}})"),
    ],
    "uneditable-dashboard": [lambda it: it.update(editable=True)],
    "our-no-inputs": [lambda it: it.update(__inputs=[]), lambda it: first(it).update(datasource="${DS_PROMETHEUS}")],
    "our-grid": [
        lambda it: first(it)["gridPos"].update(w=4),
        lambda it: first(it)["gridPos"].update(x=22, y=200),
        lambda it: first(it).update(id=7),
        lambda it: first(it).update(title="Deliveries"),
    ],
    "our-identity": [lambda it: it.update(uid="x"), lambda it: it.update(id=3), lambda it: it.update(schemaVersion=41)],
}


@pytest.mark.parametrize(
    ("rule", "plant"),
    [(rule, plant) for rule, plants in WRONGS.items() for plant in plants],
    ids=[f"{rule}-{number}" for rule, plants in WRONGS.items() for number, _ in enumerate(plants)],
)
def test_a_planted_wrong_is_found(rule: str, plant: Callable[[Json], object]) -> None:
    dashboard = copy.deepcopy(read())
    before = list(RULES[rule](dashboard))
    plant(dashboard)
    assert len(list(RULES[rule](dashboard))) > len(before)


def test_every_rule_has_a_planted_wrong() -> None:
    assert WRONGS.keys() == RULES.keys()


@pytest.mark.parametrize(
    ("query", "found"),
    [
        ("up", [("up", None, None)]),
        ('up{a="b"}', [("up", None, None)]),
        ("sum (rate(a_total{x=~\"y\"}[5m])) / on (job) b", [("a_total", "5m", "rate"), ("b", None, None)]),
        ("histogram_quantile(0.5, sum by (le) (rate(a_bucket[$w])))", [("a_bucket", "$w", "rate")]),
        ("a and on (job, instance) b > 0 or vector(0)", [("a", None, None), ("b", None, None)]),
        ('label_values({__name__=~"a|b"}, job)', [("", None, "label_values"), ("job", None, "label_values")]),
        ("time() - max by (a) (b) * 2e3", [("b", None, "max")]),
        ("count(x{}) * 0 + 2", [("x", None, "count")]),
    ],
)  # fmt: skip
def test_the_selectors_of_a_query_are_found(query: str, found: list[tuple[str, str | None, str | None]]) -> None:
    assert [(each.metric, each.range, each.function) for each in selectors(query)] == found


def test_matchers_are_read_whole() -> None:
    [selector] = selectors('a{job=~"$job", x!="}"}')
    assert selector == Selector("a", frozenset({("job", "=~", "$job"), ("x", "!=", "}")}), None, None)


def test_variables_are_filled_in() -> None:
    filled = filled_in('a{job=~"$job",i=~"${instance}",x="$jobs"}[$__rate_interval]', {
        "job": ".+", "instance": "b", "__rate_interval": "5s",
    })  # fmt: skip
    assert filled == 'a{job=~".+",i=~"b",x="$jobs"}[5s]'
