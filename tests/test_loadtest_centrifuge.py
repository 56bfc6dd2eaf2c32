"""The Centrifuge dialect against what the server's own codec says. Whole runs are in test_loadtest_centrifuge_runs."""

from __future__ import annotations

import json

import pytest

from loadtest.centrifuge import CentrifugeDialect
from loadtest.dialect import Payload, Ping, Reply, Unsubscribed
from loadtest.payload import Stream
from loadtest.protocol import ProtocolFault
from server.core.publication import ClientInfo, Publication
from server.dialects.centrifuge import codes, commands, json_codec, replies
from tests.test_loadtest_protocol import unmasked

DIALECT = CentrifugeDialect("ws://127.0.0.1:1/connection/websocket", token="secret")
STREAM = Stream("ab12", 0, 0, 128)


def command(frame: bytes) -> commands.Command:
    (only,) = json_codec.decode(unmasked(frame), 10)
    return only


def test_the_opening_connects_and_subscribes_in_one_frame() -> None:
    opening = DIALECT.opening(["a", 'b"ü'])
    assert opening.awaited == {1: "connect", 2: "subscribe", 3: "subscribe"}
    first, *others = json_codec.decode(_long(opening.frame), 10)
    assert isinstance(first.body, commands.Connect)
    assert (first.id, first.body.token) == (1, "secret")
    bodies = [other.body for other in others]
    assert [body.channel for body in bodies if isinstance(body, commands.Subscribe)] == ["a", 'b"ü']
    assert [other.id for other in others] == [2, 3]
    assert DIALECT.opening([]).awaited == {1: "connect"}, "who only publishes"


def _long(frame: bytes) -> bytes:
    """The payload of a masked frame of 126 bytes or more."""
    assert frame[1] == 0x80 | 126
    key = frame[4:8]
    return bytes(byte ^ key[index % 4] for index, byte in enumerate(frame[8:]))


def test_publish_commands_are_of_one_length_and_their_replies_find_back() -> None:
    lengths = set()
    for number in (1, 10, 4_000_000, 2_000_000_000):
        payload = STREAM.payload(number, 10**18)
        frame = DIALECT.publication("a", payload, number)
        lengths.add(len(frame))
        (sent,) = json_codec.decode(_long(frame), 10)
        assert sent.body == commands.Publish("a", payload)
        assert DIALECT.number_of(sent.id) == number
    assert len(lengths) == 1
    assert DIALECT.number_of(3) <= 0


@pytest.mark.parametrize(
    "publication",
    [
        Publication(STREAM.payload(1, 2), is_json=True),
        Publication(STREAM.payload(1, 2), is_json=True, offset=12, info=ClientInfo("u", "c", b'{"a":{"b":1}}')),
        Publication(STREAM.payload(1, 2), offset=2**63, tags={"}": '{"'}, published_at=1),
    ],
)
def test_a_push_is_read_whatever_the_server_adds(publication: Publication) -> None:
    push = json_codec.encode_publication('a"b', publication)
    assert list(DIALECT.read(json_codec.join([push, push]))) == [Payload(STREAM.payload(1, 2), 'a"b')] * 2


def test_replies_and_what_the_server_says_of_its_own_accord() -> None:
    assert list(DIALECT.read(json_codec.encode_reply(7, replies.PublishResult()))) == [Reply(7, None)]
    assert list(DIALECT.read(json_codec.encode_error(7, codes.ERROR_TOO_MANY_REQUESTS))) == [
        Reply(7, "error 111 too many requests")
    ]
    pushed = json_codec.encode_push("a", codes.UNSUBSCRIBE_INSUFFICIENT_STATE)
    assert list(DIALECT.read(pushed)) == [Unsubscribed("a", 2500)]
    (ping,) = DIALECT.read(json_codec.ping())
    assert isinstance(ping, Ping)
    assert command(ping.answer).body == commands.Pong()
    for other in (replies.Join(ClientInfo("u", "c")), replies.Message(b"1"), codes.DISCONNECT_SLOW):
        assert list(DIALECT.read(json_codec.encode_push("a", other))) == []


@pytest.mark.parametrize("message", [b"x", b"[]", b'"push"', b"1", b'{"push":1}', b'{"x":1}', b'{"push":{"pub":{}}}'])
def test_what_is_no_message_of_the_protocol_is_a_fault(message: bytes) -> None:
    with pytest.raises(ProtocolFault, match=r"^not of the Centrifuge protocol: b"):
        list(DIALECT.read(message))


def test_data_that_is_no_payload_is_handed_on_as_it_is() -> None:
    assert list(DIALECT.read(b'{"push":{"channel":"a","pub":{"data":{"a": 1}}}}')) == [Payload(b'{"a":1}', "a")]


def test_a_client_has_one_connection_and_its_channels_are_in_one_order() -> None:
    assert DIALECT.split([19, 0, 1]) == [(0, 1, 19)]
    target = DIALECT.target([json.dumps("whatever")])
    assert target.resource_name == "/connection/websocket"
