"""Clients in numbers on one event loop, each doing the least that a good client must.

A client answers pings and close frames, and keeps what it heard. It speaks through `tests.wire`, not through anything
that the server uses.
"""

from __future__ import annotations

import asyncio
import contextlib
import resource
import socket
import ssl
import time
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from struct import pack
from typing import Any, Final, TypeVar, cast
from weakref import WeakSet

from tests.harness import Server
from tests.wire import ACCEPT, BINARY, CLOSE, PING, PONG, TEXT, request, split

# Seconds after which an answer does not come any more.
PATIENCE: Final = 30.0

Value = TypeVar("Value")

_everyone: WeakSet[Client] = WeakSet()


def frame(opcode: int, payload: bytes = b"") -> bytes:
    """Write a client's frame in one go: its mask is four zero bytes, under which a payload stays as it is."""
    size = len(payload)
    if size < 126:
        return pack("!BBI", 0x80 | opcode, 0x80 | size, 0) + payload
    if size < 65536:
        return pack("!BBHI", 0x80 | opcode, 0x80 | 126, size, 0) + payload
    return pack("!BBQI", 0x80 | opcode, 0x80 | 127, size, 0) + payload


class Client(asyncio.Protocol):
    """One client. `status` is 0 until the handshake is answered; `close_code` is None until a close frame came."""

    def __init__(self, path: str, headers: Sequence[str]) -> None:
        self.status = 0
        self.head = b""
        self.heard: list[bytes] = []
        self.opcodes: list[int] = []
        self.close_code: int | None = None
        self.close_reason = ""
        self.is_lost = False
        self.answers_close = True
        self.started_at = time.monotonic()
        self.answered_at = 0.0
        self.ended_at = 0.0
        self.transport: asyncio.Transport
        self._request = request(path, *headers)
        self._buffer = bytearray()
        self._answered: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)
        self.transport.write(self._request)

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        if not self.status:
            head, end, rest = self._buffer.partition(b"\r\n\r\n")
            if not end:
                return
            self.head, self._buffer = bytes(head), rest
            self.status = int(head.split(b" ", 2)[1])
            self.answered_at = time.monotonic()
            assert self.status != 101 or ACCEPT.encode() in head
            self._answered.set_result(None)
        if self.status == 101:
            self._take_frames()

    def connection_lost(self, exc: Exception | None) -> None:
        self.is_lost = True
        self.ended_at = time.monotonic()
        if not self._answered.done():
            self._answered.set_result(None)

    def _take_frames(self) -> None:
        frames, rest = split(self._buffer)
        self._buffer = bytearray(rest)
        for opcode, payload in frames:
            self._take_frame(opcode, payload)

    def _take_frame(self, opcode: int, payload: bytes) -> None:
        assert self.close_code is None, "nothing follows a close frame"
        if opcode == PING:
            self.send(PONG, payload)
        elif opcode == CLOSE:
            self.close_code = int.from_bytes(payload[:2], "big") if payload else 1005
            self.close_reason = payload[2:].decode()
            if self.answers_close:
                self.send(CLOSE, payload[:2])
        elif opcode in (TEXT, BINARY):
            self.opcodes.append(opcode)
            self.heard.append(payload)

    async def answered(self) -> int:
        """Wait for the answer to the handshake; return its status, or 0 if the connection broke off."""
        async with asyncio.timeout(PATIENCE):
            await self._answered
        return self.status

    def send(self, opcode: int, payload: bytes = b"") -> None:
        if not self.is_lost:
            self.transport.write(frame(opcode, payload))

    def say(self, text: str) -> None:
        self.send(TEXT, text.encode())

    def stop_reading(self) -> None:
        self.transport.pause_reading()

    def vanish(self, *, reset: bool) -> None:
        """Leave without a close frame: with a reset, or with the end of the stream."""
        if reset:
            sock = self.transport.get_extra_info("socket")
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, pack("ii", 1, 0))
            self.transport.abort()
        else:
            self.transport.close()


