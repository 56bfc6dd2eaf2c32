"""The subscriptions to one Redis: what is wanted, what Redis has confirmed, and what it sends.

Laws: names are asked for in batches, once per turn of the event loop, and given back late, in batches too; whoever
waits for a confirmation is told in bounded time. What comes in is taken from the socket first and worked on after, a
part per turn of the event loop: Redis cuts those off who are slow to read. What waits here is bounded, too.

Where Redis refuses a name, it says so once for all that were asked for with it, and not of which: the connection is
given up, and all are asked for again on the next one.

In a Redis Cluster (`SHARDED`) names may go to another shard: those whose slots move are given up by one subscriber
(`release`) and taken over by another (`adopt`); whoever heard them is told when they are heard again.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from itertools import islice
from typing import Final

import hiredis

from server.brokers.base import BrokerError, Done
from server.brokers.redis.commands import AWAY
from server.brokers.redis.connection import Connection, Reply, pack
from server.brokers.redis.inbox import Inbox

log = logging.getLogger("stentor.redis")

# Names in one command.
_BATCH: Final = 500
# Seconds for which a name is kept that nobody wants any more.
LINGER: Final = 2.0
# What Redis says of a name whose slot it has not, or not yet.
_ELSEWHERE: Final = ("MOVED", "ASK", "TRYAGAIN", "CLUSTERDOWN")

Hear = Callable[[str, bytes], None]


@dataclass(frozen=True, slots=True)
class Verbs:
    """What is said and heard in one kind of publish and subscribe; `batch` names fit into one command."""

    subscribe: str
    unsubscribe: str
    message: bytes
    confirmed: bytes
    ended: bytes
    batch: int


ORDINARY: Final = Verbs("SUBSCRIBE", "UNSUBSCRIBE", b"message", b"subscribe", b"unsubscribe", _BATCH)
# The names of one command would have to be of one slot.
SHARDED: Final = Verbs("SSUBSCRIBE", "SUNSUBSCRIBE", b"smessage", b"ssubscribe", b"sunsubscribe", 1)


@dataclass(frozen=True, slots=True)
class Claim:
    """A name that goes to another shard, and who waits for it."""

    name: bytes
    channel: str
    waiting: tuple[Done[None], ...]
    was_heard: bool


class _Waiter:
    __slots__ = ("done", "due", "name")

    def __init__(self, name: bytes, done: Done[None], due: float) -> None:
        self.name = name
        self.done: Done[None] | None = done
        self.due = due

    def give_up(self) -> Done[None] | None:
        """Return who waits, to wait elsewhere."""
        done, self.done = self.done, None
        return done

    def tell(self, answer: BrokerError | None) -> None:
        done = self.give_up()
        if done is not None:
            done(answer)


class Subscriber:
    """See the module. `hearing` is called when, after `up`, everything is confirmed that was wanted then; `refused`
    gets what Redis says when it refuses a name.

    In a cluster, `moved` is called when names are elsewhere, and `regained` for each that is heard again after that.
    """

    def __init__(
        self,
        *,
        hear: Hear,
        hearing: Callable[[], None],
        clock: Callable[[], float],
        call_soon: Callable[[Callable[[], None]], object],
        patience: float,
        verbs: Verbs = ORDINARY,
        regained: Callable[[str], None] = lambda channel: None,
        moved: Callable[[], None] | None = None,
        refused: Callable[[str], object] = lambda words: None,
    ) -> None:
        self.is_hearing = False
        self._refused = refused
        self._verbs = verbs
        self._regained = regained
        self._moved = moved
        self._is_troubled = False  # something that was asked for was refused
        self._regaining: set[bytes] = set()  # what was heard, and is not
        self._hear = hear
        self._hearing = hearing
        self._clock = clock
        self._call_soon = call_soon
        self._patience = patience
        self._connection: Connection | None = None
        self._channels: dict[bytes, str] = {}
        self._confirmed: set[bytes] = set()
        self._missing: set[bytes] = set()
        self._leaving: dict[bytes, float] = {}
        self._asked: list[bytes] = []
        self._waiters: dict[bytes, list[_Waiter]] = {}
        self._by_due: deque[_Waiter] = deque()
        self._inbox = Inbox(self._take, self._give_up, call_soon)

    @property
    def is_up(self) -> bool:
        return self._connection is not None

    @property
    def is_behind(self) -> bool:
        """Tell if something has come that was not worked on yet."""
        return self._inbox.bytes > 0

    def channels(self) -> list[str]:
        """Return the channels that are wanted."""
        return [channel for name, channel in self._channels.items() if name not in self._leaving]

    def is_heard(self, name: bytes) -> bool:
        """Tell if a name is wanted, and Redis brings what is said there."""
        return name in self._confirmed and name not in self._leaving

    # What its owner calls

    def subscribe(self, name: bytes, channel: str, done: Done[None]) -> None:
        """Hear `name`; done when it is confirmed. Idempotent."""
        self._leaving.pop(name, None)
        if name in self._confirmed:
            done(None)
            return
        waiter = _Waiter(name, done, self._clock() + self._patience)
        self._waiters.setdefault(name, []).append(waiter)
        self._by_due.append(waiter)
        if name not in self._channels:
            self._channels[name] = channel
            if self._connection is not None:
                if not self._asked:
                    self._call_soon(self._flush)
                self._asked.append(name)

    def unsubscribe(self, name: bytes) -> None:
        """Hear `name` no more. Idempotent."""
        if name in self._channels and name not in self._leaving:
            self._leaving[name] = self._clock() + LINGER

    def tick(self, now: float) -> None:
        """Tell those who have waited too long, and give back what nobody wants; to be called often."""
        while self._by_due and (self._by_due[0].due <= now or self._by_due[0].done is None):
            waiter = self._by_due.popleft()
            if waiter.done is not None:
                self._waiters[waiter.name].remove(waiter)
                waiter.tell(AWAY)
        left = [name for name, due in islice(self._leaving.items(), _BATCH) if due <= now]
        for name in left:
            self._forget(name)
        if left and self._connection is not None:
            commands = [pack((self._verbs.unsubscribe, *batch)) for batch in _batches(left, self._verbs.batch)]
            self._connection.write(b"".join(commands))
        if self._is_troubled:
            self._is_troubled = False
            self._ask([name for name in self._channels if name not in self._confirmed])

    def up(self, connection: Connection) -> None:
        """Take a new connection, and ask for all that is wanted."""
        for name in list(self._leaving):
            self._forget(name)
        self._asked = []
        self._missing = set(self._channels)
        self._connection = connection
        self._inbox.begin(connection)
        connection.hand_over(self._inbox.put)
        self._ask(self._channels)

    def down(self) -> bool:
        """Know that nothing is heard any more; tell if anything was. Idempotent."""
        was_heard = bool(self._confirmed)
        self._connection = None
        self.is_hearing = False
        if self._moved is not None:
            self._regaining |= self._confirmed  # it may be another shard that hears them next
        self._confirmed.clear()
        self._is_troubled = False
        self._inbox.end()
        return was_heard

    # In a cluster

    def is_regaining(self, name: bytes) -> bool:
        """Tell if a name was heard, is not, and will be."""
        return name in self._regaining

    def release(self, is_gone: Callable[[bytes], bool]) -> list[Claim]:
        """Give up the names whose slots are gone; nobody is told."""
        claims = []
        for name in [name for name in self._channels if is_gone(name)]:
            waiting = tuple(done for waiter in self._waiters.pop(name, ()) if (done := waiter.give_up()) is not None)
            is_wanted = name not in self._leaving
            was_heard = name in self._confirmed or name in self._regaining
            if is_wanted:
                claims.append(Claim(name, self._channels[name], waiting, was_heard))
            self._leaving[name] = 0.0
            self._forget(name)
        self._look_if_hearing()
        return claims

    def adopt(self, claims: Iterable[Claim]) -> None:
        """Take over what another one has given up."""
        for claim in claims:
            if claim.was_heard:
                self._regaining.add(claim.name)
            if not self.is_hearing and self._connection is not None:
                self._missing.add(claim.name)
            for done in claim.waiting or (_ignore,):
                self.subscribe(claim.name, claim.channel, done)

    # Names

    def _flush(self) -> None:
        asked, self._asked = self._asked, []
        self._ask([name for name in asked if name in self._channels])

    def _ask(self, names: Iterable[bytes]) -> None:
        if self._connection is not None:
            commands = [pack((self._verbs.subscribe, *batch)) for batch in _batches(names, self._verbs.batch)]
            if commands:
                self._connection.write(b"".join(commands))

    def _forget(self, name: bytes) -> None:
        del self._leaving[name], self._channels[name]
        self._confirmed.discard(name)
        self._missing.discard(name)
        self._regaining.discard(name)
        for waiter in self._waiters.pop(name, ()):
            waiter.tell(AWAY)

    # What comes in

    def _take(self, reply: Reply) -> None:
        # Every message of everybody comes by here, and a match statement would take four times as long.
        if type(reply) is list and len(reply) == 3:
            kind, name, data = reply
            if kind == self._verbs.message:
                channel = self._channels.get(name)
                if channel is not None:
                    self._hear(channel, data)
            elif kind == self._verbs.confirmed:
                self._confirm(name)
            elif kind == self._verbs.ended:
                self._end(name)
        elif isinstance(reply, hiredis.ReplyError):
            self._refuse(str(reply))

    def _confirm(self, name: bytes) -> None:
        if name not in self._channels:
            return
        self._confirmed.add(name)
        for waiter in self._waiters.pop(name, ()):
            waiter.tell(None)
        if not self.is_hearing:
            self._missing.discard(name)
            self._look_if_hearing()
        if name in self._regaining:
            self._regaining.remove(name)
            self._regained(self._channels[name])

    def _look_if_hearing(self) -> None:
        if self._connection is not None and not self.is_hearing and not self._missing:
            self.is_hearing = True
            self._hearing()

    def _end(self, name: bytes) -> None:
        """Learn that a name is heard no more; if it is wanted, its slot has moved."""
        if name not in self._confirmed:
            return
        self._confirmed.remove(name)
        if name not in self._leaving:
            self._regaining.add(name)
        self._look_elsewhere()

    def _refuse(self, words: str) -> None:
        """Learn that a name is not to be had here: not now, or not by us."""
        if self._moved is not None and words.startswith(_ELSEWHERE):
            self._look_elsewhere()
        else:
            self._refused(words)
            self._give_up()

    def _look_elsewhere(self) -> None:
        if self._moved is None:
            self._give_up()
        else:
            self._is_troubled = True
            self._moved()

    def _give_up(self) -> None:
        if self._connection is not None:
            self._connection.abort()


def _batches(names: Iterable[bytes], size: int) -> Iterator[tuple[bytes, ...]]:
    rest = iter(names)
    while batch := tuple(islice(rest, size)):
        yield batch


def _ignore(answer: object) -> None:
    """Whoever wanted to know was told by the one who had the name before."""
