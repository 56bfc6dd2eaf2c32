"""What Prometheus sees: the contract's names, true numbers, and nothing that ``promtool`` would object to."""

from __future__ import annotations

import asyncio
import re
import shutil
import subprocess

import pytest
from prometheus_client import CollectorRegistry
from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse_openmetrics

from server.admin.metrics import new_registry, render
from server.core.lag import LagLimits, LagPolicy
from tests import wire
from tests.harness import Metrics
from tests.house import House, house

# The contract's (README, "Metrics"), as far as there is something to count, and what is beside them.
COUNTERS = {
    "stentor_connections_opened_total",
    "stentor_connections_closed_total",
    "stentor_connections_rejected_total",
    "stentor_messages_published_total",
    "stentor_messages_received_total",
    "stentor_messages_refused_total",
    "stentor_bytes_received_total",
    "stentor_messages_offered_total",
    "stentor_messages_sent_total",
    "stentor_bytes_sent_total",
    "stentor_messages_dropped_total",
    "stentor_slow_disconnects_total",
    "stentor_lag_policy_observed_total",
    "stentor_keepalive_spared_total",
}
GAUGES = {
    "stentor_connections",
    "stentor_max_connections",
    "stentor_channels",
    "stentor_subscriptions",
    "stentor_revocations",
    "stentor_queue_bytes",
    "stentor_max_queue_bytes",
    "stentor_queue_messages",
    "stentor_lagging_clients",
    "stentor_brownout_level",
    "stentor_worker_up",
    "stentor_build_info",
}
HISTOGRAMS = {
    "stentor_handshake_duration_seconds",
    "stentor_fanout_duration_seconds",
    "stentor_publish_to_write_seconds",
    "stentor_delivery_latency_seconds",
    "stentor_batch_messages",
    "stentor_client_queue_messages",
    "stentor_client_queue_bytes",
    "stentor_client_queue_age_seconds",
    "stentor_ping_rtt_seconds",
    "stentor_event_loop_lag_seconds",
    "stentor_gc_pause_seconds",
}
LABELS = {"dialect", "code", "reason", "worker", "le", "version", "python", "uvloop", "websockets", "generation"}


def registry(home: House) -> CollectorRegistry:
    return new_registry(home.listener, home.clock)


def scrape(home: House, accept: str = "") -> str:
    return rendered(home, accept)[0].decode()


def rendered(home: House, accept: str = "") -> tuple[bytes, str]:
    return asyncio.run(render(registry(home), accept))


def busy_house() -> House:
    """A house in which everything has happened once: sent, queued, dropped, thrown out, refused."""
    home = house(LagLimits(LagPolicy.DROP_OLDEST, messages=2, bytes=1000), max_connections=5)
    (speaker, _), (_, stalled), (_, leaving) = home.open(), home.open("/ws/<evil>&\"'"), home.open()
    home.open("/echo")
    home.open("/ws/<evil>&\"'")
    speaker.data_received(wire.text("hello"))
    home.loop.settle()
    stalled.stall()
    for number in range(5):
        home.clock.advance(1.0)
        home.publish("<evil>&\"'", b"x%d" % number)
        home.loop.settle()
    leaving.lose()
    connection, transport = home.accept()
    connection.data_received(wire.request("/nothing/s3cret"))
    transport.lose()
    connection, transport = home.open("/echo")
    connection.data_received(wire.close(4567))
    transport.lose()
    home.tick()
    return home


def test_the_names_are_the_contract_s() -> None:
    types = dict(re.findall(r"^# TYPE (stentor_\w+) (\w+)$", scrape(busy_house()), re.MULTILINE))
    assert {name for name, kind in types.items() if kind == "counter"} == COUNTERS
    assert {name for name, kind in types.items() if kind == "gauge"} == GAUGES
    assert {name for name, kind in types.items() if kind == "histogram"} == HISTOGRAMS
    assert set(types.values()) == {"counter", "gauge", "histogram"}


