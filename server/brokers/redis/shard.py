"""One Redis, with two connections: one for commands, one that hears.

Laws:
- after we were deaf the ear is told that something may be lost, once all is heard again and can be asked for.
- where Redis refuses what is written, we probe by what it does not refuse: deafness is noticed all the same.
- a message that is none of ours is ignored, counted, and logged at most once a second.

In a Redis Cluster it is one primary: it probes itself in a slot of its own, and channels come and go with their slots.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Set
from dataclasses import dataclass, field
from functools import partial
from itertools import count

from server.brokers.base import BrokerError, Ear
from server.brokers.redis import scripts
from server.brokers.redis.address import Address
from server.brokers.redis.commands import Commands, Refusal
from server.brokers.redis.connection import Command, Connection, Refused, Reply
from server.brokers.redis.link import Backoff, Link
from server.brokers.redis.message import Kind, Malformed, decode
from server.brokers.redis.publisher import Publisher
from server.brokers.redis.pulse import Pulse
from server.brokers.redis.scripts import Names, is_for_nodes
from server.brokers.redis.slots import slot_of
from server.brokers.redis.subscriber import ORDINARY, SHARDED, Claim, Subscriber
from server.brokers.redis.writing import Writing
from server.core.counters import Histogram

log = logging.getLogger("stentor.redis")

# As numbers: every message of everybody is compared with them, and members of an enum take their time.
_PUBLICATION, _JOIN, _PROBE, _CONTROL = map(int, (Kind.PUBLICATION, Kind.JOIN, Kind.PROBE, Kind.CONTROL))

CallSoon = Callable[[Callable[[], None]], object]


@dataclass(frozen=True, slots=True)
class Pace:
    """How long things may take, in seconds: what an answer may, how often we probe, what presence outlives."""

    patience: float = 1.5
    probe_period: float = 5.0
    probe_patience: float = 2.0
    presence_ttl: float = 60.0
    backoff: Backoff = field(default_factory=Backoff)


@dataclass(frozen=True, slots=True)
class ClusterSide:
    """What a shard needs of its cluster: to say that slots have moved, and whose streams may be taken on."""

    moved: Callable[[], None]
    trusted: Callable[[Shard], bytes]


class Shard:
    """See the module. `came_up` is called when it has come up, and `lost` when it was deaf and hears again."""

    def __init__(
        self,
        address: Address,
        *,
        ear: Ear,
        hear_control: Callable[[bytes], bool],
        origin: bytes,
        serials: Callable[[], int],
        lag: Histogram,
        pace: Pace,
        clock: Callable[[], float],
        call_soon: CallSoon,
        new_epoch: Callable[[], str],
        wall_clock: Callable[[], float],
        came_up: Callable[[], None],
        lost: Callable[[Shard], None],
        tell_neighbours: Callable[[str, bytes], object],
        cluster: ClusterSide | None = None,
    ) -> None:
        self.address = address
        self.names = Names(address.prefix, address.db)
        self.scripts = scripts.CLUSTER if cluster is not None else scripts.ORDINARY
        self.lineage = b""  # of what Redis knows: its incarnation, as it was when we connected
        self.gaps = 0
        self.malformed = 0
        self._ear = ear
        self._hear_control = hear_control
        self._origin = origin
        self._clock = clock
        self._came_up = came_up
        self._lost = lost
        self._cluster = cluster
        self._patience = pace.patience
        self._expected_until = 0.0
        self._owes_loss = False
        self._regained: list[str] = []
        self._complained = -1.0
        self._pulse = Pulse(pace.probe_period, pace.probe_patience, lag)
        self._writing = Writing(str(address))
        self.commands = Commands(
            self.scripts.all, fail=self._drop_commands, clock=clock, call_soon=call_soon, patience=pace.patience
        )
        self.subscriber = Subscriber(
            hear=self.hear,
            hearing=self._hears_again,
            clock=clock,
            call_soon=call_soon,
            patience=pace.patience,
            verbs=SHARDED if cluster is not None else ORDINARY,
            regained=self._regained.append,
            moved=cluster.moved if cluster is not None else None,
            refused=lambda words: self._hearing_link.refused(words),
        )
        self.publisher = Publisher(
            self.commands,
            self.names,
            self.scripts,
            ear,
            origin=origin,
            serials=serials,
            new_epoch=new_epoch,
            wall_clock=wall_clock,
            is_deaf=lambda: not self.subscriber.is_hearing,
            is_heard=self.subscriber.is_heard,
            is_regaining=self.subscriber.is_regaining,
            incarnation=partial(cluster.trusted, self) if cluster is not None else lambda: self.lineage,
            tell_neighbours=tell_neighbours,
        )
        self._command_link = Link(
            "commands",
            address,
            opening=self._opening,
            up=self._commands_up,
            down=self.commands.down,
            patience=pace.patience,
            backoff=pace.backoff,
        )
        self._hearing_link = Link(
            "subscriptions",
            address,
            # Not PING: after a save that failed, Redis refuses it as it refuses what is written.
            opening=lambda: [("ECHO", "stentor")],
            up=self._subscriber_up,
            down=self._subscriber_down,
            patience=pace.patience,
            backoff=pace.backoff,
        )
        self._slots: Set[int] = frozenset()
        self._probe_slot = -1
        if cluster is None:
            self.subscriber.subscribe(self.publisher.probe_name, "", _ignore)

    @property
    def is_up(self) -> bool:
        """Tell if we are in contact: Redis does commands, and we hear."""
        return self.commands.is_up and self.subscriber.is_hearing

    @property
    def trouble(self) -> str:
        """Say why it is not up, or what it refuses; "" if all is well."""
        if not self.is_up:
            return self._command_link.trouble or self._hearing_link.trouble or f"{self.address}: not heard yet"
        refusal = self._writing.refusal
        return f"{self.address}: it refuses what is written: {refusal}" if refusal else ""

    @property
    def is_coming(self) -> bool:
        """Tell if it was never up, and may be in a moment."""
        return self._command_link.reconnects < 0 and self._clock() < self._expected_until

    @property
    def reconnects(self) -> int:
        """How often a connection was made anew."""
        return max(0, self._command_link.reconnects) + max(0, self._hearing_link.reconnects)

    def channels(self) -> list[str]:
        """Return the channels that somebody wants to hear."""
        return [channel for channel in self.subscriber.channels() if channel and not is_for_nodes(channel)]

    def own(self, slots: Set[int]) -> None:
        """Learn which slots of the cluster it has: its probe goes by one of them."""
        self._slots = slots
        if self._probe_slot in slots or not slots:
            return
        self.subscriber.release(self.publisher.probe_name.__eq__)
        tags = (f"{self._origin.hex()}.{number}" for number in count())
        tag, slot = next((tag, slot) for tag in tags if (slot := slot_of(self.names.probe(tag)[0])) in slots)
        self._probe_slot = slot
        self.publisher.probe_by(tag)
        self.subscriber.adopt([Claim(self.publisher.probe_name, "", (), was_heard=False)])
        self._pulse.restart(self._clock())

    def start(self) -> None:
        self._expected_until = self._clock() + self._patience
        self._command_link.start()
        self._hearing_link.start()

    async def stop(self) -> None:
        await self._hearing_link.stop()
        await self._command_link.stop()

    def tick(self, now: float) -> None:
        """Do what is due; to be called often."""
        self.commands.tick(now)
        self.subscriber.tick(now)
        if not self.is_up:
            return
        self._tell_regained()
        self._pulse.check(now, is_behind=self.subscriber.is_behind)
        if self._pulse.is_deaf:
            self._pulse.restart(now)
            self._hearing_link.drop("two probes have not come back")
        elif (serial := self._pulse.beat(now)) is not None:
            self.publisher.publish_probe(serial, partial(self._probed, serial))

    def _probed(self, serial: int, reply: Reply | BrokerError) -> None:
        """Learn what became of a probe."""
        if not isinstance(reply, BrokerError):
            self._writing.taken()
        elif isinstance(reply, Refusal):
            self._writing.refused(str(reply))
            self._pulse.resent(serial, self._clock())
            self.publisher.publish_plain_probe(serial, partial(self._probed_plainly, serial))
        else:
            self._pulse.unsent(serial)

    def _probed_plainly(self, serial: int, reply: Reply | BrokerError) -> None:
        if isinstance(reply, BrokerError):
            self._pulse.unsent(serial)

    def unsubscribe(self, channel: str) -> None:
        """Hear a channel no more. Idempotent."""
        self.subscriber.unsubscribe(self.names.channel(channel))
        self.publisher.forget(channel)

    # Hearing

    def hear(self, channel: str, data: bytes) -> None:
        """Hear a message on a channel, from Redis or from a neighbour."""
        try:
            kind, origin, serial, epoch, publication = decode(data)
            self._check_place(kind, channel)
            if kind == _CONTROL and not self._hear_control(publication.payload):
                raise Malformed("word of a node that makes no sense")
        except Malformed as error:
            self.malformed += 1
            self._complain("%d malformed messages were ignored, the last one: %s", self.malformed, error)
            return
        if kind == _PUBLICATION:
            self.publisher.hear(channel, publication, epoch, origin, serial)
        elif kind == _PROBE:
            if origin == self._origin:
                self._pulse.hear(serial, self._clock())
        elif publication.info is not None:
            (self._ear.hear_join if kind == _JOIN else self._ear.hear_leave)(channel, publication.info)

    def _check_place(self, kind: int, channel: str) -> None:
        # The probe's channel is nobody's: it is known as "".
        if (kind == _PROBE) != (not channel) or (kind == _CONTROL) != is_for_nodes(channel):
            raise Malformed("a probe or a node's word on a channel, or a publication where these go")

    # Connections

    def _drop_commands(self, why: str) -> None:
        self._command_link.drop(why)

    def _opening(self) -> list[Command]:
        loads: list[Command] = [("SCRIPT", "LOAD", script.source) for script in self.scripts.all]
        if self._cluster is None:
            return [*loads, ("INFO", "replication"), ("INFO", "server")]
        # Refused where there is no such slot, or the cluster is down: then it is no use to be connected.
        checks: list[Command] = [("EXISTS", self.publisher.probe_name)] if self._slots else []
        return [*loads, *checks, ("INFO", "replication")]

    def _commands_up(self, connection: Connection, replies: list[Reply]) -> None:
        if self._cluster is None and _is_read_only(replies[-2]):
            raise Refused("READONLY it is a replica")
        self.lineage = _incarnation(replies[-1])
        self.commands.up(connection)
        self._command_link.confirm()
        self._settle()

    def _subscriber_up(self, connection: Connection, replies: list[Reply]) -> None:
        self.subscriber.up(connection)

    def _subscriber_down(self) -> None:
        if self.subscriber.down():
            self.gaps += 1
            self._owes_loss = self._cluster is None
        self.publisher.hear_what_waits()

    def _hears_again(self) -> None:
        self._hearing_link.confirm()
        self._pulse.restart(self._clock())
        self._settle()

    def _settle(self) -> None:
        """Say that we are up, and what may be lost: only now can anybody ask what it was."""
        if not self.is_up:
            return
        self._came_up()
        self._tell_regained()
        if self._owes_loss:
            self._owes_loss = False
            self._lost(self)

    def _tell_regained(self) -> None:
        """Say of the channels that were deaf while their slots moved that something may be lost."""
        channels = self._regained[:]
        self._regained.clear()
        for channel in channels:
            self._ear.lost(channel)

    def _complain(self, text: str, *arguments: object) -> None:
        now = self._clock()
        if now - self._complained >= 1.0 or self._complained < 0:
            self._complained = now
            log.warning(text, *arguments)


def _incarnation(info: bytes) -> bytes:
    """Return what tells one Redis from the one that was there before: eight characters of what it calls itself."""
    for line in info.split(b"\r\n"):
        name, _, value = line.partition(b":")
        if name in (b"run_id", b"master_replid"):
            return value[:8]
    return b""


def _is_read_only(info: bytes) -> bool:
    """Tell by what Redis says of its replication if it takes no writes, because it is a replica."""
    return {b"role:slave", b"slave_read_only:1"} <= set(info.split(b"\r\n"))


def _ignore(answer: object) -> None:
    """What is lost of these is lost."""
