"""Which shard has a channel, when the shards are those that were named: by consistent hashing.

What a layout is (`Layout`) holds for a Redis Cluster, too, whose shards come and go (`cluster`).
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Any, Protocol

from server.brokers.base import Done
from server.brokers.redis.address import Address
from server.brokers.redis.ring import Ring
from server.brokers.redis.shard import Shard

# Something that is asked of the shard that has the channel; it may be done again with another one, if that has it now.
Operation = Callable[[Shard, Done[Any]], object]


class Layout(Protocol):
    """The shards, and which of them has a channel. The sums count those that are gone, too."""

    @property
    def shards(self) -> Sequence[Shard]: ...

    @property
    def is_up(self) -> bool: ...

    @property
    def reconnects(self) -> int: ...

    @property
    def gaps(self) -> int: ...

    @property
    def malformed(self) -> int: ...

    def place(self, channel: str) -> Shard:
        """Return the shard that has the channel."""

    def do(self, channel: str, operation: Operation, done: Done[Any]) -> None:
        """Have something done by the shard that has the channel."""

    def start(self) -> None:
        """Begin to connect."""

    async def stop(self) -> None:
        """Let what was asked for go out, and end the connections. Idempotent."""

    def tick(self, now: float) -> None:
        """Do what is due; to be called often."""


class Fixed:
    """The shards that were named."""

    def __init__(self, addresses: Sequence[Address], make: Callable[[Address], Shard]) -> None:
        self._ring = Ring([str(address) for address in addresses])
        self.shards = [make(address) for address in addresses]

    @property
    def is_up(self) -> bool:
        return all(shard.is_up for shard in self.shards)

    @property
    def reconnects(self) -> int:
        return sum(shard.reconnects for shard in self.shards)

    @property
    def gaps(self) -> int:
        return sum(shard.gaps for shard in self.shards)

    @property
    def malformed(self) -> int:
        return sum(shard.malformed for shard in self.shards)

    def place(self, channel: str) -> Shard:
        shards = self.shards
        return shards[0] if len(shards) == 1 else shards[self._ring.place(channel)]

    def do(self, channel: str, operation: Operation, done: Done[Any]) -> None:
        operation(self.place(channel), done)

    def start(self) -> None:
        for shard in self.shards:
            shard.start()

    async def stop(self) -> None:
        await asyncio.gather(*(shard.stop() for shard in self.shards))

    def tick(self, now: float) -> None:
        for shard in self.shards:
            shard.tick(now)
