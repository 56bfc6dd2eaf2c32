"""What one process of the load generator can take: ``python -m loadtest.bench``.

``loadtest.feeder`` plays a server that is always faster, on another core where there are two: it keeps a bounded number
of messages in flight, so that the generator is what is measured. Figures are per second of the clock and per second of
the generator's CPU; the latter is what one core could do if the feeder were never waited for.

Every frame is checked as in a run; as many are timed as a run would time at that rate.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from typing import Any

import gevent

from loadtest.dialect import Introduction, RawDialect
from loadtest.feeder import RUN, SIZE, feeding
from loadtest.ledger import Audience, Entry, Memory
from loadtest.opening import Opener, Route, resolve
from loadtest.options import OPTIONS
from loadtest.payload import Stream
from loadtest.swarm import Connection, Swarm
from loadtest.watch import raise_file_limit

PATIENCE = 60.0
_SETTLE = 0.5


@dataclass(frozen=True, slots=True)
class Reception:
    """How fast messages were received."""

    name: str
    connections: int
    batch: int
    per_second: float
    per_cpu_second: float
    cpu: float


@dataclass(frozen=True, slots=True)
class Connects:
    """How fast connections were opened, and how many were held at the end."""

    held: int
    per_second: float
    per_cpu_second: float


def _way(port: int) -> tuple[RawDialect, Route]:
    dialect = RawDialect(f"ws://127.0.0.1:{port}/ws/{{channel}}")
    return dialect, Route(*resolve(dialect.target(["x"])))


def _wait(condition: Callable[[], object]) -> None:
    """Let the hub run while the condition holds."""
    deadline = time.monotonic() + PATIENCE
    while condition():
        if time.monotonic() > deadline:
            raise TimeoutError(f"nothing more happened within {PATIENCE:g} s")
        gevent.sleep(0.01)


def receive(name: str, connections: int, batch: int, seconds: float, shared: bool = True) -> Reception:
    """Receive for ``seconds``: all connections on one channel, or each on its own."""
    with feeding(connections, batch, shared) as (port, taken):
        (dialect, route), opener = _way(port), Opener(max_opening=1)  # in order
        swarm, memory = Swarm(dialect), Memory()
        audiences = [
            Audience((number,), [Stream(RUN, 0, number, SIZE)], dialect.layout(SIZE, str), memory)
            for number in range(1 if shared else connections)
        ]
        opened: list[Connection] = []

        def done(sock: Any, outcome: bytes | str) -> None:
            assert isinstance(outcome, bytes), outcome
            audience = audiences[0 if shared else len(opened)]
            opened.append(swarm.adopt(sock, Entry(audience, late=False), outcome, lambda connection, code: None))

        for number in range(connections):
            opener.open(route, Introduction(dialect, [str(number)]), done)
        _wait(lambda: opener.pending)

        timed = next(option.default for option in OPTIONS if option.key == "timed")
        swarm.begin(time.monotonic_ns(), 1, timing=True)
        clock = gevent.get_hub().loop.timer(0.0005, 0.0005)
        clock.start(lambda: setattr(taken, "value", swarm.delivered()))
        gevent.sleep(_SETTLE)
        _wait(lambda: swarm.delivered() == 0)
        swarm.every = max(1, round(swarm.delivered() / _SETTLE / timed))
        before, wall, cpu = swarm.delivered(), time.monotonic(), time.process_time()
        gevent.sleep(seconds)
        _wait(lambda: swarm.delivered() == before)
        count, wall, cpu = swarm.delivered() - before, time.monotonic() - wall, time.process_time() - cpu
        clock.stop()
        clock.close()
        wrong = sum(1 for connection in opened if not connection.entry.is_clean)
        swarm.close()
        opener.abandon()
        assert not wrong, f"{wrong} connections received something wrong"
    return Reception(name, connections, batch, count / wall, count / cpu, 100 * cpu / wall)


def connect(count: int) -> Connects:
    """Open ``count`` connections and hold them."""
    with feeding(count, batch=0, shared=True) as (port, _):
        (dialect, route), opener = _way(port), Opener()
        sockets: list[Any] = []

        def done(sock: Any, outcome: bytes | str) -> None:
            assert isinstance(outcome, bytes), outcome
            sockets.append(sock)

        wall, cpu = time.monotonic(), time.process_time()
        for number in range(count):
            opener.open(route, Introduction(dialect, [str(number)]), done)
        _wait(lambda: opener.pending)
        wall, cpu = time.monotonic() - wall, time.process_time() - cpu
        opener.abandon()
        for sock in sockets:
            sock.close()
    return Connects(len(sockets), count / wall, count / cpu)


def run(seconds: float, connections: int) -> tuple[list[Reception], Connects]:
    """All measurements, one after the other."""
    soft, _ = raise_file_limit()
    receptions = [
        receive("one message per read", 500, 1, seconds),
        receive("one message per read, each client on its own channel", 500, 1, seconds, shared=False),
        receive("50 messages per read", 200, 50, seconds),
        receive("50 messages per read, each client on its own channel", 200, 50, seconds, shared=False),
        receive("200 messages per read", 200, 200, seconds),
    ]
    return receptions, connect(min(connections, soft - 200))


def main(arguments: list[str] | None = None) -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n\n", 1)[0])
    parser.add_argument("--seconds", type=float, default=3.0, help="of each reception (default 3)")
    parser.add_argument("--connections", type=int, default=10_000, help="to open and hold (default 10000)")
    parser.add_argument("--json", action="store_true", help="print JSON")
    options = parser.parse_args(arguments)
    receptions, connects = run(options.seconds, options.connections)
    if options.json:
        print(json.dumps({"reception": [asdict(each) for each in receptions], "connects": asdict(connects)}, indent=1))
        return 0
    print("\n".join(table(receptions, connects)))
    return 0


def table(receptions: list[Reception], connects: Connects) -> Iterator[str]:
    """The figures for a reader, a line at a time."""
    yield f"One generator process, messages of {SIZE} B, every one checked:"
    for each in receptions:
        yield (
            f"  {each.name:<55} {each.per_second:>12,.0f} /s  {each.per_cpu_second:>12,.0f} per CPU second "
            f"({each.cpu:.0f} % CPU)"
        )
    opened = f"{connects.held:,} connections opened and held"
    yield f"  {opened:<55} {connects.per_second:>12,.0f} /s  {connects.per_cpu_second:>12,.0f} per CPU second"


if __name__ == "__main__":
    sys.exit(main())
