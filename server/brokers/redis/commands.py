"""The commands to one Redis: queued, written once per turn of the event loop or by the batch, answered in order.

Laws: every command is answered once, by Redis or with a BrokerError, and within the patience that it was given; what
waits is bounded in number and bytes; commands take effect in the order in which they were asked for. Where Redis has
forgotten a script (SCRIPT FLUSH; they are loaded when we connect), what came upon that is asked again, in its order
and before all that was not sent yet. What was sent behind it, and needed no script or one that was back, was first.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Final, NamedTuple

import hiredis

from server.brokers.base import BrokerError
from server.brokers.redis.connection import Command, Connection, Reply, pack
from server.brokers.redis.scripts import Script

log = logging.getLogger("stentor.redis")

# What may wait for its answer: rather more than a node has channels, for all of them are asked about after an outage.
MOST: Final = 200_000
MOST_BYTES: Final = 64 << 20
# Written at once, so that Redis works on some while we pack the next: waiting for all, one of us would always be idle.
_BATCH: Final = 16

AWAY: Final = BrokerError("Redis is away")
BUSY: Final = BrokerError("too much waits for Redis")

Answer = Callable[[Reply | BrokerError], object]

_ASKING: Final = pack(("ASKING",))


class Redirect(BrokerError):
    """Nothing was done: the slot is elsewhere (MOVED), for this once (ASK), or on its way (TRYAGAIN).

    `instead` is what is to be done there, if it is not the same again.
    """

    instead: Callable[[Any, Any], object] | None = None

    @property
    def asks(self) -> tuple[str, int] | None:
        """Return host and port where it is to be asked for, this once; None if it is to be asked again later."""
        kind, _, rest = str(self).partition(" ")
        host, _, port = rest.rpartition(" ")[2].rpartition(":")
        return (host, int(port)) if kind == "ASK" and port.isdecimal() else None


class Refusal(BrokerError):
    """Redis has answered and not done it: `str()` of it is Redis' own words."""


class _Request(NamedTuple):
    packed: bytes
    done: Answer
    since: float


class Commands:
    """See the module. `fail` is told when the connection is good for nothing any more, and why."""

    def __init__(
        self,
        scripts: tuple[Script, ...],
        *,
        fail: Callable[[str], None],
        clock: Callable[[], float],
        call_soon: Callable[[Callable[[], None]], object],
        patience: float,
        most: int = MOST,
        most_bytes: int = MOST_BYTES,
    ) -> None:
        self._fail = fail
        self._clock = clock
        self._call_soon = call_soon
        self._patience = patience
        self._most = most
        self._most_bytes = most_bytes
        self._load = b"".join(pack(("SCRIPT", "LOAD", script.source)) for script in scripts)
        self._loads = len(scripts)
        self._connection: Connection | None = None
        self._reader = hiredis.Reader()
        self._queued: list[_Request] = []
        self._written: deque[_Request] = deque()
        self._again: list[_Request] = []  # what came upon a forgotten script
        self._bytes = 0
        self._is_flushing = False
        self._is_asking = False

    @property
    def is_up(self) -> bool:
        return self._connection is not None

    @property
    def waiting(self) -> int:
        """How many commands have no answer yet."""
        return len(self._written) + len(self._again) + len(self._queued)

    def answers(self) -> Iterator[Answer]:
        """Yield who waits for an answer, in order."""
        for requests in (self._written, self._again, self._queued):
            for request in requests:
                yield request.done

    # What its owner calls

    def ask(self, command: Command, done: Answer) -> None:
        """Have a command done."""
        if self._connection is None:
            done(AWAY)
            return
        packed = pack(command)
        if self.waiting >= self._most or self._bytes + len(packed) > self._most_bytes:
            done(BUSY)
            return
        if self._is_asking:
            self._queue(_ASKING, _ignore)
        self._queue(packed, done)

    def _queue(self, packed: bytes, done: Answer) -> None:
        self._bytes += len(packed)
        self._queued.append(_Request(packed, done, self._clock()))
        if len(self._queued) >= _BATCH or not self._written:
            self._write()
        elif not self._is_flushing:
            self._is_flushing = True
            self._call_soon(self._flush)

    @contextmanager
    def asking(self) -> Iterator[None]:
        """Ask meanwhile for what is only on its way here (ASKING)."""
        self._is_asking = True
        try:
            yield
        finally:
            self._is_asking = False

    def up(self, connection: Connection) -> None:
        """Take a new connection, on which the scripts are loaded."""
        self._connection = connection
        self._reader = hiredis.Reader()
        connection.hand_over(self._receive)

    def down(self) -> None:
        """Answer all that waits: it may have been done or not. Idempotent."""
        self._connection = None
        waiting = (*self._written, *self._again, *self._queued)
        self._written.clear()
        self._again, self._queued = [], []
        self._bytes = 0
        for request in waiting:
            _tell(request.done, AWAY)

    def tick(self, now: float) -> None:
        """Give up a connection whose answers are overdue; to be called often."""
        oldest = self._written or self._again or self._queued
        if oldest and self._connection is not None and now - oldest[0].since >= self._patience:
            connection = self._connection
            self._fail("no answer in time")
            connection.abort()
            self.down()

    # Writing

    def _flush(self) -> None:
        self._is_flushing = False
        self._write()

    def _write(self) -> None:
        if self._connection is None or (self._again and self._written):
            return  # order: nothing more overtakes what must be asked again
        out = [request.packed for request in self._queued]
        if self._again:
            out = [self._load, *(request.packed for request in self._again), *out]
            since = self._again[0].since  # whatever becomes of the scripts, it is answered within the patience
            self._written.extend(_Request(b"", self._loaded, since) for _ in range(self._loads))
            self._written.extend(self._again)
            self._again = []
        self._written.extend(self._queued)
        self._queued = []
        if out:
            self._connection.write(b"".join(out))

    # Reading

    def _receive(self, data: bytes) -> None:
        try:
            self._reader.feed(data)
            while (reply := self._reader.gets()) is not False:
                self._take(reply)
        except hiredis.ProtocolError:
            self._give_up("an answer that is none")
            return
        if self._again and not self._written:
            self._write()

    def _take(self, reply: Reply) -> None:
        if not self._written:
            self._give_up("an answer that nobody asked for")
            return
        request = self._written.popleft()
        if isinstance(reply, hiredis.ReplyError):
            text = str(reply)
            if text.startswith("NOSCRIPT"):
                self._again.append(request)
                return
            if text.startswith(("MOVED ", "ASK ", "TRYAGAIN")):
                reply = Redirect(text)
            elif text.startswith(("READONLY", "MASTERDOWN", "LOADING", "CLUSTERDOWN")):
                self._give_up(f"it is not the Redis to write to: {text}")
                reply = AWAY
            else:
                reply = Refusal(text)
        self._bytes -= len(request.packed)
        _tell(request.done, reply)

    def _loaded(self, answer: Reply | BrokerError) -> None:
        if isinstance(answer, Refusal):
            self._give_up(f"it has forgotten its scripts, and takes them no more: {answer}")

    def _give_up(self, why: str) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            self._fail(why)
            connection.abort()


def _tell(done: Answer, answer: Reply | BrokerError) -> None:
    try:
        done(answer)
    except Exception:
        log.exception("an answer of Redis could not be taken")  # the next ones are for others


def _ignore(answer: object) -> None:
    """What ASKING is answered says nothing that the next answer does not say."""
