"""The broker between machines: Redis orders, keeps and carries what is published; a channel belongs to one shard.

Which shard that is, a layout knows: the shards that were named, or the primaries of a Redis Cluster.

Laws: those of `base.Broker`, and
- while Redis is away, publications without history or key are heard by this server's own subscribers, those of its
  other processes too (`tell_neighbours`), and their publishers get a BrokerError (others did not hear them); all else
  is refused, and nothing is heard of it. Every answer comes within two seconds.
- while Redis refuses what is written, it is not up, and `trouble` says why; publications without history or key flow.
- whoever was deaf is told (`Ear.lost`) once Redis is back and everything is subscribed again.

Knows neither clients nor the hub. Redis keeps the order of what one connection publishes, and so do we.
"""

from __future__ import annotations

import asyncio
import random
import secrets
import time
from binascii import b2a_base64
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from itertools import count
from typing import Any, Final

from server.brokers.base import Attendance, BrokerError, Done, Ear, Published, Retention, Slice, Stream, Terms
from server.brokers.redis import scripts
from server.brokers.redis.address import Address
from server.brokers.redis.cluster import Cluster
from server.brokers.redis.connection import Reply
from server.brokers.redis.layout import Fixed, Layout
from server.brokers.redis.message import ORIGIN_LENGTH, Kind, Malformed, decode_info, decode_kept, encode_info
from server.brokers.redis.nodes import Nodes
from server.brokers.redis.present import Present
from server.brokers.redis.publisher import meta_ttl, ms
from server.brokers.redis.shard import Pace, Shard
from server.core.counters import SECONDS, Histogram
from server.core.history import Position
from server.core.publication import ClientInfo, Publication

# How often what is due is looked for, in seconds.
_TICK: Final = 0.25
# Clients of one channel whose presence one command refreshes.
_CLIENTS: Final = 100
# Offsets are counted in Lua's numbers, which are exact up to here.
_MOST_OFFSET: Final = 1 << 53
_luck: Final = random.Random()
_UNUSED_MS: Final = ms(scripts.UNUSED_TTL)


