"""Who is told to Redis again, and when."""

from __future__ import annotations

from server.brokers.redis.present import Present
from server.core.publication import ClientInfo


def info(client: str, user: str = "") -> ClientInfo:
    return ClientInfo(user, client)


def test_each_channel_is_told_once_per_period() -> None:
    present = Present(20.0)
    present.add("a", info("1"), 0.0)
    present.add("b", info("1"), 5.0)
    present.add("a", info("2"), 10.0)
    assert present.take(19.9) == []
    assert present.take(20.0) == [("a", [info("1"), info("2")])]
    assert present.take(26.0) == [("b", [info("1")])]
    assert present.take(39.9) == []
    assert [channel for channel, _ in present.take(60.0)] == ["a", "b"]


def test_the_latest_word_about_a_client_counts() -> None:
    present = Present(20.0)
    present.add("a", info("1", "ann"), 0.0)
    present.add("a", info("1", "bob"), 0.0)
    assert present.take(20.0) == [("a", [info("1", "bob")])]


def test_who_left_is_told_no_more() -> None:
    present = Present(20.0)
    present.add("a", info("1"), 0.0)
    present.add("a", info("2"), 0.0)
    present.remove("a", "1")
    present.remove("a", "1")
    present.remove("unknown", "1")
    assert present.take(20.0) == [("a", [info("2")])]
    present.remove("a", "2")
    assert present.take(100.0) == []


def test_after_an_outage_all_are_due_a_part_at_a_time() -> None:
    present = Present(20.0)
    for number in range(12_000):
        present.add(str(number), info("1"), number / 1000)
    present.hurry(15.0)
    parts = [[channel for channel, _ in present.take(15.0 + second)] for second in range(12)]
    assert [len(part) for part in parts] == [1200] * 10 + [0, 0]
    assert len({channel for part in parts for channel in part}) == 12_000
    assert len(present.take(35.0)) == 1200, "and spread from then on"
