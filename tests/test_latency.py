"""Latency by echoes: what is asked goes behind what it asks about, and nothing but its own echo answers it."""

from __future__ import annotations

import gc
import random
import time
from typing import Any

import pytest

from server.core.lag import LagLimits, LagPolicy
from server.core.publication import Publication
from server.edge.connection import Connection
from server.edge.heartbeat import TICK
from server.edge.latency import FEWEST, MOST, PAUSE, LatencySample, Probe
from server.edge.session import RawSession
from tests import wire
from tests.fakes import Transport
from tests.harness import serve
from tests.house import House, house
from tests.lifecycle import crowd
from tests.sessions import open_scripted
from tests.speaker import connected

LONGEST = PAUSE[1]


def sampled_house(share: float = 1.0, *, ping_interval: float = 1000.0, **options: Any) -> House:
    """Build a house with a sample, in which nobody is pinged but for an echo, unless it is said so."""
    random.seed(7)
    home = house(ping_interval=ping_interval, **options)
    home.wheel.sample = LatencySample(share, home.counters.delivery_latency, home.clock)
    return home


def open_all(home: House, count: int) -> list[tuple[Connection, Transport]]:
    clients = []
    for _ in range(count):
        clients.append(home.open())
        home.loop.settle()
    return clients


def say(home: House, text: str) -> None:
    home.publish("main", wire.frame(wire.TEXT, text.encode(), mask=None))
    home.loop.settle()


def asked(transport: Transport) -> bytes:
    """Take what a client was sent, which ends with a question; return what it has to say to it."""
    last = wire.read(transport.take())[-1]
    assert last.opcode == wire.PING
    assert len(last.payload) == 16
    return wire.frame(wire.PONG, last.payload)


def latencies(home: House) -> tuple[int, float]:
    histogram = home.counters.delivery_latency
    return histogram.count, histogram.sum


def test_a_client_is_asked_behind_what_it_was_told_and_counts_from_its_acceptance() -> None:
    home = sampled_house(batch_delay=0.25)
    connection, transport = home.open()
    home.tick(LONGEST)
    home.publish("main", b"\x81\x02hi")
    home.clock.advance(0.25)
    home.loop.turn()
    home.loop.settle()
    text, ping = wire.read(transport.take())
    assert (text.opcode, text.payload, ping.opcode) == (wire.TEXT, b"hi", wire.PING)
    home.clock.advance(0.5)
    connection.data_received(wire.frame(wire.PONG, ping.payload))
    assert latencies(home) == (1, pytest.approx(0.75))


def test_of_what_goes_out_together_the_oldest_counts() -> None:
    home = sampled_house()
    connection, transport = home.open()
    home.tick(LONGEST)
    home.publish("main", b"\x81\x01a")
    home.clock.advance(1.0)
    home.publish("main", b"\x81\x01b")
    home.loop.settle()
    connection.data_received(asked(transport))
    assert latencies(home) == (1, pytest.approx(1.0))


def test_who_is_told_nothing_is_asked_nothing() -> None:
    home = sampled_house()
    _, transport = home.open()
    for _ in range(100):
        home.tick(TICK)
    say(home, "")
    assert len(wire.read(transport.take())) == 2
    say(home, "at once again")
    assert wire.texts(transport.take()) == ["at once again"], "once in a while is enough"


def test_one_write_is_different_and_the_next_is_the_transport_s_own() -> None:
    home = sampled_house()
    connection, transport = home.open()
    session = connection.session
    assert isinstance(session, RawSession)
    assert session.subscription is not None
    home.tick(LONGEST)
    assert session.subscription.send_text != transport.write
    say(home, "a")
    assert session.subscription.send_text == transport.write


def test_an_echo_is_what_was_sent_and_only_once() -> None:
    home = sampled_house()
    connection, transport = home.open()
    home.tick(LONGEST)
    say(home, "a")
    echo = asked(transport)
    payload = wire.read(wire.frame(wire.PONG, b"x" * 16, mask=None))[0].payload
    for forged in (payload, b"", b"x", bytes(16)):
        connection.data_received(wire.frame(wire.PONG, forged))
    assert latencies(home)[0] == 0
    for _ in range(3):
        connection.data_received(echo)
    assert latencies(home)[0] == 1
    assert connection.is_open


def test_no_two_questions_are_alike() -> None:
    home = sampled_house()
    clients = open_all(home, FEWEST)
    home.clock.advance(LONGEST)
    for _ in range(0, FEWEST, MOST):
        home.tick()
    say(home, "a")
    assert len({asked(transport) for _, transport in clients}) == FEWEST


