"""The metrics of a server that has seen everything: the contract's names, both formats, and labels that stay few."""

from __future__ import annotations

import random
import re
import shutil
import subprocess
from collections.abc import Iterator

import pytest
from prometheus_client.openmetrics.parser import text_string_to_metric_families as open_metrics_families

from tests.absence import absent
from tests.harness import Server, http, serve, wait_until
from tests.lifecycle.asking import ask, hears_itself, talk
from tests.wire import BINARY, close, frame, request, text

OPEN_METRICS = "application/openmetrics-text; version=1.0.0"
FAMILIES = re.compile(r"^# TYPE (\S+) (\S+)$", re.MULTILINE)

# The contract's table (README, "Metrics"), as far as one server with a memory broker has them.
CONTRACT = {
    "stentor_connections": "gauge",
    "stentor_connections_opened_total": "counter",
    "stentor_connections_closed_total": "counter",
    "stentor_connections_rejected_total": "counter",
    "stentor_handshake_duration_seconds": "histogram",
    "stentor_channels": "gauge",
    "stentor_subscriptions": "gauge",
    "stentor_messages_published_total": "counter",
    "stentor_messages_received_total": "counter",
    "stentor_bytes_received_total": "counter",
    "stentor_messages_offered_total": "counter",
    "stentor_messages_sent_total": "counter",
    "stentor_bytes_sent_total": "counter",
    "stentor_messages_dropped_total": "counter",
    "stentor_fanout_duration_seconds": "histogram",
    "stentor_publish_to_write_seconds": "histogram",
    "stentor_batch_messages": "histogram",
    "stentor_client_queue_messages": "histogram",
    "stentor_client_queue_bytes": "histogram",
    "stentor_client_queue_age_seconds": "histogram",
    "stentor_queue_bytes": "gauge",
    "stentor_lagging_clients": "gauge",
    "stentor_slow_disconnects_total": "counter",
    "stentor_ping_rtt_seconds": "histogram",
    "stentor_event_loop_lag_seconds": "histogram",
    "stentor_worker_up": "gauge",
    "stentor_build_info": "gauge",
    "process_cpu_seconds_total": "counter",
    "process_resident_memory_bytes": "gauge",
    "process_open_fds": "gauge",
    "process_max_fds": "gauge",
    "python_gc_collections_total": "counter",
}
# The close codes of the Centrifuge dialect that have labels of their own, whoever sends them.
COUNTED = (3000, 3001, *range(3003, 3015), *range(3500, 3510))
# Every label there may be, but for the bounds of histograms and what the Python runtime says of itself.
LABELS = {"dialect", "code", "reason", "worker", "version", "python", "uvloop", "websockets"}


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    with serve() as running, talk(running, "/ws/seen") as client:
        with talk(running, "/echo") as other:
            assert hears_itself(other, b"hello")
            other.send(close(1000))
            other.read_until_closed()
        assert hears_itself(client, b"hello")
        client.send(frame(BINARY, bytes(1000)))
        running.api("publish", {"channel": "seen", "data": "x" * 1000})
        ask(running.port, request("/nope"))
        with talk(running, "/connection/websocket") as other:
            other.send(text('{"id":1,"connect":{}}\n{"id":2,"subscribe":{"channel":"seen"}}'))
            assert other.read().payload.count(b"\n") == 1
            other.send(text('{"id":3,"connect":{}}'))
            assert other.read_until_closed().code == 3501
        yield running


def series(server: Server) -> set[str]:
    return set(server.metrics())


def test_the_names_and_types_of_the_contract(server: Server) -> None:
    said = server.get("/metrics")[1].decode()
    found = dict(FAMILIES.findall(said))
    assert {name: found.get(name) for name in CONTRACT} == CONTRACT
    # Whatever else there is has our prefix, or is the runtime's.
    assert [name for name in found if not name.startswith(("stentor_", "process_", "python_gc_"))] == []
    assert "_created" not in said


def test_what_promtool_says(server: Server) -> None:
    promtool = shutil.which("promtool")
    if promtool is None:
        absent("promtool is not installed; it comes with Debian's package prometheus")
    for planted, clean in ((b"", True), (b"# TYPE requests counter\nrequests 1\n", False)):
        done = subprocess.run(
            [promtool, "check", "metrics"], input=server.get("/metrics")[1] + planted, capture_output=True
        )
        assert (done.returncode == 0) is clean, done.stdout + done.stderr


