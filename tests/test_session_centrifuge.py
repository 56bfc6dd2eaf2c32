"""The state machine of a Centrifuge client, in literal JSON and Protobuf: what it may ask when, and how it ends."""

from __future__ import annotations

import pytest

from server.core.lag import LagLimits, LagPolicy
from server.core.publication import Publication
from server.dialects.centrifuge import codes
from server.edge.closing import Close
from server.node.namespaces import ChannelOptions
from tests import wire
from tests.speaker import (
    CONNECT,
    UNAVAILABLE,
    Binary,
    Speaker,
    connected,
    dialect_house,
    error,
    messages,
    number,
    part,
    published,
    quiet,
)

SUBSCRIBE = '{"id":2,"subscribe":{"channel":"news"}}'
CONNECTED = (
    '{"id":1,"connect":{"client":"ME","version":"Stentor test","ping":25,"pong":true,"session":"ME","node":"node",'
    '"time":1700000000000}}'
)
BAD_REQUEST = (3501, "bad request")


# The beginning


def test_connect_is_answered_with_all_that_an_sdk_reads() -> None:
    alice = Speaker(dialect_house())
    assert alice.asks(CONNECT) == [CONNECTED]


def test_what_comes_in_the_frame_of_the_connect_is_answered_in_its_order_in_one_frame() -> None:
    alice = Speaker(dialect_house())
    alice.says(CONNECT, SUBSCRIBE, '{"id":3,"rpc":{"method":"sum"}}', '{"id":4,"unsubscribe":{"channel":"news"}}')
    (frame,) = alice.frames()
    assert frame == [
        CONNECTED,
        '{"id":2,"subscribe":{}}',
        error(3, 104, "method not found"),
        '{"id":4,"unsubscribe":{}}',
    ]


def test_several_frames_at_once_are_answered_frame_by_frame() -> None:
    alice = Speaker(dialect_house())
    alice.feed(wire.text(CONNECT) + wire.text(SUBSCRIBE))
    assert alice.frames() == [[CONNECTED], ['{"id":2,"subscribe":{}}']]


@pytest.mark.parametrize(
    "line",
    [
        SUBSCRIBE,
        '{"id":1,"publish":{"channel":"news","data":1}}',
        '{"id":1,"ping":{}}',
        '{"id":1,"refresh":{"token":"x"}}',
        '{"id":1,"nonsense":{}}',
        '{"send":{"data":1}}',
        "{}",
    ],
)
def test_before_connect_there_is_only_connect(line: str) -> None:
    assert Speaker(dialect_house()).ends(line) == BAD_REQUEST
    assert Speaker(dialect_house()).ends(line, CONNECT) == BAD_REQUEST


def test_a_second_connect_ends_the_connection_after_what_came_before_it() -> None:
    alice = Speaker(dialect_house())
    assert alice.asks(CONNECT, SUBSCRIBE, CONNECT, '{"id":9,"rpc":{}}') == [CONNECTED, '{"id":2,"subscribe":{}}']
    assert alice.close == BAD_REQUEST
    assert connected(dialect_house()).ends(CONNECT) == BAD_REQUEST


def test_a_connect_of_wrong_types_is_as_none() -> None:
    assert Speaker(dialect_house()).ends('{"id":1,"connect":{"token":7}}') == BAD_REQUEST


def test_who_never_connects_is_stale() -> None:
    home = dialect_house(open_timeout=5.0, ping_interval=1e5)
    alice, bob = Speaker(home), connected(home, "BOB")
    home.tick(4.9)
    assert alice.hears() == []
    assert alice.close is None
    home.tick(0.2)
    assert alice.hears() == []
    assert alice.close == (3502, "stale")
    assert bob.hears() == []
    assert bob.close is None


# Being asked


@pytest.mark.parametrize(
    "line",
    [
        "",
        "\n",
        "[]",
        "7",
        "null",
        "nonsense",
        '{"id":0,"ping":{}}',
        '{"id":-1,"ping":{}}',
        '{"id":4294967296,"ping":{}}',
        '{"id":"5","ping":{}}',
        '{"id":1.5,"ping":{}}',
        '{"ping":{}}',
        '{"what":{}}',
        '{"id": 1,"id":2,"ping":{}}',
        "{}\n\n{}",
        "[" * 60_000,
    ],
)
def test_what_is_no_command_ends_the_connection(line: str) -> None:
    assert connected(dialect_house()).ends(line) == BAD_REQUEST
    assert Speaker(dialect_house()).ends(line) == BAD_REQUEST


