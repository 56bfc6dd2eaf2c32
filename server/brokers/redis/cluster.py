"""The shards of a Redis Cluster: its primaries, and which of them has the slot of a channel.

Laws:
- what is asked of a shard that has not (or not yet) the slot is asked again where it is, within the patience, and in
  the order in which it was asked for; nothing of a slot overtakes what waits for it. What waits is bounded.
- a channel goes with its slot: it is heard at the new place as soon as that is known, and whoever heard it before is
  told that something may be lost.
- what nobody has (yet) is with a shard that is never there: it does what every shard does that is away.

Source: the Redis Cluster specification. Knows neither scripts nor messages.
"""

from __future__ import annotations

import asyncio
import logging
from collections import Counter, deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache, partial
from typing import Any, Final

from server.brokers.base import Done
from server.brokers.redis.address import Address
from server.brokers.redis.commands import BUSY, MOST, Redirect
from server.brokers.redis.layout import Operation
from server.brokers.redis.shard import ClusterSide, Shard
from server.brokers.redis.slots import SLOTS, Map, slot_of
from server.brokers.redis.survey import Survey

log = logging.getLogger("stentor.redis")

# Seconds after which what was not to be had is asked for again.
_AGAIN: Final = 0.05
# Seconds for which one stays connected that slots are on their way to.
_GUESTS_STAY: Final = 10.0
# Primaries that are none any more, of which streams may have been left to others.
_LINEAGES: Final = 64
# Channels whose slots are remembered.
_CHANNELS: Final = 4096


@dataclass(slots=True)
class _Errand:
    """Something that is asked of whoever has a slot: `number` says in which order, `since` when."""

    number: int
    slot: int
    operation: Operation
    done: Done[Any]
    since: float


