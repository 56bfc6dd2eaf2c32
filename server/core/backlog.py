"""What all clients of this process together have not taken yet, and the budget for it.

Laws: ``messages`` and ``bytes`` are the sums over all outboxes; the budget is for what waits for laggards, throws out
the heaviest of them first, and no more than needed. In a brown-out the ceiling is lower than the budget, and who lags
is spared. Knows outboxes, not sockets: it says who must go, the edge closes.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from server.core.counters import Counters, Drop
from server.core.policies import POLICIES, SPARING

if TYPE_CHECKING:
    from server.core.batch import Batch
    from server.core.channel import Channel
    from server.core.outbox import Outbox


class Backlog:
    """The sum of the outboxes, the clients that lag, and those that must be disconnected."""

    __slots__ = (
        "_counters", "_on_observed", "budget", "bytes", "ceiling", "dirty", "evictions", "gaps", "laggards", "messages",
        "offers", "policies",
    )  # fmt: skip

    def __init__(self, counters: Counters, budget: int, on_observed: Callable[[object], object]) -> None:
        self.messages = 0
        self.bytes = 0
        self.budget = budget
        self.ceiling: float = budget  # what may wait for laggards now
        self.policies = POLICIES  # what becomes of those who lag now
        self.offers = 0  # how often a subscription was offered a batch instead of being written to
        # In the order in which they fell behind: a dict, since clients also leave from the middle.
        self.laggards: dict[Outbox, None] = {}
        self.evictions: list[tuple[Outbox, str]] = []
        # Whose stream of which channel a policy has broken off; a dict, so that each is told once, and in order.
        self.gaps: dict[tuple[Outbox, Channel], None] = {}
        # Who keeps up and has gathered something that is not written yet, in that order: a dict, to add many at once.
        self.dirty: dict[Outbox, None] = {}
        self._counters = counters
        self._on_observed = on_observed

    def sent(self, messages: int, size: int) -> None:
        self._counters.sent += messages
        self._counters.bytes_sent += size

    def written(self, messages: int, size: int) -> None:
        """Note that so much was taken out, and is sent."""
        self.messages -= messages
        self.bytes -= size
        self.sent(messages, size)

    def gather(self, outboxes: Sequence[Outbox], batch: Batch) -> None:
        """Put a batch into these outboxes, of clients that keep up, and have the hub drain them.

        This is done for each delivery to a client on several channels: no call for each.
        """
        for outbox in outboxes:
            outbox.gathered.append(batch)
        self.messages += len(batch) * len(outboxes)
        self.bytes += len(batch.wire) * len(outboxes)
        self.dirty.update(dict.fromkeys(outboxes))

    def drop(self, reason: Drop, messages: int) -> None:
        self._counters.dropped[reason] += messages

    def observe(self, outbox: Outbox) -> None:
        """Note that the policy would have acted on `outbox`, were it enforced."""
        self._counters.observed += 1
        self._on_observed(outbox.owner)

    @property
    def fill(self) -> float:
        """What part of the budget is taken."""
        return self.bytes / self.budget

    def shed(self, *, spare: bool, share: float) -> None:
        """Let laggards hold only a `share` of the budget from now on; `spare`: only the latest, where that may be."""
        self.policies = SPARING if spare else POLICIES
        self.ceiling = share * self.budget

    def enforce_budget(self) -> None:
        """Empty the heaviest outboxes, and mark their clients for disconnection, until the rest has room."""
        if self.bytes <= self.ceiling:
            return
        # What is gathered for those who keep up goes out with the end of the turn.
        waiting = sum(outbox.bytes for outbox in self.laggards)
        if waiting <= self.ceiling:
            return
        for outbox in sorted(self.laggards, key=lambda laggard: laggard.bytes, reverse=True):
            if not outbox.overflowed:
                waiting -= outbox.bytes
                outbox.overflowed = True
                outbox.discard(Drop.BUDGET)
                self.evictions.append((outbox, "memory budget"))
            if waiting <= self.ceiling:
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
