"""Between the broker and the hub: publications go up to the broker, come down in order, and out in every encoding.

Laws:
- everyone who listens with a position hears each publication once, in the order of the offsets, or is told that the
  stream has a gap (`declare_gap`). An offset that was heard already is passed over.
- what is published while a client subscribes is held, and merged with what the broker has kept: nothing falls between.
  It is seated where all the others are; what the broker has beyond that is on its way, and comes to it as to them.
  (A client that is ahead of that, since it comes from a faster node, has not recovered.)
- the broker is asked now and then whether it is ahead: nothing later would tell of a last publication that was lost.
  What is on its way has SECOND_LOOK seconds to come before it counts as lost.

Knows neither sockets nor commands.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Final

from server.brokers.base import Broker, BrokerError, Published, Slice, Stream, Terms
from server.core.counters import Counters
from server.core.frames import encode_frame
from server.core.history import UNRECOVERED, Position, Recovery, judge, judge_cache
from server.core.hub import Hub
from server.core.outbox import Outbox
from server.core.publication import ClientInfo, Publication
from server.core.subscription import Subscription, Write
from server.dialects.centrifuge.replies import Join, Leave
from server.node.audience import CODECS, UNKNOWN, Audience, Held, Lane, Reading
from server.node.namespaces import Namespaces, RecoveryMode
from server.node.revocation_log import REVOKED, RevocationLog

log = logging.getLogger("stentor.node")

# How often the broker is asked whether it is ahead of us, and how often we look again where it was; in seconds.
POSITION_CHECK: Final = 40.0
SECOND_LOOK: Final = 5.0

# Tells the owner of an outbox that the stream of a channel has a gap for it, and that it is off the channel.
DeclareGap = Callable[[object, str], object]


@dataclass(frozen=True, slots=True)
class Wish:
    """A client wants to listen: how, since where (None: it recovers nothing), and with how much to recover at most.

    `most_bytes` are counted as they go out; how many publications it may be is the channel's to say.
    """

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
        # How many publications were heard on each channel; None as long as nobody wants to know.
        self.traffic: dict[str, int] | None = None
        self.broker: Broker  # joined later: the broker wants an ear first
        self.revocations = RevocationLog(lambda: self.broker)
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
        """Put a client on a channel; `done` gets its seat, and nothing is handed to it before.

        A second wish of the same client for the channel, before the first is answered, takes the first one back.
        """
        audience = self.audiences.get(wish.channel)
        if audience is None:
            audience = self.audiences[wish.channel] = Audience(wish.channel, self.namespaces.of(wish.channel))
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
        if audience is None or not audience.is_heard:
            if channel == REVOKED:
                self.revocations.look()
            return True
        if publication.offset and not self._advance(audience, publication, epoch):
            return True
        if self.traffic is not None:
            self.traffic[channel] = self.traffic.get(channel, 0) + 1
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
        if channel is None:
            self.check_positions()
        elif channel == REVOKED:
            self.revocations.look()
        elif channel in self.audiences:
            self._check(self.audiences[channel])

    # Positions

    def check_positions(self) -> None:
        """Ask the broker of every channel with positions whether it is ahead; called every POSITION_CHECK seconds."""
        for audience in list(self.audiences.values()):
            self._check(audience)
        self.revocations.look()

    def check_suspects(self) -> None:
        """Look again at the channels that were behind; called every SECOND_LOOK seconds."""
        for audience in list(self.audiences.values()):
            if audience.suspect is not None:
                self._check_again(audience, audience.suspect)

    def note_top(self, audience: Audience, top: Position) -> None:
        """Compare what was heard here with where the broker says that the stream stands."""
        if audience.suspect is None and audience.is_behind(top):
            audience.suspect = top

    def invalidate(self, audience: Audience) -> None:
        """Tell everyone who listens with a position that the stream has a gap."""
        for held in audience.holds.values():
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
        for held in audience.holds.values():
            held.publications.append(publication)
        return True

    def _check(self, audience: Audience) -> None:
        if audience.has_places:
            self._ask_top(audience, lambda top: self.note_top(audience, top))

    def _check_again(self, audience: Audience, suspect: Position) -> None:
        def compare(top: Position) -> None:
            audience.suspect = None
            if not audience.is_behind(top):
                return
            if top.epoch != suspect.epoch:
                audience.suspect = top  # what was suspected is of no stream any more
            elif audience.is_behind(suspect):
                log.warning("a channel's stream has a gap here: its subscribers are told to recover")
                audience.top = top
                self.invalidate(audience)

        self._ask_top(audience, compare)

    def _ask_top(self, audience: Audience, done: Callable[[Position], object]) -> None:
        """Ask the broker where a stream stands; nobody is told if it cannot say, or if no one listens any more."""

        def answered(answer: Stream | BrokerError) -> None:
            if isinstance(answer, Stream) and self.audiences.get(audience.channel) is audience:
                done(answer.top)

        self.broker.history(audience.channel, audience.options.retention, Slice(limit=0), answered)

    def _tell(self, channel: str, news: Join | Leave) -> None:
        audience = self.audiences.get(channel)
        if audience is None:
            return
        for reading, lane in audience.lanes.items():
            if reading.joins:
                codec = CODECS[reading.codec]
                message = codec.join((codec.encode_push(channel, news),))
                # Where laggards are conflated, the last of each client: it must not take a publication's place.
                self.hub.publish(lane, encode_frame(codec.opcode, message), "\0" + news.info.client)


class _Arrival:
    """A client on its way to a channel: heard from the broker, then placed in the stream, then seated."""

    __slots__ = ("_audience", "_done", "_held", "_node", "_wish")

    def __init__(self, node: Node, audience: Audience, wish: Wish, done: Seated) -> None:
        self._node = node
        self._audience = audience
        self._wish = wish
        self._done = done
        self._held = Held()

    def begin(self) -> None:
        self._audience.holds[self._wish.outbox] = self._held
        self._node.broker.subscribe(self._wish.channel, self._heard)

    def _heard(self, answer: BrokerError | None) -> None:
        audience, wish = self._audience, self._wish
        is_positioned = audience.options.is_positioned
        if isinstance(answer, BrokerError):
            self._fail(answer)
            return
        audience.is_heard = True
        if not is_positioned or (wish.reading.is_raw and audience.top is not UNKNOWN):
            self._seat(UNKNOWN)
        else:
            wanted = Slice(limit=0)
            if wish.since is not None:
                is_cache = audience.options.recovery_mode is RecoveryMode.CACHE
                most = audience.options.recovery_limit
                wanted = (
                    Slice(limit=1, reverse=True) if is_cache else Slice(most, wish.since, most_bytes=wish.most_bytes)
                )
            self._node.broker.history(wish.channel, audience.options.retention, wanted, self._placed)

    def _placed(self, answer: Stream | BrokerError) -> None:
        if isinstance(answer, BrokerError):
            self._fail(answer)
            return
        audience = self._audience
        if audience.top is UNKNOWN:
            audience.top = answer.top
        self._node.note_top(audience, answer.top)
        recovery = self._recover(answer)
        if self._wish.needs_recovery and self._has_lost_its_stream(recovery):
            self._fail(Unrecovered())
        else:
            self._seat(audience.top, recovery)

    def _has_lost_its_stream(self, recovery: Recovery | None) -> bool:
        """Tell if publications were missed for good; where only the latest counts, there are none to miss."""
        is_stream = self._audience.options.recovery_mode is RecoveryMode.STREAM
        return is_stream and recovery is not None and not recovery.recovered

    def _recover(self, stream: Stream) -> Recovery | None:
        """Say what the client has missed, if it asked."""
        wish, top = self._wish, self._audience.top
        if wish.since is None:
            return None
        if self._held.has_gap or stream.top.epoch != top.epoch:
            return UNRECOVERED
        publications = _merge(stream, self._held, top)
        if self._audience.options.recovery_mode is RecoveryMode.CACHE:
            return judge_cache(wish.since, top, publications)
        sizes = partial(CODECS[wish.reading.codec].sizes, delta=wish.reading.delta)
        return judge(wish.since, top, publications, wish.most_bytes, sizes)

    def _seat(self, top: Position, recovery: Recovery | None = None) -> None:
        if not self._is_wanted():
            return
        audience, wish = self._audience, self._wish
        del audience.holds[wish.outbox]
        lane = audience.enter(wish.reading)
        terms = audience.options.terms(with_position=not wish.reading.is_raw)
        subscription = self._node.hub.subscribe(
            lane, wish.outbox, wish.write, terms, skips_pending=not wish.reading.is_raw
        )
        self._done(Seat(subscription, top, recovery))

    def _fail(self, why: BrokerError | Unrecovered) -> None:
        if self._is_wanted():
            del self._audience.holds[self._wish.outbox]
            self._node.forget_if_empty(self._audience)
            self._done(why)

    def _is_wanted(self) -> bool:
        """Tell if the client has not come anew in the meantime; if it has, tell it that it is on its way again."""
        if self._audience.holds.get(self._wish.outbox) is self._held:
            return True
        self._done(BrokerError("the client has asked anew"))
        return False


def _merge(stream: Stream, held: Held, top: Position) -> list[Publication]:
    """Join what the broker has kept, as far as it was heard here, with what came while it answered."""
    kept = [publication for publication in stream.publications if publication.offset <= top.offset]
    return kept + [publication for publication in held.publications if publication.offset > stream.top.offset]
