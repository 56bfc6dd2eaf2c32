"""A stand-in for the server, as far as the page can see it: the page's files, `/healthz`, raw channels.

It broadcasts byte for byte, sender included, and can be told to misbehave: close everyone with a code, cut the wire,
refuse handshakes, pass nothing on, go away and come back on the same port.
"""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from http import HTTPStatus
from urllib.parse import unquote, urlsplit

from websockets.asyncio.server import Server, ServerConnection, broadcast, serve
from websockets.datastructures import Headers
from websockets.exceptions import ConnectionClosed
from websockets.http11 import Request, Response

from server.edge.static import StaticFiles


class PageServer:
    """Listens on one loopback port; `url` is where a browser goes."""

    def __init__(self) -> None:
        self.refusal: HTTPStatus | None = None
        """When set, every handshake is answered with this instead."""
        self.is_mute = False
        """Whether what clients say is taken and passed on to nobody."""
        self.is_silent = False
        """Whether handshakes get no answer at all."""
        self.handshakes: list[str] = []
        """The target of every handshake, in order."""
        self._static = StaticFiles()
        self._channels: defaultdict[str, set[ServerConnection]] = defaultdict(set)
        self._left = asyncio.Condition()
        self._server: Server | None = None
        self._port = 0

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._port}"

    async def start(self) -> None:
        """Listen, after the first time on the same port as before."""
        self._server = await serve(
            self._listen_and_broadcast,
            "127.0.0.1",
            self._port,
            process_request=self._answer_or_not,
            compression=None,
            max_size=65536,
        )
        self._port = self._server.sockets[0].getsockname()[1]

    async def stop(self) -> None:
        """Cut every connection and stop listening, as a crash does."""
        if self._server is None:
            return
        self.cut_clients()
        self._server.close()
        await self._server.wait_closed()
        self._server = None

    async def close_clients(self, code: int, reason: str = "") -> None:
        await asyncio.gather(*(client.close(code, reason) for client in self._clients()))

    def cut_clients(self) -> None:
        """End every connection without a close frame."""
        for client in self._clients():
            client.transport.abort()

    async def deserted(self, *channels: str) -> None:
        """Wait until nobody listens on any of these channels."""
        async with self._left:
            await self._left.wait_for(lambda: not any(self._channels[channel] for channel in channels))

    def _clients(self) -> list[ServerConnection]:
        return [client for clients in self._channels.values() for client in clients]

    async def _answer_or_not(self, connection: ServerConnection, request: Request) -> Response | None:
        if self.is_silent and request.path.startswith("/ws"):
            await connection.wait_closed()
        return self._answer(connection, request)

    def _answer(self, connection: ServerConnection, request: Request) -> Response | None:
        path = urlsplit(request.path).path
        if path.startswith("/ws"):
            self.handshakes.append(request.path)
            return None if self.refusal is None else connection.respond(self.refusal, "refused\n")
        if path == "/healthz":
            return connection.respond(HTTPStatus.OK, "ok\n")
        asset = self._static.lookup(request.path)
        if asset is None:
            return connection.respond(HTTPStatus.NOT_FOUND, "not found\n")
        return Response(200, "OK", Headers(asset.headers), asset.body)

    async def _listen_and_broadcast(self, connection: ServerConnection) -> None:
        assert connection.request is not None
        path = urlsplit(connection.request.path).path
        clients = self._channels[unquote(path.removeprefix("/ws").removeprefix("/")) or "main"]
        clients.add(connection)
        try:
            async for payload in connection:
                if not self.is_mute:
                    broadcast(clients, payload)
        except ConnectionClosed:
            pass  # Cut off: that is what the tests are about.
        finally:
            clients.discard(connection)
            async with self._left:
                self._left.notify_all()


@asynccontextmanager
async def serve_page() -> AsyncIterator[PageServer]:
    """A server that serves the page, for as long as the block lasts."""
    server = PageServer()
    await server.start()
    try:
        yield server
    finally:
        await server.stop()
