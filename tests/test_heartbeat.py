"""The wheel: pings, deadlines, and no verdict that is not deserved. Time passes when a test says so."""

from __future__ import annotations

import random
from itertools import pairwise

import pytest

from server.edge.heartbeat import CLOSE_TIMEOUT, EVICTION_GRACE, LATE, TICK
from tests import wire
from tests.fakes import Loop, Transport
from tests.house import House, house
from tests.sessions import open_scripted

PING = b"\x89\x00"
PONG = wire.frame(wire.PONG)


def say(home: House, text: str) -> None:
    home.publish("main", wire.frame(wire.TEXT, text.encode(), mask=None))
    home.loop.settle()


def turn(home: House, seconds: float) -> None:
    """Let the wheel turn in its own time."""
    loop = home.loop
    assert isinstance(loop, Loop)
    until = home.clock.now + seconds
    while home.clock.now < until - 1e-9:
        home.clock.advance(TICK)
        loop.turn()


def test_each_client_is_pinged_once_in_an_interval() -> None:
    home = house(ping_interval=2.0, pong_timeout=100.0)
    clients = [home.open() for _ in range(40)]
    home.wheel.start()
    for _ in range(3):
        turn(home, 2.0)
        for connection, transport in clients:
            assert transport.take() == PING
            connection.data_received(PONG)


def test_pings_are_spread_over_the_interval() -> None:
    home = house(ping_interval=10.0, pong_timeout=100.0)
    clients = [home.open() for _ in range(1000)]
    home.wheel.start()
    counts = []
    for _ in range(100):
        turn(home, TICK)
        counts.append(sum(transport.take() == PING for _, transport in clients))
    assert sum(counts) == 1000
    assert max(counts) < 50, "a thousand clients that came at once are not pinged at once"


def test_a_pong_measures_the_round_trip() -> None:
    home = house(ping_interval=TICK)
    connection, transport = home.open()
    home.tick()
    assert transport.take() == PING
    home.clock.advance(0.03)
    connection.data_received(wire.frame(wire.PONG))
    assert connection.rtt == pytest.approx(0.03)
    assert (home.counters.ping_rtt.count, len(home.wheel.awaiting_pong)) == (1, 0)
    connection.data_received(wire.frame(wire.PONG, b"nobody asked"))
    assert (home.counters.ping_rtt.count, connection.is_open) == (1, True)


def test_no_second_ping_while_the_first_is_not_answered() -> None:
    home = house(ping_interval=TICK, pong_timeout=10.0)
    connection, transport = home.open()
    for _ in range(5):
        home.tick(TICK)
    assert transport.take() == PING
    connection.data_received(PONG)
    home.tick(TICK)
    assert transport.take() == PING


def test_who_does_not_answer_in_time_is_told_and_dropped() -> None:
    home = house(ping_interval=TICK, pong_timeout=10.0)
    connection, transport = home.open()
    home.tick()
    transport.take()
    home.tick(9.9)
    assert connection.is_open
    home.tick(0.1)
    assert wire.read(transport.take()) == [(wire.CLOSE, b"\x0b\xc4no pong")]
    assert transport.is_aborted
    transport.lose()
    assert home.counters.closed == {"3012": 1}
    assert [departure.reason for departure in home.listener.recorder] == ["no pong"]


def test_a_dialect_may_have_a_ping_of_its_own() -> None:
    home = house(ping_interval=TICK, pong_timeout=10.0)
    connection, transport, session = open_scripted(home)
    session.ping_frame = b"\x81\x02{}"
    home.tick()
    assert transport.take() == b"\x81\x02{}"
    home.clock.advance(0.03)
    connection.take_pong()
    connection.take_pong()
    assert connection.rtt == pytest.approx(0.03)
    assert (home.counters.ping_rtt.count, len(home.wheel.awaiting_pong)) == (1, 0)
    home.tick()
    home.tick(10.0)
    assert not connection.is_open


