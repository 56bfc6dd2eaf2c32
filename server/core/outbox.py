"""What one client has not taken yet.

Laws:
- ``messages`` and ``bytes`` are what the entries hold; entries leave in the order in which they came; every message
  that enters the node's backlog leaves it as sent or as dropped, once.
- what a client has gathered is younger than its entries, and becomes entries before anything else is done with it.
- limits hold for all that waits under the same `LagLimits` object, after every `offer`, when they are enforced. What
  `gather` takes is for a client that keeps up: no policy looks at it until the client lags and is offered more.
- batches are shared between all clients: an outbox holds ranges of them, never copies.

The policies themselves are next door, in ``policies``. Knows nothing of sockets: whoever drains it writes.
"""

from __future__ import annotations

import builtins
from collections import deque
from collections.abc import Hashable
from typing import TYPE_CHECKING, NamedTuple, Protocol

from server.core.batch import OLDEST, Batch, Entry
from server.core.counters import Drop

if TYPE_CHECKING:
    from server.core.backlog import Backlog
    from server.core.channel import Channel
    from server.core.lag import LagLimits


class Loss(NamedTuple):
    """What a client's queue held when it was thrown away; `oldest` in seconds of the hub's clock."""

    messages: int
    bytes: int
    oldest: float


class Held(Protocol):
    """How much waits."""

    @property
    def messages(self) -> int: ...

    @property
    def bytes(self) -> int: ...


class _Share:
    """How much waits under one `LagLimits`."""

    __slots__ = ("bytes", "lag", "messages")

    def __init__(self, lag: LagLimits, messages: int, size: int) -> None:
        self.lag = lag
        self.messages = messages
        self.bytes = size


