"""Frames of 64 KiB made to hurt: a refusal, or commands, soon; never another exception."""

from __future__ import annotations

import random
import time
from typing import Any

import pytest

from server.dialects.centrifuge import json_codec, protobuf_codec, schema
from server.dialects.centrifuge.codes import BadCommands

SIZE = 65_536
# Some forty times what the worst took when this was written: it is for what grows with the square of the size.
PATIENCE = 1.0


def filled(unit: bytes, head: bytes = b"", tail: bytes = b"") -> bytes:
    return head + unit * ((SIZE - len(head) - len(tail)) // len(unit)) + tail


PUBLISH = b'{"id": 1, "publish":{"channel":"c","data":'
ARRAY = PUBLISH + b"["
END = b"1]}}"
MANY = b",".join(b'"k%d":{}' % index for index in range(6_000))


def subs(count: int) -> bytes:
    command = schema.Command(id=1)
    for index in range(count):
        command.connect.subs[f"k{index}"].offset = 3
    return protobuf_codec.join([command.SerializeToString()])


def nested_filter() -> bytes:
    # Field 6 of a filter is a filter.
    inner = b""
    while len(inner) < SIZE - 100:
        inner = b"2" + protobuf_codec.join([inner])
    body = b"j" + protobuf_codec.join([inner])
    return protobuf_codec.join([b"\x08\x01*" + protobuf_codec.join([body])])


FRAMES = {
    "newlines": b"\n" * SIZE,
    "NULs": b"\x00" * SIZE,
    "continuation bytes": b"\x80" * SIZE,
    "0xff": b"\xff" * SIZE,
    "random": random.Random(1).randbytes(SIZE),
    "open brackets": b"[" * SIZE,
    "open objects": filled(b'{"a":'),
    "open brackets in data": filled(b"[", PUBLISH),
    "brackets, 900 deep": PUBLISH + b"[" * 900 + b"]" * 900 + b"}}",
    "brackets, just deep enough": filled(b"[" * 31 + b"]" * 31 + b",", ARRAY, END),
    "brackets, just too deep": filled(b"[" * 32 + b"]" * 32 + b",", ARRAY, END),
    "empty arrays": filled(b"[], ", ARRAY, END),
    "empty objects": filled(b"{}, ", ARRAY, END),
    "brackets in strings": filled(b'"[", ', ARRAY, END),
    "numbers": filled(b"1.5, ", ARRAY, END),
    "long numbers": filled(b"1.7976931348623157e308, ", ARRAY, END),
    "one long number": PUBLISH + b"0." + b"1" * 60_000 + b"}}",
    "one huge number": PUBLISH + b"1" * 60_000 + b"}}",
    "huge id": b'{"id":' + b"1" * 60_000 + b"}",
    "one key, often": filled(b'"id":1,', b"{", b'"id":1}'),
    "many keys": b"{" + MANY + b"}",
    "many keys in a body": b'{"id":1, "publish":{' + MANY + b"}}",
    "many keys in data": PUBLISH + b"{" + MANY + b"}}}",
    "many subscriptions": b'{"id":1, "connect":{"subs":{' + MANY + b"}}}",
    "pongs": filled(b"{}\n"),
    "spaced publishes": filled(b'{"id": 1, "publish":{"channel":"c","data":1}}\n'),
    "escapes": filled(b"\\u0000", b'{"id":1,"publish":{"channel":"', b'"}}'),
    "lone surrogates": filled(b'"\\ud800", ', ARRAY, END),
    "a long way to a mistake": filled(b'{"a":1},', ARRAY, b"}}"),
    "NaNs": filled(b"NaN, ", ARRAY, END),
    "Protobuf: pings": filled(b"\x04\x08\x01Z\x00"),
    "Protobuf: subscriptions": subs(3_000),
    "Protobuf: groups": protobuf_codec.join([b"\x0b" * (SIZE - 3)]),
    "Protobuf: deep filter": nested_filter(),
}


@pytest.mark.parametrize("codec", [json_codec, protobuf_codec], ids=["json", "protobuf"])
@pytest.mark.parametrize("frame", FRAMES.values(), ids=FRAMES)
def test_garbage_is_dealt_with_soon(codec: Any, frame: bytes) -> None:
    before = time.process_time()
    try:
        assert codec.decode(frame, 1_024)
    except BadCommands:
        pass
    assert time.process_time() - before < PATIENCE
