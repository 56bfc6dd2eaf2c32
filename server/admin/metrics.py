"""What Prometheus sees: the core's counters, read when it asks. Nothing here is touched between two scrapes.

Laws: labels are bounded (dialect, code, reason), never a channel, a client, an address or a path; the names are the
contract's.
"""

from __future__ import annotations

import platform
from collections.abc import Callable, Iterable, Iterator, Mapping
from importlib.metadata import version

from prometheus_client import CollectorRegistry, GCCollector, ProcessCollector, disable_created_metrics
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily
from prometheus_client.exposition import choose_encoder
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from server import __version__
from server.core.counters import BYTES, MESSAGES, SECONDS, Histogram
from server.edge.listener import Listener

# A series that appears only with its first event has no rate at that event: those that matter are there from the start.
_REJECTIONS = (
    "address", "bad_request", "connect_rate", "credentials", "draining", "full", "not_found", "origin", "permission",
)  # fmt: skip
_CLOSES = (
    "1000", "1001", "1005", "1006", "1008", "1009", "1013",
    "3001", "3004", "3005", "3008", "3010", "3012", "3013", "3500", "3501", "3502",
)  # fmt: skip


class StentorCollector(Collector):
    """Reads one process's counters into metric families."""

    def __init__(self, listener: Listener, clock: Callable[[], float]) -> None:
        self._listener = listener
        self._clock = clock

    def collect(self) -> Iterator[Metric]:
        yield from self._connections()
        yield from self._messages()
        yield from self._durations()
        yield from self._queues()
        yield GaugeMetricFamily("stentor_worker_up", "Whether the worker answers.", value=1)
        build = {
            "version": __version__,
            "python": platform.python_version(),
            "uvloop": version("uvloop"),
            "websockets": version("websockets"),
        }
        labels, values = tuple(build), tuple(build.values())
        yield _labelled(GaugeMetricFamily, "stentor_build_info", "What is running.", labels, {values: 1})

    def _connections(self) -> Iterator[Metric]:
        listener, counters = self._listener, self._listener.counters
        yield _labelled(
            GaugeMetricFamily, "stentor_connections", "Connections open now.", ("dialect",),
            {(dialect,): count for dialect, count in listener.open_by_dialect.items()},
        )  # fmt: skip
        yield CounterMetricFamily("stentor_connections_opened", "Finished handshakes.", value=counters.opened)
        yield _labelled(
            CounterMetricFamily, "stentor_connections_closed", "Ended connections, by close code.", ("code",),
            _with_zeros(counters.closed, _CLOSES),
        )  # fmt: skip
        yield _labelled(
            CounterMetricFamily, "stentor_connections_rejected", "Requests refused before the upgrade.", ("reason",),
            _with_zeros(counters.rejected, _REJECTIONS),
        )  # fmt: skip
        yield GaugeMetricFamily("stentor_channels", "Channels with subscribers.", value=len(listener.node.audiences))
        yield GaugeMetricFamily("stentor_subscriptions", "Subscriptions.", value=listener.hub.subscriptions)

    def _messages(self) -> Iterator[Metric]:
        counters = self._listener.counters
        for name, help_text, value in (
            ("stentor_messages_published", "Publications into the hub.", counters.published),
            ("stentor_messages_received", "Messages from clients.", counters.received),
            ("stentor_bytes_received", "Payload bytes of messages from clients.", counters.bytes_received),
            ("stentor_messages_offered", "Publications times subscribers at the time.", counters.offered),
            ("stentor_messages_sent", "Deliveries handed to the transport.", counters.sent),
            ("stentor_bytes_sent", "Wire bytes of deliveries.", counters.bytes_sent),
            ("stentor_slow_disconnects", "Clients thrown out for being too slow.", counters.slow_disconnects),
            ("stentor_lag_policy_observed", "Times the lag policy would have acted.", counters.observed),
        ):
            yield CounterMetricFamily(name, help_text, value=value)
        yield _labelled(
            CounterMetricFamily, "stentor_messages_dropped", "Deliveries given up.", ("reason",),
            {(str(reason),): count for reason, count in counters.dropped.items()},
        )  # fmt: skip

    def _durations(self) -> Iterator[Metric]:
        counters = self._listener.counters
        for name, help_text, histogram in (
            ("stentor_handshake_duration_seconds", "From accept to 101.", counters.handshake_duration),
            ("stentor_fanout_duration_seconds", "One flush of one channel.", counters.fanout_duration),
            ("stentor_publish_to_write_seconds", "Publication to last subscriber written.", counters.publish_to_write),
            ("stentor_batch_messages", "Publications per flush.", counters.batch_messages),
            ("stentor_ping_rtt_seconds", "Ping to pong.", counters.ping_rtt),
            ("stentor_event_loop_lag_seconds", "How late the loop's timer was.", counters.event_loop_lag),
        ):  # fmt: skip
            yield histogram_family(name, help_text, histogram)

    def _queues(self) -> Iterator[Metric]:
        listener, backlog, now = self._listener, self._listener.backlog, self._clock()
        messages, size, age = Histogram(MESSAGES), Histogram(BYTES), Histogram((0.0, *SECONDS))
        lagging = list(backlog.laggards)
        for outbox in lagging:
            messages.observe(outbox.messages)
            size.observe(outbox.bytes)
            age.observe(now - outbox.oldest if outbox.oldest is not None else 0.0)
        # Everyone else keeps up, and has nothing queued.
        for histogram in (messages, size, age):
            histogram.observe(0, listener.gate.open - len(lagging))
        yield histogram_family("stentor_client_queue_messages", "Messages queued per client, now.", messages)
        yield histogram_family("stentor_client_queue_bytes", "Bytes queued per client, now.", size)
        yield histogram_family(
            "stentor_client_queue_age_seconds", "Age of the oldest queued message per client, now.", age
        )
        yield GaugeMetricFamily("stentor_queue_bytes", "Bytes queued for all clients.", value=backlog.bytes)
        yield GaugeMetricFamily("stentor_queue_messages", "Messages queued for all clients.", value=backlog.messages)
        yield GaugeMetricFamily("stentor_lagging_clients", "Clients that do not keep up now.", value=len(lagging))


