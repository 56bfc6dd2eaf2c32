"""What it costs to measure latency: ``python -m bench.latency``.

One client of a whole server in this process, told one publication after another; with each it is asked for an echo, or
with none. The CPU of the thread, less the client's own; what differs is the price of an echo, all system calls and
turns of the event loop included. A process asks for so many a second at most, however many clients it has.
"""

from __future__ import annotations

import asyncio
import socket
import statistics
import time
from collections.abc import Callable
from functools import partial

import uvloop

from server import blueprint
from server.config import Settings
from server.core.counters import Histogram
from server.edge.connection import Connection
from server.edge.latency import MOST
from server.worker import House

ROUNDS, EACH = 9, 500
TEXT, PONG = b"\x81\xfe\x00\x80" + bytes(4) + b"x" * 128, b"\x8a\x90" + bytes(4)
HEARD, ASKED = 4 + 128, 2 + 16


class Bench:
    """The server, its only client, and what that one takes of the thread's time."""

    def __init__(self, house: House, port: int) -> None:
        self._house = house
        self._sock = socket.create_connection(("127.0.0.1", port))
        self._sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._theirs = 0.0

    async def open(self) -> Connection:
        self._sock.sendall(
            b"GET /ws HTTP/1.1\r\nHost: 127.0.0.1\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n"
        )
        await _until(lambda: self._house.listener.gate.open == 1)
        self._sock.recv(4096)
        self._sock.setblocking(False)
        [connection] = self._house.listener.connections
        return connection

    async def run(self, connection: Connection, *, asks: bool) -> float:
        """Return the seconds that one publication takes here."""
        assert connection.probe is not None, "everyone is in this sample"
        self._theirs, began = 0.0, time.thread_time()
        answered = self._house.listener.counters.delivery_latency
        for _ in range(EACH):
            if asks:
                connection.probe.arm()
            self._say(TEXT)
            heard = await self._hear(HEARD + ASKED * asks)
            if asks:
                count = answered.count + 1
                self._say(PONG + heard[-16:])
                await _until(partial(_is_at, answered, count))
        return (time.thread_time() - began - self._theirs) / EACH

    def _say(self, data: bytes) -> None:
        began = time.thread_time()
        self._sock.send(data)
        self._theirs += time.thread_time() - began

    async def _hear(self, size: int) -> bytes:
        heard = b""
        while len(heard) < size:
            await asyncio.sleep(0)
            began = time.thread_time()
            try:
                heard += self._sock.recv(4096)
            except BlockingIOError:
                pass
            self._theirs += time.thread_time() - began
        return heard


def _is_at(histogram: Histogram, count: int) -> bool:
    return histogram.count == count


async def _until(condition: Callable[[], bool]) -> None:
    while True:
        if condition():
            return
        await asyncio.sleep(0)


async def _main() -> None:
    # Nobody is asked but by us.
    settings = Settings(port=0, latency_sample=1.0, ping_interval=3600.0, message_rate=0.0)
    house = House(settings, blueprint.broker(settings))
    port = await house.listen()
    house.wheel.stop()
    bench = Bench(house, port)
    connection = await bench.open()
    runs: dict[bool, list[float]] = {True: [], False: []}
    for _ in range(ROUNDS):
        for asks, seconds in runs.items():
            seconds.append(await bench.run(connection, asks=asks))
    asking, telling = (statistics.median(seconds[1:]) * 1e6 for seconds in runs.values())
    price = asking - telling
    print(f"a publication to one client {telling:.0f} us of CPU, with an echo {asking:.0f} us: {price:.0f} us for it")
    print(f"the {10 * MOST} a second that there are at most: {price * 10 * MOST / 1e4:.2f} % of a core")
    house.listener.abort_all()
    await house.listener.all_dropped()


if __name__ == "__main__":
    uvloop.run(_main())