def test_labels_are_bounded_and_name_nobody() -> None:
    text = scrape(busy_house())
    assert set(re.findall(r"[{,](\w+)=\"", text)) <= LABELS
    for secret in ("evil", "s3cret", "127.0.0.1", "4567"):
        assert secret not in text, secret
    assert 'stentor_connections_closed_total{code="other"} 1.0' in text


def test_the_numbers_are_true() -> None:
    metrics = Metrics(scrape(busy_house()))
    assert metrics['stentor_connections{dialect="raw"}'] == 3
    assert metrics['stentor_connections{dialect="echo"}'] == 1
    assert metrics["stentor_connections_opened_total"] == 6
    assert metrics['stentor_connections_closed_total{code="1006"}'] == 1
    assert metrics['stentor_connections_rejected_total{reason="not_found"}'] == 1
    assert metrics["stentor_channels"] == 2
    assert metrics["stentor_subscriptions"] == 3
    assert metrics["stentor_messages_published_total"] == 1
    assert metrics["stentor_messages_received_total"] == 1
    assert metrics["stentor_bytes_received_total"] == 5
    # Two heard "hello"; of five, one was sent on its way, two wait, two were dropped; the other one got all five.
    assert metrics["stentor_messages_offered_total"] == 2 + 10
    assert metrics["stentor_messages_sent_total"] == 2 + 1 + 5
    assert metrics["stentor_bytes_sent_total"] == 2 * 7 + 6 * 2
    assert metrics['stentor_messages_dropped_total{reason="queue_full"}'] == 2
    assert (metrics["stentor_queue_messages"], metrics["stentor_queue_bytes"]) == (2, 4)
    assert metrics["stentor_lagging_clients"] == 1
    assert (metrics["stentor_max_connections"], metrics["stentor_max_queue_bytes"]) == (5, 1 << 30)
    assert metrics["stentor_worker_up"] == 1
    metrics.assert_balanced()


def test_the_end_of_the_certificate_is_there_when_there_is_a_certificate() -> None:
    home, name = house(), "stentor_tls_certificate_expiry_timestamp_seconds"
    assert name not in scrape(home)
    home.listener.certificate_expires = 1_800_000_000.0
    assert Metrics(scrape(home))[name] == 1_800_000_000


def test_histograms_are_cumulative_and_end_with_their_count() -> None:
    home = house()
    for seconds in (0.0001, 0.03, 0.03, 99.0):
        home.counters.ping_rtt.observe(seconds)
    metrics = Metrics(scrape(home))
    name = "stentor_ping_rtt_seconds"
    bounds = ("0.0001", "0.025", "0.05", "10.0", "+Inf")
    assert [metrics[f'{name}_bucket{{le="{bound}"}}'] for bound in bounds] == [1, 1, 3, 3, 4]
    assert metrics[f"{name}_count"] == 4
    assert metrics[f"{name}_sum"] == pytest.approx(99.0601)


def test_queues_are_looked_at_when_asked_and_every_client_counts() -> None:
    home = busy_house()
    home.clock.advance(2.0)
    metrics = Metrics(scrape(home))
    for name in ("messages", "bytes", "age_seconds"):
        assert metrics[f"stentor_client_queue_{name}_count"] == 4
        assert metrics[f'stentor_client_queue_{name}_bucket{{le="0.0"}}'] == 3
    assert metrics["stentor_client_queue_messages_sum"] == 2
    assert metrics["stentor_client_queue_bytes_sum"] == 4
    assert metrics["stentor_client_queue_age_seconds_sum"] == 3.0


def test_what_matters_is_there_before_it_happens() -> None:
    metrics = Metrics(scrape(house()))
    for reason in ("queue_full", "conflated", "disconnected", "budget"):
        assert f'stentor_messages_dropped_total{{reason="{reason}"}}' in metrics
    for reason in ("full", "origin", "credentials", "address", "connect_rate", "draining", "bad_request", "not_found"):
        assert f'stentor_connections_rejected_total{{reason="{reason}"}}' in metrics
    for code in ("1000", "1001", "1006", "1008", "1009", "1013", "3001", "3008", "3012", "3500", "3501"):
        assert f'stentor_connections_closed_total{{code="{code}"}}' in metrics
    assert sum(value for name, value in metrics.items() if name.startswith("stentor_messages")) == 0


