"""Thousands of WebSocket clients on one event loop: sockets on persistent hub watchers, one buffer for all reads.

A watcher's callback runs in gevent's hub: no greenlet, no switch, nothing started or stopped per message. It reads
once into the process's buffer, takes the time once, and asks the ledger. Most reads end after one comparison of
bytes (see ``loadtest.ledger``).

Laws: a callback never blocks and never raises; what goes wrong ends the one connection it went wrong on. Every n-th
delivery is timed, counted over all connections, so that a delivery in a long batch is as likely to be timed as one
that comes alone; the worst latency is exact. It does not know Locust, publishers or verdicts.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from time import monotonic_ns
from typing import Any

import gevent

from loadtest.dialect import Dialect, Payload, Reply, Said, Unsubscribed
from loadtest.histogram import Histogram
from loadtest.ledger import Entry
from loadtest.opening import READ, WRITE
from loadtest.protocol import (
    ABNORMAL,
    CLOSE,
    CONTINUATION,
    MAX_FRAME,
    PING,
    PONG,
    IncomingFrame,
    ProtocolFault,
    close_code,
    close_frame,
    pong,
    read_frame,
)

READ_BYTES = 256 << 10
NEVER = 1 << 62


class Second:
    """What was received and sent in one second of the run."""

    __slots__ = ("delivered", "late", "latency", "published", "t", "worst")

    def __init__(self, t: int) -> None:
        self.t = t
        self.delivered = 0
        self.published = 0
        self.late = 0  # ns behind the intended time, at worst
        self.worst = 0  # ns, of all deliveries, also those that were not timed
        self.latency = Histogram()


class Connection:
    """One open connection whose frames are checked."""

    __slots__ = (
        "closed", "entry", "message", "node", "on_close", "on_reply", "outgoing", "reader", "recv_into", "sock",
        "tail", "writer",
    )  # fmt: skip

    def __init__(self, sock: Any, entry: Entry, on_close: Callable[[Connection, int], None], node: int = 0) -> None:
        self.sock = sock
        self.node = node  # of the server: which one it is open to
        self.recv_into = sock.recv_into
        self.entry = entry
        self.on_close = on_close  # also when the server takes one channel away
        self.on_reply: Callable[[Reply], None] | None = None
        self.tail = b""  # the beginning of a frame whose end has not come yet
        self.message: list[bytes] | None = None  # the fragments of a message, while it is incomplete
        self.outgoing = bytearray()
        self.reader: Any = None
        self.writer: Any = None
        self.closed = False


class Swarm:
    """The open connections of one process, and what they have received in the current second."""

    def __init__(self, dialect: Dialect, clock: Callable[[], int] = monotonic_ns) -> None:
        self._dialect = dialect
        self._clock = clock
        self._loop = gevent.get_hub().loop
        self._buffer = bytearray(READ_BYTES + MAX_FRAME + 14)  # a read after the longest incomplete frame
        self._view = memoryview(self._buffer)
        self._window = self._view[:READ_BYTES]
        self.connections: set[Connection] = set()
        self.closes: Counter[int] = Counter()
        self.began = NEVER  # monotonic ns of the first intended send; seconds count from here
        self.every = 1
        self.timing = False  # until it begins, and on a host whose clock is not the publishers'
        self._skip = NEVER
        self._rolls_at = NEVER
        self.second = Second(0)
        self.finished: list[Second] = []  # until somebody takes them away
        self._delivered = 0

    def begin(self, began: int, every: int, timing: bool) -> None:
        """Publishing begins at ``began``; from then on every ``every``-th delivery is timed."""
        self.began = began
        self.every = every
        self.timing = timing
        self._skip = 0 if timing else NEVER
        self._rolls_at = began + 1_000_000_000

    def roll(self, now: int) -> None:
        """Begin a new second if the current one is over."""
        while now >= self._rolls_at:
            self.finish()
            self._rolls_at += 1_000_000_000

    def delivered(self) -> int:
        """How many publications have been received so far."""
        return self._delivered + self.second.delivered

    def finish(self) -> None:
        """Close the current second, and begin the next."""
        second = self.second
        if self.timing and second.delivered:
            second.latency.see(second.worst)
        self._delivered += second.delivered
        self.finished.append(second)
        self.second = Second(second.t + 1)

    def adopt(
        self, sock: Any, entry: Entry, rest: bytes, on_close: Callable[[Connection, int], None], node: int = 0
    ) -> Connection:
        """Take over an open socket to a node; ``rest`` is what was already read from it."""
        connection = Connection(sock, entry, on_close, node)
        self.connections.add(connection)
        connection.reader = self._loop.io(sock.fileno(), READ)
        connection.reader.start(self._readable, connection)
        if rest:
            self._buffer[: len(rest)] = rest
            self._absorb(connection, len(rest), self._clock())
        return connection

    def send(self, connection: Connection, data: bytes) -> int:
        """Send ``data`` now or as soon as the kernel takes it; how many bytes still wait afterwards."""
        if connection.closed:
            return 0
        if not connection.outgoing:
            try:
                sent = connection.sock.send(data)
            except BlockingIOError:
                sent = 0
            except OSError:
                self.drop(connection, ABNORMAL)
                return 0
            data = data[sent:]
        if data:
            connection.outgoing += data
            self._await_room(connection)
        return len(connection.outgoing)

    def leave(self, connection: Connection) -> None:
        """Close of our own accord, politely: a close frame goes out, and the socket is gone. Idempotent."""
        if not connection.closed:
            connection.entry.end("left")
            self.send(connection, close_frame(1000))
            self._release(connection)

    def drop(self, connection: Connection, code: int) -> None:
        """The connection is over, and not by our wish. Idempotent."""
        if connection.closed:
            return
        if connection.entry.ended is None:
            connection.entry.end("closed")
            self.closes[code] += 1
        self._release(connection)
        connection.on_close(connection, code)

    def close(self) -> None:
        """Close every connection. Idempotent."""
        for connection in list(self.connections):
            self.leave(connection)

    def _release(self, connection: Connection) -> None:
        connection.closed = True
        self.connections.discard(connection)
        for watcher in (connection.reader, connection.writer):
            if watcher is not None:
                watcher.stop()
                watcher.close()
        connection.reader = connection.writer = None
        connection.sock.close()
        connection.tail = b""

    def _await_room(self, connection: Connection) -> None:
        if connection.writer is None:
            connection.writer = self._loop.io(connection.sock.fileno(), WRITE)
            connection.writer.start(self._writable, connection)

    def _writable(self, connection: Connection) -> None:
        try:
            sent = connection.sock.send(memoryview(connection.outgoing)[: 1 << 20])
        except BlockingIOError:
            return
        except OSError:
            self.drop(connection, ABNORMAL)
            return
        del connection.outgoing[:sent]
        if not connection.outgoing:
            connection.writer.stop()
            connection.writer.close()
            connection.writer = None

    def _readable(self, connection: Connection) -> None:
        # The hot path. What is not here: anything that only some frames need.
        tail = connection.tail
        have = len(tail)
        try:
            if have:
                self._buffer[:have] = tail
                got = connection.recv_into(self._view[have : have + READ_BYTES])
            else:
                got = connection.recv_into(self._window)
        except BlockingIOError:
            return
        except OSError:
            self.drop(connection, ABNORMAL)
            return
        if not got:
            self.drop(connection, ABNORMAL)
            return
        now = self._clock()
        if now >= self._rolls_at:
            self.roll(now)
        got += have
        entry = connection.entry
        memo = entry.position.memo
        if memo is not None and got == memo.size and self._buffer.startswith(memo.data):
            entry.position = memo.after
            if have:
                connection.tail = b""
            # What _deliver does, without the call: at this rate the call is a tenth of the whole.
            second, count = self.second, memo.count
            second.delivered += count
            worst = now - memo.oldest
            if worst > second.worst:
                second.worst = worst
            if self._skip >= count:
                self._skip -= count
            else:
                self._time(memo.stamps, now)
        else:
            self._absorb(connection, got, now)

    def _deliver(self, stamps: Sequence[int], oldest: int, now: int) -> None:
        """Count publications that were sent at ``stamps`` and received now."""
        second, count = self.second, len(stamps)
        second.delivered += count
        second.worst = max(second.worst, now - oldest)
        if self._skip >= count:
            self._skip -= count
        else:
            self._time(stamps, now)

    def _time(self, stamps: Sequence[int], now: int) -> None:
        """Time those of the publications whose turn it is."""
        latency = self.second.latency
        skip = self._skip
        while skip < len(stamps):
            latency.record(now - stamps[skip])
            skip += self.every
        self._skip = skip - len(stamps)

    def _absorb(self, connection: Connection, end: int, now: int) -> None:
        """Take in the first ``end`` bytes of the buffer, which begin with a frame."""
        entry = connection.entry
        start = 0
        while start < end and not connection.closed:
            memo = entry.position.memo
            if memo is not None and end - start >= memo.size and self._buffer.startswith(memo.data, start):
                entry.position = memo.after
                start += memo.size
                self._deliver(memo.stamps, memo.oldest, now)
                continue
            data = bytes(self._view[start:end])
            used = self._parse(connection, data, now)
            start += used
            if used < len(data):
                break
        if not connection.closed:
            connection.tail = bytes(self._view[start:end])

    def _parse(self, connection: Connection, data: bytes, now: int) -> int:
        """Check ``data`` frame by frame; how many bytes of it were whole frames."""
        entry = connection.entry
        used = 0
        try:
            while used < len(data) and not connection.closed:
                if connection.message is None:
                    after, length, stamps = entry.audience.run(entry.position, data, used)
                    if length:
                        entry.position = after
                        used += length
                        self._deliver(stamps, min(stamps), now)
                        continue
                frame = read_frame(data, used)
                if frame is None:
                    break
                used += frame.length
                self._handle(connection, frame, now)
        except ProtocolFault:
            entry.blame().unexpected += 1
            self.send(connection, close_frame(1002))
            self.drop(connection, 1002)
        return used

    def _handle(self, connection: Connection, frame: IncomingFrame, now: int) -> None:
        """One frame that was not a publication in order."""
        if frame.opcode == PING:
            self.send(connection, pong(frame.payload))
        elif frame.opcode == CLOSE:
            code = close_code(frame.payload)
            connection.entry.end("closed")
            self.closes[code] += 1
            self.send(connection, close_frame(code) if code >= 1000 and code != 1005 else close_frame(1005))
            self.drop(connection, code)
        elif frame.opcode != PONG:
            self._join_fragments(connection, frame, now)

    def _join_fragments(self, connection: Connection, frame: IncomingFrame, now: int) -> None:
        if (frame.opcode == CONTINUATION) != (connection.message is not None):
            raise ProtocolFault("fragments out of order")
        parts = connection.message or []
        parts.append(frame.payload)
        connection.message = None if frame.fin else parts
        if not frame.fin:
            return
        for said in self._dialect.read(b"".join(parts)):
            self._hear(connection, said, now)

    def _hear(self, connection: Connection, said: Said, now: int) -> None:
        entry = connection.entry
        if isinstance(said, Payload):
            stamp = entry.audience.take(entry, said.payload, said.channel)
            if stamp is not None:
                self._deliver((stamp,), stamp, now)
        elif isinstance(said, Reply):
            if connection.on_reply is not None:
                connection.on_reply(said)
        elif isinstance(said, Unsubscribed):
            channel = entry.audience.channel(said.channel)
            if channel is not None and entry.cut_at(channel) is None:
                entry.cut(channel)
                self.closes[said.code] += 1
                connection.on_close(connection, said.code)
        else:
            self.send(connection, said.answer)
