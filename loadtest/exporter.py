"""A run's own figures for Prometheus, while it lasts: to lay beside what the server exports.

Laws: nothing happens between two scrapes; a scrape adds nothing up but what the books have added up already. The
figures are those of the process that leads, over all processes that generate. A new run begins at zero.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from gevent import socket
from gevent.pywsgi import WSGIServer
from prometheus_client import CollectorRegistry, make_wsgi_app
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from loadtest.conductor import Conductor
from loadtest.histogram import Histogram, bounds_of

#: In the order of a run; a run that has not begun is 0.
PHASES = ("", "connecting", "publishing", "barrier", "done")
#: Upper bounds in seconds: those of the server, so that the two can be compared.
BOUNDS = (0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
# A series that appears only with its first event has no rate at that event.
_CLOSES = ("1001", "1006", "1009", "1011", "1012", "1013", "3001", "3008", "3012")
_PREFIX = "stentor_loadtest"

Message = dict[str, Any]


class RunCollector(Collector):
    """Reads the run that is led at the moment, or was last."""

    def __init__(self, conductor: Callable[[], Conductor | None]) -> None:
        self._conductor = conductor

    def collect(self) -> Iterator[Metric]:
        conductor = self._conductor()
        phase = PHASES.index(conductor.phase) if conductor else 0
        told = ", ".join(f"{number} = {name or 'no run'}" for number, name in enumerate(PHASES))
        yield GaugeMetricFamily(f"{_PREFIX}_phase", f"What the run does now: {told}.", value=phase)
        if conductor is not None:
            yield from _connections(conductor)
            yield from _messages(conductor)
            yield from _generator(conductor)


def serve(host: str, port: int, conductor: Callable[[], Conductor | None]) -> WSGIServer:
    """Answer Prometheus from now on, until the process ends.

    Raises:
        OSError: the port cannot be had.
    """
    registry = CollectorRegistry()
    registry.register(RunCollector(conductor))
    server = WSGIServer(_listen(host, port), make_wsgi_app(registry), log=None)
    server.start()
    return server


def _listen(host: str, port: int) -> socket.socket:
    # The server's own listening leaves a socket open when it fails.
    family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
    listener = socket.socket(family, kind, protocol)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
        listener.listen()
    except OSError:
        listener.close()
        raise
    return listener


def _connections(conductor: Conductor) -> Iterator[Metric]:
    everyone = [status[kind] for status in conductor.statuses for kind in ("subscribers", "publishing")]
    subscribers = [status["subscribers"] for status in conductor.statuses]
    closes: Counter[str] = Counter(dict.fromkeys(_CLOSES, 0))
    for attempts in everyone:
        closes.update(attempts["closes"])
    ended = CounterMetricFamily(
        f"{_PREFIX}_closes", "Healthy connections that the server closed, by code.", labels=("code",)
    )
    for code, count in closes.items():
        ended.add_metric((str(code),), count)
    yield GaugeMetricFamily(
        f"{_PREFIX}_connections_asked", "Subscribers' connections asked for.", value=conductor.options.connections
    )
    yield GaugeMetricFamily(
        f"{_PREFIX}_connections", "Subscribers' connections open now.", value=sum(map(_open, subscribers))
    )
    failed = sum(sum(attempts["failed"].values()) for attempts in everyone)
    yield CounterMetricFamily(f"{_PREFIX}_connect_failures", "Connects that failed.", value=failed)
    yield ended
    handshakes = conductor.books.handshakes()
    yield _histogram(f"{_PREFIX}_handshake_duration_seconds", "From connect to usable.", handshakes)


def _open(attempts: Message) -> int:
    return int(attempts["connected"] - attempts["left"] - sum(attempts["closes"].values()))


def _messages(conductor: Conductor) -> Iterator[Metric]:
    options, books = conductor.options, conductor.books
    planned = f"{_PREFIX}_planned_publications_per_second"
    yield GaugeMetricFamily(planned, "The rate that was asked for.", value=options.rate)
    listeners = options.subscriptions / options.channels
    yield GaugeMetricFamily(
        f"{_PREFIX}_listeners", "Deliveries that a publication is owed when all are there.", value=listeners
    )
    yield CounterMetricFamily(f"{_PREFIX}_publications", "Publications sent.", value=books.published)
    yield CounterMetricFamily(f"{_PREFIX}_deliveries", "Deliveries, every one checked.", value=books.delivered)
    yield GaugeMetricFamily(
        f"{_PREFIX}_missing_deliveries", "Not delivered to healthy subscribers, though later ones were.",
        value=books.missing,
    )  # fmt: skip
    # Once the books are closed, the ledger knows better.
    lost = conductor.result["ledger"]["lost"] if conductor.result else max(books.missing - conductor.dropped, 0)
    yield GaugeMetricFamily(
        f"{_PREFIX}_undeclared_deliveries", "Of these, more than the server counts as dropped.", value=lost
    )
    latency = "From when a publication was due to its delivery, of those timed after the warm-up."
    yield _histogram(f"{_PREFIX}_delivery_latency_seconds", latency, books.latency())


def _generator(conductor: Conductor) -> Iterator[Metric]:
    """The load of those who make the load, in the newest second that all have told of; nothing before the first."""
    second = conductor.books.newest()
    if second is None:
        return
    cpu = GaugeMetricFamily(f"{_PREFIX}_generator_cpu_ratio", "Share of its core, by process.", labels=("process",))
    for process, share in second["generator_cpu"].items():
        cpu.add_metric((process,), share / 100)
    lag = GaugeMetricFamily(
        f"{_PREFIX}_generator_lag_seconds", "How late its event loop was at worst, by process.", labels=("process",)
    )
    for process, milliseconds in second["generator_lag_ms"].items():
        lag.add_metric((process,), milliseconds / 1000)
    yield cpu
    yield lag
    late = f"{_PREFIX}_publication_lateness_seconds"
    yield GaugeMetricFamily(late, "How late a publication was sent at worst.", value=(second["late_ms"] or 0) / 1000)


def _histogram(name: str, help_text: str, histogram: Histogram) -> Metric:
    """Turn a histogram of nanoseconds into one of Prometheus's; a bucket of ours falls whole into one of theirs."""
    counts = [0] * (len(BOUNDS) + 1)
    for bucket, count in histogram.sparse():
        counts[bisect_left(BOUNDS, sum(bounds_of(bucket)) / 2e9)] += count
    buckets = list(zip((*map(repr, BOUNDS), "+Inf"), _running_total(counts), strict=True))
    return HistogramMetricFamily(name, help_text, buckets=buckets, sum_value=histogram.total / 1e9)


def _running_total(counts: Sequence[int]) -> Iterator[float]:
    total = 0
    for count in counts:
        total += count
        yield total