def test_json_may_come_in_a_binary_frame_and_protobuf_not_in_a_text_frame() -> None:
    home = dialect_house()
    alice = connected(home)
    alice.feed(wire.frame(wire.BINARY, b'{"id":7,"presence_stats":{"channel":"news"}}'))
    (reply,) = alice.hears()
    assert reply.startswith('{"id":7,')
    alice.feed(wire.frame(wire.BINARY, b'{"id":8,"connect":{"name":"\xff"}}'))
    assert alice.hears() == []
    assert alice.close == BAD_REQUEST
    bob, transport = home.open("/connection/websocket", "Sec-WebSocket-Protocol: centrifuge-protobuf")
    bob.data_received(wire.text(CONNECT))
    (frame,) = wire.read(transport.take())
    assert (frame.code, frame.reason) == BAD_REQUEST


def test_ten_thousand_commands_in_a_frame_are_too_many() -> None:
    alice = connected(dialect_house())
    assert alice.ends(*["{}"] * 10_000) == BAD_REQUEST
    bob = connected(dialect_house())
    assert bob.asks(*['{"id":2,"ping":{}}'] * 1024) == [error(2, *UNAVAILABLE)] * 1024
    assert bob.ends(*["{}"] * 1025) == BAD_REQUEST


def test_every_command_of_a_frame_is_charged() -> None:
    home = dialect_house(message_rate=10.0)
    alice = connected(home)
    assert alice.asks(*["{}"] * 9) == []
    assert alice.ends("{}", "{}") == (3013, "too many requests")
    bob = connected(home, "BOB")
    # Not one of them is taken if they are too many together.
    assert bob.ends(*['{"id":2,"ping":{}}'] * 10) == (3013, "too many requests")


# What it does not take


def test_a_client_that_does_not_read_is_not_answered_for_ever() -> None:
    home = dialect_house(options=ChannelOptions(presence=True))
    alice = connected(home)
    for index in range(50):
        connected(home, f"GUEST-{index:04}").subscribes("hall")
    alice.subscribes("hall")
    alice.transport.stall()
    ask = '{"id":7,"presence":{"channel":"hall"}}'
    alice.says(*[ask] * 1000)
    assert alice.connection.unsent_bytes < 2 * 65536 + 4096, "and not 3 MB"
    assert not alice.transport.is_reading
    # What was read already waits, and what it sends all the same; then all is answered, in order, as it reads.
    alice.says('{"id":8,"ping":{}}')
    assert alice.connection.unsent_bytes < 2 * 65536 + 4096
    answers: list[str] = []
    rounds = 0
    while not alice.transport.is_reading:
        rounds += 1
        alice.transport.drain(50_000)
        alice.transport.room = 0
        assert alice.connection.unsent_bytes < 2 * 65536 + 4096
        assert rounds < 1000
    alice.transport.drain()
    answers = alice.hears()
    assert len(answers) == 1001
    assert answers[-1] == error(8, *UNAVAILABLE)
    assert all(line.startswith('{"id":7,"presence":{') for line in answers[:-1])
    assert not alice.connection.reader.is_held


def test_a_client_that_does_not_read_may_go_in_the_middle_of_its_questions() -> None:
    home = dialect_house(options=ChannelOptions(presence=True))
    alice = connected(home, "M" * 500)
    alice.subscribes("hall")
    alice.transport.stall()
    alice.says(*['{"id":7,"presence":{"channel":"hall"}}'] * 1000)
    assert alice.connection.reader.is_held
    home.tick(10.5)
    home.tick(10.5)
    assert alice.transport.is_aborted
    alice.goes()
    quiet(home)
    assert home.counters.closed["3008"] == 1


def test_what_is_asked_by_a_client_that_lags_on_a_channel_is_taken_at_once() -> None:
    home = dialect_house(limits=LagLimits(LagPolicy.DROP_OLDEST))
    alice = connected(home)
    alice.subscribes("news")
    alice.transport.stall()
    home.node.publish("news", Publication(b"1"), lambda done: None)
    home.loop.settle()
    home.node.publish("news", Publication(b"2"), lambda done: None)
    home.loop.settle()
    assert alice.session.outbox.messages == 1
    alice.says('{"id":3,"unsubscribe":{"channel":"news"}}')
    assert alice.session.outbox.messages == 0, "what waited for it is not for it any more"
    alice.transport.drain()
    assert alice.hears() == [published("news", "1"), '{"id":3,"unsubscribe":{}}']
    home.assert_balanced()


# Heartbeat


