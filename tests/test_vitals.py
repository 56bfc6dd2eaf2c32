"""What one process says of itself to whoever watches; and that it counts nothing for nobody."""

from __future__ import annotations

from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from server.admin import vitals
from server.admin.vitals import Recent, Vitals, quantile
from server.core.counters import Histogram
from server.core.publication import Publication
from tests.backend import Client
from tests.house import House, house
from tests.test_recorder import departure


class Watched:
    """A house and its vitals, whose process works as long as the test says."""

    def __init__(self) -> None:
        self.home: House = house()
        self.worked = 0.0
        self.vitals = Vitals(self.home.listener, self.home.clock, lambda: self.worked)

    def look(self, after: float = 1.0) -> dict[str, Any]:
        self.home.clock.advance(after)
        look = self.vitals.look()
        orjson.dumps(look)
        return look

    def publish(self, channel: str, times: int = 1) -> None:
        for _ in range(times):
            self.home.node.publish(channel, Publication(b"x"), lambda answer: None)
        self.home.loop.settle()


def test_rates_are_what_was_counted_between_two_looks() -> None:
    watched = Watched()
    for _ in range(3):
        Client.listen(watched.home, "news")
    first = watched.look()
    assert (first["rates"], first["cpu"], first["busiest"]) == (None, None, [])
    watched.publish("news", 10)
    watched.worked += 0.5
    second = watched.look(after=2.0)
    rates = second["rates"]
    assert (rates["published"], rates["sent"], rates["dropped"], rates["opened"]) == (5.0, 15.0, 0.0, 0.0)
    assert rates["bytes_sent"] == 3 * 10 * 3 / 2
    assert second["cpu"] == 0.25
    assert watched.look()["rates"]["published"] == 0


def test_what_there_is_now() -> None:
    watched = Watched()
    home = watched.home
    Client.listen(home, "news")
    stalled = Client.listen(home, "news")
    stalled.transport.stall()
    home.open("/echo")
    watched.publish("news", 2)
    home.listener.recorder.record(departure(1013))
    look = watched.look()
    assert look["connections"] == {"raw": 2, "echo": 1, "centrifuge": 0}
    assert (look["subscriptions"], look["channels"], look["lagging"], look["brownout"]) == (2, 1, 1, 0)
    assert (look["max_connections"], look["max_queue_bytes"]) == (1000, 1 << 30)
    assert look["queue_bytes"] == home.backlog.bytes
    assert [client["channel"] for client in look["slow"]] == ["news"]
    assert [entry["code"] for entry in look["left"]] == [1013]
    assert look["broker"] == {"is_remote": False, "is_up": True, "reconnects": 0, "gaps": 0, "lost": 0}
    assert look["memory"] is None or look["memory"] > 1 << 20


def test_lists_are_bounded() -> None:
    watched = Watched()
    for number in range(50):
        client = Client.listen(watched.home, f"c{number}")
        client.transport.stall()
        watched.home.listener.recorder.record(departure(1000))
    watched.look()
    for number in range(50):
        watched.publish(f"c{number}")
    look = watched.look()
    assert (len(look["busiest"]), len(look["slow"]), len(look["left"])) == (20, 20, 20)


def test_the_busiest_channels_come_first_by_deliveries() -> None:
    watched = Watched()
    for channel, listeners in (("few", 1), ("many", 10), ("quiet", 5)):
        for _ in range(listeners):
            Client.listen(watched.home, channel)
    watched.look()
    watched.publish("few", 20)
    watched.publish("many", 4)
    watched.publish("nobody", 50)
    assert watched.look()["busiest"] == [
        {"channel": "many", "listeners": 10, "published": 4.0},
        {"channel": "few", "listeners": 1, "published": 20.0},
    ]
    # Over several seconds, and then forgotten.
    assert [each["published"] for each in watched.look()["busiest"]] == [2.0, 10.0]
    for _ in range(vitals.CHANNEL_LOOKS - 1):
        last = watched.look()
    assert last["busiest"] == []


def test_a_channel_that_everyone_has_left_is_not_listed() -> None:
    watched = Watched()
    client = Client.listen(watched.home, "news")
    watched.look()
    watched.publish("news")
    client.transport.lose()
    assert watched.look()["busiest"] == []


def test_nothing_is_counted_for_nobody() -> None:
    watched = Watched()
    Client.listen(watched.home, "news")
    node = watched.home.node
    watched.publish("news")
    assert node.traffic is None
    watched.look()
    watched.publish("news", 3)
    assert node.traffic == {"news": 3}
    watched.vitals.rest()
    watched.vitals.rest()
    assert node.traffic is None
    watched.publish("news")
    assert watched.look()["rates"] is None, "it begins anew"
    assert watched.look()["busiest"] == []


def test_it_rests_when_nobody_looks_any_more() -> None:
    watched = Watched()
    watched.vitals.rest_unless_watched(3.0)
    watched.look()
    watched.home.clock.advance(2.9)
    watched.vitals.rest_unless_watched(3.0)
    assert watched.home.node.traffic is not None
    watched.home.clock.advance(0.2)
    watched.vitals.rest_unless_watched(3.0)
    assert watched.home.node.traffic is None


def test_lag_and_latency_are_of_the_last_looks_alone() -> None:
    watched = Watched()
    counters = watched.home.counters
    counters.event_loop_lag.observe(5.0)
    counters.delivery_latency.observe(5.0)
    assert watched.look()["loop_lag"] is None
    for _ in range(100):
        counters.event_loop_lag.observe(0.02)
        counters.delivery_latency.observe(0.02)
    look = watched.look()
    assert 0.01 < look["loop_lag"] <= 0.025
    assert sum(look["latency"]) == 100
    for _ in range(vitals.LAG_LOOKS):
        look = watched.look()
    assert look["loop_lag"] is None
    assert sum(look["latency"]) == 100
    for _ in range(vitals.LATENCY_LOOKS):
        look = watched.look()
    assert sum(look["latency"]) == 0


def test_a_recent_histogram_forgets() -> None:
    histogram = Histogram((1.0, 2.0))
    recent = Recent(histogram, 2)
    histogram.observe(0.5)
    assert recent.look() == [1, 0, 0]
    histogram.observe(9.0)
    assert recent.look() == [1, 0, 1]
    assert recent.look() == [0, 0, 1]


@pytest.mark.parametrize(
    ("counts", "share", "value"),
    [
        ([0, 0, 0], 0.99, None),
        ([1, 0, 0], 1.0, 1.0),
        ([4, 0, 0], 0.5, 0.5),
        ([50, 50, 0], 0.5, 1.0),
        ([50, 50, 0], 0.75, 1.5),
        ([0, 10, 0], 0.1, 1.1),
        ([0, 0, 7], 0.99, 2.0),
    ],
)
def test_a_quantile_is_estimated_as_prometheus_does(counts: list[int], share: float, value: float | None) -> None:
    assert quantile((1.0, 2.0), counts, share) == (value if value is None else pytest.approx(value))


@given(
    st.lists(st.integers(0, 1000), min_size=4, max_size=4).filter(any),
    st.floats(0.01, 1.0),
    st.floats(0.01, 1.0),
)
def test_quantiles_are_in_order_and_within_the_bounds(counts: list[int], one: float, other: float) -> None:
    bounds = (0.1, 1.0, 10.0)
    low, high = sorted((one, other))
    lower, higher = quantile(bounds, counts, low), quantile(bounds, counts, high)
    assert lower is not None
    assert higher is not None
    assert 0 <= lower <= higher <= 10.0
