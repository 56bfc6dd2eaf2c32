"""The subscriptions to one Redis: what is wanted, what Redis has confirmed, and what it sends.

Laws: names are asked for in batches, once per turn of the event loop, and given back late, in batches too; whoever
waits for a confirmation is told in bounded time. What comes in is taken from the socket first and worked on after, a
part per turn of the event loop: Redis cuts those off who are slow to read. What waits here is bounded, too.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from itertools import islice
from typing import Final

import hiredis

from server.brokers.base import BrokerError, Done
from server.brokers.redis.commands import AWAY
from server.brokers.redis.connection import Connection, Reply, pack

log = logging.getLogger("stentor.redis")

# Names in one command.
_BATCH: Final = 500
# Seconds for which a name is kept that nobody wants any more.
LINGER: Final = 2.0
# Bytes that are parsed at a time (more would be moved about in memory), and how often in one turn.
_BITE: Final = 16384
_BITES: Final = 4
# Bytes that may wait for us; then it is Redis that must hold them, and cut us off if it does not want to.
MOST_BYTES: Final = 32 << 20

Hear = Callable[[str, bytes], None]


class _Waiter:
    __slots__ = ("done", "due", "name")

    def __init__(self, name: bytes, done: Done[None], due: float) -> None:
        self.name = name
        self.done: Done[None] | None = done
        self.due = due

    def tell(self, answer: BrokerError | None) -> None:
        done, self.done = self.done, None
        if done is not None:
            done(answer)


class Subscriber:
    """See the module. `hearing` is called when, after `up`, everything is confirmed that was wanted then."""

    def __init__(
        self,
        *,
        hear: Hear,
        hearing: Callable[[], None],
        clock: Callable[[], float],
        call_soon: Callable[[Callable[[], None]], object],
        patience: float,
    ) -> None:
        self.is_hearing = False
        self._hear = hear
        self._hearing = hearing
        self._clock = clock
        self._call_soon = call_soon
        self._patience = patience
        self._connection: Connection | None = None
        self._channels: dict[bytes, str] = {}
        self._confirmed: set[bytes] = set()
        self._missing: set[bytes] = set()
        self._leaving: dict[bytes, float] = {}
        self._asked: list[bytes] = []
        self._waiters: dict[bytes, list[_Waiter]] = {}
        self._by_due: deque[_Waiter] = deque()
        self._inbox = _Inbox(self._take, self._give_up, call_soon)

    @property
    def is_up(self) -> bool:
        return self._connection is not None

    @property
    def is_behind(self) -> bool:
        """Tell if something has come that was not worked on yet."""
        return self._inbox.bytes > 0

    def channels(self) -> list[str]:
        """Return the channels that are wanted."""
        return [channel for name, channel in self._channels.items() if name not in self._leaving]

    # What its owner calls

    def subscribe(self, name: bytes, channel: str, done: Done[None]) -> None:
        """Hear `name`; done when it is confirmed. Idempotent."""
        self._leaving.pop(name, None)
        if name in self._confirmed:
            done(None)
            return
        waiter = _Waiter(name, done, self._clock() + self._patience)
        self._waiters.setdefault(name, []).append(waiter)
        self._by_due.append(waiter)
        if name not in self._channels:
            self._channels[name] = channel
            if self._connection is not None:
                if not self._asked:
                    self._call_soon(self._flush)
                self._asked.append(name)

    def unsubscribe(self, name: bytes) -> None:
        """Hear `name` no more. Idempotent."""
        if name in self._channels and name not in self._leaving:
            self._leaving[name] = self._clock() + LINGER

    def tick(self, now: float) -> None:
        """Tell those who have waited too long, and give back what nobody wants; to be called often."""
        while self._by_due and (self._by_due[0].due <= now or self._by_due[0].done is None):
            waiter = self._by_due.popleft()
            if waiter.done is not None:
                self._waiters[waiter.name].remove(waiter)
                waiter.tell(AWAY)
        left = [name for name, due in islice(self._leaving.items(), _BATCH) if due <= now]
        for name in left:
            self._forget(name)
        if left and self._connection is not None:
            self._connection.write(pack(("UNSUBSCRIBE", *left)))

    def up(self, connection: Connection) -> None:
        """Take a new connection, and ask for all that is wanted."""
        for name in list(self._leaving):
            self._forget(name)
        self._asked = []
        self._missing = set(self._channels)
        self._connection = connection
        self._inbox.begin(connection)
        connection.hand_over(self._inbox.put)
        self._ask(self._channels)

    def down(self) -> bool:
        """Know that nothing is heard any more; tell if anything was. Idempotent."""
        was_heard = bool(self._confirmed)
        self._connection = None
        self.is_hearing = False
        self._confirmed.clear()
        self._inbox.end()
        return was_heard

    # Names

    def _flush(self) -> None:
        asked, self._asked = self._asked, []
        self._ask([name for name in asked if name in self._channels])

    def _ask(self, names: Iterable[bytes]) -> None:
        if self._connection is not None:
            commands = [pack(("SUBSCRIBE", *batch)) for batch in _batches(names)]
            if commands:
                self._connection.write(b"".join(commands))

    def _forget(self, name: bytes) -> None:
        del self._leaving[name], self._channels[name]
        self._confirmed.discard(name)
        self._missing.discard(name)
        for waiter in self._waiters.pop(name, ()):
            waiter.tell(AWAY)

    # What comes in

    def _take(self, reply: Reply) -> None:
        # Every message of everybody comes by here, and a match statement would take four times as long.
        if type(reply) is list and len(reply) == 3:
            kind, name, data = reply
            if kind == b"message":
                channel = self._channels.get(name)
                if channel is not None:
                    self._hear(channel, data)
            elif kind == b"subscribe":
                self._confirm(name)
        elif isinstance(reply, hiredis.ReplyError):
            self._give_up()

    def _confirm(self, name: bytes) -> None:
        if name not in self._channels:
            return
        self._confirmed.add(name)
        for waiter in self._waiters.pop(name, ()):
            waiter.tell(None)
        if not self.is_hearing:
            self._missing.discard(name)
            if not self._missing:
                self.is_hearing = True
                self._hearing()

    def _give_up(self) -> None:
        if self._connection is not None:
            self._connection.abort()


class _Inbox:
    """What the socket gave, until it is worked on."""

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


def _batches(names: Iterable[bytes]) -> Iterator[tuple[bytes, ...]]:
    rest = iter(names)
    while batch := tuple(islice(rest, _BATCH)):
        yield batch
