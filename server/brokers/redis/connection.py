"""One connection to a Redis: bytes out, bytes in. Knows no command but those that open it.

Laws: it is opened, or an error says why not, in bounded time; it ends once, whoever ends it, and that is told once.
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Callable, Sequence
from typing import Any, Final, cast

import hiredis

from server.brokers.redis.address import Address, Tls

# Bytes that the kernel has not taken yet, above which a connection is not worth waiting for.
_MOST_UNWRITTEN: Final = 64 << 20

Command = tuple[bytes | str | int, ...]
# The answer to a command: bytes, a number, None, a list of these, or hiredis.ReplyError.
Reply = Any


class Refused(Exception):
    """Redis answered, and does not want us; `str()` of it is Redis's own words."""


class Connection(asyncio.Protocol):
    """See the module. `receive` gets what comes in; while it opens, replies are kept for `opened`."""

    def __init__(self, lost: Callable[[], None]) -> None:
        loop = asyncio.get_running_loop()
        self.ended: asyncio.Future[None] = loop.create_future()
        self._opened: asyncio.Future[list[Reply]] = loop.create_future()
        self._lost = lost
        self._missing = 0
        self._replies: list[Reply] = []
        self._reader = hiredis.Reader()
        self._receive: Callable[[bytes], None] = self._receive_opening
        self._transport: asyncio.Transport

    # While it opens

    async def open(self, commands: Sequence[Command]) -> list[Reply]:
        """Send the first commands and return their answers. Raises Refused and ConnectionError."""
        if not commands:
            return []
        self._missing = len(commands)
        self._transport.write(b"".join(map(pack, commands)))
        replies = await self._opened
        for reply in replies:
            if isinstance(reply, hiredis.ReplyError):
                raise Refused(str(reply))
        return replies

    def hand_over(self, receive: Callable[[bytes], None]) -> None:
        """Give all that comes from now on to `receive`."""
        self._receive = receive

    def _receive_opening(self, data: bytes) -> None:
        try:
            self._reader.feed(data)
            while (reply := self._reader.gets()) is not False:
                self._replies.append(reply)
        except hiredis.ProtocolError:
            self.abort()
            return
        if len(self._replies) == self._missing and not self._opened.done():
            self._opened.set_result(self._replies)

    # What its owner calls

    def write(self, data: bytes) -> None:
        if self._transport.get_write_buffer_size() > _MOST_UNWRITTEN:
            self._transport.abort()
        else:
            self._transport.write(data)

    def pause_reading(self) -> None:
        self._transport.pause_reading()

    def resume_reading(self) -> None:
        self._transport.resume_reading()

    def close(self) -> None:
        """End it when what was written has gone out. Idempotent."""
        self._transport.close()

    def abort(self) -> None:
        """End it now. Idempotent."""
        self._transport.abort()

    # What the event loop calls

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)  # uvloop's are one in all but the name

    def data_received(self, data: bytes) -> None:
        self._receive(data)

    def connection_lost(self, error: Exception | None) -> None:
        if not self._opened.done():
            self._opened.set_exception(ConnectionResetError("Redis has ended the connection"))
            self._opened.exception()  # nobody may be waiting any more
        if not self.ended.done():
            self.ended.set_result(None)
        self._lost()


def pack(command: Command) -> bytes:
    """Return a command as Redis wants it (RESP)."""
    return bytes(hiredis.pack_command(command))  # type: ignore[arg-type]  # its stub knows commands of one word only


async def connect(address: Address, lost: Callable[[], None], patience: float) -> Connection:
    """Connect to a Redis within `patience` seconds. Raises OSError (TimeoutError is one)."""
    loop = asyncio.get_running_loop()
    async with asyncio.timeout(patience):
        if address.path:
            _, connection = await loop.create_unix_connection(lambda: Connection(lost), address.path)
        else:
            _, connection = await loop.create_connection(
                lambda: Connection(lost),
                address.host,
                address.port,
                ssl=_context(address.tls) if address.tls is not None else None,
            )
    return connection


def credentials(address: Address) -> list[Command]:
    """Return the commands that every connection begins with."""
    commands: list[Command] = []
    if address.password:
        commands.append(("AUTH", *((address.user,) if address.user else ()), address.password))
    if address.db:
        commands.append(("SELECT", address.db))
    return commands


def _context(tls: Tls) -> ssl.SSLContext:
    context = ssl.create_default_context(cafile=tls.ca or None)
    if tls.cert:
        context.load_cert_chain(tls.cert, tls.key or None)
    return context