def test_who_would_not_understand_it_yet_is_not_pinged() -> None:
    home = house(ping_interval=TICK, pong_timeout=1.0)
    connection, transport, session = open_scripted(home)
    session.ping_frame = b""
    for _ in range(100):
        home.tick(TICK)
    assert (transport.take(), connection.is_open) == (b"", True)


def test_who_has_not_shaken_hands_is_not_pinged() -> None:
    home = house(ping_interval=TICK)
    _, transport = home.accept()
    home.tick()
    assert transport.writes == []


# Laggards


def test_a_laggard_is_not_pinged() -> None:
    home = house(ping_interval=TICK, write_timeout=1000.0)
    _, transport = home.open()
    transport.stall()
    say(home, "a")
    for _ in range(10):
        home.tick(TICK)
    transport.drain()
    assert transport.take() == b"\x81\x01a"
    home.tick(TICK)
    assert transport.take() == PING


def test_a_laggard_is_not_blamed_for_a_pong_that_it_could_not_hear_of() -> None:
    home = house(ping_interval=TICK, pong_timeout=1.0, write_timeout=1000.0)
    connection, transport = home.open()
    home.tick()
    transport.stall()
    say(home, "a")
    for _ in range(100):
        home.tick(TICK)
    assert connection.is_open
    transport.drain()
    home.tick(0.9)
    assert connection.is_open, "it has a whole timeout again"
    connection.data_received(PONG)
    home.tick(10.0)
    assert connection.is_open


def test_nor_is_a_client_whom_we_do_not_read() -> None:
    home = house(ping_interval=TICK, pong_timeout=1.0)
    connection, _ = home.open()
    home.tick()
    connection.reader.hold()
    for _ in range(100):
        home.tick(TICK)
    assert connection.is_open
    connection.reader.release()
    for _ in range(12):
        home.tick(TICK)
    assert not connection.is_open, "in the end, silence is silence"


def test_a_laggard_that_reads_on_is_left_alone_and_one_that_does_not_is_dropped() -> None:
    home = house(write_timeout=3.0)
    (_, slow), (_, stuck) = home.open(), home.open()
    for transport in (slow, stuck):
        transport.stall()
    say(home, "x" * 100)
    for _ in range(20):
        home.tick(1.0)
        slow.drain(1)
        if stuck.is_aborted and not stuck.is_lost:
            stuck.lose()
    assert (slow.is_aborted, stuck.is_aborted) == (False, True)
    assert home.counters.slow_disconnects == 1


def test_to_ask_how_long_a_client_has_stalled_changes_nothing() -> None:
    home = house(write_timeout=10.0)
    connection, transport = home.open()
    assert home.wheel.stalled_for(connection, home.clock.now) == 0.0
    transport.stall()
    say(home, "hello")
    for _ in range(9):
        home.tick(1.0)
    assert home.wheel.stalled_for(connection, home.clock.now) == 9.0
    transport.drain(1)
    for _ in range(2):
        assert home.wheel.stalled_for(connection, home.clock.now) == 0.0, "it has taken a byte since the last tick"
    home.tick(1.0)
    assert not transport.is_aborted, "the wheel has seen it all the same"
    home.tick(9.0)
    assert home.wheel.stalled_for(connection, home.clock.now) == 9.0
    home.tick(1.0)
    assert transport.is_aborted


# Late ticks


def test_a_late_tick_passes_no_verdict() -> None:
    home = house(ping_interval=TICK, pong_timeout=1.0, write_timeout=1.0, open_timeout=1.0)
    connection, _ = home.open()
    _, doorstep = home.accept()
    lagging, stuck = home.open()
    home.tick()
    stuck.stall()
    say(home, "a")
    closing, closing_transport = home.open("/ws/other")
    closing.close(1001, "")
    home.tick(60.0, late=True)
    assert connection.is_open
    assert lagging.is_open
    assert not any(transport.is_aborted for transport in (doorstep, stuck, closing_transport))
    connection.data_received(PONG)
    home.tick(TICK)
    assert connection.is_open, "its pong was waiting to be read"
    assert all(transport.is_aborted for transport in (doorstep, stuck, closing_transport))


