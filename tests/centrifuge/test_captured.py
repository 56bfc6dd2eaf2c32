"""What the SDKs send is what we read, in both encodings."""

import typing

import pytest

from server.dialects.centrifuge import commands, json_codec, protobuf_codec
from tests.centrifuge.captured import FRAMES, Frame

ALL = pytest.mark.parametrize("frame", FRAMES, ids=[frame.name for frame in FRAMES])


@ALL
def test_json_frame_is_understood(frame: Frame) -> None:
    assert json_codec.decode(frame.json, 100) == frame.commands


@ALL
def test_protobuf_frame_is_understood(frame: Frame) -> None:
    assert protobuf_codec.decode(frame.protobuf, 100) == frame.commands


def test_every_command_is_captured_but_the_one_no_sdk_sends() -> None:
    seen = {type(command.body) for frame in FRAMES for command in frame.commands}
    assert set(typing.get_args(commands.Body)) - seen == {commands.Ping, commands.Rejected}


def test_all_frames_of_a_session_in_one() -> None:
    one_command = [frame for frame in FRAMES if len(frame.commands) == 1]
    meant = [command for frame in one_command for command in frame.commands]
    assert len(meant) > 20
    assert json_codec.decode(b"\n".join(frame.json for frame in one_command), len(meant)) == meant
    assert protobuf_codec.decode(b"".join(frame.protobuf for frame in one_command), len(meant)) == meant
