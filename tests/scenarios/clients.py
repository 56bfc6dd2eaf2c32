"""Clients on raw sockets, whose reading and sending the test decides about.

    crowd = Crowd(server.port)
    client = await crowd.join("/ws/news", account=ledger.open_account("news"))
    client.stall()              # its kernel acknowledges, the client reads nothing
    client.sip()                # ... but one byte
    client.read()               # reads again whatever comes, at once
    await client.send(frame(TEXT, b"hello"))
    client.close_code, client.is_gone, client.pongs, client.inbox
    crowd.leave()               # closes every socket; also `async with Crowd(port) as crowd`

A client reads from the start unless it is told not to. It answers pings, close frames and the end of the stream
unless `answers_pings` or `answers_close` is false. Data frames go to its account if it has one, else to its `inbox`.
Everything runs on the running event loop; no client has a task of its own.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import time
from collections.abc import Awaitable, Callable
from typing import Any, Final, Self

from tests.scenarios.ledger import Account, Ledger
from tests.scenarios.wire import BINARY, CLOSE, NO_MASKING, PING, PONG, Scanner, frame

READ_SIZE: Final = 256 * 1024
# Enough for the largest buffer of a kernel, and few enough for the others to get their turn.
READS_AT_ONCE: Final = 64
# A client whose kernel should take little: Linux doubles it, and a segment's overhead counts.
TINY_BUFFER: Final = 4096


def request(path: str, *, headers: tuple[str, ...] = ()) -> bytes:
    """Write out an opening handshake. RFC 6455, section 4.1."""
    lines = (
        f"GET {path} HTTP/1.1",
        "Host: 127.0.0.1",
        "Upgrade: websocket",
        "Connection: Upgrade",
        "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==",
        "Sec-WebSocket-Version: 13",
        *headers,
        "",
        "",
    )
    return "\r\n".join(lines).encode()


class Client:
    """One WebSocket client after its handshake."""

    def __init__(self, sock: socket.socket, account: Account | None = None) -> None:
        self.sock = sock
        self.port = int(sock.getsockname()[1])  # by which the kernel's tables know the connection
        self.account = account
        self.inbox: list[tuple[int, bytes]] = []
        self.close_code: int | None = None  # of the server's close frame; 1005 when it has none
        self.is_gone = False  # the server has closed or reset the connection
        self.pings = 0
        self.pongs = 0
        self.last_pong = b""
        self.last_opcode: int | None = None
        self.bytes = 0  # read since the handshake
        self.answers_pings = True
        self.answers_close = True
        # What comes is only counted, in `bytes`: so cheap that two hundred of them are no match for any server.
        self.discards = False
        self._scanner = Scanner()
        self._loop = asyncio.get_running_loop()
        self._reads = False
        self._writing = asyncio.Lock()

    # Reading

    def read(self) -> None:
        """Read whatever comes, from now on. Idempotent."""
        if not self._reads and not self.is_gone:
            self._reads = True
            self._loop.add_reader(self.sock, self._readable)

    def stall(self) -> None:
        """Read nothing any more. Idempotent."""
        if self._reads:
            self._reads = False
            self._loop.remove_reader(self.sock)

    def sip(self, count: int = 1) -> None:
        """Read `count` bytes at most, if there are any."""
        self._receive(count)

    def _readable(self) -> None:
        # To the end: libuv stops watching a socket that was reset, so no second call would come for what is left.
        for _ in range(READS_AT_ONCE):
            if not self._receive(READ_SIZE):
                break

    def _receive(self, most: int) -> bool:
        """Take what there is, up to `most` bytes; false when there is nothing more for now, or for ever."""
        try:
            # MSG_TRUNC, on TCP: the kernel drops what is read instead of copying it. tcp(7).
            data = self.sock.recv(most, socket.MSG_TRUNC if self.discards else 0)
        except (BlockingIOError, InterruptedError):
            return False
        except OSError:
            data = b""
        if data and self.discards:
            self.bytes += len(data)
        elif data:
            self.feed(data)
        else:
            self.is_gone = True
            self.stall()
            if self.answers_close:
                # Not close(): a send may be under way.
                with contextlib.suppress(OSError):
                    self.sock.shutdown(socket.SHUT_WR)
        return bool(data)

    def feed(self, data: bytes) -> None:
        """Take bytes that came from the server."""
        self.bytes += len(data)
        now_ns = time.monotonic_ns()
        for opcode, payload in self._scanner.feed(data):
            self.last_opcode = opcode
            if opcode == PING:
                self.pings += 1
                if self.answers_pings:
                    self._answer(frame(PONG, payload))
            elif opcode == PONG:
                self.pongs += 1
                self.last_pong = payload
            elif opcode == CLOSE:
                self.close_code = int.from_bytes(payload[:2], "big") if payload else 1005
                if self.answers_close:
                    self._answer(frame(CLOSE, payload[:2]))
            elif self.account is not None:
                self.account.hear(payload, now_ns)
            else:
                self.inbox.append((opcode, payload))

    def _answer(self, data: bytes) -> None:
        with contextlib.suppress(OSError):  # full or gone: an answer is a courtesy
            self.sock.send(data)

    # Sending

    async def send(self, data: bytes) -> None:
        """Send all of `data`, one caller at a time; raises ConnectionError when the server is gone."""
        async with self._writing:
            await self._loop.sock_sendall(self.sock, data)

    def try_send(self, data: bytes) -> int:
        """Send what the kernel takes at once; return how much that was."""
        try:
            return self.sock.send(data)
        except (BlockingIOError, InterruptedError):
            return 0

    async def publish(
        self, ledger: Ledger, channel: str, *, rate: float, seconds: float, size: int, publisher: int = 0
    ) -> None:
        """Publish at a steady rate, each message stamped with the time at which it was due (an open loop)."""
        start = time.monotonic_ns()
        for number in range(round(rate * seconds)):
            due_ns = start + round(number * 1e9 / rate)
            ahead = (due_ns - time.monotonic_ns()) / 1e9
            if ahead > 0:
                await asyncio.sleep(ahead)
            payload = ledger.stamp(channel, size, publisher=publisher, due_ns=due_ns)
            await self.send(frame(BINARY, payload, key=NO_MASKING))

    # The end

    def leave(self) -> None:
        """Close the socket. Idempotent."""
        self.stall()
        self.sock.close()
        self.is_gone = True


class Crowd:
    """Every client of a test; their sockets are closed when it ends."""

    def __init__(self, port: int, host: str = "127.0.0.1") -> None:
        self.clients: list[Client] = []
        self._address = (host, port)

    async def join(
        self,
        path: str = "/ws",
        *,
        account: Account | None = None,
        reading: bool = True,
        receive_buffer: int = 0,
        headers: tuple[str, ...] = (),
        sock: socket.socket | None = None,
    ) -> Client:
        """Connect and upgrade; `receive_buffer` is SO_RCVBUF (0: the kernel's choice), `sock` one that you made."""
        loop = asyncio.get_running_loop()
        sock = sock or socket.socket()
        try:
            sock.setblocking(False)
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            if receive_buffer:
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
            await loop.sock_connect(sock, self._address)
            await loop.sock_sendall(sock, request(path, headers=headers))
            answer = b""
            while b"\r\n\r\n" not in answer:
                data = await loop.sock_recv(sock, 4096)
                assert data, f"the server hung up during the handshake, after {answer!r}"
                answer += data
        except BaseException:
            sock.close()
            raise
        head, _, frames = answer.partition(b"\r\n\r\n")
        client = Client(sock, account)
        self.clients.append(client)
        assert head.startswith(b"HTTP/1.1 101 "), head
        if frames:
            client.feed(frames)
        if reading:
            client.read()
        return client

    async def join_many(self, count: int, *args: Any, at_once: int = 100, **options: Any) -> list[Client]:
        """Let `count` clients join alike, `at_once` of them at a time."""
        joined: list[Client] = []
        while len(joined) < count:
            step = min(at_once, count - len(joined))
            joined += await asyncio.gather(*(self.join(*args, **options) for _ in range(step)))
        return joined

    def leave(self) -> None:
        """Let everyone go. Idempotent."""
        for client in self.clients:
            client.leave()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *exc: object) -> None:
        self.leave()


async def eventually(
    condition: Callable[[], Any | Awaitable[Any]], within: float, what: str = "", *, every: float = 0.02
) -> Any:
    """Poll `condition` (which may be a coroutine function) until it is true; return what it returned.

    Fails after `within` seconds. Each look leaves the loop its turn.
    """
    deadline = time.monotonic() + within
    while True:
        value = condition()
        if asyncio.iscoroutine(value):
            value = await value
        if value:
            return value
        assert time.monotonic() < deadline, f"not within {within:g} s: {what or condition}"
        await asyncio.sleep(every)
