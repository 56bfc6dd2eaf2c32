"""What Prometheus reads of a run: true numbers, from zero on, and nothing that ``promtool`` objects to."""

from __future__ import annotations

import shutil
import socket
import subprocess
from typing import Any, get_args, get_type_hints

import gevent.socket
import pytest
from prometheus_client import CollectorRegistry, generate_latest

from loadtest import exporter
from loadtest.conductor import Conductor
from loadtest.exporter import BOUNDS, PHASES, RunCollector
from loadtest.histogram import Histogram
from loadtest.options import OPTIONS, Options
from loadtest.result import Progress
from server.core.counters import SECONDS
from tests import loadtest_samples
from tests.engine import parsed, run
from tests.harness import Metrics, serve
from tests.test_loadtest_books import report, row

ATTEMPTS = {"asked": 3, "connected": 3, "failed": {}, "closes": {}, "left": 0}


def conductor(**values: Any) -> Conductor:
    given = parsed(url="ws://127.0.0.1:1", **values)
    return Conductor(Options.of(given), given, lambda *_: None, list, None)


def text(current: Conductor | None) -> str:
    registry = CollectorRegistry()
    registry.register(RunCollector(lambda: current))
    return generate_latest(registry).decode()


def scrape(current: Conductor | None) -> Metrics:
    return Metrics(text(current))


def status(**subscribers: Any) -> dict[str, Any]:
    return {"subscribers": {**ATTEMPTS, **subscribers}, "publishing": {**ATTEMPTS, "connected": 1, "asked": 1}}


def test_before_the_first_run_there_is_only_the_phase() -> None:
    assert dict(scrape(None)) == {"stentor_loadtest_phase": 0}


def test_a_run_begins_with_zeros() -> None:
    metrics = scrape(conductor(subscribers=7, rate=12.5, channels=2))
    assert metrics["stentor_loadtest_phase"] == PHASES.index("connecting")
    assert metrics["stentor_loadtest_connections_asked"] == 7
    assert metrics["stentor_loadtest_planned_publications_per_second"] == 12.5
    assert metrics["stentor_loadtest_listeners"] == (7 + 2) / 2  # publishers of the raw dialect listen, too
    for name in ("connections", "connect_failures_total", "publications_total", "deliveries_total"):
        assert f"stentor_loadtest_{name}" in metrics
        assert metrics[f"stentor_loadtest_{name}"] == 0
    assert metrics['stentor_loadtest_closes_total{code="1013"}'] == 0
    assert 'stentor_loadtest_closes_total{code="1013"}' in metrics


def test_what_the_stations_say_is_added_up() -> None:
    current = conductor(subscribers=7)
    current.hear("status", "a", status(connected=3, left=1, failed={"refused": 2}, closes={"1013": 1}))
    current.hear("status", "b", status(connected=4, failed={"timed out": 1}, closes={"4000": 1}))
    current.hear("report", "a", {**report("1", row(0), row(1)), "missing": 3})
    current.hear("report", "b", {**report("2", row(0, cpu=50.0, lag=4.0), row(1, late=5_000_000)), "missing": 4})
    metrics = scrape(current)
    assert metrics["stentor_loadtest_connections"] == 3 - 1 - 1 + 4 - 1
    assert metrics["stentor_loadtest_connect_failures_total"] == 3
    assert metrics['stentor_loadtest_closes_total{code="1013"}'] == 1
    assert metrics['stentor_loadtest_closes_total{code="4000"}'] == 1
    assert metrics["stentor_loadtest_publications_total"] == current.books.published == 4
    assert metrics["stentor_loadtest_deliveries_total"] == current.books.delivered == 8
    assert metrics["stentor_loadtest_missing_deliveries"] == 7
    assert metrics["stentor_loadtest_delivery_latency_seconds_count"] == 8
    assert metrics["stentor_loadtest_handshake_duration_seconds_count"] == 2
    assert metrics["stentor_loadtest_publication_lateness_seconds"] == 0.005
    assert {key for key in metrics if "generator_cpu" in key} == {
        'stentor_loadtest_generator_cpu_ratio{process="1"}', 'stentor_loadtest_generator_cpu_ratio{process="2"}',
    }  # fmt: skip


def test_a_report_that_comes_again_does_not_count_what_is_missing_twice() -> None:
    current = conductor()
    for missing in (3, 1):
        current.hear("report", "a", {**report("1"), "missing": missing})
    assert scrape(current)["stentor_loadtest_missing_deliveries"] == 1


