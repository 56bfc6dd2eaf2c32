"""From one worker to another through the supervisor's exchange, and nothing else: ``python -m bench.hop``.

The exchange in a process of its own on the first core; two workers' brokers in this one, on the last. One publishes at
a steady rate, both hear. Printed are the time from publish to the other worker's ear, and the CPU that the exchange's
process needs for each publication: what `bench.workers` measures with a whole server around it, four processes on two
cores.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import socket
import subprocess
import sys
import time

import uvloop

from bench.channels import cpu
from bench.pace import steadily
from server.brokers.base import PLAIN, Published, Retention, Terms
from server.brokers.link import Fields, Kind, Link
from server.brokers.local import LocalBroker
from server.core.publication import Publication
from server.supervisor.exchange import Exchange
from server.worker import calm_the_collector

SIZE = 128
CHANNEL = "bench"


async def exchange(sockets: list[socket.socket]) -> None:
    """Be the exchange of the workers at the other ends of these sockets, until one of them is gone."""
    between, gone = Exchange(time.monotonic, time.time), asyncio.Event()
    for sock in sockets:
        link = Link(between.take, lambda _: gone.set())
        between.enter(link)
        await link.open(sock)
    calm_the_collector()
    await gone.wait()


class Worker:
    """A worker's end: a broker, and an ear that notes how late things come."""

    def __init__(self) -> None:
        self.link = Link(self._take, lambda _: None)
        self.broker = LocalBroker(self, self.link, lambda channel, relieve: None, time.monotonic)
        self.late: list[int] = []

    def _take(self, link: Link, kind: Kind, fields: Fields, body: bytes) -> None:
        self.broker.take(kind, fields, body)

    def hear(self, channel: str, publication: Publication, epoch: str) -> bool:
        self.late.append(time.monotonic_ns() - int(publication.payload[:20]))
        return True

    def hear_join(self, *_: object) -> None:
        """Nobody joins."""

    hear_leave = lost = hear_join


async def load(sockets: list[socket.socket], pid: int, rate: int, seconds: float, terms: Terms) -> str:
    """Publish for so long; return what there is to say."""
    workers = [Worker() for _ in sockets]
    answered, loop = 0, asyncio.get_running_loop()
    for worker, sock in zip(workers, sockets, strict=True):
        await worker.link.open(sock)
        subscribed = loop.create_future()
        worker.broker.subscribe(CHANNEL, subscribed.set_result)
        await subscribed

    def done(answer: object) -> None:
        nonlocal answered
        assert isinstance(answer, Published), answer
        answered += 1

    def say() -> None:
        payload = (b"%020d" % time.monotonic_ns()).ljust(SIZE, b".")
        workers[0].broker.publish(CHANNEL, Publication(payload), terms, done)

    before = cpu(pid)
    sent = await steadily(rate, seconds, say)
    deadline = time.monotonic() + 10
    while answered < sent or any(len(worker.late) < sent for worker in workers):
        assert time.monotonic() < deadline, "publications were lost"
        await asyncio.sleep(0.01)
    spent, late = cpu(pid) - before, sorted(workers[1].late)
    for worker in workers:
        worker.link.close()
    return (
        f"{rate:,} publications/s, {'kept' if terms.retention.keeps else 'not kept'}: "
        f"hop p50 {late[len(late) // 2] / 1e6:.2f} ms, p99 {late[int(len(late) * 0.99)] / 1e6:.2f} ms, "
        f"exchange {spent / sent * 1e6:.1f} us CPU for each publication"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n\n", 1)[0])
    parser.add_argument("--rates", type=int, nargs="+", default=[2000, 5000, 10_000, 20_000])
    parser.add_argument("--seconds", type=float, default=5.0)
    parser.add_argument("--exchange", type=int, nargs="+", metavar="FD", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.exchange:
        uvloop.run(exchange([socket.socket(fileno=number) for number in given.exchange]))
        return
    cores = os.sched_getaffinity(0)
    for rate in given.rates:
        for terms in (PLAIN, Terms(Retention(100, 60))):
            ours, theirs = zip(*(socket.socketpair() for _ in range(2)), strict=True)
            numbers = [sock.fileno() for sock in theirs]
            process = subprocess.Popen(
                [sys.executable, "-m", "bench.hop", "--exchange", *map(str, numbers)], pass_fds=numbers
            )
            for sock in theirs:
                sock.close()
            os.sched_setaffinity(process.pid, {min(cores)})
            os.sched_setaffinity(0, {max(cores)})
            try:
                print(uvloop.run(load(list(ours), process.pid, rate, given.seconds, terms)), flush=True)
            finally:
                os.sched_setaffinity(0, cores)
                process.terminate()
                process.wait()


if __name__ == "__main__":
    main()
