"""The model of `bench.queues` with the measured costs, held against load tests of one machine."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

import numpy as np

from bench.costs import COSTS, MS, PING_EVERY
from bench.queues import Rounds, Stage, Times, hand_out, line, percentile, steady


@dataclass(frozen=True, slots=True)
class Measured:
    """One load test (medians): server on one core, load on another, nothing else running on them."""

    what: str
    clients: int
    rate: float
    cpu: float  # % of a core, all processes of the server
    p50: float  # ms
    p90: float
    p99: float
    processes: int = 1
    hearing: int = 0  # workers that hear every publication from a broker
    relays: int = 0  # supervisors on the way
    redis: bool = False


MEASURED: Final = (
    Measured("one worker", 1000, 10, 10.4, 5.3, 9.0, 11.6),
    Measured("one worker", 1000, 50, 48.2, 5.6, 10.2, 15.0),
    Measured("one worker", 1000, 75, 63.5, 6.3, 11.1, 22.6),
    Measured("one worker", 2000, 20, 37.6, 10.4, 18.6, 24.1),
    Measured("one worker", 3000, 10, 32.2, 15.1, 28.0, 43.9),
    Measured("two workers", 1000, 50, 50.2, 6.1, 10.1, 22.3, processes=3, hearing=2, relays=1),
    Measured("two workers", 2000, 20, 39.7, 9.5, 17.5, 26.8, processes=3, hearing=2, relays=1),
    Measured("two workers", 3000, 10, 33.4, 15.7, 28.3, 39.5, processes=3, hearing=2, relays=1),
    Measured("two nodes over Redis", 1000, 50, 45.1, 6.2, 11.5, 27.5, processes=2, hearing=2, redis=True),
    Measured("two nodes over Redis", 2000, 20, 35.4, 8.9, 17.1, 30.4, processes=2, hearing=2, redis=True),
    Measured("two nodes over Redis", 3000, 10, 31.4, 15.7, 29.0, 42.4, processes=2, hearing=2, redis=True),
)


@dataclass(frozen=True, slots=True)
class Predicted:
    """What the model says of the same."""

    cpu: float
    p50: float
    p90: float
    p99: float


def predict(point: Measured, seconds: float = 20.0) -> Predicted:
    """Simulate a load test, its generator included; everything of the server is on one core."""
    published = steady(point.rate, int(point.rate * seconds))
    each = point.relays * COSTS.relay + point.hearing * COSTS.hear
    if point.redis:
        each += COSTS.redis_turn + COSTS.redis_script + 2 * COSTS.redis_write
    stage = Stage(
        receivers=point.clients,
        write=COSTS.write,
        joined=COSTS.joined,
        each=each,
        pause=point.processes * COSTS.scrape + COSTS.scrape_client * point.clients,
        every=1.0,  # the load test reads the counters each second
    )
    rounds = hand_out(published, stage)
    pings = point.clients / PING_EVERY * COSTS.ping
    late = np.sort(_read(published, rounds, point.clients))
    return Predicted(
        100 * (rounds.busy / float(rounds.ends[-1]) + pings),
        *(percentile(late, share) / MS for share in (50, 90, 99)),
    )


def _read(published: Times, rounds: Rounds, clients: int) -> Times:
    """How late a generator on one core reads what the server has written; it, too, is a line."""
    begins, sizes = np.unique(rounds.begins, return_counts=True)
    spans = np.unique(rounds.ends) - begins
    places = (np.arange(clients) + 1) / clients
    written = (begins[:, None] + places[None, :] * spans[:, None]).ravel()
    service = np.repeat(COSTS.generator + COSTS.generator_joined * sizes, clients)
    read = line(written, service).reshape(len(begins), clients)
    late: Times = np.repeat(read, sizes, axis=0) - published[:, None]
    return late.ravel()


#: What both have, and its unit.
FIGURES: Final = {"cpu": "%", "p50": "ms", "p90": "ms", "p99": "ms"}


def validation() -> Iterator[str]:
    """The rows of the model beside the measurements."""
    yield "| load test (measured / model) | CPU | p50 | p90 | p99 |"
    yield "|---|---|---|---|---|"
    for point in MEASURED:
        found = predict(point)
        cells = " | ".join(
            f"{getattr(point, name):.0f} / {getattr(found, name):.0f} {unit}" for name, unit in FIGURES.items()
        )
        yield f"| {point.what}, {point.clients:,} clients, {point.rate:g}/s | {cells} |"
