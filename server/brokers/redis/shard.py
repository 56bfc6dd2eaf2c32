"""One Redis, with two connections: one for commands, one that hears.

Laws:
- after we were deaf the ear is told that something may be lost, once all is heard again and can be asked for.
- a message that is none of ours is ignored, counted, and logged at most once a second.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass, field

from server.brokers.base import Ear
from server.brokers.redis import scripts
from server.brokers.redis.address import Address
from server.brokers.redis.commands import Commands
from server.brokers.redis.connection import Connection, Reply
from server.brokers.redis.link import Backoff, Link
from server.brokers.redis.message import Kind, Malformed, decode
from server.brokers.redis.publisher import Publisher
from server.brokers.redis.pulse import Pulse
from server.brokers.redis.scripts import Names
from server.brokers.redis.subscriber import Subscriber
from server.core.counters import Histogram

log = logging.getLogger("stentor.redis")

CallSoon = Callable[[Callable[[], None]], object]


@dataclass(frozen=True, slots=True)
class Pace:
    """How long things may take, in seconds: what an answer may, how often we probe, what presence outlives."""

    patience: float = 1.5
    probe_period: float = 5.0
    probe_patience: float = 2.0
    presence_ttl: float = 60.0
    backoff: Backoff = field(default_factory=Backoff)


class Shard:
    """See the module. `came_up` is called when it has come up, and `lost` when it was deaf and hears again."""

    def __init__(
        self,
        address: Address,
        ear: Ear,
        *,
        origin: bytes,
        lag: Histogram,
        pace: Pace,
        clock: Callable[[], float],
        call_soon: CallSoon,
        new_epoch: Callable[[], str],
        wall_clock: Callable[[], float],
        came_up: Callable[[], None],
        lost: Callable[[Shard], None],
    ) -> None:
        self.names = Names(address.prefix, address.db)
        self.gaps = 0
        self.malformed = 0
        self._ear = ear
        self._origin = origin
        self._clock = clock
        self._came_up = came_up
        self._lost = lost
        self._owes_loss = False
        self._complained = -1.0
        self._pulse = Pulse(pace.probe_period, pace.probe_patience, lag)
        self.commands = Commands(
            scripts.ALL, fail=self._drop_commands, clock=clock, call_soon=call_soon, patience=pace.patience
        )
        self.subscriber = Subscriber(
            hear=self._hear, hearing=self._hears_again, clock=clock, call_soon=call_soon, patience=pace.patience
        )
        self.publisher = Publisher(
            self.commands,
            self.names,
            ear,
            origin=origin,
            new_epoch=new_epoch,
            wall_clock=wall_clock,
            is_deaf=lambda: not self.subscriber.is_hearing,
        )
        self._command_link = Link(
            "commands",
            address,
            opening=[*(("SCRIPT", "LOAD", script.source) for script in scripts.ALL), ("INFO", "server")],
            up=self._commands_up,
            down=self.commands.down,
            patience=pace.patience,
            backoff=pace.backoff,
        )
        self._hearing_link = Link(
            "subscriptions",
            address,
            opening=[("PING",)],
            up=self._subscriber_up,
            down=self._subscriber_down,
            patience=pace.patience,
            backoff=pace.backoff,
        )
        self.subscriber.subscribe(self.publisher.probe_name, "", _ignore)

    @property
    def is_up(self) -> bool:
        """Tell if Redis takes commands, and we hear."""
        return self.commands.is_up and self.subscriber.is_hearing

    @property
    def reconnects(self) -> int:
        """How often a connection was made anew."""
        return max(0, self._command_link.reconnects) + max(0, self._hearing_link.reconnects)

    def channels(self) -> list[str]:
        """Return the channels that somebody wants to hear."""
        return [channel for channel in self.subscriber.channels() if channel]

    def start(self) -> None:
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
        self._pulse.check(now, is_behind=self.subscriber.is_behind)
        if self._pulse.is_deaf:
            self._pulse.restart(now)
            self._hearing_link.drop("two probes have not come back")
        elif (serial := self._pulse.beat(now)) is not None:
            self.publisher.publish_probe(serial, self._pulse.unsent)

    def unsubscribe(self, channel: str) -> None:
        """Hear a channel no more. Idempotent."""
        self.subscriber.unsubscribe(self.names.channel(channel))
        self.publisher.forget(channel)

    # Hearing

    def _hear(self, channel: str, data: bytes) -> None:
        try:
            kind, origin, serial, epoch, publication = decode(data)
            self._check_place(kind, channel)
        except Malformed as error:
            self.malformed += 1
            self._complain("%d malformed messages were ignored, the last one: %s", self.malformed, error)
            return
        if kind == Kind.PUBLICATION:
            self.publisher.hear(channel, publication, epoch, origin, serial)
        elif kind == Kind.PROBE:
            if origin == self._origin:
                self._pulse.hear(serial, self._clock())
        elif publication.info is not None:
            (self._ear.hear_join if kind == Kind.JOIN else self._ear.hear_leave)(channel, publication.info)

    def _check_place(self, kind: int, channel: str) -> None:
        # The probe's channel is nobody's: it is known as "".
        if (kind == Kind.PROBE) != (not channel):
            raise Malformed("a probe on a channel, or a publication where probes go")

    # Connections

    def _drop_commands(self, why: str) -> None:
        self._command_link.drop(why)

    def _commands_up(self, connection: Connection, replies: list[Reply]) -> None:
        self.publisher.incarnation = _run_id(replies[-1])
        self.commands.up(connection)
        self._settle()

    def _subscriber_up(self, connection: Connection, replies: list[Reply]) -> None:
        self.subscriber.up(connection)

    def _subscriber_down(self) -> None:
        if self.subscriber.down():
            self.gaps += 1
            self._owes_loss = True
        self.publisher.hear_what_waits()

    def _hears_again(self) -> None:
        self._pulse.restart(self._clock())
        self._settle()

    def _settle(self) -> None:
        """Say that we are up, and what may be lost: only now can anybody ask what it was."""
        if not self.is_up:
            return
        self._came_up()
        if self._owes_loss:
            self._owes_loss = False
            self._lost(self)

    def _complain(self, text: str, *arguments: object) -> None:
        now = self._clock()
        if now - self._complained >= 1.0 or self._complained < 0:
            self._complained = now
            log.warning(text, *arguments)


def _run_id(info: bytes) -> bytes:
    for line in info.split(b"\r\n"):
        if line.startswith(b"run_id:"):
            return line[7:15]
    return b""


def _ignore(answer: object) -> None:
    """What is lost of these is lost."""
