"""The supervisor's side of the local broker: one memory broker for all workers, and who hears what.

Laws: a publication is encoded once and goes to every worker that hears its channel, in one order; a worker gets the
answer to its own publish after the publication itself. What waits for a worker is bounded: beyond it publications are
dropped and counted, what it asks is left unread, and once there is room the worker is told how much it has lost. Where
a channel is busy at one worker, publishers everywhere wait for their answers, HELD_FOR seconds at most. A worker that
is gone is nowhere present, and those who saw its clients come see them leave. With Redis for a broker nothing of this
is asked; what one worker's clients heard while Redis was away goes to the others.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from functools import lru_cache
from typing import Any, Final

from server.brokers.base import Attendance, BrokerError, Published, Retention, Slice, Stream, Terms
from server.brokers.link import (
    Fields,
    Kind,
    Link,
    encode,
    pack_info,
    pack_publication,
    pack_publications,
    unpack_info,
    unpack_publication,
)
from server.brokers.memory import MemoryBroker
from server.core.history import Position
from server.core.publication import ClientInfo, Publication

# What may wait for one worker. It takes megabytes a second; so much means that it hangs.
MOST_WAITING: Final = 16 * 1024 * 1024
# A worker that is busy for longer than that holds nobody up any more.
HELD_FOR: Final = 1.0


class Subscriber:
    """One worker, as the exchange knows it."""

    def __init__(self, link: Link) -> None:
        self.link = link
        self.channels: set[str] = set()
        self.present: dict[tuple[str, str], ClientInfo] = {}
        self.joined: dict[tuple[str, str], ClientInfo] = {}
        self.busy: dict[str, float] = {}  # channels with more than this worker can hand out, since when
        self.lost = 0  # publications since it was told


class Exchange:
    """See the module. An ear to the memory broker, and its mouth to the workers."""

    def __init__(self, clock: Callable[[], float], wall_clock: Callable[[], float] | None = None) -> None:
        self.broker = MemoryBroker(self, clock, wall_clock=wall_clock)
        self.dropped = 0
        self.gaps = 0
        self._clock = clock
        self._busy_channels: Counter[str] = Counter()  # at how many workers they are
        self._held: dict[str, list[Callable[[], None]]] = {}  # answers to publishers, by busy channel
        self._subscribers: dict[Link, Subscriber] = {}
        self._by_channel: dict[str, dict[Subscriber, None]] = {}

    # Workers

    def enter(self, link: Link) -> None:
        """Serve a worker."""
        self._subscribers[link] = subscriber = Subscriber(link)
        link.on_drained = lambda: self._drained(subscriber)

    def leave(self, link: Link) -> None:
        """Forget a worker, and everyone who was present there. Idempotent."""
        subscriber = self._subscribers.pop(link, None)
        if subscriber is None:
            return
        for channel in list(subscriber.channels):
            self._unsubscribe(subscriber, channel)
        for channel in list(subscriber.busy):
            self._relieve(subscriber, channel)
        for (channel, _), info in subscriber.present.items():
            self.broker.remove_presence(channel, info)
        for (channel, _), info in subscriber.joined.items():
            self.broker.publish_leave(channel, info)

    def take(self, link: Link, kind: Kind, fields: Fields, body: bytes) -> None:
        """Do what a worker asks."""
        if kind is Kind.RELAY:
            self._relay(link, fields, body)
        else:
            _HANDLERS[kind](self, self._subscribers[link], fields, body)
        if link.backlog > MOST_WAITING:
            link.hold()

    def sweep(self) -> None:
        """Do what comes once a second."""
        self.broker.sweep()
        due = self._clock() - HELD_FOR
        for subscriber in self._subscribers.values():
            for channel in [channel for channel, since in subscriber.busy.items() if since <= due]:
                self._relieve(subscriber, channel)

    # From the broker

    def hear(self, channel: str, publication: Publication, epoch: str) -> bool:
        subscribers = self._by_channel.get(channel)
        if subscribers:
            fields = [channel, epoch, pack_publication(publication)]
            self._tell(subscribers, encode(Kind.HEAR, fields, publication.payload))
        return True

    def hear_join(self, channel: str, info: ClientInfo) -> None:
        if subscribers := self._by_channel.get(channel):
            self._tell(subscribers, encode(Kind.JOIN, [channel, pack_info(info)]))

    def hear_leave(self, channel: str, info: ClientInfo) -> None:
        if subscribers := self._by_channel.get(channel):
            self._tell(subscribers, encode(Kind.LEAVE, [channel, pack_info(info)]))

    def lost(self, channel: str | None) -> None:
        raise AssertionError("memory loses nothing")

    def _tell(self, subscribers: Iterable[Subscriber], message: bytes) -> None:
        for subscriber in subscribers:
            link = subscriber.link
            # A message that is larger than all that may wait goes out all the same: nothing would tell when it could.
            if link.backlog > MOST_WAITING:
                self.dropped += 1
                subscriber.lost += 1
            else:
                link.pass_on(message)

    def _drained(self, subscriber: Subscriber) -> None:
        subscriber.link.release()
        if subscriber.lost:
            lost, subscriber.lost = subscriber.lost, 0
            self.gaps += 1
            subscriber.link.say(Kind.LOST, [None, lost])

    # What workers ask

    def _relay(self, link: Link, fields: Fields, message: bytes) -> None:
        """Pass a publication on of which nothing is kept. Nearly all are such: it comes as it is to go out."""
        number, channel = fields
        subscribers = self._by_channel.get(channel)
        if subscribers:
            self._tell(subscribers, message)
        if channel in self._busy_channels:
            self._held.setdefault(channel, []).append(lambda: link.settle(number))
        else:
            link.settle(number)

    def _publish(self, subscriber: Subscriber, fields: Fields, body: bytes) -> None:
        number, channel, publication, size, ttl, key, version, version_epoch = fields

        def done(answer: Published | BrokerError) -> None:
            assert isinstance(answer, Published), "memory can always be reached"
            self._answer(subscriber, channel, [number, "", *answer.position, answer.is_suppressed])

        terms = Terms(_retention(size, ttl), key, version, version_epoch)
        self.broker.publish(channel, unpack_publication(publication, body), terms, done)

    def _answer(self, subscriber: Subscriber, channel: str, said: Fields) -> None:
        if channel in self._busy_channels:
            self._held.setdefault(channel, []).append(lambda: subscriber.link.say(Kind.ANSWER, said))
        else:
            subscriber.link.say(Kind.ANSWER, said)

    def _subscribe(self, subscriber: Subscriber, fields: Fields, body: bytes) -> None:
        number, channel = fields
        subscriber.channels.add(channel)
        self._by_channel.setdefault(channel, {})[subscriber] = None
        self.broker.subscribe(channel, _ignore)
        subscriber.link.say(Kind.ANSWER, [number, ""])

    def _leave_channel(self, subscriber: Subscriber, fields: Fields, body: bytes) -> None:
        self._unsubscribe(subscriber, fields[0])

    def _busy(self, subscriber: Subscriber, fields: Fields, body: bytes) -> None:
        channel, is_busy = fields
        if not is_busy:
            self._relieve(subscriber, channel)
        elif channel in subscriber.channels and channel not in subscriber.busy:
            subscriber.busy[channel] = self._clock()
            self._busy_channels[channel] += 1

    def _relieve(self, subscriber: Subscriber, channel: str) -> None:
        if subscriber.busy.pop(channel, None) is None:
            return
        self._busy_channels[channel] -= 1
        if not self._busy_channels[channel]:
            del self._busy_channels[channel]
            for answer in self._held.pop(channel, ()):
                answer()

    def _tell_neighbours(self, subscriber: Subscriber, fields: Fields, body: bytes) -> None:
        """Pass on what the clients of one worker have heard while Redis, which would bring it to all, was away."""
        others = [other for other in self._subscribers.values() if other is not subscriber]
        self._tell(others, encode(Kind.NEIGHBOUR, fields, body))

    def _probe(self, subscriber: Subscriber, fields: Fields, body: bytes) -> None:
        subscriber.link.say(Kind.ANSWER, [fields[0], ""])

    def _unsubscribe(self, subscriber: Subscriber, channel: str) -> None:
        subscriber.channels.discard(channel)
        self._relieve(subscriber, channel)
        subscribers = self._by_channel.get(channel)
        if subscribers is None:
            return
        subscribers.pop(subscriber, None)
        if not subscribers:
            del self._by_channel[channel]
            self.broker.unsubscribe(channel)

    def _history(self, subscriber: Subscriber, fields: Fields, body: bytes) -> None:
        number, channel, size, ttl, limit, since, reverse, most_bytes = fields
        wanted = Slice(limit, Position(*since) if since is not None else None, reverse, most_bytes)

        def done(answer: Stream | BrokerError) -> None:
            assert isinstance(answer, Stream), "memory can always be reached"
            packed, payloads = pack_publications(answer.publications)
            subscriber.link.say(Kind.ANSWER, [number, "", packed, *answer.top], payloads)

        self.broker.history(channel, Retention(size, ttl), wanted, done)

    def _remove_history(self, subscriber: Subscriber, fields: Fields, body: bytes) -> None:
        number, channel = fields
        self.broker.remove_history(channel, _ignore)
        subscriber.link.say(Kind.ANSWER, [number, ""])

    def _add_presence(self, subscriber: Subscriber, fields: Fields, body: bytes) -> None:
        number, channel, packed = fields
        info = _info(packed)
        subscriber.present[channel, info.client] = info
        self.broker.add_presence(channel, info, _ignore)
        subscriber.link.say(Kind.ANSWER, [number, ""])

    def _remove_presence(self, subscriber: Subscriber, fields: Fields, body: bytes) -> None:
        channel, packed = fields
        info = _info(packed)
        subscriber.present.pop((channel, info.client), None)
        self.broker.remove_presence(channel, info)

    def _presence(self, subscriber: Subscriber, fields: Fields, body: bytes) -> None:
        number, channel = fields

        def done(answer: Mapping[str, ClientInfo] | BrokerError) -> None:
            assert not isinstance(answer, BrokerError), "memory can always be reached"
            subscriber.link.say(Kind.ANSWER, [number, "", [pack_info(info) for info in answer.values()]])

        self.broker.presence(channel, done)

    def _presence_stats(self, subscriber: Subscriber, fields: Fields, body: bytes) -> None:
        number, channel = fields

        def done(answer: Attendance | BrokerError) -> None:
            assert isinstance(answer, Attendance), "memory can always be reached"
            subscriber.link.say(Kind.ANSWER, [number, "", answer.clients, answer.users])

        self.broker.presence_stats(channel, done)

    def _join(self, subscriber: Subscriber, fields: Fields, body: bytes) -> None:
        channel, packed = fields
        info = _info(packed)
        subscriber.joined[channel, info.client] = info
        self.broker.publish_join(channel, info)

    def _leave(self, subscriber: Subscriber, fields: Fields, body: bytes) -> None:
        channel, packed = fields
        info = _info(packed)
        subscriber.joined.pop((channel, info.client), None)
        self.broker.publish_leave(channel, info)


@lru_cache
def _retention(size: int, ttl: float) -> Retention:
    return Retention(size, ttl)


def _info(packed: Fields) -> ClientInfo:
    info = unpack_info(packed)
    assert info is not None, "who is present is somebody"
    return info


def _ignore(answer: object) -> None:
    """What memory does is done."""


_HANDLERS: Final[dict[Kind, Callable[[Exchange, Subscriber, Fields, bytes], Any]]] = {
    Kind.PUBLISH: Exchange._publish,
    Kind.SUBSCRIBE: Exchange._subscribe,
    Kind.UNSUBSCRIBE: Exchange._leave_channel,
    Kind.HISTORY: Exchange._history,
    Kind.REMOVE_HISTORY: Exchange._remove_history,
    Kind.ADD_PRESENCE: Exchange._add_presence,
    Kind.REMOVE_PRESENCE: Exchange._remove_presence,
    Kind.PRESENCE: Exchange._presence,
    Kind.PRESENCE_STATS: Exchange._presence_stats,
    Kind.JOIN: Exchange._join,
    Kind.LEAVE: Exchange._leave,
    Kind.BUSY: Exchange._busy,
    Kind.PROBE: Exchange._probe,
    Kind.NEIGHBOUR: Exchange._tell_neighbours,
}