def test_a_client_owes_one_echo_at_most() -> None:
    home = sampled_house(pong_timeout=1000.0)
    connection, transport = home.open()
    home.tick(LONGEST)
    say(home, "a")
    echo = asked(transport)
    for _ in range(5):
        home.tick(LONGEST)
        say(home, "b")
    assert wire.texts(transport.take()) == ["b"] * 5
    connection.data_received(echo)
    assert latencies(home) == (1, pytest.approx(5 * LONGEST)), "however long it took"
    home.tick(LONGEST)
    say(home, "c")
    asked(transport)


def test_a_sampled_client_may_answer_whatever_its_allowance() -> None:
    home = sampled_house(message_rate=0.001)
    connection, transport = home.open()
    for _ in range(50):
        home.tick(LONGEST)
        say(home, "a")
        connection.data_received(asked(transport))
    assert latencies(home)[0] == 50
    assert connection.is_open
    for _ in range(10_000):
        connection.data_received(wire.frame(wire.PONG, b"nobody asked"))
        if not connection.is_open:
            break
    assert not connection.is_open, "what nobody asked for is counted as ever"


# Laggards


def test_a_laggard_is_asked_behind_its_queue() -> None:
    home = sampled_house(write_timeout=1000.0)
    connection, transport = home.open()
    transport.stall()
    for text in "abc":
        say(home, text)
        home.clock.advance(1.0)
    home.tick(LONGEST)
    assert transport.take() == b""
    transport.drain()
    frames = wire.read(transport.take())
    assert [frame.payload for frame in frames[:-1]] == [b"a", b"b", b"c"]
    assert frames[-1].opcode == wire.PING
    home.clock.advance(0.5)
    connection.data_received(wire.frame(wire.PONG, frames[-1].payload))
    # The first was with the transport already: of those that waited here, the second is the oldest.
    assert latencies(home) == (1, pytest.approx(2.0 + LONGEST + 0.5))


def test_who_falls_behind_with_the_very_write_is_asked_behind_the_rest_of_it() -> None:
    home = sampled_house(write_timeout=1000.0)
    connection, transport = home.open()
    home.tick(LONGEST)
    transport.room = 3
    say(home, "a long word")
    say(home, "later")
    assert connection.paused
    transport.drain()
    frames = wire.read(transport.take())
    assert [frame.opcode for frame in frames] == [wire.TEXT, wire.PING, wire.TEXT]
    connection.data_received(wire.frame(wire.PONG, frames[1].payload))
    assert latencies(home)[0] == 1


def test_who_falls_behind_before_it_could_be_asked_is_asked_when_it_has_caught_up() -> None:
    home = sampled_house(write_timeout=1000.0)
    connection, transport = home.open()
    home.tick(LONGEST)
    transport.stall()
    connection.send(b"\x81\x01!")  # a reply fills the socket
    say(home, "a")
    transport.drain()
    frames = wire.read(transport.take())
    assert [frame.opcode for frame in frames] == [wire.TEXT, wire.TEXT, wire.PING]
    home.tick(TICK)
    say(home, "b")
    assert wire.texts(transport.take()) == ["b"]


def test_what_is_dropped_is_not_measured() -> None:
    home = sampled_house(limits=LagLimits(LagPolicy.DROP_OLDEST, messages=2, bytes=1000), write_timeout=1000.0)
    connection, transport = home.open()
    transport.stall()
    for _ in range(10):
        say(home, "x")
        home.clock.advance(1.0)
    home.tick(LONGEST)
    transport.drain()
    connection.data_received(asked(transport))
    assert latencies(home) == (1, pytest.approx(2.0 + LONGEST)), "the oldest of the two that were left"


def test_of_a_long_queue_what_has_gone_out_counts() -> None:
    home = sampled_house(limits=LagLimits(messages=1000, bytes=1 << 20), write_timeout=1000.0)
    connection, transport = home.open()
    transport.stall()
    for _ in range(4):
        say(home, "x" * 60_000)
        home.clock.advance(1.0)
    home.tick(LONGEST)
    transport.drain(60_010)  # the first of them, and a little of the next
    assert connection.paused
    transport.drain()
    frames = wire.read(transport.take())
    assert [frame.opcode for frame in frames].index(wire.PING) == 3, "behind the one write that the socket took"
    assert frames[-1].opcode == wire.TEXT


def test_a_client_on_several_channels_is_asked_behind_what_one_turn_brings() -> None:
    home = sampled_house()
    connection, transport = home.open()
    session = connection.session
    assert isinstance(session, RawSession)
    assert session.subscription is not None
    session.subscription.gather()
    home.tick(LONGEST)
    home.publish("main", b"\x81\x01a")
    home.clock.advance(1.0)
    home.loop.settle()
    frames = wire.read(transport.take())
    assert [frame.opcode for frame in frames] == [wire.TEXT, wire.PING]
    connection.data_received(wire.frame(wire.PONG, frames[1].payload))
    assert latencies(home) == (1, pytest.approx(1.0))
    say(home, "b")
    assert wire.texts(transport.take()) == ["b"]


