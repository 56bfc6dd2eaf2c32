"""Channels, who listens to them, and the fan-out.

A publication joins its channel's batch; the first one of a batch asks for a flush, which comes with the next turn of
the event loop (or after ``batch_delay``). So under light load a publication goes out at once and alone, and under
heavy load every client gets one write per turn, however many publications the turn brought.

Laws:
- per channel, publications go out in the order of `publish`: one flush at a time, the next one after its end.
- no turn writes to more than ``fanout_slice`` clients: accepts, pongs and publishers get their turn in between.
- ``offered = sent + dropped + queued`` after every call. A subscriber counts when its slice is handed out.
- what waits to be flushed is bounded: `publish` says when a channel is congested, and its publishers are to wait.

Effects are injected: `fan_out` (broadcast() in the real server), `clock` in seconds, `call_soon` and `call_later` of
the loop, and `evict`, which gets the owner of an outbox that must go. The hub knows no socket, task or dialect.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable
from typing import Final

from server.core.backlog import Backlog
from server.core.counters import Counters, Drop
from server.core.outbox import Batch, Outbox
from server.core.subscription import OPEN, Subscription, Write, WriteFaults

# One write() of a batch; what is more goes with the next turn. Large enough for one system call to carry a thousand
# publications, small enough that a client that stalls in it holds no more than this beside its outbox.
MAX_BATCH_BYTES: Final = 256 * 1024
# A channel with so much waiting pushes back on its publishers.
CONGESTION_BYTES: Final = 1024 * 1024

FanOut = Callable[[Iterable[Subscription], bytes], object]
Callback = Callable[[], None]


class Channel:
    """Who listens, what waits, and the flush that is under way."""

    __slots__ = (
        "accepted", "batch", "departures", "faults", "flush", "frames", "name", "on_relief", "pending_bytes",
        "subscriptions", "waiting",
    )  # fmt: skip

    def __init__(self, name: str, faults: WriteFaults) -> None:
        self.name = name
        self.faults = faults
        # A dict keeps the order of arrival and forgets from the middle at once.
        self.subscriptions: dict[Subscription, None] = {}
        self.frames: list[bytes] = []
        self.accepted: list[float] = []
        self.pending_bytes = 0
        self.batch: Batch | None = None  # what is being handed out; `Subscription.offer` reads it
        self.flush: _Flush | None = None
        self.waiting = False  # a flush is asked for or under way
        self.departures = 0
        self.on_relief: list[Callback] = []

    @property
    def is_idle(self) -> bool:
        return not (self.subscriptions or self.waiting)

    def take_batch(self) -> Batch:
        """Remove what waits, up to MAX_BATCH_BYTES but at least one publication."""
        frames, accepted = self.frames, self.accepted
        if self.pending_bytes <= MAX_BATCH_BYTES:
            self.frames, self.accepted, self.pending_bytes = [], [], 0
            return Batch(self, frames, accepted)
        size = count = 0
        while count < len(frames) and (not count or size + len(frames[count]) <= MAX_BATCH_BYTES):
            size += len(frames[count])
            count += 1
        self.frames, self.accepted = frames[count:], accepted[count:]
        self.pending_bytes -= size
        return Batch(self, frames[:count], accepted[:count])

    def __repr__(self) -> str:
        return f"<Channel {self.name!r} {len(self.subscriptions)} subscribed, {len(self.frames)} pending>"


class _Flush:
    """One batch on its way to the subscribers that there were when it began."""

    __slots__ = ("batch", "departures", "is_partial", "position", "started", "targets")

    def __init__(self, channel: Channel, started: float) -> None:
        self.batch = channel.take_batch()
        self.is_partial = bool(channel.frames)  # the rest has waited its time, and goes with the next turn
        self.targets = list(channel.subscriptions)
        self.departures = channel.departures
        self.position = 0
        self.started = started


class Hub:
    """Every channel of this process."""

    def __init__(
        self,
        counters: Counters,
        backlog: Backlog,
        *,
        fan_out: FanOut,
        clock: Callable[[], float],
        call_soon: Callable[[Callback], object],
        call_later: Callable[[float, Callback], object],
        evict: Callable[[object, str], object],
        report: Callable[[str], object],
        fanout_slice: int = 512,
        batch_delay: float = 0.0,
    ) -> None:
        self.channels: dict[str, Channel] = {}
        self.counters = counters
        self.backlog = backlog
        self.subscriptions = 0
        self._fan_out = fan_out
        self._clock = clock
        self._call_soon = call_soon
        self._call_later = call_later
        self._evict = evict
        self._faults = WriteFaults(report)
        self._slice = fanout_slice
        self._delay = batch_delay
        self._ready: deque[Channel] = deque()
        self._turn_asked = False

    def subscribe(self, name: str, outbox: Outbox, write: Write) -> Subscription:
        """Put a client on a channel; `write` hands wire bytes to its transport."""
        channel = self.channels.get(name)
        if channel is None:
            channel = self.channels[name] = Channel(name, self._faults)
        subscription = Subscription(channel, outbox, write)
        channel.subscriptions[subscription] = None
        self.subscriptions += 1
        return subscription

    def unsubscribe(self, subscription: Subscription) -> None:
        """Take a client off a channel, at once: nothing is written to it after this. Idempotent."""
        channel = subscription.channel
        if subscription not in channel.subscriptions:
            return
        subscription.close()
        del channel.subscriptions[subscription]
        channel.departures += 1
        self.subscriptions -= 1
        self._forget_if_idle(channel)

    def publish(self, name: str, frame: bytes) -> bool:
        """Say `frame` (wire bytes) on a channel; false when so much waits there that the publisher should pause.

        The publication is accepted either way. A publisher that is told false waits for `on_relief`.
        """
        self.counters.published += 1
        channel = self.channels.get(name)
        if channel is None:
            return True
        channel.frames.append(frame)
        channel.accepted.append(self._clock())
        channel.pending_bytes += len(frame)
        if not channel.waiting:
            self._ask_flush(channel)
        return channel.pending_bytes < CONGESTION_BYTES

    def on_relief(self, name: str, callback: Callback) -> None:
        """Call `callback` once, when the channel is no longer congested: at once if it is not."""
        channel = self.channels.get(name)
        if channel is None or channel.pending_bytes < CONGESTION_BYTES:
            callback()
        else:
            channel.on_relief.append(callback)

    def turn(self) -> None:
        """Hand out what is due, to at most `fanout_slice` clients; called by the loop."""
        self._turn_asked = False
        room = self._slice
        try:
            # Channels that are not through go to the end of the line: a large one does not hold up the others.
            for _ in range(len(self._ready)):
                if room <= 0:
                    break
                channel = self._ready.popleft()
                room -= self._advance(channel, room)
        finally:
            if self._ready:
                self._ask_turn()

    def _ask_flush(self, channel: Channel) -> None:
        channel.waiting = True
        if self._delay:
            self._call_later(self._delay, lambda: self._line_up(channel))
        else:
            self._line_up(channel)

    def _line_up(self, channel: Channel) -> None:
        self._ready.append(channel)
        self._ask_turn()

    def _ask_turn(self) -> None:
        if not self._turn_asked:
            self._turn_asked = True
            self._call_soon(self.turn)

    def _advance(self, channel: Channel, room: int) -> int:
        """Hand the channel's batch to the next `room` clients; return how many that were, at least one."""
        flush = channel.flush
        if flush is None:
            flush = channel.flush = _Flush(channel, self._clock())
        part = flush.targets
        if flush.position or len(part) > room:
            part = part[flush.position : flush.position + room]
        flush.position += len(part)
        try:
            if part:
                self._hand_out(channel, flush, part)
        finally:
            # Whatever happened: a channel that is not asked for again would be silent for ever.
            if flush.position < len(flush.targets):
                self._ready.append(channel)
            else:
                self._finish(channel, flush)
        return len(part) or 1

    def _hand_out(self, channel: Channel, flush: _Flush, part: list[Subscription]) -> None:
        batch, backlog, counters = flush.batch, self.backlog, self.counters
        clients = len(part)
        if channel.departures != flush.departures:
            # Some left since the flush began: broadcast() passes over them, and they were offered nothing.
            clients = sum(1 for subscription in part if subscription.state is OPEN)
        offers, faults = backlog.offers, self._faults.count
        channel.batch = batch
        self._fan_out(part, batch.wire)
        channel.batch = None
        faulty = self._faults.count - faults
        # Whoever neither was offered the batch nor failed to take it was written to.
        written = clients - (backlog.offers - offers) - faulty
        counters.offered += clients * len(batch)
        counters.sent += written * len(batch)
        counters.bytes_sent += written * len(batch.wire)
        counters.dropped[Drop.DISCONNECTED] += faulty * len(batch)
        backlog.enforce_budget()
        for outbox, why in backlog.take_evictions():
            self._evict(outbox.owner, why)

    def _finish(self, channel: Channel, flush: _Flush) -> None:
        now, counters = self._clock(), self.counters
        counters.fanout_duration.observe(now - flush.started)
        counters.batch_messages.observe(len(flush.batch))
        for accepted in flush.batch.accepted:
            counters.publish_to_write.observe(now - accepted)
        channel.flush = None
        if channel.on_relief and channel.pending_bytes < CONGESTION_BYTES:
            callbacks, channel.on_relief = channel.on_relief, []
            for callback in callbacks:
                callback()
        if flush.is_partial:
            self._line_up(channel)
        elif channel.frames:
            self._ask_flush(channel)
        else:
            channel.waiting = False
            self._forget_if_idle(channel)

    def _forget_if_idle(self, channel: Channel) -> None:
        if channel.is_idle:
            self.channels.pop(channel.name, None)
