"""One connection to a Redis: bytes out, bytes in. Knows no command but those that open it.

Laws: it is opened, or an error says why not, in bounded time; it ends once, whoever ends it, and that is told once.
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Callable, Sequence
from typing import Any, Final, cast

import hiredis

from server.brokers.redis.address import Address
from server.brokers.redis.tls import TlsFault, context, fault

# Bytes that the kernel has not taken yet, above which a connection is not worth waiting for.
_MOST_UNWRITTEN: Final = 64 << 20
_ENDED: Final = "Redis has ended the connection"
_ENDED_IN_THE_CLEAR: Final = f"{_ENDED} without a word; if it wants TLS, its address is rediss://"

Command = tuple[bytes | str | int, ...]
# The answer to a command: bytes, a number, None, a list of these, or hiredis.ReplyError.
Reply = Any


class Refused(Exception):
    """Redis answered, and does not want us; `str()` of it is Redis's own words."""


class Connection(asyncio.Protocol):
    """See the module. `receive` gets what comes in; while it opens, replies are kept for `opened`.

    `early` says what to think of one that ends before it has said anything, if nothing else tells why.
    """

    def __init__(self, lost: Callable[[], None], early: str = _ENDED) -> None:
        loop = asyncio.get_running_loop()
        self.ended: asyncio.Future[None] = loop.create_future()
        self._opened: asyncio.Future[list[Reply]] = loop.create_future()
        self._lost = lost
        self._early = early
        self._missing = 0
        self._replies: list[Reply] = []
        self._reader = hiredis.Reader()
        self._receive: Callable[[bytes], None] = self._receive_opening
        self._transport: asyncio.Transport

    # While it opens

    async def encrypt(self, secured: ssl.SSLContext, host: str) -> None:
        """Speak TLS from now on, with whoever can prove to be `host`. Raises TlsFault and other OSErrors."""
        # Not at once with the connection: uvloop reports what it has cancelled as an error that nobody looked at.
        plain = self._transport
        try:
            transport = await asyncio.get_running_loop().start_tls(plain, self, secured, server_hostname=host)
        except BaseException as error:
            plain.abort()
            if isinstance(error, ssl.SSLError):
                raise TlsFault(fault(error)) from None
            raise
        assert transport is not None, "one that is open has a transport"
        self._transport = transport

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
        # What is written goes out at once, and not when the turn is over.
        self._transport.set_write_buffer_limits(0)

    def data_received(self, data: bytes) -> None:
        self._receive(data)

    def connection_lost(self, error: Exception | None) -> None:
        if not self._opened.done():
            self._opened.set_exception(self._why(error))
            self._opened.exception()  # nobody may be waiting any more
        if not self.ended.done():
            self.ended.set_result(None)
        self._lost()

    def _why(self, error: Exception | None) -> Exception:
        """Say why it has ended before it was opened."""
        if isinstance(error, ssl.SSLError):
            return TlsFault(fault(error))
        for reply in self._replies:
            if isinstance(reply, hiredis.ReplyError):  # one that has no room for us says so, and nothing more
                return Refused(str(reply))
        return ConnectionResetError(_ENDED if self._replies else self._early)


def pack(command: Command) -> bytes:
    """Return a command as Redis wants it (RESP)."""
    return bytes(hiredis.pack_command(command))  # type: ignore[arg-type]  # its stub knows commands of one word only


async def connect(address: Address, lost: Callable[[], None], patience: float) -> Connection:
    """Connect to a Redis within `patience` seconds. Raises OSError (TimeoutError and TlsFault are)."""
    loop = asyncio.get_running_loop()
    secured = context(address.tls) if address.tls is not None else None
    connection: Connection | None = None
    try:
        async with asyncio.timeout(patience):
            if address.path:
                _, connection = await loop.create_unix_connection(lambda: Connection(lost), address.path)
            else:
                early = _ENDED_IN_THE_CLEAR if secured is None else _ENDED
                _, connection = await loop.create_connection(
                    lambda: Connection(lost, early), address.host, address.port
                )
            if secured is not None:
                await connection.encrypt(secured, address.host)
    except TimeoutError:
        if connection is None:
            raise
        connection.abort()
        if secured is None:
            raise
        raise TlsFault("it does not answer in TLS: it hangs, or the port is not one for TLS") from None
    return connection


def credentials(address: Address) -> list[Command]:
    """Return the commands that every connection begins with."""
    commands: list[Command] = []
    if address.user or address.password:
        commands.append(("AUTH", *((address.user,) if address.user else ()), address.password))
    if address.db:
        commands.append(("SELECT", address.db))
    return commands
