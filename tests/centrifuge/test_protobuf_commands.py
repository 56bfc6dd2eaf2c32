"""Protobuf frames to commands: what is refused, and how. What is understood is in test_captured."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from server.dialects.centrifuge import codes, commands
from server.dialects.centrifuge.codes import BadCommands
from server.dialects.centrifuge.commands import Command
from server.dialects.centrifuge.protobuf_codec import decode
from tests.centrifuge.laws import LAW

PING = b"\x04\x08\x01Z\x00"  # id 1, an empty ping


def refused(frame: bytes, max_commands: int = 100) -> codes.Disconnect:
    with pytest.raises(BadCommands) as caught:
        decode(frame, max_commands)
    return caught.value.disconnect


def framed(command: bytes) -> bytes:
    assert len(command) < 128
    return bytes((len(command),)) + command


def test_several_commands_in_a_frame() -> None:
    assert decode(PING + b"\x00" + PING, 3) == [
        Command(1, commands.Ping()),
        Command(0, commands.Pong()),
        Command(1, commands.Ping()),
    ]


def test_number_of_commands_is_limited() -> None:
    assert len(decode(PING * 100, 100)) == 100
    assert refused(PING * 101) == codes.DISCONNECT_BAD_REQUEST
    assert refused(b"\x00" * 65_536) == codes.DISCONNECT_BAD_REQUEST


@pytest.mark.parametrize(
    "frame",
    [
        b"",
        b"\x05\x08\x01Z\x00",  # shorter than it says
        b"\x80",  # a length without its end
        b"\x80\x80\x80\x80\x80\x01",  # a length of six bytes
        b"\xff\xff\xff\xff\xff",
        b"\xff\xff\xff\xff\x0f" + b"x" * 100,  # 4 GiB
        PING + b"\x03\x08\x01",
        framed(b"\x08"),  # a field without a value
        framed(b"\x08\x01Z\x05"),
        framed(b"\x0b\x0b\x0b"),  # groups that do not end
        framed(b"\x08\x01:\x03\n\x01\xff"),  # a channel that is not UTF-8
        framed(b"\x08\x01:\x05\n\x03\xed\xa0\x80"),  # a lone surrogate
        framed(b"\x00\x00"),  # field number 0
        framed(b":\x03\n\x01c"),  # publish without an id
        framed(b"b\x00Z\x00"),  # send and ping without an id
        framed(b"b\x00j\x00"),  # send and rpc
        b'{"id":1,"ping":{}}',
    ],
    ids=repr,
)
def test_no_command_ends_the_connection(frame: bytes) -> None:
    assert refused(frame) == codes.DISCONNECT_BAD_REQUEST


def test_unknown_command_gets_its_error_reply() -> None:
    unknown = commands.Rejected(codes.ERROR_METHOD_NOT_FOUND)
    assert decode(framed(b"\x08\x07"), 1) == [Command(7, unknown)]
    assert decode(framed(b"\x08\x07\x82\x01\x00"), 1) == [Command(7, unknown)]  # field 16


def test_two_methods_in_one_command_get_an_error_reply() -> None:
    rejected = commands.Rejected(codes.ERROR_BAD_REQUEST)
    assert decode(framed(b"\x08\x07:\x03\n\x01cZ\x00"), 1) == [Command(7, rejected)]


def test_unknown_fields_are_passed_over() -> None:
    assert decode(framed(b"\x08\x07:\x07\n\x01c\xa2\x06\x01x"), 1) == [Command(7, commands.Publish("c"))]


def test_empty_data_is_no_data() -> None:
    assert decode(framed(b"\x08\x07:\x05\n\x01c\x12\x00"), 1) == [Command(7, commands.Publish("c", None))]


def test_too_many_server_side_subscriptions_or_headers() -> None:
    def connect(field: bytes, count: int) -> bytes:
        entries = b"".join(field + b"\x06\n\x02" + index.to_bytes(1, "big") + b"\x7f\x12\x00" for index in range(count))
        body = b'"' + bytes((len(entries) & 0x7F | 0x80, len(entries) >> 7)) + entries
        command = b"\x08\x01" + body
        return bytes((len(command) & 0x7F | 0x80, len(command) >> 7)) + command

    (full,) = decode(connect(b"2", commands.MAX_HEADERS), 1)
    assert isinstance(full.body, commands.Connect)
    assert len(full.body.headers) == commands.MAX_HEADERS
    assert decode(connect(b"2", commands.MAX_HEADERS + 1), 1) == [
        Command(1, commands.Rejected(codes.ERROR_BAD_REQUEST))
    ]
    (some,) = decode(connect(b"\x1a", 64), 1, 64)
    assert isinstance(some.body, commands.Connect)
    assert len(some.body.subs) == 64
    assert decode(connect(b"\x1a", 65), 1, 64) == [Command(1, commands.Rejected(codes.ERROR_BAD_REQUEST))]


@LAW
@given(st.binary(max_size=200))
def test_garbage_raises_nothing_else(frame: bytes) -> None:
    try:
        assert decode(frame, 10)
    except BadCommands:
        pass


@LAW
@given(st.binary(max_size=100))
def test_garbage_behind_a_right_length_raises_nothing_else(command: bytes) -> None:
    try:
        assert len(decode(framed(command), 10)) == 1
    except BadCommands:
        pass
