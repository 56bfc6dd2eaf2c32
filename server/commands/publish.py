"""`stentor publish`: every line of standard input becomes a publication.

Laws: a line is kept until the server is known to have read it, and said again over the next connection if contact is
lost before; so no line is lost on the way and their order holds, and the last few before a loss may come twice. What
a server has read and its broker refuses is lost, for the raw dialect has no answers. Memory is bounded: standard input
is read no faster than the server reads.
"""

from __future__ import annotations

import asyncio
import os
import select
import threading
from collections import deque
from typing import Final

from websockets.asyncio.client import ClientConnection

from server.commands.contact import (
    LARGEST_PUBLICATION,
    RefusedError,
    Say,
    can_heal,
    discard,
    first_of,
    goodbye,
    keep_contact,
    reason,
)
from server.commands.line import Line, Parser
from server.commands.station import KEYS, add_station, destination_of, end_quietly, voice
from server.config import Settings
from server.config.options import quantity
from server.config.sources import COMMAND_LINE

ABOUT = """\
Publishes each line of standard input on a channel, until standard input ends:
  vmstat 1 | stentor publish --channel system

When contact is lost it comes back by itself and no line is lost on the way;
the last few before the loss may be published twice. What the server reads
while its Redis is away is lost, if the channel has history."""

_CHUNK: Final = 65536
_UNCONFIRMED: Final = 1024  # lines under way
_ANSWER: Final = 30.0  # seconds that the server may take to read what is under way
_PAUSE: Final = 0.05  # seconds between two questions whether it has, while few lines are under way


def parser() -> Parser:
    """Take the channel, the server, and what the lines are."""
    parser = Parser("publish", ABOUT, KEYS)
    group = add_station(parser)
    parser.add_value(group, "--rate", "N", "Lines per second at most; 0 is no limit. (default: message_rate, 1000)")
    parser.add_switch(group, "--binary", "Publish binary messages instead of text.")
    parser.add_configuration()
    return parser


def run(line: Line) -> int:
    """Publish standard input; return the exit code."""
    rate = _rate(line)
    destination, settings = destination_of(line)
    pace = Pace((settings or Settings()).message_rate if rate is None else rate)
    say = voice("publish")

    async def publish() -> None:
        publisher = Publisher(Lines(descriptor=0), pace, say, text=not line.own.binary)
        await keep_contact(destination, publisher.talk, say, retry=not line.own.no_retry)

    return end_quietly(publish(), say)


class Lines:
    """The lines of a descriptor, without their newlines.

    A thread reads it: pipes, files, terminals and devices all block, and not all of them can be waited for otherwise.
    """

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self._loop = asyncio.get_running_loop()
        self._chunks: asyncio.Queue[bytes | OSError] = asyncio.Queue()
        self._room = threading.Semaphore(4)  # chunks that may wait
        self._whole: deque[bytes] = deque()
        self._begun: list[bytes] = []  # pieces of the line whose end has not been read yet
        self._ended = False
        # A daemon: an interrupted program must not wait for its standard input.
        threading.Thread(target=self._read, name="standard input", daemon=True).start()

    async def next(self) -> bytes | None:
        """Return the next line, None after the last one. Raises RefusedError; loses nothing when cancelled."""
        while not self._whole and not self._ended:
            chunk = await self._chunks.get()
            self._room.release()
            if isinstance(chunk, OSError):
                raise RefusedError(f"cannot read standard input: {reason(chunk)}")
            self._take(chunk)
        return self._whole.popleft() if self._whole else None

    def _take(self, chunk: bytes) -> None:
        first, *more = chunk.split(b"\n")
        self._begun.append(first)
        for piece in more:
            self._whole.append(b"".join(self._begun))
            self._begun = [piece]
        if not chunk:
            self._ended = True
            if last := b"".join(self._begun):
                self._whole.append(last)
        elif sum(map(len, self._begun)) > LARGEST_PUBLICATION:
            raise RefusedError(f"a line is longer than {LARGEST_PUBLICATION} bytes")

    def _read(self) -> None:
        while True:
            self._room.acquire()
            chunk: bytes | OSError
            try:
                chunk = os.read(self._descriptor, _CHUNK)
            except BlockingIOError:  # whoever shares the descriptor made it so
                select.select([self._descriptor], [], [])
                self._room.release()
                continue
            except OSError as error:
                chunk = error
            try:
                self._loop.call_soon_threadsafe(self._chunks.put_nowait, chunk)
            except RuntimeError:  # the loop is closed: nobody wants the rest
                return
            if not chunk or isinstance(chunk, OSError):
                return


