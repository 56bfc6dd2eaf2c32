"""The metrics of all workers as one scrape: whose they are, and that counters never go back."""

from __future__ import annotations

from prometheus_client import CollectorRegistry
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily
from prometheus_client.exposition import generate_latest
from prometheus_client.metrics_core import Metric
from prometheus_client.parser import text_string_to_metric_families
from prometheus_client.registry import Collector

from server.supervisor.tally import Tally, families


class Said(Collector):
    def __init__(self, sent: float, open_: float) -> None:
        self.sent, self.open = sent, open_

    def collect(self) -> list[Metric]:
        closed = CounterMetricFamily("stentor_connections_closed", "Closed.", labels=("code",))
        closed.add_metric(("1000",), self.sent / 2)
        return [
            CounterMetricFamily("stentor_messages_sent", "Sent.", value=self.sent),
            GaugeMetricFamily("stentor_connections", "Open.", value=self.open),
            GaugeMetricFamily("stentor_worker_up", "Up.", value=1),
            HistogramMetricFamily(
                "stentor_rtt", "RTT.", buckets=[("0.1", self.sent), ("+Inf", self.sent)], sum_value=3
            ),
            closed,
        ]


def said(sent: float, open_: float = 1.0) -> list[list[object]]:
    registry = CollectorRegistry()
    registry.register(Said(sent, open_))
    return families(registry)


def scrape(tally: Tally) -> dict[tuple[str, str], float]:
    registry = CollectorRegistry()
    registry.register(tally)
    text = generate_latest(registry).decode()
    return {
        (sample.name, sample.labels["worker"]): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
        if sample.labels.get("le") != "+Inf"
    }


def test_each_sample_says_whose_it_is() -> None:
    tally = Tally()
    tally.take(0, said(10))
    tally.take(1, said(20, 5))
    found = scrape(tally)
    assert found["stentor_messages_sent_total", "0"] == 10
    assert found["stentor_messages_sent_total", "1"] == 20
    assert found["stentor_connections", "1"] == 5
    assert found["stentor_rtt_bucket", "1"] == 20
    assert found["stentor_worker_up", "0"] == 1


def test_a_successor_counts_on_from_where_the_dead_one_was() -> None:
    tally = Tally()
    tally.take(0, said(10))
    tally.take(1, said(7))
    tally.bury(0)
    found = scrape(tally)
    assert found["stentor_messages_sent_total", "0"] == 10, "what was counted stays, also before the successor speaks"
    assert found["stentor_rtt_bucket", "0"] == 10
    assert found["stentor_connections_closed_total", "0"] == 5
    assert ("stentor_connections", "0") not in found
    assert found["stentor_worker_up", "0"] == 0
    tally.take(0, said(3))
    found = scrape(tally)
    assert found["stentor_messages_sent_total", "0"] == 13
    assert found["stentor_rtt_bucket", "0"] == 13
    assert found["stentor_connections", "0"] == 1
    assert found["stentor_worker_up", "0"] == 1
    tally.bury(0)
    tally.take(0, said(1))
    assert scrape(tally)["stentor_messages_sent_total", "0"] == 14


def test_one_that_does_not_answer_is_down_with_its_last_counters_and_no_gauges() -> None:
    tally = Tally()
    tally.take(0, said(10))
    tally.take(0, None)
    found = scrape(tally)
    assert found["stentor_worker_up", "0"] == 0
    assert found["stentor_messages_sent_total", "0"] == 10
    assert ("stentor_connections", "0") not in found
    tally.take(0, said(11))
    assert scrape(tally)["stentor_worker_up", "0"] == 1


def test_the_supervisor_s_own_are_among_them() -> None:
    tally = Tally()
    tally.take(0, said(10))
    tally.own = [CounterMetricFamily("stentor_messages_sent", "Sent.", value=2)]
    assert scrape(tally)["stentor_messages_sent_total", "supervisor"] == 2
