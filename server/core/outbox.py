"""What one client has not taken yet.

Laws: ``messages`` and ``bytes`` are what the entries hold, and stay within the limits after every call when the policy
is enforced; entries leave in the order in which they came; every message that enters the node's backlog leaves it as
sent or as dropped, once. Batches are shared between all laggards: an outbox holds ranges of them, never copies.
Knows nothing of sockets: whoever drains it writes.
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, NamedTuple

from server.core.counters import Drop
from server.core.lag import LagLimits, LagPolicy

if TYPE_CHECKING:
    from server.core.backlog import Backlog


class Batch:
    """The publications of one channel that one flush hands out together; immutable once made."""

    __slots__ = ("accepted", "channel", "frames", "wire")

    def __init__(self, channel: object, frames: list[bytes], accepted: list[float]) -> None:
        self.channel = channel
        self.frames = frames
        self.wire = frames[0] if len(frames) == 1 else b"".join(frames)
        self.accepted = accepted  # when each was published, in seconds of the hub's clock

    def __len__(self) -> int:
        return len(self.frames)


class _Entry:
    """The part of a batch that still waits: frames `start` to `stop`."""

    __slots__ = ("batch", "start", "stop")

    def __init__(self, batch: Batch, start: int, stop: int) -> None:
        self.batch = batch
        self.start = start
        self.stop = stop

    def wire(self) -> bytes:
        batch = self.batch
        if self.stop - self.start == len(batch.frames):
            return batch.wire
        return b"".join(batch.frames[self.start : self.stop])

    def size(self) -> int:
        batch = self.batch
        if self.stop - self.start == len(batch.frames):
            return len(batch.wire)
        return sum(map(len, batch.frames[self.start : self.stop]))


class Loss(NamedTuple):
    """What a client's queue held when it was thrown away; `oldest` in seconds of the hub's clock."""

    messages: int
    bytes: int
    oldest: float


class Outbox:
    """A bounded queue of what one client has not taken yet; empty and tiny while the client keeps up."""

    __slots__ = ("_backlog", "_entries", "bytes", "limits", "lost", "messages", "observed", "overflowed", "owner")

    def __init__(self, owner: object, limits: LagLimits, backlog: Backlog) -> None:
        self.owner = owner
        self.limits = limits
        self.messages = 0
        self.bytes = 0
        self.overflowed = False  # the policy has asked for the client's disconnection
        self.observed = False  # the policy would have acted in this spell of lagging
        self.lost: Loss | None = None  # what was discarded at the end, for whoever asks why the client left
        self._backlog = backlog
        # A deque weighs 760 bytes; nine clients in ten never lag.
        self._entries: deque[_Entry] | None = None

    @property
    def oldest(self) -> float | None:
        """When the oldest waiting message was published; None when nothing waits."""
        if not self._entries:
            return None
        entry = self._entries[0]
        return entry.batch.accepted[entry.start]

    def offer(self, batch: Batch) -> None:
        """Queue what the limits admit of a batch; the policy decides about the rest."""
        self._backlog.offers += 1
        if self.overflowed:
            self._backlog.drop(Drop.DISCONNECTED, len(batch))
        elif not self.limits.enforce:
            self._push(batch, 0, len(batch))
            self._observe()
        else:
            _POLICIES[self.limits.policy](self, batch)

    def take(self, most: int) -> bytes:
        """Remove the oldest entries, about `most` bytes but at least one entry, and return them joined, as sent."""
        assert self._entries, "nothing waits: ask `messages` first"
        parts = []
        size = messages = 0
        while self._entries and size < most:
            entry = self._entries.popleft()
            wire = entry.wire()
            parts.append(wire)
            size += len(wire)
            messages += entry.stop - entry.start
        self._settle(messages, size)
        self._backlog.sent(messages, size)
        return parts[0] if len(parts) == 1 else b"".join(parts)

    def discard(self, reason: Drop) -> None:
        """Drop all that waits, for `reason`. Idempotent."""
        if not self.messages:
            return
        oldest = self.oldest
        assert oldest is not None
        self.lost = Loss(self.messages, self.bytes, oldest)
        self._drop(reason, self.messages, self.bytes)
        self._entries = None

    def catch_up(self) -> None:
        """Note that the client keeps up again: the next spell of lagging is a new one."""
        assert not self.messages, "a client that keeps up has taken all"
        self._entries = None
        self.observed = False

    def _push(self, batch: Batch, start: int, stop: int) -> None:
        entry = _Entry(batch, start, stop)
        if self._entries is None:
            self._entries = deque()
        self._entries.append(entry)
        messages, size = stop - start, entry.size()
        self.messages += messages
        self.bytes += size
        self._backlog.messages += messages
        self._backlog.bytes += size

    def _settle(self, messages: int, size: int) -> None:
        self.messages -= messages
        self.bytes -= size
        self._backlog.messages -= messages
        self._backlog.bytes -= size

    def _drop(self, reason: Drop, messages: int, size: int) -> None:
        self._settle(messages, size)
        self._backlog.drop(reason, messages)

    def _is_over(self) -> bool:
        return self.messages > self.limits.messages or self.bytes > self.limits.bytes

    def _observe(self) -> None:
        if not self.observed and self._is_over():
            self.observed = True
            self._backlog.observe(self)

    def _disconnect(self, batch: Batch) -> None:
        self._push(batch, 0, len(batch))
        if self._is_over():
            self.overflowed = True
            self.discard(Drop.DISCONNECTED)
            self._backlog.evictions.append((self, "queue full"))

    def _drop_oldest(self, batch: Batch) -> None:
        self._push(batch, 0, len(batch))
        entries = self._entries
        assert entries is not None
        while self._is_over():
            entry = entries[0]
            self._drop(Drop.QUEUE_FULL, 1, len(entry.batch.frames[entry.start]))
            entry.start += 1
            if entry.start == entry.stop:
                entries.popleft()

    def _drop_newest(self, batch: Batch) -> None:
        room = self.limits.bytes - self.bytes
        most = min(len(batch), self.limits.messages - self.messages)
        stop = 0
        while stop < most and len(batch.frames[stop]) <= room:
            room -= len(batch.frames[stop])
            stop += 1
        if stop:
            self._push(batch, 0, stop)
        self._backlog.drop(Drop.QUEUE_FULL, len(batch) - stop)

    def _conflate(self, batch: Batch) -> None:
        if self._entries:
            stale = [entry for entry in self._entries if entry.batch.channel is batch.channel]
            if stale:
                self._entries = deque(e for e in self._entries if e.batch.channel is not batch.channel)
            for entry in stale:
                self._drop(Drop.CONFLATED, entry.stop - entry.start, entry.size())
        last = len(batch) - 1
        self._backlog.drop(Drop.CONFLATED, last)
        self._push(batch, last, last + 1)
        if self._is_over():
            # The limits are for all channels together: the newest goes, so that each keeps its latest in order.
            assert self._entries is not None
            entry = self._entries.pop()
            self._drop(Drop.QUEUE_FULL, 1, entry.size())


_POLICIES = {
    LagPolicy.DISCONNECT: Outbox._disconnect,
    LagPolicy.DROP_OLDEST: Outbox._drop_oldest,
    LagPolicy.DROP_NEWEST: Outbox._drop_newest,
    LagPolicy.CONFLATE: Outbox._conflate,
}
