"""A server for the tests of the operator's page, in processes of its own, and clients that make it worth a look."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from tests.harness import Server, serve
from tests.lifecycle import crowd
from tests.lifecycle.crowd import Client

# Who lags stays, and nothing is dropped, unless a test says otherwise.
PATIENT = ("--write-timeout", "600", "--queue-messages", "100000", "--queue-bytes", "256MiB", "--no-brownout")


class Stage:
    """A running server; `url` is where the operator goes."""

    def __init__(self, server: Server) -> None:
        self.server = server
        self.url = f"{server.internal_url}/"
        self._present: list[Client] = []

    async def get(self, path: str) -> Any:
        return await asyncio.to_thread(self.server.get_json, path)

    async def connect(self, path: str = "/ws/news", **given: Any) -> Client:
        client = await crowd.connect(self.server.port, path, **given)
        self._present.append(client)
        return client

    async def slow(self) -> list[dict[str, Any]]:
        """Return those for whom something waits."""
        found: list[dict[str, Any]] = (await self.get("/debug/slow"))["clients"]
        return [client for client in found if client["queue_messages"]]

    async def stall(self, channel: str, count: int = 1) -> list[Client]:
        """Connect clients that read nothing, and say so much to them that they lag."""
        before = len(await self.slow())
        path = f"/ws/{channel}"
        clients = [await self.connect(path, receive_buffer=4096) for _ in range(count)]
        for client in clients:
            client.stop_reading()
        speaker = await self.connect(path)
        async with asyncio.timeout(20):
            while len(await self.slow()) < before + count:
                speaker.say("x" * 60_000)
        speaker.vanish(reset=False)
        return clients

    async def left(self, count: int) -> list[dict[str, Any]]:
        """Wait until so many have left, and return the flight recorder."""
        async with asyncio.timeout(20):
            found: list[dict[str, Any]] = []
            while len(found) < count:
                found = (await self.get("/debug/disconnects"))["disconnects"]
        return found


@asynccontextmanager
async def stage(*options: str) -> AsyncIterator[Stage]:
    """Run a server with `options`."""
    with serve(*PATIENT, *options) as server:
        try:
            yield Stage(server)
        finally:
            await crowd.cut_everyone_off()
