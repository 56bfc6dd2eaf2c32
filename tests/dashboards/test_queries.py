"""Every query against a real Prometheus that watches real servers under a real load: it is PromQL, and it has data.

With "All" chosen, and with one instance alone: one process, which has no ``worker`` label, and two workers on Redis.
"""

from __future__ import annotations

import json
import math
import re
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pytest

from dashboards.build import DASHBOARDS, FOLDER
from tests.dashboards.linter import panels_of
from tests.dashboards.queries import filled_in, selectors
from tests.harness import Metrics, http, wait_until
from tests.observatory import Observatory
from tests.prometheus import Refused, Series

WINDOW = "5s"
WITHIN = 30.0

# What one process has nothing of, without a broker and a supervisor; a panel of it says so instead.
ALONE_WITHOUT = ("stentor_broker_", "stentor_worker_restarts_")
# What is not Stentor's: made by Prometheus itself.
FROM_PROMETHEUS = {"scrape_duration_seconds", "ALERTS"}


@dataclass(frozen=True)
class Asked:
    """One query of one panel."""

    dashboard: str
    panel: str
    letter: str
    query: str

    def __str__(self) -> str:
        return f"{self.dashboard} / {self.panel} / {self.letter}"


def read(uid: str) -> Any:
    return json.loads((FOLDER / f"{uid}.json").read_text())


def asked() -> Iterator[Asked]:
    for dashboard in DASHBOARDS:
        for panel in panels_of(read(dashboard.uid)):
            for target in panel["targets"]:
                yield Asked(dashboard.uid, panel["title"], target["refId"], target["expr"])


ALL = list(asked())


def chosen(query: str, job: str = ".+", instance: str = ".+") -> str:
    return filled_in(query, {"__rate_interval": WINDOW, "job": job, "instance": instance})


def has_data(found: list[Series]) -> bool:
    return any(math.isfinite(value) for series in found for _, value in series.points)


def wait_for_data(on: Observatory, query: str) -> list[Series]:
    """Ask until there is something: some things take a while to happen."""
    began = time.time() - 60

    def ask() -> list[Series] | None:
        found = on.prometheus.query_range(query, began, time.time(), 1)
        return found if has_data(found) else None

    found: list[Series] = wait_until(ask, WITHIN, f"data for {query}")
    return found


@pytest.mark.parametrize("one", ALL, ids=str)
def test_a_query_has_data(on: Observatory, one: Asked) -> None:
    wait_for_data(on, chosen(one.query))


@pytest.mark.parametrize("one", [one for one in ALL if one.dashboard == "stentor-overview"], ids=str)
def test_it_has_data_for_one_process_alone(on: Observatory, one: Asked) -> None:
    query = chosen(one.query, "stentor", f"127.0.0.1:{on.single.internal_port}")
    if all(selector.metric.startswith(ALONE_WITHOUT) for selector in selectors(one.query)):
        assert on.prometheus.query(query) == []
        return
    found = wait_for_data(on, query)
    assert all("worker" not in series.labels for series in found)


@pytest.mark.parametrize("one", [one for one in ALL if one.dashboard == "stentor-overview"], ids=str)
def test_it_has_data_for_several_workers_alone(on: Observatory, one: Asked) -> None:
    query = chosen(one.query, "stentor", f"127.0.0.1:{on.cluster.internal_port}")
    if "stentor_tls_" in query:
        assert on.prometheus.query(query) == []
        return
    wait_for_data(on, query)


def test_the_workers_are_told_apart(on: Observatory) -> None:
    [panel] = [one for one in ALL if one.panel == "Connections per worker"]
    found = wait_for_data(on, chosen(panel.query))
    assert {series.labels.get("worker") for series in found} == {"0", "1", None}