def test_open_metrics_for_who_asks(server: Server) -> None:
    def content_type(accept: str | None) -> str:
        import urllib.request

        fields = {} if accept is None else {"Accept": accept}
        with urllib.request.urlopen(urllib.request.Request(f"{server.internal_url}/metrics", headers=fields)) as answer:
            return str(answer.headers["Content-Type"])

    # What Prometheus itself sends.
    scraper = (
        f"{OPEN_METRICS},application/openmetrics-text;version=0.0.1;q=0.75,text/plain;version=0.0.4;q=0.5,*/*;q=0.1"
    )
    for accept in (OPEN_METRICS, scraper):
        assert content_type(accept).startswith("application/openmetrics-text")
    for accept in (None, "*/*", "text/plain", "text/html", "application/openmetrics-text; version=oops", ";;;"):
        assert content_type(accept).startswith("text/plain; version=")
    said = server.get("/metrics", {"Accept": OPEN_METRICS})[1].decode()
    assert said.endswith("# EOF\n")
    families = {family.name for family in open_metrics_families(said)}
    assert {name.removesuffix("_total") for name in CONTRACT} <= families


def test_both_formats_tell_the_same(server: Server) -> None:
    plain = set(dict(FAMILIES.findall(server.get("/metrics")[1].decode())))
    asked = dict(FAMILIES.findall(server.get("/metrics", {"Accept": OPEN_METRICS})[1].decode()))
    assert {name.removesuffix("_total") for name in plain} == set(asked)


def test_what_happened_is_told(server: Server) -> None:
    ended = 'stentor_connections_closed_total{code="1000"}'
    metrics = wait_until(lambda: metrics if (metrics := server.metrics())[ended] else None)
    metrics.assert_balanced()
    assert metrics['stentor_connections{dialect="raw"}'] >= 1
    assert metrics['stentor_connections_closed_total{code="3501"}'] >= 1
    assert metrics['stentor_connections_rejected_total{reason="not_found"}'] >= 1
    assert metrics["stentor_handshake_duration_seconds_count"] == metrics["stentor_connections_opened_total"]
    assert metrics["stentor_messages_received_total"] >= 3
    assert metrics["stentor_bytes_received_total"] >= 1010
    assert metrics["stentor_messages_sent_total"] >= 3
    assert metrics["stentor_bytes_sent_total"] >= 2 * 1004 + 7
    assert metrics["stentor_worker_up"] == 1
    assert metrics["stentor_event_loop_lag_seconds_count"] > 0


def test_histograms_are_histograms(server: Server) -> None:
    metrics = server.metrics()
    for name, kind in CONTRACT.items():
        if kind != "histogram":
            continue
        buckets = [value for key, value in metrics.items() if key.startswith(f"{name}_bucket")]
        assert len(buckets) > 5, name
        assert buckets == sorted(buckets), "cumulative"
        assert buckets[-1] == metrics[f'{name}_bucket{{le="+Inf"}}'] == metrics[f"{name}_count"]
    # Every connection counts once, whether it lags or not.
    assert metrics["stentor_client_queue_messages_count"] == metrics.total("stentor_connections")


def test_no_client_can_make_labels(server: Server) -> None:
    """A thousand channels, paths, methods, hosts, origins, tokens and close codes: not one series more."""
    chance = random.Random(6455)
    # Each one that is counted by itself, and one that is not, that there be no first time for them below.
    for code in (1000, 1001, 1008, 1009, *COUNTED, 4000):
        with talk(server) as client:
            client.send(close(code))
            client.read_until_closed()
    for words in (
        request("/nope"),
        request("/ws", "Origin: http://a.example"),
        b"\r\n\r\n",
        b"A /ws HTTP/1.1\r\nHost: a\r\n\r\n",
    ):
        ask(server.port, words)
    before = series(server)
    for number in range(1000):
        name = f"{chance.getrandbits(64):x}"
        kind = number % 6
        if kind == 0:
            with talk(server, f"/ws/{name}", f"X-{name}: {name}") as client:
                client.send(text(name) + close(chance.choice([1000, *range(3000, 5000)]), name))
                client.read_until_closed()
        elif kind == 1:
            ask(server.port, request(f"/{name}?{name}={name}"))
        elif kind == 2:
            ask(server.port, request("/ws", f"Origin: http://{name}.example"))
        elif kind == 3:
            ask(server.port, request("/ws", method=name.upper()))
        elif kind == 4:
            with talk(server, "/connection/websocket") as client:
                client.send(text(f'{{"id":1,"connect":{{"name":"{name}","headers":{{"{name}":"{name}"}}}}}}'))
                client.send(text(f'{{"id":2,"subscribe":{{"channel":"{name}:{name}"}}}}\n{{"id":3,"{name}":{{}}}}'))
                client.send(close(chance.choice([1000, *range(3000, 5000)]), name))
                client.read_until_closed()
        else:
            http("POST", f"{server.internal_url}/api/publish", b'{"channel": "%s", "data": 1}' % name.encode())
            http("GET", f"{server.internal_url}/{name}")
    after = series(server)
    assert after - before == set()
    assert {label for key in after for label in re.findall(r'[{,](\w+)="', key)} <= LABELS | {"le", "generation"}
    wait_until(lambda: server.metrics()["stentor_channels"] == 1, what="their channels are forgotten")
