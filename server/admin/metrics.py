"""What Prometheus sees: the core's counters, read when it asks. Nothing here is touched between two scrapes.

Laws: labels are bounded (dialect, code, reason), never a channel, a client, an address or a path; the names are the
contract's. A scrape keeps nobody waiting: after SLICE seconds of it the event loop gets its turn, so its numbers need
not be of one moment; on a quiet server they are.
"""

from __future__ import annotations

import asyncio
import platform
import time
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Mapping
from importlib.metadata import version
from typing import Final

from prometheus_client import CollectorRegistry, GCCollector, disable_created_metrics
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily
from prometheus_client.exposition import choose_encoder
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from server import __version__
from server.admin.process import ProcessCollector
from server.core.counters import BYTES, MESSAGES, SECONDS, Histogram
from server.edge.listener import Listener

# A series that appears only with its first event has no rate at that event: those that matter are there from the start.
_REJECTIONS = (
    "address", "bad_request", "brownout", "connect_rate", "credentials", "draining", "full", "not_found", "origin",
    "permission",
)  # fmt: skip
_CLOSES = (
    "1000", "1001", "1005", "1006", "1008", "1009", "1011", "1012", "1013",
    "3001", "3004", "3005", "3008", "3010", "3012", "3013", "3500", "3501", "3502",
)  # fmt: skip


# How long a scrape works, in seconds, before it lets others; and how many laggards it looks at in one go.
SLICE: Final = 0.002
WALK: Final = 500
# No family: collecting may be interrupted where it comes.
INTERLUDE: Final = Metric("stentor_interlude", "", "unknown")


class StentorCollector(Collector):
    """Reads one process's counters into metric families."""

    def __init__(self, listener: Listener, clock: Callable[[], float]) -> None:
        self._listener = listener
        self._clock = clock
        self._build = {
            "version": __version__,
            "python": platform.python_version(),
            "uvloop": version("uvloop"),
            "websockets": version("websockets"),
        }

    def collect(self) -> Iterator[Metric]:
        # Together: those of one moment balance.
        yield from (*self._connections(), *self._messages(), *self._queued())
        yield from self._durations()
        yield from self._clients_queues()
        yield GaugeMetricFamily("stentor_worker_up", "Whether the worker answers.", value=1)
        labels, values = tuple(self._build), tuple(self._build.values())
        yield _labelled(GaugeMetricFamily, "stentor_build_info", "What is running.", labels, {values: 1})

    def _connections(self) -> Iterator[Metric]:
        listener, counters = self._listener, self._listener.counters
        yield _labelled(
            GaugeMetricFamily, "stentor_connections", "Connections open now.", ("dialect",),
            {(dialect,): count for dialect, count in listener.open_by_dialect.items()},
        )  # fmt: skip
        yield GaugeMetricFamily(
            "stentor_max_connections", "Connections let in at most.", value=listener.gate.max_connections
        )
        yield CounterMetricFamily("stentor_connections_opened", "Finished handshakes.", value=counters.opened)
        yield _labelled(
            CounterMetricFamily, "stentor_connections_closed", "Ended connections, by close code.", ("code",),
            _with_zeros(counters.closed, _CLOSES),
        )  # fmt: skip
        if listener.certificate_expires is not None:
            yield GaugeMetricFamily(
                "stentor_tls_certificate_expiry_timestamp_seconds",
                "When the certificate in use ends, in Unix time.",
                value=listener.certificate_expires,
            )
        yield _labelled(
            CounterMetricFamily, "stentor_connections_rejected", "Requests refused before the upgrade.", ("reason",),
            _with_zeros(counters.rejected, _REJECTIONS),
        )  # fmt: skip
        yield GaugeMetricFamily("stentor_channels", "Channels with subscribers.", value=len(listener.node.audiences))
        yield GaugeMetricFamily("stentor_subscriptions", "Subscriptions.", value=listener.hub.subscriptions)
        yield GaugeMetricFamily(
            "stentor_revocations",
            "Revocations of tokens in force, as this process knows them.",
            value=len(listener.node.revocations.revoked),
        )

    def _messages(self) -> Iterator[Metric]:
        counters = self._listener.counters
        yield published(counters.published)
        for name, help_text, value in (
            ("stentor_messages_received", "Messages from clients.", counters.received),
            (
                "stentor_messages_refused",
                "Publications of raw clients that the broker did not take, which nothing tells them.",
                counters.refused,
            ),
            ("stentor_bytes_received", "Payload bytes of messages from clients.", counters.bytes_received),
            ("stentor_messages_offered", "Publications times subscribers at the time.", counters.offered),
            ("stentor_messages_sent", "Deliveries handed to the transport.", counters.sent),
            ("stentor_bytes_sent", "Wire bytes of deliveries.", counters.bytes_sent),
            ("stentor_slow_disconnects", "Clients thrown out for being too slow.", counters.slow_disconnects),
            ("stentor_lag_policy_observed", "Times the lag policy would have acted.", counters.observed),
            (
                "stentor_keepalive_spared",
                "Pong deadlines put off because our own loop was late.",
                counters.keepalive_spared,
            ),
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
            (
                "stentor_delivery_latency_seconds",
                "Publication to its echo from sampled clients: an upper bound, the pong's way back is in it.",
                counters.delivery_latency,
            ),
            ("stentor_batch_messages", "Publications per flush.", counters.batch_messages),
            ("stentor_ping_rtt_seconds", "Ping to pong.", counters.ping_rtt),
            ("stentor_event_loop_lag_seconds", "How late the loop's timer was.", counters.event_loop_lag),
        ):  # fmt: skip
            yield histogram_family(name, help_text, histogram)
        yield gc_pauses(counters.gc_pause)

    def _queued(self) -> Iterator[Metric]:
        backlog, gate = self._listener.backlog, self._listener.gate
        yield GaugeMetricFamily("stentor_queue_bytes", "Bytes queued for all clients.", value=backlog.bytes)
        yield GaugeMetricFamily("stentor_max_queue_bytes", "Bytes that may be queued for all.", value=backlog.budget)
        yield GaugeMetricFamily("stentor_queue_messages", "Messages queued for all clients.", value=backlog.messages)
        yield GaugeMetricFamily(
            "stentor_lagging_clients", "Clients that do not keep up now.", value=len(backlog.laggards)
        )
        yield GaugeMetricFamily(
            "stentor_brownout_level",
            "What is shed: 0 nothing, 1 newcomers, 2 short batches, 3 all but the latest, 4 the heaviest laggards.",
            value=gate.brownout,
        )

    def _clients_queues(self) -> Iterator[Metric]:
        lagging = list(self._listener.backlog.laggards)
        # Everyone else keeps up, and has nothing queued.
        others, now = self._listener.gate.open - len(lagging), self._clock()
        messages, size, age = Histogram(MESSAGES), Histogram(BYTES), Histogram((0.0, *SECONDS))
        for histogram in (messages, size, age):
            histogram.observe(0, others)
        for start in range(0, len(lagging), WALK):
            part = lagging[start : start + WALK]
            messages.observe_each([outbox.messages for outbox in part])
            size.observe_each([outbox.bytes for outbox in part])
            age.observe_each([0.0 if (oldest := outbox.oldest) is None else now - oldest for outbox in part])
            yield INTERLUDE
        yield histogram_family("stentor_client_queue_messages", "Messages queued per client, now.", messages)
        yield histogram_family("stentor_client_queue_bytes", "Bytes queued per client, now.", size)
        yield histogram_family(
            "stentor_client_queue_age_seconds", "Age of the oldest queued message per client, now.", age
        )


