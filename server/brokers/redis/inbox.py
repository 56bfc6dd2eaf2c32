"""What a subscription brings, until it is worked on: taken from the socket first, worked on a part per turn of a loop.

Laws: what waits is bounded; then it is Redis that must hold it. What is taken is a reply, whole, and in order.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable
from typing import Final

import hiredis

from server.brokers.redis.connection import Connection, Reply

log = logging.getLogger("stentor.redis")

# Bytes that are parsed at a time (more would be moved about in memory), and how often in one turn.
_BITE: Final = 16384
_BITES: Final = 4
# Bytes that may wait for us; then it is Redis that must hold them, and cut us off if it does not want to.
MOST_BYTES: Final = 32 << 20


class Inbox:
    """See the module. `take` gets each reply; `broken` is told when what comes is none."""

    def __init__(
        self,
        take: Callable[[Reply], None],
        broken: Callable[[], None],
        call_soon: Callable[[Callable[[], None]], object],
    ) -> None:
        self._take = take
        self._broken = broken
        self._call_soon = call_soon
        self._connection: Connection | None = None
        self._reader = hiredis.Reader()
        self._chunks: deque[bytes] = deque()
        self._eaten = 0  # of the first chunk
        self.bytes = 0
        self._is_working = False
        self._is_full = False

    def begin(self, connection: Connection) -> None:
        self.end()
        self._connection = connection

    def end(self) -> None:
        """Forget what waits: it comes from a connection that is gone."""
        self._connection = None
        self._reader = hiredis.Reader()
        self._chunks.clear()
        self._eaten = self.bytes = 0
        self._is_full = False

    def put(self, data: bytes) -> None:
        self._chunks.append(data)
        self.bytes += len(data)
        if self.bytes > MOST_BYTES and not self._is_full and self._connection is not None:
            self._is_full = True
            self._connection.pause_reading()
        if not self._is_working:
            self._is_working = True
            self._call_soon(self._work)

    def _work(self) -> None:
        self._is_working = False
        connection = self._connection
        try:
            for _ in range(_BITES):
                if not self._chunks:
                    break
                self._bite()
                if self._connection is not connection:  # what we told has ended it
                    return
        except hiredis.ProtocolError:
            self._broken()
            return
        if self._is_full and self.bytes < MOST_BYTES // 2 and connection is not None:
            self._is_full = False
            connection.resume_reading()
        if self._chunks:
            self._is_working = True
            self._call_soon(self._work)

    def _bite(self) -> None:
        chunk, start = self._chunks[0], self._eaten
        size = min(_BITE, len(chunk) - start)
        reader = self._reader
        reader.feed(chunk, start, size)
        self.bytes -= size
        self._eaten += size
        if self._eaten == len(chunk):
            self._chunks.popleft()
            self._eaten = 0
        gets, take = reader.gets, self._take
        while (reply := gets()) is not False:
            try:
                take(reply)
            except Exception:
                log.exception("a message could not be heard")  # the next ones are others
