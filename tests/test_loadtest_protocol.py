from __future__ import annotations

import base64
import hashlib
import re

import pytest

from loadtest.dialect import RawDialect
from loadtest.protocol import (
    Handshake,
    ProtocolFault,
    close_code,
    close_frame,
    header,
    pong,
    read_frame,
)

DIALECT = RawDialect("ws://127.0.0.1:8000/ws/{channel}?token=t")


def unmasked(frame: bytes) -> bytes:
    """The payload of a short masked frame."""
    key = frame[2:6]
    return bytes(byte ^ key[index % 4] for index, byte in enumerate(frame[6:]))


def accepted(request: bytes) -> bytes:
    """What a server answers, by RFC 6455, 4.2.2."""
    found = re.search(rb"Sec-WebSocket-Key: (\S+)\r\n", request)
    assert found
    digest = hashlib.sha1(found[1] + b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11").digest()
    return (
        b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        b"Sec-WebSocket-Accept: " + base64.b64encode(digest) + b"\r\n\r\n"
    )


@pytest.mark.parametrize(
    ("data", "fin", "opcode", "payload"),
    [
        (b"\x81\x05Hello", True, 1, b"Hello"),  # RFC 6455, 5.7
        (b"\x01\x03Hel", False, 1, b"Hel"),
        (b"\x80\x02lo", True, 0, b"lo"),
        (b"\x89\x05Hello", True, 9, b"Hello"),
        (b"\x82\x7e\x01\x00" + b"\0" * 256, True, 2, b"\0" * 256),
        (b"\x82\x7f\x00\x00\x00\x00\x00\x01\x00\x00" + b"\0" * 65536, True, 2, b"\0" * 65536),
        (b"\x88\x00", True, 8, b""),
    ],
)
def test_a_frame_is_read_when_it_is_whole(data: bytes, fin: bool, opcode: int, payload: bytes) -> None:
    assert read_frame(data) == (fin, opcode, payload, len(data))
    assert read_frame(b"???" + data + b"more", 3) == (fin, opcode, payload, len(data))
    for length in {0, 1, 2, 3, 5, 9, len(data) - 1}:
        if length < len(data):
            assert read_frame(data[:length]) is None


@pytest.mark.parametrize(
    ("data", "why"),
    [
        (b"\xc1\x00", "reserved bits"),
        (b"\x81\x85abcdHello", "masked"),
        (b"\x83\x00", "unknown type 0x3"),
        (b"\x81\x7f\x00\x00\x00\x01\x00\x00\x00\x00", "4294967296 bytes"),
        (b"\x81\x7f\xff\xff\xff\xff\xff\xff\xff\xff", "18446744073709551615 bytes"),
    ],
)
def test_what_no_server_may_send_is_a_fault(data: bytes, why: str) -> None:
    with pytest.raises(ProtocolFault, match=why):
        read_frame(data)


@pytest.mark.parametrize("length", [0, 5, 125, 126, 65535, 65536])
def test_a_header_announces_its_payload(length: int) -> None:
    found = read_frame(header(1, length) + b"x" * length)
    assert found == (True, 1, b"x" * length, len(header(1, length)) + length)


def test_what_a_client_sends_is_masked() -> None:
    assert pong(b"abc")[:2] == b"\x8a\x83"
    assert unmasked(pong(b"abc")) == b"abc"
    assert close_frame(1000)[:2] == b"\x88\x82"
    assert unmasked(close_frame(1000)) == b"\x03\xe8"
    assert close_frame(1005)[:2] == b"\x88\x80"
    assert DIALECT.publication("a", b"abc", 1)[:2] == b"\x81\x83"
    assert unmasked(DIALECT.publication("a", b"abc", 1)) == b"abc"


def test_the_code_of_a_close_frame() -> None:
    assert close_code(b"\x03\xf5too slow") == 1013
    assert close_code(b"") == 1005


@pytest.mark.parametrize("step", [1, 7, 1000])
def test_a_handshake_succeeds_and_gives_back_what_follows_it(step: int) -> None:
    handshake = Handshake(DIALECT.target(["a b/ü"]), [("Authorization", "Bearer x")])
    assert handshake.request.startswith(b"GET /ws/a%20b%2F%C3%BC?token=t HTTP/1.1\r\nHost: 127.0.0.1:8000\r\n")
    assert b"\r\nAuthorization: Bearer x\r\n" in handshake.request
    answer = accepted(handshake.request) + b"\x81\x05Hello"
    rest = b""
    for start in range(0, len(answer), step):
        rest = handshake.receive(answer[start : start + step]) or b""
        if rest:
            break
    assert rest == b"\x81\x05Hello"[: len(rest)]


@pytest.mark.parametrize(
    ("answer", "why"),
    [
        (b"HTTP/1.1 503 Service Unavailable\r\nRetry-After: 1\r\nContent-Length: 4\r\n\r\nfull", "HTTP 503"),
        (b"HTTP/1.1 503 Service Unavailable\r\nContent-Length: 4000\r\n\r\nhalf", "HTTP 503"),
        (b"HTTP/1.1 200 OK\r\n\r\n<html>", "HTTP 200"),
        (b"HTTP/1.1 401 Unauthorized\r\n\r\n", "HTTP 401"),
        (b"HTTP/1.1 101 Switching Protocols\r\n\r\n", "not a WebSocket server: missing Connection header"),
        (b"SSH-2.0-OpenSSH_9.2\r\n", "not an HTTP server: it says b'SSH-2.0-OpenSSH_9.2"),
        (b"\x15\x03\x01\x00\x02\x02\x16", "not an HTTP server"),
        (b"HTTP/1.1 garbage\r\n\r\n", "not a WebSocket server"),
    ],
)
def test_a_refused_handshake_says_why_in_one_line(answer: bytes, why: str) -> None:
    with pytest.raises(ProtocolFault) as caught:
        Handshake(DIALECT.target(["a"])).receive(answer)
    assert str(caught.value).startswith(why)
    assert "\n" not in str(caught.value)


def test_a_forged_accept_is_refused() -> None:
    handshake = Handshake(DIALECT.target(["a"]))
    with pytest.raises(ProtocolFault, match="Sec-WebSocket-Accept"):
        handshake.receive(accepted(b"Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n"))
