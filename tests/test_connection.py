"""One client from accept to the end, on a transport that a test stalls, drains and loses by hand.

Its handshake, its intake and its outlet have tests of their own. ``test_connection_sockets.py`` does the same over
sockets and uvloop; what is decided is decided here.
"""

from __future__ import annotations

import time

import pytest

from server.core.counters import Drop
from server.core.hub import CONGESTION_BYTES
from server.core.lag import LagLimits, LagPolicy
from server.edge.closing import Close
from server.edge.connection import PARSE_BYTES, Connection
from server.edge.credentials import Identity
from server.edge.intake import Hold
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


# Lagging


def test_a_client_lags_from_the_first_byte_that_stays_and_catches_up_in_order() -> None:
    home = house()
    connection, transport = home.open()
    _, other = home.open()
    transport.room = 3
    say(home, "first")
    assert connection.paused
    assert connection.outbox is not None
    say(home, "second", "third")
    assert connection.outbox.messages == 2
    assert (home.backlog.messages, list(home.backlog.laggards)) == (2, [connection.outbox])
    assert list(home.wheel.paused) == [connection]
    transport.drain()
    assert wire.texts(transport.take()) == ["first", "second", "third"]
    assert (connection.paused, connection.outbox.messages) == (False, 0)
    assert (home.backlog.laggards, home.wheel.paused) == ({}, {})
    say(home, "fourth")
    assert wire.texts(transport.take()) == ["fourth"]
    assert wire.texts(other.take()) == ["first", "second", "third", "fourth"]
    home.assert_balanced()


@pytest.mark.parametrize(
    ("policy", "kept"),
    [
        (LagPolicy.DROP_OLDEST, ["a", "d", "e"]),
        (LagPolicy.DROP_NEWEST, ["a", "b", "c"]),
        (LagPolicy.CONFLATE, ["a", "e"]),
    ],
)
def test_a_laggard_s_policy_is_the_configured_one(policy: LagPolicy, kept: list[str]) -> None:
    home = house(LagLimits(policy, messages=2, bytes=1000))
    _, transport = home.open()
    transport.stall()
    for text in "abcde":
        say(home, text)
    transport.drain()
    assert wire.texts(transport.take()) == kept
    home.assert_balanced()


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


def test_who_keeps_up_is_never_asked_for_progress() -> None:
    home = house(write_timeout=10.0, pong_timeout=1000.0)
    _, transport = home.open()
    for _ in range(100):
        home.tick(1.0)
    assert not transport.is_aborted


def test_a_peer_with_no_room_for_the_handshake_lags_from_the_start() -> None:
    home = house()
    connection, transport = home.accept(room=10)
    connection.data_received(wire.request())
    assert (connection.is_open, connection.paused) == (True, True)
    say(home, "queued")
    assert connection.outbox is not None
    assert connection.outbox.messages == 1
    transport.drain()
    answer, rest = transport.take().split(b"\r\n\r\n")
    assert answer.startswith(b"HTTP/1.1 101")
    assert wire.texts(rest) == ["queued"]


def test_a_connection_lost_while_it_lags_settles_everything() -> None:
    home = house()
    connection, transport = home.open()
    transport.stall()
    say(home, "a", "b")
    say(home, "c")
    transport.lose(ConnectionResetError())
    assert connection.session is None
    assert (home.hub.subscriptions, home.gate.open, home.listener.connections) == (0, 0, {})
    assert (home.backlog.messages, home.backlog.laggards, home.wheel.paused) == (0, {}, {})
    assert home.counters.closed == {"1006": 1}
    assert home.counters.dropped[Drop.DISCONNECTED] == 1
    home.assert_balanced()
    home.tick(60.0)
    assert not connection.is_open


def test_a_laggard_that_sends_its_last_byte_is_offered_nothing_more() -> None:
    home = house()
    connection, transport = home.open()
    transport.stall()
    say(home, "a")
    say(home, "queued")
    connection.eof_received()
    transport.close()  # as uvloop does after eof_received
    say(home, "late")
    assert home.hub.subscriptions == 0
    transport.drain()
    assert wire.texts(transport.take()) == ["a"]
    assert home.counters.dropped[Drop.DISCONNECTED] == 1
    transport.lose()
    assert home.counters.closed == {"1006": 1}
    home.assert_balanced()


# Reading is held


def test_who_speaks_too_fast_for_the_channel_is_read_again_when_there_is_room() -> None:
    home = house(max_message_size=CONGESTION_BYTES)
    connection, transport = home.open()
    connection.data_received(wire.frame(wire.BINARY, bytes(CONGESTION_BYTES)))
    assert (connection.holds_reading, transport.is_reading) == (True, False)
    home.loop.settle()
    assert (connection.holds_reading, transport.is_reading) == (False, True)


