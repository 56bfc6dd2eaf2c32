"""What the debug pages say of a slow client and of one that has left."""

from __future__ import annotations

from server.admin import debug
from server.core.lag import LagLimits, LagPolicy
from server.edge.recorder import Recorder
from tests.fakes import Transport
from tests.house import House, house
from tests.test_recorder import departure


def lagging(home: House, *frames: bytes, address: str = "192.0.2.1") -> Transport:
    """Open a client on a channel of its own that does not read, and say `frames` to it, a second apart."""
    channel = f"c{len(home.listener.connections)}"
    _, transport = home.open(f"/ws/{channel}", address=address)
    transport.stall()
    for frame in frames:
        home.clock.advance(1.0)
        home.publish(channel, frame)
        home.loop.settle()
    return transport


def test_a_slow_client_is_described() -> None:
    home = house()
    connection, transport = home.open("/ws/news", address="192.0.2.9")
    connection.rtt = 0.0123456789
    home.clock.advance(10.0)
    transport.room = 3
    for frame in (b"first", b"second", b"third"):
        home.publish("news", frame)
        home.loop.settle()
        home.clock.advance(0.25)
    assert debug.slow(home.listener, home.clock.now) == [
        {
            "address": "192.0.2.9",
            "client": home.listener.client_id(connection),
            "dialect": "raw",
            "channel": "news",
            "queue_messages": 2,
            "queue_bytes": 11,
            "queue_age_seconds": 0.5,
            "unsent_bytes": 2,
            "stalled_seconds": 0.75,
            "rtt_seconds": 0.012346,
            "connected_seconds": 10.75,
            "would_act": False,
            "why": "reads more slowly than its channel speaks",
        }
    ]


def test_the_longest_queue_comes_first_and_the_list_ends() -> None:
    home = house()
    for size in range(debug.MOST_SLOW + 20):
        lagging(home, b"x", b"x" * size)
    home.open("/ws/quick")
    slowest = debug.slow(home.listener, home.clock.now)
    assert [client["queue_bytes"] for client in slowest] == list(range(119, 19, -1))


def test_who_keeps_up_is_not_slow() -> None:
    home = house()
    home.open()
    assert debug.slow(home.listener, home.clock.now) == []


def test_it_says_why() -> None:
    home = house(LagLimits(LagPolicy.DROP_OLDEST, messages=1, enforce=False))
    transport = lagging(home, b"aa", b"b", b"c")
    [client] = debug.slow(home.listener, home.clock.now)
    assert (client["why"], client["would_act"]) == ("has read nothing for 2.0 s", True)
    home.clock.advance(3.0)
    transport.drain(1)
    [client] = debug.slow(home.listener, home.clock.now)
    assert client["why"] == "reads more slowly than its channel speaks"
    home.tick()
    home.clock.advance(1.5)
    [client] = debug.slow(home.listener, home.clock.now)
    assert client["why"] == "has read nothing for 1.5 s"
    [connection] = home.listener.connections
    connection.close(1008, "")
    [client] = debug.slow(home.listener, home.clock.now)
    assert client["why"] == "closing, and does not take the rest"


def test_to_look_changes_nothing() -> None:
    home = house(write_timeout=5.0)
    transport = lagging(home, b"aa", b"b")
    home.clock.advance(3.0)
    transport.drain(1)
    looks = [debug.slow(home.listener, home.clock.now) for _ in range(3)]
    assert looks[0] == looks[1] == looks[2]
    home.tick()
    home.tick(4.9)
    assert not transport.is_aborted, "its progress was not lost on the one that looked"


def test_a_client_without_a_queue_may_be_slow_too() -> None:
    home = house()
    connection, transport = home.open("/echo")
    transport.stall()
    connection.session.message(2, b"x")  # type: ignore[union-attr]
    home.accept(room=0)[0].transport.write(b"refused")
    clients = debug.slow(home.listener, home.clock.now)
    assert [(client["dialect"], client["queue_bytes"], client["unsent_bytes"]) for client in clients] == [
        ("echo", 0, 3),
        ("", 0, 7),
    ]


def test_fewer_can_be_asked_for() -> None:
    home = house()
    for size in range(5):
        lagging(home, b"x", b"x" * size)
    assert [client["queue_bytes"] for client in debug.slow(home.listener, home.clock.now, 2)] == [4, 3]


def test_departures_are_told_in_pieces() -> None:
    recorder = Recorder()
    for code in range(debug.PIECE * 2 + 10):
        recorder.record(departure(code))
    mark, told, sizes = None, [], []
    while True:
        mark, piece = debug.departures(recorder, mark, 10_000)
        if not piece:
            break
        told += [entry["code"] for entry in piece]
        sizes.append(len(piece))
    assert told == list(range(debug.PIECE * 2 + 10))[::-1]
    assert sizes == [debug.PIECE, debug.PIECE, 10]
    assert len(debug.departures(recorder, None, 3)[1]) == 3


def test_a_departure_is_described() -> None:
    assert debug.departure(departure(1013)) == {
        "at": 0.0,
        "address": "192.0.2.1",
        "client": "4eea37c4-1",
        "dialect": "raw",
        "channel": "main",
        "code": 1013,
        "reason": "",
        "queue_messages": 0,
        "queue_bytes": 0,
        "queue_age_seconds": 0.0,
        "connected_seconds": 1.0,
        "rtt_seconds": 0.0,
        "loop_lag_seconds": 0.0,
    }
