"""One client from accept to the end, on a transport that a test stalls, drains and loses by hand.

``test_connection_sockets.py`` does the same over sockets and uvloop; what is decided is decided here.
"""

from __future__ import annotations

import time

import pytest

from server.core.counters import Drop
from server.core.hub import CONGESTION_BYTES
from server.core.lag import LagLimits, LagPolicy
from server.edge.connection import DRAIN_BYTES, FRAMES_AT_ONCE, MAX_FRAGMENTS, MAX_REQUEST_BYTES
from server.edge.credentials import Identity
from tests import wire
from tests.fakes import Transport
from tests.house import House, house


def closed(transport: Transport) -> wire.Read:
    """Read the close frame that must be the last thing that was sent."""
    *_, last = wire.read(transport.take())
    assert last.opcode == wire.CLOSE, last
    return last


def say(home: House, *words: str, channel: str = "main") -> None:
    """Publish texts and let them go out."""
    for text in words:
        home.hub.publish(channel, wire.frame(wire.TEXT, text.encode(), mask=None))
    home.loop.settle()


# The opening handshake. RFC 6455, section 4.2


def test_a_handshake_is_answered_and_puts_the_client_on_its_channel() -> None:
    home = house()
    connection, transport = home.accept()
    connection.data_received(wire.request("/ws/news"))
    answer = wire.answer(transport.take())
    assert answer.status == 101
    assert answer.fields["sec-websocket-accept"] == wire.ACCEPT
    assert answer.fields["upgrade"] == "websocket"
    assert "sec-websocket-extensions" not in answer.fields
    assert connection.is_open
    assert list(home.hub.channels) == ["news"]
    assert (home.gate.open, home.counters.opened, home.listener.open_by_dialect["raw"]) == (1, 1, 1)


def test_a_handshake_may_come_a_byte_at_a_time() -> None:
    home = house()
    connection, transport = home.accept()
    request = wire.request("/ws")
    for index in range(len(request) - 1):
        connection.data_received(request[index : index + 1])
        assert transport.writes == []
    connection.data_received(request[-1:])
    assert wire.answer(transport.take()).status == 101


def test_frames_may_come_a_byte_at_a_time() -> None:
    home = house()
    connection, transport = home.open()
    for byte in wire.text("hello") + wire.text("you"):
        connection.data_received(bytes([byte]))
    home.loop.settle()
    assert wire.texts(transport.take()) == ["hello", "you"]


@pytest.mark.parametrize(
    "early",
    [
        wire.text("early"),
        wire.frame(wire.PING),
        wire.close(),
        wire.frame(wire.TEXT, b"x", mask=None),
        b"GET / HTTP/1.1\r\n",
    ],
    ids=["text", "ping", "close", "unmasked", "HTTP"],
)
def test_nobody_speaks_before_the_handshake_is_answered(early: bytes) -> None:
    home = house()
    connection, transport = home.accept()
    connection.data_received(wire.request() + early)
    assert transport.is_aborted
    assert transport.writes == []
    assert not connection.is_open
    transport.lose()
    assert (home.gate.open, home.counters.opened, home.listener.connections) == (0, 0, {})