class Cluster:
    """See the module and `layout.Layout`; `make` makes a shard."""

    def __init__(
        self,
        seeds: Sequence[Address],
        make: Callable[..., Shard],
        *,
        patience: float,
        clock: Callable[[], float],
        call_later: Callable[[float, Callable[[], None]], object],
    ) -> None:
        self._survey = Survey(
            seeds, found=self.settle, is_lost=lambda: not self._is_any_up(), patience=min(1.0, patience)
        )
        self._make = partial(make, cluster=ClusterSide(self._survey.hurry, self._trusted))
        self._patience = patience
        self._clock = clock
        self._call_later = call_later
        self._members: dict[Address, Shard] = {}
        self._adrift = self._make(seeds[0])  # never started
        self._owners: list[Shard] = [self._adrift] * SLOTS
        self._is_covered = False
        names = self._adrift.names
        # The same channels are asked about again and again.
        self._slot_of = lru_cache(_CHANNELS)(lambda channel: slot_of(names.channel(channel)))
        self._number = 0
        self._waiting: list[_Errand] = []
        self._held: set[int] = set()  # slots of which something waits
        self._fences: Counter[int] = Counter()  # slots of which their old shard has not answered all yet
        self._is_again_due = False
        self._guests: dict[Address, Shard] = {}  # who is about to have slots
        self._guests_until = 0.0
        self._leaving: list[tuple[float, Shard]] = []
        self._drained: deque[bytes] = deque(maxlen=_LINEAGES)
        self._gone = Counter[str]()
        self._stops: set[asyncio.Task[None]] = set()

    # What every layout has

    @property
    def shards(self) -> Sequence[Shard]:
        return list(self._members.values())

    @property
    def is_up(self) -> bool:
        """Tell if all slots are somewhere, and everybody is up."""
        return self._is_covered and all(shard.is_up for shard in self._members.values())

    @property
    def reconnects(self) -> int:
        return self._gone["reconnects"] + sum(shard.reconnects for shard in self.shards)

    @property
    def gaps(self) -> int:
        return self._gone["gaps"] + sum(shard.gaps for shard in self.shards)

    @property
    def malformed(self) -> int:
        return self._gone["malformed"] + sum(shard.malformed for shard in self.shards)

    def place(self, channel: str) -> Shard:
        return self._owners[self._slot_of(channel)]

    def do(self, channel: str, operation: Operation, done: Done[Any]) -> None:
        self._number += 1
        slot = self._slot_of(channel)
        errand = _Errand(self._number, slot, operation, done, self._clock())
        if slot in self._held or slot in self._fences:
            self._hold(errand)
        else:
            self._run(errand)

    def start(self) -> None:
        self._survey.start()

    async def stop(self) -> None:
        await self._survey.stop()
        self._send_guests_away()
        for _, shard in self._leaving:
            self._end(shard)
        self._leaving.clear()
        await asyncio.gather(*(shard.stop() for shard in self.shards), *self._stops)
        self._give_up(self._take_waiting())

    def tick(self, now: float) -> None:
        others = (shard for _, shard in self._leaving)
        for shard in (*self.shards, self._adrift, *self._guests.values(), *others):
            shard.tick(now)
        while self._leaving and self._leaving[0][0] <= now:
            self._end(self._leaving.pop(0)[1])
        if self._guests and now >= self._guests_until:
            self._send_guests_away()
        if not self.is_up:
            self._survey.hurry()

    # Errands

    def _run(self, errand: _Errand) -> None:
        shard = self._owners[errand.slot]
        if not shard.commands.is_up and shard.is_coming:
            self._hold(errand)
        else:
            errand.operation(shard, partial(self._answered, errand))

    def _answered(self, errand: _Errand, reply: Any) -> None:
        if not isinstance(reply, Redirect):
            errand.done(reply)
            return
        errand.operation = reply.instead or errand.operation
        place = reply.asks
        shard = self._shard_at(*place) if place is not None else None
        if shard is not None and shard.commands.is_up:
            # Once, and there alone: for all others the slot is still where it was.
            with shard.commands.asking():
                errand.operation(shard, partial(self._answered, errand))
            return
        self._survey.hurry()
        self._hold(errand)

    def _hold(self, errand: _Errand) -> None:
        if len(self._waiting) >= MOST:
            errand.done(BUSY)
            return
        self._held.add(errand.slot)
        self._waiting.append(errand)
        if not self._is_again_due:
            self._is_again_due = True
            self._call_later(_AGAIN, self._again)

    def _take_waiting(self) -> list[_Errand]:
        waiting, self._waiting = sorted(self._waiting, key=lambda errand: errand.number), []
        self._held.clear()
        return waiting

    def _again(self) -> None:
        self._is_again_due = False
        now = self._clock()
        for errand in self._take_waiting():
            if now - errand.since >= self._patience:
                self._give_up([errand])
            elif errand.slot in self._fences:
                self._hold(errand)
            else:
                self._run(errand)

    def _give_up(self, errands: Sequence[_Errand]) -> None:
        for errand in errands:
            errand.operation(self._adrift, errand.done)

    def _shard_at(self, host: str, port: int) -> Shard:
        """Return the shard at a place that a slot is on its way to; a guest if it has no slots yet."""
        address = replace(self._adrift.address, host=host or self._adrift.address.host, port=port)
        if (member := self._members.get(address)) is not None:
            return member
        self._guests_until = self._clock() + _GUESTS_STAY
        if address not in self._guests:
            self._guests[address] = self._make(address)
            self._guests[address].start()
        return self._guests[address]

    def _send_guests_away(self) -> None:
        for shard in self._guests.values():
            self._end(shard)
        self._guests.clear()

    # The map

    def settle(self, seen: Map) -> None:
        """Take a new map: shards come and go, and channels go with their slots."""
        primaries = seen.primaries
        known = self._members.keys() | self._guests.keys()
        heirs: dict[Shard, set[Address]] = {}
        for address, slots in primaries.items():
            if address not in self._members:
                guest = self._guests.pop(address) if address in self._guests else None
                shard = self._members[address] = guest or self._make(address)
                shard.own(slots)
                shard.start()
                log.info("the cluster has a primary at %s, with %d slots", address, len(slots))
        for address, slots in primaries.items():
            for old in self._assign(slots, self._members[address]):
                heirs.setdefault(old, set()).add(address)
        for address, slots in primaries.items():
            self._members[address].own(slots)
        self._is_covered = self._adrift not in self._owners
        for address in self._members.keys() - primaries.keys():
            shard = self._members[address]
            if shard not in self._owners:
                # Who was a primary before is no replica that was promoted: to these, slots are moved whole.
                if heirs.get(shard, set()) <= known:
                    self._drained.append(shard.lineage)
                self._retire(address)

    def _assign(self, slots: set[int], shard: Shard) -> Iterable[Shard]:
        """Give a shard its slots, and what goes with them; return who had them."""
        moved: dict[Shard, set[int]] = {}
        for slot in slots:
            if self._owners[slot] is not shard:
                moved.setdefault(self._owners[slot], set()).add(slot)
                self._owners[slot] = shard
        for old, gone in moved.items():
            claims = old.subscriber.release(lambda name, gone=gone: slot_of(name) in gone)  # type: ignore[misc]
            if old.is_up and any(claim.was_heard for claim in claims):
                self._gone["gaps"] += 1
            shard.subscriber.adopt(claims)
            for claim in claims:
                old.publisher.forget(claim.channel)
            self._fence(old, gone)
        return moved

    def _fence(self, old: Shard, slots: set[int]) -> None:
        """Hold what is asked of slots until all is answered that their old shard was asked before."""
        if not old.commands.is_up or not old.commands.waiting:
            return
        self._fences.update(slots)

        def answered(answer: object) -> None:
            self._fences -= Counter(slots)
            self._again()

        old.commands.ask(("PING",), answered)

    def _retire(self, address: Address) -> None:
        """Let a shard go that is none any more, when what it was asked is answered."""
        shard = self._members.pop(address)
        log.info("%s is no primary of the cluster any more", address)
        self._leaving.append((self._clock() + self._patience, shard))

    def _end(self, shard: Shard) -> None:
        for name in ("reconnects", "gaps", "malformed"):
            self._gone[name] += getattr(shard, name)
        task = asyncio.get_running_loop().create_task(shard.stop())
        self._stops.add(task)
        task.add_done_callback(self._stops.discard)

    # For the shards

    def _trusted(self, asker: Shard) -> bytes:
        """Return the lineages of all other primaries: a stream of theirs that the asker has was moved there, whole."""
        others = (shard.lineage for shard in self._members.values() if shard is not asker)
        return b" ".join((*others, *self._drained))

    def _is_any_up(self) -> bool:
        return any(shard.is_up for shard in self._members.values())