@pytest.mark.parametrize("channels", [["news"], ["news", "sports"]])
def test_the_centrifuge_dialect_answers_like_any_other(channels: list[str]) -> None:
    home = sampled_house(pong_timeout=1000.0)
    alice = connected(home)
    for number, channel in enumerate(channels, 2):
        alice.asks(f'{{"id":{number},"subscribe":{{"channel":"{channel}"}}}}')
    home.tick(LONGEST)
    for channel in channels:
        home.node.publish(channel, Publication(b"1"), lambda done: None)
    home.loop.settle()
    frames = wire.read(alice.transport.take())
    assert [frame.opcode for frame in frames] == [wire.TEXT] * len(channels) + [wire.PING]
    home.clock.advance(0.5)
    alice.feed(wire.frame(wire.PONG, frames[-1].payload))
    assert latencies(home) == (1, pytest.approx(0.5))


# Beside the heartbeat


def test_who_answers_the_last_of_several_pings_alone_is_alive() -> None:
    home = sampled_house(ping_interval=TICK, pong_timeout=10.0)
    connection, transport = home.open()
    home.tick(LONGEST)
    home.clock.advance(1.0)
    say(home, "a")
    keepalive, _, echo = wire.read(transport.take())
    assert (keepalive.payload, len(home.wheel.awaiting_pong)) == (b"", 1)
    home.clock.advance(0.25)
    connection.data_received(wire.frame(wire.PONG, echo.payload))
    assert latencies(home)[0] == 1
    assert len(home.wheel.awaiting_pong) == 0
    assert connection.rtt == pytest.approx(0.25), "the way of the ping that was answered"


def test_an_echo_answers_no_ping_that_went_out_after_it() -> None:
    home = sampled_house(ping_interval=20 * TICK, pong_timeout=100.0)
    connection, transport = home.open()
    home.wheel._at = connection.place  # its turn has just been
    home.tick(LONGEST)
    say(home, "a")
    echo = asked(transport)
    home.clock.advance(0.1)
    for _ in range(20):
        home.tick(0.0)
    assert transport.take() == b"\x89\x00"
    connection.data_received(echo)
    assert (latencies(home)[0], len(home.wheel.awaiting_pong)) == (1, 1)
    connection.data_received(wire.frame(wire.PONG))
    assert len(home.wheel.awaiting_pong) == 0


def test_an_echo_that_was_passed_over_is_waited_for_no_more() -> None:
    home = sampled_house(ping_interval=20 * TICK, pong_timeout=1000.0)
    connection, transport = home.open()
    home.wheel._at = connection.place
    home.tick(LONGEST)
    say(home, "a")
    asked(transport)
    home.clock.advance(0.1)
    for _ in range(20):
        home.tick(0.0)
    assert transport.take() == b"\x89\x00"
    connection.data_received(wire.frame(wire.PONG))  # to the last ping alone
    home.tick(LONGEST)
    say(home, "b")
    connection.data_received(asked(transport))
    assert latencies(home)[0] == 1


def test_in_a_dialect_with_its_own_ping_an_echo_says_nothing_of_the_client_s_code() -> None:
    home = sampled_house(ping_interval=TICK, pong_timeout=10.0)
    connection, transport, session = open_scripted(home)
    session.ping_frame = b"\x81\x02{}"
    home.tick(LONGEST)
    assert transport.take() == b"\x81\x02{}"
    say(home, "a")
    connection.data_received(asked(transport))
    assert latencies(home)[0] == 1
    assert len(home.wheel.awaiting_pong) == 1


# Who is asked


def test_nobody_is_asked_when_the_share_is_nothing() -> None:
    home = sampled_house(0.0)
    clients = open_all(home, 5)
    for _ in range(300):
        home.tick(TICK)
    say(home, "a")
    for connection, transport in clients:
        assert wire.read(transport.take())[-1].opcode == wire.TEXT
        assert connection.probe is None


def test_of_few_all_are_asked_and_of_many_a_share() -> None:
    home = sampled_house(0.1, max_connections=2000)
    sample = home.wheel.sample
    assert sample is not None
    open_all(home, FEWEST)
    assert len(sample) == FEWEST
    open_all(home, 1000)
    assert 60 <= len(sample) - FEWEST <= 140


def test_who_only_hears_itself_is_not_asked() -> None:
    home = sampled_house()
    connection, _ = home.open("/echo")
    assert connection.probe is None


