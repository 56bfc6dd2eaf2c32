"""What one process says of itself now, for whoever watches: rates, queues, the laggards, who has left.

Laws: nothing is counted for a watcher that is not counted anyway, but which channels are heard, and that only while
somebody watches; a look takes half a millisecond, and no more than a few however many clients, laggards and channels
there are. Everything in it may travel as JSON.
"""

from __future__ import annotations

import os
import time
from collections import Counter, deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from heapq import nlargest
from itertools import islice
from operator import itemgetter
from typing import Any, Final

from server.admin import debug
from server.admin.broker_metrics import Contact
from server.core.counters import Histogram
from server.edge.listener import Listener

# How many of each list are told.
MOST_CHANNELS: Final = 20
MOST_SLOW: Final = 20
MOST_LEFT: Final = 20
# How many channels of one second are ranked by deliveries: those with most publications.
MOST_RANKED: Final = 200
# Over how many looks (seconds) figures are taken that one second has too little of.
CHANNEL_LOOKS: Final = 5
LAG_LOOKS: Final = 10
LATENCY_LOOKS: Final = 60
# Looks that are closer together than this, in seconds, count as so far apart.
SHORTEST: Final = 0.01

_STATM: Final = "/proc/self/statm"

Look = dict[str, Any]


def quantile(bounds: Sequence[float], counts: Sequence[int], share: float) -> float | None:
    """Estimate the value that `share` of what was observed is at or below; None when nothing was.

    `counts` are those of a `Histogram` with these `bounds`. Inside a bucket observations are taken to lie evenly; above
    the last bound all that is known is that.
    """
    rank = share * sum(counts)
    if not rank:
        return None
    below, passed = 0.0, 0
    for bound, count in zip(bounds, counts, strict=False):
        if count and passed + count >= rank:
            return below + (bound - below) * (rank - passed) / count
        below, passed = bound, passed + count
    return bounds[-1]


class Recent:
    """What a histogram has counted in the last few looks."""

    def __init__(self, histogram: Histogram, looks: int) -> None:
        self._histogram = histogram
        self._seen = list(histogram.counts)
        self._news: deque[list[int]] = deque(maxlen=looks)

    def look(self) -> list[int]:
        """Return the counts, per bucket."""
        counts = list(self._histogram.counts)
        self._news.append([new - old for new, old in zip(counts, self._seen, strict=True)])
        self._seen = counts
        return [sum(bucket) for bucket in zip(*self._news, strict=True)]


@dataclass(frozen=True, slots=True)
class _Moment:
    """Where the counters stood; `at` in seconds of the clock."""

    at: float
    cpu: float
    counts: dict[str, int]

    def rates_since(self, before: _Moment) -> dict[str, float]:
        """Return how much each count has grown per second."""
        seconds = max(SHORTEST, self.at - before.at)
        return {name: (count - before.counts[name]) / seconds for name, count in self.counts.items()}

    def share_since(self, before: _Moment) -> float:
        """Return how much of one core the process has used."""
        return (self.cpu - before.cpu) / max(SHORTEST, self.at - before.at)