def test_pings_are_the_dialects_own_and_want_a_pong() -> None:
    home = dialect_house(ping_interval=0.1, pong_timeout=10.0)
    alice = Speaker(home)
    home.tick(0.1)
    assert alice.hears() == [], "a client that is not connected would not understand"
    assert alice.asks(CONNECT) == [CONNECTED]
    home.tick(0.1)
    assert alice.hears() == ["{}"]
    home.tick(5.0)
    assert alice.hears() == [], "one at a time"
    alice.says("{}")
    assert alice.connection.rtt == 5.0
    home.tick(0.1)
    assert alice.hears() == ["{}"]
    home.tick(9.9)
    assert alice.close is None
    home.tick(0.2)
    assert alice.hears() == []
    assert alice.close == (3012, "no pong")


def test_a_pong_of_websocket_is_no_answer() -> None:
    home = dialect_house(ping_interval=0.1, pong_timeout=10.0)
    alice = connected(home)
    home.tick(0.1)
    assert alice.hears() == ["{}"]
    alice.feed(wire.frame(wire.PONG))
    home.tick(10.1)
    assert alice.hears() == []
    assert alice.close == (3012, "no pong")


def test_a_ping_of_websocket_is_answered() -> None:
    alice = Speaker(dialect_house())
    alice.feed(wire.frame(wire.PING, b"there?"))
    assert wire.read(alice.transport.take()) == [(wire.PONG, b"there?")]


# Goodbyes


@pytest.mark.parametrize(
    ("cause", "code", "reason"),
    [
        (Close.GOING_AWAY, 3001, "shutdown"),
        (Close.BAD_DATA, 3501, "bad request"),
        (Close.POLICY, 3501, "bad request"),
        (Close.TOO_BIG, 1009, "why"),
        (Close.INTERNAL, 3004, "internal server error"),
        (Close.RESTART, 1012, "why"),
        (Close.TOO_SLOW, 3008, "slow"),
        (Close.NO_PONG, 3012, "no pong"),
        (Close.EXPIRED, 3005, "connection expired"),
        (Close.TOO_MANY, 3013, "too many requests"),
        (Close.STALE, 3502, "stale"),
        (4242, 4242, "why"),
    ],
)
def test_every_cause_has_its_words(cause: int, code: int, reason: str) -> None:
    home = dialect_house()
    alice = connected(home)
    alice.subscribes("news")
    alice.connection.close(cause, "why")
    assert alice.hears() == []
    assert alice.close == (code, reason)
    alice.goes()
    quiet(home)
    departure = next(iter(home.listener.recorder))
    assert (departure.code, departure.channel, departure.dialect) == (code, "news", "centrifuge")


def test_every_cause_of_the_edge_is_said_above() -> None:
    (mark,) = test_every_cause_has_its_words.pytestmark
    assert {row[0] for row in mark.args[1]} >= set(Close)


def test_shutdown_lets_out_what_is_queued_and_then_says_so() -> None:
    home = dialect_house()
    alice = connected(home)
    alice.subscribes("news")
    alice.transport.stall()
    for said in (b"1", b"2"):
        home.node.publish("news", Publication(said), lambda done: None)
        home.loop.settle()
    alice.connection.finish(Close.GOING_AWAY, "server shutting down")
    alice.says('{"id":9,"ping":{}}')
    alice.transport.drain()
    assert alice.hears() == [published("news", "1"), published("news", "2")]
    assert alice.close == (3001, "shutdown")
    assert home.hub.subscriptions == 0
    home.assert_balanced()


@pytest.mark.parametrize(
    ("data", "code"),
    [
        (wire.frame(wire.TEXT, b"x" * 65537), 1009),
        (wire.frame(wire.TEXT, b"", fin=False) + wire.frame(wire.CONT, b"", fin=False) * 4096, 1009),
        (wire.frame(wire.TEXT, b"{}", mask=None), 1002),
        (wire.frame(0x3, b"{}"), 1002),
        (wire.frame(wire.TEXT, b"{}", rsv=4), 1002),
        (wire.frame(wire.CONT, b"{}"), 1002),
        (wire.frame(wire.TEXT, b'{"id":1,"connect":{"name":"\xff"}}'), 3501),
        (wire.close(1000), 1000),
        (wire.close(3999), 3999),
    ],
)
def test_what_the_library_finds_by_itself(data: bytes, code: int) -> None:
    for alice in (Speaker(dialect_house()), connected(dialect_house())):
        alice.feed(data)
        assert alice.hears() == []
        assert alice.close is not None
        assert alice.close[0] == code
        assert alice.session.is_over


