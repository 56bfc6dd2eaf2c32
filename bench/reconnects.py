"""What happens when a node is lost: its clients come to the others, which go on serving theirs.

A turn of a worker's event loop: it accepts one connection and, if a fan-out is under way, writes one slice of it; so
those who are served are late by what the newcomers cost, and the newcomers wait for the slices. Whoever is in recovers
from the broker, which is one line for all workers of all nodes.

Laws: pure, as `bench.queues`.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from bench.queues import Times, line, percentile


@dataclass(frozen=True, slots=True)
class Backoff:
    """How the SDKs come back: after a random part of a delay, which doubles with each failure."""

    least: float = 0.5
    most: float = 20.0

    def delays(self, clients: int, failures: int, seed: int) -> Times:
        """When each of so many clients tries, after so many tries that failed (seconds since the loss)."""
        chance = np.random.default_rng(seed)
        total: Times = np.zeros(clients)
        for attempt in range(failures + 1):
            total += chance.random(clients) * min(self.most, self.least * 2.0**attempt)
        return total


@dataclass(frozen=True, slots=True)
class Worker:
    """What a worker has to do besides: `clients` whom it serves, at `rate` publications per second."""

    clients: int
    rate: float
    write: float  # seconds per client
    connect: float  # seconds per newcomer
    slice: int = 512  # clients between two looks at the event loop


@dataclass(frozen=True, slots=True)
class Storm:
    """How it went, in seconds."""

    half: float  # until half of the newcomers were in
    most: float  # 99 % of them
    last: float
    served_p99: float  # a delivery to those who had been there, while the storm lasts
    backlog: int  # newcomers who waited to be accepted, at most
    recovered_p99: float  # from being in until the broker has answered
    broker_busy: float  # seconds of the broker's time, for all


def storm(newcomers: int, workers: int, backoff: Backoff, worker: Worker, read: float, seed: int = 1) -> Storm:
    """Let so many newcomers come to so many workers, who each recover with one read of `read` seconds."""
    chance = np.random.default_rng(seed)
    tries = np.sort(backoff.delays(newcomers, 1, seed))  # the first finds the old node, or a balancer's dead server
    at = chance.integers(0, workers, newcomers)
    # All workers are alike: the fullest one is looked at turn by turn, the others are as far as it is.
    fullest = int(np.argmax(np.bincount(at, minlength=workers)))
    accepted, late, backlog = _turns(tries[at == fullest], worker)
    waits = np.interp(tries, tries[at == fullest], accepted - tries[at == fullest])
    everyone = np.sort(tries + waits)
    answered = line(everyone, read)
    return Storm(
        half=percentile(everyone, 50),
        most=percentile(everyone, 99),
        last=float(everyone[-1]),
        served_p99=percentile(late, 99),
        backlog=backlog,
        recovered_p99=percentile(answered - everyone, 99),
        broker_busy=newcomers * read,
    )


def _turns(tries: Times, worker: Worker) -> tuple[Times, Times, int]:
    """Turn an event loop until all are in: when each was, how late the slices of fan-outs were, the longest queue."""
    accepted = np.empty_like(tries)
    late: list[float] = []
    now, done, most = 0.0, 0, 0
    due, written = 0.0, 0  # the fan-out under way: when it was published, and how far it is
    while done < len(tries):
        waiting = int(np.searchsorted(tries, now, side="right")) - done
        most = max(most, waiting)
        if written >= worker.clients and due + 1 / worker.rate <= now:
            due, written = due + 1 / worker.rate, 0
        began = now
        if waiting:
            now += worker.connect
            accepted[done] = now
            done += 1
        if written < worker.clients:
            step = min(worker.slice, worker.clients - written)
            now += step * worker.write
            written += step
            late.append(now - due)
        if now == began:
            now = min(due + 1 / worker.rate, float(tries[done]))  # nothing to do until then
    return accepted, np.array(late or [0.0]), most
