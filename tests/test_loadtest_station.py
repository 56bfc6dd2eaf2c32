"""A station by itself: how it joins, leaves and says no more. Whole runs are in test_loadtest_conductor."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from loadtest.options import Options
from loadtest.station import Station
from loadtest.watch import boot_id
from tests.engine import parsed
from tests.harness import Server, serve
from tests.test_loadtest_swarm import turn


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    with serve("--message-rate", "0") as server:
        yield server


class Post:
    """What a station tells."""

    def __init__(self) -> None:
        self.last: dict[str, dict[str, Any]] = {}

    def __call__(self, kind: str, message: dict[str, Any]) -> None:
        self.last[kind] = message


def station(server: Server, number: int = 0, stations: int = 1, **values: Any) -> tuple[Station, Post]:
    post = Post()
    options = Options.of(parsed(url=server.websocket_url, **values))
    return Station(options, number, stations, post, "1"), post


def order(**changes: Any) -> dict[str, Any]:
    here = boot_id()
    return {"began": 0, "lead": 0.0, "leader": here, "clock": here, "every": 1, **changes}


def test_clients_join_and_leave_and_each_is_counted_once(server: Server) -> None:
    one, _ = station(server)
    clients = one.join(5)
    turn(lambda: one.subscribers.connected == 5)
    one.leave(clients[:2])
    one.leave(clients[:2])
    assert (one.subscribers.asked, one.subscribers.left) == (5, 2)
    assert len(one.swarm.connections) == 3
    one.close()
    one.close()
    assert one.swarm.connections == set()
    turn(lambda: server.metrics()['stentor_connections{dialect="raw"}'] == 0)


def test_who_leaves_before_it_is_connected_was_never_asked_for(server: Server) -> None:
    one, _ = station(server)
    one.leave(one.join(3))
    turn(lambda: one.status()["pending"] == 0)
    assert (one.subscribers.asked, one.subscribers.connected, one.subscribers.left) == (0, 0, 0)
    one.close()


def test_stations_take_turns_on_the_channels(server: Server) -> None:
    heard = []
    for number in range(2):
        one, _ = station(server, number, 2, channels=4)
        one.join(4)
        turn(lambda one=one: one.subscribers.connected == 4)
        heard.append(sorted(channels[0] for channels, _ in one._audiences))
        one.close()
    assert heard == [[0, 2], [1, 3]]


def test_who_joins_while_others_publish_is_owed_what_follows(server: Server) -> None:
    one, post = station(server, rate=200.0, publish_time="0")
    one.join(2)
    one.crew({"publishers": [0], "trouble": False})
    turn(lambda: one.status()["pending"] == 0)
    one.go(order(began=_soon()))
    turn(lambda: one.swarm.delivered() > 30)
    latecomers = one.join(2)
    turn(lambda: sum(c.entry.joined is not None and c.entry.delivered() > 5 for c in one.swarm.connections) == 2)
    one.leave(latecomers[:1])
    one.cease({"within": 5.0})
    turn(lambda: "ceased" in post.last)
    one.settle({"totals": post.last["ceased"]["totals"], "refused": [], "within": 5.0})
    turn(lambda: "account" in post.last)
    account = post.last["account"]
    ((_, _, sums),) = account["sums"]
    published = post.last["ceased"]["attempted"] + 1
    assert sums["subscribers"] == 5
    assert 3 * published < sums["expected"] < 5 * published
    assert sums["expected"] == sums["delivered"]
    assert account["late_joiners"] == 2
    assert account["acknowledged"] == published - 1
    one.close()


def test_who_is_connected_when_the_markers_are_out_takes_no_part(server: Server) -> None:
    one, post = station(server)
    one.cease({"within": 5.0})
    one.join(2)
    turn(lambda: one.status()["pending"] == 0 and "ceased" in post.last)
    assert (one.subscribers.asked, one.subscribers.connected) == (0, 0)
    one.close()


def test_a_station_on_another_machine_counts_but_does_not_time(server: Server) -> None:
    one, post = station(server, rate=100.0, publish_time="0.3")
    one.join(2)
    one.crew({"publishers": [0], "trouble": False})
    turn(lambda: one.status()["pending"] == 0)
    one.go(order(leader="elsewhere", clock="elsewhere"))
    turn(lambda: one.status()["done"])
    one.cease({"within": 5.0})
    turn(lambda: "ceased" in post.last)
    one.settle({"totals": post.last["ceased"]["totals"], "refused": [], "within": 5.0})
    turn(lambda: "account" in post.last)
    account = post.last["account"]
    assert (account["timing"], account["timed"]) == (False, 0)
    assert account["sums"][0][2]["delivered"] == 3 * 31
    one.close()


def test_failures_and_handshakes_are_told_once(server: Server) -> None:
    one, _ = station(server)
    one.join(3)
    turn(lambda: one.subscribers.connected == 3)
    assert one.take_handshakes()[0] == 3
    assert one.take_handshakes()[0] == 0
    one.subscribers.failed["refused"] += 2
    assert one.take_failures() == {"refused": 2}
    assert one.take_failures() == {}
    one.close()


def _soon() -> int:
    from time import monotonic_ns

    return monotonic_ns() + 10_000_000
