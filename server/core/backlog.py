"""What all clients of this process together have not taken yet, and the budget for it.

Laws: ``messages`` and ``bytes`` are the sums over all outboxes; the budget throws out the heaviest laggard first, and
no more of them than needed. Knows outboxes, not sockets: it says who must go, the edge closes.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from server.core.counters import Counters, Drop

if TYPE_CHECKING:
    from server.core.outbox import Outbox


class Backlog:
    """The sum of the outboxes, the clients that lag, and those that must be disconnected."""

    __slots__ = ("_counters", "_on_observed", "budget", "bytes", "evictions", "laggards", "messages", "offers")

    def __init__(self, counters: Counters, budget: int, on_observed: Callable[[object], object]) -> None:
        self.messages = 0
        self.bytes = 0
        self.budget = budget
        self.offers = 0  # how often a subscription was offered a batch instead of being written to
        # In the order in which they fell behind: a dict, since clients also leave from the middle.
        self.laggards: dict[Outbox, None] = {}
        self.evictions: list[tuple[Outbox, str]] = []
        self._counters = counters
        self._on_observed = on_observed

    def sent(self, messages: int, size: int) -> None:
        self._counters.sent += messages
        self._counters.bytes_sent += size

    def drop(self, reason: Drop, messages: int) -> None:
        self._counters.dropped[reason] += messages

    def observe(self, outbox: Outbox) -> None:
        """Note that the policy would have acted on `outbox`, were it enforced."""
        self._counters.observed += 1
        self._on_observed(outbox.owner)

    def enforce_budget(self) -> None:
        """Empty the heaviest outboxes, and mark their clients for disconnection, until the rest fits the budget."""
        if self.bytes <= self.budget:
            return
        for outbox in sorted(self.laggards, key=lambda laggard: laggard.bytes, reverse=True):
            if not outbox.overflowed:
                outbox.overflowed = True
                outbox.discard(Drop.BUDGET)
                self.evictions.append((outbox, "memory budget"))
            if self.bytes <= self.budget:
                return

    def take_evictions(self) -> list[tuple[Outbox, str]]:
        """Hand over the clients that must be disconnected, each once, and why."""
        evictions, self.evictions = self.evictions, []
        return evictions