@pytest.mark.parametrize(
    ("request_bytes", "status"),
    [
        (wire.request("/nothing"), 404),
        (wire.request("/ws", "Origin: https://evil.example"), 403),
        (wire.request("/ws", method="HEAD"), 405),
        (b"GET /ws HTTP/1.1\r\nHost: a\r\n\r\n", 426),
        (wire.request("/ws").replace(b"Version: 13", b"Version: 8"), 400),
        (wire.request("/ws").replace(wire.KEY.encode(), b"short"), 400),
        (b"GET /ws HTTP/1.1\r\nX: " + b"x" * 9000 + b"\r\n\r\n", 431),
        (b"GET /" + b"x" * 9000 + b" HTTP/1.1\r\n\r\n", 414),
        (b"GET /ws HTTP/1.1\r\n" + b"X: y\r\n" * 200 + b"\r\n", 431),
        (b"GET /ws HTTP/2.0\r\n\r\n", 400),
        (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n", 400),  # TLS to a plain port
        (b"POST /ws HTTP/1.1\r\nContent-Length: 5\r\n\r\nhello", 400),
        (b"\r\n", 400),
    ],
)
def test_what_is_no_handshake_is_answered_and_hung_up_on(request_bytes: bytes, status: int) -> None:
    home = house()
    connection, transport = home.accept()
    connection.data_received(request_bytes)
    assert wire.answer(transport.take()).status == status
    assert transport.has_ended
    assert sum(home.counters.rejected.values()) == 1
    # Whatever comes now is not looked at, and whoever does not hang up is hung up on.
    connection.data_received(b"more\r\n\r\n")
    assert transport.take() == b""
    assert sum(home.counters.rejected.values()) == 1
    home.tick(5.0)
    assert transport.is_aborted
    transport.lose()
    assert (home.gate.open, home.listener.connections, len(home.listener.recorder)) == (0, {}, 0)


def test_a_request_has_a_ceiling_of_its_own() -> None:
    home = house()
    connection, transport = home.accept()
    line = b"X: " + b"x" * 4091 + b"\r\n"
    connection.data_received(b"GET /ws HTTP/1.1\r\n")
    for _ in range(MAX_REQUEST_BYTES // len(line) - 1):
        connection.data_received(line)
        assert transport.writes == []
    connection.data_received(line)
    connection.data_received(line)
    assert wire.answer(transport.take()).status == 431
    assert home.counters.rejected == {"bad_request": 1}
    connection.data_received(line)
    assert transport.take() == b""


def test_who_does_not_finish_the_handshake_in_time_is_dropped() -> None:
    home = house(open_timeout=5.0)
    connection, transport = home.accept()
    connection.data_received(b"GET /ws HTTP/1.1\r\n")
    home.tick(4.9)
    connection.data_received(b"Host: a\r\n")
    assert not transport.is_aborted
    home.tick(0.2)
    assert transport.is_aborted


def test_a_client_that_leaves_before_its_handshake_was_never_here() -> None:
    home = house()
    connection, transport = home.accept()
    connection.data_received(b"GET /ws")
    connection.eof_received()
    transport.lose()
    assert home.listener.connections == {}
    assert (home.counters.opened, home.counters.closed) == (0, {})
    home.tick(60.0)


# Messages


def test_a_message_goes_to_everyone_on_the_channel() -> None:
    home = house()
    (speaker, own), (_, other), (_, elsewhere) = home.open(), home.open(), home.open("/ws/elsewhere")
    speaker.data_received(wire.text("hello"))
    home.loop.settle()
    assert own.take() == other.take() == b"\x81\x05hello"
    assert elsewhere.take() == b""
    assert (home.counters.received, home.counters.bytes_received, home.counters.published) == (1, 5, 1)
    home.assert_balanced()


def test_messages_of_one_read_are_all_taken_in_order() -> None:
    home = house()
    speaker, transport = home.open()
    speaker.data_received(b"".join(wire.text(str(number)) for number in range(100)))
    home.loop.settle()
    assert wire.texts(transport.take()) == [str(number) for number in range(100)]


def test_fragments_make_one_message_and_control_frames_may_come_between() -> None:
    home = house()
    speaker, transport = home.open()
    speaker.data_received(
        wire.text("he", fin=False)
        + wire.frame(wire.PING, b"between")
        + wire.frame(wire.CONT, b"l", fin=False)
        + wire.frame(wire.PONG)
        + wire.frame(wire.CONT, b"", fin=False)
        + wire.frame(wire.CONT, b"lo")
        + wire.text("next")
    )
    home.loop.settle()
    assert wire.read(transport.take()) == [(wire.PONG, b"between"), (wire.TEXT, b"hello"), (wire.TEXT, b"next")]
    assert home.counters.received == 2


def test_binary_fragments_stay_binary() -> None:
    home = house()
    speaker, transport = home.open()
    speaker.data_received(wire.frame(wire.BINARY, b"\xff", fin=False) + wire.frame(wire.CONT, b"\xfe"))
    home.loop.settle()
    assert wire.read(transport.take()) == [(wire.BINARY, b"\xff\xfe")]


def test_a_character_may_be_cut_by_a_fragment() -> None:
    home = house()
    speaker, transport = home.open()
    speaker.data_received(wire.frame(wire.TEXT, b"\xc3", fin=False) + wire.frame(wire.CONT, b"\xa9"))
    home.loop.settle()
    assert wire.texts(transport.take()) == ["é"]


def test_as_many_fragments_as_are_allowed_are_a_message_and_one_more_are_not() -> None:
    home = house()
    (good, good_transport), (bad, bad_transport) = home.open(), home.open("/ws/other")
    piece, end = wire.frame(wire.CONT, b"x", fin=False), wire.frame(wire.CONT, b"x")
    good.data_received(wire.text("x", fin=False) + piece * (MAX_FRAGMENTS - 2) + end)
    home.loop.settle()
    assert wire.texts(good_transport.take()) == ["x" * MAX_FRAGMENTS]
    bad.data_received(wire.text("x", fin=False) + piece * (MAX_FRAGMENTS - 1) + end)
    home.loop.settle()
    assert closed(bad_transport) == (wire.CLOSE, b"\x03\xf1too many fragments")
    assert home.counters.received == 1


WRONG = {
    "unmasked": (wire.frame(wire.TEXT, b"x", mask=None), 1002),
    "a bit of an extension": (wire.frame(wire.TEXT, b"x", rsv=4), 1002),
    "an unknown opcode": (wire.frame(0x3, b"x"), 1002),
    "an unknown control opcode": (wire.frame(0xB, b"x"), 1002),
    "a continuation of nothing": (wire.frame(wire.CONT, b"x"), 1002),
    "a message within a message": (wire.text("a", fin=False) + wire.text("b"), 1002),
    "a fragmented ping": (wire.frame(wire.PING, b"x", fin=False), 1002),
    "a long ping": (wire.frame(wire.PING, b"x" * 126), 1002),
    "a close of one byte": (wire.frame(wire.CLOSE, b"\x03"), 1002),
    "a close code that is none": (wire.close(999), 1002),
    "a close code that is never sent": (wire.close(1005), 1002),
    "a close reason that is not UTF-8": (wire.frame(wire.CLOSE, b"\x03\xe8\xff"), 1007),
    "text that is not UTF-8": (wire.frame(wire.TEXT, b"ok\xff"), 1007),
    "fragmented text that is not UTF-8": (
        wire.frame(wire.TEXT, b"\xc3", fin=False) + wire.frame(wire.CONT, b"("),
        1007,
    ),
    "a message too large": (wire.frame(wire.BINARY, bytes(1001)), 1009),
    "fragments too large together": (
        wire.frame(wire.BINARY, bytes(600), fin=False) + wire.frame(wire.CONT, bytes(401)),
        1009,
    ),
    "a size of 2^31": (b"\x82\xff\x00\x00\x00\x00\x80\x00\x00\x00" + wire.MASK, 1009),
    "a size of 2^63": (b"\x82\xff\x80\x00\x00\x00\x00\x00\x00\x00" + wire.MASK, 1009),
    "a size of 2^64 - 1": (b"\x82\xff\xff\xff\xff\xff\xff\xff\xff\xff" + wire.MASK, 1009),
}


@pytest.mark.parametrize(("data", "code"), WRONG.values(), ids=WRONG)
@pytest.mark.parametrize("path", ["/ws", "/echo"])
def test_what_is_wrong_on_the_wire_has_its_close_code(path: str, data: bytes, code: int) -> None:
    home = house(max_message_size=1000)
    connection, transport = home.open(path)
    _, other = home.open()
    connection.data_received(data)
    home.loop.settle()
    assert closed(transport).code == code
    assert not connection.is_open
    assert other.take() == b"", "nobody else hears of it"
    transport.lose()
    assert home.counters.closed == {str(code): 1}
    [departure] = home.listener.recorder
    assert departure.code == code


def test_the_largest_message_is_still_taken() -> None:
    home = house(max_message_size=1000)
    connection, transport = home.open()
    connection.data_received(
        wire.frame(wire.BINARY, bytes(1000))
        + wire.frame(wire.BINARY, bytes(600), fin=False)
        + wire.frame(wire.CONT, bytes(400))
    )
    home.loop.settle()
    assert [len(frame.payload) for frame in wire.read(transport.take())] == [1000, 1000]


def test_who_says_too_much_is_told_so_and_what_was_too_much_goes_nowhere() -> None:
    home = house(message_rate=3)
    connection, transport = home.open()
    _, other = home.open()
    connection.data_received(b"".join(wire.text(str(number)) for number in range(9)))
    home.loop.settle()
    assert closed(transport) == (wire.CLOSE, b"\x03\xf0too many messages")
    assert wire.texts(other.take()) == ["0", "1", "2"]


def test_the_rate_is_each_client_s_own() -> None:
    home = house(message_rate=2)
    one, one_transport = home.open()
    other, other_transport = home.open()
    for connection in (one, other):
        connection.data_received(wire.text("a") * 2)
        assert connection.is_open
    home.clock.advance(0.5)
    one.data_received(wire.text("b"))
    assert one.is_open
    other.data_received(wire.text("b") * 2)
    home.loop.settle()
    assert closed(other_transport).code == 1008
    assert wire.texts(one_transport.take()) == ["a", "a", "a", "a", "b", "b"]


def test_a_message_in_many_fragments_is_one_message() -> None:
    home = house(message_rate=1)
    connection, transport = home.open()
    connection.data_received(
        wire.frame(wire.TEXT, b"a", fin=False) + wire.frame(0, b"b", fin=False) * 998 + wire.frame(0, b"c")
    )
    home.loop.settle()
    assert connection.is_open
    assert wire.texts(transport.take()) == ["a" + "b" * 998 + "c"]


def test_pings_and_fragments_have_their_own_limit() -> None:
    home = house(message_rate=1)
    connection, transport = home.open()
    connection.data_received(wire.frame(wire.PING) * FRAMES_AT_ONCE)
    assert connection.is_open
    connection.data_received(wire.frame(wire.PING))
    assert not connection.is_open
    assert closed(transport).code == 1008


def test_the_answer_to_our_ping_is_free() -> None:
    home = house(message_rate=1)
    connection, _ = home.open()
    connection.data_received(wire.text("a"))
    connection.ping(b"\x89\x00", home.clock())
    connection.data_received(wire.frame(wire.PONG))
    assert connection.is_open


def test_without_a_rate_anything_goes() -> None:
    home = house(message_rate=0)
    connection, _ = home.open()
    connection.data_received(wire.text("a") * 5000)
    assert connection.is_open


def test_who_may_not_publish_is_sent_away() -> None:
    home = house(may_publish=False)
    connection, transport = home.open()
    connection.data_received(wire.text("a") + wire.text("b"))
    assert closed(transport) == (wire.CLOSE, b"\x03\xf0clients may not publish here")
    assert home.counters.published == 0


# Pings from the client. RFC 6455, section 5.5.2


def test_a_ping_is_answered_at_once() -> None:
    home = house()
    connection, transport = home.open()
    connection.data_received(wire.frame(wire.PING) + wire.frame(wire.PING, b"x" * 125))
    assert wire.read(transport.take()) == [(wire.PONG, b""), (wire.PONG, b"x" * 125)]


def test_to_a_client_that_does_not_read_only_the_newest_pong_is_owed() -> None:
    home = house()
    connection, transport = home.open()
    transport.stall()
    say(home, "fills the socket")
    assert connection.paused
    held = connection.unsent_bytes
    for number in range(1000):
        connection.data_received(wire.frame(wire.PING, b"%d" % number))
    assert connection.unsent_bytes == held, "a flood of pings costs us nothing"
    transport.drain()
    assert wire.read(transport.take()) == [(wire.TEXT, b"fills the socket"), (wire.PONG, b"999")]
    connection.data_received(wire.frame(wire.PING, b"again"))
    assert wire.read(transport.take()) == [(wire.PONG, b"again")]


def test_an_owed_pong_comes_before_what_is_queued() -> None:
    home = house()
    connection, transport = home.open()
    transport.stall()
    say(home, "a", "b")
    say(home, "queued")
    connection.data_received(wire.frame(wire.PING, b"p"))
    transport.drain()
    assert wire.read(transport.take()) == [
        (wire.TEXT, b"a"),
        (wire.TEXT, b"b"),
        (wire.PONG, b"p"),
        (wire.TEXT, b"queued"),
    ]


def test_no_pong_is_owed_once_the_client_has_closed() -> None:
    home = house()
    connection, transport = home.open()
    transport.stall()
    say(home, "a")
    connection.data_received(wire.frame(wire.PING, b"p"))
    connection.data_received(wire.close(1000))
    transport.drain()
    assert wire.read(transport.take()) == [(wire.TEXT, b"a"), (wire.CLOSE, b"\x03\xe8")]


def test_nor_when_it_pings_between_our_close_frame_and_its_answer() -> None:
    home = house()
    connection, transport = home.open()
    transport.stall()
    say(home, "a")
    connection.close(1008, "")
    connection.data_received(wire.frame(wire.PING, b"p"))
    connection.data_received(wire.close(1008))
    transport.drain()
    assert wire.read(transport.take()) == [(wire.TEXT, b"a"), (wire.CLOSE, b"\x03\xf0")]


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


def test_a_client_that_reads_a_little_is_written_a_little() -> None:
    home = house(LagLimits(LagPolicy.DROP_OLDEST, messages=10_000, bytes=1 << 30))
    connection, transport = home.open()
    transport.stall()
    words = [f"{number:05d}" + "x" * 2000 for number in range(200)]
    for text in words:
        say(home, text)
        assert connection.unsent_bytes <= DRAIN_BYTES + 3000, "what is not in the outbox is one write at most"
    while connection.paused:
        transport.drain(7777)
        assert connection.unsent_bytes <= DRAIN_BYTES + 3000
    assert wire.texts(transport.take()) == words
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
    home = house(write_timeout=10.0, ping_interval=0.0)
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

    home = house(credentials=Soon(), ping_interval=0.0)
    connection, transport = home.open()
    home.tick(59.0)
    assert connection.is_open
    home.tick(1.1)
    assert closed(transport) == (wire.CLOSE, b"\x03\xf0credentials expired")
    home.tick(0.1)
    assert transport.take() == b""


# Our own faults


class FailingSession:
    """A session with a mistake of ours in it."""

    dialect, channel, outbox = "raw", "main", None

    def message(self, opcode: int, payload: bytes | bytearray) -> None:
        raise ZeroDivisionError("a detail")

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


def test_a_fault_before_the_handshake_is_answered_drops_the_connection(caplog: pytest.LogCaptureFixture) -> None:
    home = house(credentials=FailingCredentials())
    connection, transport = home.accept()
    connection.data_received(wire.request())
    assert transport.is_aborted
    assert transport.writes == []
    assert "a detail" in caplog.text
    transport.lose()
    assert (home.gate.open, home.listener.connections) == (0, {})
