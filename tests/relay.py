"""A bad relay: it stands in front of any WebSocket server and does to its frames what a broken server would.

    with Relay(server.port, drop_every(10_000)) as relay:
        ...  # clients connect to relay.port; relay.spoilt counts what it did

It passes clients' bytes on as they are and splits what the server sends into frames (RFC 6455, 5.2), because a
checker of messages must be shown a fault in whole messages. It runs on a thread of its own.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from typing import Self

#: What becomes of one data frame: number of the frame (from 1, over all connections), the frame, what its connection
#: holds back; returns what to send now, and changes what is held back.
Fault = Callable[[int, bytes, list[bytes]], list[bytes]]


def faithful(number: int, frame: bytes, held: list[bytes]) -> list[bytes]:
    return [frame]


def drop_every(nth: int) -> Fault:
    """Lose every `nth` frame."""
    return lambda number, frame, held: [] if number % nth == 0 else [frame]


def double_every(nth: int) -> Fault:
    """Send every `nth` frame twice."""
    return lambda number, frame, held: [frame, frame] if number % nth == 0 else [frame]


def swap_every(nth: int) -> Fault:
    """Send every `nth` frame after the next one of its connection."""

    def fault(number: int, frame: bytes, held: list[bytes]) -> list[bytes]:
        if held:
            return [frame, held.pop()]
        if number % nth == 0:
            held.append(frame)
            return []
        return [frame]

    return fault


def corrupt_every(nth: int) -> Fault:
    """Change a byte in the payload of every `nth` frame."""
    return lambda number, frame, held: [frame[:-3] + b"?" + frame[-2:]] if number % nth == 0 else [frame]


class Relay:
    def __init__(self, upstream: int, fault: Fault) -> None:
        self.port = 0
        self.spoilt = 0
        self._upstream = upstream
        self._fault = fault
        self._frames = 0
        self._loop = asyncio.new_event_loop()
        self._ready = threading.Event()
        self._thread = threading.Thread(target=self._run, name="relay")

    def __enter__(self) -> Self:
        self._thread.start()
        assert self._ready.wait(10)
        return self

    def __exit__(self, *_: object) -> None:
        self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join(10)
        assert not self._thread.is_alive()

    def _run(self) -> None:
        with asyncio.Runner(loop_factory=lambda: self._loop) as runner:
            runner.run(self._serve())

    async def _serve(self) -> None:
        self._stop = asyncio.Event()
        self._tasks: set[asyncio.Task[None]] = set()
        server = await asyncio.start_server(self._accept, "127.0.0.1", 0, backlog=1024)
        self.port = server.sockets[0].getsockname()[1]
        self._ready.set()
        await self._stop.wait()
        server.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        try:
            from_server, to_server = await asyncio.open_connection("127.0.0.1", self._upstream)
        except OSError:
            writer.close()
            return
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(_copy(reader, to_server))
                group.create_task(self._spoil(from_server, writer))
        except* (OSError, asyncio.IncompleteReadError, asyncio.CancelledError):
            pass
        finally:
            writer.close()
            to_server.close()
            self._tasks.discard(task)

    async def _spoil(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(await reader.readuntil(b"\r\n\r\n"))
        held: list[bytes] = []
        while True:
            frame = await _read_frame(reader)
            out = [frame]
            if frame[0] & 0x0F < 8:
                self._frames += 1
                out = self._fault(self._frames, frame, held)
                self.spoilt += out != [frame]
            writer.write(b"".join(out))
            await writer.drain()


async def _copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while data := await reader.read(65536):
        writer.write(data)
        await writer.drain()
    raise asyncio.IncompleteReadError(b"", None)


async def _read_frame(reader: asyncio.StreamReader) -> bytes:
    head = await reader.readexactly(2)
    length = head[1] & 0x7F
    if length >= 126:
        extended = await reader.readexactly(2 if length == 126 else 8)
        head, length = head + extended, int.from_bytes(extended, "big")
    return head + await reader.readexactly(length)