def test_a_long_scrape_lets_others_have_their_turn_and_is_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    home = house(max_connections=50)
    clients = []
    for _ in range(20):
        clients.append(home.open())
        home.loop.settle()
    for _, transport in clients[:15]:
        transport.stall()
    for _ in range(3):
        home.publish("main", b"x")
        home.loop.settle()
        home.clock.advance(1.0)
    at_once = scrape(home)
    monkeypatch.setattr("server.admin.metrics.WALK", 4)
    monkeypatch.setattr("server.admin.metrics.SLICE", 0.0)

    async def scrape_slowly() -> tuple[str, int]:
        turns = 0

        def count() -> None:
            nonlocal turns
            turns += 1
            asyncio.get_running_loop().call_soon(count)

        count()
        body, _ = await render(registry(home), "")
        return body.decode(), turns

    slowly, turns = asyncio.run(scrape_slowly())
    assert turns > 40

    def ours(text: str) -> list[str]:
        return [line for line in text.splitlines() if "stentor" in line]

    assert ours(slowly) == ours(at_once)
    assert "interlude" not in slowly
    metrics = Metrics(slowly)
    assert metrics["stentor_client_queue_messages_count"] == 20
    assert metrics['stentor_client_queue_messages_bucket{le="0.0"}'] == 5
    assert metrics["stentor_client_queue_messages_sum"] == metrics["stentor_queue_messages"] == 15 * 2


def test_the_process_and_the_collector_are_in_it_too() -> None:
    metrics = Metrics(scrape(house()))
    assert metrics["process_resident_memory_bytes"] > 0
    assert metrics.total("python_gc_collections_total") >= 0
    assert 'python_gc_collections_total{generation="0"}' in metrics
    assert not any(name.startswith(("stentor_", "process_")) and "_created" in name for name in metrics)


def test_a_scrape_moves_nothing() -> None:
    home = busy_house()

    def ours(text: str) -> list[str]:
        return [line for line in text.splitlines() if line.startswith("stentor")]

    assert ours(scrape(home)) == ours(scrape(home))


@pytest.mark.parametrize(
    ("accept", "content_type"),
    [
        ("", "text/plain"),
        ("text/plain", "text/plain"),
        ("application/openmetrics-text; version=1.0.0", "application/openmetrics-text"),
        ("application/openmetrics-text; version=abc", "text/plain"),
    ],
)
def test_the_form_is_the_one_that_is_asked_for(accept: str, content_type: str) -> None:
    body, given = rendered(busy_house(), accept)
    assert given.startswith(content_type)
    if content_type == "text/plain":
        assert Metrics(body.decode())["stentor_worker_up"] == 1
    else:
        assert body.endswith(b"# EOF\n")
        families = {family.name for family in parse_openmetrics(body.decode())}
        assert "stentor_messages_offered" in families


def test_promtool_has_nothing_to_object_to() -> None:
    promtool = shutil.which("promtool")
    assert promtool, "promtool is not on PATH: it comes with Debian's package `prometheus`"
    body, _ = rendered(busy_house())
    checked = subprocess.run([promtool, "check", "metrics"], input=body, capture_output=True, timeout=60, check=False)
    assert (checked.stdout + checked.stderr).decode() == ""
    assert checked.returncode == 0


def test_the_check_would_find_something() -> None:
    promtool = shutil.which("promtool")
    assert promtool
    wrong = b"# TYPE stentor_things counter\nstentor_things 1\n"
    checked = subprocess.run([promtool, "check", "metrics"], input=wrong, capture_output=True, timeout=60, check=False)
    assert b"stentor_things" in checked.stdout + checked.stderr
