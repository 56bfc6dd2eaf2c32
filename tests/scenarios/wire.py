"""WebSocket frames on the client's side, written out from RFC 6455, section 5.2.

Nothing here is shared with the server or its library: a common codec would hide a common mistake. So frames can also
be wrong on purpose: any length may be declared, any reserved bit set, the mask left out.
"""

from __future__ import annotations

from struct import pack
from typing import Final

CONTINUATION: Final = 0x0
TEXT: Final = 0x1
BINARY: Final = 0x2
CLOSE: Final = 0x8
PING: Final = 0x9
PONG: Final = 0xA

KEY: Final = b"\x37\xfa\x21\x3d"  # the masking key of the RFC's examples
NO_MASKING: Final = b"\0\0\0\0"  # a legal key that leaves the payload as it is


def masked(payload: bytes, key: bytes = KEY) -> bytes:
    """XOR `payload` with the repeated `key`."""
    if not payload or key == NO_MASKING:
        return payload
    size = len(payload)
    pad = (key * (size // 4 + 1))[:size]
    return (int.from_bytes(payload, "big") ^ int.from_bytes(pad, "big")).to_bytes(size, "big")


def frame(
    opcode: int,
    payload: bytes = b"",
    *,
    fin: bool = True,
    reserved: int = 0,
    key: bytes | None = KEY,
    declared: int | None = None,
    width: int | None = None,
) -> bytes:
    """Encode a client's frame.

    `reserved` is RSV1-3 as a number from 0 to 7; `key` None leaves the frame unmasked, which a client may not;
    `declared` is a payload length that may be a lie; `width` is the bytes that the length takes: 0, 2 or 8.
    """
    length = len(payload) if declared is None else declared
    if width is None:
        width = 0 if length < 126 else 2 if length < 65536 else 8
    first = (0x80 if fin else 0) | reserved << 4 | opcode
    mask_bit = 0 if key is None else 0x80
    if width == 0:
        head = pack("!BB", first, mask_bit | length)
    elif width == 2:
        head = pack("!BBH", first, mask_bit | 126, length)
    else:
        head = pack("!BBQ", first, mask_bit | 127, length)
    return head + payload if key is None else head + key + masked(payload, key)


def close_frame(code: int = 1000) -> bytes:
    return frame(CLOSE, pack("!H", code))


class Scanner:
    """Cuts the server's stream into frames; raises AssertionError for one that a server may never send."""

    __slots__ = ("_rest",)

    def __init__(self) -> None:
        self._rest = b""

    def feed(self, data: bytes) -> list[tuple[int, bytes]]:
        """Take what was received; return the frames that are whole now, as (opcode, payload)."""
        if self._rest:
            data = self._rest + data
        at, end = 0, len(data)
        frames = []
        while end - at >= 2:
            size, start = data[at + 1], at + 2
            if size > 125:
                assert size in (126, 127), f"the server masked a frame: {data[at : at + 2].hex()}"
                start += 2 if size == 126 else 8
                if end < start:
                    break
                size = int.from_bytes(data[at + 2 : start], "big")
            if end < start + size:
                break
            assert data[at] & 0xF0 == 0x80, f"the server fragments, or sets reserved bits: {data[at : at + 2].hex()}"
            frames.append((data[at] & 0x0F, data[start : start + size]))
            at = start + size
        self._rest = data[at:]
        return frames