class Pace:
    """Lets `rate` frames a second pass, and half a second's worth at once; 0 is no limit.

    Half of what a server with this message_rate lets pass at once: the network may bring frames closer together.
    """

    def __init__(self, rate: float) -> None:
        self._interval = 1 / rate if rate else 0.0
        self._next = 0.0  # when the next frame would be due, had they been spread evenly

    async def turn(self) -> None:
        """Wait until a frame may be sent."""
        if not self._interval:
            return
        now = asyncio.get_running_loop().time()
        self._next = max(self._next, now) + self._interval
        # Never less than one frame at once, or a slow rate would never send its first.
        if (wait := self._next - now - max(0.5, self._interval)) > 0:
            await asyncio.sleep(wait)


class Publisher:
    """Sends lines, and keeps each until the server has read it.

    A pong says that the server has read whatever was sent before the ping (RFC 6455, section 5.5.3: it answers in
    order), so one ping confirms many lines.
    """

    def __init__(self, lines: Lines, pace: Pace, say: Say, *, text: bool) -> None:
        self._lines = lines
        self._pace = pace
        self._say = say
        self._text = text
        self._said_not_text = False
        self._unconfirmed: deque[bytes] = deque()  # under way: sent, or about to be, and not known to be read
        self._confirmed = 0  # lines, over all connections
        self._sent = 0  # lines up to the last one that this connection has seen
        self._news = asyncio.Event()  # a line was sent
        self._room = asyncio.Event()  # a line was confirmed

    async def talk(self, connection: ClientConnection) -> None:
        """Publish until the lines end and the server has read them all."""
        self._sent = self._confirmed
        await first_of(self._send(connection), self._confirm(connection), discard(connection))
        # A server answers a ping before it looks at the lines that came along with it: it may still refuse them.
        closed = await goodbye(connection)
        if closed and not can_heal(closed):
            raise closed

    async def _send(self, connection: ClientConnection) -> None:
        for kept in tuple(self._unconfirmed):
            await self._send_one(connection, kept)
        while True:
            while len(self._unconfirmed) >= _UNCONFIRMED:
                await self._wait_for_room()
            line = await self._lines.next()
            if line is None:
                break
            # Kept before it is sent, and nothing waits in between: a cancellation finds it either there or unread.
            self._unconfirmed.append(self._checked(line))
            await self._send_one(connection, self._unconfirmed[-1])
        while self._unconfirmed:
            await self._wait_for_room()

    async def _send_one(self, connection: ClientConnection, line: bytes) -> None:
        await self._pace.turn()
        async with asyncio.timeout(_ANSWER):
            await connection.send(line, text=self._text)
        self._sent += 1
        self._news.set()

    async def _wait_for_room(self) -> None:
        self._room.clear()
        await self._room.wait()

    async def _confirm(self, connection: ClientConnection) -> None:
        while True:
            await self._news.wait()
            self._news.clear()
            await self._pace.turn()
            asked = self._sent
            async with asyncio.timeout(_ANSWER):
                pong = await connection.ping()
                await pong
            while self._confirmed < asked:
                self._unconfirmed.popleft()
                self._confirmed += 1
            self._room.set()
            if len(self._unconfirmed) < _UNCONFIRMED // 2:
                await asyncio.sleep(_PAUSE)

    def _checked(self, line: bytes) -> bytes:
        if not self._text:
            return line
        try:
            line.decode()
        except UnicodeDecodeError:
            if not self._said_not_text:
                self._say("standard input is not UTF-8 throughout: what is not becomes U+FFFD (--binary keeps it)")
                self._said_not_text = True
            return line.decode(errors="replace").encode()
        return line


def _rate(line: Line) -> float | None:
    text = getattr(line.own, "rate", None)
    if text is None:
        return None
    rate = quantity(text, "per second")
    if rate is None or rate > 10**9:
        line.mistakes.append(f"rate = {text} ({COMMAND_LINE}): must be a number of lines per second, 0 or more")
        return None
    return float(rate)
