"""The client's side of the wire, written out: what a browser would send, and what it would read. No library involved.

RFC 6455, sections 4.1 and 5.2.
"""

from __future__ import annotations

from typing import NamedTuple

CONT, TEXT, BINARY, CLOSE, PING, PONG = 0x0, 0x1, 0x2, 0x8, 0x9, 0xA

MASK = b"\x01\x02\x03\x04"
# The key and the answer of RFC 6455, section 1.3.
KEY = "dGhlIHNhbXBsZSBub25jZQ=="
ACCEPT = "s3pPLMBiTxaQ9kYGzzhZRbK+xOo="


def request(path: str = "/ws", *fields: str, method: str = "GET", host: str | None = "127.0.0.1:8000") -> bytes:
    """Write an opening handshake, with more header `fields` such as ``Origin: https://a.example``."""
    lines = [f"{method} {path} HTTP/1.1"]
    if host is not None:
        lines.append(f"Host: {host}")
    lines += ["Connection: Upgrade", "Upgrade: websocket", f"Sec-WebSocket-Key: {KEY}", "Sec-WebSocket-Version: 13"]
    return "\r\n".join([*lines, *fields, "", ""]).encode("latin-1")


def frame(opcode: int, payload: bytes = b"", *, fin: bool = True, mask: bytes | None = MASK, rsv: int = 0) -> bytes:
    """Write one frame as a client does: masked, unless `mask` is None."""
    size = len(payload)
    head = bytes([(0x80 if fin else 0) | rsv << 4 | opcode])
    masked = 0x80 if mask is not None else 0
    if size < 126:
        head += bytes([masked | size])
    elif size < 65536:
        head += bytes([masked | 126]) + size.to_bytes(2, "big")
    else:
        head += bytes([masked | 127]) + size.to_bytes(8, "big")
    if mask is None:
        return head + payload
    stretched = (mask * (size // 4 + 1))[:size]
    return head + mask + (int.from_bytes(payload, "big") ^ int.from_bytes(stretched, "big")).to_bytes(size, "big")


def text(words: str, *, fin: bool = True) -> bytes:
    return frame(TEXT, words.encode(), fin=fin)


def close(code: int | None = 1000, reason: str = "") -> bytes:
    return frame(CLOSE, b"" if code is None else code.to_bytes(2, "big") + reason.encode())


class Read(NamedTuple):
    """A frame from the server."""

    opcode: int
    payload: bytes

    @property
    def code(self) -> int:
        assert self.opcode == CLOSE
        return int.from_bytes(self.payload[:2], "big")

    @property
    def reason(self) -> str:
        assert self.opcode == CLOSE
        return self.payload[2:].decode()


def read(data: bytes | bytearray) -> list[Read]:
    """Read what a server sent: whole frames, final, unmasked, without extension bits; anything else is a failure."""
    frames, rest = split(data)
    assert not rest, f"{len(rest)} bytes of an unfinished frame"
    return frames


def split(data: bytes | bytearray) -> tuple[list[Read], bytes]:
    """Read the frames that are whole; return them and the rest."""
    data, frames, at = bytes(data), [], 0
    while True:
        if len(data) < at + 2:
            break
        first, size, start = data[at], data[at + 1], at + 2
        assert first & 0xF0 == 0x80, f"a fragment or extension bits: {first:#x}"
        assert size < 128, "masked by the server"
        extended = {126: 2, 127: 8}.get(size, 0)
        if len(data) < start + extended:
            break
        if extended:
            size = int.from_bytes(data[start : start + extended], "big")
            start += extended
        if len(data) < start + size:
            break
        frames.append(Read(first & 0x0F, data[start : start + size]))
        at = start + size
    return frames, data[at:]


def texts(data: bytes | bytearray) -> list[str]:
    """Read a server's text messages; anything else is a failure."""
    frames = read(data)
    assert all(frame.opcode == TEXT for frame in frames), frames
    return [frame.payload.decode() for frame in frames]


class Answer(NamedTuple):
    """An HTTP response."""

    status: int
    fields: dict[str, str]  # names in lower case
    body: bytes


def answer(data: bytes | bytearray) -> Answer:
    """Read a server's answer to a handshake."""
    head, found, body = bytes(data).partition(b"\r\n\r\n")
    assert found, f"no whole response: {bytes(data)!r}"
    status, *lines = head.decode("latin-1").split("\r\n")
    fields = {name.strip().lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
    version, code, _ = status.split(" ", 2)
    assert version == "HTTP/1.1"
    return Answer(int(code), fields, body)
