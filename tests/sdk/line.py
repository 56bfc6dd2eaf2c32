"""The wire between a client and the server, which a test can cut and hold.

    async with Line(server.port) as line:
        ...  # the client connects to line.port
        line.cut()      # its connection breaks, and so does every attempt to come back
        line.mend()     # it may come back
        line.hold()     # what the server sends stays where it is; what the client sends goes on
        line.release()

Its buffers are small, so that the server soon notices when it is held.
"""

from __future__ import annotations

import asyncio
import socket
from typing import Final, Self

SMALL: Final = 4096


class Line:
    def __init__(self, upstream: int) -> None:
        self.port = 0
        self._upstream = upstream
        self._is_cut = False
        self._flows = asyncio.Event()
        self._flows.set()
        self._open: set[asyncio.StreamWriter] = set()
        self._tasks: set[asyncio.Task[None]] = set()

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", 0)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *_: object) -> None:
        self._server.close()
        self.cut()
        self.release()
        await asyncio.gather(*self._tasks)

    def cut(self) -> None:
        self._is_cut = True
        for writer in self._open:
            writer.transport.abort()

    def mend(self) -> None:
        self._is_cut = False

    def hold(self) -> None:
        self._flows.clear()

    def release(self) -> None:
        self._flows.set()

    async def _accept(self, from_client: asyncio.StreamReader, to_client: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        self._open.add(to_client)
        try:
            if not self._is_cut:
                await self._join(from_client, to_client)
        except* OSError:
            pass  # either end may break at any time
        finally:
            self._open.discard(to_client)
            to_client.transport.abort()

    async def _join(self, from_client: asyncio.StreamReader, to_client: asyncio.StreamWriter) -> None:
        sock = socket.socket()
        sock.setblocking(False)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, SMALL)
        await asyncio.get_running_loop().sock_connect(sock, ("127.0.0.1", self._upstream))
        from_server, to_server = await asyncio.open_connection(sock=sock, limit=SMALL)
        self._open.add(to_server)
        try:
            async with asyncio.TaskGroup() as both_ways:
                both_ways.create_task(self._copy(from_client, to_server))
                both_ways.create_task(self._copy(from_server, to_client, self._flows))
        finally:
            self._open.discard(to_server)
            to_server.transport.abort()

    async def _copy(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, flows: asyncio.Event | None = None
    ) -> None:
        """Copy until one end is gone, which ends the other direction too."""
        while data := await reader.read(SMALL):
            if flows is not None:
                await flows.wait()
            writer.write(data)
            await writer.drain()
        raise ConnectionResetError
