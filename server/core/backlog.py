"""What all clients of this process together have not taken yet, and the budget for it.

Laws: ``messages`` and ``bytes`` are the sums over all outboxes; the budget is for what waits for laggards, throws out
the heaviest of them first, and no more than needed. Knows outboxes, not sockets: it says who must go, the edge closes.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING

from server.core.counters import Counters, Drop

if TYPE_CHECKING:
    from server.core.channel import Channel
    from server.core.outbox import Outbox


class Backlog:
    """The sum of the outboxes, the clients that lag, and those that must be disconnected."""

    __slots__ = (
        "_counters", "_on_observed", "budget", "bytes", "dirty", "evictions", "gaps", "laggards", "messages", "offers",
    )  # fmt: skip

    def __init__(self, counters: Counters, budget: int, on_observed: Callable[[object], object]) -> None:
        self.messages = 0
        self.bytes = 0
        self.budget = budget
        self.offers = 0  # how often a subscription was offered a batch instead of being written to
        # In the order in which they fell behind: a dict, since clients also leave from the middle.
        self.laggards: dict[Outbox, None] = {}
        self.evictions: list[tuple[Outbox, str]] = []
        # Whose stream of which channel a policy has broken off; a dict, so that each is told once, and in order.
        self.gaps: dict[tuple[Outbox, Channel], None] = {}
        # Who keeps up and has gathered something in this turn, in that order.
        self.dirty: deque[Outbox] = deque()
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
        # What is gathered for those who keep up goes out with the end of the turn.
        waiting = sum(outbox.bytes for outbox in self.laggards)
        if waiting <= self.budget:
            return
        for outbox in sorted(self.laggards, key=lambda laggard: laggard.bytes, reverse=True):
            if not outbox.overflowed:
                waiting -= outbox.bytes
                outbox.overflowed = True
                outbox.discard(Drop.BUDGET)
                self.evictions.append((outbox, "memory budget"))
            if waiting <= self.budget:
                return

    def take_evictions(self) -> list[tuple[Outbox, str]]:
        """Hand over the clients that must be disconnected, each once, and why."""
        evictions, self.evictions = self.evictions, []
        return evictions

    def take_gaps(self) -> list[tuple[Outbox, Channel]]:
        """Hand over the streams that were broken off, each once."""
        if not self.gaps:
            return []
        gaps, self.gaps = self.gaps, {}
        return list(gaps)
