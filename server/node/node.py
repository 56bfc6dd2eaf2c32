"""Between the broker and the hub: publications go up to the broker, come down in order, and out in every encoding.

Laws:
- everyone who listens with a position hears each publication once, in the order of the offsets, or is told that the
  stream has a gap (`declare_gap`). An offset that was heard already is passed over.
- what is published while a client subscribes is held, and merged with what the broker has kept: nothing falls between.
- the broker is asked now and then whether it is ahead: nothing later would tell of a last publication that was lost.

Knows neither sockets nor commands.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Final

from server.brokers.base import Broker, BrokerError, Published, Slice, Stream, Terms
from server.core.counters import Counters
from server.core.frames import encode_frame
from server.core.history import Position, Recovery, judge, judge_cache
from server.core.hub import Hub
from server.core.outbox import Outbox
from server.core.publication import ClientInfo, Publication
from server.core.subscription import Subscription, Write
from server.dialects.centrifuge.replies import Join, Leave
from server.node.audience import CODECS, UNKNOWN, Audience, Held, Lane, Reading
from server.node.namespaces import Namespaces, RecoveryMode

log = logging.getLogger("stentor.node")

# How often the broker is asked whether it is ahead of us, and how soon again when it was; in seconds.
POSITION_CHECK: Final = 40.0
SECOND_LOOK: Final = 5.0


# Tells the owner of an outbox that the stream of a channel has a gap for it, and that it is off the channel.
DeclareGap = Callable[[object, str], object]


@dataclass(frozen=True, slots=True)
class Wish:
    """A client wants to listen: how, since where (None: it recovers nothing), and with how much to recover at most."""

    channel: str
    reading: Reading
    outbox: Outbox
    write: Write
    since: Position | None = None
    most_bytes: int | None = None
    # Rather no subscription than one that could not recover.
    needs_recovery: bool = False


@dataclass(frozen=True, slots=True)
class Seat:
    """A client listens: `top` is where the stream stands for it, `recovery` what it has missed, if it asked."""

    subscription: Subscription
    top: Position
    recovery: Recovery | None = None


class Unrecovered(Exception):
    """The wish needed what could not be recovered."""


Seated = Callable[[Seat | BrokerError | Unrecovered], object]


class Node:
    """All channels, as seen from this process."""

    def __init__(self, hub: Hub, namespaces: Namespaces, counters: Counters, declare_gap: DeclareGap) -> None:
        self.hub = hub
        self.namespaces = namespaces
        self.audiences: dict[str, Audience] = {}
        self.broker: Broker  # joined later: the broker wants an ear first
        self._counters = counters
        self._declare_gap = declare_gap

    # Publishing

    def publish(
        self,
        channel: str,
        publication: Publication,
        done: Callable[[Published | BrokerError], object],
        terms: Terms | None = None,
    ) -> None:
        """Publish on a channel, by its own rules unless `terms` says otherwise."""
        self._counters.published += 1
        self.broker.publish(channel, publication, terms or self.namespaces.of(channel).publishing, done)

    def on_relief(self, channel: str, callback: Callable[[], None]) -> None:
        """Call `callback` once, when nothing of the channel is congested any more: at once if so now."""
        audience = self.audiences.get(channel)
        for lane in audience.lanes.values() if audience is not None else ():
            if self.hub.is_congested(lane):
                self.hub.on_relief(lane, lambda: self.on_relief(channel, callback))
                return
        callback()

    # Listening

    def subscribe(self, wish: Wish, done: Seated) -> None:
        """Put a client on a channel; `done` gets its seat, and nothing is handed to it before."""
        audience = self.audiences.get(wish.channel)
        if audience is None:
            audience = self.audiences[wish.channel] = Audience(wish.channel, self.namespaces.of(wish.channel))
        audience.waiting += 1
        _Arrival(self, audience, wish, done).begin()

    def unsubscribe(self, subscription: Subscription) -> None:
        """Take a client off a channel, and drop what waits for it from there. Idempotent."""
        self.hub.drop_pending(subscription)
        self.leave(subscription)

    def leave(self, subscription: Subscription) -> None:
        """Take a client off a channel; what is queued for it stays. Idempotent."""
        lane = subscription.channel.key
        assert isinstance(lane, Lane)
        if not self.hub.unsubscribe(subscription):
            return
        audience = self.audiences[lane.channel]
        audience.leave(lane.reading)
        self.forget_if_empty(audience)

    def forget_if_empty(self, audience: Audience) -> None:
        """Let go of a channel that nobody here listens to."""
        if audience.is_empty and self.audiences.get(audience.channel) is audience:
            del self.audiences[audience.channel]
            self.broker.unsubscribe(audience.channel)

    def listeners(self, channel: str) -> Iterator[tuple[Lane, object]]:
        """Yield everyone on a channel here: their lane, and the owner of their outbox."""
        audience = self.audiences.get(channel)
        for lane in list(audience.lanes.values()) if audience is not None else ():
            for subscription in self.hub.subscribers(lane):
                yield lane, subscription.outbox.owner

    # From the broker: it has us for an ear

    def hear(self, channel: str, publication: Publication, epoch: str) -> bool:
        """Hand a publication to everyone who listens here."""
        audience = self.audiences.get(channel)
        if audience is None:
            return True
        if publication.offset and not self._advance(audience, publication, epoch):
            return True
        key = publication.tags.get("key") if publication.tags else None
        keeps_up = True
        publish = self.hub.publish
        for lane, frame in audience.frames(publication):
            if not publish(lane, frame, key):
                keeps_up = False
        return keeps_up

    def hear_join(self, channel: str, info: ClientInfo) -> None:
        self._tell(channel, Join(info))

    def hear_leave(self, channel: str, info: ClientInfo) -> None:
        self._tell(channel, Leave(info))

    def lost(self, channel: str | None) -> None:
        """Check the position of everyone on `channel`, or on all: something may be missing."""
        if channel is not None:
            audience = self.audiences.get(channel)
            if audience is not None:
                self._check(audience, is_last_word=True)
            return
        for audience in list(self.audiences.values()):
            self._check(audience, is_last_word=True)

    # Positions

    def check_positions(self) -> None:
        """Ask the broker of every channel with positions whether it is ahead; called every POSITION_CHECK seconds."""
        for audience in list(self.audiences.values()):
            self._check(audience)

    def check_suspects(self) -> None:
        """Look again at the channels that were behind; called SECOND_LOOK seconds after `check_positions`."""
        for audience in list(self.audiences.values()):
            if audience.is_suspect:
                self._check(audience, is_last_word=True)

    def invalidate(self, audience: Audience) -> None:
        """Tell everyone who listens with a position that the stream has a gap."""
        for held in audience.holds:
            held.has_gap = True
        for lane in list(audience.lanes.values()):
            if lane.reading.is_raw:
                continue
            for subscription in self.hub.subscribers(lane):
                self.unsubscribe(subscription)
                self._declare_gap(subscription.outbox.owner, audience.channel)

    def cut(self, owner: object, lane: Lane) -> None:
        """Learn from the hub that a lag policy has cut a stream: the client is off the channel, and is told."""
        audience = self.audiences[lane.channel]
        audience.leave(lane.reading)
        self.forget_if_empty(audience)
        self._declare_gap(owner, lane.channel)

    def _advance(self, audience: Audience, publication: Publication, epoch: str) -> bool:
        """Move the position on; false when this was heard before."""
        top = audience.top
        if top is not UNKNOWN and (epoch != top.epoch or publication.offset != top.offset + 1):
            if epoch == top.epoch and publication.offset <= top.offset:
                return False
            self.invalidate(audience)
        audience.top = Position(publication.offset, epoch)
        for held in audience.holds:
            held.publications.append(publication)
        return True

    def _check(self, audience: Audience, *, is_last_word: bool = False) -> None:
        retention = audience.options.retention
        if not retention.keeps or audience.top is UNKNOWN:
            return

        def compare(answer: Stream | BrokerError) -> None:
            if isinstance(answer, BrokerError) or self.audiences.get(audience.channel) is not audience:
                return
            ahead = answer.top.epoch != audience.top.epoch or answer.top.offset > audience.top.offset
            if ahead and is_last_word:
                log.warning("a channel's stream has a gap here: its subscribers are told to recover")
                audience.top = answer.top
                self.invalidate(audience)
            audience.is_suspect = ahead and not is_last_word

        self.broker.history(audience.channel, retention, Slice(limit=0), compare)

    def _tell(self, channel: str, news: Join | Leave) -> None:
        audience = self.audiences.get(channel)
        if audience is None:
            return
        for reading, lane in audience.lanes.items():
            if reading.joins:
                codec = CODECS[reading.codec]
                message = codec.join((codec.encode_push(channel, news),))
                self.hub.publish(lane, encode_frame(codec.opcode, message))


class _Arrival:
    """A client on its way to a channel: heard from the broker, then placed in the stream, then seated."""

    __slots__ = ("_audience", "_done", "_held", "_node", "_wish")

    def __init__(self, node: Node, audience: Audience, wish: Wish, done: Seated) -> None:
        self._node = node
        self._audience = audience
        self._wish = wish
        self._done = done
        self._held = Held([])

    def begin(self) -> None:
        self._audience.holds.append(self._held)
        self._node.broker.subscribe(self._wish.channel, self._heard)

    def _heard(self, answer: BrokerError | None) -> None:
        audience, wish = self._audience, self._wish
        if isinstance(answer, BrokerError):
            self._fail(answer)
        elif wish.reading.is_raw or not audience.options.is_positioned:
            self._done(Seat(self._sit(), UNKNOWN))
        else:
            wanted = Slice(limit=0)
            if wish.since is not None:
                is_cache = audience.options.recovery_mode is RecoveryMode.CACHE
                wanted = Slice(limit=1, reverse=True) if is_cache else Slice(since=wish.since)
            self._node.broker.history(wish.channel, audience.options.retention, wanted, self._placed)

    def _placed(self, answer: Stream | BrokerError) -> None:
        if isinstance(answer, BrokerError):
            self._fail(answer)
            return
        audience, wish, held = self._audience, self._wish, self._held
        top, publications = _merge(answer, held)
        if audience.top is UNKNOWN:
            audience.top = top
        recovery = None
        if wish.since is not None:
            if held.has_gap:
                recovery = Recovery(False)
            elif audience.options.recovery_mode is RecoveryMode.CACHE:
                recovery = judge_cache(wish.since, top, publications)
            else:
                recovery = judge(wish.since, top, publications, wish.most_bytes)
            if wish.needs_recovery and not recovery.recovered:
                self._fail(Unrecovered())
                return
        self._done(Seat(self._sit(), top, recovery))

    def _sit(self) -> Subscription:
        audience, wish, node = self._audience, self._wish, self._node
        audience.holds.remove(self._held)
        audience.waiting -= 1
        lane = audience.enter(wish.reading)
        terms = audience.options.terms(with_position=not wish.reading.is_raw)
        return node.hub.subscribe(lane, wish.outbox, wish.write, terms, skips_pending=not wish.reading.is_raw)

    def _fail(self, why: BrokerError | Unrecovered) -> None:
        self._audience.holds.remove(self._held)
        self._audience.waiting -= 1
        self._node.forget_if_empty(self._audience)
        self._done(why)


def _merge(stream: Stream, held: Held) -> tuple[Position, tuple[Publication, ...]]:
    """Join what the broker has kept with what came while it answered."""
    newer = [publication for publication in held.publications if publication.offset > stream.top.offset]
    if not newer:
        return stream.top, stream.publications
    return Position(newer[-1].offset, stream.top.epoch), (*stream.publications, *newer)
