"""How a client's connection ends: who may end it, what it is told, what is still written, and what is recorded.

On a transport that a test stalls, drains and loses by hand.
"""

from __future__ import annotations

import pytest

from server.core.counters import Drop
from server.core.lag import LagLimits, LagPolicy
from server.edge.closing import Close
from server.edge.connection import Connection
from tests import wire
from tests.fakes import Transport
from tests.house import House, house
from tests.sessions import open_scripted


def closed(transport: Transport) -> wire.Read:
    """Read the close frame that must be the last thing that was sent."""
    *_, last = wire.read(transport.take())
    assert last.opcode == wire.CLOSE, last
    return last


def say(home: House, *words: str, channel: str = "main") -> None:
    """Publish texts and let them go out."""
    for text in words:
        home.publish(channel, wire.frame(wire.TEXT, text.encode(), mask=None))
    home.loop.settle()


def gathered(home: House, *words: str) -> tuple[Connection, Transport]:
    """Open a client for whom something waits although its socket has room, as for one on several channels."""
    connection, transport = home.open()
    assert connection.session is not None
    connection.session.pause()
    say(home, *words)
    assert transport.take() == b""
    return connection, transport


# Goodbyes


@pytest.mark.parametrize(
    ("data", "answer", "label"),
    [
        (wire.close(1000), b"\x03\xe8", "1000"),
        (wire.close(1001, "bye"), b"\x03\xe9bye", "1001"),
        (wire.close(None), b"", "1005"),
        (wire.close(4321), b"\x10\xe1", "other"),
    ],
)
def test_a_client_s_close_is_answered_and_hung_up_on(data: bytes, answer: bytes, label: str) -> None:
    home = house()
    connection, transport = home.open()
    connection.data_received(data)
    assert wire.read(transport.take()) == [(wire.CLOSE, answer)]
    assert transport.has_ended
    assert (connection.is_open, home.hub.subscriptions) == (False, 0)
    say(home, "late")
    assert transport.take() == b""
    transport.lose()
    assert home.counters.closed == {label: 1}
    assert [departure.reason for departure in home.listener.recorder] == ["closed by the client"]


@pytest.mark.parametrize("path", ["/ws", "/echo"])
def test_what_a_client_says_in_one_breath_with_its_close_is_still_said(
    path: str, caplog: pytest.LogCaptureFixture
) -> None:
    home = house()
    connection, transport = home.open(path)
    _, other = home.open()
    connection.data_received(wire.text("goodbye") + wire.close(1000) + wire.text("ignored"))
    home.loop.settle()
    own = [] if path == "/ws" else [(wire.TEXT, b"goodbye")]
    assert wire.read(transport.take()) == [*own, (wire.CLOSE, b"\x03\xe8")], "no data after the close frame"
    assert wire.texts(other.take()) == (["goodbye"] if path == "/ws" else [])
    assert caplog.records == []
    transport.lose()
    assert home.counters.closed == {"1000": 1}


@pytest.mark.parametrize("path", ["/ws", "/echo"])
def test_what_comes_before_a_mistake_in_one_breath_counts_as_said(path: str, caplog: pytest.LogCaptureFixture) -> None:
    home = house()
    connection, transport = home.open(path)
    connection.data_received(wire.text("fine") + wire.frame(wire.TEXT, b"x", mask=None))
    home.loop.settle()
    assert closed(transport).code == 1002
    assert caplog.records == []


def test_our_close_waits_for_an_answer_and_not_for_ever() -> None:
    home = house()
    (polite, one), (_, other) = home.open(), home.open()
    for connection in list(home.listener.connections):
        connection.close(1008, "enough")
        connection.close(1001, "a second time")
    assert one.take() == other.take() == b"\x88\x08\x03\xf0enough"
    polite.data_received(wire.close(1008))
    assert one.has_ended
    one.lose()
    home.tick(4.9)
    assert not other.is_aborted
    home.tick(0.1)
    assert other.is_aborted
    other.lose()
    assert home.counters.closed == {"1008": 2}
    assert [departure.reason for departure in home.listener.recorder] == ["enough", "enough"]


def test_after_our_close_nothing_is_taken_and_nothing_is_sent_but_pongs() -> None:
    home = house()
    connection, transport = home.open()
    connection.close(1008, "")
    transport.take()
    connection.data_received(wire.text("late") + wire.frame(wire.PING, b"p"))
    say(home, "late, too")
    assert wire.read(transport.take()) == [(wire.PONG, b"p")]
    assert home.counters.received == 0


def test_closing_what_is_not_open_does_nothing() -> None:
    home = house()
    waiting, transport = home.accept()
    waiting.close(1001, "")
    waiting.finish(1001, "")
    waiting.evict("")
    assert transport.writes == []
    opened, opened_transport = home.open()
    opened_transport.lose()
    for end in (lambda: opened.close(1001, ""), lambda: opened.finish(1001, ""), lambda: opened.evict("slow")):
        end()
    opened.abort("again")
    assert home.counters.slow_disconnects == 0