def test_others_take_the_place_of_those_who_have_left() -> None:
    home = sampled_house(1e-9, ping_interval=5 * TICK, pong_timeout=1000.0)
    clients = open_all(home, FEWEST + 3)
    sample = home.wheel.sample
    assert sample is not None
    assert [connection.probe is None for connection, _ in clients] == [False] * FEWEST + [True] * 3
    for _, transport in clients[:5]:
        transport.lose()
    assert len(sample) == FEWEST - 5
    for _ in range(5):
        home.tick(TICK)
    assert len(sample) == FEWEST - 2, "everyone who is left"
    assert all(connection.probe is not None for connection, _ in clients[5:])


def test_only_so_many_are_asked_at_a_time_and_each_gets_its_turn() -> None:
    home = sampled_house(1.0)
    clients = open_all(home, 5 * MOST)
    counts = []
    home.clock.advance(LONGEST)
    for _ in range(5):
        home.tick()
        say(home, "a")
        frames = [wire.read(transport.take()) for _, transport in clients]
        counts.append(sum(len(each) == 2 for each in frames))
    assert counts == [MOST] * 5


def test_the_sample_does_not_march_in_step() -> None:
    home = sampled_house(1.0)
    clients = open_all(home, FEWEST)
    first_asked: dict[Transport, int] = {}
    for step in range(round(LONGEST / TICK) + 1):
        home.tick(TICK)
        say(home, "a")
        for _, transport in clients:
            if len(wire.read(transport.take())) == 2:
                first_asked.setdefault(transport, step)
    assert len(first_asked) == FEWEST
    assert len(set(first_asked.values())) > FEWEST / 2


@pytest.mark.parametrize("state", ["idle", "armed", "asked"])
def test_who_has_gone_is_forgotten_and_freed(state: str) -> None:
    # Others may have left some behind.
    gc.collect()
    before = {id(thing) for thing in gc.get_objects() if isinstance(thing, Connection | Probe)}
    home = sampled_house()
    connection, transport = home.open()
    if state != "idle":
        home.tick(LONGEST)
    if state == "asked":
        say(home, "a")
    transport.lose()
    home.wheel.forget(connection)
    sample = home.wheel.sample
    assert sample is not None
    assert (len(sample), connection.probe) == (0, None)
    gc.collect()
    gc.disable()
    try:
        transport.protocol = None
        del connection, transport
        now = [thing for thing in gc.get_objects() if isinstance(thing, Connection | Probe)]
        left = [thing for thing in now if id(thing) not in before]
    finally:
        gc.enable()
    assert left == [], "no cycle is left for the collector"


def test_a_client_that_fails_under_the_write_is_not_asked() -> None:
    home = sampled_house()
    (_, transport), (_, other) = open_all(home, 2)
    home.tick(LONGEST)

    def fail(data: bytes) -> None:
        transport.lose(ConnectionResetError())

    transport.write = fail  # type: ignore[method-assign]
    say(home, "a")
    assert wire.read(other.take())[0].payload == b"a"
    assert len(home.listener.connections) == 1
    home.assert_balanced()


def test_who_is_leaving_is_asked_nothing() -> None:
    home = sampled_house()
    connection, transport = home.open()
    home.tick(LONGEST)
    connection.close(1001, "")
    say(home, "a")
    assert [frame.opcode for frame in wire.read(transport.take())] == [wire.CLOSE]


# With real sockets


async def test_a_stalled_reader_shows_in_the_metrics_of_a_real_server() -> None:
    with serve("--latency-sample", "1") as server:
        stalled = await crowd.connect(server.port)
        brisk = await crowd.connect(server.port)
        centrifuge = await crowd.connect(server.port, "/connection/websocket")
        centrifuge.say('{"id":1,"connect":{}}\n{"id":2,"subscribe":{"channel":"main"}}')
        await crowd.until(lambda: len(centrifuge.heard) > 0)

        def measured() -> tuple[float, float]:
            metrics = server.metrics()
            name = "stentor_delivery_latency_seconds"
            return metrics[f"{name}_count"], metrics[f'{name}_bucket{{le="0.5"}}']

        # All three answer by themselves, in either dialect, whatever is said to them.
        def all_have_answered() -> bool:
            brisk.say("hello")
            return measured()[0] >= 6

        await crowd.until(all_have_answered)
        stalled.stop_reading()
        since = time.monotonic()

        def has_stalled() -> bool:
            brisk.say("and on")
            return time.monotonic() - since > LONGEST + 1.0

        await crowd.until(has_stalled)
        quick = measured()
        stalled.transport.resume_reading()
        await crowd.until(lambda: measured()[0] - measured()[1] > quick[0] - quick[1])
        assert server.metrics()["stentor_keepalive_spared_total"] == 0
        await crowd.cut_everyone_off()