@pytest.mark.parametrize(("lateness", "alive"), [(LATE + 0.2, True), (0.0, False)])
def test_the_wheel_knows_when_it_is_late(lateness: float, alive: bool) -> None:
    home = house(ping_interval=TICK, pong_timeout=TICK)
    connection, _ = home.open()
    home.wheel.start()
    turn(home, TICK)
    home.clock.advance(TICK + lateness)
    home.loop.turn()
    assert connection.is_open is alive


def block(home: House, seconds: float) -> None:
    """Let the loop do nothing for so long, and then what is due."""
    home.clock.advance(seconds)
    while home.loop.timers[0] <= home.clock.now:
        home.loop.turn()


def test_a_pong_that_waits_in_the_socket_while_we_are_blocked_is_in_time() -> None:
    home = house(ping_interval=1000.0, pong_timeout=2.0)
    (answering, _), (dead, transport) = home.open(), home.open()
    home.wheel.start()
    turn(home, TICK)
    for connection in (answering, dead):
        assert connection.ping(PING, home.clock.now)
        home.wheel._await_pong(connection, home.clock.now)
    turn(home, 1.0)
    block(home, 5.0)
    assert answering.is_open
    assert dead.is_open
    assert home.counters.keepalive_spared == 2, "both would be gone now"
    answering.data_received(PONG)
    turn(home, 0.8)
    assert dead.is_open, "of its two seconds it has had these, the one before, and a tick of the five"
    turn(home, 0.3)
    assert not dead.is_open
    assert transport.is_aborted
    assert answering.is_open
    turn(home, 10.0)
    assert home.counters.keepalive_spared == 2, "each is counted once"


def test_who_is_blocked_again_and_again_kills_nobody_either() -> None:
    home = house(ping_interval=1000.0, pong_timeout=2.0)
    connection, _ = home.open()
    home.wheel.start()
    turn(home, TICK)
    connection.ping(PING, home.clock.now)
    home.wheel._await_pong(connection, home.clock.now)
    for _ in range(15):
        block(home, 3.0)
        assert connection.is_open
    assert home.counters.keepalive_spared == 1
    turn(home, 2.0)
    assert not connection.is_open


def test_a_lag_that_ends_before_the_deadline_puts_it_off_by_as_much() -> None:
    home = house(ping_interval=1000.0, pong_timeout=2.0)
    connection, _ = home.open()
    home.wheel.start()
    turn(home, TICK)
    connection.ping(PING, home.clock.now)
    home.wheel._await_pong(connection, home.clock.now)
    began = home.clock.now
    block(home, TICK + 0.3)  # not so late that the tick would be excused
    turn(home, 1.5)
    assert (connection.is_open, home.counters.keepalive_spared) == (True, 0)
    turn(home, 0.2)
    assert (connection.is_open, home.counters.keepalive_spared) == (True, 1)
    while connection.is_open:
        turn(home, TICK)
    assert 2.0 + 0.3 <= home.clock.now - began <= 2.0 + 0.3 + 2 * TICK


def test_a_dead_client_is_gone_in_time_and_spared_nothing_while_we_are_here() -> None:
    random.seed(3)
    home = house(ping_interval=2.0, pong_timeout=1.0)
    connection, _ = home.open()
    home.wheel.start()
    began = home.clock.now
    while connection.is_open:
        home.clock.now = home.loop.timers[0] + random.uniform(0, 0.9 * TICK)  # the usual noise
        home.loop.turn()
        assert home.clock.now - began <= 2.0 + 1.0 + 1.0
    assert home.counters.keepalive_spared == 0


def test_a_laggard_whose_deadline_passes_is_not_counted() -> None:
    home = house(ping_interval=1000.0, pong_timeout=2.0, write_timeout=1000.0)
    connection, transport = home.open()
    home.wheel.start()
    turn(home, TICK)
    connection.ping(PING, home.clock.now)
    home.wheel._await_pong(connection, home.clock.now)
    transport.stall()
    say(home, "a")
    block(home, 5.0)
    turn(home, 5.0)
    assert (connection.is_open, home.counters.keepalive_spared) == (True, 0)


