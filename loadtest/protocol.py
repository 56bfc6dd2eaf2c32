"""The WebSocket protocol as a load generator needs it: the opening handshake and frames.

The handshake is that of ``websockets``' sans-I/O client. Afterwards a connection's bytes are parsed here, because a
receiver of a million frames a second cannot afford an object for each: RFC 6455, section 5, read in place.

Laws: pure and synchronous; bytes in, bytes and values out. The peer's mistakes raise ``ProtocolFault`` with one line
for a reader. It does not know sockets, dialects, the ledger or the time.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import NamedTuple

from websockets.client import ClientProtocol
from websockets.exceptions import InvalidHandshake, InvalidStatus
from websockets.frames import Close, Frame, Opcode
from websockets.http11 import Response
from websockets.uri import WebSocketURI

CONTINUATION, TEXT, BINARY, CLOSE, PING, PONG = 0x0, 0x1, 0x2, 0x8, 0x9, 0xA
NO_STATUS, ABNORMAL = 1005, 1006

#: One frame may not be longer than this; it bounds what a broken server can make the generator hold.
MAX_FRAME = 4 << 20
_MAX_HEAD = 64 << 10

_quiet = logging.getLogger("loadtest.protocol")
_quiet.setLevel(logging.WARNING)  # websockets asks once per connection whether to log each frame


class ProtocolFault(Exception):
    """The peer does not speak what it should; the message is one line."""


class IncomingFrame(NamedTuple):
    """One frame as it was received."""

    fin: bool
    opcode: int
    payload: bytes
    length: int  # on the wire, header included


def read_frame(data: bytes, offset: int = 0) -> IncomingFrame | None:
    """The frame that begins at ``offset``, or None if its end is not there yet.

    Raises:
        ProtocolFault: the bytes cannot be the beginning of a frame from a server.
    """
    if len(data) - offset < 2:
        return None
    first, second = data[offset], data[offset + 1]
    if first & 0x70:
        raise ProtocolFault(f"a frame with reserved bits set (0x{first:02x})")
    if second & 0x80:
        raise ProtocolFault("a masked frame from the server")
    length, start = second & 0x7F, offset + 2
    if length >= 126:
        width = 2 if length == 126 else 8
        if len(data) < start + width:
            return None
        length, start = int.from_bytes(data[start : start + width], "big"), start + width
    if length > MAX_FRAME:
        raise ProtocolFault(f"a frame of {length} bytes")
    end = start + length
    if len(data) < end:
        return None
    opcode = first & 0x0F
    if opcode not in (CONTINUATION, TEXT, BINARY, CLOSE, PING, PONG):
        raise ProtocolFault(f"a frame of unknown type 0x{opcode:x}")
    return IncomingFrame(bool(first & 0x80), opcode, data[start:end], end - offset)


def header(opcode: int, length: int) -> bytes:
    """The header of a whole, unmasked message of ``length`` bytes: what a server sends."""
    if length < 126:
        return bytes((0x80 | opcode, length))
    if length < 65536:
        return bytes((0x80 | opcode, 126)) + length.to_bytes(2, "big")
    return bytes((0x80 | opcode, 127)) + length.to_bytes(8, "big")


def pong(payload: bytes) -> bytes:
    """The answer to a ping, masked."""
    return Frame(Opcode.PONG, payload).serialize(mask=True)


def close_frame(code: int, reason: str = "") -> bytes:
    """A close frame, masked; ``NO_STATUS`` gives an empty one."""
    payload = b"" if code == NO_STATUS else Close(code, reason).serialize()
    return Frame(Opcode.CLOSE, payload).serialize(mask=True)


def close_code(payload: bytes) -> int:
    """The code in a close frame's payload."""
    return int.from_bytes(payload[:2], "big") if len(payload) >= 2 else NO_STATUS


class Handshake:
    """The client's side of one opening handshake, without I/O."""

    __slots__ = ("_head", "_protocol", "request")

    def __init__(self, uri: WebSocketURI, headers: Sequence[tuple[str, str]] = ()) -> None:
        self._protocol = ClientProtocol(uri, logger=_quiet)
        self._head = b""
        request = self._protocol.connect()
        for name, value in headers:
            request.headers[name] = value
        self._protocol.send_request(request)
        self.request = b"".join(self._protocol.data_to_send())

    def receive(self, data: bytes) -> bytes | None:
        """Take what the server sent; what follows its 101, or None while that is incomplete.

        Raises:
            ProtocolFault: the server refuses, or is no WebSocket server.
        """
        self._head += data
        end = self._head.find(b"\r\n\r\n")
        if end < 0:
            self._refuse_what_is_not_http()
            return None
        end += 4
        self._protocol.receive_data(self._head[:end])
        if self._protocol.handshake_exc is None and not self._protocol.events_received():
            self._protocol.receive_eof()  # a refusal whose body is not all there: its status is enough
        if self._protocol.handshake_exc is not None:
            raise ProtocolFault(_why(self._protocol.handshake_exc, self._head)) from None
        return self._head[end:]

    def _refuse_what_is_not_http(self) -> None:
        if not self._head.startswith(b"HTTP/"[: len(self._head)]) or len(self._head) > _MAX_HEAD:
            raise ProtocolFault(f"not an HTTP server: it says {self._head[:20]!r}")


def _why(error: Exception, head: bytes) -> str:
    if isinstance(error, InvalidStatus):
        response: Response = error.response
        return f"HTTP {response.status_code}"
    status = head.split(b"\r\n", 1)[0].split(b" ")
    if len(status) > 1 and status[1].isdigit() and status[1] != b"101":
        return f"HTTP {status[1].decode()}"
    if isinstance(error, InvalidHandshake):
        return f"not a WebSocket server: {error}"
    return f"not a WebSocket server: {type(error).__name__}"
