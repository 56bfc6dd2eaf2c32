"""A worker's side of the broker that the supervisor holds: the memory broker next door, over a Unix socket.

Laws: offsets, history and presence come from one place; what this worker publishes comes back to it as to all others,
in one order, before the answer. What waits to be sent is bounded: beyond it, and when the link is gone, everything is
answered with a BrokerError. A channel that has more than can be handed out here is said to be busy, and when it is not
any more. Knows the link and its messages; the other side is `supervisor.exchange`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final

from server.brokers.base import Attendance, BrokerError, Done, Ear, Published, Retention, Slice, Stream, Terms
from server.brokers.link import (
    Fields,
    Kind,
    Link,
    encode,
    pack_info,
    pack_publication,
    unpack_info,
    unpack_publication,
    unpack_publications,
)
from server.core.counters import SECONDS, Histogram
from server.core.history import Position
from server.core.publication import ClientInfo, Publication

Read = Callable[[Fields, bytes], Any]
# Calls back, once, when a channel that was congested is not any more.
OnRelief = Callable[[str, Callable[[], None]], None]

# What may wait for the supervisor. It takes megabytes a second; so much means that it hangs.
MOST_WAITING: Final = 16 * 1024 * 1024


class LocalBroker:
    """See the module and `base.Broker`; `link` is open, and gives what it receives to `take`.

    `lag` is how long a question and its answer take, in seconds.
    """

    def __init__(self, ear: Ear, link: Link, on_relief: OnRelief, clock: Callable[[], float]) -> None:
        self._ear = ear
        self._link = link
        self._asked: dict[int, tuple[Read, Done[Any]]] = {}
        self._number = 0
        self._on_relief = on_relief
        self._clock = clock
        self._congested: set[str] = set()
        self._is_probing = False
        self.lag = Histogram(SECONDS)
        self.reconnects = 0  # without its supervisor a worker ends
        self.gaps = 0
        self.lost = 0

    @property
    def is_up(self) -> bool:
        return self._link.is_open

    def sweep(self) -> None:
        """Measure how long the supervisor takes to answer."""
        if self._is_probing or not self.is_up:
            return
        self._is_probing = True
        asked = self._clock()

        def done(answer: BrokerError | None) -> None:
            self._is_probing = False
            self.lag.observe(self._clock() - asked)

        self._ask(Kind.PROBE, [], _nothing, done)

    def take(self, kind: Kind, fields: Fields, body: bytes) -> None:
        """Take a message of the supervisor's."""
        if kind is Kind.HEAR:
            channel, epoch, publication = fields
            if not self._ear.hear(channel, unpack_publication(publication, body), epoch):
                self._note_congestion(channel)
        elif kind is Kind.ANSWER:
            read, done = self._asked.pop(fields[0])
            done(BrokerError(fields[1]) if fields[1] else read(fields[2:], body))
        elif kind is Kind.DONE:
            for number in fields:
                read, done = self._asked.pop(number)
                done(read(_NOTHING_KEPT, b""))
        elif kind is Kind.LOST:
            self.gaps += 1
            self.lost += fields[1]
            self._ear.lost(fields[0])
        else:
            tell = self._ear.hear_join if kind is Kind.JOIN else self._ear.hear_leave
            info = unpack_info(fields[1])
            assert info is not None, "who comes or goes is somebody"
            tell(fields[0], info)

    def end(self) -> None:
        """Answer all that is still asked: nobody else will. Idempotent."""
        asked, self._asked = self._asked, {}
        for _, done in asked.values():
            done(BrokerError("the supervisor is gone"))

    # What base.Broker asks

    def publish(self, channel: str, publication: Publication, terms: Terms, done: Done[Published]) -> None:

        def read(answer: Fields, _: bytes) -> Published:
            offset, epoch, is_suppressed = answer
            return Published(Position(offset, epoch), is_suppressed, channel not in self._congested)

        retention = terms.retention
        if not (terms.idempotency_key or (retention.size > 0 and retention.ttl > 0)):
            # It goes on as it is.
            message = encode(Kind.HEAR, [channel, "", pack_publication(publication)], publication.payload)
            self._ask(Kind.RELAY, [channel], read, done, message)
            return
        fields = [
            channel, pack_publication(publication), retention.size, retention.ttl, terms.idempotency_key, terms.version,
            terms.version_epoch,
        ]  # fmt: skip
        self._ask(Kind.PUBLISH, fields, read, done, publication.payload)

    def publish_join(self, channel: str, info: ClientInfo) -> None:
        self._link.say(Kind.JOIN, [channel, pack_info(info)])

    def publish_leave(self, channel: str, info: ClientInfo) -> None:
        self._link.say(Kind.LEAVE, [channel, pack_info(info)])

    def subscribe(self, channel: str, done: Done[None]) -> None:
        self._ask(Kind.SUBSCRIBE, [channel], _nothing, done)

    def unsubscribe(self, channel: str) -> None:
        self._link.say(Kind.UNSUBSCRIBE, [channel])

    def history(self, channel: str, retention: Retention, wanted: Slice, done: Done[Stream]) -> None:
        since = list(wanted.since) if wanted.since is not None else None
        fields = [
            channel, retention.size, retention.ttl, wanted.limit, since, wanted.reverse, wanted.most_bytes,
        ]  # fmt: skip
        self._ask(Kind.HISTORY, fields, _stream, done)

    def remove_history(self, channel: str, done: Done[None]) -> None:
        self._ask(Kind.REMOVE_HISTORY, [channel], _nothing, done)

    def add_presence(self, channel: str, info: ClientInfo, done: Done[None]) -> None:
        self._ask(Kind.ADD_PRESENCE, [channel, pack_info(info)], _nothing, done)

    def remove_presence(self, channel: str, info: ClientInfo) -> None:
        self._link.say(Kind.REMOVE_PRESENCE, [channel, pack_info(info)])

    def presence(self, channel: str, done: Done[Mapping[str, ClientInfo]]) -> None:
        self._ask(Kind.PRESENCE, [channel], _present, done)

    def presence_stats(self, channel: str, done: Done[Attendance]) -> None:
        self._ask(Kind.PRESENCE_STATS, [channel], lambda answer, _: Attendance(*answer), done)

    def _note_congestion(self, channel: str) -> None:
        if channel in self._congested:
            return
        self._congested.add(channel)
        self._link.say(Kind.BUSY, [channel, True])

        def relieved() -> None:
            self._congested.discard(channel)
            self._link.say(Kind.BUSY, [channel, False])

        self._on_relief(channel, relieved)

    def _ask(self, kind: Kind, fields: Fields, read: Read, done: Done[Any], body: bytes = b"") -> None:
        if not self._link.is_open:
            done(BrokerError("the supervisor is gone"))
            return
        if self._link.backlog > MOST_WAITING:
            done(BrokerError("the supervisor does not keep up"))
            return
        self._number += 1
        self._asked[self._number] = (read, done)
        self._link.say(kind, [self._number, *fields], body)


# The answer to what has no place in a stream.
_NOTHING_KEPT: Final[Fields] = [0, "", False]


def _nothing(answer: Fields, body: bytes) -> None:
    return None


def _stream(answer: Fields, body: bytes) -> Stream:
    packed, offset, epoch = answer
    return Stream(unpack_publications(packed, body), Position(offset, epoch))


def _present(answer: Fields, body: bytes) -> Mapping[str, ClientInfo]:
    infos = [unpack_info(fields) for fields in answer[0]]
    return {info.client: info for info in infos if info is not None}