def test_the_loop_s_lag_is_measured_by_the_ticks() -> None:
    home = house()
    home.wheel.start()
    turn(home, 1.0)
    lag = home.counters.event_loop_lag
    assert lag.count == 10
    assert lag.sum == pytest.approx(0.0, abs=1e-6)
    home.clock.advance(TICK + 0.7)
    home.loop.turn()
    assert home.wheel.last_lag == pytest.approx(0.7)
    assert lag.sum == pytest.approx(0.7, abs=1e-6)


def test_missed_ticks_are_not_caught_up_on() -> None:
    home = house()
    home.wheel.start()
    home.clock.advance(10.0)
    home.loop.turn()
    assert home.counters.event_loop_lag.count == 1
    # Not at once: such a timer fires before the loop has read what came while it was away.
    assert home.loop.timers == [pytest.approx(home.clock.now + TICK)]


def test_the_ticks_keep_their_beat() -> None:
    home = house()
    home.wheel.start()
    due = []
    for _ in range(5):
        [timer] = home.loop.timers
        due.append(timer)
        home.clock.now = timer + 0.02  # a little late, every time
        home.loop.turn()
    assert [later - sooner for sooner, later in pairwise(due)] == [pytest.approx(TICK)] * 4


def test_stopped_it_turns_no_more() -> None:
    home = house(ping_interval=TICK)
    _, transport = home.open()
    home.wheel.start()
    home.wheel.stop()
    home.wheel.stop()
    turn(home, 1.0)
    assert transport.take() == b""
    assert home.loop.timers == []


# Deadlines


def test_a_close_frame_is_waited_for_this_long() -> None:
    home = house()
    connection, transport = home.open()
    connection.close(1001, "")
    home.tick(CLOSE_TIMEOUT - 0.01)
    assert not transport.is_aborted
    home.tick(0.01)
    assert transport.is_aborted


def test_who_was_too_slow_is_waited_for_less() -> None:
    home = house()
    connection, transport = home.open()
    connection.evict("queue full")
    home.tick(EVICTION_GRACE - 0.01)
    assert not transport.is_aborted
    home.tick(0.01)
    assert transport.is_aborted
    assert EVICTION_GRACE < CLOSE_TIMEOUT


def test_a_thousand_who_never_answer_our_close_are_freed_on_one_tick() -> None:
    home = house()
    transports: list[Transport] = []
    for _ in range(1000):
        connection, transport = home.open()
        connection.close(1001, "")
        transports.append(transport)
    home.tick(CLOSE_TIMEOUT)
    assert all(transport.is_aborted for transport in transports)


def test_who_has_gone_is_waited_for_in_nothing() -> None:
    home = house(ping_interval=TICK)
    for end in ("lose", "close", "evict", "stranger", "stall", "doorstep"):
        connection, transport = home.accept() if end == "doorstep" else home.open()
        home.tick()
        if end == "close":
            connection.close(1001, "")
        elif end == "evict":
            connection.evict("")
        elif end == "stranger":
            connection.await_introduction()
        elif end == "stall":
            transport.stall()
            say(home, "a")
        transport.lose()
        wheel = home.wheel
        waiting = (wheel.opening, wheel.connecting, wheel.closing, wheel.evicting, wheel.awaiting_pong)
        assert [len(deadlines) for deadlines in waiting] == [0, 0, 0, 0, 0]
        assert (wheel.paused, wheel.expiring, wheel._slots) == ({}, {}, [{}])
        wheel.forget(connection)


def test_a_client_that_fails_under_its_ping_harms_no_other() -> None:
    home = house(ping_interval=TICK)
    clients = [home.open() for _ in range(3)]
    broken = clients[1][1]

    def fail(data: bytes) -> None:
        broken.lose(ConnectionResetError())

    broken.write = fail  # type: ignore[method-assign]
    home.tick()
    assert [transport.take() for _, transport in clients] == [PING, b"", PING]
    assert len(home.listener.connections) == 2