class Outbox:
    """A queue of what one client has not taken yet; empty and tiny while the client keeps up."""

    __slots__ = (
        "_backlog", "_bytes", "_entries", "_lag", "_messages", "_shares", "gathered", "lost", "observed",
        "overflowed", "owner",
    )  # fmt: skip

    def __init__(self, owner: object, backlog: Backlog) -> None:
        self.owner = owner
        self.overflowed = False  # the policy has asked for the client's disconnection
        self.observed = False  # the policy would have acted in this spell of lagging
        self.lost: Loss | None = None  # what was discarded at the end, for whoever asks why the client left
        self._backlog = backlog
        # A deque weighs 760 bytes; nine clients in ten never lag. None when nothing waits.
        self._entries: deque[Entry] | None = None
        self._messages = self._bytes = 0  # of the entries
        # What a client on several channels has gathered since it was last written to: `Backlog.gather` adds to it.
        self.gathered: list[Batch] = []
        # The limits of all that waits; None when nothing does, or when there are several: then each has its share.
        self._lag: LagLimits | None = None
        self._shares: list[_Share] | None = None

    @property
    def is_empty(self) -> bool:
        return self._entries is None and not self.gathered

    @property
    def messages(self) -> int:
        gathered = self.gathered
        return self._messages + sum(map(len, gathered)) if gathered else self._messages

    @property
    def bytes(self) -> int:
        gathered = self.gathered
        return self._bytes + sum(len(batch.wire) for batch in gathered) if gathered else self._bytes

    @property
    def oldest(self) -> float | None:
        """When the oldest waiting message was published; None when nothing waits."""
        if self._entries is None:
            return self.gathered[0].accepted[0] if self.gathered else None
        entry = self._entries[0]
        return entry.batch.accepted[entry.start]

    def offer(self, batch: Batch) -> None:
        """Queue what the limits admit of a batch; the policy decides about the rest."""
        self._backlog.offers += 1
        self._settle()
        if self.overflowed:
            self._backlog.drop(Drop.DISCONNECTED, len(batch))
        elif batch.lag.enforce:
            self._backlog.policies[batch.lag.policy](self, batch)
        else:
            self.push(batch)
            self._observe(batch.lag)

    def gather(self, batch: Batch) -> None:
        """Queue a batch for a client that keeps up, and have the hub drain it at the end of the turn."""
        backlog = self._backlog
        backlog.offers += 1
        if self.overflowed:
            backlog.drop(Drop.DISCONNECTED, len(batch))
        else:
            backlog.gather((self,), batch)

    def take(self, most: int) -> builtins.bytes:
        """Remove the oldest entries, about `most` bytes but at least one entry, and return them joined, as sent."""
        gathered = self.gathered
        if self._entries is None:
            assert gathered, "nothing waits: ask `is_empty` first"
            wire = gathered[0].wire if len(gathered) == 1 else b"".join([batch.wire for batch in gathered])
            if len(wire) <= most:
                self._backlog.written(sum(map(len, gathered)), len(wire))
                self.gathered = []
                return wire
        self._settle()
        assert self._entries
        if self._bytes <= most:
            return self._take_all()
        parts = []
        size = messages = 0
        while self._entries and size < most:
            entry = self._entries.popleft()
            wire = entry.wire()
            parts.append(wire)
            size += len(wire)
            messages += entry.stop - entry.start
            self._count(entry.batch.lag, entry.start - entry.stop, -len(wire))
        self._backlog.sent(messages, size)
        return parts[0] if len(parts) == 1 else b"".join(parts)

    def discard(self, reason: Drop) -> None:
        """Drop all that waits, for `reason`. Idempotent."""
        self._settle()
        if self._entries is None:
            return
        oldest = self.oldest
        assert oldest is not None
        self.lost = Loss(self.messages, self.bytes, oldest)
        self._backlog.drop(reason, self.messages)
        self._clear()

    def discard_channel(self, channel: Channel, reason: Drop) -> None:
        """Drop what waits from one channel, for `reason`. Idempotent."""
        self._settle()
        staying: deque[Entry] = deque()
        for entry in self._entries or ():
            if entry.batch.channel is channel:
                self._drop(entry.batch.lag, reason, len(entry), entry.size())
            else:
                staying.append(entry)
        if staying:
            self._entries = staying

    def catch_up(self) -> None:
        """Note that the client keeps up again: the next spell of lagging is a new one."""
        assert self.is_empty, "a client that keeps up has taken all"
        self.observed = False

    # For the policies

    def held(self, lag: LagLimits) -> Held:
        """Tell how much waits under `lag`, which something waits under; it stays true while this changes."""
        if self._shares is None:
            return self
        return next(share for share in self._shares if share.lag is lag)

    def push(self, batch: Batch) -> None:
        """Queue a batch, whatever the limits say."""
        lag, messages, size = batch.lag, len(batch.frames), len(batch.wire)
        if self._entries is None:
            self._entries = deque()
            self._lag = lag
        elif lag is not self._lag:
            self._share_out(lag)
        self._entries.append(Entry(batch, 0, messages))
        self._count(lag, messages, size)

    def cut(self, lag: LagLimits, reason: Drop, end: int) -> None:
        """Drop from one end, OLDEST or NEWEST, of what waits under `lag` until the rest fits.

        Of a channel that declares its gaps, all is dropped.
        """
        held = self.held(lag)
        while held.messages > lag.messages or held.bytes > lag.bytes:
            entries = self._entries
            assert entries is not None
            place = end if self._shares is None else _place(entries, lag, end)
            entry = entries[place]
            if entry.batch.channel.terms.declares_gaps:
                self.break_off(entry.batch.channel, reason)
                continue
            messages, size = entry.stop - entry.start, entry.size()
            if held.messages - messages >= lag.messages or held.bytes - size >= lag.bytes:
                del entries[place]
            else:
                messages, size = entry.cut(end, held.messages - lag.messages, held.bytes - lag.bytes)
                if entry.start == entry.stop:
                    del entries[place]
            self._drop(lag, reason, messages, size)

    def keep_latest(self, channel: Channel, reason: Drop) -> None:
        """Drop all of a channel but the latest message of each conflation key; all, if it declares its gaps."""
        assert self._entries is not None
        messages = size = 0
        seen: set[Hashable] = set()
        newest_first: list[Entry] = []
        for entry in reversed(self._entries):
            batch = entry.batch
            if batch.channel is not channel:
                newest_first.append(entry)
                continue
            places = entry.latest(seen)
            if len(places) == entry.stop - entry.start:
                newest_first.append(entry)
                continue
            if channel.terms.declares_gaps:
                self.break_off(channel, reason)
                return
            messages += entry.stop - entry.start - len(places)
            size += entry.size()
            for place in reversed(places):
                latest = Entry(batch, place, place + 1)
                newest_first.append(latest)
                size -= latest.size()
        if messages:
            self._entries.clear()
            self._entries.extend(reversed(newest_first))
            self._drop(channel.terms.lag, reason, messages, size)

    def break_off(self, channel: Channel, reason: Drop) -> None:
        """Drop all that waits of a channel, and note that its stream has a gap for this client."""
        self.discard_channel(channel, reason)
        self._backlog.gaps[self, channel] = None

    def overflow(self) -> None:
        """Drop everything, and ask for the client's disconnection."""
        self.overflowed = True
        self.discard(Drop.DISCONNECTED)
        self._backlog.evictions.append((self, "queue full"))

    def _settle(self) -> None:
        """Make entries of what has gathered."""
        gathered = self.gathered
        if gathered:
            self.gathered = []
            for batch in gathered:
                self._backlog.messages -= len(batch)
                self._backlog.bytes -= len(batch.wire)
                self.push(batch)

    def _take_all(self) -> builtins.bytes:
        entries = self._entries
        assert entries is not None
        messages, size = self._messages, self._bytes
        self._forget()
        self._messages = self._bytes = 0
        self._backlog.written(messages, size)
        return entries[0].wire() if len(entries) == 1 else b"".join([entry.wire() for entry in entries])

    def _observe(self, lag: LagLimits) -> None:
        held = self.held(lag)
        if not self.observed and not lag.admit(held.messages, held.bytes):
            self.observed = True
            self._backlog.observe(self)

    def _share_out(self, lag: LagLimits) -> None:
        """Count by limits from now on: what comes is under `lag`, and something else waits already."""
        if self._shares is None:
            assert self._lag is not None
            self._shares = [_Share(self._lag, self._messages, self._bytes)]
            self._lag = None
        if all(share.lag is not lag for share in self._shares):
            self._shares.append(_Share(lag, 0, 0))

    def _count(self, lag: LagLimits, messages: int, size: int) -> None:
        backlog = self._backlog
        self._messages += messages
        self._bytes += size
        backlog.messages += messages
        backlog.bytes += size
        if self._shares is not None:
            for share in self._shares:
                if share.lag is lag:
                    share.messages += messages
                    share.bytes += size
        if not self._messages:
            self._forget()

    def _drop(self, lag: LagLimits, reason: Drop, messages: int, size: int) -> None:
        self._count(lag, -messages, -size)
        self._backlog.drop(reason, messages)

    def _clear(self) -> None:
        self._backlog.messages -= self._messages
        self._backlog.bytes -= self._bytes
        self._messages = self._bytes = 0
        self._forget()

    def _forget(self) -> None:
        self._entries = self._lag = self._shares = None


def _place(entries: deque[Entry], lag: LagLimits, end: int) -> int:
    """Find what waits under `lag` nearest to an end; counted from that end, as an index is."""
    if end == OLDEST:
        return next(place for place, entry in enumerate(entries) if entry.batch.lag is lag)
    return next(-place for place, entry in enumerate(reversed(entries), 1) if entry.batch.lag is lag)