def new_registry(listener: Listener, clock: Callable[[], float]) -> CollectorRegistry:
    """Make the registry of one process: our metrics, ``process_*`` and ``python_gc_*``."""
    disable_created_metrics()  # type: ignore[no-untyped-call]
    registry = CollectorRegistry()
    registry.register(StentorCollector(listener, clock))
    registry.register(ProcessCollector())
    GCCollector(registry=registry)
    return registry


async def render(registry: CollectorRegistry, accept: str) -> tuple[bytes, str]:
    """Render a scrape as Prometheus text or OpenMetrics, as the Accept header asks; returns body and content type."""
    try:
        encoder, content_type = choose_encoder(accept)
    except (TypeError, ValueError):  # a version that is none
        encoder, content_type = choose_encoder("")
    end = encoder(_Few([]))
    parts = [encoder(_Few([family])).removesuffix(end) async for family in in_turns(registry)]
    return b"".join((*parts, end)), content_type


async def in_turns(registry: CollectorRegistry) -> AsyncIterator[Metric]:
    """Collect a registry's families, and let the event loop turn whenever that has taken SLICE seconds."""
    began = time.perf_counter()
    for family in registry.collect():
        if family is not INTERLUDE:
            yield family
        if time.perf_counter() - began > SLICE:
            await asyncio.sleep(0)
            began = time.perf_counter()


class _Few(Collector):
    """Some families, where an encoder wants them all."""

    def __init__(self, families: list[Metric]) -> None:
        self._families = families

    def collect(self) -> Iterator[Metric]:
        return iter(self._families)


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


def published(count: int) -> Metric:
    """Say how much was published; the supervisor says it of what the server API has."""
    return CounterMetricFamily("stentor_messages_published", "Publications into the hub.", value=count)


def gc_pauses(observed: Histogram) -> Metric:
    """Say how long the garbage collector holds a process up; the supervisor says it of itself, too."""
    return histogram_family("stentor_gc_pause_seconds", "Pauses of the garbage collector.", observed)


def histogram_family(name: str, help_text: str, histogram: Histogram) -> Metric:
    """Turn a histogram of the core's into Prometheus's."""
    total, buckets = 0, []
    for bound, count in zip((*histogram.bounds, float("inf")), histogram.counts, strict=True):
        total += count
        buckets.append(("+Inf" if bound == float("inf") else repr(float(bound)), total))
    return HistogramMetricFamily(name, help_text, buckets=buckets, sum_value=histogram.sum)
