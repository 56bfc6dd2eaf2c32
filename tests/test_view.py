"""One view of all processes."""

from __future__ import annotations

from typing import Any

import pytest

from server.admin.view import Process, together
from server.core.counters import SECONDS


def look(**given: Any) -> dict[str, Any]:
    """What a process says of itself, all of it quiet but what is given."""
    rates = dict.fromkeys(("published", "sent", "dropped", "bytes_sent", "opened"), 0.0)
    return {
        "connections": {"raw": 0, "echo": 0, "centrifuge": 0},
        "max_connections": 1000,
        "subscriptions": 0,
        "channels": 0,
        "lagging": 0,
        "queue_bytes": 0,
        "max_queue_bytes": 1 << 20,
        "rates": rates,
        "cpu": 0.1,
        "memory": 100,
        "loop_lag": 0.001,
        "latency": [0] * (len(SECONDS) + 1),
        "brownout": 0,
        "broker": {"is_remote": True, "is_up": True, "reconnects": 0, "gaps": 0, "lost": 0},
        "busiest": [],
        "slow": [],
        "left": [],
        **given,
    }


def view(*looks: dict[str, Any] | None) -> dict[str, Any]:
    return together([Process(index, 100 + index, "ready", 5, each) for index, each in enumerate(looks)], status="ready")


def test_what_can_be_added_is_added_and_of_the_rest_the_worst_counts() -> None:
    one = look(
        lagging=2, queue_bytes=10, cpu=0.2, loop_lag=0.3, connections={"raw": 5}, rates={"sent": 7.0}, brownout=1
    )
    other = look(
        lagging=1, queue_bytes=5, cpu=0.9, loop_lag=None, connections={"raw": 1, "echo": 2}, rates={"sent": 1.0}
    )
    found = view(one, other)
    assert (found["lagging"], found["queue_bytes"], found["max_connections"], found["memory"]) == (3, 15, 2000, 200)
    assert (found["cpu"], found["loop_lag"], found["brownout"]) == (0.9, 0.3, 1)
    assert (found["connections"], found["rates"]) == ({"raw": 6, "echo": 2}, {"sent": 8.0})
    assert found["status"] == "ready"


def test_a_process_that_does_not_answer_is_there_without_figures() -> None:
    found = view(look(lagging=3, connections={"raw": 7}), None)
    assert [(row["index"], row["pid"], row["connections"], row["answers"]) for row in found["workers"]] == [
        (0, 100, 7, True),
        (1, 101, 5, False),
    ]
    assert "cpu" in found["workers"][0]
    assert "cpu" not in found["workers"][1]
    assert found["lagging"] == 3


def test_nobody_answers() -> None:
    found = view(None)
    assert (found["rates"], found["loop_lag"], found["latency"], found["broker"]) == ({}, None, None, None)
    assert (found["slow"], found["left"], found["busiest"], found["brownout"], found["channels"]) == ([], [], [], 0, 0)


def test_at_the_first_look_there_are_no_rates() -> None:
    found = view(look(rates=None, cpu=None))
    assert (found["rates"], found["cpu"], found["workers"][0]["sent"]) == ({}, None, None)


def test_a_channel_is_heard_by_every_process_that_listens() -> None:
    def busy(channel: str, published: float, listeners: int) -> dict[str, Any]:
        return {"channel": channel, "published": published, "listeners": listeners}

    found = view(
        look(busiest=[busy("news", 10.0, 3), busy("a", 1.0, 1)]),
        look(busiest=[busy("news", 11.0, 2), busy("b", 5.0, 1)]),
    )
    assert found["busiest"] == [
        {"channel": "news", "listeners": 5, "published": 11.0, "delivered": 52.0},
        {"channel": "b", "listeners": 1, "published": 5.0, "delivered": 5.0},
        {"channel": "a", "listeners": 1, "published": 1.0, "delivered": 1.0},
    ]


def test_clients_are_joined_with_their_worker_the_slowest_and_the_newest_first() -> None:
    one = look(slow=[{"queue_bytes": 5}], left=[{"at": 3.0}, {"at": 1.0}])
    other = look(slow=[{"queue_bytes": 9}, {"queue_bytes": 1}], left=[{"at": 2.0}])
    found = view(one, other)
    assert [(client["worker"], client["queue_bytes"]) for client in found["slow"]] == [(1, 9), (0, 5), (1, 1)]
    assert [(entry["worker"], entry["at"]) for entry in found["left"]] == [(0, 3.0), (1, 2.0), (0, 1.0)]
    many = view(*(look(slow=[{"queue_bytes": 1}] * 20, left=[{"at": 1.0}] * 20) for _ in range(3)))
    assert (len(many["slow"]), len(many["left"])) == (20, 20)


def test_latency_is_that_of_all_clients_together() -> None:
    fast, slow = [0] * (len(SECONDS) + 1), [0] * (len(SECONDS) + 1)
    fast[SECONDS.index(0.001)] = 90
    slow[SECONDS.index(0.1)] = 10
    latency = view(look(latency=fast), look(latency=slow))["latency"]
    assert 0.05 < latency <= 0.1
    assert view(look(latency=fast))["latency"] == pytest.approx(0.000995)


def test_one_broker_that_is_away_is_away() -> None:
    away = {"is_remote": True, "is_up": False, "reconnects": 2, "gaps": 1, "lost": 4}
    assert view(look(), look(broker=away))["broker"] == away
