"""What goes out to one client: what the library has to say, replies, and what waits in the outbox.

Laws:
- the transport's write limit is 0: the moment the kernel takes less than it is given, the outlet is full, and the
  outbox takes over. So what is held for a client beside its outbox is the rest of one write, and the replies to what
  had been read of it.
- automatic answers are bounded: to a client that does not read, only the newest pong is owed (RFC 6455, section 5.5.3).
- the replies to what one read brings go out in one write, and before whatever else goes out.
- nothing is written to a transport that is closing.
- what is unsent when it is aborted is dropped, by the kernel too.

Knows bytes; which frames they are, and whether there may still be any, is for the connection to say.
"""

from __future__ import annotations

import socket
from struct import pack
from typing import TYPE_CHECKING, Final

from websockets.protocol import State

if TYPE_CHECKING:
    import asyncio

    from websockets.server import ServerProtocol

    from server.core.outbox import Outbox

# What is taken from an outbox for one write.
DRAIN_BYTES: Final = 64 * 1024

# Replies that may be held until the rest of a read has its own.
HELD_BYTES: Final = 16 * 1024

_CLOSE_FRAME: Final = 0x88  # the first byte of every close frame: FIN, opcode 8

_RESET: Final = pack("ii", 1, 0)  # struct linger: on, 0 seconds


class Outlet:
    """One connection's way out; `is_full` from the first byte that stays until the last has gone."""

    __slots__ = ("_held", "_held_bytes", "_pong", "_protocol", "_transport", "is_full")

    def __init__(self, transport: asyncio.Transport, protocol: ServerProtocol) -> None:
        self._transport = transport
        self._protocol = protocol
        self._pong: bytes | None = None
        self._held: list[bytes] | None = None  # replies, while what one read has brought is looked at
        self._held_bytes = 0
        self.is_full = False

    def open(self) -> None:
        """Want to hear at once when the transport is full; TLS says so, or the contrary, before this returns."""
        transport = self._transport
        # TLS counts a full buffer from the limit on, not from above it: at 0 an empty one would be full for ever.
        transport.set_write_buffer_limits(high=1 if transport.get_extra_info("sslcontext") else 0, low=0)

    def send(self, wire: bytes) -> None:
        """Write whole frames, now or with the others that are held."""
        held = self._held
        if held is None:
            self._transport.write(wire)
            return
        held.append(wire)
        self._held_bytes += len(wire)
        if self._held_bytes > HELD_BYTES:
            self._write_held()

    def hold(self) -> None:
        """Hold from now on what is sent."""
        self._held = []

    def let_go(self) -> bool:
        """Write what is held, and hold no more; tell if there was anything."""
        was_held = bool(self._held)
        self._write_held()
        self._held = None
        return was_held

    def answer(self, *, may_owe: bool) -> None:
        """Write what the library has to say: the handshake's answer, pongs, close frames, the end of the stream.

        When full, pongs are owed instead, if they `may` be.
        """
        writes = self._protocol.data_to_send()
        if not writes:
            return
        ends = not writes[-1]  # the library's sign for the end of the stream
        if ends:
            writes.pop()
        if self.is_full and may_owe:
            writes = self._owe(writes)
        transport = self._transport
        if transport.is_closing():
            return
        self._write_held()
        if writes:
            transport.write(writes[0] if len(writes) == 1 else b"".join(writes))
        if ends:
            if transport.can_write_eof():
                transport.write_eof()
            else:  # TLS has no half-close
                transport.close()

    def pay(self) -> None:
        """Write the pong that is owed, if one is: after a close frame none is."""
        pong, self._pong = self._pong, None
        if pong is not None and self._protocol.state is State.OPEN:
            self._transport.write(pong)

    def drain(self, outbox: Outbox) -> bool:
        """Write what waits in the outbox until it is empty (true) or the socket takes no more (false)."""
        self._write_held()
        while not outbox.is_empty and not self.is_full:
            self._transport.write(outbox.take(DRAIN_BYTES))
        return not self.is_full

    def abort(self) -> None:
        """Drop what is unsent, and the transport. Idempotent, in any state."""
        transport = self._transport
        if not transport.is_closing() or transport.get_write_buffer_size():
            _reset_on_close(transport)
        # Also when it is closing: over TLS that may wait for the peer's goodbye.
        transport.abort()

    def _write_held(self) -> None:
        held = self._held
        if held:
            self._held, self._held_bytes = [], 0
            if not self._transport.is_closing():
                self._transport.write(held[0] if len(held) == 1 else b"".join(held))

    def _owe(self, writes: list[bytes]) -> list[bytes]:
        """Keep back the newest pong for when the client reads again; only a close frame goes out now."""
        closes = [data for data in writes if data[0] == _CLOSE_FRAME]
        if not closes and writes:
            self._pong = writes[-1]
        return closes


def _reset_on_close(transport: asyncio.Transport) -> None:
    """Reset the peer when the transport closes: otherwise the kernel keeps what is unsent, for minutes."""
    sock = transport.get_extra_info("socket")
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
    except (AttributeError, OSError):
        pass  # not a TCP socket, or gone already: nothing to reset