def test_who_closes_and_does_not_hang_up_is_dropped() -> None:
    home = house()
    connection, transport = home.open()
    connection.data_received(wire.close(1000))
    home.tick(4.9)
    assert not transport.is_aborted
    home.tick(0.1)
    assert transport.is_aborted
    transport.lose()
    assert home.counters.closed == {"1000": 1}


def test_what_the_library_said_stays_the_cause_when_the_peer_does_not_hang_up() -> None:
    home = house()
    connection, transport = home.open()
    connection.data_received(wire.frame(wire.TEXT, b"x", mask=None))
    assert closed(transport).code == 1002
    home.tick(5.0)
    assert transport.is_aborted
    transport.lose()
    assert home.counters.closed == {"1002": 1}


# After what is queued


def test_finishing_sends_what_is_queued_and_then_the_close_frame() -> None:
    home = house()
    connection, transport = home.open()
    transport.stall()
    say(home, "a")
    say(home, "b", "c")
    connection.finish(1001, "server shutting down")
    connection.finish(1012, "a second time")
    say(home, "late")
    connection.data_received(wire.text("nothing new is taken"))
    transport.drain(4)
    transport.drain()
    assert wire.read(transport.take()) == [
        (wire.TEXT, b"a"),
        (wire.TEXT, b"b"),
        (wire.TEXT, b"c"),
        (wire.CLOSE, b"\x03\xe9server shutting down"),
    ]
    assert home.counters.received == 0
    home.assert_balanced()


def test_finishing_with_nothing_queued_is_closing() -> None:
    home = house()
    for path in ("/ws", "/echo"):
        connection, transport = home.open(path)
        connection.finish(1001, "bye")
        assert wire.read(transport.take()) == [(wire.CLOSE, b"\x03\xe9bye")]


def test_finishing_writes_what_waits_although_the_socket_has_room() -> None:
    home = house()
    connection, transport = gathered(home, "a")
    connection.finish(1001, "bye")
    assert wire.read(transport.take()) == [(wire.TEXT, b"a"), (wire.CLOSE, b"\x03\xe9bye")]
    home.assert_balanced()


def test_who_finishes_may_be_thrown_out_all_the_same() -> None:
    home = house(write_timeout=10.0)
    connection, transport = home.open()
    transport.stall()
    say(home, "a")
    say(home, "b")
    connection.finish(1001, "bye")
    home.tick(10.0)
    home.tick(10.0)
    assert transport.is_aborted
    transport.lose()
    assert home.counters.closed == {"1013": 1}
    home.assert_balanced()


# Who is too slow


def test_an_overflowing_client_is_told_to_come_back_and_dropped_if_it_does_not_hear() -> None:
    home = house(LagLimits(LagPolicy.DISCONNECT, messages=2, bytes=1000))
    connection, transport = home.open()
    transport.stall()
    say(home, "a")
    for text in "bcd":
        say(home, text)
    assert home.evicted == [(connection, "queue full")]
    assert not connection.is_open
    assert home.counters.slow_disconnects == 1
    assert (home.backlog.bytes, home.backlog.laggards, home.hub.subscriptions) == (0, {}, 0)
    assert home.counters.dropped[Drop.DISCONNECTED] == 3
    home.tick(1.9)
    assert not transport.is_aborted
    home.tick(0.1)
    assert transport.is_aborted
    transport.lose()
    assert home.counters.closed == {"1013": 1}
    [departure] = home.listener.recorder
    assert (departure.code, departure.reason, departure.queue_messages) == (1013, "queue full", 3)
    home.assert_balanced()


def test_an_overflowing_client_that_reads_again_gets_its_close_frame_and_no_data_after_it() -> None:
    home = house(LagLimits(LagPolicy.DISCONNECT, messages=1, bytes=1000))
    connection, transport = home.open()
    transport.stall()
    for text in "abc":
        say(home, text)
    transport.drain()
    say(home, "late")
    assert wire.read(transport.take()) == [(wire.TEXT, b"a"), (wire.CLOSE, b"\x03\xf5queue full")]
    connection.data_received(wire.close(1013))
    assert transport.has_ended
    transport.lose()
    assert home.counters.closed == {"1013": 1}


def test_a_client_whose_socket_takes_nothing_for_long_is_dropped() -> None:
    home = house(LagLimits(LagPolicy.DROP_OLDEST, messages=2, bytes=1000), write_timeout=10.0)
    connection, transport = home.open()
    transport.stall()
    say(home, "some words", "more")
    for _ in range(9):
        home.tick(1.0)
    transport.drain(1)
    home.tick(1.0)
    for _ in range(9):
        home.tick(1.0)
        assert not transport.is_aborted, "a byte is progress"
    home.tick(1.0)
    assert transport.is_aborted
    assert home.counters.slow_disconnects == 1
    transport.lose()
    assert home.counters.closed == {"1013": 1}
    assert [departure.reason for departure in home.listener.recorder] == ["write timeout"]
    assert not connection.is_open


