"""Asks the nodes of a Redis Cluster for its map: now and then, and soon when something was not where it should be.

Laws: one node is asked at a time, on a connection of its own, and waited for no longer than `patience`; whoever has
failed is asked last. A map of an older epoch than the one in use tells of a node that was left behind, and is used only
if nothing else works.
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections import deque
from collections.abc import Callable, Sequence
from typing import Final

from server.brokers.redis.address import Address
from server.brokers.redis.connection import Command, Refused, connect, credentials
from server.brokers.redis.slots import Map, Unwell, read_map

log = logging.getLogger("stentor.redis")

# Seconds between two maps when all is well, and the least between two when it is not.
PERIOD: Final = 10.0
HURRY: Final = 0.25

# What `read_map` wants to know.
QUESTIONS: Final[tuple[Command, ...]] = (("CLUSTER", "INFO"), ("CLUSTER", "SLOTS"))


class Survey:
    """See the module. `found` gets each map that is to be used; `is_lost` tells if nothing works with the last one."""

    def __init__(
        self,
        seeds: Sequence[Address],
        *,
        found: Callable[[Map], None],
        is_lost: Callable[[], bool],
        patience: float,
        period: float = PERIOD,
        hurry: float = HURRY,
    ) -> None:
        self._seeds = tuple(seeds)
        self._found = found
        self._is_lost = is_lost
        self._patience = patience
        self._period = period
        self._least = hurry
        self._line = deque(random.sample(self._seeds, len(self._seeds)))
        self._epoch = -1
        self._wanted = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self._is_out = False

    def start(self) -> None:
        """Begin to ask. Idempotent."""
        if self._task is None:
            self._task = asyncio.get_running_loop().create_task(self._go_on())

    async def stop(self) -> None:
        """Ask no more. Idempotent."""
        task, self._task = self._task, None
        if task is not None:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

    def hurry(self) -> None:
        """Ask soon: something was not where it should be."""
        self._wanted.set()

    async def _go_on(self) -> None:
        while True:
            self._wanted.clear()
            address = self._line[0]
            try:
                self._take(await self._ask(address))
            except (OSError, Refused, Unwell) as error:
                self._line.rotate(-1)
                self._complain(address, error)
                await asyncio.sleep(self._least)
                continue
            except Exception:  # nobody else would ask any more
                self._line.rotate(-1)
                log.exception("a map of the Redis Cluster could not be used")
            await asyncio.sleep(self._least * random.uniform(0.8, 1.2))
            try:
                await asyncio.wait_for(self._wanted.wait(), self._period * random.uniform(0.8, 1.2))
            except TimeoutError:
                pass

    async def _ask(self, address: Address) -> Map:
        """Return the map of one node. Raises OSError, Refused and Unwell."""
        connection = await connect(address, lambda: None, self._patience)
        try:
            async with asyncio.timeout(self._patience):
                *_, info, slots = await connection.open([*credentials(address), *QUESTIONS])
        finally:
            connection.abort()
        return read_map(info, slots, address)

    def _take(self, seen: Map) -> None:
        if self._is_out:
            self._is_out = False
            log.warning("the Redis Cluster is well again")
        if seen.epoch < self._epoch and not self._is_lost():
            raise Unwell("its map is older than the one in use")
        self._epoch = seen.epoch
        # The seeds last: they may be names of nodes that are in the map already.
        others = [address for address in seen.nodes if address != self._line[0]]
        random.shuffle(others)
        self._line = deque([*others, *dict.fromkeys((self._line[0], *self._seeds))])
        self._found(seen)

    def _complain(self, address: Address, error: Exception) -> None:
        if not self._is_out and self._is_lost():
            self._is_out = True
            log.warning("%s: no map of the Redis Cluster: %s", address, str(error) or "it does not answer")
