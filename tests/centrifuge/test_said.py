"""What the server says, to the byte, in both encodings."""

import typing

import pytest

from server.dialects.centrifuge import json_codec, protobuf_codec, replies
from server.dialects.centrifuge.codec import Codec
from tests.centrifuge.said import ALL, Said

EACH = pytest.mark.parametrize("said", ALL, ids=[said.name for said in ALL])


@EACH
def test_json(said: Said) -> None:
    assert said.say(json_codec) == said.json


@EACH
def test_protobuf(said: Said) -> None:
    assert said.say(protobuf_codec) == said.protobuf


@EACH
def test_no_json_message_holds_a_raw_newline(said: Said) -> None:
    assert b"\n" not in said.say(json_codec)
    assert b"\r" not in said.say(json_codec)


@pytest.mark.parametrize("codec", [json_codec, protobuf_codec], ids=["json", "protobuf"])
def test_no_kind_is_forgotten(codec: typing.Any) -> None:
    assert set(codec._RESULTS) == set(typing.get_args(replies.Result))
    assert set(codec._PUSHES) == set(typing.get_args(replies.Push))


def test_messages_are_joined_into_one_frame() -> None:
    ping_and_error = [
        json_codec.encode_reply(1, replies.PingResult()),
        json_codec.encode_push("", replies.Message(b"2")),
    ]
    assert json_codec.join(ping_and_error) == b'{"id":1,"ping":{}}\n{"push":{"message":{"data":2}}}'
    assert json_codec.join(ping_and_error[:1]) == b'{"id":1,"ping":{}}'


@pytest.mark.parametrize(
    ("size", "length"),
    [
        (1, b"\x01"),
        (127, b"\x7f"),
        (128, b"\x80\x01"),
        (300, b"\xac\x02"),
        (16_383, b"\xff\x7f"),
        (16_384, b"\x80\x80\x01"),
    ],
)
def test_protobuf_messages_come_behind_their_length(size: int, length: bytes) -> None:
    message = b"m" * size
    assert protobuf_codec.join([message, b"", b"x"]) == length + message + b"\x00" + b"\x01x"


def test_pings_are_empty_replies() -> None:
    assert json_codec.ping() == b"{}"
    assert protobuf_codec.ping() == b"\x00"


def test_both_are_codecs_of_their_frames_kind() -> None:
    codecs: list[Codec] = [json_codec, protobuf_codec]
    assert [(codec.name, codec.opcode) for codec in codecs] == [("json", 1), ("protobuf", 2)]
