"""What a client sends: frames into messages, what is wrong on the wire, and how much is too much."""

from __future__ import annotations

import pytest

from server.edge.closing import Close
from server.edge.intake import FRAMES_AT_ONCE, MAX_FRAGMENTS
from tests import wire
from tests.fakes import Transport
from tests.house import house
from tests.sessions import open_scripted


def closed(transport: Transport) -> wire.Read:
    """Read the close frame that must be the last thing that was sent."""
    *_, last = wire.read(transport.take())
    assert last.opcode == wire.CLOSE, last
    return last


# Messages


def test_frames_may_come_a_byte_at_a_time() -> None:
    home = house()
    connection, transport = home.open()
    for byte in wire.text("hello") + wire.text("you"):
        connection.data_received(bytes([byte]))
    home.loop.settle()
    assert wire.texts(transport.take()) == ["hello", "you"]


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


def test_a_message_may_turn_out_to_be_many() -> None:
    home = house(message_rate=10)
    connection, transport, session = open_scripted(home)
    charged: list[bool] = []
    session.on_message = lambda payload: charged.append(connection.charge(int(payload)))
    session.words[Close.TOO_MANY] = (3013, "too many requests")
    connection.data_received(wire.text("0") + wire.text("7"))
    assert (charged, connection.is_open) == ([True, True], True)
    connection.data_received(wire.text("1") + wire.text("0"))
    assert (charged, connection.is_open) == ([True, True, False], False)
    assert (closed(transport).code, transport.has_ended) == (3013, True)
    assert connection.charge(1) is False


def test_without_a_rate_many_cost_nothing() -> None:
    home = house(message_rate=0)
    connection, _, _ = open_scripted(home)
    assert connection.charge(1_000_000)
    stranger, _ = home.accept()
    assert stranger.charge(1)


def test_a_pong_of_websocket_is_no_answer_to_a_dialect_s_own_ping() -> None:
    home = house(message_rate=1)
    connection, _, session = open_scripted(home)
    session.ping_frame = b"\x81\x02{}"
    assert connection.ping(b"\x89\x00", home.clock())
    connection.data_received(wire.frame(wire.PONG) * FRAMES_AT_ONCE)
    assert (connection.is_open, connection.pinged_at) == (True, home.clock.now)
    connection.data_received(wire.frame(wire.PONG))
    assert not connection.is_open, "nor is it free"
