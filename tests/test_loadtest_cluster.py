"""Several nodes as one server: sums where all parts are known, the worst where a sum would say nothing."""

from __future__ import annotations

from typing import Any

import pytest

from loadtest.cluster import Cluster, together
from loadtest.witness import Witness
from tests.test_loadtest_witness import FakeProbe, quiet


def cluster(*probes: FakeProbe, broker: FakeProbe | None = None) -> Cluster:
    return Cluster([Witness(probe) for probe in probes], broker)  # type: ignore[arg-type]


def lagging(seconds: float, count: int = 10) -> str:
    return quiet(1) + f"stentor_event_loop_lag_seconds_sum {seconds}\nstentor_event_loop_lag_seconds_count {count}\n"


def test_counters_are_summed_over_the_nodes() -> None:
    one = cluster(FakeProbe(quiet(10), quiet(30)), FakeProbe(quiet(5), quiet(105)))
    one.read_before()
    one.read_after()
    assert one.delta is not None
    assert (one.delta["offered"], one.delta["sent"]) == (120, 120)
    assert [node.delta and node.delta["offered"] for node in one.nodes] == [20, 100]


def test_what_one_node_does_not_tell_is_not_known_of_the_whole() -> None:
    one = cluster(FakeProbe(quiet(10)), FakeProbe(None))
    one.read_before()
    one.read_after()
    assert (one.before, one.after, one.delta) == (None, None, None)


def test_a_second_has_the_sums_the_worst_lag_and_each_nodes_cpu() -> None:
    broker = FakeProbe(None)
    one = cluster(FakeProbe(lagging(0.01), lagging(0.02)), FakeProbe(lagging(0.03), lagging(0.05)), broker=broker)
    one.read_connected()
    row = one.read_second()
    assert row["server_rss"] == 2000
    assert set(row["nodes_cpu"]) == {"1", "2"}
    assert row["server_cpu"] == pytest.approx(sum(row["nodes_cpu"].values()))
    assert row["broker_cpu"] is not None
    assert one.broker(100) == {
        "pid": 7, "cpu_seconds": 1.5, "cpu_us_per_publication": 15_000.0, "rss_max": 1000,
    }  # fmt: skip


def test_a_server_of_one_node_is_its_own_whole() -> None:
    one = cluster(FakeProbe(lagging(0.01)))
    one.read_connected()
    row = one.read_second()
    assert (row["nodes_cpu"], row["broker_cpu"], row["server_rss"]) == ({}, None, 1000)
    assert one.broker(100) is None


def test_the_worst_of_the_nodes_lags_is_told() -> None:
    before = lagging(0.0)
    one = cluster(FakeProbe(before, before, lagging(0.01, 20)), FakeProbe(before, before, lagging(0.05, 20)))
    one.read_connected()
    assert one.read_second()["server_loop_lag_ms"] == pytest.approx(5.0)


def test_facts_are_summed_and_a_part_that_is_missing_is_missed() -> None:
    facts: Any = {
        "build": {"version": "1"}, "pids": [1], "processes": [{"pid": 1, "cpu_seconds": 2.0}], "cpu_seconds": 2.0,
        "cpu_us_per_delivery": 9.0, "rss_before": 1, "rss_connected": 2, "rss_max": 3, "rss_after": 4, "bytes_sent": 5,
    }  # fmt: skip
    whole = together([facts, facts], 1_000_000)
    assert (whole["cpu_seconds"], whole["cpu_us_per_delivery"], whole["rss_max"]) == (4.0, 4.0, 6)
    assert (whole["pids"], len(whole["processes"]), whole["build"]) == ([1, 1], 2, {"version": "1"})
    part = together([facts, facts | {"cpu_seconds": None}], 1_000_000)
    assert (part["cpu_seconds"], part["cpu_us_per_delivery"], part["rss_max"]) == (None, None, 6)