class Vitals:
    """One process as seen by a watcher, who looks about once a second; `rest` when nobody does any more.

    `clock` and `cpu_clock` are in seconds; the latter says how long this process has worked.
    """

    def __init__(
        self,
        listener: Listener,
        clock: Callable[[], float] = time.monotonic,
        cpu_clock: Callable[[], float] = time.process_time,
    ) -> None:
        self._listener = listener
        self._clock = clock
        self._cpu_clock = cpu_clock
        self._before: _Moment | None = None
        self._heard: deque[dict[str, int]] = deque(maxlen=CHANNEL_LOOKS)
        self._lag: Recent
        self._latency: Recent
        self._looked_at = 0.0

    def look(self) -> Look:
        """Tell how things are; rates and what else takes two looks is None at the first."""
        listener, now = self._listener, self._clock()
        before = self._before
        if before is None:
            self._begin()
        moment = self._before = self._moment(now)
        self._looked_at = now
        lag = self._lag.look()
        return {
            "connections": dict(listener.open_by_dialect),
            "max_connections": listener.gate.max_connections,
            "subscriptions": listener.hub.subscriptions,
            "channels": len(listener.node.audiences),
            "lagging": len(listener.backlog.laggards),
            "queue_bytes": listener.backlog.bytes,
            "max_queue_bytes": listener.backlog.budget,
            "rates": moment.rates_since(before) if before is not None else None,
            "cpu": moment.share_since(before) if before is not None else None,
            "memory": _resident(),
            "loop_lag": quantile(listener.counters.event_loop_lag.bounds, lag, 0.99),
            "latency": self._latency.look(),
            "brownout": listener.gate.brownout,
            "broker": _broker(listener),
            "busiest": self._busiest() if before is not None else [],
            "slow": debug.slow(listener, now, MOST_SLOW),
            "left": [debug.departure(entry) for entry in islice(listener.recorder, MOST_LEFT)],
        }

    def rest(self) -> None:
        """Count nothing for a watcher any more, and forget what was before. Idempotent."""
        self._listener.node.traffic = None
        self._before = None
        self._heard.clear()

    def rest_unless_watched(self, within: float) -> None:
        """Rest, if nobody has looked for `within` seconds. Idempotent."""
        if self._before is not None and self._clock() - self._looked_at > within:
            self.rest()

    def _begin(self) -> None:
        counters = self._listener.counters
        self._listener.node.traffic = {}
        self._lag = Recent(counters.event_loop_lag, LAG_LOOKS)
        self._latency = Recent(counters.delivery_latency, LATENCY_LOOKS)

    def _moment(self, now: float) -> _Moment:
        counters = self._listener.counters
        counts = {
            "published": counters.published,
            "received": counters.received,
            "sent": counters.sent,
            "bytes_sent": counters.bytes_sent,
            "dropped": sum(counters.dropped.values()),
            "opened": counters.opened,
            "closed": counters.closed.total(),
            "rejected": counters.rejected.total(),
            "slow_disconnects": counters.slow_disconnects,
        }
        return _Moment(now, self._cpu_clock(), counts)

    def _busiest(self) -> list[Look]:
        """List the channels that were heard most in the last looks, by deliveries: those to who listens now."""
        node = self._listener.node
        assert node.traffic is not None, "it is counted from the first look on"
        traffic, node.traffic = node.traffic, {}
        if len(traffic) > MOST_RANKED:
            traffic = dict(sorted(traffic.items(), key=itemgetter(1), reverse=True)[:MOST_RANKED])
        self._heard.append(traffic)
        heard: Counter[str] = Counter()
        for each in self._heard:
            heard.update(each)
        listeners = {
            channel: sum(lane.listeners for lane in node.audiences[channel].lanes.values())
            for channel in heard
            if channel in node.audiences
        }
        busiest = nlargest(MOST_CHANNELS, listeners, key=lambda name: (heard[name] * listeners[name], heard[name]))
        looks = len(self._heard)
        return [{"channel": name, "listeners": listeners[name], "published": heard[name] / looks} for name in busiest]


def _broker(listener: Listener) -> Look:
    """Tell how the broker is; one in this process has nothing on its way that could be lost."""
    broker = listener.node.broker
    if not isinstance(broker, Contact):
        return {"is_remote": False, "is_up": broker.is_up, "reconnects": 0, "gaps": 0, "lost": 0}
    return {
        "is_remote": True,
        "is_up": broker.is_up,
        "reconnects": broker.reconnects,
        "gaps": broker.gaps,
        "lost": broker.lost,
    }


def _resident() -> int | None:
    """Return the process's memory in bytes; None where the machine does not tell."""
    try:
        with open(_STATM, "rb") as file:
            return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except (OSError, ValueError, IndexError):
        return None
