"""A node with its hub, and ears on it: clients without a dialect's session, who write down what they hear.

town = Town(ChannelOptions(retention=Retention(10, 300.0)))
ear = town.ear()             # reads JSON; town.ear(RAW), town.ear(JSON._replace(delta=True))
ear.come(since=Position(3, "epoch1"))
town.broker.settle(); town.turn()
ear.seat, ear.heard, ear.position, ear.gaps

An ear that listens with a position keeps its own, as an SDK does, and fails at once when what it hears is not the next.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Hashable
from typing import Any

import orjson

from server.brokers.base import BrokerError
from server.core.backlog import Backlog
from server.core.counters import Counters, Drop
from server.core.history import Position
from server.core.hub import Hub
from server.core.outbox import Outbox
from server.core.publication import Publication
from server.core.subscription import Subscription
from server.dialects.centrifuge import fossil
from server.node.audience import Lane, Reading
from server.node.namespaces import ChannelOptions, Namespaces
from server.node.node import Node, Seat, Unrecovered, Wish
from tests import wire
from tests.fakes import Clock, Loop
from tests.house import fan_out
from tests.late_broker import LateBroker

RAW = Reading()
JSON = Reading("json")
DELTA = Reading("json", delta=True)

_NUMBERED = re.compile(r'"(epoch\d+)-(\d+)"')


def numbered(position: Position) -> bytes:
    """Make a payload that says where in its stream it is, long enough for a delta to be shorter."""
    return b'{"at":"%b-%d","padding":"%b"}' % (position.epoch.encode(), position.offset, b"." * 60)


def place_of(payload: bytes | str) -> Position:
    """Read where in its stream a payload is."""
    found = _NUMBERED.search(payload if isinstance(payload, str) else payload.decode())
    assert found, payload
    return Position(int(found[2]), found[1])


class Ear:
    """A client; its socket takes everything."""

    def __init__(self, town: Town, reading: Reading, channel: str) -> None:
        self.town = town
        self.reading = reading
        self.channel = channel
        self.outbox = Outbox(self, town.node.hub.backlog)
        self.answers: list[Seat | BrokerError | Unrecovered] = []
        self.sinces: list[Position | None] = []  # what each of them is the answer to
        self.subscription: Subscription | None = None
        self.heard: list[Position] = []
        self.news: list[dict[str, Any]] = []  # who came and went
        self.position: Position | None = None
        self.gaps = 0
        self.writes = 0
        self._data = b""  # what a delta goes from
        self._trip = 0  # who left and came again does not wait for what it asked before

    @property
    def seat(self) -> Seat:
        answer = self.answers[-1]
        assert isinstance(answer, Seat), answer
        return answer

    @property
    def is_on(self) -> bool:
        return self.subscription is not None

    def come(self, since: Position | None = None, **wishes: Any) -> None:
        self._trip += 1
        trip = self._trip
        wish = Wish(self.channel, self.reading, self.outbox, self.write, since, **wishes)
        self.town.node.subscribe(wish, lambda answer: self._seated(answer, since, is_wanted=trip == self._trip))

    def go(self) -> None:
        """Leave, or turn back on the way."""
        self._trip += 1
        if self.subscription is not None:
            subscription, self.subscription = self.subscription, None
            self.town.node.unsubscribe(subscription)

    def end(self) -> None:
        self.go()
        self.outbox.discard(Drop.DISCONNECTED)

    def lose_position(self) -> None:
        assert self.subscription is not None, "who is not there, or was told, is not told"
        self.subscription = None
        self.gaps += 1

    def _seated(self, answer: Seat | BrokerError | Unrecovered, since: Position | None, *, is_wanted: bool) -> None:
        if not is_wanted:
            if isinstance(answer, Seat):
                self.town.node.unsubscribe(answer.subscription)
            return
        self.answers.append(answer)
        self.sinces.append(since)
        if not isinstance(answer, Seat):
            return
        self.subscription = answer.subscription
        self._data = b""
        self.position = answer.top
        recovery = answer.recovery
        assert (recovery is None) == (since is None)
        if since is not None and recovery is not None and recovery.recovered and not self.town.is_cache:
            self.position = Position(since.offset, answer.top.epoch)
            for publication in recovery.publications:
                self._hear(place_of(publication.payload), publication.offset)
            assert self.position == answer.top, f"recovered up to {self.position}, not {answer.top}"

    def write(self, data: bytes) -> None:
        self.writes += 1
        for frame in wire.read(data):
            if self.reading.is_raw:
                self.heard.append(place_of(frame.payload))
            else:
                self._take(orjson.loads(frame.payload)["push"])

    def _take(self, push: dict[str, Any]) -> None:
        assert push["channel"] == self.channel
        if "pub" not in push:
            self.news.append(push)
            return
        publication = push["pub"]
        data = publication["data"]
        if self.reading.delta:
            encoded = data.encode()
            self._data = fossil.apply_delta(self._data, encoded) if publication.get("delta") else encoded
            data = orjson.loads(self._data)
        self._hear(place_of(orjson.dumps(data)), publication.get("offset", 0))

    def _hear(self, place: Position, offset: int) -> None:
        assert place.offset == offset or not offset
        if offset:
            assert self.position is not None
            expected = Position(self.position.offset + 1, self.position.epoch)
            assert place == expected, f"heard {place}, not {expected}"
            self.position = place
        self.heard.append(place)


class Town:
    """Node, hub and a late broker, and what they need."""

    def __init__(
        self,
        options: ChannelOptions,
        namespaces: dict[str, ChannelOptions] | None = None,
        *,
        broker: Callable[[Node], Any] = LateBroker,
        is_cache: bool = False,
    ) -> None:
        self.is_cache = is_cache
        self.clock = Clock()
        self.loop = Loop(self.clock)
        self.counters = Counters()
        self.backlog = Backlog(self.counters, 1 << 30, lambda owner: None)
        hub = Hub(
            self.counters,
            self.backlog,
            fan_out=fan_out,
            clock=self.clock,
            call_soon=self.loop.call_soon,
            call_later=self.loop.call_later,
            evict=lambda owner, why: None,
            drain=self._drain,
            gap=self._cut,
            report=_fail,
        )
        self.node = Node(hub, Namespaces(options, namespaces), self.counters, self._declare_gap)
        self.broker = broker(self.node)
        self.node.broker = self.broker

    def ear(self, reading: Reading = JSON, channel: str = "news") -> Ear:
        return Ear(self, reading, channel)

    def say(self, channel: str = "news", *, deliver: bool = False) -> Position:
        """Publish the next numbered publication from elsewhere."""
        retention = self.node.namespaces.of(channel).retention
        stream = self.broker.stream(channel, retention.size)
        self.broker.say(channel, numbered(Position(stream.top + 1, stream.epoch)), retention.size)
        if deliver:
            self.broker.deliver()
        return Position(stream.top, stream.epoch)

    def publish(self, payload: bytes, channel: str = "news", **fields: Any) -> None:
        self.node.publish(channel, Publication(payload, **fields), lambda answer: None)

    def turn(self) -> None:
        self.loop.settle()

    @staticmethod
    def _drain(owner: object) -> None:
        assert isinstance(owner, Ear)
        while owner.outbox.messages:
            owner.write(owner.outbox.take(1 << 20))

    def _cut(self, owner: object, key: Hashable) -> None:
        assert isinstance(key, Lane)
        self.node.cut(owner, key)

    @staticmethod
    def _declare_gap(owner: object, channel: str) -> None:
        assert isinstance(owner, Ear)
        assert owner.channel == channel
        owner.lose_position()


def _fail(report: str) -> None:
    raise AssertionError(report)
