"""The queues that a publication stands in: a line with one server, and a fan-out that writes what waits in one go.

Laws: pure; times are seconds, arrays ascend, and the same arguments give the same answer. It knows no server: what a
step costs is an argument (`bench.simulation` has what was measured).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Times = NDArray[np.float64]

#: At how many points of a fan-out its deliveries are looked at.
POINTS = 64


def line(arrivals: Times, service: float | Times) -> Times:
    """When each customer of a line with one server leaves it (first come, first served).

    Args:
        service: how long each takes, or all of them.
    """
    # Lindley's recursion, unrolled: a departure is the latest start of a busy period before it, and all services since.
    each: Times = np.broadcast_to(np.asarray(service, dtype=np.float64), arrivals.shape)
    served = np.cumsum(each)
    starts: Times = np.maximum.accumulate(arrivals - served + each)
    return starts + served


@dataclass(frozen=True, slots=True)
class Stage:
    """Somebody who hands each message to many: once at a time, and in one write to each what has come meanwhile.

    A round of k messages takes ``rounds + k * each + receivers * (write + (k - 1) * joined)`` seconds, or as long as
    the network takes for its bytes; what comes during a round waits for the next one. So a stage that is
    behind becomes cheaper per message, until ``each + receivers * joined`` alone is more than there is time for.
    Every ``every`` seconds it does something else for ``pause`` seconds, between two rounds.
    """

    receivers: int
    write: float  # to one receiver, however much
    joined: float  # each further message in it
    each: float = 0.0  # per message, whoever receives it
    rounds: float = 0.0  # per round: what is done beside
    head: float = 0.0  # the network's time per write
    wire: float = 0.0  # and per message in it
    pause: float = 0.0
    every: float = 1.0

    def round(self, messages: int) -> float:
        """How long it takes to hand out so many at once."""
        busy = self.rounds + messages * self.each + self.receivers * (self.write + (messages - 1) * self.joined)
        return max(busy, self.receivers * (self.head + messages * self.wire))

    @property
    def most(self) -> float:
        """Messages per second that it can hand out, however late."""
        return 1 / max(self.each + self.receivers * self.joined, self.receivers * self.wire)


@dataclass(frozen=True, slots=True)
class Rounds:
    """What a stage did: for each message when its round began and ended, and how long the stage was busy in all."""

    begins: Times
    ends: Times
    busy: float

    def at(self, share: float | Times) -> Times:
        """When the receivers up to this share (0 to 1) of them have their message."""
        return self.begins + share * (self.ends - self.begins)


def hand_out(arrivals: Times, stage: Stage) -> Rounds:
    """Let a stage hand out messages in the order of their arrival."""
    begins, ends = np.empty_like(arrivals), np.empty_like(arrivals)
    at, free, busy, total = 0, 0.0, 0.0, len(arrivals)
    pause = stage.every / 2 if stage.pause else np.inf
    while at < total:
        begin = max(free, float(arrivals[at]))
        while pause <= begin:
            busy += stage.pause
            begin = max(begin, max(pause, free) + stage.pause)
            pause += stage.every
        until = max(int(np.searchsorted(arrivals, begin, side="right")), at + 1)
        took = stage.round(until - at)
        free = begin + took
        begins[at:until], ends[at:until] = begin, free
        busy += took
        at = until
    return Rounds(begins, ends, busy)


def latencies(published: Times, rounds: Rounds) -> Times:
    """How long deliveries took since the publication, at evenly spread places among the receivers."""
    places = (np.arange(POINTS) + 0.5) / POINTS
    late: Times = (rounds.begins - published)[:, None] + places[None, :] * (rounds.ends - rounds.begins)[:, None]
    return late.ravel()


def poisson(rate: float, count: int, seed: int) -> Times:
    """So many arrivals at random, as from many publishers who know nothing of each other."""
    times: Times = np.cumsum(np.random.default_rng(seed).exponential(1 / rate, count))
    return times


def steady(rate: float, count: int) -> Times:
    """Arrivals at even distances, as the load test publishes."""
    times: Times = np.arange(count, dtype=np.float64) / rate
    return times


def percentile(values: Times, share: float) -> float:
    """The value that this share (0 to 100) of them does not exceed."""
    found: Any = np.percentile(values, share)
    return float(found)