@pytest.mark.parametrize(("missing", "dropped", "undeclared"), [(5, 0, 5), (5, 3, 2), (5, 9, 0)])
def test_what_the_server_says_it_dropped_is_declared(missing: int, dropped: int, undeclared: int) -> None:
    current = conductor()
    current.hear("report", "a", {**report("1"), "missing": missing})
    current.dropped = dropped
    assert scrape(current)["stentor_loadtest_undeclared_deliveries"] == undeclared


def test_once_the_books_are_closed_the_ledger_tells_what_is_lost() -> None:
    current = conductor()
    current.dropped = 100
    made: Any = loadtest_samples.result()
    made["ledger"]["lost"] = 12
    current.result = made
    assert scrape(current)["stentor_loadtest_undeclared_deliveries"] == 12


def test_the_buckets_are_the_server_s_and_hold_what_is_below_them() -> None:
    assert BOUNDS == SECONDS
    histogram = Histogram()
    for milliseconds in (0.05, 0.2, 3.0, 3.0, 30_000.0):
        histogram.record(int(milliseconds * 1e6))
    family = exporter._histogram("stentor_x_seconds", "X.", histogram)
    found = {sample.labels["le"]: sample.value for sample in family.samples if sample.name.endswith("_bucket")}
    assert found["0.0001"] == 1
    assert found["0.00025"] == 2
    assert found["0.0025"] == 2
    assert found["0.005"] == found["10.0"] == 4
    assert found["+Inf"] == 5


def test_every_phase_of_a_run_has_its_number() -> None:
    assert ("", *get_args(get_type_hints(Progress)["phase"])) == PHASES


def test_promtool_has_nothing_to_object_to() -> None:
    promtool = shutil.which("promtool")
    assert promtool, "promtool comes with the prometheus package"
    current = conductor()
    current.hear("report", "a", report("1", row(0)))
    done = subprocess.run([promtool, "check", "metrics"], input=text(current), text=True, capture_output=True)
    assert (done.returncode, done.stdout + done.stderr) == (0, "")


def test_a_real_run_is_read_over_http_while_it_lasts() -> None:
    """The engine runs in this process, and the exporter beside it, as in the process that leads."""
    seen: list[Metrics] = []
    leading: list[Conductor] = []
    with serve() as server, pytest.MonkeyPatch.context() as patch:
        begin = Conductor.prepare

        def prepare(self: Conductor) -> bool:
            leading.append(self)
            return begin(self)

        patch.setattr(Conductor, "prepare", prepare)
        endpoint = exporter.serve("127.0.0.1", 0, lambda: leading[-1] if leading else None)
        try:
            reader = gevent.spawn(_read_for_ever, endpoint.server_port, seen)
            result = run(
                f"ws://127.0.0.1:{server.port}", metrics=f"{server.internal_url}/metrics",
                subscribers=20, rate=50.0, publish_time="3s",
            )  # fmt: skip
            gevent.sleep(0.5)
            reader.kill()
        finally:
            endpoint.stop()
    assert result["verdict"]["verdict"] == "pass", result["verdict"]
    assert [each["stentor_loadtest_phase"] for each in seen] == sorted(each["stentor_loadtest_phase"] for each in seen)
    during = [each for each in seen if each["stentor_loadtest_phase"] == PHASES.index("publishing")]
    assert any(0 < each["stentor_loadtest_deliveries_total"] < result["ledger"]["delivered"] for each in during)
    last = seen[-1]
    assert last["stentor_loadtest_connections"] == 20
    assert last["stentor_loadtest_undeclared_deliveries"] == result["ledger"]["lost"] == 0
    assert last["stentor_loadtest_publications_total"] == result["publications"]["attempted"] == 150
    assert last["stentor_loadtest_delivery_latency_seconds_count"] == result["latency"]["count"]


def _read_for_ever(port: int, seen: list[Metrics]) -> None:
    while True:
        seen.append(Metrics(_get(port)))
        gevent.sleep(0.3)


def _get(port: int) -> str:
    """Read /metrics without blocking the hub, in which the exporter answers."""
    with gevent.socket.create_connection(("127.0.0.1", port), timeout=10) as connection:
        connection.sendall(b"GET /metrics HTTP/1.0\r\nHost: x\r\n\r\n")
        answer = b""
        while chunk := connection.recv(65536):
            answer += chunk
    head, _, body = answer.partition(b"\r\n\r\n")
    assert b" 200 " in head.split(b"\r\n")[0]
    return body.decode()


def test_a_port_that_is_taken_is_an_error_of_the_system() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken, pytest.raises(OSError, match="Address already in use"):
        exporter.serve("127.0.0.1", taken.getsockname()[1], lambda: None)


def test_it_is_off_unless_a_port_is_given() -> None:
    [port] = [option for option in OPTIONS if option.variable == "METRICS_PORT"]
    assert port.default == 0