@pytest.mark.parametrize("one", ALL, ids=str)
def test_prometheus_reads_the_query_as_it_is_meant(on: Observatory, one: Asked) -> None:
    query = chosen(one.query)
    laid_out = on.prometheus.laid_out(query)
    # What our own reader sees in it is what is in it.
    ours = {selector.metric for selector in selectors(query)}
    assert ours
    assert {selector.metric for selector in selectors(laid_out)} == ours


def test_what_has_no_data_is_noticed(on: Observatory) -> None:
    assert not has_data(on.prometheus.query_range("stentor_no_such_metric", time.time() - 60, time.time(), 1))
    assert not has_data(on.prometheus.query("vector(0) / 0"))
    assert has_data(on.prometheus.query("vector(0)"))


def test_what_is_no_query_is_refused(on: Observatory) -> None:
    with pytest.raises(Refused, match="parse error"):
        on.prometheus.laid_out("sum by (le) rate(x[5m]))")


@pytest.mark.parametrize("dashboard", DASHBOARDS, ids=lambda it: it.uid)
def test_the_variables_find_jobs_and_instances(on: Observatory, dashboard: Any) -> None:
    found = {}
    for variable in read(dashboard.uid)["templating"]["list"]:
        if variable["type"] == "query":
            selector, label = re.fullmatch(r"label_values\((.+), (\w+)\)", variable["query"]).groups()  # type: ignore[union-attr]
            found[variable["name"]] = on.prometheus.values_of(label, chosen(selector))
    servers = {f"127.0.0.1:{each.internal_port}" for each in (on.single, on.cluster)}
    if dashboard.uid == "stentor-overview":
        assert found["job"] == ["stentor"]
        assert set(found["instance"]) == servers
    else:
        assert set(found["job"]) == {"stentor", "stentor-loadtest"}
        assert set(found["instance"]) == {*servers, f"127.0.0.1:{on.loadtest_port}"}


def test_the_annotations_are_queries(on: Observatory) -> None:
    for dashboard in DASHBOARDS:
        for annotation in read(dashboard.uid)["annotations"]["list"]:
            assert annotation["datasource"]["uid"] == "${datasource}"
            on.prometheus.query(chosen(annotation["expr"]))


def test_a_start_is_marked(on: Observatory) -> None:
    [starts] = [each for each in read("stentor-overview")["annotations"]["list"] if each["name"] == "Starts"]
    # The machine may have taken longer than that to come so far.
    assert " < 60 " in starts["expr"]
    query = chosen(starts["expr"].replace(" < 60 ", " < 3600 "))
    found = on.prometheus.query_range(query, time.time() - 300, time.time(), 1)
    workers = {series.labels.get("worker") for series in found}
    assert workers == {"0", "1", "supervisor", None}


# What is exported


def exported(on: Observatory) -> set[str]:
    """The families' names, as queries name them: of a histogram with its _bucket, _sum and _count."""
    found = set()
    for text in (on.cluster.get("/metrics")[1], on.single.get("/metrics")[1], _loadtest(on)):
        found |= {re.split(r"[{ ]", key)[0] for key in Metrics(text.decode())}
    return found


def _loadtest(on: Observatory) -> bytes:
    return http("GET", f"http://127.0.0.1:{on.loadtest_port}/metrics")[1]


def family(name: str, histograms: set[str]) -> str:
    stem = re.sub(r"_(bucket|sum|count)$", "", name)
    return stem if stem in histograms else name


def shown() -> set[str]:
    return {selector.metric for one in ALL for selector in selectors(one.query)}


def test_every_metric_that_is_named_exists(on: Observatory) -> None:
    assert shown() - exported(on) - FROM_PROMETHEUS == set()


def test_every_metric_that_is_exported_is_shown(on: Observatory) -> None:
    everything = exported(on)
    histograms = {name.removesuffix("_bucket") for name in everything if name.endswith("_bucket")}
    left_out = {family(name, histograms) for name in everything} - {family(name, histograms) for name in shown()}
    assert left_out == set()