async def connect(
    port: int,
    path: str = "/ws",
    headers: Sequence[str] = (),
    *,
    tls: ssl.SSLContext | None = None,
    receive_buffer: int = 0,
    source: str = "",
) -> Client:
    """Connect and wait for the answer, from the address `source` if given.

    `receive_buffer` in bytes makes the kernel's buffer small.
    """
    loop = asyncio.get_running_loop()
    client = Client(path, headers)
    where: dict[str, Any] = {"host": "127.0.0.1", "port": port, "local_addr": (source, 0) if source else None}
    sock = None
    if receive_buffer:
        sock = socket.socket()
        sock.setblocking(False)
        # Before it connects: the window is agreed on then.
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        await loop.sock_connect(sock, ("127.0.0.1", port))
        where = {"sock": sock}
    await loop.create_connection(lambda: client, **where, ssl=tls, server_hostname="localhost" if tls else None)
    if sock is not None and client.is_lost:
        sock.detach()  # uvloop has closed it, but may not have told this object
    _everyone.add(client)
    await client.answered()
    return client


async def connect_many(count: int, port: int, path: str = "/ws", **options: Any) -> list[Client]:
    """Connect `count` clients, two hundred at a time; all of them must be let in."""
    make_room(count)
    clients: list[Client] = []
    while len(clients) < count:
        step = min(200, count - len(clients))
        clients += await asyncio.gather(*(connect(port, path, **options) for _ in range(step)))
    assert {client.status for client in clients} == {101}
    return clients


async def until(condition: Callable[[], Value], within: float = 20.0, what: str = "") -> Value:
    """Wait on the loop until `condition` is true, and return what it returned."""
    deadline = time.monotonic() + within
    while not (value := condition()):
        assert time.monotonic() < deadline, f"not within {within} s: {what or condition}"
        await asyncio.sleep(0.01)
    return value


def make_room(sockets: int) -> None:
    """Let this process, and the servers that it starts from now on, hold `sockets` and what they need besides."""
    needed = sockets + 256
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft >= needed:
        return
    assert hard >= needed, f"{needed} open files are needed, the hard limit is {hard}: raise it (ulimit -Hn)"
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


class Publisher:
    """Says numbered messages of `size` bytes on a channel, `rate` a second."""

    def __init__(self, client: Client, rate: float, size: int) -> None:
        self.client = client
        self.said = 0
        self._pause = 1 / rate
        self._padding = "." * (size - 9)

    async def run(self) -> None:
        due = time.monotonic()
        while self.client.close_code is None and not self.client.is_lost:
            self.client.say(f"{self.said:08d} {self._padding}")
            self.said += 1
            due += self._pause
            await asyncio.sleep(max(0.0, due - time.monotonic()))


@contextlib.asynccontextmanager
async def publishing(
    server: Server, path: str = "/ws", *, rate: float = 100, size: int = 128, tls: ssl.SSLContext | None = None
) -> AsyncIterator[Publisher]:
    """Publish until the block ends or the server says goodbye."""
    publisher = Publisher(await connect(server.port, path, tls=tls), rate, size)
    task = asyncio.create_task(publisher.run())
    try:
        yield publisher
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


def numbers(client: Client) -> list[int]:
    """Return the numbers of what a client heard, in the order in which it did."""
    return [int(payload[:8]) for payload in client.heard]


async def all_heard(clients: Iterable[Client], through: int, within: float = 20.0) -> None:
    """Wait until each client has heard the message `through`."""
    end, waiting = f"{through:08d}".encode(), list(clients)
    await until(lambda: all(client.heard and client.heard[-1][:8] == end for client in waiting), within, "all heard")


def assert_nothing_lost(clients: Iterable[Client], through: int) -> None:
    """Each client heard every number from the first that it heard to `through`, once and in order."""
    for client in clients:
        heard = numbers(client)
        assert heard, "a client that heard nothing proves nothing"
        assert heard == list(range(heard[0], through + 1))


async def gone(clients: Iterable[Client], within: float = 20.0) -> None:
    """Wait until all of these have lost their connection."""
    waiting = list(clients)
    await until(lambda: all(client.is_lost for client in waiting), within, "all connections gone")


async def cut_everyone_off() -> None:
    """Abort whatever connection is left."""
    for client in list(_everyone):
        client.transport.abort()
    await gone(_everyone)
