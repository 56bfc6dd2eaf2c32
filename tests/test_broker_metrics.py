"""What is said of a broker that is somewhere else, under the contract's names."""

from __future__ import annotations

from prometheus_client import CollectorRegistry
from prometheus_client.exposition import generate_latest

from server.admin.broker_metrics import BrokerCollector
from server.core.counters import SECONDS, Histogram


class Contact:
    is_up = True
    reconnects = 2
    gaps = 3
    lost = 40

    def __init__(self) -> None:
        self.lag = Histogram(SECONDS)


def test_every_number_has_its_name() -> None:
    contact, registry = Contact(), CollectorRegistry()
    contact.lag.observe(0.002)
    registry.register(BrokerCollector(contact))
    lines = generate_latest(registry).decode().splitlines()
    assert {
        "stentor_broker_up 1.0",
        "stentor_broker_reconnects_total 2.0",
        "stentor_broker_gaps_total 3.0",
        "stentor_broker_lost_total 40.0",
        "stentor_broker_lag_seconds_count 1.0",
        "stentor_broker_lag_seconds_sum 0.002",
    } <= set(lines)
