"""A million clients, simulated: ``python -m bench.simulation`` prints the tables that docs/scaling.md shows.

First the model is held against load tests of one machine (`bench.validation`); then it gets more nodes than there were.
What it knows: the processor time of each step, that what waits is written together, the network's rate, and that an
event loop does one thing at a time. What it does not: noisy neighbours, a collector's pauses, lost packets.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Final

import numpy as np

from bench.costs import COSTS, HEAD_BYTES, HOP, MESSAGE_BYTES, MS, PING_EVERY, SCRAPE_EVERY
from bench.queues import POINTS, Stage, Times, hand_out, latencies, percentile, poisson
from bench.reconnects import Backoff, Worker, storm
from bench.validation import validation

SEED: Final = 2026


@dataclass(frozen=True, slots=True)
class Plan:
    """So many clients on so many nodes."""

    name: str
    clients: int
    nodes: int
    workers: int  # of each node
    gigabits: float  # of each node's network

    @property
    def hearing(self) -> int:
        """Workers that hear a channel that all clients share."""
        return self.nodes * self.workers

    @property
    def each(self) -> int:
        """Clients of a worker."""
        return -(-self.clients // self.hearing)

    def worker(self) -> Stage:
        """A worker as a stage; its network is its part of the node's."""
        background = self.each / PING_EVERY * COSTS.ping
        slower = 1 / (1 - background)
        byte = 8 / (self.gigabits * 1e9 / self.workers)
        return Stage(
            receivers=self.each,
            write=COSTS.write * slower,
            joined=COSTS.joined * slower,
            each=COSTS.hear * slower,
            head=HEAD_BYTES * byte,
            wire=MESSAGE_BYTES * byte,
            pause=(COSTS.scrape + COSTS.scrape_client * self.each) * slower,
            every=SCRAPE_EVERY,
        )

    def redis(self) -> Stage:
        """Redis as a stage, whose receivers are the workers."""
        return Stage(
            receivers=self.hearing,
            write=COSTS.redis_write,
            joined=COSTS.redis_joined,
            each=COSTS.redis_script,
            rounds=COSTS.redis_turn,
        )


def plan_of(nodes: int) -> Plan:
    """A million clients on so many nodes of eight cores: seven workers each, one core for the kernel."""
    return Plan(f"{nodes} nodes", 1_000_000, nodes, workers=7, gigabits=10)


SIZES: Final = (12, 18, 36, 54)
#: Those that hold a p99 of 150 ms and of 50 ms.
PLANS: Final = (plan_of(18), plan_of(54))
RATES: Final = (1.0, 10.0, 30.0, 100.0)
BURST: Final = 100
PUBLICATIONS: Final = 3000


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a plan holds under a load: shares of capacity (0 to 1), seconds."""

    redis: float
    worker: float
    network: float
    p50: float
    p99: float
    last: float


def try_plan(plan: Plan, published: Times) -> Outcome:
    """Send publications through Redis to three workers: the first that it writes to, a middle one and the last."""
    redis = hand_out(published, plan.redis())
    late, ends, busy = [], [], 0.0
    for share in (0.0, 0.5, 1.0):
        rounds = hand_out(redis.at(share) + HOP, plan.worker())
        late.append(latencies(published, rounds))
        ends.append(float(rounds.ends[-1]))
        busy = rounds.busy
    everything = np.concatenate(late)
    assert everything.size == 3 * POINTS * published.size
    took = max(ends) - float(published[0])
    stage = plan.worker()
    wired = published.size * stage.receivers * stage.wire + np.unique(rounds.begins).size * stage.receivers * stage.head
    return Outcome(
        redis.busy / took, busy / took, float(wired) / took,
        percentile(everything, 50), percentile(everything, 99), max(ends) - float(published[-1]),
    )  # fmt: skip


def sizes() -> Iterator[str]:
    """The rows of how many nodes it takes."""
    heads = " | ".join(f"p99 at {rate:g}/s" for rate in RATES)
    yield f"| nodes | clients per worker | {heads} | {BURST} at once: the last after |"
    yield "|---|---|" + "---|" * (len(RATES) + 1)
    for nodes in SIZES:
        plan = plan_of(nodes)
        late = " | ".join(_time(try_plan(plan, poisson(rate, PUBLICATIONS, SEED)).p99) for rate in RATES)
        yield f"| {nodes} | {plan.each:,} | {late} | {_time(try_plan(plan, np.zeros(BURST)).last)} |"


def loads() -> Iterator[str]:
    """The rows of what is how busy."""
    yield "| publications | Redis | a worker | a node's network | p50 | p99 |"
    yield "|---|---|---|---|---|---|"
    for plan in PLANS:
        for rate in RATES:
            found = try_plan(plan, poisson(rate, PUBLICATIONS, SEED))
            shares = " | ".join(_share(share) for share in (found.redis, found.worker, found.network))
            yield f"| {plan.name}, {rate:g}/s | {shares} | {_time(found.p50)} | {_time(found.p99)} |"


# -- a node is lost ----------------------------------------------------------------------------------------------

SERVED_RATE: Final = 1.0
BACKOFFS: Final = (("by the SDKs' backoff", Backoff()), ("within 0.1 s", Backoff(0.05, 0.05)))


def losses() -> Iterator[str]:
    """The rows of what follows the loss of a node."""
    yield (
        "| who comes back | half are in | all are in | longest queue of a worker | p99 of those who stayed | "
        "p99 of a recovery at Redis | Redis' time for all |"
    )
    yield "|---|---|---|---|---|---|---|"
    for plan in PLANS:
        newcomers = plan.each * plan.workers
        worker = Worker(plan.each, SERVED_RATE, COSTS.write, COSTS.connect)
        for name, backoff in BACKOFFS:
            found = storm(newcomers, plan.hearing - plan.workers, backoff, worker, COSTS.redis_read, SEED)
            cells = (
                _time(found.half), _time(found.last), f"{found.backlog:,}", _time(found.served_p99),
                _time(found.recovered_p99), _time(found.broker_busy),
            )  # fmt: skip
            yield f"| {newcomers:,} of {plan.name}, {name} | {' | '.join(cells)} |"


#: Each part by its name, which marks its place in docs/scaling.md.
PARTS: Final[dict[str, Callable[[], Iterator[str]]]] = {
    "validation": validation,
    "sizes": sizes,
    "loads": loads,
    "losses": losses,
}


def tables() -> dict[str, str]:
    """All tables, as docs/scaling.md shows them."""
    return {name: "\n".join(rows()) for name, rows in PARTS.items()}


def _share(share: float) -> str:
    return "full" if share > 0.995 else f"{100 * share:.1f} %" if share < 0.1 else f"{100 * share:.0f} %"


def _time(seconds: float) -> str:
    return f"{seconds:.1f} s" if seconds >= 1 else f"{1000 * seconds:.0f} ms" if seconds >= MS else "under 1 ms"


if __name__ == "__main__":
    print("\n\n".join(tables().values()))
