"""Plain integers and bucket arrays: the only place where anything is counted.

Law, on every quiet moment: ``offered = sent + dropped + queued``, in messages.
Nothing here locks, logs or reads a clock; the metrics page reads these numbers when it is asked.
"""

from bisect import bisect_left
from collections import Counter
from collections.abc import Sequence
from enum import StrEnum
from functools import partial
from typing import Final


class Drop(StrEnum):
    """Why a message that was offered to a client was not sent to it."""

    QUEUE_FULL = "queue_full"
    CONFLATED = "conflated"
    DISCONNECTED = "disconnected"
    BUDGET = "budget"


SECONDS: Final = (
    0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0,
)  # fmt: skip
MESSAGES: Final = (0, 1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024, 2048, 4096)
BYTES: Final = (0, 1024, 4096, 16384, 65536, 262144, 1048576, 4194304, 16777216)


class Histogram:
    """Counts per bucket, upper bounds included, with one more bucket for what is above the last bound."""

    __slots__ = ("bounds", "counts", "sum")

    def __init__(self, bounds: Sequence[float]) -> None:
        self.bounds = tuple(bounds)
        self.counts = [0] * (len(self.bounds) + 1)
        self.sum = 0.0

    def observe(self, value: float, times: int = 1) -> None:
        """Count `value`, in the unit of the bounds, `times` times."""
        self.counts[bisect_left(self.bounds, value)] += times
        self.sum += value * times

    def observe_each(self, values: Sequence[float]) -> None:
        """Count many values once each."""
        for place, times in Counter(map(partial(bisect_left, self.bounds), values)).items():
            self.counts[place] += times
        self.sum += sum(values)

    @property
    def count(self) -> int:
        return sum(self.counts)


class Counters:
    """Everything one process counts, since it started."""

    __slots__ = (
        "batch_messages", "bytes_received", "bytes_sent", "closed", "delivery_latency", "dropped", "event_loop_lag",
        "fanout_duration", "gc_pause", "handshake_duration", "keepalive_spared", "observed", "offered", "opened",
        "ping_rtt", "publish_to_write", "published", "received", "refused", "rejected", "sent", "slow_disconnects",
    )  # fmt: skip

    def __init__(self) -> None:
        self.published = 0
        self.received = 0
        # What the broker did not take, of clients whose dialect has no answers.
        self.refused = 0
        self.bytes_received = 0
        self.offered = 0
        self.sent = 0
        self.bytes_sent = 0
        self.dropped: dict[Drop, int] = dict.fromkeys(Drop, 0)
        self.opened = 0
        self.closed: Counter[str] = Counter()
        self.rejected: Counter[str] = Counter()
        self.slow_disconnects = 0
        # What the lag policy would have done, had it been enforced (lag_policy_mode = observe).
        self.observed = 0
        # Whose time to answer a ping was longer than the clock says, because we were late ourselves.
        self.keepalive_spared = 0
        self.handshake_duration = Histogram(SECONDS)
        self.fanout_duration = Histogram(SECONDS)
        self.publish_to_write = Histogram(SECONDS)
        self.batch_messages = Histogram(MESSAGES[1:])
        # From a publication to its being read, of those clients that are asked; the way back is in it.
        self.delivery_latency = Histogram(SECONDS)
        self.ping_rtt = Histogram(SECONDS)
        self.event_loop_lag = Histogram(SECONDS)
        self.gc_pause = Histogram(SECONDS)