def test_a_client_just_under_its_limits_is_dropped_for_no_progress_too() -> None:
    home = house(write_timeout=10.0)
    _, transport = home.open()
    transport.stall()
    say(home, "a")
    home.tick(10.0)
    home.tick(10.0)
    assert transport.is_aborted


def test_who_is_abandoned_is_slow_once_however_often_it_is_looked_at() -> None:
    home = house()
    connection, transport = home.open()
    transport.stall()
    say(home, "a")
    connection.abandon()
    connection.abandon()
    assert home.counters.slow_disconnects == 1
    transport.lose()
    connection.abandon()
    assert (home.counters.slow_disconnects, home.counters.closed) == (1, {"1013": 1})


def test_a_stranger_whose_socket_takes_nothing_is_dropped_and_not_counted() -> None:
    home = house()
    connection, transport = home.accept(room=0)
    connection.data_received(wire.request("/nothing"))
    connection.abandon()
    assert transport.is_aborted
    transport.lose()
    assert (home.counters.slow_disconnects, home.counters.closed) == (0, {})


def test_who_keeps_up_is_never_asked_for_progress() -> None:
    home = house(write_timeout=10.0, pong_timeout=1000.0)
    _, transport = home.open()
    for _ in range(100):
        home.tick(1.0)
    assert not transport.is_aborted


# Dropped


def test_aborting_is_at_once_and_idempotent() -> None:
    home = house()
    connection, transport = home.open()
    transport.stall()
    say(home, "a")
    say(home, "b")
    connection.abort("first")
    connection.abort("second")
    assert transport.is_aborted
    assert (home.hub.subscriptions, home.backlog.messages) == (0, 0)
    transport.lose()
    connection.abort("third")
    assert home.counters.closed == {"1006": 1}
    assert [departure.reason for departure in home.listener.recorder] == ["first"]


# The dialect's words


ENDS = {
    "close": (lambda client: client.close(Close.GOING_AWAY, "bye"), Close.GOING_AWAY),
    "fail": (lambda client: client.fail(Close.TOO_BIG, "too big"), Close.TOO_BIG),
    "finish": (lambda client: client.finish(Close.RESTART, "bye"), Close.RESTART),
    "evict": (lambda client: client.evict("queue full"), Close.TOO_SLOW),
    "abandon": (lambda client: client.abandon(), Close.TOO_SLOW),
    "lose contact": (lambda client: client.lose_contact(), Close.NO_PONG),
    "expire": (lambda client: client.close(Close.EXPIRED, "credentials expired"), Close.EXPIRED),
}


@pytest.mark.parametrize("end", ENDS)
def test_a_session_says_goodbye_in_its_own_words(end: str) -> None:
    home = house()
    connection, transport, session = open_scripted(home)
    act, cause = ENDS[end]
    session.words[cause] = (3333 if end == "close" else 3500, "in its own words")
    act(connection)
    said = wire.read(transport.take())
    if end == "abandon":
        assert said == [], "nothing would reach the client"
    else:
        assert [(frame.code, frame.reason) for frame in said] == [session.words[cause]]
    transport.lose()
    assert home.counters.closed == {"other" if end == "close" else "3500": 1}
    [departure] = home.listener.recorder
    assert (departure.code, departure.reason) == session.words[cause]


def test_its_words_come_after_what_is_queued() -> None:
    home = house()
    connection, transport, session = open_scripted(home)
    transport.stall()
    say(home, "a")
    say(home, "b")
    connection.finish(Close.GOING_AWAY, "server shutting down")
    session.words[Close.GOING_AWAY] = (3001, "shutdown")
    transport.drain()
    *said, last = wire.read(transport.take())
    assert [frame.payload for frame in said] == [b"a", b"b"]
    assert (last.code, last.reason) == (3001, "shutdown")


def test_a_fault_of_ours_has_its_words_too(caplog: pytest.LogCaptureFixture) -> None:
    home = house()
    connection, transport, session = open_scripted(home)
    session.words[Close.INTERNAL] = (3004, "internal server error")
    session.on_message = lambda payload: 1 // 0
    connection.data_received(wire.text("a"))
    assert (closed(transport).code, "ZeroDivisionError" in caplog.text) == (3004, True)


@pytest.mark.parametrize("path", ["/ws", "/echo"])
@pytest.mark.parametrize("cause", [Close.EXPIRED, Close.TOO_MANY, Close.STALE])
def test_to_a_plain_client_every_policy_is_one(path: str, cause: Close) -> None:
    home = house()
    connection, transport = home.open(path)
    connection.close(cause, "why")
    assert closed(transport) == (wire.CLOSE, b"\x03\xf0why")
    transport.lose()
    assert home.counters.closed == {"1008": 1}
