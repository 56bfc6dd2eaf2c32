"""Clients over real sockets and a listener to connect them to, on the running loop; its clock stands still.

async with listening() as server:
    client = await server.open("/ws")
    await client.send(wire.text("hello"))
    assert await client.read_frames() == [(wire.TEXT, b"hello")]
"""

from __future__ import annotations

import asyncio
import socket
import struct
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

from server.core.lag import LagLimits
from server.edge.connection import Connection
from tests import wire
from tests.house import House, house

WITHIN = 10.0
SMALL = 4096  # a receive buffer that stalls soon


async def until(condition: Callable[[], object]) -> None:
    """Let the loop turn until `condition` holds."""
    async with asyncio.timeout(WITHIN):
        while not condition():  # noqa: ASYNC110 - conditions of many kinds, which nobody announces
            await asyncio.sleep(0.001)


class Client:
    """A peer that reads when it is told to."""

    def __init__(self, home: House, sock: socket.socket) -> None:
        self.sock = sock
        self.data = b""
        self._frames: list[wire.Read] = []
        self._home = home
        self._port = sock.getsockname()[1]

    @property
    def connection(self) -> Connection:
        """The server's end."""
        [found] = self.ends()
        return found

    def ends(self) -> list[Connection]:
        """List the server's ends of this client: one, or none before it is accepted and after it is lost."""
        peers = {
            connection: connection.transport.get_extra_info("peername") or ("", 0)
            for connection in self._home.listener.connections
        }
        return [connection for connection, peer in peers.items() if peer[1] == self._port]

    async def send(self, data: bytes) -> None:
        await asyncio.get_running_loop().sock_sendall(self.sock, data)

    async def read(self, enough: Callable[[bytes], object]) -> bytes:
        """Read until `enough` of what has come; return it and start anew."""
        loop = asyncio.get_running_loop()
        async with asyncio.timeout(WITHIN):
            while not enough(self.data):
                more = await loop.sock_recv(self.sock, 1 << 20)
                if not more:
                    raise EOFError(f"the server hung up after {self.data!r}")
                self.data += more
        data, self.data = self.data, b""
        return data

    async def read_frames(self, count: int = 1) -> list[wire.Read]:
        """Read the next `count` frames."""

        def enough(data: bytes) -> bool:
            more, self.data = wire.split(data)
            self._frames += more
            return len(self._frames) >= count

        if len(self._frames) < count:
            self.data = await self.read(enough)
        frames, self._frames = self._frames[:count], self._frames[count:]
        return frames

    async def hung_up(self) -> bytes:
        """Read to the end of the stream."""
        loop = asyncio.get_running_loop()
        async with asyncio.timeout(WITHIN):
            while more := await loop.sock_recv(self.sock, 1 << 20):
                self.data += more
        data, self.data = self.data, b""
        return data

    async def shake_hands(self, path: str = "/ws") -> None:
        await self.send(wire.request(path))
        answer = wire.answer(await self.read(lambda data: b"\r\n\r\n" in data))
        assert answer.status == 101
        assert answer.body == b""

    def reset(self) -> None:
        """Go without a word: the kernel answers with RST."""
        self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.sock.close()


class Server:
    """A listener on a free port, its clients, and a clock that stands still."""

    def __init__(self, home: House, port: int) -> None:
        self.home = home
        self.port = port
        self.faults: list[object] = []
        self._sockets: list[socket.socket] = []

    async def connect(self, receive_buffer: int | None = None) -> Client:
        sock = socket.socket()
        self._sockets.append(sock)
        if receive_buffer is not None:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        sock.setblocking(False)
        await asyncio.get_running_loop().sock_connect(sock, ("127.0.0.1", self.port))
        client = Client(self.home, sock)
        await until(client.ends)
        return client

    async def open(self, path: str = "/ws", receive_buffer: int | None = None) -> Client:
        client = await self.connect(receive_buffer)
        await client.shake_hands(path)
        return client

    def publish(self, payload: bytes) -> None:
        self.home.publish("main", wire.frame(wire.BINARY, payload, mask=None))

    async def stall(self, client: Client) -> int:
        """Publish until the client lags; return how many 64 KiB messages that took."""
        connection = client.connection
        for count in range(1, 1000):
            self.publish(bytes([count % 256]) * 65536)
            await asyncio.sleep(0)
            await asyncio.sleep(0)
            if connection.paused:
                return count
        raise AssertionError("it never lagged")

    def close(self) -> None:
        for sock in self._sockets:
            sock.close()


@asynccontextmanager
async def listening(limits: LagLimits | None = None, **options: object) -> AsyncIterator[Server]:
    """Listen on loopback until the block ends; `options` are those of `house`. No fault may reach the loop."""
    loop = asyncio.get_running_loop()
    home = house(limits, loop=loop, **options)  # type: ignore[arg-type]
    port = await home.listener.listen("127.0.0.1", 0, backlog=100)
    server = Server(home, port)
    loop.set_exception_handler(lambda loop, context: server.faults.append(context))
    try:
        yield server
        assert server.faults == []
    finally:
        home.listener.stop_accepting()
        home.listener.abort_all()
        server.close()
        await until(lambda: not home.listener.connections)
    home.assert_balanced()
    assert server.faults == []
