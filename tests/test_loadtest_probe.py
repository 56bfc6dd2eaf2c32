from __future__ import annotations

import os
import socket
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from loadtest.probe import Probe, Rates, balanced, difference, is_account, parse

METRICS = """\
# HELP stentor_messages_offered_total Publications times subscribers at the time.
# TYPE stentor_messages_offered_total counter
stentor_messages_offered_total{worker="0"} 100.0
stentor_messages_offered_total{worker="1"} 50.0
stentor_messages_sent_total{worker="0"} 90.0
stentor_messages_sent_total{worker="1"} 45.0
stentor_messages_dropped_total{reason="queue_full",worker="0"} 7.0
stentor_messages_dropped_total{reason="queue_full",worker="1"} 3.0
stentor_messages_dropped_total{reason="budget",worker="1"} 0.0
stentor_messages_received_total 11.0
stentor_messages_published_total 12.0
stentor_client_queue_messages_bucket{le="1.0"} 3.0
stentor_client_queue_messages_bucket{le="+Inf"} 4.0
stentor_client_queue_messages_count 4.0
stentor_client_queue_messages_sum 5.0
stentor_connections{dialect="raw"} 4.0
stentor_connections{dialect="centrifuge"} 2.0
stentor_connections_opened_total 9.0
stentor_connections_closed_total{code="1006"} 3.0
stentor_build_info{python="3.11.7",version="0.1.0",worker="0"} 1.0
stentor_event_loop_lag_seconds_sum 2.5e-01
stentor_event_loop_lag_seconds_count 100.0
process_cpu_seconds_total 1.5
process_resident_memory_bytes 1.048576e+06
python_gc_objects_collected_total{generation="0"} 200.0
"""


def test_counters_are_summed_over_workers() -> None:
    scrape = parse(METRICS)
    assert is_account(scrape)
    assert scrape.counters() == {
        "offered": 150, "sent": 135, "dropped": {"queue_full": 10}, "received": 11, "published": 12, "queued": 5,
        "connections": 6, "opened": 9, "closed": {"1006": 3},
    }  # fmt: skip
    assert balanced(scrape.counters())
    assert scrape.build == {"python": "3.11.7", "version": "0.1.0"}
    assert scrape.number("stentor_queue_bytes") is None


def test_what_is_no_account_is_not_taken_for_one() -> None:
    assert not is_account(parse("process_cpu_seconds_total 1\n<html>nonsense\n"))


def test_a_difference_is_that_of_counters_and_not_of_gauges() -> None:
    before = parse(METRICS).counters()
    after = parse(METRICS.replace("100.0\n", "120.0\n").replace("} 7.0", "} 9.0").replace("} 4.0", "} 8.0")).counters()
    assert difference(before, after) == {
        "offered": 20, "sent": 0, "dropped": {"queue_full": 2}, "received": 0, "published": 0, "queued": 5,
        "connections": 10, "opened": 0, "closed": {},
    }  # fmt: skip
    assert not balanced(after)


class Handler(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        status, text = self.server.answers.pop(0)  # type: ignore[attr-defined]
        self.send_response(status)
        self.end_headers()
        self.wfile.write(text.encode())

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def exporter() -> Iterator[ThreadingHTTPServer]:
    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield server
        server.shutdown()
        thread.join()


def url(exporter: ThreadingHTTPServer) -> str:
    return f"http://127.0.0.1:{exporter.server_port}/metrics"


def test_a_scrape_is_read_over_http(exporter: ThreadingHTTPServer) -> None:
    exporter.answers = [(200, METRICS), (500, "sorry")]  # type: ignore[attr-defined]
    probe = Probe(url(exporter), None)
    scrape = probe.scrape()
    assert scrape is not None
    assert (probe.cpu_seconds(scrape), probe.rss(scrape)) == (1.5, 1 << 20)
    assert probe.scrape() is None


def test_rates_are_taken_between_two_scrapes(exporter: ThreadingHTTPServer) -> None:
    later = METRICS.replace("2.5e-01", "3.5e-01").replace("count 100.0", "count 110.0").replace("} 7.0", "} 8.0")
    exporter.answers = [(200, METRICS), (200, later)]  # type: ignore[attr-defined]
    rates = Rates(Probe(url(exporter), None))
    assert rates.take()["server_cpu"] is None
    row = rates.take()
    assert row["server_cpu"] == 0
    assert row["server_loop_lag_ms"] == pytest.approx(10)
    assert (row["dropped"], row["server_connections"], row["queue_bytes"]) == (1, 6, None)


def test_what_cannot_be_read_is_none() -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    probe = Probe(f"http://127.0.0.1:{port}/metrics", 2**22 + 1)
    assert (probe.scrape(), probe.cpu_seconds(), probe.rss(), probe.pids()) == (None, None, None, [])
    assert set(Rates(probe).take().values()) == {None}
    assert Probe(None, None).scrape() is None


def test_a_process_on_this_machine_is_measured() -> None:
    probe = Probe(None, os.getpid())
    assert probe.pids()[0] == os.getpid()
    cpu, size = probe.cpu_seconds(), probe.rss()
    assert cpu is not None
    assert size is not None
    assert cpu > 0
    assert size > 1 << 20