def test_relief_may_come_after_the_end() -> None:
    home = house(max_message_size=CONGESTION_BYTES)
    connection, transport = home.open()
    _, other = home.open()
    connection.data_received(wire.frame(wire.BINARY, bytes(CONGESTION_BYTES)))
    transport.lose()
    home.loop.settle()
    assert len(wire.read(other.take())) == 1
    say(home, "the channel lives on")
    assert wire.texts(other.take()) == ["the channel lives on"]


def test_to_close_is_to_read_again_for_the_answer() -> None:
    home = house()
    connection, transport = home.open()
    connection.hold_reading()
    connection.hold_reading()
    connection.close(1008, "")
    assert (connection.holds_reading, transport.is_reading) == (False, True)
    connection.release_reading()
    assert transport.is_reading


def test_an_echo_that_is_not_taken_is_not_read_for() -> None:
    home = house()
    connection, transport = home.open("/echo")
    transport.room = 2
    connection.data_received(wire.text("hello"))
    assert (connection.paused, transport.is_reading) == (True, False)
    transport.drain()
    assert (connection.paused, transport.is_reading) == (False, True)
    assert wire.texts(transport.take()) == ["hello"]


def test_reading_is_held_until_no_reason_is_left() -> None:
    home = house()
    connection, transport = home.open()
    connection.hold_reading(Hold.CONGESTED)
    connection.hold_reading(Hold.UNREAD)
    connection.hold_reading(Hold.UNREAD)
    connection.release_reading(Hold.UNREAD)
    assert (connection.holds_reading, transport.is_reading) == (True, False)
    connection.release_reading(Hold.UNREAD)
    assert not transport.is_reading
    connection.release_reading(Hold.CONGESTED)
    assert (connection.holds_reading, transport.is_reading) == (False, True)


# Replies, and what waits


def test_a_reply_goes_out_at_once() -> None:
    home = house()
    connection, transport = home.open()
    connection.send(b"\x81\x02ok")
    assert transport.take() == b"\x81\x02ok"
    assert transport.is_reading


def test_who_does_not_take_its_replies_is_not_read_until_it_has() -> None:
    home = house()
    connection, transport = home.open()
    transport.room = 3
    connection.send(b"\x81\x03one")
    assert (connection.paused, transport.is_reading) == (True, False)
    connection.send(b"\x81\x03two")
    say(home, "queued")
    transport.drain(5)
    assert not transport.is_reading
    transport.drain()
    assert wire.texts(transport.take()) == ["one", "two", "queued"]
    assert (connection.paused, transport.is_reading) == (False, True)
    say(home, "live")
    assert wire.texts(transport.take()) == ["live"]
    home.assert_balanced()