def test_a_slow_client_is_told_so() -> None:
    home = dialect_house(limits=LagLimits(messages=2))
    alice = connected(home)
    alice.subscribes("news")
    alice.transport.stall()
    for _ in range(4):
        home.node.publish("news", Publication(b"1"), lambda done: None)
        home.loop.settle()
    alice.transport.drain()
    assert alice.hears() == [published("news", "1")]
    assert alice.close == (3008, "slow")
    home.assert_balanced()


def test_the_end_comes_once_whatever_ends_it() -> None:
    home = dialect_house()
    alice = connected(home)
    alice.subscribes("news")
    alice.session.end(codes.DISCONNECT_FORCE_RECONNECT)
    alice.session.end(codes.DISCONNECT_FORCE_NO_RECONNECT)
    alice.session.leave()
    alice.session.finish()
    alice.session.pause()
    alice.session.resume()
    assert alice.asks('{"id":9,"ping":{}}') == []
    assert alice.close == (3011, "force reconnect")
    assert alice.session.enter("news") == codes.ERROR_NOT_AVAILABLE
    assert not alice.session.throw_out("news", codes.UNSUBSCRIBE_BY_SERVER)
    assert not alice.session.throw_out("", codes.UNSUBSCRIBE_BY_SERVER)
    alice.session.prolong(None)
    alice.session.lose_position("news")
    alice.goes()
    quiet(home)


# Protobuf, the main paths


def test_the_same_in_protobuf() -> None:
    home = dialect_house()
    paul, bob = Binary(home), connected(home, "BOB")
    connect, subscribe = number(1, 1) + part(4, b""), number(1, 2) + part(5, part(1, b"c"))
    result = part(1, b"P") + part(2, b"Stentor test") + number(7, 25) + number(8, 1)
    result += part(9, b"P") + part(10, b"node") + number(11, 1_700_000_000_000)
    assert paul.asks(connect, subscribe) == [messages(number(1, 1) + part(5, result), number(1, 2) + part(6, b""))]
    bob.subscribes("c")
    reply, push = paul.asks(number(1, 3) + part(7, part(1, b"c") + part(2, b"\x00\xff")))
    assert reply == messages(number(1, 3) + part(8, b""))
    publication = part(4, b"\x00\xff") + part(5, part(2, b"P"))
    assert push == messages(part(4, part(2, b"c") + part(4, publication)))
    tagged = (
        '{"push":{"channel":"c","pub":{"data":"AP8=","info":{"user":"","client":"P"},"tags":{"encoding":"base64"}}}}'
    )
    assert bob.hears() == [tagged]
    # A pong has no bytes; RPC is not to be had.
    refused = part(2, number(1, 104) + part(2, b"method not found"))
    assert paul.asks(b"", number(1, 4) + part(13, b"")) == [messages(number(1, 4) + refused)]
    assert bob.asks('{"id":4,"publish":{"channel":"c","data":{"a": 1.10}}}')[0] == '{"id":4,"publish":{}}'
    (push,) = wire.read(paul.transport.take())
    publication = part(4, b'{"a": 1.10}') + part(5, part(2, b"BOB"))
    assert push.payload == messages(part(4, part(2, b"c") + part(4, publication)))


@pytest.mark.parametrize(
    "payload",
    [
        b"",
        b"\x05\x08",
        b"\xff\xff\xff\xff\xff\xff",
        messages(part(4, b"")),
        messages(number(1, 5) + b"\x0f"),
        messages(number(1, 5) + part(5, part(1, b"\xff"))),
        messages(*[b""] * 1025),
    ],
    ids=["empty", "cut", "a length without end", "no id", "a wrong type", "no UTF-8", "1,025 commands"],
)
def test_what_is_no_protobuf_command_ends_the_connection(payload: bytes) -> None:
    for is_connected in (False, True):
        paul = Binary(dialect_house())
        if is_connected:
            paul.asks(number(1, 1) + part(4, b""))
        paul.connection.data_received(wire.frame(wire.BINARY, payload))
        (frame,) = wire.read(paul.transport.take())
        assert (frame.code, frame.reason) == BAD_REQUEST


def test_a_text_frame_ends_the_session_of_a_protobuf_client() -> None:
    paul = Binary(dialect_house())
    paul.connection.data_received(wire.text(CONNECT))
    (frame,) = wire.read(paul.transport.take())
    assert (frame.code, frame.reason) == BAD_REQUEST
