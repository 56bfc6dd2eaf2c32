"""Publishers: an open loop on a clock of intended times.

Publication k of a run is due at ``began + k / rate``, on stream ``k mod streams``, and carries that intended time
however late it is sent. Nobody waits for an answer: a server that stalls is seen as latency, never as a lower rate
(this is what guards against coordinated omission). What is due at once goes out in one write per connection.

Laws: a sequence number is given out once; a publication counts as attempted when the kernel took all of it and the
server did not refuse it. It is acknowledged by its reply or, in a dialect without replies, by its echo. After
the last publication each stream gets one final marker. A publisher whose connection ends says so and is not replaced.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from time import monotonic_ns

import gevent

from loadtest.dialect import Dialect, Reply
from loadtest.payload import Stream
from loadtest.swarm import Connection, Swarm

#: Nothing is gained by waking up more often than the kernel's timers are good for.
_NAP = 0.001
#: A server that does not read must not fill the generator's memory: beyond this a connection takes no more.
MAX_WAITING_BYTES = 16 << 20


@dataclass(frozen=True, slots=True)
class Schedule:
    """When each publication of a run is due; times are monotonic nanoseconds."""

    began: int
    rate: float
    total: int | None  # publications; None = until ceased

    def intended(self, number: int) -> int:
        """When publication ``number`` (from 0) is due."""
        return self.began + int(number * 1e9 / self.rate)

    def due(self, now: int) -> int:
        """How many publications are due at ``now``."""
        if now < self.began or self.rate <= 0:
            return 0
        # Rounding may put the newest one on either side of its own intended time: ask that.
        count = int((now - self.began) * self.rate / 1e9) + 1
        if self.intended(count - 1) > now:
            count -= 1
        return count if self.total is None else min(count, self.total)


class StreamSender:
    """One stream on its way to the server over its publisher's connection."""

    __slots__ = (
        "_dialect", "_swarm", "_unanswered", "channel", "connection", "marked", "queued", "refused", "stream",
        "wire_size",
    )  # fmt: skip

    def __init__(self, stream: Stream, channel: str, dialect: Dialect, swarm: Swarm, connection: Connection) -> None:
        self.stream = stream
        self.channel = channel
        self.connection = connection
        self.queued = 0  # sequences given out, markers included
        self.marked = False
        self.refused: dict[int, str] = {}  # why, by sequence
        self.wire_size = len(dialect.publication(channel, stream.payload(1, 0), 1))
        self._unanswered: set[int] = set()  # sequences whose reply has not come
        self._dialect = dialect
        self._swarm = swarm
        connection.on_reply = self._hear

    def send(self, stamps: Sequence[int], marker: bool = False) -> int:
        """Send a publication for each intended time, in one write; how many were given a sequence."""
        if self.connection.closed or len(self.connection.outgoing) > MAX_WAITING_BYTES:
            return 0  # given no sequence, so not attempted
        frames = []
        for stamp in stamps:
            self.queued += 1
            payload = self.stream.payload(self.queued, stamp, marker)
            if self._dialect.answers:
                self._unanswered.add(self.queued)
            frames.append(self._dialect.publication(self.channel, payload, self.queued))
        self.marked = self.marked or marker
        self._swarm.send(self.connection, b"".join(frames))
        return len(frames)

    def _hear(self, reply: Reply) -> None:
        sequence = self._dialect.number_of(reply.id)
        if sequence not in self._unanswered:
            return  # the answer to something else
        self._unanswered.remove(sequence)
        if reply.error is not None:
            self.refused[sequence] = reply.error

    def _granted(self) -> int:
        """How many sequences a reply said yes to."""
        return self.queued - len(self._unanswered) - len(self.refused)

    def waiting(self) -> int:
        """How many of the queued ones the kernel has not taken whole."""
        return -(-len(self.connection.outgoing) // self.wire_size)

    def attempted(self) -> int:
        """How many publications the kernel took and the server did not refuse, the marker not counted."""
        taken = self.queued - self.waiting() - int(self.marked and not self.waiting())
        return taken - sum(1 for sequence in self.refused if sequence <= taken)

    def received(self) -> int:
        """How many the server has, markers included, as far as is known here."""
        return self._granted() if self._dialect.answers else self.queued - self.waiting()

    def has_marked(self) -> bool:
        """Whether the server was given the marker, and did not refuse it."""
        return self.marked and not self.waiting() and self.queued not in self.refused

    def is_settled(self) -> bool:
        """Whether nothing is under way: the kernel has taken everything, and what gets a reply has it."""
        if self.connection.closed:
            return True
        return not self._unanswered and not self.connection.outgoing

    def total(self) -> int | None:
        """The last sequence that the server was given and took; None if nobody knows: its connection has ended."""
        if self.connection.closed:
            return None
        last = self.queued
        while last in self.refused:
            last -= 1
        return last

    def acknowledged(self) -> int:
        """How many of them are known to have arrived, the marker not counted."""
        if self._dialect.answers:
            return self._granted() - int(self.marked and self.queued not in self._unanswered | self.refused.keys())
        entry = self.connection.entry
        streams = [(each.publisher, each.channel) for each in entry.audience.streams]
        due = entry.position.nexts[streams.index((self.stream.publisher, self.stream.channel))]
        return min(max(due - 1, 0), self.queued - int(self.marked))


class Publishers:
    """The publishers of one process, and the loop that keeps them to the schedule."""

    def __init__(self, swarm: Swarm, streams: int) -> None:
        self._swarm = swarm
        self._streams = streams  # of the whole run: publication k belongs to stream k mod streams
        self.senders: dict[int, StreamSender] = {}  # by the number of the stream
        self._schedule: Schedule | None = None
        self._loop: gevent.Greenlet | None = None
        self.late_max = 0
        self.first: int | None = None
        self.last: int | None = None

    def start(self, schedule: Schedule) -> None:
        """Begin to publish; returns at once."""
        self._schedule = schedule
        self._loop = gevent.spawn(self._run, schedule)

    def done(self) -> bool:
        """Whether everything that was planned has been given out."""
        return self._loop is None or self._loop.dead

    def cease(self) -> None:
        """Publish nothing more, whatever was planned. Idempotent."""
        if self._loop is not None:
            self._loop.kill()

    def mark(self) -> None:
        """Send each stream's final marker."""
        now = monotonic_ns()
        for sender in self.senders.values():
            sender.send([now], marker=True)

    def is_settled(self) -> bool:
        """Whether nothing that was sent is under way any more, as far as publishers can tell."""
        return all(sender.is_settled() for sender in self.senders.values())

    def _run(self, schedule: Schedule) -> None:
        number = 0
        while self.senders and (schedule.total is None or number < schedule.total):
            now = monotonic_ns()
            due = schedule.due(now)
            if due > number:
                self._send(schedule, number, due, now)
                number = due
            else:
                wait = (schedule.intended(number) - now) / 1e9
                gevent.sleep(max(wait, _NAP))

    def _send(self, schedule: Schedule, number: int, due: int, now: int) -> None:
        batches: dict[int, list[int]] = {}
        for each in range(number, due):
            stream = each % self._streams
            if stream in self.senders:
                batches.setdefault(stream, []).append(schedule.intended(each))
        if not batches:
            return
        self._swarm.roll(now)
        oldest = min(stamps[0] for stamps in batches.values())
        second = self._swarm.second
        second.late = max(second.late, now - oldest)
        self.late_max = max(self.late_max, now - oldest)
        self.first = oldest if self.first is None else self.first
        self.last = max(stamps[-1] for stamps in batches.values())
        for stream, stamps in batches.items():
            second.published += self.senders[stream].send(stamps)