class RedisBroker:
    """See the module and `base.Broker`; made, started and stopped in the event loop that it lives in.

    What is kept is dated by `wall_clock` (Unix time).
    """

    def __init__(
        self,
        addresses: Sequence[Address],
        ear: Ear,
        *,
        pace: Pace | None = None,
        new_epoch: Callable[[], str] | None = None,
        wall_clock: Callable[[], float] = time.time,
    ) -> None:
        pace = pace or Pace()
        loop = asyncio.get_running_loop()
        self.lag = Histogram(SECONDS)
        self.tell_neighbours: Callable[[str, bytes], object] = _nobody
        self._ear = ear
        self._clock = loop.time
        self._call_later = loop.call_later
        self._came_up = asyncio.Event()
        self._timer: asyncio.TimerHandle | None = None
        self._presence_ttl = ms(pace.presence_ttl)
        self._present = Present(pace.presence_ttl / 3)
        make = partial(
            Shard,
            ear=ear,
            hear_control=self._hear_control,
            origin=secrets.token_bytes(ORIGIN_LENGTH),
            serials=count(1).__next__,
            lag=self.lag,
            pace=pace,
            clock=loop.time,
            call_soon=loop.call_soon,
            new_epoch=new_epoch or _fresh_epoch,
            wall_clock=wall_clock,
            came_up=self._shard_came_up,
            lost=self._shard_lost,
            tell_neighbours=lambda channel, said: self.tell_neighbours(channel, said),
        )
        self._layout: Layout
        if addresses[0].in_cluster:
            self._layout = Cluster(addresses, make, patience=pace.patience, clock=loop.time, call_later=loop.call_later)
        else:
            self._layout = Fixed(addresses, make)
        self.switchboard: Nodes = Nodes(self._layout, loop.time)

    async def start(self, patience: float = 2.0) -> bool:
        """Begin to connect, and wait a moment for it; tell if the broker is up. If not, it goes on trying."""
        self._layout.start()
        if self._timer is None:
            self._tick()
        try:
            await asyncio.wait_for(self._came_up.wait(), patience)
        except TimeoutError:
            pass  # the log says why
        return self.is_up

    async def stop(self) -> None:
        """Let what was asked for go out, and end the connections. Idempotent."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self.switchboard.leave()
        await self._layout.stop()

    def hear_neighbour(self, channel: str, said: bytes) -> None:
        """Hear what a neighbour's clients heard without Redis, unless Redis has brought it."""
        self._layout.place(channel).hear(channel, said)

    def sweep(self) -> None:
        """Tell Redis again who is present, lest it forgets them; to be called once a second."""
        for channel, infos in self._present.take(self._clock()):
            for start in range(0, len(infos), _CLIENTS):
                self._note(channel, infos[start : start + _CLIENTS], _ignore)
        self.switchboard.sweep()

    # For metrics

    @property
    def is_up(self) -> bool:
        """Tell if every shard can be reached, is heard, and takes what is written."""
        return self._layout.is_up and not any(shard.trouble for shard in self._layout.shards)

    @property
    def trouble(self) -> str:
        """Say why it is not up, in words that name the first shard that is not; "" if it is."""
        for shard in self._layout.shards:
            if trouble := shard.trouble:
                return trouble
        return "" if self._layout.is_up else "no map of the Redis Cluster that has all slots"

    @property
    def reconnects(self) -> int:
        """How many connections were made anew."""
        return self._layout.reconnects

    @property
    def gaps(self) -> int:
        """How many times a shard was not heard for a while, so that something may have been lost."""
        return self._layout.gaps

    @property
    def lost(self) -> int:
        """How many publications are known to be lost: Redis does not say how many a gap has."""
        return 0

    @property
    def malformed(self) -> int:
        """How many messages were ignored because they were none of ours."""
        return self._layout.malformed

    # Publishing

    def publish(self, channel: str, publication: Publication, terms: Terms, done: Done[Published]) -> None:
        """Publish; with `terms.retention` the publication gets its offset and is kept."""
        self._layout.do(
            channel, lambda shard, answer: shard.publisher.publish(channel, publication, terms, answer), done
        )

    def publish_join(self, channel: str, info: ClientInfo) -> None:
        """Tell all nodes that a client came; while Redis is away, this one."""
        if not self._layout.place(channel).publisher.publish_news(Kind.JOIN, channel, info):
            self._ear.hear_join(channel, info)

    def publish_leave(self, channel: str, info: ClientInfo) -> None:
        """Tell all nodes that a client left; while Redis is away, this one."""
        if not self._layout.place(channel).publisher.publish_news(Kind.LEAVE, channel, info):
            self._ear.hear_leave(channel, info)

    # Hearing

    def subscribe(self, channel: str, done: Done[None]) -> None:
        """Hear the channel from now on; done when Redis has confirmed it. Idempotent."""
        shard = self._layout.place(channel)
        shard.subscriber.subscribe(shard.names.channel(channel), channel, done)

    def unsubscribe(self, channel: str) -> None:
        """Hear the channel no more; Redis is told a little later. Idempotent."""
        self._layout.place(channel).unsubscribe(channel)

    # History

    def history(self, channel: str, retention: Retention, wanted: Slice, done: Done[Stream]) -> None:
        """Read a channel's history and its position, as of one moment."""
        first, last = _bounds(wanted)
        what = (
            first,
            last,
            "" if wanted.limit is None else max(0, wanted.limit),
            int(wanted.reverse),
            retention.size if retention.keeps else 0,
            meta_ttl(retention),
            _UNUSED_MS,
            "" if wanted.most_bytes is None else wanted.most_bytes,
        )

        def read(shard: Shard, answer: Done[Any]) -> None:
            keys = shard.names.meta(channel), shard.names.stream(channel)
            shard.publisher.run(shard.scripts.history, keys, (*what, *shard.publisher.place()), answer)

        def answer(reply: Reply | BrokerError) -> None:
            done(reply if isinstance(reply, BrokerError) else _stream(reply))

        self._layout.do(channel, read, answer)

    def remove_history(self, channel: str, done: Done[None]) -> None:
        """Forget the publications of a channel; its position stays."""
        self._layout.do(
            channel,
            lambda shard, answer: shard.commands.ask(("DEL", shard.names.stream(channel)), answer),
            partial(_confirm, done),
        )

    # Presence

    def add_presence(self, channel: str, info: ClientInfo, done: Done[None]) -> None:
        """Note that the client `info.client` is on the channel; if that fails, it is noted with the next refresh."""
        self._present.add(channel, info, self._clock())
        self._note(channel, [info], partial(_confirm, done))

    def remove_presence(self, channel: str, info: ClientInfo) -> None:
        """Note that the client is not on the channel any more. Idempotent."""
        self._present.remove(channel, info.client)
        self._layout.do(
            channel,
            lambda shard, answer: shard.commands.ask(("HDEL", shard.names.presence(channel), info.client), answer),
            _ignore,
        )

    def presence(self, channel: str, done: Done[Mapping[str, ClientInfo]]) -> None:
        """Tell who is on the channel, by client id."""

        def answer(reply: Reply | BrokerError) -> None:
            done(reply if isinstance(reply, BrokerError) else _infos(reply))

        self._who(channel, "1", answer)

    def presence_stats(self, channel: str, done: Done[Attendance]) -> None:
        """Tell how many are on the channel; those without a user are one user together."""

        def answer(reply: Reply | BrokerError) -> None:
            done(reply if isinstance(reply, BrokerError) else Attendance(*reply))

        self._who(channel, "", answer)

    def _who(self, channel: str, everyone: str, answer: Callable[[Reply | BrokerError], object]) -> None:
        def ask(shard: Shard, done: Done[Any]) -> None:
            shard.publisher.run(scripts.WHO, (shard.names.presence(channel),), (everyone,), done)

        self._layout.do(channel, ask, answer)

    def _note(self, channel: str, infos: Sequence[ClientInfo], answer: Callable[[Reply | BrokerError], object]) -> None:
        clients = [part for info in infos for part in (info.client, encode_info(info))]

        def note(shard: Shard, done: Done[Any]) -> None:
            keys = (shard.names.presence(channel),)
            shard.publisher.run(scripts.PRESENT, keys, (self._presence_ttl, *clients), done)

        self._layout.do(channel, note, answer)

    # Shards

    def _tick(self) -> None:
        self._timer = self._call_later(_TICK, self._tick)
        self._layout.tick(self._clock())

    def _shard_came_up(self) -> None:
        self._present.hurry(self._clock())  # it may have come up empty
        self.switchboard.hurry()
        if self.is_up:
            self._came_up.set()

    def _hear_control(self, said: bytes) -> bool:
        return self.switchboard.hear(said)

    def _shard_lost(self, shard: Shard) -> None:
        if len(self._layout.shards) == 1:
            self._ear.lost(None)
            return
        for channel in shard.channels():
            self._ear.lost(channel)