def new_registry(listener: Listener, clock: Callable[[], float]) -> CollectorRegistry:
    """Make the registry of one process: our metrics, ``process_*`` and ``python_gc_*``."""
    disable_created_metrics()  # type: ignore[no-untyped-call]
    registry = CollectorRegistry()
    registry.register(StentorCollector(listener, clock))
    ProcessCollector(registry=registry)
    GCCollector(registry=registry)
    return registry


def render(registry: CollectorRegistry, accept: str) -> tuple[bytes, str]:
    """Render a scrape as Prometheus text or OpenMetrics, as the Accept header asks; returns body and content type."""
    try:
        encoder, content_type = choose_encoder(accept)
    except (TypeError, ValueError):  # a version that is none
        encoder, content_type = choose_encoder("")
    return encoder(registry), content_type


def _with_zeros(counts: Mapping[str, int], always: Iterable[str]) -> dict[tuple[str, ...], float]:
    return {(name,): counts.get(name, 0) for name in sorted({*always, *counts})}


def _labelled(
    family: type[CounterMetricFamily] | type[GaugeMetricFamily],
    name: str,
    help_text: str,
    labels: tuple[str, ...],
    values: Mapping[tuple[str, ...], float],
) -> Metric:
    metric = family(name, help_text, labels=labels)
    for label_values, value in values.items():
        metric.add_metric(label_values, value)
    return metric


def histogram_family(name: str, help_text: str, histogram: Histogram) -> Metric:
    """Turn a histogram of the core's into Prometheus's."""
    total, buckets = 0, []
    for bound, count in zip((*histogram.bounds, float("inf")), histogram.counts, strict=True):
        total += count
        buckets.append(("+Inf" if bound == float("inf") else repr(float(bound)), total))
    return HistogramMetricFamily(name, help_text, buckets=buckets, sum_value=histogram.sum)
