"""Channels, who listens to them, and the fan-out.

A channel here is those subscribers of a channel that hear it in one encoding, under any key. A publication joins its
batch; the first one of a batch asks for a flush, which comes with the next turn of the event loop (or after the
channel's ``batch_delay``). So under light load a publication goes out at once and alone, and under heavy load every
client gets one write per turn, however many publications the turn brought. Clients on several channels gather: their
batches wait in their outboxes for the end of the turn, and are one write too.

Laws:
- per channel, publications go out in the order of `publish`: one flush at a time, the next one after its end.
- no turn writes to more than ``fanout_slice`` clients, and as many that gathered: accepts, pongs and publishers get
  their turn in between.
- ``offered = sent + dropped + queued`` after every call. A subscriber counts when its slice is handed out.
- what waits to be flushed is bounded: `publish` says when a channel is congested, and its publishers are to wait.
- where a channel declares its gaps, a client that loses a part of the stream is off the channel, and told so.

Effects are injected: `fan_out` (broadcast() in the real server), `clock` in seconds, `call_soon` and `call_later` of
the loop; and, with the owner of an outbox, `evict` (it must go), `drain` (write what waits there) and `gap` (it has
lost a part of the stream of a channel). The hub knows no socket, task or dialect.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Hashable, Iterable
from itertools import islice
from typing import TYPE_CHECKING, Final

from server.core.backlog import Backlog
from server.core.channel import WRITE, Channel, Flush
from server.core.counters import Counters, Drop
from server.core.subscription import OPEN, Subscription, Write, WriteFaults

if TYPE_CHECKING:
    from server.core.batch import Batch
    from server.core.lag import ChannelTerms
    from server.core.outbox import Outbox

# A channel with so much waiting pushes back on its publishers.
CONGESTION_BYTES: Final = 1024 * 1024

FanOut = Callable[[Iterable[Subscription], bytes], object]
Callback = Callable[[], None]


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
        drain: Callable[[object], object],
        gap: Callable[[object, Hashable], object],
        report: Callable[[str], object],
        fanout_slice: int = 512,
    ) -> None:
        self.channels: dict[Hashable, Channel] = {}
        self.counters = counters
        self.backlog = backlog
        self.subscriptions = 0
        self._fan_out = fan_out
        self._clock = clock
        self._call_soon = call_soon
        self._call_later = call_later
        self._evict = evict
        self._drain = drain
        self._gap = gap
        self._faults = WriteFaults(report)
        self._slice = fanout_slice
        self._batch_floor = 0.0
        self._ready: deque[Channel] = deque()
        self._turn_asked = False
        self._drained = 0  # how many that had gathered were let go, written to or not
        # Flushes whose batch is with some who gather, and how many must be let go before it is with nobody any more.
        self._unwritten: deque[tuple[int, Flush]] = deque()

    def subscribe(
        self, key: Hashable, outbox: Outbox, write: Write, terms: ChannelTerms, *, skips_pending: bool = False
    ) -> Subscription:
        """Put a client on a channel; `write` hands wire bytes to its transport.

        The channel lives by the `terms` of its first subscriber. With `skips_pending` the client gets nothing that was
        published before now; otherwise it may get what is still waiting to go out.
        """
        channel = self.channels.get(key)
        if channel is None:
            channel = self.channels[key] = Channel(key, terms, self._faults)
        subscription = Subscription(channel, outbox, write)
        channel.enter(subscription, skips_pending=skips_pending)
        self.subscriptions += 1
        return subscription

    def unsubscribe(self, subscription: Subscription) -> bool:
        """Take a client off a channel, at once: nothing is written to it after this. Idempotent.

        What is queued for it stays (`drop_pending`). False when the client had left already.
        """
        channel = subscription.channel
        if not channel.leave(subscription):
            return False
        subscription.close()
        self.subscriptions -= 1
        self._forget_if_idle(channel)
        return True

    def drop_pending(self, subscription: Subscription) -> None:
        """Drop what is queued for a client from this channel, and from no other. Idempotent, in any state."""
        subscription.outbox.discard_channel(subscription.channel, Drop.DISCONNECTED)

    def subscribers(self, key: Hashable) -> list[Subscription]:
        """Return who is on a channel now, in the order of arrival."""
        channel = self.channels.get(key)
        return list(channel.subscriptions.values()) if channel is not None else []

    def publish(self, key: Hashable, frame: bytes, conflation_key: str | None = None) -> bool:
        """Say `frame` (wire bytes) on a channel; false when so much waits there that the publisher should pause.

        The publication is accepted either way. A publisher that is told false waits for `on_relief`. Where laggards
        are conflated, they get the latest publication of each `conflation_key`.
        """
        channel = self.channels.get(key)
        if channel is None:
            return True
        channel.add(frame, self._clock(), conflation_key)
        if not channel.waiting:
            self._ask_flush(channel)
        return channel.pending_bytes < CONGESTION_BYTES

    def is_congested(self, key: Hashable) -> bool:
        """Tell if publishers on a channel should pause."""
        channel = self.channels.get(key)
        return channel is not None and channel.pending_bytes >= CONGESTION_BYTES

    def on_relief(self, key: Hashable, callback: Callback) -> None:
        """Call `callback` once, when the channel is no longer congested: at once if it is not."""
        if self.is_congested(key):
            self.channels[key].on_relief.append(callback)
        else:
            callback()

    def shed(self, *, batch_floor: float, spare: bool, share: float) -> None:
        """Do less from now on: gather publications for `batch_floor` seconds at least, and as `Backlog.shed`.

        With 0, False and 1 all is as ever.
        """
        self._batch_floor = batch_floor
        self.backlog.shed(spare=spare, share=share)
        self._act_on_lag()

    def turn(self) -> None:
        """Hand out what is due, to at most `fanout_slice` clients; called by the loop."""
        self._turn_asked = False
        room = self._slice * WRITE
        try:
            # Channels that are not through go to the end of the line: a large one does not hold up the others.
            for _ in range(len(self._ready)):
                if room < WRITE:
                    break
                channel = self._ready.popleft()
                room -= self._advance(channel, room)
            self._drain_gathered()
        finally:
            if self._ready or self.backlog.dirty:
                self._ask_turn()

    def _ask_flush(self, channel: Channel) -> None:
        channel.waiting = True
        delay = max(channel.terms.batch_delay, self._batch_floor)
        if delay:
            self._call_later(delay, lambda: self._line_up(channel))
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
        """Hand the channel's batch to as many as there is `room` for; return what it took, WRITE at least."""
        flush = channel.flush
        if flush is None:
            flush = channel.flush = Flush(channel, self._clock())
        left = room
        try:
            while left >= WRITE and not flush.is_through:
                batch, part, cost = flush.take_part(left)
                left -= cost
                self._hand_out(flush, batch, part)
        finally:
            # Whatever happened: a channel that is not asked for again would be silent for ever.
            if flush.is_through:
                self._finish(channel, flush)
            else:
                self._ready.append(channel)
        return max(room - left, WRITE)

    def _hand_out(self, flush: Flush, batch: Batch, part: list[Subscription]) -> None:
        channel, backlog, counters = flush.channel, self.backlog, self.counters
        clients = len(part)
        if channel.departures != flush.departures:
            # Since the flush began: broadcast() passes over them, and they were offered nothing.
            clients = sum(1 for subscription in part if subscription.state is OPEN)
        offers, faults = backlog.offers, self._faults.count
        gathered = 0
        if channel.gatherers:
            gathering = [each.outbox for each in part if each.gathers and not each.lags]
            gathered = len(gathering)
            backlog.gather(gathering, batch)
            flush.is_gathered |= gathered > 0
            part = [] if gathered == len(part) else [each for each in part if each.lags or not each.gathers]
        channel.batch = batch
        self._fan_out(part, batch.wire)
        channel.batch = None
        faulty = self._faults.count - faults
        # Whoever neither gathers, nor was offered the batch, nor failed to take it was written to.
        written = clients - gathered - (backlog.offers - offers) - faulty
        counters.offered += clients * len(batch)
        counters.sent += written * len(batch)
        counters.bytes_sent += written * len(batch.wire)
        counters.dropped[Drop.DISCONNECTED] += faulty * len(batch)
        self._act_on_lag()

    def _act_on_lag(self) -> None:
        """Send away whom budget and policies say, and take those off a channel who have lost a part of its stream."""
        backlog = self.backlog
        backlog.enforce_budget()
        for outbox, why in backlog.take_evictions():
            self._evict(outbox.owner, why)
        for outbox, channel in backlog.take_gaps():
            subscription = channel.subscriptions.get(outbox)
            if subscription is not None:
                self.unsubscribe(subscription)
                self._gap(outbox.owner, channel.key)

    def _drain_gathered(self) -> None:
        """Write what has been gathered, for at most `fanout_slice` clients, the longest waiting first."""
        dirty, laggards = self.backlog.dirty, self.backlog.laggards
        if not dirty:
            return
        for outbox in list(islice(dirty, self._slice)):
            del dirty[outbox]
            self._drained += 1
            # Who has left or has come to lag meanwhile is no longer the hub's to drain.
            if not outbox.is_empty and outbox not in laggards:
                self._drain(outbox.owner)
        self._act_on_lag()
        while self._unwritten and self._unwritten[0][0] <= self._drained:
            self._observe(self._unwritten.popleft()[1])

    def _finish(self, channel: Channel, flush: Flush) -> None:
        if flush.is_gathered:
            self._unwritten.append((self._drained + len(self.backlog.dirty), flush))
        else:
            self._observe(flush)
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

    def _observe(self, flush: Flush) -> None:
        """Count a flush whose last client was written to."""
        now, counters = self._clock(), self.counters
        counters.fanout_duration.observe(now - flush.started)
        counters.batch_messages.observe(len(flush.batch))
        for accepted in flush.batch.accepted:
            counters.publish_to_write.observe(now - accepted)

    def _forget_if_idle(self, channel: Channel) -> None:
        if channel.is_idle:
            self.channels.pop(channel.key, None)
