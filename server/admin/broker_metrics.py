"""What Prometheus sees of the way to the broker, where there is one. The names are the contract's."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Protocol, runtime_checkable

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from server.admin.metrics import histogram_family
from server.core.counters import Histogram


@runtime_checkable
class Contact(Protocol):
    """What a broker that is somewhere else counts; `lag` in seconds."""

    @property
    def is_up(self) -> bool: ...

    @property
    def reconnects(self) -> int: ...

    @property
    def gaps(self) -> int: ...

    @property
    def lost(self) -> int: ...

    @property
    def lag(self) -> Histogram: ...


class BrokerCollector(Collector):
    """Reads a broker's counters into metric families."""

    def __init__(self, broker: Contact) -> None:
        self._broker = broker

    def collect(self) -> Iterator[Metric]:
        broker = self._broker
        yield GaugeMetricFamily(
            "stentor_broker_up",
            "Whether the broker is in contact, and takes what is published.",
            value=float(broker.is_up),
        )
        for name, help_text, count in (
            ("stentor_broker_reconnects", "Times contact was made anew.", broker.reconnects),
            ("stentor_broker_gaps", "Times something was lost on the way from the broker.", broker.gaps),
            ("stentor_broker_lost", "Publications known to be lost on the way from the broker.", broker.lost),
        ):
            yield CounterMetricFamily(name, help_text, value=count)
        yield histogram_family("stentor_broker_lag_seconds", "How long the broker takes to answer.", broker.lag)