def _fresh_epoch() -> str:
    """Make the name of a stream's incarnation, cheaply: few publications begin one."""
    return b2a_base64(_luck.getrandbits(48).to_bytes(6), newline=False).decode()


def _bounds(wanted: Slice) -> tuple[int, int | str]:
    """Return the first and the last offset of what is wanted; "" is the top."""
    if wanted.since is None:
        return 0, ""
    offset = min(max(wanted.since.offset, 0), _MOST_OFFSET)
    return (0, max(offset - 1, 0)) if wanted.reverse else (offset + 1, "")


def _stream(reply: Reply) -> Stream:
    offset, epoch, entries = reply
    top = Position(int(offset), epoch.decode("ascii"))
    publications = []
    for name, fields in entries:
        try:
            publications.append(decode_kept(int(name.partition(b"-")[0]), top.epoch, fields[1]))
        except Malformed:
            continue  # a hole: nobody recovers across it
    return Stream(tuple(publications), top)


def _infos(reply: Reply) -> Mapping[str, ClientInfo]:
    infos = {}
    for data in reply:
        try:
            info = decode_info(data)
        except Malformed:
            continue
        infos[info.client] = info
    return infos


def _confirm(done: Done[None], reply: Reply | BrokerError) -> None:
    done(reply if isinstance(reply, BrokerError) else None)


def _ignore(answer: object) -> None:
    """What could not be noted is noted with the next refresh, or expires."""


def _nobody(channel: str, said: bytes) -> None:
    """A process that has no neighbours."""
