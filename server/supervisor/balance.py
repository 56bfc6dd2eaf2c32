"""Who gets the new connections, now: looked at once a second, and set in the kernel by one of the workers.

Laws: the workers are kept in the order in which the kernel has their sockets; a worker that is about to go gets
nothing new before it closes its socket, since what waits there unaccepted would be reset; nor does one that is silent
or browned out, while another is neither.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence
from typing import Final

from server.supervisor import spread
from server.supervisor.worker_link import State, Unanswered, Worker

log = logging.getLogger("stentor.supervisor")

EVERY: Final = 1.0
# How long a worker that gets nothing new takes at most to accept what waits at its door.
LAST_ACCEPTS: Final = 0.1


class Balance:
    """The workers that listen, and the parts that they have of the new connections (None: as the kernel likes)."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._order = spread.Order()
        self._parts: Sequence[float] | None = None
        self._is_set = True
        self._is_unheard = False  # the last time it was said, nobody answered
        self._at = clock() + EVERY

    @property
    def is_due(self) -> bool:
        """Tell if it is time to look again."""
        return self._clock() >= self._at

    @property
    def workers(self) -> list[Worker]:
        """Who listens, in the kernel's order."""
        return [worker for worker in self._order.workers if isinstance(worker, Worker)]

    @property
    def takers(self) -> float:
        """How many workers share the new connections, as if each had the same part as the one with the largest."""
        workers = self.workers
        parts = spread.shares([worker.connections for worker in workers]) if workers else None
        return 1 / max(parts) if parts else float(max(1, len(workers)))

    def enter(self, worker: Worker) -> None:
        """Take in a worker that has just begun to listen."""
        self._order.enter(worker)
        self._is_set = False

    def leave(self, worker: Worker) -> None:
        """Forget a worker. Idempotent."""
        self._order.leave(worker)
        self._is_set = False

    async def restore(self) -> None:
        """Give the emptier workers more of the new connections, when they differ by too much."""
        self._at = self._clock() + EVERY
        workers = self.workers
        if not workers or any(worker.state is not State.READY for worker in workers):
            return  # who is about to go is shut out
        now = self._clock()
        takers = [worker for worker in workers if worker.takes_newcomers(now)]
        if not takers:
            return
        if len(takers) < len(workers):
            parts: Sequence[float] | None = [(worker in takers) / len(takers) for worker in workers]
        else:
            parts = spread.shares([worker.connections for worker in workers])
        if not self._is_set or parts != self._parts:
            await self._give(workers, parts)

    async def shut_out(self, leaving: Worker) -> None:
        """Give all others the new connections, and wait until the one that leaves has accepted what waits for it."""
        workers = self.workers
        others = len(workers) - 1
        if leaving in workers and others:
            await self._give(workers, [0.0 if worker is leaving else 1 / others for worker in workers])
            await asyncio.sleep(LAST_ACCEPTS)

    async def _give(self, workers: list[Worker], parts: Sequence[float] | None) -> None:
        self._parts, self._is_set = parts, True
        # Whoever it is sets it for all.
        now = self._clock()
        whose = min(workers, key=lambda worker: (worker.is_silent(now), worker.state is not State.READY))
        try:
            await whose.ask("spread", parts, within=1.0)
        except Unanswered as fault:
            self._is_set = False
            if not self._is_unheard:
                log.warning("new connections are not spread: %s", fault)
            self._is_unheard = True
        else:
            self._is_unheard = False
