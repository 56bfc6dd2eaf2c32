"""Probes: when they are sent, when they count as missed, and when we are deaf."""

from __future__ import annotations

from server.brokers.redis.pulse import Pulse
from server.core.counters import SECONDS, Histogram


def pulse() -> tuple[Pulse, Histogram]:
    lag = Histogram(SECONDS)
    made = Pulse(5.0, 2.0, lag)
    made.restart(100.0)
    return made, lag


def miss(made: Pulse, now: float) -> None:
    assert made.beat(now) is not None
    made.check(now + 1.9, is_behind=False)
    assert made.beat(now + 1.9) is None
    made.check(now + 2.0, is_behind=False)


def test_a_probe_is_due_at_once_and_then_every_period() -> None:
    made, _ = pulse()
    assert [made.beat(now) for now in (100.0, 100.1, 104.9, 105.0, 109.9, 110.5, 115.4, 115.5)] == [
        1, None, None, 2, None, 3, None, 4,
    ]  # fmt: skip


def test_what_comes_back_is_the_lag() -> None:
    made, lag = pulse()
    assert made.beat(100.0) == 1
    made.hear(1, 100.25)
    assert (lag.count, lag.sum) == (1, 0.25)
    made.check(103.0, is_behind=False)
    assert made.beat(105.0) == 2
    made.hear(1, 105.1)
    assert lag.count == 1, "an old one says nothing"


def test_two_missed_in_a_row_are_deafness() -> None:
    made, _ = pulse()
    miss(made, 100.0)
    assert not made.is_deaf
    miss(made, 105.0)
    assert made.is_deaf
    made.restart(108.0)
    assert not made.is_deaf
    assert made.beat(108.0) == 3


def test_one_that_comes_makes_up_for_one_that_did_not() -> None:
    made, _ = pulse()
    miss(made, 100.0)
    assert made.beat(105.0) == 2
    made.hear(2, 105.5)
    miss(made, 110.0)
    assert not made.is_deaf


def test_a_late_one_is_heard_all_the_same() -> None:
    made, lag = pulse()
    miss(made, 100.0)
    made.hear(1, 104.0)
    assert (lag.count, lag.sum) == (1, 4.0)
    miss(made, 105.0)
    assert not made.is_deaf


def test_who_is_behind_is_not_deaf() -> None:
    made, _ = pulse()
    for now in (100.0, 105.0, 110.0):
        assert made.beat(now) is not None
        made.check(now + 4.0, is_behind=True)
    assert not made.is_deaf


def test_one_that_went_by_another_way_is_timed_from_then_on() -> None:
    made, lag = pulse()
    assert made.beat(100.0) == 1
    made.resent(0, 101.0)
    made.resent(1, 101.5)
    made.check(103.0, is_behind=False)
    made.hear(1, 103.25)
    assert (lag.count, lag.sum) == (1, 1.75)
    for now in (105.0, 110.0):
        serial = made.beat(now)
        assert serial is not None
        made.resent(serial, now + 1.5)
        made.check(now + 3.4, is_behind=False)
        assert not made.is_deaf
        made.check(now + 3.5, is_behind=False)
    assert made.is_deaf


def test_what_could_not_be_sent_proves_nothing() -> None:
    made, _ = pulse()
    for now in (100.0, 105.0, 110.0):
        serial = made.beat(now)
        assert serial is not None
        made.unsent(serial - 1)
        made.unsent(serial)
        made.check(now + 3.0, is_behind=False)
    assert not made.is_deaf
