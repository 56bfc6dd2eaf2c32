"""What goes wrong in the drill: a server each, its traffic, and the fault that is injected into it.

Every site has the same traffic: a few clients that listen, and one that publishes a hundred messages a second. A fault
begins with `inject` and is over after `relieve`; both may be called once. Clients are in the test's own event loop.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections import deque
from collections.abc import Coroutine
from functools import partial
from struct import pack
from typing import Any, Final

from tests.harness import Server
from tests.redis_server import RedisServer
from tests.scenarios.clients import TINY_BUFFER, Client, Crowd, eventually
from tests.scenarios.wire import BINARY, NO_MASKING, frame

LISTENERS: Final = 4
RATE: Final = 100
MESSAGE: Final = frame(BINARY, bytes(1024), key=NO_MASKING)
# A queue is full within a second or two, and the goodbye may take another two.
THROWN_OUT: Final = 20.0
# Closed like this, a socket is reset: its server sees a connection that was lost.
_RESET: Final = pack("ii", 1, 0)


class Site:
    """One server, and its clients."""

    options: tuple[str, ...] = ()

    def __init__(self, server: Server) -> None:
        self.server = server
        self.crowd = Crowd(server.port)
        self._tasks: set[asyncio.Task[None]] = set()
        self._faults: set[asyncio.Task[None]] = set()

    async def open(self) -> None:
        """Let the traffic begin."""
        for client in await self.crowd.join_many(LISTENERS, "/ws/news"):
            _forget_what_is_heard(client)
        self._start(self._publish(), self._tasks)

    async def inject(self) -> None:
        """Let the fault begin."""

    async def relieve(self) -> None:
        """Let the fault be over."""
        await _cancel(self._faults)

    async def close(self) -> None:
        """End everything. Raises what a task of ours has died of."""
        try:
            await _cancel(self._faults)
            await _cancel(self._tasks)
        finally:
            self.crowd.leave()

    def _start(self, work: Coroutine[Any, Any, None], tasks: set[asyncio.Task[None]]) -> None:
        tasks.add(asyncio.create_task(work))

    async def _publish(self) -> None:
        while True:
            publisher = await self.crowd.join("/ws/news")
            _forget_what_is_heard(publisher)
            with contextlib.suppress(ConnectionError):  # on a busy machine it may be thrown out for being slow, too
                while not publisher.is_gone:
                    await publisher.send(MESSAGE)
                    await asyncio.sleep(1 / RATE)
            publisher.leave()
            await asyncio.sleep(0.5)


class Control(Site):
    """Nothing goes wrong here; two workers, so that every rule sees the label, too."""

    options = ("--workers", "2")


class Stalled(Site):
    """One client of six stops reading, and its queue drops the oldest."""

    options = ("--lag-policy", "drop_oldest", "--queue-messages", "64", "--write-timeout", "300")

    async def inject(self) -> None:
        self._laggard = await self.crowd.join("/ws/news", reading=False, receive_buffer=TINY_BUFFER)

    async def relieve(self) -> None:
        self._laggard.leave()


class Slow(Site):
    """Clients that do not read are thrown out, come back, and do not read."""

    options = ("--queue-messages", "16", "--write-timeout", "300")
    LAGGARDS: Final = 6

    async def inject(self) -> None:
        for _ in range(self.LAGGARDS):
            self._start(self._lag(), self._faults)

    async def _lag(self) -> None:
        while True:
            laggard = await self.crowd.join("/ws/news", reading=False, receive_buffer=TINY_BUFFER)
            await eventually(partial(_was_reset, laggard), THROWN_OUT, "the laggard was thrown out", every=0.1)
            laggard.leave()


class Deaf(Site):
    """Its Redis dies, and comes back empty."""

    def __init__(self, server: Server, redis: RedisServer) -> None:
        super().__init__(server)
        self._redis = redis

    async def inject(self) -> None:
        await asyncio.to_thread(self._redis.kill)

    async def relieve(self) -> None:
        await asyncio.to_thread(self._redis.restart)


class Flooded(Site):
    """Clients connect, are gone at once, and connect again: some sixty a second."""

    # Many slow ones, so that a busy machine makes them little slower.
    LOOPS: Final = 10

    async def inject(self) -> None:
        for _ in range(self.LOOPS):
            self._start(self._storm(), self._faults)

    async def _storm(self) -> None:
        while True:
            client = await self.crowd.join("/ws/news")
            client.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
            client.leave()
            await asyncio.sleep(0.15)


class Dead(Site):
    """It is killed, and nobody starts it again."""

    async def inject(self) -> None:
        self.server.process.kill()
        await asyncio.to_thread(self.server.process.wait)

    async def _publish(self) -> None:
        with contextlib.suppress(ConnectionError):
            await super()._publish()


def _forget_what_is_heard(client: Client) -> None:
    """Let a client read and answer as ever, and keep nothing."""
    client.inbox = deque(maxlen=0)  # type: ignore[assignment]


def _was_reset(client: Client) -> bool:
    """Tell if the server has reset a connection that nobody reads from."""
    return client.sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR) != 0


async def _cancel(tasks: set[asyncio.Task[None]]) -> None:
    for task in tasks:
        task.cancel()
    ended = await asyncio.gather(*tasks, return_exceptions=True)
    tasks.clear()
    for outcome in ended:
        if isinstance(outcome, Exception):
            raise outcome
