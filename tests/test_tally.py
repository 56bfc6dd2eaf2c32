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


def test_what_the_supervisor_says_of_a_worker_is_that_worker_s() -> None:
    tally = Tally()
    tally.take(0, said(10))
    restarts = CounterMetricFamily("stentor_worker_restarts", "Restarts.", labels=("worker",))
    restarts.add_metric(("0",), 2)
    tally.own = [restarts]
    assert scrape(tally)["stentor_worker_restarts_total", "0"] == 2
    tally.bury(0)
    assert scrape(tally)["stentor_worker_restarts_total", "0"] == 2


def test_two_in_one_place_count_together_and_what_they_hold_is_added() -> None:
    tally = Tally()
    tally.take(0, said(10, 4), life=1)
    tally.take(0, said(1, 2), life=2)
    found = scrape(tally)
    assert found["stentor_messages_sent_total", "0"] == 11
    assert found["stentor_rtt_bucket", "0"] == 11
    assert found["stentor_connections", "0"] == 6
    tally.take(0, said(12, 0), life=1)
    tally.bury(0, life=1)
    found = scrape(tally)
    assert found["stentor_messages_sent_total", "0"] == 13, "to its last word"
    assert found["stentor_connections", "0"] == 2
    assert found["stentor_worker_up", "0"] == 1


def test_a_label_that_only_the_dead_one_counted_stays() -> None:
    tally = Tally()
    first = said(10)
    closed = next(family for family in first if family[0] == "stentor_connections_closed")
    closed[3].append(["stentor_connections_closed_total", {"code": "1012"}, 7.0])  # type: ignore[attr-defined]
    tally.take(0, first, life=1)
    tally.bury(0, life=1)
    tally.take(0, said(4), life=2)
    registry = CollectorRegistry()
    registry.register(tally)
    text = generate_latest(registry).decode()
    assert 'stentor_connections_closed_total{code="1012",worker="0"} 7.0' in text
    assert 'stentor_connections_closed_total{code="1000",worker="0"} 7.0' in text
    assert 'stentor_connections_closed_total{code="1006",worker="0"} 1.0' in text, "who was there when it ended"


def test_what_was_open_and_queued_is_lost_with_a_worker() -> None:
    tally = Tally()
    dying = [
        ["stentor_connections", "gauge", "Open.", [["stentor_connections", {"dialect": "raw"}, 2.0],
                                                    ["stentor_connections", {"dialect": "echo"}, 1.0]]],
        ["stentor_connections_closed", "counter", "C.", [["stentor_connections_closed_total", {"code": "1006"}, 4.0]]],
        ["stentor_queue_messages", "gauge", "Queued.", [["stentor_queue_messages", {}, 980.0]]],
        ["stentor_messages_dropped", "counter", "Dropped.", [
            ["stentor_messages_dropped_total", {"reason": "queue_full"}, 50.0],
            ["stentor_messages_dropped_total", {"reason": "disconnected"}, 20.0],
        ]],
    ]  # fmt: skip
    tally.take(0, dying, life=1)
    tally.take(0, None, life=1)
    tally.bury(0, life=1)
    registry = CollectorRegistry()
    registry.register(tally)
    text = generate_latest(registry).decode()
    assert 'stentor_connections_closed_total{code="1006",worker="0"} 7.0' in text
    assert 'stentor_messages_dropped_total{reason="disconnected",worker="0"} 1000.0' in text
    assert 'stentor_messages_dropped_total{reason="queue_full",worker="0"} 50.0' in text
    assert ("stentor_queue_messages", "0") not in scrape(tally)


def test_what_is_a_histogram_of_this_moment_does_not_outlive_it() -> None:
    tally = Tally()
    queues = [
        ["stentor_client_queue_messages", "histogram", "Queued.", [["stentor_client_queue_messages_sum", {}, 5.0]]]
    ]
    tally.take(0, queues, life=1)
    assert scrape(tally)["stentor_client_queue_messages_sum", "0"] == 5
    tally.bury(0, life=1)
    assert ("stentor_client_queue_messages_sum", "0") not in scrape(tally)


def test_one_that_is_buried_unheard_leaves_nothing() -> None:
    tally = Tally()
    tally.bury(0, life=9)
    assert scrape(tally) == {("stentor_worker_up", "0"): 0.0}


def test_a_worker_may_go_and_another_come_while_a_scrape_is_under_way() -> None:
    tally = Tally()
    for life, sent in ((1, 10), (2, 20)):
        tally.take(0, said(sent), life)
    values: dict[str, float] = {}
    for number, family in enumerate(tally.collect()):
        if number == 1:
            tally.bury(0, 1)
            tally.take(1, said(5), 3)
        values |= {sample.name: sample.value for sample in family.samples if sample.labels["worker"] == "0"}
    assert values["stentor_messages_sent_total"] == values["stentor_rtt_count"] == 30, "nothing twice, nothing missing"
    assert scrape(tally)["stentor_messages_sent_total", "1"] == 5


def test_when_a_certificate_ends_is_not_added_up() -> None:
    class Served(Collector):
        def collect(self) -> list[Metric]:
            return [GaugeMetricFamily("stentor_tls_certificate_expiry_timestamp_seconds", "Ends.", value=1.8e9)]

    registry = CollectorRegistry()
    registry.register(Served())
    tally = Tally()
    for life in (1, 2):
        tally.take(0, families(registry), life)
    assert scrape(tally)["stentor_tls_certificate_expiry_timestamp_seconds", "0"] == 1.8e9
