"""Frames as bytes, written out: a codec of our own on both sides would hide a mistake of ours."""

from __future__ import annotations

import pytest
from websockets.frames import Frame, Opcode

from server.core.frames import BINARY, PING, PONG, TEXT, encode_frame


@pytest.mark.parametrize(
    ("opcode", "payload", "header"),
    [
        # The examples of RFC 6455, section 5.7.
        (TEXT, b"Hello", b"\x81\x05"),
        (PING, b"Hello", b"\x89\x05"),
        (PONG, b"Hello", b"\x8a\x05"),
        (BINARY, bytes(256), b"\x82\x7e\x01\x00"),
        (BINARY, bytes(65536), b"\x82\x7f\x00\x00\x00\x00\x00\x01\x00\x00"),
        # On both sides of each change of the header.
        (TEXT, b"", b"\x81\x00"),
        (PING, b"", b"\x89\x00"),
        (TEXT, b"x" * 125, b"\x81\x7d"),
        (TEXT, b"x" * 126, b"\x81\x7e\x00\x7e"),
        (TEXT, b"x" * 65535, b"\x81\x7e\xff\xff"),
    ],
    ids=lambda value: f"{len(value)} bytes" if isinstance(value, bytes) else None,
)
def test_a_frame_is_these_bytes(opcode: int, payload: bytes, header: bytes) -> None:
    assert encode_frame(opcode, payload) == header + payload


@pytest.mark.parametrize("opcode", [Opcode.TEXT, Opcode.BINARY])
@pytest.mark.parametrize("size", [0, 1, 125, 126, 127, 65535, 65536])
def test_the_library_writes_the_same(opcode: Opcode, size: int) -> None:
    payload = bytes(index % 251 for index in range(size))
    assert encode_frame(opcode, payload) == Frame(opcode, payload).serialize(mask=False)


@pytest.mark.parametrize("kind", [bytes, bytearray, memoryview, type("Subclass", (bytes,), {})])
def test_what_comes_out_is_exactly_bytes(kind: type) -> None:
    for size in (0, 5, 300, 70_000):
        encoded = encode_frame(BINARY, kind(bytes(size)))
        assert type(encoded) is bytes
        assert encoded.endswith(bytes(size))