def test_one_read_does_not_ask_for_more_than_there_is_room_for() -> None:
    home = house()
    connection, transport, session = open_scripted(home)
    session.on_message = lambda payload: connection.send(wire.frame(wire.TEXT, payload * 100, mask=None))
    transport.stall()
    asked = [f"{number:04d}" for number in range(5000)]
    data = b"".join(wire.text(text) for text in asked)
    connection.data_received(data)
    assert connection.unsent_bytes <= 100 * PARSE_BYTES
    held = connection.unsent_bytes
    connection.data_received(wire.text("last"))
    assert connection.unsent_bytes == held, "what comes all the same waits its turn"
    for _ in range(20):
        transport.drain(held // 2)
        assert connection.unsent_bytes <= 100 * PARSE_BYTES
    transport.drain()
    assert wire.texts(transport.take()) == [text * 100 for text in (*asked, "last")]
    assert (connection.is_open, transport.is_reading) == (True, True)


def test_a_close_looks_for_its_answer_in_what_was_read_already() -> None:
    home = house()
    connection, transport, session = open_scripted(home)
    heard = session.heard
    session.on_message = lambda payload: (heard.append(payload), connection.send(b"\x81\x01x"))
    transport.stall()
    connection.data_received(wire.text("a" * 100) * 50 + wire.close(1001))
    before = len(heard)
    assert 0 < before < 50
    connection.close(1001, "bye")
    assert len(heard) == before, "it is leaving: nothing more is looked at but that"
    assert transport.has_ended
    transport.lose()
    assert home.counters.closed == {"1001": 1}


def test_what_waits_goes_with_a_connection_that_is_dropped() -> None:
    home = house()
    connection, transport = home.open("/echo")
    transport.stall()
    connection.data_received(wire.text("a" * 100) * 50)
    connection.abort("")
    transport.lose()
    assert home.counters.received < 50


def test_a_reply_that_is_taken_does_not_end_a_congestion() -> None:
    home = house()
    connection, transport = home.open()
    connection.hold_reading(Hold.CONGESTED)
    transport.stall()
    connection.send(b"\x81\x02ok")
    transport.drain()
    assert (connection.paused, transport.is_reading) == (False, False)
    connection.release_reading(Hold.CONGESTED)
    assert transport.is_reading


def test_nor_does_relief_read_on_from_who_does_not_take_its_replies() -> None:
    home = house()
    connection, transport = home.open()
    connection.hold_reading(Hold.CONGESTED)
    transport.stall()
    connection.send(b"\x81\x02ok")
    connection.release_reading(Hold.CONGESTED)
    assert not transport.is_reading
    transport.drain()
    assert transport.is_reading


def test_a_close_reads_on_whatever_held_the_reading() -> None:
    home = house()
    connection, transport = home.open()
    connection.hold_reading(Hold.CONGESTED)
    transport.stall()
    connection.send(b"\x81\x02ok")
    connection.close(1008, "")
    assert (connection.holds_reading, transport.is_reading) == (False, True)


def gathered(home: House, *words: str) -> tuple[Connection, Transport]:
    """Open a client for whom something waits although its socket has room, as for one on several channels."""
    connection, transport = home.open()
    assert connection.session is not None
    connection.session.pause()
    say(home, *words)
    assert transport.take() == b""
    return connection, transport


def test_what_waits_is_written_on_demand() -> None:
    home = house()
    connection, transport = gathered(home, "a", "b")
    connection.flush()
    connection.flush()
    assert wire.texts(transport.take()) == ["a", "b"]
    home.assert_balanced()
    assert home.backlog.messages == 0


def test_only_as_far_as_the_socket_takes_it() -> None:
    home = house(LagLimits(messages=1000))
    connection, transport = gathered(home, "a" * 70_000, "b")
    say(home, "c")
    transport.stall()
    connection.flush()
    assert connection.paused
    unsent = connection.unsent_bytes
    connection.flush()
    assert connection.unsent_bytes == unsent
    assert list(home.backlog.laggards) == [connection.outbox]
    transport.drain()
    assert [text[0] for text in wire.texts(transport.take())] == ["a", "b", "c"]
    home.assert_balanced()


def test_neither_a_reply_nor_what_waits_is_written_out_of_its_time() -> None:
    home = house()
    stranger, doorstep = home.accept()
    connection, transport = gathered(home, "a")
    connection.close(1008, "")
    assert wire.read(transport.take()) == [(wire.CLOSE, b"\x03\xf0")], "what waited is dropped"
    aborted, aborted_transport = gathered(home, "b")
    aborted.abort("")
    lost, lost_transport = gathered(home, "c")
    lost_transport.lose()
    for client in (stranger, connection, aborted, lost):
        client.flush()
        client.send(b"\x81\x02ok")
    assert all(not each.take() for each in (doorstep, transport, aborted_transport, lost_transport))
    home.assert_balanced()


def test_nothing_is_written_for_a_message_in_one_breath_with_a_close() -> None:
    home = house()
    connection, transport, session = open_scripted(home)
    session.pause()
    say(home, "waits")
    session.on_message = lambda payload: (connection.flush(), connection.send(b"\x81\x02ok"))
    connection.data_received(wire.text("a") + wire.close(1000))
    assert wire.read(transport.take()) == [(wire.CLOSE, b"\x03\xe8")]
    home.assert_balanced()


def test_finishing_writes_what_waits_although_the_socket_has_room() -> None:
    home = house()
    connection, transport = gathered(home, "a")
    connection.finish(1001, "bye")
    assert wire.read(transport.take()) == [(wire.TEXT, b"a"), (wire.CLOSE, b"\x03\xe9bye")]
    home.assert_balanced()


# Endings


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
    waiting.expire()
    assert transport.writes == []
    opened, opened_transport = home.open()
    opened_transport.lose()
    for end in (lambda: opened.close(1001, ""), lambda: opened.finish(1001, ""), lambda: opened.evict("slow")):
        end()
    opened.abort("again")
    assert home.counters.slow_disconnects == 0


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


def test_credentials_end_and_with_them_the_connection() -> None:
    class Soon:
        def check(self, token: str | None) -> Identity:
            return Identity("ann", time.time() + 60)

    home = house(credentials=Soon())
    connection, transport = home.open()
    home.tick(59.0)
    assert connection.is_open
    home.tick(1.1)
    assert closed(transport) == (wire.CLOSE, b"\x03\xf0credentials expired")
    home.tick(0.1)
    assert transport.take() == b""


def test_credentials_may_be_renewed() -> None:
    home = house(pong_timeout=1000.0)
    connection, transport = home.open()
    connection.expire_at(home.clock.now + 10)
    connection.expire_at(home.clock.now + 20)
    home.tick(15.0)
    assert connection.is_open
    connection.expire_at(None)
    connection.expire_at(None)
    home.tick(15.0)
    assert connection.is_open
    connection.expire_at(home.clock.now)
    home.tick()
    assert closed(transport).code == 1008
    transport.lose()
    connection.expire_at(home.clock.now)
    assert home.wheel.expiring == {}


# The dialect's words


ENDS = {
    "close": (lambda client: client.close(Close.GOING_AWAY, "bye"), Close.GOING_AWAY),
    "fail": (lambda client: client.fail(Close.TOO_BIG, "too big"), Close.TOO_BIG),
    "finish": (lambda client: client.finish(Close.RESTART, "bye"), Close.RESTART),
    "evict": (lambda client: client.evict("queue full"), Close.TOO_SLOW),
    "abandon": (lambda client: client.abandon(), Close.TOO_SLOW),
    "lose contact": (lambda client: client.lose_contact(), Close.NO_PONG),
    "expire": (lambda client: client.expire(), Close.EXPIRED),
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


# Introductions


def test_who_does_not_introduce_itself_in_time_is_sent_away() -> None:
    home = house(open_timeout=5.0)
    (late, late_transport, session), (prompt, _) = open_scripted(home), home.open()
    session.words[Close.STALE] = (3502, "stale")
    for client in (late, prompt):
        client.await_introduction()
    home.tick(4.9)
    late.await_introduction()
    prompt.introduced()
    prompt.introduced()
    home.tick(0.1)
    assert (late.is_open, prompt.is_open) == (False, True)
    assert (closed(late_transport).code, late_transport.is_aborted) == (3502, False)
    late_transport.lose()
    late.introduced()
    assert home.counters.closed == {"3502": 1}


# Our own faults


def test_what_a_client_said_that_is_gone_is_not_looked_at_when_an_answer_comes_late(
    caplog: pytest.LogCaptureFixture,
) -> None:
    home = house()
    connection, transport, session = open_scripted(home)
    session.on_message = lambda _: connection.hold_reading(Hold.UNANSWERED)
    connection.data_received(wire.text("x" * (PARSE_BYTES - 8)) + wire.text("the rest"))
    transport.lose(ConnectionResetError())
    assert connection.session is None
    connection.release_reading(Hold.UNANSWERED)
    assert caplog.records == []


class FailingSession:
    """A session with a mistake of ours in it."""

    dialect, channel, client, outbox = "raw", "main", "", None

    def message(self, opcode: int, payload: bytes | bytearray) -> None:
        raise ZeroDivisionError("a detail")

    def farewell(self, code: int, reason: str) -> tuple[int, str]:
        return code, reason

    def leave(self) -> None:
        """Not on any channel."""


class FailingCredentials:
    def check(self, token: str | None) -> Identity:
        raise ZeroDivisionError("a detail")


def test_a_fault_of_ours_closes_without_details_and_is_logged_with_them(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    home = house()
    monkeypatch.setattr(home.listener, "new_session", lambda connection, admission: FailingSession())
    connection, transport = home.open()
    connection.data_received(wire.text("a") + wire.text("b"))
    assert wire.read(transport.take()) == [(wire.CLOSE, b"\x03\xf3")]
    assert [record.levelname for record in caplog.records] == ["ERROR"]
    assert "a detail" in caplog.text
    connection.data_received(wire.close(1011))
    transport.lose()
    assert home.counters.closed == {"1011": 1}


def test_a_fault_in_one_breath_with_the_client_s_close_leaves_nothing_behind(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    home = house()
    monkeypatch.setattr(home.listener, "new_session", lambda connection, admission: FailingSession())
    connection, transport = home.open()
    connection.data_received(wire.text("a") + wire.close(1000))
    assert transport.is_aborted
    assert "a detail" in caplog.text


def test_a_fault_while_a_session_is_made_leaves_nobody_counted_in(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    home = house()
    monkeypatch.setattr(home.listener, "new_session", lambda connection, admission: 1 // 0)
    connection, transport = home.accept()
    connection.data_received(wire.request())
    assert transport.is_aborted
    transport.lose()
    assert (home.gate.open, home.listener.connections, home.counters.opened) == (0, {}, 0)
    assert "ZeroDivisionError" in caplog.text


def test_a_fault_before_the_handshake_is_answered_drops_the_connection(caplog: pytest.LogCaptureFixture) -> None:
    home = house(credentials=FailingCredentials())
    connection, transport = home.accept()
    connection.data_received(wire.request())
    assert transport.is_aborted
    assert transport.writes == []
    assert "a detail" in caplog.text
    transport.lose()
    assert (home.gate.open, home.listener.connections) == (0, {})
