"""A small broadcast server, made of `websockets` alone, for tests of the commands that speak and listen.

It keeps what it has read, and can be told to misbehave: refuse, close, cut, or stop reading.
"""

from __future__ import annotations

import asyncio
import contextlib
import http
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field

from websockets.asyncio.server import ServerConnection, broadcast, serve
from websockets.exceptions import ConnectionClosed
from websockets.frames import Frame, Opcode
from websockets.http11 import Request, Response
from websockets.protocol import Event

Treatment = Callable[["Guest"], Awaitable[None]]


@dataclass
class Visit:
    """One connection: what it asked for, what it said, as text or not, and how it closed (None: it did not)."""

    path: str
    authorization: str | None
    said: list[tuple[str, bytes]] = field(default_factory=list)
    closed: int | None = None

    @property
    def lines(self) -> list[bytes]:
        return [payload for _, payload in self.said]


class Guest(ServerConnection):
    """A connection whose messages count the moment they are read, as in a server that handles frames as they come."""

    visit: Visit | None = None
    cut_at: int | None = None
    refuse_with: int | None = None

    def process_event(self, event: Event) -> None:
        if self.refuse_with and isinstance(event, Frame) and event.opcode is Opcode.TEXT:
            self.protocol.send_close(self.refuse_with)
            self.refuse_with = None
            self.send_data()
        if self.visit and isinstance(event, Frame) and event.opcode in (Opcode.TEXT, Opcode.BINARY):
            assert event.fin, "the commands send whole messages"
            self.visit.said.append((event.opcode.name.lower(), bytes(event.data)))
        super().process_event(event)

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        # Between two reads: a pong that has gone out stands for messages that were kept.
        if self.visit and self.cut_at is not None and len(self.visit.said) >= self.cut_at:
            self.transport.abort()


class Board:
    """Broadcasts on each path what comes in there, to the sender too."""

    def __init__(self, sock: socket.socket | None = None) -> None:
        self.sock = sock or reserved_port()
        self.url = f"ws://127.0.0.1:{self.sock.getsockname()[1]}"
        self.visits: list[Visit] = []
        self.present: list[Guest] = []
        # How the next visits are treated: with a status, or with a function that gets the connection and may end it.
        self.statuses: list[int] = []
        self.treatments: list[Treatment] = []

    @property
    def lines(self) -> list[bytes]:
        """All that was said, in order of arrival."""
        return [line for visit in self.visits for line in visit.lines]

    def say(self, payload: str | bytes) -> None:
        broadcast(self.present, payload)

    async def open(self, stack: contextlib.AsyncExitStack) -> None:
        await stack.enter_async_context(
            serve(
                self._visit,
                sock=self.sock,
                process_request=self._gate,
                create_connection=Guest,
                compression=None,
                ping_interval=None,
                close_timeout=1,
                max_size=None,
            )
        )

    def _gate(self, connection: ServerConnection, request: Request) -> Response | None:
        if not self.statuses:
            return None
        response = connection.respond(http.HTTPStatus(self.statuses.pop(0)), "")
        response.headers["Retry-After"] = "0"
        return response

    async def _visit(self, connection: ServerConnection) -> None:
        assert isinstance(connection, Guest)
        assert connection.request is not None
        path = connection.request.path
        connection.visit = Visit(path, connection.request.headers.get("Authorization"))
        self.visits.append(connection.visit)
        self.present.append(connection)
        try:
            if self.treatments:
                await self.treatments.pop(0)(connection)
            async for message in connection:
                broadcast([one for one in self.present if one.visit and one.visit.path == path], message)
        except ConnectionClosed:
            pass
        finally:
            self.present.remove(connection)
            close = connection.protocol.close_rcvd
            connection.visit.closed = close.code if close else None


def reserved_port() -> socket.socket:
    """A socket that is bound but does not listen: whoever connects is refused."""
    sock = socket.socket()
    sock.bind(("127.0.0.1", 0))
    return sock


@contextlib.asynccontextmanager
async def board() -> AsyncIterator[Board]:
    """Run a board."""
    async with contextlib.AsyncExitStack() as stack:
        made = Board()
        await made.open(stack)
        yield made


def cut_after(count: int) -> Treatment:
    """Break the connection off once `count` messages were read."""

    async def cut(connection: Guest) -> None:
        connection.cut_at = count
        if not count:
            connection.transport.abort()

    return cut


def close_with(code: int, reason: str = "", after: int = 0) -> Treatment:
    async def close(connection: Guest) -> None:
        for _ in range(after):
            await connection.recv()
        await connection.close(code, reason)

    return close


async def refuse_the_first(connection: Guest) -> None:
    """Close with 1008 on the first message, after the pong for a ping that came along with it."""
    connection.refuse_with = 1008


async def stop_reading(connection: Guest) -> None:
    connection.transport.pause_reading()
    await connection.wait_closed()


async def until(condition: Callable[[], object], what: str, seconds: float = 20.0) -> None:
    """Wait for a condition."""
    try:
        async with asyncio.timeout(seconds):
            while not condition():  # noqa: ASYNC110  conditions of other processes set no event
                await asyncio.sleep(0.005)
    except TimeoutError:
        raise AssertionError(f"waited in vain: {what}") from None
